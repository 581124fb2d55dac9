"""Everything that speaks for a pair's sides, as arrays: what signals are computed from and the probe learns from.

Reads `pairs/`, `scores.parquet`, `weights.parquet`, features and imported files through `RunView`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from curate.probe import Codes, Features, Floats, principal_axes, second_moment
from curate.signals import COLUMNS, Signal, available, given_block, length_block, likelihood_block
from curate.view import LAYERS, RunView

_SECOND_OPINIONS = ("reward_model",)  # ratings are none: often the label was made from them


@dataclass(frozen=True)
class Evidence:
    """N pairs.

    columns: numbers by name, each (N,), NaN where there is none; those without any are left out.
    imported: signals from files, each (N,).
    blocks: what the probe learns from, by name, each (N, D), chosen − rejected.
    tie_N: whether the data calls a pair a tie.
    learns_N: whether the probe may learn from a pair: it has a label and scores, and its sides differ.
    prompt_N: code of the prompt. content_N: code of the prompt and the two sides, whichever is chosen.
    """

    columns: Mapping[str, Floats]
    imported: Mapping[str, Floats]
    blocks: Mapping[str, Features]
    tie_N: NDArray[np.bool_]
    learns_N: NDArray[np.bool_]
    prompt_N: Codes
    content_N: Codes

    @property
    def signals(self) -> dict[str, Signal]:
        """The signals that need no fit."""
        return available(self.columns)

    @cached_property
    def learners(self) -> Codes:
        """Positions of the pairs that the probe learns from."""
        return np.flatnonzero(self.learns_N)

    def take(self, at: Codes) -> Evidence:
        """Some of the pairs."""
        return replace(
            self,
            columns={name: values[at] for name, values in self.columns.items()},
            imported={name: values[at] for name, values in self.imported.items()},
            blocks={name: values[at] for name, values in self.blocks.items()},
            tie_N=self.tie_N[at],
            learns_N=self.learns_N[at],
            prompt_N=self.prompt_N[at],
            content_N=self.content_N[at],
        )


def gather(view: RunView, imported: Mapping[str, Floats] | None = None) -> Evidence:
    """Read what a run knows of its pairs; imported signals, each (N,), are taken as they are.

    Raises:
        RunError: the run is not scored and weighed.
    """
    imported = imported or {}
    frame = _numbers(view)
    columns = {name: frame[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in COLUMNS if name in frame}
    columns = {name: values for name, values in columns.items() if np.isfinite(values).any()}
    tie_N = frame["tie"].to_numpy(dtype=bool)
    same = frame["identical_tokens"].fillna(False).to_numpy(dtype=bool)
    return Evidence(
        columns=columns,
        imported=imported,
        blocks=_blocks(columns, imported)
        | {f"hidden_{layer}": _hidden(view, layer) for layer in LAYERS if view.has_features()},
        tie_N=tie_N,
        learns_N=np.isfinite(frame["margin"].to_numpy()) & ~tie_N & ~same,
        prompt_N=pd.factorize(frame["prompt_hash"])[0].astype(np.int64),
        content_N=pd.factorize(frame["content_hash"])[0].astype(np.int64),
    )


def _numbers(view: RunView) -> pd.DataFrame:
    names = set(view.columns("scores")) | set(view.columns("weights")) | set(view.columns("pairs"))
    wanted = ", ".join(["tie", "identical_tokens", *(name for name in COLUMNS if name in names)])
    return view.sql(
        f"""SELECT {wanted}, hash(prompt) AS prompt_hash,
                   hash(prompt, greatest(hash(chosen), hash(rejected)), least(hash(chosen), hash(rejected)))
                   AS content_hash
            FROM pairs JOIN scores USING (pair_id, row) JOIN weights USING (pair_id, row) ORDER BY row"""
    )


def _blocks(columns: Mapping[str, Floats], imported: Mapping[str, Floats]) -> dict[str, Features]:
    """What the probe learns from besides hidden states; pairs that lack a number have zeros."""
    found = {"length": length_block(columns), "likelihood": likelihood_block(columns)}
    signals = available(columns)
    given = [*imported.values(), *(signals[name].of(columns) for name in _SECOND_OPINIONS if name in signals)]
    if given:
        found["given"] = given_block(given)
    return {name: _projected(partial(iter, (values,))) for name, values in found.items()}


def _hidden(view: RunView, layer: str) -> Features:
    """Differences of pooled hidden states, projected."""

    def differences() -> Iterator[Features]:
        for chosen, rejected in view.feature_shards(layer):
            yield chosen.astype(np.float32) - rejected.astype(np.float32)

    return _projected(differences)


def _projected(parts: Callable[[], Iterable[Features]]) -> Features:
    """Parts of a block on the whole's principal axes; goes over them twice, so that they are not in memory at once."""
    moments, pairs = zip(*((second_moment(part_nD), len(part_nD)) for part_nD in parts()), strict=True)
    axes_DC = principal_axes(np.sum(moments, axis=0), sum(pairs))
    return np.concatenate([part_nD @ axes_DC for part_nD in parts()])
