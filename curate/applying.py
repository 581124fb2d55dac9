"""A plan applied to a run: one query over its tables, whatever the number of rules. Reads only.

A rule whose weight or soft label is null for a pair does not match it. A weight or soft label that no pair can have
is an error, not a guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from curate.columns import Columns
from curate.compiling import Compiler
from curate.errors import ConfigError
from curate.expressions import Arithmetic, Column, Node, Number, shown
from curate.plans import Plan, Rule, located
from curate.predicates import MOST, TAKES, Action, parse
from curate.view import RunView

UNMATCHED = "no rule matches"
#: What `soft` without a number means: P(chosen is better).
P_BETTER = Arithmetic("-", Number(1.0), Column("p_flip"))
STAY = ("keep", "soft", "weight")  # with their label, so that a target margin fits them


@dataclass(frozen=True)
class Query:
    """SQL over a run's tables, which may stand in parentheses as a part of another query; its parameters by name."""

    sql: str
    parameters: Mapping[str, Any]


def check_plan(view: RunView, plan: Plan) -> None:
    """Make sure that a plan fits a run, without looking at any pair.

    Raises:
        ConfigError: it names a column that the run does not have, or uses one as what it is not; it says where.
    """
    compiler = Compiler(Columns.of(view))
    _margin(compiler, plan)
    for number, rule in enumerate(plan.rules, 1):
        _rule(compiler, f"{shown(plan.name)}, rule {number}", rule)


def match_query(view: RunView, predicate: Node | str) -> Query:
    """The pairs that a predicate matches: `pair_id`, `row`.

    Raises:
        ConfigError: the predicate is at fault; it says at which column.
    """
    compiler = Compiler(Columns.of(view))
    truth = compiler.truth(parse(predicate) if isinstance(predicate, str) else predicate)
    inner = f'SELECT pairs.pair_id, pairs."row", {truth} AS hit FROM {compiler.source(view)}'
    return Query(f'SELECT pair_id, "row" FROM ({inner}) WHERE hit', compiler.parameters)


def decision_query(view: RunView, plan: Plan) -> Query:
    """What a plan decides, a line for each pair of the run.

    Columns: `pair_id`, `row`, `rule` (from 1; 0 where none matches), `action`, `value` (weight or soft label, else
    null), `target_margin` (null where the plan sets none or the pair leaves or is flipped), `reason`.

    Raises:
        ConfigError: a rule is at fault, or gives a pair an impossible weight or soft label; it says which, and where.
    """
    query = rule_query(view, plan)
    names = {"plan_actions": _actions(plan), "plan_reasons": _reasons(plan)}
    action, reason = (f"(${name}::VARCHAR[])[rule + 1]" for name in names)
    columns = f'pair_id, "row", rule, {action} AS action, value, target_margin, {reason} AS reason'
    return Query(f"SELECT {columns} FROM ({query.sql})", {**query.parameters, **names})


def rule_query(view: RunView, plan: Plan, beside: Sequence[str] = ()) -> Query:
    """Which rule decides, a line for each pair of the run.

    Columns: `pair_id`, `row`, `rule`, `value`, `target_margin` as in `decision_query`, and those of the run that are to
    stand beside them: null where it has none of that name.

    Raises:
        ConfigError: as `decision_query`.
    """
    query = _query(view, plan, beside)
    if counts := _impossible(plan):
        _check_values(plan, _counted(view, query, counts))
    return query


def decide(view: RunView, plan: Plan) -> pd.DataFrame:
    """What a plan decides, in the input's order: `decision_query` without `pair_id`; action and reason categorical.

    Raises:
        ConfigError: as `decision_query`.
    """
    query = _query(view, plan)
    found = view.sql(f'SELECT "row", rule, value, target_margin FROM ({query.sql})', **query.parameters)
    _check_values(plan, _impossible_among(plan, found["rule"], found["value"]))
    if not found["row"].is_monotonic_increasing:
        found = found.sort_values("row", ignore_index=True)
    found["action"] = _categorical(found["rule"], _actions(plan))
    found["reason"] = _categorical(found["rule"], _reasons(plan))
    return found[["row", "rule", "action", "value", "target_margin", "reason"]]


def tally(view: RunView, plan: Plan) -> pd.DataFrame:
    """What each rule does, a line a rule, and one for the pairs that none matches.

    Columns: `rule`, `when`, `action`, `reason`, `matches` (pairs that it matches), `decides` (those that no earlier
    rule does). The last column adds up to the pairs of the run.

    Raises:
        ConfigError: as `decision_query`.
    """
    query = _query(view, plan)
    numbers = range(len(plan.rules) + 1)
    counts = [f"count(*) FILTER (WHERE rule = {number}) AS decides_{number}" for number in numbers]
    counts += [f"count(*) FILTER (WHERE match_{number}) AS matches_{number}" for number in numbers[1:]]
    counts += _impossible(plan)
    found = _counted(view, query, counts)
    _check_values(plan, found)
    texts = zip(numbers, ("", *(str(rule.when) for rule in plan.rules)), _actions(plan), _reasons(plan), strict=True)
    lines = [
        (*text, found.get(f"matches_{text[0]}", found["decides_0"]), found[f"decides_{text[0]}"]) for text in texts
    ]
    return pd.DataFrame([*lines[1:], lines[0]], columns=["rule", "when", "action", "reason", "matches", "decides"])


