"""Training dynamics: margins kept and resumed, summaries by hand and by a loop, signals that `diagnose` shows."""

import json
import math
import random

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import engines
from curate.config import ComputeConfig, DiagnoseConfig, IngestConfig, ScoreConfig, WeighConfig
from curate.detect import IMPORTED_IN_SAMPLE
from curate.diagnosing import diagnose
from curate.pairs import ingest
from curate.store import Run, write_table
from curate.view import RunView
from curate.weighing import weigh
from training.data import PREPARED, Pairs
from training.dynamics import SUMMARY, VISITS, Recorder, read_visits, signals, summarise

quick = settings(deadline=None, max_examples=40)

SIGNALS = [f"in_sample_{name}" for name in SUMMARY]


def visits(*rows):
    """Visits as (index, step, epoch, margin)."""
    return pa.Table.from_pylist([dict(zip(VISITS.names, row, strict=True)) for row in rows], VISITS)


def summary(*rows):
    """The numbers of every pair."""
    found = summarise(visits(*rows)).to_pylist()
    return {row.pop("index"): tuple(row.values()) for row in found}


# --- what is kept ---


def record(recorder, *steps, margin=0.0):
    """Visit pairs 10·step and 10·step + 1 at each of these steps, two steps an epoch."""
    for step in steps:
        index_B = torch.tensor([10 * step, 10 * step + 1])
        recorder.add(step, step / 2 or None, index_B, torch.tensor([margin + step, -step / 4]).requires_grad_())
    recorder.flush()


def kept(folder):
    return [tuple(row.values()) for row in read_visits(folder).to_pylist()]


def visited(*steps, margin=0.0):
    rows = [((10 * at, at, at / 2, margin + at), (10 * at + 1, at, at / 2, -at / 4)) for at in steps]
    return [visit for two in rows for visit in two]


def test_visits_are_kept(tmp_path):
    recorder = Recorder(tmp_path / "dynamics")
    recorder.start(0)
    assert kept(tmp_path / "dynamics") == []
    recorder.flush()  # nothing yet
    assert list((tmp_path / "dynamics").iterdir()) == []
    record(recorder, 0, 1)
    record(recorder, 2)
    assert kept(tmp_path / "dynamics") == visited(0, 1, 2)
    assert read_visits(tmp_path / "dynamics").schema.remove_metadata() == VISITS


