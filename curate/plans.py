"""A plan: ordered rules that say what becomes of a pair, and its TOML file.

The first rule that matches decides; a pair that none matches is kept. A flip needs two signals that agree.

    name = "sure flips"
    about = "drops what is very likely the wrong way round"

    [[rules]]
    when = 'kind = "flipped" and p_flip >= 0.8'
    then = "drop"
    reason = "the label is very likely the wrong way round"
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from curate.errors import ConfigError
from curate.expressions import Node, Text, shown
from curate.opinions import lonely, named
from curate.predicates import TAKES, Action, parse, parse_action, parse_number, parse_rule

_RULE_KEYS = ("when", "then", "reason")
_PLAN_KEYS = ("name", "about", "target_margin", "rules")


@dataclass(frozen=True)
class Rule:
    """What becomes of the pairs that a predicate matches.

    Raises:
        ConfigError: a flip by less than two signals; a weight or soft label that no pair can have.
    """

    when: Node
    then: Action
    reason: str = ""

    def __post_init__(self) -> None:
        if self.then.name == "flip" and (signals := lonely(self.when)) is not None:
            raise ConfigError(
                f"a flip needs two signals that agree, and {shown(self.when)} can hold by {named(signals)} alone: "
                "drop such pairs, or ask for another signal with `and`"
            )
        if not self.then.possible:
            raise ConfigError(f"{shown(self.then)}: {self.then.name} takes {TAKES[self.then.name]}")

    @classmethod
    def parse(cls, text: str) -> Rule:
        """A rule from `when … then … because "…"`.

        Raises:
            ConfigError: the text is no rule.
        """
        return cls(*parse_rule(text))

    def __str__(self) -> str:
        because = f" because {Text(self.reason)}" if self.reason else ""
        return f"when {self.when} then {self.then}{because}"

    @property
    def why(self) -> str:
        """The reason in words; the predicate where none is given."""
        return self.reason or str(self.when)


@dataclass(frozen=True)
class Plan:
    """Ordered rules. target_margin: γ_i of the pairs that stay with their label, where the plan sets them."""

    name: str
    rules: tuple[Rule, ...] = ()
    about: str = ""
    target_margin: Node | None = None

    @classmethod
    def from_toml(cls, text: str, where: str = "the plan") -> Plan:
        """A plan from a file's text. where: what error messages call it.

        Raises:
            ConfigError: it is no plan; it says where.
        """
        try:
            table = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{where}: no TOML ({error})") from error
        _check_keys(where, table, _PLAN_KEYS)
        name, about = (_text(where, table, key) for key in ("name", "about"))
        margin = _text(where, table, "target_margin")
        rules = table.get("rules", [])
        if not isinstance(rules, list):
            raise ConfigError(f"{where}: rules are tables, each under a line [[rules]]")
        with located(f"{where}, target_margin"):
            target_margin = parse_number(margin) if margin else None
        return cls(
            name or where,
            tuple(_rule(f"{where}, rule {number}", rule) for number, rule in enumerate(rules, 1)),
            about,
            target_margin,
        )

    def toml(self) -> str:
        """The text of a file that says the same."""
        margin = "" if self.target_margin is None else str(self.target_margin)
        head = _lines({"name": self.name, "about": self.about, "target_margin": margin})
        rules = [
            "[[rules]]\n" + _lines({"when": str(rule.when), "then": str(rule.then), "reason": rule.reason})
            for rule in self.rules
        ]
        return "\n".join([head, *rules])


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """A plan from a file.

    Raises:
        ConfigError: the file cannot be read, or is no plan; it says where.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    return Plan.from_toml(text, str(path))


@contextmanager
def located(where: str) -> Iterator[None]:
    """Say in front of a `ConfigError` where it is."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


# --- TOML ----------------------------------------------------------------------------------------


def _rule(where: str, table: object) -> Rule:
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: a rule is a table of {', '.join(_RULE_KEYS)}")
    _check_keys(where, table, _RULE_KEYS)
    when, then, reason = (_text(where, table, key) for key in _RULE_KEYS)
    with located(f"{where}, when"):
        predicate = parse(when)
    with located(f"{where}, then"):
        action = parse_action(then)
    with located(where):
        return Rule(predicate, action, reason)


def _check_keys(where: str, table: Mapping[str, object], known: tuple[str, ...]) -> None:
    if unknown := [key for key in table if key not in known]:
        raise ConfigError(f"{where}: {unknown[0]!r} means nothing here: there are {', '.join(known)}")


def _text(where: str, table: Mapping[str, object], key: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise ConfigError(f"{where}: {key} is {value!r}, which is no text in quotes")
    return value


def _lines(entries: Mapping[str, str]) -> str:
    return "".join(f"{key} = {_written(value)}\n" for key, value in entries.items() if value)


def _written(text: str) -> str:
    """A TOML string, in single quotes where it holds double ones and can."""
    if '"' in text and "'" not in text and text.isprintable():
        return f"'{text}'"
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
