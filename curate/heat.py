"""Token heat of a pair: the log-probs of each piece of both sides, kept in the run. Loads no model.

Reads and writes `RUN/heat/PAIR-SCORES.json`; `curate.token_heat` computes what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from curate.errors import RunError, storage_errors
from curate.store import Run, atomic_path


@dataclass(frozen=True)
class Heat:
    """A completion in P pieces, each one token, or several that only together are text.

    policy, reference: Σ log π of a piece's tokens, nats; reference is None where the run has none.
    """

    pieces: list[str]
    policy: list[float]
    reference: list[float] | None

    @property
    def speaks(self) -> list[float]:
        """How much each piece speaks for its side: policy − reference; without one, log π above the side's mean."""
        if self.reference is not None:
            return [ours - theirs for ours, theirs in zip(self.policy, self.reference, strict=True)]
        mean = sum(self.policy) / max(len(self.policy), 1)
        return [value - mean for value in self.policy]


@dataclass(frozen=True)
class PairHeat:
    """Both sides of a pair, and what scored them. policy, reference: as the run's settings name them."""

    pair_id: str
    policy: str
    reference: str | None
    chosen: Heat
    rejected: Heat


def heat_path(run: Path, pair_id: str) -> Path:
    """Where a pair's heat is kept, for the scores that the run has now.

    Raises:
        RunError: the run is not scored, or the id is none.
    """
    if len(pair_id) != 32 or not set(pair_id) <= set("0123456789abcdef"):
        raise RunError(f"{pair_id!r} is not a pair's id")
    return run / "heat" / f"{pair_id}-{Run.open(run).require('score')['fingerprint']}.json"


def stored_heat(run: Path, pair_id: str) -> PairHeat | None:
    """A pair's heat, or None where it was not computed yet; a damaged file counts as none.

    Raises:
        RunError: as `heat_path`.
    """
    try:
        found: Mapping[str, object] = json.loads(heat_path(run, pair_id).read_text(encoding="utf-8"))
        sides = {side: Heat(**found[side]) for side in ("chosen", "rejected")}  # type: ignore[arg-type]
        return PairHeat(**{**found, **sides})  # type: ignore[arg-type]
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def store_heat(run: Path, heat: PairHeat) -> None:
    """Keep a pair's heat.

    Raises:
        StorageError: the disk refuses.
    """
    path = heat_path(run, heat.pair_id)
    with storage_errors(path):
        path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(asdict(heat)), encoding="utf-8")
