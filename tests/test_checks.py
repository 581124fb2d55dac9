"""Checks: each finds what it should and leaves its near miss alone; global ones agree with slow references."""

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import schema
from curate.checks import CHECKS, FINDINGS, PAIR_COLUMNS, find, find_in_run
from curate.config import IngestConfig
from curate.errors import ConfigError, RunError
from curate.formats import Message, Pair
from curate.pairs import ingest, pair_id
from curate.schema import PAIRS
from curate.shingles import BINS, flat, shingle, similarity
from curate.sides import SCORE_COLUMNS
from curate.store import Run
from curate.turns import SCRIPTS, count_scripts, find_loop

ROOT = Path(__file__).parents[1]
COLUMNS = pa.schema([PAIRS.field(name) for name in PAIR_COLUMNS])


def side(text):
    return (Message("assistant", text),)


def make(prompt="How tall is it?", chosen="It is very tall.", rejected="No idea at all.", tie=False):
    """A pair of texts, or of tuples of messages."""
    turns = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    sides = (side(text) if isinstance(text, str) else text for text in (chosen, rejected))
    return Pair(turns, *sides, tie=tie)


def table(pairs, rows=None):
    def column(turns):
        return [{"role": turn.role, "content": turn.content} for turn in turns]

    rows = range(len(pairs)) if rows is None else rows
    return pa.Table.from_pylist(
        [
            {
                "pair_id": pair_id(pair),
                "row": row,
                "prompt": column(pair.prompt),
                "chosen": column(pair.chosen),
                "rejected": column(pair.rejected),
                "tie": pair.tie,
            }
            for row, pair in zip(rows, pairs, strict=True)
        ],
        COLUMNS,
    )


def found(*pairs, scores=None, **options):
    """(row, check) → detail."""
    rows = find([table(pairs)], scores, **options).to_pylist()
    return {(finding["row"], finding["check"]): finding["detail"] for finding in rows}


def names(*pairs, **options):
    return {check for _, check in found(*pairs, **options)}


def text(words, seed=0):
    """So many different words."""
    return " ".join(
        f"w{letter}{number}x"
        for number, letter in zip(random.Random(seed).sample(range(100_000), words), itertools.cycle("abcdefgh"))
    ).translate(str.maketrans("0123456789", "klmnopqrst"))


def change(words, *places):
    changed = words.split()
    for place in places:
        changed[place] = "other" + changed[place]
    return " ".join(changed)


def with_flag(flag, row=0):
    return pa.table({name: [row] if name == "row" else [name == flag] for name in SCORE_COLUMNS})


USER, ASSISTANT = (lambda content: Message("user", content)), (lambda content: Message("assistant", content))
LONG = text(60, seed=1)
RUSSIAN = "Воздух рассеивает короткие синие волны сильнее, чем длинные красные."
GREEK = "Ο αέρας σκεδάζει τα μικρά μήκη κύματος περισσότερο."
ENGLISH = "The air scatters short blue wavelengths more than long red ones."
CYCLE = [make(chosen=one, rejected=two) for one, two in (("Aye.", "Bee."), ("Bee.", "Sea."), ("Sea.", "Aye."))]


# --- each check: what it finds, how it says so, and what it leaves alone ----------------------------

