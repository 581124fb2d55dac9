"""What decisions cost, and whether one is lost.

python benchmarks/decisions.py scale --pairs 1000000       # seconds and memory of each step; a generated run
python benchmarks/decisions.py log --entries 100000        # one by one and many at once
python benchmarks/decisions.py kills --entries 100000      # a writer that is killed again and again
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from curate.decision_log import DecisionLog
from curate.decisions import Decisions
from curate.entries import Entry, PairDecision
from curate.plans import Plan
from curate.schema import DIAGNOSIS, FINDINGS, PAIRS, REFUSED, SCORES, SLICES, WEIGHTS, signals_schema
from curate.store import PART_PAIRS, Run, write_table
from curate.view import RunView

T = TypeVar("T")

#: Decides about every pair.
PLAN = """
name = "all"
target_margin = "4"

[[rules]]
when = "p_flip > 0.9"
then = "drop"
reason = "almost certainly the wrong way round"

[[rules]]
when = "p_flip > 0.3"
then = "soft"

[[rules]]
when = "margin < 0"
then = "weight(1 - p_flip)"
reason = "the model doubts the label"
"""

#: Random numbers from a pair's row; every tenth pair repeats the one before.
ROWS = """
SELECT md5((CASE WHEN i % 10 = 9 THEN i - 1 ELSE i END)::VARCHAR) AS pair_id, i AS row,
    hash(i) % 100000 / 10000.0 - 5 AS margin, hash(i + 7) % 100000 / 100000.0 AS p_flip FROM range({0}, {1}) AS _(i)
