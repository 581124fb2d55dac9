"""Stage `export`: a run's pairs and what was decided about them → a dataset that a trainer reads, in a folder.

    OUTPUT/train.parquet, test.parquet   the pairs; in the source's own schema its files, see `curate.own_schema`
    OUTPUT/_removed.parquet              every pair and row that is not among them, and why
    OUTPUT/README.md                     the dataset's card
    OUTPUT/_export.json                  what the card says, for machines

Reads `pairs`, `refused`, the decisions, and `weights`, `diagnosis`, `scores` where they are; writes nothing into the
run. Streams: of all pairs only numbers are in memory, and of those that leave why, by whom and by which rule; prompts
and answers are not. The folder appears when all of it is on the disk. Pairs and refused rows = exported + removed,
asserted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from curate import own_schema
from curate.config import ExportConfig
from curate.dataset_card import card
from curate.decisions import Decisions
from curate.errors import ConfigError, RunError
from curate.export_folder import export_folder, write_report
from curate.exporters import ASKS, SOURCE, Exporter, named
from curate.progress import Progress, Quiet
from curate.provenance import margin_settings, provenance
from curate.removed import gone, reasons, refused_rows, removed_sink
from curate.selecting import REFUSED, Selection, kept, select
from curate.sinks import Sink, json_sink, parquet_sink
from curate.store import Run
from curate.view import RunView, plain_records

CARD = "README.md"


def export(
    view: RunView, output: str | Path, config: ExportConfig | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Write a run's pairs as its log of decisions says.

    Args:
        output: a new folder, an empty one, or one that holds an earlier export and nothing else, which is replaced.

    Returns:
        What the card says.

    Raises:
        ConfigError: the format or container is unknown, or a split gets no pair.
        RunError: the folder holds something else or is the current one, nothing is left to export, the run changed
            meanwhile, or its source files are needed and are not as they were.
        StorageError: the disk refuses.
    """
    config = config or ExportConfig()
    target = Path(output).resolve()
    if target.is_relative_to(view.path.resolve()):
        raise RunError(f"{output}: that is within the run; choose another folder with -o")
    decisions, stages = Decisions(view), view.manifest["stages"]
    with export_folder(target) as folder:
        report = provenance(view, decisions, config)
        report |= _Export(view, folder, config, progress or Quiet()).write()
        if view.manifest["stages"] != stages:
            raise RunError(f"{view.path}: the run changed while it was exported; export it again")
        (folder / CARD).write_text(card(report), encoding="utf-8")
        return write_report(folder, report)


