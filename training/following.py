"""What a user sees of a training: a bar with pairs/s and time left, and a line whenever numbers are logged."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import transformers

from curate.progress import Progress
from curate.store import atomic_path

_SHOWN = {
    "loss": "loss",
    "accuracy": "accuracy",
    "margin": "margin",
    "calibration_error": "calibration error",
    "grad_norm": "gradient norm",
    "learning_rate": "learning rate",
}


class Advance(transformers.TrainerCallback):
    """Tells the progress."""

    def __init__(self, progress: Progress, pairs_per_update: int) -> None:
        self.progress, self.pairs_per_update = progress, pairs_per_update

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """An update is done."""
        self.progress.advance(self.pairs_per_update)


class Follower(Advance):
    """Also says the logged numbers, and appends them to a file."""

    def __init__(self, progress: Progress, pairs_per_update: int, file: Path) -> None:
        super().__init__(progress, pairs_per_update)
        self.file = file

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Numbers of some updates, or of the held-out pairs."""
        logs = logs or {}
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(finite({"step": state.global_step, **logs})) + "\n")
        if line := describe(logs):
            self.progress.say(f"update {state.global_step} of {state.max_steps}: {line}")


def rewind(file: Path, step: int) -> None:
    """Take back the lines that were logged after an update, from which the training goes on."""
    if file.is_file():
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        with atomic_path(file) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")


def finite(value: Any) -> Any:
    """Numbers as JSON has them: null for NaN and infinities."""
    if isinstance(value, dict):
        return {name: finite(it) for name, it in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def describe(logs: dict[str, Any]) -> str:
    """The numbers that are shown, in words."""
    prefix = "eval_" if "eval_loss" in logs else ""
    shown = [f"{word} {logs[prefix + name]:.4g}" for name, word in _SHOWN.items() if prefix + name in logs]
    return ("held-out pairs: " if prefix else "") + ", ".join(shown) if shown and prefix + "loss" in logs else ""
