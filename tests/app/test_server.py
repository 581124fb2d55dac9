"""The server that `curate app` starts: who may talk to it, and what a browser asks of others."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from curate.cli import app as typer_app
from curate.cli_app import server_settings
from curate.errors import ConfigError, RunError
from curate.workspace import Workspace

websockets = pytest.importorskip("websockets.sync.client", reason="websockets is not installed")

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PAGES = ("", "slices", "weights", "training", "runs", "pairs", "curate")


@pytest.fixture(scope="module")
def server(demo_run, tmp_path_factory):
    """The port of a dashboard, started in a folder with modules that must not be taken for libraries."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("somewhere")
    (folder / "app").mkdir()
    (folder / "app" / "__init__.py").write_text("raise SystemExit('the wrong app')")
    (folder / "random.py").write_text("raise SystemExit('the wrong random')")
    command = [sys.executable, "-P", "-m", "curate", "app", str(demo_run), "--port", str(port), "--read-only"]
    environment = {**os.environ, "BROWSER": "true", "PYTHONPATH": str(ROOT)}
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
    try:
        wait_for(port, process, folder / "log.txt")
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def wait_for(port, process, log):
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health") as answer:
                assert answer.status == 200
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(log.read_text())


def connect(port, host="127.0.0.1", origin=None):
    """Open the page's websocket as a browser does that knows the server under this name."""
    url = f"ws://{host}:{port}/_stcore/stream"
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        websockets.connect(url, sock=plain, origin=origin, open_timeout=20),
    ):
        return "accepted"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_let_in(server, host):
    assert connect(server, host, f"http://{host}:{server}") == "accepted"


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("evil.example", "http://evil.example"),  # another name for this address (DNS rebinding)
        ("evil.example", None),
        ("127.0.0.1", "http://evil.example"),  # a page from elsewhere, in this machine's browser
        ("127.0.0.1.evil.example", "http://127.0.0.1.evil.example"),
    ],
)
def test_a_websocket_from_a_foreign_host_is_refused(server, host, origin):
    with pytest.raises(websockets.InvalidStatus) as refused:
        connect(server, host, origin)
    assert refused.value.response.status_code == 403


def test_it_serves_on_this_machine_alone(server):
    listening = subprocess.run(["ss", "-ltn"], capture_output=True, text=True).stdout if shutil.which("ss") else ""
    if not listening:
        pytest.skip("ss is not installed")
    (line,) = [line for line in listening.splitlines() if f":{server} " in line]
    assert f"127.0.0.1:{server} " in line


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_asks_nobody_else(server):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    asked, faults = [], []
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        for name in PAGES:
            page.goto(f"http://127.0.0.1:{server}/{name}")
            page.get_by_role("heading", level=1).wait_for(timeout=60_000)
            page.wait_for_timeout(500)
        browser.close()
    foreign = [url for url in asked if not url.startswith((f"http://127.0.0.1:{server}/", f"ws://127.0.0.1:{server}/"))]
    assert not [url for url in foreign if not url.startswith(("data:", "blob:"))]
    assert not faults


# --- settings ---


def hosts(address, *allowed):
    return [value for name, value in server_settings(address, 8501, list(allowed)) if name == "server.allowedHosts"]


def test_settings_are_safe_by_default():
    settings = dict(server_settings("127.0.0.1", 8501, []))
    assert settings["server.address"] == "127.0.0.1"
    assert settings["browser.gatherUsageStats"] == "false"
    assert settings["server.enableCORS"] == settings["server.enableXsrfProtection"] == "true"
    assert hosts("127.0.0.1") == ["localhost", "127.0.0.1", "[::1]"]


def test_all_networks_need_a_name():
    with pytest.raises(ConfigError, match=r"--address 0\.0\.0\.0: say with --allowed-host"):
        server_settings("0.0.0.0", 8501, [])
    assert hosts("0.0.0.0", "box.lan")[-2:] == ["box.lan", "0.0.0.0"]


def test_one_address_is_its_own_name():
    assert hosts("10.0.0.7")[-1] == "10.0.0.7"


# --- the command ---


@pytest.fixture
def started(monkeypatch):
    """What the command would have become: its words and the workspace of the pages."""
    found = {}

    def become(program, words, environment):
        found.update(words=words, workspace=Workspace.from_environment(environment))

    monkeypatch.setattr(os, "execvpe", become)
    return found


def app(*words):
    return CliRunner().invoke(typer_app, ["app", *map(str, words)], catch_exceptions=True)


def test_the_command_starts_the_pages(demo_run, tmp_path, started, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = app(demo_run, "--port", "8700", "--read-only")
    assert done.exit_code == 0
    assert not done.stderr
    assert started["workspace"] == Workspace((str(demo_run.resolve()),), (str(tmp_path.resolve()),), True)
    words = started["words"]
    assert words[:5] == [sys.executable, "-P", "-m", "streamlit", "run"]
    assert Path(words[5]) == ROOT / "app" / "main.py"
    assert {"--server.port=8700", "--server.address=127.0.0.1", "--browser.gatherUsageStats=false"} <= set(words)


def test_another_address_is_warned_of(demo_run, started):
    done = app(demo_run, "--address", "10.0.0.7")
    assert "serving on 10.0.0.7: whoever reaches this machine can read the data" in done.stderr
    assert "--server.allowedHosts=10.0.0.7" in started["words"]


def test_what_is_no_run_is_refused(tmp_path, started):
    assert isinstance(app(tmp_path).exception, RunError)
    assert isinstance(app("--root", tmp_path / "none").exception, ConfigError)
    assert not started


def test_without_the_extra_one_line_says_what_to_install(demo_run, started, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "streamlit" else find(name))
    assert str(app(demo_run).exception) == "the dashboard needs Streamlit: pip install 'gamma-curate[app]'"
