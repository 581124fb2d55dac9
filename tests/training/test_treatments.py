"""What is done about noise, pair by pair and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.treatments import DROPPED_DEFECTIVE, DROPPED_FLIPPED, TREATMENTS, Diagnosed, as_labelled

quick = settings(deadline=None, max_examples=60)
each = pytest.mark.parametrize("name", TREATMENTS)

#: A sure flip, a doubtful one, a clean pair, a defective one that looks flipped, one that is both, one of no evidence.
FOUND = Diagnosed(
    p_flip_N=np.array([1.0, 0.625, 0.125, 0.75, 0.9, np.nan]),
    flipped_N=np.array([True, True, False, False, True, False]),
    defective_N=np.array([False, False, False, True, True, False]),
)
_, F, D = "", DROPPED_FLIPPED, DROPPED_DEFECTIVE
ONES, ZEROS, NOBODY, NOTHING = [1.0] * 6, [0.0] * 6, [False] * 6, [""] * 6
USABLE = [_, _, _, D, D, _]

EXPECTED = {  # dropped, swapped, weight, p_flip
    "raw": (NOTHING, NOBODY, ONES, ZEROS),
    "drop": ([F, F, _, D, D, _], NOBODY, ONES, ZEROS),
    "flip": (USABLE, [True, True, False, False, False, False], ONES, ZEROS),
    "soft": (USABLE, NOBODY, ONES, [1.0, 0.625, 0.125, 0.75, 0.9, 0.0]),
    "weights": (USABLE, NOBODY, [0.0, 0.0, 0.75, 0.0, 0.0, 1.0], ZEROS),
    "gamma": (USABLE, NOBODY, ONES, ZEROS),
}


def test_each_treatment_has_its_row_here():
    assert EXPECTED.keys() == TREATMENTS.keys()


@each
def test_by_hand(name):
    treated = TREATMENTS[name](FOUND)
    dropped, swap, weight, p_flip = EXPECTED[name]
    assert treated.dropped_N.tolist() == dropped
    assert treated.swap_N.tolist() == swap
    assert treated.weight_N.tolist() == weight
    assert treated.p_flip_N.tolist() == p_flip


def test_as_labelled():
    treated = as_labelled(2)
    found = [column.tolist() for column in (treated.dropped_N, treated.swap_N, treated.weight_N, treated.p_flip_N)]
    assert found == [["", ""], [False, False], [1.0, 1.0], [0.0, 0.0]]


diagnosed = st.lists(st.tuples(st.floats(0, 1) | st.just(np.nan), st.booleans(), st.booleans()), max_size=8)


@each
@quick
@given(pairs=diagnosed, data=st.data())
def test_each_pair_is_treated_for_itself(name, pairs, data):
    """In another order they are treated the same; a loss can take what comes out; the diagnosis stays as it was."""
    columns = zip(*pairs, strict=True) if pairs else ([], [], [])
    p_flip_N, flipped_N, defective_N = (np.array(column) for column in columns)
    found = Diagnosed(p_flip_N.astype(float), flipped_N.astype(bool), defective_N.astype(bool))
    kept = found.p_flip_N.copy(), found.flipped_N.copy(), found.defective_N.copy()
    treated = TREATMENTS[name](found)
    assert ((treated.weight_N >= 0) & (treated.weight_N <= 1)).all()
    assert ((treated.p_flip_N >= 0) & (treated.p_flip_N <= 1)).all()
    assert set(treated.dropped_N) <= {"", F, D}
    assert not (treated.swap_N & (treated.dropped_N != "")).any()
    order = np.array(data.draw(st.permutations(range(len(pairs)))), dtype=int)
    moved = TREATMENTS[name](Diagnosed(found.p_flip_N[order], found.flipped_N[order], found.defective_N[order]))
    for column in ("dropped_N", "swap_N", "weight_N", "p_flip_N"):
        np.testing.assert_array_equal(getattr(moved, column), getattr(treated, column)[order])
    for before, after in zip(kept, (found.p_flip_N, found.flipped_N, found.defective_N), strict=True):
        np.testing.assert_array_equal(before, after)
