"""The dashboard: `curate app RUN` serves this file. The frame around all pages: navigation, the run, who decides."""

from __future__ import annotations

import streamlit as st

from app import parts, state
from curate.errors import CurateError

_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#3B7DC4"/>'
    '<path d="M3 4h10v2H3zM3 10h6v2H3z" fill="#fff"/></svg>'
)  # drawn here, since Streamlit fetches named icons of a page from another host

st.set_page_config("curate", _ICON, layout="wide")


def choose_run() -> None:
    """Say which run is open, and let another be chosen."""
    name, names = state.run_name(), list(state.runs())
    if name is None:
        return
    if len(names) > 1:
        chosen = st.selectbox("Run", names, index=names.index(name))
        if chosen != name:
            state.open_other(chosen)
            st.rerun()
    else:
        parts.plain(name)
    st.query_params["run"] = name


page = st.navigation(
    {
        "Look": [
            st.Page("app_pages/overview.py", title="Overview", icon=":material/monitoring:", default=True),
            st.Page("app_pages/pairs.py", title="Pairs", icon=":material/table_rows:"),
            st.Page("app_pages/pair.py", title="Pair", icon=":material/compare:"),
            st.Page("app_pages/slices.py", title="Slices", icon=":material/scatter_plot:"),
            st.Page("app_pages/weights.py", title="Weights", icon=":material/tune:"),
        ],
        "Act": [
            st.Page("app_pages/curate.py", title="Curate", icon=":material/rule:"),
            st.Page("app_pages/training.py", title="Training", icon=":material/model_training:"),
            st.Page("app_pages/runs.py", title="Runs", icon=":material/folder_open:"),
        ],
    }
)
try:
    with st.sidebar:
        choose_run()
        if state.read_only():
            st.caption("Read only: nothing can be decided or started.")
        else:
            state.ask_who()
    page.run()
except CurateError as error:
    parts.fault(str(error))
