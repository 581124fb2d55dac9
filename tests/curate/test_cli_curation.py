"""`curate decide` and `curate plans`: what they write, print and take back, and what they refuse."""

import json
import re
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from curate.cli import app
from curate.config import DiagnoseConfig
from curate.decisions import Decisions
from curate.diagnosing import diagnose
from curate.errors import ConfigError, CurateError, RunError
from curate.plans import Plan, read_plan
from curate.preview import preview
from curate.preview_text import preview_records
from curate.ready_made import READY_MADE
from curate.view import RunView
from tests.curate.test_predicates import HOSTILE

PAIRS = 120
RULE = 'when p_flip > 0.5 then drop because "very likely wrong"'


@pytest.fixture(scope="module")
def made(make_world, write_scored, tmp_path_factory):
    """A diagnosed run without decisions."""
    world = make_world(PAIRS, flips=0.2, seed=2, strength=4.0)
    run = write_scored(tmp_path_factory.mktemp("curation"), world)
    diagnose(run, DiagnoseConfig(folds=5, repeats=2))
    return run.path


@pytest.fixture
def run(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "run"))


def call(*args):
    """The standard output of a command that succeeds."""
    done = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def refusal(*args):
    """The message of a command that fails."""
    done = CliRunner().invoke(app, [str(arg) for arg in args])
    assert isinstance(done.exception, CurateError), (done.output, done.exception)
    message = str(done.exception)
    assert len(message.splitlines()) == 1
    return message


def standing(run):
    with RunView(run) as view:
        return Decisions(view).current()


def files(run):
    """What every file of a run holds; locks apart, which are empty."""
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.suffix != ".lock"}


def first_id(run):
    with RunView(run) as view:
        return view.table("pairs", ["pair_id"])["pair_id"][0]


# --- plans ---


def test_a_dry_run_shows_and_writes_nothing(run):
    before = files(run)
    text = call("decide", run, "--plan", "conservative", "--dry-run")
    assert files(run) == before
    assert "".join(text.split()).startswith(f"Previewofconservativeon{run}")  # wherever it is wrapped
    assert text.endswith("Nothing was written: the same command without --dry-run decides\n")
    found = json.loads(call("decide", run, "--plan", "conservative", "--dry-run", "--json"))
    assert found["pairs"] == sum(line["pairs"] for line in found["actions"]) == PAIRS
    assert files(run) == before


def test_a_plan_twice_changes_nothing_the_second_time(run):
    first = json.loads(call("decide", run, "--plan", "conservative", "--json"))
    stands, held = standing(run), files(run)
    assert (first["new"], first["origin"], first["pairs"]) == (True, "conservative", len(stands))
    assert first["actions"] == stands["action"].value_counts().to_dict()
    second = json.loads(call("decide", run, "--plan", "conservative", "--json"))
    assert second == {**first, "new": False}
    assert call("decide", run, "--plan", "conservative").startswith(f"nothing changes: entry {first['entry'][:8]} of ")
    pd.testing.assert_frame_equal(standing(run), stands)
    assert files(run) == held


def test_what_is_decided_is_what_the_dry_run_shows(run):
    shown = json.loads(call("decide", run, "--rule", RULE, "--dry-run", "--json"))
    text = call("decide", run, "--rule", RULE)
    dropped = next(line["pairs"] for line in shown["actions"] if line["action"] == "drop")
    assert f"  drop     {dropped}\n" in text
    assert text.endswith(f"Next: curate export {run} -o DIR\n")
    assert (standing(run)["action"] == "drop").sum() == dropped


def test_undo_of_a_bulk_action_restores_exactly(run):
    call("decide", run, "--rule", "when p_flip > 0.2 then soft")
    call("decide", run, "--pair", first_id(run), "--action", "weight(0.5)", "--reason", "a joke")
    before = standing(run)
    call("decide", run, "--plan", "conservative", "--set", "sure=0.55")
    changed = standing(run)
    assert not changed.equals(before)
    text = call("decide", run, "--undo", "last")
    pd.testing.assert_frame_equal(standing(run), before)
    restore = text.splitlines()[1].split()[-3]
    call("decide", run, "--undo", restore)
    pd.testing.assert_frame_equal(standing(run), changed)


