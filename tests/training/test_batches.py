"""Batches: packed and padded log-probs against one token at a time in float64, and who gets which pairs when."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from curate import attention
from training.batches import COLUMNS, GlobalBatches, collate_packed, collate_padded, pair_log_probs
from training.data import TrainingPair

quick = settings(deadline=None, max_examples=60)

SHAPES = {  # tokens of prompt, chosen and rejected
    "one pair": [(5, 3, 4)],
    "all of one token": [(1, 1, 1), (1, 1, 1)],
    "one-token completions": [(6, 1, 1), (2, 1, 5), (3, 7, 1)],
    "a long prompt": [(60, 2, 3), (1, 4, 4), (2, 3, 2)],
    "long completions": [(2, 50, 1), (4, 1, 40), (3, 3, 3)],
}
COLLATORS = {"packed": collate_packed, "length_grouped": collate_padded}
each_kind = pytest.mark.parametrize("kind", COLLATORS)


def make_pairs(shapes, seed=0, **columns):
    rng = np.random.default_rng(seed)
    made = []
    for at, sizes in enumerate(shapes):
        prompt, chosen, rejected = (rng.integers(0, 256, size).tolist() for size in sizes)
        numbers = {name: columns.get(name, [math.nan] * len(shapes))[at] for name in COLUMNS}
        padding = at in columns.get("padding", ())
        made.append(TrainingPair(100 + at, prompt, chosen, rejected, **numbers, is_padding=padding))
    return made


@pytest.fixture(scope="module")
def load(tiny_policy):
    """A function that loads the tiny model as a kind of batch needs it."""

    def make(kind, dtype=torch.float32):
        attention.register()
        model = AutoModelForCausalLM.from_pretrained(tiny_policy, dtype=dtype)
        if kind == "packed":
            model.set_attn_implementation(attention.PACKED)
        return model

    return make


def one_at_a_time(model, pairs):
    """log π of chosen and rejected, (B, 2): every token predicted from a forward pass of its own over what precedes."""
    sums = []
    for pair in pairs:
        for side in (pair.chosen, pair.rejected):
            ids, total = [*pair.prompt], 0.0
            for token in side:
                logits_V = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
                total = total + logits_V.log_softmax(0)[token]
                ids.append(token)
            sums.append(total)
    return torch.stack(sums).view(-1, 2)


def gradient(model, logp_B2):
    """Of a sum in which every side counts differently."""
    model.zero_grad()
    (logp_B2.double() * torch.arange(1, logp_B2.numel() + 1).view(-1, 2)).sum().backward()
    return torch.cat([parameter.grad.flatten().double() for parameter in model.parameters()])


def log_probs(model, kind, pairs):
    found = pair_log_probs(model, COLLATORS[kind](pairs))
    return torch.stack([found.policy_chosen_B, found.policy_rejected_B], dim=1)


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_log_probs_and_gradients(load, shapes):
    pairs, exact = make_pairs(shapes), load("length_grouped", torch.float64)
    expected = one_at_a_time(exact, pairs)
    slope = gradient(exact, expected)
    for kind in COLLATORS:
        model = load(kind)
        found = log_probs(model, kind, pairs)
        np.testing.assert_allclose(found.detach(), expected.detach(), rtol=3e-6)
        assert (gradient(model, found) - slope).norm() < 1e-5 * slope.norm()


@each_kind
def test_pairs_do_not_see_each_other(load, kind):
    pairs, model = make_pairs(SHAPES["a long prompt"]), load(kind)
    with torch.no_grad():
        together = log_probs(model, kind, pairs)
        np.testing.assert_allclose(log_probs(model, kind, pairs[::-1]).flip(0), together, rtol=3e-6)
        for at, pair in enumerate(pairs):
            np.testing.assert_allclose(log_probs(model, kind, [pair])[0], together[at], rtol=3e-6)


@each_kind
def test_what_comes_with_the_pairs(load, kind):
    columns = {
        "weight": [1.5, 0.0, 1.0],
        "p_flip": [0.0, 0.25, 1.0],
        "target_margin": [4.0, math.nan, 3.0],
        "reference_chosen": [-1.0, -2.0, math.nan],
        "reference_rejected": [-4.0, -5.0, -6.0],
    }
    pairs = make_pairs([(2, 3, 1), (1, 1, 4), (3, 2, 2)], **columns, padding=[1])
    batch = COLLATORS[kind](pairs)
    for name, values in columns.items():
        assert batch["columns"][name].dtype == torch.float64
        np.testing.assert_equal(batch["columns"][name].numpy(), values)
    assert (batch["index"].tolist(), batch["real"].tolist()) == ([100, 101, 102], [True, False, True])
    assert batch["tokens"].tolist() == [3, 1, 1, 4, 2, 2]
    sides = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
    assert batch["targets"].tolist() == [token for side in sides for token in side]
    with torch.no_grad():
        found = pair_log_probs(load(kind), batch)
    assert (found.chosen_tokens_B.tolist(), found.rejected_tokens_B.tolist()) == ([3, 1, 2], [1, 4, 2])
    np.testing.assert_equal(found.reference_chosen_B.numpy(), columns["reference_chosen"])
    np.testing.assert_equal(found.reference_rejected_B.numpy(), columns["reference_rejected"])
    assert found.policy_chosen_B.dtype == torch.float32


@each_kind
def test_without_reference_there_is_none(load, kind):
    with torch.no_grad():
        found = pair_log_probs(load(kind), COLLATORS[kind](make_pairs([(1, 2, 3)])))
    assert (found.reference_chosen_B, found.reference_rejected_B) == (None, None)


def test_a_packed_batch_holds_each_token_once(load):
    batch = collate_packed(make_pairs(SHAPES["a long prompt"]))
    assert batch["model"]["input_ids"].shape == (1, 60 + 5 + 1 + 8 + 2 + 5)
    assert len(batch["model"]["logits_to_keep"]) == len(batch["targets"]) == 5 + 8 + 5
    padded = collate_padded(make_pairs(SHAPES["a long prompt"]))
    assert padded["model"]["input_ids"].shape == (6, 63)
    assert padded["model"]["logits_to_keep"] == 63  # from the shortest prompt's last token on


# --- who gets which pairs when ---

orders = st.fixed_dictionaries(
    {
        "pairs": st.integers(1, 60),
        "size": st.integers(1, 5),
        "seed": st.integers(0, 2**32 - 1),
        "shuffle": st.booleans(),
        "group": st.integers(1, 20),
        "grouped": st.booleans(),
    }
)


def deal(made, world=1, epoch=0):
    """The batches of every rank."""
    settings = {name: value for name, value in made.items() if name != "grouped"}
    lengths_N = np.random.default_rng(5).integers(1, 9, made["pairs"]) if made["grouped"] else None
    dealt = []
    for rank in range(world):
        sampler = GlobalBatches(**settings, rank=rank, world=world, lengths_N=lengths_N)
        sampler.set_epoch(epoch)
        dealt.append(list(sampler))
        assert len(dealt[-1]) == len(sampler)
    return dealt


def flat(batches):
    return [position for batch in batches for position in batch]


@quick
@given(orders, st.integers(1, 4), st.integers(0, 3))
def test_every_pair_once_an_epoch_whoever_gets_it(made, world, epoch):
    pairs, size = made["pairs"], made["size"]
    dealt = deal(made, world, epoch)
    assert len({len(batches) for batches in dealt}) == 1
    real = [position for position in flat(flat(dealt)) if position < pairs]
    assert sorted(real) == list(range(pairs))
    assert all(1 <= len(batch) <= size for batches in dealt for batch in batches)
    assert all(batch == [pairs] for batches in dealt for batch in batches if max(batch) >= pairs)  # padding, alone
    whole = pairs // (size * world)
    assert all(len(batch) == size for batches in dealt for batch in batches[:whole])


@quick
@given(orders, st.integers(1, 4), st.integers(0, 3))
def test_the_order_is_the_same_for_any_number_of_processes(made, world, epoch):
    """Turn by turn, rank by rank, it is what a single process reads; and it is drawn by seed and epoch alone."""
    alone, dealt = deal(made, 1, epoch), deal(made, world, epoch)
    turns = [position for turn in zip(*dealt, strict=True) for batch in turn for position in batch]
    assert [position for position in turns if position < made["pairs"]] == flat(alone[0])
    assert deal(made, world, epoch) == dealt


@quick
@given(orders, st.integers(0, 3))
def test_similar_lengths_stand_together_within_their_stretch_alone(made, epoch):
    group = made["group"]
    lengths_N = np.random.default_rng(5).integers(1, 9, made["pairs"])
    plain, grouped = (flat(deal(made | {"grouped": it}, 1, epoch)[0]) for it in (False, True))
    for start in range(0, made["pairs"], group):
        stretch, before = grouped[start : start + group], plain[start : start + group]
        assert stretch == sorted(before, key=lambda position: -lengths_N[position])  # equal ones stay in order


def test_every_epoch_and_seed_has_an_order_of_its_own():
    made = {"pairs": 40, "size": 4, "seed": 1, "shuffle": True, "group": 1, "grouped": False}
    drawn = [flat(deal(made | {"seed": seed}, 1, epoch)[0]) for seed in (1, 2) for epoch in (0, 1)]
    assert len({tuple(order) for order in drawn}) == 4
    assert all(sorted(order) == list(range(40)) != order for order in drawn)
    in_order = made | {"shuffle": False}
    assert flat(deal(in_order, 1, 0)[0]) == flat(deal(in_order, 1, 3)[0]) == list(range(40))


def test_a_place_is_not_favoured():
    """Over many epochs every pair comes first about equally often: 400 draws of 8, 3.5 standard deviations."""
    made = {"pairs": 8, "size": 2, "seed": 3, "shuffle": True, "group": 1, "grouped": False}
    first = [deal(made, 1, epoch)[0][0][0] for epoch in range(400)]
    assert np.abs(np.bincount(first, minlength=8) - 50).max() < 3.5 * math.sqrt(400 / 8 * 7 / 8)
