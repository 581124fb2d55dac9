"""`curate app`: serves the dashboard with Streamlit, on this machine alone unless asked otherwise."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from curate.errors import ConfigError
from curate.progress import say

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")

#: Colours of the pages; figures take text and background from them.
_THEME = {
    "theme.primaryColor": "#3B7DC4",
    "theme.baseRadius": "medium",
    "theme.showSidebarBorder": "true",
    "theme.light.backgroundColor": "#ffffff",
    "theme.light.secondaryBackgroundColor": "#f4f6f8",
    "theme.light.textColor": "#1b1f24",
    "theme.light.borderColor": "#dfe3e8",
    "theme.dark.backgroundColor": "#15181c",
    "theme.dark.secondaryBackgroundColor": "#1e2227",
    "theme.dark.textColor": "#e7e9ec",
    "theme.dark.borderColor": "#333a42",
}


def open_app(
    runs: Annotated[list[Path] | None, typer.Argument(metavar="[RUN]…", help="Folders of runs.")] = None,
    port: Annotated[int, typer.Option(help="Where it is served; 0: any free port.")] = 8501,
    address: Annotated[str, typer.Option(help="Address to serve on; others than this machine's are open to all.")] = (
        "127.0.0.1"
    ),
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="A name that browsers may reach it under; may be repeated.")
    ] = None,
    root: Annotated[
        list[Path] | None,
        typer.Option(help="A folder in which runs and data may be opened; may be repeated; default: this one."),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Let nobody decide or start anything.")] = False,
) -> None:
    """Open the dashboard of one or more runs in the browser."""
    if importlib.util.find_spec("streamlit") is None:
        raise ConfigError("the dashboard needs Streamlit: pip install 'gamma-curate[app]'")
    from curate.workspace import Workspace

    workspace = Workspace.of(runs or [], root or [Path()], read_only=read_only)
    settings = server_settings(address, port, allowed_host or [])
    if not _is_local(address):
        say(
            f"serving on {address}: whoever reaches this machine can read the data, and decide unless it is --read-only"
        )
    main = importlib.util.find_spec("app.main")
    if main is None or main.origin is None:
        raise ConfigError("the dashboard's files are missing: install gamma-curate again")
    flags = [f"--{name}={value}" for name, value in settings]
    # -P: a folder or file in the current folder must not stand for a library
    command = [sys.executable, "-P", "-m", "streamlit", "run", main.origin, *flags]
    os.execvpe(command[0], command, {**os.environ, **workspace.variables()})


def server_settings(address: str, port: int, allowed_hosts: list[str]) -> list[tuple[str, str]]:
    """Streamlit's settings, all of them as flags, since its file depends on the current folder.

    Raises:
        ConfigError: nothing says under which name an address for all networks is reached.
    """
    hosts = [*_LOCAL_HOSTS, *allowed_hosts]
    if not _is_local(address):
        if not allowed_hosts and _is_any(address):
            raise ConfigError(f"--address {address}: say with --allowed-host under which name browsers reach it")
        hosts.append(address)
    return [
        ("server.address", address),
        ("server.port", str(port)),
        *(("server.allowedHosts", host) for host in dict.fromkeys(hosts)),
        ("server.enableCORS", "true"),
        ("server.enableXsrfProtection", "true"),
        ("server.fileWatcherType", "none"),
        ("server.showEmailPrompt", "false"),
        ("browser.gatherUsageStats", "false"),
        ("client.showErrorDetails", "none"),
        ("client.toolbarMode", "viewer"),
        *_THEME.items(),
    ]


def _is_local(address: str) -> bool:
    return address in _LOCAL_HOSTS or (_is_ip(address) and ipaddress.ip_address(address).is_loopback)


def _is_any(address: str) -> bool:
    return _is_ip(address) and ipaddress.ip_address(address).is_unspecified


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True