def test_undo_last_goes_back_step_by_step(run):
    for number in (0.3, 0.5, 0.7):
        call("decide", run, "--rule", f"when true then weight({number})")
    for number in (0.5, 0.3):
        call("decide", run, "--undo", "last")
        assert standing(run)["value"].tolist() == [number] * PAIRS
    entry = json.loads(call("decide", run, "--undo", "last", "--json"))["of"]
    assert standing(run).empty
    assert call("decide", run, "--undo", entry).startswith("nothing changes: entry ")
    assert refusal("decide", run, "--undo", "last") == f"--undo last: no decision stands in {run}/decisions.jsonl"


def test_rules_stand_before_those_of_the_plan(run):
    call("decide", run, "--plan", "conservative", "--rule", 'when source = "web" then keep because "ours"')
    stands = standing(run)
    with RunView(run) as view:
        web = view.sql("SELECT row FROM pairs WHERE source = 'web'")["row"]
    ours = stands[stands["origin"] == "command line and conservative, rule 1"]
    assert set(ours["row"]) == set(web)
    assert (ours["action"] == "keep").all()
    assert len(stands) > len(ours)


def test_reviewed_pairs_may_be_spared(run):
    call("decide", run, "--pair", first_id(run), "--action", "keep")
    call("decide", run, "--rule", "when true then drop", "--spare-reviewed")
    assert standing(run)["action"].value_counts().to_dict() == {"drop": PAIRS - 1, "keep": 1}
    call("decide", run, "--rule", "when true then drop")
    assert set(standing(run)["action"]) == {"drop"}


def test_a_ready_made_plan_as_a_file_decides_the_same(run, tmp_path):
    file = tmp_path / "plan.toml"
    file.write_text(call("plans", run, "conservative", "--set", "sure=0.6"), encoding="utf-8")
    assert json.loads(call("plans", run, "conservative", "--set", "sure=0.6", "--json"))["toml"] == file.read_text()
    assert read_plan(file).name == "conservative"
    call("decide", run, "--plan", "conservative", "--set", "sure=0.6")
    stands = standing(run)
    call("decide", run, "--plan", file)
    pd.testing.assert_frame_equal(
        standing(run).drop(columns=["entry", "decided_at"]), stands.drop(columns=["entry", "decided_at"])
    )


def test_plans_says_what_a_run_allows(run):
    everywhere = json.loads(call("plans", "--json"))
    assert [plan["name"] for plan in everywhere] == list(READY_MADE)
    here = {plan["name"]: plan["lacks"] for plan in json.loads(call("plans", run, "--json"))}
    assert here["conservative"] is None
    assert "--signals" in here["llm-judge-remove"]
    assert "--unconditional" in here["ifd"]
    for name, lacks in here.items():
        command = ("decide", run, "--plan", name, "--dry-run")
        assert lacks == (None if lacks is None else refusal(*command))
        if lacks is None:
            call(*command)
    text = call("plans", run)
    assert "--set judge=judge" in text
    assert f"not for this run: {here['ifd']}" in text


# --- single pairs, history, other runs ---


def test_one_pair(run):
    pair_id = first_id(run)
    text = call("decide", run, "--pair", pair_id[:12], "--action", "soft(0.25)", "--reason", 'he said "no"')
    assert text.startswith(f"{pair_id[:8]}: soft(0.25); curate decide {run} --undo ")
    (line,) = standing(run).to_dict("records")
    assert (line["pair_id"], line["action"], line["value"]) == (pair_id, "soft", 0.25)
    assert (line["reason"], line["origin"]) == ('he said "no"', "command line")
    call("decide", run, "--rule", "when true then drop")
    history = json.loads(call("decide", run, "--pair", pair_id[:12], "--history", "--json"))
    assert [(it["action"], it["stands"]) for it in history] == [("soft", True), ("drop", True)]
    assert 'soft(0.25): he said "no"' in call("decide", run, "--pair", pair_id, "--history")


def test_history(run):
    assert call("decide", run, "--history") == "nothing was ever decided\n"
    call("decide", run, "--rule", RULE)
    call("decide", run, "--undo", "last")
    first, second = json.loads(call("decide", run, "--history", "--json"))
    assert (first["kind"], first["stands"], first["origin"]) == ("bulk", False, "command line")
    assert Plan.from_toml(first["plan"]).rules[0].reason == "very likely wrong"
    assert (second["kind"], second["stands"], second["of"]) == ("undo", True, first["entry"])
    lines = call("decide", run, "--history").splitlines()
    assert lines[0].startswith(f"✗ {first['entry'][:8]}  ")
    assert lines[1].endswith(f"takes back {first['entry'][:8]}")


