"""Answers: against a slow loop, independent of batches, resumed, in the benchmarks' formats, and what is refused."""

import json
import math
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from curate.errors import ConfigError, InputError, ModelError, StorageError
from curate.progress import Quiet
from curate.tokens import Encoder
from training import generate as module
from training.answers import FORMATS, GenerateConfig, count_markdown, read_prompts
from training.generate import draw, end_of_turn, generate

QUESTIONS = ["hi", "What is a margin?", "Name three colours, please.", "Wer bist du?", "0", "γ?"]
NEW = 12  # tokens of an answer


@pytest.fixture
def prompts(tmp_path):
    """A file of questions of different lengths."""
    return written(tmp_path / "questions.jsonl", [{"instruction": text} for text in QUESTIONS])


@pytest.fixture
def settings(prompts, tiny_policy):
    """What every configuration here has."""
    return {"prompts": str(prompts), "model": str(tiny_policy), "max_new_tokens": NEW}


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def outputs(path):
    return [row["output"] for row in json.loads(path.read_text(encoding="utf-8"))]


def answered(settings, output, **more):
    """The answers under some settings, and what `generate` says of them."""
    facts = generate(GenerateConfig(**{**settings, **more}), output, Quiet())
    return outputs(output), facts


def slow_answer(folder, question, stops=()):
    """The likeliest tokens one by one, without cache, padding or batch."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer.encode(f"<|user|>{question}<|end|><|assistant|>", add_special_tokens=False)
    found = []
    while len(found) < NEW:
        with torch.no_grad():
            token = int(model(torch.tensor([ids + found])).logits[0, -1].argmax())
        if token in (tokenizer.eos_token_id, *stops):
            break
        found.append(token)
    return found, tokenizer.decode(found, skip_special_tokens=True).strip()


class Interrupted(Quiet):
    """Stops the work after some prompts, as Ctrl-C does."""

    def __init__(self, after):
        self.left = after

    def advance(self, pairs):
        self.left -= pairs
        if pairs and self.left <= 0:
            raise KeyboardInterrupt


class Listening(Quiet):
    """Remembers what it is told."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


# --- what is generated ---


def test_greedy_equals_a_slow_loop(settings, tiny_policy, tmp_path):
    found, facts = answered(settings, tmp_path / "out.json", batch_size=4)
    expected = [slow_answer(tiny_policy, question) for question in QUESTIONS]
    assert found == [text for _, text in expected]
    assert facts["tokens"] == sum(len(ids) for ids, _ in expected)
    assert facts["cut_off"] == sum(len(ids) == NEW for ids, _ in expected)
    assert (facts["prompts"], facts["answered"], facts["refused"], facts["reused"]) == (6, 6, {}, 0)
    assert facts["seconds"] > 0


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.8, "top_p": 0.9}], ids=["greedy", "sampled"])
def test_answers_do_not_depend_on_the_batch(settings, tmp_path, sampling):
    alone, _ = answered(settings, tmp_path / "alone.json", batch_size=1, **sampling)
    together, _ = answered(settings, tmp_path / "together.json", batch_size=6, **sampling)
    fewer, _ = answered(settings, tmp_path / "fewer.json", batch_size=4, limit=3, **sampling)
    assert alone == together
    assert fewer == alone[:3]


def test_the_seed_decides_what_is_sampled(settings, tmp_path):
    settings["temperature"] = 1.0
    one, again, other = (
        answered(settings, tmp_path / f"{name}.json", seed=seed)[0] for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert one == again
    assert all(mine != theirs for mine, theirs in zip(one, other, strict=True))


def test_a_small_nucleus_is_greedy(settings, tmp_path):
    sampled, _ = answered(settings, tmp_path / "sampled.json", temperature=2.0, top_p=1e-9)
    assert sampled == answered(settings, tmp_path / "greedy.json")[0]


def test_draws_by_hand():
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log().repeat(4, 1)
    uniform = torch.tensor([0.0, 0.4, 0.6, 0.9], dtype=torch.float64)
    assert draw(logits, uniform, 1.0, 1.0).tolist() == [0, 0, 1, 2]
    assert draw(logits, uniform, 1.0, 0.5).tolist() == [0, 0, 0, 0]
    assert draw(logits.flip(1) - torch.tensor([math.inf, 0, 0]), uniform, 1.0, 1.0).tolist() == [1, 2, 2, 2]
    assert draw(logits, uniform, 1.0, 0.51).tolist() == [0, 0, 0, 1]  # of equals, the first in the vocabulary


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_draws_follow_the_distribution(temperature):
    logits = torch.tensor([0.3, -1.0, 2.0, -math.inf, 0.3])
    uniform = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    tokens = draw(logits.repeat(1000, 1), uniform, temperature, 1.0)
    expected = (logits / temperature).exp()
    expected = 1000 * expected / expected.sum()
    assert (torch.bincount(tokens, minlength=5) - expected).abs().max() <= 1
    assert 3 not in tokens


def test_ends_at_the_models_own_end_token(settings, tiny_policy, tmp_path):
    """One that only the model's generation settings name."""
    ids, _ = slow_answer(tiny_policy, QUESTIONS[1])
    stop = ids[5]
    folder = shutil.copytree(tiny_policy, tmp_path / "model")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [stop]}))
    found, facts = answered(settings, tmp_path / "out.json", model=str(folder))
    expected = [slow_answer(tiny_policy, question, stops=[stop]) for question in QUESTIONS]
    assert found == [text for _, text in expected]
    assert facts["tokens"] == sum(len(kept) for kept, _ in expected)
    assert facts["cut_off"] == sum(len(kept) == NEW for kept, _ in expected) < len(QUESTIONS)


