"""Every format: what is exported is read back word for word, whatever is in the texts, and whatever was decided."""

import json
import re

import hypothesis.strategies as st
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from curate.config import ExportConfig, IngestConfig
from curate.decisions import Decisions
from curate.errors import ConfigError
from curate.exporters import EXPORTERS, OPTIONAL, named
from curate.exporting import export
from curate.formats import Pair
from curate.pairs import ingest, messages_of, pair_id
from curate.plans import Plan, Rule
from curate.store import Run
from curate.view import RunView

HOSTILE = [
    "",
    "\0",
    "a\0b",
    "\r\n\r",
    "\u2028\u2029\x85",
    "\ufeff\ufffe\uffff",
    "\u202eשלום\u202c",
    "👩\u200d👩\u200d👧\U0010ffff",
    "e\u0301",
    "'\"\\ \t\x1b[2J\x7f\x9b",
    "$(rm -rf x); DROP TABLE pairs; --",
    "</script>{{ x }}{% y %}${z}",
    "x" * 1_000_000,
]
REAL = {
    "hh": "hh-rlhf-harmless-test/test.jsonl.gz",
    "llamafactory": "llamafactory-dpo-demo/dpo_en_demo.json",
    "llmbar": "llmbar",
    "pandalm": "pandalm-testset/testset-v1.json",
}
WRITTEN = [(name, container) for name, exporter in EXPORTERS.items() for container in exporter.containers]


def make_run(folder, rows, **reading):
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run = Run.create(folder / "run")
    ingest(IngestConfig((str(data),), **reading), run)
    return run


def exported(run, output, name, container=None, actions=None):
    """Export a run, after decisions by row; what it reports."""
    with RunView(run.path) as view:
        if actions:
            table = pd.DataFrame([{"row": row, "action": action, "value": value} for row, action, value in actions])
            Decisions(view).decide_all(table, origin="test")
        return export(view, output, ExportConfig(name, container))


