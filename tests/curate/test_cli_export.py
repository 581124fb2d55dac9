"""`curate export` as a command: what it prints, its faults, a kill in the middle, and hostile names."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from curate.cli import app
from curate.config import IngestConfig
from curate.decisions import Decisions
from curate.pairs import ingest
from curate.store import Run
from curate.view import RunView

ROOT = Path(__file__).parents[2]
HOSTILE = "a'b\";$(x)`y` \x1b[2J\u202e%s{0}--help"


def call(*args):
    done = CliRunner().invoke(app, ["export", *map(str, args)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def command_line(*args):
    command = [sys.executable, "-m", "curate", "export", *map(str, args)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT)


def make_run(folder, pairs=4, name="data", **columns):
    rows = [{"prompt": f"p{at}", "chosen": "c", "rejected": f"r{at}", **columns} for at in range(pairs)]
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run = Run.create(folder / "run")
    ingest(IngestConfig((str(data),)), run)
    return run


def decide(run, *actions, reason=""):
    with RunView(run.path) as view:
        table = pd.DataFrame({"row": range(len(actions)), "action": actions, "reason": reason, "origin": "rule 1"})
        Decisions(view).decide_all(table, origin="page pairs")


def test_it_says_what_is_where_and_what_is_not(tmp_path):
    run = make_run(tmp_path)
    decide(run, "drop", "flip", "review", reason="a joke")
    assert call(run.path, "-o", tmp_path / "out").stdout.splitlines() == [
        f"Export of {run.path} as trl",
        "  pairs       4 + 0 refused rows = 3 exported + 1 removed",
        f"  train       3 pairs in {tmp_path / 'out' / 'train.parquet'}",
        "  removed     1: a joke (rule 1)",
        "  decided     flip: 1",
        "  decided     review: 1",
    ]


def test_without_decisions_it_says_how_to_decide(tmp_path):
    run = make_run(tmp_path)
    note = f"  note        nothing was decided; curate decide {run.path} --plan conservative does"
    assert call(run.path, "-o", tmp_path / "out").stdout.splitlines()[-1] == note


def test_json_is_the_report_in_the_folder(tmp_path):
    run = make_run(tmp_path, 40)
    done = call(run.path, "-o", tmp_path / "out", "--test-share", 0.3, "--seed", 7, "--format", "axolotl", "--json")
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "out" / "_export.json").read_text())
    assert (found["seed"], found["test_share"], found["format"], found["container"]) == (7, 0.3, "axolotl", "jsonl")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--format", "csv"], "--format csv: unknown; choose one of trl, trl-standard, "),
        (["--container", "csv"], "--container csv: trl is written as parquet or jsonl"),
        (["--test-share", "1.5"], "--test-share is 1.5: it must be 0 or more, and below 1"),
        (["--test-share", "nan"], "--test-share is nan: it must be 0 or more, and below 1"),
    ],
)
def test_faults_are_one_line(tmp_path, args, message):
    run = make_run(tmp_path)
    done = command_line(run.path, "-o", tmp_path / "out", *args)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"curate: {message}")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_no_run_is_a_fault(tmp_path):
    done = command_line(tmp_path / "none", "-o", tmp_path / "out")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "not a run" in done.stderr


@pytest.mark.parametrize("name", ["trl", "llamafactory", "llm-comparator", "source"])
def test_hostile_names_come_through_and_do_nothing(tmp_path, name):
    run = make_run(tmp_path, name=HOSTILE, **{HOSTILE: HOSTILE, "source": HOSTILE})
    decide(run, "drop", "keep", reason=HOSTILE)
    done = call(run.path, "-o", tmp_path / HOSTILE, "--format", name)
    assert {letter for letter in done.stdout if not letter.isprintable()} <= {"\n"}
    report = json.loads((tmp_path / HOSTILE / "_export.json").read_text(encoding="utf-8"))
    assert report["reasons"][0]["reason"] == HOSTILE
    assert report["inputs"][0]["path"] == str(tmp_path / f"{HOSTILE}.jsonl")
    card = (tmp_path / HOSTILE / "README.md").read_text(encoding="utf-8")
    assert "\x1b" not in card
    if name == "source":
        lines = (tmp_path / HOSTILE / "train" / f"{HOSTILE}.jsonl").read_bytes()
        assert lines == b"".join((tmp_path / f"{HOSTILE}.jsonl").read_bytes().splitlines(keepends=True)[1:])
    assert sorted(it.name for it in tmp_path.iterdir()) == sorted([HOSTILE, f"{HOSTILE}.jsonl", "run"])


def test_an_export_that_is_killed_leaves_no_half_file(tmp_path):
    run = make_run(tmp_path, 60_000)
    command = [sys.executable, "-m", "curate", "export", str(run.path), "-o", str(tmp_path / "out")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not list(tmp_path.glob(".out.*.tmp/train.parquet")):
        assert process.poll() is None, "it was done before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    call(run.path, "-o", tmp_path / "out")
    assert len(pd.read_parquet(tmp_path / "out" / "train.parquet")) == 60_000
    assert not list(tmp_path.glob(".out.*"))
