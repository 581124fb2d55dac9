"""Flip rates of groups: sources, clusters, annotators → a rate and an interval each, shrunk towards the whole.

A label agrees with the truth except at its group's flip rate ε_g. Given `right`, the probability from all other
evidence that the label is the right way round,

    P(label | ε_g) = (1 − ε_g)·right + ε_g·(1 − right)

The rates come from a Beta(μκ, (1 − μ)κ) distribution, whose mean μ and concentration κ are averaged over their own
likelihood: a small group takes its rate from the others, a large one keeps its own. A rate above 1/2 means that the
group prefers the wrong sides.

Annotators who vote on the same pairs are also evidence of one another (Dawid and Skene's one-coin model): a vote's
`right` combines the probe's log-odds with the other votes, each as far as its annotator can be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import beta

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

_EDGES = np.linspace(0.0, 1.0, 201)
_RATES = (_EDGES[:-1] + _EDGES[1:]) / 2  # where a group's likelihood is looked at
_MEANS = (np.arange(25) + 0.5) / 50  # μ
_CONCENTRATIONS = np.geomspace(1.0, 300.0, 12)  # κ
_BINS = 400  # of `right`
_ROUNDS = 30
_SETTLED = 1e-4


@dataclass(frozen=True)
class GroupRates:
    """For each of G groups: flip rate (posterior mean), 95 % credible interval, and labels that it rests on."""

    rate_G: Floats
    low_G: Floats
    high_G: Floats
    labels_G: Codes


def group_rates(right_N: Floats, group_N: Codes, groups: int) -> GroupRates:
    """Flip rates of groups.

    Args:
        right_N: P(the label is the right way round | everything but the label), shape (N,), within [0, 1].
        group_N: 0 to `groups` − 1.

    By hand: 100 labels with right = 1 fit a rate of 0; with right = 1/2 they say nothing, and the prior stays.
    """
    log_likelihood_GR = _log_likelihoods(right_N, group_N, groups)
    likelihood_GR = np.exp(log_likelihood_GR - log_likelihood_GR.max(axis=1, keepdims=True))
    prior_HR = _priors()
    evidence_GH = likelihood_GR @ prior_HR.T
    weight_H = np.log(evidence_GH).sum(axis=0)
    weight_H = np.exp(weight_H - weight_H.max())
    posterior_GR = likelihood_GR * ((weight_H / evidence_GH) @ prior_HR)
    posterior_GR /= posterior_GR.sum(axis=1, keepdims=True)
    cumulative_GR = posterior_GR.cumsum(axis=1)
    return GroupRates(
        rate_G=posterior_GR @ _RATES,
        low_G=_EDGES[(cumulative_GR < 0.025).sum(axis=1)],
        high_G=_EDGES[np.minimum((cumulative_GR < 0.975).sum(axis=1) + 1, len(_RATES))],
        labels_G=np.bincount(group_N, minlength=groups),
    )


def _log_likelihoods(right_N: Floats, group_N: Codes, groups: int) -> Floats:
    """log P(a group's labels | rate), shape (G, R)."""
    bin_N = np.minimum((right_N * _BINS).astype(np.int64), _BINS - 1)
    count_GB = np.bincount(group_N * _BINS + bin_N, minlength=groups * _BINS).reshape(groups, _BINS)
    mean_B = np.bincount(bin_N, weights=right_N, minlength=_BINS) / np.maximum(count_GB.sum(axis=0), 1)
    return np.asarray(count_GB @ np.log(mean_B[:, None] * (1 - 2 * _RATES) + _RATES))


@cache
def _priors() -> Floats:
    """Beta(μκ, (1 − μ)κ) over the rates for each μ and κ, shape (H, R); a larger κ is the less likely beforehand."""
    mean_H, concentration_H = (grid.ravel() for grid in np.meshgrid(_MEANS, _CONCENTRATIONS))
    mass_HR = np.diff(
        beta.cdf(_EDGES, (mean_H * concentration_H)[:, None], ((1 - mean_H) * concentration_H)[:, None]), axis=1
    )
    return np.asarray(np.maximum(mass_HR, 1e-12))


def annotator_rates(
    log_odds_N: Floats, pair_V: Codes, annotator_V: Codes, vote_V: Floats, annotators: int
) -> GroupRates:
    """Error rates of annotators from their votes, the evidence about the pairs, and one another.

    Args:
        log_odds_N: that a pair's chosen side is the better one, from evidence other than the votes; 0 where none.
        pair_V, annotator_V: which pair (0 to N − 1) each of V votes is about, and whose it is.
        vote_V: +1 for the chosen side, −1 for the rejected one.
    """
    rates = np.full(annotators, 0.1)
    for _ in range(_ROUNDS):
        trust_V = vote_V * -logit(np.clip(rates, 0.005, 0.995))[annotator_V]
        total_N = log_odds_N + np.bincount(pair_V, weights=trust_V, minlength=len(log_odds_N))
        found = group_rates(expit(vote_V * (total_N[pair_V] - trust_V)), annotator_V, annotators)
        settled = np.abs(found.rate_G - rates).max() < _SETTLED
        rates = (rates + found.rate_G) / 2  # half a step: whole ones can swing to and fro for ever
        if settled:
            break
    return found
