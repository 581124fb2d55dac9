"""`RunView`: a run read through DuckDB, as DataFrames. The only way in for pages, reports and notebooks.

Tables: `pairs`, `refused`, `scores`, `weights`; `features` as arrays. Reads only; loads no model.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.errors import ConfigError, RunError
from curate.store import Manifest, Run

_STAGE_OF = {"pairs": "ingest", "refused": "ingest", "scores": "score", "weights": "weigh"}
_LAYERS = ("middle", "last")
_SIDES = ("chosen", "rejected")


class RunView:
    """A run, open for reading.

    view = RunView("runs/demo")
    view.table("weights")                      # a DataFrame
    view.sql("SELECT avg(weight) FROM weights WHERE margin < 0")
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open a run.

        Raises:
            RunError: there is none, it was made by another schema version, or a table of it is missing or damaged.
        """
        self._run = Run.open(path)
        self._connection = duckdb.connect()
        files = {
            "pairs": glob.escape(str(self._run.pairs_path)) + "/*.parquet",
            "refused": str(self._run.refused_path),
            "scores": str(self._run.scores_path),
            "weights": str(self._run.weights_path),
        }
        for name, file in files.items():
            if self.has(name):
                if (lost := self._run.lost_table(_STAGE_OF[name])) is not None:
                    raise RunError(f"{lost}: missing or damaged; curate audit with the same data rebuilds it")
                self._connection.read_parquet(file).create_view(name)

    def __enter__(self) -> RunView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self._run.path

    @property
    def manifest(self) -> Manifest:
        """What was read, with which settings, and which stages are done."""
        return self._run.manifest()

    def has(self, table: str) -> bool:
        """Whether the stage that makes this table is done.

        Raises:
            ConfigError: no table has this name.
        """
        if table not in _STAGE_OF:
            raise ConfigError(f"no table {table!r}: choose one of {', '.join(_STAGE_OF)}")
        return self._run.stage(_STAGE_OF[table]) is not None

    def stage(self, name: str) -> dict[str, Any]:
        """What the manifest says of a stage.

        Raises:
            RunError: it is not done.
        """
        return self._run.require(name)

    def table(self, name: str, columns: Sequence[str] | None = None, *, limit: int | None = None) -> pd.DataFrame:
        """A table, or some of its columns, in the input's order.

        Raises:
            RunError: its stage is not done.
            ConfigError: no such table or column.
        """
        if not self.has(name):
            stage = _STAGE_OF[name]
            raise RunError(f"{self.path}: no {name} yet; run curate {stage} {self.path}")
        known = self._connection.table(name).columns
        if unknown := [column for column in columns or () if column not in known]:
            raise ConfigError(f"{name} has no column {unknown[0]!r}: it has {', '.join(known)}")
        chosen = ", ".join(f'"{column}"' for column in columns or known)
        return self.sql(f"SELECT {chosen} FROM {name} ORDER BY row" + ("" if limit is None else f" LIMIT {int(limit)}"))

    def pair(self, pair_id: str) -> dict[str, Any]:
        """Everything that is known of one pair; the beginning of its id is enough.

        Raises:
            RunError: no pair, or more than one, has this id.
        """
        joined = "pairs" + "".join(
            f" LEFT JOIN {name} USING (pair_id, row)" for name in ("scores", "weights") if self.has(name)
        )
        found = self.sql(f"SELECT * FROM {joined} WHERE starts_with(pair_id, $id) ORDER BY row", id=pair_id)
        ids = found["pair_id"].unique()
        if len(ids) != 1:
            what = f"{len(ids)} pairs have ids that start" if len(ids) else "no pair has an id that starts"
            raise RunError(f"{self.path}: {what} with {pair_id!r}")
        return {str(name): value for name, value in found.iloc[0].items()}

    def sql(self, query: str, **parameters: Any) -> pd.DataFrame:
        """The result of a DuckDB query over the tables; `$name` in it stands for a parameter."""
        try:
            return self._connection.execute(query, parameters or None).df()
        except duckdb.ProgrammingError:
            raise  # the query is at fault
        except duckdb.Error as error:
            reason = " ".join(str(error).split())
            raise RunError(
                f"{self.path}: a table is damaged ({reason}); delete it and run curate audit again with the same data"
            ) from error

    def features(self) -> dict[str, NDArray[np.float16]]:
        """Pooled hidden states by `side_layer`, each of shape (N, D), zeros where a side has none; loads them all.

        Raises:
            RunError: the run was scored without them.
        """
        scored = self._run.require("score")
        policy = scored["passes"]["policy"]
        if not policy["features"]:
            raise RunError(f"{self.path}: scored with --no-features; score again with --features")
        shards = range(-(-scored["pairs"] // scored["shard_pairs"]))
        tables = [pq.read_table(self.path / policy["folder"] / "features" / f"{shard:05d}.parquet") for shard in shards]
        return {
            f"{side}_{layer}": np.concatenate([_matrix(table, f"{side}_{layer}") for table in tables])
            for side in _SIDES
            for layer in _LAYERS
        }


def _matrix(table: Any, name: str) -> NDArray[np.float16]:
    column = table[name].combine_chunks()
    width = column.type.list_size
    flat = column.values.to_numpy(zero_copy_only=False)
    values: NDArray[np.float16] = flat.reshape(-1, width)[column.offset : column.offset + len(column)]
    none_N = column.is_null().to_numpy(zero_copy_only=False)
    return np.where(none_N[:, None], np.float16(0), values)
