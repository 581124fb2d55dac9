"""The page's content is the run's, with every part and without any."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from curate.config import DiagnoseConfig, SelftestConfig
from curate.diagnosing import diagnose
from curate.errors import RunError
from curate.html import ReportContent, render_html
from curate.page import fill_page
from curate.schema import KINDS
from curate.selftest import selftest
from curate.verdict import MEANINGS, NAMES, judge_run
from curate.view import RunView

QUICK = DiagnoseConfig(folds=4, repeats=1)


def fill(run):
    with RunView(run.path) as view:
        return fill_page(view)


@pytest.fixture(scope="module")
def content(planted):
    return fill(planted.run)


def test_every_field_is_filled(content):
    """The planted run has all but findings of the checks."""
    for field in dataclasses.fields(ReportContent):
        value = getattr(content, field.name)
        assert field.name == "checks" or (len(value) if hasattr(value, "__len__") else value is not None), field.name
    assert set(content.meanings) == set(KINDS) == set(MEANINGS)
    assert content.signal_names == NAMES


def test_it_is_what_the_run_says(planted, content):
    with RunView(planted.run.path) as view:
        verdict, tables = judge_run(view), {name: view.table(name) for name in ("diagnosis", "slices", "selftest")}
        pairs = view.table("pairs").set_index("pair_id")
    assert content.title == "data.jsonl"
    assert content.kinds == verdict["kinds"]
    for name in ("rate", "low", "high", "can_tell"):
        assert content.verdict[name] == planted.diagnosed["noise"][name]
    assert content.selftest_sentence[1:-1] == verdict["selftest"]["sentence"][1:]
    pd.testing.assert_frame_equal(content.diagnosis, tables["diagnosis"][list(content.diagnosis.columns)])
    pd.testing.assert_frame_equal(content.slices, tables["slices"])
    pd.testing.assert_frame_equal(content.selftest, tables["selftest"])
    assert content.curve.pairs_G.sum() == 400
    np.testing.assert_array_equal(content.curve.fit_G, planted.diagnosed["curve"]["fit_G"])
    assert list(content.cluster_names.values()) == planted.diagnosed["clusters"]
    assert [pair["pair_id"] for pair in content.suspects] == [pair["pair_id"] for pair in verdict["suspects"]]
    for pair in content.suspects:
        for side in ("prompt", "chosen", "rejected"):
            assert [turn["content"] for turn in pair[side]] == [
                turn["content"] for turn in pairs.loc[pair["pair_id"], side]
            ]
    assert ("pairs", "400; 0 ties; 0 rows refused") in content.facts
    assert ("policy", "tiny policy") in content.facts


def test_the_page_says_so(planted, content):
    text = render_html(content)
    assert f"{planted.diagnosed['noise']['rate']:.1%}" in text
    assert content.selftest_sentence in text
    assert all(pair["pair_id"] in text for pair in content.suspects)
    assert all(name in text for name in content.cluster_names.values())
    assert text.count('class="plot"') == 5 + 6  # kinds, curve, evidence, slices, map; three metrics, two kinds of folds


def test_without_a_self_test_and_without_features(make_world, write_scored, tmp_path):
    run = write_scored(tmp_path, make_world(100, seed=3, flips=0.1), features=False, passes=("policy", "reference"))
    with RunView(run.path) as view, pytest.raises(RunError, match="the stage diagnose is not done"):
        fill_page(view)
    diagnose(run, QUICK)
    content = fill(run)
    assert content.selftest.empty
    assert content.absent["selftest"].endswith("curate selftest RUN makes one.")
    assert "without hidden states" in content.absent["map"]
    text = render_html(content)
    assert content.absent["map"] in text
    assert content.absent["selftest"] in text
    selftest(run, SelftestConfig(noise=(0.0, 0.1), plans=(), seeds=2))
    assert "no self-test yet" not in fill(run).selftest_sentence.lower()
    assert "No self-test yet" not in render_html(fill(run))


def test_too_few_pairs(make_world, write_scored, tmp_path):
    world = make_world(12)
    world.rows[0]["rejected"] = world.rows[0]["chosen"]
    run = write_scored(tmp_path, world, features=False)
    diagnose(run, QUICK)
    content = fill(run)
    assert (content.verdict["can_tell"], content.curve, content.suspects) == (False, None, [])
    assert content.checks["check"].tolist() == ["identical"]
    assert content.absent["curve"] == "11 labelled pairs are too few to learn from."
    text = render_html(content)
    assert "Cannot tell" in text
    assert "11 labelled pairs are too few to learn from." in text
    assert ">identical<" in text


def test_where_nothing_can_be_told(make_world, write_scored, tmp_path):
    run = write_scored(tmp_path, make_world(120, flips=0.5, seed=3), features=False)
    diagnose(run, QUICK)
    content = fill(run)
    assert content.verdict["can_tell"] is False
    assert "rate" not in content.verdict
    assert "Cannot tell" in render_html(content)
