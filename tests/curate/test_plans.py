"""Plans: TOML and back, the second signal of a flip, what is decided about each pair, and the ready-made plans."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.applying import UNMATCHED, decide, decision_query, match_query, tally
from curate.checks import CHECKS
from curate.columns import DERIVED, TABLES, Columns
from curate.config import DiagnoseConfig
from curate.detect import EXPLANATIONS
from curate.diagnosing import diagnose
from curate.errors import ConfigError
from curate.expressions import FUNCTIONS, Column, Number, Text
from curate.opinions import EVIDENCE, lonely, source_of
from curate.plans import Plan, Rule, read_plan
from curate.predicates import ACTIONS, Action, parse, parse_action
from curate.ready_made import CONTRADICTIONS, DEFECTS, READY_MADE, ready_made
from curate.schema import DIAGNOSIS, PAIRS, SCORES, WEIGHTS
from curate.signals import SIGNALS
from curate.view import RunView
from tests.curate.test_predicates import HOSTILE, TREES

PAIRS_IN_RUN = 400
DOCS = Path(__file__).parents[2] / "docs" / "rules.md"


@pytest.fixture(scope="module")
def run(make_world, write_scored, rated_columns, tmp_path_factory):
    """A diagnosed run with ratings, rewards, log-probs without a prompt, a judge's verdicts, tags and an odd name."""
    folder = tmp_path_factory.mktemp("rules")
    world = make_world(PAIRS_IN_RUN, flips=0.2, seed=5, strength=5.0)
    rng = np.random.default_rng(5)
    for row, gap in zip(world.rows, world.gap_N, strict=True):
        row |= {"won": "a", "good": float(gap + rng.normal()), "bad": 0.0}
    world.rows[0]["won"] = "tie"
    world.rows[1]["rejected"] = world.rows[1]["chosen"]
    for at in (10, 20):
        world.rows[at + 1] |= {name: world.rows[at][name] for name in ("prompt", "source", "annotator")}
        world.rows[at + 1] |= {"chosen": world.rows[at]["rejected"], "rejected": world.rows[at]["chosen"]}
        world.gap_N[at + 1] = -world.gap_N[at]
    passes = ("policy", "policy_unconditional", "reward_model")
    made = write_scored(folder, world, passes=passes, unscored=[3], columns=rated_columns)
    verdicts = np.where(world.gap_N + rng.normal(0, 1, PAIRS_IN_RUN) > 0, "chosen", "rejected")
    # tags are centred: what is above zero is taken for agreement with the label
    tags = {"tag_count": rng.choice([-2, -1, 1, 2], PAIRS_IN_RUN), "new_tag_count": rng.integers(-1, 2, PAIRS_IN_RUN)}
    imported = {"id": [row["id"] for row in world.rows], "judge": verdicts, **tags, "my `judge`": verdicts}
    pd.DataFrame(imported).to_csv(folder / "judge.csv", index=False)
    diagnose(made, DiagnoseConfig((str(folder / "judge.csv"),), folds=5, repeats=2))
    return made


@pytest.fixture(scope="module")
def view(run):
    with RunView(run.path) as opened:
        yield opened


@pytest.fixture(scope="module")
def everything(view):
    """All columns of all pairs."""
    frame = view.table("pairs")
    for table in TABLES[1:]:
        other = view.table(table)
        frame = frame.merge(other[["row", *(name for name in other if name not in frame)]], on="row")
    return frame


def plan_of(*rules, **settings):
    return Plan("p", tuple(map(Rule.parse, rules)), **settings)


# --- rules and files ---


def is_an_action(action):
    """`weight(a > 1)` is none."""
    try:
        return parse_action(str(action)) == action and action.possible
    except ConfigError:
        return False


SOME_ACTIONS = st.one_of(
    st.sampled_from(["keep", "drop", "review", "soft"]).map(Action),
    TREES.map(lambda tree: Action("soft", tree)).filter(is_an_action),
    st.floats(0, 10).map(lambda value: Action("weight", Number(value))),
)
RULES = st.builds(Rule, TREES, SOME_ACTIONS, st.text())
TARGETS = st.sampled_from([None, Column("target_margin"), Number(2.0), Column('odd "name`')])
PLANS = st.builds(Plan, st.text(min_size=1), st.lists(RULES, max_size=3).map(tuple), st.text(), TARGETS)


