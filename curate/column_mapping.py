"""A format from an explicit mapping: which column holds the prompt, which the responses, which the label."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from curate.canon import Message, Pair, Refused, Vote
from curate.errors import ConfigError
from curate.extras import with_extras
from curate.form import Format
from curate.values import Values, optional_text_in, turns_in

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
        prompt = turns_in(renamed, "prompt", "user")
        if system := optional_text_in(renamed, "system"):
            prompt = (Message("system", system), *prompt)
        first, second = ("chosen", "rejected") if direct else ("response_a", "response_b")
        sides = (turns_in(renamed, first, "assistant"), turns_in(renamed, second, "assistant"))
        pair = with_extras(Pair(prompt, *sides), renamed)
        return pair if direct else _labelled(pair, renamed["label"], labels)

    needed = {columns[name]: "any" for name in columns}
    return Format("columns", "explicit mapping", needed, parse, {})


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
