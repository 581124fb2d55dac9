"""Formats: each is recognised, read and refused as it should be. Expected pairs are written by hand."""

import copy

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from curate.errors import ConfigError, InputError
from curate.extras import RATING_COLUMNS, with_extras
from curate.formats import (
    FORMATS,
    MAPPED,
    Message,
    Pair,
    Profile,
    Refused,
    Vote,
    detect,
    mapped,
    named,
)
from curate.readers import Row
from curate.reading import readings
from curate.splitting import split_conversations, split_texts


def system(content):
    return Message("system", content)


def user(content):
    return Message("user", content)


def assistant(content):
    return Message("assistant", content)


def turns(*contents):
    """User and assistant in turn, as rows hold them."""
    roles = ("user", "assistant")
    return [{"role": roles[number % 2], "content": content} for number, content in enumerate(contents)]


def answer(content):
    return [{"role": "assistant", "content": content}]


def parse(name, values):
    return FORMATS[name].parse(values)


def refusal(name, values):
    with pytest.raises(Refused) as caught:
        parse(name, values)
    return str(caught.value)


def example_of(name, **changes):
    return {**copy.deepcopy(dict(FORMATS[name].example)), **changes}


SKY = (user("What color is the sky?"),)
BLUE, GREEN = (assistant("It is blue."),), (assistant("It is green."),)

EXPECTED = {
    "trl_standard": Pair((user("The sky is"),), (assistant(" blue."),), (assistant(" green."),)),
    "trl_standard_implicit": Pair((user("The sky is"),), (assistant(" blue."),), (assistant(" green."),)),
    "trl_conversational": Pair(SKY, BLUE, GREEN),
    "trl_conversational_implicit": Pair(SKY, BLUE, GREEN),
    "hh_rlhf": Pair((user("hi"),), (assistant("hello"),), (assistant("go away"),)),
    "ultrafeedback_binarized": Pair(SKY, BLUE, GREEN, rating_chosen=8.5, rating_rejected=6.0),
    "argilla_cleaned": Pair(SKY, BLUE, GREEN, source="ultrachat", rating_chosen=5.0, rating_rejected=3.0),
    "argilla_responses": Pair(SKY, BLUE, GREEN, rating_chosen=4.5, rating_rejected=2.0),
    "orca_dpo": Pair((system("Be brief."), *SKY), (assistant("Blue."),), (assistant("Green."),)),
    "llamafactory_alpaca": Pair((user("What color is this?\nthe sky"),), (assistant("Blue."),), (assistant("Green."),)),
    "llamafactory_sharegpt": Pair(SKY, BLUE, GREEN),
    "llmbar": Pair(SKY, (assistant("Blue."),), (assistant("Green."),)),
    "pandalm": Pair(
        (user("What color is this?\nthe sky"),),
        (assistant("Blue."),),
        (assistant("Green."),),
        votes=(Vote("annotator1", 1), Vote("annotator2", 1), Vote("annotator3", -1)),
    ),
    "distilabel_orca": Pair((system("Be brief."), *SKY), (assistant("Blue."),), (assistant("Green."),)),
    "axolotl_ultra": Pair((system("Be brief."), *SKY), BLUE, GREEN),
    "axolotl_chat_template": Pair(SKY, BLUE, GREEN),
    "ms_swift": Pair(SKY, BLUE, GREEN),
    "shp": Pair(SKY, BLUE, GREEN, source="askscience_train", rating_chosen=12.0, rating_rejected=3.0),
    "openai_summarize": Pair(
        (user("SUBREDDIT: r/askscience\n\nTITLE: Sky\n\nPOST: What color is the sky?\n\nTL;DR:"),),
        (assistant(" It is blue."),),
        (assistant(" It is green."),),
        votes=(Vote("w1", 1),),
    ),
    "webgpt": Pair(SKY, BLUE, GREEN, rating_chosen=0.5, rating_rejected=-0.5),
    "helpsteer2_preference": Pair(SKY, BLUE, GREEN),
    "helpsteer3": Pair(
        SKY,
        BLUE,
        GREEN,
        source="general",
        votes=(Vote("annotator1", 1), Vote("annotator2", 1), Vote("annotator3", 0)),
    ),
    "pku_saferlhf": Pair(SKY, BLUE, GREEN),
    "arena": Pair(SKY, BLUE, GREEN, votes=(Vote("arena_user_1", 1),)),
    "arena_json": Pair(SKY, BLUE, GREEN),
    "lmsys_kaggle": Pair(SKY, BLUE, GREEN),
    "llm_comparator": Pair(SKY, BLUE, GREEN, votes=(Vote("rater1", 1), Vote("rater2", 1))),
    "nectar": Pair(SKY, BLUE, GREEN, source="ultrachat"),
    "nemo_rl": Pair(SKY, BLUE, GREEN),
    "ultrafeedback": Pair(SKY, BLUE, GREEN, source="ultrachat", rating_chosen=4.5, rating_rejected=2.0),
    "helpsteer2": Pair(SKY, BLUE, GREEN, rating_chosen=4.0, rating_rejected=1.0),
    "kto": Pair(SKY, BLUE, GREEN),
}


def pairs_from(name, *rows):
    """The pairs that rows of a format give; the first label where it has several."""
    form = FORMATS[name]
    form = next((form.by_label(label) for label in form.labels), form)
    given = [Row(values, line, "") for line, values in enumerate(rows, start=1)]
    return [pair for reading in readings(form, "best-worst", given) for pair in reading.pairs]


