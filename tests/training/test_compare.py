"""Comparing what helps: trials and arms by hand, the table by hand, and a comparison of tiny trainings."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from curate.cli import app
from curate.errors import ConfigError
from training import compare as module
from training.compare import COMPARE_DEFAULTS, arm_config
from training.comparison import as_text, by_arm, plot
from training.config import TrainConfig
from training.margins import target_margins
from training.treatments import Diagnosed
from training.trials import ARMS, CompareConfig, Trial, noise_left, treat

WORDS = [
    "the",
    "a",
    "one",
    "this",
    "that",
    "cat",
    "dog",
    "tree",
    "river",
    "stone",
    "runs",
    "sleeps",
    "sings",
    "falls",
    "waits",
]
BLANK = np.zeros(6, dtype=bool)


def call(*words):
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def mask(*places):
    return np.isin(np.arange(6), places)


#: Pair 0 is held out, pair 5 is none of the compared ones; 1 and 2 were planted, 2 and 3 are called flipped.
P_FLIP = np.array([np.nan, 0.2, 0.9, 0.6, 0.0, np.nan])
TRIAL = Trial(mask(0), mask(1, 2, 3, 4), mask(1, 2), mask(1, 2), Diagnosed(P_FLIP, mask(2, 3), BLANK))


def kept(arm, seed=0):
    return np.flatnonzero(treat(arm, TRIAL, seed).dropped_N == "").tolist()


def test_which_pairs_an_arm_keeps():
    assert {arm: kept(arm) for arm in ARMS if arm != "random_drop"} == {
        **{arm: [1, 2, 3, 4] for arm in ("raw", "flip", "soft", "weights", "gamma")},
        "drop": [1, 4],
        "oracle_drop": [3, 4],
    }
    assert {len(kept("random_drop", seed)) for seed in range(5)} == {2}
    assert len({tuple(kept("random_drop", seed)) for seed in range(5)}) > 1


def test_which_way_round_and_with_which_weight():
    assert treat("raw", TRIAL, 0).swap_N.tolist() == [False, True, True, False, False, False]
    assert treat("flip", TRIAL, 0).swap_N.tolist() == [False, True, False, True, False, False]
    assert treat("soft", TRIAL, 0).p_flip_N[1:5].tolist() == [0.2, 0.9, 0.6, 0.0]
    assert treat("weights", TRIAL, 0).weight_N[1:5].tolist() == pytest.approx([0.6, 0.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        ("raw", 0.5),  # 1 and 2 of 1, 2, 3, 4
        ("drop", 0.5),  # 1 of 1, 4
        ("flip", 0.5),  # 2 is right again, 3 is wrong now: 1 and 3
        ("soft", (0.8 + 0.1 + 0.6 + 0.0) / 4),
        ("weights", 0.6 / 1.6),
        ("oracle_drop", 0.0),
    ],
)
def test_how_much_noise_is_left(arm, expected):
    assert noise_left(treat(arm, TRIAL, 0), TRIAL) == pytest.approx(expected)


def test_without_a_truth_nothing_is_known():
    assert (
        noise_left(treat("raw", TRIAL, 0), Trial(*[TRIAL.held_out_N, TRIAL.learned_N, BLANK, None, TRIAL.found]))
        is None
    )


def results(**accuracies):
    rows = [
        {"seed": seed, "arm": arm, "trained": 10, "held_out": 5, "noise": 0.3, "accuracy": value, "seconds": 1.0}
        | dict.fromkeys(("margin", "loss", "calibration_error"), 0.5)
        for arm, values in accuracies.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_the_table_by_hand():
    """Leads over raw 0.1, 0.2, 0.3: mean 0.2, s.d. 0.1, t(2) = 4.3027: ± 0.2484; the oracle leads by 0.4 always."""
    table = by_arm(results(raw=[0.5, 0.5, 0.5], drop=[0.6, 0.7, 0.8], oracle_drop=[0.9, 0.9, 0.9])).set_index("arm")
    assert table.index.tolist() == ["raw", "drop", "oracle_drop"]
    row = table.loc["drop"]
    assert (row["accuracy"], row["lead"], row["recovered"]) == pytest.approx((0.7, 0.2, 0.5))
    assert (row["lead_low"], row["lead_high"]) == pytest.approx((0.2 - 0.24841, 0.2 + 0.24841), abs=1e-4)
    assert table.loc["oracle_drop", "recovered"] == pytest.approx(1)
    text = as_text(table.reset_index())
    header, line, raw, drop, _ = ([cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines())
    assert header[:3] == ["arm", "pairs", "wrong labels"]
    assert all(set(cell) == {"-"} for cell in line)
    assert raw[5:] == ["–", "–", "–"]
    assert drop == ["drop", "10", "30.0%", "0.700", "0.452 to 0.948", "+0.200", "-0.048 to +0.448", "50%"]
    assert len(set(map(len, text.splitlines()))) == 1


def test_no_share_of_a_gap_that_is_not_there():
    table = by_arm(results(raw=[0.5, 0.6, 0.5], drop=[0.6, 0.5, 0.7], oracle_drop=[0.6, 0.5, 0.6]))
    assert table["recovered"].isna().all()
    assert as_text(table).count("| –         |") == 3
    assert by_arm(results(drop=[0.5]))["low"].isna().all()


def test_an_accuracy_lies_between_0_and_1():
    row = by_arm(results(raw=[0.5, 1.0])).iloc[0]
    assert (row["low"], row["high"]) == (0, 1)


def test_the_plot_shows_each_seed_and_the_mean():
    seeds, means = plot(results(raw=[0.5, 0.7], drop=[0.6, 0.8])).data
    assert sorted(seeds.x) == [0.5, 0.6, 0.7, 0.8]
    assert dict(zip(means.y, means.x, strict=True)) == pytest.approx({"raw": 0.6, "drop": 0.7})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arms": ("raw", "best")}, "--arms has 'best'"),
        ({"plant": 0.7}, "--plant is 0.7"),
        ({"held_out": 1.0}, "--held-out is 1.0"),
        ({"seeds": 0}, "--seeds is 0"),
        ({"plant": 0.2, "truth": "wrong"}, "exclude each other"),
        ({"arms": ("raw", "raw")}, "--arms raw,raw names an arm twice"),
        ({"pairs": 0}, "--pairs is 0"),
        ({"folds": "some"}, "--evidence is 'some'"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        CompareConfig(**settings)


def test_gamma_differs_from_raw_in_its_margins_alone():
    raw = TrainConfig(**COMPARE_DEFAULTS)
    gamma = arm_config("gamma", raw)
    assert (raw.loss, gamma.loss, gamma.targets) == ("dpo_norm", "gamma_dpo", "online")
    assert (gamma.loss_settings.margin, gamma.loss_settings.beta) == ("dpo_norm", 10.0)
    found = target_margins("online", gamma.loss_settings, tau=gamma.tau)(torch.linspace(-8, 8, 50), {})
    assert found.target_margin_B.max() / found.target_margin_B.min() > 1.3
    assert arm_config("drop", raw) == raw


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "ipo"}, "γ-PO has no ipo; choose --loss dpo, dpo_norm, simpo"),
        ({"loss": "dpo", "beta": 0.1}, "γ0/τ is 0.004, so no γ could differ from γ0 by more than 0.4%"),
    ],
)
def test_what_would_be_no_gamma_po_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        arm_config("gamma", TrainConfig(**{**COMPARE_DEFAULTS, **settings}))


@pytest.fixture(scope="module")
def audited(tmp_path_factory, tiny_policy):
    rng = np.random.default_rng(0)
    rows = [
        {
            "prompt": f"Say {number % 20}",
            "chosen": " ".join(rng.choice(WORDS, 6)),
            "rejected": " ".join(rng.choice(WORDS, 4)),
            "wrong": bool(number % 4 == 0),
        }
        for number in range(60)
    ]
    folder = tmp_path_factory.mktemp("compare")
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    call("audit", folder / "pairs.jsonl", "-o", folder / "run", "--policy", tiny_policy, "--device", "cpu")
    return folder / "run"


def options(tiny_policy, *more):
    return ("--model", tiny_policy, "--device", "cpu", "--epochs", 1, "--seeds", 2, "--set", "lora_rank=2", *more)


def test_a_comparison(audited, tiny_policy, monkeypatch):
    arms = "raw,drop,flip,soft,weights,gamma,random_drop,oracle_drop"
    words = ("compare", audited, *options(tiny_policy, "--plant", 0.3, "--arms", arms))
    text = call(*words)
    assert [line.split()[1] for line in text.splitlines()[2:10]] == list(ARMS)
    (folder,) = (audited / "compare").iterdir()
    table = pq.read_table(folder / "results.parquet").to_pandas()
    assert len(table) == 16
    assert (folder / "compare.html").stat().st_size > 1e6
    raw = table[table["arm"] == "raw"]
    assert raw["noise"].to_numpy() == pytest.approx(0.3, abs=0.02)
    assert (table.loc[table["arm"] == "oracle_drop", "noise"] == 0).all()
    sizes = table.set_index(["arm", "seed"])["trained"]
    assert (sizes["drop"] == sizes["random_drop"]).all()
    assert (sizes["oracle_drop"] < sizes["raw"]).all()
    losses = table.set_index(["arm", "seed"])["loss"]
    assert (losses["gamma"] != losses["raw"]).all()
    assert (raw["trained"] + raw["held_out"] == 60).all()
    monkeypatch.delattr(module, "make_trainer")  # what is done is not done again, with fewer arms neither
    assert call(*words) == text
    assert "| gamma " not in call("compare", audited, *options(tiny_policy, "--plant", 0.3, "--arms", "raw,drop"))


def test_the_truth_may_be_a_column(audited, tiny_policy):
    words = options(tiny_policy, "--truth", "wrong", "--arms", "raw,oracle_drop", "--pairs", 50, "--json")
    found = json.loads(call("compare", audited, *words))
    assert [row["arm"] for row in found] == ["raw", "oracle_drop"]
    assert 0.1 < found[0]["noise"] < 0.4
    assert found[1]["noise"] == 0
    by_value = options(tiny_policy, "--truth", "wrong=true", "--arms", "raw,oracle_drop", "--pairs", 50, "--json")
    assert [row["noise"] for row in json.loads(call("compare", audited, *by_value))] == [row["noise"] for row in found]
    with pytest.raises(ConfigError, match="--truth wrong=typo: no pair has wrong 'typo'"):
        call("compare", audited, *options(tiny_policy, "--truth", "wrong=typo"))
    with pytest.raises(ConfigError, match="--truth prompt"):
        call("compare", audited, *options(tiny_policy, "--truth", "prompt"))


def test_several_processes_and_settings_that_mean_nothing_are_refused(audited, tiny_policy, monkeypatch):
    with pytest.raises(ConfigError, match=r"treat is 'drop': curate compare settles that itself"):
        call("compare", audited, *options(tiny_policy, "--set", "treat=drop"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="curate compare runs in one process, and there are 2"):
        call("compare", audited, *options(tiny_policy))
