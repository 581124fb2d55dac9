"""Everything that can go wrong with a user's input, as one small tree.

    CurateError
    ├── ConfigError    settings that are impossible or contradict each other
    ├── InputError     a data file: missing, unreadable, malformed, of no known format
    │   └── EmptyFileError   it holds no row
    ├── ModelError     a model or tokenizer that cannot be loaded or used
    ├── RunError       a run folder: missing stage, other schema version, other data
    └── StorageError   the disk: full, read-only, not permitted

A message is one line: what was found, where, and what to do. The command line prints it and exits with 1.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class CurateError(Exception):
    """Base of all errors that a user can mend."""


class ConfigError(CurateError):
    """Settings that are impossible or contradict each other."""


class InputError(CurateError):
    """A data file that is missing, unreadable, malformed or of no known format."""


class EmptyFileError(InputError):
    """A data file without a row."""


class ModelError(CurateError):
    """A model or tokenizer that cannot be loaded or used."""


class RunError(CurateError):
    """A run folder that cannot serve: missing stage, other schema version, other data."""


class StorageError(CurateError):
    """The disk refuses: full, read-only or not permitted."""


_STORAGE_HINTS = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EACCES: "permission denied: choose a folder that you may write to",
    errno.EPERM: "not permitted: choose a folder that you may write to",
    errno.ENOTDIR: "a part of this path is a file, not a folder: choose another folder",
    errno.EEXIST: "a file of this name is in the way: choose another folder",
}


@contextmanager
def storage_errors(where: object) -> Iterator[None]:
    """Turn the operating system's refusals to write below `where` into a `StorageError`."""
    try:
        yield
    except OSError as error:
        hint = _STORAGE_HINTS.get(error.errno or 0)
        if hint is None:
            raise
        raise StorageError(f"{where}: {hint}, then run the same command again; what is done is kept") from error
