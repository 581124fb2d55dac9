"""Cross-fitting: folds, who judges whom, resumption, and the way into the diagnosis."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from curate.cli import app
from curate.errors import ConfigError
from curate.progress import Quiet
from curate.store import Run, read_metadata
from curate.view import RunView
from training import crossfit as module
from training.config import TrainConfig
from training.crossfit import Folds, assign, crossfit, group_codes, updates

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


def call(*words):
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def audited(tmp_path_factory, tiny_policy):
    """A diagnosed run of 36 pairs of 12 prompts; rows 0 and 1 are copies, row 2 is row 3 turned round."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "prompt": f"Say {number % 12}",
            "chosen": " ".join(rng.choice(WORDS, 5)),
            "rejected": " ".join(rng.choice(WORDS, 4)),
        }
        for number in range(36)
    ]
    rows[1] = rows[0]
    rows[2] = {**rows[3], "chosen": rows[3]["rejected"], "rejected": rows[3]["chosen"]}
    folder = tmp_path_factory.mktemp("crossfit")
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    call("audit", folder / "pairs.jsonl", "-o", folder / "run", "--policy", tiny_policy, "--device", "cpu")
    return folder / "run"


@pytest.fixture
def config(tiny_policy):
    return TrainConfig(
        model=str(tiny_policy), loss="dpo", epochs=2, batch_size=8, learning_rate=1e-3, eval_share=0, device="cpu"
    )


@given(st.lists(st.integers(0, 9), min_size=10, max_size=60), st.integers(2, 4), st.integers(0, 3))
@settings(deadline=None, max_examples=50)
def test_groups_stay_together_and_folds_are_even(codes, folds, seed):
    code_N = np.unique([*codes, *range(4)], return_inverse=True)[1]
    fold_N = assign(code_N, folds, seed)
    assert all(len(np.unique(fold_N[code_N == code])) == 1 for code in np.unique(code_N))
    sizes = np.bincount(fold_N, minlength=folds)
    assert sizes.max() - sizes.min() <= np.bincount(code_N).max()
    assert (assign(code_N, folds, seed) == fold_N).all()


def test_too_few_groups_and_folds():
    with pytest.raises(ConfigError, match="--folds 3: there are only 2 groups"):
        assign(np.array([0, 0, 1]), 3, 0)
    with pytest.raises(ConfigError, match="--folds is 1"):
        Folds(1)


@pytest.mark.parametrize(("epochs", "steps", "expected"), [(2.0, None, 6), (0.5, None, 2), (2.0, 4, 4)])
def test_updates(epochs, steps, expected):
    assert updates(TrainConfig(epochs=epochs, max_steps=steps, batch_size=8), 20) == expected


class Counting(Quiet):
    def __init__(self):
        self.done, self.lines = 0, []

    def advance(self, pairs):
        self.done += pairs


def test_every_pair_is_judged_by_a_model_that_did_not_see_it(audited, config, monkeypatch):
    seen = []
    make = module.make_trainer

    def watched(config, source, device, arguments, pairs, **others):
        trainer = make(config, source, device, arguments, pairs, **others)
        judge = trainer.judge

        def judged(held):
            seen.append((set(pairs.at.tolist()), set(held.at.tolist())))
            return judge(held)

        trainer.judge = judged
        return trainer

    monkeypatch.setattr(module, "make_trainer", watched)
    run, progress = Run.open(audited), Counting()
    facts = crossfit(run, config, Folds(3, grouped=False), progress)
    assert facts["counts"] == {"trained": 36}
    assert len(seen) == 3
    assert all(not learned & held and len(learned | held) == 36 for learned, held in seen)
    assert set.union(*(held for _, held in seen)) == set(range(36))
    assert progress.done == 3 * 2 * 24
    together = [{0, 1}, {2, 3}]  # copies, and the same pair the other way round
    assert all(pair <= held or not pair & held for pair in together for _, held in seen)
    table = pq.read_table(run.table_path("crossfit"))
    assert table["row"].to_pylist() == list(range(36))
    assert np.isfinite(table["crossfit_random_folds"].to_numpy()).all()
    assert facts["agreement"] == (table["crossfit_random_folds"].to_numpy() > 0).mean()


