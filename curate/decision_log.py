"""The log of decisions: who decided what about which pair, when, why and on what evidence. It only ever grows.

    RUN/decisions.jsonl             an entry a line; the latest wins
    RUN/decisions/ENTRY.parquet     what a bulk entry decided, pair by pair
    RUN/decisions/torn-….txt        the beginning of a line whose writer was killed

Pairs are named by the hash of their content, so that the log holds for the same pairs in another order, another file
or another run. What was acknowledged is on the disk: one write and one sync under a lock, the pairs of a bulk
entry before its line.
"""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import filelock
import pyarrow as pa
import pyarrow.parquet as pq

from curate.entries import BulkDecision, Entry, PairDecision, Undo
from curate.errors import RunError, StorageError, storage_errors
from curate.progress import say
from curate.store import Run, atomic_path, remove_leftovers, sync

_LOCK, _BULK_LOCK = ".lock", ".bulk.lock"


class DecisionLog:
    """A run's log, open for reading and writing. Threads may share it; processes may write at the same time."""

    _void: set[str] | None  # ids of the entries that are taken back, once somebody asks

    def __init__(self, run: Run, say: Callable[[str], None] = say) -> None:
        """Open the log, and mend what a killed writer left at its end.

        Args:
            say: told in a line what was mended.

        Raises:
            RunError: a line is damaged.
        """
        self.path = run.path / "decisions.jsonl"
        self.folder = run.path / "decisions"
        self.generation = 0  # grows when another file has taken the log's place
        self._say = say
        self._guard = threading.RLock()
        self._locks = {name: filelock.FileLock(self.folder / name) for name in (_LOCK, _BULK_LOCK)}
        self._forget()
        self.refresh()
        if self._unread():
            with suppress(StorageError), self._writing():  # what cannot be mended is left out until it can be
                pass

    # --- reading ---

    def entries(self, start: int = 0) -> list[Entry]:
        """The entries from a place on, the oldest first."""
        return self._entries[start:]

    def about(self, pair_id: str) -> list[Entry]:
        """The entries about one pair alone, the oldest first."""
        return list(self._about.get(pair_id, ()))

    def bulks(self) -> list[Entry]:
        """The entries about many pairs, the oldest first."""
        return list(self._bulks)

    def place(self, entry: Entry) -> int:
        """Where in the log the entry stands, from 0."""
        return self._places[entry.id]

    def find(self, entry_id: str) -> Entry:
        """An entry by its id, or the beginning of its id.

        Raises:
            RunError: no entry, or more than one, has this id.
        """
        if entry_id in self._places:
            return self._entries[self._places[entry_id]]
        found = [entry for entry in self._entries if entry.id.startswith(entry_id)]
        if len(found) != 1:
            what = f"{len(found)} entries have ids that start" if found else "no entry has an id that starts"
            raise RunError(f"{self.path}: {what} with {entry_id!r}")
        return found[0]

    def stands(self, entry: Entry) -> bool:
        """Whether the entry is not taken back."""
        void = self._void
        if void is None:
            void = set()
            for undo, target in reversed(self._undos):
                if undo not in void:
                    void.add(target)
            self._void = void
        return entry.id not in void

    def target(self, entry: Entry) -> Entry:
        """The decision that an entry takes or gives back, over any number of undos; of a decision itself."""
        while isinstance(entry.decision, Undo):
            entry = self.find(entry.decision.of)
        return entry

    def file(self, entry: Entry) -> Path:
        """Where the pairs of a bulk entry are.

        Raises:
            RunError: they are not there, or not all of them.
        """
        path = self._file(entry)
        try:
            rows = pq.read_metadata(path).num_rows
        except (OSError, pa.ArrowException):
            rows = -1
        if not isinstance(entry.decision, BulkDecision) or rows != entry.decision.pairs:
            raise RunError(f"{path}: missing or damaged; restore it, or undo {entry.id} to go without its decisions")
        return path

    def has_file(self, entry: Entry) -> bool:
        """Whether a bulk entry's pairs are there: of one that is taken back they need not be."""
        return self._file(entry).is_file()

    def refresh(self) -> None:
        """Read what was written since, here or elsewhere.

        Raises:
            RunError: a line is damaged.
        """
        with self._guard:
            whole, newline, _ = self._unread().rpartition(b"\n")
            lines = whole.split(b"\n") if newline else []
            for number, line in enumerate(lines, self._lines + 1):
                if line.strip():
                    self._take(line, number)
            self._lines += len(lines)
            self._read += len(whole) + len(newline)

    # --- writing ---

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries, with one sync. Those that are in the log already are left out.

        They are on the disk when this returns. When it fails, some may be: each is whole or not there.

        Raises:
            RunError: an entry takes back what is not in the log, or a bulk entry's pairs are missing.
            StorageError: the disk refuses.
        """
        with self._writing():
            self._append(entries)

    def append_bulk(self, entry: Entry, pairs: Path, below: Sequence[Entry] = ()) -> None:
        """Write a bulk entry; the file of its pairs is moved to its place. Needs `bulk`.

        Args:
            below: entries that are written before it, with the same sync.

        Raises:
            StorageError: the disk refuses.
        """
        with atomic_path(self._file(entry)) as temporary:
            os.replace(pairs, temporary)
        self.append([*below, entry])

    def undo(self, entry_id: str, who: str | None = None) -> Entry:
        """Take back an entry. Taking back an undo restores what it took back. The beginning of the id is enough.

        Returns:
            The entry that takes it back: an earlier one where it is taken back already.

        Raises:
            RunError: no entry, or more than one, has this id.
            StorageError: the disk refuses.
        """
        with self._writing():
            entry = self.find(entry_id)
            if not self.stands(entry):
                undos = (self.find(undo) for undo, target in self._undos if target == entry.id)
                return next(filter(self.stands, undos))
            undo = Entry.new(Undo(entry.id), who)
            self._append([undo])
            return undo

    def lacks(self, other: DecisionLog) -> list[Entry]:
        """Entries of another run's log that are not in this one."""
        self.refresh()
        other.refresh()
        return [entry for entry in other.entries() if entry.id not in self._places]

    def copy_pairs(self, entries: Iterable[Entry], other: DecisionLog) -> None:
        """Copy the files of bulk entries of another run's log, before the entries are written. Needs `bulk`.

        Raises:
            RunError: a file is missing there.
            StorageError: the disk refuses.
        """
        for entry in entries:
            if entry.kind == "bulk":
                with atomic_path(self._file(entry)) as temporary:
                    shutil.copyfile(other.file(entry), temporary)

    @contextmanager
    def bulk(self, *, alone: bool = False) -> Iterator[None]:
        """Hold the log's folder: bulk decisions are made one at a time, while others decide about single pairs.

        Args:
            alone: nobody else decides about a single pair meanwhile; who wants to waits.
        """
        with self._locked(_BULK_LOCK), self._writing() if alone else nullcontext():
            remove_leftovers(self.folder)
            yield

    # --- inside ---

    def _forget(self) -> None:
        self._inode: int | None = None
        self._read = self._lines = 0
        self._entries: list[Entry] = []
        self._places: dict[str, int] = {}
        self._about: defaultdict[str, list[Entry]] = defaultdict(list)
        self._bulks: list[Entry] = []
        self._undos: list[tuple[str, str]] = []
        self._void = None

    def _unread(self) -> bytes:
        """What stands behind all that was read."""
        try:
            with open(self.path, "rb") as file:
                found = os.fstat(file.fileno())
                if self._inode not in (None, found.st_ino) or found.st_size < self._read:
                    self._start_anew()
                self._inode = found.st_ino
                file.seek(self._read)
                return file.read()
        except FileNotFoundError:
            if self._inode is not None:
                self._start_anew()
            return b""
        except OSError as error:
            raise RunError(f"{self.path}: cannot be read ({error.strerror})") from error

    def _start_anew(self) -> None:
        self.generation += 1
        self._forget()

    def _take(self, line: bytes, number: int) -> None:
        """Add a line to what is known."""
        try:
            entry = Entry.parse(line)
            known = self._places.get(entry.id)
            if known is not None and self._entries[known] != entry:
                raise ValueError("another entry has the same id")
            _check_target(entry, self._places)
        except ValueError as error:
            hint = "put the line right, or delete it to go without its decision"
            raise RunError(f"{self.path}, line {number}: damaged ({error}); {hint}") from error
        if known is None:  # logs may be joined: the same entry counts once
            self._add(entry)

    def _add(self, entry: Entry) -> None:
        self._places[entry.id] = len(self._entries)
        self._entries.append(entry)
        if isinstance(entry.decision, PairDecision):
            self._about[entry.decision.pair_id].append(entry)
        elif isinstance(entry.decision, BulkDecision):
            self._bulks.append(entry)
        else:
            self._undos.append((entry.id, entry.decision.of))
            self._void = None

    def _file(self, entry: Entry) -> Path:
        return self.folder / f"{entry.id}.parquet"

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with storage_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
            lock = self._locks[name]
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the log, read to its end and mended."""
        with self._guard, self._locked(_LOCK):
            self.refresh()
            if tail := self._unread():
                self._mend(tail)
            yield

    def _mend(self, tail: bytes) -> None:
        """Complete the last line, or move it aside: its writer was killed before the entry was acknowledged."""
        try:
            Entry.parse(tail)
        except ValueError:
            aside = self.folder / f"torn-{uuid.uuid4().hex[:8]}.txt"
            with storage_errors(self.path):
                aside.write_bytes(tail)
                os.truncate(self.path, self._read)
                sync(self.path)
            self._say(f"{self.path}: the last line was torn, for its writer was killed; it is in {aside}")
        else:
            self._write(b"\n")
            self._say(f"{self.path}: the last line lacked its end, for its writer was killed; it is whole again")

    def _append(self, entries: Sequence[Entry]) -> None:
        new: dict[str, Entry] = {}
        for entry in entries:
            if entry.id in self._places:
                continue
            try:
                _check_target(entry, self._places, new)
            except ValueError as error:
                raise RunError(f"{self.path}: entry {entry.id}: {error}") from error
            if entry.kind == "bulk":
                self.file(entry)
            new[entry.id] = entry
        if new:
            self._write(b"".join(entry.line() for entry in new.values()))

    def _write(self, lines: bytes) -> None:
        rest = memoryview(lines)
        with storage_errors(self.path), open(self.path, "ab", buffering=0) as file:
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
            if self._inode is None:
                sync(self.folder.parent)
        self.refresh()


def _check_target(entry: Entry, *known: Container[str]) -> None:
    if isinstance(entry.decision, Undo) and not any(entry.decision.of in ids for ids in known):
        raise ValueError(f"it takes back {entry.decision.of!r}, which is not in the log")
