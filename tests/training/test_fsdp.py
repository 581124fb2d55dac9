"""FSDP2 on two gloo processes: a sharded model gives the whole model's log-probs and gradients; the shipped configs."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers

from curate import attention
from training.batches import collate_packed, pair_log_probs
from training.data import TrainingPair
from training.losses import LOSSES, reward_margin

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "training" / "configs"
RELATIVE = 1e-6
LOSS = LOSSES["dpo_norm"]
#: What shards the model, and whether its output layer is its embedding.
CASES = [("torch", False), ("fsdp.yaml", False), ("fsdp.yaml", True)]
#: Of each process: tokens of prompt, chosen and rejected side of every pair.
LENGTHS = [[(5, 9, 4), (3, 1, 7)], [(8, 2, 12), (4, 6, 6), (2, 3, 11)]]

PROCESS = """
import sys, torch
from pathlib import Path
from torch import distributed
from test_fsdp import CASES, SHARD, gradients, make_model, step, units, weights

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
found = []
for how, tied in CASES:
    model = SHARD[how](make_model(tied))
    found.append((step(model, rank), gradients(model), weights(model), units(model)))
distributed.destroy_process_group()
torch.save(found, folder / f"{rank}.pt")
"""


def make_model(tied):
    attention.register()
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(
        vocab_size=64, initializer_range=0.2, tie_word_embeddings=tied, pad_token_id=None, **size, **heads
    )
    model = transformers.LlamaForCausalLM(config).train()
    model.set_attn_implementation(attention.PACKED)
    return model


def batch_of(rank):
    """A packed batch of this process's pairs; the last one counts half."""
    random = torch.Generator().manual_seed(rank)
    pairs = []
    for index, sizes in enumerate(LENGTHS[rank]):
        sides = (torch.randint(0, 64, (size,), generator=random).tolist() for size in sizes)
        weight = 0.5 if index == len(LENGTHS[rank]) - 1 else 1.0
        pairs.append(TrainingPair(index, *sides, weight, 0.1, float("nan"), -20.0 - index, -25.0))
    return collate_packed(pairs)


def step(model, rank):
    """The trainer's arithmetic: log-probs of the batch, shape (2, B); gradients are left in the model."""
    batch = batch_of(rank)
    logps = pair_log_probs(model, batch)
    columns = {f"{name}_B": batch["columns"][name].float() for name in ("weight", "p_flip")}
    LOSS(reward_margin(logps, LOSS.defaults), **columns).sum().backward()
    return torch.stack([logps.policy_chosen_B, logps.policy_rejected_B]).detach()


def gradients(model):
    """Whole gradients by the names of the unsharded model."""
    found = {}
    for name, parameter in model.named_parameters():
        whole = parameter.grad.full_tensor() if hasattr(parameter.grad, "full_tensor") else parameter.grad
        found[name.replace("._checkpoint_wrapped_module", "")] = whole.clone()
    return found


def weights(model):
    """What transformers' Trainer saves: the whole weights, in the first process."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def units(model):
    """Names of the modules that are sharded one by one, and of those whose activations are computed again."""
    from torch.distributed.fsdp import FSDPModule

    sharded = {name for name, it in model.named_modules() if isinstance(it, FSDPModule)}
    recomputed = {name for name, it in model.named_modules() if hasattr(it, "_checkpoint_wrapped_module")}
    return {name.removesuffix("._checkpoint_wrapped_module") for name in sharded}, recomputed


def shard_by_torch(model):
    from torch.distributed.fsdp import fully_shard

    for layer in model.model.layers:
        fully_shard(layer)
    return fully_shard(model)


def shard_by_config(model):
    """What accelerate makes of the shipped file; its own `prepare` does so on GPUs alone."""
    from accelerate.utils import fsdp_utils

    plugin = plugin_of("fsdp.yaml")
    state = SimpleNamespace(fsdp_plugin=plugin)
    accelerator = SimpleNamespace(state=state, mixed_precision="no", is_main_process=True, device=torch.device("cpu"))
    if plugin.activation_checkpointing:
        model = fsdp_utils.fsdp2_apply_ac(accelerator, model)
    return fsdp_utils.fsdp2_prepare_model(accelerator, model)


SHARD = {"torch": shard_by_torch, "fsdp.yaml": shard_by_config}


def launched(name, *words):
    """The environment that `accelerate launch` gives its processes."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    words = ["--config_file", str(CONFIGS / name), "--main_process_port", "0", *words, "-m", "curate", "train"]
    args, *_ = _validate_launch_command(launch_command_parser().parse_args(words))
    return args, prepare_multi_gpu_env(args)


def plugin_of(name):
    from accelerate.utils import FullyShardedDataParallelPlugin

    before = dict(os.environ)
    os.environ.update(launched(name, "--num_processes", "2")[1])
    try:
        return FullyShardedDataParallelPlugin()
    finally:
        os.environ.clear()
        os.environ.update(before)


# --- the sharded model ---


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Of each process and case: log-probs, gradients, units."""
    folder = tmp_path_factory.mktemp("processes")
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", PROCESS]
    running = [subprocess.Popen([*command, str(rank), str(folder)], env=environment) for rank in range(2)]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda case: f"{CASES[case][0]}-{'tied' * CASES[case][1]}")
def test_a_sharded_model_gives_the_whole_ones_numbers(case, two_processes):
    model = make_model(CASES[case][1])
    for rank in range(2):
        torch.testing.assert_close(two_processes[rank][case][0], step(model, rank), rtol=RELATIVE, atol=0)
    expected = {name: gradient / 2 for name, gradient in gradients(model).items()}  # averaged over the processes
    for rank in range(2):
        found = two_processes[rank][case][1]
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            largest = float(gradient.abs().max())
            assert largest > 0, name
            torch.testing.assert_close(found[name], gradient, rtol=0, atol=RELATIVE * largest)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_the_whole_weights_are_saved_under_their_own_names(case, two_processes):
    expected = make_model(CASES[case][1]).state_dict()
    found = two_processes[0][case][2]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_units_are_the_transformer_blocks_and_the_shipped_file_recomputes_their_activations(two_processes):
    layers = {f"model.layers.{number}" for number in range(3)}
    by_torch, by_config, tied = (units for *_, units in two_processes[0])
    assert by_torch == (layers | {""}, set())
    assert by_config == tied == (layers | {"", "model.embed_tokens", "model.norm", "lm_head"}, layers)


# --- the files ---


@pytest.mark.parametrize("name", ["ddp.yaml", "fsdp.yaml"])
def test_the_configs_are_accelerates(name):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(CONFIGS / name))
    assert config.distributed_type.value == {"ddp.yaml": "MULTI_GPU", "fsdp.yaml": "FSDP"}[name]
    args, environment = launched(name, "--num_processes", "2")
    assert set(config.fsdp_config) <= vars(args).keys()  # an unknown one would be ignored
    assert (args.multi_gpu, args.use_fsdp) == ((True, False) if name == "ddp.yaml" else (False, True))
    assert environment["ACCELERATE_MIXED_PRECISION"] == "no"  # curate's --dtype says it
    with pytest.raises(ValueError, match="manually pass in `--num_processes`"):
        launched(name)


def test_what_the_file_of_fsdp_says():
    plugin = plugin_of("fsdp.yaml")
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.activation_checkpointing is True
    assert plugin.state_dict_type.name == "FULL_STATE_DICT"
    assert plugin.auto_wrap_policy.__name__ == "transformer_auto_wrap_policy"
    assert plugin.transformer_cls_names_to_wrap is None  # those of the model
    assert not plugin.cpu_ram_efficient_loading
