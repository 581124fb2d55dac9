"""Ready-made plans: one is a function from a run's columns and its own parameters, and an entry of `READY_MADE`.

A parameter that is a text names a column. Removal is the default: where a plan flips, a second signal must agree, and
what only one signal calls wrong is dropped.

The cleaners of PrefCleanBench (arXiv:2509.23564) follow its release, apart from their flips, which there need no second
signal.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial

from curate.checks import CHECKS
from curate.columns import NEEDS
from curate.errors import ConfigError
from curate.expressions import Column, quoted_name
from curate.opinions import EVIDENCE, POLICY, RATINGS, REWARDS, VOTES, source_of
from curate.plans import Plan, Rule

Names = Collection[str]
Rules = tuple[Rule, ...]


@dataclass(frozen=True)
class ReadyMade:
    """A plan that needs a run's columns. published: whether it is one of PrefCleanBench's cleaners."""

    rules: Callable[..., Rules]
    about: str
    target_margin: str | None = None
    published: bool = False

    @property
    def parameters(self) -> dict[str, str | float]:
        """Its parameters and their defaults."""
        signature = inspect.signature(self.rules).parameters.values()
        return {entry.name: entry.default for entry in signature if entry.name not in ("columns", "flip")}


def ready_made(name: str, columns: Names, **parameters: str | float) -> Plan:
    """A ready-made plan, for a run that has these columns.

    Raises:
        ConfigError: there is no such plan, it has no such parameter, or a column that it needs is not there.
    """
    if (found := READY_MADE.get(name)) is None:
        raise ConfigError(f"no plan {name!r}: there are {', '.join(READY_MADE)}")
    known = found.parameters
    if unknown := parameters.keys() - known.keys():
        raise ConfigError(f"{name} has no parameter {min(unknown)!r}: it has {', '.join(known) or 'none'}")
    values = {key: _value(name, key, default, parameters.get(key, default)) for key, default in known.items()}
    for key, value in values.items():
        if isinstance(value, str) and value not in columns:
            needed = NEEDS.get(value, "a file, with curate diagnose RUN --signals FILE")
            raise ConfigError(f"{name} needs a column {value!r}, which comes from {needed}; {key} names another")
    margin = None if found.target_margin is None else Column(found.target_margin)
    return Plan(name, found.rules(columns, **values), found.about, margin)


def _value(plan: str, key: str, default: str | float, value: str | float) -> str | float:
    """A parameter's value; texts from a command line become numbers where those are asked for."""
    if isinstance(default, str):
        return str(value)
    try:
        number = float(value)
    except ValueError as error:
        raise ConfigError(f"{plan}: {key} is {value!r}, no number") from error
    if not 0 < number < 1:
        raise ConfigError(f"{plan}: {key} is {value}: it must lie between 0 and 1")
    return number


# --- parts ---------------------------------------------------------------------------------------

#: Checks that find a pair defective: what is wrong with the pair itself, and that other pairs contradict it.
DEFECTS, CONTRADICTIONS = (
    tuple(name for name, check in CHECKS.items() if check.severity == "defect" and check.over == over)
    for over in ("pair", "all")
)

_BROKEN = Rule.parse('when kind = "defective" then drop because "a check found a defect"')
_CALLED_FLIPPED = 'kind = "flipped"'
_SAYS_FLIPPED = {
    EVIDENCE: ("kind", _CALLED_FLIPPED),
    RATINGS: ("rating", "rating < 0"),
    REWARDS: ("reward_model", "reward_model < 0"),
    VOTES: ("votes_against", "votes_against > votes_for"),
}


def _found(checks: Iterable[str]) -> str:
    """One of these checks found something."""
    return " or ".join(f'"{check}" in checks' for check in checks)


def _removed(predicate: str, reason: str) -> Rules:
    return (Rule.parse(f'when {predicate} then drop because "{reason}"'),)


def _flipped(predicate: str, source: str | None, reason: str, columns: Names) -> Rules:
    """Flip where another signal than `source` agrees, drop where none does."""
    others = [says for other, (column, says) in _SAYS_FLIPPED.items() if other != source and column in columns]
    others += [f"{quoted_name(name)} < 0" for name in columns if name == source_of(name) != source]
    agree = f"{predicate} and ({' or '.join(others)})"
    flip = Rule.parse(f'when {agree} then flip because "{reason}, and so does another signal"')
    return (flip, *_removed(predicate, f"{reason}, and no other signal does"))


def _against(signal: str, reason: str, columns: Names, *, flip: bool) -> Rules:
    """By a signal's sign."""
    predicate = f"{quoted_name(signal)} < 0"
    return _flipped(predicate, source_of(signal), reason, columns) if flip else _removed(predicate, reason)


def _lowest(number: str, source: str | None, share: float, reason: str, columns: Names, *, flip: bool) -> Rules:
    """By a share of the pairs with the lowest numbers."""
    predicate = f"share_below({number}) < {share!r}"
    return _flipped(predicate, source, reason, columns) if flip else _removed(predicate, reason)


# --- plans ---------------------------------------------------------------------------------------


def _drop_defects(columns: Names) -> Rules:
    return (_BROKEN,)


