"""Scoring: tables against a plain computation one sequence at a time, and what is done again after a change."""

import json
import os
import shutil
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from curate import models, scoring
from curate.config import ComputeConfig, IngestConfig, ScoreConfig
from curate.engines import score
from curate.errors import ModelError, RunError
from curate.logprobs import Scorer
from curate.pairs import ingest
from curate.schema import PASS, SCORES, features_schema
from curate.scoring import Worker
from curate.store import Run, remove_leftovers
from curate.tokens import TokenizedPair
from curate.view import RunView

CPU = ComputeConfig(device="cpu")
NATS = 2e-4
SIDES = ("chosen", "rejected")

#: Answers are not closed, so that an empty one has no token; one word is not allowed.
TEMPLATE = (
    "{% for message in messages %}{% if 'forbidden' in message['content'] %}{{ raise_exception('not that word') }}"
    "{% endif %}<|{{ message['role'] }}|>{{ message['content'] }}{% if message['role'] == 'user' %}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ROOM, PROMPT_ROOM = 60, 30

#: prompt, first, second, label; the third row is no pair, so that rows and positions differ.
ROWS = [
    ("Why is the sky blue?", "Rayleigh scattering.", "It is not.", "first"),
    ("Why is the sky blue?", "It is not.", "Because of the sea.", "second"),
    ("This row has no label", "a", "b", "who knows"),
    ("Why is the sky blue?", "Rayleigh scattering.", "It is not.", "first"),
    ("A tie", "left", "right", "tie"),
    ("No answer", "", "Some answer", "first"),
    ("No answers", "", "", "first"),
    ("Twice the same", "same", "same", "first"),
    ("A prompt that is longer than it may be. " * 2, "short", "a rejected answer that is too long", "first"),
    ("Short prompt", "An answer that is far longer than the room there is left for it.", "Short", "first"),
    ("Same beginning", "x" * 100, "x" * 99 + "y", "first"),
    ("A forbidden prompt", "chosen", "rejected", "first"),
    ("Unicode", "日本語 🙂", "naïve", "second"),
]
PAIRS_THERE = [(row, *values) for row, values in enumerate(ROWS) if values[3] != "who knows"]
UNSCORED = "the chat template refuses it: not that word"


def load_rows(run, path, rows, **options):
    names = ("q", "a", "b", "label")
    path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    columns = {"prompt": "q", "response_a": "a", "response_b": "b", "label": "label"}
    labels = {"a": "first", "b": "second", "tie": "tie"}
    ingest(IngestConfig((str(path),), columns=columns, label_values=labels), run, **options)
    return run


def scores(run):
    return pq.read_table(run.scores_path)


def shards(run, name="policy"):
    """The files of a pass: its shards in order, and the others."""
    folder = run.path / run.require("score")["passes"][name]["folder"]
    return sorted(folder.glob("0*.parquet"))


def times(folder):
    files = (path for path in folder.rglob("*.parquet"))
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def changed(before, after):
    """Names of the files that were written."""
    return {name for name in after if after[name] != before.get(name)}


# --- against a plain computation ---


class Plain:
    """One sequence at a time through the whole model."""

    def __init__(self, folder):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def ids(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @torch.inference_mode()
    def read(self, prompt, completion):
        """Σ log p of the completion's tokens, and the mean hidden states over them, of layers 2 of 4 and 4 of 4."""
        if not completion:
            return 0.0, None
        output = self.model(torch.tensor([[*prompt, *completion]]), output_hidden_states=True)
        logp_TV = output.logits[0].double().log_softmax(-1)
        total = sum(logp_TV[len(prompt) - 1 + i, token].item() for i, token in enumerate(completion))
        return total, [output.hidden_states[i][0, len(prompt) :].mean(0).numpy() for i in (2, 4)]


@pytest.fixture(scope="module")
def plain(tiny_policy):
    return Plain(tiny_policy)


@pytest.fixture(scope="module")
def plain_reference(tiny_reference):
    return Plain(tiny_reference)


def expected_pair(plain, prompt, first, second, label):
    """Token ids of the prompt and both sides, cut to length, and what was cut; rendered without the template."""
    texts = (second, first) if label == "second" else (first, second)
    opened = plain.ids(f"<|user|>{prompt}<|end|><|assistant|>")
    sides = [plain.ids(text) for text in texts]
    cut = len(opened) > PROMPT_ROOM and len(opened) + max(map(len, sides)) > ROOM
    if cut:
        opened = opened[-PROMPT_ROOM:]
    room = ROOM - len(opened)
    return opened, [side[:room] for side in sides], (cut, *(len(side) > room for side in sides))


@pytest.fixture(scope="module")
def everything(tmp_path_factory, tiny_policy, tiny_reference):
    """All passes over all sorts of pairs, in shards of 5."""
    folder = tmp_path_factory.mktemp("everything")
    (folder / "template.jinja").write_text(TEMPLATE)
    run = load_rows(Run.create(folder / "run"), folder / "pairs.jsonl", ROWS)
    config = ScoreConfig(
        policy=str(tiny_policy),
        reference=str(tiny_reference),
        unconditional=True,
        template=str(folder / "template.jinja"),
        max_length=ROOM,
        max_prompt_length=PROMPT_ROOM,
        shard_pairs=5,
    )
    score(run, config, CPU)
    return run


def test_scores_are_those_of_a_plain_computation(everything, plain, plain_reference):
    table = scores(everything)
    assert table.schema.equals(SCORES)
    header = plain.ids("<|assistant|>")
    pair_ids = everything.read_pairs(0, 12)["pair_id"].to_pylist()
    for found, (row, *values), pair_id in zip(table.to_pylist(), PAIRS_THERE, pair_ids, strict=True):
        assert (found["row"], found["pair_id"]) == (row, pair_id)
        if "forbidden" in values[0]:
            assert found == dict.fromkeys(found) | {"row": row, "pair_id": pair_id, "unscored": UNSCORED}
            continue
        prompt, sides, cut = expected_pair(plain, *values)
        logps = {
            f"{name}_{side}_logp": model.read(before, ids)[0]
            for name, model, before in (
                ("policy", plain, prompt),
                ("reference", plain_reference, prompt),
                ("policy_unconditional", plain, header),
            )
            for side, ids in zip(SIDES, sides, strict=True)
        }
        assert {name: found[name] for name in logps} == pytest.approx(logps, abs=NATS), row
        assert {name: value for name, value in found.items() if name not in logps} == {
            "pair_id": pair_id,
            "row": row,
            "chosen_tokens": len(sides[0]),
            "rejected_tokens": len(sides[1]),
            "prompt_tokens": len(prompt),
            "prompt_truncated": cut[0],
            "chosen_truncated": cut[1],
            "rejected_truncated": cut[2],
            "identical_tokens": sides[0] == sides[1],
            "boundary_shift_tokens": 0,
            "unscored": None,
            "reward_chosen": None,
            "reward_rejected": None,
        }


def test_the_pairs_are_as_odd_as_they_should_be(everything):
    """So that the comparison with the plain computation says something."""
    table = scores(everything).to_pylist()
    flags = Counter(name for pair in table for name in pair if pair[name] is True)
    assert flags == {"prompt_truncated": 1, "chosen_truncated": 2, "rejected_truncated": 2, "identical_tokens": 3}
    assert [pair["row"] for pair in table if pair["chosen_tokens"] == 0] == [5, 6]
    assert len({pair["pair_id"] for pair in table}) == len(table) - 1


def test_what_the_manifest_says(everything, plain):
    record = everything.require("score")
    assert (record["pairs"], record["unscored"], record["truncated"]) == (12, 1, 3)
    assert list(record["passes"]) == ["policy", "policy_unconditional", "reference"]
    expected = Counter()
    for start in (0, 5, 10):  # a token is computed once a shard
        sequences = [
            expected_pair(plain, *values)[:2]
            for _, *values in PAIRS_THERE[start : start + 5]
            if "forbidden" not in values[0]
        ]
        answered = {(tuple(prompt), tuple(side)) for prompt, sides in sequences for side in sides if side}
        answers = sum(len(side) for _, side in answered)
        expected["policy"] += answers + sum(map(len, {prompt for prompt, _ in answered}))
        expected["policy_unconditional"] += sum(map(len, {side for _, side in answered})) + 1
    expected["reference"] = expected["policy"]
    assert {name: one["tokens"] for name, one in record["passes"].items()} == expected
    assert {(one["kernel"], one["why_padded"], one["device"]) for one in record["passes"].values()} == {
        ("packed", None, "cpu")
    }


def test_features_are_mean_hidden_states_and_stand_in_the_pairs_order(everything, plain):
    files = sorted((shards(everything)[0].parent / "features").glob("*.parquet"))
    tables = [pq.read_table(file) for file in files]
    assert [len(table) for table in tables] == [5, 5, 2]
    assert all(table.schema.equals(features_schema(32)) for table in tables)
    found = [pair for table in tables for pair in table.to_pylist()]
    assert [(pair["pair_id"], pair["row"]) for pair in found] == list(
        zip(*scores(everything).select(["pair_id", "row"]).to_pydict().values(), strict=True)
    )
    for pair, (_, *values) in zip(found, PAIRS_THERE, strict=True):
        prompt, sides, _ = expected_pair(plain, *values)
        for side, ids in zip(SIDES, sides, strict=True):
            _, states = plain.read(prompt, [] if "forbidden" in values[0] else ids)
            for number, layer in enumerate(("middle", "last")):
                vector = pair[f"{side}_{layer}"]
                if states is None:
                    assert vector is None
                else:
                    np.testing.assert_allclose(vector, states[number], rtol=2e-3, atol=2e-3)


def test_features_are_kept_for_the_policy_alone(everything):
    kept = {path.parts[-3].split("-")[0] for path in everything.path.glob("scores/*/features/*.parquet")}
    assert kept == {"policy"}


@pytest.mark.parametrize("name", ["policy", "reference"])
def test_the_noise_floor_holds_the_same_scores_in_another_batch_shape(everything, plain, plain_reference, name):
    model = {"policy": plain, "reference": plain_reference}[name]
    found = pq.read_table(shards(everything, name)[0].parent / "noise_floor.parquet").to_pylist()
    assert [pair["row"] for pair in found] == [PAIRS_THERE[at][0] for at in (0, 2, 3, 5, 6, 8, 9, 11)]
    for pair in found:
        prompt, sides, _ = expected_pair(model, *ROWS[pair["row"]])
        for side, ids in zip(SIDES, sides, strict=True):
            assert pair[f"{side}_logp"] == pytest.approx(model.read(prompt, ids)[0], abs=NATS)


def test_a_noise_floor_spreads_over_the_dataset(tmp_path, tiny_policy):
    rows = [(f"q{i}", f"a{i}", f"b{i}", "first") for i in range(20)]
    run = load_rows(Run.create(tmp_path / "run"), tmp_path / "pairs.jsonl", rows)
    score(run, ScoreConfig(policy=str(tiny_policy), features=False), CPU)
    rescored = pq.read_table(shards(run)[0].parent / "noise_floor.parquet")
    assert rescored["row"].to_pylist() == [0, 3, 5, 8, 11, 14, 16, 19]


def test_shards_hold_their_pairs_in_order(everything):
    tables = [pq.read_table(file) for file in shards(everything)]
    assert all(table.schema.equals(PASS) for table in tables)
    assert [table["row"].to_pylist() for table in tables] == [[0, 1, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12]]


def test_each_unique_sequence_is_computed_once(tmp_path, monkeypatch, tiny_policy, plain):
    """All six pairs of four answers, one of them flipped and repeated: one prompt and four answers go forward."""
    answers = ["one", "two, three", "four", "five, six and seven"]
    rows = [("Count!", a, b, "first") for i, a in enumerate(answers) for b in answers[i + 1 :]]
    rows += [("Count!", "one", "four", "second"), rows[0]]
    forwarded, seen = [], []
    load, scored = models.load_model, Scorer.score

    def watched_load(*args, **kwargs):
        model = load(*args, **kwargs)
        model.get_input_embeddings().register_forward_hook(lambda module, ids, _: seen.append(ids[0].numel()))
        return model

    def watched_score(self, groups):
        seen.clear()
        result = scored(self, groups)
        forwarded.append(sum(seen))
        return result

    monkeypatch.setattr(models, "load_model", watched_load)
    monkeypatch.setattr(Scorer, "score", watched_score)
    run = load_rows(Run.create(tmp_path / "run"), tmp_path / "pairs.jsonl", rows)
    record = score(run, ScoreConfig(policy=str(tiny_policy)), CPU)
    tokens = len(plain.ids("<|user|>Count!<|end|><|assistant|>")) + sum(len(plain.ids(f"{a}<|end|>")) for a in answers)
    assert forwarded == [tokens]
    assert record["passes"]["policy"]["tokens"] == tokens
    logp = {
        answer: plain.read(plain.ids("<|user|>Count!<|end|><|assistant|>"), plain.ids(f"{answer}<|end|>"))[0]
        for answer in answers
    }
    for pair, (_, a, b, label) in zip(scores(run).to_pylist(), rows, strict=True):
        chosen, rejected = (b, a) if label == "second" else (a, b)
        assert pair["policy_chosen_logp"] == pytest.approx(logp[chosen], abs=NATS)
        assert pair["policy_rejected_logp"] == pytest.approx(logp[rejected], abs=NATS)


def test_a_reference_with_another_tokenizer_is_refused(tmp_path, tiny_policy, tiny_reference):
    other = shutil.copytree(tiny_reference, tmp_path / "other")
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.add_tokens(["<|more|>"])
    tokenizer.save_pretrained(other)
    run = load_rows(Run.create(tmp_path / "run"), tmp_path / "pairs.jsonl", ROWS)
    with pytest.raises(ModelError, match=r"policy .* and reference .* have different tokenizers"):
        score(run, ScoreConfig(policy=str(tiny_policy), reference=str(other)), CPU)


@pytest.mark.parametrize(
    ("pairs", "size"), [(1, 64), (65_535, 64), (65_536, 128), (100_000, 128), (130_000, 128), (10**9, 4096)]
)
def test_a_dataset_that_grows_a_little_keeps_its_shards(pairs, size):
    assert scoring._default_shard_pairs(pairs) == size


# --- what is done again ---

TEN = [(f"question {i}", f"answer {i}", f"other answer {i} " * 3, "first") for i in range(10)]
FEATURES = {f"features/{shard:05d}.parquet" for shard in range(3)}
SHARDS = {f"{shard:05d}.parquet" for shard in range(3)}


@pytest.fixture(scope="module")
def config(tiny_policy):
    """Ten pairs in shards of 4: 0–3, 4–7, 8–9."""
    return ScoreConfig(policy=str(tiny_policy), shard_pairs=4)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, config):
    folder = tmp_path_factory.mktemp("finished")
    run = load_rows(Run.create(folder / "run"), folder / "pairs.jsonl", TEN)
    score(run, config, CPU)
    return run


@pytest.fixture
def run(finished, tmp_path):
    """A finished run of one's own."""
    return Run(shutil.copytree(finished.path, tmp_path / "run"))


@pytest.fixture
def loaded(monkeypatch):
    """The models that are loaded from now on."""
    seen, load = [], models.load_model

    def watched(source, *args, **kwargs):
        seen.append(source.spec)
        return load(source, *args, **kwargs)

    monkeypatch.setattr(models, "load_model", watched)
    return seen


def policy_folder(run):
    return shards(run)[0].parent


@contextmanager
def interrupted(owner, name, at):
    """Ctrl-C in the first call of a function whose arguments are `at`."""
    original = getattr(owner, name)

    def watched(*args):
        if at(*args):
            raise KeyboardInterrupt
        return original(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, watched)
        with pytest.raises(KeyboardInterrupt):
            yield


def second_shard(worker, task):
    return task.shard == 1


def same_features(found, expected):
    return found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in found)