# --- every format ---


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("column", ["image", "images", "videos", "audios"])
def test_a_row_with_media_is_refused(name, column):
    form = FORMATS[name]
    form = next((form.by_label(label) for label in form.labels), form)
    read = form.read if form.rowwise else form.rank
    assert read(example_of(name, **{column: None})) == read(example_of(name, **{column: []}))
    with pytest.raises(Refused, match=f"^{column} is not empty: only text conversations are supported$"):
        read(example_of(name, **{column: ["a.png"]}))


def test_every_format_has_its_expected_pair():
    assert EXPECTED.keys() == FORMATS.keys()


@pytest.mark.parametrize("name", FORMATS)
def test_an_example_is_detected_as_itself_and_only_itself(name):
    profile = Profile.of([example_of(name), *FORMATS[name].more])
    assert [form.name for form in FORMATS.values() if form.fits(profile)] == [name]
    assert detect(profile, "a.jsonl") is FORMATS[name]
    assert named(name) is FORMATS[name]


@pytest.mark.parametrize("name", FORMATS)
def test_an_example_becomes_the_expected_pair(name):
    rows = copy.deepcopy([FORMATS[name].example, *FORMATS[name].more])
    assert pairs_from(name, *rows) == [EXPECTED[name]]
    assert rows == [FORMATS[name].example, *FORMATS[name].more]


@pytest.mark.parametrize("name", FORMATS)
def test_only_rows_that_are_pairs_are_read_one_by_one(name):
    form = FORMATS[name]
    assert form.rowwise == (form.shape == "pair")
    assert bool(form.more) == (form.shape == "joined")
    if form.rowwise:
        assert form.read(example_of(name)) == EXPECTED[name]
    with pytest.raises(TypeError, match=f"{name}: a row is "):
        (form.rank if form.rowwise else form.read)(example_of(name))


@pytest.mark.parametrize("name", FORMATS)
def test_the_sides_of_an_example_are_told_apart(name):
    """A format that read the wrong side as chosen would be seen: only one of them is true."""
    (pair,) = pairs_from(name, *[FORMATS[name].example, *FORMATS[name].more])
    if name not in ("hh_rlhf", "trl_standard", "trl_standard_implicit"):
        assert "blue" in pair.chosen[0].content.lower()
        assert "green" in pair.rejected[0].content.lower()


@pytest.mark.parametrize("name", FORMATS)
def test_the_reason_names_the_columns(name):
    reason = FORMATS[name].reason()
    assert reason.startswith("its columns are ")
    assert all(column in reason for column in FORMATS[name].columns)


# The prompt of these is read only where the conversations lack the user's turn.
_CONVERSATIONS = ("ultrafeedback_binarized", "argilla_cleaned", "axolotl_ultra")
_ARENA = ("arena", "arena_json")  # conversations in two shapes, and a winner by name
TEXT_COLUMNS = [
    (name, column)
    for name, form in FORMATS.items()
    for column, kind in form.columns.items()
    if kind == "text" and name not in (*_CONVERSATIONS, *_ARENA)
]


@pytest.mark.parametrize(("name", "column"), TEXT_COLUMNS)
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (True, "{column} is a boolean (true), not text"),
        (False, "{column} is a boolean (false), not text"),
        (None, "{column} is missing"),
        (3, "{column} is a number (3), not text"),
        (0.5, "{column} is a number (0.5), not text"),
        ([], "{column} is list, not text"),
        (answer("x"), "{column} is a list of messages, not text"),
        ({"a": 1}, "{column} is dict, not text"),
        ("ab\ud800c", "{column} holds a lone surrogate at character 3: not valid Unicode"),
    ],
)
def test_only_text_is_text(name, column, value, reason):
    assert refusal(name, example_of(name, **{column: value})) == reason.format(column=column)


@pytest.mark.parametrize(("name", "column"), TEXT_COLUMNS)
def test_an_absent_column_is_refused(name, column):
    values = example_of(name)
    del values[column]
    assert refusal(name, values) == f"{column} is missing"


MESSAGE_COLUMNS = [
    (name, column)
    for name, form in FORMATS.items()
    for column, kind in form.columns.items()
    if kind in ("messages", "message") and name not in _ARENA
]


