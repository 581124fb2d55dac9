"""The messages of a prompt or side, many pairs at a time: texts, roles, scripts, loops. Reads columns of `pairs`.

Dimension key: N pairs, S scripts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.shingles import Shingled, flat, shingle

#: Stands between the turns where they are joined.
TURN_END = "\x1f"


@dataclass(frozen=True)
class Turns:
    """One column of messages. An empty list of messages has empty texts and roles."""

    messages: pa.ListArray

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each list starts among the messages, and where the last ends."""
        starts = self.messages.offsets.to_numpy().astype(np.int64)
        return np.asarray(starts - starts[0])

    @cached_property
    def contents(self) -> pa.Array:
        """All messages' contents."""
        return pc.fill_null(self.messages.flatten().field("content"), "")

    @cached_property
    def roles(self) -> pa.Array:
        """All messages' roles."""
        return pc.fill_null(self.messages.flatten().field("role"), "")

    @cached_property
    def is_last(self) -> NDArray[np.bool_]:
        """Which messages are the last of their list."""
        last = np.zeros(len(self.contents), bool)
        last[self.starts[1:][self.count > 0] - 1] = True
        return last

    @cached_property
    def count(self) -> NDArray[np.int64]:
        """Messages per list."""
        return np.diff(self.starts)

    @cached_property
    def text(self) -> pa.Array:
        """The contents, joined."""
        return self._joined(self.contents, np.ones(len(self.contents), bool))

    @cached_property
    def role(self) -> pa.Array:
        """The roles, joined."""
        return self._joined(self.roles, np.ones(len(self.roles), bool))

    @cached_property
    def last(self) -> pa.Array:
        """The last message's content."""
        return self._joined(self.contents, self.is_last)

    @cached_property
    def last_role(self) -> pa.Array:
        """The last message's role."""
        return self._joined(self.roles, self.is_last)

    @cached_property
    def asked(self) -> pa.Array:
        """What user and system say before the last message, joined."""
        asking = pc.is_in(self.roles, pa.array(["user", "system"])).to_numpy(zero_copy_only=False)
        return self._joined(self.contents, np.asarray(asking, bool) & ~self.is_last)

    def _joined(self, texts: pa.Array, among: NDArray[np.bool_]) -> pa.Array:
        if among.all() and len(texts) == len(self.messages) and (self.count == 1).all():
            return texts.cast(pa.large_string())
        offsets = np.concatenate([[0], np.cumsum(among)])[self.starts]
        lists = pa.ListArray.from_arrays(
            offsets.astype(np.int32), texts.filter(pa.array(among)).cast(pa.large_string())
        )
        return pc.binary_join(lists, pa.scalar(TURN_END, pa.large_string()))

    @cached_property
    def shingled(self) -> Shingled:
        """Shingles of the joined text."""
        return shingle(self.text)

    @cached_property
    def scripts(self) -> NDArray[np.int64]:
        """Letters of each of `SCRIPTS` in the joined text."""
        return count_scripts(self.text)


# --- scripts -------------------------------------------------------------------------------------

#: Name → ranges of code points. One name for Han and kana, which Japanese mixes.
_BLOCKS = {
    "Latin": [(0x41, 0x5B), (0x61, 0x7B), (0xC0, 0x250), (0x1E00, 0x1F00)],
    "Greek": [(0x370, 0x400), (0x1F00, 0x2000)],
    "Cyrillic": [(0x400, 0x530)],
    "Armenian": [(0x530, 0x590)],
    "Hebrew": [(0x5C0, 0x600)],
    "Arabic": [(0x600, 0x700), (0x740, 0x780)],
    "Devanagari": [(0x900, 0x980)],
    "Bengali": [(0x980, 0xA00)],
    "Tamil": [(0xB80, 0xC00)],
    "Telugu": [(0xC00, 0xC80)],
    "Thai": [(0xE00, 0xE80)],
    "Georgian": [(0x1080, 0x1100)],
    "Chinese or Japanese": [(0x3040, 0x3100), (0x3400, 0xA000)],
    "Hangul": [(0x1100, 0x1200), (0xAC00, 0xD7C0)],
}
SCRIPTS = tuple(_BLOCKS)
_NO_SCRIPT = len(SCRIPTS)


