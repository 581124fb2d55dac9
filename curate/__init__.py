"""curate: find, see and fix the noise in a preference dataset.

The verbs of the command line, as functions:

    import curate

    view = curate.audit(curate.AuditConfig(curate.IngestConfig(("pairs.jsonl",))), "runs/x")
    view.table("weights")
    curate.gamma_weights(margin_N, gamma0=4.0, tau=10.0).weight
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.auditing import audit
    from curate.config import (
        AuditConfig,
        ComputeConfig,
        DiagnoseConfig,
        ExportConfig,
        IngestConfig,
        ScoreConfig,
        WeighConfig,
    )
    from curate.decisions import Decisions
    from curate.diagnosing import diagnose
    from curate.engines import score
    from curate.entries import PairDecision
    from curate.errors import ConfigError, CurateError, InputError, ModelError, RunError, StorageError
    from curate.exporting import export
    from curate.gamma import GammaWeights, gamma_weights, gamma_weights_torch
    from curate.margins import LogProbs, implicit_margin
    from curate.noise import AgreementCurve, LapseFit, agreement_curve, fit_lapse, p_flip
    from curate.pairs import ingest
    from curate.plans import Plan, Rule, read_plan
    from curate.store import Run
    from curate.view import RunView
    from curate.weighing import weigh

_MODULES = {
    "auditing": ("audit",),
    "config": (
        *("AuditConfig", "ComputeConfig", "DiagnoseConfig", "ExportConfig", "IngestConfig", "ScoreConfig"),
        "WeighConfig",
    ),
    "decisions": ("Decisions",),
    "diagnosing": ("diagnose",),
    "engines": ("score",),
    "entries": ("PairDecision",),
    "errors": ("ConfigError", "CurateError", "InputError", "ModelError", "RunError", "StorageError"),
    "exporting": ("export",),
    "gamma": ("GammaWeights", "gamma_weights", "gamma_weights_torch"),
    "margins": ("LogProbs", "implicit_margin"),
    "noise": ("AgreementCurve", "LapseFit", "agreement_curve", "fit_lapse", "p_flip"),
    "pairs": ("ingest",),
    "plans": ("Plan", "Rule", "read_plan"),
    "store": ("Run",),
    "view": ("RunView",),
    "weighing": ("weigh",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AgreementCurve",
    "AuditConfig",
    "ComputeConfig",
    "ConfigError",
    "CurateError",
    "Decisions",
    "DiagnoseConfig",
    "ExportConfig",
    "GammaWeights",
    "IngestConfig",
    "InputError",
    "LapseFit",
    "LogProbs",
    "ModelError",
    "PairDecision",
    "Plan",
    "Rule",
    "Run",
    "RunError",
    "RunView",
    "ScoreConfig",
    "StorageError",
    "WeighConfig",
    "agreement_curve",
    "audit",
    "diagnose",
    "export",
    "fit_lapse",
    "gamma_weights",
    "gamma_weights_torch",
    "implicit_margin",
    "ingest",
    "p_flip",
    "read_plan",
    "score",
    "weigh",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import curate` alone loads nothing heavy."""
    if name not in _HOME:
        raise AttributeError(f"module 'curate' has no attribute {name!r}")
    return getattr(importlib.import_module(f"curate.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
