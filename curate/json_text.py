"""A JSON object's text, changed in some members and left as it is, byte for byte, in all others."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def edited(text: str, moves: Mapping[str, str], values: Mapping[str, Any]) -> str:
    """The text of an object with other values.

    Args:
        text: a JSON object. Of members with the same name the last counts.
        moves: name → the member whose text its value gets.
        values: name → a new value; a member of this name that is not there is added at the end.
    """
    spans, end = _members(text)
    new = {name: text[slice(*spans[other])] for name, other in moves.items()}
    new |= {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    pieces, at = [], 0
    for name, (start, stop) in sorted(spans.items(), key=lambda item: item[1]):
        if name in new:
            pieces += [text[at:start], new[name]]
            at = stop
    added = ", ".join(f"{json.dumps(name)}: {new[name]}" for name in new if name not in spans)
    comma = ", " if added and spans else ""
    return "".join([*pieces, text[at:end], comma, added, text[end:]])


def _members(text: str) -> tuple[dict[str, tuple[int, int]], int]:
    """Where each member's value starts and stops, and where the last stops."""
    found: dict[str, tuple[int, int]] = {}
    end = at = text.index("{") + 1
    while text[at := _skip(text, at)] != "}":
        name, at = _DECODER.raw_decode(text, at)
        start = _skip(text, _skip(text, at) + 1)
        _, end = _DECODER.raw_decode(text, start)
        found[name] = (start, end)
        at = _skip(text, end)
        at += text[at] == ","
    return found, end


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
