"""What a dashboard may open: the runs that it was given, and what lies under its roots. No more is read or written.

Written by `curate app`, read by the pages through the environment. URLs name runs, never paths.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from curate.errors import ConfigError, RunError
from curate.store import STAGES, Run, fingerprint
from curate.trainings import SETTINGS

VARIABLE = "CURATE_WORKSPACE"
_DEEPEST = 3  # folders between a root and a run's manifest


@dataclass(frozen=True)
class Workspace:
    """Runs and roots, as absolute paths without links; `read_only`: nothing may be decided or started."""

    runs: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    read_only: bool = False

    @classmethod
    def of(cls, runs: list[Path], roots: list[Path], *, read_only: bool) -> Workspace:
        """Check what the command line names.

        Raises:
            RunError: a run is none.
            ConfigError: a root is no folder.
        """
        for root in roots:
            if not root.is_dir():
                raise ConfigError(f"--root {root}: there is no such folder")
        opened = tuple(str(Run.open(run).path.resolve()) for run in runs)
        return cls(opened, tuple(str(root.resolve()) for root in roots), read_only)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Workspace:
        """What `variables` wrote.

        Raises:
            ConfigError: the pages were not started by `curate app`.
        """
        if VARIABLE not in environment:
            raise ConfigError(f"{VARIABLE} is not set: start the dashboard with curate app RUN")
        said = json.loads(environment[VARIABLE])
        return cls(tuple(said["runs"]), tuple(said["roots"]), bool(said["read_only"]))

    def variables(self) -> dict[str, str]:
        """Environment variables for the pages' process."""
        return {VARIABLE: json.dumps(asdict(self))}

    def found(self) -> dict[str, Path]:
        """Runs by the names that URLs use: those given first, then those under the roots."""
        return _named([*map(Path, self.runs), *self._under("manifest.json")])

    def trainings(self) -> dict[str, Path]:
        """Folders of trainings under the roots, and beside the runs that were given, by name."""
        beside = (file.parent for run in self.runs for file in sorted(Path(run).parent.glob(f"*/{SETTINGS}")))
        return _named([*beside, *self._under(SETTINGS)])

    def _under(self, file: str) -> Iterator[Path]:
        """Folders under the roots that hold a file of this name, the nearest first."""
        for root in map(Path, self.roots):
            for depth in range(1, _DEEPEST + 1):
                folders = (found.parent.resolve() for found in sorted(root.glob("*/" * depth + file)))
                yield from (folder for folder in folders if folder.is_relative_to(root))

    def allowed(self, path: str) -> Path:
        """A file or folder to read.

        Raises:
            ConfigError: it does not exist, or lies outside the roots.
        """
        try:
            found = Path(path).expanduser().resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(f"{path}: there is no such file; give a path under {self._where()}") from error
        return self._inside(found, path)

    def allowed_new(self, path: str) -> Path:
        """A folder to make, or one that is there.

        Raises:
            ConfigError: its parent does not exist, or it lies outside the roots.
        """
        try:
            found = Path(path).expanduser()
            found = found.parent.resolve(strict=True) / found.name
            found = found.resolve() if os.path.lexists(found) else found
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(f"{path}: its folder does not exist; give a path under {self._where()}") from error
        return self._inside(found, path)

    def model(self, spec: str) -> str:
        """A model: a hub id, or a folder or file to read.

        Raises:
            ConfigError: it is a path outside the roots.
        """
        is_path = spec.startswith(("/", ".", "~")) or os.path.exists(spec)
        return str(self.allowed(spec)) if is_path else spec

    def _inside(self, found: Path, path: str) -> Path:
        if not any(found.is_relative_to(root) for root in self.roots):
            raise ConfigError(
                f"{path}: outside the folders that this dashboard may use; give a path under {self._where()}"
            )
        return found

    def _where(self) -> str:
        return " or ".join(self.roots) or "a root: start curate app with --root"


def _named(paths: Iterable[Path]) -> dict[str, Path]:
    """Folders by the last part of their path, or as many parts as tell them from those before."""
    named: dict[str, Path] = {}
    for path in dict.fromkeys(paths):
        names = ("/".join(path.parts[-parts:]) for parts in range(1, len(path.parts) + 1))
        named[next(name for name in names if name not in named)] = path
    return named


def manifest_fingerprint(path: Path) -> str:
    """Equal as long as a run's stages are what they were.

    Raises:
        RunError: there is no run.
    """
    return fingerprint(Run.open(path).manifest())


def run_facts(path: Path) -> dict[str, Any]:
    """What a list of runs says of one: `pairs`, `stages` that are done, when it was made, `noise` rate, `fault`."""
    try:
        manifest = Run.open(path).manifest()
        stages = manifest["stages"]
        noise = stages.get("diagnose", {}).get("noise") or {}
        return {
            "pairs": stages.get("ingest", {}).get("pairs"),
            "stages": [stage for stage in STAGES if stage in stages],
            "created": manifest["created"],
            "noise": noise["rate"] if noise.get("can_tell") else None,
            "fault": None,
        }
    except RunError as error:
        return {"pairs": None, "stages": [], "created": None, "noise": None, "fault": str(error)}
