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
import lzma
import os
import re
import sys
import tempfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import InputError
from curate.json_array import BrokenJsonError, read_array

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
_HEAD = 1 << 16
BOM = b"\xef\xbb\xbf"
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
        raise InputError(f"{path}: unknown kind of file; curate reads {', '.join(CONTAINERS)}, also as .gz or .zst")
    return container


def find_files(inputs: tuple[str, ...]) -> list[str]:
    """All data files that the inputs name, folders and globs resolved, in a stable order.

    Raises:
        InputError: an input matches nothing, or cannot be reached.
    """
    found: list[str] = []
    for entry in inputs:
        with reading(entry):
            found += _resolve(entry)
    seen: set[str] = set()
    for path in found:
        if _ESCAPED_BYTE.search(path):
            raise InputError(f"{path}: the name is not UTF-8; rename the file")
        if (name := _full_name(path)) in seen:
            raise InputError(f"{path}: given twice; name each file once")
        seen.add(name)
    return found


def sha256(path: str) -> str:
    """Hex digest of a file's bytes as they lie there (compressed where it is compressed)."""
    with reading(path), fsspec.open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_rows(path: str) -> Iterator[Row]:
    """Stream the rows of one file.

    Raises:
        InputError: the file is unreadable, empty or malformed; the message names the line.
    """
    with reading(path):
        container = container_of(path)
        with opened(path) as stream:
            rows = _READERS[container](path, stream)
            first = next(rows, None)
            if first is None:
                raise InputError(f"{path}: the file is empty; it holds no row")
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
def reading(path: str) -> Iterator[None]:
    """Name the file in whatever goes wrong while it is read."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file or folder") from error
    except PermissionError as error:
        raise InputError(f"{path}: permission denied; make the file readable") from error
    except (EOFError, OSError, pa.ArrowException, ImportError, ValueError, zlib.error, lzma.LZMAError) as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read ({detail}); is the file whole?") from error


def _resolve(entry: str) -> list[str]:
    filesystem, path = fsspec.core.url_to_fs(entry)
    if filesystem.isdir(path):
        if "file" in filesystem.protocol:
            deque(os.walk(path, onerror=_refuse_folder), maxlen=0)
        candidates = sorted(filesystem.find(path))
        runs = tuple(name.removesuffix("manifest.json") for name in candidates if _is_manifest(filesystem, name))
        files = [name for name in candidates if _is_data_file(name, path) and not name.startswith(runs)]
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


def _is_manifest(filesystem: Any, name: str) -> bool:
    """Whether this is the manifest of a run, whose tables are not data to read."""
    if not name.endswith("/manifest.json"):
        return False
    try:
        found = json.loads(filesystem.cat_file(name))
    except ValueError:
        return False
    return isinstance(found, dict) and {"schema_version", "stages"} <= found.keys()


def _refuse_folder(error: OSError) -> None:
    """An unreadable folder is an error; fsspec's `find` passes over it without a word."""
    raise InputError(f"{error.filename}: cannot be read ({error.strerror}); make the folder readable")


def _full_name(path: str) -> str:
    filesystem, inner = fsspec.core.url_to_fs(path)
    if "file" in filesystem.protocol:
        inner = os.path.realpath(inner)
    return str(filesystem.unstrip_protocol(inner))


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
    with seekable(path, stream) as file:
        line = 0
        for batch in pq.ParquetFile(file).iter_batches(batch_size=1024):
            for values in batch.to_pylist():
                line += 1
                yield Row(values, line, json.dumps(values, ensure_ascii=False, default=_plain))


@contextmanager
def seekable(path: str, stream: BinaryIO) -> Iterator[BinaryIO]:
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


def _json(path: str, stream: BinaryIO) -> Iterator[Row]:
    """A JSON array of objects, streamed; a `.json` file that is really JSON Lines is read as that."""
    buffered = io.BufferedReader(stream, _HEAD)  # type: ignore[type-var]
    head = buffered.peek(_HEAD).removeprefix(BOM).lstrip()
    if head.startswith(b"{"):
        _refuse_single_object(path, head)
        yield from _jsonl(path, buffered)
    elif head.startswith(b"["):
        yield from _json_array(path, as_text(buffered))
    elif head:
        raise InputError(f"{path}: not JSON: it starts with {head[:1].decode(errors='replace')!r}, not with [ or {{")


def is_json_lines(path: str) -> bool:
    """Whether a `.json` file is really JSON Lines."""
    with opened(path) as stream:
        return stream.read(_HEAD).removeprefix(BOM).lstrip().startswith(b"{")


def _refuse_single_object(path: str, head: bytes) -> None:
    """JSON Lines has an object in its first line; one object over many lines is no list of rows."""
    first, newline, _ = head.partition(b"\n")
    is_whole = newline or len(head) < _HEAD // 2  # else the line goes on behind what was looked at
    if is_whole and first.rstrip().endswith((b",", b"[", b"{")):
        raise InputError(
            f"{path}: one JSON object, not a list of rows; give a file that holds [{{…}}, {{…}}] or one object a line"
        )


def _json_array(path: str, stream: io.TextIOWrapper) -> Iterator[Row]:
    try:
        for element in read_array(stream, _CHUNK):
            _check_utf8(path, element.line, element.text)
            yield _row(path, element.line, element.value, element.text)
    except BrokenJsonError as error:
        raise _broken(path, error, "mend the file there") from error


def _delimited(delimiter: str) -> Callable[[str, BinaryIO], Iterator[Row]]:
    def read(path: str, stream: BinaryIO) -> Iterator[Row]:
        csv.field_size_limit(sys.maxsize)
        records = _records(path, csv.reader(as_text(stream), delimiter=delimiter, strict=True))
        _, header = next(records, (1, []))
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
    "json": _json,
    "jsonl": _jsonl,
    "csv": _delimited(","),
    "tsv": _delimited("\t"),
}
