"""`RunView`: a run read through DuckDB, as DataFrames. The only way in for pages, reports and notebooks.

Tables: `pairs`, `refused`, `scores`, `weights`, `signals`, `findings`, `diagnosis`, `slices`, `selftest`; features as
arrays. Reads only; loads no model.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.errors import ConfigError, RunError
from curate.schema import SCORES
from curate.store import Manifest, Run

_STAGE_OF = {
    "pairs": "ingest",
    "refused": "ingest",
    "scores": "score",
    "weights": "weigh",
    **dict.fromkeys(("signals", "findings", "diagnosis", "slices"), "diagnose"),
    "selftest": "selftest",
}
_PARTS = """
SELECT file_name AS file, min(stats_min_value::BIGINT) AS low, max(stats_max_value::BIGINT) AS high
FROM parquet_metadata($files) WHERE path_in_schema = 'row' GROUP BY file_name ORDER BY low
"""
LAYERS = ("middle", "last")
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
        self._connection = _quiet(duckdb.connect())
        self._parts: tuple[str, pd.DataFrame] | None = None  # when it was ingested, and which file holds which rows
        folder = glob.escape(str(self.path))
        files = {name: f"{folder}/{name}.parquet" for name in _STAGE_OF} | {"pairs": f"{folder}/pairs/*.parquet"}
        for name, file in files.items():
            if self.has(name):
                if (lost := self._run.lost_table(_STAGE_OF[name])) is not None:
                    raise RunError(f"{lost}: missing or damaged; curate audit with the same data rebuilds it")
                table = self._connection.read_parquet(file)
                (_completed(table) if name == "scores" else table).create_view(name)

    def __enter__(self) -> RunView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Another connection to the same tables: for another thread, or to put tables of one's own beside them."""
        return _quiet(self._connection.cursor())

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
        known = self.columns(name)
        if unknown := [column for column in columns or () if column not in known]:
            raise ConfigError(f"{name} has no column {unknown[0]!r}: it has {', '.join(known)}")
        chosen = ", ".join(map(_quoted, columns or known))
        order = " ORDER BY row" if "row" in known else ""
        return self.sql(f"SELECT {chosen} FROM {name}{order}" + ("" if limit is None else f" LIMIT {int(limit)}"))

    def columns(self, name: str) -> list[str]:
        """A table's columns.

        Raises:
            RunError: its stage is not done.
        """
        if not self.has(name):
            raise RunError(f"{self.path}: no {name} yet; run curate {_STAGE_OF[name]} {self.path}")
        return list(self._connection.table(name).columns)

    def pair(self, pair_id: str) -> dict[str, Any]:
        """Everything that is known of one pair; the beginning of its id is enough.

        Raises:
            RunError: no pair, or more than one, has this id.
        """
        found = self.sql("SELECT row, pair_id FROM pairs WHERE starts_with(pair_id, $id) ORDER BY row", id=pair_id)
        ids = found["pair_id"].unique()
        if len(ids) != 1:
            what = f"{len(ids)} pairs have ids that start" if len(ids) else "no pair has an id that starts"
            raise RunError(f"{self.path}: {what} with {pair_id!r}")
        return self.pair_at(int(found["row"][0]))

    def pairs_among(self, rows: Sequence[int]) -> str:
        """The pairs at these rows, as it stands after FROM: no file is read but those that hold them."""
        among = f"WHERE row IN ({', '.join(str(int(row)) for row in rows) or 'NULL'})"
        ingested = self._run.require("ingest")["finished"]
        if self._parts is None or self._parts[0] != ingested:
            self._parts = ingested, self.sql(_PARTS, files=f"{glob.escape(str(self.path))}/pairs/*.parquet")
        file_F, low_F, high_F = (self._parts[1][name].to_numpy() for name in ("file", "low", "high"))
        row_R = np.asarray(rows, dtype=np.int64)
        holds_F = ((low_F[:, None] <= row_R) & (row_R <= high_F[:, None])).any(axis=1)
        files = ", ".join("'" + name.replace("'", "''") + "'" for name in map(glob.escape, file_F[holds_F]))
        return f"(FROM read_parquet([{files}]) {among}) AS pairs" if files else f"(FROM pairs {among}) AS pairs"

    def pair_at(self, row: int) -> dict[str, Any]:
        """Everything that is known of the pair at a row.

        Raises:
            RunError: there is none.
        """
        known, joined = set(self.columns("pairs")), self.pairs_among([row])
        for name in filter(self.has, ("scores", "weights", "signals", "diagnosis")):
            new = ", ".join(["row", *(_quoted(it) for it in self.columns(name) if it not in known)])
            joined += f" LEFT JOIN (SELECT {new} FROM {name} WHERE row = {int(row)}) USING (row)"
            known.update(self.columns(name))
        found = self.sql(f"SELECT * FROM {joined}")
        if found.empty:
            raise RunError(f"{self.path}: no pair stands at row {row}")
        return {str(name): value for name, value in found.iloc[0].items()}

    def sql(self, query: str, **parameters: Any) -> pd.DataFrame:
        """The result of a DuckDB query over the tables; `$name` in it stands for a parameter. Threads may share it."""
        with self._damage_named(), self.cursor() as cursor:
            return cursor.execute(query, parameters or None).df()

    def arrow(self, query: str, **parameters: Any) -> pa.Table:
        """The same as an Arrow table, which holds many pairs' texts and lists in far less memory."""
        with self._damage_named(), self.cursor() as cursor:
            return cursor.sql(query, params=parameters).to_arrow_table()

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        try:
            yield
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
        return {
            f"{side}_{layer}": np.concatenate([shard[at] for shard in self.feature_shards(layer)])
            for at, side in enumerate(_SIDES)
            for layer in LAYERS
        }

    def has_features(self) -> bool:
        """Whether pooled hidden states were kept."""
        return bool(self._run.require("score")["passes"]["policy"]["features"])

    def feature_shards(self, layer: str) -> Iterator[tuple[NDArray[np.float16], NDArray[np.float16]]]:
        """Pooled hidden states of a layer, chosen and rejected, shard by shard, each of shape (n, D).

        Raises:
            RunError: the run was scored without them, or a shard is missing or damaged.
        """
        if not self.has_features():
            raise RunError(f"{self.path}: scored with --no-features; score again with --features")
        scored = self._run.require("score")
        folder = self.path / scored["passes"]["policy"]["folder"] / "features"
        names = [f"{side}_{layer}" for side in _SIDES]
        for shard in range(-(-scored["pairs"] // scored["shard_pairs"])):
            path = folder / f"{shard:05d}.parquet"
            try:
                table = pq.read_table(path, columns=names)
            except (OSError, pa.ArrowException) as error:
                raise RunError(f"{path}: missing or damaged; delete {folder.parent} and score again") from error
            chosen, rejected = (_matrix(table, name) for name in names)
            yield chosen, rejected


def _quiet(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """A connection that draws no progress bar between what is printed."""
    return connection.execute("SET enable_progress_bar = false")


def _quoted(column: str) -> str:
    """A column's name, whatever is in it, as SQL has it."""
    return '"' + column.replace('"', '""') + '"'


def _completed(scores: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """Scores with all columns: those that came after the run was scored are null."""
    missing = [f"NULL::DOUBLE AS {name}" for name in SCORES.names if name not in scores.columns]
    return scores.project(", ".join(["*", *missing]))


def _matrix(table: Any, name: str) -> NDArray[np.float16]:
    column = table[name].combine_chunks()
    width = column.type.list_size
    flat = column.values.to_numpy(zero_copy_only=False)
    values: NDArray[np.float16] = flat.reshape(-1, width)[column.offset : column.offset + len(column)]
    none_N = column.is_null().to_numpy(zero_copy_only=False)
    return np.where(none_N[:, None], np.float16(0), values)


def plain_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values; None for missing ones (an average of no pairs, the sd of one)."""
    return [{str(name): _plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


def _plain(value: Any) -> Any:
    plain = value.item() if hasattr(value, "item") else value
    return None if plain != plain else plain  # NaN
