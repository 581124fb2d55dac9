"""Who does the scoring tasks: this process, one of several under torchrun or SLURM, or Ray's actors.

`local` splits the tasks by RANK and WORLD_SIZE, which torchrun sets; on SLURM set them from SLURM_PROCID and
SLURM_NTASKS. Nothing is exchanged but files, so a process may die and come back.
`ray` hands unfinished tasks to actors, a GPU each where there are any; a dead actor's task is done again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curate import models
from curate.config import ComputeConfig, ScoreConfig
from curate.errors import ConfigError, CurateError
from curate.models import Device
from curate.progress import progress_bar, say
from curate.scoring import Plan, Task, Worker, make_plan, merge
from curate.store import Run

_RETRIES = 3


@dataclass(frozen=True)
class World:
    """How many processes share the work, and which of them this is."""

    rank: int
    size: int

    @classmethod
    def of(cls, environment: Mapping[str, str], workers: int | None) -> World:
        """Read RANK and WORLD_SIZE; hold them against what was asked for.

        Raises:
            ConfigError: only one of them is set, they are no numbers or impossible, or the size is not `workers`.
        """
        found = [environment.get("RANK"), environment.get("WORLD_SIZE")]
        if found == [None, None]:
            world = cls(0, 1)
        elif None in found:
            raise ConfigError("only one of RANK and WORLD_SIZE is set: set both, or start with torchrun")
        else:
            try:
                world = cls(*(int(value or "") for value in found))
            except ValueError:
                raise ConfigError(f"RANK={found[0]} and WORLD_SIZE={found[1]} must be whole numbers") from None
            if not 0 <= world.rank < world.size:
                raise ConfigError(f"RANK={world.rank} must be from 0 to WORLD_SIZE−1={world.size - 1}")
        if workers is not None and workers != world.size:
            raise ConfigError(
                f"--workers {workers} was asked for, but WORLD_SIZE is {world.size}; start with "
                f"torchrun --nproc-per-node {workers} -m curate … (curate score also has --engine ray)"
            )
        return world


def score(run: Run, config: ScoreConfig, compute: ComputeConfig) -> dict[str, Any] | None:
    """Score all pairs of a run, going on where it stopped.

    Returns:
        What the manifest says of the stage; None where other workers still have tasks to do.

    Raises:
        CurateError: see `make_plan`; or a worker died for good.
    """
    if compute.engine == "ray":
        return _score_with_ray(run, config, compute)
    world = World.of(os.environ, compute.workers)
    device = models.choose_device(compute.device, config.dtype)
    plan = make_plan(run, config, compute, device, say)
    if (done := _finished(plan)) is not None:
        return done
    mine = [task for index, task in enumerate(plan.tasks()) if index % world.size == world.rank]
    _announce(plan, f"worker {world.rank + 1} of {world.size} on {device.name} in {device.dtype}")
    _work_here(plan, [task for task in mine if not plan.is_done(task)])
    return _merge_if_all_done(plan)


def _finished(plan: Plan) -> dict[str, Any] | None:
    if plan.run.is_done("score", plan.key):
        return plan.run.require("score")
    return None


def _merge_if_all_done(plan: Plan) -> dict[str, Any] | None:
    with plan.run.lock():
        if (done := _finished(plan)) is not None:
            return done
        if not all(plan.is_done(task) for task in plan.tasks()):
            return None
        return merge(plan)


def _announce(plan: Plan, workers: str) -> None:
    names = ", ".join(one.name.replace("_", " ") for one in plan.passes)
    say(f"scoring {plan.pairs:,} pairs ({names}): {workers}")


def _work_here(plan: Plan, tasks: list[Task]) -> None:
    if not tasks:
        return
    worker = Worker(plan)
    with progress_bar("scoring", sum(task.pairs for task in tasks)) as progress:
        for task in tasks:
            if task.shard is None:
                progress.say("scoring: the noise floor, some pairs again one sequence at a time")
            progress.advance(worker.do(task))


# --- Ray -----------------------------------------------------------------------------------------


def _score_with_ray(run: Run, config: ScoreConfig, compute: ComputeConfig) -> dict[str, Any]:
    try:
        import ray
    except ImportError:
        raise ConfigError("--engine ray needs Ray: pip install 'gamma-curate[ray]'") from None
    started_here = not ray.is_initialized()
    if started_here:
        _connect(ray, compute)
    try:
        return _score_on_cluster(ray, run, config, compute)
    finally:
        if started_here:
            ray.shutdown()


def _connect(ray: Any, compute: ComputeConfig) -> None:
    try:
        ray.init(address=compute.address, include_dashboard=False, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError) as error:
        detail = " ".join(str(error).split())
        raise ConfigError(f"Ray cannot be reached at {compute.address or 'this machine'}: {detail}") from error


def _score_on_cluster(ray: Any, run: Run, config: ScoreConfig, compute: ComputeConfig) -> dict[str, Any]:
    from ray.util import ActorPool

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    kind, workers, needs = _share_out(nodes, compute)
    dtype = config.dtype if config.dtype != "auto" else {"cpu": "float32", "cuda": "tf32"}[kind]
    plan = make_plan(Run(run.path.resolve()), config, compute, Device(kind, dtype), say)
    if (done := _finished(plan)) is not None:
        return done
    tasks = [task for task in plan.tasks() if not plan.is_done(task)]
    _announce(plan, f"{workers} Ray workers on {kind} in {dtype}")
    remote = ray.remote(max_restarts=_RETRIES, max_task_retries=_RETRIES, **needs)(Worker)
    pool = ActorPool([remote.remote(plan) for _ in range(workers)])
    with progress_bar("scoring", sum(task.pairs for task in tasks)) as progress:
        try:
            for pairs in pool.map_unordered(lambda actor, task: actor.do.remote(task), tasks):
                progress.advance(pairs)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, CurateError):
                raise error.cause from error
            raise
        except ray.exceptions.RayActorError as error:
            detail = " ".join(str(error).split())
            raise CurateError(f"a Ray worker died {_RETRIES + 1} times; finished shards are kept: {detail}") from error
    merged = _merge_if_all_done(plan)
    if merged is None:
        raise CurateError(f"{run.path}: Ray's workers are done, but not all shards are here; is it a shared folder?")
    return merged


def _share_out(nodes: Sequence[Mapping[str, float]], compute: ComputeConfig) -> tuple[str, int, dict[str, float]]:
    """Device kind, number of workers and what each of them takes from its node."""
    gpus, cpus = (sum(int(node.get(unit, 0)) for node in nodes) for unit in ("GPU", "CPU"))
    on_gpu = compute.device == "cuda" or (compute.device == "auto" and gpus > 0)
    available = gpus if on_gpu else max(cpus, 1)
    workers = compute.workers or (gpus if on_gpu else max(1, cpus // 2))
    if not 0 < workers <= available:
        unit = "GPUs" if on_gpu else "CPUs"
        raise ConfigError(f"{workers} workers were asked for, but the Ray cluster has {available} {unit}")
    return ("cuda", workers, {"num_gpus": 1}) if on_gpu else ("cpu", workers, {"num_cpus": _cpus_each(nodes, workers)})


def _cpus_each(nodes: Sequence[Mapping[str, float]], workers: int) -> int:
    """The most CPUs that every worker can have, given that none is spread over two nodes."""
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    return next((each for each in range(max(cpus), 1, -1) if sum(one // each for one in cpus) >= workers), 1)
