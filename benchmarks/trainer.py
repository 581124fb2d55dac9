"""A step of our trainer against TRL's, and γ-DPO against DPO: same pairs, model, batches, optimiser and run.

    python benchmarks/trainer.py                                  # CPU, one thread, fp32, random Llama of 8 layers
    python benchmarks/trainer.py --model smollm2 --steps 4        # the embedded model
    python benchmarks/trainer.py --device cuda --model llama-1b --pairs 8 --steps 16          # bf16, fp32 weights
    python benchmarks/trainer.py --device cuda --model llama-1b --pairs 8 --steps 16 --checkpointing

A step is all that a trainer does from one update to the next: batch, forward and backward pass, clipping, AdamW, its
metrics. The reference's log-probs are stored on both sides. Every trainer lives in a process of its own; on a CPU they
take their steps in turn, on CUDA one trainer runs after the other. Time is CPU time on a CPU (the machine may be
shared) and wall time on CUDA; of each batch the median over the repeats, summed over the batches. Peak memory is the
process's on a CPU and what torch allocated on CUDA; γ is the time of the target margins alone.

(A script of the name training.py would hide the package.)
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
import transformers
from scoring import MODELS

from curate.models import Device, load_model, resolve
from training.adapters import load
from training.config import TrainConfig
from training.data import PREPARED, Pairs
from training.dynamics import Recorder
from training.margins import target_margins
from training.trainer import PairTrainer

BASE, TRL = "dpo_norm", "TRL sigmoid_norm"
#: Ours: name → loss, target margins, batching.
OURS = {
    BASE: ("dpo_norm", "constant", "packed"),
    "gamma_dpo, online": ("gamma_dpo", "online", "packed"),
    "gamma_dpo, online_exact": ("gamma_dpo", "online_exact", "packed"),
    "gamma_dpo, online, padded": ("gamma_dpo", "online", "length_grouped"),
}
NAMES = (*OURS, TRL)


@dataclass(frozen=True)
class Options:
    """The command line. pairs: of a step; steps: different batches, each of which is timed `repeats` times."""

    model: str
    trainers: Sequence[str]
    pairs: int
    steps: int
    repeats: int
    prompt_tokens: int
    response_tokens: int
    device: str
    dtype: str
    checkpointing: bool
    seed: int
    json: bool

    @property
    def is_cuda(self) -> bool:
        """Whether it runs on a GPU."""
        return self.device == "cuda"

    @property
    def warm_up(self) -> int:
        """Steps that are not timed: the first, and on CUDA every shape once."""
        return self.steps if self.is_cuda else 1


@dataclass(frozen=True)
class Measured:
    """One trainer.

    seconds_RS, wall_RS: repeats, steps. targets_ms: of a step's target margins, on a CPU.
    """

    seconds_RS: np.ndarray[Any, Any]
    wall_RS: np.ndarray[Any, Any]
    peak_gib: float
    mean_loss: float
    targets_ms: float | None
    device: str

    @property
    def step_seconds(self) -> float:
        """Seconds a step, median of the repeats, mean of the batches."""
        return float(np.median(self.seconds_RS, axis=0).mean())


# --- data and model ------------------------------------------------------------------------------


def write_inputs(options: Options, folder: Path) -> None:
    """Random pairs, their lengths spread as in `scoring.py`, with log-probs of a reference; and a random Llama."""
    random = np.random.default_rng(options.seed)
    vocabulary = MODELS[options.model]["vocab_size"] if options.model in MODELS else 32_000

    def ids(mean: float, spread: float) -> list[int]:
        length = random.lognormal(math.log(mean) - spread**2 / 2, spread)
        count = int(np.clip(length, 8, 1_000))
        found: list[int] = random.integers(0, vocabulary, count).tolist()
        return found

    def pair(number: int) -> dict[str, Any]:
        sides = {"prompt": ids(options.prompt_tokens, 0.7)}
        sides |= {side: ids(options.response_tokens, 0.9) for side in ("chosen", "rejected")}
        per_token = -math.log(vocabulary) + random.normal(0, 0.1, 2)
        reference = {
            f"reference_{side}": len(sides[side]) * per_token[i] for i, side in enumerate(("chosen", "rejected"))
        }
        other = {"held_out": False, "swapped": False, "weight": 1.0, "p_flip": 0.0}
        return {"pair_id": f"{number:08x}", "row": number, **other, **sides, **reference}

    table = pa.Table.from_pylist([pair(number) for number in range(options.pairs * options.steps)], PREPARED)
    with pa.OSFile(str(folder / "pairs.arrow"), "wb") as sink, pa.ipc.new_file(sink, PREPARED) as out:
        out.write_table(table)
    if options.model in MODELS:
        torch.manual_seed(options.seed)
        cast("Any", transformers.utils.logging).disable_progress_bar()
        config = transformers.LlamaConfig(**MODELS[options.model], max_position_embeddings=4_096)
        transformers.LlamaForCausalLM(config).save_pretrained(folder / "model")


def padding(options: Options, pairs: Pairs) -> float:
    """The share of padding where both sides of a batch's pairs are padded."""
    lengths_N2 = np.array(
        [[len(pair.prompt) + len(side) for side in (pair.chosen, pair.rejected)] for pair in _all(pairs)]
    )
    longest = lengths_N2.reshape(options.steps, -1).max(axis=1)
    return float(1 - lengths_N2.sum() / (longest.sum() * 2 * options.pairs))


