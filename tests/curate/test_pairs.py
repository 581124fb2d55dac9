"""Ingest: every row is a pair or is refused with its reason; what went in comes back out of the run."""

import csv
import gzip
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings

from curate import formats, pairs, store
from curate.config import IngestConfig
from curate.errors import ConfigError, EmptyFileError, InputError, RunError
from curate.formats import Message, Pair, Vote
from curate.inputs import find_sources
from curate.pairs import ingest, messages_of, pair_id
from curate.schema import PAIRS, REFUSED
from curate.store import Run

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def trl(number, **more):
    return {"prompt": f"q{number}", "chosen": f"good{number}", "rejected": f"bad{number}", **more}


def write(path, rows):
    """Rows as JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def take(run, *files, replace_data=False, **config):
    return ingest(IngestConfig(tuple(map(str, files)), **config), run, replace_data=replace_data)


def stored(run):
    """All pairs of a run."""
    return run.read_pairs(0, run.count_pairs()).to_pylist()


def refused(run):
    return pq.read_table(run.refused_path).to_pylist()


def counts(record):
    return {name: record[name] for name in ("rows", "pairs", "ties", "refused")}


def content(turns):
    (turn,) = turns
    return turn["content"]


def snapshot(folder):
    """Every file of a folder with its bytes and time, to see that nothing was touched."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run")


@pytest.fixture
def small_parts(monkeypatch):
    """Eight pairs a file, two a row group."""
    for module in (pairs, store):
        monkeypatch.setattr(module, "PART_PAIRS", 8)
        monkeypatch.setattr(module, "GROUP_PAIRS", 2)


# --- what is stored ---


def test_a_pair_as_it_is_stored(run, tmp_path):
    row = {"chosen": " blue.", "prompt": "The sky is", "rejected": " green.", "source": "web", "extra": [1]}
    path = write(tmp_path / "a.jsonl", [row | {"annotator": "ann", "score_chosen": 5, "score_rejected": "3"}])
    record = take(run, path)
    (pair,) = stored(run)
    assert pair == {
        "pair_id": pair_id(formats.FORMATS["trl_standard"].parse(row)),
        "row": 0,
        "prompt": [{"role": "user", "content": "The sky is"}],
        "chosen": [{"role": "assistant", "content": " blue."}],
        "rejected": [{"role": "assistant", "content": " green."}],
        "tie": False,
        "source": "web",
        "votes": [{"annotator": "ann", "vote": 1}],
        "rating_chosen": 5.0,
        "rating_rejected": 3.0,
        "file": str(path),
        "line": 1,
        "original": path.read_text().strip(),
    }
    assert run.read_pairs(0, 1).schema.equals(PAIRS)
    assert counts(record) == {"rows": 1, "pairs": 1, "ties": 0, "refused": 0}
    assert pq.read_table(run.refused_path).equals(REFUSED.empty_table())


def test_counts_add_up_and_refused_rows_say_why(run, tmp_path):
    rows = [trl(0), trl(1, chosen=True), trl(2), {"prompt": "q3", "chosen": "x"}, trl(4), trl(5, rejected="\ud800")]
    path = write(tmp_path / "a.jsonl", rows)
    assert counts(take(run, path)) == {"rows": 6, "pairs": 3, "ties": 0, "refused": 3}
    assert [pair["row"] for pair in stored(run)] == [0, 2, 4]
    assert [pair["line"] for pair in stored(run)] == [1, 3, 5]
    lines = path.read_text().splitlines()
    assert refused(run) == [
        {"row": row, "file": str(path), "line": row + 1, "reason": reason, "original": lines[row]}
        for row, reason in (
            (1, "chosen is a boolean (true), not text"),
            (3, "rejected is missing"),
            (5, "rejected holds a lone surrogate at character 1: not valid Unicode"),
        )
    ]
    assert pq.read_schema(run.refused_path).equals(REFUSED)


