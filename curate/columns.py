"""What a rule can name: columns of a run's tables `pairs`, `scores`, `weights`, `signals` and `diagnosis`, as SQL.

These tables have one line a pair. Numbers are float64, and null where they are not finite.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from curate.errors import ConfigError
from curate.expressions import Column, Kind, Node, Text, quoted_name, shown
from curate.schema import CHECKS, DIAGNOSIS, KINDS, SCORES, WEIGHTS
from curate.store import fingerprint
from curate.view import RunView

TABLES = ("pairs", "scores", "weights", "signals", "diagnosis")
#: Signals that a run need not have, and what they need.
NEEDS = {
    **dict.fromkeys(("prompt_gain", "ifd", "ifd_gap"), "scores with --unconditional"),
    "reward_model": "scores with --reward-model MODEL",
    "rating": "data with ratings",
}
#: Tables that may be missing: which command makes them, and columns that they always have.
_MADE_BY = {"scores": ("score", SCORES), "weights": ("weigh", WEIGHTS), "diagnosis": ("diagnose", DIAGNOSIS)}
_INTEGERS = {f"{sign}{size}" for sign in ("", "U") for size in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")}
_ORDERED: WeakKeyDictionary[RunView, dict[tuple[str, str], bool]] = WeakKeyDictionary()
#: Columns whose texts are known beforehand, by table.
_WORDS = {("diagnosis", "kind"): KINDS, ("diagnosis", "checks"): CHECKS}
_KINDS = {"VARCHAR": Kind.TEXT, "BOOLEAN": Kind.TRUTH, "VARCHAR[]": Kind.TEXTS}


@dataclass(frozen=True)
class Source:
    """Where a column's values come from. table: one of `TABLES`. sql: an expression over it.

    words: the only texts that it can hold, where these are known.
    """

    table: str
    sql: str
    kind: Kind
    words: tuple[str, ...] = ()


def _turns(side: str) -> Source:
    """A side's texts, a line each turn."""
    content = f"list_transform(pairs.{side}, lambda turn: turn.content)"
    return Source("pairs", f"array_to_string({content}, chr(10))", Kind.TEXT)


def _votes(sign: str) -> Source:
    """How many annotators' votes are above, below or equal to zero."""
    counted = f"len(list_filter(pairs.votes, lambda one: one.vote {sign} 0))"
    return Source("pairs", f"{counted}::DOUBLE", Kind.NUMBER)


#: Columns made from those that are no numbers or texts themselves.
DERIVED = {
    **{side: _turns(side) for side in ("prompt", "chosen", "rejected")},
    "votes_for": _votes(">"),
    "votes_against": _votes("<"),
    "votes_tied": _votes("="),
    "turns": Source("pairs", "len(list_filter(pairs.prompt, lambda turn: turn.role = 'user'))::DOUBLE", Kind.NUMBER),
    "annotators": Source("pairs", "list_transform(pairs.votes, lambda one: one.annotator)", Kind.TEXTS),
}


@dataclass(frozen=True)
class Columns:
    """The columns of a run. missing: what to say of those that it could have."""

    known: Mapping[str, Source]
    missing: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, view: RunView) -> Columns:
        """The columns of a run's tables; of those that share a name, the first table's.

        Raises:
            RunError: the run has no pairs.
        """
        known: dict[str, Source] = {}
        view.columns("pairs")
        for table in filter(view.has, TABLES):
            for name, source in _columns(view, table).items():
                known.setdefault(name, source)
        missing = {name: f": it needs {needed}" for name, needed in NEEDS.items()}
        for table, (stage, schema) in _MADE_BY.items():
            if not view.has(table):
                missing |= dict.fromkeys(schema.names, f"; run curate {stage} {view.path} first")
        return cls(DERIVED | known, missing)

    def find(self, column: Column) -> Source:
        """Where a column's values come from.

        Raises:
            ConfigError: the run has no such column.
        """
        if (found := self.known.get(column.name)) is None:
            raise ConfigError(f"{column.at}: no column {column.name!r}{self._advice(column.name)}")
        return found

    def require_words(self, column: Column, texts: Iterable[Node]) -> None:
        """Of texts that a column is compared with, refuse those that it can never hold.

        Raises:
            ConfigError: there is such a text.
        """
        words = self.find(column).words
        for text in texts:
            if words and isinstance(text, Text) and text.value not in words:
                near = difflib.get_close_matches(text.value, words)
                advice = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(words)}"
                raise ConfigError(f"{text.at}: {shown(text)} is never in {column}: {advice}")

    def _advice(self, name: str) -> str:
        if name in self.missing:
            return self.missing[name]
        if near := difflib.get_close_matches(name, self.known, n=1):
            return f": did you mean {quoted_name(near[0])}?"
        return f": there are {' '.join(', '.join(map(quoted_name, sorted(self.known))).split())}"


def _columns(view: RunView, table: str) -> dict[str, Source]:
    described = view.sql(f"SELECT column_name, column_type FROM (DESCRIBE {table})")
    found: dict[str, Source] = {}
    for name, kind in described.itertuples(index=False):
        value = f'{table}."' + name.replace('"', '""') + '"'
        if kind in _KINDS:
            found[name] = Source(table, value, _KINDS[kind], _WORDS.get((table, name), ()))
        elif kind in _INTEGERS:
            found[name] = Source(table, f"{value}::DOUBLE", Kind.NUMBER)
        elif kind in ("FLOAT", "DOUBLE"):
            found[name] = Source(table, f"CASE WHEN isfinite({value}) THEN {value}::DOUBLE END", Kind.NUMBER)
    return found


def side_by_side(view: RunView, tables: Iterable[str], ranks: Mapping[str, str]) -> str:
    """What stands after FROM to have all pairs of a run, with some of its tables.

    Tables are written in the pairs' order. Where they still are, they stand line by line beside one another, which
    takes a quarter of the memory that a join by row needs.

    Args:
        ranks: name → a query that gives `row` and `share` of all pairs.
    """
    others = [table for table in TABLES[1:] if table in set(tables)]
    sql = " POSITIONAL JOIN ".join(("pairs", *others))
    if _in_order(view, sql, others):
        ordered = [f'(SELECT share FROM ({query}) ORDER BY "row") AS {name}' for name, query in ranks.items()]
        return " POSITIONAL JOIN ".join((sql, *ordered))
    others += [f"({query}) AS {name}" for name, query in ranks.items()]
    return "".join(("pairs", *(f' LEFT JOIN {other} USING ("row")' for other in others)))


def _in_order(view: RunView, sql: str, others: Iterable[str]) -> bool:
    """Whether the pairs' rows ascend, and the same rows stand beside them; looked up once for tables as they are."""
    known = _ORDERED.setdefault(view, {})
    key = (sql, fingerprint(view.manifest["stages"]))
    if key not in known:
        known[key] = _is_in_order(view, sql, others)
    return known[key]


def _is_in_order(view: RunView, sql: str, others: Iterable[str]) -> bool:
    moved = " OR ".join(["before > current", *(f"{table} IS DISTINCT FROM current" for table in others)])
    rows = ", ".join(['pairs."row" AS current', *(f'{table}."row" AS {table}' for table in others)])
    numbered = f"SELECT {rows}, lag(current) OVER () AS before FROM {sql}"
    return not view.sql(f"SELECT count(*) AS moved FROM ({numbered}) WHERE {moved}")["moved"][0]
