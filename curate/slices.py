"""Noise by slice: flip rates of sources, annotators, clusters, lengths and numbers of turns → `slices`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import expit

from curate.expressions import Column, Compare, Has, Text
from curate.rates import Codes, Floats, GroupRates, annotator_rates, group_rates
from curate.schema import KINDS, SLICES
from curate.view import RunView

_LENGTHS = (50, 100, 200, 400, 800)  # tokens, edges of the bins
_MOST_TURNS = 5
_UNNAMED = "unnamed"  # annotator


@dataclass(frozen=True)
class Votes:
    """V votes for or against the labels: which pair (position), whose, ±1; and the annotators' names."""

    pair_V: Codes
    annotator_V: Codes
    vote_V: Floats
    names: tuple[str, ...]


def read_votes(view: RunView) -> Votes:
    """All votes for one of the sides; those for a tie, and on pairs that are ties, say nothing about a label."""
    frame = view.sql(
        """SELECT position, ballot.annotator AS annotator, ballot.vote AS vote
           FROM (SELECT row_number() OVER (ORDER BY row) - 1 AS position, unnest(votes) AS ballot, tie FROM pairs)
           WHERE ballot.vote <> 0 AND NOT tie ORDER BY position"""
    )
    code_V, names = pd.factorize(frame["annotator"].fillna(_UNNAMED), sort=True)
    return Votes(
        frame["position"].to_numpy(dtype=np.int64),
        code_V.astype(np.int64),
        frame["vote"].to_numpy(dtype=np.float64),
        tuple(map(str, names)),
    )


def divided(votes: Votes, pairs: int) -> NDArray[np.bool_]:
    """Whether a pair's annotators are as good as divided: two or more, and the majority no more than two thirds."""
    count_N = np.bincount(votes.pair_V, minlength=pairs)
    sum_N = np.bincount(votes.pair_V, weights=votes.vote_V, minlength=pairs)
    return np.asarray((count_N >= 2) & (np.abs(sum_N) <= count_N / 3 + 1e-9))


def make_slices(
    view: RunView,
    votes: Votes,
    log_odds_N: Floats,
    learns_N: NDArray[np.bool_],
    kind_N: NDArray[np.int8],
    clusters: tuple[NDArray[np.int32], Sequence[str]] | None,
    *,
    can_tell: bool,
) -> pa.Table:
    """The slices table, worst rates first within each way of slicing.

    Args:
        log_odds_N: that chosen is the better side, NaN without evidence.
        learns_N: pairs whose labels count for a rate.
        clusters: cluster of each pair (−1: none) and the names.
    """
    counts_N = learns_N & np.isfinite(log_odds_N)
    right_N = expit(np.nan_to_num(log_odds_N))
    tables = []
    for by, code_N, names in _ways(view, clusters):
        labels = counts_N & (code_N >= 0)
        rates = group_rates(right_N[labels], code_N[labels], len(names)) if can_tell and labels.any() else None
        tables.append(_table(by, names, rates, code_N, kind_N))
    if votes.names:
        tables.append(
            _annotators(
                votes, np.where(counts_N & can_tell, np.nan_to_num(log_odds_N), 0.0), counts_N, kind_N, can_tell
            )
        )
    return pa.Table.from_pandas(pd.concat(tables, ignore_index=True), schema=SLICES, preserve_index=False)


def slice_predicate(by: str, value: str, clusters: Sequence[str]) -> str | None:
    """The pairs of a slice as a predicate of the rule language; None where the language cannot say it.

    Args:
        by, value: a line of the table. clusters: names of all clusters, as the diagnosis has them.
    """
    match by:
        case "source":
            return str(Compare("=", Column("source"), Text(value)))
        case "annotator":
            return None if value == _UNNAMED else str(Has(Text(value), Column("annotators")))
        case "cluster":
            return f"cluster = {list(clusters).index(value)}"
        case "length":
            edges = [-math.inf, *_LENGTHS, math.inf]
            at = _length_names().index(value)
            limits = {">=": edges[at], "<": edges[at + 1]}
            tokens = "(chosen_tokens + rejected_tokens) / 2"
            return " and ".join(f"{tokens} {sign} {edge}" for sign, edge in limits.items() if math.isfinite(edge))
        case "turns":
            turns = value.split()[0]
            return f"turns {'>=' if turns == str(_MOST_TURNS) else '='} {turns}"
    return None


