"""The commands that train models: a skin over `training`, which only they load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

_MODEL, _LOSS, _OPTIMISER = "Model", "Loss and noise", "Optimisation and evaluation"

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
    typer.Option(help="About noise in a run: drop, flip, soft, weights, gamma or raw.", rich_help_panel=_LOSS),
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
Limit = Annotated[int | None, typer.Option(help="Read only so many pairs of a file.", rich_help_panel=_OPTIMISER)]


def train(
    ctx: typer.Context,
    data: Annotated[str, typer.Argument(help="A run's folder, or a file of pairs.")],
    output: Output,
    model: Model = None,
    reference: Reference = None,
    lora: Lora = None,
    template: Template = None,
    max_length: MaxLength = None,
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
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """Train a model on a run's pairs or a file's, with their weights and target margins. Goes on where it stopped."""
    from training.config import parse_setting, resolve_config
    from training.train import train as run_train

    mine = ("data", "output", "recipe", "config", "settings", "as_json")
    flags = {name: value for name, value in ctx.params.items() if name not in mine}
    flags |= dict(parse_setting(text) for text in settings or [])
    report = run_train(resolve_config(recipe, config, flags), data, output)
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        _print_training(report, output)


def _print_training(report: dict[str, Any], output: Path) -> None:
    counts = dict(report["counts"])
    typer.echo(f"trained on  {counts.pop('trained', 0):,} pairs, {report['updates']:,} updates")
    typer.echo(f"held out    {report['held_out']:,} pairs")
    counts.pop("held_out", None)
    for reason, number in counts.items():
        typer.echo(f"dropped     {number:,}: {reason}")
    for what in ("truncated", "swapped"):
        if report[what]:
            typer.echo(f"{what:11} {report[what]:,} pairs")
    if report["after"]:
        typer.echo(f"\n{'held-out pairs':24}{'before':>10}{'after':>10}")
        for name, after in report["after"].items():
            before = report["before"].get(name)
            typer.echo(f"{name.replace('_', ' '):24}{'–' if before is None else f'{before:.4f}':>10}{after:>10.4f}")
    typer.echo(f"\n{output}: {report['seconds']:,.0f} s")


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
    from training.generate import GenerateConfig, read_prompts
    from training.generate import generate as run_generate

    settings = {name: value for name, value in ctx.params.items() if name not in ("output", "as_json", "answer_format")}
    config = GenerateConfig(**settings, format=answer_format)
    with progress_bar("answering", len(read_prompts(config)), "prompts") as progress:
        facts = run_generate(config, output, progress)
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False, indent=2))
        return
    typer.echo(f"{output}: {facts['answered']:,} answers, {facts['reused']:,} of them from before")
    for reason, number in facts["refused"].items():
        typer.echo(f"no answer   {number:,}: {reason}")
