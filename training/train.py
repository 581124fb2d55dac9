"""Stage `train`: pairs → a trained model, with all that is needed to know how it came about.

    OUT/
      training.json      resolved settings, data, model
      data/              the pairs of a file, as a run; or a run's pairs scored by the reference
      pairs.arrow        tokens, weights, target margins, reference log-probs
      checkpoints/       what a training that was cut off goes on from
      dynamics/          margins of every pair at every visit; signals.parquet: their summary
      adapter/           with LoRA
      model/             the whole model: for scoring, generation and inference engines
      metrics.jsonl      every logged number
      report.json        counts, before and after; README.md: the model card

The same command goes on where it stopped, and does nothing where all is done.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import transformers

from curate import models
from curate.engines import World
from curate.errors import ConfigError, InputError, RunError, storage_errors
from curate.inputs import find_sources
from curate.models import Device, ModelSource
from curate.pairs import ingest
from curate.progress import progress_bar, say
from curate.readers import sha256
from curate.scoring import make_encoder
from curate.store import Run, atomic_path, fingerprint, write_table
from curate.view import RunView
from training.adapters import require_whole, save_model, save_shards
from training.card import write_card
from training.config import CHANGES_NOTHING, TrainConfig
from training.data import (
    PairColumns,
    Pairs,
    Prepared,
    columns_of_file,
    columns_of_run,
    prepare,
    say_treatment,
    treatment,
)
from training.decided import Standing, standing
from training.dynamics import Recorder, signals
from training.evaluation import WITHOUT_MARGIN
from training.fitting import choose_device, make_arguments, make_trainer, targets_name
from training.folders import alone_in, writing
from training.following import Follower, finite, rewind
from training.references import with_reference
from training.trainer import PairTrainer, last_checkpoint, remove_torn
from training.treatments import DECISIONS

_MADE_BEFORE = ("pairs.json", "held_out.json", "before.json", "metrics.jsonl")

Report = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One training. source: a run's folder, or what `curate ingest` reads. decisions: those that it applies, if any."""

    config: TrainConfig
    source: str
    output: Path
    world: World
    device: Device
    model: ModelSource
    decisions: Standing | None = None

    @property
    def is_run(self) -> bool:
        """Whether the pairs are a run's."""
        return (Path(self.source) / "manifest.json").is_file()


def train(config: TrainConfig, source: str, output: Path) -> Report:
    """Train a model on a run's pairs, or on those of a file.

    Returns:
        What `report.json` says.

    Raises:
        ConfigError: the settings are impossible, or do not suit the data or the machine.
        InputError, RunError, ModelError: the data, the run or the model is at fault.
        StorageError: the disk refuses; what was done is kept.
    """
    started = time.monotonic()
    world, device = World.of(os.environ, config.workers), choose_device(config)
    job = Job(config, source, output, world, device, models.resolve(config.model, say))
    _claim(output)
    with alone_in(output) if world.rank == 0 else nullcontext():
        return _train(job, started)


def _train(job: Job, started: float) -> Report:
    checkpoints = job.output / "checkpoints"
    arguments = make_arguments(job.config, job.device, checkpoints, world=job.world.size, keeps=True)
    with arguments.main_process_first(local=False):
        run = _open(job)
        job = _resolved(job, run)
        if (finished := _finished(job, run)) is not None:
            return finished
    prepared = _prepare(job, run, arguments)
    trainer = _trainer(job, arguments, prepared)
    before, after = _fit(job, trainer, own_reference=prepared.own_reference)
    return _finish(job, run, trainer, prepared, before, after, started)


# --- the data ------------------------------------------------------------------------------------


def _claim(output: Path) -> None:
    """Make the folder, unless it holds something that is no training.

    Raises:
        RunError: it does.
    """
    with storage_errors(output):
        output.mkdir(parents=True, exist_ok=True)
    names = {name for name in os.listdir(output) if not name.startswith(".")}
    if names - {"data"} and "training.json" not in names:
        raise RunError(f"{output}: the folder is not empty and holds no training: choose another with -o")