def test_a_finished_run_is_left_alone(run, config, loaded):
    before = times(run.path)
    record = score(run, config, CPU)
    assert record == run.require("score")
    assert times(run.path) == before
    assert loaded == []


def test_compute_settings_change_nothing(run, config, loaded):
    before = times(run.path)
    score(run, config, ComputeConfig(device="cpu", batch_tokens=7))
    assert times(run.path) == before


def test_scoring_goes_on_where_it_stopped(finished, tmp_path, config, loaded):
    run = load_rows(Run.create(tmp_path / "run"), tmp_path / "pairs.jsonl", TEN)
    with interrupted(Worker, "do", second_shard):
        score(run, config, CPU)
    assert run.stage("score") is None
    assert not run.scores_path.exists()
    (folder,) = (run.path / "scores").iterdir()
    before = times(folder)
    assert before.keys() == {"00000.parquet", "features/00000.parquet"}
    score(run, config, CPU)
    assert changed(before, times(folder)) == (SHARDS | FEATURES | {"noise_floor.parquet"}) - before.keys()
    assert scores(run).equals(scores(finished))
    assert loaded == [config.policy] * 2


@pytest.mark.parametrize("gone", ["00001.parquet", "features/00001.parquet", "noise_floor.parquet"])
def test_only_what_is_missing_is_done(finished, run, config, gone):
    folder, before = policy_folder(run), times(policy_folder(run))
    (folder / gone).unlink()
    run.strike("score")
    score(run, config, CPU)
    assert changed(before, times(folder)) == ({gone} if gone[0] == "n" else {"00001.parquet", "features/00001.parquet"})
    assert scores(run).equals(scores(finished))
    assert pq.read_table(folder / gone).equals(pq.read_table(policy_folder(finished) / gone))


