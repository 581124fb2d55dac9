"""Shared fixtures: tiny models that need no download, and where the real data is, if it is there."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # tiny models: threads that wait for a busy core cost far more than they give

ROOT = Path(__file__).parents[1]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL_TOKENS = ["<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


@pytest.fixture(scope="session")
def real_data():
    """The folder of real preference data; skips the test where there is none."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real data is not on this machine (../shared/data)")
    return folder


def byte_tokenizer():
    """A tokenizer of one token a byte, with a small chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|end|>", chat_template=CHAT_TEMPLATE
    )


def tiny_llama(seed, kind="LlamaForCausalLM", **settings):
    """A random Llama small enough for any test."""
    import torch
    import transformers

    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=256 + len(SPECIAL_TOKENS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        **settings,
    )
    return getattr(transformers, kind)(config).eval()


def _save(folder, seed, **settings):
    tiny_llama(seed, **settings).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory):
    """Folder of a tiny random model with its tokenizer."""
    return _save(tmp_path_factory.mktemp("policy"), seed=1)


@pytest.fixture(scope="session")
def tiny_reference(tmp_path_factory):
    """Another tiny random model with the same tokenizer."""
    return _save(tmp_path_factory.mktemp("reference"), seed=2)


@pytest.fixture(scope="session")
def tiny_reward_model(tmp_path_factory):
    """Folder of a tiny random reward model with that tokenizer; begin-of-text is its padding."""
    settings = {"kind": "LlamaForSequenceClassification", "num_labels": 1, "pad_token_id": 256}
    return _save(tmp_path_factory.mktemp("reward"), seed=3, **settings)
