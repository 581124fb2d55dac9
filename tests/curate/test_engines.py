"""Who does the work: processes that share a run, Ray's actors, and a run that is killed again and again."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import filelock
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from curate import audit, engines, store
from curate.config import AuditConfig, ComputeConfig, IngestConfig, ScoreConfig
from curate.engines import World, _share_out, score
from curate.errors import ConfigError
from curate.pairs import ingest
from curate.scoring import merge
from curate.store import DIAGNOSED, Run
from curate.view import RunView

NATS = 1e-4
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
#: Pairs; the last row is none.
ROWS = [
    {"prompt": f"question {i // 2}", "chosen": f"good answer {i} " * (i % 3), "rejected": f"bad answer {i}"}
    for i in range(20)
] + [{"prompt": "question", "chosen": 1, "rejected": None}]


def write_rows(path, rows=ROWS):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def configured(data, policy, reference):
    """20 pairs in shards of 8, two passes: 6 shards and 2 noise floors."""
    return AuditConfig(
        IngestConfig((str(data),), format="trl_standard"),
        ScoreConfig(policy=str(policy), reference=str(reference), shard_pairs=8),
        ComputeConfig(device="cpu"),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("data") / "pairs.jsonl")


@pytest.fixture(scope="module")
def config(data, tiny_policy, tiny_reference):
    return configured(data, tiny_policy, tiny_reference)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, config):
    """What a single process makes of it."""
    run = tmp_path_factory.mktemp("alone") / "run"
    audit(config, run)
    return Run(run)


@pytest.fixture
def ingested(tmp_path, config):
    run = Run.create(tmp_path / "run")
    ingest(config.ingest, run)
    return run


def assert_same_scores(run, expected):
    found, known = pq.read_table(run.scores_path), pq.read_table(expected.scores_path)
    for name in known.column_names:
        if name.endswith("_logp"):
            np.testing.assert_allclose(found[name].to_numpy(), known[name].to_numpy(), rtol=0, atol=NATS)
        else:
            assert found[name].equals(known[name]), name


def curate(*words, **environment):
    """Start the command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "curate", *map(str, words)],
        env=os.environ | ONE_THREAD | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def audit_words(config, run):
    (data,), score = config.ingest.inputs, config.score
    words = ["audit", data, "-o", run, "--format", "trl_standard", "--device", "cpu", "--policy", score.policy]
    return [*words, "--reference", score.reference, "--shard-pairs", score.shard_pairs]


# --- how many there are ---