@given(PLANS)
def test_a_plan_survives_its_file(plan):
    assert Plan.from_toml(plan.toml()) == plan


@given(RULES)
def test_a_rule_survives_its_text(rule):
    assert Rule.parse(str(rule)) == rule


def test_a_file(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(
        """
        name = "mine"
        about = "a test"
        target_margin = "target_margin * 2"

        [[rules]]
        when = '"identical" in checks'
        then = "drop"
        reason = "nothing to prefer"

        [[rules]]
        when = '''
            p_flip > 0.9
            and judge < 0
        '''
        then = "flip"
        """
    )
    plan = read_plan(path)
    assert plan.rules == (
        Rule.parse("when 'identical' in checks then drop because 'nothing to prefer'"),
        Rule.parse("when p_flip > 0.9 and judge < 0 then flip"),
    )
    assert (plan.name, plan.about, str(plan.target_margin)) == ("mine", "a test", "target_margin * 2")
    assert [rule.why for rule in plan.rules] == ["nothing to prefer", "p_flip > 0.9 and judge < 0"]
    assert plan.toml().splitlines()[4:8] == [
        "[[rules]]",
        """when = '"identical" in checks'""",
        'then = "drop"',
        'reason = "nothing to prefer"',
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules = 3", "rules are tables, each under a line [[rules]]"),
        ("rules = [3]", "rule 1: a rule is a table of when, then, reason"),
        ("[[rule]]", "'rule' means nothing here: there are name, about, target_margin, rules"),
        ("[[rules]]\nif = 'tie'", "rule 1: 'if' means nothing here: there are when, then, reason"),
        ("[[rules]]\nwhen = true", "rule 1: when is True, which is no text in quotes"),
        ("[[rules]]\nthen = 'drop'", "rule 1, when: column 1: expected a column, a number or a text, found the end"),
        ("[[rules]]\nwhen = 'tie'", "rule 1, then: column 1: expected keep, drop, flip, review, soft or weight(…)"),
        ("[[rules]]\nwhen = 'tie'\nthen = 'weight(2'", "rule 1, then: column 9: expected ')', found the end"),
        (
            "[[rules]]\nwhen = 'tie'\nthen = 'keep'\n[[rules]]\nwhen = '''tie\n  tie'''\nthen = 'keep'",
            "rule 2, when: line 2, column 3: 'tie' cannot stand here",
        ),
        ("target_margin = 'a >'", "target_margin: column 3: '>' cannot stand here"),
        ("name = 3", "name is 3, which is no text in quotes"),
        ("name =", "no TOML (Invalid value (at end of document))"),
        ("a = " + "[" * 5000, "no TOML ("),
        (
            "[[rules]]\nwhen = 'p_flip > 1'\nthen = 'flip'",
            "rule 1: a flip needs two signals that agree, and p_flip > 1",
        ),
    ],
)
def test_what_is_no_plan_is_told_with_its_place(tmp_path, text, message):
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_plan(tmp_path / "plan.toml")
    assert str(caught.value).startswith(f"{tmp_path / 'plan.toml'}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text())
def test_garbage_is_a_plan_or_a_config_error(text):
    try:
        Plan.from_toml(text)
    except ConfigError as error:
        refused = str(error)
    else:
        refused = ""
    assert not refused or refused.startswith("the plan: ")


@pytest.mark.parametrize(
    "name", ["none.toml", ".", "a\x00b", "*.toml", "'; DROP TABLE pairs", "~", "x" * 5000, "$(true)"]
)
def test_a_file_that_cannot_be_read(tmp_path, name):
    (tmp_path / "plan.toml").write_text("")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_plan(f"{tmp_path}/{name}")


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "plan.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_plan(tmp_path / "plan.toml")


@pytest.mark.parametrize("then", ["weight(0)", "weight(-0)", "soft(1)", "weight(2 * margin)"])
def test_numbers_that_a_pair_can_have(then):
    assert str(Rule.parse(f"when tie then {then}").then) == then


@pytest.mark.parametrize("then", ["weight(-1)", "soft(1.5)", "soft(-0.1)"])
def test_numbers_that_no_pair_can_have(then):
    with pytest.raises(ConfigError, match=r"takes a (weight, 0 or more|probability, from 0 to 1)"):
        Rule.parse(f"when tie then {then}")


# --- a flip needs two signals ---


@pytest.mark.parametrize(
    ("predicate", "alone"),
    [
        ("p_flip > 0.9", {EVIDENCE}),
        ("p_flip > 0.9 and evidence < 0 and fused < -1 and vote_all < 0 and hidden_last < 0", {EVIDENCE}),
        ("p_flip > 0.9 and kind = 'flipped'", {EVIDENCE}),
        ("tie", set()),
        ("true", set()),
        ("'cycle' in checks and source = 'web'", set()),
        ("p_flip > 0.9 and chosen_tokens < rejected_tokens and token_difference < 0 and length < 0", {EVIDENCE}),
        ("p_flip > 0.9 and kind != 'defective'", {EVIDENCE}),
        ("judge < 0 and not kind = 'flipped'", {"judge"}),
        ("rating < 0 and rating_chosen < rating_rejected", {"the ratings"}),
        ("margin < 0 and policy_chosen_logp < -100 and ifd < 0", {"the policy's log-probs"}),
        ("p_flip > 0.9 or judge < 0", {"judge"}),
        ("p_flip > 0.9 and judge < 0 or p_flip > 0.99", {EVIDENCE}),
        ("p_flip > 0.9 and (judge < 0 or source = 'web')", {EVIDENCE}),
        ("not (p_flip <= 0.9 and judge >= 0)", {"judge"}),
        ("p_flip > 0.9 and judge is not null", {EVIDENCE}),
        ("p_flip > 0.9 and not reward_model is null", {EVIDENCE}),
    ],
)
def test_a_flip_by_less_than_two_signals_is_refused(predicate, alone):
    assert lonely(parse(predicate)) == alone
    with pytest.raises(
        ConfigError, match=r"a flip needs two signals that agree, and .* can hold by .* alone"
    ) as caught:
        Rule.parse(f"when {predicate} then flip")
    assert (" and ".join(alone) or "no signal") in str(caught.value)
    Rule.parse(f"when {predicate} then drop")


@pytest.mark.parametrize(
    "predicate",
    [
        "p_flip > 0.9 and judge < 0",
        "kind = 'flipped' and (rating < 0 or reward_model < 0 or votes_against > votes_for or `my judge` < 0)",
        "not (p_flip <= 0.9 or judge >= 0)",
        "judge < 0 and `another judge` < 0",
        "p_flip > 0.9 and margin < 0 or judge < 0 and rating < 0",
        "max(judge, rating) < 0",
        "share_below(reward_model) < 0.1 and p_flip > 0.5",
    ],
)
def test_a_flip_by_two_signals(predicate):
    assert lonely(parse(predicate)) is None
    assert Rule.parse(f"when {predicate} then flip").then == Action("flip")


def test_all_that_the_run_has_of_its_own_is_known():
    """Columns that are not known are taken for signals from a file."""
    ours = {*SIGNALS, *EXPLANATIONS, *PAIRS.names, *SCORES.names, *WEIGHTS.names, *DIAGNOSIS.names, *DERIVED}
    assert [name for name in ours if source_of(name) == name] == []
    assert source_of("my judge") == "my judge"


# --- what is decided ---


def test_the_first_rule_that_matches_decides(view, everything):
    plan = plan_of(
        'when kind = "defective" then drop because "broken"',
        "when p_flip > 0.5 and margin < 0 then flip",
        "when p_flip > 0.5 then drop",
        "when weight > 1 then weight(2 * weight)",
        "when not tie and p_flip > 0.2 then soft",
        "when tie then soft(0.5)",
        "when source = 'web' then review",
        target_margin=Column("target_margin"),
    )
    found = decide(view, plan)
    assert found["row"].tolist() == everything["row"].tolist()
    for line, pair in zip(found.to_dict("records"), everything.to_dict("records"), strict=True):
        expected, value = expected_of(pair)
        assert line["rule"] == expected
        assert line["action"] == (plan.rules[expected - 1].then.name if expected else "keep")
        assert line["reason"] == (plan.rules[expected - 1].why if expected else UNMATCHED)
        assert line["value"] == pytest.approx(value, nan_ok=True)
        margin = math.nan if line["action"] in ("drop", "flip", "review") else pair["target_margin"]
        assert line["target_margin"] == pytest.approx(margin, nan_ok=True)
    assert set(found["rule"]) == set(range(8))
    assert found["action"].dtype == "category"
    assert found["reason"].dtype == "category"


def expected_of(pair):
    if pair["kind"] == "defective":
        return 1, math.nan
    if pair["p_flip"] > 0.5:
        return (2 if pair["margin"] < 0 else 3), math.nan
    if pair["weight"] > 1:
        return 4, 2 * pair["weight"]
    if not pair["tie"] and pair["p_flip"] > 0.2:
        return 5, 1 - pair["p_flip"]
    if pair["tie"]:
        return 6, 0.5
    return (7, math.nan) if pair["source"] == "web" else (0, math.nan)


def test_the_query_says_the_same(view):
    plan = plan_of("when judge < 0 then drop because 'it''s; --'", "when true then weight(0.5)")
    query = decision_query(view, plan)
    found = view.sql(f"SELECT * FROM ({query.sql}) ORDER BY row", **query.parameters)
    assert list(found) == ["pair_id", "row", "rule", "action", "value", "target_margin", "reason"]
    expected = decide(view, plan)
    for name in expected:
        assert found[name].astype(str).tolist() == expected[name].astype(str).tolist()
    assert found["pair_id"].tolist() == view.table("pairs")["pair_id"].tolist()


def test_a_tally_adds_up(view, everything):
    plan = plan_of(
        "when judge < 0 then drop because 'judge'",
        "when judge < 0 or p_flip > 0.2 then review",
        "when p_flip < 0 then keep",
    )
    found = tally(view, plan)
    against, doubtful = everything["judge"] < 0, everything["p_flip"] > 0.2
    assert found[["rule", "action", "reason", "matches", "decides"]].to_numpy().tolist() == [
        [1, "drop", "judge", against.sum(), against.sum()],
        [2, "review", "judge < 0 or p_flip > 0.2", (against | doubtful).sum(), (doubtful & ~against).sum()],
        [3, "keep", "p_flip < 0", 0, 0],
        [0, "keep", UNMATCHED, (~against & ~doubtful).sum(), (~against & ~doubtful).sum()],
    ]
    assert found["when"].tolist() == ["judge < 0", "judge < 0 or p_flip > 0.2", "p_flip < 0", ""]
    assert found["decides"].sum() == PAIRS_IN_RUN


def test_a_plan_without_rules_keeps_all(view):
    found = decide(view, Plan("nothing"))
    assert (set(found["action"]), set(found["reason"]), found["value"].isna().all()) == ({"keep"}, {UNMATCHED}, True)
    assert tally(view, Plan("nothing"))[["rule", "decides"]].to_numpy().tolist() == [[0, PAIRS_IN_RUN]]


def test_a_rule_whose_number_is_null_does_not_match(view):
    """Pair 3 has no score, so neither weight nor p_flip."""
    plan = plan_of("when true then weight(weight)", "when true then soft", "when true then review")
    assert decide(view, plan)["action"][3] == "review"
    assert tally(view, plan)["matches"].tolist()[2:] == [PAIRS_IN_RUN, 0]
    assert tally(view, plan)["matches"][0] == view.table("weights")["weight"].notna().sum()


@pytest.mark.parametrize("then", ["weight(margin)", "soft(weight)", "soft(-p_flip)", "weight(1 - 2 * p_flip)"])
def test_a_number_that_some_pair_cannot_have_is_refused(view, then):
    for ask in (decide, tally, decision_query):
        with pytest.raises(ConfigError, match=r"^p, rule 2: .* is not a (weight|probability).*, for \d+ pairs; min\(…"):
            ask(view, plan_of("when judge > 0 and p_flip < 0.5 then keep", f"when true then {then}"))


def test_a_number_that_only_unmatched_pairs_cannot_have_is_no_matter(view):
    plan = plan_of("when margin < 0 then drop", "when true then weight(margin)")
    assert (decide(view, plan)["value"].dropna() >= 0).all()
    assert tally(view, plan)["decides"].sum() == PAIRS_IN_RUN
    assert decision_query(view, plan).sql


@pytest.mark.parametrize(
    ("rules", "settings", "message"),
    [
        (
            ["when tie then keep", "when\n  jude < 0 then drop"],
            {},
            "p, rule 2, when: line 2, column 3: no column 'jude': did you mean judge?",
        ),
        (["when tie then weight(tie)"], {}, "p, rule 1, then: column 22: tie is yes or no, where a number is needed"),
        ([], {"target_margin": Column("source")}, "p, target_margin: column 1: source is a text"),
    ],
)
def test_errors_name_the_rule(view, rules, settings, message):
    for ask in (decide, tally, decision_query):
        with pytest.raises(ConfigError) as caught:
            ask(view, plan_of(*rules, **settings))
        assert str(caught.value).startswith(message)


def test_matching_pairs(view, everything):
    query = match_query(view, "p_flip > 0.5 or share_below(margin) < 0.1")
    found = view.sql(f"SELECT row FROM ({query.sql}) JOIN pairs USING (pair_id, row) ORDER BY row", **query.parameters)
    rank = everything["margin"].rank(pct=True) - 0.5 / everything["margin"].count()
    assert found["row"].tolist() == everything["row"][(everything["p_flip"] > 0.5) | (rank < 0.1)].tolist()
    assert match_query(view, parse("tie")).sql


def test_a_run_that_is_not_diagnosed(make_world, write_scored, tmp_path):
    run = write_scored(tmp_path, make_world(12), features=False)
    with RunView(run.path) as view:
        assert tally(view, plan_of("when margin < 0 then drop"))["decides"].sum() == 12
        with pytest.raises(
            ConfigError, match=r"p, rule 1, when: column 6: no column 'kind'; run curate diagnose .*run f"
        ):
            decide(view, plan_of("when kind = 'flipped' then drop"))


# --- tables of many row groups, in any order ---

QUERIES = [
    "SELECT count(*), sum(hash(row, rule, value, target_margin)) FROM ({}) WHERE rule = 1",
    "SELECT sum(hash(row, rule, value)) FROM ({}) WHERE row > 9000",
    "SELECT * FROM ({}) ORDER BY value DESC, row LIMIT 5",
    "SELECT * FROM ({}) ORDER BY row DESC LIMIT 5",
    "SELECT sum(hash(row, rule, chosen_tokens)) FROM ({}) JOIN (FROM scores WHERE row % 97 = 3) USING (row)",
    "SELECT sum(hash(row, rule)) FROM ({}) WHERE row IN (SELECT row FROM scores WHERE chosen_tokens = 7)",
    "SELECT rule, count(*), min(value), max(target_margin) FROM ({}) GROUP BY rule ORDER BY rule",
    "SELECT row, value FROM ({}) WHERE action = 'weight' AND value > 1.9 ORDER BY row",
]


@pytest.fixture(scope="module")
def wide(planted, tmp_path_factory):
    """Two runs of 10,000 pairs in small row groups: one with its tables in order, one with them shuffled."""
    count, rng = 10_000, np.random.default_rng(0)
    keys = {"pair_id": [f"{row:032x}" for row in range(count)], "row": range(count)}
    tables = {
        "pairs": {"tie": rng.random(count) < 0.1, "source": ["web"] * count},
        "scores": {"chosen_tokens": rng.integers(1, 99, count)},
        "weights": {
            name: rng.uniform(low, 2, count) for name, low in (("margin", -2), ("target_margin", 0), ("weight", 0))
        },
        "signals": {"judge": rng.uniform(-1, 1, count)},
        "diagnosis": {"kind": rng.choice(["clean", "flipped"], count), "p_flip": rng.random(count)},
    }
    runs = []
    for order in (np.arange(count), rng.permutation(count)):
        path = tmp_path_factory.mktemp("wide") / "run"
        shutil.copytree(planted.run.path, path)
        for name, columns in tables.items():
            file = path / ("pairs/00000.parquet" if name == "pairs" else f"{name}.parquet")
            table = pa.table({**keys, **columns})
            pq.write_table(table if name == "pairs" else table.take(order), file, row_group_size=512)
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["stages"]["ingest"]["pairs"] = count
        (path / "manifest.json").write_text(json.dumps(manifest))
        runs.append(path)
    return runs


@pytest.mark.parametrize("query", QUERIES)
def test_filters_on_top_do_not_shift_what_stands_side_by_side(wide, query):
    plan = plan_of(
        "when kind = 'flipped' and share_below(judge) < 0.2 then drop",
        "when p_flip > 0.9 and margin < quantile(margin, 0.5) and judge < 0 then flip",
        "when weight > 0.5 then weight(weight)",
        target_margin=Column("target_margin"),
    )
    answers = []
    for path in wide:
        with RunView(path) as view:
            made = decision_query(view, plan)
            assert ("POSITIONAL" in made.sql) is (path == wide[0])
            answers.append(view.sql(query.format(made.sql), **made.parameters))
            assert decide(view, plan)["row"].tolist() == list(range(10_000))
    pd.testing.assert_frame_equal(*answers)


# --- ready-made plans ---


def columns_of(view):
    return Columns.of(view).known


@pytest.mark.parametrize("name", READY_MADE)
def test_every_ready_made_plan_runs_and_says_what_it_does(view, name):
    plan = ready_made(name, columns_of(view))
    assert Plan.from_toml(plan.toml()) == plan
    counts = tally(view, plan)
    assert counts["decides"].sum() == PAIRS_IN_RUN
    assert plan.about
    assert all(rule.reason for rule in plan.rules)
    actions = set(counts["action"][counts["decides"] > 0])
    assert ("flip" in actions) == name.endswith("-flip")
    if name.endswith("-remove"):
        assert {rule.then.name for rule in plan.rules} == {"drop"}


def test_drop_defects(view, everything):
    found = decide(view, ready_made("drop-defects", columns_of(view)))
    assert ((found["action"] == "drop") == (everything["kind"] == "defective")).all()


def test_conservative(view, everything):
    found = decide(view, ready_made("conservative", columns_of(view), sure=0.6))
    kind, p_flip, tie = everything["kind"], everything["p_flip"], everything["tie"]
    has = {name: everything["checks"].map(lambda checks, name=name: name in checks) for name in CHECKS}
    broken = sum(has[name] for name in DEFECTS) > 0
    opposite, contradicted = has["opposite_label"], sum(has[name] for name in CONTRADICTIONS) > 0
    expected = pd.Series("keep", everything.index).mask(kind != "unresolved", "soft")
    expected = expected.mask(p_flip.isna() & ~tie, "keep").mask(contradicted & p_flip.isna(), "drop")
    siblings = everything["fused_random_folds"]
    lowest = siblings.rank(pct=True) - 0.5 / siblings.notna().sum() < 0.1
    sure = (kind != "unresolved") & ((p_flip >= 0.6) | ((p_flip >= 0.3) & lowest))
    assert (sure & (p_flip < 0.6)).any()
    expected = expected.mask(opposite & p_flip.notna(), "soft").mask(sure, "drop")
    expected = expected.mask(tie, "soft").mask(broken, "drop")
    assert set(expected) == {"keep", "soft", "drop"}
    assert (opposite & (expected == "soft")).any()
    assert (kind[expected == "drop"] == "flipped").any()
    assert (found["action"] == expected).all()
    value = np.where(opposite, 1 / (1 + np.exp(-everything["evidence"])), 1 - p_flip)
    soft = expected == "soft"
    np.testing.assert_allclose(found["value"][soft], np.where(tie, 0.5, value)[soft], atol=1e-12)


def test_which_defects_conservative_drops():
    """Another check that calls pairs defective needs a look at what the plan does with them."""
    assert DEFECTS == ("identical", "identical_tokens", "empty", "prompts_differ", "last_turn")
    assert CONTRADICTIONS == ("opposite_label", "cycle")


def test_gamma_po_is_as_published(view):
    weights, facts = view.table("weights"), view.stage("weigh")
    found = decide(view, ready_made("gamma-po", columns_of(view)))
    assert set(found["action"]) == {"keep"}
    pd.testing.assert_series_equal(found["target_margin"], weights["target_margin"])
    assert found["target_margin"].mean() == pytest.approx(facts["gamma0"])
    np.testing.assert_allclose(found["target_margin"] / facts["gamma0"], weights["weight"])
    weighted = decide(view, ready_made("gamma-weights", columns_of(view)))
    pd.testing.assert_series_equal(weighted["value"], weights["weight"], check_names=False)
    assert weighted["target_margin"].isna().all()


def test_two_signals_flip(view, everything):
    found = decide(view, ready_made("two-signals-flip", columns_of(view)))
    flipped = everything["kind"] == "flipped"
    agrees = (everything[["rating", "reward_model", "judge", "my `judge`", "tag_count", "new_tag_count"]] < 0).any(
        axis=1
    )
    assert (flipped & agrees).any()
    assert ((found["action"] == "flip") == (flipped & agrees)).all()
    assert ((found["action"] == "drop") == ((flipped & ~agrees) | (everything["kind"] == "defective"))).all()


def test_prefcleanbench(view, everything):
    columns = columns_of(view)
    dropped = {name: decide(view, ready_made(name, columns))["action"] == "drop" for name in READY_MADE}
    assert (dropped["llm-judge-remove"] == (everything["judge"] < 0)).all()
    assert (dropped["vote-majority-remove"] == (everything["vote_majority"] < 0)).all()
    assert (dropped["vote-all-remove"] == (everything["vote_all"] < 0)).all()
    assert (dropped["tag-diversity"] == (everything["new_tag_count"] <= 0)).all()
    for name, number in (("reward-gap-remove", everything["reward_model"]), ("ifd-gap-remove", -everything["ifd_gap"])):
        lowest = number.nsmallest(dropped[name].sum()).index
        assert dropped[name].sum() == round(0.2 * number.count())
        assert dropped[name][lowest].all()
    assert dropped["ifd"][-everything["ifd"] > 1].all()
    assert (dropped["tag-complexity"] == (everything["tag_count"] == -2)).all()
    assert len([name for name, made in READY_MADE.items() if made.published]) == 13


def test_parameters_of_ready_made_plans(view):
    columns = columns_of(view)
    plan = ready_made("llm-judge-remove", columns, judge="my `judge`")
    assert str(plan.rules[0].when) == "`my ``judge``` < 0"
    assert str(ready_made("ifd", columns, share="0.1").rules[1].when) == "share_below(-ifd) < 0.1"
    assert READY_MADE["reward-gap-flip"].parameters == {"gap": "reward_model", "share": 0.2}


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("nothing", {}, "no plan 'nothing': there are drop-defects, conservative, gamma-po"),
        ("ifd", {"sure": 1}, "ifd has no parameter 'sure': it has share"),
        ("drop-defects", {"sure": 1}, "drop-defects has no parameter 'sure': it has none"),
        ("ifd", {"share": "much"}, "ifd: share is 'much', no number"),
        ("ifd", {"share": 1}, "ifd: share is 1: it must lie between 0 and 1"),
        (
            "llm-judge-flip",
            {"judge": "gpt"},
            "llm-judge-flip needs a column 'gpt', which comes from a file, with curate",
        ),
    ],
)
def test_ready_made_plans_that_cannot_be_made(view, name, parameters, message):
    with pytest.raises(ConfigError) as caught:
        ready_made(name, columns_of(view), **parameters)
    assert str(caught.value).startswith(message)


