"""Containers: Parquet, JSON, JSON Lines, CSV and TSV, each also compressed, streamed as rows.

Knows nothing about preference data: yields each row with its line and its original JSON text.
Paths may be files, globs, folders or any fsspec URL.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import InputError

CONTAINERS = {
    ".parquet": "parquet",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
}
COMPRESSIONS = {".gz", ".zst", ".xz", ".bz2"}
_CHUNK = 1 << 20


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
        raise InputError(f"{path}: unknown kind of file; curate reads {', '.join(CONTAINERS)}, also as .gz or .zst")
    return container


def find_files(inputs: tuple[str, ...]) -> list[str]:
    """All data files that the inputs name, folders and globs resolved, in a stable order.

    Raises:
        InputError: an input matches nothing, or cannot be reached.
    """
    found: list[str] = []
    for entry in inputs:
        with _reading(entry):
            found += _resolve(entry)
    if repeated := sorted({path for path in found if found.count(path) > 1}):
        raise InputError(f"{repeated[0]}: given twice; name each file once")
    return found


def sha256(path: str) -> str:
    """Hex digest of a file's bytes as they lie there (compressed where it is compressed)."""
    with _reading(path), fsspec.open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_rows(path: str) -> Iterator[Row]:
    """Stream the rows of one file.

    Raises:
        InputError: the file is unreadable, empty or malformed; the message names the line.
    """
    with _reading(path):
        container = container_of(path)
        with fsspec.open(path, "rb", compression="infer") as stream:
            rows = _READERS[container](path, stream)
            first = next(rows, None)
            if first is None:
                raise InputError(f"{path}: the file is empty; it holds no row")
            yield first
            yield from rows


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Name the file in whatever goes wrong while it is read."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file or folder") from error
    except PermissionError as error:
        raise InputError(f"{path}: permission denied; make the file readable") from error
    except (EOFError, OSError, pa.ArrowException, ImportError, ValueError) as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read: {detail}") from error


def _resolve(entry: str) -> list[str]:
    filesystem, path = fsspec.core.url_to_fs(entry)
    if filesystem.isdir(path):
        candidates = sorted(filesystem.find(path))
        files = [name for name in candidates if _is_data_file(name, path)]
        if not files:
            raise InputError(f"{entry}: the folder holds no {', '.join(CONTAINERS)} file")
        return [_with_protocol(entry, filesystem, name) for name in files]
    if any(letter in path for letter in "*?[") and not filesystem.exists(path):
        files = [name for name in sorted(filesystem.glob(path)) if not filesystem.isdir(name)]
        if not files:
            raise InputError(f"{entry}: no file matches")
        return [_with_protocol(entry, filesystem, name) for name in files]
    if not filesystem.exists(path):
        raise InputError(f"{entry}: no such file or folder")
    return [entry]


def _is_data_file(name: str, folder: str) -> bool:
    inside = name[len(folder) :]
    if any(part.startswith((".", "_")) for part in PurePosixPath(inside.lstrip("/")).parts):
        return False
    try:
        container_of(name)
    except InputError:
        return False
    return True


def _with_protocol(entry: str, filesystem: Any, name: str) -> str:
    if "://" in entry:
        return str(filesystem.unstrip_protocol(name))
    return name


def _parquet(path: str, stream: BinaryIO) -> Iterator[Row]:
    with _seekable(path, stream) as file:
        line = 0
        for batch in pq.ParquetFile(file).iter_batches(batch_size=1024):
            for values in batch.to_pylist():
                line += 1
                yield Row(values, line, json.dumps(values, ensure_ascii=False, default=_plain))


@contextmanager
def _seekable(path: str, stream: BinaryIO) -> Iterator[BinaryIO]:
    """Parquet is read from its end: a compressed file is unpacked beside it first."""
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
        text = _decode(path, line, raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw).strip()
        if text:
            yield _row(path, line, _parse_line(path, line, text), text)


def _parse_line(path: str, line: int, text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {line}, column {error.colno}: broken JSON ({error.msg}); mend or delete this line"
        ) from error


