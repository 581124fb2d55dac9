"""The log of decisions: what was acknowledged is there, in order, whoever writes beside it, whenever one is killed."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import filelock
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate import entries as entries_module
from curate.decision_log import DecisionLog
from curate.entries import BulkDecision, Entry, PairDecision, Undo, this_user
from curate.errors import ConfigError, RunError, StorageError
from curate.store import Run

PAIR = "0123456789abcdef" * 2
HOSTILE = ["", "\0", "a\nb\r\n\u2028c", "\ud800 half", "é\U0001f600\u202e", '"}\n{"id": 1', "x" * 100_000]


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run")


@pytest.fixture
def log(run):
    return DecisionLog(run, fail)


def fail(line):
    raise AssertionError(line)


def pair_entry(action="drop", pair_id=PAIR, **fields):
    return Entry.new(PairDecision(pair_id, action, **fields))


def some(count):
    return [pair_entry(reason=f"{nth}") for nth in range(count)]


def ids(log):
    return [entry.id for entry in log.entries()]


# --- entries ---

texts = st.text() | st.sampled_from(HOSTILE) | st.text(st.characters(categories=("Cs", "Cc")))
floats = st.none() | st.floats(allow_nan=False, allow_infinity=False)
pair_ids = st.integers(0, 2**128 - 1).map("{:032x}".format)
decisions = st.one_of(
    st.builds(
        PairDecision,
        pair_ids,
        st.sampled_from(("keep", "drop", "flip", "review")),
        reason=texts,
        origin=texts,
        copy=st.none() | st.integers(0, 9),
        row=st.none() | st.integers(0, 2**62),
        margin=floats,
        p_flip=floats,
    ),
    st.builds(PairDecision, pair_ids, st.just("soft"), st.floats(0, 1)),
    st.builds(BulkDecision, texts, texts, st.integers(0), st.just({"drop": 3}), pair_ids, st.just({"ingest": "ab"})),
    st.builds(Undo, pair_ids),
)


@given(decisions, texts)
def test_a_line_says_what_the_entry_says(decision, who):
    entry = Entry.new(decision, who)
    line = entry.line()
    assert line.isascii()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert Entry.parse(line) == entry


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_are_kept_as_utf8_can_hold_them(text, log, run):
    entry = Entry.new(PairDecision(PAIR, "keep", reason=text, origin=text), text)
    log.append([entry])
    (found,) = DecisionLog(run).entries()
    expected = text.encode("utf-8", "backslashreplace").decode()
    assert (found.decision.reason, found.decision.origin) == (expected, expected)
    assert found.who == (expected or this_user())


@pytest.mark.parametrize(
    ("action", "value"),
    [
        ("", None),
        ("delete", None),
        ("drop", 1.0),
        ("soft", None),
        ("soft", 1.1),
        ("soft", -0.1),
        ("soft", float("nan")),
        ("weight", None),
        ("weight", -1.0),
        ("weight", float("inf")),
    ],
)
def test_impossible_actions(action, value):
    with pytest.raises(ConfigError, match=r"no action '(delete)?'|the action .+ has the value .+: it takes "):
        PairDecision(PAIR, action, value)


@pytest.mark.parametrize("pair_id", ["", PAIR[1:], PAIR.upper(), "../" + PAIR, PAIR + "\n"])
def test_impossible_pair_ids(pair_id):
    with pytest.raises(ConfigError, match="is not a pair's id"):
        PairDecision(pair_id, "drop")


def test_a_user_without_a_name(monkeypatch):
    monkeypatch.setattr(entries_module.getpass, "getuser", lambda: {}["nobody"])
    assert pair_entry().who == "unknown"


def test_a_margin_that_is_no_number_is_not_written(log):
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.append([pair_entry(), pair_entry(margin=float("nan"))])
    assert not log.path.exists()


# --- reading and writing ---


def test_nothing_is_written_before_there_is_something(run, log):
    log.append([])
    assert DecisionLog(run).entries() == log.entries() == []
    assert not log.path.exists()


def test_what_was_written_is_read(run, log):
    written = some(5)
    log.append(written[:2])
    log.append(written[2:])
    assert log.entries() == DecisionLog(run).entries() == written
    assert log.entries(3) == written[3:]
    assert [log.place(entry) for entry in written] == [0, 1, 2, 3, 4]
    assert log.about(PAIR) == written
    assert log.about("f" * 32) == log.bulks() == []


def test_an_entry_is_written_once(log):
    entry, other = some(2)
    log.append([entry, entry])
    log.append([other, entry])
    assert log.entries() == [entry, other]


def test_written_is_synced(log, run, monkeypatch):
    seen, fsync = [], os.fsync

    def watch(descriptor):
        seen.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    log.append(some(1))
    assert seen == [log.path.stat().st_ino, run.path.stat().st_ino]
    log.append(some(100))
    assert seen[2:] == [log.path.stat().st_ino]


def test_readers_see_what_others_write(log, run):
    reader = DecisionLog(run)
    log.append(some(2))
    assert reader.entries() == []
    reader.refresh()
    assert reader.entries() == log.entries()


def test_a_line_that_is_being_written_is_not_read_yet(log, run):
    first, second = some(2)
    log.append([first])
    line = second.line()
    with open(log.path, "ab", buffering=0) as file:
        file.write(line[:50])
        log.refresh()
        assert log.entries() == [first]
        file.write(line[50:])
    log.refresh()
    assert log.entries() == [first, second]


def test_another_file_in_its_place_is_read_anew(log):
    log.append(some(3))
    kept, generation = log.path.read_bytes(), log.generation
    log.append(some(1))
    log.path.write_bytes(kept)  # shorter
    log.refresh()
    assert (len(log.entries()), log.generation) == (3, generation + 1)
    log.path.with_suffix(".new").write_bytes(kept + b"".join(entry.line() for entry in some(3)))
    log.path.with_suffix(".new").rename(log.path)
    log.refresh()
    assert (len(log.entries()), log.generation) == (6, generation + 2)
    log.path.unlink()
    log.refresh()
    assert (log.entries(), log.generation) == ([], generation + 3)


def test_joined_logs_count_every_entry_once(log, run):
    written = some(3)
    log.append(written)
    log.path.write_bytes(log.path.read_bytes() * 2 + b"\n  \r\n")
    assert DecisionLog(run).entries() == written


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "Expecting"),
        (b"\0\0\0\0", ""),
        (b"\xff", ""),
        (b"[]", "TypeError"),
        (b"7", "AttributeError"),
        (b"{}", "KeyError: 'version'"),
        (b"[" * 100_000, "RecursionError"),
        ({"version": 2}, "version 2, this is version 1"),
        ({"kind": "triple"}, "KeyError: 'triple'"),
        ({"id": "../../etc/passwd"}, "id is '../../etc/passwd'"),
        ({"pair_id": "x"}, "'x' is not a pair's id"),
        ({"action": "explode"}, "no action 'explode'"),
        ({"margin": "high"}, "margin is 'high'"),
        ({"margin": float("nan")}, "NaN is no JSON"),
        ({"who": None}, "who is None"),
        ({"more": 1}, "KeyError: 'more'"),
        ({"of": PAIR}, "unexpected keyword"),
        ({"kind": "undo"}, "unexpected keyword"),
    ],
)
def test_a_damaged_line_is_named(log, run, line, reason):
    log.append(some(3))
    lines = log.path.read_bytes().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | line).encode() if isinstance(line, dict) else line
    log.path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(RunError) as caught:
        DecisionLog(run)
    message = str(caught.value)
    assert message.startswith(f"{log.path}, line 2: damaged (")
    assert reason in message
    assert message.endswith("; put the line right, or delete it to go without its decision")


def test_the_same_id_for_two_entries(log, run):
    entry = pair_entry()
    log.append([entry])
    with open(log.path, "ab") as file:
        file.write(Entry(entry.id, entry.at, "somebody else", entry.decision).line())
    with pytest.raises(RunError, match=r"line 2: damaged \(another entry has the same id\)"):
        DecisionLog(run)


def test_a_log_that_cannot_be_read(run):
    (run.path / "decisions.jsonl").mkdir()
    with pytest.raises(RunError, match=r"decisions\.jsonl: cannot be read \(Is a directory\)"):
        DecisionLog(run)


# --- undo ---


def test_undo_and_redo(log):
    first, second = some(2)
    log.append([first, second])
    undo = log.undo(first.id, "ann")
    assert (undo.who, undo.decision, undo.kind) == ("ann", Undo(first.id), "undo")
    assert [log.stands(entry) for entry in log.entries()] == [False, True, True]
    redo = log.undo(undo.id)
    assert [log.stands(entry) for entry in log.entries()] == [True, True, False, True]
    again = log.undo(redo.id)
    assert [log.stands(entry) for entry in log.entries()] == [False, True, True, False, True]
    assert {log.target(entry) for entry in (first, undo, redo, again)} == {first}


def test_what_is_taken_back_is_not_taken_back_twice(log):
    entry = pair_entry()
    log.append([entry])
    undo = log.undo(entry.id)
    assert log.undo(entry.id) == undo
    assert len(log.entries()) == 2


def test_two_undos_of_one_entry_from_joined_logs(log):
    entry = pair_entry()
    undos = [Entry.new(Undo(entry.id)) for _ in range(2)]
    log.append([entry, *undos])
    log.undo(undos[0].id)
    assert not log.stands(entry)
    log.undo(undos[1].id)
    assert log.stands(entry)


def test_the_beginning_of_an_id_is_enough(log):
    entries = [Entry(start + "0" * 30, "", "", PairDecision(PAIR, "keep")) for start in ("ab", "ac")]
    log.append(entries)
    assert log.find("ac") == entries[1]
    with pytest.raises(RunError, match="2 entries have ids that start with 'a'"):
        log.undo("a")
    with pytest.raises(RunError, match="no entry has an id that starts with 'f'"):
        log.undo("f")


def test_an_undo_of_nothing(log, run):
    with pytest.raises(RunError, match="it takes back 'ff', which is not in the log"):
        log.append([pair_entry(), Entry.new(Undo("ff"))])
    assert log.entries() == []
    log.append(some(1))
    with open(log.path, "ab") as file:
        file.write(Entry.new(Undo("ff")).line())
    with pytest.raises(RunError, match=r"line 2: damaged \(it takes back 'ff', which is not in the log\)"):
        DecisionLog(run)


# --- torn lines ---


def test_a_line_torn_at_any_byte_is_moved_aside_and_said(run, log):
    written = [pair_entry(reason="first"), pair_entry(reason="sécond\n"), pair_entry(reason="third")]
    log.append(written)
    whole = log.path.read_bytes()
    start = len(whole) - len(written[2].line())
    for size in range(start + 1, len(whole)):
        log.path.write_bytes(whole[:size])
        said = []
        found = DecisionLog(run, said.append)
        complete = size == len(whole) - 1  # the newline alone is missing
        assert found.entries() == written[: 2 + complete]
        assert len(said) == 1
        if not complete:
            (aside,) = log.folder.glob("torn-*.txt")
            assert str(aside) in said[0]
            assert aside.read_bytes() == whole[start:size]
            aside.unlink()
        more = pair_entry()
        found.append([more])
        assert DecisionLog(run, fail).entries() == [*written[: 2 + complete], more]


def test_a_writer_that_is_open_mends_too(run, log):
    log.append(some(1))
    said = []
    other = DecisionLog(run, said.append)
    with open(log.path, "ab") as file:
        file.write(b'{"version": 1, "id"')
    other.append(some(1))
    assert len(said) == 1
    assert len(DecisionLog(run, fail).entries()) == 2


def test_what_cannot_be_mended_is_left_out(run, log, monkeypatch):
    written = some(2)
    log.append(written)
    torn = log.path.read_bytes() + b'{"version"'
    log.path.write_bytes(torn)

    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    found = DecisionLog(run, fail)
    assert found.entries() == written
    assert log.path.read_bytes() == torn
    with pytest.raises(StorageError, match="read-only"):
        found.append(some(1))


def test_a_full_disk(run, log, monkeypatch):
    written = some(2)
    log.append(written[:1])

    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(StorageError, match=r"decisions\.jsonl: the disk is full"):
            log.append(written[1:])
    log.append(written[1:])
    assert DecisionLog(run, fail).entries() == log.entries() == written


# --- several writers ---


def write_many(path, count, who):
    log = DecisionLog(Run.open(path), fail)
    for nth in range(count):
        log.append([Entry.new(PairDecision(PAIR, "drop", reason=str(nth)), who)])
        if nth % 10 == 9:
            log.undo(log.entries()[-1].id, who)


def test_processes_that_write_at_once_lose_nothing(run):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(run.path, 100, who)) for who in ("ann", "bob", "cy")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    found = DecisionLog(run, fail).entries()
    for who in ("ann", "bob", "cy"):
        said = [entry.decision.reason for entry in found if entry.who == who and entry.kind == "pair"]
        assert said == [str(nth) for nth in range(100)]


def test_threads_that_share_a_log_lose_nothing(log, run):
    def work(who):
        for nth in range(30):
            log.append([Entry.new(PairDecision(PAIR, "drop", reason=str(nth)), who)])

    threads = [threading.Thread(target=work, args=(who,)) for who in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert DecisionLog(run, fail).entries() == log.entries()
    for who in "abcd":
        assert [it.decision.reason for it in log.entries() if it.who == who] == [str(nth) for nth in range(30)]


def test_two_undos_at_once_are_one(log, run):
    entry = pair_entry()
    log.append([entry])
    others = [DecisionLog(run) for _ in range(2)]
    undos = {other.undo(entry.id).id for other in others}
    assert len(undos) == 1


WRITER = """
import sys
from curate.decision_log import DecisionLog
from curate.entries import Entry, PairDecision
from curate.store import Run

