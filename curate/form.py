"""A foreign format: how it is recognised, and what one of its rows says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from curate.canon import Pair, Ranking
from curate.errors import ConfigError
from curate.extras import with_extras
from curate.values import Values, kind_of, require_empty

#: What a row is: a pair, a ranking of several answers, or one answer that is joined with its neighbours'.
Shape = Literal["pair", "ranking", "joined"]

Parse = Callable[[Values], Pair | Ranking]

#: Columns whose contents no text model sees: a row that has any is refused.
MEDIA_COLUMNS = ("image", "images", "video", "videos", "audio", "audios")

#: Columns that hold a prompt: a format whose prompt stands inside its sides has none of them.
PROMPT_COLUMNS = frozenset({"prompt", "question", "instruction", "input", "messages", "conversations"})


@dataclass(frozen=True)
class Profile:
    """What the first rows of a file look like: the kinds of values per column, and the rows themselves."""

    kinds: Mapping[str, frozenset[str]]
    rows: tuple[Values, ...]

    @classmethod
    def of(cls, rows: Iterable[Values]) -> Profile:
        """Profile some rows."""
        kept = tuple(rows)
        kinds: dict[str, set[str]] = {}
        for values in kept:
            for name, value in values.items():
                kinds.setdefault(name, set()).add(kind_of(value))
        return cls({name: frozenset(found) for name, found in kinds.items()}, kept)

    def has(self, **wanted: str) -> bool:
        """Whether each named column holds values of the wanted kind (or `any`)."""
        return all(name in self.kinds and (kind == "any" or kind in self.kinds[name]) for name, kind in wanted.items())


@dataclass(frozen=True)
class Format:
    """One foreign format: how to recognise it and how to read a row."""

    name: str
    title: str
    columns: Mapping[str, str]  # needed columns → kind of value
    parse: Parse
    example: Mapping[str, Any]
    shape: Shape = "pair"
    more: tuple[Values, ...] = ()  # the rows that make a pair with the example, where rows are joined
    absent: frozenset[str] = field(default_factory=frozenset)  # columns that mark another format
    accepts: Callable[[Profile], bool] = lambda profile: True
    marks: str = ""  # what `accepts` looked at, in words
    by_rating: bool = False  # the label was made from the ratings, so that equal ratings are a tie
    labels: Mapping[str, Parse] = field(default_factory=dict)  # where a row has several: name → `parse` by that one
    media: tuple[str, ...] = MEDIA_COLUMNS  # columns that must be empty
    traps: tuple[str, ...] = ()  # what is easily read wrongly, and how it is read here

    @property
    def rowwise(self) -> bool:
        """Whether each row is one pair."""
        return self.shape == "pair"

    def fits(self, profile: Profile) -> bool:
        """Whether these rows look like this format."""
        return profile.has(**self.columns) and not self.absent & profile.kinds.keys() and self.accepts(profile)

    def read(self, values: Values) -> Pair:
        """One row as a pair, with whatever source, annotator and ratings it carries.

        Raises:
            Refused: it cannot become a pair.
            TypeError: the rows of this format are not pairs (see `rowwise`).
        """
        found = self._parsed(values)
        if isinstance(found, Ranking):
            raise TypeError(f"{self.name}: a row is not one pair")
        pair = with_extras(found, values)
        equal = pair.rating_chosen is not None and pair.rating_chosen == pair.rating_rejected
        return replace(pair, tie=True) if self.by_rating and equal else pair

    def rank(self, values: Values) -> Ranking:
        """One row as a ranking: of all its answers, or of the single one that is to be joined with others.

        Raises:
            Refused: it cannot become one.
            TypeError: the rows of this format are pairs.
        """
        found = self._parsed(values)
        if isinstance(found, Pair):
            raise TypeError(f"{self.name}: a row is a pair, not a ranking")
        return found

    def _parsed(self, values: Values) -> Pair | Ranking:
        require_empty(values, *self.media)
        return self.parse(values)

    def by_label(self, label: str | None) -> Format:
        """The same format, read by one of the labels that its rows have.

        Raises:
            ConfigError: none is named, or one that it has not.
        """
        names = " or ".join(self.labels)
        if label is None:
            raise ConfigError(f"{self.name}: its rows have two labels, which may differ; read it with --label {names}")
        if label not in self.labels:
            raise ConfigError(f"--label {label}: the labels of {self.name} are {names}")
        return replace(self, parse=self.labels[label])

    def reason(self) -> str:
        """Why it was chosen, in words."""
        described = ", ".join(f"{name} ({kind})" if kind != "any" else name for name, kind in self.columns.items())
        return f"its columns are {described}" + (f" and {self.marks}" if self.marks else "")