def test_visits_are_in_the_order_of_the_updates(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.start(0)
    for step in (0, 1, 2):
        recorder.add(step, 0.0, torch.tensor([7, 3] if step % 2 else [3, 7]), torch.tensor([step, step + 0.5]).half())
    recorder.flush()
    assert kept(tmp_path) == [(3, 0, 0, 0), (3, 1, 0, 1.5), (3, 2, 0, 2), (7, 0, 0, 0.5), (7, 1, 0, 1), (7, 2, 0, 2.5)]


@pytest.mark.parametrize(("resumed", "left"), [(0, []), (2, [0, 1]), (3, [0, 1, 2]), (4, [0, 1, 2]), (9, [0, 1, 2, 4])])
def test_a_training_that_goes_on_forgets_what_was_after_its_checkpoint(tmp_path, resumed, left):
    recorder = Recorder(tmp_path)
    for steps in ((0, 1), (2,), (4,)):
        record(recorder, *steps)
    going_on = Recorder(tmp_path)
    going_on.start(resumed)
    assert kept(tmp_path) == visited(*left)
    record(going_on, resumed + 10, margin=0.5)
    assert kept(tmp_path) == visited(*left) + visited(resumed + 10, margin=0.5)


def test_an_interrupted_and_an_uninterrupted_training_keep_the_same(tmp_path):
    whole, cut = (Recorder(tmp_path / name) for name in ("whole", "cut"))
    for recorder in (whole, cut):
        recorder.start(0)
        record(recorder, 0, 1)
    record(cut, 2, margin=99.0)  # written, but its checkpoint was not
    cut.add(3, 1.5, torch.tensor([1]), torch.tensor([99.0]))  # never written
    cut = Recorder(tmp_path / "cut")
    cut.start(2)
    for recorder in (whole, cut):
        record(recorder, 2, 3)
    assert kept(tmp_path / "cut") == kept(tmp_path / "whole") == visited(0, 1, 2, 3)


def test_processes_write_side_by_side(tmp_path):
    first, second = Recorder(tmp_path, 0), Recorder(tmp_path, 1)
    record(first, 0, 2)
    record(second, 1, 3)
    record(second, 5)
    assert kept(tmp_path) == visited(0, 1, 2, 3, 5)
    second.start(5)
    assert kept(tmp_path) == visited(0, 1, 2, 3)
    record(second, 5)
    Recorder(tmp_path, 0).start(4)  # there may be fewer processes now
    assert kept(tmp_path) == visited(0, 1, 2, 3)


# --- the summary ---


@pytest.mark.parametrize(
    ("margins", "expected"),
    [
        ([(0, 0.0, 1.0), (2, 1.0, -1.0)], (1, 0, 0, -1, -1)),
        ([(3, 0.5, -2.0)], (-2, -2, -2, 0, 0)),  # one visit
        ([(0, 0.0, 4.0), (1, 0.5, 2.0), (4, 1.0, -1.0)], (3, 5 / 3, (3 + 3 * 0.5) / 4, -np.std([4, 2, -1]), -1)),
        ([(0, 0.0, 1.0), (1, 1.0, -1.0), (2, 2.0, 1.0), (3, 3.0, -2.0)], (1, -0.25, (0 + 0 - 0.5) / 3, -1.299038, -2)),
        ([(0, 0.0, 1.0), (1, 1.0, 0.0), (2, 2.0, -1.0)], (1, 0, 0, -np.std([1, 0, -1]), 0)),  # 0 is not yet negative
        ([(8, 1.0, 1.0), (9, 1.5, 3.0)], (2, 2, 2, -1, 0)),  # no visit in the first epoch
        ([(0, 0.0, math.nan), (1, 0.5, 2.0), (2, 1.0, math.inf), (5, 2.0, -2.0)], (2, 0, 0, -2, -1)),  # as if never
    ],
)
def test_summary_by_hand(margins, expected):
    assert summary(*[(7, *visit) for visit in margins]) == {7: pytest.approx(expected)}


def test_no_visit_no_summary():
    assert summary() == {}
    assert summary((1, 0, 0.0, math.nan)) == {}


def slowly(frame):
    """One pair's numbers, by a loop over its visits."""
    steps, epochs, margins = (frame.sort_values("step")[name].tolist() for name in ("step", "epoch", "margin"))
    early = [margin for epoch, margin in zip(epochs, margins, strict=True) if epoch < 1] or margins
    area, forgotten = 0.0, 0
    for at in range(1, len(margins)):
        area += (steps[at] - steps[at - 1]) * (margins[at] + margins[at - 1]) / 2
        forgotten += margins[at - 1] > 0 > margins[at]
    span = steps[-1] - steps[0]
    mean = sum(margins) / len(margins)
    spread = math.sqrt(sum((margin - mean) ** 2 for margin in margins) / len(margins))
    return sum(early) / len(early), mean, area / span if span else mean, -spread, -forgotten


@quick
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 20), st.floats(-50, 50)), max_size=40, unique_by=lambda it: it[:2]
    ),
    st.randoms(use_true_random=False),
)
def test_summary_against_a_slow_loop(found, rng):
    rows = [(index, step, step / 8, margin) for index, step, margin in found]
    expected = {index: slowly(pairs) for index, pairs in visits(*rows).to_pandas().groupby("index")}
    rng.shuffle(rows)
    assert summary(*rows) == {index: pytest.approx(values, abs=1e-9) for index, values in expected.items()}


# --- signals ---


def write_pairs(path, ids, held_out=(), swapped=()):
    """A prepared file of pairs with these ids."""
    empty = {"prompt": [0], "chosen": [1], "rejected": [2], "weight": 1.0, "p_flip": 0.0}
    keys = [{"pair_id": name, "row": 5 * at} for at, name in enumerate(ids)]
    flags = [{"held_out": at in held_out, "swapped": at in swapped} for at in range(len(ids))]
    records = [{**empty, **key, **flag} for key, flag in zip(keys, flags, strict=True)]
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, PREPARED) as file:
        file.write_table(pa.Table.from_pylist(records, PREPARED))
    return Pairs(path, held_out=False)


def keep(folder, *rows):
    folder.mkdir(exist_ok=True)
    write_table(folder / "000-00000000.parquet", visits(*rows))


