"""Pairs → token ids with the completion's boundary. The scorer and the trainer share this one function.

Templates (`--template`):
    chat    the tokenizer's own chat template
    plain   "System: …", "User: …", "Assistant: …", turns apart by an empty line, each answer closed by the
            end-of-text token
    raw     contents one after the other as they are, closed by the end-of-text token
    FILE    a Jinja chat template of your own
    auto    chat where the tokenizer has one, plain otherwise

The completion starts at the longest common token prefix of the rendered prompt with both rendered sides (TRL's rule),
so both sides share their prompt's tokens. Where rendering the prompt alone gives other tokens at its end,
`boundary_shift` counts the prompt tokens that went to the completion.

Too long pairs: if prompt and longer side exceed `max_length`, the prompt is cut to its last
`max_prompt_length` tokens, then each side to what is left; what is cut is flagged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from curate.errors import ModelError
from curate.formats import Message

PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant: {% endif %}"
)
RAW_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
    "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"
)
_NAMED_TEMPLATES = {"plain": PLAIN_TEMPLATE, "raw": RAW_TEMPLATE}

Ids = tuple[int, ...]
Turns = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """A pair as the model sees it: `prompt + chosen` and `prompt + rejected`.

    header: the tokens that open an answer, without any prompt (for log p(y)); never empty.
    boundary_shift: rendered prompt tokens that went to the completion.
    """

    prompt: Ids
    chosen: Ids
    rejected: Ids
    header: Ids
    prompt_truncated: bool = False
    chosen_truncated: bool = False
    rejected_truncated: bool = False
    boundary_shift: int = 0


class Encoder:
    """Renders and tokenizes pairs, one way for everyone."""

    def __init__(self, tokenizer: Any, template: str, *, max_length: int, max_prompt_length: int) -> None:
        """Settle the template.

        Raises:
            ModelError: `chat` was asked for and the tokenizer has none, or the file cannot be read.
        """
        self.tokenizer = tokenizer
        self.max_length, self.max_prompt_length = max_length, max_prompt_length
        self.template_name, self.template = _settle_template(tokenizer, template)

    @property
    def template_fingerprint(self) -> str:
        """Hash of the template's text."""
        return hashlib.sha256(self.template.encode()).hexdigest()[:16]

    def encode(self, triples: Sequence[tuple[Turns, Turns, Turns]]) -> list[TokenizedPair | str]:
        """Tokenize (prompt, chosen, rejected) triples. Where the template refuses one, its reason stands instead."""
        rendered = [self._render(*triple) for triple in triples]
        texts = [text for item in rendered if not isinstance(item, str) for text in item]
        encoded = iter(self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else [])
        return [
            item if isinstance(item, str) else self._cut(*(tuple(next(encoded)) for _ in item)) for item in rendered
        ]

    def _render(self, prompt: Turns, chosen: Turns, rejected: Turns) -> tuple[str, str, str, str] | str:
        """The texts of: the prompt without and with the answer's opening, and both sides; or why not."""
        try:
            return (
                self._apply(prompt, opening=False),
                self._apply(prompt, opening=True),
                self._apply((*prompt, *chosen), opening=False),
                self._apply((*prompt, *rejected), opening=False),
            )
        except Exception as error:  # a template can fail in any way
            return f"the chat template refuses it: {' '.join(str(error).split())}"

    def _apply(self, turns: Turns, *, opening: bool) -> str:
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        text: str = self.tokenizer.apply_chat_template(
            messages, chat_template=self.template, add_generation_prompt=opening, tokenize=False
        )
        return text

    def _cut(self, bare: Ids, opened: Ids, chosen: Ids, rejected: Ids) -> TokenizedPair:
        """Find the boundary and cut to length."""
        start = min(_common(opened, chosen), _common(opened, rejected))
        header = opened[min(_common(bare, opened), start) : start] or self._separator()
        prompt = opened[:start] or self._separator()
        sides = chosen[start:], rejected[start:]
        room = self.max_length
        prompt_truncated = len(prompt) + max(map(len, sides)) > room and len(prompt) > self.max_prompt_length
        if prompt_truncated:
            prompt = prompt[-self.max_prompt_length :]
        room -= len(prompt)
        return TokenizedPair(
            prompt,
            sides[0][:room],
            sides[1][:room],
            header,
            prompt_truncated,
            len(sides[0]) > room,
            len(sides[1]) > room,
            len(opened) - start,
        )

    def _separator(self) -> Ids:
        """A first token has to be predicted from something: begin-of-text, or else end-of-text."""
        token = self.tokenizer.bos_token_id
        if token is None:
            token = self.tokenizer.eos_token_id
        if token is None:
            raise ModelError("the tokenizer has neither a begin- nor an end-of-text token; give one with a template")
        return (token,)


def _settle_template(tokenizer: Any, template: str) -> tuple[str, str]:
    """The template's name and its text."""
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    if template == "auto":
        template = "chat" if own else "plain"
    if template == "chat":
        if not own:
            raise ModelError("--template chat: this tokenizer has no chat template; use plain, raw or a Jinja file")
        return "chat", own
    if template in _NAMED_TEMPLATES:
        return template, _NAMED_TEMPLATES[template]
    try:
        return template, Path(template).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"--template {template}: not chat, plain or raw, and no readable file of that name") from error


def _common(first: Ids, second: Ids) -> int:
    """Length of the longest common prefix."""
    if first == second[: len(first)]:
        return len(first)
    return sum(1 for _ in takewhile(lambda ids: ids[0] == ids[1], zip(first, second, strict=False)))
