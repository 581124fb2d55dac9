"""Choices: what is to be done with many pairs, from a plan or a table; written to a file before the log speaks of it.

Reads the tables `pairs`, `weights` and `diagnosis`, and those that the plan names; writes a table `DECIDED`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from curate.applying import decision_query
from curate.columns import side_by_side
from curate.entries import check_action, storable
from curate.errors import ConfigError, storage_errors
from curate.plans import Plan
from curate.schema import DECIDED
from curate.standing import PAIR_ID, Standing
from curate.store import parquet_writer
from curate.view import RunView

_BATCH_PAIRS = 100_000
_REPEATING = ("copy", "action", "reason", "origin")

_PLANNED = """
SELECT pair_id, row, action, value, target_margin, reason,
    $plan_name || CASE WHEN rule > 0 THEN ', rule ' || rule ELSE '' END AS origin
FROM ({plan}) WHERE rule > 0 OR target_margin IS NOT NULL
"""

_GIVEN = f"""
SELECT {PAIR_ID} AS pair_id, row, action, reason, origin,
    CASE WHEN NOT isnan(value) THEN value END AS value,
    CASE WHEN NOT isnan(target_margin) THEN target_margin END AS target_margin
FROM given LEFT JOIN keys USING (row) ORDER BY row
"""


@dataclass(frozen=True)
class Choices:
    """Pairs and what to do with them. sql: `pair_id`, `row`, `action`, `value`, `target_margin`, `reason`, `origin`."""

    sql: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    given: pd.DataFrame | None = None

    @classmethod
    def of_plan(cls, view: RunView, plan: Plan) -> Choices:
        """What a plan says; pairs that no rule matches are left out, unless it sets their target margin.

        Raises:
            ConfigError: the plan does not fit the run.
        """
        query = decision_query(view, plan)
        return cls(_PLANNED.format(plan=query.sql), {**query.parameters, "plan_name": plan.name})

    @classmethod
    def of_table(cls, table: pd.DataFrame) -> Choices:
        """What a table says: `row`, `action`, and `value`, `target_margin`, `reason`, `origin` as far as it has them.

        Raises:
            ConfigError: a column is missing, an action is impossible, or a pair is there twice.
        """
        if missing := [name for name in ("row", "action") if name not in table]:
            raise ConfigError(f"choices need a column {missing[0]!r}: they have {', '.join(map(str, table))}")
        if table["row"].duplicated().any():
            raise ConfigError(f"the pair of row {table['row'][table['row'].duplicated()].iloc[0]} is chosen twice")
        given = pd.DataFrame({"row": table["row"].astype("int64").to_numpy(), "action": _texts(table, "action")})
        for name in ("value", "target_margin"):
            given[name] = table[name].astype("float64").to_numpy() if name in table else np.nan
        for name in ("reason", "origin"):
            given[name] = _texts(table, name)
        for action, value in given[["action", "value"]].drop_duplicates().itertuples(index=False):
            check_action(action, None if np.isnan(value) else value)
        return cls(_GIVEN, given=given)

    def write(self, standing: Standing, view: RunView, path: Path, *, spare_reviewed: bool) -> dict[str, int]:
        """Write them to a file, with what is known of the pairs.

        Returns:
            How many pairs get which action.

        Raises:
            ConfigError: a pair is not in the run.
            StorageError: the disk refuses.
        """
        query = f"FROM ({self.sql})" + (" WHERE row NOT IN (SELECT row FROM singles)" if spare_reviewed else "")
        facts = _Facts(standing, view)
        actions: Counter[str] = Counter()
        with storage_errors(path), parquet_writer(path, DECIDED, repeating=_REPEATING) as writer:
            for batch in standing.batches(query, _BATCH_PAIRS, self.given, **self.parameters):
                if batch["pair_id"].null_count:
                    raise ConfigError(f"no pair stands in row {batch.filter(batch['pair_id'].is_null())['row'][0]}")
                writer.write_table(facts.beside(batch).cast(DECIDED))
                actions.update({it["values"]: it["counts"] for it in batch["action"].value_counts().to_pylist()})
        return dict(sorted(actions.items()))


def known(view: RunView) -> tuple[list[str], str]:
    """Where a pair's margin and p_flip are, and the two as SQL: null before their stages are done."""
    homes = {name: table for name, table in (("margin", "weights"), ("p_flip", "diagnosis")) if view.has(table)}
    columns = [f"CASE WHEN isfinite({table}.{name}) THEN {table}.{name} END AS {name}" for name, table in homes.items()]
    columns += [f"NULL::DOUBLE AS {name}" for name in ("margin", "p_flip") if name not in homes]
    return list(homes.values()), ", ".join(columns)


class _Facts:
    """The number of its copy, margin and p_flip of every pair, as columns by row: a join would take far more memory."""

    def __init__(self, standing: Standing, view: RunView) -> None:
        tables, columns = known(view)
        found = standing.table(f"SELECT pairs.row, {columns} FROM {side_by_side(view, tables, {})}")
        found = found.sort_by("row").cast(pa.schema(map(DECIDED.field, found.column_names))).combine_chunks()
        self._row_N = found["row"].to_numpy()
        copies = standing.table("SELECT row, copy FROM keys WHERE copy > 0")
        copy_N = np.zeros(len(found), np.int32)
        copy_N[self._at(copies)] = copies["copy"].to_numpy()
        self._found = found.append_column("copy", pa.array(copy_N))

    def beside(self, pairs: pa.Table) -> pa.Table:
        """Pairs with what is known of them."""
        facts = self._found.take(self._at(pairs))
        return pa.table({name: (pairs if name in pairs.column_names else facts)[name] for name in DECIDED.names})

    def _at(self, pairs: pa.Table) -> NDArray[np.int64]:
        at: NDArray[np.int64] = np.searchsorted(self._row_N, pairs["row"].to_numpy())
        return at


def _texts(table: pd.DataFrame, name: str) -> list[str]:
    """A column's texts, empty where there are none."""
    if name not in table:
        return [""] * len(table)
    return [storable(str(text)) for text in table[name].astype(object).where(table[name].notna(), "")]
