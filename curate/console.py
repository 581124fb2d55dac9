"""What commands share: JSON that a terminal can stand, and options that are small tables."""

from __future__ import annotations

import json
from typing import Any

import typer

from curate.errors import ConfigError


def print_json(value: Any) -> None:
    """Print JSON that a terminal can stand: JSON itself escapes some of the control characters, not all."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    typer.echo("".join(it if it.isprintable() or it == "\n" else json.dumps(it)[1:-1] for it in text))


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