@pytest.mark.parametrize(("name", "column"), MESSAGE_COLUMNS)
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "{column} is missing"),
        ("text", "{column} is str, not a list of messages"),
        (True, "{column} is a boolean (true), not a list of messages"),
        (["text"], "{column} is list, not a list of messages"),
        ([], "{column} is an empty conversation"),
        ([{"role": "user"}], "{column} holds a message without content"),
        ([{"role": "user", "content": None}], "{column} holds a message without content"),
        ([{"role": "user", "content": False}], "{column} holds content that is a boolean (false): only text"),
        ([{"role": "user", "content": 7}], "{column} holds content that is a number (7): only text"),
        ([{"role": "user", "content": [{"type": "image"}]}], "{column} holds content that is list: only text"),
        ([{"role": "narrator", "content": "x"}], "{column} holds the role 'narrator': known are human, user"),
        ([{"role": None, "content": "x"}], "{column} holds the role None"),
        ([{"content": "x"}], "{column} holds the role None"),
        ([{"role": ["user"], "content": "x"}], "{column} holds the role ['user']"),
        ([{"role": "user", "content": "\udfff"}], "{column} holds a lone surrogate at character 1"),
        ([{"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}], "{column} holds tool calls"),
        ([{"role": "assistant", "content": "x", "tool_calls": [{"id": 1}]}], "{column} holds tool calls"),
    ],
)
def test_only_text_conversations_are_read(name, column, value, reason):
    assert refusal(name, example_of(name, **{column: value})).startswith(reason.format(column=column))


@pytest.mark.parametrize(
    ("foreign", "role"),
    [
        ("human", "user"),
        ("user", "user"),
        ("prompter", "user"),
        ("gpt", "assistant"),
        ("assistant", "assistant"),
        ("model", "assistant"),
        ("system", "system"),
        ("tool", "tool"),
    ],
)
@pytest.mark.parametrize("keys", [("role", "content"), ("from", "value")])
def test_roles_are_translated(foreign, role, keys):
    prompt = [dict(zip(keys, (foreign, "x"), strict=True))]
    assert parse("trl_conversational", example_of("trl_conversational", prompt=prompt)).prompt == (Message(role, "x"),)


def test_empty_tool_calls_are_none():
    """Parquet gives every message all fields."""
    prompt = [{"role": "user", "content": "x", "tool_calls": None}, {"role": "user", "content": "y", "tool_calls": []}]
    assert parse("trl_conversational", example_of("trl_conversational", prompt=prompt)).prompt == (user("x"), user("y"))


# --- detection ---


def test_one_object_that_holds_the_rows():
    profile = Profile.of([{"data": [{"prompt": "a", "chosen": "b", "rejected": "c"}]}])
    with pytest.raises(
        InputError, match=r"^a.json: one object whose rows stand in its list 'data'; save that list alone"
    ):
        detect(profile, "a.json")


def test_nothing_fits():
    with pytest.raises(InputError) as caught:
        detect(Profile.of([{"question": "a", "text": "b"}, {"extra": 1}]), "dir/a.csv")
    message = str(caught.value)
    assert message.startswith("dir/a.csv: no known preference format (columns: question, text, extra)")
    assert "--columns prompt=…,chosen=…,rejected=…" in message


@pytest.mark.parametrize(
    ("values", "candidates"),
    [
        (dict.fromkeys(("prompt", "chosen", "rejected", "question"), "x"), "trl_standard, orca_dpo"),
        (dict.fromkeys(("question", "instruction", "chosen", "rejected"), "x"), "orca_dpo, llamafactory_alpaca"),
    ],
)
def test_ambiguity_lists_the_candidates(values, candidates):
    with pytest.raises(InputError) as caught:
        detect(Profile.of([values]), "a.csv")
    message = str(caught.value)
    assert message.startswith(f"a.csv: ambiguous, it could be {candidates}; choose with --format")
    assert ", ".join(values) in message


def test_hh_dialogues_among_other_texts_are_ambiguous():
    rows = [example_of("hh_rlhf"), example_of("trl_standard_implicit")]
    with pytest.raises(InputError, match="ambiguous, it could be trl_standard_implicit, hh_rlhf"):
        detect(Profile.of(rows), "a.jsonl")


def test_detection_looks_past_rows_with_odd_values():
    rows = [example_of("trl_standard", chosen=True), {"prompt": None}, example_of("trl_standard")]
    assert detect(Profile.of(rows), "a.jsonl").name == "trl_standard"


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"chosen": turns("q", "a"), "rejected": turns("q", "b"), "source": "s"}, "trl_conversational_implicit"),
        ({"dataset": "d", "chosen": turns("q", "a"), "rejected": turns("q", "b")}, "trl_conversational_implicit"),
        (
            {"id": "1", "prompt": "q", "chosen": turns("q", "a"), "rejected": turns("q", "b"), "source": "tulu"},
            "ultrafeedback_binarized",
        ),
        (
            {
                "prompt": "q",
                "prompt_id": "0",
                "chosen": turns("q", "a"),
                "rejected": turns("q", "b"),
                "messages": turns("q", "a"),
            },
            "ultrafeedback_binarized",
        ),
        ({"system": None, "question": "q", "chosen": "a", "rejected": "b"}, "orca_dpo"),
        ({"instruction": "i", "input": "", "chosen": "a", "rejected": "b", "history": []}, "llamafactory_alpaca"),
        ({"system": "s", "prompt": "q", "chosen": "a", "rejected": "b"}, "trl_standard"),
        ({"id": 1, "prompt": "q", "chosen": "a", "rejected": "b", "subset": "alpacaeval-easy"}, "trl_standard"),
        ({"input": "q", "chosen": "a", "rejected": "b"}, "distilabel_orca"),
        ({"prompt": turns("q"), "chosen": answer("a"), "rejected": answer("b"), "margin": 1}, "trl_conversational"),
        ({"messages": turns("q", "a"), "rejected_messages": turns("q", "b")}, "ms_swift"),
        (
            {"prompt": "q", "response": "a", "helpfulness": 3, "correctness": 1, "coherence": 4, "verbosity": 1},
            "helpsteer2",
        ),
        ({"prompt": turns("q"), "completion": answer("a"), "label": True}, "kto"),
    ],
    ids=[
        "skywork",
        "dpo-mix",
        "tulu",
        "ultrafeedback",
        "orca without system",
        "alpaca without input",
        "axolotl prompt_pairs",
        "rewardbench",
        "rewardbench's sets, axolotl icr",
        "openrlhf",
        "ms-swift with two conversations",
        "helpsteer",
        "kto of messages",
    ],
)
def test_detection_of_relatives(values, name):
    assert detect(Profile.of([values]), "a.jsonl").name == name


