"""An entry of the log of decisions: about one pair, about many by a plan, or taking back an earlier entry; as JSON."""

from __future__ import annotations

import getpass
import json
import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from curate.errors import ConfigError
from curate.predicates import ACTIONS, MOST, TAKES

VERSION = 1

_ID = re.compile("[0-9a-f]{32}")
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "at", "who", "pair_id", "action", "reason", "origin", "plan", "digest", "of"), (str,)),
    **dict.fromkeys(("value", "margin", "p_flip"), (int, float, type(None))),
    **dict.fromkeys(("copy", "row"), (int, type(None))),
    **dict.fromkeys(("actions", "stages"), (dict,)),
    "pairs": (int,),
}


def check_action(action: str, value: float | None) -> None:
    """Soft needs the probability that chosen is better, weight a weight; the others have no value.

    Raises:
        ConfigError: it is not so, or there is no such action.
    """
    if action not in ACTIONS:
        raise ConfigError(f"no action {action!r}: choose one of {', '.join(ACTIONS)}")
    if action not in MOST:
        fits = value is None
    else:
        fits = value is not None and math.isfinite(value) and 0 <= value <= MOST[action]
    if not fits:
        raise ConfigError(f"the action {action} has the value {value}: it takes {TAKES.get(action, 'none')}")


def storable(text: str) -> str:
    """Text as UTF-8 can hold it: half of a surrogate pair becomes an escape."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True, slots=True)
class PairDecision:
    """What is to be done with one pair.

    action, value: keep, drop, flip, review; soft with P(chosen is better); weight with the weight.
    origin: the rule or page that it comes from.
    copy: of pairs that are the same word for word the first (0), the second (1), …; None: all of them.
    row, margin, p_flip: where the pair stood and what was known of it at that time.
    """

    pair_id: str
    action: str
    value: float | None = None
    reason: str = ""
    origin: str = ""
    copy: int | None = None
    row: int | None = None
    margin: float | None = None
    p_flip: float | None = None

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.pair_id):
            raise ConfigError(f"{self.pair_id!r} is not a pair's id: that has 32 of the digits 0-9 and a-f")
        check_action(self.action, self.value)
        _make_storable(self, "reason", "origin")


@dataclass(frozen=True, slots=True)
class BulkDecision:
    """What a plan or a choice decided about many pairs, which are listed in a file beside the log.

    plan: the rules, as text; empty where the pairs were chosen one by one. origin: the file or page it comes from.
    pairs, actions: how many pairs it is about, and how many of each action. digest: of what it says about them.
    stages: fingerprints of the data, weights and diagnosis that it rests on.
    """

    plan: str
    origin: str
    pairs: int
    actions: Mapping[str, int]
    digest: str
    stages: Mapping[str, str]

    def __post_init__(self) -> None:
        _make_storable(self, "plan", "origin")


@dataclass(frozen=True, slots=True)
class Undo:
    """Takes back an entry, as if it had never been made; taking back an undo restores the entry in its old place."""

    of: str


Decision = PairDecision | BulkDecision | Undo

_KINDS: dict[str, type[PairDecision] | type[BulkDecision] | type[Undo]] = {
    "pair": PairDecision,
    "bulk": BulkDecision,
    "undo": Undo,
}


def this_user() -> str:
    """The name of the user of this process."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return "unknown"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the log. at: UTC, ISO 8601."""

    id: str
    at: str
    who: str
    decision: Decision

    def __post_init__(self) -> None:
        _make_storable(self, "who")

    @classmethod
    def new(cls, decision: Decision, who: str | None = None) -> Entry:
        """An entry of this moment, by the user of this process unless it is said who."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        return cls(uuid.uuid4().hex, at, who or this_user(), decision)

    @property
    def kind(self) -> str:
        """Which of pair, bulk and undo it is."""
        return next(kind for kind, cls in _KINDS.items() if isinstance(self.decision, cls))

    @property
    def said(self) -> dict[str, Any]:
        """The decision's fields."""
        return {name: getattr(self.decision, name) for name in self.decision.__slots__}

    def line(self) -> bytes:
        """The entry as a line of the log: ASCII, whatever is in its texts."""
        head = {"version": VERSION, "id": self.id, "at": self.at, "who": self.who, "kind": self.kind}
        return json.dumps(head | self.said, allow_nan=False).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Entry:
        """Read a line.

        Raises:
            ValueError: it is damaged; the message says how.
        """
        try:
            record = json.loads(line, parse_constant=_refuse)
            if (version := record.pop("version")) != VERSION:
                raise ValueError(f"version {version}, this is version {VERSION}")
            kind = _KINDS[record.pop("kind")]
            if wrong := [name for name, value in record.items() if not isinstance(value, _TYPES[name])]:
                raise ValueError(f"{wrong[0]} is {record[wrong[0]]!r}")
            entry_id, at, who = (record.pop(name) for name in ("id", "at", "who"))
            entry = cls(entry_id, at, who, kind(**record))
        except (KeyError, TypeError, AttributeError, RecursionError, ConfigError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        if not _ID.fullmatch(entry_id):  # it becomes a file's name
            raise ValueError(f"id is {entry_id!r}")
        return entry


def _make_storable(record: object, *names: str) -> None:
    for name in names:
        object.__setattr__(record, name, storable(getattr(record, name)))


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