def _all(pairs: Pairs) -> list[Any]:
    return [pairs[position] for position in range(len(pairs))]


# --- trainers ------------------------------------------------------------------------------------


def make_trainer(name: str, options: Options, folder: Path) -> transformers.Trainer:
    """One of the trainers, with everything else the same."""
    source = resolve(str(folder / "model") if options.model in MODELS else options.model)
    device = Device("cuda:0" if options.is_cuda else "cpu", options.dtype)
    pairs = Pairs(folder / "pairs.arrow", held_out=False)
    shared: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": options.pairs,
        "max_steps": options.warm_up + options.steps * options.repeats,
        "learning_rate": 1e-6,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused",
        "bf16": options.dtype == "bfloat16",
        "use_cpu": not options.is_cuda,
        "activation_checkpointing": options.checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False} if options.checkpointing else None,
        "seed": options.seed,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": options.is_cuda,
    }
    if name == TRL:
        model = load_model(source, Device(device.name, "float32")).requires_grad_(requires_grad=True)
        return _trl_trainer(model, shared, pairs)
    loss, targets, batching = OURS[name]
    config = TrainConfig(lora=False, loss=loss, batching=batching, micro_batch=options.pairs, shuffle=False)
    arguments = transformers.TrainingArguments(**shared, remove_unused_columns=False)
    arguments._n_gpu = min(arguments.n_gpu, 1)
    model, packed = load(source, config, device)
    if packed != (batching == "packed"):
        raise SystemExit(f"{options.model} cannot be trained on packed batches")
    margins = target_margins(targets, config.loss_settings, seed=options.seed)
    return PairTrainer(model, arguments, config, pairs, None, margins, Recorder(folder / "dynamics"))


