"""From text to tree: the rule language's grammar. Nothing is evaluated, and every fault is a `ConfigError`.

predicate   predicate or predicate · predicate and predicate · not predicate · (predicate)
            number < number (also <= > >=) · value = value (also !=) · number between number and number
            value in (literal, …) · text in list · value is null · any of these with `not in`, `is not null`
number      12 · 0.5 · 1e-3 · column · function(…) · number + number (also - * /) · -number · (number)
text        "…" or '…', its quote doubled inside
column      name, or `any name`, its backtick doubled inside
rule        when predicate then action [because text]
action      keep · drop · flip · review · soft · soft(number) · weight(number)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from curate.expressions import (
    COMPARISONS,
    FUNCTIONS,
    KEYWORDS,
    And,
    Arithmetic,
    Between,
    Call,
    Column,
    Compare,
    Has,
    In,
    Minus,
    Missing,
    Node,
    Not,
    Number,
    Or,
    Text,
    Truth,
    depth,
)
from curate.lexing import Token, fail, tokens

#: What can be done with a pair. Weight takes a number, soft takes one or none (then it is 1 - p_flip).
ACTIONS = ("keep", "drop", "flip", "review", "soft", "weight")
TAKES = {"soft": "a probability, from 0 to 1", "weight": "a weight, 0 or more"}
#: The largest of these numbers.
MOST = {"soft": 1.0, "weight": math.inf}

Tree = TypeVar("Tree")

_DEEPEST = 100  # nodes above one another
_MOST_OPEN = 40  # parentheses, signs and negations within one another


@dataclass(frozen=True)
class Action:
    """What becomes of a pair. value: of `weight` the weight, of `soft` P(chosen is better), else None."""

    name: str
    value: Node | None = None

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}({self.value})"

    @property
    def possible(self) -> bool:
        """Whether its number, where that is written out, is one that it takes."""
        match self.value:
            case Number(value):
                return value <= MOST[self.name]
            case Minus(Number(value)):
                return value == 0
        return True


def parse(text: str) -> Node:
    """A predicate's tree.

    Raises:
        ConfigError: the text is no predicate; it says at which column.
    """
    parser = _Parser(text)
    return parser.whole(parser.predicate())


def parse_number(text: str) -> Node:
    """A number's tree.

    Raises:
        ConfigError: the text is none.
    """
    parser = _Parser(text)
    return parser.whole(parser.number())


def parse_action(text: str) -> Action:
    """What stands after `then`: `drop`, `weight(1 - p_flip)`, …

    Raises:
        ConfigError: there is no such action.
    """
    parser = _Parser(text)
    return parser.whole(parser.action())


def parse_rule(text: str) -> tuple[Node, Action, str]:
    """Predicate, action and reason (empty where none is given) of `when … then … because "…"`.

    Raises:
        ConfigError: the text is no rule.
    """
    parser = _Parser(text)
    parser.expect("when")
    when = parser.predicate()
    parser.expect("then")
    action = parser.action()
    reason = parser.reason()
    return parser.whole((when, action, reason))


# --- the grammar ---------------------------------------------------------------------------------


class _Parser:
    """Recursive descent over the tokens: a method a precedence, the loosest first."""

    def __init__(self, text: str) -> None:
        self._tokens = list(tokens(text))
        self._next = 0
        self._open = 0

    # --- reading ---

    def whole(self, tree: Tree) -> Tree:
        """What was read, if that is all there is."""
        if self._peek.kind != "end":
            fail(self._peek.at, f"{self._peek} cannot stand here")
        return tree

    def expect(self, value: str) -> Token:
        """Read this keyword or sign."""
        if (found := self._take(value)) is None:
            fail(self._peek.at, f"expected {value!r}, found {self._peek}")
        return found

    @property
    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _take(self, *values: str) -> Token | None:
        """Read the next token if it is one of these keywords or signs."""
        token = self._peek
        if token.value not in values or token.kind not in ("word", "sign"):
            return None
        self._next += 1
        return token

    def _take_kind(self, kind: str) -> Token | None:
        token = self._peek
        if token.kind != kind:
            return None
        self._next += 1
        return token

    # --- rules ---

    def action(self) -> Action:
        """Read an action."""
        token = self._peek
        if token.kind != "word" or token.value not in ACTIONS:
            fail(token.at, f"expected {', '.join(ACTIONS[:-1])} or {ACTIONS[-1]}(…), found {token}")
        self._next += 1
        if token.value == "weight" or (token.value == "soft" and self._peek.value == "("):
            self.expect("(")
            value = self.number()
            self.expect(")")
            return Action(token.value, value)
        return Action(token.value)

    def reason(self) -> str:
        """Read `because "…"`, which may be missing."""
        if self._take("because") is None:
            return ""
        if (text := self._take_kind("text")) is None:
            fail(self._peek.at, f"expected a text in quotes, found {self._peek}")
        return text.value

    # --- predicates ---

    def predicate(self) -> Node:
        """Read a predicate."""
        return self._checked(self._or())

    def number(self) -> Node:
        """Read a number."""
        return self._checked(self._sum())

    def _checked(self, tree: Node) -> Node:
        if depth(tree) > _DEEPEST:
            fail(tree.at, f"too much within one another: {_DEEPEST} operations are the most")
        return tree

    def _or(self) -> Node:
        operands = self._several("or", self._and)
        return operands[0] if len(operands) == 1 else Or(operands, at=operands[0].at)

    def _and(self) -> Node:
        operands = self._several("and", self._not)
        return operands[0] if len(operands) == 1 else And(operands, at=operands[0].at)

    def _several(self, between: str, read: Callable[[], Node]) -> tuple[Node, ...]:
        operands = [read()]
        while self._take(between) is not None:
            operands.append(read())
        return tuple(operands)

    def _not(self) -> Node:
        if (word := self._take("not")) is None:
            return self._comparison()
        with self._inside(word):
            return Not(self._not(), at=word.at)

    def _comparison(self) -> Node:
        left = self._sum()
        if (sign := self._take(*COMPARISONS)) is not None:
            right = self._sum()
            if (second := self._take(*COMPARISONS)) is not None:
                fail(second.at, "two comparisons in one: join them with `and`, or say `between … and …`")
            return Compare(sign.value, left, right, at=left.at)
        if self._take("is") is not None:
            negated = self._take("not") is not None
            self.expect("null")
            return _negated(Missing(left, at=left.at), negated)
        negated = self._take("not") is not None
        if self._take("in") is not None:
            return _negated(self._membership(left), negated)
        if self._take("between") is not None:
            low = self._sum()
            self.expect("and")
            return _negated(Between(left, low, self._sum(), at=left.at), negated)
        if negated:
            fail(self._peek.at, f"expected 'in' or 'between' after 'not', found {self._peek}")
        return left

    def _membership(self, item: Node) -> Node:
        """What follows `in`: literals in parentheses, or a column."""
        if self._take("(") is None:
            column = self._atom()
            if not isinstance(column, Column):
                fail(column.at, "after 'in' stands a column of texts, or values in parentheses")
            return Has(item, column, at=item.at)
        options = self._several(",", self._sum)
        self.expect(")")
        for option in options:
            literal = option.operand if isinstance(option, Minus) else option
            if not isinstance(literal, Number | Text | Truth):
                fail(option.at, "in the parentheses after 'in' stand numbers, texts, true or false")
        return In(item, options, at=item.at)

    # --- numbers ---

    def _sum(self) -> Node:
        return self._chain(("+", "-"), self._product)

    def _product(self) -> Node:
        return self._chain(("*", "/"), self._sign)

    def _chain(self, operators: tuple[str, ...], read: Callable[[], Node]) -> Node:
        left = read()
        while (sign := self._take(*operators)) is not None:
            left = Arithmetic(sign.value, left, read(), at=left.at)
        return left

    def _sign(self) -> Node:
        if (sign := self._take("-")) is None:
            return self._atom()
        with self._inside(sign):
            return Minus(self._sign(), at=sign.at)

    def _atom(self) -> Node:
        token = self._peek
        if (bracket := self._take("(")) is not None:
            with self._inside(bracket):
                inner = self._or()
            self.expect(")")
            return inner
        if (word := self._take("true", "false")) is not None:
            return Truth(word.value == "true", at=word.at)
        if token.kind in ("end", "sign") or (token.kind == "word" and token.value in KEYWORDS):
            fail(token.at, f"expected a column, a number or a text, found {token}")
        self._next += 1
        return self._named(token) if token.kind in ("word", "name") else _literal(token)

    def _named(self, token: Token) -> Node:
        """A column, or a function with its arguments."""
        if token.kind == "name" or self._take("(") is None:
            return Column(token.value, at=token.at)
        if (function := FUNCTIONS.get(token.value)) is None:
            fail(token.at, f"no function {token.value!r}: there are {', '.join(FUNCTIONS)}")
        with self._inside(token):
            arguments = self._several(",", self._or)
        self.expect(")")
        least = len(function.takes)
        if len(arguments) < least or (len(arguments) > least and not function.many):
            wanted = f"{least} or more" if function.many else f"{least}"
            fail(token.at, f"{token.value} takes {wanted}, found {len(arguments)}")
        return Call(token.value, arguments, at=token.at)

    @contextmanager
    def _inside(self, token: Token) -> Iterator[None]:
        self._open += 1
        if self._open > _MOST_OPEN:
            fail(token.at, f"too much within one another: {_MOST_OPEN} are the most")
        yield
        self._open -= 1


def _negated(node: Node, negated: bool) -> Node:
    return Not(node, at=node.at) if negated else node


def _literal(token: Token) -> Node:
    if token.kind == "text":
        return Text(token.value, at=token.at)
    value = float(token.value)
    if value == math.inf:
        fail(token.at, f"{token.value} is too large a number")
    return Number(value, at=token.at)
