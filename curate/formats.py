"""Foreign preference formats → canonical pairs. One function and one `FORMATS` entry per format.

A format says which columns it needs and of what kind (`Profile`), and turns one row into a `Pair`.
Detection names the format it chose and why, and fails loudly where none or several fit.
A row that cannot become a pair raises `Refused` with its reason; the caller keeps it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

from curate.errors import ConfigError, InputError

Values = Mapping[str, Any]


class Refused(Exception):
    """This row cannot become a pair; the message says why."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Vote:
    """One annotator's vote: +1 agrees with the label, −1 contradicts it, 0 is a tie."""

    annotator: str
    vote: int


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and two completions, the preferred one first (in a tie: the one listed first)."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    tie: bool = False
    source: str | None = None
    votes: tuple[Vote, ...] = ()
    rating_chosen: float | None = None
    rating_rejected: float | None = None

    def swap(self) -> Pair:
        """The same pair with the opposite label."""
        return replace(
            self,
            chosen=self.rejected,
            rejected=self.chosen,
            votes=tuple(Vote(vote.annotator, -vote.vote) for vote in self.votes),
            rating_chosen=self.rating_rejected,
            rating_rejected=self.rating_chosen,
        )


@dataclass(frozen=True)
class Profile:
    """What the first rows of a file look like: the kinds of values per column, and the rows themselves."""

    kinds: Mapping[str, frozenset[str]]
    rows: tuple[Values, ...]

    @classmethod
    def of(cls, rows: Iterable[Values]) -> Profile:
        """Profile some rows."""
        kept = tuple(rows)
        kinds: dict[str, set[str]] = {}
        for values in kept:
            for name, value in values.items():
                kinds.setdefault(name, set()).add(_kind(value))
        return cls({name: frozenset(found) for name, found in kinds.items()}, kept)

    def has(self, **wanted: str) -> bool:
        """Whether each named column holds values of the wanted kind (or `any`)."""
        return all(name in self.kinds and (kind == "any" or kind in self.kinds[name]) for name, kind in wanted.items())


@dataclass(frozen=True)
class Format:
    """One foreign format: how to recognise it and how to read a row."""

    name: str
    title: str
    columns: Mapping[str, str]  # needed columns → kind of value
    parse: Callable[[Values], Pair]
    example: Mapping[str, Any]
    absent: frozenset[str] = field(default_factory=frozenset)  # columns that mark another format
    accepts: Callable[[Profile], bool] = lambda profile: True
    marks: str = ""  # what `accepts` looked at, in words
    by_rating: bool = False  # the label was made from the ratings, so that equal ratings are a tie

    def fits(self, profile: Profile) -> bool:
        """Whether these rows look like this format."""
        return profile.has(**self.columns) and not self.absent & profile.kinds.keys() and self.accepts(profile)

    def read(self, values: Values) -> Pair:
        """One row as a pair, with whatever source, annotator and ratings it carries.

        Raises:
            Refused: it cannot become a pair.
        """
        pair = with_extras(self.parse(values), values)
        equal = pair.rating_chosen is not None and pair.rating_chosen == pair.rating_rejected
        return replace(pair, tie=True) if self.by_rating and equal else pair

    def reason(self) -> str:
        """Why it was chosen, in words."""
        described = ", ".join(f"{name} ({kind})" if kind != "any" else name for name, kind in self.columns.items())
        return f"its columns are {described}" + (f" and {self.marks}" if self.marks else "")


def detect(profile: Profile, where: str) -> Format:
    """The one format that fits.

    Raises:
        InputError: no format fits, or several do.
    """
    fitting = [form for form in FORMATS.values() if form.fits(profile)]
    if len(fitting) == 1:
        return fitting[0]
    columns = ", ".join(profile.kinds) or "none"
    if fitting:
        names = ", ".join(form.name for form in fitting)
        raise InputError(f"{where}: ambiguous, it could be {names}; choose with --format (columns: {columns})")
    mapping = "prompt=…,chosen=…,rejected=…"
    if {"response_a", "response_b"} <= profile.kinds.keys():
        mapping = "prompt=…,response_a=response_a,response_b=response_b,label=…"
    raise InputError(
        f"{where}: no known preference format (columns: {columns}); "
        f"name them with --columns {mapping} (curate formats lists what is known)"
    )


