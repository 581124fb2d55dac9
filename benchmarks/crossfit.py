"""How much of planted noise do policies see that were trained on the other pairs? Plants first, trains afterwards.

For each seed: flips are planted at random in a scored run's labelled pairs; `curate crossfit`'s trainings run on the
labels that result; the margins are measured alone, next to the cross-fitted probe, and fused with it.

    python benchmarks/crossfit.py RUN --noise 0.2 --seeds 3 --max-tokens 2048 --folds 2

Trainings are kept in `--work`: the same command goes on where it stopped. One thread a process: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from curate import models
from curate.detect import FUSED, GROUPED, RANDOM, Detected, detect
from curate.evidence import gather
from curate.metrics import auroc, average_precision, precision_at
from curate.planting import random_flips
from curate.probe import Folds as ProbeFolds
from curate.progress import progress_bar
from curate.store import Run
from curate.view import RunView
from training.config import TrainConfig
from training.crossfit import CROSSFIT_DEFAULTS, Folds, assign, group_codes, out_of_fold, prepared
from training.fitting import choose_device
from training.treatments import as_labelled

Floats = NDArray[np.float64]
_PROBE = ProbeFolds(10, 3)


def main() -> None:
    """Run the benchmark."""
    options = _options()
    rows = [row for seed in range(options.seeds) for row in _seed(options, seed)]
    table = pd.DataFrame(rows)
    means = table.groupby(["signal", "folds"], sort=False).mean(numeric_only=True)
    print(means.drop(columns="seed").round(3).to_string())
    print(table.round(3).to_string(index=False))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a scored and weighed run")
    parser.add_argument("--noise", type=float, default=0.2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=250, help="only pairs with at most so many tokens")
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--grouped", action="store_true", help="folds of whole prompts")
    parser.add_argument("--lora-layers", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--work", type=Path, default=Path("runs/bench-crossfit"))
    return parser.parse_args()


def _seed(options: argparse.Namespace, seed: int) -> Iterator[dict[str, object]]:
    run = Run.open(options.run)
    with RunView(run.path) as view:
        evidence = gather(view)
        tokens = view.sql("SELECT prompt_tokens + chosen_tokens + rejected_tokens AS tokens FROM scores ORDER BY row")
    short_N = tokens["tokens"].to_numpy(dtype=np.float64, na_value=np.inf) <= options.max_tokens
    at = evidence.learners[short_N[evidence.learners]]
    target_M = random_flips(len(at), options.noise, seed + 1)[:, seed]
    started = time.monotonic()
    margin_M = _margins(options, run, at, target_M, seed)
    seconds = time.monotonic() - started
    alone = detect(evidence.take(at), target_M[:, None], _PROBE)
    with RunView(run.path) as view:
        imported = np.full(len(short_N), np.nan)
        imported[at] = margin_M * target_M
        with_it = gather(view, {"crossfit": imported}).take(at)
    both = detect(with_it, target_M[:, None], _PROBE)
    for name, folds, value_M in _signals(margin_M, alone, both, options):
        flipped_M = target_M < 0
        yield {
            "signal": name,
            "folds": folds,
            "seed": seed,
            "pairs": len(at),
            "auroc": auroc(value_M, flipped_M),
            "average_precision": average_precision(value_M, flipped_M),
            "top_5_percent": precision_at(value_M, flipped_M, round(0.05 * len(at))),
            "seconds": seconds,
        }


def _margins(options: argparse.Namespace, run: Run, at: NDArray[np.int64], target_M: Floats, seed: int) -> Floats:
    """Out-of-fold margins (M,) under the planted labels, positive where they agree with these."""
    changes = {"lora_layers": options.lora_layers, "epochs": options.epochs, "learning_rate": options.learning_rate}
    config = TrainConfig(**{**CROSSFIT_DEFAULTS, **changes, "model": options.model, "seed": seed})
    pairs = run.count_pairs()
    dropped_N, swap_N = np.full(pairs, "not compared", dtype=object), np.zeros(pairs, dtype=bool)
    dropped_N[at], swap_N[at] = "", target_M < 0
    treated = replace(as_labelled(pairs), dropped_N=dropped_N, swap_N=swap_N)
    source, folds = models.resolve(options.model), Folds(options.folds, options.grouped)
    name = f"{options.max_tokens}-{options.noise}-{options.folds}-{options.grouped}-{options.lora_layers}"
    folder = options.work / f"{name}-{options.learning_rate}-{options.epochs}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    known, _ = prepared(run, config, source, treated, folder)
    fold_N = assign(group_codes(run, known, folds), folds.count, seed)
    with progress_bar(f"seed {seed}", None) as progress:
        return out_of_fold(config, source, choose_device(config), known, fold_N, folder, progress)


def _signals(
    margin_M: Floats, alone: Detected, both: Detected, options: argparse.Namespace
) -> Iterator[tuple[str, str, Floats]]:
    yield "crossfit", GROUPED if options.grouped else RANDOM, margin_M
    for folds in (GROUPED, RANDOM):
        yield "length alone", folds, alone.values["length", folds][:, 0]
        yield "probe", folds, alone.values[FUSED, folds][:, 0]
        yield "probe with crossfit", folds, both.values[FUSED, folds][:, 0]


if __name__ == "__main__":
    main()