def test_a_lost_table_is_merged_from_the_shards(finished, run, config, loaded):
    run.scores_path.unlink()
    before = times(run.path)
    score(run, config, CPU)
    assert changed(before, times(run.path)) == {"scores.parquet"}
    assert scores(run).equals(scores(finished))
    assert loaded == []


def garbage_footer(content):
    """The footer's length and mark are right, what they point to is not."""
    length = int.from_bytes(content[-8:-4], "little")
    return content[: -8 - length] + b"\xff" * length + content[-8:]


DAMAGES = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "without its end": lambda content: content[:-1],
    "zeros": lambda content: bytes(len(content)),
    "garbage footer": garbage_footer,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["00001.parquet", "features/00001.parquet", "noise_floor.parquet"])
def test_a_damaged_file_is_done_again(finished, run, config, name, damage):
    file = policy_folder(run) / name
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    run.strike("score")
    score(run, config, CPU)
    assert pq.read_table(file).equals(pq.read_table(policy_folder(finished) / name))
    assert scores(run).equals(scores(finished))


def test_a_shard_with_damaged_pages_is_named(finished, run, config):
    """Its footer is whole, so that it counts as done; the merge finds out."""
    file = shards(run)[1]
    content = file.read_bytes()
    file.write_bytes(content[:4] + b"\xff" * 300 + content[304:])
    run.strike("score")
    with pytest.raises(RunError, match=r"00001\.parquet: damaged; delete it and run the same command again"):
        score(run, config, CPU)
    file.unlink()
    score(run, config, CPU)
    assert scores(run).equals(scores(finished))


