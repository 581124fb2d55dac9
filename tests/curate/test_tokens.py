"""Tokens: where the completion starts, what is cut, and what the templates write."""

import hashlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from curate.errors import ModelError
from curate.formats import Message
from curate.tokens import PLAIN_TEMPLATE, RAW_TEMPLATE, Encoder, TokenizedPair

quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

USER, YES, NO = (Message("user", "hi"),), (Message("assistant", "yes"),), (Message("assistant", "no"),)

#: A prompt rendered alone ends in a line break that no answer starts with.
SHIFTING = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{{ '\\n\\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(tiny_policy):
    return AutoTokenizer.from_pretrained(tiny_policy)


@pytest.fixture(scope="module")
def without_template(tiny_policy):
    return AutoTokenizer.from_pretrained(tiny_policy, chat_template=None)


def encoder(tokenizer, template="auto", *, max_length=4000, max_prompt_length=3000):
    return Encoder(tokenizer, template, max_length=max_length, max_prompt_length=max_prompt_length)


def encode(tokenizer, triple=(USER, YES, NO), template="auto", **lengths):
    (found,) = encoder(tokenizer, template, **lengths).encode([triple])
    return found


def texts(tokenizer, pair):
    return tuple(tokenizer.decode(ids) for ids in (pair.prompt, pair.chosen, pair.rejected, pair.header))


def bare_tokenizer(merges=(), **special):
    """One token a byte and some merges; special tokens only where they are asked for."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*alphabet, *("".join(merge) for merge in merges)]
    tokenizer = Tokenizer(models.BPE({piece: index for index, piece in enumerate(vocabulary)}, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


# --- the reference: text by Python, then the rules of the module's docstring ---


def written(name, turns, *, opening):
    """A conversation in the templates `chat` (of the tests' tokenizer), `plain` and `raw`."""
    if name == "chat":
        return "".join(f"<|{t.role}|>{t.content}<|end|>" for t in turns) + "<|assistant|>" * opening
    if name == "raw":
        return "<|begin|>" + "".join(turn.content for turn in turns) + "<|end|>" * (not opening)
    closing = {"assistant": "<|end|>"}
    lines = [f"{t.role.capitalize()}: {t.content}{closing.get(t.role, '')}\n\n" for t in turns]
    return "<|begin|>" + "".join(lines) + "Assistant: " * opening


def slow_pair(tokenizer, name, triple, max_length, max_prompt_length):
    """(prompt, chosen, rejected, the three flags, boundary shift)."""

    def ids(turns, *, opening):
        return tokenizer.encode(written(name, turns, opening=opening), add_special_tokens=False)

    prompt, *sides = triple
    opened = ids(prompt, opening=True)
    whole = [ids((*prompt, *side), opening=False) for side in sides]
    shared = opened[: max(n for n in range(len(opened) + 1) if all(side[:n] == opened[:n] for side in whole))]
    rest = [side[len(shared) :] for side in whole]
    kept = shared
    if len(shared) + max(len(side) for side in rest) > max_length:
        kept = shared[max(0, len(shared) - max_prompt_length) :]
    cut = [side[: max_length - len(kept)] for side in rest]
    flags = [kept != shared, cut[0] != rest[0], cut[1] != rest[1]]
    return kept, *cut, flags, len(opened) - len(shared)


def parts(pair):
    flags = [pair.prompt_truncated, pair.chosen_truncated, pair.rejected_truncated]
    return list(pair.prompt), list(pair.chosen), list(pair.rejected), flags, pair.boundary_shift


hostile = st.one_of(
    st.text(max_size=12),
    st.text(st.sampled_from("\0\r\n\t \u00a0\u200b\u202e\ufeff\ufffd\U0010ffffe\u0301é{}%#'\"\\<|>👩‍🚀"), max_size=12),
    st.sampled_from(["<|end|>", "<|assistant|>", "<|begin|>x", "{{ eos_token }}", "{% endfor %}", "\ud7ff\ue000"]),
)
turns = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), hostile), min_size=1, max_size=3)
answers = st.builds(lambda text: (Message("assistant", text),), hostile)
triples = st.tuples(turns.map(tuple), answers, answers)
names = st.sampled_from(["chat", "plain", "raw"])


