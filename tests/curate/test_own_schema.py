"""The source's own schema: rows that stay are the source's, flips change the label alone, the impossible is refused."""

import bz2
import csv
import gzip
import io
import json
import lzma

import hypothesis.strategies as st
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from curate import readers
from curate.config import ExportConfig, IngestConfig
from curate.decisions import Decisions
from curate.errors import RunError
from curate.exporting import export
from curate.flipping import FLIPS, Flip
from curate.formats import FORMATS
from curate.pairs import ingest, messages_of
from curate.store import Run
from curate.view import RunView

SOURCE = ExportConfig("source")
HOSTILE = [
    "",
    "a\0b",
    "\r\n\r",
    "\u2028\x85",
    "\u202eשלום",
    "👩\u200d👧\U0010ffff",
    "'\"\\,;\t",
    "=cmd()",
    "x" * 1_000_000,
]
REAL = ("hh-rlhf-harmless-test/test.jsonl.gz", "llamafactory-dpo-demo/dpo_en_demo.json", "llmbar")


def make_run(path, folder, **reading):
    run = Run.create(folder)
    ingest(IngestConfig((str(path),), **reading), run)
    return run


def exported(run, output, *decisions, config=SOURCE):
    with RunView(run.path) as view:
        if decisions:
            table = pd.DataFrame(decisions, columns=["row", "action", "value"][: len(decisions[0])])
            Decisions(view).decide_all(table, origin="test")
        return export(view, output, config)


def write_lines(path, lines):
    path.write_bytes(b"".join(lines))
    return path


def sides(run):
    """Prompt, chosen and rejected of the labelled pairs."""
    table = run.read_pairs(0, run.count_pairs())
    columns = [messages_of(table[name].to_pylist()) for name in ("prompt", "chosen", "rejected")]
    return [pair for *pair, tie in zip(*columns, table["tie"].to_pylist(), strict=True) if not tie]


LINES = [
    b'{"prompt": "q0", "chosen": "a",   "rejected": "b", "n": 1.50e0, "note": "\\u00e9"}\r\n',
    b'  {"n":12345678901234567890,"rejected":"r1","chosen":"c1","prompt":"q1"}\n',
    b"\n",
    b'{"prompt": "q2", "chosen": "a", "rejected": "b", "chosen_model": "x", "rejected_model": "y"}\n',
    b'{"prompt": "q3", "chosen": 7, "rejected": "b"}\n',
    '{"prompt": "é\u2028", "chosen": "👩", "rejected": "\x7f"}'.encode(),
]


@pytest.fixture
def lines(tmp_path):
    return make_run(write_lines(tmp_path / "data.jsonl", LINES), tmp_path / "run")


# --- JSON Lines ---


def test_rows_that_stay_are_the_sources_bytes(lines, tmp_path):
    report = exported(lines, tmp_path / "out", (1, "drop"))
    assert (tmp_path / "out" / "train" / "data.jsonl").read_bytes() == LINES[0] + LINES[3] + LINES[5]
    assert report["removed"] == {"decision": 1, "refused": 1}
    assert report["files"] == [{"split": "train", "file": "train/data.jsonl", "pairs": 3}]
    assert report["columns"] == []


def test_a_flip_exchanges_the_texts_of_two_columns_and_leaves_the_rest(lines, tmp_path):
    exported(lines, tmp_path / "out", (0, "flip"), (1, "flip"), (2, "flip"), (4, "flip"))
    assert (tmp_path / "out" / "train" / "data.jsonl").read_bytes().split(b"\n") == [
        b'{"prompt": "q0", "chosen": "b",   "rejected": "a", "n": 1.50e0, "note": "\\u00e9"}\r',
        b'  {"n":12345678901234567890,"rejected":"c1","chosen":"r1","prompt":"q1"}',
        b'{"prompt": "q2", "chosen": "b", "rejected": "a", "chosen_model": "y", "rejected_model": "x"}',
        '{"prompt": "é\u2028", "chosen": "\x7f", "rejected": "👩"}'.encode(),
    ]