def test_a_changed_pair_redoes_its_shard(run, tmp_path, config):
    """Position 7 is not among the pairs of the noise floor."""
    rows = [*TEN[:7], ("question 7", "a new answer", "other answer", "first"), *TEN[8:]]
    before = times(policy_folder(run))
    load_rows(run, tmp_path / "new.jsonl", rows, replace_data=True)
    score(run, config, CPU)
    assert changed(before, times(policy_folder(run))) == {"00001.parquet", "features/00001.parquet"}
    fresh = load_rows(Run.create(tmp_path / "fresh"), tmp_path / "new.jsonl", rows)
    score(fresh, config, CPU)
    assert scores(run).equals(scores(fresh))


def test_a_changed_pair_of_the_noise_floor_redoes_that_too(run, tmp_path, config):
    before = times(policy_folder(run))
    rows = [("question 0", "a new answer", "other answer", "first"), *TEN[1:]]
    load_rows(run, tmp_path / "new.jsonl", rows, replace_data=True)
    score(run, config, CPU)
    redone = {"00000.parquet", "features/00000.parquet", "noise_floor.parquet"}
    assert changed(before, times(policy_folder(run))) == redone


def test_appended_rows_redo_the_last_shard(finished, run, tmp_path, config):
    before = times(policy_folder(run))
    more = [(f"more {i}", "x", "y", "first") for i in range(3)]
    load_rows(run, tmp_path / "new.jsonl", [*TEN, *more], replace_data=True)
    score(run, config, CPU)
    written = {f"{folder}{shard:05d}.parquet" for folder in ("", "features/") for shard in (2, 3)}
    assert changed(before, times(policy_folder(run))) == written | {"noise_floor.parquet"}
    assert scores(run).slice(0, 8).equals(scores(finished).slice(0, 8))
    assert scores(run)["row"].to_pylist() == list(range(13))


