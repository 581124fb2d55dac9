"""Stage `selftest`: plants noise in the run's own pairs, refits all that is fitted, and measures what is found.

A planted flip is a change of sign in what the probe learns from, so no model is needed. Writes `selftest.parquet`:
tidy rows of (noise, rate, folds, signal, metric) with the mean over the seeds and its 95 % interval.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import binomtest
from scipy.stats import t as student

from curate import planting
from curate.config import HARD_RATES, DiagnoseConfig, SelftestConfig, as_json
from curate.detect import (
    FEWEST_PAIRS,
    FUSED,
    GROUPED,
    IMPORTED,
    ORACLE,
    UNFITTED,
    VOTES,
    Detected,
    can_learn,
    detect,
)
from curate.errors import RunError
from curate.evidence import Evidence, gather
from curate.metrics import METRICS, Mask, auroc, auroc_gain, auroc_interval
from curate.noise import LapseFit, fit_lapse, p_flip
from curate.probe import FEWEST_GROUPS, Codes, Floats, Folds
from curate.progress import Progress, Quiet
from curate.rates import annotator_rates
from curate.schema import SELFTEST
from curate.slices import Votes, read_votes
from curate.store import Run, fingerprint, write_table
from curate.view import RunView

QUICK = SelftestConfig(noise=(0.0, 0.2), plans=())

_LONGER_RATE = 0.2
_FEWEST_TIES = 10
_MOST_LABELLINGS = 24  # fitted at a time

PROMISED_RATE = 0.2  # what the report quotes

Row = dict[str, Any]
Place = tuple[str, float, str, str]


@dataclass(frozen=True)
class Trial:
    """Noise to plant: target_MT holds T labellings, −1 where a label is flipped."""

    noise: str
    rate: float
    target_MT: Floats


def selftest(run: Run, config: SelftestConfig, progress: Progress | None = None) -> dict[str, Any]:
    """Plant noise in a diagnosed run and measure what is found, unless that is done already.

    Returns:
        What the manifest says of the stage.

    Raises:
        RunError: the run is not diagnosed, or has too few labelled pairs.
    """
    diagnosed = run.require("diagnose")
    key = fingerprint([diagnosed["fingerprint"], as_json(config)])
    with run.lock():
        run.strike_lost("selftest")
        if run.is_done("selftest", key):
            return run.require("selftest")
        settings = DiagnoseConfig(**{**diagnosed["config"], "signals": tuple(diagnosed["config"]["signals"])})
        started = time.monotonic()
        with RunView(run.path) as view:
            evidence, votes = gather(view, _imported(view, diagnosed["signals"])), read_votes(view)
        rows = list(measure(evidence, votes, config, settings, progress or Quiet()))
        facts = {"config": as_json(config), "pairs": int(evidence.learns_N[_sampled(evidence, config.pairs)].sum())}
        run.strike("selftest")
        write_table(run.table_path("selftest"), pa.Table.from_pylist(rows, schema=SELFTEST), facts)
        run.record("selftest", key, {**facts, "seconds": round(time.monotonic() - started, 3)})
    return run.require("selftest")


def _imported(view: RunView, explanations: Mapping[str, str]) -> dict[str, Floats]:
    """The imported signals as they were diagnosed; none of policies that were trained before the noise is planted."""
    names = [name for name, explanation in explanations.items() if explanation == IMPORTED]
    if not names:
        return {}
    table = view.table("signals", names)
    return {name: table[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in names}


def measure(
    evidence: Evidence, votes: Votes, config: SelftestConfig, settings: DiagnoseConfig, progress: Progress
) -> Iterator[Row]:
    """Rows of the table.

    Raises:
        RunError: there are too few pairs to plant noise in.
    """
    at = _sampled(evidence, config.pairs)
    sample = evidence.take(at)
    pairs = len(sample.learners)
    if not can_learn(sample):
        raise RunError(
            f"{pairs} labelled pairs are too few for a self-test: it needs {FEWEST_PAIRS} of several prompts"
        )
    truth = detect(sample, np.ones((pairs, 1)), _folds(settings))
    yield from _clean_rows(truth, settings)
    for trials in _batches(_trials(sample, truth, config)):
        detected = detect(sample, np.concatenate([trial.target_MT for trial in trials], axis=1), _folds(settings))
        for trial, part in zip(trials, _divide(detected, trials), strict=True):
            yield from _trial_rows(trial, part, sample.prompt_N[sample.learners], settings)
        progress.advance(sum(trial.target_MT.shape[1] for trial in trials))
    if "annotator" in config.plans:
        yield from _annotator_rows(sample, _among(votes, at[sample.learners]), config, settings)
    if "ties" in config.plans:
        yield from _tie_rows(sample, config, settings)


def _folds(settings: DiagnoseConfig) -> Folds:
    return Folds(settings.folds, settings.repeats)


def _sampled(evidence: Evidence, pairs: int) -> Codes:
    """Positions of whole prompts, drawn at random, with about so many pairs to learn from in all."""
    if len(evidence.learners) <= pairs:
        return np.arange(len(evidence.learns_N))
    count_P = np.bincount(evidence.prompt_N, weights=evidence.learns_N)
    order_P = np.random.default_rng(0).permutation(len(count_P))
    drawn_P = order_P[: max(int((count_P[order_P].cumsum() <= pairs).sum()), FEWEST_GROUPS)]
    return np.flatnonzero(np.isin(evidence.prompt_N, drawn_P))


def _trials(sample: Evidence, truth: Detected, config: SelftestConfig) -> Iterator[Trial]:
    pairs, at = len(sample.learners), sample.learners
    for rate in config.noise:
        if rate > 0:
            yield Trial("random", rate, planting.random_flips(pairs, rate, config.seeds))
    if "hard" in config.plans:
        for rate in HARD_RATES:
            yield Trial("hard", rate, planting.hard_flips(sample.columns["margin"][at], rate))
            yield Trial("hard_fused", rate, planting.hard_flips(truth.values[FUSED, GROUPED][:, 0], rate))
    if "longer" in config.plans:
        longer_MT = planting.longer_wins(truth.values["token_difference", UNFITTED][:, 0], _LONGER_RATE, config.seeds)
        yield Trial("longer", float((longer_MT < 0).mean()), longer_MT)


def _batches(trials: Iterator[Trial]) -> Iterator[list[Trial]]:
    batch: list[Trial] = []
    for trial in trials:
        if batch and sum(one.target_MT.shape[1] for one in (*batch, trial)) > _MOST_LABELLINGS:
            yield batch
            batch = []
        batch.append(trial)
    if batch:
        yield batch


def _divide(detected: Detected, trials: list[Trial]) -> Iterator[Detected]:
    start = 0
    for trial in trials:
        columns = slice(start, start := start + trial.target_MT.shape[1])
        values = {key: value_MT[:, columns] for key, value_MT in detected.values.items()}
        yield replace(detected, values=values, error_MT=detected.error_MT[:, columns])


# --- rows ----------------------------------------------------------------------------------------


def _clean_rows(truth: Detected, settings: DiagnoseConfig) -> Iterator[Row]:
    """What is found where nothing was planted: false alarms, the dataset's own rate, and the ceiling that it sets."""
    for (signal, folds), value_MT in truth.values.items():
        if signal != FUSED:
            continue
        fit = fit_lapse(value_MT[:, 0])
        called = int(_called(value_MT[:, 0], fit, settings).sum())
        low, high = binomtest(called, len(value_MT)).proportion_ci(method="wilson")
        place = ("random", 0.0, folds, signal)
        yield _row(*place, "false_alarms", called / len(value_MT), low, high)
        yield _row(*place, "rate", fit.rate, fit.low, fit.high)
        if folds == GROUPED and fit.can_tell:
            yield _row("random", 0.0, folds, ORACLE, "auroc", 1 - fit.rate, 1 - fit.high, 1 - fit.low)


