"""A JSON array read one element at a time, with each element's place and text.

Only the element being read is in memory. (Streaming parsers exist, but none tells an element's line and its exact text,
which messages and untouched originals need.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

_SPACE = " \t\r\n"


class BrokenJsonError(ValueError):
    """The text is not a JSON array. line and column count from 1."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.message, self.line, self.column = message, line, column


@dataclass(frozen=True, slots=True)
class Element:
    """One element of the array: its value, the line where it starts, and its text."""

    value: object
    line: int
    text: str


def read_array(stream: TextIO, chunk: int, within: str | None = None) -> Iterator[Element]:
    """Yield the array's elements.

    Args:
        stream: opened with `newline=""`, so that the text stays as it is.
        chunk: characters to read at a time.
        within: the array is not the whole text, but the value of this key of the one object that is.

    Raises:
        BrokenJsonError: the text is not a JSON array, is cut off, or goes on after it.
    """
    text = _Text(stream, chunk)
    if within is None:
        yield from _elements(text)
    else:
        yield from _elements_of_key(text, within)
    if text.peek():
        raise text.broken(f"there is text after the closing {']' if within is None else '}'}")


def _elements_of_key(text: _Text, key: str) -> Iterator[Element]:
    text.expect("{", "an object must start with {")
    found = False
    while True:
        name = text.name()
        text.expect(":", "Expecting ':' delimiter")
        if name == key and text.peek() == "[":
            found = True
            yield from _elements(text)
        else:
            text.value()
        if text.peek() != ",":
            break
        text.advance(1)
    text.expect("}", "Expecting ',' delimiter" if text.peek() else "the object is not closed; the file may be cut off")
    if not found:
        raise text.broken(f"the object has no list {key!r}")


def _elements(text: _Text) -> Iterator[Element]:
    text.expect("[", "a list must start with [")
    if text.peek() != "]":
        yield text.element()
        while text.peek() == ",":
            text.advance(1)
            text.peek()
            yield text.element()
    text.expect("]", "Expecting ',' delimiter" if text.peek() else "the list is not closed; the file may be cut off")


class _Text:
    """The text from the current position on: a buffer that is refilled, and where in the file it stands."""

    def __init__(self, stream: TextIO, chunk: int) -> None:
        self.stream, self.chunk = stream, chunk
        self.buffer, self.at = "", 0
        self.line, self.column = 1, 1
        self.decoder = json.JSONDecoder()

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            start = self.at
            while start < len(self.buffer) and self.buffer[start] in _SPACE:
                start += 1
            self.advance(start - self.at)
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if not self._refill(self.chunk):
                return ""

    def advance(self, characters: int) -> None:
        """Move on, counting lines."""
        stop = self.at + characters
        newlines = self.buffer.count("\n", self.at, stop)
        if newlines:
            self.line += newlines
            self.column = stop - self.buffer.rfind("\n", self.at, stop)
        else:
            self.column += characters
        self.at = stop

    def expect(self, character: str, otherwise: str) -> None:
        """Take this character, or complain."""
        if self.peek() != character:
            raise self.broken(otherwise)
        self.advance(1)

    def element(self) -> Element:
        """Decode the value that starts here, reading on while it is incomplete."""
        while True:
            try:
                value, stop = self.decoder.raw_decode(self.buffer, self.at)
            except json.JSONDecodeError as error:
                if not (self._incomplete(error) and self._refill(max(self.chunk, len(self.buffer) - self.at))):
                    raise self._located(error) from error
                continue
            except (RecursionError, ValueError) as error:
                raise self.broken("nested too deeply" if isinstance(error, RecursionError) else str(error)) from error
            if stop == len(self.buffer) and self._refill(self.chunk):
                continue  # a number may go on behind the buffer's end
            line, text = self.line, self.buffer[self.at : stop]
            self.advance(stop - self.at)
            return Element(value, line, text)

    def value(self) -> object:
        """Decode the value that comes next."""
        self.peek()
        return self.element().value

    def name(self) -> str:
        """Decode the name of an object's member."""
        if self.peek() != '"':
            raise self.broken("Expecting property name enclosed in double quotes")
        return str(self.value())

    def broken(self, message: str) -> BrokenJsonError:
        """An error at the current position."""
        return BrokenJsonError(message, self.line, self.column)

    def _incomplete(self, error: json.JSONDecodeError) -> bool:
        """Whether more text could mend it: it went wrong at the buffer's end, or within an open string."""
        return error.pos >= len(self.buffer) - 16 or error.msg.startswith("Unterminated string")

    def _located(self, error: json.JSONDecodeError) -> BrokenJsonError:
        self.advance(error.pos - self.at)
        return self.broken(error.msg)

    def _refill(self, characters: int) -> bool:
        """Read on, dropping what is done; False at the end of the file."""
        more = self.stream.read(characters)
        if more:
            self.buffer, self.at = self.buffer[self.at :] + more, 0
        return bool(more)