def test_an_unknown_format_name():
    with pytest.raises(ConfigError, match="no format 'trl': choose one of trl_standard, "):
        named("trl")


# --- a pair ---

_messages = st.lists(st.builds(Message, st.sampled_from(["user", "assistant", "system"]), st.text()), max_size=3)
_side = _messages.map(tuple)
_pairs = st.builds(
    Pair,
    _side,
    _side,
    _side,
    st.booleans(),
    st.none() | st.text(),
    st.lists(st.builds(Vote, st.text(), st.sampled_from([-1, 0, 1])), max_size=3).map(tuple),
    st.none() | st.floats(allow_nan=False),
    st.none() | st.floats(allow_nan=False),
)


@settings(deadline=None)
@given(_pairs)
def test_swapping_twice_changes_nothing(pair):
    assert pair.swap().swap() == pair


def test_swap_turns_all_that_has_a_side():
    pair = Pair(SKY, BLUE, GREEN, False, "s", (Vote("ann", 1), Vote("bob", -1), Vote("eve", 0)), 5.0, 3.0)
    votes = (Vote("ann", -1), Vote("bob", 1), Vote("eve", 0))
    assert pair.swap() == Pair(SKY, GREEN, BLUE, False, "s", votes, 3.0, 5.0)


# --- implicit prompts: texts ---


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("The sky is blue", "The sky is black", "The sky is"),
        ("The sky is blue", "The sky is green", "The sky is"),
        ("The sky is\n\nblue", "The sky is\n\nblack", "The sky is"),
        ("The sky is blue", "The sky is\tblack", "The sky is"),
        ("The sky is", "The sky is blue", "The sky"),
        ("The sky is blue", "The sky is", "The sky"),
        ("The sky is blue", "The sky is bluer", "The sky is"),
        ("The sky is blue", "The sky is blue", "The sky is"),
        ("The sky is blue", "The skyline", "The"),
        ("The skyline", "The sky is blue", "The"),
        ("Das Wörtchen 😀 ja", "Das Wörtchen 😀 je", "Das Wörtchen 😀"),
    ],
)
def test_texts_split_between_words(chosen, rejected, prompt):
    pair = split_texts(chosen, rejected)
    assert pair.prompt == (user(prompt),)
    assert pair.chosen == (assistant(chosen[len(prompt) :]),)
    assert pair.rejected == (assistant(rejected[len(prompt) :]),)


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [("Yes", "No"), ("blue", "black"), ("", "The sky"), ("", ""), (" a", " b"), ("same", "same"), ("one", "one two")],
)
def test_texts_without_a_shared_word_are_refused(chosen, rejected):
    with pytest.raises(Refused, match="share no beginning that could be the prompt"):
        split_texts(chosen, rejected)


_words = st.text(alphabet="ab \n", max_size=12)


def split_or_refusal(split, *sides):
    try:
        return split(*sides)
    except Refused as refused:
        return str(refused)


@settings(max_examples=300, deadline=None)
@given(_words, _words, _words)
@example("The sky", " is blue", "line")
def test_splitting_texts_loses_nothing_and_knows_no_side(prefix, first, second):
    found = split_or_refusal(split_texts, prefix + first, prefix + second)
    other = split_or_refusal(split_texts, prefix + second, prefix + first)
    if isinstance(found, str):
        assert found == other
        return
    assert found == other.swap()
    prompt, chosen, rejected = (side[0].content for side in (found.prompt, found.chosen, found.rejected))
    assert (prompt + chosen, prompt + rejected) == (prefix + first, prefix + second)
    assert prompt.strip()
    assert not prompt[-1].isspace()
    assert chosen[0].isspace()
    assert rejected[0].isspace()


# --- implicit prompts: conversations ---


def dialogue(*contents):
    return tuple(Message(turn["role"], turn["content"]) for turn in turns(*contents))


def test_conversations_share_more_than_one_turn():
    pair = split_conversations(dialogue("q", "a", "q2", "yes"), dialogue("q", "a", "q2", "no"))
    assert pair == Pair(dialogue("q", "a", "q2"), (assistant("yes"),), (assistant("no"),))


def test_conversations_that_diverge_early_keep_what_follows():
    chosen, rejected = dialogue("q", "a", "more", "b"), dialogue("q", "c", "more", "d")
    assert split_conversations(chosen, rejected) == Pair((user("q"),), chosen[1:], rejected[1:])


def test_a_conversation_that_begins_the_other_keeps_its_last_turn():
    pair = split_conversations(dialogue("q", "a"), dialogue("q", "a", "more", "b"))
    assert pair == Pair((user("q"),), (assistant("a"),), dialogue("q", "a", "more", "b")[1:])


def test_identical_conversations_keep_their_last_turn():
    same = dialogue("q", "a", "q2", "b")
    assert split_conversations(same, same) == Pair(same[:3], same[3:], same[3:])


@pytest.mark.parametrize(
    ("chosen", "rejected"), [(("q", "a"), ("r", "a")), (("q",), ("q",)), (("q",), ("q", "a")), (("q", "a"), ("q",))]
)
def test_conversations_without_a_shared_turn_are_refused(chosen, rejected):
    with pytest.raises(Refused, match="share no turn that could be the prompt"):
        split_conversations(dialogue(*chosen), dialogue(*rejected))


_dialogues = st.lists(st.sampled_from("abc"), min_size=1, max_size=5).map(lambda letters: dialogue(*letters))


