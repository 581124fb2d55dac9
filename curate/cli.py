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

from curate.config import DEFAULT_MODEL, AuditConfig, ComputeConfig, IngestConfig, ScoreConfig, WeighConfig
from curate.errors import ConfigError, CurateError
from curate.progress import printable, say

if TYPE_CHECKING:
    from curate.view import RunView

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find, see and fix the noise in a preference dataset.",
)

Settings = TypeVar("Settings", ScoreConfig, ComputeConfig, WeighConfig)

_READING, _MODELS, _WHERE, _WEIGHTS = "Reading", "Models and scoring", "Where it runs", "Margins and weights"

_TEXTS = ("prompt", "chosen", "rejected")

Data = Annotated[
    list[str], typer.Argument(help="Files, globs or folders: Parquet, JSON, JSONL, CSV, TSV; any fsspec URL.")
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
Limit = Annotated[int | None, typer.Option(help="Stop after so many pairs.", rich_help_panel=_READING)]
Replace = Annotated[
    bool, typer.Option("--replace", help="Let the run take other data than it was made from.", rich_help_panel=_READING)
]
Policy = Annotated[
    str, typer.Option(help="A folder, a hub id, a GGUF file, or the embedded default.", rich_help_panel=_MODELS)
]
Reference = Annotated[str | None, typer.Option(help="The reference model, as --policy.", rich_help_panel=_MODELS)]
Unconditional = Annotated[bool, typer.Option(help="Also score log p(y) without the prompt.", rich_help_panel=_MODELS)]
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


@app.command()
def audit(
    ctx: typer.Context,
    data: Data,
    output: Output,
    format_name: FormatName = None,
    columns: Columns = None,
    label_values: LabelValues = None,
    limit: Limit = None,
    replace: Replace = False,
    policy: Policy = DEFAULT_MODEL,
    reference: Reference = None,
    unconditional: Unconditional = False,
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
    as_json: Json = False,
) -> None:
    """Read, score and weigh a preference dataset, and report. What is done already is not done again."""
    settings = ctx.params
    config = AuditConfig(
        _ingest_config(settings),
        _pick(ScoreConfig, settings),
        _pick(ComputeConfig, settings),
        _pick(WeighConfig, settings),
    )
    from curate.auditing import audit as run_audit

    view = run_audit(config, output, replace_data=replace)
    if view is None:
        _say_others_go_on()
    else:
        _print_report(view, as_json=as_json)


@app.command()
def ingest(
    ctx: typer.Context,
    data: Data,
    output: Output,
    format_name: FormatName = None,
    columns: Columns = None,
    label_values: LabelValues = None,
    limit: Limit = None,
    replace: Replace = False,
    as_json: Json = False,
) -> None:
    """Read a preference dataset into a run: pairs, and refused rows with their reasons."""
    config = _ingest_config(ctx.params)
    from curate.pairs import ingest as run_ingest
    from curate.progress import progress_bar
    from curate.store import Run

    run = Run.create(output)
    with progress_bar("reading", None) as progress:
        run_ingest(config, run, progress, replace_data=replace)
    _open_and_print(output, as_json=as_json)


@app.command()
def score(
    ctx: typer.Context,
    run: RunPath,
    policy: Policy = DEFAULT_MODEL,
    reference: Reference = None,
    unconditional: Unconditional = False,
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


@app.command()
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


@app.command()
def show(
    run: RunPath,
    pair: Annotated[str | None, typer.Argument(help="A pair's id, or its beginning.")] = None,
    as_json: Json = False,
) -> None:
    """Print a run's report, or everything that is known of one pair."""
    from curate.view import RunView

    with RunView(run) as view:
        if pair is None:
            _print_report(view, as_json=as_json)
        else:
            _print_pair(view.pair(pair), as_json=as_json)


@app.command()
def formats(as_json: Json = False) -> None:
    """List the formats that can be read as they are, with an example each."""
    from curate.formats import FORMATS, MAPPED

    if as_json:
        _print_json([{"name": form.name, "title": form.title, "example": form.example} for form in FORMATS.values()])
        return
    for form in FORMATS.values():
        typer.echo(f"{form.name}\n  {form.title}\n  {json.dumps(form.example, ensure_ascii=False)}\n")
    typer.echo("any other, with --columns NAME=COLUMN,…")
    for name, meaning in MAPPED.items():
        typer.echo(f"  {name:16} {meaning}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine has: Python, libraries, devices, memory, the default model."""
    from curate.doctor import examine

    findings = examine()
    if as_json:
        _print_json(findings)
        return
    for name, finding in findings.items():
        typer.echo(f"{name:16} {finding}")


def _pick(kind: type[Settings], settings: Mapping[str, Any]) -> Settings:
    """A configuration from the command's options of the same names."""
    return kind(**{field.name: settings[field.name] for field in fields(kind)})


def _ingest_config(settings: Mapping[str, Any]) -> IngestConfig:
    return IngestConfig(
        inputs=tuple(settings["data"]),
        format=settings["format_name"],
        columns=_mapping("--columns", settings["columns"]),
        label_values=_mapping("--label-values", settings["label_values"]),
        limit=settings["limit"],
    )


def _mapping(option: str, text: str | None) -> dict[str, str] | None:
    """`a=x,b=y` as a dictionary."""
    if text is None:
        return None
    pieces = [piece.partition("=") for piece in text.split(",")]
    if any(not (name.strip() and sign and value.strip()) for name, sign, value in pieces):
        raise ConfigError(f"{option} {text}: write it as name=value,name=value")
    return {name.strip(): value.strip() for name, _, value in pieces}


def _say_others_go_on() -> None:
    typer.echo("this worker is done; the others go on, and the last one to finish writes the report", err=True)


def _print_json(value: Any) -> None:
    """Print JSON that a terminal can stand: JSON itself escapes some of the control characters, not all."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    typer.echo("".join(it if it.isprintable() or it == "\n" else json.dumps(it)[1:-1] for it in text))


def _open_and_print(run: Path, *, as_json: bool) -> None:
    from curate.view import RunView

    with RunView(run) as view:
        _print_report(view, as_json=as_json)


def _print_report(view: RunView, *, as_json: bool) -> None:
    from rich.console import Console

    from curate.report import render, summarize

    summary = summarize(view)
    if as_json:
        _print_json(summary)
        return
    console = Console(highlight=False)
    console.print(render(summary))
    console.print(printable(_next_step(summary), keep="\n"), markup=False, soft_wrap=True)


def _next_step(summary: dict[str, Any]) -> str:
    run = summary["run"]
    if "scoring" not in summary:
        return f"Next: curate score {run}"
    if "margins" not in summary:
        return f"Next: curate weigh {run}"
    lowest = summary["margins"]["lowest"][0]["pair_id"][:8]
    return (
        f"Next: curate show {run} {lowest} prints the pair of the lowest margin;\n"
        f"      curate weigh {run} --tau 3 tries another setting;\n"
        f"      any Parquet reader opens {run}/weights.parquet"
    )


def _print_pair(record: dict[str, Any], *, as_json: bool) -> None:
    plain = {name: _plain(value) for name, value in record.items()}
    if as_json:
        _print_json(plain)
        return
    facts = {name: value for name, value in plain.items() if name not in ("original", *_TEXTS)}
    for name, value in facts.items():
        if value is not None and value is not False and value != []:
            typer.echo(f"{name:24} {printable(_fact(value))}")
    for name in _TEXTS:
        typer.echo(f"\n{name}")
        for turn in plain[name]:
            text = printable(turn["content"], keep="\n").replace("\n", "\n    ")
            typer.echo(f"  {turn['role']}: {text}")


def _fact(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(f"{vote['annotator']} {vote['vote']:+d}" for vote in value)
    return "yes" if value is True else str(value)


def _plain(value: Any) -> Any:
    """NumPy and missing values as JSON has them."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return None if value != value or type(value).__name__ == "NAType" else value


def _interrupted(*_: object) -> None:
    typer.echo("\ninterrupted; what is done is kept, the same command goes on from there", err=True)
    raise SystemExit(130)


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGINT, _interrupted)
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
