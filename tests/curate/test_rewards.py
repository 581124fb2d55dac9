"""Rewards: against a plain computation one conversation at a time, as a pass among the others, and what is refused."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from curate import models, scoring
from curate.cli import app
from curate.config import ComputeConfig, IngestConfig, ScoreConfig, WeighConfig
from curate.engines import score
from curate.errors import ModelError
from curate.formats import Message
from curate.models import Device
from curate.pairs import ingest
from curate.report import summarize
from curate.rewards import Conversations, Rewarder, _batches, rewards_table
from curate.schema import REWARDS, SCORES
from curate.scoring import Worker, make_reward_encoder
from curate.store import Run, write_table
from curate.tokens import PLAIN_TEMPLATE, RAW_TEMPLATE, TokenizedPair
from curate.view import RunView
from curate.weighing import weigh

CPU = ComputeConfig(device="cpu")
ON_CPU = Device("cpu", "float32")
EXACT = 1e-5
SIDES = ("chosen", "rejected")

#: prompt, chosen, rejected; the templates below refuse one word.
ROWS = [
    ("Why is the sky blue?", "Rayleigh scattering.", "It is not."),
    ("Why is the sky blue?", "It is not.", "Rayleigh scattering."),
    ("No answer", "", "Some answer"),
    ("Twice the same", "same", "same"),
    ("Unicode", "日本語 🙂", "naïve"),
    ("A long one", "word " * 30, "short"),
    ("A forbidden prompt", "chosen", "rejected"),
    ("Count!", "one", "one, two, three, four"),
]
RAISING = (
    "{% for m in messages %}{% if 'forbidden' in m['content'] %}{{ raise_exception('no') }}{% endif %}{% endfor %}"
)


def load_rows(run, path, rows, **options):
    names = ("prompt", "chosen", "rejected")
    path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    ingest(IngestConfig((str(path),), columns={name: name for name in names}), run, **options)
    return run


def scores(run):
    return pq.read_table(run.scores_path)


def times(folder):
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}


def of_reward_model(names):
    return {name for name in names if name.startswith("reward_model-")}


class Plain:
    """One conversation at a time through the whole model in float64, as its authors would call it."""

    def __init__(self, folder, template=None):
        self.model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float64).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.template = template

    @torch.inference_mode()
    def reward(self, prompt, side):
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": side}]
        ids = self.tokenizer.apply_chat_template(
            messages, chat_template=self.template, tokenize=True, return_dict=True, return_tensors="pt"
        )
        return self.model(**ids).logits.item()


@pytest.fixture(scope="module")
def plain(tiny_reward_model):
    return Plain(tiny_reward_model)


@pytest.fixture(scope="module")
def config(tiny_policy, tiny_reward_model):
    return ScoreConfig(policy=str(tiny_policy), reward_model=str(tiny_reward_model), shard_pairs=3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, config):
    """Eight pairs in shards of 3; the reward model's template refuses a word that the policy's does not."""
    folder = tmp_path_factory.mktemp("rewards")
    picky = shutil.copytree(config.reward_model, folder / "picky")
    with (picky / "chat_template.jinja").open("a") as stream:
        stream.write(RAISING)
    run = load_rows(Run.create(folder / "run"), folder / "pairs.jsonl", ROWS)
    score(run, replace(config, reward_model=str(picky)), CPU)
    return run


@pytest.fixture
def run(tmp_path):
    return load_rows(Run.create(tmp_path / "run"), tmp_path / "pairs.jsonl", ROWS)


# --- the values ---


def test_rewards_are_those_of_a_plain_computation(finished, plain):
    table = scores(finished)
    assert table.schema.equals(SCORES)
    for found, (prompt, *sides) in zip(table.to_pylist(), ROWS, strict=True):
        rewards = [found[f"reward_{side}"] for side in SIDES]
        if "forbidden" in prompt:
            assert rewards == [None, None]
            assert found["unscored"] is None
            assert found["policy_chosen_logp"] is not None
        else:
            assert rewards == pytest.approx([plain.reward(prompt, side) for side in sides], abs=EXACT), prompt


def test_the_rewards_tell_the_sides_apart(finished):
    difference_N = scores(finished)["reward_chosen"].to_numpy() - scores(finished)["reward_rejected"].to_numpy()
    assert np.nanmax(np.abs(difference_N)) > 0.1
    assert difference_N[3] == 0
    assert difference_N[0] == pytest.approx(-difference_N[1], abs=EXACT)


def test_the_shards_of_the_pass(finished):
    one = finished.require("score")["passes"]["reward_model"]
    files = sorted((finished.path / one["folder"]).glob("*.parquet"))
    assert [file.name for file in files] == ["00000.parquet", "00001.parquet", "00002.parquet"]  # and no noise floor
    tables = [pq.read_table(file) for file in files]
    assert all(table.schema.equals(REWARDS) for table in tables)
    reasons = [reason for table in tables for reason in table["unscored"].to_pylist()]
    assert reasons == [None] * 6 + ["the chat template refuses it: no", None]


def test_what_the_manifest_and_the_report_say(finished):
    one = finished.require("score")["passes"]["reward_model"]
    assert (one["kernel"], one["why_alone"], one["device"]) == ("padded", None, "cpu")
    assert (one["template"], one["max_length"], one["unscored"], one["truncated"]) == ("chat", 512, 1, 0)
    with RunView(finished.path) as view:
        scoring_summary = summarize(view)["scoring"]
    assert scoring_summary["models"]["reward_model"] == one["spec"]
    rewards = scoring_summary["rewards"]
    table = scores(finished).to_pylist()
    assert rewards["agree"] == sum((pair["reward_chosen"] or 0) > (pair["reward_rejected"] or 0) for pair in table)
    assert rewards["agree"] + rewards["contradict"] == 6
    shown = CliRunner().invoke(app, ["show", str(finished.path)], terminal_width=500).output
    assert "reward model" in shown
    assert "padded kernel, chat template, 1 pairs unscored" in " ".join(shown.split())


def test_swapped_sides_swap_the_rewards(finished, config, tmp_path):
    rows = [(prompt, rejected, chosen) for prompt, chosen, rejected in ROWS]
    swapped = load_rows(Run.create(tmp_path / "swapped"), tmp_path / "swapped.jsonl", rows)
    score(swapped, replace(config, reward_model=finished.require("score")["config"]["reward_model"]), CPU)
    for side, other in (SIDES, SIDES[::-1]):
        found, known = (
            table[f"reward_{one}"].to_numpy() for table, one in ((scores(swapped), side), (scores(finished), other))
        )
        np.testing.assert_allclose(found, known, rtol=0, atol=EXACT)


def test_long_pairs_are_cut_as_the_policys_are(run, config, plain):
    """To the last 30 tokens of a prompt, and to 60 in all; a token is a byte."""
    rows = [("A prompt that is longer than it may be", "a short answer", "Another answer that is too long")]
    load_rows(run, run.path.parent / "long.jsonl", rows, replace_data=True)
    record = score(run, replace(config, max_length=60, max_prompt_length=30, features=False), CPU)
    assert record["passes"]["reward_model"]["truncated"] == record["truncated"] == 1
    opened = plain.tokenizer(f"<|user|>{rows[0][0]}<|end|><|assistant|>", add_special_tokens=False)["input_ids"]
    (found,) = scores(run).to_pylist()
    for side, text in zip(SIDES, rows[0][1:], strict=True):
        ids = plain.tokenizer(f"{text}<|end|>", add_special_tokens=False)["input_ids"]
        expected = plain.model(torch.tensor([[*opened[-30:], *ids[:30]]])).logits.item()
        assert found[f"reward_{side}"] == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize("template", ["plain", "raw"])
def test_another_template(run, config, tiny_reward_model, template):
    score(run, replace(config, template=template, features=False), CPU)
    plain = Plain(tiny_reward_model, {"plain": PLAIN_TEMPLATE, "raw": RAW_TEMPLATE}[template])
    for found, (prompt, *sides) in zip(scores(run).to_pylist(), ROWS, strict=True):
        rewards = [found[f"reward_{side}"] for side in SIDES]
        assert rewards == pytest.approx([plain.reward(prompt, side) for side in sides], abs=EXACT)


# --- the kernel ---


@pytest.fixture(scope="module")
def conversations():
    random = np.random.default_rng(7)
    return [tuple(random.integers(0, 256, length).tolist()) for length in random.integers(1, 60, 40)]


@pytest.fixture(scope="module")
def rewarder(tiny_reward_model):
    model = AutoModelForSequenceClassification.from_pretrained(tiny_reward_model)
    return Rewarder(model.eval(), ON_CPU)


def rewards_alone(rewarder, conversations):
    return np.concatenate([rewarder._forward([ids]) for ids in conversations])


@pytest.mark.parametrize("batch_tokens", [1, 64, 500, 100_000])
def test_the_shape_of_the_batch_does_not_matter(rewarder, conversations, batch_tokens):
    rewarder.batch_tokens = batch_tokens
    expected = rewards_alone(rewarder, conversations)
    np.testing.assert_allclose(rewarder.reward(conversations), expected, rtol=0, atol=EXACT)


def test_batches_fit_the_budget_with_their_padding(conversations):
    batches = list(_batches(conversations, 100))
    assert sorted(index for batch in batches for index in batch) == list(range(40))
    sizes = [len(batch) * max(len(conversations[index]) for index in batch) for batch in batches]
    assert max(sizes) <= 100
    assert [len(batch) for batch in _batches(conversations, 1)] == [1] * 40
    assert list(_batches([], 100)) == []


def test_a_batch_that_does_not_fit_is_halved(rewarder, conversations, monkeypatch):
    expected = rewards_alone(rewarder, conversations)
    forward, sizes = rewarder._forward, []

    def small(batch):
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError
        return forward(batch)

    monkeypatch.setattr(rewarder, "_forward", small)
    monkeypatch.setattr(rewarder, "batch_tokens", 100_000)
    np.testing.assert_allclose(rewarder.reward(conversations), expected, rtol=0, atol=EXACT)
    assert sizes[:3] == [40, 20, 10]


def test_a_conversation_that_does_not_fit(rewarder, conversations, monkeypatch):
    def never(batch):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(rewarder, "_forward", never)
    longest = max(map(len, conversations))
    with pytest.raises(ModelError, match=f"a conversation of {longest} tokens does not fit into the memory of cpu"):
        rewarder.reward(conversations)


def changed_model(folder, tmp_path, **settings):
    """The reward model with other settings in its configuration."""
    copy = shutil.copytree(folder, tmp_path / "changed")
    file = copy / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return copy


def test_a_model_without_padding_token_takes_one_at_a_time(run, config, tiny_reward_model, tmp_path, plain):
    folder = changed_model(tiny_reward_model, tmp_path, pad_token_id=None)
    one = score(run, replace(config, reward_model=str(folder), features=False), CPU)["passes"]["reward_model"]
    assert one["kernel"] == "alone"
    assert "no padding token" in one["why_alone"]
    for found, (prompt, *sides) in zip(scores(run).to_pylist(), ROWS, strict=True):
        rewards = [found[f"reward_{side}"] for side in SIDES]
        assert rewards == pytest.approx([plain.reward(prompt, side) for side in sides], abs=EXACT)


def test_where_end_of_text_is_the_padding_the_model_reads_before_it(run, config, tiny_reward_model, tmp_path, plain):
    """As its own forward pass does, and did when it was trained."""
    folder = changed_model(tiny_reward_model, tmp_path, pad_token_id=257)
    score(run, replace(config, reward_model=str(folder), features=False), CPU)
    own = Plain(folder)
    for found, (prompt, *sides) in zip(scores(run).to_pylist(), ROWS, strict=True):
        rewards = [found[f"reward_{side}"] for side in SIDES]
        assert rewards == pytest.approx([own.reward(prompt, side) for side in sides], abs=EXACT)
    assert own.reward(*ROWS[0][:2]) != pytest.approx(plain.reward(*ROWS[0][:2]), abs=0.01)


@pytest.mark.parametrize("pad", [-1, 10_000])
def test_an_impossible_padding_token_is_no_harm(tiny_reward_model, conversations, rewarder, pad):
    model = AutoModelForSequenceClassification.from_pretrained(tiny_reward_model).eval()
    model.config.pad_token_id = pad
    other = Rewarder(model, ON_CPU)
    assert other.kernel == "alone"
    expected = rewards_alone(rewarder, conversations)
    np.testing.assert_allclose(other.reward(conversations), expected, rtol=0, atol=EXACT)


def test_a_model_that_heeds_the_padding_takes_one_at_a_time(tiny_reward_model, conversations, rewarder):
    model = AutoModelForSequenceClassification.from_pretrained(tiny_reward_model).eval()
    forward = model.forward

    def longer_is_better(input_ids, **others):
        output = forward(input_ids, **others)
        output.logits = output.logits + input_ids.shape[1]
        return output

    model.forward = longer_is_better
    other = Rewarder(model, ON_CPU)
    assert other.kernel == "alone"
    assert other.why_alone.startswith("padding moves the rewards by")
    expected = rewards_alone(rewarder, conversations) + [len(ids) for ids in conversations]
    np.testing.assert_allclose(other.reward(conversations), expected, rtol=0, atol=EXACT)


def test_a_reward_that_is_not_finite_is_a_reason_not_a_reward():
    encoded = [TokenizedPair((1,), (2,), (3,), (1,)), TokenizedPair((1,), (3,), (), (1,)), "the template refuses it"]
    conversations = Conversations(encoded, None)
    assert conversations.all == [(1, 2), (1, 3), (1,)]
    assert conversations.side_N2.tolist() == [[0, 1], [1, 2], [-1, -1]]
    pairs = {"pair_id": ["a", "b", "c"], "row": [0, 1, 2]}
    table = rewards_table(pairs, encoded, conversations, np.array([np.inf, 0.5, -1.0])).to_pydict()
    assert table["reward_chosen"] == [None, 0.5, None]
    assert table["reward_rejected"] == [None, -1.0, None]
    assert table["chosen_truncated"] == [None, False, None]
    assert table["unscored"] == [
        "a reward is not finite; choose another --dtype",
        None,
        "the template refuses it",
    ]


# --- encoders ---


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory):
    """A random BERT with one label; its tokenizer has no chat template, no begin- and no end-of-text token."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers import models as token_models

    folder = tmp_path_factory.mktemp("bert")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(token_models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    tokenizer.add_special_tokens(list(special.values()))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=120, **special)
    fast.save_pretrained(folder)
    torch.manual_seed(4)
    config = transformers.BertConfig(
        vocab_size=259,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        pad_token_id=258,
        num_labels=1,
        initializer_range=0.3,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_an_encoder_reads_the_plain_template_between_its_own_marks(run, config, tiny_bert, monkeypatch):
    said = []
    monkeypatch.setattr("curate.engines.say", said.append)
    one = score(run, replace(config, reward_model=str(tiny_bert), features=False), CPU)["passes"]["reward_model"]
    assert (one["kernel"], one["template"], one["max_length"], one["truncated"]) == ("padded", "plain", 120, 1)
    assert "--max-length 2048 is more than the reward model takes; using 120" in said
    plain = Plain(tiny_bert)
    table = scores(run).to_pylist()
    for found, (prompt, *sides) in zip(table, ROWS, strict=True):
        for side, text in zip(SIDES, sides, strict=True):
            ids = plain.tokenizer(f"[CLS]User: {prompt}\n\nAssistant: {text}[SEP]\n\n", add_special_tokens=False)
            with torch.inference_mode():
                expected = plain.model(torch.tensor([ids["input_ids"][:120]])).logits.item()
            assert found[f"reward_{side}"] == pytest.approx(expected, abs=EXACT), (prompt, side)
    assert table[0]["reward_chosen"] != pytest.approx(table[0]["reward_rejected"], abs=0.01)


def test_an_encoder_keeps_its_first_token_where_the_prompt_is_cut(tiny_bert):
    encoder = make_reward_encoder(models.resolve(str(tiny_bert)), ScoreConfig(max_length=60, max_prompt_length=40))
    turns = (Message("user", "x" * 100),), (Message("assistant", "yes"),), (Message("assistant", "no"),)
    (pair,) = encoder.encode([turns])
    cls = encoder.tokenizer.cls_token_id
    assert pair.prompt_truncated
    assert pair.prompt[0] != cls
    for ids, side in zip(Conversations([pair], cls).all, (pair.chosen, pair.rejected), strict=True):
        assert ids == (cls, *pair.prompt[1:], *side)
    assert Conversations([pair], None).all[0] == pair.prompt + pair.chosen


# --- a pass among the others ---


def test_a_reward_model_that_comes_later_is_scored_alone(run, config, monkeypatch):
    without = replace(config, reward_model=None)
    score(run, without, CPU)
    before, known = times(run.path / "scores"), scores(run)
    assert known["reward_chosen"].null_count == len(ROWS)
    monkeypatch.setattr(models, "load_model", None)  # nothing else is loaded
    score(run, config, CPU)
    after = times(run.path / "scores")
    assert {name: after[name] for name in before} == before
    assert len(after) - len(before) == len(of_reward_model(after)) == 3
    others = [name for name in SCORES.names if not name.startswith("reward")]
    assert scores(run).select(others).equals(known.select(others))
    assert scores(run)["reward_chosen"].null_count == 0
    score(run, without, CPU)
    assert times(run.path / "scores") == after
    assert scores(run).equals(known)


def test_rewarding_goes_on_where_it_stopped(run, config, monkeypatch, tmp_path):
    do = Worker.do

    def killed(worker, task):
        if task.of.rewards and task.shard == 1:
            raise KeyboardInterrupt
        return do(worker, task)

    monkeypatch.setattr(Worker, "do", killed)
    with pytest.raises(KeyboardInterrupt):
        score(run, config, CPU)
    before = times(run.path / "scores")
    assert len(of_reward_model(before)) == 1
    monkeypatch.setattr(Worker, "do", do)
    score(run, config, CPU)
    after = times(run.path / "scores")
    assert {name: after[name] for name in before} == before
    whole = load_rows(Run.create(tmp_path / "whole"), tmp_path / "whole.jsonl", ROWS)
    score(whole, config, CPU)
    assert scores(run).equals(scores(whole))


def test_a_lost_shard_is_done_again(run, config):
    score(run, config, CPU)
    known, before = scores(run), times(run.path / "scores")
    folder = run.path / run.require("score")["passes"]["reward_model"]["folder"]
    (folder / "00001.parquet").unlink()
    run.strike("score")
    score(run, config, CPU)
    after = times(run.path / "scores")
    assert {name for name in after if after[name] != before[name]} == {f"{folder.name}/00001.parquet"}
    assert scores(run).equals(known)


def test_another_reward_model_and_other_settings_have_their_own_shards(run, config, tiny_bert, tmp_path):
    score(run, config, CPU)
    known = scores(run)["reward_chosen"].to_numpy()
    policy = run.require("score")["passes"]["policy"]["folder"]
    for number, changes in enumerate([{"reward_model": str(tiny_bert)}, {"max_length": 100, "max_prompt_length": 80}]):
        record = score(run, replace(config, **changes), CPU)
        folders = {path.name for path in (run.path / "scores").glob("reward_model-*")}
        assert len(folders) == number + 2
    assert record["passes"]["policy"]["folder"] != policy
    assert (np.abs(scores(run)["reward_chosen"].to_numpy() - known) > EXACT).sum() == 1  # the long one


def older(run):
    """Make a run's scores what they were before there were rewards."""
    names = [name for name in SCORES.names if not name.startswith("reward")]
    write_table(run.scores_path, scores(run).select(names), {"score": "older"})
    manifest = run.manifest()
    manifest["stages"]["score"]["fingerprint"] = "older"
    manifest["stages"]["score"]["config"].pop("reward_model")
    for one in manifest["stages"]["score"]["passes"].values():
        for name in ("template", "max_length", "unscored", "truncated"):
            one.pop(name)
    run._write_manifest(manifest)


def test_a_run_that_was_scored_before_there_were_rewards(run, config):
    without = replace(config, reward_model=None)
    score(run, without, CPU)
    known = scores(run)
    older(run)
    weigh(run, WeighConfig())
    with RunView(run.path) as view:
        assert set(view.table("scores")) == set(SCORES.names)
        assert view.table("scores")["reward_chosen"].isna().all()
        assert summarize(view)["scoring"]["rewards"] is None
    assert CliRunner().invoke(app, ["show", str(run.path)]).exit_code == 0
    before = times(run.path / "scores")
    score(run, without, CPU)
    assert times(run.path / "scores") == before
    assert scores(run).equals(known)


def test_policy_and_reward_model_take_turns_in_one_worker(run, config):
    """As under Ray, where a worker gets any task at any time."""
    plan = scoring.make_plan(run, config, CPU, ON_CPU, print)
    worker = Worker(plan)
    tasks = plan.tasks()
    for task in [*tasks[::2], *tasks[1::2]]:
        worker.do(task)
    scoring.merge(plan)
    taken = scores(run)
    shutil.rmtree(run.path / "scores")
    run.strike("score")
    score(run, config, CPU)
    for name in ("policy_chosen_logp", "reward_chosen", "reward_rejected"):
        np.testing.assert_allclose(taken[name], scores(run)[name], rtol=0, atol=EXACT)


def test_workers_share_the_rewards(run, config, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, done in (("0", False), ("1", True)):
        monkeypatch.setenv("RANK", rank)
        assert (score(run, config, CPU) is not None) == done
    monkeypatch.undo()
    whole = load_rows(Run.create(tmp_path / "whole"), tmp_path / "whole.jsonl", ROWS)
    score(whole, config, CPU)
    assert scores(run).equals(scores(whole))


def test_the_command_line(tmp_path, tiny_policy, tiny_reward_model, plain):
    data, run = tmp_path / "pairs.jsonl", tmp_path / "run"
    data.write_text("".join(json.dumps(dict(zip(("prompt", *SIDES), row, strict=True))) + "\n" for row in ROWS[:4]))
    options = ["--policy", str(tiny_policy), "--device", "cpu", "--no-features"]
    for words in (
        ["audit", str(data), "-o", str(run), *options],
        ["score", str(run), *options, "--reward-model", str(tiny_reward_model), "--json"],
    ):
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0
    assert json.loads(done.stdout)["scoring"]["models"]["reward_model"] == str(tiny_reward_model)
    with RunView(run) as view:
        found = view.table("scores")
    expected = [plain.reward(*ROWS[0][:2]), plain.reward(ROWS[0][0], ROWS[0][2])]
    assert found.loc[0, ["reward_chosen", "reward_rejected"]].tolist() == pytest.approx(expected, abs=EXACT)


# --- refusals ---


def refusal(run, config, folder, **settings):
    with pytest.raises(ModelError) as caught:
        score(run, replace(config, reward_model=str(folder), **settings), CPU)
    assert not list((run.path / "scores").rglob("*.parquet"))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_two_labels(run, config, tiny_reward_model, tmp_path):
    folder = tmp_path / "two"
    two = AutoModelForSequenceClassification.from_pretrained(
        tiny_reward_model, num_labels=2, ignore_mismatched_sizes=True
    )
    two.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_reward_model).save_pretrained(folder)
    expected = f"{folder}: not a reward model: its head has 2 labels instead of one"
    assert refusal(run, config, folder) == expected


def test_a_causal_model(run, config, tiny_policy):
    expected = f"{tiny_policy}: not a reward model: it is a LlamaForCausalLM, and no sequence classifier"
    assert refusal(run, config, tiny_policy) == expected


def test_a_head_is_never_made_up(run, config, tiny_policy, tmp_path):
    """A causal model whose configuration pretends to be a classifier's."""
    folder = changed_model(tiny_policy, tmp_path, architectures=["LlamaForSequenceClassification"], num_labels=1)
    with pytest.raises(ModelError, match=r"not a whole reward model: score\.weight is missing \(1 in all\)"):
        score(run, replace(config, reward_model=str(folder)), CPU)
    with pytest.raises(ModelError, match=r"score\.weight is missing"):
        models.load_reward_model(models.resolve(str(folder)), ON_CPU)


@pytest.mark.parametrize("spec", ["smollm2", "model.gguf"])
def test_what_can_be_no_classifier(run, config, spec):
    assert refusal(run, config, spec) == f"{spec}: not a reward model; --reward-model takes a folder or a hub id"


def test_no_such_folder(run, config, tmp_path):
    assert "no such folder" in refusal(run, config, tmp_path / "none")


def test_a_chat_template_that_is_not_there(run, config, tiny_bert):
    message = refusal(run, config, tiny_bert, template="chat")
    assert message.startswith(f"{tiny_bert}: --template chat: this tokenizer has no chat template")


def test_rewards_that_are_not_finite(run, config, tiny_reward_model, tmp_path):
    folder = tmp_path / "broken"
    model = AutoModelForSequenceClassification.from_pretrained(tiny_reward_model)
    model.score.weight.data.fill_(float("nan"))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_reward_model).save_pretrained(folder)
    with pytest.raises(ModelError, match="the model's rewards are not finite in float32: choose another --dtype"):
        score(run, replace(config, reward_model=str(folder)), CPU)
