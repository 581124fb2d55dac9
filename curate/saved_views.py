"""Saved views of a run: a name for a predicate and an order, not a copy of pairs.

Reads and writes `RUN/views.json`. Several people may save at the same time.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from curate.browsing import Order, Wanted
from curate.errors import ConfigError, RunError
from curate.predicates import parse
from curate.store import Run, atomic_path

LONGEST_NAME = 60  # characters
_FILE = "views.json"


@dataclass(frozen=True)
class SavedView:
    """A name for what is looked at. where, sort, state: see `curate.browsing.Wanted`; sort is the order's text."""

    name: str
    where: str = ""
    sort: str = "row"
    state: str = "all"

    def __post_init__(self) -> None:
        if not self.name.strip() or len(self.name) > LONGEST_NAME:
            raise ConfigError(f"a view's name has 1 to {LONGEST_NAME} characters, found {len(self.name)}")
        if self.where.strip():
            parse(self.where)

    @property
    def wanted(self) -> Wanted:
        """Which pairs it shows, in which order."""
        return Wanted(self.where, Order.parse(self.sort), self.state)


def saved_views(run: Path) -> list[SavedView]:
    """The saved views of the run in a folder, by name.

    Raises:
        RunError: their file is damaged.
    """
    path = run / _FILE
    try:
        found = [SavedView(**record) for record in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, ConfigError) as error:
        raise RunError(f"{path}: damaged ({error}); put it right, or delete it to go without saved views") from error
    return sorted(found, key=lambda view: view.name)


def save_view(run: Path, view: SavedView) -> None:
    """Save a view, in place of one of the same name.

    Raises:
        RunError: the file of the others is damaged.
        StorageError: the disk refuses.
    """
    with Run.open(run).lock():
        _write(run, [*(other for other in saved_views(run) if other.name != view.name), view])


def forget_view(run: Path, name: str) -> None:
    """Forget a saved view; errors as `save_view`."""
    with Run.open(run).lock():
        _write(run, [view for view in saved_views(run) if view.name != name])


def _write(run: Path, views: list[SavedView]) -> None:
    with atomic_path(run / _FILE) as temporary:
        temporary.write_text(json.dumps([asdict(view) for view in views], indent=2), encoding="utf-8")
