"""A preview for a terminal, and as plain values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd
from rich.console import Group, RenderableType

from curate.preview import Noise, Preview
from curate.report import section
from curate.selftest import PROMISED_RATE
from curate.view import plain_records

_BAR = 24  # characters
_MOST_LINES = 12  # of reasons and sources; all are in the JSON
_EXCERPT, _LONGEST_NAME = 90, 40  # characters of a text and of a source's name

Line = tuple[str, str]


def preview_records(preview: Preview) -> dict[str, Any]:
    """A preview as plain values: a table as a list of its lines."""
    length = None if preview.length is None else preview.length.rename_axis("when").reset_index()
    weights = preview.weights.replace(math.inf, math.nan)
    tables = {**vars(preview), "length": length, "weights": weights}
    noise = None if preview.noise is None else {**asdict(preview.noise), "share_left": preview.noise.share_left}
    plain = {name: plain_records(it) if isinstance(it, pd.DataFrame) else it for name, it in tables.items()}
    return {**plain, "noise": noise}


def render_preview(preview: Preview, title: str) -> RenderableType:
    """A preview as text."""
    parts = [section(title, _action_lines(preview))]
    if len(preview.sources) > 1:
        parts.append(section("Sources, from pairs to sum of weights", _source_lines(preview.sources)))
    parts += [
        section("Length", _length_lines(preview.length)),
        section("Weights and soft labels of the pairs that stay", _weight_lines(preview)),
        section("Noise", _noise_lines(preview.noise)),
    ]
    if len(preview.examples):
        parts.append(section("First examples", _example_lines(preview.examples)))
    return Group(*parts)


def _action_lines(preview: Preview) -> Iterator[Line]:
    yield "pairs", f"{preview.pairs:,}, of which {_share(preview.staying, preview.pairs)} stay"
    for action, lines in preview.actions.groupby("action", sort=False):
        yield str(action), _share(lines["pairs"].sum(), preview.pairs)
        for line in plain_records(lines.head(_MOST_LINES)):
            yield "", f"{line['pairs']:,}  {_because(line)}"
        if len(lines) > _MOST_LINES:
            yield "", f"{lines['pairs'][_MOST_LINES:].sum():,}  for {len(lines) - _MOST_LINES:,} other reasons"


def _source_lines(sources: pd.DataFrame) -> Iterator[Line]:
    before, after = sources["before"].sum(), sources["after"].sum()
    for line in plain_records(sources.head(_MOST_LINES)):
        mix = f"{_share(line['before'], before)} → {_share(line['after'], after)}"
        yield _excerpt(line["source"] or "none named", _LONGEST_NAME), mix
    if len(rest := sources[_MOST_LINES:]):
        mix = f"{_share(rest['before'].sum(), before)} → {_share(rest['after'].sum(), after)}"
        yield "…", f"{mix} in {len(rest):,} others"


def _length_lines(length: pd.DataFrame | None) -> Iterator[Line]:
    if length is None:
        yield "unknown", "the pairs are not scored, so that their tokens are not counted"
        return
    for when, line in zip(("before", "after"), plain_records(length), strict=True):
        if line["tokens"] is None:
            yield when, "no pair"
            continue
        shares = f"the longer side is preferred in {line['longer']:.1%}, the shorter one in {line['shorter']:.1%}"
        yield when, f"{shares}; {line['tokens']:+.1f} tokens on average"


def _weight_lines(preview: Preview) -> Iterator[Line]:
    yield "effective size", _share(preview.effective, preview.staying)
    if preview.staying and math.isclose(preview.effective, preview.staying, rel_tol=1e-12):  # as of equal weights alone
        yield "weight", f"{preview.sources['after'].sum() / preview.staying:g} for all"
    else:
        yield from _histogram_lines("weight", preview.weights, math.inf)
    yield from _histogram_lines("soft label", preview.labels, 1.0)


def _histogram_lines(name: str, bins: pd.DataFrame, most: float) -> Iterator[Line]:
    """A line a bin; a bin that begins at the most that there can be holds just that."""
    top = bins["pairs"].max()
    for at, line in enumerate(plain_records(bins)):
        until = f" to {line['high']:.1f}" if math.isfinite(line["high"]) else " and more"
        bar = "█" * math.ceil(_BAR * line["pairs"] / top)
        yield (
            "" if at else name,
            f"{line['low']:.1f}{until if line['low'] < most else '':9} {bar:{_BAR}} {line['pairs']:,}",
        )


def _noise_lines(noise: Noise | None) -> Iterator[Line]:
    if noise is None:
        yield "unknown", "the run is not diagnosed"
        return
    yield "expected", f"{noise.before:,.1f} wrong labels of {noise.known:,}, as p_flip has it"
    if noise.share_left is not None:
        yield "left", f"{noise.share_left:.0%} of them still train, a soft label by its share"
    if noise.new:
        yield "new", f"{noise.new:,.1f} right labels' worth trains the other way round, softened or flipped"
    yield "lost", f"{noise.lost:.1%} of the right labels leave"
    if noise.selftest is not None:
        left, low, high = noise.selftest
        yield (
            "self-test",
            f"{left:.0%} would be left ({low:.0%} to {high:.0%}) if as many of the flips are called so as where it "
            f"plants {PROMISED_RATE:.0%} more",
        )
    if not noise.can_tell:
        yield "caution", "the noise of these data cannot be told, so take all this with care"


def _example_lines(examples: pd.DataFrame) -> Iterator[Line]:
    before = None
    for line in plain_records(examples):
        if (heading := (line["action"], _because(line))) != before:
            before = heading
            yield heading
        yield line["pair_id"][:8], _excerpt(line["prompt"])
        yield "  chosen", _excerpt(line["chosen"])
        yield "  rejected", _excerpt(line["rejected"])


def _because(line: Mapping[str, Any]) -> str:
    return f"{line['reason']} ({line['origin']})" if line["origin"] else str(line["reason"])


def _excerpt(text: str, most: int = _EXCERPT) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _share(part: float, whole: float) -> str:
    return f"{part:,.0f} ({part / whole:.1%})" if whole else f"{part:,.0f}"