POSITIVE = {
    "identical": [
        ([make(chosen="Same.", rejected="Same.")], {0: "both sides are “Same.”"}),
        ([make(chosen="Same.", rejected=" Same.\n")], {0: "both sides are “Same.”, apart from white space around it"}),
    ],
    "empty": [
        ([make(rejected="")], {0: "rejected is empty"}),
        ([make(chosen=" \n\t\u00a0\u200b")], {0: "chosen has only white space"}),
        ([make(chosen=(), rejected="")], {0: "chosen has no message, rejected is empty"}),
        (
            [make(chosen=(ASSISTANT("Hm."), ASSISTANT("")), rejected=(ASSISTANT("Hm, hm."), ASSISTANT("Yes.")))],
            {0: "chosen is empty"},
        ),
    ],
    "prompts_differ": [
        (
            [make(chosen=(ASSISTANT("No."), ASSISTANT("Well.")))],
            {0: "the sides part before their last turn: chosen and rejected go on for 2 and 1 turns after the prompt"},
        ),
        (
            [
                make(
                    chosen=(ASSISTANT("A"), USER("One?"), ASSISTANT("B")),
                    rejected=(ASSISTANT("C"), USER("Two?"), ASSISTANT("D")),
                )
            ],
            {0: "what is asked differs: chosen and rejected go on for 3 and 3 turns after the prompt"},
        ),
    ],
    "last_turn": [
        ([make(chosen=(ASSISTANT("Hm."), USER("And?")))], {0: "chosen ends with a turn of the user"}),
        ([make(rejected=(USER("And?"),))], {0: "rejected ends with a turn of the user"}),
    ],
    "opposite_label": [
        (
            [make(), make(prompt="Else?"), make().swap()],
            {0: "also in row 2 with the sides swapped", 2: "also in row 0 with the sides swapped"},
        ),
    ],
    "cycle": [
        (CYCLE, dict.fromkeys(range(3), "3 responses beat one another in a circle (rows 0, 1, 2)")),
    ],
    "duplicate": [
        ([make(), make(prompt="Else?"), make(), make()], {2: "the same as row 0", 3: "the same as row 0"}),
        ([make(tie=True), make(tie=True).swap()], {1: "the same as row 0"}),
    ],
    "near_duplicate": [
        (
            [make(LONG, text(60, 2), text(60, 3)), make(LONG.upper() + "!", text(60, 2), text(60, 3) + "\n")],
            {1: "100% like row 0"},
        ),
        (
            [make(LONG, text(60, 2), text(60, 3)), make(LONG, text(60, 3), change(text(60, 2), 59))],
            {1: "96% like row 0, with the sides swapped"},
        ),
    ],
    "template_tokens": [
        ([make(chosen="Fine.<|im_end|>")], {0: "chosen has “<|im_end|>”"}),
        ([make(rejected="Fine.<|eot_id|> More.")], {0: "rejected has “<|eot_id|>”"}),
        ([make(prompt="[INST] Hi [/INST]")], {0: "prompt has “[INST]”"}),
        ([make(prompt="<<SYS>>Be good.", chosen="Yes.</s>")], {0: "prompt has “<<SYS>>”, chosen has “</s>”"}),
        ([make(chosen="<s> Yes")], {0: "chosen has “<s>”"}),
        ([make(chosen="Yes.\n\nHuman: Why?\n\nAssistant: So.")], {0: "chosen has “Human:”"}),
        ([make(chosen="Yes.\n### Instruction:\nDo")], {0: "chosen has “### Instruction:”"}),
        ([make(rejected="<start_of_turn>model")], {0: "rejected has “<start_of_turn>”"}),
    ],
    "repeated_text": [
        ([make(chosen="Write the names down. " * 5)], {0: "chosen says “Write the names down.” 5 times"}),
        ([make(rejected="So it is the " + "the " * 20)], {0: "rejected says “the” 21 times"}),
        (
            [make(chosen="\n".join(f"{n}. Ask a friend for help." for n in range(9)))],
            {0: "chosen says “Ask a friend for help.” 9 times"},
        ),
        ([make(chosen="我喜欢吃苹果。" * 8)], {0: "chosen says “我喜欢吃苹果。” 8 times"}),
    ],
    "cut_off": [
        (
            [make(chosen=ENGLISH[:45], rejected=ENGLISH)],
            {
                0: "chosen is the beginning of rejected and stops in mid-sentence: "
                "“air scatters short blue wavelengths more”"
            },
        ),
        ([make(rejected=LONG + " and in the end of the")], {0: "rejected stops in mid-sentence: “…"}),
    ],
    "other_script": [
        (
            [make(prompt=ENGLISH, chosen=RUSSIAN, rejected=ENGLISH + " Yes.")],
            {0: "chosen is in Cyrillic script, prompt and other side in Latin"},
        ),
        (
            [make(prompt=RUSSIAN, chosen=RUSSIAN + " Да.", rejected=GREEK)],
            {0: "rejected is in Greek script, prompt and other side in Cyrillic"},
        ),
    ],
    "length_ratio": [
        (
            [make(chosen="x" * 820, rejected="y" * 20)],
            {0: "chosen is 41 × as long as rejected (820 and 20 characters)"},
        ),
        (
            [make(chosen="é" * 10, rejected="y" * 200)],
            {0: "rejected is 20 × as long as chosen (200 and 10 characters)"},
        ),
    ],
    "refusal_chosen": [
        ([make(chosen="I'm sorry, but I can't help with that.")], {0: "chosen begins “I'm sorry, but I can't help w"}),
        ([make(chosen="As an AI language model, I cannot say.")], {0: "chosen begins “As an AI language model"}),
        ([make(chosen="I cannot assist with this.")], {0: "chosen begins “I cannot assist with this.”"}),
        ([make(chosen="I’m unable to provide that.")], {0: "chosen begins “I’m unable to provide that.”"}),
    ],
    "tie": [([make(), make(prompt="Else?", tie=True)], {1: "neither side was preferred"})],
}

