"""From tree to SQL: types are checked, columns looked up, and literals become parameters of the query.

What holds for every compiled expression: it is null where a value it needs is null, and a number that is not finite
(after a division by zero, say) is null too. So are `min` and `max`, unlike SQL's, where one of their arguments is.

What looks at all pairs is computed apart, from no more columns than it needs: a quantile beforehand, a rank in a query
of its own, whose result stands beside the tables.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn

import pandas as pd

from curate.columns import Columns, side_by_side
from curate.errors import ConfigError
from curate.expressions import (
    FUNCTIONS,
    OVER_ALL,
    And,
    Arithmetic,
    Between,
    Call,
    Column,
    Compare,
    Has,
    In,
    Kind,
    Minus,
    Missing,
    Node,
    Not,
    Number,
    Or,
    Text,
    Truth,
    shown,
    walk,
)
from curate.view import RunView


class Compiler:
    """Compiles expressions of one query.

    parameters: of the query, by name; complete after `source`.
    """

    def __init__(self, columns: Columns, numbers: Iterator[int] | None = None) -> None:
        """Start a query, or a part of one, which takes its parameters' numbers from the whole."""
        self._columns = columns
        self._numbers = numbers or itertools.count()
        self._tables: set[str] = set()
        self._quantiles: dict[str, tuple[str, Compiler]] = {}
        self._ranks: dict[Node, tuple[str, str, Compiler]] = {}
        self.parameters: dict[str, Any] = {}

    def source(self, view: RunView) -> str:
        """What the expressions are over, as it stands after FROM; looks up the quantiles among them."""
        for name, (quantile, part) in self._quantiles.items():
            found = view.sql(f"SELECT {quantile} AS value FROM {part.source(view)}", **part.parameters)["value"][0]
            self.parameters[name] = None if pd.isna(found) else float(found)
        ranks = {}
        for name, number, part in self._ranks.values():
            ranks[name] = _ranked(number, part.source(view))
            self.parameters |= part.parameters
        return side_by_side(view, self._tables, ranks)

    def truth(self, node: Node) -> str:
        """The SQL of a predicate.

        Raises:
            ConfigError: a column is not there, or a value of another type than its place asks for.
        """
        return self._sql(node, Kind.TRUTH)

    def number(self, node: Node) -> str:
        """The SQL of a number; errors as `truth`."""
        return self._sql(node, Kind.NUMBER)

    def value(self, node: Node) -> str:
        """The SQL of an expression of whatever kind; errors as `truth`."""
        return self._typed(node)[1]

    # --- by what an expression is ---

    def _sql(self, node: Node, wanted: Kind) -> str:
        kind, sql = self._typed(node)
        if kind is not wanted:
            _fail(node, f"{shown(node)} is {kind.value}, where {wanted.value} is needed")
        return sql

    def _typed(self, node: Node) -> tuple[Kind, str]:
        match node:
            case Column():
                source = self._columns.find(node)
                self._tables.add(source.table)
                return source.kind, source.sql
            case Number(value):
                return Kind.NUMBER, self._parameter(value, "DOUBLE")
            case Text(value):
                return Kind.TEXT, self._parameter(value, "VARCHAR")
            case Truth(value):
                return Kind.TRUTH, str(value).upper()
            case Minus(operand):
                return Kind.NUMBER, f"(-{self.number(operand)})"
            case Arithmetic(operator, left, right):
                return Kind.NUMBER, _finite(f"{self.number(left)} {operator} {self.number(right)}")
            case Call():
                return FUNCTIONS[node.function].gives, self._call(node)
            case _:
                return Kind.TRUTH, f"({self._predicate(node)})"

    def _predicate(self, node: Node) -> str:
        match node:
            case Not(operand):
                return f"NOT {self.truth(operand)}"
            case And(operands):
                return " AND ".join(map(self.truth, operands))
            case Or(operands):
                return " OR ".join(map(self.truth, operands))
            case Compare():
                return self._comparison(node)
            case Between(item, low, high):
                return f"{self.number(item)} BETWEEN {self.number(low)} AND {self.number(high)}"
            case In(item, options):
                kind, sql = self._scalar(item)
                self._require_words(item, *options)
                return f"{sql} IN ({', '.join(self._sql(option, kind) for option in options)})"
            case Has(item, column):
                self._require_words(column, item)
                return f"list_contains({self._sql(column, Kind.TEXTS)}, {self._sql(item, Kind.TEXT)})"
            case Missing(item):
                return f"{self._typed(item)[1]} IS NULL"
        raise TypeError(f"{node!r} is no expression")

    def _comparison(self, node: Compare) -> str:
        if node.operator not in ("=", "!="):
            return f"{self.number(node.left)} {node.operator} {self.number(node.right)}"
        kind, left = self._scalar(node.left)
        self._require_words(node.left, node.right)
        self._require_words(node.right, node.left)
        return f"{left} {node.operator} {self._sql(node.right, kind)}"

    def _require_words(self, node: Node, *texts: Node) -> None:
        if isinstance(node, Column):
            self._columns.require_words(node, texts)

    def _scalar(self, node: Node) -> tuple[Kind, str]:
        kind, sql = self._typed(node)
        if kind is Kind.TEXTS:
            _fail(node, f'{shown(node)} is {kind.value}: ask whether a text is in it, as in "identical" in checks')
        return kind, sql

    def _parameter(self, value: float | str, kind: str) -> str:
        name = f"plan_{next(self._numbers)}"
        self.parameters[name] = value
        return f"${name}::{kind}"

    # --- functions ---

    def _call(self, node: Call) -> str:
        if node.function in OVER_ALL:
            _require_flat(node)
            return self._rank(node.arguments[0]) if node.function == "share_below" else self._quantile(*node.arguments)
        takes = FUNCTIONS[node.function].takes
        kinds = [*takes, *[takes[-1]] * (len(node.arguments) - len(takes))]
        arguments = [self._sql(part, kind) for part, kind in zip(node.arguments, kinds, strict=True)]
        return _FUNCTIONS[node.function](*arguments)

    def _rank(self, number: Node) -> str:
        if number not in self._ranks:
            part = Compiler(self._columns, self._numbers)
            self._ranks[number] = (f"plan_rank_{next(self._numbers)}", part.number(number), part)
        return f"{self._ranks[number][0]}.share"

    def _quantile(self, number: Node, share: Node) -> str:
        part = Compiler(self._columns, self._numbers)
        name = f"plan_{next(self._numbers)}"
        self._quantiles[name] = (f"quantile_cont({part.number(number)}, {part.number(share)})", part)
        return f"${name}::DOUBLE"