@settings(deadline=None)
@given(_dialogues, _dialogues)
def test_splitting_conversations_loses_nothing_and_knows_no_side(chosen, rejected):
    found = split_or_refusal(split_conversations, chosen, rejected)
    other = split_or_refusal(split_conversations, rejected, chosen)
    if isinstance(found, str):
        assert found == other
        return
    assert found == other.swap()
    assert (found.prompt + found.chosen, found.prompt + found.rejected) == (chosen, rejected)
    assert min(len(found.prompt), len(found.chosen), len(found.rejected)) >= 1


# --- UltraFeedback ---


@pytest.mark.parametrize("name", _CONVERSATIONS)
@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        (turns("q", "a"), turns("q", "b"), Pair((user("q"),), (assistant("a"),), (assistant("b"),))),
        (answer("a"), answer("b"), Pair((user("q"),), (assistant("a"),), (assistant("b"),))),
        (
            turns("p", "o", "q", "a"),
            turns("p", "o", "q", "b"),
            Pair((user("p"), assistant("o"), user("q")), (assistant("a"),), (assistant("b"),)),
        ),
        (
            [{"role": "system", "content": "s"}, *turns("q", "a")],
            [{"role": "system", "content": "s"}, *turns("q", "b")],
            Pair((system("s"), user("q")), (assistant("a"),), (assistant("b"),)),
        ),
        (
            [{"role": "system", "content": "s"}, *answer("a")],
            [{"role": "system", "content": "s"}, *answer("b")],
            Pair((system("s"), user("q")), (assistant("a"),), (assistant("b"),)),
        ),
    ],
    ids=["inside", "outside", "several turns", "inside after system", "outside after system"],
)
def test_the_user_turn_is_inside_or_outside_the_conversations(name, chosen, rejected, expected):
    values = example_of(name, prompt="q", chosen=chosen, rejected=rejected)
    assert parse(name, {**values, "system": None}) == expected


def test_a_system_column_opens_the_conversation_unless_that_opens_with_one():
    values = example_of("axolotl_ultra", system="s")
    assert parse("axolotl_ultra", values).prompt == (system("s"), *SKY)
    own = [{"role": "system", "content": "own"}]
    sides = {side: own + values[side] for side in ("chosen", "rejected")}
    assert parse("axolotl_ultra", {**values, **sides}).prompt == (system("own"), *SKY)


@pytest.mark.parametrize("name", _CONVERSATIONS)
def test_a_prompt_that_is_needed_must_be_text(name):
    values = example_of(name, prompt=True, chosen=answer("a"), rejected=answer("b"))
    assert refusal(name, values) == "prompt is a boolean (true), not text"


# --- HH-RLHF ---


def hh(chosen, rejected):
    return parse("hh_rlhf", {"chosen": chosen, "rejected": rejected})


def test_hh_with_an_empty_last_turn():
    pair = hh("\n\nHuman: hi\n\nAssistant:", "\n\nHuman: hi\n\nAssistant: no")
    assert pair == Pair((user("hi"),), (assistant(""),), (assistant("no"),))
    assert hh("\n\nHuman: hi\n\nAssistant: ", "\n\nHuman: hi\n\nAssistant: no") == pair


def test_hh_sides_that_diverge_before_the_last_turn():
    pair = hh(
        "\n\nHuman: q\n\nAssistant: a\n\nHuman: why\n\nAssistant: b",
        "\n\nHuman: q\n\nAssistant: c\n\nHuman: how\n\nAssistant: d",
    )
    assert pair.prompt == (user("q"),)
    assert pair.chosen == (assistant("a"), user("why"), assistant("b"))
    assert pair.rejected == (assistant("c"), user("how"), assistant("d"))


def test_hh_with_hum():
    pair = hh("\n\nHum: q\n\nAssistant: a", "\n\nHuman: q\n\nAssistant: b")
    assert pair == Pair((user("q"),), (assistant("a"),), (assistant("b"),))


def test_hh_markers_within_a_line_are_text():
    question = "Who said Human: or\nAssistant: first?\n Human: me"
    pair = hh(f"\n\nHuman: {question}\n\nAssistant: a\nHuman: b", f"\n\nHuman: {question}\n\nAssistant: c")
    assert pair == Pair((user(question),), (assistant("a\nHuman: b"),), (assistant("c"),))


def test_hh_keeps_paragraphs_within_a_turn():
    pair = hh("\n\nHuman: a\n\nb\n\nAssistant: c\n\nd", "\n\nHuman: a\n\nb\n\nAssistant: e")
    assert pair == Pair((user("a\n\nb"),), (assistant("c\n\nd"),), (assistant("e"),))


@pytest.mark.parametrize("text", ["Once upon a time\n\nHuman: hi\n\nAssistant: hello", "hello", "", "Human: hi"])
@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_hh_with_text_before_the_first_turn_is_refused(text, side):
    assert refusal("hh_rlhf", example_of("hh_rlhf", **{side: text})).startswith(f"{side} does not start with a turn")


def test_hh_without_a_shared_turn_is_refused():
    reason = refusal("hh_rlhf", example_of("hh_rlhf", rejected="\n\nHuman: hey\n\nAssistant: hello"))
    assert reason == "the two conversations share no turn that could be the prompt"


# --- TRL, Orca, LLaMA-Factory ---


