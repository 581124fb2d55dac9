"""The command line: a thin skin over the stages. Exit codes: 0 done, 1 the input or the run is at fault, 2 usage.

Heavy imports stay inside the commands, so that `curate --help` answers at once. Options that a configuration has under
the same name reach it through `_pick`; a command's signature only declares them.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from curate import cli_app, cli_curation, cli_export, cli_heat, cli_training
from curate.config import (
    DEFAULT_MODEL,
    PAIRINGS,
    PLANS,
    AuditConfig,
    ComputeConfig,
    DiagnoseConfig,
    IngestConfig,
    ScoreConfig,
    SelftestConfig,
    WeighConfig,
)
from curate.console import mapping, print_json, print_text
from curate.errors import ConfigError, CurateError
from curate.progress import printable, say

if TYPE_CHECKING:
    from curate.form import Format
    from curate.view import RunView


class _Commands(TyperGroup):
    """The commands, which end quietly where nobody reads on, as in `curate show RUN | head`."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed at the exit
            sys.exit(128 + signal.SIGPIPE)


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find, see and fix the noise in a preference dataset.",
)

Settings = TypeVar("Settings", ScoreConfig, ComputeConfig, WeighConfig, DiagnoseConfig)

_READING, _MODELS, _WHERE = "Reading", "Models and scoring", "Where it runs"
_WEIGHTS, _DIAGNOSIS = "Margins and weights", "Diagnosis"

_TEXTS = ("prompt", "chosen", "rejected")

