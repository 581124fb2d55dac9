"""Packed attention against one query at a time in float64, and by hand."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AttentionInterface

from curate.attention import PACKED, Segment, UnsupportedAttentionError, packed_attention, register

quick = settings(deadline=None, max_examples=50)


def layout(shape):
    """(prompt length, completion lengths) of every group → segments, and the row's length."""
    segments, used = [], 0
    for prompt, completions in shape:
        stops = np.cumsum([used + prompt, *completions]).tolist()
        segments.append(Segment((used, used + prompt), tuple(pairwise(stops))))
        used = stops[-1]
    return tuple(segments), used


def visible(segments, window):
    """For every place of the row: the places that it attends to."""
    found = {}
    for segment in segments:
        prompt = list(range(*segment.prompt))
        for completion in segment.completions:
            sequence = prompt + list(range(*completion))
            for at, place in enumerate(sequence):
                found[place] = sequence[max(0, at + 1 - (window or at + 1)) : at + 1]
    return found


def slow_attention(query, key, value, segments, *, scaling=None, sliding_window=None, softcap=None):
    """One head and one query at a time, plain float64 NumPy."""
    q_HTd, k_KTd, v_KTd = (tensor[0].double().numpy() for tensor in (query, key, value))
    heads, tokens, width = q_HTd.shape
    shared = heads // k_KTd.shape[0]
    out_THd = np.full((tokens, heads, v_KTd.shape[2]), np.nan)
    for place, keys in visible(segments, sliding_window).items():
        for head in range(heads):
            scores = k_KTd[head // shared, keys] @ q_HTd[head, place]
            scores = scores * (1 / math.sqrt(width) if scaling is None else scaling)
            if softcap is not None:
                scores = softcap * np.tanh(scores / softcap)
            p = np.exp(scores - scores.max())
            out_THd[place, head] = p @ v_KTd[head // shared, keys] / p.sum()
    return out_THd[None]


def tensors(seed, tokens, *, heads=4, key_heads=2, width=8, value_width=8):
    random = torch.Generator().manual_seed(seed)
    shapes = [(1, heads, tokens, width), (1, key_heads, tokens, width), (1, key_heads, tokens, value_width)]
    return [2 * torch.randn(shape, generator=random) for shape in shapes]


def packed(query, key, value, segments, **settings):
    output, weights = packed_attention(torch.nn.Module(), query, key, value, None, segments=segments, **settings)
    assert weights is None
    return output.numpy()


shapes = st.lists(
    st.tuples(st.integers(1, 9), st.lists(st.integers(1, 9), min_size=1, max_size=4)), min_size=1, max_size=4
)


@quick
@given(
    shapes,
    st.sampled_from([(4, 4), (4, 2), (4, 1), (1, 1)]),
    st.sampled_from([None, 0.1, 1.0]),
    st.one_of(st.none(), st.integers(1, 20)),
    st.sampled_from([None, 0.5, 20.0]),
    st.integers(0, 2**32),
)
def test_agrees_with_one_query_at_a_time(shape, heads, scaling, sliding_window, softcap, seed):
    segments, tokens = layout(shape)
    qkv = tensors(seed, tokens, heads=heads[0], key_heads=heads[1])
    options = {"scaling": scaling, "sliding_window": sliding_window, "softcap": softcap}
    np.testing.assert_allclose(
        packed(*qkv, segments, **options), slow_attention(*qkv, segments, **options), rtol=0, atol=2e-5
    )


@pytest.mark.parametrize("scaling", [None, 0.1, 1.0])
@pytest.mark.parametrize("sliding_window", [None, 2, 5, 99])
@pytest.mark.parametrize("softcap", [None, 0.5])
def test_every_setting_counts_in_every_path(scaling, sliding_window, softcap):
    segments, tokens = layout([(4, (3, 7)), (1, (1, 9))])
    qkv = tensors(6, tokens)
    options = {"scaling": scaling, "sliding_window": sliding_window, "softcap": softcap}
    np.testing.assert_allclose(
        packed(*qkv, segments, **options), slow_attention(*qkv, segments, **options), rtol=0, atol=2e-5
    )


def test_values_may_be_wider_than_keys():
    segments, tokens = layout([(3, (2, 4))])
    qkv = tensors(0, tokens, value_width=12)
    found = packed(*qkv, segments)
    assert found.shape == (1, tokens, 4, 12)
    np.testing.assert_allclose(found, slow_attention(*qkv, segments), rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (None, [1, 1.5, 7 / 3, 3.75, 19 / 3, 51 / 4, 64]),
        (2, [1, 1.5, 3, 6, 9, 24, 64]),
        (1, [1, 2, 4, 8, 16, 32, 64]),
    ],
)
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_a_query_of_zeros_takes_the_mean_of_what_it_sees(window, expected, softcap):
    """Values 1, 2 | 4, 8 | 16, 32 and the next prompt's 64: the second completion sees 1, 2, 16, 32 and not 4, 8."""
    segments = (Segment((0, 2), ((2, 4), (4, 6))), Segment((6, 7), ((7, 8),)))
    value = torch.tensor([1.0, 2, 4, 8, 16, 32, 64, 64])[None, None, :, None]
    _, key, _ = tensors(1, 8, heads=1, key_heads=1)
    found = packed(torch.zeros_like(key), key, value, segments, sliding_window=window, softcap=softcap)
    np.testing.assert_allclose(found[0, :, 0, 0], [*expected, 64], rtol=1e-6)


def test_a_completion_is_bitwise_blind_to_its_neighbours():
    segments, tokens = layout([(3, (4, 5, 2)), (2, (3,))])
    qkv = tensors(2, tokens)
    before = packed(*qkv, segments)
    for tensor in qkv:
        tensor[:, :, 3:7] = torch.randn_like(tensor[:, :, 3:7])
    after = packed(*qkv, segments)
    others = [*range(3), *range(7, tokens)]
    np.testing.assert_array_equal(before[:, others], after[:, others])
    assert np.abs(before[:, 3:7] - after[:, 3:7]).max() > 0.1


@pytest.mark.parametrize("name", ["s_aux", "position_bias", "head_mask"])
def test_refuses_what_would_change_the_result(name):
    segments, tokens = layout([(2, (3,))])
    qkv = tensors(3, tokens)
    with pytest.raises(UnsupportedAttentionError, match=rf"packed attention does not know \['{name}'\]"):
        packed(*qkv, segments, **{name: torch.ones(4)})
    np.testing.assert_array_equal(packed(*qkv, segments, **{name: None}, dropout=0.0), packed(*qkv, segments))


def test_refuses_an_explicit_mask():
    segments, tokens = layout([(2, (3,))])
    with pytest.raises(UnsupportedAttentionError, match="does not know an explicit mask"):
        packed_attention(torch.nn.Module(), *tensors(4, tokens), torch.ones(1, 1, 5, 5), segments=segments)


def test_register_makes_it_known_to_transformers():
    register()
    assert AttentionInterface()[PACKED] is packed_attention