@pytest.mark.parametrize(("given_system", "head"), [("s", (system("s"),)), ("", ()), (None, ())])
@pytest.mark.parametrize("name", ["trl_standard", "orca_dpo", "llamafactory_alpaca", "llamafactory_sharegpt"])
def test_a_system_prompt_is_the_first_turn(name, given_system, head):
    without = parse(name, example_of(name, system=None))
    assert without.prompt[0].role == "user"
    assert parse(name, example_of(name, system=given_system)).prompt == (*head, *without.prompt)


@pytest.mark.parametrize("name", ["trl_standard", "orca_dpo", "llamafactory_alpaca", "llamafactory_sharegpt"])
def test_a_system_prompt_must_be_text(name):
    assert refusal(name, example_of(name, system=7)) == "system is a number (7), not text"


@pytest.mark.parametrize("name", ["llamafactory_alpaca", "pandalm"])
@pytest.mark.parametrize(("extra", "content"), [("i", "q\ni"), ("", "q"), (None, "q")])
def test_instruction_and_input_are_one_turn(name, extra, content):
    assert parse(name, example_of(name, instruction="q", input=extra)).prompt == (user(content),)


def test_alpaca_history_comes_first():
    values = example_of("llamafactory_alpaca", system="s", history=[["q1", "a1"], ("q2", "a2")], input="")
    assert parse("llamafactory_alpaca", values).prompt == (
        system("s"),
        user("q1"),
        assistant("a1"),
        user("q2"),
        assistant("a2"),
        user("What color is this?"),
    )


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        ([["only one"]], "history holds something that is not a pair"),
        ([["a", "b", "c"]], "history holds something that is not a pair"),
        (["ab"], "history holds something that is not a pair"),
        ("text", "history holds something that is not a pair"),
        ([["a", None]], "history holds a message without content"),
        ([[1, "b"]], "history holds content that is a number (1)"),
        ([["a", "\ud800"]], "history holds a lone surrogate"),
        (5, "history"),
        (True, "history"),
    ],
)
def test_a_broken_alpaca_history_is_refused(history, reason):
    assert refusal("llamafactory_alpaca", example_of("llamafactory_alpaca", history=history)).startswith(reason)


def test_sharegpt_needs_something_to_answer():
    reason = refusal("llamafactory_sharegpt", example_of("llamafactory_sharegpt", conversations=turns("q", "a")))
    assert reason == "conversations ends with the assistant's turn, so there is nothing to answer"


def test_sharegpt_with_several_turns():
    values = example_of("llamafactory_sharegpt", conversations=turns("q", "a", "q2"), chosen=answer("x")[0])
    assert parse("llamafactory_sharegpt", values) == Pair(dialogue("q", "a", "q2"), (assistant("x"),), GREEN)


# --- LLMBar ---

HUGE = pytest.param(10**400, id="huge")


@pytest.mark.parametrize(
    ("label", "chosen", "rejected"),
    [
        (1, "Green.", "Blue."),
        (2, "Blue.", "Green."),
        ("1", "Green.", "Blue."),
        ("2", "Blue.", "Green."),
        (1.0, "Green.", "Blue."),
        ("2.0", "Blue.", "Green."),
    ],
)
def test_llmbar_labels(label, chosen, rejected):
    assert parse("llmbar", example_of("llmbar", label=label)) == Pair(SKY, (assistant(chosen),), (assistant(rejected),))


@pytest.mark.parametrize("label", [0, 3, 1.5, None, True, "one", "", [1], float("nan"), float("inf"), HUGE])
def test_other_llmbar_labels_are_refused(label):
    assert refusal("llmbar", example_of("llmbar", label=label)) == f"label is {label!r}: expected 1 or 2"


# --- PandaLM ---


def panda(*choices):
    return parse(
        "pandalm",
        {
            "instruction": "q",
            "response1": "one",
            "response2": "two",
            **{f"annotator{number}": choice for number, choice in enumerate(choices, start=1)},
        },
    )


@pytest.mark.parametrize(
    ("choices", "chosen", "tie", "votes"),
    [
        ((1, 1, 1), "one", False, [1, 1, 1]),
        ((1, 2, 1), "one", False, [1, -1, 1]),
        ((0, 1, 1), "one", False, [0, 1, 1]),
        ((2, 2, 2), "two", False, [1, 1, 1]),
        ((2, 1, 2), "two", False, [1, -1, 1]),
        ((2, 2, 0), "two", False, [1, 1, 0]),
        ((0, 0, 0), "one", True, [0, 0, 0]),
        ((0, 0, 1), "one", True, [0, 0, 1]),
        ((1, 0, 0), "one", True, [1, 0, 0]),
        ((0, 2, 0), "one", True, [0, -1, 0]),
        ((1, 2, 0), "one", True, [1, -1, 0]),
        (("2", 2.0, "0"), "two", False, [1, 1, 0]),
    ],
)
def test_pandalm_majority(choices, chosen, tie, votes):
    pair = panda(*choices)
    other = {"one": "two", "two": "one"}[chosen]
    assert (pair.chosen, pair.rejected, pair.tie) == ((assistant(chosen),), (assistant(other),), tie)
    assert pair.votes == tuple(Vote(f"annotator{number}", vote) for number, vote in enumerate(votes, start=1))


@pytest.mark.parametrize("choice", [3, -1, 0.5, None, True, "x", [], float("nan"), HUGE])
def test_other_pandalm_choices_are_refused(choice):
    with pytest.raises(Refused) as caught:
        panda(1, choice, 1)
    assert str(caught.value) == f"annotator2 is {choice!r}: expected 0 (tie), 1 or 2"


