"""The verdict agrees with the tables, in numbers, in words and on a terminal."""

import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from curate.config import DiagnoseConfig, SelftestConfig
from curate.diagnosing import diagnose
from curate.errors import RunError
from curate.report import render, summarize
from curate.schema import KINDS
from curate.selftest import promise, selftest
from curate.verdict import (
    MEANINGS,
    judge_run,
    noise_sentence,
    selftest_records,
    selftest_table,
    suspect_lines,
    verdict_lines,
)
from curate.view import RunView

QUICK = DiagnoseConfig(folds=4, repeats=1)


def judged(run):
    with RunView(run.path) as view:
        return judge_run(view)


def shown(renderable, width=200):
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(renderable)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def verdict(planted):
    return judged(planted.run)


@pytest.fixture(scope="module")
def tables(planted):
    with RunView(planted.run.path) as view:
        return {name: view.table(name) for name in ("diagnosis", "slices", "selftest", "findings")}


def test_it_is_json(verdict):
    assert json.loads(json.dumps(verdict, allow_nan=False)) == verdict


def test_numbers_are_the_tables(planted, verdict, tables):
    assert verdict["noise"] == planted.diagnosed["noise"]
    assert verdict["kinds"] == {kind: int((tables["diagnosis"]["kind"] == kind).sum()) for kind in KINDS}
    found = tables["findings"]["check"].value_counts()
    assert {check["check"]: check["pairs"] for check in verdict["checks"]} == found.to_dict()
    rows = tables["selftest"]
    for row in verdict["selftest"]["rows"]:
        same = rows[
            (rows[["noise", "rate", "folds", "signal", "metric"]] == [row[k] for k in list(row)[:5]]).all(axis=1)
        ]
        assert same["mean"].tolist() == [row["mean"]]
    assert {row["signal"] for row in verdict["selftest"]["rows"]} == {"fused", "fused_length_controlled", "length"}
    assert verdict["selftest"]["sentence"] == promise(rows.to_dict("records"))


def test_suspects_are_the_likeliest(verdict, tables):
    diagnosis = tables["diagnosis"].sort_values("p_flip", ascending=False, kind="stable").head(10)
    assert [pair["pair_id"] for pair in verdict["suspects"]] == diagnosis["pair_id"].tolist()
    for pair, (_, row) in zip(verdict["suspects"], diagnosis.iterrows(), strict=True):
        assert (pair["row"], pair["kind"], pair["p_flip"]) == (row["row"], row["kind"], row["p_flip"])
        assert pair["reasons"] == list(row["reasons"])


def test_slices_are_the_surest(verdict, tables):
    slices = tables["slices"]
    several = slices[slices.groupby("by")["value"].transform("size") > 1]
    expected = several[several["pairs"] >= 20].nlargest(5, "low", keep="all")
    assert len(verdict["slices"]) == 5
    for one in verdict["slices"]:
        assert ((expected["by"] == one["by"]) & (expected["value"] == one["value"])).sum() == 1
        assert one["clearly_above"] == (one["low"] > verdict["noise"]["rate"])


# --- in words ---


@pytest.mark.parametrize(
    ("noise", "said"),
    [
        (None, r"cannot tell: 12 labelled pairs are too few to learn from"),
        (
            {"can_tell": False, "low": 0.0, "high": 0.5, "p_value": 0.3},
            r"cannot tell: anything from 0 to 50 % fits .* hardly goes with .* labels",
        ),
        (
            {"can_tell": False, "low": 0.02, "high": 0.4, "p_value": 1e-9},
            r"cannot tell: anything from 2 to 40 % fits .* but not on how many are wrong",
        ),
        (
            {"can_tell": True, "follows_model": True, "rate": 0.1234, "low": 0.1, "high": 0.1567},
            r"12\.3 % of the labels are the wrong way round[^;]* \(10\.0 to 15\.7 %\)",
        ),
        (
            {"can_tell": True, "follows_model": False, "rate": 0.1234, "low": 0.1, "high": 0.1567},
            r"12\.3 % of the labels are the wrong way round[^;]* \(10\.0 to 15\.7 %\); .* with care",
        ),
    ],
)
def test_the_noise_rate(noise, said):
    assert re.fullmatch(said, noise_sentence(noise, 12))


def test_lines(verdict):
    lines = list(verdict_lines(verdict))
    values = {label: text for label, text in lines if label}
    noise = verdict["noise"]
    numbers = [float(number) for number in re.findall(r"[\d.]+", values["noise"])]
    assert numbers == [pytest.approx(100 * noise[name], abs=0.051) for name in ("rate", "low", "high")]
    for kind in KINDS:
        count = verdict["kinds"][kind]
        assert (kind in values) == (count > 0)
        if count:
            assert values[kind] == f"{count} ({count / 400:.1%}) {MEANINGS[kind]}"
    assert values["length"] == f"explains {verdict['length_share']:.0%} of the evidence"
    assert values["self-test"] == f"{verdict['selftest']['sentence']} (20% planted, folds grouped by prompt)"
    means = {(row["signal"], row["metric"]): row for row in verdict["selftest"]["rows"] if row["folds"] == "grouped"}
    aurocs = f"fused {means['fused', 'auroc']['mean']:.2f}/{means['fused', 'average_precision']['mean']:.2f}, "
    assert any(text.startswith(f"AUROC / average precision: {aurocs}") for _, text in lines)
    gain = means["fused", "auroc_above_length"]
    assert lines[-1][1] == (
        f"AUROC above length alone: {gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"
    )


