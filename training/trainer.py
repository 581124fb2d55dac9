"""`PairTrainer`: transformers' Trainer with our batches, losses, target margins and evaluation.

    h_B = reward_margin(log-probs)
    loss = Σ w_i·ℓ(scale·h_i; γ_i, p_i) / (pairs of the whole update, all processes and accumulated batches together)

so that gradient accumulation, several processes and a last batch that is not full change nothing.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import Tensor
from transformers.trainer_utils import rotate_checkpoints

from training.batches import Batch, GlobalBatches, collate_packed, collate_padded, pair_log_probs
from training.config import TrainConfig
from training.data import Pairs
from training.dynamics import Recorder
from training.evaluation import Judgement, accuracy, judge
from training.folders import saving, sync
from training.losses import PairLogProbs, loss_named, reward_margin
from training.margins import ConstantMargin, OnlineMargins, TargetMargins, gather_pairs

_STATE = "target_margins.pt"
_PATIENCE = "early_stopping_patience_counter"
_WHOLE = "whole"  # marks a checkpoint that was written to its end


class _Loader(torch.utils.data.DataLoader[Any]):
    """A loader whose order changes with the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Pass it on."""
        cast("GlobalBatches", self.batch_sampler).set_epoch(epoch)


class PairTrainer(transformers.Trainer):
    """Trains a causal language model on pairs."""

    loss_is_scaled_for_ga = True  # `compute_loss` divides by the pairs of the whole update

    def __init__(
        self,
        model: torch.nn.Module,
        arguments: transformers.TrainingArguments,
        config: TrainConfig,
        pairs: Pairs,
        held_out: Pairs | None,
        targets: TargetMargins,
        recorder: Recorder | None = None,
        **others: Any,
    ) -> None:
        """others: as of `transformers.Trainer`."""
        self.config, self.pairs, self.held_out, self.targets, self.recorder = config, pairs, held_out, targets, recorder
        self.loss_function, self.settings = loss_named(config.loss), config.loss_settings
        self.collate = collate_packed if config.batching == "packed" else collate_padded
        # γ that drifts with the batches would make losses of different evaluations incomparable
        drifts = isinstance(targets, OnlineMargins)
        self.judging: TargetMargins = ConstantMargin(self.settings.gamma0) if drifts else targets
        self._seen: list[Tensor] = []  # margins since the last line of the log
        self._asked: list[Tensor] = []  # their target margins
        super().__init__(model, arguments, train_dataset=pairs, eval_dataset=held_out, **others)

    # --- what is trained on ---

    def get_train_dataloader(self) -> torch.utils.data.DataLoader[Any]:
        """Batches of this process."""
        size, world = self.config.micro_batch, self.args.world_size
        sampler = GlobalBatches(
            len(self.pairs),
            size,
            rank=self.args.process_index,
            world=world,
            seed=self.config.seed,
            shuffle=self.config.shuffle,
            lengths_N=self.pairs.lengths() if self.config.batching == "length_grouped" else None,
            group=size * world * self.args.gradient_accumulation_steps,
        )
        return _Loader(
            self.pairs,
            batch_sampler=sampler,
            collate_fn=self.collate,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.device.type == "cuda",
        )

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> int:
        """Pairs of an update, all processes together."""
        counts, _ = gather_pairs(
            torch.tensor([sum(int(batch["real"].sum()) for batch in batch_samples)], device=device)
        )
        return int(counts.sum())

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        """This batch's share of the update's loss; times the processes, over which gradients are averaged."""
        margin_B, loss_B = self.losses_of(model, self.log_probs(model, inputs), inputs)
        real_B = inputs["real"]
        if self.recorder is not None:
            self.recorder.add(self.state.global_step, self.state.epoch, inputs["index"][real_B], margin_B[real_B])
        self._seen.append(margin_B.detach()[real_B])
        pairs = num_items_in_batch or int(real_B.sum())
        loss: Tensor = loss_B.sum() * self.args.world_size / pairs
        return loss

    def losses_of(self, model: torch.nn.Module, logps: PairLogProbs, inputs: Batch) -> tuple[Tensor, Tensor]:
        """Margins without gradient, and losses, each of shape (B,)."""
        margin_B = reward_margin(logps, self.settings)
        columns = inputs["columns"]
        targets = self.targets if model.training else self.judging
        target = targets(margin_B.detach(), columns, training=model.training)
        if model.training:
            self._asked.append(target.target_margin_B.detach()[inputs["real"]])
        weight_B = columns["weight"] if target.weight_B is None else columns["weight"] * target.weight_B
        loss_B = self.loss_function(
            target.scale * margin_B,
            self.settings,
            target_margin_B=target.target_margin_B,
            weight_B=weight_B.to(margin_B),
            p_flip_B=columns["p_flip"].to(margin_B),
        )
        return margin_B.detach(), loss_B

    def log_probs(self, model: torch.nn.Module, inputs: Batch) -> PairLogProbs:
        """What margins are made of."""
        return pair_log_probs(model, inputs)

    # --- evaluation ---

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Judge the held-out pairs: loss, accuracy, margin, calibration (see `training.evaluation`)."""
        pairs = eval_dataset or self.held_out
        if pairs is None:
            return {}
        found = self.judge(pairs).metrics()
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def judge(self, pairs: Pairs) -> Judgement:
        """Margins and losses of pairs under the model as it is; every process does its share."""
        return judge(self, cast("torch.nn.Module", self.model_wrapped if self.is_fsdp_enabled else self.model), pairs)

    # --- what is said ---

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add margins and target margins of the pairs that were trained on since the last line."""
        if "loss" in logs and self._seen:
            margin_N, _ = gather_pairs(torch.cat(self._seen))
            target_N, _ = gather_pairs(torch.cat(self._asked))
            self._seen.clear()
            self._asked.clear()
            logs |= {"margin": float(margin_N.mean()), "accuracy": accuracy(margin_N.numpy())}
            logs |= {"target_margin": float(target_N.mean()), "target_margin_sd": float(target_N.std(correction=0))}
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted."""
        return 0

    # --- checkpoints ---

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        with saving(folder):
            super()._save_checkpoint(model, trial)
            if self.recorder is not None:
                self.recorder.flush()
            self.accelerator.wait_for_everyone()  # every process has written its part
            if self.args.should_save:
                torch.save(self.targets.state_dict(), folder / _STATE)
                sync(folder)
                (folder / _WHOLE).touch()
                sync(folder)
                rotate_checkpoints(  # only now: a checkpoint that was cut off is nothing to go on from
                    str(self.args.output_dir), self.config.keep_checkpoints, self.state.best_model_checkpoint
                )

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.targets.load_state_dict(torch.load(Path(checkpoint) / _STATE, weights_only=True))

    def _load_callback_state(self) -> None:
        """Early stopping goes on counting."""
        saved: Any = self.state.stateful_callbacks
        for callback in self._early_stopping():
            callback.early_stopping_patience_counter = saved[type(callback).__name__]["attributes"][_PATIENCE]

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """An epoch; none where what is taken up was at its end: transformers would do one more update."""
        counters = [(it.early_stopping_patience_counter, it.early_stopping_patience) for it in self._early_stopping()]
        if self.state.global_step >= self.state.max_steps or any(count >= most for count, most in counters):
            self.control.should_training_stop = True
        else:
            cast("Any", super())._run_epoch(*args, **kwargs)

    def _early_stopping(self) -> list[Any]:
        return [it for it in self.callback_handler.callbacks if isinstance(it, transformers.EarlyStoppingCallback)]


def last_checkpoint(folder: Path) -> Path | None:
    """The latest checkpoint that was written to its end."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{_WHOLE}")]
    return max(whole, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)


def remove_torn(folder: Path) -> None:
    """Delete checkpoints that were cut off."""
    for path in folder.glob("checkpoint-*"):
        if not (path / _WHOLE).exists():
            shutil.rmtree(path)
