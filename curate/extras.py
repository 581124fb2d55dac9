"""What a row of any format may carry besides its texts: where it comes from, who labelled it, ratings, ties."""

from __future__ import annotations

from dataclasses import replace

from curate.canon import Pair, Vote
from curate.values import Values, kind_of, number_from, text_in, valid_unicode

_SOURCE_COLUMNS = ("source", "dataset")
_ANNOTATOR_COLUMNS = ("annotator", "annotator_id", "worker")
RATING_COLUMNS = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_rating", "rejected_rating"),
    ("chosen_avg_rating", "rejected_avg_rating"),
    ("rating_chosen", "rating_rejected"),
)
#: By which a line that `curate export` wrote is known: other people's `tie` may be anything.
_EXPORTED = frozenset({"pair_id", "decision"})


def with_extras(pair: Pair, values: Values) -> Pair:
    """Add source, annotator and ratings from their usual columns, where the format has not set them.

    A line that `curate export` wrote says in `tie` whether it is one.
    """
    source = next((text_in(values, name) for name in _SOURCE_COLUMNS if kind_of(values.get(name)) == "text"), None)
    annotator = next(
        (values[name] for name in _ANNOTATOR_COLUMNS if kind_of(values.get(name)) in ("text", "number")), None
    )
    ratings = (pair.rating_chosen, pair.rating_rejected)
    if None in ratings:
        found = (
            (number_from(values.get(chosen)), number_from(values.get(rejected))) for chosen, rejected in RATING_COLUMNS
        )
        ratings = next((both for both in found if None not in both), (None, None))
    tie = pair.tie or (values.get("tie") is True and values.keys() >= _EXPORTED)
    votes = pair.votes
    if not votes and annotator is not None:
        votes = (Vote(valid_unicode("the annotator", str(annotator)), 0 if tie else 1),)
    return replace(
        pair,
        tie=tie,
        source=pair.source or source,
        votes=votes,
        rating_chosen=ratings[0],
        rating_rejected=ratings[1],
    )
