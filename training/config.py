"""Settings of a training: frozen, checked when made, written beside the model.

Sources, the later ones winning: the defaults, a recipe (`RECIPES`), a TOML file, flags.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from curate.config import DEFAULT_MODEL, DEVICES, IngestConfig, ScoreConfig
from curate.errors import ConfigError
from training.losses import LossSettings, loss_named
from training.margins import TARGETS
from training.treatments import DECISIONS, TREATMENTS

#: Settings that change nothing of what is trained.
CHANGES_NOTHING = ("log_every", "report_to", "keep_checkpoints", "device", "workers", "dynamics", "merge")
BATCHINGS = ("packed", "length_grouped")
TRAIN_DTYPES = ("auto", "float32", "bfloat16")
SCHEDULES = ("cosine", "linear", "constant", "constant_with_warmup")
_PROMPT_SHARE = 1800 / 2048
_LORA_LEARNING_RATE, _FULL_LEARNING_RATE = 1e-4, 1e-6


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained.

    Model
        model: a folder, a hub id, a GGUF file, or `smollm2`, the embedded default.
        reference: of losses that need one; None is the model itself before training.
        lora: train low-rank adapters (peft) instead of all weights. lora_rank, lora_alpha, lora_dropout: theirs.
        lora_layers: only so many of the layers nearest to the output; None is all of them.
        merge: also write the whole model after LoRA, so that it can score.
    Loss
        loss: a key of `training.losses.LOSSES`.
        margin, beta, gamma_beta_ratio, label_smoothing, length_weight: instead of that loss's defaults.
        targets: a key of `training.margins.TARGETS`, or `auto`: of a γ-PO loss the file's column where there is one
            and online γ else, of β-DPO its own, of all others a constant.
        tau: τ of online γ-PO.
        treat: what is done about noise in a run: `decisions` takes the pairs as it was decided, as an export for TRL
            has them; the others are keys of `training.treatments.TREATMENTS` and ask the diagnosis. `auto` is
            `decisions` where any stand, else `drop`; the columns of a file are taken as they are.
    Optimisation
        epochs; max_steps: updates, instead of epochs.
        learning_rate: None is 1e-4 with LoRA, 1e-6 without.
        batch_size: pairs an update, all processes together. micro_batch: pairs a forward pass of one process.
        schedule, weight_decay, max_grad_norm (0: none), optimizer: of transformers.
        warmup: share of the updates; the first one's rate is 0, unless it is the only one.
        batching: `packed` (no padding, prompts shared by both sides) or `length_grouped` (padded, similar lengths).
        shuffle: draw the pairs' order anew in every epoch.
        gradient_checkpointing: less memory, one more forward pass.
        dtype: `auto` is bfloat16 on CUDA (float32 weights unless LoRA's base), float32 on a CPU.
    Evaluation and files
        eval_share: of the prompts, held out. eval_data: pairs in a file of their own instead.
        eval_every, save_every: updates; None is once an epoch, and ten checkpoints a training.
        early_stop: stop after so many evaluations without a lower loss on the held-out pairs; the best model is kept.
        keep_checkpoints, log_every (updates), report_to (`none`, `tensorboard`, `wandb`, …).
        dynamics: keep the margin of every pair at every visit.
    Reading
        format, columns, label_values, limit: as of `curate ingest`.
        template, max_length, max_prompt_length: as of `curate score`; None is the same share of max_length as there.
    workers: how many processes there must be; it is checked, not assumed.
    """

    model: str = DEFAULT_MODEL
    reference: str | None = None
    lora: bool = True
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    lora_layers: int | None = None
    merge: bool = True

    loss: str = "gamma_dpo"
    margin: str | None = None
    beta: float | None = None
    gamma_beta_ratio: float | None = None
    label_smoothing: float | None = None
    length_weight: float | None = None
    targets: str = "auto"
    tau: float = 10.0
    treat: str = "auto"

    epochs: float = 1.0
    max_steps: int | None = None
    learning_rate: float | None = None
    batch_size: int = 32
    micro_batch: int = 4
    schedule: str = "cosine"
    warmup: float = 0.1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    optimizer: str = "adamw_torch"
    batching: str = "packed"
    shuffle: bool = True
    gradient_checkpointing: bool = False
    device: str = "auto"
    dtype: str = "auto"
    seed: int = 42

    eval_share: float = 0.1
    eval_data: str | None = None
    eval_every: int | None = None
    early_stop: int | None = None
    save_every: int | None = None
    keep_checkpoints: int = 2
    log_every: int = 10
    report_to: str = "none"
    dynamics: bool = True

    format: str | None = None
    columns: Mapping[str, str] | None = None
    label_values: Mapping[str, str] | None = None
    limit: int | None = None
    template: str = "auto"
    max_length: int = 2048
    max_prompt_length: int | None = None
    trust_remote_code: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        _choice("targets", self.targets, ("auto", *TARGETS))
        _choice("treat", self.treat, ("auto", DECISIONS, *TREATMENTS))
        _choice("batching", self.batching, BATCHINGS)
        _choice("schedule", self.schedule, SCHEDULES)
        _choice("device", self.device, DEVICES)
        _choice("dtype", self.dtype, TRAIN_DTYPES)
        for name in _POSITIVE:
            value = getattr(self, name)
            _require(value is None or (math.isfinite(value) and value > 0), f"{name} is {value}: it must be positive")
        for name in ("weight_decay", "max_grad_norm"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value >= 0, f"{name} is {value}: it must be 0 or more")
        for name in ("warmup", "lora_dropout", "eval_share"):
            _require(
                0 <= getattr(self, name) < 1, f"{name} is {getattr(self, name)}: it must be at least 0 and below 1"
            )
        _require(0 <= self.seed < 2**32, f"seed is {self.seed}: it must be at least 0 and below 2^32")
        _require(
            self.treat != "gamma" or self.is_gamma_po, f"treat gamma needs gamma_dpo or gamma_simpo, not {self.loss}"
        )
        _require(self.early_stop is None or self.has_held_out, "early_stop needs held-out pairs: see eval_share")
        _ = self.loss_settings, self.score, self.ingest("data")  # refuse what these refuse
        online = self.targets in ("online", "online_exact") or (self.targets == "auto" and self.is_gamma_po)
        _require(not online or self.loss_settings.gamma0 > 0, "gamma_beta_ratio is 0: online γ-PO needs it positive")
        self._check_names_of_transformers()

    def _check_names_of_transformers(self) -> None:
        from transformers.integrations import integration_utils
        from transformers.training_args import OptimizerNames

        installed: Any = integration_utils.get_available_reporting_integrations
        _choice("optimizer", self.optimizer, tuple(name.value for name in OptimizerNames))
        _choice("report_to", self.report_to, ("none", "all", *installed()))

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that make a training what it is."""
        return {name: value for name, value in asdict(self).items() if name not in CHANGES_NOTHING}

    @property
    def has_held_out(self) -> bool:
        """Whether some pairs are not trained on, but judged."""
        return self.eval_share > 0 or self.eval_data is not None

    @property
    def loss_settings(self) -> LossSettings:
        """The loss's defaults with what was set.

        Raises:
            ConfigError: no loss has this name, or a value is impossible.
        """
        chosen = {field.name: getattr(self, field.name) for field in fields(LossSettings)}
        return replace(loss_named(self.loss).defaults, **{name: it for name, it in chosen.items() if it is not None})

    @property
    def is_gamma_po(self) -> bool:
        """Whether each pair has a target margin of its own."""
        return loss_named(self.loss).targets == "online"

    @property
    def rate(self) -> float:
        """The learning rate."""
        return self.learning_rate or (_LORA_LEARNING_RATE if self.lora else _FULL_LEARNING_RATE)

    @property
    def score(self) -> ScoreConfig:
        """How the reference scores the pairs: on the tokens that are trained on."""
        return ScoreConfig(
            policy=self.reference or self.model,
            features=False,
            template=self.template,
            max_length=self.max_length,
            max_prompt_length=round(self.max_length * _PROMPT_SHARE)
            if self.max_prompt_length is None
            else self.max_prompt_length,
            trust_remote_code=self.trust_remote_code,
        )

    def ingest(self, data: str) -> IngestConfig:
        """How a file is read."""
        return IngestConfig((data,), self.format, self.columns, self.label_values, self.limit)


_POSITIVE = (
    *("lora_rank", "lora_alpha", "lora_layers", "tau", "epochs", "max_steps", "learning_rate", "batch_size"),
    *("micro_batch", "eval_every", "early_stop", "save_every", "keep_checkpoints", "log_every", "limit", "workers"),
    *("max_length", "max_prompt_length"),
)


def require_own(config: TrainConfig, command: str, **own: Any) -> None:
    """Refuse settings that a command has its own of, rather than pass over them.

    Raises:
        ConfigError: a setting is neither the command's nor the default.
    """
    defaults = {field.name: field.default for field in fields(TrainConfig)}
    for name, value in own.items():
        given = getattr(config, name)
        _require(
            given in (value, defaults[name]), f"{name} is {given!r}: curate {command} settles that itself; leave it out"
        )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    _require(value in choices, f"{name} is {value!r}: choose one of {', '.join(choices)}")


# --- recipes and files ---------------------------------------------------------------------------

#: What γ-PO was published with (arXiv:2506.03690, appendix): full fine-tuning on 8 GPUs, bf16.
_PUBLISHED = {
    "loss": "gamma_simpo",
    "targets": "online",
    "lora": False,
    "epochs": 1.0,
    "batch_size": 128,
    "schedule": "cosine",
    "warmup": 0.1,
    "max_length": 2048,
    "max_prompt_length": 1800,
    "dtype": "bfloat16",
    "gradient_checkpointing": True,
    "seed": 42,
}

#: name → settings. The model is the one that it was published for.
RECIPES: dict[str, dict[str, Any]] = {
    "llama-3-8b-instruct": {
        **_PUBLISHED,
        **{"model": "meta-llama/Meta-Llama-3-8B-Instruct", "beta": 10.0, "gamma_beta_ratio": 0.4},
        **{"tau": 10.0, "learning_rate": 1e-6},
    },
    "gemma-2-9b-it": {
        **_PUBLISHED,
        **{"model": "google/gemma-2-9b-it", "beta": 10.0, "gamma_beta_ratio": 0.5},
        **{"tau": 20.0, "learning_rate": 8e-7, "batch_size": 64},
    },
    "mistral-7b-instruct-v0.2": {
        **_PUBLISHED,
        **{"model": "mistralai/Mistral-7B-Instruct-v0.2", "beta": 2.5, "gamma_beta_ratio": 0.15},
        **{"tau": 10.0, "learning_rate": 6e-7},
    },
    "qwen2.5-7b-instruct": {
        **_PUBLISHED,
        **{"model": "Qwen/Qwen2.5-7B-Instruct", "beta": 10.0, "gamma_beta_ratio": 0.3},
        **{"tau": 3.0, "learning_rate": 1e-6},
    },
}


def resolve_config(
    recipe: str | None, file: Path | None, flags: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> TrainConfig:
    """Settle the settings.

    Args:
        defaults: instead of those of `TrainConfig`.
        file: a TOML file whose keys are the fields of `TrainConfig`, and `recipe`.
        flags: fields that were given; those that are None were not.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown, of a wrong type or impossible.
    """
    settings = {} if file is None else _read(file)
    named = settings.pop("recipe", None)
    recipe = named if recipe is None else recipe
    if recipe is not None and not (isinstance(recipe, str) and recipe in RECIPES):
        raise ConfigError(f"recipe {recipe!r} is unknown: choose one of {', '.join(RECIPES)}")
    given = {name: value for name, value in flags.items() if value is not None}
    merged = {**(defaults or {}), **RECIPES.get(recipe or "", {}), **settings, **given}
    return TrainConfig(**{name: _typed(name, value) for name, value in merged.items()})


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as TOML ({error})") from error


def parse_setting(text: str) -> tuple[str, Any]:
    """`name=value` of `--set`; the value as in TOML, a word being text.

    Raises:
        ConfigError: it is written otherwise.
    """
    name, sign, value = (part.strip() for part in text.partition("="))
    if not (name and sign and value):
        raise ConfigError(f"--set {text}: write it as name=value")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


def _typed(name: str, value: Any) -> Any:
    """A setting of the field's type; integers are numbers too."""
    kinds = {field.name: str(field.type) for field in fields(TrainConfig)}
    if name not in kinds:
        raise ConfigError(f"no setting {name!r}: there are {', '.join(kinds)}")
    kind = kinds[name].removesuffix(" | None")
    if value is None and kind != kinds[name]:
        return None
    if kind == "float" and type(value) is int:
        return float(value)
    wanted, words = _TYPES.get(kind, (dict, "a table of text"))
    inner = value.values() if isinstance(value, dict) else ()
    if type(value) is not wanted or not all(isinstance(it, str) for it in inner):
        raise ConfigError(f"{name} is {value!r}: it must be {words}")
    return value


_TYPES = {
    "bool": (bool, "true or false"),
    "int": (int, "a whole number"),
    "float": (float, "a number"),
    "str": (str, "text"),
}
