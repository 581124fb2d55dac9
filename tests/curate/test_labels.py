"""Which side a label prefers, format by format: signs, ties, votes, several labels. Expected sides are by hand."""

import copy
import json

import pytest

from curate.canon import Message, Pair, Refused, Vote
from curate.errors import ConfigError, InputError
from curate.formats import FORMATS, Profile, detect

GREEN, BLUE = "It is green.", "It is blue."


def read(name, label=None, **changes):
    """An example with other values as a pair."""
    form = FORMATS[name].by_label(label) if label else FORMATS[name]
    return form.read({**copy.deepcopy(dict(FORMATS[name].example)), **changes})


def refusal(name, label=None, **changes):
    with pytest.raises(Refused) as caught:
        read(name, label, **changes)
    return str(caught.value)


def sides(pair):
    return pair.chosen[-1].content, pair.rejected[-1].content, pair.tie


FIRST, SECOND, TIE = (GREEN, BLUE, False), (BLUE, GREEN, False), (GREEN, BLUE, True)

# --- signs and codes: the first response of every example is the green one ---


@pytest.mark.parametrize(
    ("name", "column", "value", "expected"),
    [
        ("shp", "labels", 1, FIRST),
        ("shp", "labels", "0", SECOND),
        ("webgpt", "score_0", 0.75, FIRST),
        ("webgpt", "score_0", 0.5, TIE),
        ("webgpt", "score_0", "-1", SECOND),
        *[("helpsteer2_preference", "preference_strength", value, FIRST) for value in (-3, -2, -1)],
        *[("helpsteer2_preference", "preference_strength", value, SECOND) for value in (1, 2, "3")],
        ("helpsteer2_preference", "preference_strength", 0, TIE),
        *[("helpsteer3", "overall_preference", value, FIRST) for value in (-3, -2, -1)],
        *[("helpsteer3", "overall_preference", value, SECOND) for value in (1, 2.0, 3)],
        ("helpsteer3", "overall_preference", 0, TIE),
        *[("arena", "winner", winner, FIRST) for winner in ("model_a",)],
        *[("arena", "winner", winner, SECOND) for winner in ("model_b",)],
        *[("arena", "winner", winner, TIE) for winner in ("tie", "tie (bothbad)", "tie (inconsistent)", "both_bad")],
        ("arena_json", "winner", "model_a", FIRST),
        ("arena_json", "winner", "tie (bothbad)", TIE),
        ("llm_comparator", "score", 0.25, FIRST),
        ("llm_comparator", "score", -1.5, SECOND),
        ("llm_comparator", "score", 0, TIE),
    ],
)
def test_the_label_says_which_side_is_better(name, column, value, expected):
    assert sides(read(name, **{column: value})) == expected


def test_the_choice_of_a_summary_is_its_index():
    assert sides(read("openai_summarize", choice=0)) == (" It is green.", " It is blue.", False)
    assert sides(read("openai_summarize", choice=1)) == (" It is blue.", " It is green.", False)


@pytest.mark.parametrize(
    ("name", "column", "values"),
    [
        ("shp", "labels", [2, -1, None, True, "A"]),
        ("openai_summarize", "choice", [2, None, "first"]),
        ("helpsteer2_preference", "preference_strength", [-100, 4, 0.5, None]),
        ("helpsteer3", "overall_preference", [-4, "much", None]),
        ("arena", "winner", ["a", "", None, 1]),
        ("llm_comparator", "score", [None, "high", float("nan")]),
    ],
)
def test_another_label_is_refused_with_its_value(name, column, values):
    for value in values:
        assert refusal(name, **{column: value}).startswith(f"{column} is {value!r}: expected ")


def test_a_rating_of_one_side_alone_is_none():
    assert (read("shp").rating_chosen, read("shp").rating_rejected) == (12.0, 3.0)
    alone = read("shp", score_B="deleted")
    assert (alone.rating_chosen, alone.rating_rejected) == (None, None)


def test_scores_that_are_none_are_refused():
    assert refusal("webgpt", score_1=None) == "score_0 and score_1 are -0.5 and None: not numbers"


# --- two labels in a row: PKU-SafeRLHF ---


@pytest.mark.parametrize(("better", "safer"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_each_of_two_labels_is_read_for_itself(better, safer):
    row = {"better_response_id": better, "safer_response_id": safer}
    assert sides(read("pku_saferlhf", "better", **row)) == (FIRST, SECOND)[better]
    assert sides(read("pku_saferlhf", "safer", **row)) == (FIRST, SECOND)[safer]


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.labels])
def test_no_label_is_chosen_for_the_user(name):
    names = " or ".join(FORMATS[name].labels)
    with pytest.raises(
        ConfigError, match=f"{name}: its rows have two labels, which may differ; read it with --label {names}"
    ):
        FORMATS[name].by_label(None)
    with pytest.raises(ConfigError, match=f"--label nice: the labels of {name} are {names}"):
        FORMATS[name].by_label("nice")


# --- annotators ---