@quick
@given(triples, names)
def test_hostile_text_survives_and_splits_at_the_common_prefix(tokenizer, triple, name):
    pair = encode(tokenizer, triple, name)
    assert parts(pair) == slow_pair(tokenizer, name, triple, 4000, 3000)
    for side, ids in zip(triple[1:], (pair.chosen, pair.rejected), strict=True):
        assert tokenizer.decode(pair.prompt + ids) == written(name, (*triple[0], *side), opening=False)


@quick
@given(triples, names, st.integers(2, 60), st.data())
def test_cuts_as_the_rules_say(tokenizer, triple, name, max_length, data):
    max_prompt_length = data.draw(st.integers(1, max_length - 1))
    pair = encode(tokenizer, triple, name, max_length=max_length, max_prompt_length=max_prompt_length)
    whole = encode(tokenizer, triple, name)
    assert parts(pair) == slow_pair(tokenizer, name, triple, max_length, max_prompt_length)
    assert pair.header == whole.header
    for side, before in ((pair.chosen, whole.chosen), (pair.rejected, whole.rejected)):
        assert len(pair.prompt) + len(side) <= max_length
        assert bool(side) == bool(before), "a completion is never cut to nothing"


# --- the boundary ---


def test_the_boundary_of_the_chat_template(tokenizer):
    pair = encode(tokenizer)
    assert texts(tokenizer, pair) == ("<|user|>hi<|end|><|assistant|>", "yes<|end|>", "no<|end|>", "<|assistant|>")
    assert parts(pair)[3:] == ([False] * 3, 0)
    assert len(pair.chosen) == 4


def test_sides_that_start_alike_do_not_move_the_boundary(tokenizer):
    pair = encode(tokenizer, (USER, (Message("assistant", "same a"),), (Message("assistant", "same b"),)))
    assert texts(tokenizer, pair)[1:3] == ("same a<|end|>", "same b<|end|>")


def test_a_prompt_that_renders_otherwise_alone_shifts_the_boundary(tokenizer, tmp_path):
    (tmp_path / "shifting.jinja").write_text(SHIFTING, encoding="utf-8")
    pair = encode(tokenizer, template=str(tmp_path / "shifting.jinja"))
    assert pair.boundary_shift == 2
    assert texts(tokenizer, pair) == ("<|user|>hi<|end|><|assistant|>", "yes<|end|>", "no<|end|>", "<|assistant|>")


def test_a_merge_across_the_boundary_of_one_side_gives_its_token_to_both_completions():
    """The opening ends in a space, which stays a token before "yes" and merges with the n of "no"."""
    tokenizer = bare_tokenizer([("Ġ", "n")], eos_token="!")
    pair = encode(tokenizer)
    assert pair.boundary_shift == 1
    assert texts(tokenizer, pair) == ("User: hi\n\nAssistant:", " yes!\n\n", " no!\n\n", "Assistant:")
    assert tokenizer.convert_ids_to_tokens(list(pair.rejected))[0] == "Ġn"


def test_sides_that_extend_the_prompts_own_answer(tokenizer):
    """The last turn of several is what counts: earlier answers are prompt."""
    pair = encode(tokenizer, ((*USER, *YES, Message("user", "sure?")), YES, NO))
    prompt, chosen, _, header = texts(tokenizer, pair)
    assert prompt == "<|user|>hi<|end|><|assistant|>yes<|end|><|user|>sure?<|end|><|assistant|>"
    assert (chosen, header) == ("yes<|end|>", "<|assistant|>")


@pytest.mark.parametrize(
    ("special", "separator"),
    [({"bos_token": "^", "eos_token": "!"}, "^"), ({"bos_token": "^"}, "^"), ({"eos_token": "!"}, "!")],
)
def test_without_an_opening_the_answer_follows_begin_or_else_end_of_text(special, separator, tmp_path):
    (tmp_path / "contents.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}", encoding="utf-8")
    empty = (Message("user", ""),)
    tokenizer = bare_tokenizer(**special)
    for prompt, expected in ((empty, separator), (USER, "hi")):
        pair = encode(tokenizer, (prompt, YES, NO), str(tmp_path / "contents.jinja"))
        assert texts(tokenizer, pair) == (expected, "yes", "no", separator)


