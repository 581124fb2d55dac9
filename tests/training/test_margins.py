"""Target margins: against the release's numbers, by hand, over several processes, and resumed."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import ConfigError, RunError
from curate.gamma import gamma_weights_torch
from training.losses import LOSSES, BetaSettings, BetaState, LossSettings, dynamic_beta
from training.margins import (
    TARGETS,
    ColumnMargin,
    ConstantMargin,
    DynamicBeta,
    OnlineMargins,
    exact_optimum,
    mirror_descent,
    target_margins,
)

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT.parent / "shared" / "golden" / "gamma_official.json"
ENTRIES = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.is_file() else []
SETTINGS = LossSettings("dpo", beta=10.0, gamma_beta_ratio=0.4)

needs_golden = pytest.mark.skipif(not ENTRIES, reason="golden values are not on this machine (../shared/golden)")
quick = settings(deadline=None, max_examples=30)
each_kind = pytest.mark.parametrize("kind", TARGETS)
online = pytest.mark.parametrize("kind", ["online", "online_exact"])


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def named(entry):
    return f"{entry['setting']}-{len(entry['reward_margin'])}"


def batches(count, pairs=6, seed=0):
    """Margins of some steps, with the columns that a batch may have."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        margin = 3 * torch.randn(pairs, generator=generator, dtype=torch.float64)
        made.append((margin, {"target_margin": margin + 1, "weight": torch.ones(pairs)}))
    return made


def emptied(made):
    """Online γ without history, so that a batch is the whole population."""
    made.load_state_dict(made.state_dict() | {"history": torch.zeros(0, dtype=torch.float64)})
    return made


# --- the solvers ---


@needs_golden
@pytest.mark.parametrize("entry", ENTRIES, ids=named)
def test_mirror_descent_gives_the_released_numbers(entry):
    """Also where twenty steps do not converge."""
    gamma0 = entry["gamma0"] if "gamma0" in entry else entry["beta"] * entry["gamma_beta_ratio"]
    found = mirror_descent(doubles(*entry["reward_margin"]), gamma0, entry["tau"])
    assert found.tolist() == pytest.approx(entry["gamma_official_20_steps"], rel=0, abs=1e-7)


@needs_golden
@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if "beta" in entry], ids=named)
@pytest.mark.parametrize(
    ("solver", "key"), [(mirror_descent, "gamma_official_20_steps"), (exact_optimum, "gamma_exact")]
)
def test_online_margins_give_the_released_numbers_of_a_batch_alone(entry, solver, key):
    targets = emptied(OnlineMargins(entry["beta"] * entry["gamma_beta_ratio"], entry["tau"], solver=solver))
    found = targets(doubles(*entry["reward_margin"]), {}).target_margin_B
    assert found.tolist() == pytest.approx(entry[key], rel=0, abs=1e-7)


def test_one_mirror_step_by_hand(monkeypatch):
    """The docstring's case: w = (1.0949, 0.9051) after one step, 2·(0.7788, 0.6438)/(0.7788 + 0.6438)."""
    monkeypatch.setattr("training.margins.ITERATES", 2)
    assert mirror_descent(doubles(1, -1), 1.0, 1.0).tolist() == pytest.approx([1.0949, 0.9051], abs=5e-5)


def slow_mirror_descent(h, gamma0, tau):
    """The same on the simplex itself, in plain Python."""
    p, rate = [1 / len(h)] * len(h), min(0.5 / tau, 1.0)
    for _ in range(19):
        slope = [
            gamma0 / (1 + math.exp(one - gamma0 * len(h) * share)) + tau * (math.log(len(h) * share) + 1)
            for one, share in zip(h, p, strict=True)
        ]
        p = [share * math.exp(-rate * each) for share, each in zip(p, slope, strict=True)]
        p = [share / sum(p) for share in p]
    return [gamma0 * len(h) * share for share in p]


