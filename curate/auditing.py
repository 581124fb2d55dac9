"""All stages in a row: a preference file in, a diagnosed run out."""

from __future__ import annotations

import os

from curate.config import AuditConfig, DiagnoseConfig
from curate.diagnosing import DIAGNOSE_STEPS, diagnose
from curate.engines import score
from curate.pairs import ingest
from curate.progress import progress_bar, say
from curate.selftest import QUICK, selftest
from curate.store import Run
from curate.view import RunView
from curate.weighing import weigh


def audit(config: AuditConfig, run: str | os.PathLike[str], *, replace_data: bool = False) -> RunView | None:
    """Read, score, weigh, diagnose and test the diagnosis; what is done already is not done again.

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
    examine(opened, config.diagnose)
    return RunView(run)


def examine(run: Run, config: DiagnoseConfig) -> None:
    """Diagnose a run, and test the diagnosis where that was not done yet and there are pairs enough.

    Raises:
        CurateError: see the stages.
    """
    with progress_bar("diagnosing", DIAGNOSE_STEPS, "steps") as progress:
        facts = diagnose(run, config, progress)
    if facts["noise"] is not None and run.stage("selftest") is None:
        with progress_bar("self-test", QUICK.plantings, "plantings") as progress:
            selftest(run, QUICK, progress)
