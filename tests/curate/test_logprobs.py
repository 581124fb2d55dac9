"""The kernel against one sequence at a time, in float64 and eager attention, over architectures and batch shapes."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from curate import logprobs, models, packing
from curate.errors import ModelError
from curate.formats import Message
from curate.logprobs import Scorer
from curate.models import Device
from curate.packing import Group
from curate.tokens import Encoder

quick = settings(deadline=None, max_examples=12)

ROOT = Path(__file__).parents[2]
CPU = Device("cpu", "float32")
VOCABULARY = 261

BASE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
SMALL = {key: BASE[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers", "initializer_range")}
GEMMA = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 6}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 5, "n_head": 4, "n_positions": 512, "initializer_range": 0.2}

#: Architectures that the packed kernel knows: sliding windows, capped scores and logits, learned positions, odd depth.
PACKED = {
    "llama": ("LlamaConfig", BASE),
    "mistral": ("MistralConfig", {**BASE, "sliding_window": 6}),
    "gemma2": ("Gemma2Config", {**BASE, **GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    "gemma3": ("Gemma3TextConfig", {**BASE, **GEMMA}),
    "qwen2": ("Qwen2Config", {**BASE, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2}),
    "phi3": ("Phi3Config", {**BASE, "tie_word_embeddings": True, "sliding_window": 6}),
    "gpt2": ("GPT2Config", {**GPT2, "bos_token_id": None, "eos_token_id": None}),
}
FIXED = "^the model's attention cannot be exchanged$"
DIFFER = r"packed log-probs differ by \S+ nats a token"
#: Architectures that it does not know, and why: mixers that are no attention, attention of their own, scaled logits.
PADDED = {
    "mamba": ("MambaConfig", {**SMALL, "state_size": 8}, DIFFER),
    "bloom": ("BloomConfig", {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 4, "n_head": 4}, FIXED),
    "falcon": ("FalconConfig", {**SMALL, "num_attention_heads": 4}, FIXED),
    "granite": ("GraniteConfig", {**BASE, "logits_scaling": 2.0}, DIFFER),
    "bert": ("BertConfig", {**BASE, "is_decoder": True}, DIFFER),
    "llama4": (
        "Llama4TextConfig",
        {**BASE, "attention_chunk_size": 6, "head_dim": 8, "intermediate_size_mlp": 64, "num_local_experts": 2},
        "has no attribute 'last_hidden_state'",
    ),
}


def make(name, **changes):
    """A tiny random model, loaded as `load_model` does: sdpa where it exists."""
    models._transformers()
    kind, settings = (PACKED | PADDED)[name][:2]
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(getattr(transformers, kind)(**{**settings, **changes}))
    return model.requires_grad_(requires_grad=False).eval()


def sequences(groups):
    return [(group.prompt, completion) for group in groups for completion in group.completions]


def slow_scores(model, groups):
    """Each sequence alone, float64, eager: Σ log π and the means of two layers' hidden states."""
    exact = copy.deepcopy(model).double()
    exact.set_attn_implementation("eager")
    logp, pooled = [], []
    for prompt, completion in sequences(groups):
        with torch.no_grad():
            output = exact(input_ids=torch.tensor([prompt + completion]), output_hidden_states=True, use_cache=False)
        log_probs = torch.log_softmax(output.logits[0].double(), dim=-1)
        steps = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
        logp.append(math.fsum(log_probs[at, token].item() for at, token in zip(steps, completion, strict=True)))
        layers = output.hidden_states  # the embeddings first, then L layers
        means = [layer[0, len(prompt) :].mean(dim=0) for layer in (layers[(len(layers) - 1) // 2], layers[-1])]
        pooled.append(torch.stack(means).numpy())
    return np.array(logp), np.array(pooled)


def random_groups(seed, *shapes):
    """Groups of random tokens, given as (prompt length, completion lengths…)."""
    random = np.random.default_rng(seed)
    ids = [[tuple(random.integers(2, VOCABULARY, length).tolist()) for length in shape] for shape in shapes]
    return [Group(prompt, tuple(completions)) for prompt, *completions in ids]


def assert_right(scored, expected, atol=1e-4):
    logp_C, pooled_C2D = expected
    assert scored.logp_C.dtype == np.float64
    np.testing.assert_allclose(scored.logp_C, logp_C, rtol=0, atol=atol)
    if scored.pooled_C2D is not None:
        assert scored.pooled_C2D.dtype == np.float16
        np.testing.assert_allclose(scored.pooled_C2D, pooled_C2D, rtol=1e-3, atol=1e-3)


#: Prompts of one token, completions of one token, one to four completions, lengths far apart.
MIXED = random_groups(3, (1, 30), (20, 1, 50, 3), (60, 60, 2), (1, 1), (7, 5, 5, 1, 90), (150, 1))


@pytest.fixture(scope="module")
def llama():
    return make("llama")


@pytest.fixture(scope="module")
def scorer(llama):
    return Scorer(llama, CPU)


@pytest.fixture(scope="module")
def mixed(llama):
    return slow_scores(llama, MIXED)


# --- against one sequence at a time ---


@pytest.mark.parametrize("name", PACKED)
def test_packed_agrees_with_one_sequence_at_a_time(name):
    model = make(name)
    scorer = Scorer(model, CPU)
    assert (scorer.kernel, scorer.why_padded) == ("packed", None)
    assert_right(scorer.score(MIXED), slow_scores(model, MIXED))


@pytest.mark.parametrize("name", PADDED)
def test_unknown_architectures_are_padded_with_a_reason_and_still_right(name):
    model = make(name)
    scorer = Scorer(model, CPU, batch_tokens=120)
    assert scorer.kernel == "padded"
    assert_matches(scorer.why_padded, PADDED[name][2])
    assert_right(scorer.score(MIXED), slow_scores(model, MIXED))


def assert_matches(text, pattern):
    with pytest.raises(ValueError, match=pattern):
        raise ValueError(text)


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gemma3"])
def test_the_window_and_the_caps_count(name):
    """The same weights without window or caps score otherwise: the test above does not pass by chance."""
    free = {"sliding_window": 512, "attn_logit_softcapping": None, "final_logit_softcapping": None}
    changes = {key: value for key, value in free.items() if key in PACKED[name][1]}
    for key, value in changes.items():
        model, other = make(name), make(name, **{key: value})
        logp_C, other_C = (Scorer(one, CPU, features=False).score(MIXED).logp_C for one in (model, other))
        assert np.abs(logp_C - other_C).max() > 0.1, key


shapes = st.lists(
    st.tuples(st.integers(1, 40), st.lists(st.integers(1, 40), min_size=1, max_size=4)), min_size=1, max_size=5
)


@quick
@given(shapes, st.integers(0, 2**32), st.integers(1, 300), st.integers(1, 50))
def test_any_batch_and_chunk_size_gives_the_same_scores_in_the_same_order(llama, scorer, shapes, seed, budget, rows):
    groups = random_groups(seed, *([prompt, *completions] for prompt, completions in shapes))
    expected = slow_scores(llama, groups)
    other = copy.copy(scorer)
    other.batch_tokens, other.logits_bytes = budget, 4 * VOCABULARY * rows
    for one in (scorer, other):
        assert_right(one.score(groups), expected)


def test_padded_does_not_depend_on_the_batch_either(scorer, mixed):
    other = copy.copy(scorer)
    other.kernel = "padded"
    for budget in (1, 100, 10_000):
        other.batch_tokens = budget
        assert_right(other.score(MIXED), mixed)


def test_shuffled_groups_give_shuffled_scores(scorer):
    order = np.random.default_rng(0).permutation(len(MIXED))
    ends = np.cumsum([len(group.completions) for group in MIXED])
    places = np.concatenate([np.arange(ends[i] - len(MIXED[i].completions), ends[i]) for i in order])
    before, after = scorer.score(MIXED), scorer.score([MIXED[i] for i in order])
    np.testing.assert_allclose(after.logp_C, before.logp_C[places], rtol=0, atol=1e-4)
    np.testing.assert_allclose(after.pooled_C2D, before.pooled_C2D[places], rtol=1e-3, atol=1e-3)


def test_the_same_completion_twice_scores_the_same(scorer):
    (group,) = random_groups(5, (9, 12))
    logp_C = scorer.score([Group(group.prompt, group.completions * 3), group]).logp_C
    np.testing.assert_allclose(logp_C, logp_C[0], rtol=0, atol=1e-5)


def test_rescoring_agrees_with_scoring(scorer, mixed):
    rescored = np.concatenate([scorer.rescore(group) for group in MIXED])
    np.testing.assert_allclose(rescored, mixed[0], rtol=0, atol=1e-4)


def test_a_uniform_model_by_hand():
    """An output layer of zeros gives every token the log-probability −log V."""
    model = make("llama")
    model.lm_head.weight.zero_()
    logp_C = Scorer(model, CPU).score(random_groups(1, (3, 1, 4), (1, 10))).logp_C
    np.testing.assert_allclose(logp_C, [-n * math.log(VOCABULARY) for n in (1, 4, 10)], rtol=1e-6)


# --- features ---


def test_features_are_optional(llama, scorer):
    without = Scorer(llama, CPU, features=False)
    scored = without.score(MIXED)
    assert scored.pooled_C2D is None
    np.testing.assert_array_equal(scored.logp_C, scorer.score(MIXED).logp_C)
    assert scorer.score(MIXED).pooled_C2D.shape == (len(sequences(MIXED)), 2, scorer.width)
    assert scorer.width == 32


def test_the_hook_is_taken_off(scorer):
    def hooks():
        return sum(len(module._forward_hooks) for module in scorer.model.modules())

    before = hooks()
    scorer.score(MIXED)
    assert hooks() == before


@pytest.mark.parametrize("kernel", ["packed", "padded"])
def test_features_beyond_float16_are_clamped(kernel):
    """Last states of about ±1e6; the output layer makes up for it, so that the scores stay as they were."""
    model = make("llama")
    expected = slow_scores(model, MIXED)
    model.model.norm.weight.mul_(1e6)
    model.lm_head.weight.div_(1e6)
    scorer = Scorer(model, CPU)
    scorer.kernel = kernel
    scored = scorer.score(MIXED)
    last_CD = np.clip(expected[1][:, 1] * 1e6, -65504, 65504)
    np.testing.assert_allclose(scored.pooled_C2D[:, 1], last_CD, rtol=1e-3, atol=100)
    assert np.isfinite(scored.pooled_C2D).all()
    assert scored.pooled_C2D.min() == -65504
    assert scored.pooled_C2D.max() == 65504
    np.testing.assert_allclose(scored.logp_C, expected[0], rtol=0, atol=1e-4)


def test_pooling_by_hand():
    layer_TD = torch.tensor([[1.0, 2.0], [3.0, -1e9], [5.0, 1e9]])
    pooled = logprobs._pool([layer_TD, -layer_TD], [1, 2])
    assert pooled.tolist() == [[[1, 2], [-1, -2]], [[4, 0], [-4, 0]]]
    assert logprobs._pool([layer_TD * 1e5], [1, 1, 1])[:, 0, 1].tolist() == [65504, -65504, 65504]


# --- precision ---


def test_bfloat16_runs_on_a_cpu_and_is_near(llama, mixed):
    scorer = Scorer(copy.deepcopy(llama).bfloat16(), Device("cpu", "bfloat16"))
    assert scorer.kernel == "packed"
    scored = scorer.score(MIXED)
    tokens_C = np.array([len(completion) for _, completion in sequences(MIXED)])
    assert scored.logp_C.dtype == np.float64
    assert (np.abs(scored.logp_C - mixed[0]) / np.sqrt(tokens_C)).max() < 0.5
    assert np.abs(scored.logp_C - mixed[0]).max() > 1e-3, "it was computed in bfloat16"
    np.testing.assert_allclose(scored.pooled_C2D, mixed[1], rtol=0, atol=0.6)


@pytest.mark.parametrize("name", ["bloom", "falcon"])
def test_the_wide_tolerance_of_bfloat16_lets_no_unknown_attention_pass(name):
    scorer = Scorer(make(name).bfloat16(), Device("cpu", "bfloat16"))
    assert scorer.kernel == "padded"
    assert_matches(scorer.why_padded, FIXED)


def test_token_log_probs_are_not_biased():
    """Sums over long answers would add up a bias of one token."""
    logits_TV = 4 * torch.randn(400, 20_000, generator=torch.Generator().manual_seed(0))
    targets_T = torch.arange(400)
    exact_T = torch.log_softmax(logits_TV.double(), dim=1)[targets_T, targets_T]
    error_T = packing.token_log_probs(logits_TV, targets_T).double() - exact_T
    assert abs(error_T.mean().item()) < 5e-7
    assert error_T.abs().max().item() < 5e-6


# --- the choice of the kernel ---


def test_scoring_leaves_the_model_as_it_was(llama):
    before = llama.config._attn_implementation
    for _ in range(2):
        Scorer(llama, CPU).score(MIXED[:1])
        assert llama.config._attn_implementation == before == "sdpa"
    assert make("gemma2").config._attn_implementation == "eager"


def test_a_model_that_sees_what_follows_is_refused():
    with pytest.raises(ModelError, match="cannot be scored: it is not causal, what follows a text counts"):
        Scorer(make("bert", is_decoder=False), CPU)


def test_a_model_without_finite_log_probs_is_refused():
    model = make("llama")
    model.model.layers[2].mlp.up_proj.weight.fill_(math.inf)
    with pytest.raises(ModelError, match="log-probs are not finite in float32: choose another --dtype"):
        Scorer(model, CPU)


def test_a_model_that_cannot_run_is_refused_in_one_line(monkeypatch):
    model = make("llama")

    def forward(**keywords):
        raise RuntimeError("no\n kernel  for this")

    monkeypatch.setattr(model, "forward", forward)
    with pytest.raises(ModelError, match=r"^the model cannot be scored: no kernel for this$"):
        Scorer(model, CPU)


def test_whatever_stops_packed_is_the_reason_for_padded(monkeypatch):
    def attend(*args, **keywords):
        raise NotImplementedError("not\nhere")

    monkeypatch.setattr("curate.attention.packed_attention", attend)
    model = make("llama")
    scorer = Scorer(model, CPU)
    monkeypatch.undo()
    assert (scorer.kernel, scorer.why_padded) == ("padded", "not here")
    assert_right(scorer.score(MIXED), slow_scores(model, MIXED))


def test_a_wrong_packed_kernel_is_noticed(monkeypatch):
    pack = logprobs.pack
    monkeypatch.setattr(logprobs, "pack", lambda batch: pack([Group(g.prompt[::-1], g.completions) for g in batch]))
    scorer = Scorer(make("llama"), CPU)
    assert scorer.kernel == "padded"
    assert_matches(scorer.why_padded, DIFFER)


# --- memory ---


@pytest.mark.parametrize("kernel", ["packed", "padded"])
def test_what_does_not_fit_is_halved(scorer, mixed, monkeypatch, kernel):
    """Memory for 100 tokens: single sequences of up to 151 do not fit, so these are left out."""
    other = copy.copy(scorer)
    other.kernel = kernel
    real, sizes = getattr(scorer, f"_{kernel}"), []

    def limited(batch):
        sizes.append(sum(group.tokens for group in batch))
        if sizes[-1] > 100:
            raise torch.OutOfMemoryError
        return real(batch)

    monkeypatch.setattr(other, f"_{kernel}", limited)
    groups = [group for group in MIXED if all(len(p) + len(c) <= 100 for p, c in sequences([group]))]
    keep = [len(p) + len(c) <= 100 for g in MIXED for p, c in sequences([g]) if g in groups]
    assert all(keep)
    expected = slow_scores(scorer.model, groups)
    assert_right(other.score(groups), expected)
    assert max(sizes) > 100
    with pytest.raises(
        ModelError, match=r"a sequence of 151 tokens does not fit into the memory of cpu; lower --max-len"
    ):
        other.score(MIXED)


# --- groups and batches ---


sized = st.builds(
    lambda sizes: random_groups(0, *([prompt, *completions] for prompt, completions in sizes)),
    st.lists(st.tuples(st.integers(1, 9), st.lists(st.integers(1, 9), min_size=1, max_size=6)), max_size=5),
)


@given(sized, st.integers(1, 60))
def test_split_keeps_the_order_and_the_budget(groups, budget):
    pieces = list(logprobs._split(groups, budget))
    assert sequences(pieces) == sequences(groups)
    assert all(piece.completions for piece in pieces)
    assert all(piece.tokens <= budget or len(piece.completions) == 1 for piece in pieces)


@given(sized, st.integers(1, 60))
def test_batches_keep_the_order_and_the_budget(groups, budget):
    batches = list(logprobs._batches(list(enumerate(groups)), budget))
    assert [one for batch in batches for one in batch] == list(enumerate(groups))
    sizes = [sum(group.tokens for _, group in batch) for batch in batches]
    assert all(size <= budget or len(batch) == 1 for size, batch in zip(sizes, batches, strict=True))
    firsts = [batch[0][1].tokens for batch in batches[1:]]
    assert all(size + first > budget for size, first in zip(sizes[:-1], firsts, strict=True)), (
        "no batch could hold more"
    )


def test_split_by_hand():
    a, b, c = (1,) * 4, (2,) * 5, (3,) * 3
    group = Group((9, 9), (a, b, c))
    assert list(logprobs._split([group], 14)) == [group]
    assert list(logprobs._split([group], 11)) == [Group((9, 9), (a, b)), Group((9, 9), (c,))]
    assert list(logprobs._split([group], 10)) == [Group((9, 9), (a,)), Group((9, 9), (b, c))]
    assert list(logprobs._split([group], 1)) == [Group((9, 9), (one,)) for one in (a, b, c)]


def test_halves_by_hand():
    one, two, three = Group((1,), ((2,),)), Group((3,), ((4,), (5,), (6,))), Group((7,), ((8,),))
    assert logprobs._halves([one, two, three]) == [[one], [two, three]]
    assert logprobs._halves([two]) == [[Group((3,), ((4,),))], [Group((3,), ((5,), (6,)))]]
    assert logprobs._halves([one]) == []


def test_pack_by_hand():
    row = packing.pack([Group((10, 11), ((12, 13), (14,))), Group((20,), ((21,),))])
    assert row.ids == [10, 11, 12, 13, 14, 20, 21]
    assert row.positions == [0, 1, 2, 3, 2, 0, 1]
    assert row.tokens == [2, 3, 4, 6]
    assert row.predictors == [1, 2, 1, 5]
    assert row.targets == [12, 13, 14, 21]
    assert row.lengths == [2, 1, 1]
    assert [(one.prompt, one.completions) for one in row.segments] == [
        ((0, 2), ((2, 4), (4, 5))),
        ((5, 6), ((6, 7),)),
    ]


# --- real pairs, real model ---


def shortest(triples, count):
    return sorted(triples, key=lambda triple: sum(map(len, triple)))[:count]


def demo_pairs():
    lines = (ROOT / "data" / "demo.jsonl").read_text(encoding="utf-8").splitlines()
    return [(pair["prompt"], pair["chosen"], pair["rejected"]) for pair in map(json.loads, lines)]


def pandalm_pairs(folder):
    rows = json.loads((folder / "pandalm-testset" / "testset-v1.json").read_text(encoding="utf-8"))
    return [
        (f"{row['instruction']}\n{row['input']}".strip(), row["response1"], row["response2"])
        for row in rows
        if all(isinstance(row[name], str) and len(row[name]) > 40 for name in ("response1", "response2"))
    ]


@pytest.mark.model
@pytest.mark.skipif(models.default_gguf() is None, reason="the embedded default model is not installed")
def test_real_pairs_with_the_default_model(real_data):
    source = models.resolve("smollm2")
    triples = shortest(demo_pairs(), 10) + shortest(pandalm_pairs(real_data), 10)
    turns = [((Message("user", p),), (Message("assistant", c),), (Message("assistant", r),)) for p, c, r in triples]
    encoder = Encoder(models.load_tokenizer(source), "auto", max_length=512, max_prompt_length=400)
    groups = [Group(pair.prompt, (pair.chosen, pair.rejected)) for pair in encoder.encode(turns)]
    model = models.load_model(source, CPU)
    scorer = Scorer(model, CPU)
    assert (scorer.kernel, scorer.width) == ("packed", 576)
    assert_right(scorer.score(groups), slow_scores(model, groups), atol=1e-3)


def test_the_output_layer_stays_in_float32_under_autocast():
    head = torch.nn.Linear(8, 16, bias=False)
    states = torch.randn(3, 8, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert head(states).dtype == torch.bfloat16
        logprobs.keep_in_float32(head)
        logits = head(states)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, states.float() @ head.weight.T, rtol=1e-6, atol=1e-6)
