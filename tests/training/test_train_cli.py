"""`curate train` as users call it: a whole training of a diagnosed run, and one line for whatever is at fault."""

import json
import math
import re
import signal
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from curate import engines, models
from curate.cli import app, main
from curate.config import ComputeConfig, DiagnoseConfig, IngestConfig, ScoreConfig
from curate.diagnosing import diagnose
from curate.pairs import ingest
from curate.store import Run
from curate.view import RunView

LENGTHS = ["--max-length", 256, "--set", "max_prompt_length=224"]
QUICK = [*LENGTHS, "--device", "cpu", "--batch-size", 8, "--learning-rate", 0.01, "--set", "lora_rank=4"]
FOOTER = {"target_margin": {"margin": "simpo", "beta": 10.0, "gamma0": 4.0, "tau": 10.0}}


def rows(count, **columns):
    made = [{"prompt": f"{at // 2}?", "chosen": f"{at} yes", "rejected": "no" * (at % 5 + 1)} for at in range(count)]
    return [{**row, **{name: values[at] for name, values in columns.items()}} for at, row in enumerate(made)]


def write(path, pairs):
    path.write_text("".join(json.dumps(row) + "\n" for row in pairs), encoding="utf-8")
    return path


def call(*args):
    """A command that succeeds, in this process."""
    done = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture
