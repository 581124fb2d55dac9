"""The page Pair."""

from __future__ import annotations

import streamlit as st

st.title("Pair")
