"""The page Slices: a click on a slice, or on the map, opens the pairs that it counts."""

import numpy as np
import pytest

import curate
from curate.slices import slice_predicate


@pytest.fixture
def slices(demo_run):
    with curate.RunView(demo_run) as view:
        return view.table("slices"), view.stage("diagnose")["clusters"]


@pytest.mark.parametrize("by", ["source", "annotator", "cluster", "length", "turns"])
def test_predicates_count_what_the_slices_count(by, slices, demo_run, count):
    table, clusters = slices
    lines = table[table["by"] == by]
    assert len(lines)
    for line in lines.itertuples():
        assert count(demo_run, slice_predicate(by, line.value, clusters)) == line.pairs, line.value


def test_the_annotator_without_a_name_cannot_be_asked_for():
    assert slice_predicate("annotator", "unnamed", ()) is None


def test_a_source_of_any_name_can_be_asked_for():
    assert slice_predicate("source", 'a "b" and c', ()) == 'source = "a ""b"" and c"'


@pytest.mark.parametrize("by", ["source", "annotator", "cluster"])
def test_the_url_says_which_slices(by, slices, demo_run, open_page, count):
    page = open_page(demo_run, "slices", by=by.capitalize())
    shown = page.dataframe(key="slices").value
    assert list(shown["value"]) == list(slices[0].query("by == @by")["value"])
    page.session_state["slices"] = {"selection": {"rows": [0], "columns": [], "cells": []}}
    page.run()
    (where,) = np.atleast_1d(page.query_params["where"])
    assert page.title[0].value == "Pairs"
    assert count(demo_run, where) == shown["pairs"][0]


def test_a_box_on_the_map_opens_the_pairs_within(demo_run, open_page, count):
    with curate.RunView(demo_run) as view:
        found = view.table("diagnosis")
    box = {"x": [float(found["x"].quantile(0.2)), float(found["x"].quantile(0.6))], "y": [-9.0, 9.0]}
    page = open_page(demo_run, "slices")
    page.session_state["map"] = {"selection": {"points": [], "point_indices": [], "box": [box], "lasso": []}}
    page.run()
    (where,) = np.atleast_1d(page.query_params["where"])
    assert count(demo_run, where) == found["x"].between(*np.round(box["x"], 4)).sum()