NEAR_MISS = {
    "identical": [
        [make(chosen="Same.", rejected="same.")],
        [make(chosen="a + b", rejected="a - b")],
        [make(chosen="", rejected=" ")],  # said by `empty`
        [make(chosen=(ASSISTANT("A"), ASSISTANT("B")), rejected=(ASSISTANT("A"), USER("B")))],
    ],
    "empty": [
        [make(chosen=".", rejected="🙂")],
        [make(chosen=(ASSISTANT(""), ASSISTANT("Yes.")))],
    ],
    "prompts_differ": [
        [
            make(
                chosen=(ASSISTANT("A"), USER("One?"), ASSISTANT("B")),
                rejected=(ASSISTANT("C"), USER("One?"), ASSISTANT("D")),
            )
        ],
        [make(chosen=(ASSISTANT("A"), Message("tool", "4"), ASSISTANT("B")), rejected=side("D"))],
        [make(chosen=(USER("Q"), ASSISTANT("B")), rejected=(USER("Q"), ASSISTANT("C")))],
    ],
    "last_turn": [[make(chosen=(USER("And?"), ASSISTANT("Hm.")), rejected=())]],
    "opposite_label": [
        [make(), make(prompt="Else?").swap()],
        [make(tie=True), make().swap()],
        [make(chosen="A", rejected="A"), make(chosen="A", rejected="A")],
        [make(), make()],
    ],
    "cycle": [
        [*CYCLE[:2], make(chosen="Aye.", rejected="Sea.")],
        [*CYCLE[:2], make(prompt="Else?", chosen="Sea.", rejected="Aye.")],
        [*CYCLE[:2], make(chosen="Sea.", rejected="Aye.", tie=True)],
        [make(), make().swap(), make()],
    ],
    "duplicate": [
        [make(), make().swap()],
        [make(), make(tie=True)],
        [make(), make(prompt="How tall is it? ")],
        [make(prompt=(Message("system", "x"), USER("y"))), make(prompt=(USER("x"), USER("y")))],
    ],
    "near_duplicate": [
        [make(), make()],
        [make(), make().swap()],
        # four responses to a prompt: one side shared, the other another
        [make(LONG, text(60, 2), text(60, 3)), make(LONG, text(60, 2), text(60, 4))],
        [make(LONG, text(60, 2), text(60, 3)), make(LONG, text(60, 3), text(60, 4))],
        # the same answers to another question
        [make(LONG, text(60, 2), text(60, 3)), make(text(60, 5), text(60, 2), text(60, 3))],
        # another number
        [make(LONG + " 12", text(60, 2), text(60, 3)), make(LONG + " 13", text(60, 2), text(60, 3))],
        # sides that differ by no more than the copies do
        [make(LONG, change(text(60, 2), 59), text(60, 2)), make(LONG, change(text(60, 2), 58), text(60, 2))],
        # nothing but signs
        [make(LONG, "+", "-"), make(LONG, "*", "/")],
    ],
    "template_tokens": [
        [make(chosen="In HTML <s>this</s> is struck through.")],
        [make(chosen="A human: one of us. Human: see above.\n\nHumanity: all.")],
        [make(chosen="a <| b |> c [INSTALL] ## Response\n# Instruction: x")],
    ],
    "repeated_text": [
        [make(chosen="Write the names down. " * 3)],
        [make(chosen="\n".join(f"| {text(3, n)} | {text(2, n + 50)} |" for n in range(20)))],
        [make(chosen=LONG + " " + "no " * 20)],
        [make(chosen="row row row your boat, gently down the stream")],
    ],
    "cut_off": [
        [make(chosen="Paris is the capital", rejected="Paris is the capital of France and its largest city by far.")],
        [make(chosen=ENGLISH, rejected=ENGLISH + " That is why.")],
        [make(chosen=ENGLISH[:-1], rejected=ENGLISH)],
        [make(chosen=ENGLISH[:-1], rejected=ENGLISH[:-1] + "\n2. Another line.")],
        [make(chosen=LONG + "\n\nSee you soon,")],
        [make(chosen=LONG + " end")],
        [make(chosen="one of the")],
    ],
    "other_script": [
        [make(prompt=ENGLISH, chosen=RUSSIAN, rejected=RUSSIAN + " Да.")],
        [make(prompt="Translate into Russian: " + ENGLISH, chosen=RUSSIAN, rejected=ENGLISH + " Yes.")],
        [make(prompt=ENGLISH + " Мир?", chosen=RUSSIAN, rejected=ENGLISH + " Yes.")],
        [make(prompt=ENGLISH, chosen=RUSSIAN[:15], rejected=ENGLISH + " Yes.")],
        [make(prompt=ENGLISH, chosen=ENGLISH + " → ≥ 🙂🙂🙂 “é”" * 9, rejected=ENGLISH + " Yes.")],
    ],
    "length_ratio": [
        [make(chosen="x" * 399, rejected="y" * 20)],
        [make(chosen="x" * 199, rejected="y")],
        [make(chosen="x" * 199, rejected="яя" * 5)],
        [make(chosen="x" * 500, rejected="")],
    ],
    "refusal_chosen": [
        [make(chosen="I'm sorry, but I can't help with that.", rejected="Sorry, I cannot do that.")],
        [make(rejected="I'm sorry, but I can't help with that.")],
        [make(chosen="I'm sorry to hear that. I can't imagine how you feel.")],
        [make(chosen="I can't recommend this book enough!")],
        [make(chosen="I'm sorry, but I can't agree with that.")],
        [make(chosen="As an AI language model, I have read a lot.")],
        [make(chosen="I'm sorry, but I can't help with that.", tie=True)],
    ],
    "tie": [[make()]],
}


