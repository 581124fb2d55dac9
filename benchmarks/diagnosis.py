"""What the diagnosis is worth, beyond what `curate selftest RUN` shows. RUN is a scored run.

    python benchmarks/diagnosis.py simulate               # ε̂ and its interval on margins drawn from the model
    python benchmarks/diagnosis.py words RUN              # 20 % planted flips: fused beside length and a TF-IDF head
    python benchmarks/diagnosis.py votes RUN              # single votes against the majority: real slips
    python benchmarks/diagnosis.py alarms RUN [--source TEXT | --unanimous]     # pairs called flipped, nothing planted
    python benchmarks/diagnosis.py scale --pairs 100000 --width 576             # seconds and memory; generated data

`words` needs the texts, the others only numbers. Seeds are fixed.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from curate.config import DiagnoseConfig, IngestConfig
from curate.detect import FUSED, GROUPED, RANDOM, detect
from curate.diagnosing import diagnose, judge
from curate.evidence import gather
from curate.metrics import auroc, auroc_gain, auroc_interval, average_precision
from curate.noise import fit_lapse
from curate.pairs import ingest
from curate.planting import random_flips
from curate.probe import Floats, Folds, cross_fitted
from curate.schema import SCORES, WEIGHTS, features_schema
from curate.slices import read_votes
from curate.store import Run, write_table
from curate.view import RunView

SEEDS = 5


def simulate(options: argparse.Namespace) -> None:
    """ε̂ − ε and coverage of the interval over 100 draws of 5,000 margins each."""
    print("  ε     mean ε̂−ε   sd      covers   interval's width")
    for rate in (0.0, 0.1, 0.2, 0.3, 0.4):
        errors, covered, widths = [], [], []
        for seed in range(options.draws):
            random = np.random.default_rng([seed, round(100 * rate)])
            truth = random.normal(1.5, 1.5, 5_000)  # log-odds that the label's side is better
            right = random.random(5_000) < expit(np.abs(truth))
            agrees = right != (random.random(5_000) < rate)
            fit = fit_lapse(np.where(agrees, 1, -1) * np.abs(truth))
            errors.append(fit.rate - rate)
            covered.append(fit.low <= rate <= fit.high)
            widths.append(fit.high - fit.low)
        figures = f"{np.mean(errors):+.4f}    {np.std(errors):.4f}   {np.mean(covered):.2f}     {np.mean(widths):.3f}"
        print(f"  {rate:.1f}   {figures}")


def words(options: argparse.Namespace) -> None:
    """AUROC of the fused signal, of length and of a TF-IDF Bradley–Terry head, with paired differences."""
    with RunView(options.run) as view:
        evidence = gather(view)
        difference = _tfidf_differences(view)[evidence.learners]
    at = evidence.learners
    target_MT = random_flips(len(at), 0.2, SEEDS)
    flipped_MT = target_MT < 0
    detected = detect(evidence, target_MT, Folds())
    prompt_M = np.unique(evidence.prompt_N[at], return_inverse=True)[1]
    print(f"{options.run}: {len(at)} pairs, 20 % planted, {SEEDS} seeds; AUROC, average precision, fused − it [95 %]")
    for folds, group_N in ((GROUPED, evidence.prompt_N), (RANDOM, evidence.content_N)):
        head = cross_fitted({"words": difference}, group_N[at], target_MT, {"words": ("words",)})[0]["words"]
        values = {name: value for (name, kind), value in detected.values.items() if kind == folds}
        values["TF-IDF head"] = target_MT * head
        for name, value_MT in values.items():
            ranks = [auroc(value, flipped) for value, flipped in zip(value_MT.T, flipped_MT.T, strict=True)]
            precision = [average_precision(v, flipped) for v, flipped in zip(value_MT.T, flipped_MT.T, strict=True)]
            gain, low, high = auroc_gain(values[FUSED], value_MT, flipped_MT, prompt_M)
            figures = f"{np.mean(ranks):.3f}  {np.mean(precision):.3f}  {gain:+.3f} [{low:+.3f}, {high:+.3f}]"
            print(f"  {folds:8} {name:26} {figures}")


def _tfidf_differences(view: RunView) -> NDArray[np.float32]:
    """TF-IDF of words and word pairs, chosen − rejected, on 256 singular vectors."""
    join = "list_aggregate(list_transform({0}, lambda turn: turn.content), 'string_agg', ' ') AS {0}"
    texts = view.sql(f"SELECT {join.format('chosen')}, {join.format('rejected')} FROM pairs ORDER BY row").fillna("")
    vectors = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True).fit(
        [*texts["chosen"], *texts["rejected"]]
    )
    difference = vectors.transform(texts["chosen"]) - vectors.transform(texts["rejected"])
    reduced = TruncatedSVD(256, random_state=0).fit_transform(difference)
    return np.asarray(reduced, dtype=np.float32)


def votes(options: argparse.Namespace) -> None:
    """Every vote is a label of its own; which of them contradict the majority?"""
    with RunView(options.run) as view:
        evidence, cast = gather(view), read_votes(view)
    used = evidence.learns_N[cast.pair_V]
    at, vote_V = cast.pair_V[used], cast.vote_V[used]
    ballots = evidence.take(at)
    slips_V = vote_V < 0  # the majority is the pair's label
    detected = detect(ballots, vote_V[:, None], Folds())
    prompt_V = np.unique(ballots.prompt_N, return_inverse=True)[1]
    print(
        f"{options.run}: {slips_V.sum()} of {len(slips_V)} votes contradict the majority; AUROC [95 %], − length [95 %]"
    )
    for (name, folds), value_MT in detected.values.items():
        value_MT = np.nan_to_num(value_MT)
        low, high = auroc_interval(value_MT[:, 0], slips_V)
        baseline = detected.values["length", folds if folds != "none" else GROUPED]
        gain = auroc_gain(value_MT, baseline, slips_V[:, None], prompt_V)
        print(
            f"  {folds:8} {name:26} {auroc(value_MT[:, 0], slips_V):.3f} [{low:.3f}, {high:.3f}]  "
            f"{gain[0]:+.3f} [{gain[1]:+.3f}, {gain[2]:+.3f}]"
        )


def alarms(options: argparse.Namespace) -> None:
    """Pairs called flipped at the default threshold where nothing was planted."""
    with RunView(options.run) as view:
        evidence, cast = gather(view), read_votes(view)
        source = view.table("pairs", ["source"])["source"].to_numpy()
    member_N = evidence.learns_N.copy()
    if options.source:
        member_N &= np.array([options.source in str(name) for name in source])
    if options.unanimous:
        count_N = np.bincount(cast.pair_V, minlength=len(member_N))
        member_N &= (np.bincount(cast.pair_V, weights=cast.vote_V, minlength=len(member_N)) == count_N) & (count_N >= 3)
    judged = judge(evidence.take(np.flatnonzero(member_N)), DiagnoseConfig())
    assert judged.fit is not None
    called = int((np.nan_to_num(judged.p_flip) >= DiagnoseConfig().p_flip).sum()) if judged.can_tell else 0
    print(
        f"{options.run}: {member_N.sum()} pairs, {called} called flipped ({called / member_N.sum():.1%}); "
        f"ε̂ {judged.fit.rate:.3f} [{judged.fit.low:.3f}, {judged.fit.high:.3f}]"
        f"{'' if judged.can_tell else ', cannot tell'}"
    )


def scale(options: argparse.Namespace) -> None:
    """Time and memory of a diagnosis; --width 0 leaves the features out."""
    with tempfile.TemporaryDirectory() as folder:
        run = generated_run(Path(folder), options.pairs, options.width)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        facts = diagnose(run, DiagnoseConfig())
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{options.pairs:,} pairs, features of width {options.width}: {seconds:.1f} s, "
        f"peak {peak / 2**20:.2f} GiB ({before / 2**20:.2f} GiB before); ε̂ {facts['noise']['rate']:.3f}, planted 0.2"
    )


WORDS = np.array(sorted(set((__doc__ or "").split())))


def _texts(random: np.random.Generator, count: int, words: int) -> list[str]:
    return [" ".join(row) for row in WORDS[random.integers(0, len(WORDS), (count, words))]]


def _write_features(
    folder: Path, better_N: Floats, width: int, shard_pairs: int, random: np.random.Generator, keys: pa.Table
) -> None:
    """Noise, and in a tenth of the features what makes a side the better one."""
    folder.mkdir(parents=True)
    for shard, start in enumerate(range(0, len(better_N), shard_pairs)):
        better_n = better_N[start : start + shard_pairs, None]
        columns = {}
        for side, sign in (("chosen", 0.5), ("rejected", -0.5)):
            for layer in ("middle", "last"):
                values = random.normal(0, 1, (len(better_n), width)) + 0.3 * sign * better_n * (
                    np.arange(width) % 10 == 0
                )
                flat = pa.array(values.astype(np.float16).ravel())
                columns[f"{side}_{layer}"] = pa.FixedSizeListArray.from_arrays(flat, width)
        table = pa.table({**{name: keys[name][start : start + shard_pairs] for name in ("pair_id", "row")}, **columns})
        write_table(folder / f"{shard:05d}.parquet", table.cast(features_schema(width)))


def generated_run(folder: Path, pairs: int, width: int) -> Run:
    """A scored and weighed run of random texts, 4 pairs a prompt; features know the better side, 20 % are flipped."""
    random = np.random.default_rng(0)
    file = folder / "pairs.parquet"
    texts = {
        "prompt": np.repeat(_texts(random, -(-pairs // 4), 20), 4)[:pairs],
        "chosen": _texts(random, pairs, 60),
        "rejected": _texts(random, pairs, 60),
    }
    pq.write_table(pa.table(texts), file)
    del texts
    run = Run.create(folder / "run")
    ingest(IngestConfig((str(file),)), run)
    keys = run.read_pairs(0, pairs, ["pair_id", "row"])
    better_N = np.where(random.random(pairs) < 0.2, -1.0, 1.0)
    tokens = np.maximum(random.normal(60, 12, (2, pairs)) + np.stack([8 * better_N, np.zeros(pairs)]), 1).round()
    logp = -2.5 * tokens + random.normal(0, 10, (2, pairs)) + np.stack([4 * better_N, np.zeros(pairs)])
    columns = {name: pa.nulls(pairs, SCORES.field(name).type) for name in SCORES.names}
    columns |= {"pair_id": keys["pair_id"], "row": keys["row"]}
    for at, side in enumerate(("chosen", "rejected")):
        columns[f"policy_{side}_logp"] = pa.array(logp[at])
        columns[f"{side}_tokens"] = pa.array(tokens[at].astype(np.int32))
    write_table(run.scores_path, pa.table(columns, schema=SCORES))
    shard_pairs = 4_096
    policy = {"features": bool(width), "folder": "scores/policy-generated", "spec": "generated"}
    if width:
        _write_features(run.path / str(policy["folder"]) / "features", better_N, width, shard_pairs, random, keys)
    run.record("score", "generated", {"passes": {"policy": policy}, "pairs": pairs, "shard_pairs": shard_pairs})
    margin = pa.array((logp[0] / tokens[0] - logp[1] / tokens[1]) * 10)
    weights = [keys["pair_id"], keys["row"], margin, margin, margin]
    write_table(run.weights_path, pa.table(weights, schema=WEIGHTS))
    run.record("weigh", "generated", {})
    return run


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for function in (simulate, words, votes, alarms, scale):
        command = commands.add_parser(function.__name__, help=function.__doc__)
        command.set_defaults(function=function)
        if function in (words, votes, alarms):
            command.add_argument("run", type=Path)
        if function is simulate:
            command.add_argument("--draws", type=int, default=100)
        if function is alarms:
            command.add_argument("--source", help="only sources whose name holds this text")
            command.add_argument("--unanimous", action="store_true", help="only pairs that three or more agree on")
        if function is scale:
            command.add_argument("--pairs", type=int, default=100_000)
            command.add_argument("--width", type=int, default=576)
    options = parser.parse_args()
    options.function(options)


if __name__ == "__main__":
    main()