@settings(deadline=None)
@given(st.tuples(*[st.sampled_from([0, 1, 2])] * 3))
def test_the_order_of_pandalm_responses_does_not_matter(choices):
    pair = panda(*choices)
    turned = parse(
        "pandalm",
        {
            "instruction": "q",
            "response1": "two",
            "response2": "one",
            **{f"annotator{number}": (0, 2, 1)[choice] for number, choice in enumerate(choices, start=1)},
        },
    )
    assert turned == (pair.swap() if pair.tie else pair)


# --- explicit mapping ---

DIRECT = {"prompt": "q", "chosen": "good", "rejected": "bad"}
COMPARED = {"prompt": "q", "response_a": "left", "response_b": "right", "label": "winner"}


def compare(label, label_values=None, **values):
    return mapped(COMPARED, label_values).parse({"q": "?", "left": "A", "right": "B", "winner": label, **values})


PAIR_A = Pair((user("?"),), (assistant("A"),), (assistant("B"),))


def test_direct_mapping():
    pair = mapped(DIRECT).parse({"q": "?", "good": "A", "bad": "B", "prompt": "not this"})
    assert pair == PAIR_A


def test_direct_mapping_with_everything():
    columns = {**DIRECT, "system": "s", "source": "src", "annotator": "who", "rating_chosen": "r1"}
    columns["rating_rejected"] = "r2"
    assert columns.keys() == MAPPED.keys() - {"response_a", "response_b", "label"}
    values = {"q": "?", "good": "A", "bad": "B", "s": "S", "src": "web", "who": 7, "r1": "4.5", "r2": 2}
    votes = (Vote("7", 1),)
    assert mapped(columns).parse(values) == Pair(
        (system("S"), user("?")), PAIR_A.chosen, PAIR_A.rejected, False, "web", votes, 4.5, 2.0
    )


def test_mapped_columns_may_hold_messages():
    values = {"q": turns("q", "a", "q2"), "good": answer("A"), "bad": {"role": "assistant", "content": "B"}}
    assert mapped(DIRECT).parse(values) == Pair(dialogue("q", "a", "q2"), (assistant("A"),), (assistant("B"),))


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("a", PAIR_A),
        ("A", PAIR_A),
        (" b ", PAIR_A.swap()),
        ("B", PAIR_A.swap()),
        ("tie", Pair(PAIR_A.prompt, PAIR_A.chosen, PAIR_A.rejected, tie=True)),
        ("Tie", Pair(PAIR_A.prompt, PAIR_A.chosen, PAIR_A.rejected, tie=True)),
    ],
)
def test_label_words(label, expected):
    assert compare(label) == expected


@pytest.mark.parametrize(
    ("label_values", "label", "expected"),
    [
        ({"a": "1", "b": "2"}, 1, "a"),
        ({"a": "1", "b": "2"}, "2", "b"),
        ({"a": "0", "b": "1", "tie": "2"}, 0, "a"),
        ({"a": "0", "b": "1", "tie": "2"}, 2, "tie"),
        ({"a": "true", "b": "false"}, True, "a"),
        ({"a": "true", "b": "false"}, False, "b"),
        ({"a": "model_a", "b": "model_b", "tie": "tie (bothbad)"}, "tie (bothbad)", "tie"),
    ],
)
def test_label_values(label_values, label, expected):
    pair = compare(label, label_values)
    assert pair.tie == (expected == "tie")
    assert pair.chosen[0].content == ("B" if expected == "b" else "A")
    assert pair.rejected[0].content == ("A" if expected == "b" else "B")


@pytest.mark.parametrize(
    ("label_values", "label"),
    [
        (None, "c"),
        (None, None),
        (None, True),
        (None, ""),
        ({"a": "1", "b": "2"}, 0),
        ({"a": "1", "b": "2"}, True),
        ({"a": "1", "b": "2"}, "a"),
        ({"a": "x", "b": "y"}, "X"),
    ],
)
def test_other_labels_are_refused(label_values, label):
    with pytest.raises(Refused) as caught:
        compare(label, label_values)
    known = "a, b, tie" if label_values is None else ", ".join(label_values.values())
    assert str(caught.value) == f"label is {label!r}: expected {known}; see --label-values"


@pytest.mark.parametrize(
    ("label", "vote", "ratings"), [("a", 1, (5.0, 3.0)), ("b", 1, (3.0, 5.0)), ("tie", 0, (5.0, 3.0))]
)
def test_votes_and_ratings_follow_the_label(label, vote, ratings):
    columns = {**COMPARED, "annotator": "who", "rating_chosen": "ra", "rating_rejected": "rb"}
    values = {"q": "?", "left": "A", "right": "B", "winner": label, "who": "ann", "ra": 5, "rb": 3}
    pair = mapped(columns).parse(values)
    assert pair.votes == (Vote("ann", vote),)
    assert (pair.rating_chosen, pair.rating_rejected) == ratings


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("q", None, "prompt is missing"),
        ("left", True, "response_a is a boolean (true), not text"),
        ("right", 3, "response_b is a number (3), not text"),
        ("q", [], "prompt is an empty conversation"),
    ],
)
def test_mapped_values_are_refused_by_their_canonical_name(column, value, reason):
    with pytest.raises(Refused) as caught:
        compare("a", **{column: value})
    assert str(caught.value) == reason


