"""Small tables for figures, counted in SQL: their size does not depend on the run's.

Reads the tables `weights`, `scores` and `diagnosis`. Kinds stand in every table, null where the run is not diagnosed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from curate.columns import side_by_side
from curate.gamma import GammaWeights, gamma_weights
from curate.view import RunView

Floats = NDArray[np.float64]

BINS = 60
MAP_PAIRS = 5_000
_TAIL = 0.002  # of the margins, on each side, goes into the outermost bin
_POINTS = 2_048  # bins of margins for the solver

_BINNED = """
SELECT greatest(least(floor(weights.margin / $width), $last), $first)::BIGINT AS nth, {kind} AS kind, count(*) AS pairs
FROM {tables} WHERE weights.margin IS NOT NULL GROUP BY ALL ORDER BY ALL
"""

_LENGTHS = """
SELECT kind, count(*) AS pairs, avg((longer > 0)::DOUBLE) AS chosen_longer,
    avg((longer < 0)::DOUBLE) AS rejected_longer, avg(longer) AS tokens
FROM (
    SELECT {kind} AS kind, scores.chosen_tokens - scores.rejected_tokens AS longer
    FROM {tables} WHERE weights.weight IS NOT NULL
) GROUP BY GROUPING SETS ((kind), ()) ORDER BY grouping(kind), kind
"""

_POINTS_QUERY = """
SELECT avg(margin) AS margin, count(*)::DOUBLE AS pairs FROM weights WHERE weight IS NOT NULL
GROUP BY greatest(least(floor((margin - $low) / $width), $last), 0) ORDER BY margin
"""

_MAP = """
SELECT pair_id, row, kind, p_flip, cluster, x, y FROM diagnosis
WHERE x IS NOT NULL ORDER BY hash(row), row LIMIT $most
"""


def margin_bins(view: RunView, most: int = BINS) -> pd.DataFrame:
    """Pairs by margin and kind: `low`, `high`, `middle`, `width`, `kind`, `pairs`; about `most` bins, zero is a border.

    What lies outside of the outermost borders is in the outermost bins, which have no outer limit (±inf).

    Raises:
        RunError: the run is not weighed.
    """
    view.stage("weigh")
    low, high = _limits(view)
    width = nice_width((high - low) / most)
    first, last = math.floor(low / width), math.ceil(high / width) - 1
    last = max(last, first)
    found = view.sql(_with_kinds(view, _BINNED, "weights"), width=width, first=first, last=last)
    nth = found["nth"].to_numpy(dtype=np.int64)
    low_E = np.where(nth == first, -np.inf, (nth * width).round(12))
    high_E = np.where(nth == last, np.inf, ((nth + 1) * width).round(12))
    middle_E = ((nth + 0.5) * width).round(12)
    edges = pd.DataFrame({"low": low_E, "high": high_E, "middle": middle_E, "width": width})
    return edges.join(found[["kind", "pairs"]])


def nice_width(width: float) -> float:
    """The next larger of 1, 2 and 5 times a power of ten; 1 where there is no width."""
    if not width > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(width))
    return next(round(step * power, 12) for step in (1.0, 2.0, 5.0, 10.0) if step * power >= width * (1 - 1e-9))


def length_bias(view: RunView) -> pd.DataFrame:
    """Which side is the longer one, of labelled pairs: a line a kind, and one of all (kind null) at the end.

    `pairs`, `chosen_longer`, `rejected_longer` (shares), `tokens` (chosen − rejected, mean).

    Raises:
        RunError: the run is not weighed.
    """
    view.stage("weigh")
    found = view.sql(_with_kinds(view, _LENGTHS, "weights", "scores"))
    return found if view.has("diagnosis") else found.tail(1).reset_index(drop=True)


def text_map(view: RunView, most: int = MAP_PAIRS) -> pd.DataFrame:
    """Pairs with their place on the map, at most so many, at random but the same each time: `pair_id`, `row`, `kind`, …

    Raises:
        RunError: the run is not diagnosed.
    """
    view.stage("diagnose")
    return view.sql(_MAP, most=most)


@dataclass(frozen=True)
class MarginPoints:
    """Margins of labelled pairs in P bins: their means, ascending, and how many pairs each stands for, shape (P,)."""

    margin_P: Floats
    pairs_P: Floats
    beta: float

    def weights(self, *, beta: float, gamma_beta_ratio: float, tau: float) -> GammaWeights[Floats]:
        """γ-PO's exact optimum of these points, at another β: margins are proportional to it.

        Raises:
            ConfigError: a setting is not positive.
        """
        return gamma_weights(self.at(beta), gamma0=gamma_beta_ratio * beta, tau=tau, count_N=self.pairs_P)

    def at(self, beta: float) -> Floats:
        """The margins at another β."""
        return self.margin_P * (beta / self.beta)

    def effective(self, weight_P: Floats) -> float:
        """Effective sample size (Σw)²/Σw² in pairs."""
        total, squares = float(self.pairs_P @ weight_P), float(self.pairs_P @ weight_P**2)
        return total**2 / squares


def margin_points(view: RunView) -> MarginPoints:
    """The margins of the labelled pairs as a fine histogram.

    Raises:
        RunError: the run is not weighed.
    """
    weighed = view.stage("weigh")
    low, high = _limits(view)
    width = (high - low) / _POINTS or 1.0
    found = view.sql(_POINTS_QUERY, low=low, width=width, last=_POINTS - 1)
    return MarginPoints(found["margin"].to_numpy(), found["pairs"].to_numpy(), float(weighed["beta"]))


def _limits(view: RunView) -> tuple[float, float]:
    """Of the margins but for the tails; zero lies between."""
    query = f"SELECT quantile_cont(margin, [{_TAIL}, {1 - _TAIL}]) AS q FROM weights WHERE margin IS NOT NULL"
    found = view.sql(query)["q"][0]
    low, high = (0.0, 0.0) if found is None else map(float, found)
    return min(low, 0.0), max(high, 0.0)


def _with_kinds(view: RunView, query: str, *tables: str) -> str:
    """A query over some tables, and over the diagnosis where there is one."""
    diagnosed = view.has("diagnosis")
    source = side_by_side(view, [*tables, "diagnosis"] if diagnosed else tables, {})
    return query.format(kind="diagnosis.kind" if diagnosed else "NULL::VARCHAR", tables=source)