@pytest.mark.parametrize(
    ("check", "pairs", "details"),
    [(check, *case) for check, cases in POSITIVE.items() for case in cases],
)
def test_a_check_finds(check, pairs, details):
    seen = {row: detail for (row, name), detail in found(*pairs).items() if name == check}
    assert seen.keys() == details.keys()
    for row, detail in details.items():
        assert seen[row].startswith(detail)


@pytest.mark.parametrize(("check", "pairs"), [(check, case) for check, cases in NEAR_MISS.items() for case in cases])
def test_a_check_leaves_alone(check, pairs):
    assert check not in names(*pairs)


@pytest.mark.parametrize(
    ("check", "flag", "detail"),
    [
        ("identical_tokens", "identical_tokens", "both sides are the same tokens to the model that scored them"),
        ("truncated", "chosen_truncated", "too long for the model that scored it: chosen"),
        ("truncated", "prompt_truncated", "too long for the model that scored it: prompt"),
    ],
)
def test_checks_of_scores(check, flag, detail):
    assert found(make(), scores=with_flag(flag))[0, check].startswith(detail)
    assert not {"identical_tokens", "truncated"} & names(make(), scores=with_flag(None))
    assert not {"identical_tokens", "truncated"} & names(make(), scores=with_flag(flag, row=1))
    assert not {"identical_tokens", "truncated"} & names(make())
    assert "identical_tokens" not in names(make(chosen="A", rejected="A"), scores=with_flag(flag))


