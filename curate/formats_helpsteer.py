"""NVIDIA's HelpSteer2 and HelpSteer3: signed preferences between two responses, and ratings of single ones."""

from __future__ import annotations

import re
from collections.abc import Iterable

from curate.canon import Answer, Message, Pair, Ranking, Vote
from curate.comparing import SIGN, choice_in, compared
from curate.form import Format
from curate.values import Values, assistant_turn, messages_in, number_in, optional_numbers_in, optional_text_in, text_in

#: Signed strengths of HelpSteer: negative says that response 1 is better.
_STRENGTHS: dict[float, int] = {-3: 1, -2: 1, -1: 1, 0: 0, 1: 2, 2: 2, 3: 2}
_STRENGTH_WORDS = "a whole number from -3 (response 1 is much better) over 0 (a tie) to 3"
_HELPSTEER_TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")


def _helpsteer_prompt(values: Values) -> tuple[Message, ...]:
    """A HelpSteer2 prompt: the user's text, or several turns with <extra_id_1> before each but the first."""
    first, *pieces = _HELPSTEER_TURN.split(text_in(values, "prompt"))
    later = zip(map(str.lower, pieces[::2]), pieces[1::2], strict=True)
    turns = [Message(role, content) for role, content in (("user", first), *later)]
    return tuple(turns[:-1] if turns[-1] == Message("assistant", "") else turns)


def _strength_votes(strengths: Iterable[float]) -> tuple[Vote, ...]:
    """Annotators' signed strengths as votes for response 1; what is no strength (-100: neither is good) is a tie."""
    return tuple(
        Vote(f"annotator{number}", SIGN[_STRENGTHS.get(strength, 0)])
        for number, strength in enumerate(strengths, start=1)
    )


def _helpsteer2_preference(values: Values) -> Pair:
    preferred = choice_in(values, "preference_strength", _STRENGTHS, _STRENGTH_WORDS)
    return compared(
        _helpsteer_prompt(values),
        text_in(values, "response_1"),
        text_in(values, "response_2"),
        preferred,
        votes=_strength_votes(optional_numbers_in(values, "all_preferences_unprocessed", "strength")),
    )


def _helpsteer3(values: Values) -> Pair:
    preferred = choice_in(values, "overall_preference", _STRENGTHS, _STRENGTH_WORDS)
    return compared(
        messages_in(values, "context"),
        text_in(values, "response1"),
        text_in(values, "response2"),
        preferred,
        source=optional_text_in(values, "domain") or None,
        votes=_strength_votes(optional_numbers_in(values, "individual_preference", "score")),
    )


def _helpsteer2(values: Values) -> Ranking:
    score = number_in(values, "helpfulness")
    return Ranking(_helpsteer_prompt(values), (Answer(assistant_turn(text_in(values, "response")), score, score),))


HELPSTEER = (
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
            "context": [{"role": "user", "content": "What color is the sky?"}],
            "response1": "It is green.",
            "response2": "It is blue.",
            "overall_preference": 2,
            "individual_preference": [{"score": 3}, {"score": 1}, {"score": 0}],
        },
        traps=(
            "Negative says that response 1 is better, 0 is a tie.",
            "individual_preference gives the votes; annotator1 is not the same person in every row.",
        ),
    ),
    Format(
        "helpsteer2",
        "HelpSteer2 ratings: prompt, response, helpfulness; the rows of one prompt stand next to each other",
        {"prompt": "text", "response": "text", "helpfulness": "any"},
        _helpsteer2,
        {"prompt": "What color is the sky?", "response": "It is blue.", "helpfulness": 4, "correctness": 4},
        shape="joined",
        more=({"prompt": "What color is the sky?", "response": "It is green.", "helpfulness": 1, "correctness": 0},),
        traps=("Helpfulness is the label; equal ratings are a tie.", "A prompt with a single row is refused."),
    ),
)
