"""Where an export comes from: data, models, settings, and what was decided by whom. Reads manifest and decisions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from curate.config import ExportConfig
from curate.decisions import Decisions
from curate.store import version_of
from curate.view import RunView, plain_records

_MOST_RULES = 200

_RULES = """
SELECT origin, action, reason, who, count(*) AS pairs FROM decisions
GROUP BY origin, action, reason, who ORDER BY pairs DESC, origin, action, reason, who LIMIT $most
"""


def provenance(view: RunView, decisions: Decisions, config: ExportConfig) -> dict[str, Any]:
    """All of it, as plain values."""
    ingested = view.stage("ingest")
    read = ("path", "sha256", "format", "rows", "pairs", "refused")
    return {
        "run": str(view.path),
        "curate": version_of("gamma-curate"),
        **asdict(config),
        "rows": ingested["rows"],
        "pairs": ingested["pairs"],
        "refused": ingested["refused"],
        "inputs": [{name: entry[name] for name in read} for entry in ingested["inputs"]],
        "models": _models(view),
        "weights": margin_settings(view),
        "fingerprints": {name: stage["fingerprint"] for name, stage in view.manifest["stages"].items()},
        "rules": plain_records(view.sql(_RULES, most=_MOST_RULES)),
        "plans": _plans(decisions),
        "decided": int(view.sql("SELECT count(*) AS pairs FROM decisions")["pairs"][0]),
        "decided_elsewhere": int(decisions.gone()["gone"].sum()),
    }


def _models(view: RunView) -> dict[str, dict[str, str]]:
    if not view.has("scores"):
        return {}
    scored = view.stage("score")
    common = {"template": scored["template"], "dtype": scored["dtype"]}
    return {
        name: {"model": made["spec"], "fingerprint": made.get("fingerprint", ""), **common}
        for name, made in scored["passes"].items()
    }


def margin_settings(view: RunView) -> dict[str, Any]:
    """With which settings the run's target margins were made; nothing where it has none."""
    if not view.has("weights"):
        return {}
    return {name: view.stage("weigh")[name] for name in ("margin", "beta", "gamma0", "tau")}


def _plans(decisions: Decisions) -> list[dict[str, str]]:
    """The plans that stand, as text."""
    standing = [entry for entry in decisions.log.bulks() if decisions.log.stands(entry) and entry.said["plan"]]
    return [{"origin": it.said["origin"], "who": it.who, "at": it.at, "plan": it.said["plan"]} for it in standing]
