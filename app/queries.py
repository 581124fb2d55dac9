"""Answers of `curate.browsing` that pages keep for a while: few and small, by run, question and what is decided."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import state
from curate.browsing import Browser, Wanted

_ANSWERS = 128


def browser() -> Browser:
    """What looks through the run that is open."""
    return Browser(state.view(), state.decisions())


def count(wanted: Wanted) -> int:
    """See `Browser.count`."""
    return _count(*_key(), wanted)


def page(wanted: Wanted, start: int, pairs: int) -> pd.DataFrame:
    """See `Browser.page`."""
    return _page(*_key(), wanted, start, pairs)


def bins(column: str, wanted: Wanted) -> pd.DataFrame:
    """See `Browser.bins`."""
    return _bins(*_key(), column, wanted)


def values(column: str) -> list[str]:
    """The most frequent values of a column, see `Browser.groups`."""
    return _values(state.fingerprint(), column)


def _key() -> tuple[str, int, int]:
    """The run as it is, and how much was decided."""
    log = state.decisions().log
    return state.fingerprint(), log.generation, len(log.entries())


@st.cache_data(max_entries=_ANSWERS, show_spinner=False)
def _count(fingerprint: str, generation: int, entries: int, wanted: Wanted) -> int:
    return browser().count(wanted)


@st.cache_data(max_entries=_ANSWERS, show_spinner=False)
def _page(fingerprint: str, generation: int, entries: int, wanted: Wanted, start: int, pairs: int) -> pd.DataFrame:
    return browser().page(wanted, start, pairs)


@st.cache_data(max_entries=_ANSWERS, show_spinner=False)
def _bins(fingerprint: str, generation: int, entries: int, column: str, wanted: Wanted) -> pd.DataFrame:
    return browser().bins(column, wanted)


@st.cache_data(max_entries=_ANSWERS, show_spinner=False)
def _values(fingerprint: str, column: str) -> list[str]:
    return [str(value) for value in browser().groups(column, Wanted())["value"]]
