"""A preview says what a loop over the pairs says, changes nothing, and adds up."""

import io
import json
import math
import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from curate.applying import decide
from curate.columns import Columns
from curate.config import DiagnoseConfig, SelftestConfig
from curate.decisions import Decisions
from curate.diagnosing import diagnose
from curate.effects import NO_LABEL
from curate.entries import PairDecision
from curate.errors import ConfigError
from curate.plans import Plan, Rule
from curate.preview import EXAMPLES, UNDECIDED, preview
from curate.preview_text import preview_records, render_preview
from curate.ready_made import ready_made
from curate.selftest import selftest
from curate.view import RunView

PAIRS = 300
RULES = (
    'when p_flip > 0.6 then drop because "very likely wrong"',
    'when source = "web" and chosen_tokens > 20 then weight(2 * p_flip)',
    'when source = "books" and p_flip > 0.1 then soft',
    'when source = "chats" and p_flip > 0.3 and rating < 0 then flip because "two signals"',
    'when source = "chats" and p_flip > 0.2 then review',
)
PLAN = Plan("five", tuple(map(Rule.parse, RULES)))


@pytest.fixture(scope="module")
def run(make_world, write_scored, rated_columns, tmp_path_factory):
    """A diagnosed run with ties, opposite labels, pairs that are not scored, and pairs without a source."""
    world = make_world(PAIRS, flips=0.2, seed=3, strength=4.0)
    for at, row in enumerate(world.rows):
        row |= {"won": "tie" if at % 17 == 5 else "a", "good": float(world.gap_N[at]), "bad": 0.0}
        if at % 11 == 2:
            row["source"] = None
    for at in (60, 80):
        world.rows[at + 1] |= {name: world.rows[at][name] for name in ("prompt", "won", "good", "bad")}
        world.rows[at + 1] |= {"chosen": world.rows[at]["rejected"], "rejected": world.rows[at]["chosen"]}
        world.gap_N[at + 1] = -world.gap_N[at]
    made = write_scored(tmp_path_factory.mktemp("preview"), world, unscored=[4, 40], columns=rated_columns)
    diagnose(made, DiagnoseConfig(folds=5, repeats=2))
    return made


@pytest.fixture
def view(run):
    with RunView(run.path) as opened:
        yield opened


@pytest.fixture
def facts(view):
    return view.sql(
        "SELECT row, pair_id, tie, source, p_flip, chosen_tokens - rejected_tokens AS longer, "
        "CASE WHEN 'opposite_label' IN checks THEN 1 / (1 + exp(evidence)) ELSE p_flip END AS p_wrong "
        "FROM pairs JOIN diagnosis USING (pair_id, row) JOIN scores USING (pair_id, row) ORDER BY row"
    )


def trained(tie, action, value, decided=True):
    """A pair's weight and its label."""
    if action == "drop" or (tie and not (decided and action in ("keep", "soft", "weight"))):
        return 0.0, 1.0
    label = {"soft": value, "flip": 0.0}.get(action, 0.5 if tie else 1.0)
    return value if action == "weight" else 1.0, label


def counted(found):
    return {tuple(line[:3]): line[3] for line in found.actions.itertuples(index=False)}


def check(found, facts, what):
    """Compare with a loop. what: action, value, whether it is decided, reason and origin of each pair."""
    expected, mix, lost = Counter(), Counter(), []
    weights, longer, tokens, left, new, labels = [], [], [], [], [], []
    for fact, (action, value, decided, reason, origin) in zip(facts.itertuples(), what, strict=True):
        weight, label = trained(fact.tie, action, value, decided)
        no_label = fact.tie and weight == 0 and action not in ("drop", "weight")
        expected["drop" if no_label else action, NO_LABEL if no_label else reason, "" if no_label else origin] += 1
        weights.append(weight)
        mix["" if pd.isna(fact.source) else fact.source] += weight
        if action == "soft":
            labels.append(label)
        if not pd.isna(fact.longer) and weight:
            longer.append((weight, label if fact.longer > 0 else 1 - label if fact.longer < 0 else 0.0))
            tokens.append(weight * (2 * label - 1) * fact.longer)
        if not fact.tie and not pd.isna(fact.p_flip):
            left.append(fact.p_wrong * weight * label)
            new.append((1 - fact.p_wrong) * weight * (1 - label))
            lost.append((1 - fact.p_wrong) * (weight == 0))
    assert counted(found) == expected
    assert found.pairs == len(facts)
    assert found.labelled == (~facts["tie"]).sum()
    assert found.staying == sum(weight > 0 for weight in weights)
    assert found.effective == pytest.approx(sum(weights) ** 2 / sum(weight**2 for weight in weights))
    after = found.sources.assign(source=found.sources["source"].fillna("")).set_index("source")["after"]
    assert after.to_dict() == pytest.approx(mix)
    whole = sum(weight for weight, _ in longer)
    assert found.length.loc["after", "longer"] == pytest.approx(sum(w * share for w, share in longer) / whole)
    assert found.length.loc["after", "tokens"] == pytest.approx(sum(tokens) / whole)
    assert (facts["p_wrong"] != facts["p_flip"]).sum() - facts["p_flip"].isna().sum() == 4
    known = facts.loc[~facts["tie"], "p_wrong"].dropna()
    assert (found.noise.known, found.noise.before) == (len(known), pytest.approx(known.sum()))
    assert found.noise.left == pytest.approx(sum(left))
    assert found.noise.new == pytest.approx(sum(new))
    assert found.noise.lost == pytest.approx(sum(lost) / (1 - known).sum())
    assert found.labels["pairs"].sum() == len(labels)
    for low, high, pairs in found.weights.itertuples(index=False):
        assert pairs == sum(low - 1e-9 <= weight < high - 1e-9 for weight in weights if weight > 0)