def test_features_follow_a_dataset_that_shrinks(finished, run, tmp_path, config):
    """The shard that is no longer needed stays, and counts no longer."""
    load_rows(run, tmp_path / "new.jsonl", TEN[:6], replace_data=True)
    score(run, config, CPU)
    found, whole = RunView(run.path).features(), RunView(finished.path).features()
    assert {name: len(values) for name, values in found.items()} == dict.fromkeys(whole, 6)
    assert all(np.array_equal(found[name][:4], whole[name][:4]) for name in whole)


@pytest.fixture
def changes(tiny_reference):
    return {
        "dtype": {"dtype": "bfloat16"},
        "template": {"template": "plain"},
        "policy": {"policy": str(tiny_reference)},
        "max_length": {"max_length": 40, "max_prompt_length": 20},
        "max_prompt_length": {"max_prompt_length": 20},
        "shard_pairs": {"shard_pairs": 3},
        "features": {"features": False},
    }


@pytest.mark.parametrize(
    ("name", "other_scores"),
    [
        ("dtype", True),
        ("template", True),
        ("policy", True),
        ("max_length", True),
        ("max_prompt_length", False),  # no prompt here is as long as that
        ("shard_pairs", False),
        ("features", False),
    ],
)
def test_another_setting_has_its_own_shards_and_the_old_ones_serve_again(
    finished, run, config, changes, name, other_scores, loaded
):
    before = times(run.path / "scores")
    score(run, replace(config, **changes[name]), CPU)
    after = times(run.path / "scores")
    assert {path: after[path] for path in before} == before
    assert len({path.split("/")[0] for path in after}) == 2
    found, known = (scores(one)["policy_rejected_logp"].to_numpy() for one in (run, finished))
    assert (np.abs(found - known) > NATS).all() == other_scores
    loaded.clear()
    score(run, config, CPU)
    assert loaded == []
    assert times(run.path / "scores") == after
    assert scores(run).equals(scores(finished))


