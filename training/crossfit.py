"""Cross-fitting: K models, each trained without one fold of the pairs, judge the fold that they did not see.

    RUN/crossfit/KEY/       pairs.arrow, fold-00.parquet … (what is done is not done again)
    RUN/crossfit.parquet    pair_id, row, crossfit (crossfit_random_folds): out-of-fold margins, positive where they
                            agree with the label

A policy that was trained on a wrong label agrees with it; one that was not, does not. `curate diagnose` takes the
margins as a signal of the run.

Dimension key: N pairs that can be trained on, K folds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from curate import models
from curate.detect import CROSSFIT, CROSSFIT_RANDOM
from curate.errors import ConfigError, RunError
from curate.models import Device, ModelSource
from curate.progress import Progress, say
from curate.scoring import make_encoder
from curate.store import Run, fingerprint, nullable, read_metadata, write_table
from curate.view import RunView
from training.config import TrainConfig, require_own
from training.data import PairColumns, Pairs, prepare
from training.fitting import choose_device, make_arguments, make_trainer, require_one_process
from training.folders import alone_in
from training.following import Advance
from training.references import with_reference
from training.treatments import Treated, as_labelled

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

#: Short LoRA trainings. β and the two epochs are those of a first sketch; the learning rate is the best of three.
CROSSFIT_DEFAULTS: dict[str, Any] = {
    "loss": "dpo",
    "epochs": 2.0,
    "batch_size": 8,
    "learning_rate": 3e-4,
    "treat": "raw",
    "eval_share": 0.0,
}


@dataclass(frozen=True)
class Folds:
    """K folds: of whole prompts, or of pairs (copies of a pair, either way round, stay together)."""

    count: int = 5
    grouped: bool = True

    def __post_init__(self) -> None:
        if self.count < 2:
            raise ConfigError(f"--folds is {self.count}: it must be 2 or more")

    @property
    def signal(self) -> str:
        """What the margins are called."""
        return CROSSFIT if self.grouped else CROSSFIT_RANDOM


def crossfit(run: Run, config: TrainConfig, folds: Folds, progress: Progress) -> dict[str, Any]:
    """Cross-fit a run's pairs and keep the margins as a signal of the run.

    Returns:
        counts: pairs `trained` and, by reason, left out; folds; signal: its name; agreement: share of positive margins;
        seconds.

    Raises:
        ConfigError: fewer groups than folds, or a setting that means nothing here. RunError: the run holds no pairs.
        ModelError: the model is at fault.
    """
    started = time.monotonic()
    require_one_process("crossfit")
    require_own(config, "crossfit", treat="raw", eval_share=0.0, eval_data=None, early_stop=None)
    device, source = choose_device(config), models.resolve(config.model, say)
    key = fingerprint([run.require("ingest")["fingerprint"], models.describe(source), config.identity, asdict(folds)])
    folder = run.path / "crossfit" / key
    with alone_in(folder):
        pairs, counts = prepared(run, config, source, as_labelled(run.count_pairs()), folder)
        fold_N = assign(group_codes(run, pairs, folds), folds.count, config.seed)
        margin_N = out_of_fold(config, source, device, pairs, fold_N, folder, progress)
    table = pairs.columns("pair_id", "row").append_column(folds.signal, nullable(margin_N))
    made = {"ingest": run.require("ingest")["fingerprint"], "folds": asdict(folds), "model": source.spec, "key": key}
    write_table(run.table_path(CROSSFIT), table, made)
    return {
        "counts": counts,
        "folds": asdict(folds),
        "signal": folds.signal,
        "agreement": float((margin_N > 0).mean()),
        "seconds": time.monotonic() - started,
    }


def prepared(
    run: Run, config: TrainConfig, source: ModelSource, treated: Treated, folder: Path
) -> tuple[Pairs, dict[str, int]]:
    """Tokens and reference log-probs of all pairs that can be trained on, and what became of the others.

    Raises:
        RunError: there are none.
    """
    columns = with_reference(PairColumns(treated), run, config, folder / "data")
    encoder = make_encoder(source, replace(config.score, policy=config.model))
    found = prepare(run, columns, encoder, folder / "pairs.arrow", held_out_share=0.0, seed=config.seed)
    if not found.counts.get("trained"):
        raise RunError(f"{run.path}: no pair can be trained on; see curate show {run.path}")
    return Pairs(found.path, held_out=False), found.counts


def group_codes(run: Run, pairs: Pairs, folds: Folds) -> Codes:
    """Codes (N,) of what must stay together."""
    content = "hash(prompt, greatest(hash(chosen), hash(rejected)), least(hash(chosen), hash(rejected)))"
    with RunView(run.path) as view:
        what = "hash(prompt)" if folds.grouped else content
        frame = view.sql(f"SELECT row, {what} AS code FROM pairs ORDER BY row").set_index("row")
    codes = frame.loc[pairs.columns("row")["row"].to_numpy(), "code"].to_numpy()
    return np.unique(codes, return_inverse=True)[1].astype(np.int64)


def assign(code_N: Codes, folds: int, seed: int) -> Codes:
    """A fold for every pair, the same for the same code; folds are as large as whole groups allow.

    Raises:
        ConfigError: there are fewer groups than folds.
    """
    size_G = np.bincount(code_N)
    if len(size_G) < folds:
        raise ConfigError(f"--folds {folds}: there are only {len(size_G)} groups of pairs to share out")
    fold_G, filled = np.zeros(len(size_G), dtype=np.int64), np.zeros(folds)
    order = np.random.default_rng(seed).permutation(len(size_G))
    for group in order[np.argsort(-size_G[order], kind="stable")]:
        fold_G[group] = filled.argmin()
        filled[fold_G[group]] += size_G[group]
    return fold_G[code_N]


def out_of_fold(
    config: TrainConfig,
    source: ModelSource,
    device: Device,
    pairs: Pairs,
    fold_N: Codes,
    folder: Path,
    progress: Progress,
) -> Floats:
    """Margins (N,) of every pair under the model that was trained without its fold."""
    folds = range(int(fold_N.max()) + 1)
    files = [folder / f"fold-{fold:02d}.parquet" for fold in folds]
    if to_do := [fold_N == fold for fold in folds if read_metadata(files[fold]) is None]:
        say(f"crossfit: {cost(config, source, device, pairs, to_do, folder)}")
    margin_N = np.full(len(pairs), np.nan)
    for fold, file in zip(folds, files, strict=True):
        held_N = fold_N == fold
        if read_metadata(file) is None:
            margins = _judge_fold(config, source, device, pairs, held_N, folder, progress)
            write_table(file, pa.table({"margin": margins}), {"fold": fold})
        else:
            progress.advance(updates(config, int((~held_N).sum())) * config.batch_size)
        margin_N[held_N] = pq.read_table(file)["margin"].to_numpy()
    return margin_N


def _judge_fold(
    config: TrainConfig,
    source: ModelSource,
    device: Device,
    pairs: Pairs,
    held_N: NDArray[np.bool_],
    folder: Path,
    progress: Progress,
) -> Floats:
    learned, held = pairs.take(np.flatnonzero(~held_N)), pairs.take(np.flatnonzero(held_N))
    trainer = make_trainer(config, source, device, make_arguments(config, device, folder / "logs"), learned)
    trainer.add_callback(Advance(progress, config.batch_size))
    trainer.train()
    return trainer.judge(held).margin_N


def updates(config: TrainConfig, pairs: int) -> int:
    """How often the weights change in a training on so many pairs."""
    return config.max_steps or math.ceil(config.epochs * math.ceil(pairs / config.batch_size))


def total_visits(run: Run, config: TrainConfig, folds: Folds) -> int:
    """About how many pairs all trainings see together, for a progress bar."""
    ingested = run.require("ingest")
    learned = round((ingested["pairs"] - ingested["ties"]) * (1 - 1 / folds.count))
    return updates(config, learned) * config.batch_size * folds.count


def cost(
    config: TrainConfig,
    source: ModelSource,
    device: Device,
    pairs: Pairs,
    held_out: Sequence[NDArray[np.bool_]],
    folder: Path,
) -> str:
    """What trainings without these folds take, in tokens, and in minutes as one batch lets expect.

    Args:
        held_out: which pairs each leaves out, (N,) each.
    """
    length_N = pairs.lengths()
    judged = sum(int(length_N[held_N].sum()) for held_N in held_out)
    visits = [updates(config, int((~held_N).sum())) * config.batch_size for held_N in held_out]
    learned = round(sum(count * length_N[~held_N].mean() for count, held_N in zip(visits, held_out, strict=True)))
    speed = tokens_per_second(config, source, device, pairs, folder)
    minutes = (learned + judged / 3) / speed / 60
    return (
        f"{len(held_out)} trainings without a fold each, {learned:,} tokens to learn from and {judged:,} to judge: "
        f"about {minutes:,.0f} minutes at {speed:,.0f} tokens/s"
    )


def tokens_per_second(config: TrainConfig, source: ModelSource, device: Device, pairs: Pairs, folder: Path) -> float:
    """Of forward and backward, measured on the second of two batches of ordinary length."""
    middle = np.argsort(pairs.lengths(), kind="stable")[len(pairs) // 2 :][: config.micro_batch]
    few = pairs.take(middle)
    trainer = make_trainer(config, source, device, make_arguments(config, device, folder / "logs"), few)
    for _ in range(2):
        started = time.monotonic()
        batch = cast("Any", trainer.collate([few[at] for at in range(len(few))]))
        float(trainer.training_step(cast("torch.nn.Module", trainer.model), batch))  # waits for the device
    return float(few.lengths().sum()) / (time.monotonic() - started)
