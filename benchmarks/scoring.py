"""Scoring speed and memory: ours against a padded full-logits scorer in dataset order, same model, pairs and run.

    python benchmarks/scoring.py                         # CPU, one thread, fp32, random Llama of 8 layers
    python benchmarks/scoring.py --responses 4           # four responses a prompt, all six pairs
    python benchmarks/scoring.py --device cuda --model llama-1b --dtype tf32 --pairs 512
    python benchmarks/scoring.py --device cuda --model llama-1b --dtype float16 --pairs 512

Each scorer runs in a process of its own, in turn, `--rounds` times; ratios are of the medians. Time is CPU time on a
CPU (the machine may be shared) and wall time on CUDA, without loading and warm-up. Peak memory is the process's on a
CPU and what torch allocated on CUDA. `--check N` compares N sequences with float64 on the CPU.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from curate.logprobs import Scorer
from curate.models import Device, load_model, resolve
from curate.packing import Group

MODELS: dict[str, dict[str, Any]] = {
    "llama-8x512": {
        "vocab_size": 32_000,
        "hidden_size": 512,
        "intermediate_size": 1_376,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
    },
    "llama-1b": {
        "vocab_size": 128_256,
        "hidden_size": 2_048,
        "intermediate_size": 8_192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
BASELINE_PAIRS = 8  # a batch, both sides at once: TRL's default
SCORERS = ("padded full logits", "ours", "ours, with features")

Ids = tuple[int, ...]
PairIds = tuple[Ids, Ids, Ids]


@dataclass(frozen=True)
class Options:
    """The command line."""

    model: str
    pairs: int
    responses: int
    device: str
    dtype: str
    batch_tokens: int | None
    rounds: int
    check: int
    seed: int
    scorer: str | None


def generate_pairs(options: Options, vocabulary: int) -> list[PairIds]:
    """Random pairs in random order; lengths are log-normal and spread as in real preference data.

    Means are about 150 (prompt) and 220 tokens (response); standard deviations of the log-lengths 0.7 and 0.9: with
    SmolLM2's tokens they are 0.71 and 0.86 in HH-RLHF, 0.68 and 1.23 in LLMBar, 1.19 and 1.13 in LLaMA-Factory's demo.
    """
    random = np.random.default_rng(options.seed)

    def ids(mean: float, spread: float) -> Ids:
        length = int(np.clip(random.lognormal(np.log(mean), spread), 8, 1_000))
        return tuple(random.integers(0, vocabulary, length).tolist())

    prompts = -(-options.pairs * 2 // (options.responses * (options.responses - 1)))
    pairs: list[PairIds] = []
    for _ in range(prompts):
        prompt = ids(117, 0.7)
        responses = [ids(147, 0.9) for _ in range(options.responses)]
        pairs += [(prompt, a, b) for index, a in enumerate(responses) for b in responses[index + 1 :]]
    return pairs[: options.pairs]


def build_model(options: Options, device: Device) -> Any:
    """A random Llama of the chosen size, or any model that curate loads."""
    if options.model not in MODELS:
        return load_model(resolve(options.model), device)
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(options.seed)
    config = LlamaConfig(**MODELS[options.model], max_position_embeddings=4_096)
    if device.is_cuda:
        torch.set_float32_matmul_precision("highest" if device.dtype == "float32" else "high")
    with torch.device(device.name):
        model: Any = LlamaForCausalLM(config)
    return model.to(torch.bfloat16 if device.dtype == "bfloat16" else torch.float32).eval().requires_grad_(False)


@torch.inference_mode()
def score_padded(model: Any, device: Device, pairs: list[PairIds]) -> np.ndarray[Any, Any]:
    """The usual way: both sides of some pairs, in dataset order, padded and masked; logits of every token."""
    size = BASELINE_PAIRS
    results = []
    for start in range(0, len(pairs), size):
        batch = pairs[start : start + size]
        sequences = [(prompt, side) for prompt, *sides in batch for side in sides]
        longest = max(len(prompt) + len(side) for prompt, side in sequences)
        ids = torch.zeros((len(sequences), longest), dtype=torch.long)
        attention, scored = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        for row, (prompt, side) in enumerate(sequences):
            ids[row, : len(prompt) + len(side)] = torch.tensor(prompt + side)
            attention[row, : len(prompt) + len(side)] = 1
            scored[row, len(prompt) : len(prompt) + len(side)] = True
        ids, attention, scored = (tensor.to(device.name) for tensor in (ids, attention, scored))
        with torch.autocast("cuda", torch.float16, enabled=device.dtype == "float16"):
            logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits
        logps = logits[:, :-1].float().log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        results.append((logps * scored[:, 1:]).sum(1).view(-1, 2).cpu())
    return torch.cat(results).numpy()


def score_ours(scorer: Scorer, pairs: list[PairIds]) -> np.ndarray[Any, Any]:
    """Unique sequences, grouped by prompt, as the scoring stage does it."""
    index: dict[Ids, dict[Ids, int]] = {}
    for prompt, *sides in pairs:
        for side in sides:
            index.setdefault(prompt, {}).setdefault(side, 0)
    groups = [Group(prompt, tuple(sides)) for prompt, sides in index.items()]
    logps = iter(scorer.score(groups).logp_C)
    found = {prompt: {side: next(logps) for side in sides} for prompt, sides in index.items()}
    return np.array([[found[prompt][side] for side in sides] for prompt, *sides in pairs])


def measure(options: Options) -> dict[str, Any]:
    """Run one scorer in this process."""
    device = Device(options.device, options.dtype)
    if not device.is_cuda:
        torch.set_num_threads(1)
    model = build_model(options, device)
    pairs = generate_pairs(options, int(model.get_input_embeddings().weight.shape[0]))
    if options.scorer == "padded full logits":
        run = partial(score_padded, model, device)
    else:
        features = options.scorer != "ours"
        run = partial(score_ours, Scorer(model, device, batch_tokens=options.batch_tokens, features=features))
    run(pairs[:8])
    if device.is_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    clock = time.perf_counter if device.is_cuda else time.process_time
    started = clock()
    logps = run(pairs)
    seconds = clock() - started
    peak = (
        torch.cuda.max_memory_allocated()
        if device.is_cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    parameters = sum(p.numel() for p in model.parameters()) - model.get_input_embeddings().weight.numel()
    tokens = sum(2 * len(prompt) + len(a) + len(b) for prompt, a, b in pairs)
    return {
        "seconds": seconds,
        "peak_gib": peak / 2**30,
        "pairs_per_s": len(pairs) / seconds,
        "useful_tflops": 2 * parameters * tokens / seconds / 1e12,
        "matrix_tflops": matrix_peak(device),
        "device": torch.cuda.get_device_name() if device.is_cuda else "CPU, one thread",
        "padding": padding(pairs),
        "logps": logps.tolist(),
        "error_nats": float64_error(model, pairs[: options.check], logps) if options.check else None,
    }


def padding(pairs: list[PairIds]) -> float:
    """The share of padding among the baseline's tokens."""
    lengths = [[len(prompt) + len(side) for side in sides] for prompt, *sides in pairs]
    batches = [lengths[start : start + BASELINE_PAIRS] for start in range(0, len(lengths), BASELINE_PAIRS)]
    return 1 - sum(map(sum, lengths)) / sum(2 * len(batch) * max(map(max, batch)) for batch in batches)


