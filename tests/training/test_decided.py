"""A training on decisions takes just what an export of the run would give it; no other passes over them silently."""

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from curate import engines
from curate.applying import STAY
from curate.config import ComputeConfig, ExportConfig, IngestConfig, ScoreConfig, WeighConfig
from curate.decisions import Decisions
from curate.errors import ConfigError, InputError, RunError
from curate.exporting import export
from curate.pairs import ingest
from curate.store import Run
from curate.tokens import Encoder
from curate.view import RunView
from curate.weighing import weigh
from training.config import TrainConfig
from training.data import columns_of_file, columns_of_run, prepare, say_treatment
from training.decided import standing
from training.train import train
from training.treatments import DROPPED_BY_DECISION, TIE

PAIRS, TIES = 10, (7, 8, 9)
COMPARED = ("held_out", "prompt", "chosen", "rejected", "weight", "p_flip", "target_margin")
ALL = ["keep", "soft", "weight", "flip", "drop", "review", None]
#: About row 6 nothing is decided, nor about 9; 7 to 9 are ties.
SOME = {0: ("keep", None), 1: ("soft", 0.75), 2: ("weight", 3.0), 3: ("flip", None), 4: ("drop", None)} | {
    5: ("review", None),
    7: ("soft", 0.5),
    8: ("review", None),
}

quick = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def scored(tiny_policy, tmp_path_factory):
    """A run of ten pairs, three of them ties, scored and weighed; two pairs share a prompt. Decided about by tests."""
    folder = tmp_path_factory.mktemp("scored")
    rows = [
        {
            "q": [{"role": "user", "content": f"Question {at // 2}?"}],
            "a": [{"role": "assistant", "content": "Yes" + "!" * at}],
            "b": [{"role": "assistant", "content": f"No, {at}."}],
            "won": "tie" if at in TIES else "a",
        }
        for at in range(PAIRS)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"prompt": "q", "response_a": "a", "response_b": "b", "label": "won"}
    run = Run.create(folder / "run")
    ingest(IngestConfig((str(folder / "data.jsonl"),), columns=columns), run)
    scoring = ScoreConfig(str(tiny_policy), template="chat", features=False, max_length=256, max_prompt_length=224)
    engines.score(run, scoring, ComputeConfig(device="cpu"))
    weigh(run, WeighConfig(margin="simpo"))
    return run


@pytest.fixture
def run(scored, tmp_path):
    """A copy to decide about."""
    return copy(scored, tmp_path / "run")


def copy(run, folder):
    return Run.open(shutil.copytree(run.path, folder))


@pytest.fixture(scope="module")
def encoder(tiny_policy):
    return Encoder(AutoTokenizer.from_pretrained(tiny_policy), "chat", max_length=256, max_prompt_length=224)


def decide(run, choices):
    """Decide about rows: row → action, value and, if any, a target margin."""
    table = pd.DataFrame([(row, *it, *[None] * (3 - len(it))) for row, it in choices.items()])
    table.columns = ["row", "action", "value", "target_margin"]
    with RunView(run.path) as view:
        return Decisions(view).decide_all(table, origin="test")


def prepared(run, columns, encoder, target, share=0.0):
    found = prepare(run, columns, encoder, target, held_out_share=share, seed=3)
    return found, pa.ipc.open_file(str(target)).read_all()


def exported(run, folder, config):
    """The export of a run for TRL, read as a training reads it."""
    with RunView(run.path) as view:
        export(view, folder / "export", ExportConfig("trl"))
    again = Run.create(folder / "again")
    ingest(config.ingest(str(folder / "export" / "train.parquet")), again)
    return again, columns_of_file(again, config)


def texts(table):
    """What is compared, as lines that are equal where the pairs are; a missing number is nan."""
    return [str({name: np.nan if it[name] is None else it[name] for name in COMPARED}) for it in table.to_pylist()]


def choices_of(actions):
    """Decisions about rows, from what was drawn."""
    values = {"soft": lambda number: number, "weight": lambda number: 4 * number}
    return {
        row: (action, values.get(action, lambda _: None)(number), margin if action in STAY else None)
        for row, (action, number, margin) in enumerate(actions)
        if action is not None
    }