def test_a_template_that_was_edited_is_another_one(run, tmp_path, config):
    file = tmp_path / "mine.jinja"
    keys = []
    for closing in ("<|end|>", ""):
        file.write_text("{% for m in messages %}{{ m['content'] }}" + closing + "{% endfor %}")
        keys.append(score(run, replace(config, template=str(file)), CPU)["passes"]["policy"]["folder"])
    assert len(set(keys)) == 2


def test_a_reference_that_comes_later_is_scored_alone(finished, run, config, tiny_reference, loaded, plain_reference):
    before = times(policy_folder(run))
    score(run, replace(config, reference=str(tiny_reference)), CPU)
    assert loaded == [str(tiny_reference)]
    assert times(policy_folder(run)) == before
    table = scores(run)
    known = [name for name in SCORES.names if not name.startswith("reference")]
    assert table.select(known).equals(scores(finished).select(known))
    prompt = plain_reference.ids("<|user|>question 9<|end|><|assistant|>")
    logp, _ = plain_reference.read(prompt, plain_reference.ids("answer 9<|end|>"))
    assert table["reference_chosen_logp"][9].as_py() == pytest.approx(logp, abs=NATS)


def test_another_reference_is_scored_alone(run, config, tiny_policy, tiny_reference, loaded):
    score(run, replace(config, reference=str(tiny_reference)), CPU)
    loaded.clear()
    score(run, replace(config, reference=str(tiny_policy)), CPU)
    assert loaded == [str(tiny_policy)]
    table = scores(run)
    assert table["reference_chosen_logp"].equals(table["policy_chosen_logp"])


