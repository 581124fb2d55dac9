"""Files that an export writes batch by batch: Parquet, JSON Lines, or one JSON object that holds a list of pairs.

Texts go from Arrow through DuckDB to the file without becoming Python objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import duckdb
import numpy as np
import pyarrow as pa

from curate.store import parquet_writer

#: Name → SQL over a batch.
Columns = Mapping[str, str]

_REPEATING = ("source", "decision", "gone", "reason", "origin", "who", "file")


class Sink(Protocol):
    """A file that grows. pairs: how many are in it."""

    pairs: int

    def write(self, batch: pa.Table) -> None:
        """Add a batch of pairs."""


@contextmanager
def parquet_sink(
    path: Path, columns: Columns, like: pa.Table, metadata: Mapping[str, Any] | None = None
) -> Iterator[Sink]:
    """A Parquet file. like: a batch without pairs, which says of which types they are. metadata: for the footer."""
    with ExitStack() as stack:
        connection = stack.enter_context(duckdb.connect())
        schema = _shaped(connection, like, _listed(columns)).schema
        writer = stack.enter_context(parquet_writer(path, schema, metadata, repeating=_repeating(schema)))
        yield _ParquetSink(writer, connection, columns)


class _ParquetSink:
    def __init__(self, writer: Any, connection: duckdb.DuckDBPyConnection, columns: Columns) -> None:
        self._writer, self._connection, self._columns = writer, connection, columns
        self.pairs = 0

    def write(self, batch: pa.Table) -> None:
        table = _shaped(self._connection, batch, _listed(self._columns))
        self._writer.write_table(table.cast(self._writer.schema))
        self.pairs += len(table)


@contextmanager
def json_sink(path: Path, columns: Columns, document: tuple[str, str] | None = None) -> Iterator[Sink]:
    """JSON Lines; with a document, a JSON list of pairs between its two texts."""
    with (
        duckdb.connect(config={"arrow_large_buffer_size": "true"}) as connection,
        open(path, "wb", buffering=0) as file,
    ):
        sink = _JsonSink(file, connection, columns, is_list=document is not None)
        if document is not None:
            file.write(document[0].encode())
        yield sink
        if document is not None:
            file.write(document[1].encode())


class _JsonSink:
    def __init__(self, file: Any, connection: duckdb.DuckDBPyConnection, columns: Columns, *, is_list: bool) -> None:
        self._file, self._connection, self._is_list = file, connection, is_list
        packed = ", ".join(f'"{name}" := {sql}' for name, sql in columns.items())
        text = f"to_json(struct_pack({packed}))::VARCHAR"
        self._line = f"',' || chr(10) || {text} AS line" if is_list else f"{text} || chr(10) AS line"
        self.pairs = 0

    def write(self, batch: pa.Table) -> None:
        for chunk in _shaped(self._connection, batch, self._line)["line"].chunks:
            text = _utf8(chunk)
            self._put(text[2:] if self._is_list and not self.pairs else text)
            self.pairs += len(chunk)

    def _put(self, text: memoryview) -> None:
        while text:
            text = text[self._file.write(text) :]


def _listed(columns: Columns) -> str:
    return ", ".join(f'{sql} AS "{name}"' for name, sql in columns.items())


def _shaped(connection: duckdb.DuckDBPyConnection, batch: pa.Table, select: str) -> pa.Table:
    connection.register("batch", batch)
    try:
        return connection.sql(f"SELECT {select} FROM batch").to_arrow_table()
    finally:
        connection.unregister("batch")


def _utf8(texts: pa.LargeStringArray) -> memoryview:
    """All texts one after another, as they lie in memory."""
    _, ends, data = texts.buffers()
    end_N = np.frombuffer(ends, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return memoryview(data)[int(end_N[0]) : int(end_N[-1])]


def _repeating(schema: pa.Schema) -> list[str]:
    """Paths of the columns whose values repeat; a dictionary of texts would cost time and save nothing."""
    roles = [f"{name}.list.element.role" for name in schema.names if pa.types.is_list(schema.field(name).type)]
    return [*(name for name in _REPEATING if name in schema.names), *roles]
