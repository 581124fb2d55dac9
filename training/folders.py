"""Folders that trainings write: held by one at a time, whole on the disk, and a full disk said in one line."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
from safetensors import SafetensorError

from curate.errors import RunError, StorageError, storage_errors

_TORCH_CANNOT_WRITE = ("PytorchStreamWriter", "unexpected pos", "iostream error")  # it does not say why


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make a folder and hold it. A killed process holds nothing.

    Raises:
        RunError: another process is at work there. StorageError: the disk refuses.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise RunError(f"{folder}: another process trains there: wait for it, or choose another folder") from error
    try:
        yield
    finally:
        lock.release()


def sync(folder: Path) -> None:
    """Let the disk have all files of a folder."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def saving(folder: Path) -> Iterator[None]:
    """Write a folder; where the disk refuses, nothing of it is left.

    Raises:
        StorageError: the disk is full, read-only or not permitted.
    """
    try:
        with writing(folder):
            yield
    except StorageError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say in one line that the disk refuses, whichever library finds out.

    Raises:
        StorageError: the disk is full, read-only or not permitted.
    """
    try:
        with storage_errors(folder):
            yield
    except (SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in _TORCH_CANNOT_WRITE):
            raise
        reason = " ".join(str(error).split())
        raise StorageError(
            f"{folder}: cannot be written ({reason}): free some space and run the same command again; it goes on from "
            "the last checkpoint"
        ) from error
