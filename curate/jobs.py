"""`curate` commands as processes of their own, their output in a temporary file: whoever starts them loads no model.

A job goes on when the process that started it ends; what it has done is in the run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from curate.progress import printable

_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True)
class Job:
    """A command: what it is called, its arguments, and since when it runs."""

    title: str
    arguments: tuple[str, ...]
    started: datetime
    log: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def returncode(self) -> int | None:
        """How it ended: 0 is well; None while it runs."""
        return self.process.poll()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.returncode is None

    def output(self, lines: int = 40) -> str:
        """The last lines that it printed."""
        with self.log.open("rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - _TAIL_BYTES, 0))
            text = file.read().decode(errors="replace")
        return printable("\n".join(text.splitlines()[-lines:]), keep="\n")

    def stop(self) -> None:
        """Interrupt it, as Ctrl-C does; what is done is kept."""
        if self.is_running:
            os.killpg(self.process.pid, signal.SIGINT)


class Jobs:
    """The jobs of one process. Threads may share it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._jobs: list[Job] = []

    def start(self, title: str, arguments: Sequence[str]) -> Job:
        """Run `curate` with these arguments, unless it runs with the same ones already: then that job is returned."""
        with self._guard:
            same = [job for job in self._jobs if job.arguments == tuple(arguments) and job.is_running]
            if not same:
                same = [_start(title, tuple(arguments))]
                self._jobs += same
        return same[0]

    def all(self) -> list[Job]:
        """The latest first."""
        with self._guard:
            return self._jobs[::-1]


def _start(title: str, arguments: tuple[str, ...]) -> Job:
    descriptor, name = tempfile.mkstemp(prefix="curate-", suffix=".log")
    with os.fdopen(descriptor, "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "curate", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Job(title, arguments, datetime.now(UTC), Path(name), process)
