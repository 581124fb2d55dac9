"""How well a model agrees with the labels: by hand, and against scikit-learn."""

import math
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from training import evaluation
from training.evaluation import BINS, Judgement, accuracy, calibration_error, judge
from training.losses import PairLogProbs

quick = settings(deadline=None, max_examples=60)

LOG3 = math.log(3)
margins = st.lists(st.floats(-30, 30), min_size=1, max_size=30).map(np.array)


def judged(*margin, gap=None):
    margin_N = np.array(margin, dtype=float)
    return Judgement(margin_N, np.logaddexp(0, -margin_N), margin_N if gap is None else np.array(gap, dtype=float))


@pytest.mark.parametrize(
    ("margin", "expected"),
    [
        ([1, -1, 0, 2], 2.5 / 4),
        ([-1], 0.0),
        ([0, 0], 0.5),
        ([1, math.nan, -1, math.inf], 2 / 3),
        ([math.nan], math.nan),
    ],
)
def test_accuracy_by_hand(margin, expected):
    assert accuracy(np.array(margin, dtype=float)) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("margin", "expected"),
    [
        ([LOG3, LOG3, -LOG3], 3 / 4 - 2 / 3),
        ([LOG3] * 3 + [-LOG3], 0.0),
        ([1000, -1000], 0.5),  # all in the last bin, sure and right half of the time
        ([0], 0.0),  # 50 % sure, and right by half
        ([1000, 1000, -LOG3], 0.75 / 3),  # bins count by their pairs
        ([-LOG3, -math.log(9)], (0.75 + 0.9) / 2),
    ],
)
def test_calibration_error_by_hand(margin, expected):
    assert calibration_error(np.array(margin, dtype=float)) == pytest.approx(expected, abs=1e-12)


def test_a_model_that_is_as_sure_as_it_is_right_is_calibrated():
    rng = np.random.default_rng(0)
    margin_N = rng.normal(0, 2, 200_000)
    right_N = rng.random(200_000) < expit(np.abs(margin_N))
    calibrated_N = np.where(right_N, 1, -1) * np.abs(margin_N)
    assert calibration_error(calibrated_N) < 0.01
    assert calibration_error(3 * calibrated_N) > 0.1
    assert calibration_error(calibrated_N / 3) > 0.1


@quick
@given(margins)
def test_calibration_error_is_that_of_scikit_learns_curve(margin_N):
    """Bins of equal width over σ(|h|) from 1/2 to 1, stretched to 0 to 1 for it, and no margin on a bin's edge."""
    sure_N, right_N = expit(np.abs(margin_N)), margin_N > 0
    edges = np.linspace(0.5, 1, BINS + 1)
    if np.abs(sure_N[:, None] - edges[:-1]).min() < 1e-9 or not margin_N.all():
        return
    right_K, sure_K = calibration_curve(right_N, np.clip(2 * sure_N - 1, 0, 1), n_bins=BINS)
    counts = np.histogram(sure_N, edges)[0]
    expected = np.abs(right_K - (sure_K + 1) / 2) @ counts[counts > 0] / len(margin_N)
    assert calibration_error(margin_N) == pytest.approx(expected, abs=1e-9)


@quick
@given(margins)
def test_metrics_against_scikit_learn(margin_N):
    found = judged(*margin_N).metrics()
    ones_N, p_N = np.ones(len(margin_N)), expit(margin_N)
    assert found["brier"] == pytest.approx(brier_score_loss(ones_N, p_N, pos_label=1), abs=1e-12)
    assert found["loss"] == pytest.approx(log_loss(ones_N, np.c_[1 - p_N, p_N], labels=[0, 1]), rel=1e-6, abs=1e-12)
    assert 0 <= found["calibration_error"] <= 1


def test_metrics_by_hand():
    found = judged(LOG3, -LOG3, 0, gap=[0.5, 0.1, -0.2]).metrics()
    assert found == pytest.approx(
        {
            "loss": (math.log(4 / 3) + math.log(4) + math.log(2)) / 3,
            "accuracy": 0.5,
            "margin": 0.0,
            "likelihood_accuracy": 2 / 3,
            "calibration_error": 2 * 0.25 / 3,
            "brier": (1 / 16 + 9 / 16 + 1 / 4) / 3,
        }
    )


# --- judging pairs ---


class Known:
    """Pairs whose log-probs are their numbers, and just enough of a trainer to judge them."""

    def __init__(self, at):
        self.at = np.array(at)

    def __len__(self):
        return len(self.at)

    def __getitem__(self, position):
        return int(self.at[position % len(self)]), position < len(self)

    def trainer(self, size, rank=0, world=1):
        seen = []

        def collate(pairs):
            seen.append(len(pairs))
            index, real = zip(*pairs, strict=True)
            return {"index": torch.tensor(index), "real": torch.tensor(real)}

        def log_probs(model, batch):
            number = batch["index"].float()
            return PairLogProbs(-number, -2 * number, torch.full_like(number, 2), torch.full_like(number, 10))

        return seen, SimpleNamespace(
            config=SimpleNamespace(micro_batch=size),
            args=SimpleNamespace(process_index=rank, world_size=world),
            accelerator=SimpleNamespace(autocast=torch.no_grad),
            collate=collate,
            log_probs=log_probs,
            losses_of=lambda model, logps, batch: (logps.policy_chosen_B, 10 * batch["index"].double()),
            _prepare_inputs=lambda batch: batch,
        )


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("at", [[0, 1, 2, 3, 4], [7, 2, 9, 0, 4]])
def test_pairs_are_judged_in_their_order(at, size):
    pairs, model = Known(at), torch.nn.Linear(1, 1)
    seen, trainer = pairs.trainer(size)
    found = judge(trainer, model, pairs)
    assert found.margin_N.tolist() == [-number for number in at]
    assert found.loss_N.tolist() == [10 * number for number in at]
    np.testing.assert_allclose(found.gap_N, [-number / 2 + 2 * number / 10 for number in at], rtol=1e-7)
    assert sum(seen) == len(at)
    assert max(seen) <= size
    assert not model.training


@pytest.mark.parametrize("at", [[0, 1, 2, 3, 4, 5, 6], [7, 2, 9, 0, 4], [3]])
def test_several_processes_judge_each_its_share_and_know_the_whole(at, monkeypatch):
    """Threads that meet where processes would: all find what one process finds, in the same order."""
    world, pairs = 3, Known(at)
    meeting, brought = threading.Barrier(world), {}

    def gather(column):
        brought[threading.current_thread().name] = column
        meeting.wait(10)
        together = torch.cat([brought[str(rank)] for rank in range(world)])
        meeting.wait(10)
        return together, slice(None)

    def run(rank):
        seen, trainer = pairs.trainer(2, rank, world)
        found[rank] = judge(trainer, torch.nn.Linear(1, 1), pairs), len(seen)

    monkeypatch.setattr(evaluation, "gather_pairs", gather)
    found = {}
    threads = [threading.Thread(target=run, args=(rank,), name=str(rank)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[rank][0].margin_N.tolist() for rank in range(world)] == [[-number for number in at]] * world
    assert found[1][0].loss_N.tolist() == [10 * number for number in at]
    assert len({calls for _, calls in found.values()}) == 1  # all take part in every step