def test_unconditional_scores_that_come_later_are_scored_alone(finished, run, config, plain):
    before = times(policy_folder(run))
    score(run, replace(config, unconditional=True), CPU)
    assert times(policy_folder(run)) == before
    logp, _ = plain.read(plain.ids("<|assistant|>"), plain.ids("answer 9<|end|>"))
    assert scores(run)["policy_unconditional_chosen_logp"][9].as_py() == pytest.approx(logp, abs=NATS)
    assert scores(run)["policy_chosen_logp"].equals(scores(finished)["policy_chosen_logp"])


def test_shards_of_another_size_give_the_same_scores(finished, run, config):
    for size in (1, 3, 100):
        score(run, replace(config, shard_pairs=size), CPU)
        assert len(shards(run)) == -(-10 // size)
        for name in ("policy_chosen_logp", "policy_rejected_logp"):
            np.testing.assert_allclose(scores(run)[name], scores(finished)[name], rtol=0, atol=NATS)
        found, whole = RunView(run.path).features(), RunView(finished.path).features()
        for layer in whole:
            np.testing.assert_allclose(found[layer], whole[layer], rtol=2e-3, atol=2e-3)


def test_a_run_whose_shards_are_being_resized_stays_whole(finished, run, config):
    with interrupted(Worker, "do", second_shard):
        score(run, replace(config, shard_pairs=3), CPU)
    assert run.require("score") == finished.require("score")
    assert scores(run).equals(scores(finished))
    assert same_features(RunView(run.path).features(), RunView(finished.path).features())


def test_features_of_an_attempt_that_was_given_up_do_not_stay(finished, run, tmp_path, config):
    """Cut off between the features and the shard of changed data; then the old data comes back."""
    shard = policy_folder(run) / "00001.parquet"
    load_rows(run, tmp_path / "new.jsonl", [*TEN[:7], ("q", "new", "newer", "first"), *TEN[8:]], replace_data=True)
    with interrupted(scoring, "write_table", lambda target, *_: target == shard):
        score(run, config, CPU)
    load_rows(run, tmp_path / "old.jsonl", TEN, replace_data=True)
    score(run, config, CPU)
    assert same_features(RunView(run.path).features(), RunView(finished.path).features())


def test_leftovers_of_killed_workers_go_with_the_merge(run, config):
    leftover = policy_folder(run) / "features" / ".00000.parquet.0a1b2c3d.tmp"
    leftover.touch()
    run.strike("score")
    score(run, config, CPU)
    assert not leftover.exists()


def test_a_run_may_move(finished, run, tmp_path, config, loaded):
    moved = Run(tmp_path / "elsewhere")
    os.replace(run.path, moved.path)
    remove_leftovers(moved.path)
    score(moved, config, CPU)
    assert loaded == []
    assert same_features(RunView(moved.path).features(), RunView(finished.path).features())


def test_a_log_prob_that_is_not_finite_is_a_reason_not_a_score():
    encoded = [TokenizedPair((1,), (2,), (3,), (1,)), TokenizedPair((1,), (2,), (), (1,)), "the template refuses it"]
    sequences = scoring._Sequences(encoded, unconditional=False)
    pairs = pa.table({"pair_id": ["a", "b", "c"], "row": [0, 1, 2]})
    assert sequences.side_N2.tolist() == [[0, 1], [0, -1], [-1, -1]]
    table = scoring._pass_table(pairs, encoded, sequences, np.array([-1.0, -np.inf])).to_pydict()
    assert table["chosen_logp"] == [None, -1.0, None]
    assert table["rejected_logp"] == [None, 0.0, None]
    assert table["unscored"] == [
        "a log-prob is not finite; choose another --dtype",
        None,
        "the template refuses it",
    ]
