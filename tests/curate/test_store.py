"""The run's folder: all of a file or nothing, a manifest that says what is done, and errors a user can mend."""

import errno
import json
import os
import shutil

import filelock
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import store
from curate.config import IngestConfig
from curate.errors import CurateError, RunError, StorageError, storage_errors
from curate.pairs import ingest
from curate.schema import SCHEMA_VERSION
from curate.store import (
    STAGES,
    Run,
    atomic_folder,
    atomic_path,
    fingerprint,
    read_metadata,
    remove_leftovers,
    write_table,
)


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def fail_halfway(writing, name, error):
    with writing as temporary:
        (temporary / name).write_text("half")
        raise error


def synced_inodes(monkeypatch):
    """The inodes of all that is synced from now on."""
    seen, fsync = set(), os.fsync

    def watch(descriptor):
        seen.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    return seen


# --- errors ---


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EPERM, "not permitted"),
        (errno.ENOTDIR, "is a file, not a folder"),
        (errno.EEXIST, "is in the way"),
    ],
)
def test_refusals_of_the_disk_become_storage_errors(number, hint):
    with pytest.raises(StorageError) as caught, storage_errors("runs/x"):
        raise OSError(number, os.strerror(number))
    message = str(caught.value)
    assert message.startswith("runs/x: ")
    assert hint in message
    assert message.isprintable()
    assert isinstance(caught.value, CurateError)
    assert caught.value.__cause__.errno == number


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "I/O error"), OSError("no number"), FileNotFoundError(errno.ENOENT, "x"), ValueError()]
)
def test_other_errors_pass_through(error):
    with pytest.raises(type(error)) as caught, storage_errors("x"):
        raise error
    assert caught.value is error


# --- atomic files ---


def test_a_new_file_is_synced_and_in_place(tmp_path, monkeypatch):
    synced = synced_inodes(monkeypatch)
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["a.txt"]
    assert {(tmp_path / "a.txt").stat().st_ino, tmp_path.stat().st_ino} <= synced


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), OSError(errno.EIO, "I/O")])
def test_a_failed_file_leaves_the_old_one(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(type(error)):
        fail_halfway(atomic_path(target), "", error)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "a.txt"
    target.write_text("old")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StorageError, match=r"a\.txt: the disk is full"), atomic_path(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_two_writers_do_not_share_a_temporary_file(tmp_path):
    with atomic_path(tmp_path / "a.txt") as first, atomic_path(tmp_path / "a.txt") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a.txt").read_text() == "first"
    assert names(tmp_path) == ["a.txt"]


# --- atomic folders ---


@pytest.fixture
def old_folder(tmp_path):
    target = tmp_path / "pairs"
    target.mkdir()
    (target / "old.txt").write_text("old")
    return target


def test_a_new_folder_is_in_place(tmp_path):
    target = tmp_path / "pairs"
    with atomic_folder(target) as temporary:
        (temporary / "new.txt").write_text("new")
        assert not target.exists()
    assert (target / "new.txt").read_text() == "new"
    assert names(tmp_path) == ["pairs"]


def test_a_new_folder_replaces_the_old_one(tmp_path, old_folder):
    with atomic_folder(old_folder) as temporary:
        (temporary / "new.txt").write_text("new")
    assert names(old_folder) == ["new.txt"]
    assert names(tmp_path) == ["pairs"]


def test_the_files_of_a_folder_are_synced(tmp_path, monkeypatch):
    synced = synced_inodes(monkeypatch)
    with atomic_folder(tmp_path / "pairs") as temporary:
        (temporary / "a.txt").write_text("a")
        (temporary / "b.txt").write_text("b")
    folder = tmp_path / "pairs"
    assert {path.stat().st_ino for path in (folder / "a.txt", folder / "b.txt", folder, tmp_path)} <= synced


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), OSError(errno.EIO, "I/O")])
def test_a_failed_folder_leaves_the_old_one(tmp_path, old_folder, error):
    with pytest.raises(type(error)):
        fail_halfway(atomic_folder(old_folder), "half.txt", error)
    assert (old_folder / "old.txt").read_text() == "old"
    assert names(old_folder) == ["old.txt"]
    assert names(tmp_path) == ["pairs"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failed_rename_leaves_the_old_folder(tmp_path, old_folder, monkeypatch, failing):
    """Old away, new in place: whichever of the two renames fails, the old folder is there afterwards."""
    calls, replace = [], os.replace

    def fail_once(source, target):
        calls.append(target)
        if len(calls) == failing:
            no_space()
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_once)
    with pytest.raises(StorageError, match="the disk is full"), atomic_folder(old_folder) as temporary:
        (temporary / "new.txt").write_text("new")
    assert names(tmp_path) == ["pairs"]
    assert names(old_folder) == ["old.txt"]


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    (tmp_path / "deep" / ".pairs.0a1b2c3d.tmp").mkdir(parents=True)
    (tmp_path / "deep" / ".pairs.0a1b2c3d.tmp" / "00000.parquet").touch()
    (tmp_path / ".pairs.0a1b2c3d.old.tmp").mkdir()
    (tmp_path / ".manifest.json.0a1b2c3d.tmp").touch()
    for kept in ("a.tmp", ".lock", "b.parquet"):
        (tmp_path / kept).touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".lock", "a.tmp", "b.parquet", "deep"]
    assert names(tmp_path / "deep") == []