"""


def generate(folder: Path, pairs: int, query: str = ROWS) -> None:
    """A diagnosed run; what the query does not give is null."""
    run = Run.create(folder)
    run.pairs_path.mkdir()
    for part, start in enumerate(range(0, pairs, PART_PAIRS)):
        write_table(run.pairs_path / f"{part:05d}.parquet", rows(start, min(start + PART_PAIRS, pairs), PAIRS, query))
    for name, schema in {"refused": REFUSED, "findings": FINDINGS, "slices": SLICES}.items():
        write_table(run.table_path(name), schema.empty_table())
    full = {"scores": SCORES, "weights": WEIGHTS, "signals": signals_schema(()), "diagnosis": DIAGNOSIS}
    for name, schema in full.items():
        write_table(run.table_path(name), rows(0, pairs, schema, query))
    for stage in ("ingest", "score", "weigh", "diagnose"):
        run.record(stage, stage, {"pairs": pairs})


def rows(start: int, stop: int, schema: pa.Schema, query: str) -> pa.Table:
    """Lines of a table, null where nothing is generated."""
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        wanted = [name for name in connection.sql(query.format(0, 0)).columns if name in schema.names]
        made = f"SELECT {', '.join(wanted)} FROM ({query.format(start, stop)})"
        found: Any = connection.sql(made).to_arrow_table()
    columns = {name: found[name] for name in found.column_names}
    arrays = [columns[it.name].cast(it.type) if it.name in columns else pa.nulls(len(found), it.type) for it in schema]
    return pa.table(arrays, schema=schema)


def timed(what: str, work: Callable[[], T]) -> T:
    """Do something and print what it took."""
    started, busy = time.perf_counter(), time.process_time()
    result = work()
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"  {what:36} {seconds:8.3f} s, {busy:8.3f} s of a core   peak {peak / 2**20:.2f} GiB", flush=True)
    return result


def scale(options: argparse.Namespace) -> None:
    """Every step on a run of many pairs, all of which a plan decides about."""
    plan = Plan.from_toml(PLAN)
    other = Plan.from_toml(PLAN.replace("0.9", "0.95"))
    with tempfile.TemporaryDirectory() as temporary:
        folder, pairs = Path(temporary) / "run", options.pairs
        maker = multiprocessing.get_context("spawn").Process(target=generate, args=(folder, pairs))
        maker.start()
        maker.join()
        print(f"{pairs:,} pairs")
        with RunView(folder) as view:
            decisions = timed("open, nothing decided", lambda: Decisions(view))
            timed("a plan that decides about all", lambda: decisions.apply(plan, origin="plan.toml"))
            timed("the same plan again", lambda: decisions.apply(plan, origin="plan.toml"))
            ids = view.sql(f"SELECT pair_id FROM pairs USING SAMPLE {min(pairs // 10, 100_000)}")["pair_id"].tolist()
            drop = [PairDecision(pair_id, "drop", reason="seen") for pair_id in ids]
            for one in drop[:3]:
                timed("a decision about one pair", partial(decisions.decide, [one]))
            timed(f"decisions about {len(drop):,} pairs", lambda: decisions.decide(drop))
            timed("a decision about one pair", lambda: decisions.decide(drop[3:4]))
            timed("count by action", lambda: view.sql("SELECT action, count(*) FROM decisions GROUP BY 1"))
            page = "SELECT row, action FROM weights LEFT JOIN decisions USING (row) WHERE row BETWEEN 5000 AND 5049"
            timed("a page of 50", lambda: view.sql(page))
            timed("history of a pair", lambda: decisions.history(ids[0]))
            changed = timed("another plan about all", lambda: decisions.apply(other, origin="plan.toml"))
            timed("undo it", lambda: decisions.undo(changed.id))
            timed("what is gone", decisions.gone)
            timed("what the plan says otherwise", lambda: decisions.compare(changed.id))
            files = sum(path.stat().st_size for path in decisions.log.folder.iterdir()) / 1e6
            print(f"  two bulk entries' files {files:.0f} MB, log {decisions.log.path.stat().st_size / 1e6:.1f} MB")
        with RunView(folder) as view:
            timed("open again", lambda: Decisions(view))


def entries_of(count: int, seed: int = 0) -> list[Entry]:
    """Random decisions about a tenth as many pairs."""
    draw = random.Random(seed)
    ids = [f"{draw.getrandbits(128):032x}" for _ in range(count // 10 + 1)]
    actions = ("keep", "drop", "flip", "review")
    return [Entry.new(PairDecision(draw.choice(ids), draw.choice(actions), reason="seen")) for _ in range(count)]


def log(options: argparse.Namespace) -> None:
    """Seconds an entry."""
    entries = entries_of(options.entries)
    for batch in (1, 100, 10_000):
        some = entries[: max(len(entries) // 10, batch)] if batch == 1 else entries
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            written = DecisionLog(Run.create(Path(folder) / "run"))
            started = time.perf_counter()
            for start in range(0, len(some), batch):
                written.append(some[start : start + batch])
            seconds = time.perf_counter() - started
            print(f"{len(some):,} entries, {batch:,} at once: {seconds:.1f} s, {1e3 * seconds / len(some):.3f} ms each")
            started = time.perf_counter()
            assert DecisionLog(Run.open(Path(folder) / "run")).entries() == some
            print(f"  read in {time.perf_counter() - started:.2f} s")


def kills(options: argparse.Namespace) -> None:
    """A child appends and names each entry that is acknowledged; it is killed at a random moment and started again."""
    draw = random.Random(1)
    acknowledged: list[str] = []
    killed = 0
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        run = Run.create(Path(folder) / "run")
        while len(acknowledged) < options.entries:
            acknowledged += until_killed(run, after=draw.randrange(2 * options.each))
            killed += 1
        there = {entry.id for entry in DecisionLog(run, lambda line: None).entries()}
        torn = len(list((run.path / "decisions").glob("torn-*")))
    print(f"{len(acknowledged):,} acknowledged, {killed:,} kills, {len(there):,} in the log, {torn} torn lines")
    print(f"lost: {len(set(acknowledged) - there)}")


def until_killed(run: Run, after: int) -> list[str]:
    """What a writer acknowledges until it is killed, a moment after some entry."""
    command = [sys.executable, __file__, "write", str(run.path)]
    acknowledged = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="ascii") as child:
        assert child.stdout is not None
        for nth, line in enumerate(child.stdout):
            if line.endswith("\n"):
                acknowledged.append(line.strip())
            if nth == after:
                child.send_signal(signal.SIGKILL)
    return acknowledged


def write(options: argparse.Namespace) -> None:
    """Append without end; print the id of each entry that is acknowledged."""
    written = DecisionLog(Run.open(options.run))
    while True:
        for entry in entries_of(1_000, time.time_ns()):
            written.append([entry])
            print(entry.id, flush=True)


def main() -> None:
    """Run the benchmark that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for work in (scale, log, kills, write):
        command = commands.add_parser(work.__name__, help=work.__doc__)
        command.set_defaults(work=work)
        command.add_argument("--pairs", type=int, default=1_000_000)
        command.add_argument("--entries", type=int, default=100_000)
        command.add_argument("--each", type=int, default=500, help="entries between two kills, on average")
        command.add_argument("--folder", help="where the log is written")
        if work is write:
            command.add_argument("run")
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
