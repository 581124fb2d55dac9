"""The page Overview."""

from __future__ import annotations

import streamlit as st

st.title("Overview")