def named(name: str) -> Format:
    """The format of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in FORMATS:
        raise ConfigError(f"--format {name}: unknown; choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


# --- values --------------------------------------------------------------------------------------


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, list) and value and all(_is_message(item) for item in value):
        return "messages"
    if _is_message(value):
        return "message"
    return "other"


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and (
        ("role" in value and "content" in value) or ("from" in value and "value" in value)
    )


_ROLES = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
}


def _text(values: Values, name: str) -> str:
    """The text in a column; only text is text (a `true` in its place is refused, not guessed at)."""
    if name not in values or values[name] is None:
        raise Refused(f"{name} is missing")
    value = values[name]
    if not isinstance(value, str):
        raise Refused(f"{name} is {_describe(value)}, not text")
    return _valid_unicode(name, value)


def _describe(value: object) -> str:
    kind = {"bool": "a boolean", "number": "a number", "messages": "a list of messages"}.get(_kind(value))
    return f"{kind} ({json.dumps(value)})" if kind in ("a boolean", "a number") else kind or type(value).__name__


def _valid_unicode(name: str, text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refused(f"{name} holds a lone surrogate at character {error.start + 1}: not valid Unicode") from error
    return text


def _optional_text(values: Values, name: str) -> str:
    return "" if values.get(name) is None else _text(values, name)


def _message(name: str, value: Mapping[str, Any]) -> Message:
    role = value.get("role", value.get("from"))
    content = value.get("content", value.get("value"))
    if value.get("tool_calls"):
        raise Refused(f"{name} holds tool calls: only text conversations are supported")
    if content is None:
        raise Refused(f"{name} holds a message without content")
    if not isinstance(content, str):
        raise Refused(f"{name} holds content that is {_describe(content)}: only text conversations are supported")
    if not isinstance(role, str) or role not in _ROLES:
        raise Refused(f"{name} holds the role {role!r}: known are {', '.join(_ROLES)}")
    return Message(_ROLES[role], _valid_unicode(name, content))


def _messages(values: Values, name: str) -> tuple[Message, ...]:
    value = values.get(name)
    if value is None:
        raise Refused(f"{name} is missing")
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Refused(f"{name} is {_describe(value)}, not a list of messages")
    if not value:
        raise Refused(f"{name} is an empty conversation")
    return tuple(_message(name, item) for item in value)


def _user(content: str, system: str = "") -> tuple[Message, ...]:
    turns = (Message("user", content),)
    return (Message("system", system), *turns) if system else turns


def _assistant(content: str) -> tuple[Message, ...]:
    return (Message("assistant", content),)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


# --- what any row may carry ----------------------------------------------------------------------

_SOURCE_COLUMNS = ("source", "dataset")
_ANNOTATOR_COLUMNS = ("annotator", "annotator_id", "worker")
_RATING_COLUMNS = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_rating", "rejected_rating"),
    ("chosen_avg_rating", "rejected_avg_rating"),
    ("rating_chosen", "rating_rejected"),
)


def with_extras(pair: Pair, values: Values) -> Pair:
    """Add source, annotator and ratings from their usual columns, where the format has not set them."""
    source = next((_text(values, name) for name in _SOURCE_COLUMNS if _kind(values.get(name)) == "text"), None)
    annotator = next(
        (values[name] for name in _ANNOTATOR_COLUMNS if _kind(values.get(name)) in ("text", "number")), None
    )
    ratings = (pair.rating_chosen, pair.rating_rejected)
    if None in ratings:
        found = ((_number(values.get(chosen)), _number(values.get(rejected))) for chosen, rejected in _RATING_COLUMNS)
        ratings = next((both for both in found if None not in both), ratings)
    votes = pair.votes
    if not votes and annotator is not None:
        votes = (Vote(_valid_unicode("the annotator", str(annotator)), 0 if pair.tie else 1),)
    return replace(
        pair,
        source=pair.source or source,
        votes=votes,
        rating_chosen=ratings[0],
        rating_rejected=ratings[1],
    )


# --- conversations without a prompt column --------------------------------------------------------


def split_conversations(chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> Pair:
    """The turns that both conversations share are the prompt; at least the last turn of each is its completion.

    Sides that diverge before the last turn keep all that follows the divergence as completion.
    """
    shared = len(list(takewhile(lambda turns: turns[0] == turns[1], zip(chosen[:-1], rejected[:-1], strict=False))))
    if shared == 0:
        raise Refused("the two conversations share no turn that could be the prompt")
    return Pair(chosen[:shared], chosen[shared:], rejected[shared:])


def split_texts(chosen: str, rejected: str) -> Pair:
    """The words that both texts share at their beginning are the prompt; white space opens the completion.

    "The sky is blue" / "The sky is black" share the characters "The sky is bl", but the words "The sky is".
    Where one text is the other's beginning, it keeps its last word as its completion.
    """
    shared = sum(1 for _ in takewhile(lambda letters: letters[0] == letters[1], zip(chosen, rejected, strict=False)))
    last = min(len(chosen.rstrip()), len(rejected.rstrip())) - 1
    cut = next((i for i in range(min(shared, last), 0, -1) if chosen[i].isspace() and rejected[i].isspace()), 0)
    while cut and chosen[cut - 1].isspace():
        cut -= 1
    if not cut:
        raise Refused("the two texts share no beginning that could be the prompt")
    return Pair(_user(chosen[:cut]), _assistant(chosen[cut:]), _assistant(rejected[cut:]))


# --- formats -------------------------------------------------------------------------------------


def _trl_standard(values: Values) -> Pair:
    return Pair(
        _user(_text(values, "prompt"), _optional_text(values, "system")),
        _assistant(_text(values, "chosen")),
        _assistant(_text(values, "rejected")),
    )


def _trl_standard_implicit(values: Values) -> Pair:
    return split_texts(_text(values, "chosen"), _text(values, "rejected"))


def _trl_conversational(values: Values) -> Pair:
    return Pair(_messages(values, "prompt"), _messages(values, "chosen"), _messages(values, "rejected"))


def _implicit_conversations(values: Values) -> Pair:
    return split_conversations(_messages(values, "chosen"), _messages(values, "rejected"))


_HH_TURN = re.compile(r"\n\n(Human|Hum|Assistant): ?")


def _hh_turns(values: Values, name: str) -> tuple[Message, ...]:
    head, *pieces = _HH_TURN.split(_text(values, name))
    if head.strip() or not pieces:
        raise Refused(f"{name} does not start with a turn (\\n\\nHuman: or \\n\\nAssistant:)")
    return tuple(
        Message("assistant" if speaker == "Assistant" else "user", content.strip())
        for speaker, content in zip(pieces[::2], pieces[1::2], strict=True)
    )


def _hh_rlhf(values: Values) -> Pair:
    return split_conversations(_hh_turns(values, "chosen"), _hh_turns(values, "rejected"))


def _hh_share(profile: Profile) -> float:
    """The share of rows whose chosen text starts with a turn marker."""
    texts = [values["chosen"] for values in profile.rows if isinstance(values.get("chosen"), str)]
    return sum(bool(_HH_TURN.match(text)) for text in texts) / max(len(texts), 1)


def _prompt_and_conversations(values: Values) -> Pair:
    """The prompt column repeats the user's turn, which the conversations may or may not hold themselves."""
    chosen, rejected = _messages(values, "chosen"), _messages(values, "rejected")
    if chosen[0].role == rejected[0].role == "assistant":
        return Pair(_user(_text(values, "prompt")), chosen, rejected)
    pair = split_conversations(chosen, rejected)
    if any(turn.role == "user" for turn in pair.prompt):
        return pair
    return replace(pair, prompt=(*pair.prompt, *_user(_text(values, "prompt"))))


