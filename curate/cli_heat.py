"""The command that says which tokens of a pair speak for either side: a skin over `curate.token_heat`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from curate.console import print_json
from curate.progress import printable

if TYPE_CHECKING:
    from curate.heat import Heat

_SHOWN = 8  # pieces a side, each way


def heat(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A scored run's folder.")],
    pair: Annotated[str, typer.Argument(help="A pair's id, or its beginning.")],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Say which tokens of a pair speak for either side: policy against reference, or the policy's log-probs alone.

    The run's own models compute it; it is kept in the run.
    """
    from curate.token_heat import pair_heat
    from curate.view import RunView

    with RunView(run) as view:
        found = pair_heat(view, pair, device)
    if as_json:
        print_json(asdict(found))
        return
    typer.echo(f"{found.pair_id[:8]}: {printable(_measure(found.policy, found.reference))}, nats")
    for side, side_heat in (("chosen", found.chosen), ("rejected", found.rejected)):
        typer.echo(f"\n{side}")
        _print_side(side_heat)


def _measure(policy: str, reference: str | None) -> str:
    if reference is None:
        return f"log π of {policy}, above the side's mean"
    return f"log π of {policy} minus that of {reference}"


def _print_side(side: Heat) -> None:
    ranked = sorted(zip(side.speaks, side.pieces, strict=True), key=lambda it: it[0])
    for title, told in (("for it", ranked[::-1][:_SHOWN]), ("against it", ranked[:_SHOWN])):
        words = "  ".join(f"{value:+.2f} {printable(repr(piece))}" for value, piece in told)
        typer.echo(f"  {title:11} {words or 'no token'}")
