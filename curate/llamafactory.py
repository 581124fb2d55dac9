"""LLaMA-Factory's `dataset_info.json`: which of its datasets are rankings, where they lie and how they are read.

Each entry has `file_name` or `hf_hub_url`, `ranking`, `formatting` (alpaca or sharegpt), `columns` and `tags`.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeGuard

import fsspec

from curate.canon import Pair
from curate.errors import InputError
from curate.form import Format
from curate.formats_chats import llamafactory_sharegpt
from curate.formats_texts import llamafactory_alpaca
from curate.readers import reading_errors
from curate.values import Values

REGISTRY = "dataset_info.json"
_PLACES = {"file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name"}
_MEDIA = ("images", "videos", "audios", "tools")
_SIDES = {"chosen": "chosen", "rejected": "rejected"}
_ALPACA = {"prompt": "instruction", "query": "input", **_SIDES}
_SHAREGPT = {"messages": "conversations", **_SIDES}
_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "system_tag": "system",
}


@dataclass(frozen=True)
class Dataset:
    """One ranking dataset: the input that names its data, and how its rows are read."""

    name: str
    place: str
    form: Format


def is_registry(found: object) -> bool:
    """Whether the content of a `dataset_info.json` is LLaMA-Factory's: datasets by name, each with its place."""
    return isinstance(found, dict) and any(
        isinstance(entry, dict) and not _PLACES.isdisjoint(entry) for entry in found.values()
    )


def load(path: str) -> Any:
    """The content of a `dataset_info.json`.

    Raises:
        InputError: it cannot be read.
    """
    with reading_errors(path), fsspec.open(path, "rb") as stream:
        return json.load(stream)


def ranking_dataset(path: str, registry: Mapping[str, Any], name: str | None) -> Dataset:
    """The ranking dataset of that name, or the only one.

    Raises:
        InputError: there is none, or several and no name; or the dataset is no ranking, or not to be had here.
    """
    rankings = {key: entry for key, entry in registry.items() if isinstance(entry, dict) and entry.get("ranking")}
    known = ", ".join(rankings) or "none"
    if name is None:
        if len(rankings) != 1:
            what = "names no ranking dataset" if not rankings else f"names several ranking datasets ({known})"
            hint = "" if not rankings else f"; choose one as {path}#{next(iter(rankings))}"
            raise InputError(f"{path}: {what}{hint}")
        name = next(iter(rankings))
    if name not in rankings:
        what = "is no ranking (ranking: true)" if name in registry else "is not in it"
        raise InputError(f"{path}: the dataset {name!r} {what}; its ranking datasets are: {known}")
    return Dataset(name, _place(path, name, rankings[name]), _format(path, name, rankings[name]))


def _place(path: str, name: str, entry: Mapping[str, Any]) -> str:
    """The input that stands for the dataset's files; LLaMA-Factory, too, prefers the hub."""
    if hub := entry.get("hf_hub_url"):
        if entry.get("subset") or entry.get("folder"):
            raise InputError(f"{path}: {name} is a part of {hub}; name its files as hf://datasets/{hub}/…")
        return f"{hub}:{entry['split']}" if entry.get("split") else str(hub)
    if not entry.get("file_name"):
        raise InputError(f"{path}: {name} has neither file_name nor hf_hub_url; download it and name its file")
    return posixpath.join(path.removesuffix(REGISTRY), str(entry["file_name"]))


def _format(path: str, name: str, entry: Mapping[str, Any]) -> Format:
    formatting = entry.get("formatting", "alpaca")
    default = {"alpaca": _ALPACA, "sharegpt": _SHAREGPT}.get(str(formatting))
    if default is None:
        raise InputError(f"{path}: {name} has the formatting {formatting!r}: known are alpaca and sharegpt")
    columns, tags = entry.get("columns") or default, entry.get("tags") or {}
    if not (_are_names(columns) and {next(iter(default)), *_SIDES} <= columns.keys()):
        raise InputError(f"{path}: the columns of {name} must name {next(iter(default))}, chosen and rejected")
    if not _are_names(tags):
        raise InputError(f"{path}: the tags of {name} must be texts by name, such as user_tag")
    parse = partial(_alpaca, columns) if formatting == "alpaca" else partial(_sharegpt, columns, {**_TAGS, **tags})
    needed = {columns[key]: "any" for key in (next(iter(default)), *_SIDES)}
    media = tuple(columns[key] for key in _MEDIA if key in columns)
    return Format("dataset_info", f"{name} of LLaMA-Factory's {REGISTRY}: {formatting}", needed, parse, {}, media=media)


def _are_names(found: object) -> TypeGuard[dict[str, str]]:
    return isinstance(found, dict) and all(isinstance(name, str) for name in found.values())


def _alpaca(columns: Mapping[str, str], values: Values) -> Pair:
    named = {"instruction": "prompt", "input": "query"}
    names = ("instruction", "input", "system", "history", "chosen", "rejected")
    return llamafactory_alpaca({name: values.get(columns.get(named.get(name, name), "")) for name in names})


def _sharegpt(columns: Mapping[str, str], tags: Mapping[str, str], values: Values) -> Pair:
    renamed = {
        name: _retagged(values.get(columns[key]), tags)
        for name, key in (("conversations", "messages"), ("chosen", "chosen"), ("rejected", "rejected"))
    }
    return llamafactory_sharegpt({**renamed, "system": values.get(columns.get("system", ""))})


def _retagged(value: Any, tags: Mapping[str, str]) -> Any:
    """Messages with the roles and keys that the tags stand for; what is no message stays as it is."""
    if isinstance(value, list):
        return [_retagged(item, tags) for item in value]
    if not isinstance(value, dict):
        return value
    roles = {tags["user_tag"]: "user", tags["assistant_tag"]: "assistant", tags["system_tag"]: "system"}
    role = value.get(tags["role_tag"])
    known = roles.get(role, role) if isinstance(role, str) else role
    return {"role": known, "content": value.get(tags["content_tag"]), "tool_calls": value.get("tool_calls")}