def _require_flat(node: Call) -> None:
    for part in walk(node):
        if isinstance(part, Call) and part is not node and part.function in OVER_ALL:
            _fail(part, f"{part.function} cannot stand within {node.function}: both look at all pairs")
    if node.function == "quantile":
        share = node.arguments[1]
        if not (isinstance(share, Number) and 0 <= share.value <= 1):
            _fail(
                share, f"{shown(share)} is no share: quantile takes a number from 0 to 1, as in quantile(margin, 0.2)"
            )


def _fail(node: Node, reason: str) -> NoReturn:
    raise ConfigError(f"{node.at}: {reason}")


# --- SQL of functions: each argument is written once, so that nothing grows beyond its text ---------


def _guarded(sql: str, condition: str, result: str = "one") -> str:
    """A number `one`, or what is made of it, where a condition holds; else null."""
    return f"list_transform([{sql}], lambda one: CASE WHEN {condition} THEN {result} END)[1]"


def _finite(sql: str) -> str:
    return _guarded(sql, "isfinite(one)")


def _extreme(order: str, *arguments: str) -> str:
    return f"list_sort([{', '.join(arguments)}], '{order}', 'NULLS FIRST')[1]"


def _ranked(number: str, source: str) -> str:
    """`row` and `share` of all pairs: (share with less + share with no more) / 2, null where a pair has no number."""
    numbers = f'SELECT pairs."row", {number} AS value FROM {source}'
    known = "PARTITION BY value IS NULL"
    lower = f"(rank() OVER ({known} ORDER BY value) - 1) / count(*) OVER ({known})"
    share = f"({lower} + cume_dist() OVER ({known} ORDER BY value)) / 2"
    return f'SELECT "row", CASE WHEN value IS NOT NULL THEN {share} END AS share FROM ({numbers})'


_FUNCTIONS: dict[str, Callable[..., str]] = {
    "abs": "abs({})".format,
    "min": partial(_extreme, "ASC"),
    "max": partial(_extreme, "DESC"),
    "exp": lambda power: _finite(f"exp({power})"),
    "log": lambda number: _guarded(number, "one > 0", "ln(one)"),
    "sqrt": lambda number: _guarded(number, "one >= 0", "sqrt(one)"),
    "lower": "lower({})".format,
    "length": "length({})::DOUBLE".format,
    "count": "len({})::DOUBLE".format,
    "contains": "contains({}, {})".format,
    "starts_with": "starts_with({}, {})".format,
}
