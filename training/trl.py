"""Target margins and weights per pair in TRL's own `DPOTrainer`, for those who stay with it. Importing it imports TRL.

TRL knows neither, but two things that it does know carry them, so that none of its loss is copied here:

    target margin   the reference's log-probs, which a margin is measured from. Adding γ/β (sums) or |y_w|·γ/β
                    (log-probs per token) to those of the chosen side lowers h by exactly γ.
    weight          WPO's weight, by which TRL multiplies a pair's loss: exp(mean_t(log p_t − s_t)) of the chosen side
                    times that of the rejected one. With s_t = log p_t − ½·log w it is w.

The second needs the fused output layer that came with TRL 1.15. Other releases than those of `TESTED` are refused.

Reads pairs as `curate` exports them: `prompt`, `chosen`, `rejected` as TRL wants them, and the columns below.
Dimension key: N pairs of a dataset, B pairs of a batch, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import torch
import trl
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from trl import DPOConfig, DPOTrainer

from curate.errors import ConfigError, InputError

TESTED = ("1.16",)  # releases whose steps were compared with `training.losses`
if ".".join(trl.__version__.split(".")[:2]) not in TESTED:
    raise ConfigError(
        f"TRL {trl.__version__} was not tested with training.trl, which depends on its inside: "
        f"install {' or '.join(f'trl=={release}.*' for release in TESTED)}, or use curate's own trainer"
    )

TARGET_MARGIN, WEIGHT = "target_margin", "weight"
REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")
TOKENS = ("prompt_tokens", "chosen_tokens", "rejected_tokens")
NOTHING = -500.0  # ½·log of weight 0; its exponential is 0 in float32, and 0 times it is 0

Values: TypeAlias = NDArray[np.float64]
Collate: TypeAlias = Callable[[list[dict[str, Any]]], dict[str, Any]]


class GammaDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's `DPOTrainer` with a target margin and a weight per pair; all that is not named here is TRL's.

        sigmoid                         ℓ = −log σ(h − (γ_i − γ0)), h of sums                  γ-DPO, arXiv:2506.03690
        sigmoid_norm                    ℓ = −log σ(h − (γ_i − γ0)), h of log-probs per token
        sigmoid_norm, reference_free    ℓ = −log σ(h − γ_i), h of the policy alone             γ-SimPO

    A batch's loss is mean_i(w_i·ℓ_i), in training and in evaluation, whose datasets need the same columns.

    The reference's log-probs (sums over the completion) are the columns `ref_chosen_logps` and `ref_rejected_logps`
    where a dataset has them, and no second model is needed; otherwise TRL computes them before training. They must be
    of the tokens that TRL makes of a pair: messages scored under the chat template, not cut. That is checked where the
    dataset also has the scorer's counts, `prompt_tokens`, `chosen_tokens` and `rejected_tokens`.

    TRL's metrics `rewards/…` have the target margin in them, for it comes with the reference.

    Args:
        model: as TRL takes it, like all the `others`.
        args: with precompute_ref_log_probs=True, and loss_type sigmoid or sigmoid_norm alone.
        train_dataset: a `datasets.Dataset`, like the eval_dataset.
        gamma0: γ0 ≥ 0 in the margin's unit, that of the column `target_margin` (γ_i; a pair without a value gets γ0).
            None does not read that column: DPO, or with `reference_free` SimPO without a margin.
        weighted: read the column `weight` (w_i ≥ 0, of mean 1). A pair of weight 0 leaves no gradient.
        reference_free: the margin of SimPO.

    Raises:
        ConfigError: settings that contradict each other, or a dataset that lacks a column which they need.
        InputError: a value that cannot be, a side without a scored token, tokens that are not the reference's.
    """

    data_collator: Any

    def __init__(
        self,
        model: Any,
        *,
        args: DPOConfig,
        train_dataset: Dataset,
        gamma0: float | None = None,
        weighted: bool = False,
        reference_free: bool = False,
        **others: Any,
    ) -> None:
        self.gamma0, self.weighted, self.reference_free = gamma0, weighted, reference_free
        self._second_model = others.get("ref_model") is not None
        self._check(args)
        super().__init__(model, args=args, train_dataset=train_dataset, **others)
        if weighted:
            self.use_weighting = True  # only from here on, so that TRL computes no weights of its own
            self.data_collator = _WithWeights(self.data_collator)

    def _check(self, args: DPOConfig) -> None:
        losses = "+".join(args.loss_type)
        if losses not in ("sigmoid", "sigmoid_norm"):
            raise ConfigError(
                f"loss_type is {losses}: target margins and weights go with sigmoid or sigmoid_norm alone"
            )
        if self.reference_free and losses != "sigmoid_norm":
            raise ConfigError("reference_free is SimPO, with log-probs per token: set loss_type='sigmoid_norm'")
        if self.reference_free and self._second_model:
            raise ConfigError("reference_free has no reference: leave ref_model out")
        if self.gamma0 is not None and not (math.isfinite(self.gamma0) and self.gamma0 >= 0):
            raise ConfigError(f"gamma0 is {self.gamma0}: it must be finite, 0 or more")
        if not args.precompute_ref_log_probs:
            raise ConfigError("precompute_ref_log_probs is False, then TRL reads no reference from a file: set it True")
        if args.f_divergence_type != "reverse_kl" or args.ld_alpha is not None:
            raise ConfigError("f_divergence_type and ld_alpha change what a margin is: leave them at their defaults")
        if self.weighted and args.use_weighting:
            raise ConfigError("use_weighting (WPO) and weighted both weight the pairs: choose one")

    # --- what TRL does with each dataset ---

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: DPOConfig, dataset_name: str) -> Any:
        self._check_columns(dataset, dataset_name)
        return super()._prepare_dataset(dataset, processing_class, args, dataset_name)

    def _check_columns(self, dataset: Any, name: str) -> None:
        if not isinstance(dataset, Dataset):
            raise ConfigError(f"the {name} dataset is a {type(dataset).__name__}: it must be a datasets.Dataset")
        needed = [TARGET_MARGIN] * (self.gamma0 is not None) + [WEIGHT] * self.weighted
        for column in needed:
            if column not in dataset.column_names:
                raise ConfigError(f"the {name} dataset has no column {column!r}: export it, or leave the setting out")
        for column in [*needed, *(REFERENCE if self._stored(dataset, name) else ())]:
            _check_values(dataset, column, name)

    def _stored(self, dataset: Dataset, name: str) -> bool:
        """Whether the dataset brings the reference's log-probs and they are used."""
        found = [column for column in REFERENCE if column in dataset.column_names]
        if self.reference_free or not found:
            return False
        if len(found) == 1:
            raise ConfigError(
                f"the {name} dataset has {found[0]} alone: it needs both of {', '.join(REFERENCE)}, or none"
            )
        if self._second_model:
            raise ConfigError(
                f"the {name} dataset brings the reference's log-probs: leave ref_model out, or the columns"
            )
        return True

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """The tokenized dataset with the reference's log-probs, and the target margins in them instead of apart."""
        stored = self._stored(dataset, name)
        tokens = _count_tokens(dataset, self.data_collator)
        _check_tokens(dataset, name, tokens.counts_N3, stored=stored)
        if self.reference_free:
            for column in REFERENCE:
                dataset = _replace(dataset, column, np.zeros(len(dataset)))
        elif not stored:
            dataset = super()._precompute_ref_logps(dataset, name, batch_size)
        if self.gamma0 is None:
            return dataset
        target_N = _column(dataset, TARGET_MARGIN)
        shift_N = np.where(np.isnan(target_N), self.gamma0, target_N) - (0.0 if self.reference_free else self.gamma0)
        unit_N = tokens.chosen_N if self.loss_types == ["sigmoid_norm"] else 1
        dataset = _replace(dataset, REFERENCE[0], _column(dataset, REFERENCE[0]) + unit_N * shift_N / self.beta)
        return dataset.remove_columns(TARGET_MARGIN)  # a second time there would be nothing to add

    # --- what TRL does with each batch ---

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if self.weighted and WEIGHT not in self._signature_columns:
            self._signature_columns.append(WEIGHT)

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> Any:
        """TRL's, of a batch that may have weights."""
        return super().compute_ref_log_probs(model, {key: value for key, value in inputs.items() if key != WEIGHT})

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        if not self.weighted:
            return super()._compute_loss(model, inputs, return_outputs)
        rest = {key: value for key, value in inputs.items() if key != WEIGHT}
        return super()._compute_loss(_weighting(model, inputs[WEIGHT]), rest, return_outputs)


