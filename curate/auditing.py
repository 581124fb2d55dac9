"""All stages in a row: a preference file in, a run with scores and weights out."""

from __future__ import annotations

import os

from curate.config import AuditConfig
from curate.engines import score
from curate.pairs import ingest
from curate.progress import progress_bar, say
from curate.store import Run
from curate.view import RunView
from curate.weighing import weigh


def audit(config: AuditConfig, run: str | os.PathLike[str], *, replace_data: bool = False) -> RunView | None:
    """Read, score and weigh; what is done already is not done again.

    Args:
        run: the run's folder; made where there is none.
        replace_data: allow other data than the run was made from.

    Returns:
        The run, open for reading; None where other workers of the same run are still scoring.

    Raises:
        CurateError: see the stages.
    """
    opened = Run.create(run)
    with progress_bar("reading", None) as progress:
        ingest(config.ingest, opened, progress, replace_data=replace_data)
    if score(opened, config.score, config.compute) is None:
        return None
    weigh(opened, config.weigh, say)
    return RunView(run)