# --- tables ---


def test_a_table_and_its_metadata_round_trip(tmp_path):
    table = pa.table({"pair_id": ["é", None], "row": [1, 2]})
    write_table(tmp_path / "a.parquet", table, {"model": "ü", "beta": [0.1]})
    assert pq.read_table(tmp_path / "a.parquet").equals(table)
    assert read_metadata(tmp_path / "a.parquet") == {"model": "ü", "beta": [0.1]}
    assert names(tmp_path) == ["a.parquet"]


def test_metadata_of_other_files(tmp_path):
    write_table(tmp_path / "bare.parquet", pa.table({"row": [1]}))
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "bare.parquet").read_bytes()[:-5])
    (tmp_path / "empty.parquet").touch()
    assert read_metadata(tmp_path / "bare.parquet") == {}
    assert read_metadata(tmp_path / "cut.parquet") is None
    assert read_metadata(tmp_path / "empty.parquet") is None
    assert read_metadata(tmp_path / "none.parquet") is None


# --- fingerprints ---


def test_equal_values_have_equal_fingerprints():
    assert fingerprint({"a": 1, "b": [2, "é"]}) == fingerprint({"b": [2, "é"], "a": 1})
    assert len(fingerprint(None)) == 16


def test_other_values_have_other_fingerprints():
    values = [None, 0, 1, 1.5, "1", True, [], {}, [1], ["1"], [[1]], {"a": 1}, {"a": "1"}, {"b": 1}]
    assert len({fingerprint(value) for value in values}) == len(values)


# --- a run's folder ---


def test_a_new_run(tmp_path):
    run = Run.create(tmp_path / "deep" / "run")
    manifest = json.loads((tmp_path / "deep" / "run" / "manifest.json").read_text())
    assert manifest.keys() == {"schema_version", "created", "stages"}
    assert (manifest["schema_version"], manifest["stages"]) == (SCHEMA_VERSION, {})
    assert run.manifest() == manifest
    assert Run.create(run.path) == Run.open(run.path) == Run.open(str(run.path)) == run
    assert run.manifest() == manifest


def test_a_run_in_an_empty_folder_or_among_leftovers(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".manifest.json.0a1b2c3d.tmp").touch()
    assert Run.create(tmp_path).manifest()["stages"] == {}


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match="the folder is not empty and not a run; choose another with -o"):
        Run.create(tmp_path)
    assert names(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("below", ["", "run", "deep/run"])
def test_a_file_in_the_way(tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match=r"file.*: .*choose another folder"):
        Run.create(tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_may_not_be_written_to(tmp_path):
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("root writes everywhere")
    with pytest.raises(StorageError, match="permission denied"):
        Run.create(tmp_path / "run")
    tmp_path.chmod(0o700)


def test_open_needs_a_run(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(RunError, match=r"not a run \(no manifest.json\); make one with curate audit"):
            Run.open(path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("enter", [Run.create, Run.open])
@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, "1", None])
def test_another_schema_version(run, enter, version):
    run.manifest_path.write_text(json.dumps({"schema_version": version, "stages": {}}))
    with pytest.raises(RunError, match=f"made by schema version {version}, this is version {SCHEMA_VERSION}"):
        enter(run.path)


@pytest.mark.parametrize("enter", [Run.create, Run.open])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"schema_version": 1, "sta',
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"schema_version": 1}',
        b'{"schema_version": 1, "stages": null}',
    ],
)
def test_a_damaged_manifest(run, enter, content):
    run.manifest_path.write_bytes(content)
    with pytest.raises(RunError, match=r"manifest\.json: damaged \(.*\); start a new run with -o") as caught:
        enter(run.path)
    assert str(caught.value).isprintable()


