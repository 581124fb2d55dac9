"""Comparisons of two whole conversations: Chatbot Arena, MT-Bench, and what Kaggle has of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from curate.canon import Message, Pair, Refused, Vote
from curate.comparing import SIGN, choice_in, labelled
from curate.form import Format
from curate.splitting import split_conversations
from curate.values import Values, describe, message_from, number_from, text_in, valid_unicode

_WINNERS = {"model_a": 1, "model_b": 2}
_TIES = ("tie", "tie (bothbad)", "tie (inconsistent)", "both_bad")


def _arena(values: Values) -> Pair:
    """The conversations up to the turn that was judged, as far as they agree the prompt."""
    preferred = choice_in(
        values, "winner", {**_WINNERS, **dict.fromkeys(_TIES, 0)}, f"model_a, model_b, {', '.join(_TIES)}"
    )
    judged = number_from(values.get("turn"))
    sides = [_first_turns(_arena_turns(values, name), judged) for name in ("conversation_a", "conversation_b")]
    judge = values.get("judge")
    votes = (Vote(valid_unicode("judge", judge), SIGN[preferred]),) if isinstance(judge, str) else ()
    return labelled(replace(split_conversations(*sides), votes=votes), preferred)


def _arena_turns(values: Values, name: str) -> tuple[Message, ...]:
    """A conversation of the arena: messages, or JSON of them; contents may be lists of text parts."""
    given = values.get(name)
    messages = _json_list(values, name) if isinstance(given, str) else given
    if not isinstance(messages, list) or not messages or not all(isinstance(item, dict) for item in messages):
        raise Refused(f"{name} is {describe(given)}, not a list of messages")
    return tuple(message_from(name, {**item, "content": _joined_parts(item.get("content"))}) for item in messages)


def _joined_parts(content: object) -> object:
    """The text of a content that is a list of text parts; anything else as it is."""
    if not isinstance(content, list) or not content:
        return content
    texts = [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return "".join(texts) if len(texts) == len(content) else content


def _first_turns(turns: tuple[Message, ...], count: float | None) -> tuple[Message, ...]:
    """A conversation up to the answer to the user's n-th turn; all of it where no number is given."""
    asked = [at for at, turn in enumerate(turns) if turn.role == "user"]
    return turns if count is None or len(asked) <= count else turns[: asked[int(count)]]


def _json_list(values: Values, name: str) -> list[Any]:
    text = text_in(values, name)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{name} is not JSON: a list was expected") from error
    if not isinstance(found, list):
        raise Refused(f"{name} is JSON of {describe(found)}: a list was expected")
    return found


_FLAGS = ("winner_model_a", "winner_model_b", "winner_tie")


def _lmsys_kaggle(values: Values) -> Pair:
    flags = [number_from(int(flag) if isinstance(flag, bool) else flag) for flag in map(values.get, _FLAGS)]
    if sorted(map(repr, flags)) != ["0.0", "0.0", "1.0"]:
        raise Refused(f"{', '.join(_FLAGS)} are {', '.join(repr(values.get(name)) for name in _FLAGS)}: expected one 1")
    asked = _json_list(values, "prompt")
    sides = []
    for name in ("response_a", "response_b"):
        answered = _json_list(values, name)
        if len(answered) != len(asked) or not asked:
            raise Refused(f"{name} holds {len(answered)} answers to {len(asked)} turns of the prompt")
        sides.append(
            tuple(
                message_from(column, {"role": role, "content": content})
                for exchange in zip(asked, answered, strict=True)
                for column, role, content in zip(("prompt", name), ("user", "assistant"), exchange, strict=True)
            )
        )
    return labelled(split_conversations(*sides), (flags.index(1.0) + 1) % 3)


_ASKED = {"role": "user", "content": "What color is the sky?"}
_GREEN = {"role": "assistant", "content": "It is green."}
_BLUE = {"role": "assistant", "content": "It is blue."}

ARENA = (
    Format(
        "arena",
        "Chatbot Arena and MT-Bench: conversation_a, conversation_b as messages, winner, judge, turn",
        {"conversation_a": "messages", "conversation_b": "messages", "winner": "text"},
        _arena,
        {
            "question_id": "81",
            "model_a": "a",
            "model_b": "b",
            "winner": "model_b",
            "judge": "arena_user_1",
            "conversation_a": [_ASKED, _GREEN],
            "conversation_b": [_ASKED, _BLUE],
            "turn": 1,
        },
        traps=(
            "Both bad is a tie.",
            "The models answer apart from the first turn on: all that follows the shared turns is a side.",
            "MT-Bench judges turn 1 or 2 of the same conversation: what follows the judged turn is left out.",
        ),
    ),
    Format(
        "arena_json",
        "Arena 100k: as arena, the conversations as JSON text",
        {"conversation_a": "text", "conversation_b": "text", "winner": "text"},
        _arena,
        {
            "model_a": "a",
            "model_b": "b",
            "winner": "model_b",
            "conversation_a": json.dumps([_ASKED, _GREEN]),
            "conversation_b": json.dumps([_ASKED, _BLUE]),
        },
        traps=("The conversations are JSON inside text.",),
    ),
    Format(
        "lmsys_kaggle",
        "LMSYS 55k (Kaggle): prompt, response_a, response_b as JSON lists, winner_model_a, winner_model_b, winner_tie",
        {**dict.fromkeys(("prompt", "response_a", "response_b"), "text"), **dict.fromkeys(_FLAGS, "any")},
        _lmsys_kaggle,
        {
            "id": "30192",
            "prompt": '["What color is the sky?"]',
            "response_a": '["It is green."]',
            "response_b": '["It is blue."]',
            "winner_model_a": 0,
            "winner_model_b": 1,
            "winner_tie": 0,
        },
        traps=("Each cell is a JSON list with one text per turn; null in it is refused.",),
    ),
)