def test_without_options_what_stands(run):
    assert "nothing is decided" in call("decide", run)
    call("decide", run, "--rule", RULE)
    found = json.loads(call("decide", run, "--json"))
    with RunView(run) as view:
        expected = preview_records(preview(view, Plan(""), Decisions(view)))
    assert found["actions"] == expected["actions"]
    assert (found["gone"], found["turned"]) == ([], 0)
    assert call("decide", run).endswith(f"Next: curate export {run} -o DIR\n")


def test_decisions_of_another_download(run, make_world, write_scored, tmp_path):
    """The same pairs in another order, and without some."""
    call("decide", run, "--rule", "when p_flip > 0.3 then drop")
    stands = standing(run)
    world = make_world(PAIRS, flips=0.2, seed=2, strength=4.0)
    order = [at for at in reversed(range(PAIRS)) if at != stands["row"][0]]
    world.rows, world.gap_N = [world.rows[at] for at in order], -world.gap_N[order]
    other = write_scored(tmp_path / "other", world).path
    text = call("decide", other, "--from", run)
    assert text.splitlines()[0] == f"entries taken over from {run}: 1"
    assert f"1 of its {len(stands)} pairs are not in this run" in text
    there = standing(other)
    assert set(there["pair_id"]) == set(stands["pair_id"][1:])
    found = json.loads(call("decide", other, "--json"))
    assert found["gone"][0]["gone"] == 1
    with RunView(other) as view:
        now = view.table("weights").set_index("row")["margin"]
    turned = sum(now[line.row] * line.margin < 0 for line in there.itertuples())
    assert found["turned"] == turned > 0
    assert f"{turned} decisions rest on a margin that has changed its sign since" in call("decide", other)
    assert json.loads(call("decide", other, "--from", run, "--json")) == {"new": 0, "later": 0, "gone": found["gone"]}


def test_what_was_decided_here_since_is_said_and_stays(run, tmp_path):
    other = Path(shutil.copytree(run, tmp_path / "other"))
    call("decide", run, "--pair", first_id(run), "--action", "drop")
    time.sleep(0.002)  # entries are told apart by milliseconds
    call("decide", other, "--pair", first_id(run), "--action", "keep")
    text = call("decide", other, "--from", run)
    (again,) = re.findall(
        r"^1 pairs were decided here later and keep that; undo entry (\w+) for what was taken over$", text, re.M
    )
    assert standing(other)["action"].tolist() == ["keep"]
    call("decide", other, "--undo", again)
    assert standing(other)["action"].tolist() == ["drop"]


