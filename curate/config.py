"""Settings of every stage: frozen, checked when made, written into the run's manifest.

What changes a stage's *values* (and so its fingerprint) is apart from what only changes how it is
computed (`ComputeConfig`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from curate.errors import ConfigError

DEFAULT_MODEL = "smollm2"
MARGINS = ("dpo", "dpo_norm", "simpo")
DTYPES = ("auto", "float32", "tf32", "float16", "bfloat16")
DEVICES = ("auto", "cpu", "cuda")
ENGINES = ("local", "ray")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    _require(value in choices, f"{name} is {value!r}: choose one of {', '.join(choices)}")


def _positive(name: str, value: float | None) -> None:
    if value is not None:
        _require(math.isfinite(value) and value > 0, f"{name} is {value}: it must be positive")


@dataclass(frozen=True)
class IngestConfig:
    """Which files to read, and how.

    inputs: files, globs or folders; any fsspec URL.
    format: a name from `curate.formats.FORMATS`; None detects it.
    columns: explicit mapping, canonical name → column of the file (see `curate.formats.MAPPED`).
    label_values: for `response_a/response_b/label` mappings: a, b or tie → the label's text.
    limit: stop after this many pairs.
    """

    inputs: tuple[str, ...]
    format: str | None = None
    columns: Mapping[str, str] | None = None
    label_values: Mapping[str, str] | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        _require(bool(self.inputs), "no input file was given")
        _positive("--limit", self.limit)
        _require(
            self.format is None or self.columns is None,
            "--format and --columns are two ways to say how to read a file: give one of them",
        )
        _require(
            self.label_values is None or "label" in (self.columns or {}),
            "--label-values belongs to --columns response_a=…,response_b=…,label=…",
        )


@dataclass(frozen=True)
class ScoreConfig:
    """What is computed for every pair. Changing any of these changes the scores.

    policy, reference: a folder, a hub id, a GGUF file, or `smollm2`, the embedded default.
    unconditional: also log p(y) without the prompt.
    features: also pooled hidden states (middle and last layer).
    template: `auto`, `chat`, `plain`, `raw` or a Jinja file (see `curate.tokens`).
    max_length, max_prompt_length: tokens.
    dtype: `auto` is float32 on a CPU and tf32 on CUDA.
    shard_pairs: pairs a shard; None chooses by the dataset's size.
    """

    policy: str = DEFAULT_MODEL
    reference: str | None = None
    unconditional: bool = False
    features: bool = True
    template: str = "auto"
    max_length: int = 2048
    max_prompt_length: int = 1800
    dtype: str = "auto"
    shard_pairs: int | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        _choice("--dtype", self.dtype, DTYPES)
        _positive("--shard-pairs", self.shard_pairs)
        _positive("--max-prompt-length", self.max_prompt_length)
        _require(
            self.max_prompt_length < self.max_length,
            f"--max-prompt-length {self.max_prompt_length} leaves no room for a completion "
            f"within --max-length {self.max_length}",
        )


@dataclass(frozen=True)
class ComputeConfig:
    """Where and how the scores are computed. None of these changes their meaning.

    batch_tokens: tokens a forward pass; None chooses by device.
    workers: how many processes share the work, all hosts together; it is checked, not assumed.
    address: of a running Ray cluster; None starts Ray on this machine.
    """

    device: str = "auto"
    batch_tokens: int | None = None
    engine: str = "local"
    workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        _choice("--device", self.device, DEVICES)
        _choice("--engine", self.engine, ENGINES)
        _positive("--batch-tokens", self.batch_tokens)
        _positive("--workers", self.workers)
        _require(
            self.address is None or self.engine == "ray",
            "--address is a Ray cluster's: it needs --engine ray",
        )


@dataclass(frozen=True)
class WeighConfig:
    """How margins and γ-PO weights follow from the scores. The defaults are the published Llama-3-8B-Instruct setting.

    margin: `dpo`, `dpo_norm`, `simpo` or `auto` (dpo_norm where there is a reference, simpo else).
    beta: β, the reward's scale.
    gamma_beta_ratio: γ0/β, so that γ0 = ratio·β is the mean target margin.
    tau: τ, the strength of the pull towards equal weights.
    """

    margin: str = "auto"
    beta: float = 10.0
    gamma_beta_ratio: float = 0.4
    tau: float = 10.0

    def __post_init__(self) -> None:
        _choice("--margin", self.margin, ("auto", *MARGINS))
        _positive("--beta", self.beta)
        _positive("--tau", self.tau)
        _positive("--gamma-beta-ratio", self.gamma_beta_ratio)

    @property
    def gamma0(self) -> float:
        """γ0 = ratio·β, the mean target margin."""
        return self.gamma_beta_ratio * self.beta


@dataclass(frozen=True)
class AuditConfig:
    """All stages of an audit."""

    ingest: IngestConfig
    score: ScoreConfig = field(default_factory=ScoreConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    weigh: WeighConfig = field(default_factory=WeighConfig)


Config = IngestConfig | ScoreConfig | ComputeConfig | WeighConfig


def as_json(config: Config) -> dict[str, Any]:
    """A configuration as plain JSON values, for the manifest."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}