def _argilla_responses(values: Values) -> Pair:
    return Pair(
        _user(_text(values, "instruction")),
        _assistant(_text(values, "chosen_response")),
        _assistant(_text(values, "rejected_response")),
    )


def _orca_dpo(values: Values) -> Pair:
    return Pair(
        _user(_text(values, "question"), _optional_text(values, "system")),
        _assistant(_text(values, "chosen")),
        _assistant(_text(values, "rejected")),
    )


def _instruction(values: Values) -> str:
    """Instruction and input as one user turn, as LLaMA-Factory joins them."""
    text, extra = _text(values, "instruction"), _optional_text(values, "input")
    return f"{text}\n{extra}" if extra else text


def _llamafactory_alpaca(values: Values) -> Pair:
    turns: list[Message] = []
    history = values.get("history") or []
    if not isinstance(history, list):
        raise Refused(f"history holds something that is not a pair of instruction and response: {_describe(history)}")
    for exchange in history:
        if not isinstance(exchange, list | tuple) or len(exchange) != 2:
            raise Refused(
                f"history holds something that is not a pair of instruction and response: {_describe(exchange)}"
            )
        asked, answered = exchange
        turns += [
            _message("history", {"role": "user", "content": asked}),
            _message("history", {"role": "assistant", "content": answered}),
        ]
    system = _optional_text(values, "system")
    head = (Message("system", system),) if system else ()
    return Pair(
        (*head, *turns, Message("user", _instruction(values))),
        _assistant(_text(values, "chosen")),
        _assistant(_text(values, "rejected")),
    )


