"""Pairs that concern one another: repeated, contradicting, circular and nearly the same. Works on hashes of all pairs.

Reads no table: `checks.py` makes the `Keys` while it reads the pairs, and registers the four checks.

Dimension key: N pairs, K bins of a sketch, B bands, L links.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from curate.shingles import similarity

Index = NDArray[np.int64]
Hashes = NDArray[np.uint64]

#: A position among the pairs, and the evidence in words.
Found = Iterator[tuple[int, str]]

_SLAB = 65_536
_WINDOW = 2  # in a bucket of look-alikes each pair is compared with the first and with this many before it
_MOST_ROUNDS = 50
_MOST_ROWS_NAMED = 5


@dataclass(frozen=True)
class Keys:
    """What is kept of each pair while all are read, in the input's order."""

    row_N: Index
    tie_N: NDArray[np.bool_]
    text_N3: Hashes  # of prompt, chosen, rejected, with their roles; equal where they are
    numbers_N3: Hashes  # of the numbers in each; equal where they are
    sketch_N3K: NDArray[np.uint8]
    bands_NB: Hashes

    @property
    def ordered(self) -> Hashes:
        """Equal where prompt, chosen and rejected are."""
        return _combine(self.text_N3[:, 0], _combine(self.text_N3[:, 1], self.text_N3[:, 2]))

    @property
    def unordered(self) -> Hashes:
        """Equal where the prompt and the two sides are, whichever is chosen."""
        sides_N2 = np.sort(self.text_N3[:, 1:], axis=1)
        return _combine(self.text_N3[:, 0], _combine(sides_N2[:, 0], sides_N2[:, 1]))


def _combine(first_N: Hashes, second_N: Hashes) -> Hashes:
    mixed = first_N * np.uint64(0xD6E8FEB86659FD93)
    mixed ^= mixed >> np.uint64(32)
    mixed = (mixed + second_N) * np.uint64(0xA0761D6478BD642F)
    return np.asarray(mixed ^ (mixed >> np.uint64(29)))


def _earliest(key_N: Hashes) -> Index:
    """For each pair the position of the first with the same key."""
    _, first, group_N = np.unique(key_N, return_index=True, return_inverse=True)
    return first[group_N]


# --- the same texts ------------------------------------------------------------------------------


def duplicate(keys: Keys) -> Found:
    """Second and later copies; a tie has no order, and is no copy of a labelled pair."""
    key_N = _combine(np.where(keys.tie_N, keys.unordered, keys.ordered), keys.tie_N.astype(np.uint64))
    earliest_N = _earliest(key_N)
    for index in np.flatnonzero(earliest_N != np.arange(len(key_N))):
        yield int(index), f"the same as row {keys.row_N[earliest_N[index]]}"


def opposite_label(keys: Keys) -> Found:
    """Every labelled pair whose sides are labelled the other way round elsewhere."""
    chosen_N, rejected_N = keys.text_N3[:, 1], keys.text_N3[:, 2]
    labelled = np.flatnonzero(~keys.tie_N & (chosen_N != rejected_N))
    earliest = _earliest_opposite(keys.unordered[labelled], chosen_N[labelled] < rejected_N[labelled])
    for place in np.flatnonzero(earliest < len(labelled)):
        other = keys.row_N[labelled[earliest[place]]]
        yield int(labelled[place]), f"also in row {other} with the sides swapped"


def _earliest_opposite(key_N: Hashes, order_N: NDArray[np.bool_]) -> Index:
    """The first position with the same key and the other order; N where there is none."""
    groups, group_N = np.unique(key_N, return_inverse=True)
    first = np.full((len(groups), 2), len(key_N))
    np.minimum.at(first, (group_N, order_N.astype(np.int64)), np.arange(len(key_N)))
    return first[group_N, 1 - order_N.astype(np.int64)]


# --- cycles --------------------------------------------------------------------------------------


def cycle(keys: Keys) -> Found:
    """Pairs on a circle a ≻ b ≻ c ≻ a of three or more responses to one prompt.

    Pairs with an opposite label are set aside first: they have a check of their own.
    """
    chosen_N, rejected_N = keys.text_N3[:, 1], keys.text_N3[:, 2]
    labelled_N = ~keys.tie_N & (chosen_N != rejected_N)
    _, prompt_N, size = np.unique(keys.text_N3[:, 0], return_inverse=True, return_counts=True)
    edges = np.flatnonzero(labelled_N & (size[prompt_N] >= 3))
    opposite = _earliest_opposite(keys.unordered[edges], chosen_N[edges] < rejected_N[edges])
    edges = edges[opposite == len(edges)]
    prompt, chosen, rejected = keys.text_N3[edges].T
    component = _circles(_combine(prompt, chosen), _combine(prompt, rejected))
    members: dict[int, list[int]] = {}
    for edge in np.flatnonzero(component >= 0):
        members.setdefault(int(component[edge]), []).append(int(edge))
    for circle in members.values():
        responses = len(np.unique(keys.text_N3[edges[circle], 1]))
        rows = _listed(keys.row_N[edges[circle]])
        for place in circle:
            yield int(edges[place]), f"{responses} responses beat one another in a circle (rows {rows})"


def _circles(winner_L: Hashes, loser_L: Hashes) -> Index:
    """The strongly connected component of each edge; −1 where its ends are in two."""
    nodes, ends = np.unique(np.concatenate([winner_L, loser_L]), return_inverse=True)
    winner, loser = ends[: len(winner_L)], ends[len(winner_L) :]
    graph = coo_array((np.ones(len(winner)), (winner, loser)), shape=(len(nodes), len(nodes)))
    _, component = connected_components(graph.tocsr(), directed=True, connection="strong")
    return np.where(component[winner] == component[loser], component[winner], -1).astype(np.int64)


