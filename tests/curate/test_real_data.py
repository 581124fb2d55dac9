"""Public preference data, read whole: counts, labels and texts against a reading that shares no code with curate."""

import gzip
import json
from collections import Counter

import pandas as pd
import pytest

from curate import IngestConfig, Run, ingest
from curate.errors import InputError

#: File → rows, pairs, ties and refused rows, and repeats of an earlier pair.
COUNTS = {
    "hh-rlhf-harmless-test/test.jsonl.gz": ("hh_rlhf", 2312, 2312, 0, 0, 0),
    "llamafactory-dpo-demo/dpo_en_demo.json": ("llamafactory_sharegpt", 300, 300, 0, 0, 5),
    "llmbar/LLMBar__Adversarial__GPTInst__dataset.json": ("llmbar", 92, 92, 0, 0, 0),
    "llmbar/LLMBar__Adversarial__GPTOut__dataset.json": ("llmbar", 47, 47, 0, 0, 0),
    "llmbar/LLMBar__Adversarial__Manual__dataset.json": ("llmbar", 46, 46, 0, 0, 0),
    "llmbar/LLMBar__Adversarial__Neighbor__dataset.json": ("llmbar", 134, 134, 0, 0, 0),
    "llmbar/LLMBar__Natural__dataset.json": ("llmbar", 100, 100, 0, 0, 0),
    "llmbar/Processed__FairEval__dataset.json": ("llmbar", 66, 66, 0, 0, 0),
    "llmbar/Processed__LLMEval2__dataset.json": ("llmbar", 200, 200, 0, 0, 0),
    "llmbar/Processed__MT-Bench__dataset.json": ("llmbar", 200, 200, 0, 0, 5),
    "pandalm-testset/testset-v1.json": ("pandalm", 999, 993, 105, 6, 130),
}
LLMBAR = [name for name in COUNTS if name.startswith("llmbar/")]


@pytest.fixture(scope="module")
def read(real_data, tmp_path_factory):
    """Reads a file into a run, once: what the manifest says, the pairs, the refused rows."""
    known = {}

    def look(name):
        if name not in known:
            run = Run.create(tmp_path_factory.mktemp("real") / "run")
            record = ingest(IngestConfig((str(real_data / name),)), run)
            pairs = pd.concat([pd.read_parquet(path) for path in sorted(run.pairs_path.iterdir())], ignore_index=True)
            known[name] = record, pairs, pd.read_parquet(run.refused_path)
        return known[name]

    return look


def rows_of(path):
    if path.suffix == ".gz":
        return [json.loads(line) for line in gzip.open(path, "rt", encoding="utf-8")]
    return json.loads(path.read_text(encoding="utf-8"))


def text(turns):
    """The content of the only turn."""
    (turn,) = turns
    return turn["content"]


@pytest.mark.parametrize("name", COUNTS)
def test_counts(real_data, read, name):
    form, rows, pairs, ties, refused, repeats = COUNTS[name]
    record, table, refusals = read(name)
    assert record["inputs"][0]["format"] == form
    assert (record["rows"], record["pairs"], record["ties"], record["refused"]) == (rows, pairs, ties, refused)
    assert (len(table), table["tie"].sum(), len(refusals)) == (pairs, ties, refused)
    assert table["pair_id"].duplicated().sum() == repeats
    assert sorted([*table["row"], *refusals["row"]]) == list(range(rows)) == list(range(len(rows_of(real_data / name))))


@pytest.mark.parametrize("name", COUNTS)
def test_originals_are_kept(real_data, read, name):
    """Every row, pair or refused, is in the run as it stands in the file."""
    _, pairs, refused = read(name)
    originals = pd.concat([pairs[["row", "original"]], refused[["row", "original"]]]).sort_values("row")["original"]
    assert [json.loads(original) for original in originals] == rows_of(real_data / name)


@pytest.mark.parametrize("name", ["gpt-3.5-turbo-testset-v1.json", "pandalm-7b-testset-v1.json"])
def test_the_judges_verdicts_are_no_preference_data(real_data, tmp_path, name):
    """They hold a verdict each on the rows of another file, but no responses."""
    with pytest.raises(InputError, match=r"no known preference format \(columns: idx, ") as caught:
        ingest(IngestConfig((str(real_data / "pandalm-testset" / name),)), Run.create(tmp_path / "run"))
    assert str(caught.value).isprintable()


# --- HH-RLHF ---


def test_hh_sides_are_the_last_answers(real_data, read):
    name = "hh-rlhf-harmless-test/test.jsonl.gz"
    _, pairs, _ = read(name)
    several = 0
    for row, prompt, chosen, rejected in zip(
        rows_of(real_data / name), pairs["prompt"], pairs["chosen"], pairs["rejected"], strict=True
    ):
        for side, turns in (("chosen", chosen), ("rejected", rejected)):
            head, _, answer = row[side].rpartition("\n\nAssistant:")
            assert turns[-1]["role"] == "assistant"
            assert turns[-1]["content"] == answer.strip()
            turns_before = head.count("\n\nHuman:") + head.count("\n\nAssistant:")
            assert len(prompt) + len(turns) - 1 == turns_before
        several += len(chosen) > 1 or len(rejected) > 1
    assert several == 5


def test_hh_prompts_hold_every_word_before_the_answers(real_data, read):
    name = "hh-rlhf-harmless-test/test.jsonl.gz"
    _, pairs, _ = read(name)
    speaker = {"user": "Human:", "assistant": "Assistant:"}
    for row, prompt, chosen in zip(rows_of(real_data / name), pairs["prompt"], pairs["chosen"], strict=True):
        told = " ".join(f"{speaker[turn['role']]} {turn['content']}" for turn in [*prompt, *chosen])
        assert told.split() == row["chosen"].split()


