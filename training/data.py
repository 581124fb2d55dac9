"""What is trained on: a run, or an exported file → tokens, weights, target margins, reference log-probs of every pair.

    DATA/file ──ingest──▶ OUT/data (a run) ─┐
    RUN ────────────────────────────────────┴▶ columns ▶ tokens ▶ OUT/pairs.arrow (memory-mapped)

Pairs are joined by their place in the run, whose ids are hashes of their texts. Counts in = trained on + held out +
dropped, each with its reason.

Dimension key: N pairs of the run.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from curate.errors import ConfigError, InputError, RunError
from curate.own_schema import ASKED
from curate.pairs import messages_of
from curate.progress import say
from curate.store import GROUP_PAIRS, Run, atomic_path, read_metadata
from curate.tokens import Encoder, TokenizedPair
from curate.view import RunView
from training.config import TrainConfig
from training.decided import decided, standing
from training.treatments import DECISIONS, TIE, TREATMENTS, Diagnosed, Floats, Treated, as_labelled

NO_WEIGHT = "weight 0"
EMPTY_SIDE, SAME_TOKENS, NO_REFERENCE = (
    "a side without tokens",
    "the same tokens on both sides",
    "no reference log-prob",
)
_IDS = pa.list_(pa.int32())
_NUMBERS = ("weight", "p_flip", "target_margin", "reference_chosen", "reference_rejected")

PREPARED = pa.schema(
    [
        ("pair_id", pa.string()),
        ("row", pa.int64()),
        ("held_out", pa.bool_()),
        ("swapped", pa.bool_()),  # chosen and rejected changed places
        *((side, _IDS) for side in ("prompt", "chosen", "rejected")),
        *((name, pa.float64()) for name in _NUMBERS),
    ]
)

#: Columns of an exported file, by what they are here.
_EXPORTED = {
    "weight": "weight",
    "p_flip": "p_flip",
    "target_margin": "target_margin",
    "reference_chosen": "ref_chosen_logps",
    "reference_rejected": "ref_rejected_logps",
}


@dataclass(frozen=True)
class PairColumns:
    """Numbers of a run's N pairs, as they are labelled.

    target_margin_N, reference_N2 (chosen, rejected; nats): None where there are none.
    scored_tokens_N2: on how many tokens the reference's log-probs are, where that is known.
    softened_N: whose soft label says what a tie is worth; None where there is no such column.
    """

    treated: Treated
    target_margin_N: Floats | None = None
    reference_N2: Floats | None = None
    scored_tokens_N2: Floats | None = None
    softened_N: NDArray[np.bool_] | None = None


_ROWS = """SELECT file, line, nullif(trim(json_extract_string(original, $path)), '') AS text,
           TRY_CAST(text AS DOUBLE) AS number, text IS NOT NULL AND number IS NULL AS wrong
           FROM pairs ORDER BY row"""

# --- columns -------------------------------------------------------------------------------------


def columns_of_file(run: Run, config: TrainConfig) -> PairColumns:
    """What an exported file says of its pairs; weight 1 where it says nothing.

    Raises:
        InputError: a weight is negative or no number, a `p_flip` is no probability, the columns are other pairs', or
            one of the two columns of the reference is missing.
        ConfigError: the target margins were made for other settings than the loss's.
    """
    with RunView(run.path) as view:
        found = {name: _extract(view, column) for name, column in _EXPORTED.items()}
        for name, usual in ASKED.items():  # of an export in the source's own schema
            if (asked_N := _extract(view, name)) is not None:
                found[name.removeprefix("curate_")] = np.where(np.isnan(asked_N), usual, asked_N)
        tokens = [_extract(view, f"{side}_tokens") for side in ("chosen", "rejected")]
        _check_ids(view)
        tie_N = view.table("pairs", ["tie"])["tie"].to_numpy(dtype=bool)
        if found["weight"] is not None:
            fine_N = (found["weight"] >= 0) & (found["weight"] < np.inf)
            _check(view, "weight", ~tie_N & ~fine_N, "it must be a finite number, 0 or more")
        if found["p_flip"] is not None:
            known_N = ~np.isnan(found["p_flip"])
            _check(view, "p_flip", known_N & ~((found["p_flip"] >= 0) & (found["p_flip"] <= 1)), "it must be 0 to 1")
    treated = as_labelled(len(tie_N))
    weight_N, p_flip_N = found["weight"], found["p_flip"]
    if weight_N is not None:
        treated = replace(treated, weight_N=np.nan_to_num(weight_N))
    if p_flip_N is not None:
        treated = replace(treated, p_flip_N=np.nan_to_num(p_flip_N))
    target_N = _own_targets(found["target_margin"], _settings_of_file(run), config)
    reference_N2 = _own_reference(run, found["reference_chosen"], found["reference_rejected"])
    scored_N2 = None if reference_N2 is None else _counted(tokens)
    softened_N = None if p_flip_N is None else ~np.isnan(p_flip_N)
    return PairColumns(treated, target_N, reference_N2, scored_N2, softened_N)


def _counted(tokens: list[Floats | None]) -> Floats | None:
    return None if tokens[0] is None or tokens[1] is None else np.stack([tokens[0], tokens[1]], axis=1)


def _own_reference(run: Run, chosen_N: Floats | None, rejected_N: Floats | None) -> Floats | None:
    if chosen_N is None and rejected_N is None:
        return None
    if chosen_N is None or rejected_N is None:
        missing = _EXPORTED["reference_chosen" if chosen_N is None else "reference_rejected"]
        raise InputError(f"{run.require('ingest')['inputs'][0]['path']}: the other column is there, but no {missing}")
    return np.stack([chosen_N, rejected_N], axis=1)


def _extract(view: RunView, column: str) -> Floats | None:
    """A number of the rows as they were; NaN where a row has none, None where no row has."""
    frame = view.sql(_ROWS, path=f"$.{column}")
    if frame["text"].isna().all():
        return None
    wrong = frame[frame["wrong"]]
    if len(wrong):
        first = wrong.iloc[0]
        raise InputError(f"{first['file']}, line {first['line']}: {column} is {first['text']!r}: it must be a number")
    return frame["number"].to_numpy(dtype=np.float64, na_value=np.nan)


def _check(view: RunView, column: str, wrong_N: NDArray[np.bool_], must: str) -> None:
    if wrong_N.any():
        at = int(np.flatnonzero(wrong_N)[0])
        row = view.sql(f"{_ROWS} LIMIT 1 OFFSET $at", path=f"$.{column}", at=at).fillna({"text": "missing"}).iloc[0]
        raise InputError(f"{row['file']}, line {row['line']}: {column} is {row['text']}: {must}")


def _check_ids(view: RunView) -> None:
    """The ids that an export brought are those of its texts, else its numbers are other pairs'."""
    wrong = view.sql(
        """SELECT file, line, json_extract_string(original, '$.pair_id') AS brought FROM pairs
           WHERE brought IS NOT NULL AND brought <> pair_id ORDER BY row LIMIT 1"""
    )
    if len(wrong):
        first = wrong.iloc[0]
        raise InputError(
            f"{first['file']}, line {first['line']}: pair_id {first['brought']!r} is not that of its texts, so its "
            "weights and margins belong to another pair: export the data again, or remove the column pair_id"
        )