def test_scores_are_matched_by_row():
    scores = pa.table({name: [7, 3, 5] if name == "row" else [True, None, False] for name in SCORE_COLUMNS})
    pairs = [make(prompt=f"{n}?") for n in range(4)]
    rows = find([table(pairs, [3, 4, 5, 7])], scores).to_pylist()
    assert [(finding["row"], finding["check"]) for finding in rows] == [(7, "identical_tokens"), (7, "truncated")]


def test_every_check_has_its_tests_and_words():
    assert tuple(CHECKS) == schema.CHECKS
    assert CHECKS.keys() == POSITIVE.keys() | {"identical_tokens", "truncated"}
    assert POSITIVE.keys() == NEAR_MISS.keys()
    for name, check in CHECKS.items():
        assert check.name == name
        assert check.severity in ("defect", "warning", "note")
        assert check.explanation.endswith(".")


def test_a_sound_pair_has_no_findings():
    assert find([table([make()])]).num_rows == 0
    assert find([]).schema == find([table([make()])]).schema == FINDINGS
    assert find([table([])]).num_rows == 0


# --- the table ------------------------------------------------------------------------------------


def motley():
    """Pairs with all sorts of findings, each next to others."""
    cases = [pair for cases in POSITIVE.values() for pairs, _ in cases for pair in pairs]
    return cases + [pair for cases in NEAR_MISS.values() for pairs in cases for pair in pairs]


def test_findings_are_sorted_and_carry_the_pair():
    pairs = motley()
    rows = [3 * number + 1 for number in range(len(pairs))]
    findings = find([table(pairs, rows)])
    assert findings.schema == FINDINGS
    order = [(finding["row"], list(CHECKS).index(finding["check"])) for finding in findings.to_pylist()]
    assert order == sorted(set(order))
    for finding in findings.to_pylist():
        assert finding["pair_id"] == pair_id(pairs[(finding["row"] - 1) // 3])
        assert finding["severity"] == CHECKS[finding["check"]].severity
    assert set(findings["check"].to_pylist()) == CHECKS.keys() - {"identical_tokens", "truncated"}


@pytest.mark.parametrize("size", [1, 7, 50])
def test_where_chunks_are_cut_does_not_matter(size):
    whole = table(motley())
    chunks = [whole.slice(start, size) for start in range(0, len(whole), size)]
    assert find(chunks).equals(find([whole]))
    assert find([pa.concat_tables(chunks)]).equals(find([whole]))


def test_more_pairs_than_a_block_holds(monkeypatch):
    whole = table(motley())
    expected = find([whole])
    monkeypatch.setattr("curate.checks._BLOCK_PAIRS", 10)
    assert find([whole]).equals(expected)
    monkeypatch.setattr("curate.checks._BLOCK_BYTES", 1)
    assert find([whole]).equals(expected)


def test_permuted_pairs_have_permuted_findings():
    pairs = motley()
    order = np.random.default_rng(3).permutation(len(pairs))
    straight, permuted = find([table(pairs)]), find([table([pairs[place] for place in order])])
    first_come = {"duplicate", "near_duplicate"}  # these name the later copies

    def per_pair(findings, place_of):
        rows = findings.to_pylist()
        return sorted((place_of(f["row"]), f["check"]) for f in rows if f["check"] not in first_come)

    def counts(findings):
        return [findings["check"].to_pylist().count(check) for check in sorted(first_come)]

    assert per_pair(straight, int) == per_pair(permuted, lambda row: int(order[row]))
    assert counts(straight) == counts(permuted)


def test_settings():
    pair = make(chosen="x" * 500, rejected="y" * 20)
    assert "length_ratio" in names(pair)
    assert "length_ratio" not in names(pair, settings={"length_ratio": {"ratio": 26}})
    assert CHECKS["length_ratio"].parameters == {"ratio": 20, "longer_characters": 200}
    with pytest.raises(ConfigError, match="no check 'lenght'"):
        find([], settings={"lenght": {}})
    with pytest.raises(ConfigError, match="length_ratio has no parameter 'times': it has ratio, longer_characters"):
        find([], settings={"length_ratio": {"times": 3}})


# --- odd texts ------------------------------------------------------------------------------------

ODD = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(ODD, ODD, ODD), max_size=8))
def test_any_text_is_read(texts):
    pairs = [make(*three) for three in texts]
    findings = find([table([*pairs, *pairs])]).to_pylist()
    again = {finding["row"] for finding in findings if finding["check"] == "duplicate"}
    assert again >= set(range(len(pairs), 2 * len(pairs)))
    empty = {finding["row"] for finding in findings if finding["check"] == "empty"}
    assert empty >= {
        row
        for row, pair in enumerate(pairs)
        if not all(turns[0].content.strip() for turns in (pair.chosen, pair.rejected))
    }


