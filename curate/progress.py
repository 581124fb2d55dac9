"""Progress of long work on standard error: a bar on a terminal, a line now and then in a log; what is safe to print."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_LOG_EVERY_S = 30.0


def printable(text: str, keep: str = "") -> str:
    """Text from files without control characters, which could steer a terminal: they become escapes such as \\x1b."""
    return "".join(
        letter if letter.isprintable() or letter in keep else letter.encode("unicode_escape").decode()
        for letter in text
    )


def say(line: str) -> None:
    """Print one line on standard error, beside the report on standard output."""
    print(printable(line), file=sys.stderr, flush=True)


class Progress(Protocol):
    """Tells somebody how far the work is."""

    def say(self, line: str) -> None:
        """Print one line."""

    def advance(self, pairs: int) -> None:
        """So many more pairs are done."""


class Quiet:
    """No progress at all."""

    def say(self, line: str) -> None:
        """Say nothing."""

    def advance(self, pairs: int) -> None:
        """Count nothing."""


class _Log:
    """A line every half minute: for logs and pipes."""

    def __init__(self, title: str, total: int | None, unit: str) -> None:
        self.title, self.total, self.done, self.unit = title, total, 0, unit
        self.started = self.spoken = time.monotonic()

    def say(self, line: str) -> None:
        say(line)

    def advance(self, pairs: int) -> None:
        self.done += pairs
        now = time.monotonic()
        if now - self.spoken >= _LOG_EVERY_S or (pairs and self.done == self.total):
            self.spoken = now
            self.say(self._line(now - self.started))

    def _line(self, seconds: float) -> str:
        rate = self.done / max(seconds, 1e-9)
        if self.total is None:
            return f"{self.title}: {self.done:,} {self.unit}, {rate:,.1f} {self.unit}/s"
        left = (self.total - self.done) / max(rate, 1e-9)
        return (
            f"{self.title}: {self.done:,} of {self.total:,} {self.unit}, {rate:,.1f} {self.unit}/s, {left:,.0f} s left"
        )


class _Bar:
    """A bar with pairs/s and time left: for terminals."""

    def __init__(self, title: str, total: int | None, unit: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            speed_estimate_period=3600,  # seconds; the bar moves once a shard
        )
        self.started, self.done, self.unit = time.monotonic(), 0, unit
        self.task = self.bar.add_task(title, total=total, rate="")

    def say(self, line: str) -> None:
        self.bar.console.print(printable(line), highlight=False, markup=False)

    def advance(self, pairs: int) -> None:
        self.done += pairs
        rate = self.done / max(time.monotonic() - self.started, 1e-9)
        self.bar.update(self.task, advance=pairs, rate=f"{rate:,.1f} {self.unit}/s")


@contextmanager
def progress_bar(title: str, total: int | None, unit: str = "pairs") -> Iterator[Progress]:
    """Show progress on standard error while the block runs; `unit` is what is counted."""
    if not sys.stderr.isatty():
        yield _Log(title, total, unit)
        return
    shown = _Bar(title, total, unit)
    with shown.bar:
        yield shown
