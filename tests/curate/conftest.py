"""Scored runs without any model: data whose flips are known, and features that know the better side."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from curate.config import DiagnoseConfig, IngestConfig, SelftestConfig, WeighConfig
from curate.diagnosing import diagnose
from curate.pairs import ingest
from curate.schema import NOISE_FLOOR, SCORES, features_schema
from curate.selftest import selftest
from curate.store import Run, write_table
from curate.weighing import weigh

TOPICS = ("gardening", "astronomy", "cookery", "chemistry")
WIDTH, SHARD_PAIRS = 12, 256
SIDES = (("chosen", 0.5), ("rejected", -0.5))


@dataclass
class World:
    """Pairs whose truth is known.

    rows: lines of the data file. gap_N: how much better chosen is than rejected; 0 where nothing is known of a pair.
    """

    rows: list[dict]
    gap_N: np.ndarray

    @property
    def flipped(self):
        """Which labels are the wrong way round."""
        return self.gap_N < 0


def sentence(rng, words):
    syllables = [consonant + vowel for consonant in "bdklmnrs" for vowel in "aeio"]
    return " ".join("".join(rng.choice(syllables, 3)) for _ in range(words)).capitalize() + "."


def _make_world(pairs=400, flips=0.15, seed=0, strength=3.0, per_prompt=2, noisy=None):
    """Pairs in TRL's standard format, of three sources and four annotators.

    strength: typical gap in quality between the sides; what the features know of it has an error of about 1.
    per_prompt: pairs that share a prompt.
    noisy: (column, value, rate): labels of that source or annotator are flipped at another rate.
    """
    rng = np.random.default_rng(seed)
    rows, gap_N, prompt = [], np.empty(pairs), ""
    for at in range(pairs):
        if at % per_prompt == 0:
            prompt = f"About {TOPICS[at // per_prompt % 4]}: {sentence(rng, 8)}"
        chosen, rejected = (sentence(rng, int(words)) for words in rng.integers(8, 30, 2))
        row = {"id": f"n{at:05d}", "prompt": prompt, "chosen": chosen, "rejected": rejected}
        row |= {"source": ("web", "books", "chats")[rng.integers(3)], "annotator": f"ann-{rng.integers(4)}"}
        rate = noisy[2] if noisy and row[noisy[0]] == noisy[1] else flips
        gap_N[at] = abs(rng.normal(0, strength)) * (-1 if rng.random() < rate else 1)
        rows.append(row)
    return World(rows, gap_N)


def _write_scored(folder, world, *, features=True, passes=("policy",), unscored=(), **ingested):
    """A run as the stages ingest, score and weigh leave it.

    passes: of policy, reference, policy_unconditional and reward_model.
    unscored: positions of pairs without scores.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in world.rows), encoding="utf-8")
    run = Run.create(folder / "run")
    ingest(IngestConfig((str(data),), **ingested), run)
    keys = run.read_pairs(0, run.count_pairs(), ["pair_id", "row", "chosen", "rejected"])
    rng, known_N = np.random.default_rng(7), ~np.isin(np.arange(len(keys)), unscored)
    gap_N = world.gap_N[keys["row"].to_numpy()]
    values = _scores(keys, gap_N, passes, rng)
    columns = {name: pa.nulls(len(keys), SCORES.field(name).type) for name in SCORES.names}
    columns |= {name: pa.array(value, SCORES.field(name).type, mask=~known_N) for name, value in values.items()}
    columns |= {"pair_id": keys["pair_id"], "row": keys["row"]}
    columns["unscored"] = pa.array(np.where(known_N, None, "the chat template refuses it"), pa.string())
    write_table(run.scores_path, pa.table(columns, schema=SCORES))
    for name in passes:
        (run.path / "scores" / name / "features").mkdir(parents=True, exist_ok=True)
        write_table(run.path / "scores" / name / "noise_floor.parquet", NOISE_FLOOR.empty_table())
    if features:
        table = _features(keys, gap_N, known_N, rng)
        for shard in range(-(-len(keys) // SHARD_PAIRS)):
            path = run.path / "scores" / "policy" / "features" / f"{shard:05d}.parquet"
            write_table(path, table.slice(shard * SHARD_PAIRS, SHARD_PAIRS))
    run.record("score", f"{features} {passes} {unscored}", _scored_facts(len(keys), features, passes, len(unscored)))
    weigh(run, WeighConfig())
    return run


def _scored_facts(pairs, features, passes, unscored):
    common = {"device": "cpu", "kernel": "packed", "why_padded": None, "why_alone": None, "seconds": 1.0, "tokens": 100}
    common |= {"unscored": unscored, "truncated": 0, "template": "chat", "max_length": 512}
    described = {
        name: {**common, "spec": f"tiny {name}", "folder": f"scores/{name}", "features": features and name == "policy"}
        for name in passes
    }
    facts = {"dtype": "float32", "template": "chat", "max_length": 512, "pairs": pairs, "shard_pairs": SHARD_PAIRS}
    return {**facts, "passes": described, "unscored": unscored, "truncated": 0}


def _scores(keys, gap_N, passes, rng):
    """Log-probs that know little, and rewards that know much."""
    texts = {side: [turns[-1]["content"] for turns in keys[side].to_pylist()] for side, _ in SIDES}
    pairs = len(keys)
    values = {"prompt_tokens": [9] * pairs, "boundary_shift_tokens": [0] * pairs}
    values |= {f"{part}_truncated": [False] * pairs for part in ("prompt", "chosen", "rejected")}
    values["identical_tokens"] = [one == other for one, other in zip(*texts.values(), strict=True)]
    for side, sign in SIDES:
        words_N = np.array([len(text.split()) for text in texts[side]])
        values[f"{side}_tokens"] = words_N
        for name in passes:
            if name == "reward_model":
                values[f"reward_{side}"] = sign * gap_N + rng.normal(0, 0.7, pairs)
            else:
                values[f"{name}_{side}_logp"] = -2.0 * words_N + 0.2 * sign * gap_N + rng.normal(0, 2, pairs)
    return values


def _features(keys, gap_N, known_N, rng):
    """Both layers: a direction that the better side has more of, what the prompt is about, and noise."""
    direction_D = rng.normal(size=WIDTH) / np.sqrt(WIDTH)
    topic_ND = rng.normal(0, 3, (4, WIDTH))[keys["row"].to_numpy() // 2 % 4]
    schema = features_schema(WIDTH)
    columns = {"pair_id": keys["pair_id"].combine_chunks(), "row": keys["row"].combine_chunks()}
    for side, sign in SIDES:
        for layer in ("middle", "last"):
            noise_ND = rng.normal(0, 0.7, (len(keys), WIDTH))
            pooled_ND = (topic_ND + sign * gap_N[:, None] * direction_D + noise_ND).astype(np.float16)
            kind = schema.field(f"{side}_{layer}").type
            columns[f"{side}_{layer}"] = pa.FixedSizeListArray.from_arrays(
                pa.array(pooled_ND.ravel()), type=kind, mask=pa.array(~known_N)
            )
    return pa.table(columns, schema=schema)


@pytest.fixture(scope="session")
def make_world():
    """A function that makes pairs with a known truth."""
    return _make_world


@pytest.fixture(scope="session")
def write_scored():
    """A function that writes a scored run of them."""
    return _write_scored


@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    """A run whose flips are known, diagnosed and tested: run, world, and what each stage says. Not to be changed."""
    world = _make_world()
    run = _write_scored(tmp_path_factory.mktemp("planted"), world)
    diagnosed = diagnose(run, DiagnoseConfig())
    tested = selftest(run, SelftestConfig(noise=(0.0, 0.2), plans=(), seeds=2))
    return SimpleNamespace(run=run, world=world, diagnosed=run.require("diagnose"), first=diagnosed, tested=tested)


@pytest.fixture(scope="session")
def rated_columns():
    """How rows are read that have a label `won` and ratings `good` and `bad`."""
    return {
        "prompt": "prompt",
        "response_a": "chosen",
        "response_b": "rejected",
        "label": "won",
        "rating_chosen": "good",
        "rating_rejected": "bad",
    }