def fault(monkeypatch, capsys):
    """A function that calls a command which fails: the one line that it ends with."""

    def run(*args):
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        monkeypatch.setattr(sys, "argv", ["curate", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert (ended.value.code, said.out) == (1, ""), said.err
        *before, line = said.err.splitlines()
        assert line.startswith("curate: "), said.err
        assert not [other for other in before if other.startswith("curate:") or "Traceback" in other], said.err
        return line.removeprefix("curate: ")

    return run


# --- a whole training ---


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_policy):
    """Forty pairs of twenty prompts, scored by the model that is to be trained, and diagnosed. Not to be changed."""
    folder = tmp_path_factory.mktemp("train")
    ingest(IngestConfig((str(write(folder / "data.jsonl", rows(40))),)), made := Run.create(folder / "run"))
    scoring = ScoreConfig(policy=str(tiny_policy), features=False, max_length=256, max_prompt_length=224)
    engines.score(made, scoring, ComputeConfig(device="cpu"))
    call("weigh", made.path, "--margin", "simpo")
    diagnose(made, DiagnoseConfig(folds=3, repeats=1))
    return made


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory, tiny_policy):
    """The folder of a training that takes its settings from everywhere, its words, and what it printed."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "mine.toml").write_text('loss = "dpo_norm"\nbeta = 2.0\nlog_every = 1\nepochs = 9\neval_share = 0.3\n')
    words = ["train", run.path, "-o", folder / "out", "--model", tiny_policy, "--config", folder / "mine.toml", *QUICK]
    words += ["--epochs", 2, "--treat", "soft", "--set", "optimizer=sgd", "--set", "weight_decay=0.01"]
    return folder / "out", words, call(*words)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_what_a_training_prints_and_leaves(trained):
    out, _, done = trained
    report = read(out / "report.json")
    assert {path.name for path in out.iterdir()} >= {
        *("training.json", "pairs.arrow", "metrics.jsonl", "report.json", "signals.parquet", "README.md"),
        *("adapter", "model", "checkpoints", "dynamics"),
    }
    kept = report["counts"]["trained"], report["counts"]["held_out"]
    assert sum(report["counts"].values()) == 40
    assert min(kept) > 5
    assert report["updates"] == 2 * math.ceil(kept[0] / 8)
    assert (report["targets"], report["batching"], report["held_out"]) == ("constant", "packed", kept[1])
    lines = done.stdout.splitlines()
    assert lines[0] == f"trained on  {kept[0]} pairs, {report['updates']} updates of 8"
    assert lines[1] == f"held out    {kept[1]} pairs"
    assert lines[-1] == f"Next: curate generate PROMPTS --model {out / 'model'} -o answers.json"
    table = {line[:24].strip(): line[24:].split() for line in lines if re.search(r" \d\.\d{4}$", line)}
    assert table == {
        name.replace("_", " "): [f"{report['before'][name]:.4f}" if name in report["before"] else "–", f"{after:.4f}"]
        for name, after in report["after"].items()
    }
    assert report["before"].keys() == {"loss", "likelihood_accuracy"}  # it is its own reference: no margin yet
    assert f"reference: log-probs of {read(out / 'training.json')['model']['spec']} from " in done.stderr


def test_the_settings_that_it_was_trained_with(trained):
    settings = read(trained[0] / "training.json")["settings"]
    assert (settings["loss"], settings["beta"], settings["epochs"]) == ("dpo_norm", 2.0, 2.0)
    assert (settings["optimizer"], settings["weight_decay"], settings["log_every"]) == ("sgd", 0.01, 1)
    assert (settings["treat"], settings["lora_rank"], settings["gamma_beta_ratio"]) == ("soft", 4, 0.0)


def test_every_update_is_logged(trained):
    out, *_ = trained
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    updates = read(out / "report.json")["updates"]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, updates + 1))
    evaluated = [line for line in lines if "eval_loss" in line]
    assert [line["step"] for line in evaluated] == [updates // 2, updates]
    after = {name.removeprefix("eval_"): value for name, value in evaluated[-1].items() if name.startswith("eval_")}
    assert {name: after[name] for name in read(out / "report.json")["after"]} == pytest.approx(
        read(out / "report.json")["after"]
    )


def test_the_card_has_the_numbers(trained):
    out, *_ = trained
    card = (out / "README.md").read_text(encoding="utf-8")
    report, training = read(out / "report.json"), read(out / "training.json")
    assert card.startswith(f"---\nbase_model: {json.dumps(training['model']['spec'])}\n")
    cells = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", card, re.MULTILINE))
    counts = tuple(str(report["counts"][name]) for name in ("trained", "held_out"))
    assert (cells["trained"], cells["held out"]) == counts
    assert (cells["beta"], cells["optimizer"], cells["updates"]) == ("2.0", "sgd", str(report["updates"]))
    assert f"| agrees with the label | – | {report['after']['accuracy']:.4g} |" in card
    ((path, digest),) = training["data"]["files"].items()
    assert f"`{path}` sha256 `{digest}`" in card
    assert card.count("| targets |") == card.count("| treat | soft |") == 1


def test_the_whole_model_scores_and_brings_its_margins_back(trained, run, tmp_path, tiny_policy):
    """The held-out pairs' margin in the report is that of the written model, as `curate score` sees it."""
    out, *_ = trained
    other = run.fork(tmp_path / "run").path
    options = ["--max-length", 256, "--max-prompt-length", 224, "--no-features", "--device", "cpu"]
    call("score", other, "--policy", out / "model", "--reference", tiny_policy, *options)
    call("weigh", other, "--margin", "dpo_norm", "--beta", 2)
    with pa.ipc.open_file(out / "pairs.arrow") as file:
        pairs = file.read_all().to_pandas()
    with RunView(other) as view:
        margin = view.table("weights")["margin"]
    held = margin[pairs["row"][pairs["held_out"]]]
    report = read(out / "report.json")
    assert report["after"]["margin"] == pytest.approx(held.mean(), rel=1e-4)
    assert report["after"]["accuracy"] == pytest.approx((held > 0).mean())
    assert report["after"]["loss"] == pytest.approx(np.logaddexp(0, -held).mean(), rel=1e-4)
    assert abs(held.mean()) > 0.01  # it did learn something


def test_the_first_margins_are_those_of_the_model_against_itself(trained):
    out, *_ = trained
    visits = pd.concat(map(pd.read_parquet, sorted((out / "dynamics").iterdir())))
    updates, first = read(out / "report.json")["updates"], visits[visits["step"] == 0]
    assert first["margin"].abs().max() < 1e-4
    assert (visits["margin"].abs().max() > 1e-2, sorted(visits["step"].unique())) == (True, list(range(updates)))
    counts = visits["index"].value_counts()
    assert (set(counts), len(counts)) == ({2}, read(out / "report.json")["counts"]["trained"])