def test_huge_texts():
    huge = make(chosen="word " * 200_000, rejected=LONG * 500)
    seen = found(make(), huge, make(prompt="Else?"))
    assert seen == {(1, "repeated_text"): "chosen says “word” 200,000 times"}


def test_missing_texts_are_empty():
    broken = pa.table({**{name: table([make()])[name] for name in PAIR_COLUMNS}})
    nothing = pa.array([[{"role": "assistant", "content": None}]], PAIRS.field("chosen").type)
    broken = broken.set_column(broken.column_names.index("chosen"), COLUMNS.field("chosen"), nothing)
    assert [finding["detail"] for finding in find([broken]).to_pylist()] == ["chosen is empty"]


# --- shingles and sketches against slow references --------------------------------------------------


def triples(words):
    """Exact shingles."""
    padded = [None, None, *words]
    return set(zip(padded, padded[1:], padded[2:], strict=False))


def jaccard(one, two):
    one, two = triples(one.split()), triples(two.split())
    return len(one & two) / len(one | two)


def large(texts):
    return pa.array(texts, pa.large_string())


WORDS = st.lists(st.sampled_from(["a", "bb", "ccc", "Zürich", "7", "中", "q" * 70]), max_size=40).map(" ".join)


@given(st.lists(WORDS, min_size=1, max_size=6), st.data())
def test_counts_of_shingles(texts, data):
    shingled = shingle(large(texts))
    assert shingled.words_T.tolist() == [len(text.split()) for text in texts]
    assert shingled.distinct_T.tolist() == [len(triples(text.split())) if text else 0 for text in texts]
    for place, one in enumerate(texts):
        alone = shingle(large([one]))
        assert np.array_equal(alone.smallest_TK[0], shingled.smallest_TK[place])
        assert alone.numbers_T[0] == shingled.numbers_T[place]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ("Don’t — stop…", 3),
        ("a,b;c", 3),
        ("中文字", 3),
        ("naïve café", 2),
        ("\u00a0 \u2003", 0),
        ("🙂🙂", 2),
        ("snake_case", 2),
    ],
)
def test_words(texts, words):
    assert shingle(large([texts])).words_T.tolist() == [words]


def test_words_forget_case_and_marks():
    both = shingle(large(["“Hello,” she said — twice!", "hello she SAID twice"]))
    assert np.array_equal(both.smallest_TK[0], both.smallest_TK[1])


