"""What a dashboard may open: the runs that it was given, and what lies under its roots. No more is read or written.

Written by `curate app`, read by the pages through the environment. URLs name runs, never paths.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from curate.errors import ConfigError
from curate.store import Run, fingerprint

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
        named: dict[str, Path] = {}
        paths = [Path(run) for run in self.runs]
        for root in map(Path, self.roots):
            manifests = (
                it for depth in range(1, _DEEPEST + 1) for it in sorted(root.glob("*/" * depth + "manifest.json"))
            )
            paths += [run for run in (manifest.parent.resolve() for manifest in manifests) if run.is_relative_to(root)]
        for path in dict.fromkeys(paths):
            named[self._name(path, named)] = path
        return named

    def _name(self, path: Path, taken: Mapping[str, Path]) -> str:
        """The last part of a path, or as many as tell it from the others."""
        for parts in range(1, len(path.parts) + 1):
            name = "/".join(path.parts[-parts:])
            if name not in taken:
                return name
        return str(path)

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

    def _inside(self, found: Path, path: str) -> Path:
        if not any(found.is_relative_to(root) for root in self.roots):
            raise ConfigError(
                f"{path}: outside the folders that this dashboard may use; give a path under {self._where()}"
            )
        return found

    def _where(self) -> str:
        return " or ".join(self.roots) or "a root: start curate app with --root"


def manifest_fingerprint(path: Path) -> str:
    """Equal as long as a run's stages are what they were.

    Raises:
        RunError: there is no run.
    """
    return fingerprint(Run.open(path).manifest())
