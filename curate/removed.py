"""What is not in an export, and why: pairs that were dropped, ties, what the format cannot hold, and refused rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.schema import PAIRS
from curate.selecting import REFUSED, Selection
from curate.sinks import Sink, json_sink, parquet_sink
from curate.store import GROUP_PAIRS, Run

NAME = "_removed"

#: gone: decision, tie, format, or refused: a row that never became a pair, which has its `original` instead of texts.
#: origin, who: of a decision.
REMOVED = pa.schema(
    [
        ("row", pa.int64()),
        ("pair_id", pa.string()),
        *((name, pa.string()) for name in ("gone", "reason", "origin", "who")),
        *(PAIRS.field(name) for name in ("file", "line", "prompt", "chosen", "rejected", "original")),
    ]
)


def removed_sink(folder: Path, container: str) -> AbstractContextManager[Sink]:
    """The file of what was removed. container: parquet or jsonl."""
    columns = {name: f'"{name}"' for name in REMOVED.names}
    path = folder / f"{NAME}.{container}"
    return parquet_sink(path, columns, REMOVED.empty_table()) if container == "parquet" else json_sink(path, columns)


def gone(batch: pa.Table) -> pa.Table:
    """The pairs of a batch that do not stay, as `REMOVED`."""
    return _as_removed(batch.filter(pc.is_valid(batch["gone"])))


def refused_rows(run: Run) -> Iterator[pa.Table]:
    """The rows that never became pairs, as `REMOVED`."""
    for batch in pq.ParquetFile(run.refused_path).iter_batches(GROUP_PAIRS):
        table = pa.Table.from_batches([batch])
        yield _as_removed(table.append_column("gone", pa.array([REFUSED] * len(table))))


def _as_removed(table: pa.Table) -> pa.Table:
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in REMOVED
    ]
    return pa.table(columns, schema=REMOVED)


def reasons(selection: Selection) -> list[dict[str, str | int]]:
    """How many pairs are gone for which reason, the most frequent first."""
    table = selection.table.filter(pc.is_valid(selection.table["gone"])).select(["gone", "reason", "origin"])
    table = table.set_column(0, "gone", table["gone"].cast(pa.string()))
    counted = table.group_by(["gone", "reason", "origin"]).aggregate([([], "count_all")])
    lines = counted.rename_columns(["gone", "reason", "origin", "pairs"]).to_pylist()
    return sorted(lines, key=lambda line: (-line["pairs"], line["gone"], line["reason"], line["origin"] or ""))
