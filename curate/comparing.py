"""A label that says which of two responses is preferred → a pair with that one as chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from curate.canon import Message, Pair, Refused
from curate.values import Values, assistant_turn, number_from

#: Preferred response (1, 2, or 0 for a tie) → a vote for the first one.
SIGN = {0: 0, 1: 1, 2: -1}


def choice_in(values: Values, name: str, meaning: Mapping[Any, int], expected: str) -> int:
    """Which response a label prefers: 1, 2, or 0 for a tie."""
    value = values.get(name)
    key = number_from(value)
    found = meaning.get(value if key is None and isinstance(value, str) else key)
    if found is None:
        raise Refused(f"{name} is {value!r}: expected {expected}")
    return found


def labelled(pair: Pair, preferred: int) -> Pair:
    """The pair with the preferred response (1, 2, or 0 for a tie) as chosen.

    Votes and ratings come in for the responses as they stand and leave counted for the label.
    """
    tied = replace(pair, tie=preferred == 0)
    return tied.swap() if preferred == 2 else tied


def compared(prompt: tuple[Message, ...], first: str, second: str, preferred: int, **more: Any) -> Pair:
    """A pair of two responses that are texts; `more` are votes, ratings and source, as in `Pair`."""
    return labelled(Pair(prompt, assistant_turn(first), assistant_turn(second), **more), preferred)