def of_plan(view, plan):
    """Of each pair what a plan says."""
    for line in decide(view, plan).itertuples():
        origin = f"{plan.name}, rule {line.rule}" if line.rule else ""
        yield line.action, line.value, line.rule > 0, line.reason, origin


def test_a_plan(view, facts):
    found = preview(view, PLAN)
    assert set(found.actions["action"]) == {"keep", "drop", "flip", "soft", "weight", "review"}
    check(found, facts, of_plan(view, PLAN))


def test_nothing_is_decided(view, facts):
    found = preview(view, Plan("none"))
    assert counted(found) == {("keep", UNDECIDED, ""): found.labelled, ("drop", NO_LABEL, ""): PAIRS - found.labelled}
    assert (found.length.loc["before"] == found.length.loc["after"]).all()
    assert (found.noise.left, found.noise.new, found.noise.lost) == (found.noise.before, 0, 0)
    assert found.effective == found.staying == found.labelled
    assert (found.sources["before"] == found.sources["after"]).all()
    labelled = facts[~facts["tie"] & facts["longer"].notna()]
    assert found.length.loc["before", "longer"] == (labelled["longer"] > 0).mean()
    assert found.length.loc["before", "shorter"] == (labelled["longer"] < 0).mean()


def test_a_tie_that_is_kept_counts_for_both_of_its_sides(view, facts):
    found = preview(view, Plan("all", (Rule.parse("when true then keep"),))).length.loc["after"]
    known = facts[facts["longer"].notna()]
    assert known["tie"].any()
    preferred = np.where(known["tie"], 0.5, known["longer"] > 0) * (known["longer"] != 0)
    assert found["longer"] == pytest.approx(preferred.mean())
    assert found["tokens"] == pytest.approx((known["longer"] * ~known["tie"]).mean())


def test_what_is_left_by_hand(view):
    soft = preview(view, Plan("soft", (Rule.parse("when not tie then soft(0.7)"),))).noise
    assert soft.share_left == pytest.approx(0.7)
    assert soft.new == pytest.approx(0.3 * (soft.known - soft.before))
    weight = preview(view, Plan("weight", (Rule.parse("when true then weight(0.25)"),)))
    assert weight.noise.share_left == pytest.approx(0.25)
    assert weight.effective == weight.staying == PAIRS  # ties stay, since a rule decides about them
    drop = preview(view, Plan("drop", (Rule.parse("when true then drop"),)))
    assert (drop.noise.share_left, drop.noise.lost, drop.staying, drop.effective) == (0, 1, 0, 0)
    assert drop.length.loc["after"].isna().all()


def test_target_margins_decide_about_all_that_have_one(view):
    found = preview(view, ready_made("gamma-po", Columns.of(view).known))
    assert set(found.actions["action"]) == {"keep", "drop"}
    assert found.noise.share_left == 1


def test_what_stands_already_is_below_the_plan(view, facts, run):
    decisions = Decisions(view)
    first = Plan("first", (Rule.parse("when p_flip < 0.5 then weight(0.5)"),))
    entry = decisions.apply(first, origin="first.toml")
    single = facts["pair_id"][facts["source"] == "web"].iloc[0]
    (alone,) = decisions.decide([PairDecision(single, "drop", reason="seen", origin="page")])
    try:
        below = [
            ("drop", math.nan, True, "seen", "page")
            if fact.pair_id == single
            else ("weight", 0.5, True, "p_flip < 0.5", "first, rule 1")
            if fact.p_flip < 0.5
            else ("keep", math.nan, False, "no rule matches", "")
            for fact in facts.itertuples()
        ]
        top = list(of_plan(view, PLAN))
        on_top = [new if new[2] else old for new, old in zip(top, below, strict=True)]
        check(preview(view, PLAN, decisions), facts, on_top)
        spared = [
            old if fact.pair_id == single else new
            for fact, old, new in zip(facts.itertuples(), below, on_top, strict=True)
        ]
        check(preview(view, PLAN, decisions, spare_reviewed=True), facts, spared)
        untouched = [(*it[:3], UNDECIDED if it[3] == "no rule matches" else it[3], it[4]) for it in below]
        check(preview(view, Plan("none"), decisions), facts, untouched)
    finally:
        decisions.undo(entry.id)
        decisions.undo(alone.id)