@pytest.mark.parametrize(
    "column", ["source", "annotator", "extra", "\ud800"], ids=["source", "annotator", "extra", "name of a column"]
)
def test_a_lone_surrogate_beside_the_text_is_no_crash(run, tmp_path, column):
    record = take(run, write(tmp_path / "a.jsonl", [trl(0), trl(1, **{column: "\udfff"})]))
    assert record["rows"] == 2
    assert record["pairs"] + record["refused"] == 2


def test_ties_are_kept_and_counted(run, tmp_path):
    rows = [{"q": "?", "l": f"A{n}", "r": f"B{n}", "w": label} for n, label in enumerate(["a", "tie", "b", "tie"])]
    columns = {"prompt": "q", "response_a": "l", "response_b": "r", "label": "w"}
    record = take(run, write(tmp_path / "a.jsonl", rows), columns=columns)
    assert counts(record) == {"rows": 4, "pairs": 4, "ties": 2, "refused": 0}
    assert [pair["tie"] for pair in stored(run)] == [False, True, False, True]
    assert [content(pair["chosen"]) for pair in stored(run)] == ["A0", "A1", "B2", "A3"]


def test_several_files_of_several_formats(run, tmp_path):
    first = write(tmp_path / "data" / "prefs.jsonl", [trl(0), trl(1, chosen=3)])
    second = tmp_path / "data" / "bar.json"
    second.write_text(json.dumps([{"input": "q", "output_1": "x", "output_2": "y", "label": 2}], indent=1))
    third = tmp_path / "data" / "orca.csv.gz"
    with gzip.open(third, "wt", newline="") as stream:
        csv.writer(stream).writerows([["question", "chosen", "rejected", "dataset"], ["q", "x\r\ny", "z", "own"]])
    fourth = tmp_path / "data" / "train-00000-of-00003.parquet"
    pq.write_table(pa.Table.from_pylist([formats.FORMATS["ultrafeedback_binarized"].example] * 2), fourth)

    record = take(run, first, second, third, fourth)
    assert counts(record) == {"rows": 6, "pairs": 5, "ties": 0, "refused": 1}
    found = [(pair["row"], Path(pair["file"]).name, pair["line"], pair["source"]) for pair in stored(run)]
    assert found == [
        (0, "prefs.jsonl", 1, "prefs"),
        (2, "bar.json", 2, "bar"),
        (3, "orca.csv.gz", 2, "own"),
        (4, "train-00000-of-00003.parquet", 1, "train"),
        (5, "train-00000-of-00003.parquet", 2, "train"),
    ]
    assert [content(pair["chosen"]) for pair in stored(run)] == ["good0", "y", "x\r\ny", "It is blue.", "It is blue."]
    facts = [(file["format"], file["rows"], file["pairs"], file["refused"]) for file in record["inputs"]]
    assert facts == [
        ("trl_standard", 2, 1, 1),
        ("llmbar", 1, 1, 0),
        ("orca_dpo", 1, 1, 0),
        ("ultrafeedback_binarized", 2, 2, 0),
    ]
    assert record["inputs"][1]["columns"] == ["input", "output_1", "output_2", "label"]
    assert record["inputs"][1]["why"] == "its columns are input (text), output_1 (text), output_2 (text), label"


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("prefs.jsonl", "prefs"),
        ("prefs.jsonl.gz", "prefs"),
        ("train-00000-of-00003.jsonl", "train"),
        ("my-data-00002-of-00003.jsonl.gz", "my-data"),
        ("llama-3.1-prefs.jsonl", "llama-3.1-prefs"),
        ("best-of-3.jsonl", "best-of-3"),
        ("sampled-best-of-8.jsonl", "sampled-best-of-8"),
        ("Präferenzen 😀.jsonl", "Präferenzen 😀"),
    ],
)
def test_the_file_name_is_the_default_source(run, tmp_path, name, source):
    pack = gzip.compress if name.endswith(".gz") else bytes
    (tmp_path / name).write_bytes(pack(json.dumps(trl(0)).encode()))
    take(run, tmp_path / name)
    assert [pair["source"] for pair in stored(run)] == [source]


