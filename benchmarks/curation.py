"""What a plan makes of noise that is known, whether its preview knew, and what preview and decision cost.

    python benchmarks/curation.py noise RUN --rate 0.2 --seeds 3      # RUN: a diagnosed run of one file
    python benchmarks/curation.py noise RUN --audit --folder FOLDER   # audits each planted file from the beginning
    python benchmarks/curation.py scale --pairs 1000000               # seconds and memory; a generated run

`noise` turns the labels of a share of the labelled pairs round in a copy of the data, reads, weighs, diagnoses and
self-tests it, and decides by a plan. Scores and hidden states are RUN's with the sides exchanged, for a score does not
depend on the label; `--audit` computes them anew.

left      of the planted noise: a planted pair counts 1 where it stays as it is, 0 where it is dropped or flipped, and
          P(chosen is better) where its label is soft
untouched planted pairs that are neither dropped nor flipped nor softened
dropped   share of the other labelled pairs that leaves; of usable ones: broken pairs apart (a side without text, …)
softened  what soft labels take from the other labelled pairs, in labels, as a share of the planted ones
predicted by the preview, before anything was decided: from p_flip, and from the self-test
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from decisions import generate
from numpy.typing import NDArray

from curate.auditing import audit
from curate.columns import Columns
from curate.config import AuditConfig, DiagnoseConfig, IngestConfig, ScoreConfig, WeighConfig
from curate.decisions import Decisions
from curate.diagnosing import diagnose
from curate.pairs import ingest
from curate.plans import Plan
from curate.planting import random_flips
from curate.preview import preview
from curate.ready_made import DEFECTS, ready_made
from curate.selftest import QUICK, selftest
from curate.store import Run, write_table
from curate.view import RunView
from curate.weighing import weigh

T = TypeVar("T")
Mask = NDArray[np.bool_]

_KEPT_OF_A_STAGE = ("fingerprint", "finished", "versions")
_OTHER_SIDE = {"chosen": "rejected", "rejected": "chosen"}
_OTHER_CHOICE = {1: 2, 2: 1}  # PandaLM's annotators; 0 is a tie

#: Decides about every pair; a rank, a soft label and a weight.
HEAVY = """
name = "all"

[[rules]]
when = "p_flip > 0.9 or share_below(margin) < 0.02"
then = "drop"

[[rules]]
when = "p_flip > 0.3"
then = "soft"

[[rules]]
when = "true"
then = "weight(1 - p_flip)"
"""


#: Random numbers from a pair's row; every tenth pair repeats the one before.
ROWS = """
SELECT md5((CASE WHEN i % 10 = 9 THEN i - 1 ELSE i END)::VARCHAR) AS pair_id, i AS row,
    [{{'role': 'user', 'content': 'question ' || i % 1000}}] AS prompt,
    [{{'role': 'assistant', 'content': 'good'}}] AS chosen, [{{'role': 'assistant', 'content': 'bad'}}] AS rejected,
    hash(i + 1) % 20 = 0 AS tie, 'source ' || hash(i + 2) % 12 AS source,
    (hash(i + 3) % 200)::INT AS chosen_tokens, (hash(i + 4) % 190)::INT AS rejected_tokens,
    hash(i) % 100000 / 10000.0 - 5 AS margin, hash(i + 7) % 100000 / 100000.0 AS p_flip,
    hash(i + 5) % 100000 / 10000.0 - 5 AS evidence,
    ['clean', 'flipped', 'defective'][(1 + hash(i + 6) % 3)::INT] AS kind,
    CASE WHEN hash(i + 8) % 30 = 0 THEN ['empty'] WHEN i % 10 = 9 THEN ['duplicate'] ELSE [] END AS checks
FROM range({0}, {1}) AS _(i)
"""
DIAGNOSED = {"config": {"p_flip": 0.5}, "noise": {"can_tell": True}}


# --- planted noise -------------------------------------------------------------------------------


def turned(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the data with the other label."""
    if "annotator1" in row:
        return {key: _OTHER_CHOICE.get(it, it) if key.startswith("annotator") else it for key, it in row.items()}
    return {**row, "chosen": row["rejected"], "rejected": row["chosen"]}


