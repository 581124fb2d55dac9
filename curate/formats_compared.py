"""Formats with two responses and a label that says which is preferred: people's and judges' comparisons."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from curate.canon import Message, Pair, Refused, Vote
from curate.form import Format, Parse
from curate.formats_texts import instruction_in
from curate.splitting import split_conversations
from curate.values import (
    Values,
    assistant_turn,
    describe,
    message_from,
    messages_in,
    number_from,
    optional_text_in,
    records_in,
    text_in,
    user_turn,
    valid_unicode,
)

#: Signed strengths of HelpSteer: negative says that response 1 is better.
_STRENGTHS = {-3: 1, -2: 1, -1: 1, 0: 0, 1: 2, 2: 2, 3: 2}
_STRENGTH_WORDS = "a whole number from -3 (response 1 is much better) over 0 (a tie) to 3"
_SIGN = {0: 0, 1: 1, 2: -1}


def _choice(values: Values, name: str, meaning: Mapping[Any, int], expected: str) -> int:
    """Which response a label prefers: 1, 2, or 0 for a tie."""
    value = values.get(name)
    key = number_from(value)
    found = meaning.get(value if key is None and isinstance(value, str) else key)
    if found is None:
        raise Refused(f"{name} is {value!r}: expected {expected}")
    return found


def _labelled(pair: Pair, preferred: int) -> Pair:
    """The pair with the preferred response (1, 2, or 0 for a tie) as chosen.

    Votes and ratings come in for the responses as they stand and leave counted for the label.
    """
    tied = replace(pair, tie=preferred == 0)
    return tied.swap() if preferred == 2 else tied


def _compared(prompt: tuple[Message, ...], first: str, second: str, preferred: int, **more: Any) -> Pair:
    return _labelled(Pair(prompt, assistant_turn(first), assistant_turn(second), **more), preferred)


def _llmbar(values: Values) -> Pair:
    preferred = _choice(values, "label", {1: 1, 2: 2}, "1 or 2")
    return _compared(
        user_turn(text_in(values, "input")), text_in(values, "output_1"), text_in(values, "output_2"), preferred
    )


_PANDALM_ANNOTATORS = ("annotator1", "annotator2", "annotator3")


def _pandalm(values: Values) -> Pair:
    """The majority of three annotators is the label; without one the pair is a tie. All votes are kept."""
    choices = [_choice(values, name, {0: 0, 1: 1, 2: 2}, "0 (tie), 1 or 2") for name in _PANDALM_ANNOTATORS]
    majority = next((choice for choice in (1, 2) if choices.count(choice) >= 2), 0)
    votes = tuple(Vote(name, _SIGN[choice]) for name, choice in zip(_PANDALM_ANNOTATORS, choices, strict=True))
    prompt = user_turn(instruction_in(values))
    return _compared(prompt, text_in(values, "response1"), text_in(values, "response2"), majority, votes=votes)


def _shp(values: Values) -> Pair:
    preferred = _choice(values, "labels", {1: 1, 0: 2}, "1 (A is preferred) or 0 (B is)")
    return _compared(
        user_turn(text_in(values, "history")),
        text_in(values, "human_ref_A"),
        text_in(values, "human_ref_B"),
        preferred,
        source=optional_text_in(values, "domain") or None,
        rating_chosen=number_from(values.get("score_A")),
        rating_rejected=number_from(values.get("score_B")),
    )


def _openai_summarize(values: Values) -> Pair:
    preferred = _choice(values, "choice", {0: 1, 1: 2}, "0 or 1")
    records = records_in(values, "summaries")
    if len(records) != 2:
        raise Refused(f"summaries holds {len(records)} of them: expected 2")
    first, second = (text_in(record, "text") for record in records)
    info = values.get("info")
    if not isinstance(info, dict):
        raise Refused(f"info is {describe(info)}, not an object")
    if info.get("post") is None:
        prompt = f"Article:\n{text_in(info, 'article')}\n\nTL;DR:"
    else:
        head = f"SUBREDDIT: r/{optional_text_in(info, 'subreddit')}\n\nTITLE: {optional_text_in(info, 'title')}"
        prompt = f"{head}\n\nPOST: {text_in(info, 'post')}\n\nTL;DR:"
    return _compared(user_turn(prompt), first, second, preferred)


def _webgpt(values: Values) -> Pair:
    first, second = (number_from(values.get(name)) for name in ("score_0", "score_1"))
    if first is None or second is None:
        raise Refused(f"score_0 and score_1 are {values.get('score_0')!r} and {values.get('score_1')!r}: not numbers")
    asked = values.get("question")
    question = text_in(asked, "full_text") if isinstance(asked, dict) else text_in(values, "question")
    return _compared(
        user_turn(question),
        text_in(values, "answer_0"),
        text_in(values, "answer_1"),
        0 if first == second else 1 if first > second else 2,
        rating_chosen=first,
        rating_rejected=second,
    )


_HELPSTEER_TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")


def helpsteer_prompt(values: Values) -> tuple[Message, ...]:
    """A HelpSteer2 prompt: the user's text, or several turns with <extra_id_1> before each but the first."""
    first, *pieces = _HELPSTEER_TURN.split(text_in(values, "prompt"))
    later = zip(map(str.lower, pieces[::2]), pieces[1::2], strict=True)
    turns = [Message(role, content) for role, content in (("user", first), *later)]
    return tuple(turns[:-1] if turns[-1] == Message("assistant", "") else turns)


