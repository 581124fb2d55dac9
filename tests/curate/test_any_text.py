"""Any text survives every format: a row made of generated texts gives a pair of exactly these texts.

A format's example says where the texts stand in its rows; they get the generated ones in the place of the example's.
"""

import copy
import csv
import json
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, example, given, settings

from curate.config import IngestConfig
from curate.formats import FORMATS
from curate.pairs import ingest
from curate.readers import Row
from curate.reading import readings
from curate.store import Run

PROMPTS = ("What color is the sky?", "What color is this?", "The sky is")
CHOSEN = ("It is blue.", "Blue.", "blue.")
REJECTED = ("It is green.", "Green.", "green.")
#: The prompt ends where a word does, or turns are cut at markers and stripped: not every text can stand there.
CUT = {"trl_standard_implicit", "hh_rlhf", "nectar"}
#: What a format adds to the prompt, and to both sides.
FRAMED = {
    "llamafactory_alpaca": "{}\nthe sky",
    "pandalm": "{}\nthe sky",
    "openai_summarize": "SUBREDDIT: r/askscience\n\nTITLE: Sky\n\nPOST: {}\n\nTL;DR:",
}
SPACE = {"trl_standard": " ", "openai_summarize": " "}

HOSTILE = [
    ("", "\x00", "a\r\nb\rc"),
    ("\u202e\u0645\u0631\u062d", "👩\u200d👩\u200d👧 \U0010ffff", "\u2028\x85\x0b"),
    ("\ufeffx", '"\\/\\u0041', "'; DROP TABLE pairs; --"),
    (" \n", "\t\n ", "\n\nHuman: no"),
    ("e\u0301", "\u00e9", "<|im_end|><extra_id_0>"),
]
_texts = st.tuples(st.text(), st.text(), st.text())


def substituted(value, texts):
    """The example's texts replaced wherever they stand, also in JSON within text."""
    if isinstance(value, dict):
        return {name: substituted(item, texts) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(substituted(item, texts) for item in value)
    if not isinstance(value, str):
        return value
    if value.startswith("["):
        return json.dumps(substituted(json.loads(value), texts))
    for known, text in zip((PROMPTS, CHOSEN, REJECTED), texts, strict=True):
        for word in known:
            if word in value:
                return value.replace(word, text)
    return value


def pair_of(name, texts):
    """The one pair of an example whose texts are these."""
    form = FORMATS[name]
    form = next((form.by_label(label) for label in form.labels), form)
    values = [substituted(copy.deepcopy(dict(row)), texts) for row in (form.example, *form.more)]
    rows = [Row(row, line, "") for line, row in enumerate(values, start=1)]
    (found,) = readings(form, "best-worst", rows)
    (pair,) = found.pairs
    return pair


def contents(turns):
    return [turn.content for turn in turns if turn.role != "system"]


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in CUT])
@settings(max_examples=25, deadline=None)
@given(_texts)
@example(HOSTILE[0])
@example(HOSTILE[1])
@example(HOSTILE[2])
@example(HOSTILE[3])
@example(HOSTILE[4])
def test_a_row_of_any_texts_gives_a_pair_of_these_texts(name, texts):
    assume("<extra_id_1>" not in texts[0])
    prompt, chosen, rejected = texts
    pair = pair_of(name, texts)
    assert contents(pair.prompt) == [FRAMED.get(name, "{}").replace("{}", prompt)]
    assert contents(pair.chosen) == [SPACE.get(name, "") + chosen]
    assert contents(pair.rejected) == [SPACE.get(name, "") + rejected]
    assert [turn.role for turn in (*pair.chosen, *pair.rejected)] == ["assistant", "assistant"]


_MARKERS = ("Human:", "Hum:", "Assistant:")
_turns = st.text().map(str.strip).filter(lambda text: not any(marker in text for marker in _MARKERS))


@settings(max_examples=40, deadline=None)
@given(st.tuples(_turns, _turns, _turns))
@example(HOSTILE[1])
def test_dialogues_keep_their_turns_without_the_white_space_around(texts):
    sides = [f"\n\nHuman: {texts[0]}\n\nAssistant: {answer}" for answer in texts[1:]]
    pair = FORMATS["hh_rlhf"].read(dict(zip(("chosen", "rejected"), sides, strict=True)))
    found = contents(pair.prompt) + contents(pair.chosen) + contents(pair.rejected)
    assert found == [text.strip() for text in texts]


