"""Tokens of the rule language: words, numbers, texts, names in backticks and signs, each with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from curate.errors import ConfigError
from curate.expressions import KEYWORDS, Place

_LONGEST = 100_000  # characters
_SAME = {"==": "=", "<>": "!="}
_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
      | (?P<word>[^\W\d]\w*)
      | (?P<name>`(?:[^`]|``)*`)
      | (?P<text>"(?:[^"]|"")*"|'(?:[^']|'')*')
      | (?P<sign><=|>=|!=|<>|==|[-=<>+*/(),])""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Token:
    """kind: number, word, name, text, sign or end. value: without quotes; a keyword in small letters."""

    kind: str
    value: str
    at: Place

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else repr(self.value)


def fail(at: Place, reason: str) -> NoReturn:
    """Say what is wrong, and where."""
    raise ConfigError(f"{at}: {reason}")


def tokens(text: str) -> Iterator[Token]:
    """The tokens of a text, an end last.

    Raises:
        ConfigError: it is too long, or a character means nothing.
    """
    if len(text) > _LONGEST:
        raise ConfigError(f"{len(text):,} characters are more than a rule may have ({_LONGEST:,})")
    if (strange := re.search(r"[\ud800-\udfff]", text)) is not None:
        fail(Place(1, strange.start() + 1), "this character is half of one, so that no column or text can have it")
    offset, line, start = 0, 1, 0
    while offset < len(text):
        at = Place(line, offset - start + 1)
        if (found := _TOKEN.match(text, offset)) is None:
            _refuse(text[offset], at)
        kind, value = str(found.lastgroup), found.group()
        if kind != "space":
            yield Token(kind, _value(kind, value), at)
        offset = found.end()
        if "\n" in value:
            line, start = line + value.count("\n"), offset - (len(value) - value.rindex("\n") - 1)
    yield Token("end", "", Place(line, offset - start + 1))


def _value(kind: str, value: str) -> str:
    if kind in ("name", "text"):
        return value[1:-1].replace(value[0] * 2, value[0])
    if kind == "word" and value.lower() in KEYWORDS:
        return value.lower()
    return _SAME.get(value, value)


def _refuse(character: str, at: Place) -> NoReturn:
    if character in "\"'`":
        fail(at, f"what starts with {character} here is not closed")
    fail(at, f"{character!r} means nothing here; a column of such a name stands in backticks, as `my column`")