def test_its_signals_are_taken_up_by_the_diagnosis(trained, run, tmp_path):
    out, *_ = trained
    other = run.fork(tmp_path / "run")
    engine = ScoreConfig(policy=read(out / "training.json")["model"]["spec"], features=False)
    engines.score(other, engine, ComputeConfig(device="cpu"))
    call("weigh", other.path)
    diagnose(other, DiagnoseConfig(folds=3, repeats=1, signals=(str(out / "signals.parquet"),)))
    with RunView(other.path) as view:
        shown = view.table("signals").set_index("pair_id")
    given = pd.read_parquet(out / "signals.parquet").set_index("pair_id")
    assert len(given) == read(out / "report.json")["counts"]["trained"]
    pd.testing.assert_series_equal(shown["in_sample_mean"].dropna().sort_index(), given["in_sample_mean"].sort_index())


def test_the_same_command_again_does_nothing(trained, monkeypatch):
    out, words, done = trained
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    monkeypatch.setattr(models, "load_model", None)
    again = call(*words)
    assert again.stdout == done.stdout
    assert again.stderr == f"{out}: trained already; choose another folder with -o to train again\n"
    assert json.loads(call(*words, "--json").stdout) == read(out / "report.json")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


def test_another_training_needs_another_folder(trained, fault):
    out, words, _ = trained
    line = fault(*words, "--seed", 7)
    assert line == f"{out}: holds another training (seed 42, now 7): choose another -o"
    assert "log_every" not in fault(*words, "--set", "log_every=5", "--loss", "cdpo")


def test_a_file_with_all_its_columns(tmp_path, tiny_policy):
    """Counts in = counts out, with every reason; the report as JSON alone on standard output."""
    columns = {
        "weight": [0.0, 2, 1, 1, 1, 1, 1, 1],
        "p_flip": [0.0, 0.5, 0, 0, 0, 0, 0, 0],
        "target_margin": [4.0, 3, 5, 4, 4, 4, 4, 4],
        "ref_chosen_logps": [-9.0, -9, None, -9, -9, -9, -9, -9],
        "ref_rejected_logps": [-9.0] * 8,
    }
    pairs = rows(8, **columns)
    pairs[3]["rejected"] = pairs[3]["chosen"]
    data = write(tmp_path / "data.jsonl", pairs)
    options = ["--eval-share", 0, "--max-steps", 1, "--json", "--micro-batch", 4, "--loss", "gamma_dpo", "--no-lora"]
    done = call("train", data, "-o", tmp_path / "out", "--model", tiny_policy, *QUICK, *options)
    report = json.loads(done.stdout)
    assert report == read(tmp_path / "out" / "report.json")
    assert report["counts"] == {
        **{"trained": 5, "weight 0": 1, "no reference log-prob": 1, "the same tokens on both sides": 1}
    }
    assert (report["targets"], report["updates"], report["held_out"], report["after"]) == ("column", 1, 0, {})
    assert report["mean_weight"] == pytest.approx(6 / 5)
    assert "reference: log-probs of the file" in done.stderr


# --- what is at fault ---


@pytest.fixture(scope="module")
def bert(tmp_path_factory, tiny_policy):
    """Folder of a tiny model that sees what follows."""
    import transformers

    folder = tmp_path_factory.mktemp("bert")
    transformers.AutoTokenizer.from_pretrained(tiny_policy).save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.BertConfig(vocab_size=261, initializer_range=0.2, **sizes)
    transformers.BertLMHeadModel(config).save_pretrained(folder)
    return folder


def parquet(path, pairs, footer=None):
    metadata = None if footer is None else {b"curate": json.dumps(footer).encode()}
    pq.write_table(pa.Table.from_pylist(pairs).replace_schema_metadata(metadata), path)
    return path