def test_a_plan_that_needs_a_reward_model_says_how_to_get_one():
    with pytest.raises(ConfigError, match="needs a column 'reward_model', which comes from scores with --reward-model"):
        ready_made("reward-gap-remove", ["kind"])


# --- the documentation ---


def test_the_page_has_all_there_is():
    text = DOCS.read_text(encoding="utf-8")
    for name in (*READY_MADE, *ACTIONS, *DERIVED):
        assert f"`{name}" in text, name
    for name in FUNCTIONS:
        assert f"`{name}(" in text, name


def test_the_pages_rules_are_rules(view):
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    plans = [Plan.from_toml(text) for language, text in blocks if language == "toml"]
    rules = [line for language, text in blocks if language == "text" for line in text.splitlines()]
    assert (len(plans), len(rules)) == (1, 8)
    for plan in (*plans, plan_of(*rules)):
        assert tally(view, plan)["decides"].sum() == PAIRS_IN_RUN


# --- hostile names ---


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_do_nothing(run, view, text):
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    plan = Plan(text, (Rule(parse("tie"), Action("drop"), text), Rule(Column("tie"), Action("review"), text)), text)
    assert Plan.from_toml(plan.toml()) == plan
    assert decide(view, plan)["reason"].value_counts()[text] == 1
    assert tally(view, plan)["reason"][0] == text
    query = decision_query(view, plan)
    assert view.sql(query.sql, **query.parameters)["reason"].value_counts()[text] == 1
    with pytest.raises(ConfigError, match="no column") as caught:
        decide(view, Plan(text, (Rule(Column(text), Action("drop")),)))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError):
        ready_made(text, columns_of(view))
    with pytest.raises(ConfigError):
        ready_made("llm-judge-remove", columns_of(view), judge=text)
    query = match_query(view, f"source = {Text(text)}")
    assert len(view.sql(query.sql, **query.parameters)) == 0
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
