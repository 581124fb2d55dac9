"""The commands that train models: a skin over `training`, which only they load."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from curate.console import mapping, print_json
from curate.progress import printable

_SHARED = ("output", "recipe", "config", "settings", "as_json")  # no fields of the settings
_MODEL, _LOSS, _OPTIMISER, _FILE = "Model", "Loss and noise", "Optimisation and evaluation", "Reading a file"

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A scored run's folder.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="The training's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
Model = Annotated[
    str | None,
    typer.Option(help="A folder, a hub id, a GGUF file, or the embedded default.", rich_help_panel=_MODEL),
]
Reference = Annotated[
    str | None, typer.Option(help="The reference; default: the model before training.", rich_help_panel=_MODEL)
]
Lora = Annotated[
    bool | None, typer.Option("--lora/--no-lora", help="Train adapters, or all weights.", rich_help_panel=_MODEL)
]
Template = Annotated[str | None, typer.Option(help="auto, chat, plain, raw or a Jinja file.", rich_help_panel=_MODEL)]
MaxLength = Annotated[int | None, typer.Option(help="Tokens a sequence.", rich_help_panel=_MODEL)]
Dtype = Annotated[str | None, typer.Option(help="auto, float32 or bfloat16.", rich_help_panel=_MODEL)]
DeviceName = Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.", rich_help_panel=_MODEL)]
Workers = Annotated[int | None, typer.Option(help="How many processes there must be.", rich_help_panel=_MODEL)]
Recipe = Annotated[
    str | None,
    typer.Option(help="Published settings: llama-3-8b-instruct, gemma-2-9b-it, …", rich_help_panel=_LOSS),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="A TOML file of settings.", rich_help_panel=_LOSS)]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any other setting, as name=value; may be repeated.", rich_help_panel=_LOSS),
]
Loss = Annotated[str | None, typer.Option(help="gamma_dpo, gamma_simpo, dpo, simpo, …", rich_help_panel=_LOSS)]
Treat = Annotated[
    str | None,
    typer.Option(help="About noise in a run: decisions, drop, flip, soft, weights, gamma, raw.", rich_help_panel=_LOSS),
]
Targets = Annotated[
    str | None,
    typer.Option(help="auto, constant, column, online, online_exact or dynamic_beta.", rich_help_panel=_LOSS),
]
Beta = Annotated[float | None, typer.Option(help="β, the reward's scale.", rich_help_panel=_LOSS)]
Ratio = Annotated[float | None, typer.Option("--gamma-beta-ratio", help="γ0/β.", rich_help_panel=_LOSS)]
Tau = Annotated[float | None, typer.Option(help="τ of online γ-PO.", rich_help_panel=_LOSS)]
Epochs = Annotated[float | None, typer.Option(help="Times that every pair is seen.", rich_help_panel=_OPTIMISER)]
MaxSteps = Annotated[int | None, typer.Option(help="Updates, instead of epochs.", rich_help_panel=_OPTIMISER)]
Rate = Annotated[
    float | None,
    typer.Option("--learning-rate", help="Default: 1e-4 with LoRA, 1e-6 without.", rich_help_panel=_OPTIMISER),
]
BatchSize = Annotated[int | None, typer.Option(help="Pairs an update.", rich_help_panel=_OPTIMISER)]
MicroBatch = Annotated[
    int | None, typer.Option(help="Pairs a forward pass of one process.", rich_help_panel=_OPTIMISER)
]
Seed = Annotated[int | None, typer.Option(help="Of all that is drawn.", rich_help_panel=_OPTIMISER)]
EvalShare = Annotated[
    float | None, typer.Option(help="Share of the prompts that is held out.", rich_help_panel=_OPTIMISER)
]
EvalData = Annotated[
    str | None, typer.Option(help="Held-out pairs in a file of their own.", rich_help_panel=_OPTIMISER)
]
EarlyStop = Annotated[
    int | None,
    typer.Option(help="Stop after so many evaluations without a lower loss.", rich_help_panel=_OPTIMISER),
]
FormatName = Annotated[
    str | None, typer.Option("--format", help="Name of a file's format; default: detect it.", rich_help_panel=_FILE)
]
Columns = Annotated[
    str | None, typer.Option(help="A file's columns: prompt=…,chosen=…,rejected=…", rich_help_panel=_FILE)
]
LabelValues = Annotated[
    str | None, typer.Option(help="What a file's label column says: a=…,b=…,tie=…", rich_help_panel=_FILE)
]
Limit = Annotated[int | None, typer.Option(help="Read only so many pairs of a file.", rich_help_panel=_FILE)]
MaxPromptLength = Annotated[
    int | None, typer.Option(help="Tokens a prompt keeps when a pair is too long.", rich_help_panel=_MODEL)
]


def train(
    ctx: typer.Context,
    data: Annotated[str, typer.Argument(help="A run's folder, or a file of pairs.")],
    output: Output,
    model: Model = None,
    reference: Reference = None,
    lora: Lora = None,
    template: Template = None,
    max_length: MaxLength = None,
    max_prompt_length: MaxPromptLength = None,
    dtype: Dtype = None,
    device: DeviceName = None,
    workers: Workers = None,
    recipe: Recipe = None,
    config: ConfigFile = None,
    settings: Set = None,
    loss: Loss = None,
    treat: Treat = None,
    targets: Targets = None,
    beta: Beta = None,
    gamma_beta_ratio: Ratio = None,
    tau: Tau = None,
    epochs: Epochs = None,
    max_steps: MaxSteps = None,
    learning_rate: Rate = None,
    batch_size: BatchSize = None,
    micro_batch: MicroBatch = None,
    seed: Seed = None,
    eval_share: EvalShare = None,
    eval_data: EvalData = None,
    early_stop: EarlyStop = None,
    format_name: FormatName = None,
    columns: Columns = None,
    label_values: LabelValues = None,
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """Train a model on a run's pairs as it was decided, or on a file's, with weights. Goes on where it stopped."""
    from training.following import finite
    from training.train import train as run_train

    reading = {
        "format": format_name,
        "columns": mapping("--columns", columns),
        "label_values": mapping("--label-values", label_values),
    }
    report = run_train(_resolve(ctx, ("data", "format_name"), {}, reading), data, output)
    if os.environ.get("RANK", "0") != "0":
        return  # one process speaks for all
    if as_json:
        print_json(finite(report))
    else:
        _print_training(report, output)


def _print_training(report: dict[str, Any], output: Path) -> None:
    counts = dict(report["counts"])
    typer.echo(
        f"trained on  {counts.pop('trained', 0):,} pairs, {report['updates']:,} updates of {report['batch_size']:,}"
    )
    typer.echo(f"held out    {report['held_out']:,} pairs")
    counts.pop("held_out", None)
    for reason, number in counts.items():
        typer.echo(f"dropped     {number:,}: {printable(reason)}")
    for what in ("refused", "truncated", "swapped"):
        if report[what]:
            typer.echo(f"{what:11} {report[what]:,} {'rows' if what == 'refused' else 'pairs'}")
    if report["after"]:
        typer.echo(f"\n{'held-out pairs':24}{'before':>10}{'after':>10}")
        for name, after in report["after"].items():
            before = report["before"].get(name)
            typer.echo(f"{name.replace('_', ' '):24}{'–' if before is None else f'{before:.4f}':>10}{after:>10.4f}")
    typer.echo(f"\n{output}: {report['seconds']:,.0f} s")
    if (output / "model").is_dir():
        typer.echo(f"Next: curate generate PROMPTS --model {output / 'model'} -o answers.json")


def generate(
    ctx: typer.Context,
    prompts: Annotated[str, typer.Argument(help="A file of prompts: instruction, prompt or turns.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file of answers.")],
    model: Annotated[str, typer.Option(help="A folder, a hub id, a GGUF file, or the embedded default.")] = "smollm2",
    adapter: Annotated[str | None, typer.Option(help="Folder of a peft adapter for it.")] = None,
    answer_format: Annotated[str, typer.Option("--format", help="alpaca_eval or arena_hard.")] = "alpaca_eval",
    name: Annotated[str | None, typer.Option(help="What the model is called in the answers.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens of an answer.")] = 2048,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Sample from the likeliest tokens of this probability.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 42,
    batch_size: Annotated[int, typer.Option(help="Prompts a forward pass.")] = 8,
    limit: Annotated[int | None, typer.Option(help="Answer only so many prompts.")] = None,
    template: Annotated[str, typer.Option(help="auto, chat, plain, raw or a Jinja file.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, tf32, float16 or bfloat16.")] = "auto",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with a model.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Answer prompts for AlpacaEval or Arena-Hard, to be judged there. Goes on where it stopped."""
    from curate.progress import progress_bar
    from training.answers import GenerateConfig, read_prompts
    from training.generate import generate as run_generate

    settings = {name: value for name, value in ctx.params.items() if name not in ("output", "as_json", "answer_format")}
    config = GenerateConfig(**settings, format=answer_format)
    with progress_bar("answering", len(read_prompts(config)), "prompts") as progress:
        facts = run_generate(config, output, progress)
    if as_json:
        print_json(facts)
        return
    typer.echo(f"{output}: {facts['answered']:,} answers, {facts['reused']:,} of them from before")
    for reason, number in facts["refused"].items():
        typer.echo(f"no answer   {number:,}: {printable(reason)}")


