"""Formats with two responses and a label that says which is preferred: people's and judges' comparisons."""

from __future__ import annotations

from curate.canon import Pair, Refused, Vote
from curate.comparing import SIGN, choice_in, compared
from curate.form import Format, Parse
from curate.formats_texts import instruction_in
from curate.values import (
    Values,
    describe,
    number_from,
    optional_numbers_in,
    optional_text_in,
    records_in,
    text_in,
    user_turn,
)


def _llmbar(values: Values) -> Pair:
    preferred = choice_in(values, "label", {1: 1, 2: 2}, "1 or 2")
    return compared(
        user_turn(text_in(values, "input")), text_in(values, "output_1"), text_in(values, "output_2"), preferred
    )


_PANDALM_ANNOTATORS = ("annotator1", "annotator2", "annotator3")


def _pandalm(values: Values) -> Pair:
    """The majority of three annotators is the label; without one the pair is a tie. All votes are kept."""
    choices = [choice_in(values, name, {0: 0, 1: 1, 2: 2}, "0 (tie), 1 or 2") for name in _PANDALM_ANNOTATORS]
    majority = next((choice for choice in (1, 2) if choices.count(choice) >= 2), 0)
    votes = tuple(Vote(name, SIGN[choice]) for name, choice in zip(_PANDALM_ANNOTATORS, choices, strict=True))
    prompt = user_turn(instruction_in(values))
    return compared(prompt, text_in(values, "response1"), text_in(values, "response2"), majority, votes=votes)


def _shp(values: Values) -> Pair:
    preferred = choice_in(values, "labels", {1: 1, 0: 2}, "1 (A is preferred) or 0 (B is)")
    return compared(
        user_turn(text_in(values, "history")),
        text_in(values, "human_ref_A"),
        text_in(values, "human_ref_B"),
        preferred,
        source=optional_text_in(values, "domain") or None,
        rating_chosen=number_from(values.get("score_A")),
        rating_rejected=number_from(values.get("score_B")),
    )


def _openai_summarize(values: Values) -> Pair:
    preferred = choice_in(values, "choice", {0: 1, 1: 2}, "0 or 1")
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
    return compared(user_turn(prompt), first, second, preferred)


def _webgpt(values: Values) -> Pair:
    first, second = (number_from(values.get(name)) for name in ("score_0", "score_1"))
    if first is None or second is None:
        raise Refused(f"score_0 and score_1 are {values.get('score_0')!r} and {values.get('score_1')!r}: not numbers")
    asked = values.get("question")
    question = text_in(asked, "full_text") if isinstance(asked, dict) else text_in(values, "question")
    return compared(
        user_turn(question),
        text_in(values, "answer_0"),
        text_in(values, "answer_1"),
        0 if first == second else 1 if first > second else 2,
        rating_chosen=first,
        rating_rejected=second,
    )


def _pku_saferlhf(column: str) -> Parse:
    def parse(values: Values) -> Pair:
        preferred = choice_in(values, column, {0: 1, 1: 2}, "0 or 1")
        return compared(
            user_turn(text_in(values, "prompt")),
            text_in(values, "response_0"),
            text_in(values, "response_1"),
            preferred,
        )

    return parse


def _llm_comparator(values: Values) -> Pair:
    score = number_from(values.get("score"))
    if score is None:
        raise Refused(f"score is {values.get('score')!r}: expected a number, positive where A is better")
    votes = tuple(
        Vote(f"rater{number}", (rating > 0) - (rating < 0))
        for number, rating in enumerate(optional_numbers_in(values, "individual_rater_scores", "score"), start=1)
    )
    return compared(
        user_turn(text_in(values, "input_text")),
        text_in(values, "output_text_a"),
        text_in(values, "output_text_b"),
        0 if score == 0 else 1 if score > 0 else 2,
        votes=votes,
    )


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