def plant(source: Path, file: Path, rate: float, seed: int) -> set[int]:
    """Write a run's data with some labels turned round; gives the rows of these."""
    with RunView(source) as view:
        query = "SELECT row, original, tie FROM pairs UNION ALL BY NAME SELECT row, original FROM refused ORDER BY row"
        rows = view.sql(query)
    labelled = rows["row"][rows["tie"].eq(False)].to_numpy()
    planted = set(labelled[random_flips(len(labelled), rate, seed + 1)[:, seed] < 0].tolist())
    originals = [json.loads(text) for text in rows["original"]]
    lines = [turned(it) if row in planted else it for row, it in zip(rows["row"], originals, strict=True)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return planted


def mirrored(table: pa.Table, swap_N: Mask) -> pa.Table:
    """A table of numbers about chosen and rejected, with the two exchanged where it is said."""
    place_N = np.arange(len(table)) + np.where(swap_N, len(table), 0)
    columns = []
    for name in table.column_names:
        other = "_".join(_OTHER_SIDE.get(part, part) for part in name.split("_"))
        both = pa.concat_arrays([table[it].combine_chunks() for it in (name, other)])
        columns.append(both.take(pa.array(place_N)))
    return pa.table(columns, schema=table.schema)


def mirror_scores(source: Run, run: Run, planted: Iterable[int]) -> None:
    """Give a run of planted pairs the scores of the run that they come from."""
    rows = np.array(sorted(planted))
    pairs = run.read_pairs(0, run.count_pairs(), ["pair_id", "row"])
    scores = mirrored(pq.read_table(source.scores_path), np.isin(pairs["row"].to_numpy(), rows))
    write_table(run.scores_path, scores.set_column(0, scores.schema.field(0), pairs["pair_id"]))
    scored = source.require("score")
    for facts in scored["passes"].values():
        for path in (source.path / facts["folder"]).rglob("*.parquet"):
            table = pq.read_table(path)
            target = run.path / path.relative_to(source.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_table(target, mirrored(table, np.isin(table["row"].to_numpy(), rows)))
    facts = {name: it for name, it in scored.items() if name not in _KEPT_OF_A_STAGE}
    run.record("score", f"of {scored['fingerprint']}", facts)


def planted_run(source: Path, folder: Path, rate: float, seed: int, *, anew: bool) -> tuple[Path, set[int]]:
    """A diagnosed and self-tested run of data with planted flips, and their rows."""
    folder.mkdir(parents=True, exist_ok=True)
    file, path, original = folder / "data.jsonl", folder / "run", Run.open(source)
    planted = plant(source, file, rate, seed)
    reading = IngestConfig((str(file),), format=original.require("ingest")["inputs"][0]["format"])
    if anew:
        passes = original.require("score")["passes"]
        audit(AuditConfig(reading, ScoreConfig(unconditional="policy_unconditional" in passes)), path)
    else:
        run = Run.create(path)
        ingest(reading, run)
        mirror_scores(original, run, planted)
        weigh(run, WeighConfig())
        diagnose(run, DiagnoseConfig())
        selftest(run, QUICK)
    return path, planted


def measure(path: Path, planted: Iterable[int], name: str) -> dict[str, float]:
    """Decide by a ready-made plan, and compare with what was planted."""
    with RunView(path) as view:
        plan, decisions = ready_made(name, Columns.of(view).known), Decisions(view)
        expected = preview(view, plan, decisions).noise
        assert expected is not None
        entry = decisions.apply(plan, origin=name)
        pairs = view.sql(
            "SELECT row, pairs.tie, checks, coalesce(action, 'keep') AS action, value FROM pairs "
            "JOIN diagnosis USING (row) LEFT JOIN decisions USING (row) WHERE NOT tie ORDER BY row"
        )
        decisions.undo(entry.id)
    planted_N = pairs["row"].isin(list(planted))
    usable_N = ~planted_N & pairs["checks"].map(lambda checks: not {*DEFECTS} & {*checks})
    action_N = pairs["action"]
    label_N = pairs["value"].where(action_N == "soft", 1.0).mask(action_N.isin(["drop", "flip"]), 0.0)
    found = {
        "left": label_N[planted_N].mean(),
        "predicted": expected.share_left,
        "self-test": np.nan if expected.selftest is None else expected.selftest[0],
        "untouched": (~action_N.isin(["drop", "flip", "soft"]))[planted_N].mean(),
        "dropped": (action_N == "drop")[~planted_N].mean(),
        "of usable": (action_N == "drop")[usable_N].mean(),
        "predicted dropped": expected.lost,
        "softened": (1 - label_N)[~planted_N & (action_N == "soft")].sum() / planted_N.sum(),
    }
    return {key: float("nan" if value is None else value) for key, value in found.items()}


def noise(options: argparse.Namespace) -> None:
    """Planted noise that is left, what else is lost, and what the preview said of it."""
    source, lines = Path(options.run), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        for seed in range(options.first, options.first + options.seeds):
            path, planted = planted_run(source, folder / str(seed), options.rate, seed, anew=options.audit)
            lines += [{"plan": it, "seed": seed, **measure(path, planted, it)} for it in options.plans.split(",")]
    found = pd.DataFrame(lines)
    means = found.drop(columns="seed").groupby("plan", as_index=False).mean().assign(seed="mean")
    print(f"{source}: {options.rate:.0%} of the labels turned round")
    shown = pd.concat([found.sort_values(["plan", "seed"]), means])
    print(shown.to_string(index=False, float_format="{:.3f}".format))


# --- cost ----------------------------------------------------------------------------------------


def timed(what: str, work: Callable[[], T]) -> T:
    """Do something and print what it took."""
    started, busy = time.perf_counter(), time.process_time()
    result = work()
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"  {what:44} {seconds:7.2f} s, {busy:7.2f} s of a core   peak {peak / 2**20:.2f} GiB", flush=True)
    return result


def first(folder: Path) -> None:
    """What `curate decide RUN --plan …` does, with and without --dry-run, where nothing is decided."""
    plan = Plan.from_toml(HEAVY)
    Run.open(folder).record("diagnose", "generated", DIAGNOSED)
    with RunView(folder) as view:
        decisions = timed("open", lambda: Decisions(view))
        conservative = ready_made("conservative", Columns.of(view).known)
        timed("preview conservative", lambda: preview(view, conservative, decisions))
        timed("preview a plan about all, with a rank", lambda: preview(view, plan, decisions))
        timed("decide by it", lambda: decisions.apply(plan, origin="plan.toml"))


def on_top(folder: Path) -> None:
    """The same where all is decided already."""
    with RunView(folder) as view:
        decisions = timed("open, all decided", lambda: Decisions(view))
        timed("preview what stands", lambda: preview(view, Plan(""), decisions))
        conservative = ready_made("conservative", Columns.of(view).known)
        timed("preview conservative on top", lambda: preview(view, conservative, decisions))


def scale(options: argparse.Namespace) -> None:
    """Seconds and memory of preview and decision, in two processes, as the command line has them."""
    apart = multiprocessing.get_context("spawn").Process
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary) / "run"
        print(f"{options.pairs:,} pairs")
        for work in (partial(generate, pairs=options.pairs, query=ROWS), first, on_top):
            process = apart(target=work, args=(folder,))
            process.start()
            process.join()


def main() -> None:
    """Run the benchmark that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    planting = commands.add_parser("noise", help=noise.__doc__)
    planting.set_defaults(work=noise)
    planting.add_argument("run")
    planting.add_argument("--rate", type=float, default=0.2)
    planting.add_argument("--seeds", type=int, default=3, help="how many")
    planting.add_argument("--first", type=int, default=0, help="the first seed")
    planting.add_argument("--plans", default="conservative", help="names of ready-made plans")
    planting.add_argument("--audit", action="store_true", help="score the planted data too")
    cost = commands.add_parser("scale", help=scale.__doc__)
    cost.set_defaults(work=scale)
    cost.add_argument("--pairs", type=int, default=1_000_000)
    for command in (planting, cost):
        command.add_argument("--folder", help="where runs are written; default: a temporary folder")
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
