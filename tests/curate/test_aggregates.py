"""Small tables for figures, and two runs side by side, against the same counted pair by pair."""

import shutil

import numpy as np
import pandas as pd
import pytest

from curate import Run, RunView, WeighConfig
from curate.aggregates import MarginPoints, length_bias, margin_bins, margin_points, nice_width, text_map
from curate.config import DiagnoseConfig
from curate.diagnosing import diagnose
from curate.errors import RunError
from curate.gamma import gamma_weights
from curate.movement import movement
from curate.weighing import weigh


@pytest.fixture
def view(planted):
    with RunView(planted.run.path) as view:
        yield view


@pytest.fixture
def weighed(make_world, write_scored, tmp_path):
    """A run that is not diagnosed."""
    with RunView(write_scored(tmp_path, make_world(pairs=40), features=False).path) as view:
        yield view


# --- bins ---


def test_bins_count_every_pair_once(view):
    table = view.sql("SELECT margin, kind FROM weights JOIN diagnosis USING (row) WHERE margin IS NOT NULL")
    bins = margin_bins(view)
    assert bins["pairs"].sum() == len(table)
    for line in bins.itertuples():
        inside = table["margin"].between(line.low, line.high, inclusive="left") & (table["kind"] == line.kind)
        assert inside.sum() == line.pairs, line


def test_zero_is_a_border_and_the_ends_are_open(view):
    bins = margin_bins(view).drop_duplicates("middle").sort_values("middle")
    assert 0.0 in set(bins["low"])
    assert np.isneginf(bins["low"].iloc[0])
    assert np.isposinf(bins["high"].iloc[-1])
    assert 20 < len(bins) <= 62


def test_bins_without_a_diagnosis_have_no_kind(weighed):
    bins = margin_bins(weighed)
    assert bins["pairs"].sum() == 40
    assert bins["kind"].isna().all()


def test_equal_margins_are_one_bin(tmp_path, make_world, write_scored):
    run = write_scored(tmp_path, make_world(pairs=20), features=False)
    table = pd.read_parquet(run.weights_path).assign(margin=0.0)
    table.to_parquet(run.weights_path)
    with RunView(run.path) as view:
        (line,) = margin_bins(view).itertuples()
        points = margin_points(view)
    assert (line.pairs, line.low, line.high) == (20, -np.inf, np.inf)
    assert (points.margin_P.tolist(), points.pairs_P.tolist()) == ([0.0], [20.0])


@pytest.mark.parametrize(
    ("width", "nice"), [(0.0, 1.0), (0.011, 0.02), (0.02, 0.02), (3.0, 5.0), (51.0, 100.0), (1e-9, 1e-9)]
)
def test_widths_are_round(width, nice):
    assert nice_width(width) == nice


# --- lengths and places ---


def test_lengths_by_kind_and_of_all(view):
    table = view.sql(
        "SELECT kind, chosen_tokens - rejected_tokens AS longer FROM scores JOIN diagnosis USING (row) "
        "JOIN weights USING (row) WHERE weight IS NOT NULL"
    )
    found = length_bias(view)
    assert pd.isna(found["kind"].iloc[-1])
    for line in found.itertuples():
        part = table if pd.isna(line.kind) else table[table["kind"] == line.kind]
        assert line.pairs == len(part)
        assert line.chosen_longer == pytest.approx((part["longer"] > 0).mean())
        assert line.rejected_longer == pytest.approx((part["longer"] < 0).mean())
        assert line.tokens == pytest.approx(part["longer"].mean())


def test_lengths_without_a_diagnosis_are_of_all(weighed):
    (line,) = length_bias(weighed).itertuples()
    assert line.pairs == 40


def test_the_map_is_the_same_each_time(view):
    some = text_map(view, 50)
    assert len(some) == len(set(some["row"])) == 50
    assert some.equals(text_map(view, 50))
    assert len(text_map(view)) == view.table("diagnosis")["x"].notna().sum()