@pytest.mark.parametrize("words", [10, 60, 600])
def test_similarity_is_near_the_exact_one(words):
    ones = [text(words, seed) for seed in range(200)]
    twos = [
        change(one, *range(0, words, max(words // (1 + seed % 10 * max(words // 60, 1)), 1)))
        for seed, one in enumerate(ones)
    ]
    exact = np.array([jaccard(one, two) for one, two in zip(ones, twos, strict=True)])
    guess = similarity(shingle(large(ones)).sketch(), shingle(large(twos)).sketch())
    assert exact.std() > 0.05
    assert np.abs(guess - exact).max() < 4 * 0.5 / np.sqrt(min(words, BINS))
    assert abs((guess - exact).mean()) < 0.01


def test_similarity_by_hand():
    one, two = np.array([[3, 0, 7]], np.uint8), np.array([[3, 5, 0]], np.uint8)
    assert similarity(one, two).tolist() == [pytest.approx(1 / 3)]
    assert similarity(one * 0, two * 0).tolist() == [0]


def test_flat_of_a_slice():
    content, ends = flat(large(["ab", "cde", "", "f"])[1:])
    assert bytes(content) == b"cdef"
    assert ends.tolist() == [0, 3, 3, 4]


def test_scripts_are_counted():
    counts = count_scripts(large([RUSSIAN, ENGLISH, "日本の kana", "한국어", "", GREEK]))
    letters = [{SCRIPTS[place]: number for place, number in enumerate(row) if number} for row in counts.tolist()]
    assert letters == [
        {"Cyrillic": sum(letter.isalpha() for letter in RUSSIAN)},
        {"Latin": sum(letter.isalpha() for letter in ENGLISH)},
        {"Latin": 4, "Chinese or Japanese": 3},
        {"Hangul": 3},
        {},
        {"Greek": sum(letter.isalpha() for letter in GREEK)},
    ]


def test_loops():
    loop = find_loop("One two. " * 3 + "Three.")
    assert (loop.passage, loop.times) == ("One two.", 3)
    assert loop.share == pytest.approx(9 / 11)
    assert find_loop("") is None


# --- near-duplicates against brute force -------------------------------------------------------------


def random_pairs(seed, families=40):
    """Families of pairs around a first one, each member further from it."""
    draw = random.Random(seed)
    pairs = []
    for family in range(families):
        base = [text(60, seed=1000 * seed + 3 * family + slot) for slot in range(3)]
        pairs.append(make(*base))
        for _ in range(draw.randrange(4)):
            copy = [change(words, *draw.sample(range(60), draw.randrange(6))) for words in base]
            pairs.append(make(*copy) if draw.random() < 0.5 else make(*copy).swap())
    draw.shuffle(pairs)
    return pairs


def exact_alike(one, two):
    def texts(pair):
        return [turns[0].content for turns in (pair.prompt, pair.chosen, pair.rejected)]

    (prompt, *sides), (other, *others) = texts(one), texts(two)
    matched = max(
        min(jaccard(sides[0], others[0]), jaccard(sides[1], others[1])),
        min(jaccard(sides[0], others[1]), jaccard(sides[1], others[0])),
    )
    return min(jaccard(prompt, other), matched)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10_000))
def test_near_duplicates_are_those_of_brute_force(seed):
    pairs = random_pairs(seed)
    seen = {row: detail for (row, check), detail in found(*pairs).items() if check == "near_duplicate"}
    ids = [frozenset(turns[0].content for turns in (p.prompt, p.chosen, p.rejected)) for p in pairs]
    margin = 0.16  # what sketches of 60 words may be wrong by
    for row, pair in enumerate(pairs):
        earlier = [exact_alike(pair, pairs[before]) for before in range(row) if ids[before] != ids[row]]
        exact = [before for before in range(row) if ids[before] == ids[row]]
        left = [exact_alike(pair, pairs[b]) for b in range(row) if b not in seen and ids[b] != ids[row]]
        if row in seen:
            leader = int(seen[row].split()[3].rstrip(","))
            assert leader < row
            assert leader not in seen
            assert exact_alike(pair, pairs[leader]) > 0.8 - margin
        elif not exact:
            assert max(left, default=0) < 0.8 + margin
        assert row not in seen or max(earlier) > 0.8 - margin


def test_a_crowd_of_near_copies_is_found_whole():
    crowd = [make(LONG, change(text(60, 2), n % 60), text(60, 3) + f" {'z' * n}") for n in range(300)]
    seen = {row for (row, check) in found(*crowd) if check == "near_duplicate"}
    assert seen == set(range(1, 300))


def test_a_crowd_of_pairs_of_one_prompt_is_left_alone():
    crowd = [make(LONG, text(60, 2 * n + 10), text(60, 2 * n + 11)) for n in range(300)]
    assert "near_duplicate" not in names(*crowd)


# --- cycles and opposite labels against brute force ---------------------------------------------------


def on_a_cycle(edges):
    """Edges u → v with a way back from v to u, not counting edges that stand both ways."""
    single = {(u, v) for u, v in edges if (v, u) not in edges and u != v}

    def reaches(start, goal):
        seen, waiting = set(), [start]
        while waiting:
            node = waiting.pop()
            if node == goal:
                return True
            if node not in seen:
                seen.add(node)
                waiting += [v for u, v in single if u == node]
        return False

    return {(u, v) for u, v in single if reaches(v, u)}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(0, 4), st.booleans()), max_size=16))
