"""What is decided on pages: the action, its reason, and the buttons; `curate.decisions` does the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from app import state
from curate.entries import PairDecision
from curate.expressions import Number
from curate.plans import Plan, Rule
from curate.predicates import Action, parse

#: Actions in words; soft and weight take a number.
ACTIONS = {
    "keep": "Keep",
    "drop": "Drop",
    "flip": "Flip",
    "soft": "Soft label",
    "weight": "Weight",
    "review": "For review",
}
_NUMBERS = {"soft": ("P(chosen is better)", 0.5, 1.0), "weight": ("Weight", 1.0, None)}


@dataclass(frozen=True)
class Choice:
    """What is to be done. value: of soft and weight."""

    action: str
    value: float | None = None
    reason: str = ""

    def of(self, pair_id: str, page: str) -> PairDecision:
        """The decision about one pair."""
        return PairDecision(pair_id, self.action, self.value, self.reason, page)

    def rule(self, where: str) -> Rule:
        """The rule for all pairs that a predicate matches."""
        value = None if self.value is None else Number(self.value)
        return Rule(parse(where or "true"), Action(self.action, value), self.reason)


def ask(key: str) -> Choice:
    """Let an action, its number and a reason be chosen."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        words = ACTIONS.__getitem__
        action = str(st.selectbox("Action", list(ACTIONS), 1, words, key=f"action_{key}", width=160))
        value = ask_number(action, key)
        reason = st.text_input("Reason", key=f"reason_{key}", placeholder="in words")
    return Choice(action, value, reason.strip())


def ask_number(action: str, key: str) -> float | None:
    """The number that an action takes, if it takes one."""
    if action not in _NUMBERS:
        return None
    label, value, most = _NUMBERS[action]
    return st.number_input(label, 0.0, most, value, 0.05, key=f"number_{key}_{action}", width=160)


def decide_button(pair_ids: Sequence[str], choice: Choice, page: str) -> None:
    """Decide about some pairs, one entry each."""
    label = f"{ACTIONS[choice.action]}: {len(pair_ids):,} selected"
    if st.button(label, type="primary", disabled=not pair_ids, key="decide_selected"):
        entries = state.decisions().decide([choice.of(pair_id, page) for pair_id in pair_ids], state.who())
        st.toast(f"{len(entries):,} decided")
        st.rerun()


def decide_all_button(where: str, count: int, choice: Choice, page: str) -> None:
    """Decide about all pairs that a predicate matches, with one entry, which can be taken back as one."""
    spare = st.checkbox("Leave out pairs that were decided one by one", value=True, key="spare_reviewed")
    if st.button(f"{ACTIONS[choice.action]}: all {count:,} that match", type="primary", key="decide_all"):
        plan = Plan(page, (choice.rule(where),))
        entry = state.decisions().apply(plan, origin=page, who=state.who(), spare_reviewed=spare)
        st.toast(f"{entry.said['pairs']:,} decided by one entry")
        st.rerun()