def _settings_of_file(run: Run) -> dict[str, Any] | None:
    """With which settings an exported Parquet file's target margins were made, if it says so."""
    path = Path(run.require("ingest")["inputs"][0]["path"])
    return (read_metadata(path) or {}).get("target_margin") if path.suffix == ".parquet" else None


def columns_of_run(run: Run, config: TrainConfig) -> PairColumns:
    """What a run's decisions or diagnosis, and its weights, say of its pairs.

    Raises:
        RunError: the treatment needs a stage that is not done, or the log of decisions is damaged.
        ConfigError: the target margins were made for other settings than the loss's.
    """
    treat = treatment(run, config)
    if treat == DECISIONS:
        return _columns_of_decisions(run, config)
    with RunView(run.path) as view:
        pairs = run.count_pairs()
        if treat == "raw":
            return PairColumns(as_labelled(pairs), _targets_of_run(view, config))
        if not view.has("diagnosis"):
            raise RunError(f"{run.path}: not diagnosed yet: run curate diagnose {run.path}, or train with --treat raw")
        frame = view.table("diagnosis", ["kind", "p_flip"])
        found = Diagnosed(
            frame["p_flip"].to_numpy(dtype=np.float64, na_value=np.nan),
            (frame["kind"] == "flipped").to_numpy(dtype=bool),
            (frame["kind"] == "defective").to_numpy(dtype=bool),
        )
        return PairColumns(TREATMENTS[treat](found), _targets_of_run(view, config))


