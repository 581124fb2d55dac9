"""The rule language's tree: predicates and numbers over a run's columns, and their text.

`str(node)` is the text that `curate.predicates.parse` reads back to an equal tree. Where a node stood in its text takes
no part in equality.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import NamedTuple

KEYWORDS = {"and", "or", "not", "in", "is", "null", "true", "false", "between", "when", "then", "because"}
BARE_NAME = re.compile(r"[^\W\d]\w*")
COMPARISONS = ("=", "!=", "<", "<=", ">", ">=")
_LONGEST_SHOWN = 80  # characters


class Kind(Enum):
    """What an expression's value is."""

    NUMBER = "a number"
    TRUTH = "yes or no"
    TEXT = "a text"
    TEXTS = "a list of texts"


class Place(NamedTuple):
    """Where a node begins in its text, from 1."""

    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"column {self.column}" if self.line == 1 else f"line {self.line}, column {self.column}"


@dataclass(frozen=True)
class Function:
    """What a function takes and gives; `many`: the last argument may come again."""

    takes: tuple[Kind, ...]
    gives: Kind = Kind.NUMBER
    many: bool = False


FUNCTIONS = {
    "abs": Function((Kind.NUMBER,)),
    "min": Function((Kind.NUMBER, Kind.NUMBER), many=True),
    "max": Function((Kind.NUMBER, Kind.NUMBER), many=True),
    "exp": Function((Kind.NUMBER,)),
    "log": Function((Kind.NUMBER,)),
    "sqrt": Function((Kind.NUMBER,)),
    "share_below": Function((Kind.NUMBER,)),  # share of the pairs with a lower value, equal ones counting half
    "quantile": Function((Kind.NUMBER, Kind.NUMBER)),  # the value below which this share of the pairs lies
    "lower": Function((Kind.TEXT,), Kind.TEXT),
    "length": Function((Kind.TEXT,)),  # characters
    "count": Function((Kind.TEXTS,)),  # entries
    "contains": Function((Kind.TEXT, Kind.TEXT), Kind.TRUTH),
    "starts_with": Function((Kind.TEXT, Kind.TEXT), Kind.TRUTH),
}
#: Functions that look at all pairs.
OVER_ALL = ("share_below", "quantile")


@dataclass(frozen=True)
class Node:
    """A part of an expression. at: where it begins."""

    at: Place = field(default=Place(), kw_only=True, compare=False, repr=False)

    def __str__(self) -> str:
        return _text(self)[1]


@dataclass(frozen=True)
class Column(Node):
    """A column of the run, by name."""

    name: str


@dataclass(frozen=True)
class Number(Node):
    """A number as it is written: not negative, finite."""

    value: float


@dataclass(frozen=True)
class Text(Node):
    """A text as it is written."""

    value: str


@dataclass(frozen=True)
class Truth(Node):
    """`true` or `false`."""

    value: bool


@dataclass(frozen=True)
class Not(Node):
    """Its operand does not hold."""

    operand: Node


@dataclass(frozen=True)
class And(Node):
    """All of two or more operands hold."""

    operands: tuple[Node, ...]


@dataclass(frozen=True)
class Or(Node):
    """One of two or more operands holds."""

    operands: tuple[Node, ...]


@dataclass(frozen=True)
class Compare(Node):
    """Two values, compared by one of `COMPARISONS`."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Between(Node):
    """A number within limits, which belong to it."""

    item: Node
    low: Node
    high: Node


@dataclass(frozen=True)
class In(Node):
    """A value is one of some literals."""

    item: Node
    options: tuple[Node, ...]


@dataclass(frozen=True)
class Has(Node):
    """A text stands in a column that is a list of texts."""

    item: Node
    column: Column


@dataclass(frozen=True)
class Missing(Node):
    """A value is null."""

    item: Node


@dataclass(frozen=True)
class Minus(Node):
    """A number with the other sign."""

    operand: Node


@dataclass(frozen=True)
class Arithmetic(Node):
    """Two numbers joined by + − * or /."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Call(Node):
    """One of `FUNCTIONS`, with its arguments."""

    function: str
    arguments: tuple[Node, ...]