@quick
@given(st.lists(st.floats(-20, 20), min_size=1, max_size=8), st.floats(0.1, 5), st.floats(0.3, 30))
def test_mirror_descent_agrees_with_plain_python(h, gamma0, tau):
    """Where it converges or nearly so; elsewhere rounding grows from step to step."""
    if gamma0 <= tau:
        found = mirror_descent(doubles(*h), gamma0, tau)
        assert found.tolist() == pytest.approx(slow_mirror_descent(h, gamma0, tau), rel=1e-8)
    assert mirror_descent(doubles(*h), gamma0, tau).mean().item() == pytest.approx(gamma0, rel=1e-9)


# --- constant and column ---


def test_a_constant_is_the_same_for_every_pair():
    found = ConstantMargin(1.375)(torch.zeros(3, requires_grad=True), {})
    assert found.target_margin_B.tolist() == [1.375] * 3
    assert (found.weight_B, found.scale) == (None, 1.0)


def test_a_column_is_handed_on_and_its_gaps_get_gamma0():
    batch = {"target_margin": doubles(3.5, math.nan, 4.5)}
    found = ColumnMargin(4.0)(torch.zeros(3), batch).target_margin_B
    assert found.tolist() == [3.5, 4.0, 4.5]
    assert found.dtype == torch.float32


def test_a_missing_column_is_said():
    with pytest.raises(ConfigError, match="no column 'target_margin'"):
        ColumnMargin(4.0)(torch.zeros(1), {"weight": torch.ones(1)})


# --- online: what it does with the batch and its history ---


@online
def test_a_batch_and_a_short_history_are_solved_together(kind):
    """With at most 256 pairs everything is in the sample, in whatever order."""
    targets = target_margins(kind, SETTINGS, tau=10.0, seed=3)
    seeds = targets.state_dict()["history"]
    assert seeds.shape == (8,)
    (first, columns), (second, _) = batches(2)
    solver = {"online": mirror_descent, "online_exact": exact_optimum}[kind]
    for margin, before in ((first, seeds), (second, torch.cat([seeds, first]))):
        expected = solver(torch.cat([margin, before]), 4.0, 10.0)[: len(margin)]
        torch.testing.assert_close(targets(margin, columns).target_margin_B, expected, rtol=0, atol=1e-12)
    assert targets.state_dict()["history"].tolist() == torch.cat([seeds, first, second]).tolist()


def test_the_history_starts_with_standard_normal_draws():
    draws = torch.cat([OnlineMargins(4.0, 10.0, seed=seed).state_dict()["history"] for seed in range(200)])
    assert draws.mean().item() == pytest.approx(0, abs=0.1)
    assert draws.std().item() == pytest.approx(1, abs=0.1)


def test_the_history_is_a_queue_of_the_last_2048():
    targets = OnlineMargins(4.0, 10.0)
    steps = [torch.arange(300 * step, 300 * (step + 1), dtype=torch.float64) for step in range(8)]
    for margin in steps:
        targets(margin, {})
    assert torch.equal(targets.state_dict()["history"], torch.cat(steps)[-2048:])


def test_at_most_256_pairs_are_solved_for():
    seen = []

    def spy(margin_M, gamma0, tau):
        seen.append(margin_M)
        return exact_optimum(margin_M, gamma0, tau)

    targets = OnlineMargins(4.0, 10.0, solver=spy)
    targets(torch.arange(1000, 1300, dtype=torch.float64), {})
    targets(torch.arange(10, dtype=torch.float64), {})
    targets(torch.arange(10, dtype=torch.float64), {})
    assert [len(margin) for margin in seen] == [300, 256, 256]
    samples = [margin[10:].tolist() for margin in seen[1:]]
    assert all(len(set(sample)) == 246 for sample in samples)  # without replacement
    assert set(samples[0]) != set(samples[1])


