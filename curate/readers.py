"""Containers: Parquet, Arrow, JSON, JSON Lines, CSV and TSV, each also compressed, streamed as rows.

Knows nothing about preference data: yields each row with its line and its original JSON text.
A path is that of a file, or any fsspec URL.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import lzma
import os
import re
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Literal

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import CurateError, EmptyFileError, InputError
from curate.json_array import BrokenJsonError, read_array

CONTAINERS = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
}
COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")
_PACKED = f"{', '.join(COMPRESSIONS[:-1])} or {COMPRESSIONS[-1]}"
_DELIMITERS = (",", ";", "\t", "|")
_CHUNK = 1 << 20
_HEAD = 1 << 16
BOM = b"\xef\xbb\xbf"
_ARROW_FILE = b"ARROW1"
_ARROW_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_EXAMPLES = re.compile(rb'"examples"\s*:\s*\[')
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file: its values, its place (line from 1) and its text as JSON."""

    values: dict[str, Any]
    line: int
    text: str


def container_of(path: str) -> str:
    """The container of a file by its name.

    Raises:
        InputError: the suffix says nothing.
    """
    suffixes = [suffix.lower() for suffix in PurePosixPath(path).suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    container = CONTAINERS.get(suffixes[-1]) if suffixes else None
    if container is None:
        raise InputError(f"{path}: unknown kind of file; curate reads {', '.join(CONTAINERS)}, also as {_PACKED}")
    return container


def sha256(path: str) -> str:
    """Hex digest of a file's bytes as they lie there (compressed where it is compressed)."""
    with reading_errors(path), fsspec.open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_rows(path: str) -> Iterator[Row]:
    """Stream the rows of one file.

    Raises:
        InputError: the file is unreadable or malformed; the message names the line.
        EmptyFileError: it holds no row.
    """
    with reading_errors(path):
        container = container_of(path)
        with opened(path) as stream:
            rows = _READERS[container](path, stream)
            first = next(rows, None)
            if first is None:
                raise EmptyFileError(f"{path}: the file is empty; it holds no row")
            yield first
            yield from rows


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """A file's bytes, unpacked. Arrow unpacks .zst: it notices a file that is cut off."""
    packed = path.lower().endswith(".zst")
    with fsspec.open(path, "rb", compression=None if packed else "infer") as raw:
        if not packed:
            yield raw
            return
        with pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd") as unpacked:
            yield io.BufferedReader(unpacked, _CHUNK)


@contextmanager
def reading_errors(path: str) -> Iterator[None]:
    """Name the file in whatever goes wrong while it is read."""
    try:
        yield
    except CurateError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file or folder") from error
    except PermissionError as error:
        raise InputError(f"{path}: permission denied; make the file readable") from error
    except (EOFError, OSError, pa.ArrowException, ImportError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{path}: cannot be read ({described(error)}); is the file whole?") from error
    except Exception as error:
        if "://" not in path:
            raise
        raise InputError(f"{path}: cannot be fetched ({described(error)}); try again, or download the file") from error


def described(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _parquet(path: str, stream: BinaryIO) -> Iterator[Row]:
    with seekable(path, stream) as file:
        yield from _rows_of(pq.ParquetFile(file).iter_batches(batch_size=1024))


def _arrow(path: str, stream: BinaryIO) -> Iterator[Row]:
    """Arrow as a stream, which `datasets` writes, or as a file with a footer."""
    with seekable(path, stream) as file:
        magic = file.read(len(_ARROW_FILE))
        if magic == _ARROW_FILE:
            reader = pa.ipc.open_file(file)
            yield from _rows_of(reader.get_batch(number) for number in range(reader.num_record_batches))
            return
        file.seek(-len(_ARROW_END), os.SEEK_END)
        if file.read() != _ARROW_END:
            raise InputError(f"{path}: the Arrow stream has no end mark; is the file cut off?")
        file.seek(0)
        yield from _rows_of(pa.ipc.open_stream(file))


def _rows_of(batches: Iterable[pa.RecordBatch]) -> Iterator[Row]:
    line = 0
    for batch in batches:
        for values in batch.to_pylist():
            line += 1
            yield Row(values, line, json.dumps(values, ensure_ascii=False, default=_plain))


@contextmanager
def seekable(path: str, stream: BinaryIO) -> Iterator[BinaryIO]:
    """Parquet and Arrow are read from their end: a compressed file is unpacked beside it first."""
    if PurePosixPath(path).suffix.lower() not in COMPRESSIONS:
        yield stream
        return
    with tempfile.TemporaryFile() as unpacked:
        while chunk := stream.read(_CHUNK):
            unpacked.write(chunk)
        unpacked.seek(0)
        yield unpacked


def _plain(value: object) -> str:
    """Parquet values that JSON does not know: bytes as base64, dates and decimals as text."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _jsonl(path: str, stream: BinaryIO) -> Iterator[Row]:
    for line, raw in enumerate(stream, start=1):
        text = _decode(path, line, raw.removeprefix(BOM) if line == 1 else raw).strip()
        if text:
            yield _row(path, line, _parse_line(path, line, text), text)


def _parse_line(path: str, line: int, text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _broken(path, BrokenJsonError(error.msg, line, error.colno), "mend or delete this line") from error
    except (RecursionError, ValueError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise _broken(path, BrokenJsonError(what, line, 1), "mend or delete this line") from error


def _broken(path: str, error: BrokenJsonError, remedy: str) -> InputError:
    return InputError(f"{path}, line {error.line}, column {error.column}: broken JSON ({error.message}); {remedy}")


def _decode(path: str, line: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, line) from error


def _not_utf8(path: str, line: int) -> InputError:
    return InputError(f"{path}, line {line}: not UTF-8; save the file as UTF-8")


def as_text(stream: BinaryIO) -> io.TextIOWrapper:
    """Text as it lies there; bytes that are not UTF-8 become lone surrogates, which `_check_utf8` finds."""
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _check_utf8(path: str, line: int, text: str) -> None:
    if _ESCAPED_BYTE.search(text):
        raise _not_utf8(path, line)


def _row(path: str, line: int, values: object, text: str) -> Row:
    if not isinstance(values, dict):
        raise InputError(f"{path}, line {line}: a row must be a JSON object, found {type(values).__name__}")
    return Row(values, line, text)


def _json_lines(path: str, stream: BinaryIO) -> Iterator[Row]:
    """JSON Lines; a `.jsonl` file that is really one JSON array (some are) is read as that."""
    buffered = io.BufferedReader(stream, _HEAD)  # type: ignore[type-var]
    is_array = buffered.peek(_HEAD).removeprefix(BOM).lstrip().startswith(b"[")
    return _json_array(path, as_text(buffered)) if is_array else _jsonl(path, buffered)


def _json(path: str, stream: BinaryIO) -> Iterator[Row]:
    """A JSON array of objects, streamed, or an object with such a list; JSON Lines named `.json` is read as that."""
    buffered = io.BufferedReader(stream, _HEAD)  # type: ignore[type-var]
    head = buffered.peek(_HEAD).removeprefix(BOM).lstrip()
    if head.startswith(b"{") and _holds_examples(head):
        yield from _json_array(path, as_text(buffered), within="examples")
    elif head.startswith(b"{"):
        _refuse_single_object(path, head)
        yield from _jsonl(path, buffered)
    elif head.startswith(b"["):
        yield from _json_array(path, as_text(buffered))
    elif head:
        raise InputError(f"{path}: not JSON: it starts with {head[:1].decode(errors='replace')!r}, not with [ or {{")


def json_shape(path: str) -> Literal["lines", "array", "object"]:
    """How the rows stand in a JSON file, whatever its name: one a line, in an array, or in an object's list."""
    with opened(path) as stream:
        head = stream.read(_HEAD).removeprefix(BOM).lstrip()
    if head.startswith(b"["):
        return "array"
    return "object" if _holds_examples(head) else "lines"


def _holds_examples(head: bytes) -> bool:
    """Whether this is one object whose rows stand in its list `examples`, not the first of many lines."""
    first, newline, rest = head.partition(b"\n")
    if newline and rest.strip():
        try:
            json.loads(first)
        except ValueError:
            pass
        else:
            return False
    return _EXAMPLES.search(head) is not None


def _refuse_single_object(path: str, head: bytes) -> None:
    """JSON Lines has an object in its first line; one object over many lines is no list of rows."""
    first, newline, _ = head.partition(b"\n")
    is_whole = newline or len(head) < _HEAD // 2  # else the line goes on behind what was looked at
    if is_whole and first.rstrip().endswith((b",", b"[", b"{")):
        raise InputError(
            f"{path}: one JSON object, not a list of rows; give a file that holds [{{…}}, {{…}}] or one object a line"
        )


def _json_array(path: str, stream: io.TextIOWrapper, within: str | None = None) -> Iterator[Row]:
    try:
        for element in read_array(stream, _CHUNK, within):
            _check_utf8(path, element.line, element.text)
            yield _row(path, element.line, element.value, element.text)
    except BrokenJsonError as error:
        raise _broken(path, error, "mend the file there") from error


def _delimited(delimiter: str) -> Callable[[str, BinaryIO], Iterator[Row]]:
    def read(path: str, stream: BinaryIO) -> Iterator[Row]:
        csv.field_size_limit(sys.maxsize)
        records = _records(path, csv.reader(as_text(stream), delimiter=delimiter, strict=True))
        _, header = next(records, (1, []))
        if len(header) == 1 and (other := next((sign for sign in _DELIMITERS if sign in header[0]), None)):
            raise InputError(
                f"{path}, line 1: {other!r} separates the columns, not {delimiter!r}; save it with {delimiter!r}"
            )
        if repeated := [name for name in header if header.count(name) > 1]:
            raise InputError(f"{path}, line 1: two columns are named {repeated[0]!r}; rename one")
        for line, fields in records:
            if len(fields) != len(header):
                raise InputError(
                    f"{path}, line {line}: {len(fields)} fields where the header has {len(header)}; mend this line"
                )
            values = dict(zip(header, fields, strict=True))
            text = json.dumps(values, ensure_ascii=False)
            _check_utf8(path, line, text)
            yield Row(values, line, text)

    return read


def _records(path: str, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """The records of a delimited file that are not blank, each with the line where it starts."""
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{path}, line {line}: broken CSV ({error}); mend this line") from error
        if fields:
            yield line, fields


_READERS = {
    "parquet": _parquet,
    "arrow": _arrow,
    "json": _json,
    "jsonl": _json_lines,
    "csv": _delimited(","),
    "tsv": _delimited("\t"),
}