def _open(job: Job) -> Run:
    """The run, or the file's pairs as one."""
    if job.is_run:
        for name in ("format", "columns", "label_values", "limit"):
            if getattr(job.config, name) is not None:
                raise ConfigError(
                    f"{name} says how a file is read, but {job.source} is a run: say it to curate audit or ingest"
                )
        return Run.open(job.source)
    if job.config.treat != "auto":
        raise ConfigError(
            f"--treat {job.config.treat} needs a run: audit the file with curate audit, and train on that"
        )
    run = Run.create(job.output / "data")
    with progress_bar("reading", None) as progress:
        try:
            ingest(job.config.ingest(job.source), run, progress)
        except RunError as error:
            raise RunError(f"{job.output}: holds a training on other data: choose another -o") from error
    return run


def _resolved(job: Job, run: Run) -> Job:
    """The job with what it does about noise settled, so that decisions that are made meanwhile do not change it."""
    if not job.is_run:
        return job
    if job.world.rank == 0:
        say_treatment(run, job.config)
    treat = treatment(run, job.config)
    decisions = standing(run) if treat == DECISIONS else None
    return replace(job, config=replace(job.config, treat=treat), decisions=decisions)


def _finished(job: Job, run: Run) -> Report | None:
    """The report of the same training, if it is done. Writes down what this one is.

    Raises:
        RunError: the folder holds another training.
    """
    file = job.output / "training.json"
    described = _describe(job, run)
    if file.is_file():
        known = json.loads(file.read_text(encoding="utf-8"))
        if known["fingerprint"] != described["fingerprint"]:
            if last_checkpoint(job.output / "checkpoints") or (job.output / "report.json").is_file():
                difference = _difference(known, described)
                raise RunError(f"{job.output}: holds another training ({difference}): choose another -o")
            for name in _MADE_BEFORE:  # nothing was trained yet: a setting or the data was mended
                (job.output / name).unlink(missing_ok=True)
            _write_json(file, described)
    elif job.world.rank == 0:
        _write_json(file, described)
    report = job.output / "report.json"
    if not report.is_file():
        return None
    say(f"{job.output}: trained already; choose another folder with -o to train again")
    found: Report = json.loads(report.read_text(encoding="utf-8"))
    return found


def _describe(job: Job, run: Run) -> dict[str, Any]:
    settings = {**asdict(job.config), "learning_rate": job.config.rate, **asdict(job.config.loss_settings)}
    stages = ("ingest", "weigh", "diagnose") if job.is_run else ("ingest",)
    records = {name: run.stage(name) for name in stages}
    described = {
        "settings": settings,
        "model": models.describe(job.model),
        "data": {
            "source": job.source,
            "files": {entry["path"]: entry["sha256"] for entry in run.require("ingest")["inputs"]},
            "stages": {name: record and record["fingerprint"] for name, record in records.items()},
        },
    }
    if job.decisions is not None:
        described["data"]["decisions"] = asdict(job.decisions)
    if job.config.eval_data is not None:
        described["data"]["held_out"] = {
            source.path: sha256(source.path) for source in find_sources((job.config.eval_data,))
        }
    if job.config.reference is not None:
        described["reference"] = models.describe(models.resolve(job.config.reference, say))
    counting = {name: value for name, value in settings.items() if name not in CHANGES_NOTHING}
    made_of = [counting, described["model"], described["data"]["stages"]]
    made_of += [described["data"].get("held_out"), described.get("reference")]
    made_of += [decisions] if (decisions := described["data"].get("decisions")) else []
    return {"fingerprint": fingerprint(made_of), **described}