@pytest.mark.parametrize(
    ("overall", "scores", "votes"),
    [
        (2, [3, 1, 0], [1, 1, 0]),
        (2, [3, -1, 2], [1, -1, 1]),
        (-1, [-3, 1, -1], [1, -1, 1]),
        (0, [1, -1, 0], [-1, 1, 0]),
    ],
)
def test_individual_preferences_are_votes_for_the_label(overall, scores, votes):
    individual = [{"score": score, "reasoning": "r"} for score in scores]
    pair = read("helpsteer3", overall_preference=overall, individual_preference=individual)
    assert [vote.vote for vote in pair.votes] == votes


def test_helpsteer2_strengths_are_votes_and_neither_is_a_tie():
    given = [{"strength": 2, "justification": "j"}, {"strength": -1}, {"strength": -100}]
    pair = read("helpsteer2_preference", preference_strength=1, all_preferences_unprocessed=given)
    assert pair.votes == (Vote("annotator1", 1), Vote("annotator2", -1), Vote("annotator3", 0))
    assert read("helpsteer2_preference", all_preferences_unprocessed="[{'strength': 2}]").votes == ()


def test_raters_of_llm_comparator_vote_as_the_score_does():
    ratings = [{"score": 1.0}, {"score": -0.5}, {"score": 0}, {"score": None}]
    pair = read("llm_comparator", score=0.3, individual_rater_scores=ratings)
    assert pair.votes == (Vote("rater1", 1), Vote("rater2", -1), Vote("rater3", 0))
    assert [vote.vote for vote in read("llm_comparator", individual_rater_scores=ratings).votes] == [-1, 1, 0]


@pytest.mark.parametrize(("winner", "vote"), [("model_a", 1), ("model_b", 1), ("tie (bothbad)", 0)])
def test_the_judge_of_the_arena_votes_for_the_label(winner, vote):
    assert read("arena", winner=winner).votes == (Vote("arena_user_1", vote),)


def test_the_status_of_distilabel_tells_ties():
    assert [read("distilabel_orca", status=status).tie for status in ("unchanged", "swapped", "tie", None)] == [
        False,
        False,
        True,
        False,
    ]


# --- conversations ---


def turns(*contents):
    return [{"role": ("user", "assistant")[at % 2], "content": content} for at, content in enumerate(contents)]


def dialogue(*contents):
    return tuple(Message(turn["role"], turn["content"]) for turn in turns(*contents))


@pytest.mark.parametrize("pack", [lambda it: it, json.dumps], ids=["messages", "json"])
def test_models_of_the_arena_answer_apart_from_the_first_turn_on(pack):
    sides_ = {"conversation_a": pack(turns("q", "a", "q2", "b")), "conversation_b": pack(turns("q", "c", "q2", "d"))}
    name = "arena" if pack is not json.dumps else "arena_json"
    pair = read(name, winner="model_b", turn=None, **sides_)
    assert pair.prompt == dialogue("q")
    assert pair.chosen == dialogue("q", "c", "q2", "d")[1:]
    assert pair.rejected == dialogue("q", "a", "q2", "b")[1:]


def test_mt_bench_is_read_up_to_the_judged_turn():
    sides_ = {"conversation_a": turns("q", "a", "q2", "b"), "conversation_b": turns("q", "c", "q2", "d")}
    first, second = (read("arena", winner="model_a", turn=turn, **sides_) for turn in (1, 2))
    assert (first.chosen, first.rejected) == (dialogue("q", "a")[1:], dialogue("q", "c")[1:])
    assert (second.chosen, second.rejected) == (dialogue("q", "a", "q2", "b")[1:], dialogue("q", "c", "q2", "d")[1:])


def test_contents_of_the_arena_may_be_lists_of_text_parts():
    def parts(*texts):
        return [{"type": "text", "text": text, "image": None} for text in texts]

    asked = {"role": "user", "content": parts("q")}
    a = [asked, {"role": "assistant", "content": parts("a", "b")}]
    b = [asked, {"role": "assistant", "content": parts("c")}]
    pair = read("arena", winner="model_a", conversation_a=a, conversation_b=b)
    assert (pair.prompt, pair.chosen[0].content, pair.rejected[0].content) == (dialogue("q"), "ab", "c")
    image = [{"role": "user", "content": [{"type": "image", "text": None, "image": {}}]}, a[1]]
    assert "only text conversations" in refusal("arena", conversation_a=image, conversation_b=b)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("not json", "conversation_a is not JSON: a list was expected"),
        ("[" * 100_000, "conversation_a is not JSON: a list was expected"),
        ("3", "conversation_a is JSON of a number (3): a list was expected"),
        ("[]", "conversation_a is str, not a list of messages"),
        ('["a"]', "conversation_a is str, not a list of messages"),
        (None, "conversation_a is NoneType, not a list of messages"),
        (True, "conversation_a is a boolean (true), not a list of messages"),
    ],
)
def test_conversations_that_are_none(given, reason):
    assert refusal("arena_json", conversation_a=given) == reason


