"""The folder of an export: appears whole or not at all, and takes the place of an earlier export and of nothing else.

`_export.json` lists, under `holds`, the files that the export wrote, by their paths in the folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from curate.errors import RunError
from curate.store import atomic_folder, sync

REPORT = "_export.json"


@contextmanager
def export_folder(output: Path) -> Iterator[Path]:
    """Yield a folder to write into, which takes the place of `output` in the end.

    Args:
        output: an absolute path without symbolic links.

    Raises:
        RunError: there is something that is no export, or not of the export alone, or the caller stands in it.
        StorageError: the disk refuses.
    """
    _check(output)
    with ExitStack() as stack, atomic_folder(output) as folder:
        stack.enter_context(_held(folder, fcntl.LOCK_EX))
        yield folder
        for path in folder.rglob("*"):
            sync(path)
    _sweep(output)


def write_report(folder: Path, report: dict[str, Any]) -> dict[str, Any]:
    """Write `_export.json`, as the last file of an export; what it says."""
    said = {**report, "holds": sorted({*_files(folder), REPORT})}
    (folder / REPORT).write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return said


def _files(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix() for path in paths}


def _check(output: Path) -> None:
    if Path.cwd().is_relative_to(output):
        raise RunError(f"{output}: you are in this folder, which the export would replace; choose another with -o")
    if output.exists() and not output.is_dir():
        raise RunError(f"{output}: that is a file; name a folder with -o")
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not (output / REPORT).is_file():
        raise RunError(f"{output}: the folder holds something that is no export; choose another with -o")
    if others := sorted(_files(output) - _listed(output / REPORT)):
        more = f" and {len(others) - 1:,} more files" if others[1:] else ""
        raise RunError(
            f"{output}: the folder holds {others[0]}{more} beside the earlier export; "
            "move that away, or choose another folder with -o"
        )


def _listed(report: Path) -> set[str]:
    try:
        return set(json.loads(report.read_text(encoding="utf-8"))["holds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{report}: it does not say which files the earlier export wrote; choose another folder with -o"
        ) from error


@contextmanager
def _held(folder: Path, how: int) -> Iterator[None]:
    """Lock a folder, at most for as long as this process lives. how: see `fcntl.flock`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _sweep(output: Path) -> None:
    """Remove what killed exports of the same folder left beside it."""
    left = re.compile(rf"\.{re.escape(output.name)}\.[0-9a-f]{{8}}(\.old)?\.tmp")
    for path in [it for it in output.parent.iterdir() if left.fullmatch(it.name)]:
        try:
            with _held(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
                if any(path.iterdir()):  # else its process may be about to lock it
                    shutil.rmtree(path, ignore_errors=True)
        except OSError:  # another process writes it, or has just finished
            continue
