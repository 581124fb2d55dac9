"""Which decision stands for each pair that the run holds now: the log of decisions, followed in DuckDB.

Reads the log and the table `pairs`; puts the table `decisions` beside a view's own. Pairs' ids are held as 16 bytes.
What is decided about single pairs is held apart from what bulk entries decided, so that a decision about one pair costs
the same however many a bulk entry is about; the table shows the later of the two.
"""

from __future__ import annotations

import glob
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from curate.applying import STAY
from curate.decision_log import DecisionLog
from curate.entries import Entry, PairDecision, Undo
from curate.errors import RunError
from curate.schema import DECIDED
from curate.view import RunView

PAIR_ID = "replace(pair::VARCHAR, '-', '')"

#: `told` has each action, reason and origin of a bulk entry once.
_TABLES = """
CREATE TABLE keys AS
    WITH ids AS MATERIALIZED (SELECT row, pair_id::UUID AS pair FROM pairs),
    copies AS (
        SELECT row, row_number() OVER (PARTITION BY pair ORDER BY row) - 1 AS copy
        FROM ids SEMI JOIN (SELECT pair FROM ids GROUP BY pair HAVING count(*) > 1) USING (pair)
    )
    SELECT row, pair, coalesce(copy, 0)::INT AS copy FROM ids LEFT JOIN copies USING (row);
CREATE TABLE entries (seq INT, entry VARCHAR, decided_at VARCHAR, who VARCHAR);
CREATE TABLE told (said INT, seq INT, action VARCHAR, reason VARCHAR, origin VARCHAR);
CREATE TABLE bulks (row BIGINT, pair UUID, seq INT, said INT, value DOUBLE, target_margin DOUBLE,
    margin FLOAT, p_flip FLOAT);
CREATE TABLE singles (row BIGINT, pair UUID, seq INT, action VARCHAR, value DOUBLE,
    reason VARCHAR, origin VARCHAR, margin DOUBLE, p_flip DOUBLE);
"""

#: The later of the two; a target margin stays with a pair that keeps its label.
_VIEW = f"""
CREATE VIEW {{schema}}.decisions AS
    SELECT row, {PAIR_ID} AS pair_id, action, value, target_margin, reason, origin, margin, p_flip,
        entry, decided_at, who
    FROM (
        SELECT one.*, CASE WHEN one.action IN {STAY} THEN many.target_margin END AS target_margin
        FROM {{schema}}.singles AS one LEFT JOIN {{schema}}.bulks AS many USING (row)
        WHERE many.seq IS NULL OR many.seq < one.seq
        UNION ALL BY NAME
        SELECT many.* EXCLUDE said, told.action, told.reason, told.origin
        FROM {{schema}}.bulks AS many JOIN {{schema}}.told USING (said) LEFT JOIN {{schema}}.singles AS one USING (row)
        WHERE one.seq IS NULL OR one.seq < many.seq
    ) JOIN {{schema}}.entries USING (seq);
CREATE OR REPLACE VIEW main.decisions AS FROM {{schema}}.decisions
"""

_TELL = """
INSERT INTO told SELECT row_number() OVER () + (SELECT coalesce(max(said), 0) FROM told), $seq, *
    FROM (SELECT DISTINCT action, reason, origin FROM read_parquet($file))
"""
#: A bulk entry's pairs, on top of those of earlier ones: in the data that it was made from, and in other data.
_ADD_OWN_BULK = """
INSERT INTO bulks SELECT given.row, pair_id::UUID, $seq, said, value, target_margin, margin, p_flip
    FROM read_parquet($file) AS given JOIN told USING (action, reason, origin) WHERE seq = $seq
"""
_ADD_BULK = """
INSERT INTO bulks SELECT keys.row, pair, $seq, said, value, target_margin, margin, p_flip
    FROM read_parquet($file) AS given JOIN told USING (action, reason, origin)
    JOIN keys ON pair = pair_id::UUID AND keys.copy = given.copy WHERE seq = $seq
"""
_UNCOVER_BULK = "DELETE FROM bulks WHERE seq < $seq AND row IN (SELECT row FROM bulks WHERE seq = $seq)"

#: Of the given entries the latest about each pair.
_ADD_SINGLES = """
INSERT INTO singles SELECT keys.row, pair, seq, action, value, reason, origin, margin, p_flip
    FROM given JOIN keys ON pair = pair_id::UUID AND coalesce(given.copy, keys.copy) = keys.copy
    QUALIFY row_number() OVER (PARTITION BY keys.row ORDER BY seq DESC) = 1
"""

_MADE = pa.schema([("seq", pa.int32()), ("entry", pa.string()), ("decided_at", pa.string()), ("who", pa.string())])
_GIVEN = pa.schema(
    [
        ("seq", pa.int32()),
        *(DECIDED.field(name) for name in ("pair_id", "copy", "action", "value", "reason", "origin")),
        ("margin", pa.float64()),
        ("p_flip", pa.float64()),
    ]
)


