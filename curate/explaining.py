"""How one row is read: its format and why, which columns were looked at, and what came of it. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from curate.canon import Pair
from curate.config import IngestConfig
from curate.errors import InputError
from curate.inputs import find_sources
from curate.pairs import InputFile, examined, pair_id, source_name
from curate.progress import say
from curate.readers import Row, read_rows
from curate.reading import Reading, readings


@dataclass(frozen=True)
class Explanation:
    """What came of one row.

    lines: of all the rows that gave the pairs; several only where rows are joined.
    pairing: the policy, where the row is no pair by itself.
    looked_at: the columns that were read and had a value, or that the format needs.
    reason: why there is no pair; else empty.
    """

    file: str
    lines: tuple[int, ...]
    format: str
    why: str
    pairing: str | None
    label: str | None
    columns: tuple[str, ...]
    looked_at: tuple[str, ...]
    pairs: tuple[Pair, ...]
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Plain values, each pair with its id."""
        pairs = [{"pair_id": pair_id(pair), **asdict(pair)} for pair in self.pairs]
        return {**asdict(self), "pairs": pairs}


def explain(config: IngestConfig, number: int) -> Explanation:
    """How the n-th row (from 1, over all files) is read.

    Raises:
        InputError: there is no such row, or the data cannot be read.
        ConfigError: a setting does not fit the format.
    """
    seen = 0
    for file in examined(config, find_sources(config.inputs), say):
        rows = _Watch(number - seen)
        for reading in readings(file.form, config.pairing, rows.over(file.path)):
            if rows.wanted is not None and any(row is rows.wanted for row in reading.rows):
                return _explanation(config, file, reading, rows.wanted)
        seen += rows.seen
    raise InputError(f"{config.inputs[0]}: --row {number}: the data has {seen:,} rows, counted from 1")


class _Columns(dict[str, Any]):
    """A row's values, which remember what was asked for."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.looked_at: set[str] = set()

    def __contains__(self, name: object) -> bool:
        self.looked_at.add(str(name))
        return super().__contains__(name)

    def __getitem__(self, name: str) -> Any:
        self.looked_at.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a column."""
        self.looked_at.add(name)
        return super().get(name, default)


@dataclass
class _Watch:
    """Rows on their way to the reader, the n-th of which is remembered."""

    number: int
    seen: int = 0
    wanted: Row | None = field(default=None)

    def over(self, path: str) -> Iterator[Row]:
        for row in read_rows(path):
            self.seen += 1
            if self.seen == self.number:
                self.wanted = row = Row(_Columns(row.values), row.line, row.text)
            yield row


def _explanation(config: IngestConfig, file: InputFile, reading: Reading, row: Row) -> Explanation:
    asked = row.values.looked_at if isinstance(row.values, _Columns) else set()
    known = {name for name, value in row.values.items() if value is not None}.union(file.form.columns)
    return Explanation(
        file.path,
        tuple(row.line for row in reading.rows),
        file.form.name,
        file.reason,
        None if file.form.rowwise else config.pairing,
        config.label if file.form.labels else None,
        tuple(row.values),
        tuple(name for name in dict.fromkeys((*row.values, *file.form.columns)) if name in asked & known),
        tuple(replace(pair, source=pair.source or source_name(file.path)) for pair in reading.pairs),
        reading.reason,
    )