def _difference(known: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    before, after = known["settings"], now["settings"]
    changed = [f"{name} {before.get(name)}, now {value}" for name, value in after.items() if before.get(name) != value]
    return ", ".join(name for name in changed if name.split()[0] not in CHANGES_NOTHING) or "of other data or model"


@dataclass(frozen=True)
class _Data:
    """Files of pairs.

    held_out: that of the held-out ones, if they have one of their own.
    own_reference: the margins compare the model with itself before training.
    """

    trained: Prepared
    held_out: Prepared | None
    own_reference: bool


def _prepare(job: Job, run: Run, arguments: transformers.TrainingArguments) -> _Data:
    config = job.config
    columns = columns_of_run(run, config) if job.is_run else columns_of_file(run, config)
    if job.decisions is not None and standing(run) != job.decisions:
        raise RunError(f"{run.path}: other decisions were made while the training began: start it again")
    own_reference = config.loss_settings.needs_reference and config.reference is None and columns.reference_N2 is None
    columns = with_reference(columns, run, config, job.output / "data")
    share = 0.0 if config.eval_data is not None else config.eval_share
    with arguments.main_process_first(local=False):
        trained = _prepared(job, run, columns, "pairs.arrow", share)
        if not trained.counts.get("trained"):
            reasons = ", ".join(f"{number} × {reason}" for reason, number in trained.counts.items())
            raise InputError(f"{job.source}: no pair is left to train on ({reasons})")
    if config.eval_data is None:
        return _Data(trained, None, own_reference)
    with arguments.main_process_first(local=False):
        other = Run.create(job.output / "held_out")
        ingest(config.ingest(config.eval_data), other)
    plain = columns_of_file(other, replace(config, targets="constant"))
    plain = with_reference(replace(plain, target_margin_N=None), other, config, other.path)
    with arguments.main_process_first(local=False):
        held_out = _prepared(job, other, plain, "held_out.arrow", 1.0)
    if common := _common_prompts(other, run):
        say(f"{common:,} pairs of {config.eval_data} share their prompt with pairs of {job.source}")
    return _Data(trained, held_out, own_reference)


def _common_prompts(run: Run, other: Run) -> int:
    """How many of a run's pairs have a prompt that another run has."""
    with RunView(run.path) as view:
        found = view.sql(
            "SELECT count(*) AS pairs FROM pairs WHERE hash(prompt) IN (SELECT hash(prompt) FROM read_parquet($other))",
            other=str(other.pairs_path / "*.parquet"),
        )
    return int(found["pairs"][0])


def _prepared(job: Job, run: Run, columns: PairColumns, name: str, share: float) -> Prepared:
    """Tokenize the pairs, unless this training, or another process of it, has done it."""
    target = job.output / name
    done = target.with_suffix(".json")
    if done.is_file() and target.is_file():
        return Prepared(target, **json.loads(done.read_text(encoding="utf-8")))
    encoder = make_encoder(job.model, replace(job.config.score, policy=job.config.model))
    found = prepare(run, columns, encoder, target, held_out_share=share, seed=job.config.seed)
    _write_json(done, {"counts": found.counts, "truncated": found.truncated, "swapped": found.swapped})
    return found


# --- the training --------------------------------------------------------------------------------


def _trainer(job: Job, arguments: transformers.TrainingArguments, found: _Data) -> PairTrainer:
    config = job.config
    pairs = Pairs(found.trained.path, held_out=False)
    held_out: Pairs | None = Pairs((found.held_out or found.trained).path, held_out=True)
    if held_out is not None and not len(held_out):
        if config.early_stop is not None:
            raise ConfigError("early_stop needs held-out pairs, and there are none: raise eval_share")
        say("no pair is held out: nothing is evaluated")
        held_out, arguments.eval_strategy = None, transformers.trainer_utils.IntervalStrategy.NO
    name = targets_name(config, pairs)
    say(f"{len(pairs):,} pairs, {len(held_out or ()):,} held out; {config.loss}, target margins {name}")
    early = [] if config.early_stop is None else [transformers.EarlyStoppingCallback(config.early_stop)]
    recorder = Recorder(job.output / "dynamics", job.world.rank) if config.dynamics else None
    trainer = make_trainer(
        config, job.model, job.device, arguments, pairs, held_out, recorder=recorder, callbacks=early
    )
    require_whole(trainer)
    return trainer


def _fit(job: Job, trainer: PairTrainer, *, own_reference: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Train; the held-out pairs' metrics before and after."""
    checkpoints = job.output / "checkpoints"
    resumed, metrics = last_checkpoint(checkpoints), job.output / "metrics.jsonl"
    if job.world.rank == 0:
        remove_torn(checkpoints)
    updates = -(-len(trainer.get_train_dataloader()) // trainer.args.gradient_accumulation_steps)
    step = int(resumed.name.removeprefix("checkpoint-")) if resumed else 0
    if trainer.recorder is not None:
        trainer.recorder.start(step)
    total = job.config.max_steps or math.ceil(job.config.epochs * updates)
    with progress_bar("training", total * job.config.batch_size) as progress:
        if job.world.rank == 0:
            rewind(metrics, step)
            trainer.add_callback(Follower(progress, job.config.batch_size, metrics))
        progress.advance(step * job.config.batch_size)
        before = _before(job, trainer, resumed, own_reference=own_reference)
        if resumed is not None:
            say(f"going on from update {step}")
        elif metrics.is_file():
            say("no checkpoint was written yet: the training begins anew")
        with storage_errors(job.output):
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        after = _after(trainer)
    if trainer.recorder is not None:
        trainer.recorder.flush()
    return before, after


def _before(job: Job, trainer: PairTrainer, resumed: Path | None, *, own_reference: bool) -> dict[str, float]:
    """Metrics of the model as it came; written down, for a training that goes on has another model."""
    file = job.output / "before.json"
    if trainer.held_out is None or trainer.is_fsdp_enabled:
        return {}
    if resumed is not None and file.is_file():
        found: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
        return found
    found = trainer.judge(trainer.held_out).metrics()
    if own_reference and not job.config.loss_settings.length_weight:
        found = {name: found[name] for name in WITHOUT_MARGIN}  # all margins are 0: they say nothing of the model
    if job.world.rank == 0:
        _write_json(file, found)
    return found


def _after(trainer: PairTrainer) -> dict[str, float]:
    """Metrics of the model as it is now: the last ones, unless an earlier model was taken back."""
    if trainer.held_out is None:
        return {}
    last = next((line for line in reversed(trainer.state.log_history) if "eval_loss" in line), {})
    if last.get("step") != trainer.state.global_step or trainer.args.load_best_model_at_end:
        return trainer.judge(trainer.held_out).metrics()
    names = [name for name in last if name.startswith("eval_")]
    return {name.removeprefix("eval_"): last[name] for name in names}


# --- the end -------------------------------------------------------------------------------------


def _finish(
    job: Job,
    run: Run,
    trainer: PairTrainer,
    found: _Data,
    before: dict[str, float],
    after: dict[str, float],
    started: float,
) -> Report:
    trainer.accelerator.wait_for_everyone()
    config = job.config
    tokenizer = models.load_tokenizer(job.model, trust_remote_code=config.trust_remote_code)
    report = {
        "refused": run.require("ingest")["refused"],
        "counts": found.trained.counts,
        "truncated": found.trained.truncated,
        "swapped": found.trained.swapped,
        "mean_weight": trainer.pairs.mean_weight,
        "held_out": len(trainer.held_out) if trainer.held_out else 0,
        "treat": config.treat if job.is_run else "columns of the file",
        "targets": targets_name(config, trainer.pairs),
        "batching": trainer.config.batching,
        "batch_size": config.batch_size,
        "updates": trainer.state.global_step,
        "processes": job.world.size,
        "device": job.device.name,
        "dtype": job.device.dtype,
        "before": before,
        "after": after,
        "seconds": round(time.monotonic() - started, 1),
    }
    with writing(job.output):
        if trainer.is_fsdp_enabled:
            save_shards(trainer, job.model, tokenizer, job.output, config)
        elif job.world.rank == 0:
            save_model(trainer.model, job.model, tokenizer, job.output, config)
    if job.world.rank == 0:
        if trainer.recorder is not None:
            write_table(job.output / "signals.parquet", signals(job.output / "dynamics", trainer.pairs))
        described = json.loads((job.output / "training.json").read_text(encoding="utf-8"))
        write_card(job.output / "README.md", described, report)
        _write_json(job.output / "report.json", report)
    trainer.accelerator.wait_for_everyone()
    return report


def _write_json(file: Path, value: Any) -> None:
    with atomic_path(file) as temporary:
        temporary.write_text(json.dumps(finite(value), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