def test_a_tokenizer_without_begin_and_end_of_text_is_refused():
    with pytest.raises(ModelError, match="neither a begin- nor an end-of-text token; give one with a template"):
        encode(bare_tokenizer(), template="raw")


def test_an_empty_answer_without_closing_token_is_no_token():
    pair = encode(bare_tokenizer(bos_token="^"), (USER, (Message("assistant", ""),), NO), "raw")
    assert pair.chosen == ()
    assert len(pair.rejected) == 2


def test_the_tokenizer_adds_nothing_to_what_the_template_writes():
    tokenizer = bare_tokenizer(bos_token="^")
    begin = [("^", tokenizer.bos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="^ $A", special_tokens=begin)
    assert tokenizer.decode(tokenizer("hi")["input_ids"]) == "^hi"
    assert texts(tokenizer, encode(tokenizer, template="raw")) == ("^hi", "yes", "no", "^")


# --- cutting ---


LONG = (Message("user", "0123456789"),)  # 22 bytes after "raw": begin, 10, then the sides


def cut(tokenizer, max_length, max_prompt_length, chosen="abcdef", rejected="xy"):
    triple = (LONG, (Message("assistant", chosen),), (Message("assistant", rejected),))
    pair = encode(tokenizer, triple, "raw", max_length=max_length, max_prompt_length=max_prompt_length)
    return (*texts(tokenizer, pair)[:3], *parts(pair)[3])


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ((18, 5), ("<|begin|>0123456789", "abcdef<|end|>", "xy<|end|>", False, False, False)),  # 11 + 7 just fit
        ((17, 5), ("56789", "abcdef<|end|>", "xy<|end|>", True, False, False)),
        ((8, 5), ("56789", "abc", "xy<|end|>", True, True, False)),
        ((7, 5), ("56789", "ab", "xy", True, True, True)),
        ((6, 5), ("56789", "a", "x", True, True, True)),
        ((13, 11), ("<|begin|>0123456789", "ab", "xy", False, True, True)),
        ((2, 1), ("9", "a", "x", True, True, True)),
    ],
)
def test_the_prompt_keeps_its_end_and_the_sides_their_beginning(tokenizer, lengths, expected):
    assert cut(tokenizer, *lengths) == expected


def test_sides_can_become_equal_by_the_cut(tokenizer):
    assert cut(tokenizer, 9, 5, "abcdef", "abcdxyz")[1:] == ("abcd", "abcd", True, True, True)


def test_equal_sides_stay_equal(tokenizer):
    pair = encode(tokenizer, (USER, YES, YES))
    assert pair.chosen == pair.rejected
    assert texts(tokenizer, pair)[0] == "<|user|>hi<|end|><|assistant|>"


# --- templates ---


def test_auto_is_chat_where_there_is_one_and_plain_otherwise(tokenizer, without_template):
    assert encoder(tokenizer).template_name == "chat"
    assert encoder(tokenizer).template == tokenizer.chat_template
    assert encoder(without_template).template_name == "plain"
    assert encode(without_template) == encode(tokenizer, template="plain") != encode(tokenizer)


def test_of_several_chat_templates_the_default_is_taken(tokenizer, tiny_policy):
    several = {"tool_use": "tools", "default": tokenizer.chat_template}
    assert encode(AutoTokenizer.from_pretrained(tiny_policy, chat_template=several)) == encode(tokenizer)
    other = AutoTokenizer.from_pretrained(tiny_policy, chat_template={"tool_use": "tools"})
    assert encoder(other).template_name == "plain"


def test_the_text_of_plain(tokenizer):
    prompt = (Message("system", "Be kind."), *USER, *YES, Message("user", " sure?\n"))
    pair = encode(tokenizer, (prompt, YES, NO), "plain")
    assert texts(tokenizer, pair) == (
        "<|begin|>System: Be kind.\n\nUser: hi\n\nAssistant: yes<|end|>\n\nUser:  sure?\n\n\nAssistant: ",
        "yes<|end|>\n\n",
        "no<|end|>\n\n",
        "Assistant: ",
    )