def test_weights_and_soft_labels_are_columns_where_one_was_decided(lines, tmp_path):
    report = exported(lines, tmp_path / "out", (0, "weight", 0.5), (1, "soft", 0.75), (2, "keep", None))
    found = (tmp_path / "out" / "train" / "data.jsonl").read_bytes().split(b"\n")
    assert found[0] == LINES[0].replace(b"}\r\n", b', "curate_weight": 0.5}\r')
    assert found[1] == LINES[1].replace(b"}\n", b', "curate_p_flip": 0.25}')
    assert found[2] == LINES[3].rstrip(b"\n")
    assert report["columns"] == ["curate_weight", "curate_p_flip"]
    assert "`curate_weight`" in (tmp_path / "out" / "README.md").read_text()


def test_a_byte_order_mark_is_left_out(tmp_path):
    path = write_lines(tmp_path / "data.jsonl", [readers.BOM, *LINES[:2]])
    exported(make_run(path, tmp_path / "run"), tmp_path / "out", (1, "flip"))
    assert (tmp_path / "out" / "train" / "data.jsonl").read_bytes().startswith(LINES[0])


@pytest.mark.parametrize(
    ("ending", "unpack"), [(".gz", gzip.decompress), (".bz2", bz2.decompress), (".xz", lzma.decompress)]
)
def test_packed_files_stay_packed(tmp_path, ending, unpack):
    packed = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[ending](b"".join(LINES[:2]))
    path = write_lines(tmp_path / f"data.jsonl{ending}", [packed])
    exported(make_run(path, tmp_path / "run"), tmp_path / "out")
    assert unpack((tmp_path / "out" / "train" / path.name).read_bytes()) == b"".join(LINES[:2])


def test_zstd_stays_zstd(tmp_path):
    with pa.CompressedOutputStream(str(tmp_path / "data.jsonl.zst"), "zstd") as stream:
        stream.write(b"".join(LINES[:2]))
    exported(make_run(tmp_path / "data.jsonl.zst", tmp_path / "run"), tmp_path / "out")
    with pa.CompressedInputStream(str(tmp_path / "out" / "train" / "data.jsonl.zst"), "zstd") as stream:
        assert stream.read() == b"".join(LINES[:2])


def test_rows_beyond_a_limit_are_not_in_the_run(tmp_path):
    path = write_lines(tmp_path / "data.jsonl", LINES)
    exported(make_run(path, tmp_path / "run", limit=2), tmp_path / "out")
    assert (tmp_path / "out" / "train" / "data.jsonl").read_bytes() == LINES[0] + LINES[1]


# --- JSON, CSV ---


def test_elements_of_a_list_keep_their_text(tmp_path):
    elements = ['{ "prompt": "q",\n  "chosen": "a", "rejected": "b" }', '{"prompt":"q2","chosen":"c","rejected":"d"}']
    (tmp_path / "data.json").write_text(f"[{', '.join(elements)}]")
    exported(make_run(tmp_path / "data.json", tmp_path / "run"), tmp_path / "out", (1, "flip"))
    flipped = '{"prompt":"q2","chosen":"d","rejected":"c"}'
    assert (tmp_path / "out" / "train" / "data.json").read_text() == f"[\n{elements[0]},\n{flipped}\n]\n"


def test_lines_in_a_json_file_stay_lines(tmp_path):
    exported(make_run(write_lines(tmp_path / "data.json", LINES), tmp_path / "run"), tmp_path / "out", (2, "drop"))
    assert (tmp_path / "out" / "train" / "data.json").read_bytes() == LINES[0] + LINES[1] + LINES[5]