def lines_of(path):
    """An export's pairs as plain values."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))["examples"]
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


#: Formats whose lines say which pairs are ties; the others hold none.
HOLDS_TIES = {"trl", "trl-standard", "llm-comparator"}


def read_back(path, folder):
    """The pairs that `curate ingest` makes of an export, without being told its format."""
    run = Run.create(folder)
    report = ingest(IngestConfig((str(path),)), run)
    assert report["refused"] == 0
    return pairs_of(run)


def pairs_of(run):
    table = run.read_pairs(0, run.count_pairs())
    sides = (messages_of(table[side].to_pylist()) for side in ("prompt", "chosen", "rejected"))
    return [Pair(*pair) for pair in zip(*sides, table["tie"].to_pylist(), strict=True)]


def fits(name, pair):
    """Whether a format can hold a pair, as its documentation has it."""
    if pair.tie and name not in HOLDS_TIES:
        return False
    roles = [turn.role for turn in pair.prompt]
    one_question = roles == ["user"]
    one_answer = [turn.role for turn in pair.chosen] == [turn.role for turn in pair.rejected] == ["assistant"]
    spoken = roles[1:] if roles[0] == "system" else roles
    alternating = len(spoken) % 2 == 1 and spoken == (["user", "assistant"] * len(spoken))[: len(spoken)]
    return {
        "trl": True,
        "openrlhf": True,
        "trl-standard": one_question and one_answer,
        "llm-comparator": one_question and one_answer,
        "axolotl": one_answer and roles[-1] != "assistant",
        "ms-swift": one_answer and roles[-1] == "user" and pair.chosen != pair.rejected,
        "llamafactory": one_answer and alternating,
    }[name]


# --- round trips ---

texts = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"]))
turn = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": texts})
answer = st.fixed_dictionaries({"role": st.just("assistant"), "content": texts})
question = st.fixed_dictionaries({"role": st.just("user"), "content": texts})
prompts = st.lists(question, min_size=1, max_size=1) | st.lists(turn, min_size=1, max_size=4)
answers = st.lists(answer, min_size=1, max_size=1) | st.lists(turn, min_size=1, max_size=2)
won = st.sampled_from(["a", "a", "tie"])
rows = st.fixed_dictionaries({"prompt": prompts, "one": answers, "two": answers, "source": texts, "won": won})
asked = st.sampled_from(["keep", "flip", "drop", "review", "none"]).map(lambda action: (action, None)) | st.tuples(
    st.sampled_from(["soft", "weight"]), st.sampled_from([0.0, 0.3, 0.5, 1.0])
)
COLUMNS = {"prompt": "prompt", "response_a": "one", "response_b": "two", "label": "won"}
FIRST = {
    "prompt": [{"role": "user", "content": "?"}],
    "one": [{"role": "assistant", "content": "a"}],
    "two": [{"role": "assistant", "content": "b"}],
    "source": "s",
    "won": "a",
}
TRL = {"prompt": FIRST["prompt"], "chosen": FIRST["one"], "rejected": FIRST["two"], "source": "s"}


def outcome(pair, action):
    """What becomes of a pair; None where it leaves."""
    if action == "drop" or (pair.tie and action not in ("keep", "soft", "weight")):
        return None
    return pair.swap() if action == "flip" else pair


@settings(
    deadline=None,
    max_examples=6,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(made=st.lists(rows, min_size=1, max_size=6), data=st.data())
@pytest.mark.parametrize(("name", "container"), WRITTEN)
def test_reading_an_export_gives_the_same_pairs(name, container, made, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trip")
    made = [FIRST, *made]
    run = make_run(folder, made, columns=COLUMNS)
    before = pairs_of(run)
    assert [pair.tie for pair in before] == [row["won"] == "tie" for row in made]
    actions = [("soft", 0.3), *data.draw(st.lists(asked, min_size=len(made) - 1, max_size=len(made) - 1))]
    decisions = [(row, *it) for row, it in enumerate(actions) if it[0] != "none"]
    report = exported(run, folder / "out", name, container, decisions)
    became = [outcome(pair, action) for pair, (action, _) in zip(before, actions, strict=True)]
    expected = [pair for pair in became if pair is not None and fits(name, pair)]
    path = folder / "out" / report["files"][0]["file"]
    assert read_back(path, folder / "again") == expected
    assert report["exported"] == len(expected)
    assert report["pairs"] + report["refused"] == len(expected) + sum(report["removed"].values())
    if name != "llm-comparator":
        lines = lines_of(path)
        assert [line["pair_id"] for line in lines] == [pair_id(pair) for pair in expected]
        sources = [made[line["row"]]["source"] or "data" for line in lines]
        assert [line["source"] for line in lines] == sources


@pytest.fixture(scope="module")
def real_runs(real_data, tmp_path_factory):
    runs = {}
    for name, path in REAL.items():
        runs[name] = Run.create(tmp_path_factory.mktemp("real") / "run")
        ingest(IngestConfig((str(real_data / path),)), runs[name])
        with RunView(runs[name].path) as view:  # ties too
            Decisions(view).apply(Plan("all", (Rule.parse("when true then keep"),)), origin="test")
    return runs


@pytest.mark.parametrize(("name", "container"), WRITTEN)
@pytest.mark.parametrize("data", REAL)
def test_real_data_come_back(data, name, container, real_runs, tmp_path):
    run = real_runs[data]
    expected = [pair for pair in pairs_of(run) if fits(name, pair)]
    report = exported(run, tmp_path / "out", name, container)
    assert read_back(tmp_path / "out" / report["files"][0]["file"], tmp_path / "again") == expected
    assert report["exported"] == len(expected) > 0


# --- columns ---


@pytest.mark.parametrize("name", EXPORTERS)
def test_columns_that_the_run_lacks_are_not_written(name, tmp_path):
    report = exported(make_run(tmp_path, [TRL]), tmp_path / "out", name)
    assert report["columns"] == [column for column in EXPORTERS[name].columns if column not in OPTIONAL]
    (line,) = lines_of(tmp_path / "out" / report["files"][0]["file"])
    assert list(line) == report["columns"]


def test_an_unknown_format_is_named():
    with pytest.raises(ConfigError, match=r"--format csv: unknown; choose one of trl, .*, llm-comparator, source"):
        named("csv")


# --- LLaMA-Factory ---

DOCUMENTED = [  # the preference dataset of its data/README.md, in sharegpt format
    {
        "conversations": [
            {"from": "human", "value": "human instruction"},
            {"from": "gpt", "value": "model response"},
            {"from": "human", "value": "human instruction"},
        ],
        "chosen": {"from": "gpt", "value": "chosen answer (required)"},
        "rejected": {"from": "gpt", "value": "rejected answer (required)"},
    }
]
DESCRIBED = {  # and what it says of it in dataset_info.json
    "formatting": "sharegpt",
    "ranking": True,
    "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
}


def test_llamafactorys_documented_example_is_written_as_it_stands(tmp_path):
    exported(make_run(tmp_path, DOCUMENTED), tmp_path / "out", "llamafactory")
    (line,) = lines_of(tmp_path / "out" / "train.jsonl")
    assert {name: line[name] for name in DOCUMENTED[0]} == DOCUMENTED[0]
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_text())
    assert info["curate_train"].items() >= DESCRIBED.items()
    assert (tmp_path / "out" / info["curate_train"]["file_name"]).is_file()


def accepted(line, described):
    """Whether LLaMA-Factory's converter takes a pair; it skips the others with a warning. Its rules, written anew."""
    tags, columns = described["tags"], described["columns"]
    turns = line[columns["messages"]]
    if turns[0][tags["role_tag"]] == tags["system_tag"]:
        turns = turns[1:]
    by_turn = [(tags["user_tag"], "observation"), (tags["assistant_tag"], "function_call")]
    in_turn = all(it[tags["role_tag"]] in by_turn[at % 2] for at, it in enumerate(turns))
    sides = [line[columns[side]] for side in ("chosen", "rejected")]
    return (
        in_turn
        and len(turns) % 2 == 1
        and all(
            isinstance(side, dict)
            and side[tags["role_tag"]] in by_turn[1]
            and isinstance(side[tags["content_tag"]], str)
            for side in sides
        )
    )