def _conservative(columns: Names, sure: float = 0.6) -> Rules:
    """Pairs that contradict one another are not broken: which of their labels is wrong is for the evidence to say.

    Of two opposite labels one is wrong at whatever rate of flips, so that the evidence alone is the odds between them.
    """
    resolved, opposite, siblings = 'kind != "unresolved"', '"opposite_label" in checks', "fused_random_folds"
    doubtful = f"{resolved} and p_flip >= {sure / 2!r} and share_below({siblings}) < 0.1"
    return (
        *_removed(_found(DEFECTS), "a check found a defect"),
        Rule.parse('when tie then soft(0.5) because "no side was preferred"'),
        *_removed(f"{resolved} and p_flip >= {sure!r}", "the label is very likely the wrong way round"),
        *(_removed(doubtful, "other pairs of the prompt contradict it too") if siblings in columns else ()),
        Rule.parse(
            f'when {opposite} then soft(1 / (1 + exp(-evidence))) because "another pair has the opposite label"'
        ),
        *_removed(
            f"({_found(CONTRADICTIONS)}) and p_flip is null", "other pairs contradict it, and no evidence decides"
        ),
        Rule.parse(f'when {resolved} then soft because "the label counts as far as it is likely right"'),
    )


def _as_it_is(columns: Names) -> Rules:
    return ()


def _gamma_weights(columns: Names) -> Rules:
    return (Rule.parse('when weight is not null then weight(weight) because "the γ-PO weight"'),)


def _two_signals_flip(columns: Names) -> Rules:
    return (_BROKEN, *_flipped(_CALLED_FLIPPED, EVIDENCE, "the evidence contradicts the label", columns))


def _llm_judge(columns: Names, judge: str = "judge", *, flip: bool) -> Rules:
    return _against(judge, "the judge contradicts the label", columns, flip=flip)


def _reward_gap(columns: Names, gap: str = "reward_model", share: float = 0.2, *, flip: bool) -> Rules:
    reason = "the reward gap contradicts the label most"
    return _lowest(quoted_name(gap), source_of(gap), share, reason, columns, flip=flip)


def _vote_majority(columns: Names, *, flip: bool) -> Rules:
    return _against("vote_majority", "the majority of the signals contradicts the label", columns, flip=flip)


def _vote_all(columns: Names, *, flip: bool) -> Rules:
    return _against("vote_all", "the whole of the signals contradicts the label", columns, flip=flip)


def _tag_complexity(columns: Names, tags: str = "tag_count", share: float = 0.2) -> Rules:
    return _removed(f"share_below({quoted_name(tags)}) < {share!r}", "the prompt has few tags")


def _tag_diversity(columns: Names, new_tags: str = "new_tag_count") -> Rules:
    return _removed(f"{quoted_name(new_tags)} <= 0", "the prompt has no tag that the others do not have")


def _ifd(columns: Names, share: float = 0.2) -> Rules:
    return (
        *_removed("-ifd > 1", "the prompt makes the chosen side less likely"),
        *_lowest("-ifd", None, share, "the chosen side follows from the prompt most easily", columns, flip=False),
    )


def _ifd_gap(columns: Names, share: float = 0.2, *, flip: bool) -> Rules:
    reason = "the chosen side follows from the prompt much more easily than the rejected one"
    return _lowest("-ifd_gap", POLICY, share, reason, columns, flip=flip)


def _cleaners(name: str, rules: Callable[..., Rules], about: str) -> dict[str, ReadyMade]:
    """A cleaner of PrefCleanBench, removing and flipping."""
    flips = f"flips, where a second signal agrees, else drops {about}"
    return {
        f"{name}-remove": ReadyMade(partial(rules, flip=False), f"drops {about}", published=True),
        f"{name}-flip": ReadyMade(partial(rules, flip=True), flips, published=True),
    }


READY_MADE = {
    "drop-defects": ReadyMade(_drop_defects, "drops what a check calls defective"),
    "conservative": ReadyMade(_conservative, "drops what is broken and sure flips, soft labels for the rest"),
    "gamma-po": ReadyMade(_as_it_is, "γ-PO as published: keeps all, each with its target margin γ_i", "target_margin"),
    "gamma-weights": ReadyMade(_gamma_weights, "γ-PO's w_i as weights of the loss instead, which is not published"),
    "two-signals-flip": ReadyMade(_two_signals_flip, "drops defects; of flips, turns what a second signal contradicts"),
    **_cleaners("llm-judge", _llm_judge, "what a judge contradicts"),
    **_cleaners("reward-gap", _reward_gap, "the share with the lowest reward gaps"),
    **_cleaners("vote-majority", _vote_majority, "what most signals contradict"),
    **_cleaners("vote-all", _vote_all, "what all signals contradict"),
    "tag-complexity": ReadyMade(_tag_complexity, "drops the share with the fewest tags", published=True),
    "tag-diversity": ReadyMade(_tag_diversity, "drops what adds no tag", published=True),
    "ifd": ReadyMade(_ifd, "drops an IFD above 1 and the share with the lowest IFD", published=True),
    **_cleaners("ifd-gap", _ifd_gap, "the share with the lowest IFD gap, chosen − rejected"),
}
