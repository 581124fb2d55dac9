"""Kinds of hand-made pairs, what holds of every pair, and reasons that tell the truth."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.config import DiagnoseConfig
from curate.kinds import Facts, classify, reasons
from curate.schema import KINDS

#: What is said of a pair, unless a test says otherwise: good evidence for its label.
PLAIN = {"defect": 0, "tie": 0, "split": 0, "equal": 0, "log_odds": 3.0, "error": 0.1, "p_flip": 0.01}


def facts(*pairs, can_tell=True):
    columns = {name: np.array([{**PLAIN, **pair}[name] for pair in pairs]) for name in PLAIN}
    columns |= {name: columns[name].astype(bool) for name in ("defect", "tie", "split", "equal")}
    columns |= {name: columns[name].astype(float) for name in ("log_odds", "error", "p_flip")}
    return Facts(**columns, can_tell=can_tell)


def kinds_of(*pairs, can_tell=True, **config):
    return [KINDS[code] for code in classify(facts(*pairs, can_tell=can_tell), DiagnoseConfig(**config))]


UNKNOWN = {"log_odds": np.nan, "error": np.nan, "p_flip": np.nan}
WRONG = {"log_odds": -4.0, "p_flip": 0.9}


@pytest.mark.parametrize(
    ("pair", "kind"),
    [
        ({}, "clean"),
        (WRONG, "flipped"),
        ({**WRONG, "p_flip": 0.5}, "flipped"),
        ({**WRONG, "p_flip": 0.499}, "clean"),  # the evidence is against it, but not enough in a clean dataset
        ({"log_odds": 0.1, "error": 0.01, "p_flip": 0.2}, "ambiguous"),
        ({"log_odds": -0.1, "error": 0.01, "p_flip": 0.2}, "ambiguous"),
        ({"log_odds": 0.21, "error": 0.01, "p_flip": 0.2}, "clean"),  # σ(0.21) = 0.552
        ({"log_odds": 0.1, "error": 0.2, "p_flip": 0.2}, "unresolved"),
        ({"log_odds": -3.0, "error": 3.5, "p_flip": 0.3}, "unresolved"),
        (UNKNOWN, "unresolved"),
        ({"tie": 1}, "ambiguous"),
        ({**WRONG, "tie": 1}, "ambiguous"),  # a tie has no label to be wrong
        ({**UNKNOWN, "tie": 1}, "ambiguous"),
        ({"split": 1}, "ambiguous"),
        ({"equal": 1}, "ambiguous"),
        ({**UNKNOWN, "equal": 1}, "ambiguous"),
        ({**WRONG, "split": 1}, "flipped"),
        ({"defect": 1}, "defective"),
        ({**WRONG, "defect": 1, "tie": 1}, "defective"),
        ({**UNKNOWN, "defect": 1}, "defective"),
    ],
)
def test_each_kind(pair, kind):
    assert kinds_of(pair) == [kind]


def test_settings():
    weak = {"log_odds": -1.0, "p_flip": 0.7}
    assert kinds_of(weak, p_flip=0.8) == ["clean"]
    assert kinds_of(weak, p_flip=0.6) == ["flipped"]
    close = {"log_odds": 0.5}  # σ(0.5) = 0.622
    assert kinds_of(close, near_tie=0.2) == ["ambiguous"]
    assert kinds_of(close, near_tie=0.1) == ["clean"]
    assert kinds_of({"log_odds": 0.0, "error": 0.0}, near_tie=0.0) == ["clean"]


def test_weak_evidence_is_not_called_flipped_however_probable_a_flip_is():
    near = {"log_odds": -0.1, "error": 0.0, "p_flip": 0.9}  # σ(−0.1) = 0.475
    unsteady = {"log_odds": -1.0, "error": 1.5, "p_flip": 0.9}
    assert kinds_of(near, unsteady) == ["ambiguous", "unresolved"]


def test_where_nothing_can_be_told_nothing_is_flipped():
    pairs = [{}, WRONG, UNKNOWN, {"tie": 1}, {"split": 1}, {"defect": 1}]
    expected = ["unresolved", "unresolved", "unresolved", "ambiguous", "ambiguous", "defective"]
    assert kinds_of(*pairs, can_tell=False) == expected


chances = st.one_of(st.floats(0, 1), st.just(np.nan))
any_pair = st.fixed_dictionaries(
    {
        **{name: st.booleans() for name in ("defect", "tie", "split", "equal")},
        "log_odds": st.one_of(st.floats(-50, 50), st.just(np.nan), st.just(np.inf), st.just(-np.inf)),
        "error": st.one_of(st.floats(0, 50), st.just(np.nan)),
        "p_flip": chances,
    }
)


@given(st.lists(any_pair, min_size=1, max_size=20), st.booleans(), st.floats(0.01, 0.99), st.floats(0, 0.49))
def test_of_every_pair(pairs, can_tell, p_flip, near_tie):
    found = kinds_of(*pairs, can_tell=can_tell, p_flip=p_flip, near_tie=near_tie)
    for pair, kind in zip(pairs, found, strict=True):
        assert (kind == "defective") == bool(pair["defect"])
        if kind == "flipped":
            assert can_tell
            assert pair["p_flip"] >= p_flip  # weak evidence never says so:
            assert abs(pair["log_odds"]) >= pair["error"]
            assert abs(1 / (1 + np.exp(-np.clip(pair["log_odds"], -50, 50))) - 0.5) >= near_tie - 1e-9
            assert not pair["tie"]
        if kind == "clean":
            assert can_tell
            assert np.isfinite(pair["log_odds"])
            assert not any(pair[name] for name in ("tie", "split", "equal"))
    assert kinds_of(*pairs[::-1], can_tell=can_tell, p_flip=p_flip, near_tie=near_tie) == found[::-1]


# --- reasons ---

VOICES = {
    "length": np.array([1.0, -2.0]),
    "hidden_middle": np.array([-0.5, -1.0]),
    "rating": np.array([np.nan, 3.0]),
    "judge": np.array([0.0, -1.0]),
}


def said(*pairs, can_tell=True, voices=None, details=None):
    known = facts(*pairs, can_tell=can_tell)
    voices = {name: values[: len(pairs)] for name, values in (VOICES if voices is None else voices).items()}
    return reasons(known, classify(known, DiagnoseConfig()), voices, details or {})


def test_a_flipped_pair_says_who_is_against_it():
    first, second = said(WRONG, {**WRONG, "log_odds": -2.0})
    assert first == [
        "the evidence is 55 to 1 for the rejected side",
        "against the label: hidden states (middle layer)",
        "for the label: length",
    ]
    assert second == [
        "the evidence is 7 to 1 for the rejected side",
        "against the label: length, hidden states (middle layer), judge",
        "for the label: the ratings",
    ]


@pytest.mark.parametrize("log_odds", [-0.5, -1.0, -3.0, -6.9, -6.95, -30.0])
def test_odds_are_those_of_the_evidence(log_odds):
    (text, *_), odds = said({"log_odds": log_odds, "p_flip": 0.9}, voices={})[0], np.exp(-log_odds)
    if odds < 1.5:
        assert text == "the evidence leans to the rejected side"
        return
    more, number, side = re.fullmatch(r"the evidence is (more than )?([\d,]+) to 1 for the (\w+) side", text).groups()
    assert side == "rejected"
    assert float(number.replace(",", "")) == pytest.approx(min(odds, 1000), abs=0.51)
    assert (more is not None) == (odds > 999)


def test_a_clean_pair_explains_only_what_is_against_it():
    assert said({}) == [[]]
    assert said({"log_odds": -2.0, "p_flip": 0.2})[0][0] == "the evidence is 7 to 1 for the rejected side"


@pytest.mark.parametrize(
    ("pair", "texts"),
    [
        ({"tie": 1}, ["the data calls it a tie"]),
        ({"split": 1}, ["its annotators are divided"]),
        ({"equal": 1, "split": 1}, ["its annotators are divided", "both sides have the same rating"]),
        ({"log_odds": 0.1, "error": 0.0}, ["neither side is clearly better: 52% for the chosen one"]),
        ({"log_odds": 0.1}, ["neither side is clearly better: 52% for the chosen one"]),
        ({"log_odds": 0.1, "error": 1.0}, ["the evidence changes its sign from one cross-fit to the next"]),
        (UNKNOWN, ["there is no evidence for either side"]),
        ({**UNKNOWN, "tie": 1}, ["the data calls it a tie"]),
        ({"defect": 1}, []),
    ],
)
def test_why_it_is_neither(pair, texts):
    assert said(pair) == [texts]


def test_a_flipped_pair_whose_annotators_are_divided():
    assert said({**WRONG, "split": 1})[0][-1] == "its annotators are divided"


def test_where_nothing_can_be_told():
    why = "the evidence cannot tell right labels from wrong ones in this dataset"
    assert said({}, {**WRONG, "log_odds": -2.0}, can_tell=False) == [
        [why],
        [
            "the evidence is 7 to 1 for the rejected side",
            "against the label: length, hidden states (middle layer), judge",
            "for the label: the ratings",
            f"but {why}",
        ],
    ]
    assert said({"tie": 1}, can_tell=False) == [["the data calls it a tie"]]


def test_what_the_checks_found():
    """It comes first where it made the pair defective, last where it did not, and alone where all else is well."""
    assert said({"defect": 1}, details={0: ["both sides are the same"]}) == [["both sides are the same"]]
    assert said(WRONG, details={0: ["cut off"]})[0][-1] == "cut off"
    assert said({}, {}, details={1: ["cut off"]}) == [[], ["cut off"]]
