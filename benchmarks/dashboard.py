"""What the dashboard's pages cost: a diagnosed run is multiplied, and the real pages are opened on it, cold and warm.

python benchmarks/dashboard.py RUN --pairs 10000000
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

import duckdb
from streamlit.testing.v1 import AppTest

from curate.store import PART_PAIRS, Run
from curate.workspace import Workspace

MAIN = Path(__file__).parents[1] / "app" / "main.py"
PAGES = ("overview", "slices", "weights")

#: Every copy's pairs have ids of their own and other margins.
COPIED = """
SELECT md5(pair_id || '-' || copy) AS pair_id, copy * {pairs} + row AS row, {columns}
FROM read_parquet('{file}') CROSS JOIN range({copies}) AS _(copy) ORDER BY copy, row
"""
NOISY = {"weights": "* EXCLUDE (pair_id, row, copy) REPLACE (margin + 2 * random() - 1 AS margin)"}
PLAIN = "* EXCLUDE (pair_id, row, copy)"


def multiply(base: Run, folder: Path, copies: int) -> None:
    """A run of so many copies of another's pairs; they have no texts."""
    run, pairs = Run.create(folder), base.count_pairs()
    run.pairs_path.mkdir()
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        for name in ("scores", "weights", "signals", "diagnosis"):
            query = COPIED.format(
                pairs=pairs, columns=NOISY.get(name, PLAIN), file=base.table_path(name), copies=copies
            )
            connection.execute(f"COPY ({query}) TO '{run.table_path(name)}' (FORMAT parquet, COMPRESSION zstd)")
        columns = "tie, source, votes"
        query = COPIED.format(pairs=pairs, columns=columns, file=base.pairs_path / "*.parquet", copies=copies)
        connection.execute(f"CREATE TABLE all_pairs AS {query}")
        for part, start in enumerate(range(0, pairs * copies, PART_PAIRS)):
            chosen = f"FROM all_pairs WHERE row >= {start} AND row < {start + PART_PAIRS} ORDER BY row"
            path = run.pairs_path / f"{part:05d}.parquet"
            connection.execute(f"COPY ({chosen}) TO '{path}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 2048)")
    for name in ("refused", "findings", "slices", "selftest"):
        shutil.copy(base.table_path(name), run.table_path(name))
    manifest = base.manifest()
    manifest["stages"]["ingest"]["pairs"] = pairs * copies
    run.manifest_path.write_text(json.dumps(manifest), encoding="utf-8")


def opened(page: str) -> tuple[float, float]:
    """Seconds until a page is there, and again."""
    at = AppTest.from_file(MAIN, default_timeout=600)
    at.switch_page(f"app_pages/{page}.py")
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        at.run()
        seconds.append(time.perf_counter() - started)
        if at.exception or at.error:
            raise SystemExit(f"{page}: {[it.value for it in (*at.exception, *at.code)]}")
    return seconds[0], seconds[1]


def main() -> None:
    """Measure all pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a diagnosed run with a self-test")
    parser.add_argument("--pairs", type=int, default=1_000_000)
    arguments = parser.parse_args()
    base = Run.open(arguments.run)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        making = (base, folder, -(-arguments.pairs // base.count_pairs()))
        maker = multiprocessing.get_context("spawn").Process(
            target=multiply, args=making
        )  # its memory is not the pages'
        maker.start()
        maker.join()
        os.environ.update(Workspace.of([folder], [], read_only=True).variables())
        print(f"{Run.open(folder).count_pairs():,} pairs: seconds of each page, cold and again")
        for page in PAGES:
            cold, warm = opened(page)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(f"  {page:10} {cold:6.2f} {warm:6.2f}   peak so far {peak:.2f} GiB", flush=True)


if __name__ == "__main__":
    main()
