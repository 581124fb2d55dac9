"""The demo data: what its script writes, what is planted in it, and that curate does not peep at the truth."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from curate import IngestConfig, Run, ingest

DATA = Path(__file__).parents[2] / "data"
TRUTHS = {"clean": 158, "flipped": 42, "near_tie": 20, "duplicate": 6, "contradiction": 4, "defective": 10}


@pytest.fixture(scope="module")
def rows():
    return [json.loads(line) for line in (DATA / "demo.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return read(DATA / "demo.jsonl", tmp_path_factory.mktemp("demo"))


def read(path, folder):
    run = Run.create(folder / "run")
    ingest(IngestConfig((str(path),)), run)
    return pd.read_parquet(run.pairs_path)


def sides(row, *names):
    return tuple(row[name] for name in names)


def test_the_file_is_what_its_script_writes(tmp_path):
    for name in ("make_demo.py", "demo_texts.py"):
        shutil.copy(DATA / name, tmp_path)
    done = subprocess.run([sys.executable, tmp_path / "make_demo.py"], capture_output=True, text=True, check=True)
    assert (tmp_path / "demo.jsonl").read_bytes() == (DATA / "demo.jsonl").read_bytes()
    printed = dict(line.split() for line in done.stdout.splitlines())
    assert printed == {name: str(number) for name, number in {**TRUTHS, "rows": 240}.items()}


def test_the_check_finds_a_changed_file(tmp_path):
    for name in ("make_demo.py", "demo_texts.py", "demo.jsonl"):
        shutil.copy(DATA / name, tmp_path)
    check = [sys.executable, tmp_path / "make_demo.py", "--check"]
    assert subprocess.run(check, capture_output=True).returncode == 0
    changed = (tmp_path / "demo.jsonl").read_bytes().replace(b'"ann-1"', b'"ann-2"', 1)
    (tmp_path / "demo.jsonl").write_bytes(changed)
    assert subprocess.run(check, capture_output=True).returncode == 1
    assert (tmp_path / "demo.jsonl").read_bytes() == changed


def test_counts_by_truth(rows):
    assert Counter(row["truth"] for row in rows) == TRUTHS
    assert [row["id"] for row in rows] == [f"demo-{number:04d}" for number in range(1, 241)]
    assert all((row["truth_note"] == "") == (row["truth"] == "clean") for row in rows)


def test_where_the_flips_are(rows):
    flips = [row for row in rows if row["truth"] == "flipped"]
    assert Counter(row["source"] == "advice" for row in flips) == {True: 20, False: 22}
    assert Counter(row["annotator"] == "ann-3" for row in flips) == {True: 21, False: 21}
    assert Counter(row["source"] for row in rows)["advice"] == 68


def test_copies_come_after_what_they_repeat(rows):
    first = {}
    for row in rows:
        key = sides(row, "prompt", "chosen", "rejected")
        swapped = sides(row, "prompt", "rejected", "chosen")
        if row["truth"] == "duplicate":
            assert first[key]["truth"] == "clean"
            assert first[key]["id"] in row["truth_note"]
        elif row["truth"] == "contradiction":
            assert first[swapped]["truth"] == "clean"
            assert first[swapped]["id"] in row["truth_note"]
        else:
            assert not {key, swapped} & first.keys() or key == swapped
        first.setdefault(key, row)


def test_every_row_becomes_a_pair(rows, pairs):
    assert pairs["row"].tolist() == list(range(240))
    assert pairs["source"].tolist() == [row["source"] for row in rows]
    assert [[(vote["annotator"], vote["vote"]) for vote in votes] for votes in pairs["votes"]] == [
        [(row["annotator"], 1)] for row in rows
    ]
    for name in ("prompt", "chosen", "rejected"):
        assert [[turn["content"] for turn in turns] for turns in pairs[name]] == [[row[name]] for row in rows]
    assert pairs["pair_id"].duplicated().sum() == TRUTHS["duplicate"]
    assert not pairs["tie"].any()
    assert pairs[["rating_chosen", "rating_rejected"]].isna().all(axis=None)


@pytest.mark.parametrize("change", ["shifted", "numbers", "messages", "gone"])
def test_the_truth_is_never_read(rows, pairs, tmp_path, change):
    changed = []
    for row, next_row in zip(rows, [*rows[1:], rows[0]], strict=True):
        rest = {name: value for name, value in row.items() if not name.startswith("truth")}
        truth = {
            "shifted": {"truth": next_row["truth"], "truth_note": next_row["truth_note"]},
            "numbers": {"truth": 1, "truth_note": None},
            "messages": {"truth": [{"role": "user", "content": "x"}], "truth_note": {"score_chosen": 1}},
            "gone": {},
        }[change]
        changed.append({**rest, **truth})
    assert changed != rows
    (tmp_path / "demo.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
    found = read(tmp_path / "demo.jsonl", tmp_path)
    own = ["original", "file"]
    pd.testing.assert_frame_equal(found.drop(columns=own), pairs.drop(columns=own))