def test_suspects_in_words(verdict):
    for (name, text), pair in zip(suspect_lines(verdict), verdict["suspects"], strict=True):
        assert pair["pair_id"].startswith(name)
        assert text == f"p_flip {pair['p_flip']:.2f}, {pair['kind']}: {'; '.join(pair['reasons'])}"


def test_the_report_ends_with_it(planted, verdict):
    with RunView(planted.run.path) as view:
        summary = summarize(view)
    assert summary["diagnosis"] == verdict
    text = shown(render(summary))
    assert text.index("\nSuspects") < text.index("\nDiagnosis")
    words = " ".join(text.split())
    for _, line in (*verdict_lines(verdict), *suspect_lines(verdict)):
        assert " ".join(line.split()) in words


def test_a_bad_source_is_named(make_world, write_scored, tmp_path):
    run = write_scored(tmp_path, make_world(400, flips=0.03, noisy=("source", "books", 0.45), seed=5, strength=5))
    diagnose(run, QUICK)
    lines = [text for label, text in verdict_lines(judged(run)) if label == "slice"]
    name, rate, low, high = re.match(r"source (\w+): (\d+)% flipped \((\d+)% to (\d+)%\)", lines[0]).groups()
    assert name == "books"
    assert int(low) <= 45 <= int(high)
    assert int(low) <= int(rate) <= int(high)


def test_without_a_self_test(make_world, write_scored, tmp_path):
    run = write_scored(tmp_path, make_world(60, seed=3), features=False)
    with RunView(run.path) as view, pytest.raises(RunError, match="the stage diagnose is not done"):
        judge_run(view)
    diagnose(run, QUICK)
    assert judged(run)["selftest"] is None
    assert list(verdict_lines(judged(run)))[-1] == (
        "self-test",
        "none yet: without it nobody knows how good the evidence is; curate selftest makes one",
    )
    selftest(run, SelftestConfig(noise=(0.0, 0.1), plans=(), seeds=2))
    assert list(verdict_lines(judged(run)))[-1] == ("self-test", "promises nothing: it planted other rates than 20%")


def test_too_few_pairs(make_world, write_scored, tmp_path):
    run = write_scored(tmp_path, make_world(12), features=False)
    diagnose(run, QUICK)
    verdict = judged(run)
    assert (verdict["noise"], verdict["suspects"], verdict["slices"]) == (None, [], [])
    labels = [label for label, _ in verdict_lines(verdict)]
    assert labels == ["noise", "unresolved", "self-test"]
    assert json.loads(json.dumps(verdict, allow_nan=False)) == verdict


def test_copies_are_one_suspect_and_defects_none(make_world, write_scored, tmp_path):
    world = make_world(100, seed=4)
    worst = int(np.argmin(world.gap_N))
    world.rows += [dict(world.rows[worst])] * 3
    world.gap_N = np.append(world.gap_N, [world.gap_N[worst]] * 3)
    run = write_scored(tmp_path, world)
    diagnose(run, QUICK)
    verdict = judged(run)
    ids = [pair["pair_id"] for pair in verdict["suspects"]]
    assert len(set(ids)) == len(ids) == 10
    assert worst in [pair["row"] for pair in verdict["suspects"]]
    assert "defective" not in {pair["kind"] for pair in verdict["suspects"]}


# --- the self-test on a terminal ---


def test_records_are_the_table(planted, tables):
    with RunView(planted.run.path) as view:
        records = selftest_records(view)
    pd.testing.assert_frame_equal(pd.DataFrame(records).astype(tables["selftest"].dtypes), tables["selftest"])
    json.dumps(records, allow_nan=False)


def test_the_self_test_as_text(planted, verdict, tables):
    with RunView(planted.run.path) as view:
        text = shown(selftest_table(view))
    rows = tables["selftest"]
    assert "Random flips, 20% of the pairs" in text
    for signal in set(rows.loc[(rows["metric"] == "auroc") & (rows["rate"] == 0.2), "signal"]):
        assert re.search(rf"^{signal} ", text, re.MULTILINE), signal
    best = rows.query("signal == 'fused' and folds == 'grouped' and metric == 'auroc' and rate == 0.2").iloc[0]
    line = re.search(r"^fused +grouped +(.*)$", text, re.MULTILINE)[1]
    assert line.startswith(f"{best['mean']:.2f}")
    ceiling = rows[rows["signal"] == "oracle"].iloc[0]
    assert re.search(rf"ceiling of the AUROC +{ceiling['mean']:.3f}", text)
    assert text.rstrip().endswith(verdict["selftest"]["sentence"])


def test_a_signals_name_is_text(make_world, write_scored, tmp_path):
    """Names come from the user's files: neither markup nor escapes take effect."""
    run = write_scored(tmp_path, make_world(60, seed=3), features=False)
    name = "[/red]\x1b[2J[bold]"
    pd.DataFrame({"row": range(60), name: 1.0}).to_parquet(tmp_path / "signals.parquet")
    diagnose(run, DiagnoseConfig((str(tmp_path / "signals.parquet"),), folds=4, repeats=1))
    selftest(run, SelftestConfig(noise=(0.2,), plans=(), seeds=2))
    with RunView(run.path) as view:
        text = shown(selftest_table(view))
    assert r"[/red]\x1b[2J[bold]" in text
    assert "\x1b" not in text