def test_the_models_sampling_settings_are_not_used(settings, tiny_policy, tmp_path):
    folder = shutil.copytree(tiny_policy, tmp_path / "model")
    (folder / "generation_config.json").write_text(json.dumps({"repetition_penalty": 5.0, "min_new_tokens": 9}))
    assert answered(settings, tmp_path / "a.json", model=str(folder))[0] == answered(settings, tmp_path / "b.json")[0]


def test_the_end_of_turn_is_the_templates(tiny_policy, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_policy)
    other, bare = tmp_path / "other.jinja", tmp_path / "bare.jinja"
    other.write_text("{% for message in messages %}{{ message['content'] }}<|system|>\n<|end|>{% endfor %}")
    bare.write_text("{% for message in messages %}{{ message['content'] }}\n{% endfor %}")
    found = {
        name: end_of_turn(Encoder(tokenizer, name, max_length=99, max_prompt_length=9))
        for name in ("chat", "plain", str(other), str(bare))
    }
    end, system = tokenizer.convert_tokens_to_ids(["<|end|>", "<|system|>"])
    assert list(found.values()) == [end, end, system, None]


@pytest.mark.parametrize("template", ["plain", "raw"])
def test_other_templates_answer_too(settings, tmp_path, template):
    found, _ = answered(settings, tmp_path / "out.json", template=template)
    assert found != answered(settings, tmp_path / "chat.json")[0]


def test_an_adapter_is_applied(settings, tiny_policy, tmp_path):
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_policy),
        peft.LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False, r=4, lora_alpha=64),
    )
    adapted.save_pretrained(tmp_path / "adapter")
    merged = tmp_path / "merged"
    adapted.merge_and_unload().save_pretrained(merged)
    AutoTokenizer.from_pretrained(tiny_policy).save_pretrained(merged)
    settings["adapter"] = str(tmp_path / "adapter")
    found, _ = answered(settings, tmp_path / "out.json")
    assert found == [slow_answer(merged, question)[1] for question in QUESTIONS]
    assert found != answered(settings, tmp_path / "base.json", adapter=None)[0]