Data = Annotated[
    list[str],
    typer.Argument(
        help="Files, globs or folders (Parquet, Arrow, JSON, JSONL, CSV, TSV), a saved dataset, "
        "dataset_info.json#NAME, ORG/NAME or ORG/NAME:SPLIT of the hub; any fsspec URL."
    ),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="The run's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
FormatName = Annotated[
    str | None, typer.Option("--format", help="Name of the format; default: detect it.", rich_help_panel=_READING)
]
Columns = Annotated[
    str | None,
    typer.Option(
        help="Explicit mapping: prompt=…,chosen=…,rejected=… or prompt=…,response_a=…,response_b=…,label=…",
        rich_help_panel=_READING,
    ),
]
LabelValues = Annotated[
    str | None, typer.Option(help="What the label column says: a=…,b=…,tie=…", rich_help_panel=_READING)
]
Pairing = Annotated[
    str,
    typer.Option(help=f"Which answers of a ranking become pairs: {', '.join(PAIRINGS)}.", rich_help_panel=_READING),
]
Label = Annotated[
    str | None,
    typer.Option(help="Which label counts where a row has several; see curate formats NAME.", rich_help_panel=_READING),
]
Limit = Annotated[int | None, typer.Option(help="Stop after so many pairs.", rich_help_panel=_READING)]
Replace = Annotated[
    bool, typer.Option("--replace", help="Let the run take other data than it was made from.", rich_help_panel=_READING)
]
Policy = Annotated[
    str, typer.Option(help="A folder, a hub id, a GGUF file, or the embedded default.", rich_help_panel=_MODELS)
]
Reference = Annotated[str | None, typer.Option(help="The reference model, as --policy.", rich_help_panel=_MODELS)]
Unconditional = Annotated[bool, typer.Option(help="Also score log p(y) without the prompt.", rich_help_panel=_MODELS)]
RewardModel = Annotated[
    str | None,
    typer.Option(help="Also score with a reward model: a folder or hub id of a classifier.", rich_help_panel=_MODELS),
]
Features = Annotated[bool, typer.Option(help="Also keep pooled hidden states.", rich_help_panel=_MODELS)]
Template = Annotated[str, typer.Option(help="auto, chat, plain, raw or a Jinja file.", rich_help_panel=_MODELS)]
MaxLength = Annotated[int, typer.Option(help="Tokens a sequence.", rich_help_panel=_MODELS)]
MaxPromptLength = Annotated[
    int, typer.Option(help="Tokens a prompt keeps when a pair is too long.", rich_help_panel=_MODELS)
]
Dtype = Annotated[str, typer.Option(help="auto, float32, tf32, float16 or bfloat16.", rich_help_panel=_MODELS)]
ShardPairs = Annotated[
    int | None, typer.Option(help="Pairs a shard; default: by the dataset's size.", rich_help_panel=_MODELS)
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with a model.", rich_help_panel=_MODELS)
]
DeviceName = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.", rich_help_panel=_WHERE)]
BatchTokens = Annotated[
    int | None, typer.Option(help="Tokens a forward pass; default: by device.", rich_help_panel=_WHERE)
]
Engine = Annotated[str, typer.Option(help="local (one process, torchrun or SLURM) or ray.", rich_help_panel=_WHERE)]
Workers = Annotated[int | None, typer.Option(help="How many workers there must be.", rich_help_panel=_WHERE)]
Address = Annotated[
    str | None, typer.Option(help="A Ray cluster's address; default: this machine.", rich_help_panel=_WHERE)
]
Margin = Annotated[str, typer.Option(help="dpo, dpo_norm, simpo or auto.", rich_help_panel=_WEIGHTS)]
Beta = Annotated[float, typer.Option(help="β, the reward's scale.", rich_help_panel=_WEIGHTS)]
Ratio = Annotated[float, typer.Option("--gamma-beta-ratio", help="γ0/β.", rich_help_panel=_WEIGHTS)]
Tau = Annotated[float, typer.Option(help="τ, the pull towards equal weights.", rich_help_panel=_WEIGHTS)]
Signals = Annotated[
    list[str] | None,
    typer.Option(
        help="A file with more signals, joined by pair_id, row or an id of the data; may be repeated.",
        rich_help_panel=_DIAGNOSIS,
    ),
]
FoldParts = Annotated[int, typer.Option("--folds", help="Parts of the cross-fitting.", rich_help_panel=_DIAGNOSIS)]
Repeats = Annotated[int, typer.Option(help="Times the cross-fitting is repeated.", rich_help_panel=_DIAGNOSIS)]
FlipAt = Annotated[
    float,
    typer.Option("--p-flip", help="Probability from which on a pair is called flipped.", rich_help_panel=_DIAGNOSIS),
]
NearTie = Annotated[
    float,
    typer.Option(help="Ambiguous: P(chosen is better) within 1/2 ± this.", rich_help_panel=_DIAGNOSIS),
]


@app.command(rich_help_panel="Audit, and its stages")
def audit(
    ctx: typer.Context,
    data: Data,
    output: Output,
    format_name: FormatName = None,
    columns: Columns = None,
    label_values: LabelValues = None,
    pairing: Pairing = PAIRINGS[0],
    label: Label = None,
    limit: Limit = None,
    replace: Replace = False,
    policy: Policy = DEFAULT_MODEL,
    reference: Reference = None,
    unconditional: Unconditional = False,
    reward_model: RewardModel = None,
    features: Features = True,
    template: Template = "auto",
    max_length: MaxLength = 2048,
    max_prompt_length: MaxPromptLength = 1800,
    dtype: Dtype = "auto",
    shard_pairs: ShardPairs = None,
    trust_remote_code: TrustRemoteCode = False,
    device: DeviceName = "auto",
    batch_tokens: BatchTokens = None,
    engine: Engine = "local",
    workers: Workers = None,
    address: Address = None,
    margin: Margin = "auto",
    beta: Beta = 10.0,
    gamma_beta_ratio: Ratio = 0.4,
    tau: Tau = 10.0,
    signals: Signals = None,
    folds: FoldParts = 10,
    repeats: Repeats = 3,
    p_flip: FlipAt = 0.5,
    near_tie: NearTie = 0.05,
    as_json: Json = False,
) -> None:
    """Read, score, weigh and diagnose a preference dataset, and report. What is done already is not done again."""
    settings = ctx.params
    config = AuditConfig(
        _ingest_config(settings),
        _pick(ScoreConfig, settings),
        _pick(ComputeConfig, settings),
        _pick(WeighConfig, settings),
        _pick(DiagnoseConfig, settings),
    )
    from curate.auditing import audit as run_audit

    view = run_audit(config, output, replace_data=replace)
    if view is None:
        _say_others_go_on()
    else:
        _print_report(view, as_json=as_json)


@app.command(rich_help_panel="Audit, and its stages")
def ingest(
    ctx: typer.Context,
    data: Data,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The run's folder.")] = None,
    format_name: FormatName = None,
    columns: Columns = None,
    label_values: LabelValues = None,
    pairing: Pairing = PAIRINGS[0],
    label: Label = None,
    limit: Limit = None,
    replace: Replace = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Only show how one row is read; writes no run.", rich_help_panel=_READING)
    ] = False,
    row: Annotated[
        int | None, typer.Option(help="Which row --explain shows, from 1.", min=1, rich_help_panel=_READING)
    ] = None,
    as_json: Json = False,
) -> None:
    """Read a preference dataset into a run: pairs, and refused rows with their reasons."""
    config = _ingest_config(ctx.params)
    if explain:
        _print_explanation(config, row or 1, as_json=as_json)
        return
    if row is not None:
        raise typer.BadParameter("it belongs to --explain", param_hint="'--row'")
    if output is None:
        raise typer.BadParameter("a run needs a folder; --explain needs none", param_hint="'--output' / '-o'")
    from curate.pairs import ingest as run_ingest
    from curate.progress import progress_bar
    from curate.store import Run

    run = Run.create(output)
    with progress_bar("reading", None) as progress:
        run_ingest(config, run, progress, replace_data=replace)
    _open_and_print(output, as_json=as_json)


