"""Filters are a predicate's conditions: what is chosen reads back, and what was written by hand stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import filters

BY_HAND = 'margin < 0 or "empty" in checks'


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("where", ["", "tie", BY_HAND, 'tie and source = "web"'])
@given(values=st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True, min_size=1, max_size=4))
def test_values_read_back(where, listed, values):
    asked = filters.with_values(where, "kind", values, listed=listed)
    assert filters.chosen_values(asked, "kind") == values
    assert filters.with_values(asked, "kind", []) == filters.joined(filters.conditions(where))


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_search_reads_back(text):
    asked = filters.with_search(BY_HAND, text)
    assert filters.searched(asked) == text.strip().lower()
    assert filters.with_search(asked, "") == BY_HAND


@given(limits=st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)))
def test_a_range_reads_back_to_four_digits(limits):
    asked = filters.with_range(BY_HAND, "p_flip", limits)
    assert filters.chosen_range(asked, "p_flip") == pytest.approx(limits, rel=1e-3)
    assert filters.with_range(asked, "p_flip", None) == BY_HAND


def test_what_is_chosen_anew_takes_the_place_of_the_old_and_the_rest_stays():
    where = filters.with_range(filters.with_values("tie", "kind", ["flipped"]), "p_flip", (0.5, 1))
    assert where == 'tie and kind = "flipped" and p_flip between 0.5 and 1'
    assert filters.with_values(where, "kind", ["clean", "flipped"]) == (
        'tie and kind in ("clean", "flipped") and p_flip between 0.5 and 1'
    )
    assert filters.with_range(where, "margin", (-2, 0)) == f"{where} and margin between -2 and 0"


def test_chips_are_the_conditions_joined_by_and():
    where = f'({BY_HAND}) and kind = "flipped" and cluster = 3'
    assert [str(part) for part in filters.conditions(where)] == [BY_HAND, 'kind = "flipped"', "cluster = 3"]
    assert filters.without(where, 1) == f"({BY_HAND}) and cluster = 3"
    assert filters.without(filters.without(filters.without(where, 2), 1), 0) == ""


def test_a_cluster_is_a_number():
    where = filters.with_number("tie", "cluster", 3)
    assert (where, filters.chosen_number(where, "cluster")) == ("tie and cluster = 3", 3)
    assert filters.with_number(where, "cluster", 0) == "tie and cluster = 0"
    assert filters.with_number(where, "cluster", None) == "tie"
