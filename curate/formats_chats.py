"""Formats whose sides are messages, the preferred one named: TRL, UltraFeedback, LLaMA-Factory's sharegpt, ms-swift."""

from __future__ import annotations

from dataclasses import replace

from curate.canon import Message, Pair, Refused
from curate.form import PROMPT_COLUMNS, Format
from curate.splitting import split_conversations
from curate.values import (
    Values,
    messages_in,
    optional_text_in,
    require_empty,
    text_in,
    turns_in,
    user_turn,
)


def _trl_conversational(values: Values) -> Pair:
    return Pair(messages_in(values, "prompt"), messages_in(values, "chosen"), messages_in(values, "rejected"))


def _implicit_conversations(values: Values) -> Pair:
    return split_conversations(messages_in(values, "chosen"), messages_in(values, "rejected"))


def _prompt_and_conversations(values: Values) -> Pair:
    """The prompt column repeats the user's turn, which the conversations may or may not hold themselves."""
    chosen, rejected = messages_in(values, "chosen"), messages_in(values, "rejected")
    if chosen[0].role == rejected[0].role == "assistant":
        return Pair(user_turn(text_in(values, "prompt")), chosen, rejected)
    pair = split_conversations(chosen, rejected)
    if any(turn.role == "user" for turn in pair.prompt):
        return pair
    return replace(pair, prompt=(*pair.prompt, *user_turn(text_in(values, "prompt"))))


def _axolotl_ultra(values: Values) -> Pair:
    return _after_system(_prompt_and_conversations(values), optional_text_in(values, "system"))


def _after_system(pair: Pair, system: str) -> Pair:
    """Put a system prompt before the conversation, unless that opens with one."""
    if not system or pair.prompt[0].role == "system":
        return pair
    return replace(pair, prompt=(Message("system", system), *pair.prompt))


def _axolotl_chat_template(values: Values) -> Pair:
    require_empty(values, "tools")
    return Pair(_open_conversation(values, "messages"), messages_in(values, "chosen"), messages_in(values, "rejected"))


def _open_conversation(values: Values, name: str) -> tuple[Message, ...]:
    """A conversation that waits for the assistant's answer."""
    prompt = messages_in(values, name)
    if prompt[-1].role == "assistant":
        raise Refused(f"{name} ends with the assistant's turn, so there is nothing to answer")
    return prompt


def llamafactory_sharegpt(values: Values) -> Pair:
    """A row of LLaMA-Factory's sharegpt formatting."""
    prompt = messages_in(values, "conversations")
    system = optional_text_in(values, "system")
    if prompt[-1].role == "assistant":
        raise Refused("conversations ends with the assistant's turn, so there is nothing to answer")
    head = (Message("system", system),) if system else ()
    return Pair((*head, *prompt), messages_in(values, "chosen"), messages_in(values, "rejected"))


def _ms_swift(values: Values) -> Pair:
    """`messages` ends with the preferred answer; the other one stands alone or in a conversation of its own."""
    require_empty(values, "tools")
    chosen = messages_in(values, "messages")
    if chosen[-1].role != "assistant":
        raise Refused(f"messages ends with a turn of the {chosen[-1].role}: there is no preferred answer")
    if values.get("rejected_messages") is not None:
        return split_conversations(chosen, messages_in(values, "rejected_messages"))
    asked = max((at for at, turn in enumerate(chosen) if turn.role == "user"), default=-1) + 1
    if not asked:
        raise Refused("messages holds no turn of the user")
    return Pair(chosen[:asked], chosen[asked:], turns_in(values, "rejected_response", "assistant"))


_PROMPT = [{"role": "user", "content": "What color is the sky?"}]
_CHOSEN = [{"role": "assistant", "content": "It is blue."}]
_REJECTED = [{"role": "assistant", "content": "It is green."}]
_TEXT_AND_CHATS = {"prompt": "text", "chosen": "messages", "rejected": "messages"}

