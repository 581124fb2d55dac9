"""What an input names beyond files and folders: saved datasets, the hub's, Arrow files, lists inside a JSON object."""

import gzip
import io
import json
import os
import shutil
from typing import ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from curate.config import IngestConfig
from curate.errors import InputError
from curate.finding import find_files
from curate.pairs import ingest
from curate.readers import read_rows
from curate.store import Run

ROWS = [{"prompt": f"q{n}", "chosen": "é😀\r\n", "rejected": "\x00"} for n in range(5)]


def inside(folder, files):
    return [os.path.relpath(file, folder) for file in files]


def refused(read, *parts):
    """It fails with one line that has each part."""
    with pytest.raises(InputError) as caught:
        read()
    message = str(caught.value)
    assert message.isprintable()
    for part in parts:
        assert part in message
    return message


# --- Arrow ---


def arrow(rows=ROWS, writer=pa.ipc.new_stream):
    stream = io.BytesIO()
    table = pa.Table.from_pylist(rows)
    with writer(stream, table.schema) as out:
        out.write_table(table, max_chunksize=2)
    return stream.getvalue()


@pytest.mark.parametrize("packing", ["", ".gz"])
@pytest.mark.parametrize("writer", [pa.ipc.new_stream, pa.ipc.new_file], ids=["stream", "file"])
def test_arrow_gives_the_same_rows(tmp_path, writer, packing):
    path = tmp_path / f"a.arrow{packing}"
    path.write_bytes((gzip.compress if packing else bytes)(arrow(writer=writer)))
    rows = list(read_rows(str(path)))
    assert [row.values for row in rows] == ROWS
    assert [row.line for row in rows] == [1, 2, 3, 4, 5]
    assert [json.loads(row.text) for row in rows] == ROWS


@pytest.mark.parametrize("writer", [pa.ipc.new_stream, pa.ipc.new_file], ids=["stream", "file"])
@pytest.mark.parametrize("cut", [-1, -8, -9, -200, 20, 3, 0])
def test_arrow_that_is_cut_off(tmp_path, writer, cut):
    """A stream that ends between two batches looks whole but for its end mark."""
    path = tmp_path / "a.arrow"
    path.write_bytes(arrow(writer=writer)[:cut])
    refused(lambda: list(read_rows(str(path))), str(path))


def test_arrow_without_rows(tmp_path):
    path = tmp_path / "a.arrow"
    schema = pa.schema([("prompt", pa.string())])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema):
        pass
    refused(lambda: list(read_rows(str(path))), "the file is empty")