# --- stages ---


def test_a_recorded_stage(run):
    assert run.stage("ingest") is None
    run.record("ingest", "key", {"pairs": 3, "note": "é"})
    record = run.require("ingest")
    assert record.pop("finished").endswith("+00:00")
    assert record.pop("versions")["pyarrow"] == pa.__version__
    assert record == {"fingerprint": "key", "pairs": 3, "note": "é"}
    assert run.count_pairs() == 3
    assert run.lost_table("ingest") == run.refused_path
    assert not run.is_done("ingest", "key")  # its tables are not there
    write_table(run.refused_path, pa.table({"row": [1]}))
    assert run.lost_table("ingest") == run.pairs_path / "00000.parquet"
    run.pairs_path.mkdir()
    write_table(run.pairs_path / "00000.parquet", pa.table({"row": [0]}))
    assert run.is_done("ingest", "key")
    assert not run.is_done("ingest", "other")
    assert not run.is_done("score", "key")


def test_a_stage_recorded_again_replaces_its_record(run):
    run.record("ingest", "one", {"pairs": 1, "ties": 0})
    run.record("ingest", "two", {"pairs": 2})
    record = run.require("ingest")
    assert (record["fingerprint"], record["pairs"], "ties" in record) == ("two", 2, False)


@pytest.mark.parametrize("name", STAGES)
def test_a_missing_stage_says_what_to_run(run, name):
    with pytest.raises(RunError, match=f"the stage {name} is not done; run curate {name} {run.path}"):
        run.require(name)


@pytest.mark.parametrize(("struck", "left"), [("ingest", []), ("score", ["ingest"]), ("weigh", ["ingest", "score"])])
def test_strike_takes_all_later_stages(run, struck, left):
    for name in STAGES:
        run.record(name, "key", {})
    run.strike(struck)
    assert list(run.manifest()["stages"]) == left
    run.strike(struck)
    assert list(run.manifest()["stages"]) == left


def test_a_manifest_that_cannot_be_written_stays_as_it_was(run, monkeypatch):
    run.record("ingest", "key", {"pairs": 1})
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StorageError, match="the disk is full"):
        run.strike("ingest")
    assert run.stage("ingest") is not None


def test_one_process_holds_a_run(run):
    with run.lock():
        other = filelock.FileLock(run.path / ".lock", timeout=0)
        with pytest.raises(filelock.Timeout):
            other.acquire()
    other.acquire()
    other.release()


def test_the_lock_is_released_after_an_error(run):
    with pytest.raises(ValueError, match="within"), run.lock():
        raise ValueError("within")
    filelock.FileLock(run.path / ".lock", timeout=0).acquire().lock.release()


def test_part_files_hold_whole_groups():
    assert store.PART_PAIRS % store.GROUP_PAIRS == 0


# --- forks ---


@pytest.fixture
def read(tmp_path):
    """A run of three pairs and a refused row, with later stages."""
    rows = [{"prompt": "p", "chosen": "c", "rejected": str(number)} for number in range(3)]
    lines = [json.dumps(row) + "\n" for row in [*rows, {"prompt": "p", "chosen": 1, "rejected": "r"}]]
    (tmp_path / "data.jsonl").write_text("".join(lines))
    made = Run.create(tmp_path / "read")
    ingest(IngestConfig((str(tmp_path / "data.jsonl"),), format="trl_standard"), made)
    for name in STAGES[1:]:
        made.record(name, "key", {})
    write_table(made.scores_path, pa.table({"row": [0]}))
    return made


