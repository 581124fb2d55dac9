"""The page Overview: what it says is what the run says, and every number leads to as many pairs."""

import numpy as np
import pytest

import curate
import curate.aggregates
import curate.schema

CLICKED = {"selection": {"rows": [0], "columns": [], "cells": []}}


@pytest.fixture
def page(demo_run, open_page):
    return open_page(demo_run)


@pytest.fixture
def view(demo_run):
    with curate.RunView(demo_run) as view:
        yield view


def test_every_number_leads_to_as_many_pairs(page, on_screen, count, demo_run):
    shown = on_screen(page)
    counted = {name: (value, where) for name, (value, where) in shown.items() if where is not None}
    assert counted.pop("Noise rate")[1] == "p_flip is not null"
    assert len(counted) == 6  # all pairs, and the kinds
    for name, (value, where) in counted.items():
        assert count(demo_run, where) == int(value.replace(",", "")), name


def test_the_noise_rate_is_the_runs(page, on_screen, view):
    noise = view.stage("diagnose")["noise"]
    assert noise["can_tell"]
    assert on_screen(page)["Noise rate"][0] == f"{noise['rate']:.1%}"
    assert any(f"{noise['low']:.1%} to {noise['high']:.1%}" in caption.value for caption in page.caption)


def test_kinds_are_the_diagnosis(page, on_screen, view):
    found = view.table("diagnosis")["kind"].value_counts()
    for kind in curate.schema.KINDS:
        assert on_screen(page)[kind.capitalize()][0] == str(found.get(kind, 0))


@pytest.mark.parametrize("line", range(9))
def test_a_check_leads_to_as_many_pairs(line, page, count, demo_run):
    table = page.dataframe(key="checks").value
    page.session_state["checks"] = {"selection": {"rows": [line], "columns": [], "cells": []}}
    page.run()
    assert page.title[0].value == "Pairs"
    (where,) = np.atleast_1d(page.query_params["where"])
    assert where == f'"{table["check"][line]}" in checks'
    assert count(demo_run, where) == table["pairs"][line]


def test_the_worst_slice_leads_to_as_many_pairs(page, count, demo_run, view):
    first = page.dataframe(key="slices").value.iloc[0]
    worst = view.table("slices").query("pairs >= 20").sort_values("low", ascending=False).iloc[0]
    assert (first["by"], first["value"], first["pairs"]) == (worst["by"], worst["value"], worst["pairs"])
    page.session_state["slices"] = CLICKED
    page.run()
    (where,) = np.atleast_1d(page.query_params["where"])
    assert count(demo_run, where) == first["pairs"]


def test_length_links_are_the_shares_of_the_figure(page, link_of, count, demo_run):
    links = {link.label: link_of(link)["where"] for link in page.get("page_link") if "where" in link_of(link)}
    with curate.RunView(demo_run) as view:
        lengths = curate.aggregates.length_bias(view).iloc[-1]
    for side in ("chosen", "rejected"):
        share = count(demo_run, links[f"Pairs whose {side} side is longer"]) / lengths["pairs"]
        assert share == pytest.approx(lengths[f"{side}_longer"])


@pytest.mark.parametrize("at", [0, 5, -1])
def test_a_bar_leads_to_its_pairs(at, page, demo_run, count):
    with curate.RunView(demo_run) as view:
        bins = curate.aggregates.margin_bins(view)
    middle = bins["middle"].unique()[at]
    chosen = bins[bins["middle"] == middle]
    selection = {"points": [{"x": float(middle)}], "point_indices": [], "box": [], "lasso": []}
    page.session_state["margins"] = {"selection": selection}
    page.run()
    (where,) = np.atleast_1d(page.query_params["where"])
    assert count(demo_run, where) == chosen["pairs"].sum() > 0


def test_an_undecided_rate_is_not_a_number(tmp_path, tiny_policy, open_page, on_screen):
    rows = "".join(f'{{"prompt": "q{n}", "chosen": "a{n}", "rejected": "b{n}"}}\n' for n in range(12))
    (tmp_path / "few.jsonl").write_text(rows)
    config = curate.AuditConfig(
        curate.IngestConfig((str(tmp_path / "few.jsonl"),)), curate.ScoreConfig(policy=str(tiny_policy))
    )
    curate.audit(config, tmp_path / "few")
    assert on_screen(open_page(tmp_path / "few"))["Noise rate"][0] == "cannot tell"