CSV = b'prompt,"chosen",rejected,note\r\nq0,"a\r\n""x""",b,\r\n\r\n"q1",c,"d","e, f"\r\nq2,=g,h,i'


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_records_keep_their_quotes(tmp_path, delimiter):
    name = {",": "data.csv", "\t": "data.tsv"}[delimiter]
    content = CSV.replace(b",", delimiter.encode()).replace(b"e" + delimiter.encode(), b"e,")
    run = make_run(write_lines(tmp_path / name, [content]), tmp_path / "run")
    head, first, _, third, last = content.replace(b"a\r\n", b"a\n").split(b"\r\n")
    exported(run, tmp_path / "out", (2, "drop"))
    expected = b"\r\n".join([head, first, third, b""]).replace(b"a\n", b"a\r\n")
    assert (tmp_path / "out" / "train" / name).read_bytes() == expected
    exported(run, tmp_path / "out", (0, "flip"), (1, "keep"), (2, "keep"))
    found = (tmp_path / "out" / "train" / name).read_bytes()
    assert found.endswith(third + b"\r\n" + last)
    records = list(csv.reader(io.StringIO(found.decode(), newline=""), delimiter=delimiter))
    assert records[1] == ["q0", "b", 'a\r\n"x"', ""]


def test_a_csv_with_weights_has_them_in_every_record(tmp_path):
    run = make_run(write_lines(tmp_path / "data.csv", [CSV]), tmp_path / "run")
    exported(run, tmp_path / "out", (1, "weight", 0.5))
    found = pd.read_csv(tmp_path / "out" / "train" / "data.csv")
    assert found["curate_weight"].tolist() == [1.0, 0.5, 1.0]
    assert found["chosen"].tolist() == ['a\r\n"x"', "c", "=g"]


# --- Parquet ---


@pytest.fixture
def parquet(tmp_path):
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    turns = [[{"role": "assistant", "content": f"{side}{at}"}] for side in "ab" for at in range(5)]
    table = pa.table(
        {
            "prompt": pa.array([[{"role": "user", "content": f"q{at}"}] for at in range(5)], pa.list_(message)),
            "chosen": pa.array(turns[:5], pa.list_(message)),
            "rejected": pa.array(turns[5:], pa.large_list(message)),
            "at": pa.array(range(5), pa.timestamp("ms")),
            "kind": pa.array(list("xyxyx")).dictionary_encode(),
            "raw": pa.array([b"\xff", None, b"", b"a", b"b"]),
            "score_chosen": pa.array([5, 4, 3, 2, 1], pa.int8()),
            "score_rejected": pa.array([0.0, 0.0, 0.0, 0.0, 0.0], pa.float32()),
        }
    ).replace_schema_metadata({"huggingface": "{}"})
    pq.write_table(table, tmp_path / "data.parquet", store_schema=True)
    return pq.read_table(tmp_path / "data.parquet"), make_run(tmp_path / "data.parquet", tmp_path / "run")


def test_parquet_keeps_schema_and_values(parquet, tmp_path):
    table, run = parquet
    exported(run, tmp_path / "out", (1, "drop"), (3, "drop"))
    found = pq.read_table(tmp_path / "out" / "train" / "data.parquet")
    assert found.schema.equals(table.schema, check_metadata=True)
    assert found.equals(table.take([0, 2, 4]))


def test_a_flip_in_parquet_keeps_the_columns_types(parquet, tmp_path):
    table, run = parquet
    exported(run, tmp_path / "out", (1, "flip"))
    found = pq.read_table(tmp_path / "out" / "train" / "data.parquet")
    assert found.schema.equals(table.schema, check_metadata=True)
    before, after = table.to_pylist(), found.to_pylist()
    swapped = {
        "chosen": "rejected",
        "rejected": "chosen",
        "score_chosen": "score_rejected",
        "score_rejected": "score_chosen",
    }
    before[1] = {name: before[1][swapped.get(name, name)] for name in before[1]}
    assert after == before


def test_a_soft_label_is_one_more_column(parquet, tmp_path):
    table, run = parquet
    exported(run, tmp_path / "out", (1, "soft", 0.25))
    found = pq.read_table(tmp_path / "out" / "train" / "data.parquet")
    assert found.drop_columns(["curate_p_flip"]).equals(table)
    assert found["curate_p_flip"].to_pylist() == [0, 0.75, 0, 0, 0]


# --- splits and several files ---


