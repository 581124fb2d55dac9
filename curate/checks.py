"""Checks: what is wrong with a pair, found without a model. Reads `pairs` and `scores`; makes the table `FINDINGS`.

A check is one function and one entry of `CHECKS`. It finds pairs and says what it saw; what becomes of them is
decided later. Pairs are read in order, part by part, and kept as hashes only.

Dimension key: N pairs, as in `schema.py`.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate import repeats, sides
from curate.errors import ConfigError
from curate.repeats import Found, Keys
from curate.sides import SCORE_COLUMNS, Block, Scored
from curate.store import PART_PAIRS, Run

#: "defect": the pair cannot be used as it is. "warning": it probably should not. "note": worth knowing.
Severity = Literal["defect", "warning", "note"]

FINDINGS = pa.schema(
    [
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("check", pa.string(), nullable=False),
        pa.field("severity", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),  # the evidence in words
    ]
)

#: Columns of `pairs` that the checks look at.
PAIR_COLUMNS = ["pair_id", "row", "prompt", "chosen", "rejected", "tie"]

Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Check:
    """One check: its function takes a `Block` of pairs (over "pair") or the `Keys` of all pairs (over "all")."""

    name: str
    severity: Severity
    explanation: str
    function: Callable[..., Found]
    over: Literal["pair", "all"] = "pair"

    @property
    def parameters(self) -> dict[str, Any]:
        """Its parameters and their defaults."""
        signature = inspect.signature(self.function).parameters.values()
        return {entry.name: entry.default for entry in signature if entry.kind is inspect.Parameter.KEYWORD_ONLY}


# --- the door ------------------------------------------------------------------------------------


def find(chunks: Iterable[pa.Table], scores: pa.Table | None = None, settings: Settings | None = None) -> pa.Table:
    """Run all checks.

    Args:
        chunks: the pairs' `PAIR_COLUMNS`, in the order of their rows; where they are cut does not matter.
        scores: `SCORE_COLUMNS` of the pairs that are scored, in any order.
        settings: check → parameter → value, where it shall not be the default.

    Returns:
        `FINDINGS`, by row, then in the order of `CHECKS`.

    Raises:
        ConfigError: no check or parameter has this name.
    """
    functions = _configured(settings or {})
    scored = Scored.of(scores)
    examined: list[_Examined] = []
    with duckdb.connect() as connection, ThreadPoolExecutor(os.cpu_count()) as pool:
        for chunk in chunks:
            blocks = [Block.of(piece, scored) for piece in _pieces(chunk)]
            examined += pool.map(partial(_examine, functions, connection), blocks)
    if not examined:
        return FINDINGS.empty_table()
    return _as_table(examined, functions)


def find_in_run(run: Run, settings: Settings | None = None) -> pa.Table:
    """Run all checks over a run, with its scores where it has them; see `find`.

    Raises:
        RunError: the pairs are not read yet, or damaged.
        ConfigError: no check or parameter has this name.
    """
    pairs = run.count_pairs()
    chunks = (
        run.read_pairs(start, min(start + PART_PAIRS, pairs), PAIR_COLUMNS) for start in range(0, pairs, PART_PAIRS)
    )
    scores = None if run.stage("score") is None else pq.read_table(run.scores_path, columns=SCORE_COLUMNS)
    return find(chunks, scores, settings)


def _configured(settings: Settings) -> dict[str, Callable[..., Found]]:
    if unknown := settings.keys() - CHECKS.keys():
        raise ConfigError(f"no check {min(unknown)!r}: there are {', '.join(CHECKS)}")
    for name, chosen in settings.items():
        known = CHECKS[name].parameters
        if strange := chosen.keys() - known.keys():
            raise ConfigError(f"check {name} has no parameter {min(strange)!r}: it has {', '.join(known) or 'none'}")
    return {name: partial(check.function, **settings.get(name, {})) for name, check in CHECKS.items()}


# --- reading -------------------------------------------------------------------------------------

_BLOCK_PAIRS = 2_048
_BLOCK_BYTES = 1 << 25


def _pieces(chunk: pa.Table) -> Iterator[pa.Table]:
    """Pieces small enough for the processor's cache, and for offsets of 32 bits."""
    for start in range(0, len(chunk), _BLOCK_PAIRS):
        yield from _halved(chunk.slice(start, _BLOCK_PAIRS))


def _halved(piece: pa.Table) -> Iterator[pa.Table]:
    if len(piece) == 1 or piece.nbytes <= _BLOCK_BYTES:
        yield piece
    else:
        middle = len(piece) // 2
        yield from _halved(piece.slice(0, middle))
        yield from _halved(piece.slice(middle))