def test_what_is_done_is_not_done_again(audited, config, monkeypatch):
    run = Run.open(audited)
    crossfit(run, config, Folds(3), Quiet())
    before = pq.read_table(run.table_path("crossfit"))
    key = read_metadata(run.table_path("crossfit"))["key"]
    (run.path / "crossfit" / key / "fold-01.parquet").unlink()
    judged = []
    again = module._judge_fold
    monkeypatch.setattr(module, "_judge_fold", lambda *args: judged.append(1) or again(*args))
    crossfit(run, config, Folds(3), Quiet())
    assert len(judged) == 1
    judged.clear()
    crossfit(run, config, Folds(3), Quiet())
    assert judged == []
    assert pq.read_table(run.table_path("crossfit")).equals(before)


def test_grouped_folds_keep_a_prompt_together(audited, config):
    run = Run.open(audited)
    pairs, _ = module.prepared(
        run, config, module.models.resolve(config.model), module.as_labelled(36), audited / "crossfit"
    )
    assert len(np.unique(group_codes(run, pairs, Folds(3, grouped=True)))) == 12
    assert len(np.unique(group_codes(run, pairs, Folds(3, grouped=False)))) == 34


def p_flips(run):
    with RunView(run) as view:
        return view.table("diagnosis", ["p_flip"])["p_flip"].tolist()


def test_the_diagnosis_takes_it(audited, config, tiny_policy):
    (audited / "crossfit.parquet").unlink(missing_ok=True)
    call("diagnose", audited)
    before = p_flips(audited)
    text = call("crossfit", audited, "--folds", 3, "--model", tiny_policy, "--device", "cpu", "--epochs", 1)
    assert "36 pairs have an out-of-fold margin" in text
    assert "the diagnosis has it as crossfit" in text
    assert "tokens to learn from" in text
    with RunView(audited) as view:
        kept = pq.read_table(audited / "crossfit.parquet")["crossfit"].to_pylist()
        assert view.table("signals", ["crossfit"])["crossfit"].tolist() == kept
        assert view.stage("diagnose")["signals"]["crossfit"] == "margins of policies that were trained on other prompts"
    assert p_flips(audited) != before  # it is fused


def test_margins_of_random_folds_are_shown_and_not_fused(audited, tiny_policy):
    (audited / "crossfit.parquet").unlink()
    call("diagnose", audited)
    before = p_flips(audited)
    call("crossfit", audited, "--folds", 2, "--random", "--model", tiny_policy, "--device", "cpu", "--epochs", 1)
    with RunView(audited) as view:
        assert view.table("signals", ["crossfit_random_folds"]).notna().all(axis=None)
    assert p_flips(audited) == before


def test_margins_of_other_pairs_are_not_taken(audited, config, tmp_path, tiny_policy):
    run = Run.open(audited)
    crossfit(run, config, Folds(2), Quiet())
    data = audited.parent / "pairs.jsonl"
    other = tmp_path / "run"
    call("audit", data, "-o", other, "--policy", tiny_policy, "--device", "cpu", "--limit", 30)
    (other / "crossfit.parquet").write_bytes((audited / "crossfit.parquet").read_bytes())
    assert read_metadata(other / "crossfit.parquet")["ingest"] != Run.open(other).require("ingest")["fingerprint"]
    call("diagnose", other, "--p-flip", 0.6)
    with RunView(other) as view:
        assert "crossfit" not in view.columns("signals")


def test_several_processes_and_settings_that_mean_nothing_are_refused(audited, tiny_policy, monkeypatch):
    words = ("crossfit", audited, "--model", tiny_policy, "--device", "cpu")
    with pytest.raises(ConfigError, match=r"eval_share is 0\.5: curate crossfit settles that itself"):
        call(*words, "--set", "eval_share=0.5")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="curate crossfit runs in one process, and there are 2"):
        call(*words)
