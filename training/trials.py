"""The pairs of one seed of a comparison: some held out, flips planted in the others, these diagnosed anew.

Dimension key: N pairs of the run, M that can be learned from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from curate.detect import FUSED, GROUPED, RANDOM, can_learn, detect
from curate.errors import ConfigError, RunError
from curate.evidence import Evidence
from curate.noise import fit_lapse, p_flip
from curate.planting import random_flips
from curate.probe import Folds
from training.treatments import TREATMENTS, Diagnosed, Treated

Mask = NDArray[np.bool_]

ARMS = (*TREATMENTS, "random_drop", "oracle_drop")
HELD_OUT, UNUSED, DROPPED_AT_RANDOM, DROPPED_BY_TRUTH = "held out", "not compared", "at random", "known to be flipped"
_SPLITTING, _DROPPING = 0xC0, 0xD0  # streams of random numbers


@dataclass(frozen=True)
class CompareConfig:
    """What is compared.

    arms: names from `ARMS`; those that need the truth are left out where it is not known.
    seeds: how many splits, plantings and trainings of each arm.
    plant: rate of random flips among the pairs that are trained on; 0 plants none.
    truth: a column of the data that is true (or 1) where a label is known to be wrong, or `column=value`: wrong where
        it has that value. The held-out pairs are judged by what is known to be right.
    held_out: share of the prompts.
    folds: of the evidence: `grouped` by prompt, as the diagnosis has it, or `random`, which may use other pairs of the
        same prompt, and so finds more in pairs that share prompts.
    max_tokens, pairs: train and judge only pairs with at most so many tokens, the prompt counted once, and only so
        many, at random; they are diagnosed together with all others.
    """

    arms: tuple[str, ...] = ARMS
    seeds: int = 3
    plant: float = 0.0
    truth: str | None = None
    held_out: float = 0.3
    folds: str = GROUPED
    max_tokens: int | None = None
    pairs: int | None = None

    def __post_init__(self) -> None:
        if unknown := [arm for arm in self.arms if arm not in ARMS]:
            raise ConfigError(f"--arms has {unknown[0]!r}: choose from {', '.join(ARMS)}")
        if len(set(self.arms)) < len(self.arms):
            raise ConfigError(f"--arms {','.join(self.arms)} names an arm twice")
        for name, count in (("--pairs", self.pairs), ("--max-tokens", self.max_tokens)):
            if count is not None and count < 1:
                raise ConfigError(f"{name} is {count}: it must be 1 or more")
        for name, value, low, high in (("plant", self.plant, 0.0, 0.5), ("held-out", self.held_out, 0.01, 0.9)):
            if not low <= value <= high:
                raise ConfigError(f"--{name} is {value}: it must lie between {low} and {high}")
        if self.folds not in (GROUPED, RANDOM):
            raise ConfigError(f"--evidence is {self.folds!r}: choose grouped or random")
        if self.seeds < 1:
            raise ConfigError(f"--seeds is {self.seeds}: it must be 1 or more")
        if self.plant and self.truth:
            raise ConfigError("--plant and --truth exclude each other: the truth is what is planted")


@dataclass(frozen=True)
class Trial:
    """Pairs of one seed.

    held_out_N, learned_N: which pairs are judged and trained on.
    swap_N: whose sides change places: planted flips, and held-out pairs that are known to be wrong.
    flipped_N: whose label is wrong; None where unknown.
    """

    held_out_N: Mask
    learned_N: Mask
    swap_N: Mask
    flipped_N: Mask | None
    found: Diagnosed


def make_trial(evidence: Evidence, chosen_N: Mask, known_N: Mask | None, what: CompareConfig, seed: int) -> Trial:
    """Split, plant and diagnose. All labelled pairs are diagnosed together; the chosen ones are compared.

    Raises:
        RunError: too few pairs are left to learn from.
    """
    random = np.random.default_rng([seed, _SPLITTING])
    prompts = random.permutation(np.unique(evidence.prompt_N[evidence.learns_N]))
    apart_N = evidence.learns_N & np.isin(evidence.prompt_N, prompts[: max(1, round(what.held_out * len(prompts)))])
    training = replace(evidence, learns_N=evidence.learns_N & ~apart_N)
    if not can_learn(training):
        raise RunError(f"{len(training.learners)} pairs are too few to learn from: lower --held-out")
    swap_N, at = np.zeros(len(apart_N), dtype=bool), training.learners
    if what.plant:
        swap_N[at] = random_flips(len(at), what.plant, seed + 1)[:, seed] < 0
    detected = detect(training, np.where(swap_N[at], -1.0, 1.0)[:, None], Folds(10, 3))
    margin_M = detected.values[FUSED, what.folds][:, 0]
    fit = fit_lapse(margin_M)
    p_flip_N = np.full(len(apart_N), np.nan)
    p_flip_N[at] = p_flip(margin_M, fit)
    none_N = np.zeros(len(apart_N), dtype=bool)
    found = Diagnosed(p_flip_N, (np.nan_to_num(p_flip_N) >= 0.5) & fit.can_tell, none_N)
    flipped_N = swap_N if what.plant else known_N
    if known_N is not None:
        swap_N = swap_N | (apart_N & known_N)
    trial = Trial(apart_N & chosen_N, training.learns_N & chosen_N, swap_N, flipped_N, found)
    if not (trial.held_out_N.any() and trial.learned_N.any()):
        raise RunError("no pair is left to train on, or none to judge: raise --pairs, --max-tokens or --held-out")
    return trial


def treat(arm: str, trial: Trial, seed: int) -> Treated:
    """What an arm makes of the pairs: planted flips are turned round, the held-out pairs are left alone."""
    treated = TREATMENTS.get(arm, TREATMENTS["raw"])(trial.found)
    called = int((trial.found.flipped_N & trial.learned_N).sum())
    dropped_N = treated.dropped_N.copy()
    if arm == "random_drop":
        drawn = np.random.default_rng([seed, _DROPPING]).permutation(np.flatnonzero(trial.learned_N))[:called]
        dropped_N[drawn] = DROPPED_AT_RANDOM
    if arm == "oracle_drop" and trial.flipped_N is not None:
        dropped_N[trial.flipped_N & trial.learned_N] = DROPPED_BY_TRUTH
    dropped_N[trial.held_out_N] = HELD_OUT
    dropped_N[~(trial.held_out_N | trial.learned_N)] = UNUSED
    return replace(treated, dropped_N=dropped_N, swap_N=treated.swap_N ^ trial.swap_N)


def noise_left(treated: Treated, trial: Trial) -> float | None:
    """Share of wrong labels, by weight, among those that are trained on; a soft label counts by its share."""
    if trial.flipped_N is None:
        return None
    kept_N = np.asarray(treated.dropped_N == "")
    turned_N = treated.swap_N ^ trial.swap_N
    wrong_N = trial.flipped_N ^ turned_N
    share_N = np.where(wrong_N, 1 - treated.p_flip_N, treated.p_flip_N)
    weight_M = treated.weight_N[kept_N]
    return float(np.average(share_N[kept_N], weights=weight_M)) if weight_M.any() else None