# --- batches ---


class _WithWeights:
    """A collator that also hands on `weight`, which TRL's own leaves behind."""

    def __init__(self, collate: Collate) -> None:
        self.collate = collate

    def __call__(self, pairs: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self.collate(pairs), WEIGHT: torch.tensor([pair[WEIGHT] for pair in pairs], dtype=torch.float32)}


def _weighting(model: Any, weight_B: Tensor) -> Callable[..., Any]:
    """The model's fused forward pass, with s_t = log p_t − ½·log w for TRL's weight of a pair; see the file's head."""
    half_log_B = torch.clamp(torch.log(weight_B) / 2, min=NOTHING)

    def forward(**inputs: Any) -> Any:
        outputs = model(**inputs)
        if inputs.get("fused_lm_head"):
            outputs.log_sum_sq_probs = outputs.log_probs.detach().float() - half_log_B.repeat(2)[:, None]
        return outputs

    return forward


# --- columns ---


def _replace(dataset: Dataset, column: str, value_N: Values) -> Dataset:
    if column in dataset.column_names:
        dataset = dataset.remove_columns(column)
    return dataset.add_column(column, value_N)


def _column(dataset: Dataset, column: str) -> Values:
    """A column of numbers in float64, shape (N,); NaN where there is none."""
    values: Values = dataset.with_format("arrow", columns=[column])[:][column].cast(pa.float64()).to_numpy()
    return values