def test_an_adapter_of_another_model_is_refused(settings, tiny_policy, tmp_path):
    """Also one whose weights peft would leave out with no more than a warning."""
    peft, torch_files = pytest.importorskip("peft"), pytest.importorskip("safetensors.torch")
    base = AutoModelForCausalLM.from_pretrained(tiny_policy)
    peft.get_peft_model(base, peft.LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    weights = torch_files.load_file(file)
    settings["adapter"] = str(tmp_path / "adapter")
    torch_files.save_file({name.replace("layers.3", "layers.7"): it for name, it in weights.items()}, file)
    with pytest.raises(ModelError, match=r"cannot be loaded onto this model: .*missing adapter keys.*layers\.3"):
        answered(settings, tmp_path / "out.json")
    file.write_bytes(b"broken")
    with pytest.raises(ModelError, match=r"adapter: cannot be loaded onto this model: "):
        answered(settings, tmp_path / "out.json")


def test_what_does_not_fit_into_memory_is_halved(settings, tmp_path, monkeypatch):
    run, sizes = module.Answerer._run, []

    def cramped(self, batch):
        sizes.append(len(batch))
        if len(batch) > largest:
            raise torch.OutOfMemoryError
        return run(self, batch)

    monkeypatch.setattr(module.Answerer, "_run", cramped)
    largest = 2
    found, _ = answered(settings, tmp_path / "out.json", batch_size=6)
    assert sizes == [6, 3, 1, 2, 3, 1, 2]
    largest = 0
    with pytest.raises(ModelError, match=r"its answer do not fit into the memory of cpu; lower --max-new-tokens"):
        answered(settings, tmp_path / "none.json")
    monkeypatch.undo()
    assert found == answered(settings, tmp_path / "whole.json", batch_size=6)[0]


# --- length ---


def test_a_prompt_without_room_gets_an_empty_answer(settings, tmp_path):
    """The context has 512 tokens, `<|user|>…<|end|><|assistant|>` takes three."""
    lengths = [509, 5, 508, 510, 500, 250]
    written(tmp_path / "questions.jsonl", [{"instruction": "x" * length} for length in lengths])
    progress = Listening()
    facts = generate(GenerateConfig(**settings), tmp_path / "out.json", progress)
    reason = "the prompt leaves no room in the model's context of 512 tokens"
    assert (facts["prompts"], facts["answered"], facts["refused"]) == (6, 4, {reason: 2})
    assert progress.lines == [f"{settings['prompts']}, line 1: gets an empty answer: {reason}"]
    kept = [json.loads(line)["tokens"] for line in journal(tmp_path / "out.json").splitlines() if line]
    assert sorted(kept) == [1, 9, NEW, NEW]
    assert [bool(text) for text in outputs(tmp_path / "out.json")] == [False, True, True, False, True, True]


def test_an_answer_takes_at_most_half_of_the_context(settings, tmp_path):
    _, facts = answered(settings, tmp_path / "out.json", max_new_tokens=10_000, limit=1)
    assert 0 < facts["tokens"] <= 256


def test_no_prompt_can_be_answered(settings, tmp_path):
    (tmp_path / "never.jinja").write_text("{{ raise_exception('not today') }}")
    with pytest.raises(ModelError, match=r"no prompt can be answered: the chat template refuses it: not today$"):
        answered(settings, tmp_path / "out.json", template=str(tmp_path / "never.jinja"))
    assert not (tmp_path / "out.json").exists()


# --- going on ---


def journal(output):
    return output.with_name(f"{output.name}.answers").read_text(encoding="utf-8")


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0}], ids=["greedy", "sampled"])
def test_an_interrupted_run_goes_on(settings, tmp_path, sampling):
    settings |= {"batch_size": 2, **sampling}
    whole, broken = tmp_path / "whole.json", tmp_path / "broken.json"
    answered(settings, whole)
    with pytest.raises(KeyboardInterrupt):
        generate(GenerateConfig(**settings), broken, Interrupted(after=4))
    assert not broken.exists()
    journal_path = tmp_path / "broken.json.answers"
    journal_path.write_bytes(journal_path.read_bytes()[:-9])  # a killed process: its last line is torn
    _, facts = answered(settings, broken, batch_size=5)
    assert facts["reused"] == 3
    assert broken.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_a_finished_run_computes_nothing(settings, tmp_path, monkeypatch):
    first, _ = answered(settings, tmp_path / "out.json")
    before = (tmp_path / "out.json").read_bytes()
    monkeypatch.delattr(module, "Answerer")
    found, facts = answered(settings, tmp_path / "out.json", batch_size=3)
    assert (found, facts["reused"]) == (first, 6)
    assert (tmp_path / "out.json").read_bytes() == before


def test_more_prompts_and_other_names_reuse_what_is_there(settings, tmp_path):
    answered(settings, tmp_path / "out.json", limit=2)
    _, facts = answered(settings, tmp_path / "out.json", name="another")
    assert facts["reused"] == 2
    assert {row["generator"] for row in json.loads((tmp_path / "out.json").read_text())} == {"another"}


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0.5}, {"max_new_tokens": 5}, {"template": "plain"}, {"dtype": "bfloat16"}],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_reuse_nothing(settings, tmp_path, change):
    answered(settings, tmp_path / "out.json", limit=1)
    _, facts = answered(settings, tmp_path / "out.json", limit=1, **change)
    assert facts["reused"] == 0


def test_answers_do_not_depend_on_the_place_in_the_file(settings, tmp_path):
    settings["temperature"] = 1.0
    first, _ = answered(settings, tmp_path / "out.json")
    written(tmp_path / "questions.jsonl", [{"instruction": text} for text in ["new", *reversed(QUESTIONS)]])
    found, facts = answered(settings, tmp_path / "out.json")
    assert facts["reused"] == 6
    assert found[1:] == first[::-1]
    assert found == answered(settings, tmp_path / "anew.json")[0]