def _strength_votes(records: Iterable[Any], key: str) -> tuple[Vote, ...]:
    """Annotators' signed strengths as votes for response 1; what is no strength (-100: neither) is a tie."""
    strengths = [number_from(record.get(key)) for record in records if isinstance(record, dict)]
    return tuple(
        Vote(f"annotator{number}", _SIGN[_STRENGTHS.get(int(strength), 0)])
        for number, strength in enumerate(strengths, start=1)
        if strength is not None
    )


def _helpsteer2_preference(values: Values) -> Pair:
    preferred = _choice(values, "preference_strength", _STRENGTHS, _STRENGTH_WORDS)
    given = values.get("all_preferences_unprocessed")
    return _compared(
        helpsteer_prompt(values),
        text_in(values, "response_1"),
        text_in(values, "response_2"),
        preferred,
        votes=_strength_votes(given if isinstance(given, list) else (), "strength"),
    )


def _helpsteer3(values: Values) -> Pair:
    preferred = _choice(values, "overall_preference", _STRENGTHS, _STRENGTH_WORDS)
    return _compared(
        messages_in(values, "context"),
        text_in(values, "response1"),
        text_in(values, "response2"),
        preferred,
        source=optional_text_in(values, "domain") or None,
        votes=_strength_votes(values.get("individual_preference") or (), "score"),
    )


def _pku_saferlhf(column: str) -> Parse:
    def parse(values: Values) -> Pair:
        preferred = _choice(values, column, {0: 1, 1: 2}, "0 or 1")
        return _compared(
            user_turn(text_in(values, "prompt")),
            text_in(values, "response_0"),
            text_in(values, "response_1"),
            preferred,
        )

    return parse


_WINNERS = {"model_a": 1, "model_b": 2}
_TIES = ("tie", "tie (bothbad)", "tie (inconsistent)", "both_bad")


def _arena(values: Values) -> Pair:
    """The conversations up to the turn that was judged, as far as they agree the prompt."""
    preferred = _choice(
        values, "winner", {**_WINNERS, **dict.fromkeys(_TIES, 0)}, f"model_a, model_b, {', '.join(_TIES)}"
    )
    judged = number_from(values.get("turn"))
    sides = [_first_turns(_arena_turns(values, name), judged) for name in ("conversation_a", "conversation_b")]
    judge = values.get("judge")
    votes = (Vote(valid_unicode("judge", judge), _SIGN[preferred]),) if isinstance(judge, str) else ()
    return _labelled(replace(split_conversations(*sides), votes=votes), preferred)


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
    return _labelled(split_conversations(*sides), (flags.index(1.0) + 1) % 3)


def _llm_comparator(values: Values) -> Pair:
    score = number_from(values.get("score"))
    if score is None:
        raise Refused(f"score is {values.get('score')!r}: expected a number, positive where A is better")
    ratings = [
        number_from(record.get("score"))
        for record in values.get("individual_rater_scores") or ()
        if isinstance(record, dict)
    ]
    votes = tuple(
        Vote(f"rater{number}", (rating > 0) - (rating < 0))
        for number, rating in enumerate(ratings, start=1)
        if rating is not None
    )
    return _compared(
        user_turn(text_in(values, "input_text")),
        text_in(values, "output_text_a"),
        text_in(values, "output_text_b"),
        0 if score == 0 else 1 if score > 0 else 2,
        votes=votes,
    )


_ASKED = {"role": "user", "content": "What color is the sky?"}
_GREEN = {"role": "assistant", "content": "It is green."}
_BLUE = {"role": "assistant", "content": "It is blue."}