class _Export:
    """One export while it is made."""

    def __init__(self, view: RunView, folder: Path, config: ExportConfig, progress: Progress) -> None:
        self.view, self.run = view, Run.open(view.path)
        self.folder, self.config, self.progress = folder, config, progress
        self.splits = ("train", "test") if config.test_share else ("train",)

    def write(self) -> dict[str, Any]:
        """Write data and what was removed; say what was done."""
        return self._in_own_schema() if self.config.format == SOURCE else self._in_format()

    def _in_own_schema(self) -> dict[str, Any]:
        if self.config.container is not None:
            raise ConfigError(f"--container {self.config.container}: the source's own schema keeps the source's files")
        selection = select(self.view, self.config, "NULL::VARCHAR", ())
        counts = self._count(selection)
        files, added = own_schema.write(self.run, selection.table, self.folder)
        with removed_sink(self.folder, "parquet") as removed:
            self._stream(selection, {}, removed)
        written = {split: sum(it["pairs"] for it in files if it["split"] == split) for split in self.splits}
        self._check(written, counts, removed.pairs)
        return {
            **self._summary(selection),
            "title": "the source's own schema",
            "container": "the files of the source",
            "files": files,
            "columns": added,
            "use": "The files have the names, columns and rows of the source, and are read as the source is.",
            "notes": [f"the files have a column {name} more: decisions ask for it" for name in added],
        }

    def _in_format(self) -> dict[str, Any]:
        exporter = named(self.config.format)
        container = self._container(exporter)
        selection = select(self.view, self.config, exporter.unfit, exporter.columns)
        counts = self._count(selection)
        files = {split: f"{split}.{container}" for split in self.splits}
        line = exporter.line(selection.present)
        with ExitStack() as stack:
            sinks = {
                split: stack.enter_context(self._sink(self.folder / file, line, exporter, selection))
                for split, file in files.items()
            }
            removed = stack.enter_context(removed_sink(self.folder, "parquet" if container == "parquet" else "jsonl"))
            self._stream(selection, sinks, removed)
        self._check({split: sink.pairs for split, sink in sinks.items()}, counts, removed.pairs)
        if exporter.companion is not None:
            name, text = exporter.companion
            (self.folder / name).write_text(text(files), encoding="utf-8")
        return {
            **self._summary(selection),
            "title": exporter.title,
            "container": container,
            "files": [{"split": split, "file": file, "pairs": counts[split]} for split, file in files.items()],
            "columns": list(line),
            "use": exporter.use(files),
            "notes": [*selection.notes, *self._not_honoured(exporter, selection)],
        }

    def _container(self, exporter: Exporter) -> str:
        container = self.config.container or exporter.containers[0]
        if container not in exporter.containers:
            possible = " or ".join(exporter.containers)
            raise ConfigError(f"--container {container}: {self.config.format} is written as {possible}")
        return container

    def _sink(
        self, path: Path, line: Mapping[str, str], exporter: Exporter, selection: Selection
    ) -> AbstractContextManager[Sink]:
        if path.suffix == ".parquet":
            return parquet_sink(path, line, selection.no_batch(), self._settings(selection))
        return json_sink(path, line, exporter.document and exporter.document(str(self.view.path)))

    def _settings(self, selection: Selection) -> dict[str, Any]:
        """With which settings the target margins were made, for the footer; nothing where decisions set others."""
        settings = margin_settings(self.view)
        return {"target_margin": settings} if settings and not selection.own_margins else {}

    def _stream(self, selection: Selection, sinks: Mapping[str, Sink], removed: Sink) -> None:
        with duckdb.connect() as connection:
            for batch in selection.batches(self.run):
                if sinks:
                    _write_splits(kept(batch, connection), sinks)
                removed.write(gone(batch))
                self.progress.advance(len(batch))
        for rows in refused_rows(self.run):
            removed.write(rows)

    def _count(self, selection: Selection) -> dict[str, int]:
        """Pairs of each split.

        Raises:
            RunError: none is left. ConfigError: a split has none.
        """
        test_N = selection.kept["test"].to_numpy()
        counts = {split: int((test_N == (split == "test")).sum()) for split in self.splits}
        if not len(test_N):
            most = reasons(selection)[0]
            raise RunError(
                f"{self.view.path}: no pair is left to export as {self.config.format}: {most['pairs']:,} of "
                f"{len(selection.table):,} are gone, for {most['reason'] or 'they were dropped'}"
            )
        if empty := [split for split, pairs in counts.items() if not pairs]:
            raise ConfigError(
                f"--test-share {self.config.test_share} --seed {self.config.seed}: none of {len(test_N):,} pairs is in "
                f"the {empty[0]} split; choose another share or seed"
            )
        return counts

    def _check(self, written: dict[str, int], counts: dict[str, int], removed: int) -> None:
        ingested = self.view.stage("ingest")
        total = ingested["pairs"] + ingested["refused"]
        if written != counts or sum(counts.values()) + removed != total:
            raise AssertionError(f"{total} pairs and rows; {counts} to write, {written} written, {removed} removed")

    def _summary(self, selection: Selection) -> dict[str, Any]:
        refused = self.view.sql(
            "SELECT reason, count(*) AS pairs FROM refused GROUP BY reason ORDER BY pairs DESC, reason"
        )
        gone_for = reasons(selection) + [
            {"gone": REFUSED, "reason": it["reason"], "origin": None, "pairs": it["pairs"]}
            for it in plain_records(refused)
        ]
        removed: Counter[str] = Counter()
        for it in gone_for:
            removed[str(it["gone"])] += int(it["pairs"])
        stays = selection.kept
        return {
            "exported": len(stays),
            "removed": dict(sorted(removed.items())),
            "reasons": gone_for,
            "actions": {str(it["values"]): it["counts"] for it in stays["decision"].value_counts().to_pylist()},
        }

    def _not_honoured(self, exporter: Exporter, selection: Selection) -> list[str]:
        """What each trainer takes otherwise than it was decided."""
        stays = selection.kept
        asked = {"weight": pc.not_equal(stays["weight"], 1), "p_flip": pc.not_equal(stays["p_flip"], 0)}
        counts = {name: int(pc.sum(mask).as_py() or 0) for name, mask in asked.items()}
        ties = int(pc.sum(stays["tie"]).as_py() or 0)
        notes = []
        for trainer, reads in exporter.readers.items():
            for name in ASKS:
                if counts[name] and name not in reads:
                    tied = f", {ties:,} ties in the order of the file" if ties and name == "p_flip" else ""
                    what = f"{counts[name]:,} pairs have a {name} that {trainer} does not read"
                    notes.append(f"{what}: it takes them as they are labelled{tied}")
        return notes


def _write_splits(batch: pa.Table, sinks: Mapping[str, Sink]) -> None:
    for split, sink in sinks.items():
        sink.write(batch if len(sinks) == 1 else batch.filter(pc.equal(batch["test"], split == "test")))