drawn = st.tuples(st.sampled_from(ALL), st.floats(0, 1), st.none() | st.floats(3.5, 4.5))


@quick
@given(st.lists(drawn, min_size=PAIRS, max_size=PAIRS))
def test_it_prepares_what_the_export_would(scored, encoder, tmp_path_factory, actions):
    folder = tmp_path_factory.mktemp("any")
    run, choices = copy(scored, folder / "run"), choices_of([("keep", 0.0, None), *actions[1:]])
    decide(run, choices)
    config = TrainConfig(loss="gamma_simpo", treat="decisions")
    made, mine = prepared(run, columns_of_run(run, config), encoder, folder / "mine")
    other, theirs = prepared(*exported(run, folder, TrainConfig(loss="gamma_simpo")), encoder, folder / "theirs")
    assert texts(mine) == texts(theirs)
    assert made.counts["trained"] == other.counts["trained"] == len(mine)
    assert sum(made.counts.values()) == PAIRS


def test_each_decision_is_taken_as_it_is_meant(run, encoder, tmp_path):
    decide(run, SOME)
    columns = columns_of_run(run, TrainConfig(loss="gamma_simpo", treat="decisions"))
    made, table = prepared(run, columns, encoder, tmp_path / "pairs.arrow")
    assert made.counts == {"trained": 7, DROPPED_BY_DECISION: 1, TIE: 2}
    assert table["row"].to_pylist() == [0, 1, 2, 3, 5, 6, 7]
    assert table["swapped"].to_pylist() == [False, False, False, True, False, False, False]
    assert table["weight"].to_pylist() == [1, 1, 3, 1, 1, 1, 1]
    assert table["p_flip"].to_pylist() == [0, 0.25, 0, 0, 0, 0, 0.5]
    with RunView(run.path) as view:
        gamma_N = view.table("weights", ["target_margin"])["target_margin"].to_numpy(dtype=float, na_value=np.nan)
    margin_N = table["target_margin"].to_numpy()
    np.testing.assert_array_equal(margin_N, np.where(table["swapped"].to_numpy(), np.nan, gamma_N[table["row"]]))
    assert np.isnan(margin_N).tolist() == [False, False, False, True, False, False, True]


def test_held_out_pairs_are_judged_as_decided(run, encoder, tmp_path):
    """Of a tie nobody knows what would be right."""
    decide(run, SOME | {9: ("keep", None)})
    columns = columns_of_run(run, TrainConfig(treat="decisions"))
    made, table = prepared(run, columns, encoder, tmp_path / "pairs.arrow", share=1 - 1e-9)
    assert made.counts == {"held_out": 6, DROPPED_BY_DECISION: 1, TIE: 3}
    assert table["swapped"].to_pylist() == [False, False, False, True, False, False]
    assert table["weight"].to_pylist() == [1] * 6
    assert table["p_flip"].to_pylist() == [0] * 6


def test_target_margins_of_a_plan(run):
    """Where decisions set them they must suit the loss, whatever the run was weighed for."""
    decide(run, {row: ("keep", None, 4.0 + row / 10) for row in (0, 2)} | {1: ("keep", None)})
    with RunView(run.path) as view:
        gamma_N = view.table("weights", ["target_margin"])["target_margin"].to_numpy(dtype=float, na_value=np.nan)
    gamma_N = np.array([4.0, gamma_N[1], 4.2, *gamma_N[3:]])
    found = columns_of_run(run, TrainConfig(loss="gamma_dpo", treat="decisions")).target_margin_N
    np.testing.assert_array_equal(found, gamma_N)
    assert columns_of_run(run, TrainConfig(loss="simpo", treat="decisions")).target_margin_N is None
    with pytest.raises(ConfigError, match=r"target_margin has mean .*, but this loss's γ0 is 40"):
        columns_of_run(run, TrainConfig(loss="gamma_simpo", beta=100.0, treat="decisions"))


# --- which treatment, and what is said ---


def said(run, capsys, **settings):
    say_treatment(run, TrainConfig(**settings))
    return capsys.readouterr().err


