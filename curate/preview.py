"""What decisions make of a run, before anything is written: who stays and why, the mix, length, weights, noise.

Reads the tables `pairs`, `scores`, `diagnosis` and `selftest`, those that a plan names, and, where `Decisions` are
given, what stands already. One query adds up all pairs by what is the same about them; the rest is arithmetic on its
few lines, so that a preview costs what its plan costs.

A pair that stays trains with a weight w and a label s, the probability with which it counts for its chosen side: 1, or
0 where it is flipped, or a soft label; `curate.effects` says which. If the label is wrong with probability p, then
p·w·s of it still trains the wrong way round, and (1 − p)·w·(1 − s) does so anew. By hand: p = 0.3, soft(0.7): 0.21 is
left of 0.3, 0.21 is new. p is `p_flip`; of two opposite labels one is wrong, so that there p follows from the evidence
alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from curate.applying import UNMATCHED, rule_query
from curate.columns import DERIVED
from curate.decisions import Decisions
from curate.detect import FUSED, GROUPED
from curate.effects import LABEL, NO_LABEL, UNLABELLED, WEIGHT
from curate.plans import Plan
from curate.selftest import PROMISED_RATE
from curate.view import RunView

UNDECIDED = "nothing is decided"
EXAMPLES = 3
STEP = 0.1  # width of a bin of weights or soft labels
_MOST_STEPS = 20  # weights of 2 and more share the last bin

_BESIDE = ("tie", "source", "p_flip", "evidence", "checks", "chosen_tokens", "rejected_tokens")
_WHY = ["action", "reason", "origin"]
_KEYS = ("rule", *_WHY, "unlabelled", "side", "called", "weight_step", "label_step")

#: Of each pair what is decided: by the plan, else by what stands already, else nothing. What is joined by row is kept
#: narrow, for all pairs are in memory there.
_PLANNED = """
SELECT * REPLACE (coalesce(value, 1) AS value), ($preview_actions::VARCHAR[])[rule + 1] AS action,
    NULL::VARCHAR AS reason, NULL::VARCHAR AS origin, rule > 0 OR target_margin IS NOT NULL AS decided
FROM ({rules})
"""
_ON_TOP = """
WITH told AS MATERIALIZED (
    SELECT (row_number() OVER ())::INT AS code, * FROM (SELECT DISTINCT action, reason, origin FROM decisions)
), earlier AS (SELECT row, code, value FROM decisions JOIN told USING (action, reason, origin))
SELECT planned.* REPLACE (
        CASE WHEN wins THEN rule WHEN code IS NOT NULL THEN -1 ELSE 0 END AS rule,
        CASE WHEN wins THEN planned.action ELSE coalesce(told.action, 'keep') END AS action,
        CASE WHEN wins THEN planned.value ELSE coalesce(earlier.value, 1) END AS value,
        CASE WHEN NOT wins THEN told.reason END AS reason,
        CASE WHEN NOT wins THEN told.origin END AS origin,
        wins OR code IS NOT NULL AS decided)
FROM (SELECT *, decided AND row NOT IN (SELECT unnest($preview_spared::BIGINT[])) AS wins FROM ({planned})) AS planned
LEFT JOIN earlier USING (row) LEFT JOIN told USING (code)
"""
_TRAINED = f"""
SELECT * REPLACE (coalesce(action, 'keep') AS action),
    CASE WHEN tie THEN NULL WHEN {{opposite}} THEN 1 / (1 + exp(evidence)) ELSE p_flip END AS p,
    chosen_tokens - rejected_tokens AS longer, sign(longer) AS side,
    NOT tie AND p_flip >= $preview_called AS called,
    {UNLABELLED} AS unlabelled,
    CASE WHEN unlabelled OR action = 'drop' THEN 0 ELSE {WEIGHT} END AS weight,
    CASE WHEN action = 'flip' THEN 0 ELSE {LABEL} END AS label,
    CASE WHEN weight > 0 THEN least(floor(weight / {STEP}), {_MOST_STEPS})::INT END AS weight_step,
    CASE WHEN action = 'soft' THEN least(floor(label / {STEP}), 1 / {STEP} - 1)::INT END AS label_step
