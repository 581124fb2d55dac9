"""Two processes train as one does: the same updates, evaluations and dynamics, though pairs do not divide evenly."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from curate.cli import main
from curate.errors import ConfigError
from training.dynamics import read_visits
from training.evaluation import WITHOUT_MARGIN
from training.trainer import last_checkpoint

ROOT = Path(__file__).parents[2]
TORCHRUN = Path(sys.executable).with_name("torchrun")
SETTINGS = {
    "loss": "gamma_dpo",
    "batch_size": 8,
    "epochs": 3.0,
    "learning_rate": 3e-4,
    "shuffle": True,
    "eval_share": 0.2,
    "eval_every": 2,
    "save_every": 4,
    "keep_checkpoints": 3,
}


def in_two_processes(words):
    """What a command says that succeeds; its processes talk over gloo."""
    where = ["--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command = [str(TORCHRUN), *where, "-m", "curate", *words, "--workers", "2"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def trained(lab, tmp_path_factory):
    """By one process in micro-batches of 4 pairs, and by two of 2 each, that is the same pairs at a time.

    The two do it once more from an early checkpoint.
    """
    folder = tmp_path_factory.mktemp("distributed")
    data = lab.write(folder / "pairs.jsonl", lab.rows(27, weight=[0.5 + at % 4 for at in range(27)]))
    alone, both, again = (folder / name for name in ("alone", "both", "again"))
    lab.train(data, alone, **SETTINGS, micro_batch=4)
    in_two_processes(lab.words(data, both, **SETTINGS))
    shutil.copytree(both, again)
    for name in ("checkpoints/checkpoint-8", "checkpoints/checkpoint-9", "model"):
        shutil.rmtree(again / name)
    (again / "report.json").unlink()
    said = in_two_processes(lab.words(data, again, **SETTINGS))
    return SimpleNamespace(alone=alone, both=both, again=again, said=said)


def report_of(output):
    return json.loads((output / "report.json").read_text(encoding="utf-8"))


def test_the_pairs_do_not_divide_evenly(trained):
    """The last update of an epoch has one pair: the second process has none."""
    reports = [report_of(output) for output in (trained.alone, trained.both)]
    assert [report["processes"] for report in reports] == [1, 2]
    assert [report["counts"] for report in reports] == [{"trained": 17, "held_out": 10}] * 2
    assert [report["updates"] for report in reports] == [9, 9]


@pytest.mark.parametrize("name", ["loss", "margin", "accuracy", "grad_norm", "learning_rate", "epoch"])
def test_updates_are_those_of_one_process(name, lab, trained):
    for output in (trained.both, trained.again):
        found, expected = (lab.logged(it, name) for it in (output, trained.alone))
        assert found == pytest.approx(expected, rel=2e-5, abs=3e-5 if name == "margin" else 2e-6)


@pytest.mark.parametrize("name", ["loss", "margin", "accuracy", "likelihood_accuracy", "calibration_error", "brier"])
def test_evaluations_are_those_of_one_process(name, lab, trained):
    for output in (trained.both, trained.again):
        found, expected = (lab.logged(it, f"eval_{name}") for it in (output, trained.alone))
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
        assert list(found) == [2, 4, 6, 8, 9]
        for when in ("before", "after") if name in WITHOUT_MARGIN else ("after",):
            found, expected = (report_of(it)[when][name] for it in (output, trained.alone))
            assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_the_model_and_the_dynamics_are_those_of_one_process(lab, trained):
    for output in (trained.both, trained.again):
        assert torch.allclose(lab.weights(output), lab.weights(trained.alone), rtol=0, atol=1e-6)
        visits, expected = (read_visits(it / "dynamics").to_pydict() for it in (output, trained.alone))
        assert visits.pop("margin") == pytest.approx(expected.pop("margin"), rel=1e-4, abs=1e-5)
        assert visits == expected


def test_two_processes_go_on_from_their_checkpoint(lab, trained):
    assert trained.said.count("going on from update 4") == 2
    assert [lab.losses(trained.again)] == [pytest.approx(lab.losses(trained.both), rel=1e-6)]
    assert torch.allclose(lab.weights(trained.again), lab.weights(trained.both), rtol=0, atol=1e-6)
    found = last_checkpoint(trained.both / "checkpoints")
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in found.iterdir()}
    assert len(list((trained.both / "dynamics").glob("001-*.parquet"))) == 3


# --- what cannot be ---


@pytest.mark.parametrize(
    ("workers", "batch_size", "told"),
    [
        (3, 8, "curate: --workers 3 was asked for, but WORLD_SIZE is 2; start with torchrun"),
        (2, 6, "curate: batch_size 6 is not a multiple of micro_batch 2 × 2 processes"),
    ],
)
def test_processes_that_do_not_fit(workers, batch_size, told, lab, monkeypatch, capsys, tmp_path):
    """As one of two processes, before they speak to each other."""
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    data = lab.write(tmp_path / "pairs.jsonl", lab.rows(8))
    words = lab.words(data, tmp_path / "out", batch_size=batch_size)
    monkeypatch.setattr(sys, "argv", ["curate", *words, "--workers", str(workers)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(told)


def test_a_batch_that_micro_batches_do_not_fill(lab, tmp_path):
    data = lab.write(tmp_path / "pairs.jsonl", lab.rows(8))
    with pytest.raises(ConfigError, match="batch_size 7 is not a multiple of micro_batch 2: set --micro-batch too"):
        lab.train(data, tmp_path / "out", batch_size=7)