# --- pair_id ---


def test_pair_ids_follow_the_content_not_the_place(tmp_path):
    rows = [trl(0), trl(1), trl(2), trl(1)]
    forward, backward = (Run.create(tmp_path / name) for name in ("forward", "backward"))
    take(forward, write(tmp_path / "a.jsonl", rows))
    take(backward, write(tmp_path / "b.jsonl", [{"x": 1, **row} for row in rows[::-1]]))
    ids = [pair["pair_id"] for pair in stored(forward)]
    assert [pair["pair_id"] for pair in stored(backward)] == ids[::-1]
    assert ids[1] == ids[3]
    assert len(set(ids)) == 3


MESSAGES = (Message("user", "a"), Message("assistant", "b"))
PAIR = Pair(MESSAGES[:1], MESSAGES[1:], (Message("assistant", "c"),))


@pytest.mark.parametrize(
    "other",
    [
        PAIR.swap(),
        Pair(PAIR.chosen, PAIR.prompt, PAIR.rejected),
        Pair((), MESSAGES, PAIR.rejected),
        Pair((Message("system", "a"),), PAIR.chosen, PAIR.rejected),
        Pair((Message("user", 'a","b'),), PAIR.chosen, PAIR.rejected),
        Pair((Message("user", "a "),), PAIR.chosen, PAIR.rejected),
    ],
)
def test_other_content_has_another_pair_id(other):
    assert pair_id(other) != pair_id(PAIR)


def test_what_is_not_content_leaves_the_pair_id():
    assert pair_id(PAIR) == pair_id(Pair(PAIR.prompt, PAIR.chosen, PAIR.rejected, True, "s", (Vote("a", 1),), 1.0, 2.0))
    assert len(pair_id(PAIR)) == 32


def test_pair_ids_are_the_same_in_every_version():
    """Scores and decisions are kept by this id: a change of its recipe orphans them."""
    text = '[[["user","é"]],[["assistant","b"]],[["assistant","c"]]]'
    pair = Pair((Message("user", "é"),), PAIR.chosen, PAIR.rejected)
    assert pair_id(pair) == hashlib.sha256(text.encode()).hexdigest()[:32] == "d8900d6613315b258c4ef8f15b9935a4"


# --- explicit settings ---


@pytest.mark.parametrize(
    ("rows", "limit", "expected"),
    [
        ([trl(0), trl(1), trl(2)], 2, {"rows": 2, "pairs": 2, "ties": 0, "refused": 0}),
        ([trl(0), trl(1, chosen=1), trl(2), trl(3)], 2, {"rows": 3, "pairs": 2, "ties": 0, "refused": 1}),
        ([trl(0), trl(1)], 2, {"rows": 2, "pairs": 2, "ties": 0, "refused": 0}),
        ([trl(0), trl(1)], 5, {"rows": 2, "pairs": 2, "ties": 0, "refused": 0}),
    ],
)
def test_limit_counts_pairs(run, tmp_path, rows, limit, expected):
    assert counts(take(run, write(tmp_path / "a.jsonl", rows), limit=limit)) == expected
    assert len(stored(run)) == expected["pairs"]
    assert len(refused(run)) == expected["refused"]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_limit_over_several_files(run, tmp_path, limit):
    files = [write(tmp_path / f"{name}.jsonl", [trl(name), trl(f"{name}{name}")]) for name in "ab"]
    record = take(run, *files, limit=limit)
    assert counts(record) == {"rows": limit, "pairs": limit, "ties": 0, "refused": 0}
    assert [file["pairs"] for file in record["inputs"]] == [min(limit, 2), max(limit - 2, 0)]


