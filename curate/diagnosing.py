"""Stage `diagnose`: scores, weights, features and imported signals → `signals`, `findings`, `diagnosis`, `slices`.

The fused out-of-fold signal (folds grouped by prompt) is calibrated by the lapse-rate model; its p_flip, the checks and
what the data says of itself decide a pair's kind.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate import kinds
from curate.checks import CHECKS, find_in_run
from curate.clusters import Clusters, find_clusters
from curate.config import DiagnoseConfig, as_json
from curate.detect import (
    CROSSFIT_EXPLANATIONS,
    CROSSFIT_RANDOM,
    EXPLANATIONS,
    FUSED,
    FUSED_RANDOM,
    GROUPED,
    IMPORTED,
    IMPORTED_IN_SAMPLE,
    RANDOM,
    RESERVED,
    VERSION,
    Detected,
    can_learn,
    detect,
)
from curate.evidence import Evidence, gather
from curate.imported import IN_SAMPLE, import_signals
from curate.kinds import Facts
from curate.noise import LapseFit, agreement_curve, fit_lapse, p_flip
from curate.probe import Codes, Floats, Folds
from curate.progress import Progress, Quiet
from curate.readers import sha256
from curate.schema import DIAGNOSIS, KINDS, signals_schema
from curate.slices import divided, make_slices, read_votes
from curate.store import DIAGNOSED, Run, fingerprint, nullable, read_metadata, write_table
from curate.view import RunView

DIAGNOSE_STEPS = 4  # checks, evidence, clusters, tables
_VOICES = ("length", "likelihood", "hidden_middle", "hidden_last", "rating", "reward_model")


@dataclass(frozen=True)
class Judged:
    """The evidence, calibrated; N pairs, NaN for those without.

    signals: by name, positive where they agree with the label.
    fit: the lapse-rate model; None where there are too few pairs to learn from.
    """

    signals: dict[str, Floats]
    fit: LapseFit | None
    log_odds: Floats
    error: Floats
    p_flip: Floats
    length_share: float | None

    @property
    def can_tell(self) -> bool:
        """Whether the evidence says anything about this dataset's labels."""
        return self.fit is not None and self.fit.can_tell


def diagnose(run: Run, config: DiagnoseConfig, progress: Progress | None = None) -> dict[str, Any]:
    """Diagnose a scored and weighed run, unless that is done already.

    Returns:
        What the manifest says of the stage.

    Raises:
        RunError: the run is not scored and weighed, or a table of it is damaged.
        InputError: a file of signals is at fault.
    """
    progress = progress or Quiet()
    weighed = run.require("weigh")
    files = (*_own_signals(run), *config.signals)
    key = fingerprint([VERSION, weighed["fingerprint"], as_json(config), [sha256(file) for file in files]])
    with run.lock():
        run.strike_lost("diagnose", "selftest")
        if run.is_done("diagnose", key):
            return run.require("diagnose")
        started = time.monotonic()
        with RunView(run.path) as view:
            tables, facts = _diagnose(run, view, config, files, progress)
        run.strike("diagnose")
        for name in DIAGNOSED:
            write_table(run.table_path(name), tables[name])
        progress.advance(1)
        run.record("diagnose", key, {**facts, "seconds": round(time.monotonic() - started, 3)})
    return run.require("diagnose")


def _own_signals(run: Run) -> list[str]:
    """Out-of-fold margins that policies were trained for, if they are these pairs'."""
    found = read_metadata(run.table_path("crossfit"))
    same = found is not None and found.get("ingest") == run.require("ingest")["fingerprint"]
    return [str(run.table_path("crossfit"))] if same else []


