"""What benchmarks ask and what they read: files of prompts in, files of answers out, and the settings between.

Prompts: rows of JSON, JSON Lines, Parquet, CSV or TSV with `instruction` (AlpacaEval), `prompt` (Arena-Hard) or `turns`
(Arena-Hard v0.1), the first of them that is there; `uid`, `question_id` or `id` names a row, else its number does.

    alpaca_eval   a JSON list: dataset, instruction, output, generator
    arena_hard    a line an answer: uid, ans_id, model, messages, tstamp, metadata; where the questions have a
                  `question_id` instead of a `uid`, the keys of v0.1: question_id, answer_id, model_id, choices, tstamp
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from curate.config import DEFAULT_MODEL, DEVICES, DTYPES
from curate.errors import ConfigError, InputError
from curate.readers import Row, read_rows
from curate.store import atomic_path

_TEXTS = ("instruction", "prompt", "turns")
_NAMES = ("uid", "question_id", "id")
_TRAINED = ("adapter", "model")


@dataclass(frozen=True)
class GenerateConfig:
    """Which prompts are answered, by what, and how.

    prompts: a file, see above.
    model: a folder, a hub id, a GGUF file, or `smollm2`, the embedded default.
    adapter: folder of a peft adapter for it.
    format: a key of `FORMATS`.
    name: what the model is called in the answers; None: the last part of the adapter's or model's name, which of what
        `curate train` writes (RUN/adapter, RUN/model) is the run's.
    max_new_tokens: of an answer; it also never exceeds half of the model's context, or what the prompt leaves of it.
    temperature: 0 takes the likeliest token (greedy).
    top_p: sample from the likeliest tokens that make up this probability.
    batch_size: prompts a forward pass.
    template: `auto`, `chat`, `plain`, `raw` or a Jinja file (see `curate.tokens`).
    dtype: `auto` is float32 on a CPU and tf32 on CUDA.
    limit: answer so many prompts, the first ones.
    """

    prompts: str
    model: str = DEFAULT_MODEL
    adapter: str | None = None
    format: str = "alpaca_eval"
    name: str | None = None
    max_new_tokens: int = 2048
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 42
    batch_size: int = 8
    template: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    limit: int | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        _choice("--format", self.format, tuple(FORMATS))
        _choice("--device", self.device, DEVICES)
        _choice("--dtype", self.dtype, DTYPES)
        for option, value in (
            ("--max-new-tokens", self.max_new_tokens),
            ("--batch-size", self.batch_size),
            ("--limit", self.limit),
        ):
            _require(value is None or value >= 1, f"{option} is {value}: it must be 1 or more")
        _require(
            math.isfinite(self.temperature) and self.temperature >= 0,
            f"--temperature is {self.temperature}: it must be 0 (greedy) or more",
        )
        _require(0 < self.top_p <= 1, f"--top-p is {self.top_p}: it must be above 0 and at most 1")
        _require(self.top_p == 1 or self.temperature > 0, "--top-p is for sampling: it needs a --temperature above 0")
        _require(self.seed >= 0, f"--seed is {self.seed}: it must be 0 or more")
        _require(self.name is None or bool(self.name.strip()), "--name is blank")

    @property
    def generator(self) -> str:
        """What the model is called in the answers."""
        folder = Path(self.adapter or self.model)
        return self.name or (folder.parent if folder.name in _TRAINED else folder).name or folder.name


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    _require(value in choices, f"{option} is {value!r}: choose one of {', '.join(choices)}")


# --- prompts -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question of one turn. named_by: the column of its id; None: the id is the row's number, from 1."""

    id: str | int
    text: str
    line: int
    dataset: str
    named_by: str | None

    @property
    def identity(self) -> list[str | int]:
        """What tells it from others, wherever it stands in the file."""
        return [self.text] if self.named_by is None else [self.id, self.text]


def read_prompts(config: GenerateConfig) -> list[Prompt]:
    """The prompts of a file, as many as `limit` says.

    Raises:
        InputError: the file cannot be read or is empty, no column is known, a row has no question of one turn, or two
            rows have the same id.
    """
    rows = list(islice(read_rows(config.prompts), config.limit))
    where = f"{config.prompts}, line {rows[0].line}"
    column = next((name for name in _TEXTS if name in rows[0].values), None)
    if column is None:
        found = ", ".join(rows[0].values) or "none"
        raise InputError(f"{where}: no column {', '.join(_TEXTS[:-1])} or {_TEXTS[-1]}; its columns are: {found}")
    named_by = next((name for name in _NAMES if name in rows[0].values), None)
    if config.format == "arena_hard" and named_by not in _NAMES[:2]:
        raise InputError(f"{where}: no uid; Arena-Hard joins answers with questions by it (v0.1: by question_id)")
    prompts = [_prompt(config.prompts, row, number, column, named_by) for number, row in enumerate(rows, start=1)]
    _refuse_same_ids(config.prompts, prompts)
    return prompts