def test_another_model_or_question_reuses_nothing(settings, tiny_reference, tmp_path):
    answered(settings, tmp_path / "out.json", limit=1)
    assert answered(settings, tmp_path / "out.json", limit=1, model=str(tiny_reference))[1]["reused"] == 0
    written(tmp_path / "questions.jsonl", [{"instruction": "another"}])
    assert answered(settings, tmp_path / "out.json")[1]["reused"] == 0


def test_a_foreign_journal_does_no_harm(settings, tmp_path):
    path = tmp_path / "out.json.answers"
    path.write_bytes(b'null\n[1]\n{"key": "x"}\n\xff\xfe\nno newline')
    found, facts = answered(settings, tmp_path / "out.json")
    assert (facts["reused"], len(found)) == (0, 6)
    assert answered(settings, tmp_path / "out.json")[1]["reused"] == 6


# --- formats ---


def test_alpaca_eval(settings, tiny_policy, tmp_path):
    rows = [
        {"instruction": "hi", "dataset": "koala"},
        {"instruction": "γ?", "output": "a reference's", "generator": "x"},
    ]
    written(tmp_path / "questions.jsonl", rows)
    answered(settings, tmp_path / "out.json", name="mine")
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == [
        {"dataset": dataset, "instruction": text, "output": slow_answer(tiny_policy, text)[1], "generator": "mine"}
        for dataset, text in (("koala", "hi"), ("questions", "γ?"))
    ]


def arena_hard(settings, tmp_path, rows):
    written(tmp_path / "questions.jsonl", rows)
    generate(GenerateConfig(**settings, format="arena_hard", name="mine"), tmp_path / "a" / "mine.jsonl", Quiet())
    return [json.loads(line) for line in (tmp_path / "a" / "mine.jsonl").read_text(encoding="utf-8").splitlines()]


def test_arena_hard(settings, tiny_policy, tmp_path):
    rows = [{"uid": f"u{i}", "category": "hard_prompt", "prompt": text} for i, text in enumerate(QUESTIONS[:3])]
    records = arena_hard(settings, tmp_path, rows)
    for row, record in zip(rows, records, strict=True):
        ids, text = slow_answer(tiny_policy, row["prompt"])
        assert record.pop("tstamp") > 1.7e9
        assert len(record.pop("ans_id")) == 16
        assert record == {
            "uid": row["uid"],
            "model": "mine",
            "messages": [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": {"answer": text}},
            ],
            "metadata": {"token_len": len(ids), **count_markdown(text)},
        }


def test_arena_hard_of_the_first_version(settings, tiny_policy, tmp_path):
    row = {"question_id": "q1", "category": "arena-hard-v0.1", "cluster": "Games", "turns": [{"content": "hi"}]}
    (record,) = arena_hard(settings, tmp_path, [row])
    ids, text = slow_answer(tiny_policy, "hi")
    assert record.pop("tstamp") > 1.7e9
    assert len(record.pop("answer_id")) == 16
    turns = [{"content": text, "token_len": len(ids)}]
    assert record == {"question_id": "q1", "model_id": "mine", "choices": [{"index": 0, "turns": turns}]}


def test_markdown_by_hand():
    text = "# A\n## B\n## C\n1. one\n 2. two\n- x\n* y\n**b** __c__ **d**\n```py\n# no\n- no\n**no**\n```\n#no\n- z"
    assert count_markdown(text) == {
        "header_count": {"h1": 1, "h2": 2, "h3": 0, "h4": 0, "h5": 0, "h6": 0},
        "list_count": {"ordered": 2, "unordered": 3},
        "bold_count": {"**": 2, "__": 1},
    }


@pytest.mark.parametrize(
    ("settings_", "name"),
    [
        ({}, "smollm2"),
        ({"model": "my-org/my-model"}, "my-model"),
        ({"model": "my-org/my-model", "adapter": "my-lora/"}, "my-lora"),
        ({"model": "runs/gamma/model"}, "gamma"),
        ({"adapter": "runs/gamma/adapter"}, "gamma"),
        ({"model": "model"}, "model"),
        ({"model": "my-org/my-model", "name": "x y"}, "x y"),
    ],
)
def test_the_generators_name(settings_, name):
    assert GenerateConfig("q.json", **settings_).generator == name


