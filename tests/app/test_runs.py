"""The page Runs: opening, comparing, and starting audits within the roots alone."""

import shutil
import time

import numpy as np
import pytest

import curate
import curate.config
import curate.diagnosing
from curate.weighing import weigh


@pytest.fixture
def two_runs(demo_run, tmp_path):
    """The demo run, and a copy with the margins of another β."""
    other = tmp_path / "runs" / "other"
    shutil.copytree(demo_run, other)
    run = curate.Run.open(other)
    weigh(run, curate.WeighConfig(beta=5.0))
    curate.diagnosing.diagnose(run, curate.config.DiagnoseConfig())
    return demo_run, other


def fill(page, **texts):
    for label, text in texts.items():
        next(field for field in page.text_input if field.label == label).set_value(str(text))
    page.button[0].click().run()
    assert not page.exception
    return page


def test_a_click_opens_a_run(two_runs, open_page):
    page = open_page(two_runs, "runs")
    assert list(page.dataframe(key="runs").value["pairs"]) == [240, 240]
    page.session_state["runs"] = {"selection": {"rows": [1], "columns": [], "cells": []}}
    page.run()
    assert page.title[0].value == "Overview"
    assert np.atleast_1d(page.query_params["run"])[0] == "other"


def test_a_name_that_no_run_has_is_an_error_in_one_line(demo_run, open_page):
    page = open_page(demo_run, run="../../etc")
    assert page.error
    assert "no run is called '../../etc'" in page.code[0].value
    assert not page.title


def test_two_runs_are_compared(two_runs, open_page, on_screen):
    page = open_page(two_runs, "runs")
    shown = {name: value for name, (value, _) in on_screen(page).items()}
    with curate.RunView(two_runs[0]) as before, curate.RunView(two_runs[1]) as after:
        was, now = before.table("diagnosis"), after.table("diagnosis")
        margins = before.table("weights")["margin"], after.table("weights")["margin"]
    assert shown["Pairs in both"] == "240"
    assert shown["Correlation"] == "1.000"
    assert shown["Turned"] == str((np.sign(margins[0]) != np.sign(margins[1])).sum()) == "0"
    assert shown["Other kind"] == str((was["kind"] != now["kind"]).sum()) != "0"
    matrix = page.dataframe[1].value
    assert matrix.to_numpy().sum() == 240
    assert matrix.loc["flipped", "flipped"] == ((was["kind"] == "flipped") & (now["kind"] == "flipped")).sum()


@pytest.mark.parametrize(
    ("data", "run", "said"),
    [
        ("{outside}/secret.jsonl", "{root}/new", "outside the folders"),
        ("{root}/../outside/secret.jsonl", "{root}/new", "outside the folders"),
        ("{root}/link.jsonl", "{root}/new", "outside the folders"),
        ("{root}/none.jsonl", "{root}/new", "no such file"),
        ("{root}/pairs.jsonl", "{outside}/new", "outside the folders"),
        ("{root}/pairs.jsonl", "{root}/out/new", "outside the folders"),
        ("{root}/pairs.jsonl", "{root}/none/new", "does not exist"),
    ],
)
def test_paths_outside_the_roots_are_refused(data, run, said, demo_run, tmp_path, open_page, monkeypatch):
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "secret.jsonl").write_text("{}")
    (root / "pairs.jsonl").write_text("{}")
    (root / "link.jsonl").symlink_to(outside / "secret.jsonl")
    (root / "out").symlink_to(outside)
    monkeypatch.setattr("curate.jobs.Jobs.start", lambda *_: pytest.fail("started"))
    page = open_page(demo_run, "runs", roots=[root])
    places = {"root": root, "outside": outside}
    fill(page, Data=data.format(**places), Run=run.format(**places))
    assert page.error
    assert said in page.code[0].value


def test_a_model_outside_the_roots_is_refused(demo_run, tmp_path, tiny_policy, open_page, monkeypatch):
    (tmp_path / "pairs.jsonl").write_text("{}")
    monkeypatch.setattr("curate.jobs.Jobs.start", lambda *_: pytest.fail("started"))
    page = open_page(demo_run, "runs", roots=[tmp_path])
    fill(page, Data=tmp_path / "pairs.jsonl", Run=tmp_path / "new", Policy=tiny_policy)
    assert f"{tiny_policy}: outside the folders" in page.code[0].value


def test_an_audit_runs_and_ends_in_a_run(demo_run, tmp_path, tiny_policy, open_page):
    root = tmp_path / "root"
    root.mkdir()
    shutil.copytree(tiny_policy, root / "model")
    rows = "".join(f'{{"prompt": "q{n}", "chosen": "a{n}", "rejected": "b{n}"}}\n' for n in range(12))
    (root / "pairs.jsonl").write_text(rows)
    page = open_page(demo_run, "runs", roots=[root])
    fill(page, Data=root / "pairs.jsonl", Run=root / "new", Policy=root / "model")
    deadline = time.monotonic() + 200
    while "done" not in [it.label.split(": ")[1] for it in page.expander] and time.monotonic() < deadline:
        time.sleep(1)
        page.run()
    assert page.expander[0].label == "audit: done", page.expander[0].text[0].value
    assert "12 read = 12 pairs" in page.expander[0].text[0].value
    assert "new" in list(page.dataframe(key="runs").value["name"])


def test_read_only_starts_nothing(demo_run, open_page):
    page = open_page(demo_run, "runs", read_only=True)
    assert not page.button
    assert not page.text_input
    assert page.code[0].value == "curate audit DATA -o RUN"
