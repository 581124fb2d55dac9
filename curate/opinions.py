"""Which signals speak when a predicate holds: a flip needs two that agree.

Columns that come from one source are one signal. Length is none: longer is preferred in most data, noise included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import reduce

from curate.expressions import And, Column, Compare, Missing, Node, Not, Or, Text, parts
from curate.schema import DIAGNOSIS, PAIRS, PASSES, SCORES

EVIDENCE = "the evidence"
POLICY = "the policy's log-probs"
RATINGS = "the ratings"
REWARDS = "the reward model"
VOTES = "the annotators' votes"

_SIDES = ("chosen", "rejected")
#: Signals and what they rest on. The votes of several signals are mostly those of the evidence's own parts.
_SOURCE = {
    **dict.fromkeys(("p_flip", "evidence", "given", "likelihood", "hidden_middle", "hidden_last"), EVIDENCE),
    **dict.fromkeys(("fused", "fused_random_folds", "fused_length_controlled", "vote_majority", "vote_all"), EVIDENCE),
    **dict.fromkeys(("margin", "target_margin", "weight", "log_prob", "prompt_gain", "ifd", "ifd_gap"), POLICY),
    **{f"{name}_{side}_logp": POLICY for name in PASSES for side in _SIDES},
    **dict.fromkeys(("rating", "rating_chosen", "rating_rejected"), RATINGS),
    **dict.fromkeys(("reward_model", "reward_chosen", "reward_rejected"), REWARDS),
    **dict.fromkeys(("votes_for", "votes_against", "votes_tied"), VOTES),
}
#: The one way in which `kind` is an opinion.
_FLIPPED = Compare("=", Column("kind"), Text("flipped"))
_NO_OPINION = {"length", "token_difference", "annotators", "turns", *PAIRS.names, *SCORES.names, *DIAGNOSIS.names}


def source_of(name: str) -> str | None:
    """What a column's opinion on a pair's label rests on; None where it has none. Other columns come from a file."""
    return _SOURCE.get(name) or (None if name in _NO_OPINION else name)


def lonely(predicate: Node) -> frozenset[str] | None:
    """The fewest signals by which a predicate can hold, if those are less than two: one, or none; else None."""
    fewest = min(_ways(predicate, negated=False), key=lambda signals: (len(signals), sorted(signals)))
    return fewest if len(fewest) < 2 else None


_Ways = frozenset[frozenset[str]]
_ENOUGH = frozenset({"one", "another"})


def _ways(node: Node, *, negated: bool) -> _Ways:
    """The sets of signals that suffice for a predicate to hold (or not to): `or` is a choice, `and` needs all."""
    match node:
        case Not(operand):
            return _ways(operand, negated=not negated)
        case And(operands) | Or(operands):
            each = [_ways(part, negated=negated) for part in operands]
            return reduce(_both if isinstance(node, And) is not negated else frozenset.union, each)
    if node == _FLIPPED and not negated:
        return frozenset({frozenset({EVIDENCE})})
    return frozenset({_capped(frozenset(_sources(node)))})


def _both(some: _Ways, others: _Ways) -> _Ways:
    return frozenset(_capped(one | other) for one in some for other in others)


def _capped(signals: frozenset[str]) -> frozenset[str]:
    """Two are as good as more, so that there are few sets."""
    return signals if len(signals) < 2 else _ENOUGH


def _sources(node: Node) -> Iterator[str]:
    """What the signals in a comparison rest on; that one is there is no opinion."""
    if isinstance(node, Column) and (source := source_of(node.name)) is not None:
        yield source
    for part in parts(node) if not isinstance(node, Missing) else ():
        yield from _sources(part)


def named(signals: Iterable[str]) -> str:
    """Signals in words."""
    return " and ".join(sorted(signals)) or "no signal"
