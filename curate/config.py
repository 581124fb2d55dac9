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
HARD_RATES = (0.05, 0.1, 0.2, 0.3)  # of hard pairs that are flipped
PAIRINGS = ("best-worst", "best-rest", "adjacent", "all")
PLANS = ("hard", "longer", "annotator", "ties")


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
    pairing: which answers of a ranking become pairs (see `curate.rankings`); of rows that are pairs it says nothing.
    label: which of a row's labels counts, where a format has several.
    """

    inputs: tuple[str, ...]
    format: str | None = None
    columns: Mapping[str, str] | None = None
    label_values: Mapping[str, str] | None = None
    limit: int | None = None
    pairing: str = PAIRINGS[0]
    label: str | None = None

    def __post_init__(self) -> None:
        _require(bool(self.inputs), "no input file was given")
        _positive("--limit", self.limit)
        _choice("--pairing", self.pairing, PAIRINGS)
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
    reward_model: a sequence classifier with one label, a folder or a hub id; its own tokenizer and chat template.
    features: also pooled hidden states (middle and last layer).
    template: `auto`, `chat`, `plain`, `raw` or a Jinja file (see `curate.tokens`).
    max_length, max_prompt_length: tokens.
    dtype: `auto` is float32 on a CPU and tf32 on CUDA.
    shard_pairs: pairs a shard; None chooses by the dataset's size.
    """

    policy: str = DEFAULT_MODEL
    reference: str | None = None
    unconditional: bool = False
    reward_model: str | None = None
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
class DiagnoseConfig:
    """How pairs are diagnosed from the scores.

    signals: files with more numbers about the pairs (see `curate.imported`).
    folds, repeats: of the cross-fitting: into how many parts, and how often anew.
    p_flip: from which probability on a pair is called flipped.
    near_tie: a pair is ambiguous where P(chosen is better) lies within 1/2 ± this.
    """

    signals: tuple[str, ...] = ()
    folds: int = 10
    repeats: int = 3
    p_flip: float = 0.5
    near_tie: float = 0.05

    def __post_init__(self) -> None:
        _require(self.folds >= 3, f"--folds is {self.folds}: it must be 3 or more")
        _positive("--repeats", self.repeats)
        _require(0 < self.p_flip < 1, f"--p-flip is {self.p_flip}: it must lie between 0 and 1")
        _require(0 <= self.near_tie < 0.5, f"--near-tie is {self.near_tie}: it must lie between 0 and 0.5")


@dataclass(frozen=True)
class SelftestConfig:
    """What noise is planted to see how much of it is found.

    noise: rates of random flips.
    plans: other kinds of noise (see `curate.planting`).
    seeds: how many plantings of each.
    pairs: at most so many pairs, whole prompts drawn at random.
    """

    noise: tuple[float, ...] = (0.0, 0.1, 0.2, 0.4)
    plans: tuple[str, ...] = ("hard", "longer", "annotator", "ties")
    seeds: int = 5
    pairs: int = 5_000

    def __post_init__(self) -> None:
        for rate in self.noise:
            _require(0 <= rate <= 0.5, f"--noise {rate}: it must lie between 0 and 0.5")
        for plan in self.plans:
            _choice("--plans", plan, PLANS)
        _require(self.seeds >= 2, f"--seeds is {self.seeds}: it must be 2 or more")
        _positive("--pairs", self.pairs)

    @property
    def plantings(self) -> int:
        """How often noise is planted and ranked."""
        random = self.seeds * sum(rate > 0 for rate in self.noise)
        return random + 2 * len(HARD_RATES) * ("hard" in self.plans) + self.seeds * ("longer" in self.plans)


@dataclass(frozen=True)
class ExportConfig:
    """What an export looks like.

    format: a name from `curate.exporters.EXPORTERS`, or `source`: the source's own schema.
    container: parquet, jsonl or json; None is the format's usual one.
    test_share: of the prompts, all of whose pairs go into the test split; 0 makes none.
    seed: of the draw of these prompts.
    """

    format: str = "trl"
    container: str | None = None
    test_share: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        _require(0 <= self.test_share < 1, f"--test-share is {self.test_share}: it must be 0 or more, and below 1")


@dataclass(frozen=True)
class AuditConfig:
    """All stages of an audit."""

    ingest: IngestConfig
    score: ScoreConfig = field(default_factory=ScoreConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    weigh: WeighConfig = field(default_factory=WeighConfig)
    diagnose: DiagnoseConfig = field(default_factory=DiagnoseConfig)


Config = IngestConfig | ScoreConfig | ComputeConfig | WeighConfig | DiagnoseConfig | SelftestConfig | ExportConfig


def as_json(config: Config) -> dict[str, Any]:
    """A configuration as plain JSON values, for the manifest."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}
