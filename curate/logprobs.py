"""The kernel: unique (prompt, completion) sequences → sums of log-probs and pooled hidden states.

    packed   no padding; a prompt that several completions share is computed once; the output layer runs on the
             completions alone, a chunk at a time
    padded   the model's own forward pass over right-padded sequences: for architectures that `packed` does not know

A `Scorer` tries `packed` against `padded` on a few sequences when it starts, and uses it only if they agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from curate import attention
from curate.attention import PACKED
from curate.errors import ModelError
from curate.models import Device
from curate.packing import Group, Ids, pack, sum_by, token_log_probs

#: Changes whenever scores may differ from those of the version before.
KERNEL_VERSION = 1

BATCH_TOKENS = {"cpu": 4_096, "cuda": 32_768}
_LOGITS_BYTES = {"cpu": 64 << 20, "cuda": 512 << 20}
_AGREEMENT_NATS = {"float32": 1e-3, "tf32": 0.05, "float16": 0.05, "bfloat16": 0.5}  # a token, on average
_LARGEST_FLOAT16 = 65504.0


@dataclass(frozen=True)
class Scored:
    """C completions, in the order of the groups and of the completions within.

    logp_C: Σ_t log π(y_t | x, y_<t), nats, float64.
    pooled_C2D: mean over the completion's tokens of the middle and the last layer's hidden states, float16; or None.
    """

    logp_C: NDArray[np.float64]
    pooled_C2D: NDArray[np.float16] | None


class Scorer:
    """Scores groups with one model on one device."""

    def __init__(
        self, model: torch.nn.Module, device: Device, *, batch_tokens: int | None = None, features: bool = True
    ) -> None:
        """Prepare the model and choose the kernel.

        Raises:
            ModelError: neither kernel works with this model.
        """
        self.model = cast("Any", model)
        self.device = device
        self.features = features
        kind = "cuda" if device.is_cuda else "cpu"
        self.batch_tokens = batch_tokens or BATCH_TOKENS[kind]
        self.logits_bytes = _LOGITS_BYTES[kind]
        if device.dtype == "float16":
            keep_in_float32(self.model.get_output_embeddings())
        self.own_attention: str = self.model.config._attn_implementation
        self.kernel, self.why_padded = self._choose_kernel()

    @property
    def width(self) -> int:
        """D, the width of the hidden states."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    def score(self, groups: Sequence[Group]) -> Scored:
        """Score every completion.

        Raises:
            ModelError: a single sequence does not fit into the device's memory.
        """
        pieces = list(_split(groups, self.batch_tokens))
        order = sorted(range(len(pieces)), key=lambda i: pieces[i].tokens, reverse=True)
        done: dict[int, Scored] = {}
        for batch in _batches([(i, pieces[i]) for i in order], self.batch_tokens):
            indices, members = zip(*batch, strict=True)
            done.update(zip(indices, _divide(self._run(list(members)), members), strict=True))
        return _join([done[i] for i in range(len(pieces))])

    def rescore(self, group: Group) -> NDArray[np.float64]:
        """The same log-probs by the model's own forward pass, one sequence at a time: another shape of batch."""
        alone = [Group(group.prompt, (completion,)) for completion in group.completions]
        return np.concatenate([self._guarded(self._padded, [one]).logp_C for one in alone])

    @torch.inference_mode()
    def by_token(self, prompt: Ids, completion: Ids) -> NDArray[np.float64]:
        """log π of each token of a completion, nats, shape (T,), by the model's own forward pass."""
        if not completion:
            return np.zeros(0)
        ids_1T = torch.tensor([prompt + completion], device=self.device.name)
        with self._autocast():
            output = self.model(input_ids=ids_1T, use_cache=False, logits_to_keep=len(completion) + 1)
        logp_T = token_log_probs(output.logits[0, :-1].float(), ids_1T[0, len(prompt) :])
        values_T: NDArray[np.float64] = logp_T.double().cpu().numpy()
        return values_T

    def _run(self, batch: list[Group]) -> Scored:
        """Score a batch; where it does not fit into the device's memory, in halves."""
        try:
            return self._guarded(self._packed if self.kernel == "packed" else self._padded, batch)
        except torch.OutOfMemoryError as error:
            halves = _halves(batch)
            if not halves:
                raise ModelError(
                    f"a sequence of {batch[0].tokens:,} tokens does not fit into the memory of {self.device.name}; "
                    "lower --max-length, or choose a smaller dtype"
                ) from error
        torch.cuda.empty_cache()
        return _join([self._run(half) for half in halves])

    @torch.inference_mode()
    def _guarded(self, kernel: Callable[[list[Group]], Scored], batch: list[Group]) -> Scored:
        self.model.set_attn_implementation(PACKED if kernel == self._packed else self.own_attention)
        try:
            return kernel(batch)
        finally:
            self.model.set_attn_implementation(self.own_attention)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.device.dtype == "float16":
            return torch.autocast("cuda", dtype=torch.float16)
        return nullcontext()

    # --- packed ---

    def _packed(self, batch: list[Group]) -> Scored:
        if self.model.config._attn_implementation != PACKED:
            raise attention.UnsupportedAttentionError("the model's attention cannot be exchanged")
        row = pack(batch)
        place = self.device.name
        states: list[torch.Tensor] = []
        hook = (
            self._middle_layer().register_forward_hook(
                lambda module, inputs, output: states.append(output[0] if isinstance(output, tuple) else output)
            )
            if self.features
            else None
        )
        try:
            with self._autocast():
                last_TD = self.model.base_model(
                    input_ids=torch.tensor([row.ids], device=place),
                    position_ids=torch.tensor([row.positions], device=place),
                    segments=row.segments,
                    use_cache=False,
                ).last_hidden_state[0]
        finally:
            if hook is not None:
                hook.remove()
        targets_T = torch.tensor(row.targets, device=place)
        logp_T = self._log_probs(last_TD, torch.tensor(row.predictors, device=place), targets_T)
        logp_C = sum_by(logp_T.double()[:, None], row.lengths)[:, 0]
        pooled = None
        if self.features:
            tokens_T = torch.tensor(row.tokens, device=place)
            pooled = _pool([state[tokens_T] for state in (states[0][0], last_TD)], row.lengths)
        return Scored(logp_C.cpu().numpy(), pooled)

    def _log_probs(self, hidden_TD: torch.Tensor, predictors_T: torch.Tensor, targets_T: torch.Tensor) -> torch.Tensor:
        """log π of each target from the hidden state that predicts it, in float32; never all logits at once."""
        head = self.model.get_output_embeddings()
        rows = max(1, self.logits_bytes // (4 * head.weight.shape[0]))
        pieces = []
        for predictors, targets in zip(torch.split(predictors_T, rows), torch.split(targets_T, rows), strict=True):
            logits_TV = self._softcapped(head(hidden_TD[predictors].to(head.weight.dtype)).float())
            pieces.append(token_log_probs(logits_TV, targets))
        return torch.cat(pieces)

    def _softcapped(self, logits_TV: torch.Tensor) -> torch.Tensor:
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        return logits_TV if cap is None else cap * torch.tanh(logits_TV / cap)

    def _middle_layer(self) -> torch.nn.Module:
        """The layer whose output is the model's `hidden_states[L // 2]`."""
        depth = self.model.config.num_hidden_layers
        for module in self.model.base_model.modules():
            if isinstance(module, torch.nn.ModuleList) and len(module) == depth:
                middle: torch.nn.Module = module[max(depth // 2 - 1, 0)]
                return middle
        raise attention.UnsupportedAttentionError("no list of layers found")

    # --- padded ---

    def _padded(self, batch: list[Group]) -> Scored:
        """The model's own forward pass. Right padding under causal attention needs no mask."""
        place = self.device.name
        sequences = [(group.prompt, completion) for group in batch for completion in group.completions]
        longest = max(len(prompt) + len(completion) for prompt, completion in sequences)
        ids_CT = torch.zeros((len(sequences), longest), dtype=torch.long)
        for ids_T, (prompt, completion) in zip(ids_CT, sequences, strict=True):
            ids_T[: len(prompt) + len(completion)] = torch.tensor(prompt + completion)
        first = min(len(prompt) for prompt, _ in sequences) - 1
        ids_CT = ids_CT.to(place)
        with self._autocast():
            output = self.model(
                input_ids=ids_CT,
                use_cache=False,
                logits_to_keep=longest - first,
                output_hidden_states=self.features,
            )
        sums, pooled = [], []
        for index, (prompt, completion) in enumerate(sequences):
            start, stop = len(prompt), len(prompt) + len(completion)
            logits_TV = output.logits[index, start - 1 - first : stop - 1 - first].float()
            sums.append(token_log_probs(logits_TV, ids_CT[index, start:stop]).double().sum())
            if self.features:
                depth = self.model.config.num_hidden_layers
                layers = (output.hidden_states[max(depth // 2, 1)], output.hidden_states[-1])
                pooled.append(_pool([layer[index, start:stop] for layer in layers], [len(completion)]))
        return Scored(torch.stack(sums).cpu().numpy(), np.concatenate(pooled) if self.features else None)

    # --- which of them ---

    def _choose_kernel(self) -> tuple[str, str | None]:
        """`packed` where it agrees with the model's own forward pass, else `padded` and the reason."""
        probe = _probe_groups(int(self.model.get_input_embeddings().weight.shape[0]))
        try:
            expected_C = np.concatenate([self.rescore(group) for group in probe])
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise ModelError(f"the model cannot be scored: {' '.join(str(error).split())}") from error
        if not np.isfinite(expected_C).all():
            raise ModelError(f"the model's log-probs are not finite in {self.device.dtype}: choose another --dtype")
        try:
            attention.register()
            reason = self._disagreement(self._packed, probe, expected_C)
        except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError, KeyError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
        if reason is None:
            return "packed", None
        if doubt := self._disagreement(self._padded, probe, expected_C):
            raise ModelError(f"the model cannot be scored: it is not causal, what follows a text counts ({doubt})")
        return "padded", reason

    def _disagreement(
        self, kernel: Callable[[list[Group]], Scored], probe: list[Group], expected_C: NDArray[np.float64]
    ) -> str | None:
        """How far a kernel's log-probs of a whole batch are from those of each sequence alone, if too far."""
        tokens = sum(len(completion) for group in probe for completion in group.completions)
        difference = float(np.abs(self._guarded(kernel, probe).logp_C - expected_C).sum()) / tokens
        if difference <= _AGREEMENT_NATS[self.device.dtype]:
            return None
        return f"{kernel.__name__.strip('_')} log-probs differ by {difference:.2g} nats a token"


# --- groups and batches --------------------------------------------------------------------------


def _split(groups: Sequence[Group], budget: int) -> Iterator[Group]:
    """Groups that fit the budget, if their completions can be parted so; the order of completions is kept."""
    for group in groups:
        part: list[Ids] = []
        used = len(group.prompt)
        for completion in group.completions:
            if part and used + len(completion) > budget:
                yield Group(group.prompt, tuple(part))
                part, used = [], len(group.prompt)
            part.append(completion)
            used += len(completion)
        yield Group(group.prompt, tuple(part))


def _batches(pieces: Sequence[tuple[int, Group]], budget: int) -> Iterator[list[tuple[int, Group]]]:
    """Fill batches up to the budget, in the order given."""
    batch: list[tuple[int, Group]] = []
    used = 0
    for index, group in pieces:
        if batch and used + group.tokens > budget:
            yield batch
            batch, used = [], 0
        batch.append((index, group))
        used += group.tokens
    if batch:
        yield batch


def _halves(batch: list[Group]) -> list[list[Group]]:
    """A batch in two, or nothing where it cannot be parted."""
    if len(batch) > 1:
        middle = len(batch) // 2
        return [batch[:middle], batch[middle:]]
    prompt, completions = batch[0].prompt, batch[0].completions
    middle = len(completions) // 2
    return [[Group(prompt, completions[:middle])], [Group(prompt, completions[middle:])]] if middle else []


def _divide(scored: Scored, members: Sequence[Group]) -> list[Scored]:
    """A batch's result, by group."""
    stops = np.cumsum([len(group.completions) for group in members])[:-1]
    logp = np.split(scored.logp_C, stops)
    pooled = [None] * len(members) if scored.pooled_C2D is None else np.split(scored.pooled_C2D, stops)
    return [Scored(*both) for both in zip(logp, pooled, strict=True)]


def _join(parts: Sequence[Scored]) -> Scored:
    pooled = [part.pooled_C2D for part in parts if part.pooled_C2D is not None]
    return Scored(np.concatenate([part.logp_C for part in parts]), np.concatenate(pooled) if pooled else None)


def keep_in_float32(head: torch.nn.Module) -> None:
    """Let the output layer compute in float32 under autocast."""
    forward, kind = head.forward, next(head.parameters()).device.type

    def exact(states: torch.Tensor) -> torch.Tensor:
        with torch.autocast(kind, enabled=False):
            logits: torch.Tensor = forward(states.float())
            return logits

    head.forward = exact


def _pool(layers_TD: Sequence[torch.Tensor], lengths: Sequence[int]) -> NDArray[np.float16]:
    """Means over consecutive stretches, shape (C, layers, D)."""
    counts_C1 = torch.tensor(lengths, device=layers_TD[0].device)[:, None]
    means = torch.stack([sum_by(layer.float(), lengths) / counts_C1 for layer in layers_TD], dim=1)
    return means.clamp(-_LARGEST_FLOAT16, _LARGEST_FLOAT16).half().cpu().numpy()


def _probe_groups(vocabulary: int) -> list[Group]:
    """A few sequences of arbitrary tokens to try a kernel on."""
    random = np.random.default_rng(0)

    def ids(length: int) -> Ids:
        return tuple(random.integers(0, vocabulary, length).tolist())

    return [Group(ids(17), (ids(9), ids(23))), Group(ids(5), (ids(12),)), Group(ids(1), (ids(1), ids(6), ids(2)))]
