"""Ranked answers → pairs, by a stated policy: which answer of a prompt is compared with which.

best-worst   the best with the worst: one pair a prompt
best-rest    the best with each of the others: K − 1 pairs
adjacent     each with the next in rank: K − 1 pairs
all          each with each: K·(K − 1)/2 pairs
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, pairwise

from curate.canon import Pair, Ranking, Refused

Links = Sequence[tuple[int, int]]

LINKS: dict[str, Callable[[Sequence[int]], Links]] = {
    "best-worst": lambda order: [(order[0], order[-1])],
    "best-rest": lambda order: [(order[0], other) for other in order[1:]],
    "adjacent": lambda order: list(pairwise(order)),
    "all": lambda order: list(combinations(order, 2)),
}


def pairs_of(ranking: Ranking, pairing: str) -> list[tuple[tuple[int, int], Pair]]:
    """The pairs of a ranking, each with the positions of its chosen and its rejected answer.

    Args:
        pairing: a key of `LINKS`.

    Answers of equal score are a tie in the order of the data, or no pair where the ranking says so.

    Raises:
        Refused: it has fewer than two answers, or none is better than another where ties are no pairs.
    """
    answers = ranking.answers
    if len(answers) < 2:
        raise Refused(f"{len(answers)} answer to this prompt: a pair needs two" if answers else "there are no answers")
    order = sorted(range(len(answers)), key=lambda at: -answers[at].score)
    found = []
    for better, worse in LINKS[pairing](order):
        chosen, rejected = answers[better], answers[worse]
        tie = chosen.score == rejected.score
        if tie and not ranking.ties:
            continue
        pair = Pair(
            ranking.prompt,
            chosen.turns,
            rejected.turns,
            tie=tie,
            source=ranking.source,
            rating_chosen=chosen.rating,
            rating_rejected=rejected.rating,
        )
        found.append(((better, worse), pair))
    if not found:
        raise Refused("all answers to this prompt have the same label: none is better than another")
    return found
