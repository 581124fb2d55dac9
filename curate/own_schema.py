"""An export in the source's own schema: the source's files, read again, without the rows that leave.

Rows that stay as they are, are the source's bytes (JSON Lines, JSON, CSV, TSV) or its values under its Arrow schema
(Parquet). In a row that is flipped only what says the label changes, see `curate.flipping`. Where a decision gives a
pair a weight or a soft label, the files get the columns of `ASKED`.

Needs the files that the run was made from, unchanged, each row a pair.
"""

from __future__ import annotations

import csv
import io
import json
import lzma
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate import readers
from curate.errors import InputError, RunError
from curate.exporters import EXPORTERS
from curate.flipping import JOINED, Flip, Relabel, flip_of
from curate.json_text import edited
from curate.store import Run

#: Column that a decision may ask for → the number that it means where there is none.
ASKED = {"curate_weight": 1.0, "curate_p_flip": 0.0}

_SPLITS = ("train", "test")
_BATCH_ROWS = 1024
_GROUP_BYTES = 1 << 26
_ARROW_CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_NOWHERE = -1


@dataclass(frozen=True)
class Rows:
    """What becomes of a file's N rows.

    split_N: 0 train, 1 test, −1 neither. flipped_N: which are flipped. asked: column of `ASKED` → its values, (N,).
    """

    split_N: NDArray[np.int8]
    flipped_N: NDArray[np.bool_]
    asked: Mapping[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.split_N)

    def slice(self, start: int, stop: int) -> Rows:
        """Some of them."""
        asked = {name: values_N[start:stop] for name, values_N in self.asked.items()}
        return Rows(self.split_N[start:stop], self.flipped_N[start:stop], asked)

    def values(self, at: int) -> dict[str, float]:
        """What is asked for a row."""
        return {name: float(values_N[at]) for name, values_N in self.asked.items()}


