"""Trainings that are cut off go on as if they had not been; what is done stays done; a full disk takes nothing away."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
import transformers
from safetensors import SafetensorError
from typer.testing import CliRunner

from curate.cli import app
from curate.errors import ConfigError, RunError, StorageError
from training import train as stage
from training.dynamics import read_visits
from training.folders import alone_in
from training.trainer import PairTrainer, last_checkpoint

ROOT = Path(__file__).parents[2]
ADAPTER = "adapter/adapter_model.safetensors"


def report_of(output):
    """Without the time it took."""
    return {**json.loads((output / "report.json").read_text(encoding="utf-8")), "seconds": None}


def assert_same(lab, found, expected, weights="model/model.safetensors"):
    """Two trainings left the same numbers."""
    assert lab.losses(found) == pytest.approx(lab.losses(expected), rel=1e-6)
    assert lab.logged(found, "eval_loss") == pytest.approx(lab.logged(expected, "eval_loss"), rel=1e-6)
    assert report_of(found) == report_of(expected)
    visits, others = (read_visits(output / "dynamics").to_pydict() for output in (found, expected))
    assert visits.pop("margin") == pytest.approx(others.pop("margin"), rel=1e-5, abs=1e-6)
    assert visits == others
    assert torch.allclose(lab.weights(found, weights), lab.weights(expected, weights), rtol=0, atol=1e-6)


# --- killed ---


@pytest.fixture(scope="module")
def killed(lab, tmp_path_factory):
    """A training of 20 updates with online γ, dropout and adapters, and the same one killed and started again."""
    folder = tmp_path_factory.mktemp("killed")
    data = lab.write(folder / "pairs.jsonl", lab.rows(26))
    settings = {"loss": "gamma_dpo", "tau": 1.0, "lora": True, "lora_dropout": 0.1, "epochs": 4.0, "shuffle": True}
    settings |= {"learning_rate": 5e-3, "eval_share": 0.15, "eval_every": 4, "save_every": 5}
    whole, cut = folder / "whole", folder / "cut"
    lab.train(data, whole, **settings)
    command = [sys.executable, "-m", "curate", *lab.words(data, cut, **settings)]
    status = kill_after(command, cut / "metrics.jsonl", 6)
    reached, last = max(lab.logged(cut)), last_checkpoint(cut / "checkpoints")
    torn = cut / "checkpoints" / "checkpoint-9999"
    shutil.copytree(last, torn)
    (torn / "whole").unlink()
    (torn / "optimizer.pt").write_bytes(b"torn")
    again = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT)
    assert again.returncode == 0, again.stderr
    left = {"status": status, "reached": reached, "last": last, "said": again.stderr}
    return SimpleNamespace(data=data, settings=settings, whole=whole, cut=cut, **left)


def kill_after(command, metrics, update):
    """Start a training, and kill it at once when that update is logged; how it ended."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    wait_for(process, metrics, update)
    process.kill()
    return process.wait()


def wait_for(process, metrics, update):
    """Wait until that update is logged, or the process has ended."""
    while process.poll() is None and not (metrics.is_file() and f'{{"step": {update},' in metrics.read_text()):
        time.sleep(0.002)


def test_a_killed_training_goes_on_as_if_nothing_had_been(killed, lab):
    assert killed.status == -9
    assert 6 <= killed.reached < len(lab.losses(killed.whole)) == 20
    assert f"going on from update {killed.last.name.removeprefix('checkpoint-')}\n" in killed.said
    assert_same(lab, killed.cut, killed.whole, ADAPTER)
    assert list(lab.logged(killed.cut, "eval_loss")) == [4, 8, 12, 16, 20]


def test_its_signals_are_those_of_every_visit(killed):
    tables = [pq.read_table(output / "signals.parquet") for output in (killed.cut, killed.whole)]
    assert tables[0].column_names == tables[1].column_names
    for name in tables[0].column_names[2:]:
        assert tables[0][name].to_pylist() == pytest.approx(tables[1][name].to_pylist(), rel=1e-5, abs=1e-6)
    visits = read_visits(killed.cut / "dynamics").to_pandas()
    assert (visits.groupby("index").size() == 4).all()


def test_a_torn_checkpoint_is_left_out_and_removed(killed):
    kept = sorted(path.name for path in (killed.cut / "checkpoints").iterdir())
    assert kept == ["checkpoint-15", "checkpoint-20"]