def test_splits_and_several_files_keep_their_names(tmp_path):
    for name in ("x/part.jsonl", "y/part.jsonl"):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        rows = [{"prompt": f"{name} {at}", "chosen": "a", "rejected": "b"} for at in range(20)]
        write_lines(tmp_path / "data" / name, [json.dumps(row).encode() + b"\n" for row in rows])
    run = make_run(tmp_path / "data", tmp_path / "run")
    report = exported(run, tmp_path / "out", config=ExportConfig("source", test_share=0.3))
    files = {file["file"]: file["pairs"] for file in report["files"]}
    assert set(files) == {f"{split}/{part}/part.jsonl" for split in ("train", "test") for part in "xy"}
    found = {name: (tmp_path / "out" / name).read_bytes().splitlines() for name in files}
    assert {name: len(lines) for name, lines in found.items()} == files
    assert sorted(found["train/x/part.jsonl"] + found["test/x/part.jsonl"]) == sorted(
        (tmp_path / "data" / "x" / "part.jsonl").read_bytes().splitlines()
    )


def test_a_file_of_which_nothing_stays_is_not_written(tmp_path):
    write_lines(tmp_path / "a.jsonl", LINES[:1])
    write_lines(tmp_path / "b.jsonl", LINES[1:2])
    run = Run.create(tmp_path / "run")
    ingest(IngestConfig((str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"))), run)
    exported(run, tmp_path / "out", (0, "drop"))
    assert [it.name for it in (tmp_path / "out" / "train").iterdir()] == ["b.jsonl"]


# --- round trips ---

texts = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"]))
rows = st.fixed_dictionaries(
    {"prompt": texts, "chosen": texts, "rejected": texts, "odd '\"; $(x)\n": texts, "score_chosen": texts}
)


@settings(deadline=None, max_examples=8, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(made=st.lists(rows, min_size=2, max_size=6), data=st.data())
@pytest.mark.parametrize("container", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_reading_it_gives_the_pairs_as_decided(container, made, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    path = folder / f"a '\"; $(x) --help.{container}"
    if container == "parquet":
        pq.write_table(pa.Table.from_pylist(made), path)
    elif container == "json":
        path.write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")
    elif container == "jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
    else:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(made[0]), delimiter="," if container == "csv" else "\t")
            writer.writeheader()
            writer.writerows(made)
    run = make_run(path, folder / "run", format="trl_standard")
    before = sides(run)
    actions = [
        "keep",
        *data.draw(st.lists(st.sampled_from(["keep", "flip", "drop"]), min_size=len(made) - 1, max_size=len(made) - 1)),
    ]
    exported(run, folder / "out", *enumerate(actions))
    again = make_run(folder / "out" / "train" / path.name, folder / "again", format="trl_standard")
    expected = [
        [prompt, rejected, chosen] if action == "flip" else [prompt, chosen, rejected]
        for (prompt, chosen, rejected), action in zip(before, actions, strict=True)
        if action != "drop"
    ]
    assert sides(again) == expected
    originals = [json.loads(it) for it in again.read_pairs(0, len(expected), ["original"])["original"].to_pylist()]
    stay = [row for row, action in zip(made, actions, strict=True) if action != "drop"]
    untouched = ["prompt", "odd '\"; $(x)\n", "score_chosen"]
    assert [[it[name] for name in untouched] for it in originals] == [[it[name] for name in untouched] for it in stay]


@pytest.mark.parametrize("name", REAL)
def test_real_data_flipped_twice_is_as_it_was(name, real_data, tmp_path):
    run = make_run(real_data / name, tmp_path / "run")
    ties = run.read_pairs(0, run.count_pairs(), ["row", "tie"]).to_pylist()
    flips = [(it["row"], "flip") for it in ties if not it["tie"]]
    exported(run, tmp_path / "once", *flips)
    once = make_run(tmp_path / "once" / "train", tmp_path / "run1")
    assert sides(once) == [[prompt, rejected, chosen] for prompt, chosen, rejected in sides(run)]
    exported(once, tmp_path / "twice", *((row, "flip") for row in range(once.count_pairs())))
    assert sides(make_run(tmp_path / "twice" / "train", tmp_path / "run2")) == sides(run)


@pytest.mark.parametrize("name", [*REAL, "pandalm-testset/testset-v1.json"])
def test_real_data_without_decisions_are_the_sources_rows(name, real_data, tmp_path):
    run = make_run(real_data / name, tmp_path / "run")
    report = exported(run, tmp_path / "out")
    rows_of = {row.text.strip() for it in run.require("ingest")["inputs"] for row in readers.read_rows(it["path"])}
    found = [row.text for file in report["files"] for row in readers.read_rows(str(tmp_path / "out" / file["file"]))]
    assert len(found) == report["exported"] == len(sides(run))
    assert set(found) <= rows_of


@pytest.mark.parametrize("name", [name for name, flip in FLIPS.items() if isinstance(flip, Flip)])
def test_every_format_is_flipped_in_its_own_file(name, tmp_path):
    kind, _, label = name.partition(":")
    path = write_lines(tmp_path / "data.jsonl", [json.dumps(FORMATS[kind].example).encode() + b"\n"] * 2)
    run = make_run(path, tmp_path / "run", label=label or None)
    exported(run, tmp_path / "out", (1, "flip"))
    again = make_run(tmp_path / "out" / "train" / "data.jsonl", tmp_path / "again", label=label or None)
    (prompt, chosen, rejected), flipped = sides(again)
    assert flipped == [prompt, rejected, chosen]


# --- what cannot be ---


def refusal(run, output, *decisions):
    with pytest.raises(RunError) as caught:
        exported(run, output, *decisions)
    assert not output.exists()
    return str(caught.value)


def test_a_source_that_is_gone_or_changed_is_named(lines, tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"".join(LINES) + b"\n")
    assert refusal(lines, tmp_path / "out").startswith(
        f"{path}: it has changed since it was read; bring the old one back"
    )
    path.unlink()
    message = refusal(lines, tmp_path / "out")
    assert message.startswith(f"{path}: no such file or folder; bring it back as it was read")
    assert "formats that need only the run: trl, " in message
    assert exported(lines, tmp_path / "out", config=ExportConfig("trl"))["exported"] == 4


def test_flips_of_pandalm_are_refused_and_drops_are_not(tmp_path):
    path = write_lines(tmp_path / "data.jsonl", [json.dumps(FORMATS["pandalm"].example).encode() + b"\n"] * 2)
    run = make_run(path, tmp_path / "run")
    message = refusal(run, tmp_path / "out", (0, "flip"))
    assert "1 pairs are to be flipped, but in pandalm the label is the majority of three annotators' votes" in message
    assert exported(run, tmp_path / "out", (0, "drop"))["exported"] == 1


def test_a_column_of_the_exports_name_is_not_overwritten(tmp_path):
    row = {"prompt": "q", "chosen": "a", "rejected": "b", "curate_weight": 3}
    run = make_run(write_lines(tmp_path / "data.jsonl", [json.dumps(row).encode()]), tmp_path / "run")
    assert exported(run, tmp_path / "out")["exported"] == 1
    message = refusal(run, tmp_path / "new", (0, "weight", 0.5))
    assert "it has a column 'curate_weight' itself" in message


def test_rows_that_give_several_pairs_are_refused(lines, tmp_path):
    facts = lines.require("ingest")
    facts["inputs"][0] |= {"rows": 3, "format": "nectar"}
    lines.record("ingest", facts["fingerprint"], facts)
    assert "in nectar a row is not a pair" in refusal(lines, tmp_path / "out")


def test_pairs_of_joined_rows_are_refused_even_where_they_are_as_many(tmp_path):
    """Three rated answers to one prompt give three pairs, none of which is a row."""
    answers = [{**FORMATS["helpsteer2"].example, "response": f"{at}", "helpfulness": at} for at in range(3)]
    path = write_lines(tmp_path / "data.jsonl", [json.dumps(answer).encode() + b"\n" for answer in answers])
    run = make_run(path, tmp_path / "run", pairing="all")
    assert run.require("ingest")["pairs"] == len(answers)
    assert "in helpsteer2 a row is not a pair" in refusal(run, tmp_path / "out")
