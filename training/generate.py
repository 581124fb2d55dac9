"""A file of prompts → a model's answers, as AlpacaEval and Arena-Hard read them (see `training.answers`).

Every answer is first appended to a journal, `OUTPUT.answers`, under a key of all that it depends on. A run takes what
is there and generates the rest; delete the journal to start anew.

Answers do not depend on the batch: sampling draws one uniform number a token from a stream of the prompt's own, and
inverts the distribution function in the order of the vocabulary. What remains is arithmetic: logits of another batch
differ in their last bits, so that two tokens that are equally likely to that precision can change places. In float32
this is rare, in bfloat16 it is not.

Dimension key: B prompts of a batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from curate import models
from curate.errors import ConfigError, InputError, ModelError, storage_errors
from curate.formats import Message
from curate.logprobs import keep_in_float32
from curate.models import Device, ModelSource
from curate.progress import Progress
from curate.readers import sha256
from curate.store import fingerprint
from curate.tokens import Encoder, Ids
from training.answers import Answer, GenerateConfig, Prompt, read_prompts, write_answers

#: Changes whenever answers may differ from those of the version before.
GENERATION_VERSION = 1

_SIDES = (Message("assistant", "A"),), (Message("assistant", "B"),)  # they differ in their content alone
_LONGEST_REASON = 300


def generate(config: GenerateConfig, output: Path, progress: Progress) -> dict[str, Any]:
    """Answer every prompt and write the answers in the prompts' order. Goes on where an earlier run stopped.

    A prompt that leaves no room for an answer in the model's context, or that the template refuses, is not cut: its
    answer is empty, for a benchmark leaves out a missing answer, and would flatter the model.

    Args:
        output: the file; its folder is made, and a file of that name replaced.

    Returns:
        prompts, answered; refused: reason → prompts with an empty answer; reused: answers from the journal; cut_off:
        answers that did not end by themselves; tokens: of all answers; seconds: of this call.

    Raises:
        InputError: the prompts cannot be read, or the output is a folder.
        ModelError: the model, adapter or template cannot be used, or no prompt can be answered.
        StorageError: the disk refuses.
    """
    started = time.monotonic()
    prompts = read_prompts(config)
    journal = _Journal(output.with_name(f"{output.name}.answers"))
    _check_output(config, output, journal.path)
    plan = _Plan(config, prompts, progress.say)
    known = journal.read()
    pending = [task for task in plan.tasks if task.key not in known]
    progress.advance(len(prompts) - len(pending))
    if pending:
        answerer = Answerer(config, plan.source, plan.device, plan.encoder)
        for batch in _batches(pending, config.batch_size, plan.longest):
            found = answerer.answer(batch)
            journal.append(found)
            known.update((answer.key, answer) for answer in found)
            progress.advance(len(batch))
    answers = [known.get(key) or Answer(key, "", 0, ended=True, tstamp=time.time()) for key in plan.keys]
    write_answers(config, output, prompts, answers)
    return {
        "prompts": len(prompts),
        "answered": len(plan.tasks),
        "refused": dict(plan.refused),
        "reused": len(plan.tasks) - len(pending),
        "cut_off": sum(not answer.ended for answer in answers),
        "tokens": sum(answer.tokens for answer in answers),
        "seconds": time.monotonic() - started,
    }


def _check_output(config: GenerateConfig, output: Path, journal: Path) -> None:
    for path in (output, journal):
        if path.is_dir():
            raise InputError(f"{path}: this is a folder; give the name of a file")
    if output.resolve() == Path(config.prompts).resolve():
        raise InputError(f"{output}: the answers would replace the prompts; give another name")
    with storage_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)


# --- the journal ---------------------------------------------------------------------------------


class _Journal:
    """Answers of this and of earlier runs, a line each. A line that a killed process left unfinished is not done."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Answer]:
        """All whole answers by their keys."""
        if not self.path.exists():
            return {}
        with storage_errors(self.path):
            lines = self.path.read_bytes().split(b"\n")
        answers = [answer for answer in map(_parse, lines) if answer is not None]
        return {answer.key: answer for answer in answers}

    def append(self, answers: Sequence[Answer]) -> None:
        """Add answers; each starts a line of its own, whatever stands before it."""
        text = "".join("\n" + json.dumps(asdict(answer), ensure_ascii=False) for answer in answers) + "\n"
        with storage_errors(self.path), self.path.open("ab") as stream:
            stream.write(text.encode())


def _parse(line: bytes) -> Answer | None:
    try:
        return Answer(**json.loads(line))
    except (ValueError, TypeError):
        return None