def test_a_table_that_is_not_there_names_its_command(weighed):
    with pytest.raises(RunError, match="curate diagnose"):
        text_map(weighed)


# --- weights of a histogram ---


def test_points_give_the_weights_of_the_pairs(view):
    weights = view.table("weights").dropna()
    points = margin_points(view)
    assert points.pairs_P.sum() == len(weights)
    found = points.weights(beta=10.0, gamma_beta_ratio=0.4, tau=10.0)
    assert found.residual < 1e-9
    assert np.interp(weights["margin"], points.margin_P, found.weight) == pytest.approx(weights["weight"], abs=1e-3)
    weight = weights["weight"]
    assert points.effective(found.weight) == pytest.approx(weight.sum() ** 2 / (weight**2).sum(), rel=1e-5)


def test_margins_scale_with_beta(view):
    points = margin_points(view)
    margin_N = view.table("weights").dropna()["margin"].to_numpy()
    exact = gamma_weights(margin_N * 0.25, gamma0=0.5, tau=1.0).weight
    found = points.weights(beta=2.5, gamma_beta_ratio=0.2, tau=1.0).weight
    assert np.interp(margin_N, points.margin_P, found) == pytest.approx(exact, abs=1e-3)


def test_effective_size_by_hand():
    points = MarginPoints(np.array([-1.0, 1.0]), np.array([3.0, 1.0]), 1.0)
    assert points.effective(np.array([1.0, 1.0])) == 4.0
    assert points.effective(np.array([1.0, 3.0])) == pytest.approx(36 / 12)


# --- two runs ---


@pytest.fixture(scope="module")
def other(planted, tmp_path_factory):
    """The same data at another β."""
    folder = tmp_path_factory.mktemp("other") / "run"
    shutil.copytree(planted.run.path, folder)
    run = Run.open(folder)
    weigh(run, WeighConfig(beta=5.0))
    diagnose(run, DiagnoseConfig(p_flip=0.9))
    return folder


def test_movement_is_what_a_join_gives(view, other):
    with RunView(other) as after:
        found = movement(view, after)
        columns = ["pair_id", "row", "margin", "kind", "p_flip"]
        now = after.table("weights").merge(after.table("diagnosis"), on=["pair_id", "row"])[columns]
    was = view.table("weights").merge(view.table("diagnosis"), on=["pair_id", "row"])[columns]
    both = was.merge(now, on=["pair_id", "row"], suffixes=("_was", ""))
    assert found.pairs == len(both) == found.kinds["pairs"].sum()
    assert found.correlation == pytest.approx(both["margin"].corr(both["margin_was"]))
    assert found.shift == pytest.approx((both["margin"] - both["margin_was"]).mean())
    assert found.turned == 0
    assert found.other_kind == (both["kind"] != both["kind_was"]).sum() > 0
    assert found.margins["pairs"].sum() == (both["margin"].notna() & both["margin_was"].notna()).sum()
    counts = both.groupby(["kind_was", "kind"]).size()
    assert {(line.was, line.now): line.pairs for line in found.kinds.itertuples()} == counts.to_dict()


def test_a_run_has_not_moved_from_itself(view):
    found = movement(view, view)
    assert (found.shift, found.turned, found.other_kind) == (0.0, 0, 0)
    assert found.correlation == pytest.approx(1.0)


def test_other_data_cannot_be_compared(view, make_world, write_scored, tmp_path):
    run = write_scored(tmp_path, make_world(pairs=60, seed=9))
    diagnose(run, DiagnoseConfig())
    with RunView(run.path) as after, pytest.raises(RunError, match="no pair in common"):
        movement(view, after)


def test_copies_go_with_copies(make_world, write_scored, tmp_path):
    world = make_world(pairs=60)
    world.rows[7] = {**world.rows[6]}
    run = write_scored(tmp_path, world)
    diagnose(run, DiagnoseConfig())
    with RunView(run.path) as view:
        assert movement(view, view).pairs == 60