FROM (SELECT * REPLACE (CASE WHEN decided THEN action END AS action) FROM ({{pairs}}))
"""
_SUMS = {
    "pairs": "count(*)",
    "labelled": "count(*) FILTER (NOT tie)",
    "weight": "sum(weight)",
    "squares": "sum(weight * weight)",
    "towards": "sum(weight * (2 * label - 1))",
    "longer": "sum(longer) FILTER (NOT tie)",
    "longer_after": "sum(weight * (2 * label - 1) * longer)",
    "known": "count(p)",
    "wrong": "sum(p)",
    "left_wrong": "sum(p * weight * label)",
    "new_wrong": "sum((1 - p) * weight * (1 - label))",
    "right": "sum(1 - p)",
    "lost_right": "sum(1 - p) FILTER (weight = 0)",
    "first": f"min(row, {EXAMPLES})",
}
_EXAMPLES = f"""
SELECT row, pair_id, {", ".join(f"{source.sql} AS {side}" for side, source in list(DERIVED.items())[:3])}
FROM pairs WHERE row IN (SELECT unnest($rows::BIGINT[]))
"""


@dataclass(frozen=True)
class Noise:
    """What is expected of wrong labels, in pairs; of all labelled pairs that there is evidence about.

    known: how many these are. before: wrong labels. left: what of them still trains. new: what trains the wrong way
    round only since it was flipped or softened. lost: share of the right labels that leave.
    can_tell: whether the diagnosis can tell the noise of these data.
    selftest: share of the noise that is left if as many of the flips are found as in the self-test; its 95 % interval.
    """

    known: int
    before: float
    left: float
    new: float
    lost: float
    can_tell: bool
    selftest: tuple[float, float, float] | None

    @property
    def share_left(self) -> float | None:
        """Expected share of the noise that is left; None where none is expected."""
        return self.left / self.before if self.before else None


@dataclass(frozen=True)
class Preview:
    """What decisions make of N pairs. What is `before` is said of the labelled pairs, as if nothing were decided.

    actions: `action`, `reason`, `origin`, `pairs`, the most pairs first within an action; they add up to N.
    sources: `source`, `before` (pairs) and `after` (sum of weights), the largest first; null where a pair names none.
    length: lines `before` and `after`: `longer` and `shorter`, shares of the labels that prefer the longer and the
        shorter side, and `tokens`, how much longer the preferred side is on average; None without scores.
    weights, labels: how many pairs that stay have a weight of the loss, or a soft label: `low`, `high`, `pairs`; the
        last bin of the weights has no end.
    effective: sample size (Σw)²/Σw² of the pairs that stay.
    examples: the first pairs of each line of `actions` but those that nothing is decided about: `action`, `reason`,
        `origin`, `row`, `pair_id`, `prompt`, `chosen`, `rejected`.
    noise: None without a diagnosis.
    """

    pairs: int
    labelled: int
    staying: int
    actions: pd.DataFrame
    sources: pd.DataFrame
    length: pd.DataFrame | None
    weights: pd.DataFrame
    labels: pd.DataFrame
    effective: float
    examples: pd.DataFrame
    noise: Noise | None


def preview(view: RunView, plan: Plan, decisions: Decisions | None = None, *, spare_reviewed: bool = False) -> Preview:
    """What would stand if a plan were applied on top of what stands already.

    Args:
        decisions: those of the run; None: as if there were none.
        spare_reviewed: see `Decisions.apply`.

    Raises:
        ConfigError: the plan does not fit the run.
    """
    sums = _sums(view, plan, decisions, spare_reviewed=spare_reviewed)
    cube, sources = _named(sums[sums["mixed"] == 1], plan), sums[sums["mixed"] == 0]
    total = cube[[name for name in _SUMS if name != "first"]].sum()
    return Preview(
        pairs=int(total["pairs"]),
        labelled=int(total["labelled"]),
        staying=int(cube.loc[cube["weight"] > 0, "pairs"].sum()),
        actions=_actions(cube),
        sources=_sources(sources),
        length=_length(cube) if view.has("scores") else None,
        weights=_histogram(cube, "weight_step"),
        labels=_histogram(cube, "label_step"),
        effective=float(total["weight"] ** 2 / total["squares"]) if total["squares"] else 0.0,
        examples=_examples(view, cube),
        noise=_noise(view, cube) if view.has("diagnosis") else None,
    )


def _sums(view: RunView, plan: Plan, decisions: Decisions | None, *, spare_reviewed: bool) -> pd.DataFrame:
    """Sums by what pairs have in common (`mixed` = 1), and by source (`mixed` = 0)."""
    rules = rule_query(view, plan, _BESIDE)
    parameters: dict[str, Any] = {"preview_actions": ["keep", *(rule.then.name for rule in plan.rules)]}
    pairs = _PLANNED.format(rules=rules.sql)
    if decisions is not None and not decisions.is_empty():
        parameters["preview_spared"] = decisions.reviewed() if spare_reviewed else []
        pairs = _ON_TOP.format(planned=pairs)
    parameters["preview_called"] = view.stage("diagnose")["config"]["p_flip"] if view.has("diagnosis") else None
    opposite = "list_contains(checks, 'opposite_label')" if view.has("diagnosis") else "FALSE"
    trained = _TRAINED.format(pairs=pairs, opposite=opposite)
    keys, sums = ", ".join(_KEYS), ", ".join(f"{sql} AS {name}" for name, sql in _SUMS.items())
    query = (
        f"SELECT {keys}, source, grouping(source) AS mixed, {sums} FROM ({trained}) "
        f"GROUP BY GROUPING SETS (({keys}), (source))"
    )
    return view.sql(query, **rules.parameters, **parameters)


def _named(cube: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Lines with the action, reason and origin that are theirs."""
    nothing = UNMATCHED if plan.rules or plan.target_margin else UNDECIDED
    reasons = [nothing, *(rule.why for rule in plan.rules)]
    origins = ["", *(f"{plan.name}, rule {number}" for number, _ in enumerate(plan.rules, 1))]
    rule = cube["rule"].to_numpy(dtype=np.int64)
    named = cube.assign(
        reason=np.where(rule < 0, cube["reason"], np.array(reasons, dtype=object)[rule]),
        origin=np.where(rule < 0, cube["origin"], np.array(origins, dtype=object)[rule]),
    )
    named.loc[named["unlabelled"].astype(bool), _WHY] = ["drop", NO_LABEL, ""]
    return named