def matrix_peak(device: Device) -> float:
    """TFLOP/s of a large matrix product in the same arithmetic."""
    size = 8_192 if device.is_cuda else 1_024
    dtype = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(device.dtype, torch.float32)
    a, b = (torch.randn(size, size, device=device.name, dtype=dtype) for _ in range(2))
    rounds = 20
    for warm_up in (True, False):
        started = time.perf_counter()
        for _ in range(rounds):
            a @ b
        if device.is_cuda:
            torch.cuda.synchronize()
        if not warm_up:
            return 2 * size**3 * rounds / (time.perf_counter() - started) / 1e12
    raise AssertionError


@torch.inference_mode()
def float64_error(model: Any, pairs: list[PairIds], logps: np.ndarray[Any, Any]) -> float:
    """Largest difference to one sequence at a time in float64 on the CPU."""
    exact = model.to("cpu", torch.float64)
    exact.set_attn_implementation("eager")
    worst = 0.0
    for number, (prompt, *sides) in enumerate(pairs):
        for side, found in zip(sides, logps[number], strict=True):
            logits = exact(input_ids=torch.tensor([prompt + side])).logits[0, len(prompt) - 1 : -1]
            expected = logits.log_softmax(-1).gather(1, torch.tensor(side)[:, None]).sum()
            worst = max(worst, abs(float(expected) - float(found)))
    return worst


def main() -> None:
    """Measure all scorers in turn and compare them."""
    options = read_options()
    if options.scorer:
        print(json.dumps(measure(options)))
        return
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SCORERS}
    for _ in range(options.rounds):
        for name in SCORERS:
            command = [sys.executable, __file__, *sys.argv[1:], "--scorer", name]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    report(options, found)


def report(options: Options, found: dict[str, list[dict[str, Any]]]) -> None:
    """Print one line a scorer."""
    base = found[SCORERS[0]]
    median = {name: statistics.median(run["seconds"] for run in runs) for name, runs in found.items()}
    print(
        f"{options.pairs} pairs, {options.responses} responses a prompt, {options.model}, {options.dtype}, "
        f"{base[0]['device']}, seed {options.seed}, {options.rounds} rounds"
    )
    print(f"padding in the first scorer's batches of {BASELINE_PAIRS} pairs: {base[0]['padding']:.0%}")
    print(f"matrix product in the same arithmetic: {statistics.median(r['matrix_tflops'] for r in base):.3g} TFLOP/s")
    print(f"{'scorer':22} {'seconds':>8} {'pairs/s':>8} {'× faster':>8} {'of peak':>8} {'peak GiB':>9} {'error':>9}")
    for name, runs in found.items():
        run = min(runs, key=lambda one: abs(one["seconds"] - median[name]))
        off = np.abs(np.array(run["logps"]) - np.array(base[0]["logps"])).max()
        share = run["useful_tflops"] / run["matrix_tflops"]
        error = f"{run['error_nats']:.1e}" if run["error_nats"] is not None else f"{off:.1e}*"
        print(
            f"{name:22} {median[name]:8.2f} {options.pairs / median[name]:8.2f} "
            f"{median[SCORERS[0]] / median[name]:8.2f} {share:8.1%} "
            f"{statistics.median(r['peak_gib'] for r in runs):9.2f} {error:>9}"
        )
    print("error: largest difference to float64 in nats; * to the first scorer instead (ask for more with --check N)")
    print("of peak: 2 · parameters · tokens of unshared sequences, as a share of that matrix product; may exceed 100 %")


def read_options() -> Options:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama-8x512", help=f"{', '.join(MODELS)}, or any model that curate loads")
    parser.add_argument("--pairs", type=int, default=96)
    parser.add_argument("--responses", type=int, default=2, help="a prompt; all their pairs are scored")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "tf32", "float16", "bfloat16"])
    parser.add_argument("--batch-tokens", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scorer", choices=SCORERS, help=argparse.SUPPRESS)
    return Options(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
