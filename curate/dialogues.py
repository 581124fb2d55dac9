"""Dialogues written as one text: `\\n\\nHuman: …\\n\\nAssistant: …`, as HH-RLHF and Nectar have them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from curate.canon import Message, Refused
from curate.values import Values, text_in

_TURN = re.compile(r"\n\n(Human|Hum|Assistant): ?")


def dialogue_in(values: Values, name: str) -> tuple[Message, ...]:
    """The turns of a dialogue; a marker counts only where it opens a paragraph.

    Raises:
        Refused: it does not start with a turn.
    """
    head, *pieces = _TURN.split(text_in(values, name))
    if head.strip() or not pieces:
        raise Refused(f"{name} does not start with a turn (\\n\\nHuman: or \\n\\nAssistant:)")
    return tuple(
        Message("assistant" if speaker == "Assistant" else "user", content.strip())
        for speaker, content in zip(pieces[::2], pieces[1::2], strict=True)
    )


def is_dialogue(text: object) -> bool:
    """Whether a text starts with a turn's marker."""
    return isinstance(text, str) and _TURN.match(text) is not None


def dialogue_share(rows: Iterable[Values], name: str) -> float:
    """The share of a column's texts that are dialogues."""
    texts = [values[name] for values in rows if isinstance(values.get(name), str)]
    return sum(map(is_dialogue, texts)) / max(len(texts), 1)
