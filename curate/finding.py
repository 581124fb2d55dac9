"""Which files an input names: a file, a glob, a folder, a saved dataset, a dataset of the hub, any fsspec URL.

A folder stands for its data files. A folder that `datasets` saved (`save_to_disk`) stands for the Arrow files that its
`state.json` lists. `org/name` is a dataset of the Hugging Face hub where nothing here has that path; `org/name:split`
are its files of that split.
"""

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

import fsspec

from curate.errors import InputError
from curate.readers import CONTAINERS, container_of, described, reading_errors

_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
_HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*?)(?::(\w[\w.-]*))?", re.ASCII)
_DESCRIPTIONS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json"}  # of data, not data


def find_files(inputs: Iterable[str]) -> list[str]:
    """All data files that the inputs name, in a stable order.

    Raises:
        InputError: an input matches nothing, cannot be reached, or a file is named twice.
    """
    return once_each(chain.from_iterable(map(files_of, inputs)))


def files_of(entry: str) -> list[str]:
    """All data files that one input names.

    Raises:
        InputError: it matches nothing, or cannot be reached.
    """
    with reading_errors(entry):
        return _resolve(entry)


def once_each(paths: Iterable[str]) -> list[str]:
    """The paths, none of which names a file that another one names too.

    Raises:
        InputError: a file is named twice, or its name is not UTF-8.
    """
    seen: dict[str, str] = {}
    for path in paths:
        if _ESCAPED_BYTE.search(path):
            raise InputError(f"{path}: the name is not UTF-8; rename the file")
        if (name := _full_name(path)) in seen:
            raise InputError(f"{path}: given twice; name each file once")
        seen[name] = path
    return list(seen.values())


def _resolve(entry: str) -> list[str]:
    if hub := _hub_dataset(entry):
        return _hub_files(entry, *hub)
    filesystem, path = fsspec.core.url_to_fs(entry)
    if filesystem.isdir(path):
        if "file" in filesystem.protocol:
            deque(os.walk(path, onerror=_refuse_folder), maxlen=0)
        files = list(_files_in(filesystem, path))
        if not files:
            raise InputError(f"{entry}: the folder holds no {', '.join(CONTAINERS)} file")
        return [_with_protocol(entry, filesystem, name) for name in files]
    if any(letter in path for letter in "*?[") and not filesystem.exists(path):
        files = [name for name in sorted(filesystem.glob(path)) if not filesystem.isdir(name)]
        if not files:
            raise InputError(f"{entry}: no file matches")
        return [_with_protocol(entry, filesystem, name) for name in files]
    if not filesystem.exists(path):
        raise InputError(f"{entry}: no such file or folder")
    return [entry]


def _files_in(filesystem: Any, folder: str) -> Iterator[str]:
    """The data files of a folder; runs in it are passed over, saved datasets read as they say themselves."""
    candidates = sorted(filesystem.find(folder))
    runs = tuple(name.removesuffix("manifest.json") for name in candidates if _is_manifest(filesystem, name))
    states = [name for name in candidates if name.endswith("/state.json")]
    saved = {name.removesuffix("state.json"): _saved_files(filesystem, name) for name in states}
    listed = {name for files in saved.values() for name in files}
    closed = (*runs, *(prefix for prefix, files in saved.items() if files))
    for name in sorted({*candidates, *listed}):
        if name in listed or (_is_data_file(name, folder) and not name.startswith(closed)):
            yield name


def _hub_dataset(entry: str) -> tuple[str, str | None] | None:
    """A hub's dataset and split, if that is what an input can only be."""
    found = _HUB_ID.fullmatch(entry)
    if found is None or os.path.lexists(entry) or os.path.isdir(entry.partition("/")[0]) or _has_suffix(entry):
        return None
    return found[1], found[2]


def _hub_files(entry: str, dataset: str, split: str | None) -> list[str]:
    try:
        filesystem, path = fsspec.core.url_to_fs(f"hf://datasets/{dataset}")
        names = sorted(filesystem.find(path))
    except FileNotFoundError as error:
        raise InputError(f"{entry}: no such file or folder, and no such dataset on the Hugging Face hub") from error
    except Exception as error:
        raise InputError(
            f"{entry}: no such file or folder, and the Hugging Face hub cannot be asked ({described(error)}); "
            "check the path, or download the dataset and name its files"
        ) from error
    files = [name for name in names if _is_data_file(name, path)]
    if split is not None:
        inside = re.compile(rf"(^|[/._-]){re.escape(split)}([/._-]|$)")
        files = [name for name in files if inside.search(name[len(path) :])]
    if not files:
        what = "data file" if split is None else f"data file of a split {split!r}"
        raise InputError(f"{entry}: the dataset holds no {what}; name its files as hf://datasets/{dataset}/…")
    return [str(filesystem.unstrip_protocol(name)) for name in files]


def _saved_files(filesystem: Any, name: str) -> list[str]:
    """The files of a saved dataset; none where its `state.json` is something else."""
    try:
        state = json.loads(filesystem.cat_file(name))
        listed = [entry["filename"] for entry in state["_data_files"]]
    except (ValueError, TypeError, KeyError):
        return []
    if state.get("_indices_data_files"):
        raise InputError(f"{name}: an index chooses the rows, as old releases wrote it; save the dataset again")
    return [f"{name.removesuffix('state.json')}{file}" for file in listed]


def _is_manifest(filesystem: Any, name: str) -> bool:
    """Whether this is the manifest of a run, whose tables are not data to read."""
    if not name.endswith("/manifest.json"):
        return False
    try:
        found = json.loads(filesystem.cat_file(name))
    except ValueError:
        return False
    return isinstance(found, dict) and {"schema_version", "stages"} <= found.keys()


def _refuse_folder(error: OSError) -> None:
    """An unreadable folder is an error; fsspec's `find` passes over it without a word."""
    raise InputError(f"{error.filename}: cannot be read ({error.strerror}); make the folder readable")


def _full_name(path: str) -> str:
    filesystem, inner = fsspec.core.url_to_fs(path)
    if "file" in filesystem.protocol:
        inner = os.path.realpath(inner)
    return str(filesystem.unstrip_protocol(inner))


def _is_data_file(name: str, folder: str) -> bool:
    inside = PurePosixPath(name[len(folder) :].lstrip("/"))
    hidden = any(part.startswith((".", "_")) for part in inside.parts)
    return not hidden and inside.name not in _DESCRIPTIONS and _has_suffix(name)


def _has_suffix(name: str) -> bool:
    """Whether a file of this name is of a known kind."""
    try:
        container_of(name)
    except InputError:
        return False
    return True


def _with_protocol(entry: str, filesystem: Any, name: str) -> str:
    if "://" in entry:
        return str(filesystem.unstrip_protocol(name))
    return name