# --- running -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Examined:
    """What is kept of a block."""

    pair_id: pa.ChunkedArray
    keys: Keys
    found: Mapping[str, list[tuple[int, str]]]


def _examine(
    functions: Mapping[str, Callable[..., Found]], connection: duckdb.DuckDBPyConnection, block: Block
) -> _Examined:
    found = {name: list(run(block)) for name, run in functions.items() if CHECKS[name].over == "pair"}
    return _Examined(block.pairs["pair_id"], block.keys(connection), found)


def _as_table(examined: list[_Examined], functions: Mapping[str, Callable[..., Found]]) -> pa.Table:
    pair_id = pa.chunked_array([chunk for part in examined for chunk in part.pair_id.chunks], pa.string())
    keys = _all_keys(examined)
    starts = np.cumsum([0, *(len(part.keys.row_N) for part in examined)])
    places: list[int] = []
    numbers: list[int] = []
    details: list[str] = []
    for number, (name, run) in enumerate(functions.items()):
        if CHECKS[name].over == "all":
            found = list(run(keys))
        else:
            parts = zip(examined, starts[:-1].tolist(), strict=True)
            found = [(start + place, detail) for part, start in parts for place, detail in part.found[name]]
        places += (place for place, _ in found)
        numbers += [number] * len(found)
        details += (detail for _, detail in found)
    order = np.lexsort((numbers, places))
    place, number_of = np.array(places, np.int64)[order], np.array(numbers, np.int64)[order]
    checks = list(CHECKS.values())
    return pa.table(
        [
            pair_id.take(pa.array(place)),
            keys.row_N[place],
            pa.array([check.name for check in checks]).take(pa.array(number_of)),
            pa.array([check.severity for check in checks]).take(pa.array(number_of)),
            pa.array(details, pa.string()).take(pa.array(order)),
        ],
        schema=FINDINGS,
    )


def _all_keys(examined: list[_Examined]) -> Keys:
    columns = Keys.__dataclass_fields__
    return Keys(*(np.concatenate([getattr(part.keys, name) for part in examined]) for name in columns))


# --- the registry ----------------------------------------------------------------------------------

CHECKS: dict[str, Check] = {
    check.name: check
    for check in (
        Check("identical", "defect", "Both sides are the same text: there is nothing to prefer.", sides.identical),
        Check(
            "identical_tokens",
            "defect",
            "The sides differ, but not in what the scoring model saw of them after truncation.",
            sides.identical_tokens,
        ),
        Check("empty", "defect", "A side's last turn has nothing to read.", sides.empty),
        Check(
            "prompts_differ",
            "defect",
            "The sides part before their last turn, so that their answers are to different conversations.",
            sides.prompts_differ,
        ),
        Check("last_turn", "defect", "A side ends with somebody else's turn than the assistant's.", sides.last_turn),
        Check(
            "opposite_label",
            "defect",
            "The same prompt and sides appear elsewhere with the other side chosen: one of the labels is wrong.",
            repeats.opposite_label,
            "all",
        ),
        Check(
            "cycle",
            "defect",
            "Responses to one prompt beat one another in a circle: at least one of the labels is wrong.",
            repeats.cycle,
            "all",
        ),
        Check("duplicate", "warning", "The pair repeats an earlier one, label and all.", repeats.duplicate, "all"),
        Check(
            "near_duplicate",
            "warning",
            "Prompt and both sides are nearly those of an earlier pair.",
            repeats.near_duplicate,
            "all",
        ),
        Check(
            "template_tokens",
            "warning",
            "A chat template's token or role marker stands in a text: a turn was split wrongly or ran on.",
            sides.template_tokens,
        ),
        Check(
            "repeated_text",
            "warning",
            "Most of a side is one passage over and over, as of a model caught in a loop.",
            sides.repeated_text,
        ),
        Check(
            "cut_off",
            "warning",
            "A side stops in mid-sentence, as of a model that ran out of tokens.",
            sides.cut_off,
        ),
        Check(
            "truncated",
            "warning",
            "The scoring model saw only a part: the scores are those of shortened texts.",
            sides.truncated,
        ),
        Check(
            "other_script",
            "warning",
            "A side is in another script than the prompt and the other side.",
            sides.other_script,
        ),
        Check(
            "length_ratio",
            "note",
            "A side is so much longer than the other that length may have decided.",
            sides.length_ratio,
        ),
        Check(
            "refusal_chosen",
            "note",
            "A refusal was preferred to an answer: right where the request does harm, else a needless refusal.",
            sides.refusal_chosen,
        ),
        Check("tie", "note", "Neither side was preferred: the pair has no margin and no weight.", sides.tie),
    )
}