def _called(value_M: Floats, fit: LapseFit, settings: DiagnoseConfig) -> Mask:
    """Which pairs are called flipped by their probability alone; none where the rate cannot be told."""
    return np.asarray((p_flip(value_M, fit) >= settings.p_flip) & fit.can_tell)


def _trial_rows(trial: Trial, detected: Detected, prompt_M: Codes, settings: DiagnoseConfig) -> Iterator[Row]:
    flipped_MT = trial.target_MT < 0
    if flipped_MT.all(axis=0).any() or not flipped_MT.any(axis=0).all():
        return
    group_M = np.unique(prompt_M, return_inverse=True)[1]
    for (signal, folds), value_MT in detected.values.items():
        value_MT = np.nan_to_num(value_MT)
        place = (trial.noise, trial.rate, folds, signal)
        yield from _metric_rows(place, value_MT, flipped_MT)
        baseline = detected.values["length", folds if folds != UNFITTED else GROUPED]
        if signal not in ("length", *VOTES):
            yield _row(*place, "auroc_above_length", *auroc_gain(value_MT, baseline, flipped_MT, group_M))
        if signal == FUSED:
            yield from _verdict_rows(place, value_MT, flipped_MT, settings)


def _metric_rows(place: Place, value_MT: Floats, flipped_MT: Mask) -> Iterator[Row]:
    for metric, function in METRICS.items():
        seeds = [function(*one) for one in zip(value_MT.T, flipped_MT.T, strict=True)]
        if metric == "auroc" and len(seeds) == 1:
            yield _row(*place, metric, seeds[0], *auroc_interval(value_MT[:, 0], flipped_MT[:, 0]))
        else:
            yield _over_seeds(place, metric, seeds)