@online
def test_a_strong_pull_gives_every_pair_gamma0(kind):
    """So that γ-DPO is DPO."""
    (margin, columns), *_ = batches(1)
    chosen = LossSettings("dpo", beta=0.1, gamma_beta_ratio=0.4)
    target = target_margins(kind, chosen, tau=1e9)(margin, columns).target_margin_B
    found = LOSSES["gamma_dpo"](margin, chosen, target_margin_B=target)
    torch.testing.assert_close(found, LOSSES["dpo"](margin), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["online", "online_exact", "dynamic_beta"])
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 5.0])
def test_pairs_of_weight_zero_change_nobody_else(kind, odd):
    """Nor do margins that are no numbers, whatever their weight."""
    clean, dirty = (emptied_if_online(target_margins(kind, SETTINGS)) for _ in range(2))
    for margin, _ in batches(3, pairs=4):
        expected = clean(margin, {"weight": torch.ones(4)})
        more = torch.cat([margin, doubles(odd)])
        weight = torch.tensor([1.0, 1, 1, 1, 0 if math.isfinite(odd) else 1])
        found = dirty(more, {"weight": weight})
        if kind == "dynamic_beta":
            assert found.weight_B[4] == 0
            assert found.target_margin_B[4] == 4.0
        else:
            assert torch.equal(found.target_margin_B, torch.cat([expected.target_margin_B, doubles(4.0)]))


def emptied_if_online(targets):
    return emptied(targets) if isinstance(targets, OnlineMargins) else targets


@online
def test_a_batch_without_population_gets_gamma0(kind):
    found = target_margins(kind, SETTINGS)(doubles(math.nan, 1.0), {"weight": doubles(1, 0)})
    assert found.target_margin_B.tolist() == [4.0, 4.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_kind
def test_targets_follow_the_margins_dtype_and_carry_no_gradient(kind, dtype):
    margin, columns = batches(1)[0]
    margin = margin.to(dtype).requires_grad_()
    found = target_margins(kind, SETTINGS)(margin, columns)
    assert found.target_margin_B.dtype == dtype
    assert found.target_margin_B.shape == margin.shape
    assert not found.target_margin_B.requires_grad


# --- β-DPO ---


def test_dynamic_beta_runs_the_function_on_gaps_in_nats():
    targets, state = DynamicBeta(0.5, seed=1), None
    generator = torch.Generator().manual_seed(1)
    for margin, columns in batches(3):
        draws = torch.rand(6, generator=generator, dtype=torch.float64)
        expected = dynamic_beta(margin / 0.5, state, draws, BetaSettings())
        found = targets(margin, columns)
        state = expected.state
        assert found.scale == expected.scale
        assert torch.equal(found.weight_B, expected.selected_N)
        assert found.weight_B.sum() == 5  # round(0.8·6)
    assert targets.state_dict()["averages"] == [state.mean, state.std]
    assert isinstance(state, BetaState)


def test_an_evaluation_sees_every_pair_at_beta_itself():
    found = DynamicBeta(0.5)(doubles(1, 100), {}, training=False)
    assert (found.weight_B, found.scale, found.target_margin_B.tolist()) == (None, 1.0, [0, 0])


# --- state ---


def numbers(targets):
    """Targets and state in a form that can be compared and written."""
    return [[*item.tolist()] if isinstance(item, torch.Tensor) else item for item in targets]


def state_of(made):
    return {
        key: value.tolist() if isinstance(value, torch.Tensor) else value for key, value in made.state_dict().items()
    }


@each_kind
def test_a_resumed_run_equals_an_uninterrupted_one(kind, tmp_path):
    """Through a file, as a checkpoint is, with weights only."""
    steps = batches(60, pairs=7)
    whole = target_margins(kind, SETTINGS)
    expected = [numbers(whole(*step)) for step in steps]
    first = target_margins(kind, SETTINGS)
    found = [numbers(first(*step)) for step in steps[:25]]
    torch.save(first.state_dict(), tmp_path / "state.pt")
    for step in steps[25:28]:
        first(*step)  # a checkpoint is a copy: what follows does not change it
    second = target_margins(kind, SETTINGS, seed=7)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    found += [numbers(second(*step)) for step in steps[25:]]
    assert found == expected
    assert state_of(second) == state_of(whole)


@each_kind
def test_an_evaluation_leaves_no_trace(kind):
    steps, other = batches(50, pairs=7), batches(5, pairs=50, seed=9)
    plain, evaluated = (target_margins(kind, SETTINGS) for _ in range(2))
    for at, step in enumerate(steps):
        if at % 10 == 0:
            seen = [numbers(evaluated(*one, training=False)) for one in other]
            assert seen == [numbers(evaluated(*one, training=False)) for one in other]
        assert numbers(evaluated(*step)) == numbers(plain(*step))
    assert state_of(evaluated) == state_of(plain)


@pytest.mark.parametrize(
    ("saved", "loaded"),
    [("online", "constant"), ("constant", "online"), ("dynamic_beta", "online_exact"), ("online", "dynamic_beta")],
)
def test_another_kinds_state_is_refused(saved, loaded):
    with pytest.raises(RunError, match="resume with the settings it was trained with"):
        target_margins(loaded, SETTINGS).load_state_dict(target_margins(saved, SETTINGS).state_dict())


# --- the public door ---


@online
@pytest.mark.parametrize(
    ("ratio", "tau", "message"), [(0.0, 10.0, "gamma0 is 0.0"), (0.4, 0.0, "tau is 0.0"), (0.4, math.nan, "tau is nan")]
)
def test_online_settings_without_a_meaning_are_refused(kind, ratio, tau, message):
    with pytest.raises(ConfigError, match=message):
        target_margins(kind, LossSettings("simpo", beta=10.0, gamma_beta_ratio=ratio), tau=tau)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="'offline' are unknown: choose one of constant, column"):
        target_margins("offline", SETTINGS)


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_finds_its_targets(name):
    loss = LOSSES[name]
    margin, columns = batches(1)[0]
    found = target_margins(loss.targets, loss.defaults)(margin, columns)
    assert loss(found.scale * margin, target_margin_B=found.target_margin_B, weight_B=found.weight_B).isfinite().all()


