"""Texts as sets of hashed word triples, many texts at a time: the numeric kernel of the checks. Reads no table.

A word is a run of letters and digits, case folded in ASCII; punctuation and white space only separate words.
An ideograph, kana or hangul syllable is a word of its own. A text of n words has n shingles: each word with
the two before it, nothing before the first. Two texts are alike as far as their sets of shingles are (Jaccard).

A sketch (one-permutation MinHash) keeps of each text, in each of `BINS` ranges of hash values, the smallest
hash as one byte. Up to some 60 words that is nearly the set itself; in long texts the standard error of the
estimated similarity is √(J(1−J)/BINS), 0.035 at 0.8.

Dimension key: T texts, B bytes, W words, K bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

BINS = 128
_HASH_BITS = 44  # of a shingle; the other 20 bits of a sort key number the text
_BIN_SHIFT = np.uint64(_HASH_BITS - 7)
MAX_TEXTS = 1 << (64 - _HASH_BITS)

Bytes = NDArray[np.uint8]
Hashes = NDArray[np.uint64]
Counts = NDArray[np.int64]

_RADIX = np.uint64(0x9E3779B97F4A7C15)
_RADIX_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
_SEPARATOR, _LETTER, _OWN_WORD = range(3)


def _tables() -> tuple[Bytes, Hashes]:
    """What each byte is, and its random value; upper case has the value of lower case."""
    kind = np.zeros(256, np.uint8)
    letters = [byte for byte in range(128) if chr(byte).isalnum()]
    kind[letters] = kind[128:] = _LETTER
    kind[0xE3:0xF0] = kind[0xF0:0xF5] = _OWN_WORD  # lead bytes of ideographs, kana, hangul, emoji
    value = np.random.default_rng(1).integers(1, 2**64, 256, dtype=np.uint64)
    value[ord("A") : ord("Z") + 1] = value[ord("a") : ord("z") + 1]
    value[kind == _SEPARATOR] = 0
    return kind, value


_KIND, _VALUE = _tables()


@dataclass(frozen=True)
class Shingled:
    """What the checks know of T texts."""

    words_T: Counts
    distinct_T: Counts  # different shingles
    numbers_T: Hashes  # sum over the words that start with a digit: equal where the texts' numbers are
    smallest_TK: Hashes  # smallest hash in each bin; `EMPTY` where there is none

    def sketch(self) -> Bytes:
        """The sketches, (T, K): a byte from 1 to 255 a bin, 0 where it is empty."""
        sketch_TK = np.maximum(self.smallest_TK.astype(np.uint8), 1)
        sketch_TK[self.smallest_TK == EMPTY] = 0
        return sketch_TK


EMPTY = np.uint64(2**64 - 1)


def flat(texts: pa.Array) -> tuple[Bytes, Counts]:
    """The bytes of a large_string array without nulls, and its T+1 offsets into them."""
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    flat_B = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]] if data is not None else np.zeros(0, np.uint8)
    return flat_B, ends - ends[0]


def shingle(texts: pa.Array) -> Shingled:
    """Shingle up to `MAX_TEXTS` texts (large_string, no nulls)."""
    flat_B, ends = flat(texts)
    starts, hashes_W = _words(flat_B, ends)
    bounds = np.searchsorted(starts, ends)
    words_T = np.diff(bounds)
    digit_W = (flat_B[starts] >= ord("0")) & (flat_B[starts] <= ord("9"))
    sums = np.concatenate([[np.uint64(0)], np.cumsum(_mix(hashes_W) * digit_W, dtype=np.uint64)])
    text_W = np.repeat(np.arange(len(texts), dtype=np.uint64), words_T)
    keys = (text_W << np.uint64(_HASH_BITS)) | (_triples(hashes_W, text_W) >> np.uint64(64 - _HASH_BITS))
    keys.sort()
    distinct = keys[_first(keys)]
    return Shingled(
        words_T,
        np.bincount((distinct >> np.uint64(_HASH_BITS)).astype(np.int64), minlength=len(texts)),
        sums[bounds[1:]] - sums[bounds[:-1]],
        _smallest(distinct, len(texts)),
    )


def _words(flat_B: Bytes, ends: Counts) -> tuple[Counts, Hashes]:
    """Where the words start, and their hashes: Σ value·radixⁱ over a word's bytes, i from its start."""
    cleaned_B = _without_marks(flat_B)
    kind_B = _KIND.take(cleaned_B)
    word_B = kind_B != _SEPARATOR
    start_B = word_B.copy()
    start_B[1:] &= ~word_B[:-1]
    start_B |= kind_B == _OWN_WORD
    begins = ends[:-1][np.diff(ends) > 0]
    start_B[begins] = word_B[begins]
    starts = np.flatnonzero(start_B)
    if not len(starts):
        return starts, np.zeros(0, np.uint64)
    powers, inverses = _powers(1 << int(len(flat_B) - 1).bit_length())
    values_B = _VALUE.take(cleaned_B, mode="clip")
    values_B *= powers[: len(flat_B)]
    return starts, np.add.reduceat(values_B, starts) * inverses[starts]