def _verdict_rows(place: Place, value_MT: Floats, flipped_MT: Mask, settings: DiagnoseConfig) -> Iterator[Row]:
    """The estimated rate, and what is called flipped at the threshold."""
    found: dict[str, list[float]] = {name: [] for name in ("rate", "rate_error", "called_precision", "called_recall")}
    for value_M, flipped_M in zip(value_MT.T, flipped_MT.T, strict=True):
        fit = fit_lapse(value_M)
        called_M = _called(value_M, fit, settings)
        found["rate"].append(fit.rate)
        found["rate_error"].append(fit.rate - float(flipped_M.mean()))
        found["called_recall"].append(float(called_M[flipped_M].mean()))
        if called_M.any():
            found["called_precision"].append(float(flipped_M[called_M].mean()))
    for metric, seeds in found.items():
        if seeds:
            yield _over_seeds(place, metric, seeds)


def _annotator_rows(sample: Evidence, votes: Votes, config: SelftestConfig, settings: DiagnoseConfig) -> Iterator[Row]:
    """Whether the one annotator who was made bad has the highest rate, and whether the interval holds the truth."""
    pairs = len(sample.learners)
    pair_V, annotator_V, vote_V = votes.pair_V, votes.annotator_V, votes.vote_V
    if len(votes.names) < 2:
        pair_V, annotator_V, vote_V = planting.made_up_annotators(pairs)
    bad = planting.bad_annotator(pair_V, annotator_V, vote_V, pairs, config.seeds)
    fused_MT = detect(sample, bad.target_MT, _folds(settings)).values[FUSED, GROUPED]
    found: dict[str, list[float]] = {"found": [], "rate": [], "rate_error": [], "in_interval": []}
    for seed, who in enumerate(bad.bad_T):
        fit = fit_lapse(fused_MT[:, seed])
        log_odds_M = bad.target_MT[:, seed] * fit.slope * fused_MT[:, seed]
        rates = annotator_rates(log_odds_M, pair_V, annotator_V, bad.votes_VT[:, seed], int(annotator_V.max()) + 1)
        found["found"].append(float(rates.rate_G.argmax() == who))
        found["rate"].append(rates.rate_G[who])
        found["rate_error"].append(rates.rate_G[who] - planting.BAD_ANNOTATOR)
        found["in_interval"].append(float(rates.low_G[who] <= planting.BAD_ANNOTATOR <= rates.high_G[who]))
    for metric, seeds in found.items():
        yield _over_seeds(("annotator", planting.BAD_ANNOTATOR, GROUPED, FUSED), metric, seeds)


