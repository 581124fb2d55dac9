"""What stands decided about a run, for reports: cheap where nothing was ever decided. Reads the log of decisions."""

from __future__ import annotations

from typing import Any

from curate.decision_log import DecisionLog
from curate.decisions import Decisions
from curate.store import Run
from curate.view import RunView, plain_records


def tally_decided(view: RunView) -> dict[str, int]:
    """How many pairs each action stands for; empty where nothing stands.

    Raises:
        RunError: the log, or a file that belongs to it, is damaged.
    """
    found = _query(view, "SELECT action, count(*) AS pairs FROM decisions GROUP BY action ORDER BY pairs DESC, action")
    return {line["action"]: line["pairs"] for line in found}


def decided_about(view: RunView, row: int) -> dict[str, Any] | None:
    """What stands about the pair at a row, or None: action, value, reason, origin, entry, decided_at, who.

    Raises:
        RunError: the log, or a file that belongs to it, is damaged.
    """
    columns = "action, value, reason, origin, entry, decided_at, who"
    found = _query(view, f"SELECT {columns} FROM decisions WHERE row = $row", row=row)
    return found[0] if found else None


def _query(view: RunView, query: str, **parameters: Any) -> list[dict[str, Any]]:
    """A query over the table `decisions`, which is set up only where the log holds something."""
    if not DecisionLog(Run.open(view.path)).entries():
        return []
    Decisions(view)
    return plain_records(view.sql(query, **parameters))