CHATS = (
    Format(
        "trl_conversational",
        "TRL, conversational: three lists of messages",
        {"prompt": "messages", "chosen": "messages", "rejected": "messages"},
        _trl_conversational,
        {"prompt": _PROMPT, "chosen": _CHOSEN, "rejected": _REJECTED},
        traps=("Tool calls and contents that are lists (images) are refused.",),
    ),
    Format(
        "trl_conversational_implicit",
        "TRL, conversational, implicit prompt: two whole conversations",
        {"chosen": "messages", "rejected": "messages"},
        _implicit_conversations,
        {"chosen": _PROMPT + _CHOSEN, "rejected": _PROMPT + _REJECTED},
        absent=PROMPT_COLUMNS,
        traps=(
            "All turns that both sides share at their beginning are the prompt, also several.",
            "argilla/dpo-mix-7k, Skywork 80K, OpenRLHF and Axolotl's argilla_chat write the same columns.",
            "Skywork v0.1 holds prompts of RewardBench.",
        ),
    ),
    Format(
        "ultrafeedback_binarized",
        "UltraFeedback binarized (also Tulu 3): prompt as text, two conversations, score_chosen, score_rejected",
        _TEXT_AND_CHATS,
        _prompt_and_conversations,
        {
            "prompt": "What color is the sky?",
            "chosen": _PROMPT + _CHOSEN,
            "rejected": _PROMPT + _REJECTED,
            "score_chosen": 8.5,
            "score_rejected": 6.0,
        },
        absent=frozenset({"chosen-rating", "system"}),
        by_rating=True,
        traps=("The prompt stands in the conversations too; it is read once.", "Equal scores are a tie."),
    ),
    Format(
        "argilla_cleaned",
        "Argilla UltraFeedback cleaned: prompt as text, two conversations, chosen-rating, rejected-rating",
        {**_TEXT_AND_CHATS, "chosen-rating": "any"},
        _prompt_and_conversations,
        {
            "source": "ultrachat",
            "prompt": "What color is the sky?",
            "chosen": _PROMPT + _CHOSEN,
            "chosen-rating": 5.0,
            "rejected": _PROMPT + _REJECTED,
            "rejected-rating": 3.0,
        },
        by_rating=True,
        traps=("The names of the ratings have hyphens.", "Equal ratings are a tie."),
    ),
    Format(
        "axolotl_ultra",
        "Axolotl ultra: system and prompt as text, two conversations",
        {"system": "any", **_TEXT_AND_CHATS},
        _axolotl_ultra,
        {
            "system": "Be brief.",
            "prompt": "What color is the sky?",
            "chosen": _PROMPT + _CHOSEN,
            "rejected": _PROMPT + _REJECTED,
        },
        absent=frozenset({"chosen-rating"}),
        by_rating=True,
        traps=("All turns are read; Axolotl itself takes the second message alone.",),
    ),
    Format(
        "axolotl_chat_template",
        "Axolotl chat_template: messages, chosen and rejected message",
        {"messages": "messages", "chosen": "message", "rejected": "message"},
        _axolotl_chat_template,
        {"messages": _PROMPT, "chosen": _CHOSEN[0], "rejected": _REJECTED[0]},
        traps=("messages ends before the answer; where it ends with the assistant's turn the row is refused.",),
    ),
    Format(
        "llamafactory_sharegpt",
        "LLaMA-Factory sharegpt ranking: conversations, chosen and rejected message",
        {"conversations": "messages", "chosen": "message", "rejected": "message"},
        llamafactory_sharegpt,
        {
            "conversations": [{"from": "human", "value": "What color is the sky?"}],
            "chosen": {"from": "gpt", "value": "It is blue."},
            "rejected": {"from": "gpt", "value": "It is green."},
        },
        traps=("conversations must wait for an answer; LLaMA-Factory skips other rows with a warning.",),
    ),
    Format(
        "ms_swift",
        "ms-swift: messages with the preferred answer, and rejected_response or rejected_messages",
        {"messages": "messages"},
        _ms_swift,
        {"messages": _PROMPT + _CHOSEN, "rejected_response": "It is green."},
        accepts=lambda profile: not profile.kinds.keys().isdisjoint({"rejected_response", "rejected_messages"}),
        marks="there is rejected_response or rejected_messages",
        traps=(
            "rejected_response takes the place of all that follows the last turn of the user.",
            "ms-swift stops at a rejected answer that equals the preferred one; here the check identical names it.",
        ),
    ),
)