def test_what_was_logged_after_the_checkpoint_is_taken_back(killed):
    steps = [json.loads(line)["step"] for line in (killed.cut / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert all(steps.count(step) == 1 + (step % 4 == 0) + (step == 20) for step in range(1, 21))  # with evaluations


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_training_that_is_told_to_stop(number, status, lab, tmp_path):
    """It says so in a line; with no checkpoint yet, the next one says that it begins anew."""
    data = lab.write(tmp_path / "pairs.jsonl", lab.rows(200))
    out, settings = tmp_path / "out", {"loss": "simpo", "epochs": 40.0, "save_every": 1900}
    command = [sys.executable, "-m", "curate", *lab.words(data, out, **settings)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8", cwd=ROOT)
    wait_for(process, out / "metrics.jsonl", 2)
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == status
    assert said.endswith("\ninterrupted; run the same command again: what is done already is kept\n")
    if number == signal.SIGTERM:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8", cwd=ROOT)
        assert any("no checkpoint was written yet: the training begins anew" in line for line in process.stderr)
        process.kill()


def test_two_trainings_in_one_folder(lab, tmp_path):
    data = lab.write(tmp_path / "pairs.jsonl", lab.rows(4))
    with alone_in(tmp_path / "out"), pytest.raises(RunError, match="out: another process trains there: wait for it"):
        lab.train(data, tmp_path / "out", loss="simpo")
    lab.train(data, tmp_path / "out", loss="simpo")


def test_what_is_done_is_said_and_not_done_again(killed, lab):
    before = {path: path.stat().st_mtime_ns for path in sorted(killed.cut.rglob("*"))}
    done = CliRunner().invoke(app, [*lab.words(killed.data, killed.cut, **killed.settings), "--json"])
    assert done.exit_code == 0
    assert f"{killed.cut}: trained already; choose another folder with -o" in done.stderr
    assert json.loads(done.stdout) == json.loads((killed.cut / "report.json").read_text(encoding="utf-8"))
    after = {path: path.stat().st_mtime_ns for path in sorted(killed.cut.rglob("*"))}
    changed = [path.name for path in after if after[path] != before.get(path)]
    assert set(changed) <= {"data", "manifest.json", ".lock"}, changed


def test_other_settings_or_data_want_another_folder(killed, lab, tmp_path):
    with pytest.raises(RunError, match=r"holds another training \(tau 1.0, now 2.0\): choose another -o") as caught:
        lab.train(killed.data, killed.cut, **{**killed.settings, "tau": 2.0})
    assert "\n" not in str(caught.value)
    other = lab.write(tmp_path / "other.jsonl", lab.rows(26, seed=1))
    with pytest.raises(RunError, match=r"holds a training on other data: choose another -o") as caught:
        lab.train(other, killed.cut, **killed.settings)
    assert "\n" not in str(caught.value)


# --- cut off elsewhere, in this process ---


class Cut(BaseException):
    """A training ends here, and can do nothing about it."""


@pytest.fixture
def cut_off(lab, monkeypatch):
    """A function that trains until another function is called, at an update or at all."""

    def train_until(owner, name, *arguments, update=None, **settings):
        original = getattr(owner, name)

        def ends(*args, **kwargs):
            if update is None or args[0].state.global_step == update:
                raise Cut
            return original(*args, **kwargs)

        with monkeypatch.context() as patched:
            patched.setattr(owner, name, ends)
            with pytest.raises(Cut):
                lab.train(*arguments, **settings)

    return train_until


@pytest.mark.parametrize(("loss", "batching"), [("beta_dpo", "packed"), ("gamma_simpo", "length_grouped")])
def test_cut_off_in_an_epoch_or_before_the_model_is_written(loss, batching, lab, cut_off, tmp_path):
    """Seven updates, three an epoch: the last checkpoint is the end, in the middle of an epoch."""
    data = lab.write(tmp_path / "pairs.jsonl", lab.rows(10))
    settings = {"loss": loss, "batching": batching, "max_steps": 7, "save_every": 2, "shuffle": True}
    lab.train(data, tmp_path / "whole", **settings)
    cut_off(PairTrainer, "compute_loss", data, tmp_path / "cut", update=5, **settings)
    lab.train(data, tmp_path / "cut", **settings)
    assert_same(lab, tmp_path / "cut", tmp_path / "whole")
    cut_off(stage, "save_model", data, tmp_path / "end", **settings)
    lab.train(data, tmp_path / "end", **settings)
    assert_same(lab, tmp_path / "end", tmp_path / "whole")


def test_early_stopping_keeps_the_best_model_and_goes_on_counting(lab, cut_off, tmp_path):
    """It stops after the second evaluation that is no better, though it was cut off between them, or after both."""
    rows = lab.rows(20)
    data, others = (lab.write(tmp_path / name, part) for name, part in (("a.jsonl", rows[:12]), ("b.jsonl", rows[12:])))
    settings = {"loss": "simpo", "learning_rate": 3e-3, "schedule": "constant", "epochs": 20.0}
    settings |= {"eval_data": str(others), "eval_every": 2, "early_stop": 2}
    report = lab.train(data, tmp_path / "whole", **settings)
    evaluated = lab.logged(tmp_path / "whole", "eval_loss")
    best = min(evaluated, key=evaluated.get)
    assert list(evaluated) == list(range(2, best + 6, 2))
    assert 2 < best == report["updates"] - 4
    assert report["after"]["loss"] == evaluated[best]
    at_best = tmp_path / "whole" / "checkpoints" / f"checkpoint-{best}"
    assert torch.equal(lab.weights(tmp_path / "whole"), lab.weights(at_best, "model.safetensors"))
    cut_off(PairTrainer, "compute_loss", data, tmp_path / "cut", update=best + 3, **settings)
    cut_off(stage, "save_model", data, tmp_path / "end", **settings)
    for cut in (tmp_path / "cut", tmp_path / "end"):
        lab.train(data, cut, **settings)
        assert_same(lab, cut, tmp_path / "whole")


# --- the disk is full ---


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_space_in_rust(*args, **kwargs):
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


REFUSALS = [(torch, "save", no_space), (transformers.modeling_utils, "safe_save_file", no_space_in_rust)]


@pytest.mark.parametrize(("owner", "name", "refuse"), REFUSALS, ids=["optimizer", "weights"])
def test_a_full_disk_at_a_checkpoint(owner, name, refuse, lab, monkeypatch, tmp_path):
    """One checkpoint is kept, and it is not given up before the next one is whole."""
    data = lab.write(tmp_path / "pairs.jsonl", lab.rows(12))
    settings = {"loss": "simpo", "max_steps": 6, "save_every": 2, "keep_checkpoints": 1}
    lab.train(data, tmp_path / "whole", **settings)
    save = PairTrainer._save_checkpoint

    def full(self, model, trial):
        with monkeypatch.context() as patched:
            if self.state.global_step == 4:
                patched.setattr(owner, name, refuse)
            save(self, model, trial)

    told = "checkpoint-4: .*free some space.* the same command again"
    with monkeypatch.context() as patched:
        patched.setattr(PairTrainer, "_save_checkpoint", full)
        with pytest.raises(StorageError, match=told) as caught:
            lab.train(data, tmp_path / "out", **settings)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()] == ["checkpoint-2"]
    lab.train(data, tmp_path / "out", **settings)
    assert_same(lab, tmp_path / "out", tmp_path / "whole")


@pytest.fixture
def disk(tmp_path):
    """A disk of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no small disk can be mounted (not root)")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def leave(disk, space):
    """Fill it, but for so many bytes."""
    found = os.statvfs(disk)
    (disk / "ballast").write_bytes(bytes(max(found.f_bavail * found.f_frsize - space, 0)))


def size(folder):
    """In whole pages, as the disk counts."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.iterdir())


def test_a_full_disk_wherever_it_fills_up(disk, lab, monkeypatch, tmp_path):
    """In the weights, in the optimizer's state, in what is written after it, in the dynamics; at last in the model."""
    data = lab.write(tmp_path / "pairs.jsonl", lab.rows(12))
    settings = {"loss": "gamma_simpo", "max_steps": 4, "save_every": 2}
    lab.train(data, tmp_path / "whole", **settings)
    save, save_model = PairTrainer._save_checkpoint, stage.save_model
    needed = size(tmp_path / "whole" / "checkpoints" / "checkpoint-2")
    told = set()
    for space in (0, 40_000, needed // 2, *range(needed - 30_000, needed, 6_000)):

        def full(self, model, trial, space=space):
            if self.state.global_step == 4:
                leave(disk, space)
            save(self, model, trial)

        with monkeypatch.context() as patched:
            patched.setattr(PairTrainer, "_save_checkpoint", full)
            told.add(refused_by(disk, lab, data, **settings))
        assert [path.name for path in (disk / "out" / "checkpoints").iterdir()] == ["checkpoint-2"]
    with monkeypatch.context() as patched:
        patched.setattr(stage, "save_model", lambda *args: leave(disk, 100_000) or save_model(*args))
        told.add(refused_by(disk, lab, data, **settings))
    assert told == {"checkpoints/checkpoint-4", "dynamics/000-00000002.parquet", f"{disk}/out"}
    assert not (disk / "out" / "model").exists()
    lab.train(data, disk / "out", **settings)
    assert_same(lab, disk / "out", tmp_path / "whole")


def refused_by(disk, lab, data, **settings):
    """What cannot be written."""
    with pytest.raises(StorageError) as caught:
        lab.train(data, disk / "out", **settings)
    assert "\n" not in str(caught.value)
    assert "the same command again" in str(caught.value)
    (disk / "ballast").unlink()
    return str(caught.value).partition(": ")[0].removeprefix(f"{disk}/out/")


def test_early_stopping_without_held_out_pairs_is_refused(lab, tmp_path):
    data = lab.write(tmp_path / "pairs.jsonl", lab.rows(5))
    with pytest.raises(ConfigError, match="early_stop needs held-out pairs, and there are none"):
        lab.train(data, tmp_path / "out", eval_share=1e-9, early_stop=1)