def _tie_rows(sample: Evidence, config: SelftestConfig, settings: DiagnoseConfig) -> Iterator[Row]:
    """The data's own ties, given labels at random: is the evidence about them weaker, and are they called flipped?"""
    tied_N = sample.tie_N & np.isfinite(sample.columns["margin"])
    if tied_N.sum() < _FEWEST_TIES:
        return
    labelled = replace(sample, learns_N=sample.learns_N | tied_N)
    tied_M = tied_N[labelled.learners]
    drawn = [np.random.default_rng(seed).choice([-1.0, 1.0], len(tied_M)) for seed in range(config.seeds)]
    target_MT = np.where(tied_M[:, None], np.stack(drawn, axis=1), 1.0)
    fused_MT = detect(labelled, target_MT, _folds(settings)).values[FUSED, GROUPED]
    seeds = [auroc(np.abs(value_M), tied_M) for value_M in fused_MT.T]
    called = [float(_called(value_M, fit_lapse(value_M), settings)[tied_M].mean()) for value_M in fused_MT.T]
    place = ("ties", float(tied_M.mean()), GROUPED, FUSED)
    yield _over_seeds(place, "auroc_of_weak_evidence", seeds)
    yield _over_seeds(place, "false_alarms", called)


def _among(votes: Votes, at_M: Codes) -> Votes:
    """The votes on some of the pairs, which are counted anew."""
    place_N = np.full(max(int(votes.pair_V.max(initial=0)), int(at_M.max(initial=0))) + 1, -1)
    place_N[at_M] = np.arange(len(at_M))
    kept = place_N[votes.pair_V] >= 0
    codes, annotator_V = np.unique(votes.annotator_V[kept], return_inverse=True)
    names = tuple(votes.names[code] for code in codes)
    return Votes(place_N[votes.pair_V[kept]], annotator_V.astype(np.int64), votes.vote_V[kept], names)


def _over_seeds(place: Place, metric: str, seeds: list[float]) -> Row:
    """Mean over the seeds with Student's 95 % interval, cut off where a share or rate cannot be; none for one seed."""
    mean = float(np.mean(seeds))
    if len(seeds) < 2:
        return _row(*place, metric, mean, None, None)
    spread = float(student.ppf(0.975, len(seeds) - 1) * np.std(seeds, ddof=1) / np.sqrt(len(seeds)))
    least = -1.0 if metric == "rate_error" else 0.0
    return _row(*place, metric, mean, max(mean - spread, least), min(mean + spread, 1.0))


def _row(
    noise: str, rate: float, folds: str, signal: str, metric: str, mean: float, low: float | None, high: float | None
) -> Row:
    values = (noise, rate, folds, signal, metric, mean, low, high)
    return dict(zip(SELFTEST.names, values, strict=True))


# --- in words ------------------------------------------------------------------------------------


def promise(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """What the self-test promises of the fused signal on new prompts, in one sentence."""
    found = {
        row["metric"]: row["mean"]
        for row in rows
        if (row["noise"], row["folds"], row["signal"]) == ("random", GROUPED, FUSED) and row["rate"] == PROMISED_RATE
    }
    if not found:
        return None
    tenths = found["recall_at_80_precision"] * 10
    if tenths > 0.5:
        return f"on your data this finds {tenths:.0f} of 10 planted flips at 80 % precision"
    top = found["precision_at_top_5_percent"]
    return (
        f"on your data {top * 100:.0f} % of the most suspicious 5 % are planted flips, "
        f"where chance gives {PROMISED_RATE * 100:.0f} %"
    )