class Standing:
    """What the log says of the pairs that a view shows."""

    def __init__(self, view: RunView, log: DecisionLog) -> None:
        self._log = log
        self._data = view.stage("ingest")["fingerprint"]
        self._cursor = view.cursor()
        self._schema = f"decided_{uuid.uuid4().hex[:8]}"  # who else reads this view has another
        self._start()

    def refresh(self) -> None:
        """Bring the table `decisions` up to date, at the cost of what is new in the log.

        Raises:
            RunError: the log, or a file that belongs to it, is damaged.
        """
        self._log.refresh()
        if self._generation != self._log.generation:
            self._start()
        if fresh := self._log.entries(self._seen):
            with self._transaction():
                self._follow(fresh)
            self._seen += len(fresh)

    def run(self, query: str, given: Any = None, **parameters: Any) -> duckdb.DuckDBPyConnection:
        """Run a query over the view's tables, `keys` (row, pair, copy), `singles`, `bulks`, and `given`, a table.

        Raises:
            RunError: a file is damaged.
        """
        with self._reading():
            self._give(given)
            return self._cursor.execute(query, parameters or None)

    def table(self, query: str) -> pa.Table:
        """The result of a query as a table; errors as `run`."""
        with self._reading():
            return self._cursor.sql(query).to_arrow_table()

    def batches(self, query: str, pairs: int, given: Any = None, **parameters: Any) -> Iterator[pa.Table]:
        """The result of a query in tables of so many lines; errors as `run`."""
        with self._reading():
            self._give(given)
            for batch in self._cursor.sql(query, params=parameters).to_arrow_reader(pairs):
                yield pa.Table.from_batches([batch])

    # --- inside ---

    def _start(self) -> None:
        """Take up the pairs, as if nothing were decided."""
        self._generation, self._seen = self._log.generation, 0
        self._cursor.execute(f"DROP SCHEMA IF EXISTS {self._schema} CASCADE; CREATE SCHEMA {self._schema}")
        self._cursor.execute(f"SET search_path = '{self._schema},main'")
        self.run(_TABLES)
        self.run(_VIEW.format(schema=self._schema))

    def _give(self, table: Any) -> None:
        if table is not None:
            self._cursor.register("given", table)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except duckdb.ProgrammingError:
            raise
        except duckdb.Error as error:
            raise RunError(f"{self._log.folder}: a file is damaged ({' '.join(str(error).split())})") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._cursor.begin()
        try:
            yield
        except BaseException:
            self._cursor.rollback()
            raise
        self._cursor.commit()

    def _follow(self, fresh: Sequence[Entry]) -> None:
        made = [entry for entry in fresh if not isinstance(entry.decision, Undo)]
        names = [{"seq": self._log.place(it), "entry": it.id, "decided_at": it.at, "who": it.who} for it in made]
        self.run("INSERT INTO entries FROM given", pa.Table.from_pylist(names, _MADE))
        touched = [self._log.target(entry) for entry in fresh]
        self._settle_singles({it.decision.pair_id for it in touched if isinstance(it.decision, PairDecision)})
        if any(entry.kind == "bulk" and self._log.place(entry) < self._seen for entry in touched):
            self.run("DELETE FROM bulks; DELETE FROM told")
            made = self._log.bulks()
        for entry in made:
            if entry.kind == "bulk" and self._log.stands(entry):
                self._add_bulk(entry)

    def _settle_singles(self, pair_ids: Collection[str]) -> None:
        """Take up what stands about some pairs, in place of what stood."""
        ids = pa.table({"pair_id": pa.array(pair_ids, pa.string())})
        self.run("DELETE FROM singles WHERE pair IN (SELECT pair_id::UUID FROM given)", ids)
        standing = [entry for it in pair_ids for entry in self._log.about(it) if self._log.stands(entry)]
        self.run(_ADD_SINGLES, self._table(standing))

    def _table(self, entries: Iterable[Entry]) -> pa.Table:
        records = [{"seq": self._log.place(entry), **entry.said} for entry in entries]
        return pa.Table.from_pylist(records, _GIVEN)

    def _add_bulk(self, entry: Entry) -> None:
        seq = self._log.place(entry)
        own = entry.said["stages"].get("ingest") == self._data
        file = pattern(self._log.file(entry))
        self.run(_TELL, seq=seq, file=file)
        self.run(_ADD_OWN_BULK if own else _ADD_BULK, seq=seq, file=file)
        self.run(_UNCOVER_BULK, seq=seq)


def pattern(path: Path) -> str:
    """A file's path as `read_parquet` wants it."""
    return glob.escape(str(path))
