"""Which pairs an export holds, which way round, and with which numbers: decisions, weights, scores → a narrow table.

Reads `pairs`, `decisions`, `weights`, `diagnosis` and `scores`. The table has a line a pair, in the input's order, with
the reason, origin and who of those that leave; it has no prompts and answers: those of a large run stream past it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from curate.config import ExportConfig
from curate.effects import LABEL, NO_LABEL, UNLABELLED, WEIGHT
from curate.exporters import DIAGNOSED, MARGIN, RATINGS, REFERENCE, TARGET, VOTES
from curate.formats import Pair
from curate.pairs import messages_of, pair_id
from curate.predicates import ACTIONS
from curate.provenance import margin_settings
from curate.schema import PAIRS
from curate.store import Run
from curate.view import RunView

#: Why a pair or row is not in the export.
DECIDED, TIE, UNFIT, REFUSED = "decision", "tie", "format", "refused"
NO_DECISION = "none"
_TEMPLATE = "chat"  # under which a trainer that is given messages makes the same tokens

#: `looked` holds what is known from the texts, so that no join sees a text.
_SELECTED = f"""
WITH looked AS MATERIALIZED (SELECT "row", tie, {{unfit}} AS unfit, {{test}} AS test FROM pairs),
judged AS (
    SELECT looked.*, action, value, reason, origin, who, decided_margin, coalesce(action = 'flip', false) AS flipped,
        CASE WHEN action = 'drop' THEN '{DECIDED}' WHEN {UNLABELLED} THEN '{TIE}' WHEN unfit IS NOT NULL THEN '{UNFIT}'
            END AS gone
    FROM looked LEFT JOIN (
        SELECT "row", action, value, reason, origin, who, target_margin AS decided_margin FROM decisions
    ) USING ("row")
)
SELECT "row", test, tie, flipped, gone::ENUM('{DECIDED}', '{TIE}', '{UNFIT}') AS gone,
    CASE gone WHEN '{DECIDED}' THEN reason WHEN '{TIE}' THEN '{NO_LABEL}' WHEN '{UNFIT}' THEN unfit END AS reason,
    CASE WHEN gone = '{DECIDED}' THEN origin END AS origin, CASE WHEN gone = '{DECIDED}' THEN who END AS who,
    coalesce(action, '{NO_DECISION}')::ENUM {(NO_DECISION, *ACTIONS)} AS decision,
    {WEIGHT} AS weight, 1.0 - ({LABEL}) AS p_flip, {{numbers}}