def test_an_unknown_canonical_name():
    with pytest.raises(ConfigError, match="unknown name 'answer'; known are prompt, chosen, "):
        mapped({**DIRECT, "answer": "x"})


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"prompt": "q", "chosen": "good"},
        {"chosen": "good", "rejected": "bad"},
        {"prompt": "q", "response_a": "left", "response_b": "right"},
        {**DIRECT, **COMPARED},
    ],
)
def test_a_mapping_has_one_of_two_shapes(columns):
    with pytest.raises(ConfigError, match="name either prompt, chosen and rejected, or prompt, response_a"):
        mapped(columns)


@pytest.mark.parametrize(
    ("label_values", "reason"),
    [
        ({"a": "1", "b": "2", "c": "3"}, "unknown name 'c'"),
        ({"a": "1"}, "give distinct values for a and b"),
        ({"a": "1", "tie": "2"}, "give distinct values for a and b"),
        ({"a": "1", "b": "1"}, "give distinct values for a and b"),
        ({"a": "1", "b": "2", "tie": "2"}, "give distinct values for a and b"),
    ],
)
def test_broken_label_values(label_values, reason):
    with pytest.raises(ConfigError, match=f"--label-values: {reason}"):
        mapped(COMPARED, label_values)


@pytest.mark.parametrize("column", ["q", "left", "right", "winner"])
def test_a_mapping_needs_its_columns(column):
    assert mapped(COMPARED).columns[column] == "any"


# --- extras ---

PLAIN = Pair(SKY, BLUE, GREEN)


@pytest.mark.parametrize(
    ("values", "source"),
    [
        ({"source": "web"}, "web"),
        ({"dataset": "mix"}, "mix"),
        ({"source": "web", "dataset": "mix"}, "web"),
        ({"source": None, "dataset": "mix"}, "mix"),
        ({"source": ["web"]}, None),
        ({"source": 5}, None),
        ({}, None),
    ],
)
def test_source(values, source):
    assert with_extras(PLAIN, values).source == source


EXPORTED = {"pair_id": "0" * 32, "decision": "keep"}


@pytest.mark.parametrize(
    ("values", "tie"),
    [
        ({**EXPORTED, "tie": True}, True),
        ({**EXPORTED, "tie": False}, False),
        (EXPORTED, False),
        ({**EXPORTED, "tie": "true"}, False),
        ({**EXPORTED, "tie": 1}, False),
        ({"tie": True}, False),
        ({"tie": True, "pair_id": "7"}, False),
    ],
)
def test_a_tie_is_read_from_exports_alone(values, tie):
    assert with_extras(PLAIN, values).tie is tie


@pytest.mark.parametrize(
    ("values", "annotator"),
    [({"annotator": "ann"}, "ann"), ({"annotator_id": 12}, "12"), ({"worker": "w"}, "w"), ({"annotator": 0}, "0")],
)
@pytest.mark.parametrize(("tie", "vote"), [(False, 1), (True, 0)])
def test_an_annotator_votes_for_the_label(values, annotator, tie, vote):
    pair = Pair(SKY, BLUE, GREEN, tie=tie)
    assert with_extras(pair, values).votes == (Vote(annotator, vote),)


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ("score_chosen", "score_rejected"),
        ("chosen_score", "rejected_score"),
        ("chosen-rating", "rejected-rating"),
        ("chosen_rating", "rejected_rating"),
        ("chosen_avg_rating", "rejected_avg_rating"),
        ("rating_chosen", "rating_rejected"),
    ],
)
def test_ratings(chosen, rejected):
    assert with_extras(PLAIN, {chosen: 4, rejected: "2.5"}) == Pair(SKY, BLUE, GREEN, False, None, (), 4.0, 2.5)


@pytest.mark.parametrize(
    "values",
    [
        {"score_chosen": 4},
        {"score_chosen": 4, "score_rejected": None},
        {"score_chosen": True, "score_rejected": False},
        {"score_chosen": "high", "score_rejected": "low"},
        {"score_chosen": [4], "score_rejected": [2]},
        {"score_chosen": 10**400, "score_rejected": 2},
        {"score_chosen": 4, "rejected_score": 2},
    ],
)
def test_a_rating_needs_two_numbers(values):
    assert with_extras(PLAIN, values) == PLAIN


def test_what_the_format_has_set_stays():
    pair = Pair(SKY, BLUE, GREEN, False, "own", (Vote("ann", -1),), 1.0, 2.0)
    assert with_extras(pair, {"source": "x", "annotator": "y", "score_chosen": 8, "score_rejected": 9}) == pair


@pytest.mark.parametrize("name", ["ultrafeedback_binarized", "argilla_cleaned", "argilla_responses"])
def test_equal_ratings_are_a_tie_where_the_label_was_made_from_them(name):
    chosen, rejected = next(both for both in RATING_COLUMNS if both[0] in example_of(name))
    assert not FORMATS[name].read(example_of(name)).tie
    assert FORMATS[name].read(example_of(name, **{chosen: 4, rejected: 4.0})).tie
    assert not FORMATS["trl_standard"].read({**example_of("trl_standard"), chosen: 4, rejected: 4}).tie


def test_a_whole_label_may_be_written_with_a_fraction():
    form = mapped(
        {"prompt": "p", "response_a": "a", "response_b": "b", "label": "l"}, {"a": "1.0", "b": "2", "tie": "0"}
    )
    for label, chosen in ((1, "x"), ("1.0", "x"), (2.0, "y"), ("2", "y")):
        assert form.read({"p": "q", "a": "x", "b": "y", "l": label}).chosen == (assistant(chosen),)