@pytest.mark.parametrize("data", REAL)
def test_llamafactory_skips_none_of_our_pairs(data, real_runs, tmp_path):
    exported(real_runs[data], tmp_path / "out", "llamafactory")
    described = json.loads((tmp_path / "out" / "dataset_info.json").read_text())["curate_train"]
    lines = lines_of(tmp_path / "out" / described["file_name"])
    assert lines
    assert all(accepted(line, described) for line in lines)


# --- LLM Comparator ---


def test_llm_comparator_has_all_that_its_readme_requires(tmp_path):
    rows = [{"prompt": "?", "chosen": "a", "rejected": str(at), "annotator": f"ann{at}"} for at in range(4)]
    actions = [(0, "soft", 0.75), (1, "flip", None), (2, "soft", 0.5), (3, "keep", None)]
    exported(make_run(tmp_path, rows), tmp_path / "out", "llm-comparator", actions=actions)
    found = json.loads((tmp_path / "out" / "train.json").read_text())
    assert found["models"] == [{"name": "chosen"}, {"name": "rejected"}]
    assert found["metadata"]["source_path"] == str(tmp_path / "run")
    assert {it["name"] for it in found["metadata"]["custom_fields_schema"]} == set(
        found["examples"][0]["custom_fields"]
    )
    assert [it["score"] for it in found["examples"]] == [1.5] * 4
    assert [it["custom_fields"]["p_flip"] for it in found["examples"]] == [0.25, 0, 0.5, 0]
    assert [it["output_text_a"] for it in found["examples"]] == ["a", "1", "a", "a"]
    votes = [it["individual_rater_scores"] for it in found["examples"]]
    assert votes[0] == [{"is_flipped": False, "score": 1.5, "rationale": "ann0"}]
    assert votes[1] == [{"is_flipped": False, "score": -1.5, "rationale": "ann1"}]


def test_the_card_says_how_each_is_loaded(tmp_path):
    run = make_run(tmp_path, [TRL])
    for name in EXPORTERS:
        report = exported(run, tmp_path / name, name)
        card = (tmp_path / name / "README.md").read_text()
        assert report["use"] in card
        assert re.search(r"train\.|curate_train|llm-comparator/", report["use"])