def _llamafactory_sharegpt(values: Values) -> Pair:
    prompt = _messages(values, "conversations")
    system = _optional_text(values, "system")
    if prompt[-1].role == "assistant":
        raise Refused("conversations ends with the assistant's turn, so there is nothing to answer")
    head = (Message("system", system),) if system else ()
    return Pair((*head, *prompt), _messages(values, "chosen"), _messages(values, "rejected"))


def _compared(
    prompt: tuple[Message, ...], first: str, second: str, preferred: int, votes: tuple[Vote, ...] = ()
) -> Pair:
    """A pair from two responses and the number of the preferred one (1, 2, or 0 for a tie).

    Votes come in counted for the first response and leave counted for the label.
    """
    pair = Pair(prompt, _assistant(first), _assistant(second), tie=preferred == 0, votes=votes)
    return pair.swap() if preferred == 2 else pair


def _llmbar(values: Values) -> Pair:
    label = _number(values.get("label"))
    if label not in (1.0, 2.0):
        raise Refused(f"label is {values.get('label')!r}: expected 1 or 2")
    return _compared(
        _user(_text(values, "input")),
        _text(values, "output_1"),
        _text(values, "output_2"),
        int(label),
    )


_PANDALM_ANNOTATORS = ("annotator1", "annotator2", "annotator3")
_SIGN_OF_CHOICE = {0: 0, 1: 1, 2: -1}


def _pandalm(values: Values) -> Pair:
    """The majority of three annotators is the label; without one the pair is a tie. All votes are kept."""
    choices = []
    for name in _PANDALM_ANNOTATORS:
        choice = _number(values.get(name))
        if choice not in _SIGN_OF_CHOICE:
            raise Refused(f"{name} is {values.get(name)!r}: expected 0 (tie), 1 or 2")
        choices.append(int(choice))
    majority = next((choice for choice in (1, 2) if choices.count(choice) >= 2), 0)
    votes = tuple(
        Vote(name, _SIGN_OF_CHOICE[choice]) for name, choice in zip(_PANDALM_ANNOTATORS, choices, strict=True)
    )
    return _compared(
        _user(_instruction(values)), _text(values, "response1"), _text(values, "response2"), majority, votes
    )


_OTHER_PROMPTS = frozenset({"prompt", "question", "instruction", "input", "messages", "conversations"})
_CHAT_PROMPT = [{"role": "user", "content": "What color is the sky?"}]
_CHAT_CHOSEN = [{"role": "assistant", "content": "It is blue."}]
_CHAT_REJECTED = [{"role": "assistant", "content": "It is green."}]

FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        Format(
            "trl_standard",
            "TRL, standard: prompt, chosen and rejected as text",
            {"prompt": "text", "chosen": "text", "rejected": "text"},
            _trl_standard,
            {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
        ),
        Format(
            "trl_standard_implicit",
            "TRL, standard, implicit prompt: chosen and rejected begin alike",
            {"chosen": "text", "rejected": "text"},
            _trl_standard_implicit,
            {"chosen": "The sky is blue.", "rejected": "The sky is green."},
            absent=_OTHER_PROMPTS,
            accepts=lambda profile: _hh_share(profile) < 1,
            marks="the texts begin without a turn marker",
        ),
        Format(
            "trl_conversational",
            "TRL, conversational: three lists of messages",
            {"prompt": "messages", "chosen": "messages", "rejected": "messages"},
            _trl_conversational,
            {"prompt": _CHAT_PROMPT, "chosen": _CHAT_CHOSEN, "rejected": _CHAT_REJECTED},
        ),
        Format(
            "trl_conversational_implicit",
            "TRL, conversational, implicit prompt: two whole conversations",
            {"chosen": "messages", "rejected": "messages"},
            _implicit_conversations,
            {"chosen": _CHAT_PROMPT + _CHAT_CHOSEN, "rejected": _CHAT_PROMPT + _CHAT_REJECTED},
            absent=_OTHER_PROMPTS,
        ),
        Format(
            "hh_rlhf",
            "Anthropic HH-RLHF: two whole dialogues with Human: and Assistant: turns",
            {"chosen": "text", "rejected": "text"},
            _hh_rlhf,
            {"chosen": "\n\nHuman: hi\n\nAssistant: hello", "rejected": "\n\nHuman: hi\n\nAssistant: go away"},
            absent=_OTHER_PROMPTS,
            accepts=lambda profile: _hh_share(profile) > 0,
            marks="the texts begin with a turn such as Human:",
        ),
        Format(
            "ultrafeedback_binarized",
            "UltraFeedback binarized (also Tulu 3): prompt as text, two conversations, score_chosen, score_rejected",
            {"prompt": "text", "chosen": "messages", "rejected": "messages"},
            _prompt_and_conversations,
            {
                "prompt": "What color is the sky?",
                "chosen": _CHAT_PROMPT + _CHAT_CHOSEN,
                "rejected": _CHAT_PROMPT + _CHAT_REJECTED,
                "score_chosen": 8.5,
                "score_rejected": 6.0,
            },
            absent=frozenset({"chosen-rating"}),
            by_rating=True,
        ),
        Format(
            "argilla_cleaned",
            "Argilla UltraFeedback cleaned: prompt as text, two conversations, chosen-rating, rejected-rating",
            {"prompt": "text", "chosen": "messages", "rejected": "messages", "chosen-rating": "any"},
            _prompt_and_conversations,
            {
                "source": "ultrachat",
                "prompt": "What color is the sky?",
                "chosen": _CHAT_PROMPT + _CHAT_CHOSEN,
                "chosen-rating": 5.0,
                "rejected": _CHAT_PROMPT + _CHAT_REJECTED,
                "rejected-rating": 3.0,
            },
            by_rating=True,
        ),
        Format(
            "argilla_responses",
            "Argilla UltraFeedback v1: instruction, chosen_response, rejected_response, chosen_avg_rating",
            {"instruction": "text", "chosen_response": "text", "rejected_response": "text"},
            _argilla_responses,
            {
                "instruction": "What color is the sky?",
                "chosen_response": "It is blue.",
                "rejected_response": "It is green.",
                "chosen_avg_rating": 4.5,
                "rejected_avg_rating": 2.0,
            },
            by_rating=True,
        ),
        Format(
            "orca_dpo",
            "Intel Orca DPO pairs: system, question, chosen, rejected",
            {"question": "text", "chosen": "text", "rejected": "text"},
            _orca_dpo,
            {"system": "Be brief.", "question": "What color is the sky?", "chosen": "Blue.", "rejected": "Green."},
        ),
        Format(
            "llamafactory_alpaca",
            "LLaMA-Factory alpaca ranking: instruction, input, chosen, rejected, system, history",
            {"instruction": "text", "chosen": "text", "rejected": "text"},
            _llamafactory_alpaca,
            {"instruction": "What color is this?", "input": "the sky", "chosen": "Blue.", "rejected": "Green."},
        ),
        Format(
            "llamafactory_sharegpt",
            "LLaMA-Factory sharegpt ranking: conversations, chosen and rejected message",
            {"conversations": "messages", "chosen": "message", "rejected": "message"},
            _llamafactory_sharegpt,
            {
                "conversations": [{"from": "human", "value": "What color is the sky?"}],
                "chosen": {"from": "gpt", "value": "It is blue."},
                "rejected": {"from": "gpt", "value": "It is green."},
            },
        ),
        Format(
            "llmbar",
            "LLMBar: input, output_1, output_2, label 1 or 2",
            {"input": "text", "output_1": "text", "output_2": "text", "label": "any"},
            _llmbar,
            {"input": "What color is the sky?", "output_1": "Green.", "output_2": "Blue.", "label": 2},
        ),
        Format(
            "pandalm",
            "PandaLM test set: instruction, input, response1, response2 and three annotators (majority is the label)",
            {
                **dict.fromkeys(("instruction", "response1", "response2"), "text"),
                **dict.fromkeys(_PANDALM_ANNOTATORS, "any"),
            },
            _pandalm,
            {
                "instruction": "What color is this?",
                "input": "the sky",
                "response1": "Green.",
                "response2": "Blue.",
                **dict(zip(_PANDALM_ANNOTATORS, (2, 2, 1), strict=True)),
            },
        ),
    )
}