def treatment(run: Run, config: TrainConfig) -> str:
    """What is done about the noise in a run, with `auto` resolved.

    Raises:
        RunError: the log of decisions is damaged.
    """
    if config.treat != "auto":
        return config.treat
    return DECISIONS if standing(run).pairs else "drop"


def say_treatment(run: Run, config: TrainConfig) -> None:
    """Say in a line what becomes of the decisions about a run's pairs."""
    treat, pairs = treatment(run, config), standing(run).pairs
    if treat == DECISIONS:
        say(f"treat {treat}: applied as they stand, about {pairs:,} of {run.count_pairs():,} pairs")
    elif pairs:
        say(f"treat {treat}: the decisions about {pairs:,} pairs are not applied; --treat {DECISIONS} applies them")
    elif config.treat == "auto":
        say(f"treat {treat}: nothing is decided about the pairs")


def _columns_of_decisions(run: Run, config: TrainConfig) -> PairColumns:
    """The run's target margins, unless decisions set others: those must suit the loss, as a file's must."""
    found = decided(run)
    if found.own_margins:
        return PairColumns(found.treated, _own_targets(found.target_margin_N, None, config))
    with RunView(run.path) as view:
        return PairColumns(found.treated, _targets_of_run(view, config))


def _targets_of_run(view: RunView, config: TrainConfig) -> Floats | None:
    """γ_i of the run's weights; None where online γ is to be used, or none was computed for this loss."""
    if not view.has("weights"):
        return _own_targets(None, None, config)
    made = view.stage("weigh")
    target_N = view.table("weights", ["target_margin"])["target_margin"].to_numpy(dtype=np.float64, na_value=np.nan)
    return _own_targets(target_N, made, config)


def _own_targets(target_N: Floats | None, made: dict[str, Any] | None, config: TrainConfig) -> Floats | None:
    """The target margins that came with the pairs, where the loss is to have them; None where they suit another."""
    if not (config.targets == "column" or (config.targets == "auto" and config.is_gamma_po)):
        return None
    if target_N is None or np.isnan(target_N).all():
        if config.targets == "column":
            raise ConfigError(f"targets is 'column', but the pairs have no target_margin: {_remedy(config)}")
        return None
    if config.targets == "auto" and made is not None and (differences := _differences(made, config)):
        say(
            f"target margins: online; those of the pairs suit another loss ({', '.join(differences)}); "
            f"to train with them, {_weigh_with(config)}"
        )
        return None
    _check_targets(made, target_N, config)
    return target_N


def _differences(made: dict[str, Any], config: TrainConfig) -> list[str]:
    settings = config.loss_settings
    found = (
        [] if made.get("margin") == settings.margin else [f"margin {made.get('margin')} instead of {settings.margin}"]
    )
    for name, value in (("beta", settings.beta), ("gamma0", settings.gamma0)):
        if not math.isclose(made.get(name) or math.nan, value):
            found.append(f"{name} {made.get(name)} instead of {value:g}")
    return found


def _check_targets(made: dict[str, Any] | None, target_N: Floats, config: TrainConfig) -> None:
    """Target margins must be in the loss's unit: of the same reward, β and γ0."""
    settings = config.loss_settings
    if made is not None and (differences := _differences(made, config)):
        raise ConfigError(f"target_margin was made for another loss ({', '.join(differences)}): {_remedy(config)}")
    mean = float(np.nanmean(target_N))
    if not settings.gamma0 / 2 <= mean <= settings.gamma0 * 2:
        raise ConfigError(
            f"target_margin has mean {mean:.3g}, but this loss's γ0 is {settings.gamma0:.3g}, "
            f"so it is of another run or loss: {_remedy(config)}"
        )


