"""The model that is trained: loaded, with low-rank adapters or whole, and written so that others can load it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, cast

import torch
import transformers

from curate import models
from curate.attention import PACKED
from curate.errors import ConfigError
from curate.logprobs import Scorer
from curate.models import Device, ModelSource
from curate.progress import say
from curate.store import atomic_folder
from training.config import TrainConfig


def load(source: ModelSource, config: TrainConfig, device: Device) -> tuple[torch.nn.Module, bool]:
    """The model, ready to be trained, and whether it takes packed batches.

    All of its weights are float32, which autocast rounds where the arithmetic is bfloat16; with LoRA the frozen ones
    are bfloat16 then.

    Raises:
        ModelError: it cannot be loaded, or is no causal language model.
        ConfigError: LoRA's settings do not suit it.
    """
    stored = device.dtype if config.lora else "float32"
    model = models.load_model(source, Device(device.name, stored), trust_remote_code=config.trust_remote_code)
    scorer = Scorer(model, Device(device.name, stored), features=False)  # refuses what is not causal
    packed = config.batching == "packed" and scorer.kernel == "packed"
    if packed:
        cast("Any", model).set_attn_implementation(PACKED)
    elif config.batching == "packed":
        say(f"{source.spec}: no packed batches ({scorer.why_padded}); padded ones of similar length instead")
    if config.lora:
        return _with_adapters(model, config), packed
    return model.requires_grad_(requires_grad=True), packed


def _with_adapters(model: torch.nn.Module, config: TrainConfig) -> torch.nn.Module:
    try:
        import peft
    except ImportError as error:
        raise ConfigError("LoRA needs peft: pip install 'gamma-curate[train]', or train with --no-lora") from error
    depth = cast("Any", model).config.get_text_config().num_hidden_layers
    if config.lora_layers is not None and config.lora_layers > depth:
        raise ConfigError(f"lora_layers is {config.lora_layers}, but the model has {depth} layers")
    adapters = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=_linear_names(cast("Any", model).base_model),
        layers_to_transform=None if config.lora_layers is None else list(range(depth - config.lora_layers, depth)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for what it will rename
        return peft.get_peft_model(model, adapters)


def _linear_names(backbone: torch.nn.Module) -> list[str]:
    """Last names of all linear layers but the output's."""
    linear = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)
    return sorted({name.rpartition(".")[2] for name, layer in backbone.named_modules() if isinstance(layer, linear)})


def _write_merged(source: ModelSource, tokenizer: Any, output: Path, config: TrainConfig) -> None:
    """Merge the written adapter into float32 weights: in bfloat16 small changes would be rounded away."""
    import peft

    base = models.load_model(source, Device("cpu", "float32"), trust_remote_code=config.trust_remote_code)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        merged = peft.PeftModel.from_pretrained(base, output / "adapter").merge_and_unload()
    with atomic_folder(output / "model") as folder:
        merged.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def require_whole(trainer: Any) -> None:
    """Refuse to train what could not be written as one model.

    Raises:
        ConfigError: FSDP is told to keep the shards apart.
    """
    if trainer.is_fsdp_enabled and trainer.accelerator.state.fsdp_plugin.state_dict_type.name != "FULL_STATE_DICT":
        raise ConfigError("fsdp_state_dict_type is not FULL_STATE_DICT: the model would not be written as one")


def save_shards(trainer: Any, source: ModelSource, tokenizer: Any, output: Path, config: TrainConfig) -> None:
    """The same where FSDP spread the weights over the processes, which all take part."""
    folder = output / ("adapter" if config.lora else "model")
    trainer.save_model(str(folder))
    if not trainer.args.should_save:
        return
    tokenizer.save_pretrained(folder)
    if config.lora and config.merge:
        _write_merged(source, tokenizer, output, config)


def save_model(model: Any, source: ModelSource, tokenizer: Any, output: Path, config: TrainConfig) -> None:
    """Write the adapter and, unless that is not wanted, the whole model; each with the tokenizer."""
    with atomic_folder(output / ("adapter" if config.lora else "model")) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    if config.lora and config.merge:
        _write_merged(source, tokenizer, output, config)
