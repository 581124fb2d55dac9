"""Stage `weigh`: `scores.parquet` and the ties in `pairs/` → `weights.parquet`.

Margins come from stored log-probs, weights from the exact γ-PO optimum over the whole dataset. The population is every
pair that has a margin and is not a tie; the others keep a null weight.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.config import WeighConfig, as_json
from curate.errors import RunError
from curate.gamma import gamma_weights
from curate.margins import Floats, LogProbs, default_kind, implicit_margin
from curate.schema import WEIGHTS
from curate.store import Run, atomic_path, fingerprint, nullable, parquet_writer

_SIDES = ("chosen", "rejected")


def weigh(run: Run, config: WeighConfig, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Compute margins and γ-PO weights, unless they are there already.

    Args:
        say: told which settings replace those that the run's weights had.

    Returns:
        What the manifest says of the stage.

    Raises:
        RunError: the pairs are not scored, or none of them has a margin.
        ConfigError: the margin needs a reference that was not scored.
    """
    scored = run.require("score")
    key = fingerprint([scored["fingerprint"], as_json(config)])
    with run.lock():
        if run.is_done("weigh", key):
            return run.require("weigh")
        before = run.stage("weigh")
        started = time.monotonic()
        facts = _weigh(run, scored, config)
        run.record("weigh", key, {**facts, "seconds": round(time.monotonic() - started, 3)})
    if before is not None:
        _say_changes(before["config"], as_json(config), say)
    return run.require("weigh")


def _say_changes(before: dict[str, Any], after: dict[str, Any], say: Callable[[str], None]) -> None:
    changed = [f"{name} {before.get(name)} → {value}" for name, value in after.items() if before.get(name) != value]
    if changed:
        say(f"weights: computed again with {', '.join(changed)}")


def _weigh(run: Run, scored: dict[str, Any], config: WeighConfig) -> dict[str, Any]:
    if (lost := run.lost_table("score")) is not None:
        raise RunError(f"{lost}: missing or damaged; curate score with the same settings rebuilds it")
    has_reference = "reference" in scored["passes"]
    scores = pq.read_table(run.scores_path, columns=["pair_id", "row", *_needed(has_reference=has_reference)])
    logps = _log_probs(scores, has_reference=has_reference)
    kind = default_kind(logps) if config.margin == "auto" else config.margin
    margin_N = implicit_margin(logps, kind, beta=config.beta)
    tie_N = run.read_pairs(0, len(margin_N), ["tie"])["tie"].to_numpy()
    member_N = np.isfinite(margin_N) & ~tie_N
    if not member_N.any():
        raise RunError(f"{run.path}: no pair has a {kind} margin, so there is nothing to weigh; see curate show")
    solution = gamma_weights(margin_N[member_N], gamma0=config.gamma0, tau=config.tau)
    facts = {
        "config": as_json(config),
        "margin": kind,
        "beta": config.beta,
        "gamma0": config.gamma0,
        "tau": config.tau,
        "population": int(member_N.sum()),
        "residual": solution.residual,
        "noise_floor": _noise_floor(run, scored, scores, kind, config.beta),
    }
    columns = {"margin": margin_N}
    for name, value_M in (("target_margin", solution.target_margin), ("weight", solution.weight)):
        columns[name] = np.full(len(margin_N), np.nan)
        columns[name][member_N] = value_M
    table = pa.table(
        [scores["pair_id"], scores["row"], *(nullable(columns[name]) for name in WEIGHTS.names[2:])], schema=WEIGHTS
    )
    with atomic_path(run.weights_path) as temporary:
        with parquet_writer(temporary, WEIGHTS, facts) as writer:
            writer.write_table(table)
        run.strike("weigh")
    return facts


def _needed(*, has_reference: bool) -> list[str]:
    models = ("policy", "reference") if has_reference else ("policy",)
    return [f"{name}_{side}_logp" for name in models for side in _SIDES] + [f"{side}_tokens" for side in _SIDES]


def _column(table: pa.Table, name: str) -> Floats:
    values: NDArray[Any] = table[name].to_numpy()
    return values.astype(np.float64)


def _log_probs(scores: pa.Table, *, has_reference: bool) -> LogProbs:
    reference = [_column(scores, f"reference_{side}_logp") if has_reference else None for side in _SIDES]
    return LogProbs(
        *(_column(scores, f"policy_{side}_logp") for side in _SIDES),
        *(_column(scores, f"{side}_tokens") for side in _SIDES),
        *reference,
    )


def _noise_floor(
    run: Run, scored: dict[str, Any], scores: pa.Table, kind: str, beta: float
) -> dict[str, float | int | None]:
    """Root mean square difference of the margin when the same pairs are scored in another batch shape."""
    rescored = {
        name: pq.read_table(run.path / facts["folder"] / "noise_floor.parquet")
        for name, facts in scored["passes"].items()
        if name in ("policy", "reference")
    }
    rows = rescored["policy"]["row"].to_numpy()
    again = scores.take(np.searchsorted(scores["row"].to_numpy(), rows))
    before = implicit_margin(_log_probs(again, has_reference="reference" in rescored), kind, beta=beta)
    for name, table in rescored.items():
        for side in _SIDES:
            again = again.set_column(
                again.column_names.index(f"{name}_{side}_logp"), f"{name}_{side}_logp", table[f"{side}_logp"]
            )
    after = implicit_margin(_log_probs(again, has_reference="reference" in rescored), kind, beta=beta)
    differences = (after - before)[np.isfinite(after - before)]
    sigma = float(np.sqrt(np.mean(differences**2))) if len(differences) else None
    return {"pairs": len(differences), "sigma": sigma}