@pytest.fixture
def files(tmp_path):
    """Files of pairs, each with something wrong."""
    write(tmp_path / "good.jsonl", rows(3))
    write(tmp_path / "columns.jsonl", [{"text": "a"}])
    write(tmp_path / "negative.jsonl", rows(3, weight=[1, 1, -2]))
    write(tmp_path / "nan.jsonl", rows(3, weight=[1, math.nan, 1]))
    write(tmp_path / "likely.jsonl", rows(3, p_flip=[0, 0, 20]))
    write(tmp_path / "word.jsonl", rows(3, ref_chosen_logps=["much", -1, -1]))
    write(tmp_path / "id.jsonl", rows(3, pair_id=["a", "b", "c"]))
    write(tmp_path / "mean.jsonl", rows(3, target_margin=[20.0, 21, 19]))
    write(tmp_path / "nothing.jsonl", rows(3, weight=[0, 0, 0]))
    parquet(tmp_path / "footer.parquet", rows(3, target_margin=[4.0, 4, 4]), FOOTER)
    (tmp_path / "bad.toml").write_text("beta = ")
    (tmp_path / "unknown.toml").write_text("los = 'dpo'\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "training.json").write_text('{"fingerprint": "f", "settings": {"seed": 1}}')
    (tmp_path / "full" / "report.json").write_text("{}")
    return tmp_path


NUMBER = "it must be a finite number, 0 or more"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["none.jsonl"], r"{tmp}/none.jsonl: no such file or folder"),
        (["columns.jsonl"], r"{tmp}/columns.jsonl: no known preference format \(columns: text\)"),
        (["negative.jsonl"], rf"{{tmp}}/negative.jsonl, line 3: weight is -2: {NUMBER}"),
        (["nan.jsonl"], rf"{{tmp}}/nan.jsonl, line 2: weight is NaN: {NUMBER}"),
        (["likely.jsonl"], r"{tmp}/likely.jsonl, line 3: p_flip is 20: it must be 0 to 1"),
        (["word.jsonl"], r"{tmp}/word.jsonl, line 1: ref_chosen_logps is 'much': it must be a number"),
        (["id.jsonl"], r"{tmp}/id.jsonl, line 1: pair_id 'a' is not that of its texts"),
        (["mean.jsonl"], r"target_margin has mean 20, but this loss's γ0 is 4, so it is of another run or loss: weigh"),
        (
            ["footer.parquet", "--targets", "column"],
            r"target_margin was made for another loss \(margin simpo instead of dpo_norm\): weigh",
        ),
        (["good.jsonl", "--targets", "column"], "targets is 'column', but the pairs have no target_margin: weigh"),
        (["good.jsonl", "--treat", "drop"], r"--treat drop needs a run: audit the file with curate audit"),
        (["nothing.jsonl", "--loss", "simpo"], r"{tmp}/nothing.jsonl: no pair is left to train on \(3 × weight 0\)"),
        (["good.jsonl", "--loss", "dpoo"], "loss 'dpoo' is unknown: choose one of dpo, "),
        (["good.jsonl", "--recipe", "gamma"], "recipe 'gamma' is unknown: choose one of llama-3-8b-instruct, "),
        (["good.jsonl", "--set", "rank=4"], "no setting 'rank': there are model, "),
        (["good.jsonl", "--set", "lora_rank"], "--set lora_rank: write it as name=value"),
        (["good.jsonl", "--set", "lora_rank=four"], "lora_rank is 'four': it must be a whole number"),
        (["good.jsonl", "--set", "optimizer=adamw"], "optimizer is 'adamw': choose one of "),
        (["good.jsonl", "--seed", "-1"], "seed is -1: it must be at least 0"),
        (["good.jsonl", "--config", "{tmp}/none.toml"], r"{tmp}/none.toml: cannot be read as TOML \(.*No such file"),
        (["good.jsonl", "--config", "{tmp}/bad.toml"], r"{tmp}/bad.toml: cannot be read as TOML \(Invalid value"),
        (["good.jsonl", "--config", "{tmp}/unknown.toml"], "no setting 'los': there are model, "),
        (["good.jsonl", "--config", "{tmp}"], r"{tmp}: cannot be read as TOML \("),
        (["good.jsonl", "--model", "{tmp}/nowhere"], r"{tmp}/nowhere"),
        (["good.jsonl", "--model", "{reward}"], r"{reward}: not a whole causal language model: lm_head.weight is"),
        (["good.jsonl", "--model", "{reward}", "--loss", "simpo"], r"{reward}: not a whole causal language model"),
        (
            ["good.jsonl", "--model", "{bert}"],
            "the model cannot be scored: it is not causal, what follows a text counts",
        ),
        (["good.jsonl", "--model", "{bert}", "--loss", "simpo"], "the model cannot be scored: it is not causal"),
        (["good.jsonl", "--reference", "{tmp}/nowhere"], r"{tmp}/nowhere"),
        (["good.jsonl", "--template", "{tmp}/none.jinja"], r"--template {tmp}/none.jinja: not chat, plain or raw"),
        (["good.jsonl", "--eval-data", "{tmp}/none.jsonl"], r"{tmp}/none.jsonl: no such file or folder"),
        (["good.jsonl", "--batch-size", "6"], "batch_size 6 is not a multiple of micro_batch 4"),
        (["good.jsonl", "--workers", "2"], "--workers 2"),
        (["good.jsonl", "--device", "cuda"], "--device cuda: no CUDA device is visible"),
        (["good.jsonl", "--set", "lora_layers=9"], "lora_layers is 9, but the model has 4 layers"),
        (["good.jsonl", "-o", "{tmp}/full"], r"{tmp}/full: holds another training \(.*seed 1, now 42"),
        (["good.jsonl", "-o", "{tmp}/good.jsonl"], r"{tmp}/good.jsonl: a file of this name is in the way"),
        (["good.jsonl", "-o", "{tmp}/good.jsonl/out"], r"{tmp}/good.jsonl/out: a part of this path is a file"),
    ],
    ids=lambda value: " ".join(value).replace("{tmp}/", "") if isinstance(value, list) else "",
)
def test_faults_are_one_line(files, tiny_policy, tiny_reward_model, bert, fault, args, message):
    places = {"tmp": files, "reward": tiny_reward_model, "bert": bert}
    data, *options = (arg.format(**places) for arg in args)
    line = fault("train", files / data, "-o", files / "out", "--model", tiny_policy, *QUICK, *options)
    assert re.match(message.format(**places), line), line


