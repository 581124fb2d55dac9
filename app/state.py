"""What all pages share: the workspace, the run that is open, decisions about it, and who decides.

A run stays open for all sessions as long as its manifest is what it was. `RunView.sql` takes a cursor of its own for
each query, so that sessions do not meet.
"""

from __future__ import annotations

import os
from pathlib import Path

import streamlit as st

from curate.decisions import Decisions
from curate.entries import this_user
from curate.errors import ConfigError
from curate.jobs import Jobs
from curate.view import RunView
from curate.workspace import Workspace, manifest_fingerprint

_OPEN_RUNS = 4
_FOUND_S = 5  # seconds that a list of runs is good for: looking for them reads folders
_LAST_RUN, _WHO = "last_run", "who"


def workspace() -> Workspace:
    """The runs and folders that this dashboard may use."""
    return Workspace.from_environment(os.environ)


def read_only() -> bool:
    """Whether nothing may be decided or started."""
    return workspace().read_only


def runs() -> dict[str, Path]:
    """Runs that can be opened, by name, as they were some seconds ago."""
    return _found(workspace())


def run_name() -> str | None:
    """The name of the run that the URL asks for, else of the last one in this session, else of the first.

    Raises:
        ConfigError: no run has the name that the URL asks for.
    """
    asked = st.query_params.get("run")
    if asked is not None and asked not in runs():
        _found.clear()
    found = runs()
    if asked is not None and asked not in found:
        raise ConfigError(f"no run is called {asked!r}; the page Runs lists those that can be opened")
    last = st.session_state.get(_LAST_RUN)
    name = asked or (last if last in found else next(iter(found), None))
    st.session_state[_LAST_RUN] = name
    return name


def open_other(name: str) -> None:
    """Make another run the one that is open; the URL says so."""
    st.query_params.clear()
    st.query_params["run"] = name


def run_path() -> Path:
    """The folder of the run that is open.

    Raises:
        ConfigError: there is none.
    """
    name = run_name()
    if name is None:
        raise ConfigError("no run is open: start an audit on the page Runs, or curate app with a run's folder")
    return runs()[name]


def fingerprint() -> str:
    """Changes with every stage of the run that is open: a key for what pages cache."""
    return manifest_fingerprint(run_path())


def view() -> RunView:
    """The run that is open, the same for all sessions."""
    return open_view(run_path())


def open_view(path: Path) -> RunView:
    """A run of the workspace, the same for all sessions."""
    return _view(str(path), manifest_fingerprint(path))


def decisions() -> Decisions:
    """The decisions about the run that is open, as they stand now."""
    found = _decisions(str(run_path()), fingerprint())
    found.refresh()
    return found


def who() -> str:
    """The name that decisions are noted under."""
    return st.session_state.get(_WHO) or this_user()


def ask_who() -> None:
    """Let the sidebar ask for a name."""
    st.text_input("Your name", key=_WHO, placeholder=this_user(), help="Decisions are noted under it.")


@st.cache_data(ttl=_FOUND_S, show_spinner=False)
def _found(within: Workspace) -> dict[str, Path]:
    return within.found()


@st.cache_resource
def jobs() -> Jobs:
    """Commands that were started here, whoever started them."""
    return Jobs()


@st.cache_resource(max_entries=_OPEN_RUNS, show_spinner="Opening the run …")
def _view(path: str, fingerprint: str) -> RunView:
    return RunView(path)


@st.cache_resource(max_entries=_OPEN_RUNS, show_spinner="Reading the decisions …")
def _decisions(path: str, fingerprint: str) -> Decisions:
    return Decisions(_view(path, fingerprint))