FROM judged {{joins}} ORDER BY "row"
"""
_READ = [name for name in PAIRS.names if name not in ("tie", "original")]

#: What a flip does to the columns of `pairs`.
_TURNED = """
SELECT * REPLACE (
    CASE WHEN flipped THEN rejected ELSE chosen END AS chosen,
    CASE WHEN flipped THEN chosen ELSE rejected END AS rejected,
    CASE WHEN flipped THEN rating_rejected ELSE rating_chosen END AS rating_chosen,
    CASE WHEN flipped THEN rating_chosen ELSE rating_rejected END AS rating_rejected,
    CASE WHEN flipped THEN list_transform(votes,
        lambda one: struct_pack(annotator := one.annotator, vote := (-one.vote)::TINYINT)) ELSE votes END AS votes
) FROM batch
"""
_FINITE = "CASE WHEN isfinite({0}) THEN {0} END"
_PER_SIDE = "CASE WHEN flipped THEN {1} ELSE {0} END AS {2}"


@dataclass(frozen=True)
class Selection:
    """What becomes of each pair.

    table: `row`, `gone` (why it is not in the export, null where it is), `reason`, `origin`, `who`, `test`, `tie`,
        `flipped`, `decision`, `weight`, `p_flip`, and those of `present` that are not in the pairs themselves.
    present: columns of `exporters.OPTIONAL` that the run has.
    own_margins: whether a decision set target margins other than those of the run's weights.
    notes: what was left out, and why.
    """

    table: pa.Table
    present: frozenset[str]
    own_margins: bool
    notes: tuple[str, ...]

    @property
    def kept(self) -> pa.Table:
        """The lines of the pairs that stay."""
        return self.table.filter(pc.is_null(self.table["gone"]))

    def batches(self, run: Run) -> Iterator[pa.Table]:
        """The run's pairs in the input's order, with what becomes of them."""
        at = 0
        for pairs in run.pair_batches(_READ):
            told = self.table.slice(at, len(pairs))
            if not pairs["row"].equals(told["row"]):
                raise AssertionError(f"the pairs from position {at} on are not those that were selected")
            yield _beside(pairs, told)
            at += len(pairs)
        if at != len(self.table):
            raise AssertionError(f"{len(self.table)} pairs selected, {at} read")

    def no_batch(self) -> pa.Table:
        """A batch without pairs."""
        return _beside(PAIRS.empty_table().select(_READ), self.table.slice(0, 0))


def _beside(pairs: pa.Table, told: pa.Table) -> pa.Table:
    columns = {name: told[name] for name in told.column_names if name != "row"}
    return pa.table({**{name: pairs[name] for name in pairs.column_names}, **columns})


def kept(batch: pa.Table, connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """The pairs of a batch that stay, flips done. A flipped pair has the id of what it is now."""
    batch = batch.filter(pc.is_null(batch["gone"]))
    flipped_N = batch["flipped"].to_numpy()
    if not flipped_N.any():
        return batch
    turned = connection.register("batch", batch).sql(_TURNED).to_arrow_table().cast(batch.schema)
    new = turned.filter(pa.array(flipped_N))
    sides = zip(*(messages_of(new[side].to_pylist()) for side in ("prompt", "chosen", "rejected")), strict=True)
    ids = turned["pair_id"].to_numpy()
    ids[flipped_N] = [pair_id(Pair(*pair)) for pair in sides]
    return turned.set_column(turned.column_names.index("pair_id"), PAIRS.field("pair_id"), pa.array(ids, pa.string()))


def select(view: RunView, config: ExportConfig, unfit: str, columns: Container[str]) -> Selection:
    """Apply the run's decisions, which must be open for the view.

    Args:
        unfit: SQL over `prompt`, `chosen`, `rejected` and `tie`: why the format cannot hold a pair, else null.
        columns: those of the format.
    """
    numbers = _numbers(view, columns)
    table = view.arrow(
        _SELECTED.format(
            unfit=unfit,
            test=_test(config),
            numbers=", ".join(numbers),
            joins=" ".join(f'LEFT JOIN {name} USING ("row")' for name in _JOINED if view.has(name)),
        )
    )
    own = bool(pc.any(table["own_margin"]).as_py())
    table, notes = table.drop_columns(["own_margin"]), []
    if MARGIN in columns and TARGET in table.column_names:
        table = table.append_column(MARGIN, _margins(table, None if own else margin_settings(view).get("gamma0")))
    present = frozenset(_in_pairs(view) | set(table.column_names))
    if MARGIN in present and (missing := _without(table, MARGIN)):
        present -= {MARGIN}
        notes.append(
            f"{MARGIN} is left out: {missing:,} of the pairs have no target margin, and decisions set those of others"
        )
    if REFERENCE[0] in present and (missing := _without(table, *REFERENCE[:2])):
        present -= set(REFERENCE)
        notes.append(f"ref_* are left out: {missing:,} of the pairs have no log-prob of the reference")
    return Selection(table, present, own, tuple(notes))


_JOINED = ("weights", "diagnosis", "scores")


def _numbers(view: RunView, columns: Container[str]) -> list[str]:
    """SQL of the columns that come from the stages that are done."""
    weighed = view.has("weights")
    margin = _FINITE.format("weights.target_margin") if weighed else "NULL::DOUBLE"
    planned = view.sql("SELECT count(*) AS pairs FROM decisions WHERE target_margin IS NOT NULL")["pairs"][0]
    found = [f"decided_margin IS NOT NULL AND decided_margin IS DISTINCT FROM {margin} AS own_margin"]
    if weighed or planned:
        found.append(f"CASE WHEN NOT flipped THEN coalesce(decided_margin, {margin}) END AS {TARGET}")
    if view.has("diagnosis"):
        found.append(_PER_SIDE.format("diagnosis.p_flip", "1.0 - diagnosis.p_flip", DIAGNOSED[0]))
    if REFERENCE[0] in columns and _has_reference(view):
        sides = [_FINITE.format(f"scores.reference_{side}_logp") for side in ("chosen", "rejected")]
        tokens = ["scores.chosen_tokens", "scores.rejected_tokens"]
        found += [_PER_SIDE.format(*sides, REFERENCE[0]), _PER_SIDE.format(*sides[::-1], REFERENCE[1])]
        found += [f"scores.{REFERENCE[2]} AS {REFERENCE[2]}"]
        found += [_PER_SIDE.format(*tokens, REFERENCE[3]), _PER_SIDE.format(*tokens[::-1], REFERENCE[4])]
    return found


def _has_reference(view: RunView) -> bool:
    if not view.has("scores"):
        return False
    scored = view.stage("score")
    return "reference" in scored["passes"] and scored["template"] == _TEMPLATE


def _margins(table: pa.Table, gamma0: float | None) -> pa.ChunkedArray:
    """γ_i; γ0 where there is none, which is no difference from the others."""
    return table[TARGET] if gamma0 is None else pc.fill_null(table[TARGET], gamma0)


def _without(table: pa.Table, *names: str) -> int:
    """How many of the pairs that stay lack one of these."""
    stays = table.filter(pc.is_null(table["gone"]))
    return len(stays) - len(stays.select(names).drop_null())


def _in_pairs(view: RunView) -> set[str]:
    """Optional columns for which at least one pair brings something."""
    found = view.sql("SELECT count(rating_chosen) AS rated, count(*) FILTER (WHERE len(votes) > 0) AS voted FROM pairs")
    return set(RATINGS if found["rated"][0] else ()) | set(VOTES if found["voted"][0] else ())


def _test(config: ExportConfig) -> str:
    """SQL: whether a pair's prompt is drawn, by a seeded hash: the same prompts whatever else is in the data."""
    if not config.test_share:
        return "false"
    turn = "turn.role || ':' || length(turn.content) || ':' || turn.content"
    text = f"array_to_string(list_transform(prompt, lambda turn: {turn}), '')"
    return f"md5_number_lower('{int(config.seed)}/' || {text}) < {int(config.test_share * 2**64)}::UBIGINT"