# --- several processes ---

SHARES = [4, 2]  # of six pairs a step; the second process has none in the last step
STEPS = 45

PROCESS = """
import json, sys, torch
from pathlib import Path
from torch import distributed
from test_margins import SETTINGS, SHARES, STEPS, TARGETS, batches, numbers, state_of, target_margins

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
found = {}
for kind in TARGETS:
    targets, seen = target_margins(kind, SETTINGS), []
    for at, (margin, columns) in enumerate(batches(STEPS)):
        shares = SHARES if at < STEPS - 1 else [6, 0]
        own = slice(0, shares[0]) if rank == 0 else slice(shares[0], 6)
        columns = {name: column[own] for name, column in columns.items()}
        if at % 20 == 0:
            targets(margin[own], columns, training=False)
        seen.append(numbers(targets(margin[own], columns)))
    found[kind] = {"seen": seen, "state": state_of(targets)}
distributed.destroy_process_group()
(folder / f"{rank}.json").write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What each of two gloo processes got, and the state that it ended with."""
    folder = tmp_path_factory.mktemp("processes")
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", PROCESS]
    running = [subprocess.Popen([*command, str(rank), str(folder)], env=environment) for rank in range(2)]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@each_kind
def test_two_processes_equal_one_at_the_same_global_batch(kind, two_processes):
    alone = target_margins(kind, SETTINGS)
    expected = [numbers(alone(*step)) for step in batches(STEPS)]
    both = zip(*(process[kind]["seen"] for process in two_processes), strict=True)
    found = [[left[0] + right[0], left[1] and left[1] + right[1], left[2]] for left, right in both]
    assert found == expected
    for process in two_processes:
        assert process[kind]["state"] == state_of(alone)


def test_the_torch_twin_is_what_the_exact_solver_calls():
    margin = doubles(1, -1)
    expected = gamma_weights_torch(margin, gamma0=1.0, tau=1.0).target_margin
    assert torch.equal(exact_optimum(margin, 1.0, 1.0), expected)
    assert expected.tolist() == pytest.approx([1.1601, 0.8399], abs=5e-5)
