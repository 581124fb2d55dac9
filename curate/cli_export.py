"""The command that exports a run's pairs: a skin over `curate.exporting`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from curate.config import ExportConfig
from curate.console import print_json
from curate.progress import printable


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The dataset's folder.")],
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            help="trl, trl-standard, llamafactory, axolotl, openrlhf, ms-swift, llm-comparator, "
            "or source: the source's own schema.",
        ),
    ] = "trl",
    container: Annotated[str | None, typer.Option(help="parquet or jsonl; default: by format.")] = None,
    test_share: Annotated[float, typer.Option(help="Share of the prompts that goes into a test split.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the draw of these prompts.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Write a run's pairs, as they were decided about, for a trainer; with a card, and what was removed and why."""
    config = ExportConfig(format_name, container, test_share, seed)
    from curate.exporting import export as run_export
    from curate.progress import progress_bar
    from curate.view import RunView

    with RunView(run) as view, progress_bar("exporting", view.stage("ingest")["pairs"]) as progress:
        report = run_export(view, output, config, progress)
    if as_json:
        print_json(report)
    else:
        _print(report, output)


def _print(report: dict[str, Any], output: Path) -> None:
    typer.echo(printable(f"Export of {report['run']} as {report['format']}"))
    gone = sum(report["removed"].values())
    held = f"{report['pairs']:,} + {report['refused']:,} refused rows"
    _line("pairs", f"{held} = {report['exported']:,} exported + {gone:,} removed")
    for file in report["files"]:
        _line(file["split"], f"{file['pairs']:,} pairs in {output / file['file']}")
    for it in report["reasons"]:
        _line(
            "removed", f"{it['pairs']:,}: {it['reason'] or 'dropped'}" + (f" ({it['origin']})" if it["origin"] else "")
        )
    for action, pairs in report["actions"].items():
        if action != "none":
            _line("decided", f"{action}: {pairs:,}")
    for note in report["notes"]:
        _line("note", note)
    if report["decided_elsewhere"]:
        _line("note", f"{report['decided_elsewhere']:,} pairs that the log decides about are not in this run")
    if not report["decided"]:
        _line("note", f"nothing was decided; curate decide {report['run']} --plan conservative does")


def _line(what: str, text: str) -> None:
    typer.echo(printable(f"  {what:11} {text}"))
