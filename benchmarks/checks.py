"""Checks: findings by check on runs or files, and the time that a large dataset takes.

    python benchmarks/checks.py ../shared/data/llmbar runs/demo …     findings of each
    python benchmarks/checks.py --pairs 1000000                       seconds and memory, on invented pairs

The invented pairs have sides of 60 words; one in a hundred is an exact copy of another, one in a hundred a near copy.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.checks import CHECKS, PAIR_COLUMNS, find, find_in_run
from curate.config import IngestConfig
from curate.pairs import ingest
from curate.schema import MESSAGES, PAIRS
from curate.store import PART_PAIRS, Run

_WORDS = {"prompt": 20, "chosen": 60, "rejected": 60}
_VOCABULARY = 30_000


def findings_of(path: Path, folder: Path) -> tuple[int, Counter[str]]:
    """Pairs and findings by check of a run, or of a file or folder of data."""
    run = Run.open(path) if (path / "manifest.json").is_file() else Run.create(folder / path.name.partition(".")[0])
    if run.stage("ingest") is None:
        ingest(IngestConfig(inputs=(str(path),)), run)
    return run.count_pairs(), Counter(find_in_run(run)["check"].to_pylist())


def print_table(paths: list[Path]) -> None:
    """One line a check, one column a dataset."""
    with tempfile.TemporaryDirectory() as folder:
        found = [findings_of(path, Path(folder)) for path in paths]
    names = [path.name.partition(".")[0] for path in paths]
    print("| check | severity | " + " | ".join(names) + " |")
    print("|---|---|" + "---:|" * len(names))
    print("| *pairs* | | " + " | ".join(f"{pairs:,}" for pairs, _ in found) + " |")
    for check in CHECKS.values():
        print(f"| `{check.name}` | {check.severity} | " + " | ".join(str(n[check.name]) for _, n in found) + " |")


def invented(pairs: int, seed: int) -> Iterator[pa.Table]:
    """Parts of the pairs table: words drawn with Zipf's frequencies."""
    random = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = pa.array(["".join(random.choice(letters, length)) for length in random.integers(2, 9, _VOCABULARY)])
    chance = 1 / np.arange(10, _VOCABULARY + 10)
    chance /= chance.sum()
    for start in range(0, pairs, PART_PAIRS):
        size = min(PART_PAIRS, pairs - start)
        drawn = {name: random.choice(_VOCABULARY, (size, width), p=chance) for name, width in _WORDS.items()}
        _plant_copies(drawn, size // 100, random)
        columns = {name: _messages(words, name, drawn[name]) for name in _WORDS}
        columns["row"] = pa.array(np.arange(start, start + size))
        columns["pair_id"] = pc.binary_replace_slice(columns["row"].cast(pa.string()), 0, 0, "pair-")
        columns["tie"] = pa.array(np.zeros(size, bool))
        yield pa.table(
            [columns[name] for name in PAIR_COLUMNS], pa.schema([PAIRS.field(name) for name in PAIR_COLUMNS])
        )


def _plant_copies(drawn: dict[str, NDArray[np.int64]], copies: int, random: np.random.Generator) -> None:
    for words in drawn.values():
        words[-2 * copies :] = words[: 2 * copies]
    if copies:
        drawn["chosen"][-copies:, 30] = random.choice(_VOCABULARY, copies)


def _messages(words: pa.Array, name: str, drawn: NDArray[np.int64]) -> pa.Array:
    offsets = pa.array(np.arange(0, drawn.size + 1, drawn.shape[1]), pa.int32())
    texts = pc.binary_join(pa.ListArray.from_arrays(offsets, words.take(pa.array(drawn.ravel()))), " ")
    roles = pa.repeat("user" if name == "prompt" else "assistant", len(texts))
    turns = pa.StructArray.from_arrays([roles, texts], names=["role", "content"])
    return pa.ListArray.from_arrays(pa.array(np.arange(len(texts) + 1), pa.int32()), turns).cast(MESSAGES)


def time_pairs(pairs: int, seed: int) -> None:
    """Seconds in the checks alone, findings, and the peak of this process's memory, input included."""
    waited = 0.0

    def parts() -> Iterator[pa.Table]:
        nonlocal waited
        source = invented(pairs, seed)
        while True:
            started = time.perf_counter()
            part = next(source, None)
            waited += time.perf_counter() - started
            if part is None:
                return
            yield part

    started = time.perf_counter()
    found = Counter(find(parts())["check"].to_pylist())
    seconds = time.perf_counter() - started - waited
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{pairs:,} pairs: {seconds:.1f} s, peak memory {memory:.2f} GB, findings {dict(found)}")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, help="runs, or files or folders of data")
    parser.add_argument("--pairs", type=int, help="time this many invented pairs")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.paths:
        print_table(options.paths)
    if options.pairs:
        time_pairs(options.pairs, options.seed)


if __name__ == "__main__":
    main()
