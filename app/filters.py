"""Filters of the page Pairs as a predicate of the rule language (docs/rules.md), and back.

The predicate's text is all there is: a chip is one of the conditions that it joins with `and`. Choosing kinds or
brushing a histogram puts one condition in the place of the one about the same column; what was written by hand stays.
"""

from __future__ import annotations

from collections.abc import Sequence

from curate.expressions import And, Between, Call, Column, Compare, Has, In, Minus, Node, Number, Or, Text
from curate.predicates import parse

TEXTS = ("prompt", "chosen", "rejected")


def conditions(where: str) -> tuple[Node, ...]:
    """What a predicate joins with `and`; nothing of an empty one.

    Raises:
        ConfigError: it is no predicate.
    """
    if not where.strip():
        return ()
    tree = parse(where)
    return tree.operands if isinstance(tree, And) else (tree,)


def joined(parts: Sequence[Node]) -> str:
    """The predicate that all of these conditions make."""
    if len(parts) < 2:
        return str(parts[0]) if parts else ""
    return str(And(tuple(parts)))


def without(where: str, place: int) -> str:
    """A predicate without one of its conditions."""
    parts = conditions(where)
    return joined((*parts[:place], *parts[place + 1 :]))


# --- one of several values -------------------------------------------------------------------------


def chosen_values(where: str, column: str) -> list[str]:
    """Which values a predicate asks of a column of texts, or of lists of texts; none where it does not."""
    return next((values for part in conditions(where) if (values := _values(part, column))), [])


def with_values(where: str, column: str, values: Sequence[str], *, listed: bool = False) -> str:
    """A predicate that asks for one of these values, in place of what it asked of the column before.

    listed: the column holds lists of texts.
    """
    new: Node | None = None
    if values and listed:
        alternatives = tuple(Has(Text(value), Column(column)) for value in values)
        new = alternatives[0] if len(alternatives) == 1 else Or(alternatives)
    elif values:
        options = tuple(Text(value) for value in values)
        new = Compare("=", Column(column), options[0]) if len(options) == 1 else In(Column(column), options)
    return _exchanged(where, [bool(_values(part, column)) for part in conditions(where)], new)


def _values(part: Node, column: str) -> list[str]:
    match part:
        case Compare("=", Column(name), Text(value)) if name == column:
            return [value]
        case In(Column(name), options) if name == column:
            return [option.value for option in options if isinstance(option, Text)]
        case Has(Text(value), Column(name)) if name == column:
            return [value]
        case Or(operands):
            found = [_values(operand, column) for operand in operands]
            return [value for values in found for value in values] if all(found) else []
    return []


# --- numbers -----------------------------------------------------------------------------------------


def chosen_range(where: str, column: str) -> tuple[float, float] | None:
    """The limits that a predicate sets to a column of numbers with `between`."""
    return next((limits for part in conditions(where) if (limits := _limits(part, column))), None)


def with_range(where: str, column: str, limits: tuple[float, float] | None) -> str:
    """A predicate that sets these limits, in place of those that it set before."""
    new = limits and Between(Column(column), *map(_number, limits))
    return _exchanged(where, [_limits(part, column) is not None for part in conditions(where)], new)


def _limits(part: Node, column: str) -> tuple[float, float] | None:
    match part:
        case Between(Column(name), low, high) if name == column:
            return _value(low), _value(high)
    return None


def _number(value: float) -> Node:
    """A number that is written with four digits: the edges of a brush are not more exact."""
    size = Number(float(f"{abs(value):.4g}"))
    return Minus(size) if value < 0 and size.value else size


def _value(node: Node) -> float:
    match node:
        case Number(value):
            return value
        case Minus(Number(value)):
            return -value
    return float("nan")


def with_number(where: str, column: str, value: int | None) -> str:
    """A predicate that asks for one whole number, such as a cluster's, in place of what it asked of the column."""
    new = None if value is None else Compare("=", Column(column), _number(value))
    return _exchanged(where, [_is_number(part, column) for part in conditions(where)], new)


def chosen_number(where: str, column: str) -> int | None:
    """The whole number that a predicate asks of a column."""
    for part in conditions(where):
        match part:
            case Compare("=", Column(name), Number(value)) if name == column:
                return int(value)
    return None


def _is_number(part: Node, column: str) -> bool:
    match part:
        case Compare("=", Column(name), Number()):
            return name == column
    return False


# --- words -------------------------------------------------------------------------------------------


def searched(where: str) -> str:
    """What a predicate looks for in the texts; empty where it does not."""
    return next((text for part in conditions(where) if (text := _sought(part))), "")


def with_search(where: str, text: str) -> str:
    """A predicate that looks for a text in prompt, chosen and rejected, in capitals or not."""
    sought = text.strip().lower()
    anywhere = Or(tuple(_contains(side, sought) for side in TEXTS)) if sought else None
    return _exchanged(where, [bool(_sought(part)) for part in conditions(where)], anywhere)


def _contains(side: str, text: str) -> Node:
    return Call("contains", (Call("lower", (Column(side),)), Text(text)))


def _sought(part: Node) -> str:
    match part:
        case Or((Call("contains", (_, Text(text))), *_)) if part == Or(tuple(_contains(side, text) for side in TEXTS)):
            return text
    return ""


# --- inside ------------------------------------------------------------------------------------------


def _exchanged(where: str, old: Sequence[bool], new: Node | None) -> str:
    """A predicate with one condition in the place of the old ones, or behind the others."""
    parts = list(conditions(where))
    place = old.index(True) if True in old else len(parts)
    kept = [part for part, is_old in zip(parts, old, strict=True) if not is_old]
    if new is not None:
        kept.insert(min(place, len(kept)), new)
    return joined(kept)