FLAGS = ("winner_model_a", "winner_model_b", "winner_tie")


@pytest.mark.parametrize("kind", [int, str, float, bool])
@pytest.mark.parametrize(("flags", "expected"), [((1, 0, 0), FIRST), ((0, 1, 0), SECOND), ((0, 0, 1), TIE)])
def test_kaggle_flags(flags, expected, kind):
    assert sides(read("lmsys_kaggle", **dict(zip(FLAGS, map(kind, flags), strict=True)))) == expected


@pytest.mark.parametrize("flags", [(0, 0, 0), (1, 1, 0), (0.33, 0.33, 0.34), (None, 1, 0), (1, 0, None)])
def test_other_kaggle_flags_are_refused(flags):
    assert refusal("lmsys_kaggle", **dict(zip(FLAGS, flags, strict=True))).endswith("expected one 1")


def test_kaggle_cells_hold_a_text_for_each_turn():
    cells = {"prompt": '["q", "q2"]', "response_a": '["a", "b"]', "response_b": '["a", "c"]'}
    pair = read("lmsys_kaggle", **cells)
    assert pair == Pair(dialogue("q", "a", "q2"), (Message("assistant", "c"),), (Message("assistant", "b"),))
    assert refusal("lmsys_kaggle", **{**cells, "response_b": '["c"]'}) == (
        "response_b holds 1 answers to 2 turns of the prompt"
    )
    assert refusal("lmsys_kaggle", **{**cells, "response_a": '["a", null]'}) == (
        "response_a holds a message without content"
    )
    assert refusal("lmsys_kaggle", prompt="[]").startswith("response_a holds 1 answers to 0 turns")


def test_helpsteer_prompts_of_several_turns_become_messages():
    prompt = "q\n<extra_id_1>Assistant\na\n\nb\n<extra_id_1>User\nq2"
    assert read("helpsteer2_preference", prompt=prompt).prompt == dialogue("q", "a\n\nb", "q2")
    assert read("helpsteer2_preference", prompt=f"{prompt}\n<extra_id_1>Assistant\n").prompt == dialogue(
        "q", "a\n\nb", "q2"
    )


def test_summaries_of_articles_and_posts():
    article = {"article": "News.", "post": None, "title": None, "subreddit": None}
    assert read("openai_summarize", info=article).prompt == (Message("user", "Article:\nNews.\n\nTL;DR:"),)
    assert refusal("openai_summarize", info="text") == "info is str, not an object"
    assert refusal("openai_summarize", info={"post": None}) == "article is missing"
    assert refusal("openai_summarize", summaries=[{"text": "one"}]) == "summaries holds 1 of them: expected 2"
    assert refusal("openai_summarize", summaries="x") == "summaries is str, not a list of objects"
    assert refusal("openai_summarize", summaries=None) == "summaries is missing"


def test_a_question_of_webgpt_may_be_a_text():
    assert read("webgpt", question="q").prompt == dialogue("q")


# --- messages with the preferred answer: ms-swift ---


def test_the_rejected_response_takes_the_place_of_all_after_the_users_last_turn():
    pair = read("ms_swift", messages=turns("q", "a", "q2", "b"), rejected_response="c")
    assert pair == Pair(dialogue("q", "a", "q2"), (Message("assistant", "b"),), (Message("assistant", "c"),))
    several = read("ms_swift", rejected_response=[{"role": "assistant", "content": text} for text in "xy"])
    assert [turn.content for turn in several.rejected] == ["x", "y"]


def test_a_rejected_conversation_is_compared_turn_by_turn():
    pair = read("ms_swift", messages=turns("q", "a"), rejected_messages=turns("q", "b"), rejected_response=None)
    assert pair == Pair(dialogue("q"), dialogue("q", "a")[1:], dialogue("q", "b")[1:])


def test_rows_of_ms_swift_that_are_no_pair():
    assert refusal("ms_swift", messages=turns("q")) == (
        "messages ends with a turn of the user: there is no preferred answer"
    )
    assert refusal("ms_swift", messages=turns("q", "a")[1:]) == "messages holds no turn of the user"
    assert refusal("ms_swift", rejected_response=None) == "rejected_response is missing"
    assert refusal("ms_swift", images=["a.png"]) == "images is not empty: only text conversations are supported"
    assert read("ms_swift", images=[], tools=None).tie is False


def test_an_open_conversation_of_axolotl():
    assert refusal("axolotl_chat_template", messages=turns("q", "a")) == (
        "messages ends with the assistant's turn, so there is nothing to answer"
    )


# --- what is no preference data ---


def test_red_team_attempts_are_named_for_what_they_are():
    row = {"min_harmlessness_score_transcript": 0.1, "num_params": "52B", "transcript": "\n\nHuman: hi", "rating": 4.0}
    with pytest.raises(InputError, match=r"a\.jsonl: this is no preference data but the red-team-attempts of HH-RLHF"):
        detect(Profile.of([row]), "a.jsonl")
