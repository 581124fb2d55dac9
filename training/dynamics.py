"""Training dynamics: the margin of every pair at every visit → `OUT/dynamics/` → one row a pair → signals of the run.

The margins are in-sample: the model learns the label that it is judged by, so a pair that is wrongly labelled loses its
bad margin in time. What is early, or averaged, tells more than what is last.

    early         mean margin of the first epoch's visits
    mean          mean margin of all visits (the area under the margin, arXiv:2001.10528, for equal visits)
    area          area under the margin over the updates, divided by their span
    variability   −(standard deviation over the visits) (arXiv:2009.10795)
    forgetting    −(how often a positive margin became negative) (arXiv:1812.05159)

All are larger for pairs that can be trusted. Dimension key: N pairs, V visits.
"""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from curate.imported import IN_SAMPLE
from curate.store import write_table
from training.data import Pairs

VISITS = pa.schema([("index", pa.int64()), ("step", pa.int64()), ("epoch", pa.float64()), ("margin", pa.float64())])
_MARGINS = ("early", "mean", "area")
SUMMARY = (*_MARGINS, "variability", "forgetting")


class Recorder:
    """Collects margins of this process, and writes them whenever a checkpoint is written."""

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder, self.rank = folder, rank
        self._visits: list[tuple[int, float, Tensor, Tensor]] = []

    def start(self, step: int) -> None:
        """Forget what an interrupted training wrote after update `step`, from which it is taken up.

        The first process also forgets what others wrote: there may have been more of them.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in self.folder.glob("*.parquet" if self.rank == 0 else f"{self.rank:03d}-*.parquet"):
            if int(file.stem.split("-")[1]) >= step:
                file.unlink(missing_ok=True)

    def add(self, step: int, epoch: float | None, index_B: Tensor, margin_B: Tensor) -> None:
        """A batch's margins, before update `step` + 1."""
        self._visits.append((step, epoch or 0.0, index_B.detach(), margin_B.detach()))

    def flush(self) -> None:
        """Write what came since the last time."""
        if not self._visits:
            return
        steps, epochs, indices, margins = zip(*self._visits, strict=True)
        sizes = torch.tensor([len(index) for index in indices])
        columns = [
            torch.cat(indices).cpu(),
            torch.repeat_interleave(torch.tensor(steps), sizes),
            torch.repeat_interleave(torch.tensor(epochs, dtype=torch.float64), sizes),
            torch.cat(margins).double().cpu(),
        ]
        table = pa.table([column.numpy() for column in columns], schema=VISITS)
        write_table(self.folder / f"{self.rank:03d}-{steps[0]:08d}.parquet", table)
        self._visits.clear()


def read_visits(folder: Path) -> pa.Table:
    """All visits, in the order of the updates."""
    files = sorted(folder.glob("*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files] or [VISITS.empty_table()]).sort_by(
        [("index", "ascending"), ("step", "ascending")]
    )


def summarise(visits: pa.Table) -> pa.Table:
    """One row a pair, `index` and the numbers above.

    By hand: margins 1, −1 at updates 0, 2 of the epochs 0.0, 1.0: early 1, mean 0, area 0, variability −1, forgetting
    −1.
    """
    with duckdb.connect() as connection:
        connection.register("visits", visits)
        return connection.sql(_SUMMARISE).to_arrow_table()


_SUMMARISE = """
    WITH steps AS (
        SELECT *, lag(margin) OVER visit AS before, step - lag(step) OVER visit AS span
        FROM visits WHERE isfinite(margin) WINDOW visit AS (PARTITION BY index ORDER BY step)
    )
    SELECT index,
           coalesce(avg(margin) FILTER (floor(epoch) = 0), avg(margin)) AS early,
           avg(margin) AS mean,
           coalesce(sum(span * (margin + before) / 2) / nullif(sum(span), 0), avg(margin)) AS area,
           -stddev_pop(margin) AS variability,
           -count(*) FILTER (before > 0 AND margin < 0)::DOUBLE AS forgetting
    FROM steps GROUP BY index ORDER BY index
"""


def signals(folder: Path, pairs: Pairs) -> pa.Table:
    """The summary as signals of the run: `pair_id`, `row`, and a column `in_sample_…` for each number.

    Margins agree with the label as it stands in the data, also where the training turned a pair round. Copies of a pair
    share one row, for they share their id: their mean, at the first one's place.
    """
    summary = summarise(read_visits(folder)).to_pandas().set_index("index").reindex(pairs.at)
    keys = pairs.columns("pair_id", "row", "swapped").to_pandas()
    sign_N = np.where(keys["swapped"], -1.0, 1.0)
    for name in SUMMARY:
        keys[f"{IN_SAMPLE}{name}"] = summary[name].to_numpy() * (sign_N if name in _MARGINS else 1.0)
    means = keys.groupby("pair_id", sort=False).agg({"row": "first", **dict.fromkeys(keys.columns[3:], "mean")})
    return pa.Table.from_pandas(means.reset_index(), preserve_index=False).replace_schema_metadata()
