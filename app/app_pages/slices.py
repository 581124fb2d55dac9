"""The page Slices."""

from __future__ import annotations

import streamlit as st

st.title("Slices")