@app.command(rich_help_panel="Audit, and its stages")
def score(
    ctx: typer.Context,
    run: RunPath,
    policy: Policy = DEFAULT_MODEL,
    reference: Reference = None,
    unconditional: Unconditional = False,
    reward_model: RewardModel = None,
    features: Features = True,
    template: Template = "auto",
    max_length: MaxLength = 2048,
    max_prompt_length: MaxPromptLength = 1800,
    dtype: Dtype = "auto",
    shard_pairs: ShardPairs = None,
    trust_remote_code: TrustRemoteCode = False,
    device: DeviceName = "auto",
    batch_tokens: BatchTokens = None,
    engine: Engine = "local",
    workers: Workers = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Score a run's pairs with a policy, and a reference where there is one. Goes on where it stopped."""
    config, compute = _pick(ScoreConfig, ctx.params), _pick(ComputeConfig, ctx.params)
    from curate.engines import score as run_score
    from curate.store import Run

    if run_score(Run.open(run), config, compute) is None:
        _say_others_go_on()
    else:
        _open_and_print(run, as_json=as_json)


@app.command(rich_help_panel="Audit, and its stages")
def weigh(
    ctx: typer.Context,
    run: RunPath,
    margin: Margin = "auto",
    beta: Beta = 10.0,
    gamma_beta_ratio: Ratio = 0.4,
    tau: Tau = 10.0,
    as_json: Json = False,
) -> None:
    """Compute margins and γ-PO weights from a run's scores; no model is needed."""
    config = _pick(WeighConfig, ctx.params)
    from curate.store import Run
    from curate.weighing import weigh as run_weigh

    run_weigh(Run.open(run), config, say)
    _open_and_print(run, as_json=as_json)


@app.command(rich_help_panel="Audit, and its stages")
def diagnose(
    ctx: typer.Context,
    run: RunPath,
    signals: Signals = None,
    folds: FoldParts = 10,
    repeats: Repeats = 3,
    p_flip: FlipAt = 0.5,
    near_tie: NearTie = 0.05,
    as_json: Json = False,
) -> None:
    """Tell flipped, ambiguous and defective pairs apart, from a run's scores; no model is needed."""
    config = _pick(DiagnoseConfig, ctx.params)
    from curate.auditing import examine
    from curate.store import Run

    examine(Run.open(run), config)
    _open_and_print(run, as_json=as_json)


@app.command(rich_help_panel="Look at a run")
def selftest(
    run: RunPath,
    noise: Annotated[str, typer.Option(help="Rates of random flips.")] = "0,0.1,0.2,0.4",
    plans: Annotated[str, typer.Option(help="Other noise to plant, or none.")] = ",".join(PLANS),
    seeds: Annotated[int, typer.Option(help="Plantings of each.")] = 5,
    pairs: Annotated[int, typer.Option(help="At most so many pairs, drawn at random.")] = 5_000,
    as_json: Json = False,
) -> None:
    """Plant noise in a run's own pairs, and measure how much of it each signal finds; no model is needed."""
    config = SelftestConfig(_rates(noise), () if plans == "none" else tuple(plans.split(",")), seeds, pairs)
    from curate.progress import progress_bar
    from curate.selftest import selftest as run_selftest
    from curate.store import Run
    from curate.view import RunView

    with progress_bar("self-test", config.plantings, "plantings") as progress:
        run_selftest(Run.open(run), config, progress)
    with RunView(run) as view:
        _print_selftest(view, as_json=as_json)


@app.command(rich_help_panel="Look at a run")
def report(
    run: RunPath,
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file.")],
) -> None:
    """Write a run's report as one HTML file with plots, which needs no network."""
    from curate.html import write_report
    from curate.page import fill_page
    from curate.view import RunView

    with RunView(run) as view:
        write_report(fill_page(view), output)
    typer.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB", err=True)


@app.command(rich_help_panel="Look at a run")
def show(
    run: RunPath,
    pair: Annotated[str | None, typer.Argument(help="A pair's id, or its beginning.")] = None,
    as_json: Json = False,
) -> None:
    """Print a run's report, or everything that is known of one pair."""
    from curate.decided import decided_about
    from curate.view import RunView

    with RunView(run) as view:
        if pair is None:
            _print_report(view, as_json=as_json)
            return
        record = view.pair(pair)
        _print_pair({**record, "decision": decided_about(view, int(record["row"]))}, as_json=as_json)


app.command("app", rich_help_panel="Look at a run")(cli_app.open_app)
app.command(rich_help_panel="Look at a run")(cli_heat.heat)
for deciding in (cli_curation.decide, cli_curation.plans, cli_export.export):
    app.command(rich_help_panel="Decide and export")(deciding)
for training in (cli_training.train, cli_training.crossfit, cli_training.compare, cli_training.generate):
    app.command(rich_help_panel="Train")(training)


@app.command(rich_help_panel="About this installation")
def formats(
    name: Annotated[str | None, typer.Argument(help="A format, to show in full.")] = None, as_json: Json = False
) -> None:
    """List the formats that can be read as they are, with columns and an example each, or show one in full."""
    from curate.explaining_text import columns_of, format_lines
    from curate.formats import FORMATS, MAPPED, named

    shown = list(FORMATS.values()) if name is None else [named(name)]
    if as_json:
        print_json([_format_facts(form) for form in shown])
        return
    if name is not None:
        typer.echo("\n".join(format_lines(shown[0])))
        return
    for form in shown:
        example = json.dumps(form.example, ensure_ascii=False)
        typer.echo(f"{form.name}\n  {form.title}\n  columns: {columns_of(form)}\n  {example}\n")
    typer.echo("any other, with --columns NAME=COLUMN,…")
    for name, meaning in MAPPED.items():
        typer.echo(f"  {name:16} {meaning}")


@app.command(rich_help_panel="About this installation")
def doctor(as_json: Json = False) -> None:
    """Say what this machine has: Python, libraries, devices, memory, the default model."""
    from curate.doctor import examine

    findings = examine()
    if as_json:
        print_json(findings)
        return
    for name, finding in findings.items():
        typer.echo(f"{name:16} {finding}")


def _format_facts(form: Format) -> dict[str, Any]:
    """All of a format that is not code."""
    return {
        "name": form.name,
        "title": form.title,
        "columns": dict(form.columns),
        "shape": form.shape,
        "labels": list(form.labels),
        "traps": list(form.traps),
        "example": form.example,
        "more": list(form.more),
    }


def _print_explanation(config: IngestConfig, row: int, *, as_json: bool) -> None:
    from curate.explaining import explain
    from curate.explaining_text import explanation_lines

    found = explain(config, row)
    if as_json:
        print_json(found.as_json())
    else:
        typer.echo("\n".join(explanation_lines(found)))


def _pick(kind: type[Settings], settings: Mapping[str, Any]) -> Settings:
    """A configuration from the command's options of the same names."""
    values = {field.name: settings[field.name] for field in fields(kind)}
    if "signals" in values:
        values["signals"] = tuple(values["signals"] or ())
    return kind(**values)


def _rates(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(rate) for rate in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--noise {text}: write rates as 0,0.1,0.2") from error


def _ingest_config(settings: Mapping[str, Any]) -> IngestConfig:
    return IngestConfig(
        inputs=tuple(settings["data"]),
        format=settings["format_name"],
        columns=mapping("--columns", settings["columns"]),
        label_values=mapping("--label-values", settings["label_values"]),
        limit=settings["limit"],
        pairing=settings["pairing"],
        label=settings["label"],
    )


def _say_others_go_on() -> None:
    typer.echo("this worker is done; the others go on, and the last one to finish writes the report", err=True)


def _open_and_print(run: Path, *, as_json: bool) -> None:
    from curate.view import RunView

    with RunView(run) as view:
        _print_report(view, as_json=as_json)


def _print_report(view: RunView, *, as_json: bool) -> None:
    from curate.report import render, summarize

    summary = summarize(view)
    if as_json:
        print_json(summary)
        return
    print_text(render(summary))
    print(printable(_next_step(summary), keep="\n"), flush=True)


def _print_selftest(view: RunView, *, as_json: bool) -> None:
    from curate.verdict import selftest_records, selftest_table

    if as_json:
        print_json(selftest_records(view))
    else:
        print_text(selftest_table(view))


def _next_step(summary: dict[str, Any]) -> str:
    run = summary["run"]
    for stage, part in (("score", "scoring"), ("weigh", "margins"), ("diagnose", "diagnosis")):
        if part not in summary:
            return f"Next: curate {stage} {run}"
    suspects, lowest = summary["diagnosis"]["suspects"], summary["margins"]["lowest"]
    first, what = (suspects[0], "first suspect") if suspects else (lowest[0], "pair of the lowest margin")
    return (
        f"Next: curate show {run} {first['pair_id'][:8]} prints the {what};\n"
        f"      curate report {run} -o report.html draws all of it;\n"
        f"      curate selftest {run} measures how far to trust it"
    )


def _print_pair(record: dict[str, Any], *, as_json: bool) -> None:
    plain = {name: _plain(value) for name, value in record.items()}
    if as_json:
        print_json(plain)
        return
    facts = {name: value for name, value in plain.items() if name not in ("original", *_TEXTS)}
    for name, value in facts.items():
        if value is not None and value is not False and value != []:
            typer.echo(f"{printable(name):24} {printable(_fact(value))}")
    for name in _TEXTS:
        typer.echo(f"\n{name}")
        for turn in plain[name]:
            text = printable(turn["content"], keep="\n").replace("\n", "\n    ")
            typer.echo(f"  {turn['role']}: {text}")


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return _decision(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return "; ".join(it if isinstance(it, str) else f"{it['annotator']} {it['vote']:+d}" for it in value)
    return "yes" if value is True else str(value)


def _decision(said: dict[str, Any]) -> str:
    number = "" if said["value"] is None else f"({said['value']:g})"
    reason = f": {said['reason']}" if said["reason"] else ""
    entry = f"entry {said['entry'][:8]} of {said['decided_at'][:19]}, by {said['who']}"
    return f"{said['action']}{number}{reason} ({entry})"


def _plain(value: Any) -> Any:
    """NumPy and missing values as JSON has them."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return None if type(value).__name__ == "NAType" or value != value else value


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's threads give a busy core away instead of spinning
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal or pipe that does not know γ
    try:
        app()
    except CurateError as error:
        typer.echo(f"curate: {printable(str(error))}", err=True)
        sys.exit(1)
    except OSError as error:
        message = f"{error.filename or 'the system'}: {error.strerror or error}"
        typer.echo(f"curate: {printable(message)}", err=True)
        sys.exit(1)
