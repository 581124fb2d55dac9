"""Stage `ingest`: input files → `pairs/` and `refused.parquet`. Streams: memory does not grow with the data.

Every row that is read either gave pairs or is kept with the reason why not, asserted: rows = rows in a pair + refused.
Where each row is a pair that is rows = pairs + refused. A record (a pair or a refused row) takes the next number as its
`row`; `file` and `line` say where it came from. Pairs of one ranking share their line; a pair of joined rows has the
first row's line and text.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, count, islice
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate import formats, readers
from curate.config import PAIRINGS, IngestConfig, as_json
from curate.errors import ConfigError, EmptyFileError, InputError, RunError
from curate.formats import Format, Message, Pair, Profile
from curate.inputs import Source, find_sources
from curate.progress import Progress, Quiet
from curate.reading import readings
from curate.schema import PAIRS, REFUSED, SCHEMA_VERSION
from curate.store import GROUP_PAIRS, PART_PAIRS, Run, atomic_folder, atomic_path, fingerprint, parquet_writer

_PROFILE_ROWS = 100
_SAVED = re.compile(r"data-\d+-of-\d+\.arrow")
_SHARD_NUMBER = re.compile(r"-\d+-of-\d+$")


def pair_id(pair: Pair) -> str:
    """Hash of the canonical prompt, chosen and rejected (128 bits, hex)."""
    sides = [[[turn.role, turn.content] for turn in turns] for turns in (pair.prompt, pair.chosen, pair.rejected)]
    text = json.dumps(sides, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class InputFile:
    """One file to read: how, and why so."""

    path: str
    form: Format
    reason: str
    columns: tuple[str, ...]


def ingest(
    config: IngestConfig, run: Run, progress: Progress | None = None, *, replace_data: bool = False
) -> dict[str, Any]:
    """Read the inputs into the run, unless the same inputs are in it already.

    Args:
        replace_data: allow other data than the run was made from.

    Returns:
        What the manifest says of the stage: inputs, counts, seconds.

    Raises:
        InputError: a file is unreadable, malformed or of no known format, or no row becomes a pair.
        RunError: the run was made from other data.
    """
    progress = progress or Quiet()
    sources = find_sources(config.inputs)
    paths = [source.path for source in sources]
    digests = {path: readers.sha256(path) for path in paths}
    described = [source.description for source in sources]
    key = fingerprint(
        [SCHEMA_VERSION, as_json(replace(config, inputs=tuple(paths))), list(digests.values()), described]
    )
    with run.lock():
        if run.is_done("ingest", key):
            return run.require("ingest")
        record = run.stage("ingest")
        if record is not None and not replace_data:
            _check_same_data(run, record, digests)
        return _ingest(config, run, progress, key, sources, digests)


def _check_same_data(run: Run, record: dict[str, Any], digests: dict[str, str]) -> None:
    known = {entry["path"] for entry in record["inputs"]} | {entry["sha256"] for entry in record["inputs"]}
    if not known & {*digests.keys(), *digests.values()}:
        held = record["inputs"][0]["path"]
        raise RunError(f"{run.path}: this run holds {held}; choose another folder with -o, or say --replace")


def _ingest(
    config: IngestConfig, run: Run, progress: Progress, key: str, sources: list[Source], digests: dict[str, str]
) -> dict[str, Any]:
    started = time.monotonic()
    files = list(examined(config, sources, progress.say))
    _require_use(config, files)
    for file in files:
        progress.say(f"{file.path}: {file.form.name}, since {file.reason}")
    with atomic_folder(run.pairs_path) as pairs_folder, atomic_path(run.refused_path) as refused_file:
        counts = _write(config, files, pairs_folder, refused_file, progress)
        if not counts.pairs:
            raise InputError(_no_pairs(files, counts))
        run.strike("ingest")
    facts = {
        "config": as_json(config),
        "inputs": [
            {
                "path": file.path,
                "sha256": digests[file.path],
                "format": file.form.name,
                "why": file.reason,
                "columns": list(file.columns),
                **counts.by_file[file.path],
            }
            for file in files
        ],
        "rows": counts.rows,
        "pairs": counts.pairs,
        "ties": counts.ties,
        "refused": counts.refused,
        "seconds": round(time.monotonic() - started, 3),
    }
    run.record("ingest", key, facts)
    return run.require("ingest")


def examined(config: IngestConfig, sources: Sequence[Source], say: Callable[[str], None]) -> Iterator[InputFile]:
    """How each file is read. Of several, those without a row are told of and passed over.

    Raises:
        EmptyFileError: no file holds a row.
        InputError, ConfigError: as `examine`.
    """
    empty = []
    for source in sources:
        try:
            yield examine(config, source)
        except EmptyFileError as error:
            empty.append(error)
            if len(sources) > 1:
                say(f"{error}; passed over")
    if len(empty) == len(sources):
        raise empty[0]


def examine(config: IngestConfig, source: Source) -> InputFile:
    """Look at a file's first rows and settle how it is read.

    Raises:
        InputError: the file is unreadable, empty, or of no known format.
        ConfigError: a setting does not fit the format.
    """
    profile = Profile.of(row.values for row in islice(readers.read_rows(source.path), _PROFILE_ROWS))
    form, reason = _choose(config, source, profile)
    settled = form.by_label(config.label) if form.labels else form
    return InputFile(source.path, settled, reason + _policy(config, form), tuple(map(_storable, profile.kinds)))


def _require_use(config: IngestConfig, files: list[InputFile]) -> None:
    """Refuse settings that say something of none of the files."""
    names = ", ".join(dict.fromkeys(file.form.name for file in files))
    if config.pairing != PAIRINGS[0] and all(file.form.rowwise for file in files):
        raise ConfigError(f"--pairing {config.pairing}: each row of {names} is one pair; leave --pairing out")
    if config.label is not None and not any(file.form.labels for file in files):
        raise ConfigError(f"--label {config.label}: the rows of {names} have one label; leave --label out")


def _choose(config: IngestConfig, source: Source, profile: Profile) -> tuple[Format, str]:
    """The format of a file, and why it is that."""
    if config.columns is not None:
        form, reason = formats.mapped(config.columns, config.label_values), "--columns says so"
    elif config.format is not None:
        form, reason = formats.named(config.format), "--format says so"
    elif source.form is not None:
        form, reason = source.form, source.why
    else:
        form = formats.detect(profile, source.path)
        return form, form.reason()
    _require_columns(source.path, form, profile)
    return form, reason


def _policy(config: IngestConfig, form: Format) -> str:
    """What was chosen beyond the format, in words."""
    pairing = "" if form.rowwise else f"; ranked answers become pairs by --pairing {config.pairing}"
    return pairing + (f"; its label is --label {config.label}" if form.labels else "")


def _require_columns(path: str, form: Format, profile: Profile) -> None:
    if missing := [name for name in form.columns if name not in profile.kinds]:
        raise InputError(f"{path}: no column {missing[0]!r}; it has {', '.join(profile.kinds) or 'none'}")


@dataclass
class _Counts:
    rows: int = 0
    paired: int = 0  # rows that stand in a pair
    records: int = 0  # pairs and refused rows
    pairs: int = 0
    ties: int = 0
    refused: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    by_file: dict[str, dict[str, int]] = field(default_factory=dict)


def _no_pairs(files: list[InputFile], counts: _Counts) -> str:
    reason, number = counts.reasons.most_common(1)[0]
    return (
        f"{files[0].path}: read as {files[0].form.name}, none of the {counts.rows:,} rows became a pair, "
        f"most often ({number:,}×) because {reason}; choose another --format, or name the --columns"
    )


def _write(
    config: IngestConfig, files: list[InputFile], pairs_folder: Path, refused_file: Path, progress: Progress
) -> _Counts:
    counts = _Counts(by_file={file.path: {"rows": 0, "pairs": 0, "refused": 0} for file in files})
    rows = chain.from_iterable(_convert(config, file, counts) for file in files)
    with parquet_writer(refused_file, REFUSED) as refused, closing(_divert(rows, refused, counts)) as accepted:
        _write_parts(islice(accepted, config.limit), pairs_folder, counts, progress)
    if counts.rows != counts.paired + counts.refused:
        raise AssertionError(f"{counts.rows} rows in, {counts.paired} in a pair and {counts.refused} refused out")
    if counts.records != counts.pairs + counts.refused:
        raise AssertionError(f"{counts.records} records, but {counts.pairs} pairs and {counts.refused} refused")
    return counts


def _convert(config: IngestConfig, file: InputFile, counts: _Counts) -> Iterator[dict[str, Any]]:
    """Every pair of a file as a record of `PAIRS`, every refused row as one of `REFUSED` with its reason."""
    default_source = source_name(file.path)
    seen = counts.by_file[file.path]
    for reading in readings(file.form, config.pairing, readers.read_rows(file.path)):
        first = reading.rows[0]
        place = {"file": file.path, "line": first.line, "original": first.text}
        counts.rows += len(reading.rows)
        seen["rows"] += len(reading.rows)
        if not reading.pairs:
            seen["refused"] += 1
            refused = {"original": _storable(first.text), "reason": reading.reason}
            yield {"row": _next(counts), **place, **refused}
            continue
        counts.paired += len(reading.rows)
        for pair in reading.pairs:
            seen["pairs"] += 1
            yield {"row": _next(counts), **place, **_record(pair), "source": pair.source or default_source}


def _next(counts: _Counts) -> int:
    """The running number of the next record."""
    counts.records += 1
    return counts.records - 1


def _record(pair: Pair) -> dict[str, Any]:
    return {"pair_id": pair_id(pair), **asdict(pair)}


def _storable(text: str) -> str:
    """Text that UTF-8 can hold: the refused row may have been refused for just that."""
    return text.encode("utf-8", "backslashreplace").decode()


def source_name(path: str) -> str:
    """A file's name without its suffixes and shard number: where its pairs come from, if no column says so.

    The files of a saved dataset are all named `data`, so that its folder's name stands for them.
    """
    name = PurePosixPath(path)
    if _SAVED.fullmatch(name.name):
        return name.parent.name
    while name.suffix.lower() in (*readers.COMPRESSIONS, *readers.CONTAINERS):
        name = name.with_suffix("")
    return _SHARD_NUMBER.sub("", name.name)


def _divert(records: Iterable[dict[str, Any]], writer: pq.ParquetWriter, counts: _Counts) -> Generator[dict[str, Any]]:
    """Pass the pairs on; write the refused rows."""
    waiting: list[dict[str, Any]] = []
    try:
        for record in records:
            if "reason" not in record:
                yield record
                continue
            counts.refused += 1
            counts.reasons[record["reason"]] += 1
            waiting.append(record)
            if len(waiting) == GROUP_PAIRS:
                writer.write_batch(pa.RecordBatch.from_pylist(waiting, REFUSED))
                waiting.clear()
    finally:
        if waiting:
            writer.write_batch(pa.RecordBatch.from_pylist(waiting, REFUSED))


def _write_parts(records: Iterable[dict[str, Any]], folder: Path, counts: _Counts, progress: Progress) -> None:
    source = iter(records)
    for part in count():
        first = list(islice(source, GROUP_PAIRS))
        if not first:
            return
        with parquet_writer(folder / f"{part:05d}.parquet", PAIRS) as writer:
            groups = chain([first], iter(lambda: list(islice(source, GROUP_PAIRS)), []))
            for group in islice(groups, PART_PAIRS // GROUP_PAIRS):
                writer.write_batch(pa.RecordBatch.from_pylist(group, PAIRS))
                counts.pairs += len(group)
                counts.ties += sum(record["tie"] for record in group)
                progress.advance(len(group))


def messages_of(column: list[list[dict[str, str]]]) -> list[tuple[Message, ...]]:
    """A messages column of the pairs table as `Message` tuples."""
    return [tuple(Message(turn["role"], turn["content"]) for turn in turns) for turns in column]