def test_auto_is_decisions_where_any_stand(run, capsys):
    assert said(run, capsys) == "treat drop: nothing is decided about the pairs\n"
    assert said(run, capsys, treat="soft") == ""
    with pytest.raises(RunError, match="not diagnosed yet"):
        columns_of_run(run, TrainConfig())
    entry = decide(run, SOME)
    assert said(run, capsys) == "treat decisions: applied as they stand, about 8 of 10 pairs\n"
    assert said(run, capsys, treat="decisions") == said(run, capsys)
    left = "the decisions about 8 pairs are not applied; --treat decisions applies them"
    assert said(run, capsys, treat="soft") == f"treat soft: {left}\n"
    assert columns_of_run(run, TrainConfig()).treated.swap_N.tolist() == [at == 3 for at in range(PAIRS)]
    with RunView(run.path) as view:
        Decisions(view).undo(entry.id)
    capsys.readouterr()
    assert said(run, capsys) == "treat drop: nothing is decided about the pairs\n"


def test_the_digest_is_of_what_stands(run):
    """Another decision changes it, an undo restores it; who decides the same again does not."""
    nothing = standing(run)
    decide(run, {0: ("weight", 2.0), 1: ("keep", None)})
    first = standing(run)
    again = decide(run, {0: ("weight", 2.0)})
    assert (nothing.pairs, first.pairs, standing(run)) == (0, 2, first)
    others = {0: ("weight", 2.5)}, {0: ("keep", None)}, {1: ("keep", None, 4.0)}, {2: ("keep", None)}
    digests = {nothing.digest, first.digest}
    for other in others:
        entry = decide(run, other)
        digests.add(standing(run).digest)
        with RunView(run.path) as view:
            Decisions(view).undo(entry.id)
        assert standing(run) == first
    assert len(digests) == 6
    assert again.said["pairs"] == 1


# --- a whole training ---


def test_a_training_is_that_of_its_decisions(run, tiny_policy, tmp_path, capsys):
    config = TrainConfig(
        **{"model": str(tiny_policy), "lora": False, "batch_size": 2, "micro_batch": 2, "max_steps": 1},
        **{"max_length": 256, "eval_share": 0.6, "device": "cpu", "dynamics": False},
    )
    decide(run, SOME)
    report = train(config, str(run.path), tmp_path / "out")
    assert (report["treat"], report["swapped"]) == ("decisions", 1)
    assert report["counts"] == {"trained": 2, "held_out": 4, DROPPED_BY_DECISION: 1, TIE: 3}
    assert "treat decisions: applied as they stand, about 8 of 10 pairs" in capsys.readouterr().err
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| dropped: {DROPPED_BY_DECISION} | 1 |" in card
    assert card.count("| treat | decisions |") == card.count("## Held-out pairs (4, as it was decided)") == 1
    described = json.loads((tmp_path / "out" / "training.json").read_text())
    assert described["settings"]["treat"] == "decisions"
    assert described["data"]["decisions"] == {"pairs": 8, "digest": standing(run).digest}
    assert train(config, str(run.path), tmp_path / "out") == report
    decide(run, {6: ("drop", None)})
    with pytest.raises(RunError, match="holds another training"):
        train(config, str(run.path), tmp_path / "out")


def test_decisions_made_while_a_training_begins(run, tiny_policy, tmp_path, monkeypatch):
    decide(run, SOME)

    def late(*args):
        decide(run, {6: ("drop", None)})
        return columns_of_run(*args)

    monkeypatch.setattr("training.train.columns_of_run", late)
    config = TrainConfig(model=str(tiny_policy), max_length=256, device="cpu")
    with pytest.raises(RunError, match="other decisions were made while the training began: start it again"):
        train(config, str(run.path), tmp_path / "out")


def test_a_run_of_which_nothing_is_left(run, tiny_policy, tmp_path):
    decide(run, dict.fromkeys(range(PAIRS), ("drop", None)))
    config = TrainConfig(model=str(tiny_policy), max_length=256, device="cpu")
    with pytest.raises(InputError, match=rf"no pair is left to train on \({PAIRS} × {DROPPED_BY_DECISION}\)"):
        train(config, str(run.path), tmp_path / "out")