def _trl_trainer(model: torch.nn.Module, shared: dict[str, Any], pairs: Pairs) -> transformers.Trainer:
    """TRL's own, its tokenization and its reference pass left out: tokens and log-probs are those of the pairs."""
    import datasets
    import tokenizers
    import trl

    class Stored(trl.DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *others: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *others: Any) -> Any:
            return dataset

    rows = [
        {
            **{f"{side}_ids": list(getattr(pair, side)) for side in ("prompt", "chosen", "rejected")},
            **{f"ref_{side}_logps": getattr(pair, f"reference_{side}") for side in ("chosen", "rejected")},
        }
        for pair in _all(pairs)
    ]
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<pad>": 0}, "<pad>"))
    arguments = trl.DPOConfig(
        **shared,
        loss_type="sigmoid_norm",
        beta=TrainConfig(loss="dpo_norm").loss_settings.beta,
        max_length=None,
        precompute_ref_log_probs=True,
        train_sampling_strategy="sequential",
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)
    tokenizer = cast("Any", transformers.PreTrainedTokenizerFast)(tokenizer_object=words, pad_token="<pad>")
    trainer: transformers.Trainer = Stored(
        model,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    return trainer


class Turns(transformers.TrainerCallback):
    """Tells what every step took, and waits for leave to begin the next one."""

    def __init__(self, leave: Connection, *, is_cuda: bool) -> None:
        self.leave, self.is_cuda = leave, is_cuda
        self.started = time.process_time(), time.perf_counter()

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """The model is loaded."""
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """A step is done."""
        if self.is_cuda:
            torch.cuda.synchronize()
        cpu, wall = time.process_time() - self.started[0], time.perf_counter() - self.started[1]
        self.leave.send((wall if self.is_cuda else cpu, wall))
        self.leave.recv()
        self.started = time.process_time(), time.perf_counter()


class Stopwatch:
    """Target margins whose CPU time is taken."""

    def __init__(self, targets: Any) -> None:
        self.targets, self.seconds = targets, list[float]()

    def __call__(self, *args: Any, **settings: Any) -> Any:
        """Call them."""
        started = time.process_time()
        found = self.targets(*args, **settings)
        self.seconds.append(time.process_time() - started)
        return found


def work(name: str, options: Options, folder: Path, leave: Connection) -> None:
    """The process of one trainer."""
    if not options.is_cuda:
        torch.set_num_threads(1)
    cast("Any", transformers.utils.logging).set_verbosity_error()
    trainer = make_trainer(name, options, folder)
    if isinstance(trainer, PairTrainer) and not options.is_cuda:  # there it would also be the wait for the margins
        trainer.targets = Stopwatch(trainer.targets)  # type: ignore[assignment]
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.add_callback(Turns(leave, is_cuda=options.is_cuda))
    loss = trainer.train().training_loss
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = torch.cuda.max_memory_allocated() if options.is_cuda else own
    watch = getattr(trainer, "targets", None)
    targets_ms = 1_000 * float(np.median(watch.seconds[1:])) if isinstance(watch, Stopwatch) else None
    device = torch.cuda.get_device_name() if options.is_cuda else "CPU, one thread"
    leave.send((peak / 2**30, loss, targets_ms, device))


# --- measuring -----------------------------------------------------------------------------------


def measure(options: Options, folder: Path, names: Sequence[str]) -> dict[str, Measured]:
    """Some trainers, alive together, that take their steps in turn."""
    context = multiprocessing.get_context("spawn")
    lines: dict[str, Connection] = {}
    workers = []
    for name in names:
        lines[name], other = context.Pipe()
        worker = context.Process(target=work, args=(name, options, folder, other), daemon=True)
        worker.start()
        other.close()
        workers.append(worker)
        lines[name].recv()
        for _ in range(options.warm_up - 1):
            _step(lines[name])
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(options.steps * options.repeats):
        for name in names:
            found[name].append(_step(lines[name]))
    measured = {}
    for name in names:
        lines[name].send(None)
        rest = lines[name].recv()
        # a step's batch is its number modulo the steps: the first one of them all is a warm-up on the first batch
        turned = np.roll(np.array(found[name]).reshape(options.repeats, options.steps, 2), options.warm_up, axis=1)
        measured[name] = Measured(turned[..., 0], turned[..., 1], *rest)
    for worker in workers:
        worker.join()
    return measured


def _step(line: Connection) -> tuple[float, float]:
    line.send(None)
    seconds, wall = line.recv()
    return seconds, wall


def summarise(found: dict[str, Measured]) -> dict[str, dict[str, Any]]:
    """The figures of each trainer; ratios to the base are of the medians, with the least and largest of a repeat."""
    base, trl = found[BASE], found.get(TRL)
    return {
        name: {
            "step_seconds": it.step_seconds,
            "ratio": it.step_seconds / base.step_seconds,
            "ratio_range": [f(it.seconds_RS.sum(1) / base.seconds_RS.sum(1)) for f in (np.min, np.max)],
            "wall_ratio": float(np.median(it.wall_RS, axis=0).sum() / np.median(base.wall_RS, axis=0).sum()),
            "faster_than_trl": trl and trl.step_seconds / it.step_seconds,
            "peak_gib": it.peak_gib,
            "targets_ms": it.targets_ms,
            "mean_loss": it.mean_loss,
        }
        for name, it in found.items()
    }


def report(options: Options, found: dict[str, Measured], padded: float) -> None:
    """Print one line a trainer."""
    print(
        f"{options.model}, {options.dtype}, {found[BASE].device}, {options.pairs} pairs a step, {options.steps} "
        f"batches × {options.repeats} repeats, seed {options.seed}"
        f"{', activation checkpointing' if options.checkpointing else ''}"
    )
    print(
        f"prompts of {options.prompt_tokens}, responses of {options.response_tokens} tokens on average; "
        f"{padded:.0%} padding where sides are padded"
    )
    heads = f"{'ratio':>8}{'least–most':>14}{'wall':>8}{'× TRL':>8}{'γ ms':>7}{'peak GiB':>10}{'loss':>9}"
    print(f"{'trainer':27}{'s/step':>8}{heads}")
    for name, it in summarise(found).items():
        spread = "{:.3f}–{:.3f}".format(*it["ratio_range"])
        faster, targets = ("" if it[key] is None else f"{it[key]:.2f}" for key in ("faster_than_trl", "targets_ms"))
        print(
            f"{name:27}{it['step_seconds']:8.3g}{it['ratio']:8.3f}{spread:>14}{it['wall_ratio']:8.3f}"
            f"{faster:>8}{targets:>7}{it['peak_gib']:10.2f}{it['mean_loss']:9.5f}"
        )
    print("ratio: to dpo_norm, least and most of a repeat; wall: the same in wall time; loss: mean of all steps")


def main() -> None:
    """Measure all trainers and compare them."""
    options = read_options()
    if not options.is_cuda:
        os.environ["OMP_NUM_THREADS"] = "1"
    found: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(options, folder)
        padded = padding(options, Pairs(folder / "pairs.arrow", held_out=False))
        for group in [[name] for name in options.trainers] if options.is_cuda else [options.trainers]:
            try:
                found |= measure(options, folder, group)
            except EOFError:
                raise SystemExit("a trainer's process ended, perhaps for lack of memory: try fewer --pairs") from None
    if options.json:
        print(json.dumps({"options": asdict(options), "padding": padded, "trainers": summarise(found)}, indent=2))
    else:
        report(options, found, padded)


def read_options() -> Options:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama-8x512", help=f"{', '.join(MODELS)}, or any model that curate loads")
    parser.add_argument("--trainers", nargs="*", default=NAMES, choices=NAMES, help=f"{BASE} is always among them")
    parser.add_argument("--pairs", type=int, default=2, help="of a step")
    parser.add_argument("--steps", type=int, default=8, help="different batches")
    parser.add_argument("--repeats", type=int, default=3, help="times that each batch is measured")
    parser.add_argument("--prompt-tokens", type=int, default=150, help="mean")
    parser.add_argument("--response-tokens", type=int, default=220, help="mean")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="of the arithmetic; default: bfloat16 on CUDA")
    parser.add_argument("--checkpointing", action="store_true", help="of activations, in all trainers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = vars(parser.parse_args())
    options["dtype"] = options["dtype"] or ("bfloat16" if options["device"] == "cuda" else "float32")
    options["trainers"] = [name for name in NAMES if name == BASE or name in options["trainers"]]
    return Options(**options)


if __name__ == "__main__":
    main()