def test_a_named_format(run, tmp_path):
    path = write(tmp_path / "a.jsonl", [dict.fromkeys(("prompt", "question", "chosen", "rejected"), "x")])
    with pytest.raises(InputError, match="ambiguous, it could be trl_standard, orca_dpo"):
        take(run, path)
    record = take(run, path, format="orca_dpo")
    assert (record["inputs"][0]["format"], record["inputs"][0]["why"]) == ("orca_dpo", "--format says so")


def test_a_mapping_in_the_record(run, tmp_path):
    path = write(tmp_path / "a.jsonl", [{"q": "?", "good": "A", "bad": "B"}])
    record = take(run, path, columns={"prompt": "q", "chosen": "good", "rejected": "bad"})
    assert (record["inputs"][0]["format"], record["inputs"][0]["why"]) == ("columns", "--columns says so")
    assert record["config"]["columns"] == {"prompt": "q", "chosen": "good", "rejected": "bad"}


@pytest.mark.parametrize(
    ("config", "error", "reason"),
    [
        ({"format": "llmbar"}, InputError, r"a\.jsonl: no column 'input'; it has prompt, chosen, rejected"),
        ({"format": "nonsense"}, ConfigError, "no format 'nonsense': choose one of trl_standard, "),
        (
            {"columns": {"prompt": "q", "chosen": "chosen", "rejected": "rejected"}},
            InputError,
            r"a\.jsonl: no column 'q'; it has prompt, chosen, rejected",
        ),
    ],
)
def test_columns_that_are_not_there(run, tmp_path, config, error, reason):
    with pytest.raises(error, match=reason):
        take(run, write(tmp_path / "a.jsonl", [trl(0)]), **config)


def test_progress_is_told_of_every_pair(run, tmp_path, small_parts):
    class Heard:
        lines: tuple[str, ...] = ()
        pairs = 0

        def say(self, line):
            self.lines += (line,)

        def advance(self, pairs):
            self.pairs += pairs

    path, heard = write(tmp_path / "a.jsonl", [trl(n) for n in range(11)]), Heard()
    ingest(IngestConfig((str(path),)), run, heard)
    assert heard.pairs == 11
    assert heard.lines == (
        f"{path}: trl_standard, since its columns are prompt (text), chosen (text), rejected (text)",
    )


# --- ingest again ---


def test_the_same_data_again_does_nothing(run, tmp_path):
    path = write(tmp_path / "a.jsonl", [trl(0), trl(1, chosen=None)])
    record = take(run, path)
    before = snapshot(run.path)
    assert take(run, path) == record
    assert take(run, path, replace_data=True) == record
    assert snapshot(run.path) == before


def test_changed_content_is_ingested_again(run, tmp_path):
    path = write(tmp_path / "a.jsonl", [trl(0)])
    before = take(run, path)
    run.record("score", "key", {})
    write(path, [trl(1), trl(2)])
    after = take(run, path)
    assert after["fingerprint"] != before["fingerprint"]
    assert counts(after) == {"rows": 2, "pairs": 2, "ties": 0, "refused": 0}
    assert [content(pair["prompt"]) for pair in stored(run)] == ["q1", "q2"]
    assert run.stage("score") is None


def test_other_settings_ingest_again(run, tmp_path):
    path = write(tmp_path / "a.jsonl", [trl(0), trl(1)])
    take(run, path, limit=1)
    assert len(stored(run)) == 1
    take(run, path)
    assert len(stored(run)) == 2


def test_more_files_ingest_again(run, tmp_path):
    first, second = (write(tmp_path / f"{name}.jsonl", [trl(name)]) for name in "ab")
    take(run, first)
    assert [file["path"] for file in take(run, first, second)["inputs"]] == [str(first), str(second)]
    assert len(stored(run)) == 2


def test_a_moved_file_is_the_same_data(run, tmp_path):
    path = write(tmp_path / "a.jsonl", [trl(0)])
    take(run, path)
    moved = path.rename(tmp_path / "b.jsonl")
    assert take(run, moved)["inputs"][0]["path"] == str(moved)