def write(run: Run, selected: pa.Table, folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Write the files of an export.

    Args:
        selected: the table of a `Selection`.

    Returns:
        Each file's `split`, name (`file`) and number of `pairs`; the columns that were added.

    Raises:
        RunError: a source file is gone, has changed, or cannot be filtered or flipped row by row.
    """
    ingested = run.require("ingest")
    sources = ingested["inputs"]
    for source in sources:
        if source["rows"] != source["pairs"] + source["refused"] or source["format"] in JOINED:
            what = f"in {source['format']} a row is not a pair, so rows cannot be left out pair by pair"
            raise RunError(f"{source['path']}: {what}; {_OTHERS}")
    rows = _rows(selected, ingested["rows"])
    files, start = [], 0
    for source, name in zip(sources, _names([it["path"] for it in sources]), strict=True):
        own = rows.slice(start, start + source["rows"])
        start += source["rows"]
        flip = _check(source, own, ingested["config"])
        with readers.reading_errors(source["path"]):
            counts = _rewrite(source["path"], own, flip, folder, name)
        expected = {split: int((own.split_N == at).sum()) for at, split in enumerate(_SPLITS)}
        if counts != {split: pairs for split, pairs in expected.items() if pairs}:
            raise AssertionError(f"{source['path']}: {expected} pairs to write, {counts} written")
        files += [{"split": split, "file": f"{split}/{name}", "pairs": pairs} for split, pairs in counts.items()]
    return files, list(rows.asked)


def _rows(selected: pa.Table, total: int) -> Rows:
    """Of all input rows; those that never became pairs go nowhere."""
    row_N = selected["row"].to_numpy()
    stays_N = pc.is_null(selected["gone"]).to_numpy()
    split_N = np.full(total, _NOWHERE, np.int8)
    split_N[row_N] = np.where(stays_N, selected["test"].to_numpy(), _NOWHERE)
    flipped_N = np.zeros(total, bool)
    flipped_N[row_N] = selected["flipped"].to_numpy() & stays_N
    soft_N = pc.equal(selected["decision"].cast(pa.string()), "soft").to_numpy()
    decided = {
        "curate_weight": selected["weight"].to_numpy(),
        "curate_p_flip": np.where(soft_N, selected["p_flip"].to_numpy(), ASKED["curate_p_flip"]),
    }
    asked = {}
    for name, values_N in decided.items():
        if (values_N[stays_N] != ASKED[name]).any():
            asked[name] = np.full(total, ASKED[name])
            asked[name][row_N] = values_N
    return Rows(split_N, flipped_N, asked)


def _names(paths: list[str]) -> list[str]:
    """The files' names in the export: what is left of their paths without what all share.

    Raises:
        RunError: two would have the same name.
    """
    parts = [PurePosixPath(path if "://" in path else os.path.abspath(path)).parts for path in paths]
    shared = len(list(takewhile(lambda level: len(set(level)) == 1, zip(*(it[:-1] for it in parts), strict=False))))
    names = ["/".join(it[shared:]) for it in parts]
    if len(set(names)) < len(names):
        raise RunError(f"{paths[0]}: two input files would have the same name in the export; {_OTHERS}")
    return names


_OTHERS = f"formats that need only the run: {', '.join(EXPORTERS)}"


def _check(source: Mapping[str, Any], rows: Rows, config: Mapping[str, Any]) -> Flip:
    """How rows of a file are flipped."""
    path, form = source["path"], source["format"]
    flip = flip_of(form, config)
    if isinstance(flip, str):
        if rows.flipped_N.any():
            flips = f"{int(rows.flipped_N.sum()):,} pairs are to be flipped, but in {form} {flip}"
            raise RunError(f"{path}: {flips}; undo the flips, or choose another format; {_OTHERS}")
        flip = Flip()
    if taken := rows.asked.keys() & set(source["columns"]):
        raise RunError(f"{path}: it has a column {min(taken)!r} itself, which the export needs; {_OTHERS}")
    try:
        digest = readers.sha256(path)
    except InputError as error:
        raise RunError(f"{error}; bring it back as it was read; {_OTHERS}") from error
    if digest != source["sha256"]:
        raise RunError(f"{path}: it has changed since it was read; bring the old one back, or read it anew; {_OTHERS}")
    return flip


def _rewrite(path: str, rows: Rows, flip: Flip, folder: Path, name: str) -> dict[str, int]:
    """Write what stays of a file; how many rows of each split."""
    container = readers.container_of(path)
    if container == "arrow":
        raise RunError(f"{path}: Arrow files are not written; {_OTHERS}")
    with readers.opened(path) as stream, ExitStack() as stack:
        targets = _Targets(folder, name, stack)
        if container == "parquet":
            _rewrite_parquet(stack.enter_context(readers.seekable(path, stream)), rows, flip, targets)
        else:
            _rewrite_text(path, container, stream, rows, flip, targets)
        return {_SPLITS[split]: pairs for split, pairs in sorted(targets.pairs.items())}


class _Targets:
    """The files that a source's rows go into, each opened when its first row comes."""

    def __init__(self, folder: Path, name: str, stack: ExitStack) -> None:
        self._folder, self._name, self._stack = folder, name, stack
        self.pairs: Counter[int] = Counter()

    def open(self, split: int) -> Any:
        """A stream for bytes, packed as the file's name says."""
        path = self._folder / _SPLITS[split] / self._name
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = path.suffix.lower()
        if suffix == ".xz":
            return self._stack.enter_context(lzma.open(path, "wb"))
        file = self._stack.enter_context(pa.OSFile(str(path), "wb"))
        codec = _ARROW_CODECS.get(suffix)
        return self._stack.enter_context(pa.CompressedOutputStream(file, codec)) if codec else file


# --- texts ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Texts:
    """What stays of a text file: its rows by number, and what stands before, between and after them."""

    rows: Iterator[tuple[int, str]]
    head: str = ""
    between: str = ""
    tail: str = ""


def _rewrite_text(path: str, container: str, stream: BinaryIO, rows: Rows, flip: Flip, targets: _Targets) -> None:
    texts = _texts(path, container, stream, rows, flip)
    files: dict[int, Any] = {}
    for at, text in texts.rows:
        split = int(rows.split_N[at])
        before = texts.between if split in files else texts.head
        if split not in files:
            files[split] = targets.open(split)
        files[split].write((before + text).encode())
        targets.pairs[split] += 1
    for file in files.values():
        file.write(texts.tail.encode())


def _texts(path: str, container: str, stream: BinaryIO, rows: Rows, flip: Flip) -> _Texts:
    if container in ("csv", "tsv"):
        return _delimited(stream, "," if container == "csv" else "\t", rows, flip)
    shape = readers.json_shape(path)
    if shape == "object":
        raise RunError(f"{path}: its rows stand inside one object, so rows alone cannot leave; {_OTHERS}")
    if shape == "array":
        elements = (row.text for row in readers.read_rows(path))
        return _Texts(_objects(elements, rows, flip), "[\n", ",\n", "\n]\n")
    lines = (line.removeprefix(readers.BOM).decode() for line in stream)
    return _Texts(_objects((line for line in lines if line.strip()), rows, flip))


def _objects(texts: Iterator[str], rows: Rows, flip: Flip) -> Iterator[tuple[int, str]]:
    """JSON objects with what stands around them. What is usual is not written beside a pair."""
    for at, text in zip(range(len(rows)), texts, strict=False):
        if rows.split_N[at] == _NOWHERE:
            continue
        new: dict[str, Any] = {name: value for name, value in rows.values(at).items() if value != ASKED[name]}
        moves: dict[str, str] = {}
        if rows.flipped_N[at]:
            values = json.loads(text)
            moves = flip.moved(values)
            new |= {name: relabel(values[name]) for name, relabel in flip.labels.items()}
        yield at, edited(text, moves, new) if moves or new else text


def _delimited(stream: BinaryIO, delimiter: str, rows: Rows, flip: Flip) -> _Texts:
    csv.field_size_limit(sys.maxsize)
    lines = _Lines(readers.as_text(stream))
    records = ((fields, lines.taken()) for fields in csv.reader(lines, delimiter=delimiter, strict=True))
    header, head = next(records)

    def kept() -> Iterator[tuple[int, str]]:
        filled = ((fields, text) for fields, text in records if fields)
        for at, (fields, text) in zip(range(len(rows)), filled, strict=False):
            if rows.split_N[at] != _NOWHERE:
                if rows.flipped_N[at]:
                    text = _joined(_flipped(dict(zip(header, fields, strict=True)), flip), delimiter) + _end(text)
                yield at, _extended(text, map(str, rows.values(at).values()), delimiter)

    return _Texts(kept(), _extended(head, rows.asked, delimiter))


def _flipped(values: Mapping[str, str], flip: Flip) -> list[str]:
    moves = flip.moved(values)
    new = {name: values[moves.get(name, name)] for name in values}
    return list((new | {name: str(relabel(values[name])) for name, relabel in flip.labels.items()}).values())


class _Lines:
    """Lines of a text, with all that was read of them since it was last asked."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream, self._read = stream, ""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._stream)
        self._read += line
        return line

    def taken(self) -> str:
        """What was read, which is then forgotten."""
        read, self._read = self._read, ""
        return read


def _end(text: str) -> str:
    """The line's end, which the last line may lack."""
    return text[len(text.rstrip("\r\n")) :]


def _extended(text: str, fields: Iterable[str], delimiter: str) -> str:
    """A record with further fields, that need no quotes."""
    end = _end(text)
    return delimiter.join([text.removesuffix(end), *fields]) + end


def _joined(fields: list[str], delimiter: str) -> str:
    """A record as text. Its end is not part of it, though it makes the writer quote both characters of any."""
    line = io.StringIO(newline="")
    csv.writer(line, delimiter=delimiter, lineterminator="\r\n").writerow(fields)
    return line.getvalue().removesuffix("\r\n")


# --- Parquet -------------------------------------------------------------------------------------


def _rewrite_parquet(file: BinaryIO, rows: Rows, flip: Flip, targets: _Targets) -> None:
    source = pq.ParquetFile(file)
    schema = source.schema_arrow
    for name in rows.asked:
        schema = schema.append(pa.field(name, pa.float64()))
    writers: dict[int, Callable[[pa.Table], None]] = {}
    at = 0
    with ExitStack() as stack:
        for batch in source.iter_batches(_BATCH_ROWS):
            own = rows.slice(at, at + len(batch))
            at += len(batch)
            table = _changed(pa.Table.from_batches([batch]).slice(0, len(own)), own, flip)
            for split in np.unique(own.split_N[own.split_N != _NOWHERE]).tolist():
                if split not in writers:
                    writers[split] = stack.enter_context(_parquet_file(targets.open(split), schema))
                part = table.filter(pa.array(own.split_N == split))
                writers[split](part)
                targets.pairs[split] += len(part)


@contextmanager
def _parquet_file(file: Any, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """A writer whose row groups are larger than the tables that come."""
    waiting: list[pa.Table] = []

    def flush() -> None:
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
            waiting.clear()

    def add(table: pa.Table) -> None:
        waiting.append(table)
        if sum(it.nbytes for it in waiting) > _GROUP_BYTES:
            flush()

    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        yield add
        flush()


def _changed(table: pa.Table, rows: Rows, flip: Flip) -> pa.Table:
    """The rows with their flips, and what is asked for them."""
    if rows.flipped_N.any():
        flipped = pa.array(rows.flipped_N)
        moved = {
            name: pc.if_else(flipped, table[other].cast(table[name].type), table[name])
            for name, other in flip.moved(table.column_names).items()
        }
        relabelled = {
            name: pa.chunked_array([_relabelled(table[name], rows.flipped_N, relabel)])
            for name, relabel in flip.labels.items()
        }
        for name, column in (moved | relabelled).items():
            at = table.column_names.index(name)
            table = table.set_column(at, table.field(at), column)
    for name, values_N in rows.asked.items():
        table = table.append_column(name, pa.array(values_N))
    return table


def _relabelled(column: pa.ChunkedArray, flipped_N: NDArray[np.bool_], relabel: Relabel) -> pa.Array:
    pairs = zip(column.to_pylist(), flipped_N, strict=True)
    return pa.array([relabel(label) if flipped else label for label, flipped in pairs], column.type)
