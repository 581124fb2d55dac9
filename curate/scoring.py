"""Stage `score`: `pairs/` → shards of every scoring pass → `scores.parquet`.

A pass is one model read one way: `policy`, `policy_unconditional` (without the prompt), `reference` and `reward_model`.
Its work is cut into tasks: the shards, and one that measures the noise floor (of log-probs, not of rewards). A task
writes its own files atomically and carries in their footers what it was made from, so that a task that is done is
skipped, whoever did it. Workers need nothing from one another; whoever finds all tasks done merges them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate import models, rewards
from curate.config import ComputeConfig, ScoreConfig, as_json
from curate.errors import ModelError, RunError, storage_errors
from curate.logprobs import KERNEL_VERSION, Scorer
from curate.models import Device, ModelSource
from curate.packing import Group
from curate.pairs import messages_of
from curate.rewards import Conversations, Rewarder, rewards_table
from curate.schema import NOISE_FLOOR, PASS, PASSES, SCORES, features_schema
from curate.store import Run, atomic_path, fingerprint, parquet_writer, read_metadata, remove_leftovers, write_table
from curate.tokens import Encoder, Ids, TokenizedPair

NOISE_FLOOR_PAIRS = 64
_SMALLEST_SHARD, _LARGEST_SHARD = 64, 4096
_SHARDS_WANTED = 1024
_REWARD_MODEL = "reward_model"
_SIDES = ("chosen", "rejected")

#: Which pass a column of the scores comes from, and what it is called there; the others are the policy's.
_ORIGINS = {f"{name}_{side}_logp": (name, f"{side}_logp") for name in PASSES for side in _SIDES} | {
    f"reward_{side}": (_REWARD_MODEL, f"reward_{side}") for side in _SIDES
}


Kernel = TypeVar("Kernel", Scorer, Rewarder)


@dataclass(frozen=True)
class Pass:
    """One scoring pass. key: fingerprint of all that its values depend on, but for the pairs."""

    name: str
    source: ModelSource
    features: bool
    template: str
    max_length: int
    key: str

    @property
    def unconditional(self) -> bool:
        """Whether the prompt is left out."""
        return self.name == "policy_unconditional"

    @property
    def rewards(self) -> bool:
        """Whether it is of rewards, not log-probs."""
        return self.name == _REWARD_MODEL


@dataclass(frozen=True)
class Task:
    """A shard of a pass (pairs `start` to `stop`), or its noise floor (`shard` is None)."""

    of: Pass
    shard: int | None
    start: int
    stop: int

    @property
    def pairs(self) -> int:
        """How many pairs it counts for."""
        return self.stop - self.start if self.shard is not None else 0


@dataclass(frozen=True)
class Plan:
    """Everything that scoring a run takes. It can be pickled, so that it travels to workers."""

    run: Run
    config: ScoreConfig
    compute: ComputeConfig
    device_kind: str
    dtype: str
    max_length: int
    template: str
    tokenizer: ModelSource
    passes: tuple[Pass, ...]
    shard_pairs: int
    pairs: int
    key: str

    def tasks(self) -> list[Task]:
        """All tasks, those of the same model together."""
        starts = range(0, self.pairs, self.shard_pairs)
        return [
            task
            for one in self.passes
            for task in (
                *(
                    Task(one, shard, start, min(start + self.shard_pairs, self.pairs))
                    for shard, start in enumerate(starts)
                ),
                *([] if one.rewards else [Task(one, None, 0, self.pairs)]),
            )
        ]

    def folder(self, one: Pass) -> Path:
        """Where a pass's files are."""
        return self.run.pass_path(one.name, one.key)

    def file(self, task: Task) -> Path:
        """The file that says that a task is done."""
        name = "noise_floor" if task.shard is None else f"{task.shard:05d}"
        return self.folder(task.of) / f"{name}.parquet"

    def features_file(self, task: Task) -> Path:
        """Where a shard's pooled hidden states are."""
        return self.folder(task.of) / "features" / f"{task.shard:05d}.parquet"

    def read(self, task: Task, columns: list[str]) -> pa.Table:
        """The pairs that a task is about: a shard's range, or some spread over the whole dataset."""
        if task.shard is not None:
            return self.run.read_pairs(task.start, task.stop, columns)
        wanted = min(NOISE_FLOOR_PAIRS, max(8, self.pairs // 16), self.pairs)
        positions = np.linspace(0, self.pairs - 1, wanted).round().astype(int).tolist()
        return pa.concat_tables([self.run.read_pairs(at, at + 1, columns) for at in positions])

    def contents(self, task: Task) -> str:
        """Fingerprint of the pairs that a task is about."""
        ids = self.read(task, ["pair_id", "row"])
        return fingerprint([ids["pair_id"].to_pylist(), ids["row"].to_pylist()])

    def is_done(self, task: Task) -> bool:
        """Whether a task's files are there, whole, and made from these pairs."""
        files = [self.file(task)]
        if task.of.features and task.shard is not None:
            files.append(self.features_file(task))
        found = [(read_metadata(file) or {}).get("contents") for file in files]
        return None not in found and set(found) == {self.contents(task)}

    def describe(self) -> dict[str, Any]:
        """The plan for the manifest."""
        return {
            "config": as_json(self.config),
            "dtype": self.dtype,
            "max_length": self.max_length,
            "template": self.template,
            "kernel_version": KERNEL_VERSION,
            "shard_pairs": self.shard_pairs,
            "passes": {
                one.name: {
                    **models.describe(one.source),
                    "folder": str(self.folder(one).relative_to(self.run.path)),
                    "features": one.features,
                    "template": one.template,
                    "max_length": one.max_length,
                }
                for one in self.passes
            },
        }


def make_plan(
    run: Run, config: ScoreConfig, compute: ComputeConfig, device: Device, say: Callable[[str], None]
) -> Plan:
    """Settle models, template, lengths and shards.

    Args:
        device: of the workers; only its kind and dtype count.
        say: told what a user should know.

    Raises:
        ModelError: a model is missing, policy and reference do not share their tokens, or the reward model is none.
        RunError: the run holds no pairs.
    """
    ingested = run.require("ingest")
    policy = models.resolve(config.policy, say)
    encoder = make_encoder(policy, config)
    sources = {"policy": policy}
    if config.unconditional:
        sources["policy_unconditional"] = policy
    if config.reference is not None:
        sources["reference"] = models.resolve(config.reference, say)
        _check_same_tokens(encoder, sources["reference"], config)
    _say_length("model", encoder, config, say)
    pairs = int(ingested["pairs"])
    shard_pairs = config.shard_pairs or _default_shard_pairs(pairs)
    passes = []
    for name, source in sources.items():
        common = _common_settings(KERNEL_VERSION, policy, encoder, device, shard_pairs)
        features = config.features and name == "policy"
        key = fingerprint([name, source.fingerprint, features, common])[:12]
        passes.append(Pass(name, source, features, encoder.template_name, encoder.max_length, key))
    if config.reward_model is not None:
        passes.append(_reward_pass(config.reward_model, config, device, shard_pairs, say))
    return Plan(
        run=run,
        config=config,
        compute=compute,
        device_kind="cuda" if device.is_cuda else "cpu",
        dtype=device.dtype,
        max_length=encoder.max_length,
        template=encoder.template_name,
        tokenizer=policy,
        passes=tuple(passes),
        shard_pairs=shard_pairs,
        pairs=pairs,
        key=fingerprint([ingested["fingerprint"], [one.key for one in passes], SCORES.names]),
    )


def _common_settings(
    version: int, tokenizer: ModelSource, encoder: Encoder, device: Device, shard_pairs: int
) -> dict[str, Any]:
    """What every pass's values depend on."""
    return {
        "kernel": version,
        "tokenizer": tokenizer.fingerprint,
        "template": encoder.template_fingerprint,
        "max_length": encoder.max_length,
        "max_prompt_length": encoder.max_prompt_length,
        "dtype": device.dtype,
        "shard_pairs": shard_pairs,  # so that shards of another size never mix with these
    }


def _reward_pass(spec: str, config: ScoreConfig, device: Device, shard_pairs: int, say: Callable[[str], None]) -> Pass:
    source = models.resolve_reward_model(spec, say, trust_remote_code=config.trust_remote_code)
    encoder = make_reward_encoder(source, config)
    _say_length("reward model", encoder, config, say)
    settings = _common_settings(rewards.KERNEL_VERSION, source, encoder, device, shard_pairs)
    key = fingerprint([_REWARD_MODEL, source.fingerprint, settings])[:12]
    return Pass(_REWARD_MODEL, source, False, encoder.template_name, encoder.max_length, key)


def _say_length(model: str, encoder: Encoder, config: ScoreConfig, say: Callable[[str], None]) -> None:
    if encoder.max_length < config.max_length:
        say(f"--max-length {config.max_length} is more than the {model} takes; using {encoder.max_length}")


def _default_shard_pairs(pairs: int) -> int:
    """A power of two, so that a dataset that grows a little keeps its shards."""
    return min(max(1 << (pairs // _SHARDS_WANTED).bit_length(), _SMALLEST_SHARD), _LARGEST_SHARD)


def make_encoder(policy: ModelSource, config: ScoreConfig) -> Encoder:
    """The encoder that policy and reference share: the policy's tokenizer, within the policy's context."""
    tokenizer = models.load_tokenizer(policy, trust_remote_code=config.trust_remote_code)
    context = models.context_length(policy, trust_remote_code=config.trust_remote_code)
    return _encoder(tokenizer, context, config)


def make_reward_encoder(source: ModelSource, config: ScoreConfig) -> Encoder:
    """The reward model's own tokenizer and template, within what both the model and its tokenizer take.

    An encoder's tokenizer may have no begin- and end-of-text token; what opens and closes its texts stands for them.
    """
    tokenizer = models.load_tokenizer(source, trust_remote_code=config.trust_remote_code)
    tokenizer.bos_token = tokenizer.bos_token or tokenizer.cls_token
    tokenizer.eos_token = tokenizer.eos_token or tokenizer.sep_token
    context = models.context_length(source, trust_remote_code=config.trust_remote_code)
    try:
        return _encoder(tokenizer, min(context or config.max_length, tokenizer.model_max_length), config)
    except ModelError as error:
        raise ModelError(f"{source.spec}: {error}") from error


def _encoder(tokenizer: Any, context: int | None, config: ScoreConfig) -> Encoder:
    max_length = min(config.max_length, context or config.max_length)
    max_prompt_length = min(config.max_prompt_length, max(1, max_length * 7 // 8))
    return Encoder(tokenizer, config.template, max_length=max_length, max_prompt_length=max_prompt_length)


def _check_same_tokens(encoder: Encoder, reference: ModelSource, config: ScoreConfig) -> None:
    other = models.load_tokenizer(reference, trust_remote_code=config.trust_remote_code)
    if other.get_vocab() != encoder.tokenizer.get_vocab():
        raise ModelError(
            f"policy {config.policy} and reference {config.reference} have different tokenizers, "
            "so their log-probs are not comparable; choose a reference with the policy's tokenizer"
        )


class Worker:
    """Does tasks of a plan, one after the other; holds one model at a time.

    What can fail happens in `do`: Ray tells what a method raised, but of a constructor only that the actor died.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.loaded: tuple[tuple[bool, str], Scorer | Rewarder] | None = None

    @cached_property
    def device(self) -> Device:
        """Where this worker computes."""
        return models.choose_device(self.plan.device_kind, self.plan.dtype)

    @cached_property
    def encoder(self) -> Encoder:
        """How it makes tokens of pairs."""
        return make_encoder(self.plan.tokenizer, self.plan.config)

    @cached_property
    def reward_encoder(self) -> Encoder:
        """How it makes the reward model's tokens of pairs."""
        source = next(one.source for one in self.plan.passes if one.rewards)
        return make_reward_encoder(source, self.plan.config)

    def do(self, task: Task) -> int:
        """Do a task and write its files. Returns the pairs it counts for."""
        started = time.monotonic()
        with storage_errors(self.plan.run.path):
            (self.plan.folder(task.of) / "features").mkdir(parents=True, exist_ok=True)
        pairs = self.plan.read(task, ["pair_id", "row", "prompt", "chosen", "rejected"])
        if task.shard is None:
            self._measure_noise(task, pairs)
        elif task.of.rewards:
            self._reward(task, pairs, started)
        else:
            self._score(task, pairs, started)
        return task.pairs

    def _score(self, task: Task, pairs: pa.Table, started: float) -> None:
        scorer = self._scorer(task.of)
        contents = self.plan.contents(task)
        encoded = _encode(self.encoder, pairs)
        sequences = _Sequences(encoded, unconditional=task.of.unconditional)
        scored = scorer.score(sequences.groups) if sequences.groups else None
        logp_C = np.zeros(0) if scored is None else scored.logp_C
        if task.of.features:
            pooled_C2D = None if scored is None else scored.pooled_C2D
            features = _features_table(pairs, sequences, pooled_C2D, scorer.width)
            write_table(self.plan.features_file(task), features, {"contents": contents})
        table = _pass_table(pairs, encoded, sequences, logp_C)
        tokens = sum(group.tokens for group in sequences.groups)
        how = {"kernel": scorer.kernel, "why_padded": scorer.why_padded}
        write_table(self.plan.file(task), table, self._facts(contents, started, tokens, how))

    def _reward(self, task: Task, pairs: pa.Table, started: float) -> None:
        rewarder = self._rewarder(task.of)
        contents = self.plan.contents(task)
        encoded = _encode(self.reward_encoder, pairs)
        conversations = Conversations(encoded, self.reward_encoder.tokenizer.cls_token_id)
        table = rewards_table(pairs, encoded, conversations, rewarder.reward(conversations.all))
        how = {"kernel": rewarder.kernel, "why_alone": rewarder.why_alone}
        write_table(self.plan.file(task), table, self._facts(contents, started, conversations.tokens, how))

    def _facts(self, contents: str, started: float, tokens: int, how: dict[str, Any]) -> dict[str, Any]:
        """What a shard's file says of itself."""
        seconds = round(time.monotonic() - started, 3)
        return {"contents": contents, "seconds": seconds, "tokens": tokens, **how, "device": self.device.name}

    def _measure_noise(self, task: Task, pairs: pa.Table) -> None:
        """Score some pairs again, each sequence alone, by the model's own forward pass."""
        encoded = _encode(self.encoder, pairs)
        sequences = _Sequences(encoded, unconditional=task.of.unconditional)
        scorer = self._scorer(task.of)
        rescored = [scorer.rescore(group) for group in sequences.groups]
        logp_C = np.concatenate(rescored) if rescored else np.zeros(0)
        table = _pass_table(pairs, encoded, sequences, logp_C).select(NOISE_FLOOR.names)
        write_table(self.plan.file(task), table, {"contents": self.plan.contents(task)})

    def _scorer(self, one: Pass) -> Scorer:
        scorer = self._ready(one, models.load_model, partial(Scorer, features=one.features))
        scorer.features = one.features
        return scorer

    def _rewarder(self, one: Pass) -> Rewarder:
        return self._ready(one, models.load_reward_model, Rewarder)

    def _ready(self, one: Pass, load: Callable[..., Any], kernel: Callable[..., Kernel]) -> Kernel:
        wanted = one.rewards, one.source.fingerprint
        if self.loaded is None or self.loaded[0] != wanted:
            self.loaded = None  # let go of the one before
            model = load(one.source, self.device, trust_remote_code=self.plan.config.trust_remote_code)
            self.loaded = wanted, kernel(model, self.device, batch_tokens=self.plan.compute.batch_tokens)
        return cast("Kernel", self.loaded[1])


def _encode(encoder: Encoder, pairs: pa.Table) -> list[TokenizedPair | str]:
    columns = [messages_of(pairs[name].to_pylist()) for name in ("prompt", "chosen", "rejected")]
    return encoder.encode(list(zip(*columns, strict=True)))


class _Sequences:
    """The unique sequences of some pairs, grouped by prompt, and where each pair's sides are among them.

    side_N2: index of the chosen and the rejected sequence; −1 where a side has no token or the pair is unscored.
    """

    def __init__(self, encoded: Sequence[TokenizedPair | str], *, unconditional: bool) -> None:
        by_prompt: dict[Ids, dict[Ids, int]] = {}
        for pair in encoded:
            if isinstance(pair, TokenizedPair):
                completions = by_prompt.setdefault(pair.header if unconditional else pair.prompt, {})
                for side in (pair.chosen, pair.rejected):
                    if side:
                        completions.setdefault(side, 0)
        used = 0
        self.groups: list[Group] = []
        for prompt, completions in by_prompt.items():
            if completions:
                self.groups.append(Group(prompt, tuple(completions)))
                for completion in completions:
                    completions[completion] = used
                    used += 1
        self.side_N2: NDArray[np.int64] = np.full((len(encoded), 2), -1)
        for index, pair in enumerate(encoded):
            if isinstance(pair, TokenizedPair):
                completions = by_prompt[pair.header if unconditional else pair.prompt]
                self.side_N2[index] = [completions.get(side, -1) for side in (pair.chosen, pair.rejected)]


def _pass_table(
    pairs: pa.Table, encoded: Sequence[TokenizedPair | str], sequences: _Sequences, logp_C: NDArray[np.float64]
) -> pa.Table:
    """One row a pair. A side without tokens has log-prob 0; an unscored pair has nulls and its reason."""
    padded_C = np.append(logp_C, 0.0)  # index −1: no token, log p = 0
    finite_N = np.isfinite(padded_C[sequences.side_N2]).all(axis=1)
    encoded = [
        pair if isinstance(pair, str) or finite else "a log-prob is not finite; choose another --dtype"
        for pair, finite in zip(encoded, finite_N, strict=True)
    ]
    scored = [pair if isinstance(pair, TokenizedPair) else None for pair in encoded]
    columns: dict[str, list[Any]] = {
        "pair_id": pairs["pair_id"].to_pylist(),
        "row": pairs["row"].to_pylist(),
        "unscored": [pair if isinstance(pair, str) else None for pair in encoded],
        "prompt_tokens": [pair and len(pair.prompt) for pair in scored],
        "prompt_truncated": [pair and pair.prompt_truncated for pair in scored],
        "identical_tokens": [pair and pair.chosen == pair.rejected for pair in scored],
        "boundary_shift_tokens": [pair and pair.boundary_shift for pair in scored],
    }
    for number, side in enumerate(("chosen", "rejected")):
        logp_N = padded_C[sequences.side_N2[:, number]].tolist()
        columns[f"{side}_logp"] = [pair and logp for pair, logp in zip(scored, logp_N, strict=True)]
        columns[f"{side}_tokens"] = [pair and len(getattr(pair, side)) for pair in scored]
        columns[f"{side}_truncated"] = [pair and getattr(pair, f"{side}_truncated") for pair in scored]
    return pa.table({name: columns[name] for name in PASS.names}, schema=PASS)


def _features_table(
    pairs: pa.Table, sequences: _Sequences, pooled_C2D: NDArray[np.float16] | None, width: int
) -> pa.Table:
    schema = features_schema(width)
    if pooled_C2D is None:
        pooled_C2D = np.zeros((0, 2, width), dtype=np.float16)
    padded_C2D = np.concatenate([pooled_C2D, np.zeros((1, 2, width), dtype=np.float16)])
    columns = {"pair_id": pairs["pair_id"], "row": pairs["row"]}
    for number, side in enumerate(("chosen", "rejected")):
        index_N = sequences.side_N2[:, number]
        for layer, name in enumerate(("middle", "last")):
            flat = pa.array(padded_C2D[index_N, layer].ravel())
            columns[f"{side}_{name}"] = pa.FixedSizeListArray.from_arrays(
                flat, type=schema.field(f"{side}_{name}").type, mask=pa.array(index_N < 0)
            )
    return pa.table(columns, schema=schema)


def merge(plan: Plan) -> dict[str, Any]:
    """Put the passes side by side into `scores.parquet` and record the stage. All tasks must be done.

    Raises:
        RunError: a shard cannot be read, or two passes do not cover the same pairs.
    """
    nothing = {"seconds": 0.0, "tokens": 0, "unscored": 0, "truncated": 0}
    facts: dict[str, dict[str, Any]] = {one.name: dict(nothing) for one in plan.passes}
    shards = [task for task in plan.tasks() if task.of == plan.passes[0] and task.shard is not None]
    with atomic_path(plan.run.scores_path) as temporary:
        with parquet_writer(temporary, SCORES, {"score": plan.key}) as writer:
            for shard in shards:
                writer.write_table(_side_by_side(plan, shard, facts))
        plan.run.strike("score")
    for one in plan.passes:
        remove_leftovers(plan.folder(one))
    described = plan.describe()
    for name, fact in facts.items():
        described["passes"][name] |= {**fact, "seconds": round(fact["seconds"], 3)}
    counts = {name: facts["policy"][name] for name in ("unscored", "truncated")}
    plan.run.record("score", plan.key, {**described, "pairs": plan.pairs, **counts})
    return plan.run.require("score")


def _read_shard(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{path}: damaged; delete it and run the same command again") from error


def _side_by_side(plan: Plan, shard: Task, facts: dict[str, dict[str, Any]]) -> pa.Table:
    """One shard's rows of `scores.parquet`; adds up what the shard's files say of themselves."""
    tables = {}
    for one in plan.passes:
        path = plan.file(Task(one, shard.shard, shard.start, shard.stop))
        tables[one.name] = _read_shard(path)
        _add_up(facts[one.name], tables[one.name], read_metadata(path) or {})
    policy = tables["policy"]
    if any(not table["row"].equals(policy["row"]) for table in tables.values()):
        raise RunError(f"{plan.run.path}: the passes of shard {shard.shard} cover different pairs; delete scores/")
    columns = {}
    for field in SCORES:
        source, name = _ORIGINS.get(field.name, ("policy", field.name))
        columns[field.name] = tables[source][name] if source in tables else pa.nulls(len(policy), field.type)
    return pa.table(columns, schema=SCORES)


def _add_up(fact: dict[str, Any], table: pa.Table, metadata: dict[str, Any]) -> None:
    """Add a shard to what is known of its pass."""
    cut = [table[f"{part}_truncated"].fill_null(False).to_numpy() for part in ("prompt", "chosen", "rejected")]
    fact["seconds"] += metadata["seconds"]
    fact["tokens"] += metadata["tokens"]
    fact["unscored"] += len(table) - table["unscored"].null_count
    fact["truncated"] += int(np.logical_or.reduce(cut).sum())
    fact |= {name: metadata[name] for name in ("kernel", "why_padded", "why_alone", "device") if name in metadata}