def _listed(rows: Index) -> str:
    named = ", ".join(map(str, rows[:_MOST_ROWS_NAMED]))
    return named + (f" and {len(rows) - _MOST_ROWS_NAMED} more" if len(rows) > _MOST_ROWS_NAMED else "")


# --- nearly the same -----------------------------------------------------------------------------


def near_duplicate(keys: Keys, *, similarity: float = 0.8) -> Found:
    """Pairs that are nearly the same as an earlier one, in the prompt and in both sides, in either order.

    Each pair found is like an earlier pair that is not itself found, so that what is left still covers it.
    """
    _, first = np.unique(keys.unordered, return_index=True)  # exact copies have checks of their own
    pairs = _Candidates(keys, first.astype(np.int64), similarity)
    for index, leader, alike, swapped in pairs.followers():
        order = ", with the sides swapped" if swapped else ""
        yield index, f"{alike:.0%} like row {keys.row_N[leader]}{order}"


@dataclass(frozen=True)
class _Candidates:
    """Different pairs, among which to find those that are alike. Their order is one of content, not of position."""

    keys: Keys
    pairs: Index
    least: float

    def followers(self) -> Iterator[tuple[int, int, float, bool]]:
        """Pair, the earlier pair that it is like, how much, and whether with its sides swapped.

        In rounds: the earliest of each component of links leads, those like it follow, the rest form the next round.
        """
        component = self._components()
        left = np.argsort(self.pairs)
        left = left[np.bincount(component)[component[left]] > 1]
        for _ in range(_MOST_ROUNDS):
            groups, head, group = np.unique(component[left], return_index=True, return_inverse=True)
            if len(groups) == len(left):
                return
            leader = left[head][group]
            alike, swapped = self._alike(left, leader)
            follows = (alike >= self.least) & (left != leader)
            for place in np.flatnonzero(follows):
                ends = int(self.pairs[left[place]]), int(self.pairs[leader[place]])
                yield *ends, float(alike[place]), bool(swapped[place])
            left = left[~follows & (left != leader)]

    def _components(self) -> Index:
        """The component of each pair under the links that bear scrutiny."""
        component = np.arange(len(self.pairs))
        links = np.zeros((2, 0), np.int64)
        for band in range(self.keys.bands_NB.shape[1]):
            found = self._links(band)
            found = found[:, component[found[0]] != component[found[1]]]
            if found.shape[1]:
                alike, _ = self._alike(*found)
                links = np.concatenate([links, found[:, alike >= self.least]], axis=1)
                component = _undirected(links, len(self.pairs))
        return component

    def _links(self, band: int) -> Index:
        """Candidate links (2, L) among pairs with the same key: to the first and to the `_WINDOW` before."""
        key = self.keys.bands_NB[self.pairs, band]
        order = np.argsort(key, kind="stable")
        key = key[order]
        starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])) if len(key) else order
        head = np.repeat(starts, np.diff(np.append(starts, len(key))))
        place = np.arange(len(key))
        sources = [place[place - distance > head] - distance for distance in range(1, _WINDOW + 1)]
        targets = [place[place - distance > head] for distance in range(1, _WINDOW + 1)]
        ends = np.concatenate([head[place > head], *sources]), np.concatenate([place[place > head], *targets])
        return np.stack([order[ends[0]], order[ends[1]]])

    def _alike(self, first: Index, second: Index) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The least of the similarities of the prompts and of the sides, matched as fits best; whether swapped.

        0 where copies differ as much as a pair's own sides do: that difference may be what the label is about.
        """
        alike, swapped = np.zeros(len(first), np.float32), np.zeros(len(first), bool)
        for start in range(0, len(first), _SLAB):
            slab = slice(start, start + _SLAB)
            one, two = self.pairs[first[slab]], self.pairs[second[slab]]
            prompt = self._texts_alike(one, two, 0, 0)
            direct = np.minimum(self._texts_alike(one, two, 1, 1), self._texts_alike(one, two, 2, 2))
            crossed = np.minimum(self._texts_alike(one, two, 1, 2), self._texts_alike(one, two, 2, 1))
            sides = np.maximum(direct, crossed)
            apart = np.maximum(self._texts_alike(one, one, 1, 2), self._texts_alike(two, two, 1, 2))
            alike[slab] = np.where((sides > apart) | (sides == 1), np.minimum(prompt, sides), 0)
            swapped[slab] = crossed > direct
        return alike, swapped

    def _texts_alike(self, one: Index, two: Index, slot: int, other: int) -> NDArray[np.float32]:
        """Similarity of texts; 1 where they are equal, 0 where their numbers differ."""
        keys = self.keys
        alike = similarity(keys.sketch_N3K[one, slot], keys.sketch_N3K[two, other])
        alike[keys.numbers_N3[one, slot] != keys.numbers_N3[two, other]] = 0
        alike[keys.text_N3[one, slot] == keys.text_N3[two, other]] = 1
        return alike


def _undirected(links: Index, nodes: int) -> Index:
    graph = coo_array((np.ones(links.shape[1]), (links[0], links[1])), shape=(nodes, nodes))
    return np.asarray(connected_components(graph.tocsr(), directed=False)[1], np.int64)