def test_entirely_other_data_needs_replace(run, tmp_path):
    first, second = (write(tmp_path / f"{name}.jsonl", [trl(name)]) for name in "ab")
    take(run, first)
    before = snapshot(run.path)
    with pytest.raises(RunError, match=r"this run holds .*a\.jsonl; choose another folder with -o, or say --replace"):
        take(run, second)
    assert snapshot(run.path) == before
    take(run, second, replace_data=True)
    assert [content(pair["prompt"]) for pair in stored(run)] == ["qb"]


# --- failures leave what was there ---


def test_of_several_files_the_empty_ones_are_passed_over(run, tmp_path):
    empty, full, blank = (tmp_path / f"{name}.jsonl" for name in ("a", "b", "c"))
    write(empty, [])
    write(full, [trl(1)])
    blank.write_text("\n \n")
    facts = take(run, tmp_path)
    assert [entry["path"] for entry in facts["inputs"]] == [str(full)]
    assert (facts["rows"], facts["pairs"]) == (1, 1)
    told = []
    sources = find_sources([str(tmp_path)])
    assert [file.path for file in pairs.examined(IngestConfig((str(tmp_path),)), sources, told.append)] == [str(full)]
    assert told == [f"{path}: the file is empty; it holds no row; passed over" for path in (empty, blank)]


def test_nothing_but_empty_files_is_an_error(run, tmp_path):
    files = [write(tmp_path / f"{name}.jsonl", []) for name in "ab"]
    with pytest.raises(EmptyFileError, match=r"a.jsonl: the file is empty; it holds no row$"):
        take(run, *files)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([trl(1, chosen=True), trl(2, chosen=True), trl(3, prompt=None)], "none of the 3 rows became a pair"),
        ([trl(1), {"prompt": 5}, "text"], "line 3"),
        ([trl(n) for n in range(300)] + ["text"], "line 301"),
        ([{"a": 1}], "no known preference format"),
        ([], "empty"),
    ],
    ids=["no pair", "broken early", "broken late", "unknown", "empty"],
)
def test_a_failed_ingest_leaves_the_run_as_it_was(run, tmp_path, small_parts, lines, reason):
    path = write(tmp_path / "a.jsonl", [trl(0), trl(1, chosen=7)])
    take(run, path)
    run.record("score", "key", {})
    before = snapshot(run.path)
    write(path, lines)
    with pytest.raises(InputError, match=reason) as caught:
        take(run, path)
    assert str(caught.value).isprintable()
    assert snapshot(run.path) == before
    assert [content(pair["prompt"]) for pair in stored(run)] == ["q0"]


def test_no_pair_names_the_commonest_reason(run, tmp_path):
    path = write(tmp_path / "a.jsonl", [trl(1, chosen=True), trl(2, prompt=None), trl(3, chosen=True)])
    with pytest.raises(InputError, match=r"most often \(2×\) because chosen is a boolean \(true\), not text"):
        take(run, path, format="trl_standard")


def test_a_failed_first_ingest_leaves_an_empty_run(run, tmp_path):
    with pytest.raises(InputError):
        take(run, write(tmp_path / "a.jsonl", [trl(0, chosen=True)]), format="trl_standard")
    assert list(snapshot(run.path)) == [Path("manifest.json")]
    assert run.stage("ingest") is None


@pytest.mark.parametrize("broken", ["strike", "record"])
def test_an_ingest_that_dies_is_done_again(run, tmp_path, monkeypatch, broken):
    """Before the tables are replaced the old ones count; after, none do until the manifest says so."""
    first, second = (write(tmp_path / f"{name}.jsonl", [trl(name)]) for name in "ab")
    take(run, first)
    with monkeypatch.context() as patch:
        patch.setattr(Run, broken, interrupt)
        with pytest.raises(KeyboardInterrupt):
            take(run, first, second)
    assert (run.stage("ingest") is None) == (broken == "record")
    assert take(run, first, second)["pairs"] == 2
    assert [content(pair["prompt"]) for pair in stored(run)] == ["qa", "qb"]