def _ways(
    view: RunView, clusters: tuple[NDArray[np.int32], Sequence[str]] | None
) -> Iterator[tuple[str, Codes, list[str]]]:
    """Ways of slicing: name, code of each pair (−1: none), names of the codes."""
    frame = view.sql(
        """SELECT source, len(list_filter(prompt, lambda turn: turn.role = 'user')) AS turns,
                  (chosen_tokens + rejected_tokens) / 2 AS tokens
           FROM pairs JOIN scores USING (pair_id, row) ORDER BY row"""
    )
    source_N, sources = pd.factorize(frame["source"], sort=True)
    if len(sources):
        yield "source", source_N.astype(np.int64), list(map(str, sources))
    if clusters is not None:
        yield "cluster", clusters[0].astype(np.int64), list(clusters[1])
    tokens_N = frame["tokens"].to_numpy(dtype=np.float64, na_value=np.nan)
    yield "length", np.where(np.isnan(tokens_N), -1, np.digitize(tokens_N, _LENGTHS)), _length_names()
    turns_N = frame["turns"].to_numpy(dtype=np.int64)
    most = f"{_MOST_TURNS} or more turns"
    yield (
        "turns",
        np.minimum(turns_N, _MOST_TURNS),
        ["0 turns", "1 turn", *(f"{n} turns" for n in range(2, _MOST_TURNS)), most],
    )


def _length_names() -> list[str]:
    between = [f"{low} to {high} tokens" for low, high in pairwise(_LENGTHS)]
    return [f"under {_LENGTHS[0]} tokens", *between, f"{_LENGTHS[-1]} tokens and more"]


def _annotators(
    votes: Votes, log_odds_N: Floats, counts_N: NDArray[np.bool_], kind_N: NDArray[np.int8], can_tell: bool
) -> pd.DataFrame:
    """Annotators can be told apart by one another, even where the probe can tell nothing."""
    several = len(votes.pair_V) > len(np.unique(votes.pair_V))
    used = counts_N[votes.pair_V] if can_tell else np.ones(len(votes.pair_V), dtype=bool)
    rates = None
    if (can_tell or several) and used.any():
        rates = annotator_rates(
            log_odds_N, votes.pair_V[used], votes.annotator_V[used], votes.vote_V[used], len(votes.names)
        )
    return _table("annotator", votes.names, rates, votes.annotator_V, kind_N[votes.pair_V])


def _table(
    by: str, names: Sequence[str], rates: GroupRates | None, code_L: Codes, kind_L: NDArray[np.int8]
) -> pd.DataFrame:
    """One way's slices; those without any pair are left out."""
    count_GK = np.zeros((len(names), len(KINDS)), dtype=np.int64)
    np.add.at(count_GK, (code_L[code_L >= 0], kind_L[code_L >= 0]), 1)
    none = np.full(len(names), np.nan)
    has_labels = rates.labels_G > 0 if rates else np.zeros(len(names), dtype=bool)
    columns = {
        name: np.where(has_labels, getattr(rates, f"{name}_G"), np.nan) if rates else none
        for name in ("rate", "low", "high")
    }
    table = pd.DataFrame({"by": by, "value": list(names), "pairs": count_GK.sum(axis=1), **columns})
    table[list(KINDS)] = count_GK
    return table[table["pairs"] > 0].sort_values("rate", ascending=False, na_position="last", kind="stable")
