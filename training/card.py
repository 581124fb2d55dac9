"""The model card: what the model was made from, with which settings, and what it does on held-out pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curate.store import atomic_path, version_of
from training.treatments import DECISIONS

_KEPT = ("trained", "held_out")
_METRICS = {
    "accuracy": "agrees with the label",
    "likelihood_accuracy": "likelihood per token agrees",
    "margin": "mean margin",
    "loss": "loss",
    "calibration_error": "calibration error",
}


def write_card(file: Path, training: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    """Write the card as Markdown with the front matter that hubs read."""
    text = "\n\n".join(
        [_front(training), _data(training, report), _results(training, report), _settings(training, report)]
    )
    with atomic_path(file) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _front(training: Mapping[str, Any]) -> str:
    model, settings = training["model"]["spec"], training["settings"]
    tags = "\n".join(f"- {tag}" for tag in ("preference-optimization", settings["loss"], "curate"))
    head = f"---\nbase_model: {json.dumps(model)}\npipeline_tag: text-generation\ntags:\n{tags}\n---"
    return f"{head}\n\n# {model}, trained with {settings['loss']}"


def _data(training: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    counts = report["counts"]
    lines = [f"| {name.replace('_', ' ')} | {counts.get(name, 0):,} |" for name in _KEPT]
    lines += [f"| dropped: {reason} | {number:,} |" for reason, number in counts.items() if reason not in _KEPT]
    lines += [f"| refused when read | {report['refused']:,} |"]
    lines += [f"| of the kept: something was cut | {report['truncated']:,} |"]
    lines += [f"| of the kept: turned round | {report['swapped']:,} |"]
    files = "\n".join(f"- `{path}` sha256 `{digest}`" for path, digest in training["data"]["files"].items())
    return "\n".join(["## Data", "", files, "", "| pairs | |", "|---|---|", *lines])


def _results(training: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    before, after = report["before"], report["after"]
    if not after:
        return "## Held-out pairs\n\nNone."
    lines = [f"| {word} | {_number(before.get(name))} | {_number(after[name])} |" for name, word in _METRICS.items()]
    decided = report["treat"] == DECISIONS and training["settings"]["eval_data"] is None
    judged = "as it was decided" if decided else "as they are labelled"
    title = f"## Held-out pairs ({report['held_out']:,}, {judged})"
    return "\n".join([title, "", "| | before | after |", "|---|---|---|", *lines])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _settings(training: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    resolved = {name: report[name] for name in ("treat", "targets", "batching", "updates", "processes", "dtype")}
    settings = {**training["settings"], **resolved}
    rows = [f"| {name} | {value} |" for name, value in settings.items() if value is not None]
    rows += [f"| {name} | {version_of(name)} |" for name in ("gamma-curate", "torch", "transformers", "peft")]
    model = f"Base model fingerprint `{training['model']['fingerprint']}`, training `{training['fingerprint']}`."
    return "\n".join(["## Settings", "", model, "", "| | |", "|---|---|", *rows])