def test_a_fork_holds_the_same_pairs_and_nothing_made_of_them(read, tmp_path):
    forked = read.fork(tmp_path / "fork")
    assert list(forked.manifest()["stages"]) == ["ingest"]
    assert forked.require("ingest") == read.require("ingest")
    assert forked.read_pairs(0, 3).equals(read.read_pairs(0, 3))
    assert pq.read_table(forked.refused_path).equals(pq.read_table(read.refused_path))
    assert forked.lost_table("ingest") is None
    assert names(forked.path) == [".lock", "manifest.json", "pairs", "refused.parquet"]
    assert list(read.manifest()["stages"]) == list(STAGES)


def test_a_fork_takes_no_space_and_outlives_the_run(read, tmp_path):
    forked, pairs = read.fork(tmp_path / "fork"), read.read_pairs(0, 3)
    for file in ("pairs/00000.parquet", "refused.parquet"):
        assert (forked.path / file).samefile(read.path / file)
    shutil.rmtree(read.path)
    assert forked.read_pairs(0, 3).equals(pairs)


def test_a_run_that_takes_other_data_leaves_its_fork_alone(read, tmp_path):
    forked, pairs = read.fork(tmp_path / "fork"), read.read_pairs(0, 3)
    (tmp_path / "other.jsonl").write_text('{"prompt": "o", "chosen": "c", "rejected": "r"}\n')
    ingest(IngestConfig((str(tmp_path / "other.jsonl"),)), read, replace_data=True)
    assert (read.count_pairs(), forked.count_pairs()) == (1, 3)
    assert forked.read_pairs(0, 3).equals(pairs)
    again = read.fork(tmp_path / "fork")  # whose stages are of the pairs that it had
    assert (again.count_pairs(), again.read_pairs(0, 1).equals(read.read_pairs(0, 1))) == (1, True)


def test_a_fork_where_the_disk_has_no_links(read, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", refuse_links)
    forked = read.fork(tmp_path / "fork")
    assert forked.read_pairs(0, 3).equals(read.read_pairs(0, 3))
    assert not (forked.path / "refused.parquet").samefile(read.refused_path)


def refuse_links(*_):
    raise OSError(errno.EXDEV, "Invalid cross-device link")


def test_a_second_fork_keeps_what_was_made_of_the_first(read, tmp_path):
    forked = read.fork(tmp_path / "fork")
    forked.record("score", "key", {})
    stamp = forked.manifest_path.stat().st_mtime_ns
    assert read.fork(tmp_path / "fork") == forked
    assert (list(forked.manifest()["stages"]), forked.manifest_path.stat().st_mtime_ns) == (["ingest", "score"], stamp)
    assert read.fork(read.path) == read
    assert list(read.manifest()["stages"]) == list(STAGES)


@pytest.mark.parametrize("lost", ["pairs/00000.parquet", "refused.parquet"])
def test_a_fork_that_lost_a_table_is_made_again(read, tmp_path, lost):
    forked = read.fork(tmp_path / "fork")
    forked.record("score", "key", {})
    (forked.path / lost).unlink()
    read.fork(tmp_path / "fork")
    assert (forked.lost_table("ingest"), list(forked.manifest()["stages"])) == (None, ["ingest"])


@pytest.mark.parametrize("fails", ["link", "replace"])
def test_a_fork_that_was_cut_off_is_no_run_of_pairs(read, tmp_path, monkeypatch, fails):
    """Nothing says that the pairs are there before all of them are."""
    Run.create(tmp_path / "fork")
    monkeypatch.setattr(os, fails, no_space)
    monkeypatch.setattr(shutil, "copyfile", no_space)
    with pytest.raises(StorageError, match="the disk is full"):
        read.fork(tmp_path / "fork")
    monkeypatch.undo()
    assert Run.open(tmp_path / "fork").stage("ingest") is None
    assert names(tmp_path / "fork") == [".lock", "manifest.json"]
    assert read.fork(tmp_path / "fork").read_pairs(0, 3).equals(read.read_pairs(0, 3))


def test_a_fork_needs_pairs_and_a_place(run, read, tmp_path):
    with pytest.raises(RunError, match="the stage ingest is not done"):
        run.fork(tmp_path / "fork")
    with pytest.raises(RunError, match="the folder is not empty and not a run"):
        read.fork(tmp_path)