@pytest.mark.parametrize(
    ("environment", "workers", "world"),
    [
        ({}, None, World(0, 1)),
        ({}, 1, World(0, 1)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None, World(0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "4"}, None, World(3, 4)),
        ({"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}, 4, World(0, 4)),
    ],
)
def test_the_world_is_what_the_launcher_says(environment, workers, world):
    assert World.of(environment, workers) == world


@pytest.mark.parametrize(
    ("environment", "workers", "message"),
    [
        ({"RANK": "0"}, None, "only one of RANK and WORLD_SIZE is set"),
        ({"WORLD_SIZE": "2"}, 2, "only one of RANK and WORLD_SIZE is set"),
        ({"RANK": "", "WORLD_SIZE": "2"}, None, "RANK= and WORLD_SIZE=2 must be whole numbers"),
        ({"RANK": "0", "WORLD_SIZE": "two"}, None, "must be whole numbers"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, None, "RANK=2 must be from 0 to WORLD_SIZE−1=1"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, None, "RANK=-1 must be from 0"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, None, "RANK=0 must be from 0"),
        ({}, 2, r"--workers 2 was asked for, but WORLD_SIZE is 1; start with torchrun --nproc-per-node 2"),
        ({"RANK": "0", "WORLD_SIZE": "4"}, 2, "--workers 2 was asked for, but WORLD_SIZE is 4"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, 1, "--workers 1 was asked for, but WORLD_SIZE is 2"),
    ],
)
def test_an_impossible_world(environment, workers, message):
    with pytest.raises(ConfigError, match=message):
        World.of(environment, workers)


@pytest.mark.parametrize(
    ("resources", "compute", "share"),
    [
        ({"CPU": 8}, {}, ("cpu", 4, {"num_cpus": 2})),
        ({"CPU": 1}, {}, ("cpu", 1, {"num_cpus": 1})),
        ({"CPU": 8}, {"workers": 3}, ("cpu", 3, {"num_cpus": 2})),
        ({"CPU": 8, "GPU": 2}, {}, ("cuda", 2, {"num_gpus": 1})),
        ({"CPU": 8, "GPU": 2}, {"workers": 1}, ("cuda", 1, {"num_gpus": 1})),
        ({"CPU": 8, "GPU": 2}, {"device": "cpu"}, ("cpu", 4, {"num_cpus": 2})),
    ],
)
def test_what_each_ray_worker_gets(resources, compute, share):
    assert _share_out([resources], ComputeConfig(engine="ray", **compute)) == share


@pytest.mark.parametrize(
    ("resources", "compute", "message"),
    [
        ({"CPU": 2}, {"workers": 3}, "3 workers were asked for, but the Ray cluster has 2 CPUs"),
        ({"CPU": 8, "GPU": 2}, {"workers": 3}, "3 workers were asked for, but the Ray cluster has 2 GPUs"),
        ({"CPU": 8}, {"device": "cuda"}, "0 workers were asked for, but the Ray cluster has 0 GPUs"),
    ],
)
def test_more_ray_workers_than_there_is_room_for(resources, compute, message):
    with pytest.raises(ConfigError, match=message):
        _share_out([resources], ComputeConfig(engine="ray", **compute))


@pytest.mark.parametrize(
    ("cpus", "workers", "each"),
    [([3, 3], 2, 3), ([4, 1, 1], 2, 2), ([4, 1, 1], 3, 1), ([8, 8], 3, 4), ([2], 2, 1), ([0, 5], 1, 5)],
)
def test_no_ray_worker_needs_more_than_a_node_has(cpus, workers, each):
    nodes = [{"CPU": float(one)} for one in cpus]
    assert _share_out(nodes, ComputeConfig(engine="ray", workers=workers)) == ("cpu", workers, {"num_cpus": each})


# --- several processes ---


def as_worker(monkeypatch, run, config, rank, size):
    with monkeypatch.context() as patch:
        patch.setenv("RANK", str(rank))
        patch.setenv("WORLD_SIZE", str(size))
        return score(run, config.score, config.compute)


@pytest.mark.parametrize("order", [(0, 1), (2, 0, 1)])
def test_the_last_worker_merges(alone, ingested, config, monkeypatch, order):
    for rank in order[:-1]:
        assert as_worker(monkeypatch, ingested, config, rank, len(order)) is None
        assert ingested.stage("score") is None
        assert not ingested.scores_path.exists()
    record = as_worker(monkeypatch, ingested, config, order[-1], len(order))
    assert record == ingested.require("score")
    assert_same_scores(ingested, alone)
    for rank in order:  # whoever comes back finds it done
        assert as_worker(monkeypatch, ingested, config, rank, len(order)) == record


def test_one_worker_merges_at_a_time(ingested, config, monkeypatch):
    def watched(plan):
        with pytest.raises(filelock.Timeout):
            filelock.FileLock(plan.run.path / ".lock", timeout=0).acquire()
        return merge(plan)

    monkeypatch.setattr(engines, "merge", watched)
    assert score(ingested, config.score, config.compute) == ingested.require("score")


def test_each_worker_does_its_share(ingested, config, monkeypatch):
    done = []
    for rank in (0, 1):
        as_worker(monkeypatch, ingested, config, rank, 2)
        done.append({path.relative_to(ingested.path) for path in ingested.path.glob("scores/*/*.parquet")})
    assert len(done[0]) == 4
    assert len(done[1]) == 8
    assert done[0] < done[1]


def test_the_work_of_a_worker_that_never_came_is_done_by_the_next_command(alone, ingested, config, monkeypatch):
    as_worker(monkeypatch, ingested, config, 1, 3)
    before = {path: path.stat().st_mtime_ns for path in ingested.path.glob("scores/*/*.parquet")}
    assert len(before) == 3
    assert score(ingested, config.score, config.compute) == ingested.require("score")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert_same_scores(ingested, alone)


def test_a_run_that_another_process_makes_at_the_same_moment(tmp_path, monkeypatch):
    """Between the first look for a manifest and the look at what is in the folder."""
    listdir = os.listdir

    def late(path):
        monkeypatch.setattr(os, "listdir", listdir)
        Run.create(path).record("ingest", "key", {"pairs": 1})
        return listdir(path)

    monkeypatch.setattr(os, "listdir", late)
    assert Run.create(tmp_path / "run").count_pairs() == 1


def test_two_processes_give_the_scores_of_one(alone, config, tmp_path):
    words = [*audit_words(config, tmp_path / "run"), "--workers", 2]
    workers = [curate(*words, RANK=rank, WORLD_SIZE="2") for rank in ("0", "1")]
    texts = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], texts
    assert_same_scores(Run(tmp_path / "run"), alone)
    waited = ["this worker is done; the others go on" in errors for _, errors in texts]
    assert waited == [not report for report, _ in texts]
    assert sum(waited) <= 1  # none, if both were done before the merge
    assert all(f"worker {i} of 2 on cpu in float32" in errors for i, (_, errors) in enumerate(texts, start=1))
    table = pq.read_table(tmp_path / "run" / "weights.parquet")
    assert table.drop_columns(["margin", "target_margin", "weight"]).num_rows == 20


def test_torchrun(alone, config, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    words = map(str, [*audit_words(config, tmp_path / "run"), "--workers", 2])
    done = subprocess.run(
        [*launcher, "-m", "curate", *words], env=os.environ | ONE_THREAD, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "worker 1 of 2" in done.stderr
    assert "worker 2 of 2" in done.stderr
    assert_same_scores(Run(tmp_path / "run"), alone)
    np.testing.assert_allclose(
        pq.read_table(tmp_path / "run" / "weights.parquet")["weight"].to_numpy(),
        pq.read_table(alone.weights_path)["weight"].to_numpy(),
        rtol=0,
        atol=NATS,
    )


def test_another_number_of_workers_is_one_clear_line(alone):
    process = curate("score", alone.path, "--workers", 3)
    report, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert report == ""
    assert errors == (
        "curate: --workers 3 was asked for, but WORLD_SIZE is 1; start with "
        "torchrun --nproc-per-node 3 -m curate … (curate score also has --engine ray)\n"
    )


# --- Ray ---


@pytest.fixture(scope="module")
def cluster():
    """Ray on this machine with two CPUs."""
    ray = pytest.importorskip("ray")
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    except Exception as error:
        pytest.skip(f"Ray cannot start here: {error}")
    yield ray
    ray.shutdown()


RAY = ComputeConfig(device="cpu", engine="ray", workers=2)


def ray_workers():
    """Our actors' processes."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if any(word.startswith("ray::Worker") for word in process.cmdline())
    ]


def kill_one_after_the_first_shard(run, seen):
    """SIGKILL to an actor at work; notes the shards that were there then."""
    while not (files := list(run.path.glob("scores/*/0*.parquet"))):
        time.sleep(0.002)
    victim = ray_workers()[0]
    victim.kill()
    seen.update(pid=victim.pid, shards=len(files))


def test_ray_goes_on_after_a_worker_was_killed(cluster, tmp_path, config):
    many = [{"prompt": f"question {i}", "chosen": f"good {i} " * 20, "rejected": "bad " * 20} for i in range(150)]
    data = write_rows(tmp_path / "many.jsonl", many)
    one, two = Run.create(tmp_path / "one"), Run.create(tmp_path / "two")
    for run in (one, two):
        ingest(IngestConfig((str(data),)), run)
    settings = ScoreConfig(policy=config.score.policy, shard_pairs=1)
    seen = {}
    watcher = threading.Thread(target=kill_one_after_the_first_shard, args=(one, seen), daemon=True)
    watcher.start()
    record = score(one, settings, RAY)
    watcher.join()
    assert not psutil.pid_exists(seen["pid"])
    assert 1 <= seen["shards"] < 150
    assert record == one.require("score")
    score(two, ScoreConfig(policy=config.score.policy), ComputeConfig(device="cpu"))
    assert_same_scores(one, two)


def test_two_ray_workers_give_the_scores_of_one_process(cluster, alone, ingested, config):
    record = score(ingested, config.score, RAY)
    assert_same_scores(ingested, alone)
    assert record["fingerprint"] == alone.require("score")["fingerprint"]
    before = {path: path.stat().st_mtime_ns for path in ingested.path.rglob("*.parquet")}
    assert score(ingested, config.score, RAY) == record
    assert {path: path.stat().st_mtime_ns for path in ingested.path.rglob("*.parquet")} == before


def test_an_error_within_a_ray_worker_is_one_clear_line(alone, tmp_path, config):
    """A model without weights: the plan can be made, the worker cannot load it. The command starts Ray itself."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in Path(config.score.policy).iterdir():
        if file.suffix != ".safetensors":
            (broken / file.name).write_bytes(file.read_bytes())
    words = ["score", alone.path, "--policy", broken, "--device", "cpu", "--engine", "ray", "--workers", 1]
    process = curate(*words)
    report, errors = process.communicate(timeout=120)
    if "Ray cannot be reached" in errors:
        pytest.skip(errors)
    *_, last = errors.splitlines()
    assert process.returncode == 1
    assert report == ""
    assert last.startswith(f"curate: {broken}: ")
    assert "Traceback" not in errors


@pytest.mark.parametrize(("address", "where"), [("10.0.0.1:6379", "10.0.0.1:6379"), (None, "this machine")])
def test_ray_that_is_not_there(ingested, config, monkeypatch, address, where):
    ray = pytest.importorskip("ray")

    def refuse(**options):
        assert options["address"] == address
        raise ConnectionError("no answer\nfrom there")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ConfigError, match=f"Ray cannot be reached at {where}: no answer from there"):
        score(ingested, config.score, ComputeConfig(device="cpu", engine="ray", address=address))


# --- killed again and again ---

RANDOM_KILLS = 20


def child(config, run, renames, note):
    """Audit; SIGKILL to oneself right after so many renames, whose last file's name goes to a note."""
    done, replace = [], os.replace

    def counted(source, target):
        replace(source, target)
        done.append(target)
        if len(done) == renames:
            note.write_text(Path(target).name)
            os.kill(os.getpid(), signal.SIGKILL)

    store.os.replace = counted
    try:
        audit(config, run)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(3)


def attempt(config, run, note, *, renames=None, seconds=None):
    """Audit in a fork that is killed after so many renames or seconds, or left alone. Whether it came to its end."""
    process = os.fork()
    if not process:
        child(config, run, renames, note)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)  # it may have ended, but nobody else has its number before we wait for it
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status in (0, -signal.SIGKILL), f"{run}: exit code {status}"
    return status == 0


def torment(folder, data, policy, reference):
    """Runs killed after each of their renames, and runs killed at random until they are done; prints what happened.

    In a process of its own: it has imported everything and computed nothing, so that a fork starts at once.
    """
    import transformers  # noqa: F401
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: F401

    import curate.logprobs  # noqa: F401

    config, note = configured(data, policy, reference), folder / "note"
    started = time.monotonic()
    assert attempt(config, folder / "whole", note)
    lasts = time.monotonic() - started
    renames = []
    while not attempt(config, run := folder / f"rename-{len(renames)}", note, renames=len(renames) + 1):
        renames.append(note.read_text())
        assert attempt(config, run, note)
    chance, kills, runs = random.Random(0), 0, 0
    while kills < RANDOM_KILLS:
        while not attempt(config, folder / f"time-{runs}", note, seconds=chance.uniform(0, lasts)):
            kills += 1
        runs += 1
    print(json.dumps({"renames": renames, "kills": kills, "seconds": lasts}))


@pytest.fixture(scope="module")
def tormented(tmp_path_factory, config):
    """A folder of runs that were killed, and what happened to them."""
    folder = tmp_path_factory.mktemp("tormented")
    words = [folder, config.ingest.inputs[0], config.score.policy, config.score.reference]
    command = [sys.executable, __file__, *map(str, words)]
    done = subprocess.run(command, env=os.environ | ONE_THREAD, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def tables(run):
    """All that a run holds, but for times."""
    view = RunView(run.path)
    found = {
        "pairs": run.read_pairs(0, run.count_pairs()),
        **{path.stem: pq.read_table(path) for path in (run.refused_path, run.scores_path, run.weights_path)},
    }
    return found, {name: values.tolist() for name, values in view.features().items()}


def test_an_undisturbed_fork_does_as_any_process(tormented, alone):
    folder, _ = tormented
    assert_same_scores(Run(folder / "whole"), alone)


def test_the_kills_hit_every_stage(tormented):
    _, happened = tormented
    expected = {"pairs", "refused.parquet", "manifest.json", "noise_floor.parquet", "scores.parquet", "weights.parquet"}
    expected |= {f"{table}.parquet" for table in DIAGNOSED}
    assert set(happened["renames"]) == expected | {f"{shard:05d}.parquet" for shard in range(3)}
    assert happened["renames"].count("manifest.json") == 9  # made; each stage struck and recorded
    assert happened["kills"] >= RANDOM_KILLS


@pytest.mark.parametrize("kind", ["rename", "time"])
def test_a_killed_run_ends_as_if_nothing_had_happened(tormented, kind):
    folder, _ = tormented
    whole, features = tables(Run(folder / "whole"))
    runs = [Run(path) for path in sorted(folder.glob(f"{kind}-*"))]
    assert runs
    for run in runs:
        found, found_features = tables(run)
        assert found.keys() == whole.keys()
        for name, table in whole.items():
            assert found[name].equals(table), (run.path.name, name)
        assert found_features == features
        assert not list(run.path.rglob(".*.tmp")), run.path.name


if __name__ == "__main__":
    torment(Path(sys.argv[1]), *sys.argv[2:])
