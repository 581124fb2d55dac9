"""What commands share: JSON and text as a terminal can stand them, and options that are small tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from curate.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType


def print_json(value: Any) -> None:
    """Print JSON that a terminal can stand: JSON itself escapes some of the control characters, not all."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    typer.echo("".join(it if it.isprintable() or it == "\n" else json.dumps(it)[1:-1] for it in text))


def print_text(text: RenderableType) -> None:
    """Print what rich lays out, without the blanks that fill its lines."""
    from rich.console import Console

    console = Console(highlight=False)
    with console.capture() as captured:
        console.print(text)
    print("\n".join(map(str.rstrip, captured.get().split("\n"))), end="", flush=True)


def mapping(option: str, text: str | None) -> dict[str, str] | None:
    """`a=x,b=y` as a dictionary.

    Raises:
        ConfigError: it is written otherwise.
    """
    if text is None:
        return None
    pieces = [piece.partition("=") for piece in text.split(",")]
    if any(not (name.strip() and sign and value.strip()) for name, sign, value in pieces):
        raise ConfigError(f"{option} {text}: write it as name=value,name=value")
    return {name.strip(): value.strip() for name, _, value in pieces}
