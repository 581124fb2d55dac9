"""What it costs to look through many pairs: every query of the pages Pairs and Pair, on a generated run.

python benchmarks/browsing.py --pairs 10000000 [--folder DIR] [--repeats 10]
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from curate.browsing import Browser, Order, Wanted
from curate.decisions import Decisions
from curate.entries import PairDecision
from curate.schema import DIAGNOSIS, FINDINGS, PAIRS, REFUSED, SCORES, SLICES, WEIGHTS, signals_schema
from curate.store import GROUP_PAIRS, PART_PAIRS, Run, atomic_path, parquet_writer, write_table
from curate.view import RunView

DECIDED = 10_000

#: Numbers and texts from a pair's row: two pairs a prompt, three sources, 20 clusters, 200 to 600 characters a side.
ROWS = """
WITH said AS (SELECT string_agg(md5(n::VARCHAR)[:3 + n % 9], ' ') AS words FROM range(4000) AS _(n)),
drawn AS (SELECT i, (hash(i) >> 1)::BIGINT AS h, (hash(i // 2) >> 1)::BIGINT AS p FROM range({0}, {1}) AS _(i))
SELECT md5(i::VARCHAR) AS pair_id, i AS row,
    [{{'role': 'user', 'content': 'Question ' || i // 2 || ': ' || substr(words, (p % 15000)::INT, 300)}}] AS prompt,
    [{{'role': 'assistant', 'content': substr(words, (h % 15000)::INT, (200 + h % 401)::INT)}}] AS chosen,
    [{{'role': 'assistant', 'content': substr(words, (h % 14983)::INT, (200 + h % 397)::INT)}}] AS rejected,
    FALSE AS tie, ['web', 'books', 'chats'][1 + h % 3] AS source, 'data.jsonl' AS file, i + 1 AS line,
    h % 100000 / 10000.0 - 5 AS margin, h % 1009 / 1009.0 * 2 AS weight,
    (hash(i + 7) % 100000 / 100000.0) ** 3 AS p_flip, 5 - h % 100000 / 10000.0 AS evidence,
    ['clean', 'clean', 'clean', 'flipped', 'ambiguous', 'defective'][1 + h % 6] AS kind,
    CASE h % 50 WHEN 0 THEN ['empty'] WHEN 1 THEN ['duplicate', 'cut_off'] ELSE [] END AS checks,
    []::VARCHAR[] AS reasons,
    p % 20 AS cluster, p % 9973 / 9973.0 AS x, p % 9949 / 9949.0 AS y,
    50 + h % 100 AS chosen_tokens, 50 + h % 97 AS rejected_tokens
FROM drawn, said
"""


def generate(folder: Path, pairs: int) -> None:
    """A diagnosed run with texts."""
    run = Run.create(folder)
    run.pairs_path.mkdir()
    tables = {"scores": SCORES, "weights": WEIGHTS, "signals": signals_schema(()), "diagnosis": DIAGNOSIS}
    writers = {name: parquet_writer(run.table_path(name), schema) for name, schema in tables.items()}
    for part, start in enumerate(range(0, pairs, PART_PAIRS)):
        with duckdb.connect() as connection:
            found = connection.sql(ROWS.format(start, min(start + PART_PAIRS, pairs))).to_arrow_table()
        with atomic_path(run.pairs_path / f"{part:05d}.parquet") as path, parquet_writer(path, PAIRS) as writer:
            writer.write_table(_as(found, PAIRS), row_group_size=GROUP_PAIRS)
        for name, schema in tables.items():
            writers[name].write_table(_as(found, schema))
    for writer in writers.values():
        writer.close()
    for name, schema in {"refused": REFUSED, "findings": FINDINGS, "slices": SLICES}.items():
        write_table(run.table_path(name), schema.empty_table())
    for stage in ("ingest", "score", "weigh", "diagnose"):
        run.record(stage, stage, {"pairs": pairs})


def _as(found: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table's columns of the generated ones, null where nothing is generated."""
    columns = {name: found[name] for name in found.column_names}
    arrays = [columns[it.name].cast(it.type) if it.name in columns else pa.nulls(len(found), it.type) for it in schema]
    return pa.table(arrays, schema=schema)


def measure(what: str, work: Callable[[], object], repeats: int) -> None:
    """Print the median and the 95th percentile of a query's seconds, and the slowest."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    median, high = np.percentile(seconds, [50, 95])
    print(f"  {what:44} {median:7.3f} {high:7.3f} {max(seconds):7.3f}", flush=True)


def browse(folder: Path, repeats: int, draw: random.Random) -> None:
    """Measure every query."""
    with RunView(folder) as view:
        pairs = view.manifest["stages"]["ingest"]["pairs"]
        browser = Browser(view, decisions := Decisions(view))

        def where() -> str:
            low = draw.random()
            kind, source = draw.choice(("clean", "flipped")), draw.choice(("web", "books"))
            return f'kind = "{kind}" and source = "{source}" and p_flip between {low / 2:.3f} and {low:.3f}'

        def row() -> int:
            return draw.randrange(pairs)

        suspects, margins = Order("p_flip", descending=True), Order("abs(margin)")
        print(f"{pairs:,} pairs: median, 95th percentile and most seconds of {repeats}")
        measure("count of all", lambda: browser.count(Wanted()), repeats)
        measure("count of a filter", lambda: browser.count(Wanted(where())), repeats)
        measure("first page of all", lambda: browser.page(Wanted(order=suspects), 0, 50), repeats)
        measure("first page of a filter", lambda: browser.page(Wanted(where(), suspects), 0, 50), repeats)
        measure("first page by an expression", lambda: browser.page(Wanted(where(), margins), 0, 50), repeats)
        measure("a page halfway", lambda: browser.page(Wanted(order=suspects), pairs // 2, 50), repeats)
        measure("a histogram of a filter", lambda: browser.bins("p_flip", Wanted(where())), repeats)
        measure("values of a column", lambda: browser.groups("source", Wanted()), repeats)
        ids = [view.sql(_ID, row=row())["pair_id"][0] for _ in range(repeats)]
        measure("a pair by its id", lambda: browser.pair(draw.choice(ids)), repeats)
        measure("the next of a filter", lambda: browser.following(Wanted(where(), suspects), row()), repeats)
        measure("others of the prompt", lambda: browser.siblings(row()), repeats)
        measure("neighbours", lambda: browser.neighbours(row()), repeats)
        some = view.sql("SELECT pair_id FROM weights LIMIT $n", n=min(DECIDED, pairs // 10))["pair_id"]
        decisions.decide([PairDecision(pair_id, "drop") for pair_id in some])
        undecided = Wanted(where(), suspects, "undecided")
        measure(f"the next undecided, {len(some):,} decided", lambda: browser.following(undecided, row()), repeats)
        measure(f"a page of undecided, {len(some):,} decided", lambda: browser.page(undecided, 0, 50), repeats)
        measure("a text in all pairs", lambda: browser.count(Wanted('contains(lower(prompt), "c4ca")')), 1)
    print(f"  peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


_ID = "SELECT pair_id FROM weights WHERE row = $row"


def main() -> None:
    """Generate a run, or take one that is there, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the generated run is kept")
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "run"
        if not (folder / "manifest.json").is_file():
            generate(folder, options.pairs)
        browse(folder, options.repeats, random.Random(0))


if __name__ == "__main__":
    main()