# --- what `datasets` saved ---


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A dataset in three shards, and one of two splits."""
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("saved")
    datasets.disable_progress_bars()
    whole = datasets.Dataset.from_list(ROWS)
    whole.save_to_disk(str(folder / "one"), num_shards=3)
    datasets.DatasetDict(train=whole, test=whole.select([1, 3])).save_to_disk(str(folder / "two"))
    return folder


def test_a_saved_dataset_is_its_shards_in_order(saved):
    files = find_files((str(saved / "one"),))
    assert inside(saved, files) == [f"one/data-0000{n}-of-00003.arrow" for n in range(3)]
    assert [row.values for file in files for row in read_rows(file)] == ROWS


def test_a_saved_dictionary_is_its_splits(saved, tmp_path):
    run = Run.create(tmp_path / "run")
    record = ingest(IngestConfig((str(saved / "two"),)), run)
    assert (record["rows"], record["pairs"]) == (7, 7)
    found = run.read_pairs(0, 7, ["source", "prompt", "rejected"]).to_pylist()
    assert [pair["source"] for pair in found] == ["test"] * 2 + ["train"] * 5
    assert [pair["prompt"][0]["content"] for pair in found] == ["q1", "q3", *(f"q{n}" for n in range(5))]
    assert {pair["rejected"][0]["content"] for pair in found} == {"\x00"}
    assert inside(saved, find_files((str(saved / "two" / "train"),))) == ["two/train/data-00000-of-00001.arrow"]


def test_only_the_files_that_the_state_lists_are_read(saved, tmp_path):
    folder = shutil.copytree(saved / "one", tmp_path / "one")
    (folder / "cache-0123.arrow").write_bytes(arrow())
    (folder / "notes.jsonl").write_text("{}", encoding="utf-8")
    (tmp_path / "beside.jsonl").write_text("{}", encoding="utf-8")
    shards = [f"one/data-0000{n}-of-00003.arrow" for n in range(3)]
    assert inside(tmp_path, find_files((str(tmp_path),))) == ["beside.jsonl", *shards]


def test_a_saved_dataset_that_lacks_a_shard(saved, tmp_path):
    folder = shutil.copytree(saved / "one", tmp_path / "one")
    (folder / "data-00001-of-00003.arrow").unlink()
    refused(
        lambda: ingest(IngestConfig((str(folder),)), Run.create(tmp_path / "run")),
        "data-00001-of-00003.arrow: no such file or folder",
    )


def test_a_saved_dataset_whose_rows_an_index_chooses(saved, tmp_path):
    folder = shutil.copytree(saved / "one", tmp_path / "one")
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    state["_indices_data_files"] = [{"filename": "indices.arrow"}]
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    refused(lambda: find_files((str(folder),)), "state.json: an index chooses the rows", "save the dataset again")


def test_another_state_is_a_file_like_any(tmp_path):
    (tmp_path / "state.json").write_text('[{"a": 1}]', encoding="utf-8")
    assert inside(tmp_path, find_files((str(tmp_path),))) == ["state.json"]


# --- the hub ---


class Hub(MemoryFileSystem):  # type: ignore[misc]
    """A hub of one dataset, in memory."""

    protocol = "hf"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    trouble = None

    @classmethod
    def _strip_protocol(cls, path):
        return f"/{path.removeprefix('hf://').strip('/')}"

    def unstrip_protocol(self, name):
        return f"hf://{name.lstrip('/')}"

    def find(self, path, *args, **options):
        if Hub.trouble:
            raise Hub.trouble
        if not self.exists(path):
            raise FileNotFoundError(path)
        return super().find(path, *args, **options)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setitem(_registry, "hf", Hub)
    monkeypatch.setattr(Hub, "store", {})
    monkeypatch.setattr(Hub, "trouble", None)
    monkeypatch.chdir(tmp_path)
    filesystem = fsspec.filesystem("hf")
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), buffer)
    for name in ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet", "extra/train.parquet"):
        filesystem.pipe(f"/datasets/org/prefs/{name}", buffer.getvalue())
    for name in ("README.md", ".gitattributes", "dataset_infos.json", "pretrain.txt"):
        filesystem.pipe(f"/datasets/org/prefs/{name}", b"{}")
    return filesystem


def test_a_hub_id_stands_for_its_data_files(hub):
    head = "hf://datasets/org/prefs"
    test, train, extra = (
        f"{head}/data/test-00000-of-00001.parquet",
        f"{head}/data/train-00000-of-00001.parquet",
        f"{head}/extra/train.parquet",
    )
    assert find_files(("org/prefs",)) == [test, train, extra]
    assert find_files(("org/prefs:train",)) == [train, extra]
    assert find_files(("org/prefs:test",)) == [test]
    assert find_files((f"{head}/extra",)) == [extra]


def test_a_dataset_of_the_hub_becomes_a_run(hub, tmp_path):
    run = Run.create(tmp_path / "run")
    record = ingest(IngestConfig(("org/prefs:test",)), run)
    assert (record["pairs"], record["inputs"][0]["path"]) == (
        5,
        "hf://datasets/org/prefs/data/test-00000-of-00001.parquet",
    )
    assert run.read_pairs(0, 1, ["source"]).to_pylist() == [{"source": "test"}]


def test_a_path_that_is_here_is_no_hub_id(hub, tmp_path):
    (tmp_path / "org").mkdir()
    refused(lambda: find_files(("org/prefs",)), "org/prefs: no such file or folder")
    (tmp_path / "org" / "prefs").mkdir()
    (tmp_path / "org" / "prefs" / "a.jsonl").write_text("{}", encoding="utf-8")
    assert find_files(("org/prefs",)) == [str(tmp_path / "org" / "prefs" / "a.jsonl")]


@pytest.mark.parametrize("entry", ["org/none.jsonl", "none", "a/b/c", "./org/prefs", "../org/prefs"])
def test_what_cannot_be_a_hub_id_is_a_missing_file(hub, entry):
    message = refused(lambda: find_files((entry,)), f"{entry}: no such file or folder")
    assert "hub" not in message


@pytest.mark.parametrize(
    ("entry", "parts"),
    [
        ("org/none", ["org/none: no such file or folder, and no such dataset on the Hugging Face hub"]),
        ("org/prefs:dev", ["holds no data file of a split 'dev'", "name its files as hf://datasets/org/prefs/…"]),
    ],
)
def test_what_the_hub_does_not_have(hub, entry, parts):
    refused(lambda: find_files((entry,)), *parts)


@pytest.mark.parametrize("trouble", [ConnectionError("no route\nto host"), RuntimeError("no route to host")])
def test_a_hub_that_cannot_be_reached(hub, monkeypatch, trouble):
    """The hub's client raises errors of its own kinds, which are neither OSError nor ValueError."""
    monkeypatch.setattr(Hub, "trouble", trouble)
    refused(
        lambda: find_files(("org/prefs",)),
        "org/prefs: no such file or folder, and the Hugging Face hub cannot be asked (no route to host)",
        "download the dataset",
    )