def test_cycles_opposites_and_duplicates_are_those_of_brute_force(edges):
    pairs = [make(f"prompt {p}", f"answer {'xyzuv'[u]}", f"answer {'xyzuv'[v]}", tie=tie) for p, u, v, tie in edges]
    seen = set(found(*pairs))
    for row, (prompt, u, v, tie) in enumerate(edges):
        labelled = {(a, b) for p, a, b, t in edges if p == prompt and not t}
        assert ((row, "cycle") in seen) == (not tie and (u, v) in on_a_cycle(labelled))
        assert ((row, "opposite_label") in seen) == (not tie and u != v and (v, u) in labelled)
        same = [(prompt, u, v, False)] if not tie else [(prompt, u, v, True), (prompt, v, u, True)]
        assert ((row, "duplicate") in seen) == any(edge in same for edge in edges[:row])


def test_a_long_cycle_names_some_of_its_rows():
    ring = [make(chosen=f"{text(3, n)}", rejected=f"{text(3, (n + 1) % 9)}") for n in range(9)]
    detail = found(*ring, make(prompt="Else?"))[4, "cycle"]
    assert detail == "9 responses beat one another in a circle (rows 0, 1, 2, 3, 4 and 4 more)"


# --- runs and real data -------------------------------------------------------------------------------


def run_of(tmp_path, data, limit=None):
    run = Run.create(tmp_path / "run")
    ingest(IngestConfig(inputs=(str(data),), limit=limit), run)
    return run


def test_a_run_without_pairs(tmp_path):
    with pytest.raises(RunError, match="ingest is not done"):
        find_in_run(Run.create(tmp_path / "run"))


def test_rows_that_were_refused_are_counted(tmp_path):
    lines = [{"prompt": "a", "chosen": "b", "rejected": True}, *[{"prompt": "a", "chosen": "b", "rejected": "c"}] * 2]
    lines = [*lines[1:2], lines[0], lines[2]]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    findings = find_in_run(run_of(tmp_path, tmp_path / "data.jsonl")).to_pylist()
    assert [(f["row"], f["check"], f["detail"]) for f in findings] == [(2, "duplicate", "the same as row 0")]


def test_oddities_of_hh_rlhf(real_data, tmp_path):
    run = run_of(tmp_path, real_data / "hh-rlhf-harmless-test" / "test.jsonl.gz")
    rows = {}
    for finding in find_in_run(run).to_pylist():
        rows.setdefault(finding["check"], []).append(finding["row"])
    assert rows["empty"] == [86, 516, 925, 1103]
    assert rows["prompts_differ"] == [1254, 1688, 1950, 1952, 2036]
    assert {29, 140, 197} <= set(rows["template_tokens"])  # an assistant's turn that begins with "Human:"
    assert rows["repeated_text"] == [1895, 2210]
    assert rows.keys() == {
        *("empty", "prompts_differ", "template_tokens", "repeated_text", "cut_off", "length_ratio", "refusal_chosen")
    }


def test_planted_noise_of_the_demo(tmp_path):
    run = run_of(tmp_path, ROOT / "data" / "demo.jsonl")
    truth = [json.loads(line)["truth"] for line in (ROOT / "data" / "demo.jsonl").read_text().splitlines()]
    findings = find_in_run(run).to_pylist()
    rows = {kind: {f["row"] for f in findings if f["check"] == kind} for kind in CHECKS}

    def planted(kind):
        return {row for row, found in enumerate(truth) if found == kind}

    assert rows["duplicate"] == planted("duplicate")
    assert rows["opposite_label"] >= planted("contradiction")
    assert planted("defective") <= {f["row"] for f in findings}
    innocent = set().union(*rows.values()) - planted("duplicate") - planted("defective") - rows["opposite_label"]
    assert not innocent
