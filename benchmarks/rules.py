"""What rules cost: seconds and memory of each ready-made plan and of a plan of many rules, on a generated run.

python benchmarks/rules.py --pairs 1000000
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb

from curate.applying import decide, tally
from curate.columns import Columns
from curate.plans import Plan, Rule
from curate.ready_made import READY_MADE, ready_made
from curate.store import PART_PAIRS, Run
from curate.view import RunView

QUIET = "SET enable_progress_bar = false"
#: What each table has besides its keys; numbers are random.
TABLES = {
    "scores": "(random() * 200)::INTEGER AS chosen_tokens, (random() * 200)::INTEGER AS rejected_tokens",
    "weights": "random() - 0.3 AS margin, 4 * random() AS target_margin, 2 * random() AS weight",
    "signals": ", ".join(
        f"random() - 0.3 AS {name}"
        for name in ("judge", "reward_model", "vote_majority", "vote_all", "ifd", "ifd_gap", "tag_count")
    )
    + ", floor(2 * random()) AS new_tag_count",
    "diagnosis": "[]::VARCHAR[] AS checks, random() AS p_flip, "
    "['defective', 'flipped', 'clean', 'clean'][1 + (random() * 4)::INTEGER % 4] AS kind",
}
PAIRS = "random() < 0.05 AS tie, 'source ' || row % 5 AS source, [{'annotator': 'a', 'vote': 1}] AS votes"
MANY = (
    'when kind = "defective" or "identical" in checks then drop',
    'when kind = "flipped" and judge < 0 then flip',
    "when share_below(reward_model) < 0.1 then drop",
    "when share_below(judge) < 0.1 then drop",
    "when margin < quantile(margin, 0.1) then weight(max(0.5, weight / 2))",
    "when abs(chosen_tokens - rejected_tokens) > 150 then review",
    'when source in ("source 1", "source 2") and p_flip is not null then soft',
)


def generate(folder: Path, pairs: int) -> None:
    """A diagnosed run without texts."""
    run = Run.create(folder)
    run.pairs_path.mkdir()
    with duckdb.connect() as connection:
        connection.execute(QUIET)
        connection.execute(
            f"CREATE TABLE keys AS SELECT md5(i::VARCHAR) AS pair_id, i AS row FROM range({pairs}) AS _(i)"
        )
        for part, start in enumerate(range(0, pairs, PART_PAIRS)):
            chosen = f"FROM keys WHERE row >= {start} AND row < {start + PART_PAIRS}"
            _write(connection, f"SELECT *, {PAIRS} {chosen}", run.pairs_path / f"{part:05d}.parquet")
        for name, columns in TABLES.items():
            _write(connection, f"SELECT *, {columns} FROM keys", run.table_path(name))
        for name in ("refused", "findings", "slices"):
            _write(connection, "FROM keys WHERE false", run.table_path(name))
    for stage in ("ingest", "score", "weigh", "diagnose"):
        run.record(stage, stage, {"pairs": pairs})


def _write(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    connection.execute(f"COPY ({query} ORDER BY row) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")


def measure(folder: Path, plan: Plan) -> None:
    """Print what a plan costs; in a process of its own, for the peak of memory is the process's."""
    with RunView(folder) as view:
        figures = [_timed(lambda: tally(view, plan)), _timed(lambda: decide(view, plan))]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"  {plan.name:22} " + "   ".join(figures) + f"   peak {peak:.2f} GiB", flush=True)


def _timed(work: Callable[[], object]) -> str:
    started, busy = time.perf_counter(), time.process_time()
    work()
    return f"{time.perf_counter() - started:7.2f} s ({time.process_time() - busy:6.2f} of a core)"


def main() -> None:
    """Measure all plans."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    pairs = parser.parse_args().pairs
    apart = multiprocessing.get_context("spawn").Process
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        maker = apart(target=generate, args=(folder, pairs))
        maker.start()
        maker.join()
        with RunView(folder) as view:
            columns = Columns.of(view).known
        plans = [ready_made(name, columns) for name in READY_MADE]
        plans.append(Plan("seven rules", tuple(map(Rule.parse, MANY))))
        print(f"{pairs:,} pairs: tally, decide")
        for plan in plans:
            process = apart(target=measure, args=(folder, plan))
            process.start()
            process.join()


if __name__ == "__main__":
    main()