def _without_marks(flat_B: Bytes) -> Bytes:
    """The same bytes with the punctuation of U+0080–00BF and U+2000–2FFF as spaces."""
    leads = np.flatnonzero((flat_B == 0xE2) | (flat_B == 0xC2))
    if not len(leads):
        return flat_B
    cleaned_B = flat_B.copy()
    cleaned_B[leads] = cleaned_B[leads + 1] = ord(" ")
    cleaned_B[leads[flat_B[leads] == 0xE2] + 2] = ord(" ")
    return cleaned_B


@lru_cache(maxsize=4)
def _powers(size: int) -> tuple[Hashes, Hashes]:
    both = []
    for radix in (_RADIX, _RADIX_INVERSE):
        factors = np.full(size, radix)
        factors[0] = 1
        both.append(np.multiply.accumulate(factors))
    return both[0], both[1]


def _triples(hashes_W: Hashes, text_W: Hashes) -> Hashes:
    """Each word hashed with the two before it in its text."""
    found = hashes_W.copy()
    for distance, factor in ((1, np.uint64(0xD6E8FEB86659FD93)), (2, np.uint64(0xA0761D6478BD642F))):
        same = text_W[distance:] == text_W[:-distance]
        found[distance:] += _mix(hashes_W[:-distance] * factor) * same
    return _mix(found)


def _mix(hashes: Hashes) -> Hashes:
    """Spread entropy over all bits."""
    mixed = hashes ^ (hashes >> np.uint64(32))
    mixed *= np.uint64(0xE7037ED1A0B428DB)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0x8EBC6AF09C88C6E3)
    mixed ^= mixed >> np.uint64(32)
    return mixed


def _first(keys: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Where sorted keys differ from the one before."""
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    return first


def _smallest(distinct: Hashes, texts: int) -> Hashes:
    bins = distinct >> _BIN_SHIFT
    heads = _first(bins)
    smallest = np.full(texts * BINS, EMPTY)
    smallest[bins[heads].astype(np.int64)] = distinct[heads] & np.uint64((1 << int(_BIN_SHIFT)) - 1)
    return smallest.reshape(texts, BINS)


def similarity(first_NK: Bytes, second_NK: Bytes) -> NDArray[np.float32]:
    """Estimated Jaccard similarity of sketches, row by row; 0 where both are empty.

    Sketches [3, 0, 7] and [3, 5, 0] share one of three bins that are not empty in both: 1/3.
    """
    filled = ((first_NK | second_NK) != 0).sum(axis=1)
    same = ((first_NK == second_NK) & (first_NK != 0)).sum(axis=1)
    return np.asarray(same / np.maximum(filled, 1), np.float32)


BANDS = 16


def bands(prompt: Shingled, chosen: Shingled, rejected: Shingled) -> Hashes:
    """Per pair `BANDS` keys, (N, BANDS): pairs alike in the prompt and in both sides share one with near certainty.

    A key takes one bin of the prompt and three of the two sides together, so that it does not matter which
    side is chosen. At a similarity of 0.8 throughout, a key is shared with probability 0.8⁴ = 0.41,
    one of 16 with 0.9998; at 0.4, 0.34.
    """
    prompt_NK = _fill(_fold(prompt.smallest_TK, BANDS))
    sides_NK = _fill(_fold(np.minimum(chosen.smallest_TK, rejected.smallest_TK), BINS // 2))
    keys = prompt_NK * np.uint64(0xD6E8FEB86659FD93)
    for member in range(3):
        keys = _mix(keys ^ sides_NK[:, member * BANDS : (member + 1) * BANDS])
    return keys


def _fold(smallest_TK: Hashes, bins: int) -> Hashes:
    """Fewer, wider bins."""
    return np.asarray(smallest_TK.reshape(len(smallest_TK), -1, bins).min(axis=1))


def _fill(smallest_TK: Hashes) -> Hashes:
    """Empty bins take the value of the next that is not, around the end."""
    filled = smallest_TK.copy()
    for distance in (1 << step for step in range(smallest_TK.shape[1].bit_length())):
        np.copyto(filled, np.roll(filled, -distance, axis=1), where=filled == EMPTY)
    return filled
