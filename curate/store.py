"""A run: a folder of Parquet tables and a manifest. The only door through which stages read and write it.

    RUN/
      manifest.json               schema version, inputs, configurations, and per stage what was done
      pairs/00000.parquet …       65,536 pairs a file, 1,024 a row group
      refused.parquet             rows that did not become pairs
      scores/PASS-FINGERPRINT/    shards of each scoring pass: 00000.parquet …, features/, noise_floor.parquet
      scores.parquet              the passes side by side, one row a pair
      weights.parquet             margin, target margin, weight
      signals.parquet             one column a signal
      findings.parquet            what the checks found
      diagnosis.parquet           kind, p_flip, evidence, reasons, cluster, place on the map
      slices.parquet              flip rates by source, annotator, cluster, length, turns
      selftest.parquet            how well planted noise is found
      crossfit.parquet            margins of policies that did not see a pair's label (curate crossfit)

Every file is written under a temporary name, synced and renamed, so that a reader sees all of it or
nothing. A stage is recorded in the manifest after its tables are in place, and struck from it
before they are replaced. A stage whose fingerprint stands in the manifest need not run again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.errors import RunError, storage_errors
from curate.schema import PAIRS, SCHEMA_VERSION

STAGES = ("ingest", "score", "weigh", "diagnose", "selftest")
DIAGNOSED = ("signals", "findings", "diagnosis", "slices")  # tables of the stage `diagnose`
PART_PAIRS = 65_536
GROUP_PAIRS = 1_024

_MOST_GROUPS = 8  # of a batch

_VALUES_DEPEND_ON = ("gamma-curate", "torch", "transformers", "numpy", "pyarrow", "scikit-learn")

Manifest = dict[str, Any]

_TEMPORARY = r"\..*\.tmp"


def fingerprint(value: object) -> str:
    """A short hash of any JSON value: equal values, equal fingerprints."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Run:
    """A run's folder."""

    path: Path

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """Open an existing run.

        Raises:
            RunError: there is none, or it was made by another schema version.
        """
        run = cls(Path(path))
        if not run.manifest_path.is_file():
            raise RunError(f"{path}: not a run (no manifest.json); make one with curate audit DATA -o {path}")
        run.manifest()
        return run

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Run:
        """Open a run, or start one in a new or empty folder.

        Raises:
            RunError: the folder holds something else, or a run of another schema version.
            StorageError: the folder cannot be made.
        """
        run = cls(Path(path))
        if run.manifest_path.is_file():
            return cls.open(path)
        with storage_errors(path):
            run.path.mkdir(parents=True, exist_ok=True)
            foreign = [name for name in os.listdir(path) if name != ".lock" and not re.fullmatch(_TEMPORARY, name)]
        if foreign and not run.manifest_path.is_file():  # another process may have made the run just now
            raise RunError(f"{path}: the folder is not empty and not a run; choose another with -o")
        with run.lock():
            if not run.manifest_path.is_file():
                run._write_manifest({"schema_version": SCHEMA_VERSION, "created": _now(), "stages": {}})
        return cls.open(path)

    # --- where things are ---

    @property
    def manifest_path(self) -> Path:
        """What the run is and which stages are done."""
        return self.path / "manifest.json"

    @property
    def pairs_path(self) -> Path:
        """Folder of the pairs table."""
        return self.path / "pairs"

    @property
    def refused_path(self) -> Path:
        """Rows that did not become pairs."""
        return self.table_path("refused")

    @property
    def scores_path(self) -> Path:
        """All passes' log-probs, one row a pair."""
        return self.table_path("scores")

    @property
    def weights_path(self) -> Path:
        """Margins, target margins and weights."""
        return self.table_path("weights")

    def table_path(self, name: str) -> Path:
        """A table that is one file."""
        return self.path / f"{name}.parquet"

    def pass_path(self, name: str, key: str) -> Path:
        """The folder of a scoring pass's shards."""
        return self.path / "scores" / f"{name}-{key}"

    # --- the manifest ---

    def manifest(self) -> Manifest:
        """The manifest as it stands.

        Raises:
            RunError: it is damaged or of another schema version.
        """
        try:
            found: Manifest = json.loads(self.manifest_path.read_text(encoding="utf-8"))
            version = found["schema_version"]
            found["stages"].keys()
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{self.manifest_path}: damaged ({error}); start a new run with -o") from error
        except OSError as error:
            raise RunError(f"{self.manifest_path}: cannot be read ({error.strerror})") from error
        if version != SCHEMA_VERSION:
            raise RunError(
                f"{self.path}: made by schema version {version}, this is version {SCHEMA_VERSION}; "
                "use the curate that made it, or start a new run with -o"
            )
        return found

    def stage(self, name: str) -> dict[str, Any] | None:
        """What the manifest says of a finished stage, or None."""
        record: dict[str, Any] | None = self.manifest()["stages"].get(name)
        return record

    def require(self, name: str) -> dict[str, Any]:
        """What the manifest says of a stage that must be done.

        Raises:
            RunError: it is not.
        """
        record = self.stage(name)
        if record is None:
            raise RunError(f"{self.path}: the stage {name} is not done; run curate {name} {self.path}")
        return record

    def is_done(self, name: str, key: str) -> bool:
        """Whether a stage was finished with this fingerprint, and its tables are whole."""
        record = self.stage(name)
        return record is not None and record["fingerprint"] == key and self.lost_table(name) is None

    def lost_table(self, name: str) -> Path | None:
        """The first table of a finished stage that is missing or has no readable footer."""
        tables = {
            "score": [self.scores_path],
            "weigh": [self.weights_path],
            "diagnose": [self.table_path(table) for table in DIAGNOSED],
            "selftest": [self.table_path("selftest")],
        }.get(name)
        if tables is None:
            parts = range(-(-self.count_pairs() // PART_PAIRS))
            tables = [self.refused_path, *(self.pairs_path / f"{part:05d}.parquet" for part in parts)]
        return next((table for table in tables if read_metadata(table) is None), None)

    def strike(self, name: str) -> None:
        """Take a stage and all that follow it out of the manifest, before their tables are replaced."""
        manifest = self.manifest()
        for later in STAGES[STAGES.index(name) :]:
            manifest["stages"].pop(later, None)
        self._write_manifest(manifest)

    def strike_lost(self, *names: str) -> None:
        """Strike those of some stages whose tables are missing or damaged: a reader would refuse the run."""
        for name in names:
            if self.stage(name) is not None and self.lost_table(name) is not None:
                self.strike(name)

    def record(self, name: str, key: str, facts: Mapping[str, Any]) -> None:
        """Note that a stage is done."""
        manifest = self.manifest()
        versions = {library: version_of(library) for library in _VALUES_DEPEND_ON}
        manifest["stages"][name] = {"fingerprint": key, "finished": _now(), "versions": versions, **facts}
        self._write_manifest(manifest)

    def _write_manifest(self, manifest: Manifest) -> None:
        with atomic_path(self.manifest_path) as temporary:
            temporary.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run: processes that share it ingest, merge and weigh one at a time.

        Only the holder writes at the run's top level, so what is temporary there was left by a killed process.
        """
        with storage_errors(self.path):
            lock = filelock.FileLock(self.path / ".lock")
            lock.acquire()
        try:
            _remove(self.path.glob(".*.tmp"))
            yield
        finally:
            lock.release()

    def fork(self, path: Path) -> Run:
        """A run of the same pairs, without what was made of them; its files are links where the disk can.

        Raises:
            RunError: the folder holds something else.
            StorageError: the disk refuses.
        """
        forked = Run.create(path)
        ingested = self.require("ingest")
        with forked.lock():
            if forked.is_done("ingest", ingested["fingerprint"]):
                return forked
            forked.strike("ingest")
            with atomic_folder(forked.pairs_path) as temporary:
                for part in sorted(self.pairs_path.iterdir()):
                    _link(part, temporary / part.name)
            with atomic_path(forked.refused_path) as file:
                _link(self.refused_path, file)
            forked.record("ingest", ingested["fingerprint"], ingested)
        return forked

    # --- pairs ---

    def count_pairs(self) -> int:
        """How many pairs the run holds."""
        return int(self.require("ingest")["pairs"])

    def read_pairs(self, start: int, stop: int, columns: list[str] | None = None) -> pa.Table:
        """Pairs by position, `start` to `stop` (not their `row`, which counts refused rows too)."""
        pieces = []
        for part in range(start // PART_PAIRS, -(-stop // PART_PAIRS)):
            base = part * PART_PAIRS
            low, high = max(start - base, 0), min(stop - base, PART_PAIRS)
            groups = range(low // GROUP_PAIRS, -(-high // GROUP_PAIRS))
            path = self.pairs_path / f"{part:05d}.parquet"
            try:
                file = pq.ParquetFile(path)
                table = file.read_row_groups([g for g in groups if g < file.num_row_groups], columns=columns)
            except (OSError, pa.ArrowException) as error:
                raise RunError(f"{path}: damaged; delete it and run curate audit again with the same data") from error
            pieces.append(table.slice(low - groups.start * GROUP_PAIRS, high - low))
        return pa.concat_tables(pieces) if pieces else PAIRS.empty_table().select(columns or PAIRS.names)

    def pair_batches(self, columns: list[str], most_bytes: int = 1 << 26) -> Iterator[pa.Table]:
        """All pairs in the input's order, some thousand at a time, fewer where their texts are long.

        The next batch is read while the caller works on one.

        Args:
            most_bytes: of a batch, as far as whole row groups (of `GROUP_PAIRS`) allow.
        """
        total = self.count_pairs()
        start, stop = 0, min(GROUP_PAIRS, total)
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self.read_pairs, start, stop, columns)
            while start < total:
                taken = coming.result()
                groups = min(most_bytes * len(taken) // (GROUP_PAIRS * max(taken.nbytes, 1)), _MOST_GROUPS)
                start, stop = stop, min(stop + max(groups, 1) * GROUP_PAIRS, total)
                coming = reader.submit(self.read_pairs, start, stop, columns)
                yield taken


# --- atomic files --------------------------------------------------------------------------------


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success sync it and rename it into place.

    Raises:
        StorageError: the disk refuses. Nothing of the file is left then.
    """
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with storage_errors(target):
            yield temporary
            sync(temporary)
            os.replace(temporary, target)
            sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder; on success it takes the place of `target`."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    discarded = temporary.with_suffix(".old.tmp")
    try:
        with storage_errors(target):
            temporary.mkdir(parents=True)
            yield temporary
            for path in (*temporary.iterdir(), temporary):
                sync(path)
            if target.exists():
                os.replace(target, discarded)
            try:
                os.replace(temporary, target)
            except OSError:
                if discarded.exists():
                    os.replace(discarded, target)
                raise
            sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(discarded, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def parquet_writer(
    path: Path, schema: pa.Schema, metadata: Mapping[str, Any] | None = None, repeating: Collection[str] | None = None
) -> pq.ParquetWriter:
    """A Parquet writer with the run's compression.

    Args:
        metadata: goes into the footer under `curate`.
        repeating: columns whose values repeat; None tries with all of them.
    """
    if metadata is not None:
        schema = schema.with_metadata({b"curate": json.dumps(metadata).encode()})
    return pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=list(repeating) if repeating else True)


def write_table(target: Path, table: pa.Table, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a whole table atomically."""
    with atomic_path(target) as temporary, parquet_writer(temporary, table.schema, metadata) as writer:
        writer.write_table(table)


def nullable(values_N: NDArray[np.float64]) -> pa.Array:
    """A column of floats with null for NaN."""
    return pa.array(values_N, from_pandas=True)


def read_metadata(path: Path) -> dict[str, Any] | None:
    """The `curate` metadata of a Parquet file, or None where there is no such (whole) file."""
    try:
        stored = pq.read_schema(path).metadata or {}
        found: dict[str, Any] = json.loads(stored.get(b"curate", b"{}"))
    except (FileNotFoundError, ValueError, pa.ArrowException):
        return None
    except OSError as error:
        if error.errno is not None:  # the system's refusal; without a number it is the footer that is damaged
            raise
        return None
    return found


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that killed processes left in a folder."""
    _remove(folder.rglob(".*.tmp"))


def _remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def version_of(distribution: str) -> str:
    """The installed version of a library, in words where there is none."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