def test_the_real_client_without_a_hub_says_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(lambda: find_files(("no-such-org-at-all/prefs",)), "no-such-org-at-all/prefs: no such file or folder, and ")


def test_a_file_that_breaks_off_on_its_way_is_named(hub, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("connection reset")

    (path,) = find_files(("org/prefs:test",))
    monkeypatch.setattr(Hub, "_open", broken)
    refused(lambda: list(read_rows(path)), f"{path}: cannot be fetched (connection reset)")


# --- lists of rows where none is expected ---


def test_a_json_lines_file_that_is_an_array(tmp_path):
    """The red-team attempts of HH-RLHF are one array in a .jsonl.gz."""
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(("[" + ",\n".join(map(json.dumps, ROWS)) + "]").encode()))
    assert [row.values for row in read_rows(str(path))] == ROWS


COMPARISON = {"metadata": {"source_path": "p", "nested": [1, {"examples": [2]}]}, "models": [{"name": "a"}]}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("after", [{}, {"rationale_clusters": [{"id": 1}], "n": None}])
def test_the_rows_of_an_object_with_examples(tmp_path, indent, after):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**COMPARISON, "examples": ROWS, **after}, indent=indent), encoding="utf-8")
    rows = list(read_rows(str(path)))
    assert [row.values for row in rows] == ROWS
    assert [json.loads(row.text) for row in rows] == ROWS
    lines = path.read_text(encoding="utf-8").splitlines()
    assert all(lines[row.line - 1].lstrip().startswith("{") for row in rows)


def test_json_lines_that_have_a_column_examples_stay_rows(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("".join(json.dumps({"examples": [{"a": n}]}) + "\n" for n in range(2)), encoding="utf-8")
    assert [row.values for row in read_rows(str(path))] == [{"examples": [{"a": 0}]}, {"examples": [{"a": 1}]}]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"n": 1, "examples": [{"a": 1}', "line 1"),
        ('{"n": 1, "examples": [{"a": 1}]', "the object is not closed"),
        ('{"n": 1, "examples": [{"a": 1}]} x', "there is text after the closing }"),
        ('{"n": 1,, "examples": [{"a": 1}]}', "property name"),
        ('{"n" 1, "examples": [{"a": 1}]}', "Expecting ':' delimiter"),
        ('{"n": {"examples": [{"a": 1}]}}', "no list 'examples'"),
    ],
)
def test_an_object_with_examples_that_is_broken(tmp_path, text, reason):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    refused(lambda: list(read_rows(str(path))), str(path), "broken JSON", reason)
