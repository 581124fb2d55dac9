"""A whole audit of generated pairs with a generated Llama: pairs/s and peak memory, from the file to the weights.

    python benchmarks/audit.py                                                   # CPU, fp32, 8 layers
    python benchmarks/audit.py --device cuda --model llama-1b --dtype tf32 --pairs 2000
    python benchmarks/audit.py --device cuda --model llama-1b --dtype float16 --pairs 2000

The model is random and takes its tokenizer from the embedded default model; texts are random words of this text, their
lengths spread as in `scoring.py`, which compares the kernel alone with a padded scorer and with float64.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from scoring import MODELS
from transformers import LlamaConfig, LlamaForCausalLM

import curate
from curate.models import load_tokenizer, resolve

WORDS = sorted(set((__doc__ or "").split()))


def write_model(folder: Path, name: str, seed: int) -> None:
    """A random Llama of the chosen size, with the default model's tokenizer."""
    tokenizer = load_tokenizer(resolve("smollm2"))
    torch.manual_seed(seed)
    sizes = {**MODELS[name], "vocab_size": len(tokenizer)}
    LlamaForCausalLM(LlamaConfig(**sizes, max_position_embeddings=4_096)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_pairs(file: Path, pairs: int, seed: int) -> None:
    """Pairs of random words, about one token each."""
    random = np.random.default_rng(seed)

    def text(mean: float, spread: float) -> str:
        return " ".join(random.choice(WORDS, int(np.clip(random.lognormal(np.log(mean), spread), 8, 1_000))))

    with file.open("w", encoding="utf-8") as stream:
        for _ in range(pairs):
            pair = {"prompt": text(117, 0.7), "chosen": text(147, 0.9), "rejected": text(147, 0.9)}
            stream.write(json.dumps(pair) + "\n")


def main() -> None:
    """Generate, audit, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama-8x512", choices=MODELS)
    parser.add_argument("--pairs", type=int, default=96)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model", options.model, options.seed)
        write_pairs(folder / "pairs.jsonl", options.pairs, options.seed)
        config = curate.AuditConfig(
            curate.IngestConfig((str(folder / "pairs.jsonl"),)),
            curate.ScoreConfig(policy=str(folder / "model"), dtype=options.dtype),
            curate.ComputeConfig(device=options.device),
        )
        started = time.perf_counter()
        view = curate.audit(config, folder / "run")
        seconds = time.perf_counter() - started
        assert view is not None
        scored = view.stage("score")["passes"]["policy"]
    peak = (
        torch.cuda.max_memory_allocated()
        if options.device == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    print(
        f"{options.pairs} pairs, {options.model}, {options.dtype} on {scored['device']}, {scored['kernel']} kernel: "
        f"{seconds:.1f} s in all, {options.pairs / scored['seconds']:.2f} pairs/s and "
        f"{scored['tokens'] / scored['seconds']:,.0f} tokens/s while scoring, peak {peak / 2**30:.2f} GiB"
    )


if __name__ == "__main__":
    main()
