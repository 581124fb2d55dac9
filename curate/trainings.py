"""Trainings and comparisons of trainings, read as they are or grow: what `curate train` and `curate compare` write.

Reads OUT/training.json, metrics.jsonl, report.json, signals.parquet and RUN/compare/KEY/results.parquet.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import RunError
from curate.imported import IN_SAMPLE
from curate.store import Run, fingerprint, read_metadata
from curate.view import RunView

SETTINGS = "training.json"
_METRICS = "metrics.jsonl"

#: Numbers that are followed, in this order.
FOLLOWED = ("loss", "accuracy", "margin", "target_margin", "target_margin_sd", "calibration_error")
EVALUATED = "eval_"  # the beginning of a held-out number's name

_DYNAMICS = """
SELECT pair_id, row, kind, trained.mean AS mean, trained.variability AS variability FROM trained
JOIN diagnosis USING (pair_id, row) WHERE isfinite(trained.mean) ORDER BY hash(row), row LIMIT $most
"""


@dataclass(frozen=True)
class Training:
    """A training's folder, its settings, and what it was trained on: `source`, `files`, `stages`."""

    path: Path
    settings: dict[str, Any]
    data: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> Training:
        """Read what a training is.

        Raises:
            RunError: the folder holds no training, or a damaged one.
        """
        said = _read_json(path / SETTINGS)
        if said is None:
            raise RunError(f"{path}: not a training (no {SETTINGS}); make one with curate train RUN -o {path}")
        try:
            return cls(path, dict(said["settings"]), dict(said["data"]))
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path / SETTINGS}: damaged ({error}); train again with -o") from error

    def report(self) -> dict[str, Any] | None:
        """Counts, and held-out numbers before and after; None while the training is not done."""
        return _read_json(self.path / "report.json")

    def metrics(self) -> pd.DataFrame:
        """Every logged number: `step`, and a column a number. Of a step that was done again the last line counts.

        A line that is being written is left for later.

        Raises:
            RunError: the file is damaged.
        """
        file = self.path / _METRICS
        if not file.is_file():
            return pd.DataFrame({"step": []})
        whole = file.read_text(encoding="utf-8").rpartition("\n")[0]
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
            latest = {(line["step"], *sorted(line)): line for line in lines}
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{file}: damaged ({error}); train again with another -o") from error
        return pd.DataFrame(list(latest.values()) or {"step": []}).sort_values("step", kind="stable")

    def is_of(self, view: RunView) -> bool:
        """Whether it was trained on the pairs of this run."""
        mine = {entry["sha256"] for entry in view.stage("ingest")["inputs"]}
        return bool(mine & set(self.data.get("files", {}).values()))

    def has_dynamics(self) -> bool:
        """Whether there is a summary of the margins of every pair at every visit."""
        return (self.path / "signals.parquet").is_file()

    def dynamics(self, view: RunView, most: int) -> pd.DataFrame:
        """How a pair's margin went while training, at most so many pairs, at random but the same each time.

        Returns:
            `pair_id`, `row`, `kind`, `mean` margin over its visits and `variability`, its standard deviation.

        Raises:
            RunError: there is no summary, it is damaged, or the run is not diagnosed.
        """
        view.stage("diagnose")
        file = self.path / "signals.parquet"
        names = [f"{IN_SAMPLE}mean", f"{IN_SAMPLE}variability"]
        try:
            table = pq.read_table(file, columns=["pair_id", "row", *names]).to_pandas()
        except (OSError, KeyError, pa.ArrowException) as error:
            raise RunError(f"{file}: missing or damaged; train again with dynamics = true") from error
        table = table.rename(columns={names[0]: "mean", names[1]: "variability"}).assign(
            variability=lambda it: it["variability"].abs()
        )
        with view.cursor() as cursor:
            cursor.register("trained", table)
            return cursor.execute(_DYNAMICS, {"most": most}).df()


@dataclass(frozen=True)
class Comparison:
    """What `curate compare` found: settings, what was compared, and a row for each seed and arm."""

    key: str
    config: dict[str, Any]
    compared: dict[str, Any]
    results: pd.DataFrame


def comparisons(run: Run) -> list[Comparison]:
    """The finished comparisons within a run, the latest first.

    Raises:
        RunError: a table is damaged.
    """
    files = [(file.stat().st_mtime, file) for file in (run.path / "compare").glob("*/results.parquet")]
    return [_comparison(file) for _, file in sorted(files, reverse=True)]


def _comparison(file: Path) -> Comparison:
    said = read_metadata(file)
    if said is None or not {"config", "compare"} <= said.keys():
        raise RunError(f"{file}: damaged; curate compare with the same settings writes it again")
    return Comparison(file.parent.name, said["config"], said["compare"], pq.read_table(file).to_pandas())


def stamp(path: Path) -> str:
    """Changes whenever a training's files do: a key for what is made of them."""
    files = sorted(file for file in path.iterdir() if file.is_file())
    return fingerprint([[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files])


def _read_json(file: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{file}: damaged ({error}); train again with -o") from error
    return found
