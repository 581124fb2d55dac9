"""Where the prompt ends, when both sides hold it: conversations are cut at a turn, texts at a word."""

from __future__ import annotations

from itertools import takewhile

from curate.canon import Message, Pair, Refused
from curate.values import assistant_turn, user_turn


def split_conversations(chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> Pair:
    """The turns that both conversations share are the prompt; at least the last turn of each is its completion.

    Sides that diverge before the last turn keep all that follows the divergence as completion.
    """
    shared = len(list(takewhile(lambda turns: turns[0] == turns[1], zip(chosen[:-1], rejected[:-1], strict=False))))
    if shared == 0:
        raise Refused("the two conversations share no turn that could be the prompt")
    return Pair(chosen[:shared], chosen[shared:], rejected[shared:])


def split_texts(chosen: str, rejected: str) -> Pair:
    """The words that both texts share at their beginning are the prompt; white space opens the completion.

    "The sky is blue" / "The sky is black" share the characters "The sky is bl", but the words "The sky is".
    Where one text is the other's beginning, it keeps its last word as its completion.
    """
    shared = sum(1 for _ in takewhile(lambda letters: letters[0] == letters[1], zip(chosen, rejected, strict=False)))
    last = min(len(chosen.rstrip()), len(rejected.rstrip())) - 1
    cut = next((i for i in range(min(shared, last), 0, -1) if chosen[i].isspace() and rejected[i].isspace()), 0)
    while cut and chosen[cut - 1].isspace():
        cut -= 1
    if not cut:
        raise Refused("the two texts share no beginning that could be the prompt")
    return Pair(user_turn(chosen[:cut]), assistant_turn(chosen[cut:]), assistant_turn(rejected[cut:]))
