"""The formats that are read as they are, and which of them a file has. One function and one `FORMATS` entry per format.

A format says which columns it needs and of what kind (`Profile`), and turns a row into a `Pair`, or into a `Ranking` of
several answers. Detection names the format it chose and why, and fails loudly where none or several fit.
A row that cannot become a pair raises `Refused` with its reason; the caller keeps it.
"""

from __future__ import annotations

from curate.canon import Answer, Message, Pair, Ranking, Refused, Vote
from curate.column_mapping import MAPPED, mapped
from curate.errors import ConfigError, InputError
from curate.form import Format, Profile
from curate.formats_arena import ARENA
from curate.formats_chats import CHATS
from curate.formats_compared import COMPARED
from curate.formats_helpsteer import HELPSTEER
from curate.formats_ranked import RANKED
from curate.formats_texts import TEXTS

__all__ = [
    "FORMATS",
    "MAPPED",
    "Answer",
    "Format",
    "Message",
    "Pair",
    "Profile",
    "Ranking",
    "Refused",
    "Vote",
    "detect",
    "mapped",
    "named",
]

FORMATS: dict[str, Format] = {form.name: form for form in (*TEXTS, *CHATS, *COMPARED, *ARENA, *HELPSTEER, *RANKED)}

#: Data that looks like preferences and holds none: its columns, and what it is.
_NO_PREFERENCES = {
    frozenset({"transcript", "min_harmlessness_score_transcript"}): (
        "the red-team-attempts of HH-RLHF: one dialogue a row, no second answer to compare it with"
    ),
}


def detect(profile: Profile, where: str) -> Format:
    """The one format that fits.

    Raises:
        InputError: no format fits, or several do.
    """
    fitting = [form for form in FORMATS.values() if form.fits(profile)]
    if len(fitting) == 1:
        return fitting[0]
    for marks, what in _NO_PREFERENCES.items():
        if marks <= profile.kinds.keys():
            raise InputError(f"{where}: this is no preference data but {what}; leave the file out")
    columns = ", ".join(profile.kinds) or "none"
    if len(profile.rows) == 1 and len(profile.kinds) == 1 and _are_rows(next(iter(profile.rows[0].values()))):
        raise InputError(
            f"{where}: one object whose rows stand in its list {columns!r}; "
            f"save that list alone, [{{…}}, {{…}}], or one object a line"
        )
    if fitting:
        names = ", ".join(form.name for form in fitting)
        raise InputError(f"{where}: ambiguous, it could be {names}; choose with --format (columns: {columns})")
    mapping = "prompt=…,chosen=…,rejected=…"
    if {"response_a", "response_b"} <= profile.kinds.keys():
        mapping = "prompt=…,response_a=response_a,response_b=response_b,label=…"
    raise InputError(
        f"{where}: no known preference format (columns: {columns}); "
        f"name them with --columns {mapping} (curate formats lists what is known)"
    )


def _are_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def named(name: str) -> Format:
    """The format of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in FORMATS:
        raise ConfigError(f"no format {name!r}: choose one of {', '.join(FORMATS)}")
    return FORMATS[name]