def _diagnose(
    run: Run, view: RunView, config: DiagnoseConfig, files: Sequence[str], progress: Progress
) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    keys = view.table("pairs", ["pair_id", "row"])
    pairs = len(keys)
    findings = find_in_run(run)
    progress.advance(1)
    imported = import_signals(view, files, RESERVED)
    seen = {name: values for name, values in imported.items() if _is_shown_only(name)}
    evidence = gather(view, {name: values for name, values in imported.items() if name not in seen})
    votes, judged = read_votes(view), judge(evidence, config)
    judged = replace(judged, signals={**judged.signals, **seen})
    progress.advance(1)
    clusters = _clusters(view, evidence, keys["row"].to_numpy())
    progress.advance(1)

    severe = findings.filter(pc.equal(findings["severity"], "defect"))
    facts = Facts(
        defect=np.isin(keys["row"].to_numpy(), severe["row"].to_numpy()),
        tie=evidence.tie_N,
        split=divided(votes, pairs),
        equal=_equal_ratings(evidence),
        log_odds=judged.log_odds,
        error=judged.error,
        p_flip=judged.p_flip,
        can_tell=judged.can_tell,
    )
    kind_N = kinds.classify(facts, config)
    counts_N = evidence.learns_N & ~facts.defect
    named = None if clusters is None else (clusters.cluster_N, clusters.names)
    slices = make_slices(view, votes, judged.log_odds, counts_N, kind_N, named, can_tell=judged.can_tell)
    voices = {name: judged.signals[name] for name in (*_VOICES, *evidence.imported) if name in judged.signals}
    texts = kinds.reasons(facts, kind_N, voices, _details(findings, keys["row"].to_numpy()))
    tables = {
        "signals": pa.table(
            [keys["pair_id"], keys["row"], *map(nullable, judged.signals.values())],
            schema=signals_schema(judged.signals),
        ),
        "findings": findings,
        "diagnosis": _diagnosis(
            keys["pair_id"], keys["row"], kind_N, judged, _checks(findings, keys["row"].to_numpy()), texts, clusters
        ),
        "slices": slices,
    }
    return tables, {"config": as_json(config), **_facts(evidence, judged, kind_N, findings, clusters)}


def judge(evidence: Evidence, config: DiagnoseConfig) -> Judged:
    """Fit the signals out of fold, and calibrate the fused one."""
    at, pairs = evidence.learners, len(evidence.learns_N)
    none = np.full(pairs, np.nan)
    if not can_learn(evidence):
        signals = {name: signal.of(evidence.columns) for name, signal in evidence.signals.items()}
        return Judged({**signals, **evidence.imported}, None, none, none, none, None)
    detected = detect(evidence, np.ones((len(at), 1)), Folds(config.folds, config.repeats))
    margin_M = detected.values[FUSED, GROUPED][:, 0]
    fit = fit_lapse(margin_M)
    return Judged(
        signals=_signals(evidence, detected),
        fit=fit,
        log_odds=_spread(fit.slope * margin_M, at, pairs),
        error=_spread(fit.slope * detected.error_MT[:, 0], at, pairs),
        p_flip=_spread(p_flip(margin_M, fit), at, pairs),
        length_share=detected.length_share,
    )


def _signals(evidence: Evidence, detected: Detected) -> dict[str, Floats]:
    """Columns of the signals table: those that need no fit for every pair, the fitted ones with grouped folds."""
    pairs = len(evidence.learns_N)
    found = {name: signal.of(evidence.columns) for name, signal in evidence.signals.items()} | dict(evidence.imported)
    for (name, folds), value_MT in detected.values.items():
        if folds == GROUPED:
            found[name] = _spread(value_MT[:, 0], evidence.learners, pairs)
    found[FUSED_RANDOM] = _spread(detected.values[FUSED, RANDOM][:, 0], evidence.learners, pairs)
    return found


def _spread(value_M: Floats, at: Codes, pairs: int) -> Floats:
    """Values of some pairs among all, NaN elsewhere."""
    value_N = np.full(pairs, np.nan)
    value_N[at] = value_M
    return value_N


def _equal_ratings(evidence: Evidence) -> NDArray[np.bool_]:
    if "rating_chosen" not in evidence.columns or "rating_rejected" not in evidence.columns:
        return np.zeros(len(evidence.learns_N), dtype=bool)
    return np.asarray(evidence.columns["rating_chosen"] == evidence.columns["rating_rejected"])


def _clusters(view: RunView, evidence: Evidence, row_N: Codes) -> Clusters | None:
    """Groups of similar prompts; None without features."""
    if not view.has_features():
        return None
    topics = [(chosen.astype(np.float32) + rejected) / 2 for chosen, rejected in view.feature_shards("middle")]

    def prompts_of(at: NDArray[np.int64]) -> Sequence[str]:
        query = """SELECT list_aggregate(list_transform(prompt, lambda turn: turn.content), 'string_agg', ' ') AS text
                   FROM (SELECT unnest($rows) AS row, generate_subscripts($rows, 1) AS place) JOIN pairs USING (row)
                   ORDER BY place"""
        return [text or "" for text in view.sql(query, rows=row_N[at].tolist())["text"]]

    return find_clusters(np.concatenate(topics), prompts_of, prompt_N=evidence.prompt_N)