# --- refusals ---


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--plan", "conservativ"], "--plan conservativ: there is no such file, and no ready-made plan of this name"),
        (["--plan", "conservative", "--set", "sure"], "--set sure: write it as name=value"),
        (["--plan", "conservative", "--set", "sure=2"], "conservative: sure is 2: it must lie between 0 and 1"),
        (["--plan", "conservative", "--set", "shur=0.5"], "conservative has no parameter 'shur': it has sure"),
        (["--plan", "ifd"], "ifd, rule 1, when: column 7: no column 'ifd': it needs scores with --unconditional"),
        (
            ["--rule", "when p_flip > then drop"],
            "command line, rule 1: column 15: expected a column, a number",
        ),
        (["--rule", "when p_flip > 0.5 then flip"], "command line, rule 1: a flip needs two signals that agree"),
        (["--rule", "when true then soft(3)"], "command line, rule 1: soft(3): soft takes a probability, from 0 to 1"),
        (["--rule", "when p_flip > 0 then weight(p_flip - 1)"], "command line, rule 1: weight(p_flip - 1) is not"),
        (["--set", "sure=0.5"], "--set goes with --plan, which is missing"),
        (["--dry-run"], "--dry-run goes with --plan or --rule, which is missing"),
        (["--action", "drop"], "--action goes with --pair, which is missing"),
        (["--plan", "conservative", "--undo", "last"], "--plan or --rule and --undo are two things to do"),
        (["--pair", "0"], "--pair 0: give --action, to decide about it, or --history, to see what was decided"),
        (["--pair", "zz", "--action", "drop"], "no pair has an id that starts with 'zz'"),
        (["--undo", "../../etc"], "no entry has an id that starts with '../../etc'"),
        (["--from", "nowhere"], "nowhere: not a run"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_line(run, args, message):
    before = files(run)
    assert message in refusal("decide", run, *args)
    assert files(run) == before


@pytest.mark.parametrize("action", ["soft", "soft(2)", "soft(1 - p_flip)", "weight", "weight(-1)", "delete", ""])
def test_an_action_that_a_pair_cannot_have(run, action):
    before = files(run)
    refusal("decide", run, "--pair", first_id(run), "--action", action or "''")
    assert files(run) == before


def test_a_run_without_diagnosis_says_what_to_do(make_world, write_scored, tmp_path):
    run = write_scored(tmp_path, make_world(20)).path
    message = refusal("decide", run, "--plan", "conservative", "--dry-run")
    assert message.endswith(f"no column 'checks'; run curate diagnose {run} first")
    with pytest.raises(RunError, match="not a run"):
        call("decide", tmp_path / "nowhere", "--plan", "conservative")


# --- hostile input ---


@pytest.mark.parametrize("text", [text for text in HOSTILE[::4] if text.isprintable()])
def test_hostile_text_is_data(run, text):
    """As a predicate it is refused or matches nothing but itself; as a name, id, reason or file it does nothing."""
    before = files(run)
    for rule in (
        f"when {text} then drop",
        f'when contains(chosen, "{text}") then drop',
        f"when `{text}` > 0 then drop",
    ):
        done = CliRunner().invoke(app, ["decide", str(run), "--rule", rule, "--dry-run"])
        assert done.exit_code == 0 or isinstance(done.exception, CurateError), done.exception
    for option in ("--plan", "--undo", "--from", "--set"):
        with pytest.raises((ConfigError, RunError)):
            CliRunner().invoke(
                app, ["decide", str(run), f"{option}={text}"], catch_exceptions=False, standalone_mode=False
            )
    with pytest.raises(RunError, match="no pair"):
        call("decide", run, f"--pair=x{text}", "--action", "drop")
    assert files(run) == before
    call("decide", run, "--pair", first_id(run), "--action", "drop", f"--reason={text}")
    assert standing(run)["reason"].tolist() == [text]


@pytest.mark.parametrize("name", ["it's; DROP TABLE pairs --", '*[a]? "x"', "$name {0} %s"])
def test_hostile_file_names(made, tmp_path, name):
    run = Path(shutil.copytree(made, tmp_path / name))
    plan = tmp_path / f"{name}.toml"
    plan.write_text(
        f"name = {json.dumps(name)}\n[[rules]]\nwhen = 'p_flip > 0.5'\nthen = 'drop'\nreason = {json.dumps(name)}\n"
    )
    call("decide", run, "--plan", plan, "--dry-run")
    call("decide", run, "--plan", plan)
    stands = standing(run)
    assert len(stands)
    assert stands["reason"].unique() == [name]
    assert stands["origin"].unique() == [f"{name}, rule 1"]
    call("decide", run)
    call("decide", run, "--undo", "last")
    assert standing(run).empty


def test_hostile_columns_of_the_data(make_world, write_scored, tmp_path):
    """A source and an imported signal whose names are SQL and markup."""
    world, evil = make_world(60, seed=4, strength=4.0), "x'); DROP TABLE pairs; [bold]{0}\x1b[31m"
    for at, row in enumerate(world.rows):
        row["source"] = evil if at % 2 else "web"
    run = write_scored(tmp_path, world)
    signals = pd.DataFrame({"row": range(60), 'a" FROM pairs; --': range(60)})
    signals.to_csv(tmp_path / "signals.csv", index=False)
    diagnose(run, DiagnoseConfig((str(tmp_path / "signals.csv"),), folds=5, repeats=2))
    rule = 'when `a" FROM pairs; --` >= 30 then drop'
    found = json.loads(call("decide", run.path, "--rule", rule, "--dry-run", "--json"))
    assert {line["action"]: line["pairs"] for line in found["actions"]} == {"drop": 30, "keep": 30}
    assert found["sources"] == [{"source": name, "before": 30, "after": 15.0} for name in ("web", evil)]
    text = call("decide", run.path, "--rule", rule, "--dry-run")
    assert "\x1b" not in text
    assert "x'); DROP TABLE pairs; [bold]{0}\\x1b[31m" in text