# --- the plan ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt's tokens.

    key: of all that its answer depends on.
    room: the most tokens that its answer may have.
    stream: key of its random numbers, which depend on the seed and the prompt alone.
    """

    key: str
    ids: Ids
    room: int
    stream: str


class _Plan:
    """What is to be answered: the prompts' tokens, keys and limits; the model itself is not loaded yet."""

    def __init__(self, config: GenerateConfig, prompts: Sequence[Prompt], say: Callable[[str], None]) -> None:
        trust = config.trust_remote_code
        self.source = models.resolve(config.model, say)
        self.device = models.choose_device(config.device, config.dtype)
        tokenizer = models.load_tokenizer(self.source, trust_remote_code=trust)
        self.encoder = Encoder(tokenizer, config.template, max_length=sys.maxsize, max_prompt_length=sys.maxsize)
        self.context = models.context_length(self.source, trust_remote_code=trust) or sys.maxsize
        self.longest = min(config.max_new_tokens, max(1, self.context // 2))
        key = self._key(config)
        self.keys = [fingerprint([key, *prompt.identity]) for prompt in prompts]
        self.tasks: list[Task] = []
        self.refused: Counter[str] = Counter()
        for prompt, ids, key in zip(prompts, self._tokens(prompts), self.keys, strict=True):
            if isinstance(ids, str):
                if ids not in self.refused:
                    say(f"{config.prompts}, line {prompt.line}: gets an empty answer: {ids}")
                self.refused[ids] += 1
            else:
                stream = fingerprint([config.seed, *prompt.identity])
                self.tasks.append(Task(key, ids, min(self.longest, self.context - len(ids)), stream))
        if not self.tasks:
            raise ModelError(f"{config.prompts}: no prompt can be answered: {next(iter(self.refused))}")

    def _key(self, config: GenerateConfig) -> str:
        """A key of all settings that answers depend on; batch size and number of prompts are none of them."""
        sampling = [config.temperature, config.top_p, config.seed] if config.temperature else None
        model = [self.source.fingerprint, _adapter_fingerprint(config.adapter), self.encoder.template_fingerprint]
        return fingerprint([GENERATION_VERSION, model, self.longest, self.device.dtype, sampling])

    def _tokens(self, prompts: Sequence[Prompt]) -> Iterator[Ids | str]:
        """Each prompt's tokens, up to where the trainer's completions begin; or why it cannot be answered."""
        encoded = self.encoder.encode([((Message("user", prompt.text),), *_SIDES) for prompt in prompts])
        for pair in encoded:
            if isinstance(pair, str):
                yield pair
            elif len(pair.prompt) >= self.context:
                yield f"the prompt leaves no room in the model's context of {self.context:,} tokens"
            else:
                yield pair.prompt


def _adapter_fingerprint(adapter: str | None) -> list[str] | None:
    """Hashes of an adapter's files.

    Raises:
        ModelError: the folder holds no adapter.
    """
    if adapter is None:
        return None
    if not (Path(adapter) / "adapter_config.json").is_file():
        raise ModelError(f"{adapter}: the folder holds no adapter (no adapter_config.json)")
    return [sha256(str(path)) for path in sorted(Path(adapter).glob("adapter_*"))]


def _batches(tasks: Sequence[Task], size: int, longest: int) -> Iterator[list[Task]]:
    """Tasks of similar length, the longest first; those whose prompt leaves less room than `longest` go alone."""
    ordered = sorted(tasks, key=lambda task: len(task.ids), reverse=True)
    yield from ([task] for task in ordered if task.room < longest)
    roomy = [task for task in ordered if task.room == longest]
    yield from (roomy[start : start + size] for start in range(0, len(roomy), size))


# --- the model -----------------------------------------------------------------------------------


class Answerer:
    """Answers tasks with one model on one device."""

    def __init__(self, config: GenerateConfig, source: ModelSource, device: Device, encoder: Encoder) -> None:
        """Load the model and settle where answers end.

        Raises:
            ModelError: model or adapter cannot be loaded.
        """
        self.config, self.device, self.tokenizer = config, device, encoder.tokenizer
        self.model = cast("Any", models.load_model(source, device, trust_remote_code=config.trust_remote_code))
        if not self.model.can_generate():
            raise ModelError(f"{source.spec}: this kind of model cannot generate text")
        self.stops = _stops(encoder, self.model.generation_config.eos_token_id)
        if device.dtype == "float16":
            keep_in_float32(self.model.get_output_embeddings())
        self.model.generation_config = type(self.model.generation_config)()  # its own sampling settings are not ours
        if config.adapter is not None:
            self.model = _with_adapter(self.model, config.adapter, device)

    def answer(self, batch: Sequence[Task]) -> list[Answer]:
        """Answer a batch; where it does not fit into the device's memory, in halves.

        Args:
            batch: tasks of equal room.

        Raises:
            ModelError: a single prompt does not fit, or the logits are not numbers.
        """
        try:
            return [self._read(task, found) for task, found in zip(batch, self._run(batch), strict=True)]
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise ModelError(
                    f"a prompt of {len(batch[0].ids):,} tokens and its answer do not fit into the memory of "
                    f"{self.device.name}; lower --max-new-tokens, or choose a smaller dtype"
                ) from error
        torch.cuda.empty_cache()
        middle = len(batch) // 2
        return self.answer(batch[:middle]) + self.answer(batch[middle:])

    @torch.inference_mode()
    def _run(self, batch: Sequence[Task]) -> list[list[int]]:
        """New tokens of each task, with what follows an end token."""
        ids_BT, mask_BT = _pad_left([task.ids for task in batch], self._padding())
        chooser = Chooser(self.config, [task.stream for task in batch])
        with self._autocast():
            found_BT = self.model.generate(
                input_ids=ids_BT.to(self.device.name),
                attention_mask=mask_BT.to(self.device.name),
                logits_processor=[chooser],
                do_sample=False,
                max_new_tokens=batch[0].room,
                eos_token_id=sorted(self.stops) or None,
                pad_token_id=self._padding(),
            )
        return cast("list[list[int]]", found_BT[:, ids_BT.shape[1] :].tolist())

    def _read(self, task: Task, found: list[int]) -> Answer:
        """The text up to the first end token, without surrounding white space."""
        ids = list(takewhile(lambda token: token not in self.stops, found))
        text = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
        return Answer(task.key, text, len(ids), ended=len(ids) < len(found), tstamp=time.time())

    def _padding(self) -> int:
        """Any token: padding is masked."""
        token = self.tokenizer.pad_token_id
        return min(self.stops, default=0) if token is None else int(token)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.device.dtype == "float16":
            return torch.autocast("cuda", dtype=torch.float16)
        return nullcontext()


def _with_adapter(model: Any, adapter: str, device: Device) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ConfigError("--adapter needs peft: pip install 'gamma-curate[train]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message=".*missing adapter keys")  # they would be left without effect
            return PeftModel.from_pretrained(model, adapter, torch_device=device.name).eval()
    except Exception as error:  # safetensors, peft and torch have errors of no common kind
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise ModelError(f"{adapter}: cannot be loaded onto this model: {reason}") from error


def _stops(encoder: Encoder, of_model: int | Sequence[int] | None) -> frozenset[int]:
    """Tokens that end an answer: the tokenizer's, the model's and the template's."""
    listed = [of_model] if isinstance(of_model, int) else list(of_model or ())
    return frozenset({encoder.tokenizer.eos_token_id, end_of_turn(encoder), *listed} - {None})


def end_of_turn(encoder: Encoder) -> int | None:
    """The special token with which the template closes an answer, if there is one."""
    (pair,) = encoder.encode([((Message("user", "Q"),), *_SIDES)])
    if isinstance(pair, str):
        return None
    special = set(encoder.tokenizer.all_special_ids)
    special |= {index for index, token in encoder.tokenizer.added_tokens_decoder.items() if token.special}
    both = zip(reversed(pair.chosen), reversed(pair.rejected), strict=False)
    closing = [one for one, _ in takewhile(lambda tokens: tokens[0] == tokens[1], both)]
    return next((token for token in reversed(closing) if token in special), None)


def _pad_left(prompts: Sequence[Ids], padding: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, shape (B, T)."""
    longest = max(map(len, prompts))
    ids_BT = torch.tensor([[padding] * (longest - len(ids)) + list(ids) for ids in prompts])
    mask_BT = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts])
    return ids_BT, mask_BT


class Chooser:
    """Chooses the next token of every row; as transformers' logits processor it leaves no other."""

    def __init__(self, config: GenerateConfig, streams: Sequence[str]) -> None:
        self.temperature, self.top_p = config.temperature, config.top_p
        self.streams = [np.random.default_rng(int(key, 16)) for key in streams]

    def __call__(self, ids_BT: Tensor, logits_BV: Tensor) -> Tensor:
        """The logits where the likeliest token is wanted, else 0 for the token that was drawn and −∞ for the others."""
        if logits_BV.isnan().any():
            raise ModelError("the model's logits are not numbers: choose another --dtype")
        if self.temperature == 0:
            return logits_BV
        uniform_B = torch.tensor([stream.random() for stream in self.streams], dtype=torch.float64)
        token_B = draw(logits_BV, uniform_B.to(logits_BV.device), self.temperature, self.top_p)
        return torch.full_like(logits_BV, -math.inf).scatter_(1, token_B[:, None], 0.0)


def draw(logits_BV: Tensor, uniform_B: Tensor, temperature: float, top_p: float) -> Tensor:
    """Tokens, shape (B,): the first one whose cumulated probability, in the vocabulary's order, exceeds the uniform.

    p ∝ exp(logit/temperature), restricted to the fewest likeliest tokens whose probabilities reach `top_p`.
    Of logits log(1/2), log(1/4), log(1/4) the uniforms 0.4 and 0.6 give tokens 0 and 1; with top_p = 0.5 both give 0.
    """
    p_BV = (logits_BV.double() / temperature).softmax(dim=1)
    if top_p < 1:
        sorted_BV, order_BV = p_BV.sort(dim=1, descending=True, stable=True)
        kept_BV = sorted_BV.cumsum(dim=1) - sorted_BV < top_p
        p_BV = torch.zeros_like(p_BV).scatter_(1, order_BV, sorted_BV * kept_BV)
    cumulated_BV = p_BV.cumsum(dim=1)
    reached_B1 = uniform_B[:, None] * cumulated_BV[:, -1:]
    return torch.searchsorted(cumulated_BV, reached_B1, right=True)[:, 0].clamp(max=p_BV.shape[1] - 1)