def _remedy(config: TrainConfig) -> str:
    return f"{_weigh_with(config)}, or train with --targets online"


def _weigh_with(config: TrainConfig) -> str:
    settings = config.loss_settings
    return (
        f"weigh with --margin {settings.margin} --beta {settings.beta:g} "
        f"--gamma-beta-ratio {settings.gamma_beta_ratio:g}"
    )


# --- tokens --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """Pairs on disk, ready to be trained on.

    counts: pairs by what became of them: `trained`, `held_out`, and reasons for which some were dropped.
    truncated: kept pairs of which something was cut. swapped: kept pairs whose sides changed places.
    """

    path: Path
    counts: dict[str, int]
    truncated: int
    swapped: int


def prepare(
    run: Run, columns: PairColumns, encoder: Encoder, target: Path, *, held_out_share: float, seed: int
) -> Prepared:
    """Tokenize a run's pairs and write those that can be trained on.

    Args:
        held_out_share: of the prompts; their pairs are kept as they are labelled or decided, with weight 1.

    Raises:
        RunError: nothing is left to train on, or the reference's log-probs were computed on other tokens.
    """
    counts: Counter[str] = Counter()
    truncated = swapped = 0
    total = run.count_pairs()
    with (
        atomic_path(target) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, PREPARED) as out,
    ):
        for start in range(0, total, GROUP_PAIRS):
            stop = min(start + GROUP_PAIRS, total)
            table = run.read_pairs(start, stop, ["pair_id", "row", "prompt", "chosen", "rejected", "tie"])
            records = []
            for at, pair, tokens in zip(range(start, stop), table.to_pylist(), _encode(table, encoder), strict=True):
                held_out = _is_held_out(pair["prompt"], held_out_share, seed)
                reason = _why_not(pair, tokens, columns, at, held_out=held_out)
                counts[reason or ("held_out" if held_out else "trained")] += 1
                if not reason and isinstance(tokens, TokenizedPair):
                    records.append(_record(pair, tokens, columns, at, held_out=held_out))
                    truncated += tokens.prompt_truncated or tokens.chosen_truncated or tokens.rejected_truncated
                    swapped += records[-1]["swapped"]
            out.write_batch(pa.RecordBatch.from_pylist(records, PREPARED))
    if counts.total() != total:
        raise AssertionError(f"{total} pairs in, {counts.total()} out")
    return Prepared(target, dict(counts), truncated, swapped)


def _encode(table: pa.Table, encoder: Encoder) -> list[TokenizedPair | str]:
    turns = [messages_of(table[side].to_pylist()) for side in ("prompt", "chosen", "rejected")]
    return encoder.encode(list(zip(*turns, strict=True)))


def _is_held_out(prompt: list[dict[str, str]], share: float, seed: int) -> bool:
    """Whole prompts, drawn by a hash: the same ones whatever else is in the data."""
    text = json.dumps([seed, [[turn["role"], turn["content"]] for turn in prompt]])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) < share * 2**64


def _why_not(
    pair: dict[str, Any], tokens: TokenizedPair | str, columns: PairColumns, at: int, *, held_out: bool
) -> str | None:
    """Why a pair is not kept."""
    treated = columns.treated
    reason = str(treated.dropped_N[at])
    if reason and treated.is_label:
        return reason
    softened = treated.is_label or (columns.softened_N is not None and columns.softened_N[at])
    if pair["tie"] and (held_out or not softened):
        return TIE
    if isinstance(tokens, str):
        return tokens
    if not (tokens.chosen and tokens.rejected):
        return EMPTY_SIDE
    if tokens.chosen == tokens.rejected:
        return SAME_TOKENS
    if columns.reference_N2 is not None and not np.isfinite(columns.reference_N2[at]).all():
        return NO_REFERENCE
    if columns.scored_tokens_N2 is not None and tuple(columns.scored_tokens_N2[at]) != _sizes(tokens):
        raise RunError(
            f"pair {pair['pair_id']}: scored on {columns.scored_tokens_N2[at]} tokens, trained on {_sizes(tokens)}; "
            "score again with the same model and template"
        )
    if held_out:
        return None
    return reason or (NO_WEIGHT if treated.weight_N[at] == 0 else None)


def _sizes(tokens: TokenizedPair) -> tuple[int, int]:
    return len(tokens.chosen), len(tokens.rejected)


def _record(
    pair: dict[str, Any], tokens: TokenizedPair, columns: PairColumns, at: int, *, held_out: bool
) -> dict[str, Any]:
    treated = columns.treated
    sides = [("chosen", tokens.chosen, 0), ("rejected", tokens.rejected, 1)]
    swapped = bool(treated.swap_N[at]) and (treated.is_label or not held_out)
    if swapped:
        sides = [(name, *other[1:]) for (name, *_), other in zip(sides, sides[::-1], strict=True)]
    reference, target_N = columns.reference_N2, columns.target_margin_N
    return {
        "pair_id": pair["pair_id"],
        "row": pair["row"],
        "held_out": held_out,
        "swapped": swapped,
        "prompt": tokens.prompt,
        **{name: ids for name, ids, _ in sides},
        "weight": 1.0 if held_out else float(treated.weight_N[at]),
        "p_flip": 0.0 if held_out else float(treated.p_flip_N[at]),
        # one that was solved for the pair as labelled says nothing about the flipped pair, which gets γ0
        "target_margin": None if target_N is None or swapped else float(target_N[at]),
        **{f"reference_{name}": None if reference is None else float(reference[at, side]) for name, _, side in sides},
    }


# --- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingPair:
    """A pair as batches are made of; `index` is its place in the file."""

    index: int
    prompt: Sequence[int]
    chosen: Sequence[int]
    rejected: Sequence[int]
    weight: float
    p_flip: float
    target_margin: float
    reference_chosen: float
    reference_rejected: float
    is_padding: bool = False


class Pairs(torch.utils.data.Dataset[TrainingPair]):
    """Some pairs of a prepared file, read from it when they are needed.

    Positions from `len` on are padding: pairs of weight 0, that fill up the last batch of several processes.
    Weights are scaled to mean 1, so that a pair of weight 2 counts as much as two pairs.
    """

    def __init__(self, path: Path, *, held_out: bool) -> None:
        self.path, self.held_out = path, held_out
        self._table: pa.Table | None = None
        table = self._open()
        self.at = np.flatnonzero(table["held_out"].to_numpy() == held_out)
        weight_N = table["weight"].to_numpy()[self.at]
        self.mean_weight = float(weight_N.mean()) if len(weight_N) else 1.0

    def _open(self) -> pa.Table:
        """The memory-mapped table; opened anew where the object was sent to another process."""
        if self._table is None:
            self._table = pa.ipc.open_file(pa.memory_map(str(self.path))).read_all()
        return self._table

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, position: int) -> TrainingPair:
        index = int(self.at[position % len(self)])
        row = {name: column[0] for name, column in self._open().slice(index, 1).to_pydict().items()}
        numbers = {name: math.nan if row[name] is None else row[name] for name in _NUMBERS}
        padding = position >= len(self)
        numbers["weight"] = 0.0 if padding else numbers["weight"] / self.mean_weight
        return TrainingPair(index, row["prompt"], row["chosen"], row["rejected"], **numbers, is_padding=padding)

    def take(self, positions: NDArray[np.int64]) -> Pairs:
        """Some of these pairs, weights as they are here."""
        part = Pairs.__new__(Pairs)
        part.__dict__.update(self.__getstate__())
        part.at = self.at[positions]
        return part

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of every pair, the prompt once."""
        table = self._open()
        counts = [pc.list_value_length(table[side]).to_numpy() for side in ("prompt", "chosen", "rejected")]
        total_N: NDArray[np.int64] = np.stack(counts).sum(axis=0, dtype=np.int64)
        return total_N[self.at]

    def columns(self, *names: str) -> pa.Table:
        """Columns of `PREPARED`, one row a pair."""
        return self._open().select(list(names)).take(self.at)

    def batches(self, size: int) -> Iterator[list[TrainingPair]]:
        """All pairs in order, so many at a time."""
        for start in range(0, len(self), size):
            yield [self[position] for position in range(start, min(start + size, len(self)))]