# --- explicit mapping ----------------------------------------------------------------------------

MAPPED = {
    "prompt": "the prompt: text or messages",
    "chosen": "the preferred response: text or messages",
    "rejected": "the other response: text or messages",
    "response_a": "the first response, where a label tells which is preferred",
    "response_b": "the second response",
    "label": "a, b or tie, or any values with --label-values a=…,b=…,tie=…",
    "system": "a system prompt",
    "source": "where the pair comes from",
    "annotator": "who labelled it",
    "rating_chosen": "a number (with response_a/response_b: the first response's)",
    "rating_rejected": "a number (the second response's)",
}
_DEFAULT_LABELS = {"a": "a", "b": "b", "tie": "tie"}


def mapped(columns: Mapping[str, str], label_values: Mapping[str, str] | None = None) -> Format:
    """A format from an explicit mapping, canonical name → column of the file.

    Raises:
        ConfigError: the mapping has unknown or missing names.
    """
    if unknown := [name for name in columns if name not in MAPPED]:
        raise ConfigError(f"--columns: unknown name {unknown[0]!r}; known are {', '.join(MAPPED)}")
    direct = {"prompt", "chosen", "rejected"} <= columns.keys()
    compared = {"prompt", "response_a", "response_b", "label"} <= columns.keys()
    if direct == compared or (direct and "label" in columns):
        raise ConfigError(
            "--columns: name either prompt, chosen and rejected, or prompt, response_a, response_b and label"
        )
    labels = label_sides(label_values)

    def parse(values: Values) -> Pair:
        renamed = {name: values.get(column) for name, column in columns.items()}
        prompt = _turns(renamed, "prompt", "user")
        if system := _optional_text(renamed, "system"):
            prompt = (Message("system", system), *prompt)
        first, second = ("chosen", "rejected") if direct else ("response_a", "response_b")
        sides = (_turns(renamed, first, "assistant"), _turns(renamed, second, "assistant"))
        pair = with_extras(Pair(prompt, *sides), renamed)
        return pair if direct else _labelled(pair, renamed["label"], labels)

    needed = {columns[name]: "any" for name in columns}
    return Format("columns", "explicit mapping", needed, parse, {})


def _turns(values: Values, name: str, role: str) -> tuple[Message, ...]:
    if isinstance(values.get(name), list | dict):
        return _messages(values, name)
    return (Message(role, _text(values, name)),)


def label_sides(label_values: Mapping[str, str] | None) -> dict[str, str]:
    """Label text → a, b or tie, for `mapped`'s label_values."""
    if label_values is None:
        return _DEFAULT_LABELS
    if unknown := set(label_values) - {"a", "b", "tie"}:
        raise ConfigError(f"--label-values: unknown name {min(unknown)!r}; known are a, b and tie")
    if not {"a", "b"} <= label_values.keys() or len(set(label_values.values())) != len(label_values):
        raise ConfigError("--label-values: give distinct values for a and b, and for tie where there are ties")
    return {_label_text(text): side for side, text in label_values.items()}


def _label_text(text: str) -> str:
    """A label as text; 1.0 and 1 are the same."""
    return text.strip().removesuffix(".0")


def label_side(label: object, labels: Mapping[str, str]) -> str | None:
    """Which of a, b and tie a label says; None where it says none of them."""
    text = json.dumps(label) if isinstance(label, bool) else _label_text(str(label))
    return labels.get(text) or (labels.get(text.lower()) if labels is _DEFAULT_LABELS else None)


def _labelled(pair: Pair, label: object, labels: Mapping[str, str]) -> Pair:
    side = label_side(label, labels)
    if side is None:
        raise Refused(f"label is {label!r}: expected {', '.join(labels)}; see --label-values")
    if side == "tie":
        votes = tuple(Vote(vote.annotator, 0) for vote in pair.votes)
        return replace(pair, tie=True, votes=votes)
    if side == "a":
        return pair
    return replace(pair.swap(), votes=pair.votes)  # whoever voted agrees with the label
