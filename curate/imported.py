"""Signals from a file: verdicts of a judge, a reward model's margins, tags; joined to the pairs by an id.

A file is Parquet, CSV, TSV or JSON lines, one row a pair. Its id column is `pair_id`, `row`, or the first column that
the data's own rows have too (such as `id`) and that names no pair twice. Every other column is a signal: a number that
is positive where it agrees with the label as it stands in the data, or a verdict, `chosen`, `rejected` or `tie`.

A column whose name starts with `in_sample_` comes from a model that was trained on the labels that it judges. It is
shown, and takes no part in anything else.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from curate.errors import InputError, RunError
from curate.schema import DIAGNOSIS, PAIRS, SCORES, WEIGHTS
from curate.signals import SIGNALS
from curate.view import RunView

Floats = NDArray[np.float64]

IN_SAMPLE = "in_sample_"
VERDICTS = {"chosen": 1.0, "rejected": -1.0, "tie": 0.0}
_OURS = ("pair_id", "row")
#: All is read as text, so that an id such as 007 stays what it is.
_READERS = {
    ".parquet": "read_parquet($file)",
    ".csv": "read_csv($file, all_varchar = true, header = true)",
    ".tsv": "read_csv($file, all_varchar = true, header = true, delim = '\t')",
    ".jsonl": "read_json($file, format = 'newline_delimited')",
}
_TAKEN = {*SIGNALS, *PAIRS.names, *SCORES.names, *WEIGHTS.names, *DIAGNOSIS.names} - set(_OURS)


def import_signals(view: RunView, files: Iterable[str], reserved: Iterable[str] = ()) -> dict[str, Floats]:
    """Read signals from files.

    Args:
        reserved: names that a column must not have, besides those of the run's own columns.

    Returns:
        name → (N,), NaN where the file has nothing about a pair.

    Raises:
        InputError: a file is missing or malformed, has no id column or no signal, names a pair twice or none at all.
    """
    found: dict[str, Floats] = {}
    for file in files:
        for name, values in _read(view, file).items():
            if name.lower() in {taken.lower() for taken in (*_TAKEN, *found, *reserved)}:
                raise InputError(f"{file}: the run has a column {name!r} already: rename it")
            found[name] = values
    return found


def _read(view: RunView, file: str) -> dict[str, Floats]:
    reader = _READERS.get(Path(file).suffix.lower())
    if reader is None:
        raise InputError(f"{file}: signals come from {', '.join(_READERS)} files")
    if not Path(file).is_file():
        raise InputError(f"{file}: no such file")
    try:
        table = view.sql(f"SELECT COLUMNS(*)::VARCHAR FROM {reader}", file=glob.escape(file))
    except (duckdb.Error, RunError) as error:
        reason = str(error.__cause__ or error).partition("LINE 1:")[0]
        raise InputError(f"{file}: cannot be read ({' '.join(reason.split())})") from error
    key, ids = _ids(view, file, table)
    if table[key].duplicated().any():
        raise InputError(f"{file}: {key} {table[key][table[key].duplicated()].iloc[0]!r} stands there twice")
    signals = {str(name): _numbers(file, str(name), table[name]) for name in table.columns if name not in (key, *_OURS)}
    if not signals:
        raise InputError(f"{file}: has no column besides {key}, so no signal")
    at = pd.Index(table[key]).get_indexer(pd.Index(ids))
    if (at < 0).all():
        raise InputError(f"{file}: no {key} in it is one of the run's pairs")
    return {name: np.where(at >= 0, values[at], np.nan) for name, values in signals.items()}


def _ids(view: RunView, file: str, table: pd.DataFrame) -> tuple[str, pd.Series]:
    """The id column's name, and the run's pairs' ids of that name, as text."""
    ours = [name for name in _OURS if name in table.columns]
    if ours:
        name = next((name for name in ours if table[name].is_unique), ours[0])  # copies of a pair share its pair_id
        return name, view.table("pairs", [name])[name].astype(str)
    shared: dict[str, pd.Series] = {}
    for name in map(str, table.columns):
        if name.isprintable() and name.strip('"\\'):
            path = "$." + json.dumps(name, ensure_ascii=False)
            ids = view.sql("SELECT json_extract_string(original, $path) AS id FROM pairs ORDER BY row", path=path)["id"]
            if ids.notna().any():
                shared[name] = ids
    if not shared:
        raise InputError(f"{file}: has no column pair_id or row, and none that the data's rows have too")
    return next(((name, ids) for name, ids in shared.items() if table[name].is_unique), next(iter(shared.items())))


def _numbers(file: str, name: str, column: pd.Series) -> Floats:
    text = column.astype("string").str.strip('" ').str.lower().replace({"": pd.NA, "nan": pd.NA})
    values = pd.to_numeric(text, errors="coerce").fillna(text.map(VERDICTS).astype("Float64"))
    unknown = text[values.isna() & text.notna()]
    if len(unknown):
        raise InputError(
            f"{file}: {name} has {unknown.iloc[0]!r}, neither a number nor a verdict ({', '.join(VERDICTS)})"
        )
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(numbers), numbers, np.nan)
