"""Ways of dealing with noise compared: the same pairs, the same model, one training each, judged on held-out pairs.

    RUN/compare/KEY/    a file for each seed and arm (what is done is not done again), results.parquet, compare.html

For every seed some prompts are held out, whose labels stay as they are in the data; flips are planted in the others
(`plant`), or are named by a column of the data (`truth`). The training pairs are then diagnosed anew under the labels
that they have now, by the run's out-of-fold evidence, so that no arm but the oracle knows what was planted.

Arms: the treatments (`training.treatments`), `random_drop` (as many pairs as `drop`, at random) and `oracle_drop` (what
was planted). `gamma` trains with γ-PO's loss and online γ, all others with the loss that was asked for.

Dimension key: N pairs of the run, M that can be learned from, S seeds.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from curate import models
from curate.detect import can_learn
from curate.errors import ConfigError, RunError
from curate.evidence import gather
from curate.models import Device, ModelSource
from curate.progress import Progress, say
from curate.scoring import make_encoder
from curate.store import Run, atomic_path, fingerprint, write_table
from curate.view import RunView
from training.comparison import METRICS, plot
from training.config import TrainConfig, require_own
from training.data import PairColumns, Pairs, prepare
from training.fitting import choose_device, make_arguments, make_trainer, require_one_process
from training.folders import alone_in
from training.following import Advance
from training.references import with_reference
from training.treatments import Treated, as_labelled
from training.trials import UNUSED, CompareConfig, Mask, Trial, make_trial, noise_left, treat

#: Plain loss → the γ-PO loss of the same reward.
GAMMA_LOSSES = {"dpo": "gamma_dpo", "dpo_norm": "gamma_dpo", "simpo": "gamma_simpo"}
_LEAST_SPREAD = 0.05  # of γ: max γ/min γ ≤ exp(γ0/τ), so that less than this would be no γ-PO at all

COMPARE_DEFAULTS: dict[str, Any] = {
    "loss": "dpo_norm",  # with β = 10 it is the published γ-PO's reward: raw and gamma differ in γ alone
    "beta": 10.0,
    "epochs": 2.0,
    "batch_size": 8,
    "learning_rate": 1e-4,
    "eval_share": 0.0,
}

RESULTS = pa.schema(
    [
        ("seed", pa.int64()),
        ("arm", pa.string()),
        ("trained", pa.int64()),  # pairs
        ("held_out", pa.int64()),
        ("noise", pa.float64()),  # share of wrong labels among those that it was trained on; null where unknown
        *((name, pa.float64()) for name in METRICS),  # on the held-out pairs
        ("seconds", pa.float64()),
    ]
)


def compare(run: Run, config: TrainConfig, what: CompareConfig, progress: Progress) -> pd.DataFrame:
    """Train and judge every arm with every seed.

    Returns:
        `RESULTS` as a frame; it is also written into the run, with a plot.

    Raises:
        RunError: the run is not scored and weighed, or has too few pairs. ConfigError: the settings do not suit it.
    """
    require_one_process("compare")
    require_own(config, "compare", treat="auto", eval_share=0.0, eval_data=None, early_stop=None)
    of_arm = {arm: arm_config(arm, config) for arm in what.arms}
    source, device = models.resolve(config.model, say), choose_device(config)
    with RunView(run.path) as view:
        evidence, chosen_N = gather(view), _chosen(view, what)
        known_N = None if what.truth is None else _truth(view, what.truth)
    if not can_learn(evidence):
        raise RunError(f"{run.path}: {len(evidence.learners)} labelled pairs are too few to compare anything")
    common = {name: value for name, value in asdict(what).items() if name not in ("arms", "seeds")}
    made = [run.require("weigh")["fingerprint"], models.describe(source), config.identity, common]
    folder = run.path / "compare" / fingerprint(made)  # more seeds and arms join those that are there
    rows = []
    with alone_in(folder):
        columns = with_reference(PairColumns(as_labelled(run.count_pairs())), run, config, folder / "data")
        for seed in range(what.seeds):
            trial = make_trial(evidence, chosen_N, known_N, what, seed)
            for arm in what.arms:
                if trial.flipped_N is not None or arm != "oracle_drop":
                    seeded = replace(of_arm[arm], seed=config.seed + seed)
                    work = _Arm(run, seeded, source, device, columns, folder, arm, seed)
                    rows.append(work.result(trial, progress))
        results = pa.Table.from_pylist(rows, schema=RESULTS)
        write_table(folder / "results.parquet", results, {"config": asdict(config), "compare": asdict(what)})
        frame: pd.DataFrame = results.to_pandas()
        with atomic_path(folder / "compare.html") as file:
            plot(frame).write_html(file, include_plotlyjs=True)
    say(f"{folder}: results.parquet, compare.html")
    return frame


def arm_config(arm: str, config: TrainConfig) -> TrainConfig:
    """The settings of an arm: those that were asked for, or γ-PO with the same reward.

    Raises:
        ConfigError: that loss has no γ-PO, or γ0 is so small against τ that γ-PO would be the plain loss.
    """
    if arm != "gamma":
        return config
    if config.loss not in GAMMA_LOSSES:
        raise ConfigError(f"--arms gamma: γ-PO has no {config.loss}; choose --loss {', '.join(GAMMA_LOSSES)}")
    settings = config.loss_settings
    found = replace(
        config,
        loss=GAMMA_LOSSES[config.loss],
        margin=settings.margin,
        beta=settings.beta,
        gamma_beta_ratio=settings.gamma_beta_ratio or None,
        targets="online",
    )
    spread = found.loss_settings.gamma0 / found.tau
    if spread < _LEAST_SPREAD:
        raise ConfigError(
            f"--arms gamma: γ0/τ is {spread:.2g}, so no γ could differ from γ0 by more than "
            f"{np.expm1(spread):.1%}: raise --beta or lower --tau"
        )
    return found


def _chosen(view: RunView, what: CompareConfig) -> Mask:
    tokens = view.sql("SELECT prompt_tokens + chosen_tokens + rejected_tokens AS tokens FROM scores ORDER BY row")
    tokens_N = tokens["tokens"].to_numpy(dtype=np.float64, na_value=np.inf)
    chosen_N = np.isfinite(tokens_N) if what.max_tokens is None else tokens_N <= what.max_tokens
    if what.pairs is not None:
        order = np.random.default_rng(0).permutation(np.flatnonzero(chosen_N))
        chosen_N = np.isin(np.arange(len(chosen_N)), order[: what.pairs])
    return chosen_N


def _truth(view: RunView, column: str) -> Mask:
    name, sign, wrong = column.partition("=")
    verdict = "text = $wrong" if sign else "TRY_CAST(text AS BOOLEAN)"
    frame = view.sql(
        f"SELECT json_extract_string(original, $path) AS text, {verdict} AS truth FROM pairs ORDER BY row",
        path=f"$.{name}",
        **({"wrong": wrong} if sign else {}),
    )
    if sign and not frame["truth"].fillna(False).any():
        raise ConfigError(f"--truth {column}: no pair has {name} {wrong!r}")
    if frame["truth"].isna().any():
        at = int(np.flatnonzero(frame["truth"].isna())[0])
        raise ConfigError(f"--truth {column}: pair {at} has {frame['text'][at]!r}, neither true nor false")
    return frame["truth"].to_numpy(dtype=bool)


# --- one training --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Arm:
    run: Run
    config: TrainConfig
    source: ModelSource
    device: Device
    columns: PairColumns
    folder: Path
    arm: str
    seed: int

    def result(self, trial: Trial, progress: Progress) -> dict[str, Any]:
        """A row of `RESULTS`; from its file where the training was done before."""
        file = self.folder / f"{self.seed}-{self.arm}.json"
        if not file.is_file():
            found = self._train(trial, progress)
            with atomic_path(file) as temporary:
                temporary.write_text(json.dumps(found), encoding="utf-8")
            say(f"seed {self.seed}, {self.arm}: accuracy {found['accuracy']:.3f} on {found['held_out']:,} pairs")
        row: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return row

    def _train(self, trial: Trial, progress: Progress) -> dict[str, Any]:
        started = time.monotonic()
        treated = treat(self.arm, trial, self.seed)
        pairs = self._prepare(treated, f"{self.seed}-{self.arm}")
        held_out = self._prepare(self._only(trial), f"{self.seed}-held-out")
        config = self.config
        arguments = make_arguments(config, self.device, self.folder / "logs")
        trainer = make_trainer(config, self.source, self.device, arguments, pairs)
        trainer.add_callback(Advance(progress, config.batch_size))
        trainer.train()
        metrics = trainer.judge(held_out).metrics()
        return {
            "seed": self.seed,
            "arm": self.arm,
            "trained": len(pairs),
            "held_out": len(held_out),
            "noise": noise_left(treated, trial),
            **{name: metrics[name] for name in METRICS},
            "seconds": round(time.monotonic() - started, 1),
        }

    def _only(self, trial: Trial) -> Treated:
        """The held-out pairs, the right way round where that is known."""
        plain = as_labelled(len(trial.held_out_N))
        return replace(plain, dropped_N=np.where(trial.held_out_N, "", UNUSED).astype(object), swap_N=trial.swap_N)

    def _prepare(self, treated: Treated, name: str) -> Pairs:
        encoder = make_encoder(self.source, replace(self.config.score, policy=self.config.model))
        columns = replace(self.columns, treated=treated)
        found = prepare(self.run, columns, encoder, self.folder / f"{name}.arrow", held_out_share=0.0, seed=0)
        return Pairs(found.path, held_out=False)


def total_visits(run: Run, config: TrainConfig, what: CompareConfig) -> int:
    """About how many pairs all trainings see together, for a progress bar."""
    with RunView(run.path) as view:
        pairs = int((gather(view).learns_N & _chosen(view, what)).sum())
    visits = config.max_steps * config.batch_size if config.max_steps else pairs * (1 - what.held_out) * config.epochs
    return round(visits * len(what.arms) * what.seeds)