_FINITE = "it must be finite"
#: column → what its values must be, and which are
_RULES: dict[str, tuple[str, Callable[[Values], NDArray[np.bool_]]]] = {
    WEIGHT: (f"{_FINITE}, 0 or more", lambda value_N: np.isfinite(value_N) & (value_N >= 0)),
    TARGET_MARGIN: (f"{_FINITE}, or missing where it is to be γ0", lambda value_N: ~np.isinf(value_N)),
    REFERENCE[0]: (_FINITE, np.isfinite),
    REFERENCE[1]: (_FINITE, np.isfinite),
}


def _check_values(dataset: Dataset, column: str, name: str) -> None:
    dtype = dataset.features[column].dtype
    if not dtype.startswith(("float", "int", "uint", "null")):
        raise InputError(f"the {name} dataset's column {column!r} holds {dtype}: it must hold numbers")
    value_N = _column(dataset, column)
    rule, holds = _RULES[column]
    _require(holds(value_N), dataset, name, lambda i: f"{column} is {value_N[i]}: {rule}")


def _require(good_N: NDArray[np.bool_], dataset: Dataset, name: str, complaint: Callable[[int], str]) -> None:
    bad = np.flatnonzero(~good_N)
    if len(bad):
        first = int(bad[0])
        pair = f"pair {dataset[first]['pair_id']}" if "pair_id" in dataset.column_names else f"row {first}"
        others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise InputError(f"the {name} dataset, {pair}{others}: {complaint(first)}")


class _Tokens(NamedTuple):
    """TRL's numbers of tokens: |y_w| that it divides by, shape (N,); those of TOKENS, shape (N, 3)."""

    chosen_N: NDArray[np.int64]
    counts_N3: NDArray[np.int64]


def _count_tokens(dataset: Dataset, collate: Collate) -> _Tokens:
    parts = [_count_batch(batch) for batch in DataLoader(dataset, batch_size=256, collate_fn=collate)]
    return _Tokens(*(torch.cat(part).numpy() for part in zip(*parts, strict=True)))


def _count_batch(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """A collator's batch has the chosen sides of its B pairs before the rejected ones."""
    chosen_BT, rejected_BT = batch["completion_mask"].chunk(2)
    prompt_B = batch["attention_mask"].chunk(2)[0].sum(dim=-1) - chosen_BT.sum(dim=-1)
    scored = (side_BT[:, 1:].sum(dim=-1) for side_BT in (chosen_BT, rejected_BT))  # nothing predicts the first token
    return chosen_BT.sum(dim=-1), torch.stack([prompt_B, *scored], dim=1)


def _check_tokens(dataset: Dataset, name: str, counts_N3: NDArray[np.int64], *, stored: bool) -> None:
    empty_N = counts_N3[:, 1:].min(axis=1) == 0
    _require(~empty_N, dataset, name, lambda i: "TRL scores no token of one side: drop the pair, or raise max_length")
    if not stored or not set(TOKENS) <= set(dataset.column_names):
        return
    expected_N3 = np.stack([_column(dataset, column) for column in TOKENS], axis=1)
    same_N = np.abs(counts_N3 - expected_N3).max(axis=1) == 0
    _require(
        same_N,
        dataset,
        name,
        lambda i: (
            f"prompt, chosen and rejected have {_listed(counts_N3[i])} tokens in TRL and {_listed(expected_N3[i])} in "
            "the stored reference: score with TRL's template and max_length, or leave its log-probs out"
        ),
    )


def _listed(counts: NDArray[Any]) -> str:
    return ", ".join(f"{count:g}" for count in counts)