def _counted(view: RunView, query: Query, counts: Sequence[str]) -> dict[str, int]:
    """Aggregates over what a query gives."""
    found = view.sql(f"SELECT {', '.join(counts)} FROM ({query.sql})", **query.parameters)
    return {str(name): int(found[name][0]) for name in found}


def _actions(plan: Plan) -> list[str]:
    """By number of the rule, that of none first."""
    return ["keep", *(rule.then.name for rule in plan.rules)]


def _reasons(plan: Plan) -> list[str]:
    return [UNMATCHED, *(rule.why for rule in plan.rules)]


def _categorical(rule_N: pd.Series, texts: list[str]) -> pd.Series:
    """Each pair's text; one category for each different text."""
    code_R, categories = pd.factorize(np.array(texts, dtype=object))
    kind = pd.CategoricalDtype([*categories])
    return pd.Series(pd.Categorical.from_codes(code_R.astype(np.int32)[rule_N.to_numpy()], dtype=kind))


# --- weights and soft labels that no pair can have -------------------------------------------------


def _limited(plan: Plan) -> dict[int, Action]:
    """Rules whose number depends on the pair."""
    actions = enumerate((rule.then for rule in plan.rules), 1)
    return {number: action for number, action in actions if action.value and not isinstance(action.value, Number)}


def _impossible(plan: Plan) -> list[str]:
    """SQL that counts the pairs to which a rule gives a number out of its limits."""
    return [
        f"count(*) FILTER (WHERE rule = {number} AND (value < 0 OR value > '{MOST[action.name]}'::DOUBLE))"
        f" AS impossible_{number}"
        for number, action in _limited(plan).items()
    ]


def _impossible_among(plan: Plan, rule_N: pd.Series, value_N: pd.Series) -> dict[str, int]:
    return {
        f"impossible_{number}": int(((rule_N == number) & ((value_N < 0) | (value_N > MOST[action.name]))).sum())
        for number, action in _limited(plan).items()
    }


def _check_values(plan: Plan, found: Mapping[str, int]) -> None:
    for number, action in _limited(plan).items():
        if pairs := found[f"impossible_{number}"]:
            raise ConfigError(
                f"{shown(plan.name)}, rule {number}: {shown(action)} is not {TAKES[action.name]}, for {pairs:,} pairs; "
                "min(…, …) and max(…, …) keep a number within limits"
            )


# --- SQL -----------------------------------------------------------------------------------------


def _query(view: RunView, plan: Plan, beside: Sequence[str] = ()) -> Query:
    """A line for each pair: the first rule that matches, its value, whether each rule matches, and other columns."""
    columns = Columns.of(view)
    compiler = Compiler(columns)
    numbers = range(1, len(plan.rules) + 1)
    inner, matches = ["pairs.pair_id", 'pairs."row"', f"{_margin(compiler, plan)} AS margin"], []
    inner += [f"{compiler.value(Column(it)) if it in columns.known else 'NULL'} AS {it}" for it in beside]
    for number, rule in zip(numbers, plan.rules, strict=True):
        when, value = _rule(compiler, f"{shown(plan.name)}, rule {number}", rule)
        inner += [f"{when} AS when_{number}", f"{value or 'NULL'} AS value_{number}"]
        matches.append(f"when_{number} AND value_{number} IS NOT NULL" if value else f"when_{number}")
    stays = [0, *(number for number in numbers if plan.rules[number - 1].then.name in STAY)]
    outer = [
        'pair_id, "row"',
        *beside,
        *(f"{match} AS match_{number}" for number, match in zip(numbers, matches, strict=True)),
        f"{_case('', [(match, number) for number, match in zip(numbers, matches, strict=True)], 0)} AS rule",
        f"{_case('rule', [(number, f'value_{number}') for number in numbers], 'NULL::DOUBLE')} AS value",
        f"CASE WHEN rule IN ({', '.join(map(str, stays))}) THEN margin END AS target_margin",
    ]
    sql = f"SELECT {', '.join(outer)} FROM (SELECT {', '.join(inner)} FROM {compiler.source(view)})"
    return Query(sql, compiler.parameters)


def _margin(compiler: Compiler, plan: Plan) -> str:
    if plan.target_margin is None:
        return "NULL::DOUBLE"
    with located(f"{shown(plan.name)}, target_margin"):
        return compiler.number(plan.target_margin)


def _rule(compiler: Compiler, where: str, rule: Rule) -> tuple[str, str | None]:
    """The SQL of a rule's predicate and, if it has one, of its number."""
    with located(f"{where}, when"):
        when = compiler.truth(rule.when)
    number = P_BETTER if rule.then.name == "soft" and rule.then.value is None else rule.then.value
    if number is None:
        return when, None
    with located(f"{where}, then"):
        return when, compiler.number(number)


def _case(value: str, branches: Sequence[tuple[object, object]], otherwise: object) -> str:
    whens = "".join(f" WHEN {when} THEN {then}" for when, then in branches)
    return f"CASE {value}{whens} ELSE {otherwise} END" if whens else str(otherwise)