def _script_table() -> NDArray[np.uint8]:
    """The script of each code point of the basic plane, by blocks of 64: what a lead byte and the next tell."""
    table = np.full(0x10000 >> 6, _NO_SCRIPT, np.uint8)
    for number, ranges in enumerate(_BLOCKS.values()):
        for low, high in ranges:
            table[low >> 6 : -(-high // 64)] = number
    return table


_SCRIPT_OF_BLOCK = _script_table()
_ASCII_LETTER = np.array([chr(byte).isascii() and chr(byte).isalpha() for byte in range(256)])


def count_scripts(texts: pa.Array) -> NDArray[np.int64]:
    """Letters by script, (N, S), in a large_string array without nulls; exact to 64 code points."""
    flat_B, ends = flat(texts)
    leads = np.flatnonzero(flat_B >= 0xC3)
    leads = leads[flat_B[leads] < 0xF0]
    scripts = _SCRIPT_OF_BLOCK[_block(flat_B, leads)]
    text_of_lead = np.searchsorted(ends, leads, side="right") - 1
    width = len(SCRIPTS) + 1
    counts = np.bincount(text_of_lead * width + scripts, minlength=len(texts) * width).reshape(len(texts), width)
    letters = np.concatenate([[0], np.cumsum(_ASCII_LETTER.take(flat_B))])
    counts[:, 0] += np.diff(letters[ends])
    return counts[:, :_NO_SCRIPT]


def _block(flat_B: NDArray[np.uint8], leads: NDArray[np.int64]) -> NDArray[np.int64]:
    """Code point // 64 of the characters of two or three bytes that start at `leads`."""
    lead, following = flat_B[leads].astype(np.int64), flat_B[leads + 1].astype(np.int64) & 0x3F
    return np.where(lead < 0xE0, lead & 0x1F, (lead & 0x0F) << 6 | following)


# --- loops ---------------------------------------------------------------------------------------

_WORD = re.compile(r"\w+|[^\w\s]")
_LONGEST_PERIOD = 60
_SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？]*")


@dataclass(frozen=True)
class Loop:
    """A passage that a text repeats."""

    passage: str
    times: int
    share: float  # of the text's words


def find_loop(text: str) -> Loop | None:
    """The words that a text repeats in a row, or the line or sentence that it repeats most, whichever covers more."""
    spans = [(match.start(), match.end()) for match in _WORD.finditer(text)]
    found = [loop for loop in (_running(text, spans), _recurring(text, len(spans))) if loop is not None]
    return max(found, key=lambda loop: loop.share, default=None)


def _running(text: str, spans: Sequence[tuple[int, int]]) -> Loop | None:
    """The longest stretch in which every word equals the one `period` words before it."""
    known: dict[str, int] = {}
    words = np.array([known.setdefault(text[start:end].casefold(), len(known)) for start, end in spans])
    best = (0, 0, 0)  # words, −period, start
    for period in range(1, min(_LONGEST_PERIOD, len(words) // 2) + 1):
        same = np.concatenate([[0], words[period:] == words[:-period], [0]]).astype(np.int8)
        turns = np.flatnonzero(np.diff(same))
        if len(turns):
            lengths = turns[1::2] - turns[::2]
            longest = int(lengths.argmax())
            best = max(best, (int(lengths[longest]) + period, -period, int(turns[2 * longest])))
    length, period, start = best[0], -best[1], best[2]
    if not period:
        return None
    passage = text[spans[start][0] : spans[start + period - 1][1]]
    return Loop(passage.lstrip(' .,;:-"') or passage, length // period, length / len(spans))


def _recurring(text: str, words: int) -> Loop | None:
    """The line or sentence that recurs most, not counting those without a letter."""
    pieces = [" ".join(piece.split()) for piece in _SENTENCE.findall(text)]
    counts = Counter(piece for piece in pieces if any(letter.isalpha() for letter in piece))
    repeated = [item for item in counts.items() if item[1] > 1]
    if not repeated:
        return None
    piece, times = max(repeated, key=lambda item: item[1] * len(item[0]))
    return Loop(piece, times, times * len(_WORD.findall(piece)) / max(words, 1))
