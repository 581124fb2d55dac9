"""A row's values as texts, messages and numbers. What is none raises `Refused` with the column and what was found."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from curate.canon import Message, Refused

Values = Mapping[str, Any]


def kind_of(value: object) -> str:
    """What a value is: null, bool, text, number, message, messages or other."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, list) and value and all(_is_message(item) for item in value):
        return "messages"
    if _is_message(value):
        return "message"
    return "other"


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and (
        ("role" in value and "content" in value) or ("from" in value and "value" in value)
    )


_ROLES = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
}


def text_in(values: Values, name: str) -> str:
    """The text in a column; only text is text (a `true` in its place is refused, not guessed at)."""
    if name not in values or values[name] is None:
        raise Refused(f"{name} is missing")
    value = values[name]
    if not isinstance(value, str):
        raise Refused(f"{name} is {describe(value)}, not text")
    return valid_unicode(name, value)


def describe(value: object) -> str:
    """A value that is not what it should be, in words."""
    kind = {"bool": "a boolean", "number": "a number", "messages": "a list of messages"}.get(kind_of(value))
    return f"{kind} ({json.dumps(value)})" if kind in ("a boolean", "a number") else kind or type(value).__name__


def valid_unicode(name: str, text: str) -> str:
    """The text, if UTF-8 can hold it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refused(f"{name} holds a lone surrogate at character {error.start + 1}: not valid Unicode") from error
    return text


def optional_text_in(values: Values, name: str) -> str:
    """The text in a column, empty where there is none."""
    return "" if values.get(name) is None else text_in(values, name)


def message_from(name: str, value: Mapping[str, Any]) -> Message:
    """One message of a column; only text content is read."""
    role = value.get("role", value.get("from"))
    content = value.get("content", value.get("value"))
    if value.get("tool_calls"):
        raise Refused(f"{name} holds tool calls: only text conversations are supported")
    if content is None:
        raise Refused(f"{name} holds a message without content")
    if not isinstance(content, str):
        raise Refused(f"{name} holds content that is {describe(content)}: only text conversations are supported")
    if not isinstance(role, str) or role not in _ROLES:
        raise Refused(f"{name} holds the role {role!r}: known are {', '.join(_ROLES)}")
    return Message(_ROLES[role], valid_unicode(name, content))


def messages_in(values: Values, name: str) -> tuple[Message, ...]:
    """The conversation in a column; a single message is one of a single turn."""
    value = values.get(name)
    if value is None:
        raise Refused(f"{name} is missing")
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Refused(f"{name} is {describe(value)}, not a list of messages")
    if not value:
        raise Refused(f"{name} is an empty conversation")
    return tuple(message_from(name, item) for item in value)


def user_turn(content: str, system: str = "") -> tuple[Message, ...]:
    """A prompt of one turn, after the system prompt if there is one."""
    turns = (Message("user", content),)
    return (Message("system", system), *turns) if system else turns


def assistant_turn(content: str) -> tuple[Message, ...]:
    """A completion of one turn."""
    return (Message("assistant", content),)


def turns_in(values: Values, name: str, role: str) -> tuple[Message, ...]:
    """The conversation in a column, or its text as one turn of that role."""
    if isinstance(values.get(name), list | dict):
        return messages_in(values, name)
    return (Message(role, text_in(values, name)),)


def records_in(values: Values, name: str) -> list[Mapping[str, Any]]:
    """The list of objects in a column."""
    value = values.get(name)
    if value is None:
        raise Refused(f"{name} is missing")
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Refused(f"{name} is {describe(value)}, not a list of objects")
    return value


def require_empty(values: Values, *names: str) -> None:
    """Refuse a row with images, tools and the like: only text is read."""
    for name in names:
        if values.get(name):
            raise Refused(f"{name} is not empty: only text conversations are supported")


def number_from(value: object) -> float | None:
    """A finite number, also one written as text; else None."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def number_in(values: Values, name: str) -> float:
    """The number in a column."""
    number = number_from(values.get(name))
    if number is None:
        raise Refused(f"{name} is {values.get(name)!r}: expected a number")
    return number


def optional_numbers_in(values: Values, name: str, key: str) -> list[float]:
    """The numbers under a key of a list of objects; what is no such list, or no number, is left out."""
    value = values.get(name)
    records = [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
    return [number for number in (number_from(record.get(key)) for record in records) if number is not None]