log = DecisionLog(Run.open(sys.argv[1]), lambda line: None)
while True:
    entries = [Entry.new(PairDecision("0" * 32, "drop", reason="x" * 3_000)) for _ in range(int(sys.argv[2]))]
    log.append(entries)
    print(*[entry.id for entry in entries], flush=True)
"""


@pytest.mark.parametrize(("batch", "kills"), [(1, 12), (40, 12)])
def test_a_killed_writer_loses_nothing_that_was_acknowledged(run, batch, kills):
    acknowledged = []
    for kill in range(kills):
        command = [sys.executable, "-c", WRITER, str(run.path), str(batch)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="ascii") as child:
            for nth, line in enumerate(child.stdout):
                acknowledged += line.split() if line.endswith("\n") else []
                if nth == 3 * kill:
                    child.send_signal(signal.SIGKILL)
    found = ids(DecisionLog(run, lambda line: None))
    assert len(acknowledged) >= kills * batch
    assert len(found) == len(set(found))
    there = set(acknowledged)
    assert [entry for entry in found if entry in there] == acknowledged


# --- another run's log ---


def copied(log, other):
    """What is new, after it was written."""
    with log.bulk(alone=True):
        new = log.lacks(other)
        log.copy_pairs(new, other)
        log.append(new)
    return new


def test_entries_are_copied_once(log, tmp_path):
    other = DecisionLog(Run.create(tmp_path / "other"))
    entries = some(3)
    other.append(entries)
    other.undo(entries[0].id)
    own = pair_entry()
    log.append([own])
    assert copied(log, other) == other.entries()
    assert log.entries() == [own, *other.entries()]
    assert [log.stands(entry) for entry in log.entries()] == [True, False, True, True, True]
    assert copied(log, other) == []
    other.append(some(1))
    assert copied(log, other) == other.entries(4)
    assert copied(log, log) == []


def test_a_bulk_entry_without_its_pairs_is_not_copied(log, tmp_path):
    other = DecisionLog(Run.create(tmp_path / "other"))
    entry = Entry.new(BulkDecision("", "page", 2, {"drop": 2}, "", {}))
    with pytest.raises(RunError, match=f"{entry.id}.parquet: missing or damaged; restore it, or undo {entry.id}"):
        other.append([entry])
    other.folder.mkdir(exist_ok=True)
    other.path.write_bytes(entry.line())
    with pytest.raises(RunError, match="missing or damaged"):
        copied(log, other)
    assert log.entries() == []
    assert not list(log.folder.glob("*.parquet"))
