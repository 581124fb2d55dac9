"""Reference log-probs of a run's pairs: from its scores where the reference made them, else computed once and kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from accelerate import PartialState

from curate import engines, models
from curate.config import ComputeConfig
from curate.models import ModelSource
from curate.progress import say
from curate.store import Run
from curate.view import RunView
from training.config import TrainConfig
from training.data import PairColumns


def with_reference(columns: PairColumns, run: Run, config: TrainConfig, folder: Path) -> PairColumns:
    """Add the reference's log-probs, if the loss needs them: those of the file, of the run's scores, or new ones.

    Args:
        folder: where a run is made of the pairs, to be scored there, if neither has them; it may be the run's own.

    Raises:
        ModelError: the reference cannot be loaded.
    """
    if not config.loss_settings.needs_reference:
        return replace(columns, reference_N2=None)
    if columns.reference_N2 is not None and config.reference is None:
        say("reference: log-probs of the file")
        return columns
    reference = models.resolve(config.reference or config.model, say)
    name = _scored_by(run, reference, config)
    if name is None:
        run, name = _score(run, reference, config, folder), "policy"
    else:
        say(f"reference: log-probs of {reference.spec} from {run.path}")
    with RunView(run.path) as view:
        sides = [f"{name}_chosen_logp", f"{name}_rejected_logp"]
        frame = view.table("scores", [*sides, "chosen_tokens", "rejected_tokens"])
    numbers = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    return replace(columns, reference_N2=numbers[:, :2], scored_tokens_N2=numbers[:, 2:])


def _scored_by(run: Run, reference: ModelSource, config: TrainConfig) -> str | None:
    """Which pass of a run's scores is this model's, on the tokens that are trained on; None where none is."""
    scored = run.stage("score")
    if scored is None or run.lost_table("score") is not None:
        return None
    names = ("template", "max_length", "max_prompt_length")
    same = all(scored["config"][name] == getattr(config.score, name) for name in names)
    passes = [name for name in ("policy", "reference") if name in scored["passes"]]
    return next((it for it in passes if same and scored["passes"][it]["fingerprint"] == reference.fingerprint), None)


def _score(run: Run, reference: ModelSource, config: TrainConfig, folder: Path) -> Run:
    """Every process does its share of the scoring, and waits for the others."""
    say(f"reference: {reference.spec} scores the pairs once")
    with PartialState().main_process_first():
        scored = run if run.path == folder else run.fork(folder)
    engines.score(scored, config.score, ComputeConfig(device=config.device))
    PartialState().wait_for_everyone()
    return scored
