"""Token heat, computed: which pieces of a pair's sides speak for them, by the models that scored the run.

Reads the tables `pairs` and the run's scoring settings; writes `RUN/heat/` (see `curate.heat`). Loads models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate import models
from curate.config import ScoreConfig
from curate.errors import ModelError, RunError
from curate.heat import Heat, PairHeat, store_heat, stored_heat
from curate.logprobs import Scorer
from curate.pairs import messages_of
from curate.progress import say
from curate.scoring import make_encoder
from curate.tokens import Ids, TokenizedPair
from curate.view import RunView

_SIDES = ("chosen", "rejected")
_UNFINISHED = "\ufffd"  # what a tokenizer makes of half a character
_LONGEST_CHARACTER = 8  # tokens

LogProbs = NDArray[np.float64]


def pair_heat(view: RunView, pair_id: str, device: str = "auto", tell: Callable[[str], None] = say) -> PairHeat:
    """A pair's heat: the stored one, or computed and stored. The beginning of the id is enough.

    Args:
        device: auto, cpu or cuda.
        tell: told what takes long.

    Raises:
        RunError: the run is not scored, by models that are not the same any more, or has no such pair.
        ModelError: a model cannot be loaded, or its template refuses the pair.
    """
    pair, scored = view.pair(pair_id), view.stage("score")
    if (found := stored_heat(view.path, pair["pair_id"])) is not None:
        return found
    settings = scored["config"]
    config = ScoreConfig(
        **{field.name: settings[field.name] for field in fields(ScoreConfig) if field.name in settings}
    )
    policy = _source(config.policy, scored["passes"]["policy"], tell)
    encoder = make_encoder(policy, config)
    texts = [messages_of([list(pair[name])])[0] for name in ("prompt", *_SIDES)]
    (encoded,) = encoder.encode([(texts[0], texts[1], texts[2])])
    if not isinstance(encoded, TokenizedPair):
        raise ModelError(f"{view.path}: pair {pair['pair_id']}: {encoded}")
    chosen_device = models.choose_device(device, config.dtype)
    sources = {"policy": policy}
    if config.reference is not None:
        sources["reference"] = _source(config.reference, scored["passes"]["reference"], tell)
    by_model = {}
    for name, source in sources.items():
        model = models.load_model(source, chosen_device, trust_remote_code=config.trust_remote_code)
        by_model[name] = _by_side(Scorer(model, chosen_device, features=False), encoded)
    sides = {side: _heat(encoder.tokenizer, getattr(encoded, side), by_model, side) for side in _SIDES}
    heat = PairHeat(pair["pair_id"], config.policy, config.reference, **sides)
    store_heat(view.path, heat)
    return heat


def _source(spec: str, scored: Mapping[str, Any], tell: Callable[[str], None]) -> models.ModelSource:
    source = models.resolve(spec, tell)
    if source.fingerprint != scored["fingerprint"]:
        raise RunError(f"{spec}: not the model that scored this run any more; score again with curate score")
    return source


def _by_side(scorer: Scorer, pair: TokenizedPair) -> dict[str, LogProbs]:
    return {side: scorer.by_token(pair.prompt, getattr(pair, side)) for side in _SIDES}


def _heat(tokenizer: Any, ids: Ids, by_model: Mapping[str, Mapping[str, LogProbs]], side: str) -> Heat:
    stretches = list(pieces(tokenizer, ids))
    starts = [start for start, _ in stretches]
    sums = {name: np.add.reduceat(logp[side], starts).tolist() if starts else [] for name, logp in by_model.items()}
    return Heat([text for _, text in stretches], sums["policy"], sums.get("reference"))


def pieces(tokenizer: Any, ids: Sequence[int]) -> Iterator[tuple[int, str]]:
    """Where each piece of text begins among the tokens, and the piece: a character may take several tokens."""
    start = 0
    for stop in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[start:stop], clean_up_tokenization_spaces=False)
        if not text.endswith(_UNFINISHED) or stop - start >= _LONGEST_CHARACTER or stop == len(ids):
            yield start, text
            start = stop
