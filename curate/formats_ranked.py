"""Formats that rank several answers to a prompt: all in one row, or one answer a row next to the others."""

from __future__ import annotations

from curate.canon import Answer, Ranking, Refused
from curate.dialogues import dialogue_in, is_dialogue
from curate.form import Format, Parse
from curate.values import (
    Values,
    assistant_turn,
    messages_in,
    number_from,
    number_in,
    records_in,
    text_in,
    turns_in,
    user_turn,
)


def _nectar(values: Values) -> Ranking:
    dialogue = {"prompt": f"\n\n{text_in(values, 'prompt').lstrip()}"}
    turns = dialogue_in(dialogue, "prompt") if is_dialogue(dialogue["prompt"]) else user_turn(text_in(values, "prompt"))
    if turns[-1].role == "assistant" and not turns[-1].content:
        turns = turns[:-1]
    answers = tuple(
        Answer(assistant_turn(text_in(record, "answer")), -number_in(record, "rank"))
        for record in records_in(values, "answers")
    )
    sources = values.get("source")
    named = [source for source in sources if isinstance(source, str)] if isinstance(sources, list) else []
    return Ranking(turns, answers, source=", ".join(named) or None)


def _nemo_rl(values: Values) -> Ranking:
    answers = tuple(
        Answer(messages_in(record, "completion"), -number_in(record, "rank"), number_from(record.get("reward")))
        for record in records_in(values, "completions")
    )
    return Ranking(messages_in(values, "context"), answers)


def _ultrafeedback(column: str) -> Parse:
    def parse(values: Values) -> Ranking:
        answers = []
        for record in records_in(values, "completions"):
            score = number_in(record, column)
            answers.append(Answer(assistant_turn(text_in(record, "response")), score, score))
        return Ranking(user_turn(text_in(values, "instruction")), tuple(answers))

    return parse


_TRUTHS: dict[bool | float | str, float] = {True: 1.0, False: 0.0, "true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0}


def _kto(values: Values) -> Ranking:
    label = values.get("label")
    said = label.lower() if isinstance(label, str) else label
    score = _TRUTHS.get(said) if isinstance(said, bool | int | float | str) else None
    if score is None:
        raise Refused(f"label is {label!r}: expected true or false, or 1 or 0")
    answer = Answer(turns_in(values, "completion", "assistant"), score)
    return Ranking(turns_in(values, "prompt", "user"), (answer,), ties=False)


_BLUE = [{"role": "assistant", "content": "It is blue."}]
_GREEN = [{"role": "assistant", "content": "It is green."}]

RANKED = (
    Format(
        "nectar",
        "Nectar: prompt as a dialogue, answers with their ranks",
        {"prompt": "text", "answers": "any"},
        _nectar,
        {
            "prompt": "\n\nHuman: What color is the sky?\n\nAssistant: ",
            "answers": [
                {"answer": "It is green.", "model": "b", "rank": 2.0},
                {"answer": "It is blue.", "model": "a", "rank": 1.0},
            ],
            "source": ["ultrachat"],
        },
        shape="ranking",
        traps=("Rank 1 is the best; some readers take the other end.", "The order of the list says nothing."),
    ),
    Format(
        "nemo_rl",
        "NeMo-RL: context as messages, completions with their ranks",
        {"context": "messages", "completions": "any"},
        _nemo_rl,
        {
            "context": [{"role": "user", "content": "What color is the sky?"}],
            "completions": [{"rank": 0, "completion": _BLUE}, {"rank": 1, "completion": _GREEN}],
        },
        shape="ranking",
        traps=("The lowest rank is the best; it starts at 0.",),
    ),
    Format(
        "ultrafeedback",
        "UltraFeedback, not binarized: instruction, completions with their scores (choose with --label)",
        {"instruction": "text", "completions": "any"},
        _ultrafeedback("fine-grained_score"),
        {
            "source": "ultrachat",
            "instruction": "What color is the sky?",
            "completions": [
                {"response": "It is green.", "fine-grained_score": 2.0, "overall_score": 3.0},
                {"response": "It is blue.", "fine-grained_score": 4.5, "overall_score": 8.0},
            ],
        },
        shape="ranking",
        labels={
            "fine-grained": _ultrafeedback("fine-grained_score"),
            "overall": _ultrafeedback("overall_score"),
        },
        traps=("fine-grained_score and overall_score rank differently: --label says which one counts.",),
    ),
    Format(
        "kto",
        "Unpaired (KTO): prompt, completion, label; the rows of one prompt stand next to each other",
        {"prompt": "any", "completion": "any", "label": "any"},
        _kto,
        {"prompt": "What color is the sky?", "completion": "It is blue.", "label": True},
        shape="joined",
        more=({"prompt": "What color is the sky?", "completion": "It is green.", "label": False},),
        traps=(
            "A prompt becomes pairs only where it has both labels; other rows are refused. Sort the file by prompt.",
        ),
    ),
)
