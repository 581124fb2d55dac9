"""LLaMA-Factory's dataset_info.json: which dataset, which file, which columns and roles. Rows are written by hand."""

import json
from typing import Any

import pytest

from curate.config import IngestConfig
from curate.errors import InputError
from curate.formats import FORMATS
from curate.inputs import find_sources
from curate.pairs import ingest
from curate.store import Run

ALPACA: dict[str, Any] = {
    "file_name": "alpaca.json",
    "ranking": True,
    "columns": {
        "prompt": "frage",
        "query": "dazu",
        "chosen": "gut",
        "rejected": "schlecht",
        "system": "sys",
        "history": "h",
    },
}
SHAREGPT = {
    "file_name": "chats.jsonl",
    "ranking": True,
    "formatting": "sharegpt",
    "columns": {"messages": "turns", "chosen": "good", "rejected": "bad", "images": "pics"},
    "tags": {"role_tag": "who", "content_tag": "what", "user_tag": "du", "assistant_tag": "ich", "system_tag": "sys"},
}
SFT = {"file_name": "sft.json", "columns": {"prompt": "text"}}
ALPACA_ROWS = [
    {"frage": "q", "dazu": "i", "gut": "a", "schlecht": "b", "sys": "s", "h": [["q0", "a0"]]},
    {"frage": "q", "dazu": "", "gut": True, "schlecht": "b", "sys": None, "h": None},
]


def chat(*turns):
    return [{"who": who, "what": what} for who, what in turns]


CHAT_ROWS = [
    {"turns": chat(("sys", "s"), ("du", "q")), "good": chat(("ich", "a"))[0], "bad": chat(("ich", "b"))[0], "pics": []},
    {"turns": chat(("du", "q")), "good": chat(("ich", "a"))[0], "bad": chat(("ich", "b"))[0], "pics": ["a.png"]},
    {"turns": chat(("tool", "q")), "good": chat(("wer", "a"))[0], "bad": chat(("ich", "b"))[0]},
]