def _actions(cube: pd.DataFrame) -> pd.DataFrame:
    found = cube.groupby(_WHY, as_index=False)["pairs"].sum()
    total = found.groupby("action")["pairs"].transform("sum")
    order = found.assign(total=-total, most=-found["pairs"]).sort_values(["total", "action", "most", *_WHY])
    ordered: pd.DataFrame = order[[*_WHY, "pairs"]].reset_index(drop=True)
    return ordered


def _sources(sums: pd.DataFrame) -> pd.DataFrame:
    found = sums[["source", "labelled", "weight"]].rename(columns={"labelled": "before", "weight": "after"})
    return found.sort_values(["before", "source"], ascending=[False, True], ignore_index=True)


def _length(cube: pd.DataFrame) -> pd.DataFrame:
    """Labels count by their weight, and soft ones for both sides."""
    known = cube[cube["side"].notna()]
    side = known["side"]
    for_chosen, for_rejected = (known["weight"] + known["towards"]) / 2, (known["weight"] - known["towards"]) / 2
    lines = []
    for chosen, rejected, longer in (
        (known["labelled"], 0 * known["labelled"], known["longer"]),
        (for_chosen, for_rejected, known["longer_after"]),
    ):
        whole = (chosen + rejected).sum() or np.nan
        prefers_longer = chosen[side > 0].sum() + rejected[side < 0].sum()
        prefers_shorter = chosen[side < 0].sum() + rejected[side > 0].sum()
        lines.append((prefers_longer / whole, prefers_shorter / whole, longer.sum() / whole))
    return pd.DataFrame(lines, index=["before", "after"], columns=["longer", "shorter", "tokens"])


def _histogram(cube: pd.DataFrame, step: str) -> pd.DataFrame:
    found = cube[cube["weight"] > 0].groupby(step)["pairs"].sum()
    low = found.index.to_numpy(dtype=np.float64) * STEP
    high = np.where(found.index == _MOST_STEPS, np.inf, low + STEP)
    return pd.DataFrame({"low": low, "high": high, "pairs": found.to_numpy()})


def _examples(view: RunView, cube: pd.DataFrame) -> pd.DataFrame:
    decided = cube[cube["origin"].astype(bool) | (cube["reason"] == NO_LABEL)]
    firsts = decided[["rule", *_WHY, "first"]].explode("first").rename(columns={"first": "row"})
    firsts = firsts.astype({"row": "int64"}).sort_values("row").groupby(_WHY).head(EXAMPLES)
    firsts = firsts.sort_values(["rule", *_WHY, "row"]).drop(columns="rule")
    return firsts.merge(view.sql(_EXAMPLES, rows=firsts["row"].tolist()), on="row", validate="one_to_one")


def _noise(view: RunView, cube: pd.DataFrame) -> Noise:
    total = cube[["known", "wrong", "left_wrong", "new_wrong", "right", "lost_right"]].sum()
    noise = view.stage("diagnose")["noise"]
    return Noise(
        known=int(total["known"]),
        before=float(total["wrong"]),
        left=float(total["left_wrong"]),
        new=float(total["new_wrong"]),
        lost=float(total["lost_right"] / total["right"]) if total["right"] else 0.0,
        can_tell=noise is not None and noise["can_tell"],
        selftest=_by_selftest(view, cube),
    )


def _by_selftest(view: RunView, cube: pd.DataFrame) -> tuple[float, float, float] | None:
    """The share that is left of called flips and of others, weighed by how many the self-test calls; its interval."""
    sums = cube.groupby("called")[["wrong", "left_wrong"]].sum()
    if not view.has("selftest") or not {False, True} <= set(sums.index[sums["wrong"] > 0]):
        return None
    found = view.sql(
        "SELECT mean, low, high FROM selftest WHERE noise = 'random' AND metric = 'called_recall' "
        "AND (rate, folds, signal) = ($rate, $folds, $signal)",
        **{"rate": PROMISED_RATE, "folds": GROUPED, "signal": FUSED},
    )
    if found.empty:
        return None
    left = sums["left_wrong"] / sums["wrong"]
    mean, low, high = (recall * left[True] + (1 - recall) * left[False] for recall in found.iloc[0])
    return float(mean), float(min(low, high)), float(max(low, high))