def crossfit(
    ctx: typer.Context,
    run: RunPath,
    folds: Annotated[int, typer.Option(help="Parts; each is judged by a model trained on the others.")] = 5,
    grouped: Annotated[
        bool, typer.Option("--grouped/--random", help="Folds of whole prompts, or of pairs (shown, not fused).")
    ] = True,
    model: Model = None,
    lora: Lora = None,
    device: DeviceName = None,
    dtype: Dtype = None,
    config: ConfigFile = None,
    settings: Set = None,
    loss: Loss = None,
    beta: Beta = None,
    epochs: Epochs = None,
    learning_rate: Rate = None,
    batch_size: BatchSize = None,
    micro_batch: MicroBatch = None,
    seed: Seed = None,
    as_json: Json = False,
) -> None:
    """Train a model without each fold, and judge the fold with it: a signal that no wrong label hides from."""
    from curate.auditing import examine
    from curate.config import DiagnoseConfig
    from curate.progress import progress_bar
    from curate.store import Run
    from training.crossfit import CROSSFIT_DEFAULTS, Folds, total_visits
    from training.crossfit import crossfit as run_crossfit

    opened, parts = Run.open(run), Folds(folds, grouped)
    resolved = _resolve(ctx, ("run", "folds", "grouped"), CROSSFIT_DEFAULTS)
    with progress_bar("crossfit", total_visits(opened, resolved, parts)) as progress:
        facts = run_crossfit(opened, resolved, parts, progress)
    diagnosed = opened.stage("diagnose")
    if diagnosed is not None:
        settings_before = {**diagnosed["config"], "signals": tuple(diagnosed["config"]["signals"])}
        examine(opened, DiagnoseConfig(**settings_before))
    if as_json:
        print_json(facts)
        return
    typer.echo(f"{run}: {facts['counts']['trained']:,} pairs have an out-of-fold margin ({facts['seconds']:,.0f} s)")
    for reason, number in facts["counts"].items():
        if reason != "trained":
            typer.echo(f"left out    {number:,}: {printable(reason)}")
    typer.echo(f"agree with their label: {facts['agreement']:.1%}")
    has_it = f"the diagnosis has it as {facts['signal']}"
    typer.echo(has_it if diagnosed is not None else f"Next: curate diagnose {run}")