@pytest.fixture
def folder(tmp_path):
    """A LLaMA-Factory data folder: two rankings, one dataset that is none."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "alpaca.json").write_text(json.dumps(ALPACA_ROWS), encoding="utf-8")
    (data / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CHAT_ROWS), encoding="utf-8")
    (data / "sft.json").write_text('[{"text": "x"}]', encoding="utf-8")
    describe(data, alpaca=ALPACA, chats=SHAREGPT, sft=SFT)
    return data


def describe(data, **entries):
    (data / "dataset_info.json").write_text(json.dumps(entries), encoding="utf-8")


def take(tmp_path, *inputs, **settings):
    run = Run.create(tmp_path / "run")
    record = ingest(IngestConfig(tuple(map(str, inputs)), **settings), run, replace_data=True)
    return record, run.read_pairs(0, run.count_pairs()).to_pylist()


def refused(*inputs):
    with pytest.raises(InputError) as caught:
        find_sources(map(str, inputs))
    assert str(caught.value).isprintable()
    return str(caught.value)


def told(turns):
    return [(turn["role"], turn["content"]) for turn in turns]


@pytest.mark.parametrize(
    "entry", ["{data}#alpaca", "{data}/dataset_info.json#alpaca", "file://{data}/dataset_info.json#alpaca"]
)
def test_alpaca_columns_are_those_of_the_description(folder, tmp_path, entry):
    record, (pair,) = take(tmp_path, entry.format(data=folder))
    assert told(pair["prompt"]) == [("system", "s"), ("user", "q0"), ("assistant", "a0"), ("user", "q\ni")]
    assert (told(pair["chosen"]), told(pair["rejected"])) == ([("assistant", "a")], [("assistant", "b")])
    assert (record["rows"], record["refused"]) == (2, 1)
    (file,) = record["inputs"]
    assert (file["format"], file["why"]) == ("dataset_info", "dataset_info.json says so (alpaca)")
    assert file["path"].endswith("data/alpaca.json")


def test_sharegpt_roles_are_those_of_the_tags(folder, tmp_path):
    record, (pair,) = take(tmp_path, f"{folder}#chats")
    assert told(pair["prompt"]) == [("system", "s"), ("user", "q")]
    assert (told(pair["chosen"]), told(pair["rejected"])) == ([("assistant", "a")], [("assistant", "b")])
    assert (record["rows"], record["refused"]) == (3, 2)


def test_default_columns(folder, tmp_path):
    (folder / "plain.jsonl").write_text(json.dumps(FORMATS["llamafactory_sharegpt"].example), encoding="utf-8")
    describe(folder, plain={"file_name": "plain.jsonl", "ranking": True, "formatting": "sharegpt"})
    _, (pair,) = take(tmp_path, folder)
    assert told(pair["chosen"]) == [("assistant", "It is blue.")]
    (folder / "plain.jsonl").write_text(json.dumps(FORMATS["llamafactory_alpaca"].example), encoding="utf-8")
    describe(folder, plain={"file_name": "plain.jsonl", "ranking": True})
    _, (pair,) = take(tmp_path, folder)
    assert told(pair["prompt"]) == [("user", "What color is this?\nthe sky")]


def test_columns_that_are_not_named_are_not_read(folder, tmp_path):
    """LLaMA-Factory takes a column that `columns` leaves out as absent."""
    columns = {name: ALPACA["columns"][name] for name in ("prompt", "chosen", "rejected")}
    describe(folder, alpaca={**ALPACA, "columns": columns})
    _, (pair,) = take(tmp_path, folder)
    assert told(pair["prompt"]) == [("user", "q")]


def test_the_only_ranking_needs_no_name(folder):
    describe(folder, sft=SFT, alpaca=ALPACA)
    (source,) = find_sources((str(folder),))
    assert source.path == f"{folder}/alpaca.json"
    for entry in ("dataset_info.json", "dataset_info.json#alpaca"):
        assert [found.path for found in find_sources((f"{folder}/{entry}",))] == [source.path]


def test_a_changed_description_is_read_again(folder, tmp_path):
    before, _ = take(tmp_path, f"{folder}#alpaca")
    assert take(tmp_path, f"{folder}#alpaca")[0] == before
    columns = {**ALPACA["columns"], "chosen": "schlecht", "rejected": "gut"}
    describe(folder, alpaca={**ALPACA, "columns": columns})
    after, (pair,) = take(tmp_path, f"{folder}#alpaca")
    assert after["fingerprint"] != before["fingerprint"]
    assert told(pair["chosen"]) == [("assistant", "b")]


def test_an_explicit_format_counts_more(folder, tmp_path):
    columns = {"prompt": "frage", "chosen": "schlecht", "rejected": "dazu"}
    record, pairs = take(tmp_path, f"{folder}#alpaca", columns=columns)
    assert record["inputs"][0]["why"] == "--columns says so"
    assert told(pairs[0]["chosen"]) == [("assistant", "b")]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("", ["names several ranking datasets (alpaca, chats); choose one as {info}#alpaca"]),
        ("#none", ["the dataset 'none' is not in it; its ranking datasets are: alpaca, chats"]),
        ("#sft", ["the dataset 'sft' is no ranking (ranking: true); its ranking datasets are: alpaca, chats"]),
    ],
)
def test_a_dataset_must_be_named(folder, name, parts):
    for entry in (f"{folder}{name}", f"{folder}/dataset_info.json{name}"):
        message = refused(entry)
        assert message.startswith(f"{folder}/dataset_info.json: ")
        assert all(part.format(info=f"{folder}/dataset_info.json") in message for part in parts)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"ranking": True, "ms_hub_url": "a/b"}, "x has neither file_name nor hf_hub_url; download it"),
        (
            {"ranking": True, "hf_hub_url": "a/b", "subset": "en"},
            "x is a part of a/b; name its files as hf://datasets/a/b/",
        ),
        ({**ALPACA, "formatting": "openai"}, "x has the formatting 'openai': known are alpaca and sharegpt"),
        ({**ALPACA, "columns": {"prompt": "p"}}, "the columns of x must name prompt, chosen and rejected"),
        ({**SHAREGPT, "columns": ["a"]}, "the columns of x must name messages, chosen and rejected"),
        ({**ALPACA, "columns": {**ALPACA["columns"], "prompt": None}}, "the columns of x must name prompt, chosen and"),
        ({**ALPACA, "formatting": ["alpaca"]}, "x has the formatting ['alpaca']"),
        ({**SHAREGPT, "tags": {"user_tag": ["du"]}}, "the tags of x must be texts by name"),
        ({**ALPACA, "file_name": "none.json"}, "none.json: no such file or folder"),
    ],
)
def test_descriptions_that_cannot_be_followed(folder, entry, reason):
    describe(folder, x=entry)
    assert reason in refused(f"{folder}#x")


def test_a_dataset_of_the_hub_is_asked_for_by_its_id(folder, monkeypatch):
    describe(folder, x={**ALPACA, "hf_hub_url": "org/prefs", "split": "train"})
    monkeypatch.setattr("curate.inputs.files_of", lambda entry: [entry])
    assert [source.path for source in find_sources((f"{folder}#x",))] == ["org/prefs:train"]


def test_no_ranking_at_all(folder):
    describe(folder, sft=SFT)
    assert "names no ranking dataset" in refused(folder)


@pytest.mark.parametrize("content", ["[1]", '{"features": {}}', "{}"])
def test_another_dataset_info_is_no_description(folder, content):
    (folder / "dataset_info.json").write_text(content, encoding="utf-8")
    assert "not LLaMA-Factory's" in refused(f"{folder}/dataset_info.json")
    assert [source.path for source in find_sources((str(folder),))] == [
        f"{folder}/{name}" for name in ("alpaca.json", "chats.jsonl", "sft.json")
    ]


def test_a_broken_description(folder):
    (folder / "dataset_info.json").write_text("{", encoding="utf-8")
    assert "dataset_info.json: cannot be read" in refused(folder)
    assert "no such file" in refused(folder / "none" / "dataset_info.json")


def test_a_file_that_two_descriptions_name(folder):
    describe(folder, one=ALPACA, two=ALPACA)
    assert "given twice" in refused(f"{folder}#one", f"{folder}#two")


def test_a_name_with_a_hash_is_a_name(tmp_path):
    path = tmp_path / "a#b.jsonl"
    path.write_text("{}", encoding="utf-8")
    assert [source.path for source in find_sources((str(path),))] == [str(path)]


def test_the_real_demo(real_data, tmp_path):
    """The same pairs with and without a description."""
    plain, pairs = take(tmp_path, real_data / "llamafactory-dpo-demo" / "dpo_en_demo.json")
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
    place = str(real_data / "llamafactory-dpo-demo" / "dpo_en_demo.json")
    entry = {"file_name": place, "ranking": True, "formatting": "sharegpt", "columns": columns}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"dpo_en_demo": entry}), encoding="utf-8")
    record, described = take(tmp_path, tmp_path / "dataset_info.json")
    assert plain["pairs"] == record["pairs"] == 300
    assert [pair["pair_id"] for pair in described] == [pair["pair_id"] for pair in pairs]