def _prompt(path: str, row: Row, number: int, column: str, named_by: str | None) -> Prompt:
    where = f"{path}, line {row.line}"
    text = _question(where, column, row.values.get(column))
    if row.values.get("input"):
        raise InputError(f"{where}: an input beside the {column}; put both into one text")
    name = number if named_by is None else row.values.get(named_by)
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise InputError(f"{where}: {named_by} is {name!r}; it must be a text or a whole number")
    dataset = row.values.get("dataset")
    return Prompt(name, text, row.line, dataset if isinstance(dataset, str) else Path(path).stem, named_by)


def _question(where: str, column: str, value: object) -> str:
    """The text of a question: as it is, or of its only turn."""
    if isinstance(value, list) and len(value) > 1:
        raise InputError(f"{where}: {column} holds {len(value)} turns; only questions of one turn are answered")
    turn = value[0] if isinstance(value, list) and value else value
    text = turn.get("content") if isinstance(turn, dict) else turn
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where}: {column} holds no text; give a question, or delete this row")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: {column} is not valid Unicode at character {error.start + 1}; mend it") from error
    return text


def _refuse_same_ids(path: str, prompts: Sequence[Prompt]) -> None:
    lines: dict[str | int, int] = {}
    for prompt in prompts:
        if (first := lines.setdefault(prompt.id, prompt.line)) != prompt.line:
            name = f"{prompt.named_by} {prompt.id!r}"
            raise InputError(f"{path}, line {prompt.line}: {name} stands in line {first} already; make ids unique")


# --- answers -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says. ended: by itself, not by a limit; tstamp: when, in seconds since 1970."""

    key: str
    text: str
    tokens: int
    ended: bool
    tstamp: float


def _alpaca_eval(prompt: Prompt, answer: Answer, name: str) -> dict[str, Any]:
    return {"dataset": prompt.dataset, "instruction": prompt.text, "output": answer.text, "generator": name}


def _arena_hard(prompt: Prompt, answer: Answer, name: str) -> dict[str, Any]:
    if prompt.named_by == "question_id":
        turns = [{"content": answer.text, "token_len": answer.tokens}]
        return {
            "question_id": prompt.id,
            "answer_id": answer.key,
            "model_id": name,
            "choices": [{"index": 0, "turns": turns}],
            "tstamp": answer.tstamp,
        }
    question = {"role": "user", "content": prompt.text}
    return {
        "uid": prompt.id,
        "ans_id": answer.key,
        "model": name,
        "messages": [question, {"role": "assistant", "content": {"answer": answer.text}}],
        "tstamp": answer.tstamp,
        "metadata": {"token_len": answer.tokens, **count_markdown(answer.text)},
    }


#: Patterns of Arena-Hard's style control; a code block's content does not count.
_CODE_BLOCK = re.compile("```[^`]*```")
_HEADERS = {f"h{level}": re.compile(rf"^#{{{level}}}\s", re.MULTILINE) for level in range(1, 7)}
_LISTS = {
    "ordered": re.compile(r"^\s*\d+\.\s", re.MULTILINE),
    "unordered": re.compile(r"^\s*[-*+]\s", re.MULTILINE),
}
_BOLD = {"**": re.compile(r"\*\*[^*\n]+\*\*"), "__": re.compile(r"__[^_\n]+__")}


def count_markdown(text: str) -> dict[str, dict[str, int]]:
    """Headers, list items and bold passages outside code blocks, under Arena-Hard's names."""
    prose = _CODE_BLOCK.sub("``````", text)
    kinds = {"header_count": _HEADERS, "list_count": _LISTS, "bold_count": _BOLD}
    return {
        name: {kind: len(pattern.findall(prose)) for kind, pattern in patterns.items()}
        for name, patterns in kinds.items()
    }


#: name → a prompt and its answer as the benchmark wants them.
FORMATS: dict[str, Callable[[Prompt, Answer, str], dict[str, Any]]] = {
    "alpaca_eval": _alpaca_eval,
    "arena_hard": _arena_hard,
}


def write_answers(config: GenerateConfig, output: Path, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> None:
    """Write the answers, all or nothing.

    Raises:
        StorageError: the disk refuses.
    """
    record = FORMATS[config.format]
    records = [record(*both, config.generator) for both in zip(prompts, answers, strict=True)]
    if config.format == "alpaca_eval":
        text = json.dumps(records, ensure_ascii=False, indent=2) + "\n"
    else:
        text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records)
    with atomic_path(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