# --- any text ---

_text = st.text(max_size=30)
ODD = [
    "",
    "\x00",
    "a\r\nb\rc",
    "\u202e\u0645\u0631",
    "👩\u200d👩\u200d👧 \U0010ffff",
    "\u2028\x85",
    "\ufeffx",
    '"\\/\\u0041',
]
HOSTILE = [{"prompt": text, "chosen": text[::-1], "rejected": text + "."} for text in ODD]
_rows = st.lists(st.fixed_dictionaries({"prompt": _text, "chosen": _text, "rejected": _text}), min_size=1, max_size=4)


def _round_trip(name, data, rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        run = Run.create(Path(folder, "run"))
        take(run, path)
        found = stored(run)
    assert [{column: content(pair[column]) for column in rows[0]} for pair in found] == rows
    assert [json.loads(pair["original"]) for pair in found] == rows
    return found


@settings(max_examples=30, deadline=None)
@given(_rows, st.booleans())
@example(HOSTILE, False)
@example(HOSTILE, True)
def test_any_text_survives_json(rows, ascii_only):
    lines = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
    found = _round_trip("a.jsonl", "\n".join(lines).encode(), rows)
    assert [pair["original"] for pair in found] == lines
    found = _round_trip("a.json", ("[" + ",\n".join(lines) + "]").encode(), rows)
    assert [pair["original"] for pair in found] == lines


@settings(max_examples=20, deadline=None)
@given(_rows)
@example(HOSTILE)
def test_any_text_survives_parquet(rows):
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    _round_trip("a.parquet", buffer.getvalue().to_pybytes(), rows)


def test_a_huge_text(run, tmp_path):
    row = trl(0, chosen="é😀\n" * 1_000_000)
    take(run, write(tmp_path / "a.jsonl", [row]))
    assert content(stored(run)[0]["chosen"]) == row["chosen"]


# --- parts and row groups ---


@pytest.mark.parametrize("number", [1, 2, 3, 7, 8, 9, 16, 17])
def test_pairs_lie_in_parts_and_row_groups(run, tmp_path, small_parts, number):
    take(run, write(tmp_path / "a.jsonl", [trl(n) for n in range(number)]))
    parts = [pq.ParquetFile(path) for path in sorted(run.pairs_path.iterdir())]
    full, rest = divmod(number, 8)
    assert [part.metadata.num_rows for part in parts] == [8] * full + [rest] * bool(rest)
    sizes = [part.metadata.row_group(group).num_rows for part in parts for group in range(part.num_row_groups)]
    assert sizes == [2] * (number // 2) + [1] * (number % 2)
    assert [content(pair["prompt"]) for pair in stored(run)] == [f"q{n}" for n in range(number)]


def test_reading_from_any_border_to_any_border(run, tmp_path, small_parts):
    take(run, write(tmp_path / "a.jsonl", [trl(n, chosen="x" if n % 5 else None) for n in range(24)]))
    whole = pa.concat_tables([pq.read_table(path) for path in sorted(run.pairs_path.iterdir())])
    assert whole.num_rows == run.count_pairs() == 19
    for start in range(19):
        for stop in range(start + 1, 20):
            assert run.read_pairs(start, stop).equals(whole.slice(start, stop - start)), (start, stop)


@pytest.mark.parametrize("position", [0, 1, 2, 7, 8, 9, 16, 17])
def test_reading_nothing_gives_an_empty_table(run, tmp_path, small_parts, position):
    take(run, write(tmp_path / "a.jsonl", [trl(n) for n in range(17)]))
    assert run.read_pairs(position, position).equals(PAIRS.empty_table())


def test_reading_some_columns(run, tmp_path, small_parts):
    take(run, write(tmp_path / "a.jsonl", [trl(n) for n in range(11)]))
    assert run.read_pairs(7, 10, ["row", "line"]).to_pydict() == {"row": [7, 8, 9], "line": [8, 9, 10]}


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_every_refused_row_is_written(run, tmp_path, small_parts, number):
    rows = [trl("ok"), *(trl(n, chosen=n) for n in range(number))]
    assert take(run, write(tmp_path / "a.jsonl", rows))["refused"] == number
    assert [row["reason"] for row in refused(run)] == [f"chosen is a number ({n}), not text" for n in range(number)]


def test_messages_of_a_column(run, tmp_path):
    take(run, write(tmp_path / "a.jsonl", [trl(0), trl(1, prompt="")]))
    column = run.read_pairs(0, 2)["prompt"].to_pylist()
    assert messages_of(column) == [(Message("user", "q0"),), (Message("user", ""),)]


# --- memory ---

_MEASURE = """
import sys
from pathlib import Path
from curate.config import IngestConfig
from curate.pairs import ingest
from curate.store import Run

def peak_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

for name in ("small", "large"):
    record = ingest(IngestConfig((f"{sys.argv[1]}/{name}.jsonl",)), Run.create(f"{sys.argv[1]}/{name}"))
    print(record["pairs"], record["refused"], peak_mb())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to measure memory")
def test_memory_does_not_grow_with_the_data(tmp_path):
    """30,000 pairs of 3 kB are 90 MB of text; beyond what 3,000 need, only a little of it may be in memory."""
    filler = "lorem ipsum " * 80
    for name, number in (("small", 3_000), ("large", 30_000)):
        rows = (trl(n, chosen=f"{n} {filler}", rejected=f"{filler} {n}" if n % 10 else None) for n in range(number))
        write(tmp_path / f"{name}.jsonl", rows)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    small, large = (line.split() for line in done.stdout.splitlines())
    assert (small[:2], large[:2]) == (["2700", "300"], ["27000", "3000"])
    assert float(large[2]) < 400
    assert float(large[2]) - float(small[2]) < 60


# --- real data ---


@pytest.mark.parametrize(
    ("name", "form", "expected"),
    [
        ("hh-rlhf-harmless-test", "hh_rlhf", {"rows": 2312, "pairs": 2312, "refused": 0}),
        ("pandalm-testset/testset-v1.json", "pandalm", {"rows": 999, "pairs": 993, "refused": 6}),
        ("llmbar", "llmbar", {"rows": 885, "pairs": 885, "refused": 0}),
        ("llamafactory-dpo-demo", "llamafactory_sharegpt", {"rows": 300, "pairs": 300, "refused": 0}),
    ],
)
def test_real_files(run, name, form, expected):
    if not (DATA / name).exists():
        pytest.skip(f"no {DATA / name}")
    record = take(run, DATA / name)
    assert {key: record[key] for key in expected} == expected
    assert {file["format"] for file in record["inputs"]} == {form}
    found = stored(run)
    assert len(found) == expected["pairs"]
    assert all(json.loads(pair["original"]) for pair in found)
    assert all(pair["prompt"] and pair["chosen"] and pair["rejected"] for pair in found)
    assert all(row["reason"].endswith("not text") and "boolean" in row["reason"] for row in refused(run))


@pytest.mark.parametrize(("most_bytes", "sizes"), [(1, [1024] * 5 + [80]), (1 << 30, [1024, 4176])])
def test_batches_are_all_pairs_in_order(tmp_path, most_bytes, sizes):
    rows = [{"prompt": f"p{at}", "chosen": "c", "rejected": "r"} for at in range(5200)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = Run.create(tmp_path / "run")
    ingest(IngestConfig((str(tmp_path / "data.jsonl"),)), run)
    batches = list(run.pair_batches(["row", "prompt"], most_bytes))
    assert [len(batch) for batch in batches] == sizes
    assert pa.concat_tables(batches).equals(run.read_pairs(0, 5200, ["row", "prompt"]))
