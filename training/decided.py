"""What was decided about a run's pairs, as a training takes it: just what an export for TRL would hold.

Reads the log of decisions and the run's tables; writes nothing.

Dimension key: N pairs of the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curate import selecting
from curate.config import ExportConfig
from curate.decisions import Decisions
from curate.exporters import EXPORTERS
from curate.store import Run
from curate.view import RunView
from training.treatments import DROPPED_BY_DECISION, TIE, Floats, Treated

_REASONS = {
    None: "",
    selecting.DECIDED: DROPPED_BY_DECISION,
    selecting.TIE: TIE,
    selecting.UNFIT: "no pair for a trainer",
}

#: Of what changes a training, in whatever order: who decided, why and when does not.
_STANDING = """
SELECT count(*) AS pairs, bit_xor(md5_number(concat_ws('/', "row", action, coalesce(value::VARCHAR, ''),
    coalesce(target_margin::VARCHAR, ''))))::VARCHAR AS digest FROM decisions
"""


@dataclass(frozen=True)
class Standing:
    """About how many pairs something is decided, and a digest of what."""

    pairs: int
    digest: str


@dataclass(frozen=True)
class Decided:
    """What becomes of N pairs by decision.

    target_margin_N: γ_i, NaN where a pair has none; None where the run has none at all.
    own_margins: whether a decision set target margins other than those of the run's weights.
    """

    treated: Treated
    target_margin_N: Floats | None
    own_margins: bool


def standing(run: Run) -> Standing:
    """The decisions that stand.

    Raises:
        RunError: the log of decisions is damaged.
    """
    with _decided_view(run) as view:
        found = view.sql(_STANDING)
    return Standing(int(found["pairs"][0]), str(found["digest"][0]))


def decided(run: Run) -> Decided:
    """What the decisions that stand make of the pairs.

    Raises:
        RunError: the log of decisions is damaged.
    """
    trl = EXPORTERS["trl"]
    with _decided_view(run) as view:
        selection = selecting.select(view, ExportConfig("trl"), trl.unfit, ())
    table = selection.table
    treated = Treated(
        np.array([_REASONS[gone] for gone in table["gone"].to_pylist()], dtype=object),
        table["flipped"].to_numpy().astype(bool),
        _numbers(table["weight"]),
        _numbers(table["p_flip"]),
        is_label=True,
    )
    has_margins = "target_margin" in table.column_names
    return Decided(treated, _numbers(table["target_margin"]) if has_margins else None, selection.own_margins)


@contextmanager
def _decided_view(run: Run) -> Iterator[RunView]:
    """A view with the table `decisions`."""
    with RunView(run.path) as view:
        Decisions(view)
        yield view


def _numbers(column: pa.ChunkedArray) -> Floats:
    found: Floats = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return found