def test_the_text_of_raw(tokenizer):
    assert texts(tokenizer, encode(tokenizer, template="raw")) == (
        "<|begin|>hi",
        "yes<|end|>",
        "no<|end|>",
        "<|begin|>",
    )


def test_a_template_of_ones_own(tokenizer, tmp_path):
    path = tmp_path / "own.jinja"
    path.write_text(
        "{% for m in messages %}[{{ m.role }}] «{{ m.content }}»{% endfor %}{% if add_generation_prompt %}[assistant] «"
        "{% endif %}",
        encoding="utf-8",
    )
    found = encoder(tokenizer, str(path))
    assert found.template_name == str(path)
    assert texts(tokenizer, found.encode([(USER, YES, NO)])[0]) == (
        "[user] «hi»[assistant] «",
        "yes»",
        "no»",
        "[assistant] «",
    )


def test_the_fingerprint_is_of_the_text(tokenizer, tmp_path):
    for name, text in (("plain", PLAIN_TEMPLATE), ("raw", RAW_TEMPLATE), ("chat", tokenizer.chat_template)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        expected = hashlib.sha256(text.encode()).hexdigest()[:16]
        for template in (name, str(tmp_path / name)):
            assert encoder(tokenizer, template).template_fingerprint == expected


def test_chat_without_a_chat_template_is_refused(without_template):
    with pytest.raises(ModelError, match="--template chat: this tokenizer has no chat template; use plain, raw or"):
        encoder(without_template, "chat")


@pytest.mark.parametrize("kind", ["missing", "folder", "not text"])
def test_an_unreadable_template_is_refused(tokenizer, tmp_path, kind):
    path = tmp_path / "t.jinja"
    if kind == "folder":
        path.mkdir()
    elif kind == "not text":
        path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ModelError, match="not chat, plain or raw, and no readable file of that name") as caught:
        encoder(tokenizer, str(path))
    assert str(caught.value).startswith(f"--template {path}: ")


def test_a_template_that_refuses_a_pair_leaves_its_reason_in_place(tokenizer, tmp_path):
    path = tmp_path / "strict.jinja"
    path.write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system\n  role') }}{% endif %}" + SHIFTING,
        encoding="utf-8",
    )
    refused = ((Message("system", "Be kind."), *USER), YES, NO)
    found = encoder(tokenizer, str(path)).encode([(USER, YES, NO), refused, (USER, NO, YES), refused])
    assert found[1] == found[3] == "the chat template refuses it: no system role"
    assert isinstance(found[0], TokenizedPair)
    assert isinstance(found[2], TokenizedPair)
    assert (found[0].chosen, found[0].rejected) == (found[2].rejected, found[2].chosen)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{% if %}", "Expected an expression"),
        ("{{ messages[7].content }}", "list object has no element 7"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages[0].content + 1 }}", "can only concatenate str"),
        ("{{ 'x' | int(base=99) }}{{ (1).missing.deeper }}", "has no attribute 'missing'"),
        ("{{ messages.clear() }}", "access to attribute 'clear' of 'list' object is unsafe"),
    ],
)
def test_whatever_a_template_raises_is_a_reason(tokenizer, tmp_path, text, reason):
    (tmp_path / "broken.jinja").write_text(text, encoding="utf-8")
    found = encode(tokenizer, template=str(tmp_path / "broken.jinja"))
    assert isinstance(found, str)
    assert found.startswith("the chat template refuses it: ")
    assert reason in found


def test_a_pair_without_any_turn_has_a_reason(tokenizer):
    assert "empty conversation" in encode(tokenizer, ((), YES, NO))


def test_pairs_do_not_depend_on_their_neighbours(tokenizer):
    several = [(USER, YES, NO), (LONG, NO, YES), ((), YES, NO), (USER, NO, NO)]
    assert encoder(tokenizer).encode(several) == [encode(tokenizer, triple) for triple in several]
    assert encoder(tokenizer).encode([]) == []