def test_what_is_previewed_is_what_then_stands(view, facts):
    decisions = Decisions(view)
    before = preview(view, PLAN, decisions)
    entry = decisions.apply(PLAN, origin="five.toml")
    try:
        after = preview(view, Plan("none"), decisions)
        assert {key: value for key, value in counted(before).items() if key[2]} == {
            key: value for key, value in counted(after).items() if key[2]
        }
        assert vars(after.noise) == pytest.approx(vars(before.noise))
        pd.testing.assert_frame_equal(after.length, before.length)
        pd.testing.assert_frame_equal(after.weights, before.weights)
    finally:
        decisions.undo(entry.id)


def test_examples_are_the_first_pairs_of_each_rule(view):
    found, said = preview(view, PLAN), decide(view, PLAN)
    pairs = view.table("pairs").set_index("row")
    for number, rule in enumerate(PLAN.rules, 1):
        shown = found.examples[found.examples["origin"] == f"five, rule {number}"]
        decided = said[(said["rule"] == number)]["row"]
        decided = [row for row in decided if not pairs["tie"][row] or rule.then.name in ("drop", "soft", "weight")]
        assert shown["row"].tolist() == decided[:EXAMPLES]
        for line in shown.itertuples():
            assert line.pair_id == pairs["pair_id"][line.row]
            assert line.rejected == pairs["rejected"][line.row][0]["content"]


def test_a_run_that_is_only_read(make_world, write_scored, tmp_path):
    made = write_scored(tmp_path, make_world(20))
    made.strike("score")
    with RunView(made.path) as view:
        found = preview(view, Plan("web", (Rule.parse('when source = "web" then drop'),)))
        assert found.length is None
        assert found.noise is None
        sources = found.sources.set_index("source")
        assert sources["after"]["web"] == 0 < sources["before"]["web"]


def test_the_selftest_speaks_where_there_is_one(make_world, write_scored, tmp_path):
    made = write_scored(tmp_path, make_world(PAIRS, flips=0.2, strength=4.0))
    diagnose(made, DiagnoseConfig(folds=5, repeats=2))
    plan = Plan("called", (Rule.parse("when p_flip >= 0.5 then drop"),))
    with RunView(made.path) as view:
        assert preview(view, plan).noise.selftest is None
    selftest(made, SelftestConfig(noise=(0.2,), plans=(), seeds=3))
    with RunView(made.path) as view:
        rows = view.table("selftest").query("metric == 'called_recall' and folds == 'grouped' and signal == 'fused'")
        recall, low, high = rows[["mean", "low", "high"]].iloc[0]
        assert preview(view, plan).noise.selftest == pytest.approx((1 - recall, 1 - high, 1 - low))


def test_a_plan_that_does_not_fit(view):
    with pytest.raises(ConfigError, match="five, rule 1, when: column 6: no column 'judge'"):
        preview(view, Plan("five", (Rule.parse("when judge < 0 then drop"),)))


def test_records_are_json(view):
    plan = Plan("heavy", (Rule.parse("when p_flip < 0.5 then weight(7)"),))
    records = json.loads(json.dumps(preview_records(preview(view, plan)), allow_nan=False))
    assert records["weights"][-1] == {"low": 2.0, "high": None, "pairs": records["actions"][0]["pairs"]}
    assert [line["when"] for line in records["length"]] == ["before", "after"]
    assert records["noise"]["share_left"] == preview(view, plan).noise.share_left


@pytest.mark.parametrize(
    ("rule", "line"),
    [("when true then weight(0.25)", "weight +0.25 for all"), ("when p_flip < 0.5 then weight(7)", "2.0 and more")],
)
def test_equal_weights_are_one_number(view, rule, line):
    console = Console(width=200, file=io.StringIO())
    console.print(render_preview(preview(view, Plan("one", (Rule.parse(rule),))), ""))
    assert re.search(line, text := console.file.getvalue())
    assert ("for all" in text) == ("for all" in line)


def test_the_text_tells_it_all(view):
    found = preview(view, PLAN)
    console = Console(width=200, file=io.StringIO())
    console.print(render_preview(found, "Preview of five"))
    text = console.file.getvalue()
    for line in found.actions.itertuples():
        assert f"{line.pairs:,}  {line.reason}" in text
    assert f"{found.noise.share_left:.0%} of them still train" in text
