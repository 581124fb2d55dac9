"""One fit of a model to pairs: device, arguments and trainer as the settings say."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from curate import models
from curate.engines import World
from curate.errors import ConfigError
from curate.models import Device, ModelSource
from training.adapters import load
from training.config import TrainConfig
from training.data import Pairs
from training.dynamics import Recorder
from training.losses import loss_named
from training.margins import target_margins
from training.trainer import PairTrainer

_CHECKPOINT_SHARE = 0.1  # of the updates, from one checkpoint to the next


def choose_device(config: TrainConfig) -> Device:
    """Where it is trained; bfloat16 on CUDA and float32 on a CPU, unless the settings say otherwise."""
    found = models.choose_device(config.device, "float32")
    dtype = config.dtype if config.dtype != "auto" else "bfloat16" if found.is_cuda else "float32"
    return Device(found.name, dtype)


def make_arguments(
    config: TrainConfig, device: Device, folder: Path, *, world: int = 1, keeps: bool = False
) -> transformers.TrainingArguments:
    """What transformers' Trainer is told.

    Args:
        folder: of checkpoints, logs of `report_to`, and nothing else.
        world: how many processes there are.
        keeps: write checkpoints, and evaluate on the way.

    Raises:
        ConfigError: the batch cannot be shared out among the processes, or they are not there.
    """
    turn = config.micro_batch * world
    recompute = config.gradient_checkpointing and not _fsdp_recomputes()
    if config.batch_size % turn:
        raise ConfigError(
            f"batch_size {config.batch_size} is not a multiple of micro_batch {config.micro_batch}"
            + (f" × {world} processes" if world > 1 else "")
            + ": set --micro-batch too"
        )
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=config.micro_batch,
        gradient_accumulation_steps=config.batch_size // turn,
        learning_rate=config.rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=0 if config.max_steps == 1 else config.warmup,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim=config.optimizer,
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        bf16=device.dtype == "bfloat16",
        use_cpu=not device.is_cuda,
        activation_checkpointing=recompute,
        activation_checkpointing_kwargs={"use_reentrant": False} if recompute else None,
        seed=config.seed,
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,
        report_to=config.report_to,
        disable_tqdm=True,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        **(_keeping(config) if keeps else {"save_strategy": "no"}),
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs are for torchrun: DataParallel cannot split packed rows
    if arguments.world_size != world:
        raise ConfigError(f"WORLD_SIZE is {world}, but {arguments.world_size} processes run: start with torchrun")
    return arguments


def require_one_process(command: str) -> None:
    """Refuse several processes where a command's trainings follow each other in one.

    Raises:
        ConfigError: there are several.
    """
    if (size := World.of(os.environ, None).size) > 1:
        raise ConfigError(f"curate {command} runs in one process, and there are {size}: start it without torchrun")


def _fsdp_recomputes() -> bool:
    """Whether FSDP computes activations again by its own means; both together are refused by transformers."""
    switches = ("ACCELERATE_USE_FSDP", "FSDP_ACTIVATION_CHECKPOINTING")
    return all(os.environ.get(name, "").lower() == "true" for name in switches)


def _keeping(config: TrainConfig) -> dict[str, Any]:
    by_epoch = config.early_stop is not None and config.eval_every is None  # the best one must be kept
    save_every = config.save_every if config.early_stop is None else config.eval_every
    return {
        "eval_strategy": "no" if not config.has_held_out else "steps" if config.eval_every else "epoch",
        "eval_steps": config.eval_every,
        "save_strategy": "epoch" if by_epoch else "steps",
        "save_steps": save_every or _CHECKPOINT_SHARE,
        "load_best_model_at_end": config.early_stop is not None,
        "metric_for_best_model": "loss" if config.early_stop is not None else None,
    }


def make_trainer(
    config: TrainConfig,
    source: ModelSource,
    device: Device,
    arguments: transformers.TrainingArguments,
    pairs: Pairs,
    held_out: Pairs | None = None,
    *,
    recorder: Recorder | None = None,
    callbacks: Sequence[transformers.TrainerCallback] = (),
) -> PairTrainer:
    """Load the model and put all together.

    Raises:
        ModelError: it cannot be loaded, or is no causal language model.
    """
    transformers.set_seed(config.seed)  # of the adapters' first values
    model, packed = load(source, config, device)
    targets = target_margins(targets_name(config, pairs), config.loss_settings, tau=config.tau, seed=config.seed)
    if not packed:
        config = replace(config, batching="length_grouped")
    trainer = PairTrainer(model, arguments, config, pairs, held_out, targets, recorder, callbacks=list(callbacks))
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def targets_name(config: TrainConfig, pairs: Pairs) -> str:
    """Which target margins the loss trains with."""
    if config.targets != "auto":
        return config.targets
    has_column = config.is_gamma_po and np.isfinite(pairs.columns("target_margin")["target_margin"].to_numpy()).any()
    return "column" if has_column else loss_named(config.loss).targets
