"""What is to be read: the files that the inputs name, each with the format that a description beside it gives."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from curate import llamafactory
from curate.errors import InputError
from curate.finding import files_of, once_each
from curate.form import Format


@dataclass(frozen=True)
class Source:
    """One file to read; `form` and `why` where a description beside the data says how."""

    path: str
    form: Format | None = None
    why: str = ""
    description: str = ""  # as it was, so that a change of it is seen


def find_sources(inputs: Iterable[str]) -> list[Source]:
    """All files that the inputs name, in a stable order.

    An input is what `curate.finding` knows, or LLaMA-Factory's `dataset_info.json`, or a folder that has one; where it
    names several ranking datasets, `dataset_info.json#name` chooses.

    Raises:
        InputError: an input matches nothing, cannot be reached, or does not say which dataset.
    """
    found = [source for entry in inputs for source in _sources(entry)]
    once_each(source.path for source in found)
    return found


def _sources(entry: str) -> Iterator[Source]:
    path, name = _registry(entry)
    if path is None:
        yield from map(Source, files_of(entry))
        return
    registry = llamafactory.load(path)
    if not llamafactory.is_registry(registry):
        raise InputError(f"{path}: not LLaMA-Factory's: it holds no dataset with a file_name or hf_hub_url")
    dataset = llamafactory.ranking_dataset(path, registry, name)
    description = json.dumps(registry[dataset.name], sort_keys=True)
    for file in files_of(dataset.place):
        yield Source(file, dataset.form, f"{llamafactory.REGISTRY} says so ({dataset.name})", description)


def _registry(entry: str) -> tuple[str | None, str | None]:
    """LLaMA-Factory's description that an input names, and the dataset in it."""
    path, sign, name = (entry, "", "") if os.path.lexists(entry) else entry.partition("#")
    if os.path.isdir(path):
        inside = os.path.join(path, llamafactory.REGISTRY)
        if os.path.isfile(inside) and (sign or llamafactory.is_registry(llamafactory.load(inside))):
            return inside, name or None
    elif path.rpartition("/")[2] == llamafactory.REGISTRY:
        return path, name or None
    return None, None