@settings(max_examples=40, deadline=None)
@given(st.tuples(_turns, _turns, _turns))
@example(HOSTILE[1])
def test_answers_of_nectar_stay_as_they_are(texts):
    pair = pair_of("nectar", texts)
    assert contents(pair.prompt) == [texts[0].strip()]
    assert contents(pair.chosen) + contents(pair.rejected) == list(texts[1:])


@settings(max_examples=60, deadline=None)
@given(_texts)
@example(HOSTILE[3])
def test_texts_with_a_shared_beginning_keep_every_character(texts):
    head, chosen, rejected = texts
    row = {"chosen": f"The sky {head} is {chosen}.", "rejected": f"The sky {head} is {rejected}."}
    pair = FORMATS["trl_standard_implicit"].read(row)
    assert contents(pair.prompt)[0] + contents(pair.chosen)[0] == row["chosen"]
    assert contents(pair.prompt)[0] + contents(pair.rejected)[0] == row["rejected"]
    assert contents(pair.prompt)[0].startswith("The sky")


ODD: list[Any] = [None, True, False, 3, -1.5, float("nan"), 10**400, "", "[", "text", "\ud800", [], [[]], [None], [3]]
ODD += [{}, {"a": 1}, ["text"], {"role": "user"}, [{"role": "user", "content": 3}], [{"content": "x"}], {"text": None}]


def places(value, way=()):
    """The way to every value within a row."""
    yield way
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*way, key))


def with_odd(row, way, odd):
    if not way:
        return odd
    copied = dict(row) if isinstance(row, dict) else list(row)
    copied[way[0]] = with_odd(copied[way[0]], way[1:], odd)
    return copied


@pytest.mark.parametrize("name", FORMATS)
def test_an_odd_value_anywhere_is_read_or_refused(name):
    """No value of any kind, in any place of a row, may end a run with another error."""
    form = FORMATS[name]
    form = next((form.by_label(label) for label in form.labels), form)
    row = {**form.example, **OPTIONAL.get(name, {})}
    for way in list(places(row))[1:]:
        for odd in ODD:
            given = [Row(with_odd(row, way, odd), 1, ""), *(Row(dict(more), 2, "") for more in form.more)]
            for found in readings(form, "all", given):
                assert found.pairs or found.reason
                assert all(isinstance(pair.tie, bool) for pair in found.pairs)


OPTIONAL: dict[str, dict[str, Any]] = {
    "trl_standard": {"system": "s", "source": "s", "annotator": "a", "score_chosen": 1, "score_rejected": 2},
    "llamafactory_alpaca": {"system": "s", "history": [["q", "a"]]},
    "llamafactory_sharegpt": {"system": "s"},
    "helpsteer2_preference": {"all_preferences_unprocessed": [{"strength": 1}]},
    "ms_swift": {"rejected_messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
}


def written(rows, folder):
    """The rows as a file of each kind that can hold them."""
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, folder / "a.parquet")
    with pa.OSFile(str(folder / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
        out.write_table(table)
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "a.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    yield from (folder / f"a.{kind}" for kind in ("parquet", "arrow", "jsonl", "json"))
    if not any(isinstance(value, dict | list) for row in rows for value in row.values()):
        for kind, delimiter in (("csv", ","), ("tsv", "\t")):
            with open(folder / f"a.{kind}", "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
                writer.writeheader()
                writer.writerows(rows)
            yield folder / f"a.{kind}"


@pytest.mark.parametrize("name", FORMATS)
def test_every_container_gives_the_same_pair_of_a_format(name, tmp_path):
    form = FORMATS[name]
    rows = [dict(form.example), *map(dict, form.more)]
    found = {}
    for path in written(rows, tmp_path):
        run = Run.create(tmp_path / path.suffix)
        record = ingest(IngestConfig((str(path),), label=next(iter(form.labels), None)), run)
        assert [file["format"] for file in record["inputs"]] == [name], path
        (pair,) = run.read_pairs(0, run.count_pairs()).drop_columns(["file", "line", "original"]).to_pylist()
        found[path.suffix] = pair
    assert len(found) in (4, 6)
    assert all(pair == found[".jsonl"] for pair in found.values()), found