def test_a_run_that_is_not_diagnosed(tmp_path, tiny_policy, fault):
    ingest(IngestConfig((str(write(tmp_path / "data.jsonl", rows(3))),)), made := Run.create(tmp_path / "run"))
    line = fault("train", made.path, "-o", tmp_path / "out", "--model", tiny_policy)
    assert line == (f"{made.path}: not diagnosed yet: run curate diagnose {made.path}, or train with --treat raw")


def test_usage_errors():
    for args, message in (
        (["train"], "Missing argument 'data'"),
        (["train", "a.jsonl"], "Missing option '--output'"),
        (["train", "a.jsonl", "-o", "out", "--epochs", "many"], "Invalid value for '--epochs'"),
        (["train", "a.jsonl", "-o", "out", "--gamma", "1"], "No such option"),
    ):
        done = CliRunner().invoke(app, args)
        assert (done.exit_code, message in done.output) == (2, True), done.output


def test_a_single_update_changes_the_model(lab, tmp_path):
    """A warm-up begins at rate 0, and would be all there is."""
    data = lab.write(tmp_path / "pairs.jsonl", lab.rows(4))
    lab.train(data, tmp_path / "one", loss="simpo", max_steps=1, warmup=0.1)
    lab.train(data, tmp_path / "two", loss="simpo", max_steps=1, warmup=0.1, learning_rate=1e-9)
    assert (lab.weights(tmp_path / "one") - lab.weights(tmp_path / "two")).abs().max() > 1e-4


def test_prompts_that_both_files_have_are_said(lab, tmp_path, capsys):
    rows = lab.rows(6)
    data, held_out = lab.write(tmp_path / "a.jsonl", rows), lab.write(tmp_path / "b.jsonl", rows[4:] + lab.rows(7)[6:])
    lab.train(data, tmp_path / "out", loss="simpo", max_steps=1, eval_data=str(held_out))
    assert f"2 pairs of {held_out} share their prompt with pairs of {data}" in capsys.readouterr().err