# --- tables --------------------------------------------------------------------------------------


def _details(findings: pa.Table, row_N: Codes) -> dict[int, list[str]]:
    """Position → what the checks found that is more than a remark, in words."""
    serious = findings.filter(pc.not_equal(findings["severity"], "note"))
    found: dict[int, list[str]] = {}
    for at, detail in zip(
        np.searchsorted(row_N, serious["row"].to_numpy()).tolist(), serious["detail"].to_pylist(), strict=True
    ):
        found.setdefault(at, []).append(detail)
    return found


def _checks(findings: pa.Table, row_N: Codes) -> list[list[str]]:
    found: list[list[str]] = [[] for _ in row_N]
    for at, check in zip(
        np.searchsorted(row_N, findings["row"].to_numpy()).tolist(), findings["check"].to_pylist(), strict=True
    ):
        found[at].append(check)
    return found


def _diagnosis(
    pair_id: Any,
    row: Any,
    kind_N: NDArray[np.int8],
    judged: Judged,
    checks: list[list[str]],
    texts: list[list[str]],
    clusters: Clusters | None,
) -> pa.Table:
    columns = {
        "pair_id": pa.array(pair_id),
        "row": pa.array(row),
        "kind": pa.DictionaryArray.from_arrays(kind_N, list(KINDS)).cast(pa.string()),
        "p_flip": nullable(judged.p_flip),
        "evidence": nullable(judged.log_odds),
        "checks": pa.array(checks, pa.list_(pa.string())),
        "reasons": pa.array(texts, pa.list_(pa.string())),
        "cluster": pa.nulls(len(kind_N), pa.int32()),
        "x": pa.nulls(len(kind_N), pa.float32()),
        "y": pa.nulls(len(kind_N), pa.float32()),
    }
    if clusters is not None:
        columns["cluster"] = pa.array(clusters.cluster_N, mask=clusters.cluster_N < 0)
        columns |= {
            name: pa.array(place_N, from_pandas=True) for name, place_N in zip("xy", clusters.map_N2.T, strict=True)
        }
    return pa.table(columns, schema=DIAGNOSIS)


def _facts(
    evidence: Evidence, judged: Judged, kind_N: NDArray[np.int8], findings: pa.Table, clusters: Clusters | None
) -> dict[str, Any]:
    """What the manifest keeps: noise rate, kinds, checks, what the signals mean, names of the clusters."""
    count_K = np.bincount(kind_N, minlength=len(KINDS)).tolist()
    found = Counter(findings["check"].to_pylist())
    explanations = {name: signal.explanation for name, signal in evidence.signals.items()} | EXPLANATIONS
    return {
        "learners": len(evidence.learners),
        **_noise(judged),
        "length_share": judged.length_share,
        "kinds": dict(zip(KINDS, count_K, strict=True)),
        "checks": {name: found[name] for name in CHECKS},
        "signals": {name: explanations.get(name, _origin(name)) for name in judged.signals},
        "clusters": None if clusters is None else list(clusters.names),
    }


def _is_shown_only(name: str) -> bool:
    """Whether a signal breaks what the fused one promises: to hold on new prompts."""
    return name.startswith(IN_SAMPLE) or name == CROSSFIT_RANDOM


def _origin(name: str) -> str:
    return CROSSFIT_EXPLANATIONS.get(name) or (IMPORTED_IN_SAMPLE if name.startswith(IN_SAMPLE) else IMPORTED)


def _noise(judged: Judged) -> dict[str, Any]:
    """The fitted rate, and the curve of agreement that shows how well the model fits."""
    fit = judged.fit
    if fit is None:
        return {"noise": None, "curve": None}
    margin_N = judged.signals[FUSED]
    curve = agreement_curve(margin_N[np.isfinite(margin_N)], fit)
    fitted = {name: getattr(fit, name) for name in ("rate", "low", "high", "slope", "p_value", "pairs")}
    return {
        "noise": {"can_tell": fit.can_tell, "follows_model": curve.follows_model, **fitted},
        "curve": {name: values.tolist() for name, values in asdict(curve).items()},
    }