# --- prompts ---


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet"])
def test_reads_every_kind_of_file(tmp_path, kind):
    rows = [{"question_id": i, "turns": [{"content": text}]} for i, text in enumerate(QUESTIONS)]
    path = tmp_path / f"questions.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "json":
        path.write_text(json.dumps(rows))
    else:
        written(path, rows)
    found = read_prompts(GenerateConfig(str(path), limit=4))
    assert [(prompt.id, prompt.text, prompt.named_by) for prompt in found] == [
        (i, text, "question_id") for i, text in enumerate(QUESTIONS[:4])
    ]


BAD_ROWS = {
    "columns": ([{"question": "hi", "answer": "x"}], r"line 1: no column .* its columns are: question, answer$"),
    "no id": ([{"prompt": "hi", "id": 1}], r"line 1: no uid; Arena-Hard joins"),
    "same id": (
        [{"uid": "a", "prompt": "x"}, {"uid": "a", "prompt": "y"}],
        r"line 2: uid 'a' stands in line 1 already",
    ),
    "lost id": ([{"uid": "a", "prompt": "x"}, {"prompt": "y"}], r"line 2: uid is None; it must be"),
    "odd id": ([{"uid": True, "prompt": "x"}], r"line 1: uid is True; it must be"),
    "blank": ([{"uid": 1, "prompt": " \n"}], r"line 1: prompt holds no text"),
    "number": ([{"uid": 1, "prompt": 7}], r"line 1: prompt holds no text"),
    "null": ([{"uid": 1, "prompt": "x"}, {"uid": 2, "prompt": None}], r"line 2: prompt holds no text"),
    "no turn": ([{"uid": 1, "turns": []}], r"line 1: turns holds no text"),
    "two turns": ([{"uid": 1, "turns": ["x", "y"]}], r"line 1: turns holds 2 turns; only questions of one turn"),
    "input": ([{"uid": 1, "instruction": "add", "input": "1, 2"}], r"line 1: an input beside the instruction"),
    "surrogate": ([{"uid": 1, "prompt": "x\ud800"}], r"line 1: prompt is not valid Unicode at character 2"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_refuses_bad_rows(tmp_path, name):
    rows, message = BAD_ROWS[name]
    path = written(tmp_path / "q.jsonl", rows)
    with pytest.raises(InputError, match=message) as caught:
        generate(GenerateConfig(str(path), format="arena_hard"), tmp_path / "out.jsonl", Quiet())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refuses_files_that_are_none(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "empty.json").write_text("[]")
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("missing.jsonl", "missing", "empty.jsonl", "empty.json", "folder.jsonl"):
        with pytest.raises(InputError, match=str(tmp_path / name)):
            generate(GenerateConfig(str(tmp_path / name)), tmp_path / "out.json", Quiet())


def test_refuses_outputs_that_cannot_be(settings, prompts, tmp_path):
    (tmp_path / "out.json.answers").mkdir()
    for output, message in (
        (tmp_path, "this is a folder; give the name of a file"),
        (tmp_path / "out.json", r"answers: this is a folder"),
        (prompts, "the answers would replace the prompts"),
    ):
        with pytest.raises(InputError, match=message):
            answered(settings, output)
    with pytest.raises(StorageError, match="a part of this path is a file"):
        answered(settings, prompts / "below" / "out.json")


def test_refuses_adapters_that_are_none(settings, tmp_path):
    with pytest.raises(ModelError, match=r"the folder holds no adapter \(no adapter_config.json\)"):
        answered(settings, tmp_path / "out.json", adapter=str(tmp_path))


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"format": "mt_bench"}, rf"--format is 'mt_bench': choose one of {', '.join(FORMATS)}"),
        ({"device": "tpu"}, "--device is 'tpu'"),
        ({"dtype": "int8"}, "--dtype is 'int8'"),
        ({"max_new_tokens": 0}, "--max-new-tokens is 0: it must be 1 or more"),
        ({"batch_size": -1}, "--batch-size is -1"),
        ({"limit": 0}, "--limit is 0"),
        ({"temperature": -0.1}, r"--temperature is -0.1: it must be 0 \(greedy\) or more"),
        ({"temperature": math.nan}, "--temperature is nan"),
        ({"temperature": 1.0, "top_p": 0.0}, "--top-p is 0.0: it must be above 0 and at most 1"),
        ({"temperature": 1.0, "top_p": 1.5}, "--top-p is 1.5"),
        ({"top_p": 0.9}, "--top-p is for sampling: it needs a --temperature above 0"),
        ({"seed": -1}, "--seed is -1"),
        ({"name": " "}, "--name is blank"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refuses_impossible_settings(settings_, message):
    with pytest.raises(ConfigError, match=message):
        GenerateConfig("q.jsonl", **settings_)