def test_hh_empty_answers_and_early_divergence_are_kept(read):
    """The nine rows that a converter which wants one last answer a side loses."""
    _, pairs, _ = read("hh-rlhf-harmless-test/test.jsonl.gz")
    empty = pairs[[turns[-1]["content"] == "" for turns in pairs["chosen"]]]
    assert empty["line"].tolist() == [87, 517, 926, 1104]
    assert not any(turns[-1]["content"] == "" for turns in pairs["rejected"])
    early = pairs[pairs["chosen"].map(len).ne(1) | pairs["rejected"].map(len).ne(1)]
    assert len(early) == 5
    assert not set(early["line"]) & set(empty["line"])
    assert all(turns[-1]["role"] == "assistant" for side in ("chosen", "rejected") for turns in early[side])


# --- LLMBar ---


@pytest.mark.parametrize("name", LLMBAR)
def test_llmbar_chosen_is_the_gold_output(real_data, read, name):
    _, pairs, _ = read(name)
    rows = rows_of(real_data / name)
    assert [text(turns) for turns in pairs["prompt"]] == [row["input"] for row in rows]
    assert [text(turns) for turns in pairs["chosen"]] == [row[f"output_{row['label']}"] for row in rows]
    assert [text(turns) for turns in pairs["rejected"]] == [row[f"output_{3 - row['label']}"] for row in rows]
    assert {row["label"] for row in rows} == {1, 2}


# --- PandaLM ---


def pandalm(real_data):
    return rows_of(real_data / "pandalm-testset" / "testset-v1.json")


def majority(row):
    """What at least two of the three annotators say; 0 (a tie) where there is no such thing."""
    answer, votes = Counter(row[f"annotator{number}"] for number in (1, 2, 3)).most_common(1)[0]
    return answer if votes >= 2 else 0


def test_pandalm_label_is_the_majority(real_data, read):
    _, pairs, _ = read("pandalm-testset/testset-v1.json")
    rows = pandalm(real_data)
    seen = Counter()
    for at, tie, chosen, rejected in zip(pairs["row"], pairs["tie"], pairs["chosen"], pairs["rejected"], strict=True):
        row = rows[at]
        best = majority(row)
        first, second = (2, 1) if best == 2 else (1, 2)
        assert (text(chosen), text(rejected)) == (row[f"response{first}"], row[f"response{second}"])
        assert tie == (best == 0)
        seen[best] += 1
    assert seen == {1: 418, 2: 470, 0: 105}


def test_pandalm_votes_count_for_the_label(real_data, read):
    _, pairs, _ = read("pandalm-testset/testset-v1.json")
    rows = pandalm(real_data)
    unanimous = 0
    for at, tie, votes in zip(pairs["row"], pairs["tie"], pairs["votes"], strict=True):
        said = [rows[at][f"annotator{number}"] for number in (1, 2, 3)]
        label = 1 if tie else majority(rows[at])
        assert [vote["annotator"] for vote in votes] == ["annotator1", "annotator2", "annotator3"]
        assert [vote["vote"] for vote in votes] == [0 if one == 0 else 1 if one == label else -1 for one in said]
        unanimous += len(set(said)) == 1
    assert unanimous == 877


def test_pandalm_prompts_are_instruction_and_input(real_data, read):
    _, pairs, _ = read("pandalm-testset/testset-v1.json")
    rows = pandalm(real_data)
    for at, prompt in zip(pairs["row"], pairs["prompt"], strict=True):
        row = rows[at]
        assert text(prompt) == "\n".join(part for part in (row["instruction"], row["input"]) if part)


def test_pandalm_refuses_booleans(real_data, read):
    """Six responses are the JSON value true: whether the model wrote "True" or "true" is not known."""
    _, _, refused = read("pandalm-testset/testset-v1.json")
    rows = pandalm(real_data)
    expected = {
        at: f"{name} is a boolean (true), not text"
        for at, row in enumerate(rows)
        for name in ("response1", "response2")
        if not isinstance(row[name], str)
    }
    assert dict(zip(refused["row"], refused["reason"], strict=True)) == expected
    assert Counter(expected.values()) == {
        "response1 is a boolean (true), not text": 4,
        "response2 is a boolean (true), not text": 2,
    }
    lines = (real_data / "pandalm-testset" / "testset-v1.json").read_text(encoding="utf-8").splitlines()
    for at, line in zip(refused["row"], refused["line"], strict=True):
        assert json.loads("".join(lines[line - 1 : line + 11]).rstrip(" ,]")) == rows[at]


# --- LLaMA-Factory ---


def test_llamafactory_conversations(real_data, read):
    name = "llamafactory-dpo-demo/dpo_en_demo.json"
    _, pairs, _ = read(name)
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    for row, prompt, chosen, rejected in zip(
        rows_of(real_data / name), pairs["prompt"], pairs["chosen"], pairs["rejected"], strict=True
    ):
        expected = [{"role": roles[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]
        assert list(prompt) == expected
        assert (text(chosen), text(rejected)) == (row["chosen"]["value"], row["rejected"]["value"])


# --- all at once ---


def test_a_folder_of_several_files(real_data, tmp_path):
    run = Run.create(tmp_path / "run")
    record = ingest(IngestConfig((str(real_data / "llmbar"),)), run)
    pairs = pd.read_parquet(run.pairs_path)
    assert (record["rows"], record["pairs"], record["refused"]) == (885, 885, 0)
    assert [entry["pairs"] for entry in record["inputs"]] == [COUNTS[name][2] for name in LLMBAR]
    assert pairs["source"].value_counts().to_dict() == {
        name.removeprefix("llmbar/").removesuffix(".json"): COUNTS[name][2] for name in LLMBAR
    }
