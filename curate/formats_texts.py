"""Formats whose sides are texts, the preferred one named: TRL, HH-RLHF, Argilla, Orca, LLaMA-Factory's alpaca."""

from __future__ import annotations

from dataclasses import replace

from curate.canon import Message, Pair, Refused
from curate.dialogues import dialogue_in, dialogue_share
from curate.form import PROMPT_COLUMNS, Format
from curate.splitting import split_conversations, split_texts
from curate.values import Values, assistant_turn, describe, message_from, optional_text_in, text_in, user_turn


def _trl_standard(values: Values) -> Pair:
    return Pair(
        user_turn(text_in(values, "prompt"), optional_text_in(values, "system")),
        assistant_turn(text_in(values, "chosen")),
        assistant_turn(text_in(values, "rejected")),
    )


def _trl_standard_implicit(values: Values) -> Pair:
    return split_texts(text_in(values, "chosen"), text_in(values, "rejected"))


def _hh_rlhf(values: Values) -> Pair:
    return split_conversations(dialogue_in(values, "chosen"), dialogue_in(values, "rejected"))


def _argilla_responses(values: Values) -> Pair:
    return Pair(
        user_turn(text_in(values, "instruction")),
        assistant_turn(text_in(values, "chosen_response")),
        assistant_turn(text_in(values, "rejected_response")),
    )


def _orca_dpo(values: Values) -> Pair:
    return Pair(
        user_turn(text_in(values, "question"), optional_text_in(values, "system")),
        assistant_turn(text_in(values, "chosen")),
        assistant_turn(text_in(values, "rejected")),
    )


def _distilabel_orca(values: Values) -> Pair:
    pair = Pair(
        user_turn(text_in(values, "input"), optional_text_in(values, "system")),
        assistant_turn(text_in(values, "chosen")),
        assistant_turn(text_in(values, "rejected")),
    )
    return replace(pair, tie=values.get("status") == "tie")


def instruction_in(values: Values) -> str:
    """Instruction and input as one user turn, as LLaMA-Factory joins them."""
    text, extra = text_in(values, "instruction"), optional_text_in(values, "input")
    return f"{text}\n{extra}" if extra else text


def llamafactory_alpaca(values: Values) -> Pair:
    """A row of LLaMA-Factory's alpaca formatting."""
    turns: list[Message] = []
    history = values.get("history") or []
    if not isinstance(history, list):
        raise Refused(f"history holds something that is not a pair of instruction and response: {describe(history)}")
    for exchange in history:
        if not isinstance(exchange, list | tuple) or len(exchange) != 2:
            raise Refused(
                f"history holds something that is not a pair of instruction and response: {describe(exchange)}"
            )
        asked, answered = exchange
        turns += [
            message_from("history", {"role": "user", "content": asked}),
            message_from("history", {"role": "assistant", "content": answered}),
        ]
    system = optional_text_in(values, "system")
    head = (Message("system", system),) if system else ()
    return Pair(
        (*head, *turns, Message("user", instruction_in(values))),
        assistant_turn(text_in(values, "chosen")),
        assistant_turn(text_in(values, "rejected")),
    )


TEXTS = (
    Format(
        "trl_standard",
        "TRL, standard: prompt, chosen and rejected as text",
        {"prompt": "text", "chosen": "text", "rejected": "text"},
        _trl_standard,
        {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
        traps=(
            "Texts stay as they are: white space at the beginning of a side belongs to it.",
            "A column system, if there is one, becomes the first turn.",
            "OpenRLHF, RewardBench and Axolotl's prompt_pairs write the same columns.",
        ),
    ),
    Format(
        "trl_standard_implicit",
        "TRL, standard, implicit prompt: chosen and rejected begin alike",
        {"chosen": "text", "rejected": "text"},
        _trl_standard_implicit,
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        absent=PROMPT_COLUMNS,
        accepts=lambda profile: dialogue_share(profile.rows, "chosen") < 1,
        marks="the texts begin without a turn marker",
        traps=("The prompt ends at a word: blue and black share bl, which is no part of it. TRL cuts at a character.",),
    ),
    Format(
        "hh_rlhf",
        "Anthropic HH-RLHF: two whole dialogues with Human: and Assistant: turns",
        {"chosen": "text", "rejected": "text"},
        _hh_rlhf,
        {"chosen": "\n\nHuman: hi\n\nAssistant: hello", "rejected": "\n\nHuman: hi\n\nAssistant: go away"},
        absent=PROMPT_COLUMNS,
        accepts=lambda profile: dialogue_share(profile.rows, "chosen") > 0,
        marks="the texts begin with a turn such as Human:",
        traps=(
            "Sides that part before the last turn keep all turns after that, the user's too.",
            "Hum: is read as Human:. A marker inside a paragraph is text.",
            "An empty last answer and a last turn of the user's are kept; the checks empty and last_turn name them.",
            "red-team-attempts holds no pairs: it is refused.",
        ),
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
        traps=("Equal ratings are a tie.",),
    ),
    Format(
        "orca_dpo",
        "Intel Orca DPO pairs: system, question, chosen, rejected",
        {"question": "text", "chosen": "text", "rejected": "text"},
        _orca_dpo,
        {"system": "Be brief.", "question": "What color is the sky?", "chosen": "Blue.", "rejected": "Green."},
        traps=("Its labels take the stronger model's answer for the better one; a later rating turned many of them.",),
    ),
    Format(
        "distilabel_orca",
        "Argilla's Orca DPO pairs: system, input, chosen, rejected, status",
        {"input": "text", "chosen": "text", "rejected": "text"},
        _distilabel_orca,
        {
            "system": "Be brief.",
            "input": "What color is the sky?",
            "chosen": "Blue.",
            "rejected": "Green.",
            "status": "unchanged",
        },
        absent=PROMPT_COLUMNS - {"input"},
        traps=("status tie is a tie; where status is swapped, chosen and rejected are turned already.",),
    ),
    Format(
        "llamafactory_alpaca",
        "LLaMA-Factory alpaca ranking: instruction, input, chosen, rejected, system, history",
        {"instruction": "text", "chosen": "text", "rejected": "text"},
        llamafactory_alpaca,
        {"instruction": "What color is this?", "input": "the sky", "chosen": "Blue.", "rejected": "Green."},
        traps=(
            "The user's turn is instruction and input, joined by a new line.",
            "Other column names stand in dataset_info.json: give that file.",
        ),
    ),
)
