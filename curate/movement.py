"""Two runs of the same data side by side: how margins and kinds moved from one to the other.

Reads the tables `weights` and `diagnosis` of both. Pairs are the same where their content is; of copies the first goes
with the first.
"""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from curate.aggregates import nice_width
from curate.errors import RunError
from curate.store import Run
from curate.view import RunView

_BINS = 40
_EXAMPLES = 10
_TAIL = 0.005  # of the margins, on each side, goes into the outermost bins

_SIDE = """
SELECT pair_id, row, row_number() OVER (PARTITION BY pair_id ORDER BY row) AS copy, margin, kind, p_flip
FROM {weights} LEFT JOIN (SELECT row, kind, p_flip FROM {diagnosis}) USING (row)
"""
_MOVED = """
CREATE TEMP TABLE moved AS
    SELECT pair_id, here.row, here.margin, there.margin AS margin_was, here.kind, there.kind AS kind_was,
        here.p_flip, there.p_flip AS p_flip_was
    FROM ({here}) AS here JOIN ({there}) AS there USING (pair_id, copy)
"""
_FIGURES = """
SELECT count(*) AS pairs, corr(margin, margin_was) AS correlation, avg(margin - margin_was) AS shift,
    count(*) FILTER (sign(margin) <> sign(margin_was)) AS turned, count(*) FILTER (kind <> kind_was) AS other_kind,
    quantile_cont(margin_was, [$tail, 1 - $tail]) AS x, quantile_cont(margin, [$tail, 1 - $tail]) AS y
FROM moved
"""
_BINNED = """
SELECT greatest(least(floor(margin_was / $x_width), $x_last), $x_first) * $x_width + $x_width / 2 AS was,
    greatest(least(floor(margin / $y_width), $y_last), $y_first) * $y_width + $y_width / 2 AS now, count(*) AS pairs
FROM moved WHERE margin IS NOT NULL AND margin_was IS NOT NULL GROUP BY ALL ORDER BY ALL
"""
_KINDS = "SELECT kind_was AS was, kind AS now, count(*) AS pairs FROM moved GROUP BY ALL ORDER BY ALL"
_FURTHEST = """
SELECT pair_id, row, kind_was, kind, p_flip_was, p_flip FROM moved
WHERE p_flip IS NOT NULL AND p_flip_was IS NOT NULL ORDER BY abs(p_flip - p_flip_was) DESC, row LIMIT $most
"""


@dataclass(frozen=True)
class Movement:
    """What changed from one run (`was`) to another (`now`), over the pairs that both hold.

    pairs: how many both hold; correlation of the margins (None without spread); shift: mean of now − was, in nats.
    turned: pairs whose margin changed its sign; other_kind: pairs of another kind.
    margins: `was`, `now` (middles of bins), `pairs`. kinds: `was`, `now`, `pairs`; null without a diagnosis.
    furthest: the pairs whose p_flip moved most: `pair_id`, `row`, `kind_was`, `kind`, `p_flip_was`, `p_flip`.
    """

    pairs: int
    correlation: float | None
    shift: float
    turned: int
    other_kind: int
    margins: pd.DataFrame
    kinds: pd.DataFrame
    furthest: pd.DataFrame


def movement(before: RunView, after: RunView) -> Movement:
    """Compare two runs.

    Raises:
        RunError: one is not weighed or not diagnosed, or they have no pair in common.
    """
    for view in (before, after):
        view.stage("diagnose")
    with after.cursor() as cursor:
        here = _SIDE.format(weights="weights", diagnosis="diagnosis")
        there = _SIDE.format(weights="read_parquet($weights)", diagnosis="read_parquet($diagnosis)")
        files = {name: _pattern(Run(before.path).table_path(name)) for name in ("weights", "diagnosis")}
        cursor.execute(_MOVED.format(here=here, there=there), files)
        figures = cursor.execute(_FIGURES, {"tail": _TAIL}).df().iloc[0]
        if not figures["pairs"]:
            raise RunError(f"{before.path} and {after.path} have no pair in common: they are of different data")
        limits = {**_bins("x", figures["x"]), **_bins("y", figures["y"])}
        return Movement(
            pairs=int(figures["pairs"]),
            correlation=None if pd.isna(figures["correlation"]) else float(figures["correlation"]),
            shift=float(figures["shift"]),
            turned=int(figures["turned"]),
            other_kind=int(figures["other_kind"]),
            margins=cursor.execute(_BINNED, limits).df(),
            kinds=cursor.execute(_KINDS).df(),
            furthest=cursor.execute(_FURTHEST, {"most": _EXAMPLES}).df(),
        )


def _bins(axis: str, limits: Any) -> dict[str, float]:
    low, high = map(float, limits)
    width = nice_width((high - low) / _BINS)
    return {f"{axis}_width": width, f"{axis}_first": low // width, f"{axis}_last": high // width}


def _pattern(file: Path) -> str:
    """A path as DuckDB reads it: nothing in it is a wildcard."""
    return glob.escape(str(file))