def _decode(path: str, line: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, line {line}: not UTF-8 (byte {error.start + 1}); save the file as UTF-8") from error


def _row(path: str, line: int, values: object, text: str) -> Row:
    if not isinstance(values, dict):
        raise InputError(f"{path}, line {line}: a row must be a JSON object, found {type(values).__name__}")
    return Row(values, line, text)


def _json(path: str, stream: BinaryIO) -> Iterator[Row]:
    """A JSON array of objects, streamed; a `.json` file that is really JSON Lines is read as that."""
    buffered = io.BufferedReader(stream, _CHUNK)  # type: ignore[type-var]
    head = buffered.peek(_CHUNK).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"{"):
        yield from _json_objects(path, buffered)
    elif head.startswith(b"[") or not head:
        yield from _json_array(path, io.TextIOWrapper(buffered, encoding="utf-8-sig"))
    else:
        raise InputError(f"{path}: not JSON: it starts with {head[:1].decode(errors='replace')!r}, not with [ or {{")


def _json_objects(path: str, stream: BinaryIO) -> Iterator[Row]:
    try:
        yield from _jsonl(path, stream)
    except InputError as error:
        if "line 1," in str(error):
            raise InputError(
                f"{path}: one JSON object, not a list of rows; give a file that holds [{{…}}, {{…}}] "
                "or one object a line"
            ) from error
        raise


def _json_array(path: str, stream: io.TextIOWrapper) -> Iterator[Row]:
    """Parse one array element at a time; only the element being read is in memory."""
    decoder = json.JSONDecoder()
    buffer, line, opened = "", 1, False
    while True:
        buffer, line = _skip(buffer, line, " \t\r\n" if not opened else " \t\r\n,")
        if not buffer:
            buffer = stream.read(_CHUNK)
            if not buffer:
                break
            continue
        if not opened:
            buffer, opened = buffer[1:], True
            continue
        if buffer[0] == "]":
            _expect_end(path, stream, buffer[1:], line)
            return
        values, end, buffer = _next_value(path, stream, decoder, buffer, line)
        yield _row(path, line, values, buffer[:end])
        line += buffer.count("\n", 0, end)
        buffer = buffer[end:]
    if opened:
        raise InputError(f"{path}, line {line}: broken JSON: the list is not closed; the file may be cut off")


def _skip(buffer: str, line: int, characters: str) -> tuple[str, int]:
    rest = buffer.lstrip(characters)
    return rest, line + buffer.count("\n", 0, len(buffer) - len(rest))


def _next_value(
    path: str, stream: io.TextIOWrapper, decoder: json.JSONDecoder, buffer: str, line: int
) -> tuple[object, int, str]:
    """Decode the value at the buffer's start, reading on while it is incomplete. Returns value, its end, the buffer."""
    while True:
        try:
            values, end = decoder.raw_decode(buffer)
            return values, end, buffer
        except json.JSONDecodeError as error:
            incomplete = error.pos >= len(buffer) - 8 or error.msg.startswith("Unterminated string")
            more = stream.read(max(_CHUNK, len(buffer))) if incomplete else ""
            if not more:
                raise InputError(
                    f"{path}, line {line + error.lineno - 1}, column {error.colno}: broken JSON ({error.msg}); "
                    "mend it there"
                ) from error
            buffer += more


def _expect_end(path: str, stream: io.TextIOWrapper, rest: str, line: int) -> None:
    if (rest + stream.read()).strip():
        raise InputError(f"{path}, line {line}: broken JSON: there is text after the closing ]")


def _delimited(delimiter: str) -> Any:
    def read(path: str, stream: BinaryIO) -> Iterator[Row]:
        csv.field_size_limit(sys.maxsize)
        reader = csv.DictReader(
            io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), delimiter=delimiter, strict=True
        )
        try:
            line = 2
            for values in reader:
                if None in values or None in values.values():
                    expected = len(reader.fieldnames or [])
                    raise InputError(f"{path}, line {line}: not {expected} fields, as the header has; mend this line")
                yield Row(dict(values), line, json.dumps(values, ensure_ascii=False))
                line = reader.line_num + 1
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: broken {delimiter!r}-separated text: {error}") from error

    return read


_READERS = {
    "parquet": _parquet,
    "json": _json,
    "jsonl": _jsonl,
    "csv": _delimited(","),
    "tsv": _delimited("\t"),
}
