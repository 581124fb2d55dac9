"""Pairs a page at a time: those that a predicate matches, in any order, counted, in bins, and what is like them.

Reads the tables `pairs`, `scores`, `weights`, `signals` and `diagnosis`, and `decisions`, which `curate.decisions` puts
beside them. Every answer is one query; no table is loaded, and texts are read of the shown pairs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from curate.columns import Columns
from curate.compiling import Compiler
from curate.decisions import Decisions
from curate.expressions import Kind, Node, Truth
from curate.plans import located
from curate.predicates import parse, parse_number
from curate.view import RunView

#: What a list shows of each pair, where the run has it.
LISTED = ("kind", "p_flip", "margin", "weight", "source", "checks", "chosen_tokens", "rejected_tokens")
EXCERPT = 280  # characters of each text in a list
_MOST_GROUPS = 200
_MOST_NEAR = 2_000  # pairs of one place on the map whose prompts are compared
#: Whether something is decided about a pair.
STATES = {
    "all": "TRUE",
    "undecided": "row NOT IN (SELECT row FROM decisions)",
    "decided": "row IN (SELECT row FROM decisions)",
}


@dataclass(frozen=True)
class Order:
    """What pairs are sorted by: an expression of the rule language; pairs without a value come last."""

    by: str = "row"
    descending: bool = False

    @classmethod
    def parse(cls, text: str) -> Order:
        """An order from its text: `p_flip` ascends, `p_flip desc` descends."""
        by, space, way = text.strip().rpartition(" ")
        return cls(by.strip(), True) if space and way == "desc" else cls(text.strip() or "row")

    def __str__(self) -> str:
        return f"{self.by} desc" if self.descending else self.by


@dataclass(frozen=True)
class Wanted:
    """Which pairs, in which order. where: a predicate, empty for all; state: one of `STATES`."""

    where: str = ""
    order: Order = Order()
    state: str = "all"

    @property
    def predicate(self) -> Node:
        """The predicate's tree.

        Raises:
            ConfigError: it is none; it says at which column.
        """
        return parse(self.where) if self.where.strip() else Truth(True)


class Browser:
    """Looks through the pairs of a run. Threads may share it."""

    def __init__(self, view: RunView, decisions: Decisions) -> None:
        """Look through a run with what is decided about it."""
        self._view, self._decisions = view, decisions
        self._columns = Columns.of(view)

    # --- pairs ---

    def check(self, wanted: Wanted) -> None:
        """Make sure that predicate and order fit the run, without looking at any pair.

        Raises:
            ConfigError: they do not; it says at which column.
        """
        self._keyed(wanted)

    def pair(self, pair_id: str) -> dict[str, Any]:
        """All that is known of a pair (see `RunView.pair`); of a whole id without looking at all the others.

        Raises:
            RunError: no pair, or more than one, has an id that begins so.
        """
        rows = self._decisions.rows(pair_id)
        return self._view.pair_at(rows[0]) if rows else self._view.pair(pair_id)

    def count(self, wanted: Wanted) -> int:
        """How many pairs there are.

        Raises:
            ConfigError: the predicate is at fault; it says at which column.
        """
        keyed, parameters = self._keyed(wanted, "row")
        query = f"SELECT count(*) AS pairs FROM ({keyed}) WHERE {self._state(wanted)}"
        return int(self._sql(query, **parameters)["pairs"][0])

    def page(self, wanted: Wanted, start: int, pairs: int) -> pd.DataFrame:
        """So many pairs from a place in the order on.

        Columns: `row`, `pair_id`, `prompt`, `chosen`, `rejected` (beginnings), `tie`, `LISTED`, `action` (what is
        decided, or null).

        Raises:
            ConfigError: predicate or order is at fault.
        """
        keyed, parameters = self._keyed(wanted)
        found = f"SELECT row FROM ({keyed}) WHERE {self._state(wanted)}"
        query = f"{found} ORDER BY {_sorting(wanted.order)}, row LIMIT $pairs OFFSET $start"
        return self._listed(self._sql(query, pairs=pairs, start=start, **parameters)["row"].tolist())

    def following(self, wanted: Wanted, row: int) -> str | None:
        """Id of the pair that comes after the one at `row`, whether or not that one is among them; None at the end."""
        return self._beside(wanted, row, forwards=True)

    def preceding(self, wanted: Wanted, row: int) -> str | None:
        """Id of the pair that comes before the one at `row`; None at the beginning."""
        return self._beside(wanted, row, forwards=False)

    def siblings(self, row: int, most: int = 20) -> pd.DataFrame:
        """Other pairs of the same prompt, as `page` has them."""
        near = self._same_place(row)
        source = "pairs" if near is None else self._view.pairs_among(near)
        prompt = f"SELECT prompt FROM {self._view.pairs_among([row])}"
        same = f"SELECT row FROM {source} WHERE prompt = ({prompt})"
        query = f"SELECT row FROM ({same}) WHERE row <> $row ORDER BY row LIMIT $most"
        return self._listed(self._sql(query, row=row, most=most)["row"].tolist())

    def _same_place(self, row: int) -> list[int] | None:
        """Rows that may have a pair's prompt, by its place on the map; None where that tells nothing or too little."""
        if not self._view.has("diagnosis"):
            return None
        query = (
            "SELECT other.row FROM diagnosis AS other, (FROM diagnosis WHERE row = $row) AS one "
            "WHERE one.x IS NULL OR other.x IS NULL OR (other.x = one.x AND other.y = one.y) LIMIT $most"
        )
        found = self._sql(query, row=row, most=_MOST_NEAR + 1)["row"].tolist()
        return found if len(found) <= _MOST_NEAR else None

    def neighbours(self, row: int, most: int = 8) -> pd.DataFrame:
        """Pairs of other prompts, the nearest on the map of similar texts, in the same cluster; none without a map.

        As `page` has them. Near on the map means similar; far means little. Pairs of a prompt share its place.
        """
        if not self._view.has("diagnosis"):
            return self._listed([])
        near = (
            "SELECT other.row FROM diagnosis AS other, (FROM diagnosis WHERE row = $row) AS one "
            "WHERE other.cluster = one.cluster AND (other.x <> one.x OR other.y <> one.y) "
            f"ORDER BY (other.x - one.x)^2 + (other.y - one.y)^2, other.row LIMIT {int(most)}"
        )
        return self._listed(self._sql(near, row=row)["row"].tolist())

    # --- what there is to filter by ---

    def known(self) -> dict[str, Kind]:
        """The columns that predicates and orders may name."""
        return {name: source.kind for name, source in self._columns.known.items()}

    def groups(self, column: str, wanted: Wanted) -> pd.DataFrame:
        """Values of a column of texts, lists of texts or whole numbers: `value` and `pairs`, the most pairs first.

        Raises:
            ConfigError: the run has no such column.
        """
        keyed, parameters = self._keyed(wanted, column)
        values = "unnest(key)" if self.known()[column] is Kind.TEXTS else "key"
        query = f"SELECT {values} AS value FROM ({keyed}) WHERE {self._state(wanted)}"
        counted = f"SELECT value, count(*) AS pairs FROM ({query}) WHERE value IS NOT NULL GROUP BY value"
        return self._sql(f"{counted} ORDER BY pairs DESC, value LIMIT {_MOST_GROUPS}", **parameters)

    def bins(self, column: str, wanted: Wanted, most: int = 40) -> pd.DataFrame:
        """A histogram of a column of numbers: `low`, `high`, `pairs` (all) and `matching`, `most` bins of one width.

        The bins reach over all pairs, so that they stay where they are when the filter changes.

        Raises:
            ConfigError: the run has no such column, or the predicate is at fault.
        """
        compiler = Compiler(self._columns)
        number, truth = compiler.number(parse_number(column)), compiler.truth(wanted.predicate)
        source = compiler.source(self._view)
        inner = f"SELECT pairs.row, {number} AS value, {truth} AS hit FROM {source}"
        values = f"SELECT value, hit AND {self._state(wanted)} AS hit FROM ({inner})"
        limits = "SELECT min(value) AS low, (max(value) - min(value)) / $most AS width FROM numbers"
        bin_of = "CASE WHEN width > 0 THEN least(floor((value - low) / width), $most - 1) ELSE 0 END"
        query = (
            f"WITH numbers AS MATERIALIZED ({values}), limits AS ({limits}) "
            f"SELECT {bin_of} AS nth, any_value(low) AS origin, any_value(width) AS width, count(*) AS pairs, "
            "count(*) FILTER (hit) AS matching FROM numbers, limits WHERE value IS NOT NULL GROUP BY nth ORDER BY nth"
        )
        found = self._sql(query, most=most, **compiler.parameters)
        low = found["origin"] + found["nth"] * found["width"]
        return pd.DataFrame({"low": low, "high": low + found["width"], **found[["pairs", "matching"]]})

    # --- inside ---

    def _sql(self, query: str, **parameters: Any) -> pd.DataFrame:
        return self._view.sql(query, **parameters)

    def _keyed(self, wanted: Wanted, by: str | None = None, also: str = "FALSE") -> tuple[str, dict[str, Any]]:
        """SQL that gives `row` and `key` (what is sorted by) of the wanted pairs, in any state, and its parameters.

        also: a condition; pairs that meet it are there too, and `hit` says which are wanted.
        """
        compiler = Compiler(self._columns)
        truth = compiler.truth(wanted.predicate)
        with located("sorted by"):
            key = compiler.value(parse_number(by or wanted.order.by))
        inner = f"SELECT pairs.row, {key} AS key, coalesce({truth}, FALSE) AS hit FROM {compiler.source(self._view)}"
        return f"SELECT * FROM ({inner}) WHERE hit OR {also}", compiler.parameters

    def _state(self, wanted: Wanted) -> str:
        """The condition of the wanted state; for few pairs, so it comes after all others."""
        self._decisions.refresh()
        return STATES[wanted.state]

    def _beside(self, wanted: Wanted, row: int, *, forwards: bool) -> str | None:
        keyed, parameters = self._keyed(wanted, also="row = $beside")
        after, before = ("<", ">") if wanted.order.descending else (">", "<")
        if forwards:
            nulls = "key IS NULL AND (here IS NOT NULL OR row > $beside)"
            others = f"key {after} here OR (key = here AND row > $beside)"
            order = f"{_sorting(wanted.order)}, row"
        else:
            nulls = "key IS NULL AND here IS NULL AND row < $beside"
            others = f"(here IS NULL AND key IS NOT NULL) OR key {before} here OR (key = here AND row < $beside)"
            order = f"key {'ASC' if wanted.order.descending else 'DESC'} NULLS FIRST, row DESC"
        query = (
            f"WITH keyed AS MATERIALIZED ({keyed}), one AS (SELECT key AS here FROM keyed WHERE row = $beside), "
            f"behind AS (SELECT row, key FROM keyed, one WHERE hit AND (({nulls}) OR {others})), "
            f"found AS (SELECT row FROM behind WHERE {self._state(wanted)} ORDER BY {order} LIMIT 1) "
            "SELECT pair_id FROM pairs WHERE row IN (FROM found)"
        )
        found = self._sql(query, beside=row, **parameters)["pair_id"]
        return None if found.empty else str(found[0])

    def _listed(self, rows: Sequence[int]) -> pd.DataFrame:
        """Pairs in the order of their rows in the list."""
        known, among = self._columns.known, f"WHERE row IN ({', '.join(map(str, rows)) or 'NULL'})"
        joined = self._view.pairs_among(rows)
        for table in filter(self._view.has, ("scores", "weights", "diagnosis")):
            joined += f" LEFT JOIN (FROM {table} {among}) AS {table} ON {table}.row = pairs.row"
        texts = [f"left({known[side].sql}, {EXCERPT}) AS {side}" for side in ("prompt", "chosen", "rejected")]
        columns = [f"{known[name].sql if name in known else 'NULL'} AS {name}" for name in LISTED]
        self._decisions.refresh()
        query = (
            f"SELECT pairs.row, pairs.pair_id, pairs.tie, {', '.join([*texts, *columns])}, decided.action "
            f"FROM {joined} LEFT JOIN (FROM decisions {among}) AS decided ON decided.row = pairs.row"
        )
        return self._sql(query).set_index("row", drop=False).loc[list(rows)].reset_index(drop=True)


def _sorting(order: Order) -> str:
    return f"key {'DESC' if order.descending else 'ASC'} NULLS LAST"