COMPARED = (
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
        traps=("Without a majority the pair is a tie.", "Responses that are JSON booleans are refused."),
    ),
    Format(
        "shp",
        "Stanford SHP: history, human_ref_A, human_ref_B, labels",
        {"history": "text", "human_ref_A": "text", "human_ref_B": "text", "labels": "any"},
        _shp,
        {
            "domain": "askscience_train",
            "history": "What color is the sky?",
            "human_ref_A": "It is green.",
            "human_ref_B": "It is blue.",
            "labels": 0,
            "score_A": 3,
            "score_B": 12,
        },
        traps=(
            "labels 1 says that A is preferred, 0 that B is.",
            "A post has many pairs: they are no independent judgements.",
        ),
    ),
    Format(
        "openai_summarize",
        "OpenAI summarize from feedback: info, summaries, choice, worker",
        {"info": "any", "summaries": "any", "choice": "any"},
        _openai_summarize,
        {
            "info": {"post": "What color is the sky?", "title": "Sky", "subreddit": "askscience"},
            "summaries": [{"text": " It is green."}, {"text": " It is blue."}],
            "choice": 1,
            "worker": "w1",
        },
        traps=(
            "choice is the preferred summary's index. worker is the annotator.",
            "The prompt is the post or the article as TRL writes it; summaries keep the space before them.",
        ),
    ),
    Format(
        "webgpt",
        "WebGPT comparisons: question, answer_0, answer_1, score_0, score_1",
        {"question": "any", "answer_0": "text", "answer_1": "text", "score_0": "any", "score_1": "any"},
        _webgpt,
        {
            "question": {"dataset": "eli5", "full_text": "What color is the sky?"},
            "answer_0": "It is green.",
            "score_0": -0.5,
            "answer_1": "It is blue.",
            "score_1": 0.5,
        },
        traps=(
            "Equal scores are a tie.",
            "The quotes differ by side and are no part of the prompt; they stay in the original row.",
        ),
    ),
    Format(
        "helpsteer2_preference",
        "HelpSteer2 preference: prompt, response_1, response_2, preference_strength from -3 to 3",
        {"prompt": "text", "response_1": "text", "response_2": "text", "preference_strength": "any"},
        _helpsteer2_preference,
        {
            "split": "train",
            "prompt": "What color is the sky?",
            "response_1": "It is green.",
            "response_2": "It is blue.",
            "preference_strength": 2,
        },
        traps=(
            "Negative says that response 1 is better, as in HelpSteer3.",
            "Prompts of several turns hold <extra_id_1> before each turn but the first: they become messages.",
        ),
    ),
    Format(
        "helpsteer3",
        "HelpSteer3 preference: context, response1, response2, overall_preference from -3 to 3",
        {"context": "messages", "response1": "text", "response2": "text", "overall_preference": "any"},
        _helpsteer3,
        {
            "domain": "general",
            "context": [_ASKED],
            "response1": "It is green.",
            "response2": "It is blue.",
            "overall_preference": 2,
            "individual_preference": [{"score": 3}, {"score": 1}, {"score": 0}],
        },
        traps=("Negative says that response 1 is better, 0 is a tie.", "individual_preference gives the votes."),
    ),
    Format(
        "pku_saferlhf",
        "PKU-SafeRLHF: prompt, response_0, response_1, better_response_id, safer_response_id (choose with --label)",
        {
            **dict.fromkeys(("prompt", "response_0", "response_1"), "text"),
            **dict.fromkeys(("better_response_id", "safer_response_id"), "any"),
        },
        _pku_saferlhf("better_response_id"),
        {
            "prompt": "What color is the sky?",
            "response_0": "It is green.",
            "response_1": "It is blue.",
            "is_response_0_safe": False,
            "is_response_1_safe": True,
            "better_response_id": 1,
            "safer_response_id": 1,
        },
        labels={
            "better": _pku_saferlhf("better_response_id"),
            "safer": _pku_saferlhf("safer_response_id"),
        },
        traps=("The two labels may contradict each other: --label better or --label safer says which one counts.",),
    ),
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
    Format(
        "llm_comparator",
        "LLM Comparator: input_text, output_text_a, output_text_b, score",
        {"input_text": "text", "output_text_a": "text", "output_text_b": "text", "score": "any"},
        _llm_comparator,
        {
            "input_text": "What color is the sky?",
            "tags": ["Science"],
            "output_text_a": "It is green.",
            "output_text_b": "It is blue.",
            "score": -1.25,
            "individual_rater_scores": [{"score": -1.5, "is_flipped": True}, {"score": -1.0, "is_flipped": False}],
        },
        traps=(
            "A positive score says that A is better, 0 is a tie; the raters' scores count the same way.",
            "The rows stand in the list examples of one JSON object.",
        ),
    ),
)