def test_signals_are_about_the_label_as_it_stands_in_the_data(tmp_path):
    """`b` is held out, `c` was turned round, `d` was never visited."""
    pairs = write_pairs(tmp_path / "pairs.arrow", "abcd", held_out=[1], swapped=[2])
    visited = [(index, step, step / 2, margin) for index in (0, 2) for step, margin in ((0, 3.0), (2, -1.0))]
    keep(tmp_path / "dynamics", *visited)
    found = signals(tmp_path / "dynamics", pairs)
    assert found.column_names == ["pair_id", "row", *SIGNALS]
    assert (found["pair_id"].to_pylist(), found["row"].to_pylist()) == (["a", "c", "d"], [0, 10, 15])
    values = [[row[name] for name in SIGNALS] for row in found.to_pylist()]
    assert values == [[3, 1, 1, -2, -1], [-3, -1, -1, -2, -1], [None] * 5]


def test_copies_of_a_pair_share_a_row(tmp_path):
    pairs = write_pairs(tmp_path / "pairs.arrow", "abac")
    keep(tmp_path / "dynamics", (0, 0, 0.0, 1.0), (1, 0, 0.0, 5.0), (2, 0, 0.0, 2.0))
    found = signals(tmp_path / "dynamics", pairs).to_pydict()
    assert (found["pair_id"], found["row"], found["in_sample_mean"]) == (["a", "b", "c"], [0, 5, 15], [1.5, 5, None])


# --- in a run ---


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_policy):
    """Sixty pairs, two of them copies, that a tiny model scored. Diagnosed anew by each test."""
    rng, folder = random.Random(0), tmp_path_factory.mktemp("dynamics")
    texts = [[" ".join(rng.choices("abcdefg", k=rng.randint(2, 9))) for _ in range(3)] for _ in range(59)]
    rows = [{"prompt": f"{at} {one}", "chosen": two, "rejected": three} for at, (one, two, three) in enumerate(texts)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    ingest(IngestConfig((str(folder / "data.jsonl"),)), run := Run.create(folder / "run"))
    engines.score(run, ScoreConfig(policy=str(tiny_policy), features=False), ComputeConfig(device="cpu"))
    weigh(run, WeighConfig())
    return run


def diagnosed(run, *files):
    stage = diagnose(run, DiagnoseConfig(folds=3, repeats=1, signals=tuple(map(str, files))))
    with RunView(run.path) as view:
        return stage, view.table("diagnosis"), view.table("signals")


def test_diagnose_shows_the_signals_and_is_not_moved_by_them(run, tmp_path):
    """However strongly they speak, `p_flip`, kinds, reasons and all other signals stay what they are."""
    stage, diagnosis, plain = diagnosed(run)
    ids = plain["pair_id"].tolist()
    pairs = write_pairs(tmp_path / "pairs.arrow", ids[::-1], held_out=[0], swapped=[1])
    keep(tmp_path / "dynamics", *[(at, step, step / 9, 100.0 * (at % 2) - 50) for at in range(60) for step in range(9)])
    table = signals(tmp_path / "dynamics", pairs)
    write_table(tmp_path / "signals.parquet", table)
    seen, again, shown = diagnosed(run, tmp_path / "signals.parquet")
    pd.testing.assert_frame_equal(again, diagnosis)
    pd.testing.assert_frame_equal(shown[plain.columns], plain)
    assert seen["noise"] == stage["noise"]
    assert seen["signals"] == stage["signals"] | dict.fromkeys(SIGNALS, IMPORTED_IN_SAMPLE)
    expected = table.to_pandas().set_index("pair_id").reindex(ids)
    for name in SIGNALS:
        np.testing.assert_array_equal(shown[name], expected[name], strict=False)
    assert shown["in_sample_mean"].notna().sum() == 60  # the held-out pair's copy speaks for both


def test_the_same_numbers_under_another_name_do_move_it(run, tmp_path):
    """So the test above says something."""
    _, diagnosis, _ = diagnosed(run)
    better_N = np.where(np.arange(60) % 4 == 0, -50.0, 50.0)
    for name, moves in (("judge", True), ("in_sample_judge", False)):
        pq.write_table(pa.table({"row": range(60), name: better_N}), tmp_path / f"{name}.parquet")
        stage, found, shown = diagnosed(run, tmp_path / f"{name}.parquet")
        assert np.allclose(found["p_flip"], diagnosis["p_flip"]) != moves
        assert shown[name].tolist() == better_N.tolist()
        assert stage["signals"][name] == ("imported" if moves else IMPORTED_IN_SAMPLE)