def parts(node: Node) -> Iterator[Node]:
    """The nodes right below a node."""
    for entry in fields(node):
        value = getattr(node, entry.name)
        values = value if isinstance(value, tuple) else (value,)
        yield from (part for part in values if isinstance(part, Node))


def walk(node: Node) -> Iterator[Node]:
    """A node and all below it."""
    waiting = [node]
    while waiting:
        yield (top := waiting.pop())
        waiting.extend(parts(top))


def depth(node: Node) -> int:
    """How many nodes stand above one another."""
    found, level = 0, [node]
    while level:
        found, level = found + 1, [part for above in level for part in parts(above)]
    return found


def quoted_name(name: str) -> str:
    """A column's name as the language has it."""
    if BARE_NAME.fullmatch(name) and name.lower() not in KEYWORDS:
        return name
    return "`" + name.replace("`", "``") + "`"


def shown(text: object) -> str:
    """A part of a rule for a message: on one line, and not too long."""
    line = " ".join(str(text).split())
    return line if len(line) <= _LONGEST_SHOWN else line[: _LONGEST_SHOWN - 1] + "…"


# --- text ----------------------------------------------------------------------------------------

#: How tightly an operator binds.
_OR, _AND, _NOT, _COMPARE, _SUM, _PRODUCT, _SIGN, _ATOM = range(8)


def _text(node: Node) -> tuple[int, str]:
    """How tightly a node binds, and its text."""
    match node:
        case Or(operands):
            return _OR, " or ".join(_inside(part, _AND) for part in operands)
        case And(operands):
            return _AND, " and ".join(_inside(part, _NOT) for part in operands)
        case Not(In(item, options)):
            return _COMPARE, f"{_inside(item, _SUM)} not in ({_listed(options)})"
        case Not(Missing(item)):
            return _COMPARE, f"{_inside(item, _SUM)} is not null"
        case Not(operand):
            return _NOT, f"not {_inside(operand, _NOT)}"
        case Minus(operand):
            return _SIGN, f"-{_inside(operand, _SIGN)}"
        case Arithmetic(operator, left, right):
            level = _SUM if operator in "+-" else _PRODUCT
            return level, f"{_inside(left, level)} {operator} {_inside(right, level + 1)}"
        case Compare() | Between() | In() | Has() | Missing():
            return _COMPARE, _comparison(node)
        case _:
            return _ATOM, _atom(node)


def _comparison(node: Node) -> str:
    match node:
        case Compare(operator, left, right):
            return f"{_inside(left, _SUM)} {operator} {_inside(right, _SUM)}"
        case Between(item, low, high):
            return f"{_inside(item, _SUM)} between {_inside(low, _SUM)} and {_inside(high, _SUM)}"
        case In(item, options):
            return f"{_inside(item, _SUM)} in ({_listed(options)})"
        case Has(item, column):
            return f"{_inside(item, _SUM)} in {column}"
        case Missing(item):
            return f"{_inside(item, _SUM)} is null"
    raise TypeError(f"{node!r} is no comparison")


def _atom(node: Node) -> str:
    match node:
        case Column(name):
            return quoted_name(name)
        case Number(value):
            return repr(value).removesuffix(".0")
        case Text(value):
            return '"' + value.replace('"', '""') + '"'
        case Truth(value):
            return "true" if value else "false"
        case Call(function, arguments):
            return f"{function}({_listed(arguments)})"
    raise TypeError(f"{node!r} is no expression")


def _inside(node: Node, least: int) -> str:
    """A node's text, in parentheses where it binds less tightly than its place asks for."""
    level, text = _text(node)
    return text if level >= least else f"({text})"


def _listed(nodes: tuple[Node, ...]) -> str:
    return ", ".join(map(str, nodes))