def compare(
    ctx: typer.Context,
    run: RunPath,
    model: Model = None,
    arms: Annotated[
        str, typer.Option(help="Ways to deal with noise: raw, drop, flip, soft, weights, gamma, …")
    ] = "raw,drop,flip,soft,weights,gamma,random_drop,oracle_drop",
    seeds: Annotated[int, typer.Option(help="Splits, plantings and trainings of each.")] = 3,
    plant: Annotated[float, typer.Option(help="Rate of flips to plant in what is trained on.")] = 0.0,
    truth: Annotated[str | None, typer.Option(help="Column that says which labels are wrong, or column=value.")] = None,
    held_out: Annotated[float, typer.Option(help="Share of the prompts that is judged.")] = 0.3,
    evidence: Annotated[str, typer.Option(help="Its folds: grouped (by prompt) or random.")] = "grouped",
    max_tokens: Annotated[int | None, typer.Option(help="Only pairs with at most so many tokens.")] = None,
    pairs: Annotated[int | None, typer.Option(help="Only so many pairs, at random.")] = None,
    lora: Lora = None,
    device: DeviceName = None,
    dtype: Dtype = None,
    config: ConfigFile = None,
    settings: Set = None,
    loss: Loss = None,
    beta: Beta = None,
    gamma_beta_ratio: Ratio = None,
    tau: Tau = None,
    epochs: Epochs = None,
    learning_rate: Rate = None,
    batch_size: BatchSize = None,
    micro_batch: MicroBatch = None,
    seed: Seed = None,
    as_json: Json = False,
) -> None:
    """Compare what training on raw, dropped, flipped, soft, weighted pairs and γ-PO give on held-out pairs."""
    from curate.progress import progress_bar
    from curate.store import Run
    from training.compare import COMPARE_DEFAULTS, total_visits
    from training.compare import compare as run_compare
    from training.comparison import as_text, by_arm
    from training.trials import CompareConfig

    own = ("arms", "seeds", "plant", "truth", "held_out", "evidence", "max_tokens", "pairs")
    what = CompareConfig(
        tuple(arm.strip() for arm in arms.split(",")), seeds, plant, truth, held_out, evidence, max_tokens, pairs
    )
    resolved, opened = _resolve(ctx, ("run", *own), COMPARE_DEFAULTS), Run.open(run)
    with progress_bar("comparing", total_visits(opened, resolved, what)) as progress:
        summary = by_arm(run_compare(opened, resolved, what, progress))
    typer.echo(summary.to_json(orient="records", indent=2) if as_json else as_text(summary))


def _resolve(
    ctx: typer.Context, own: tuple[str, ...], defaults: dict[str, Any], parsed: dict[str, Any] | None = None
) -> Any:
    """Settings of a training from a command's flags, but for its own, and its defaults."""
    from training.config import parse_setting, resolve_config

    given = {**ctx.params, **(parsed or {})}
    flags = {name: value for name, value in given.items() if name not in (*own, *_SHARED) and value is not None}
    flags |= dict(parse_setting(text) for text in given["settings"] or [])
    return resolve_config(given.get("recipe"), given["config"], flags, defaults)
