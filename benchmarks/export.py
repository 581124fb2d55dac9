"""What an export costs: seconds, MB of text a second and memory of each format, on a generated run.

python benchmarks/export.py --pairs 1000000
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import duckdb

from curate.config import ExportConfig, IngestConfig, as_json
from curate.decisions import Decisions
from curate.exporting import export
from curate.plans import Plan, Rule
from curate.readers import sha256
from curate.schema import PAIRS
from curate.store import GROUP_PAIRS, PART_PAIRS, Run, parquet_writer
from curate.view import RunView

QUIET = "SET enable_progress_bar = false"
FORMATS = ("trl", "trl:jsonl", "llamafactory", "axolotl", "openrlhf", "ms-swift", "llm-comparator", "source")
VOCABULARY = 4096
#: Words of a text, drawn from a vocabulary of as many different ones, so that it compresses as prose does.
TEXT = (
    "array_to_string(list_transform(range({words}), lambda i: word_of((random() * random() * {size})::INTEGER)), ' ')"
)
TABLES = {
    "weights": "random() - 0.3 AS margin, 4 * random() AS target_margin, 2 * random() AS weight",
    "signals": "random() - 0.5 AS judge",
    "diagnosis": "random() AS p_flip, ['defective', 'flipped', 'clean'][1 + (random() * 3)::INTEGER % 3] AS kind",
}
#: A tenth each is dropped, flipped, and for review.
RULES = (
    "when p_flip > 0.9 then drop",
    "when p_flip > 0.7 and judge < 0 then flip",
    "when p_flip > 0.6 then review",
    "when p_flip >= 0 then keep",
)


def generate(folder: Path, pairs: int, words: int) -> None:
    """A diagnosed run, with a decision about each pair, and the file that its pairs stand in."""
    run = Run.create(folder)
    source = folder / "source.jsonl"
    run.pairs_path.mkdir()
    with duckdb.connect() as connection:
        connection.execute(f"{QUIET}; SELECT setseed(0)")
        connection.execute("CREATE MACRO word_of(i) AS substr(md5(i::VARCHAR), 1, 2 + i % 7)")
        for part, start in enumerate(range(0, pairs, PART_PAIRS)):
            stop = min(start + PART_PAIRS, pairs)
            table = connection.sql(_pairs(start, stop, words)).to_arrow_table().cast(PAIRS)
            with parquet_writer(run.pairs_path / f"{part:05d}.parquet", PAIRS) as writer:
                writer.write_table(table, row_group_size=GROUP_PAIRS)
        sides = f"FROM read_parquet('{run.pairs_path}/*.parquet') SELECT prompt, chosen, rejected ORDER BY row"
        connection.execute(f"COPY ({sides}) TO '{source}' (FORMAT json)")
        for name, columns in TABLES.items():
            _write(connection, f"SELECT {_KEY}, {columns} FROM range({pairs}) AS _(i)", run.table_path(name))
        for name in ("findings", "slices"):
            _write(connection, f"SELECT {_KEY} FROM range(0) AS _(i)", run.table_path(name))
        refused = "'' AS file, 1 AS line, '' AS reason, '' AS original"
        _write(connection, f"SELECT {_KEY}, {refused} FROM range(0) AS _(i)", run.table_path("refused"))
    entry = {
        "path": str(source),
        "sha256": sha256(str(source)),
        "format": "trl_conversational",
        "columns": ["prompt", "chosen", "rejected"],
        "rows": pairs,
        "pairs": pairs,
        "refused": 0,
    }
    weighed = {"margin": "simpo", "beta": 10.0, "gamma0": 4.0, "tau": 10.0}
    config = as_json(IngestConfig((str(source),)))
    facts = {"ingest": {"rows": pairs, "refused": 0, "inputs": [entry], "config": config}, "weigh": weighed}
    for stage in ("ingest", "weigh", "diagnose"):
        run.record(stage, stage, {"pairs": pairs, **facts.get(stage, {})})
    with RunView(folder) as view:
        Decisions(view).apply(Plan("tenths", tuple(map(Rule.parse, RULES))), origin="benchmark")


_KEY = "md5(i::VARCHAR) AS pair_id, i::BIGINT AS row"


def _pairs(start: int, stop: int, words: int) -> str:
    sides = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    texts = [
        f"[{{'role': '{role}', 'content': {TEXT.format(words=words, size=VOCABULARY)}}}] AS {side}"
        for side, role in sides.items()
    ]
    rest = "false AS tie, 'web' AS source, []::STRUCT(annotator VARCHAR, vote TINYINT)[] AS votes"
    empty = "NULL::DOUBLE AS rating_chosen, NULL::DOUBLE AS rating_rejected, 'generated' AS file, i + 1 AS line"
    named = ", ".join(PAIRS.names)
    found = f"SELECT {_KEY}, {', '.join(texts)}, {rest}, {empty}, '' AS original FROM range({start}, {stop}) AS _(i)"
    return f"SELECT {named} FROM ({found})"


def _write(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")


def measure(folder: Path, output: Path, form: str, share: float) -> None:
    """Print what an export costs; in a process of its own, for the peak of memory is the process's."""
    name, _, container = form.partition(":")
    with RunView(folder) as view:
        view.sql(QUIET)
        length = "list_sum(list_transform({0}, lambda turn: strlen(turn.content)))"
        size = " + ".join(length.format(side) for side in ("prompt", "chosen", "rejected"))
        megabytes = view.sql(f"SELECT sum({size}) / 1e6 AS mb FROM pairs")["mb"][0]
        started, busy = time.perf_counter(), time.process_time()
        report = export(view, output, ExportConfig(name, container or None, share))
        seconds, core = time.perf_counter() - started, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    written = sum(path.stat().st_size for path in output.rglob("*")) / 1e6
    print(
        f"  {form:16} {report['exported']:>10,} pairs  {seconds:6.1f} s ({core:6.1f} of a core)  "
        f"{megabytes / seconds:6.0f} MB/s of {megabytes:,.0f} MB text  {written:7,.0f} MB written  peak {peak:.2f} GiB",
        flush=True,
    )


def main() -> None:
    """Measure every format."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--words", type=int, default=57, help="of each text; 57 make 1 KB a pair")
    parser.add_argument("--formats", nargs="+", default=FORMATS)
    parser.add_argument("--test-share", type=float, default=0.0)
    parser.add_argument("--run", type=Path, help="a generated run to use again")
    options = parser.parse_args()
    apart = multiprocessing.get_context("spawn").Process
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.run or Path(temporary) / "run"
        if not (folder / "manifest.json").exists():
            _run(apart(target=generate, args=(folder, options.pairs, options.words)))
        for form in options.formats:
            _run(apart(target=measure, args=(folder, Path(temporary) / "out", form, options.test_share)))


def _run(process: BaseProcess) -> None:
    process.start()
    process.join()


if __name__ == "__main__":
    main()
