"""The checks of single pairs: what is wrong within a pair. Reads columns of `pairs` and `scores`, a `Block` at a time.

`checks.py` registers them. A check is a function of a block that gives the positions of what it finds and
the evidence in words; Arrow and NumPy sift the block, Python words the few that are left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.repeats import Found, Keys
from curate.shingles import bands, flat
from curate.turns import SCRIPTS, TURN_END, Turns, find_loop

#: Columns of `scores` that the checks look at.
SCORE_COLUMNS = ["row", "identical_tokens", "chosen_truncated", "rejected_truncated", "prompt_truncated"]


@dataclass(frozen=True)
class Scored:
    """The scores' flags, by row."""

    row: NDArray[np.int64]
    flags: Mapping[str, NDArray[np.bool_]]

    @classmethod
    def of(cls, scores: pa.Table | None) -> Scored:
        """From a table of `SCORE_COLUMNS`, in any order."""
        scores = scores if scores is not None else pa.table({name: pa.array([], pa.int64()) for name in SCORE_COLUMNS})
        row = scores["row"].to_numpy()
        order = np.argsort(row)
        flags = {
            name: pc.fill_null(scores[name].cast(pa.bool_()), False).to_numpy()[order] for name in SCORE_COLUMNS[1:]
        }
        return cls(row[order], flags)

    def at(self, row: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
        """The flags of some rows; False where a row has no scores."""
        if not len(self.row):
            return {name: np.zeros(len(row), bool) for name in self.flags}
        place = np.minimum(np.searchsorted(self.row, row), len(self.row) - 1)
        return {name: flag[place] & (self.row[place] == row) for name, flag in self.flags.items()}


@dataclass(frozen=True)
class Block:
    """Some pairs, as the checks of single pairs see them."""

    pairs: pa.Table
    scored: Mapping[str, NDArray[np.bool_]]
    prompt: Turns
    chosen: Turns
    rejected: Turns

    @classmethod
    def of(cls, pairs: pa.Table, scored: Scored) -> Block:
        """Make one; its columns must fit in one Arrow array each."""
        turns = (Turns(pairs[name].combine_chunks()) for name in ("prompt", "chosen", "rejected"))
        return cls(pairs, scored.at(pairs["row"].to_numpy()), *turns)

    @property
    def sides(self) -> Iterator[tuple[str, Turns]]:
        """Both sides with their names."""
        yield from (("chosen", self.chosen), ("rejected", self.rejected))

    @cached_property
    def tie(self) -> NDArray[np.bool_]:
        """Which pairs have no preferred side."""
        return _mask(self.pairs["tie"])

    def keys(self, connection: duckdb.DuckDBPyConnection) -> Keys:
        """What is kept of the pairs for the checks of all pairs; DuckDB hashes them."""
        shingled = [turns.shingled for turns in (self.prompt, self.chosen, self.rejected)]
        return Keys(
            self.pairs["row"].to_numpy(),
            self.tie,
            self._hashes(connection),
            np.stack([text.numbers_T for text in shingled], axis=1),
            np.stack([text.sketch() for text in shingled], axis=1),
            bands(*shingled),
        )

    def _hashes(self, connection: duckdb.DuckDBPyConnection) -> NDArray[np.uint64]:
        with connection.cursor() as cursor:
            columns = cursor.from_arrow(self.pairs).select("hash(prompt) a, hash(chosen) b, hash(rejected) c")
            return np.stack(list(columns.fetchnumpy().values()), axis=1).astype(np.uint64)


def _mask(values: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(values, False).to_numpy(zero_copy_only=False), bool)


def _quote(text: str, most: int = 60) -> str:
    words = " ".join(text.replace(TURN_END, " ").split())
    return f"“{words if len(words) <= most else words[: most - 1].rstrip() + '…'}”"


# --- a side, or both, cannot be used ---------------------------------------------------------------

_VISIBLE = r"[^\s\p{Z}\p{C}]"


def identical(block: Block) -> Found:
    """Sides of the same text, white space around it aside; blank ones are said to be empty."""
    chosen, rejected = block.chosen, block.rejected
    same_words = (chosen.shingled.smallest_TK == rejected.shingled.smallest_TK).all(axis=1)
    candidates = same_words & _mask(pc.equal(chosen.role, rejected.role)) & ~_blank(chosen)
    for place in np.flatnonzero(candidates):
        one, two = chosen.text[place].as_py(), rejected.text[place].as_py()
        if one == two:
            yield int(place), f"both sides are {_quote(one)}"
        elif one.strip() == two.strip():
            yield int(place), f"both sides are {_quote(one)}, apart from white space around it"


def _blank(turns: Turns) -> NDArray[np.bool_]:
    """Whether the last turn has nothing to see."""
    return ~_mask(pc.match_substring_regex(turns.last, _VISIBLE))


def identical_tokens(block: Block) -> Found:
    """Different sides that are the same to the scoring model, after truncation."""
    same_text = _mask(pc.equal(block.chosen.text, block.rejected.text))
    for place in np.flatnonzero(block.scored["identical_tokens"] & ~same_text):
        yield int(place), "both sides are the same tokens to the model that scored them, as far as they go"


def empty(block: Block) -> Found:
    """Sides whose last turn shows no character."""
    blank = [(name, turns, _blank(turns)) for name, turns in block.sides]
    for place in np.flatnonzero(blank[0][2] | blank[1][2]):
        said = (f"{name} {_emptiness(turns, int(place))}" for name, turns, mask in blank if mask[place])
        yield int(place), ", ".join(said)


def _emptiness(turns: Turns, place: int) -> str:
    if not turns.count[place]:
        return "has no message"
    return "has only white space" if turns.last[place].as_py() else "is empty"


def prompts_differ(block: Block) -> Found:
    """Sides that ask differently, or take other turns to their last one; what tools do does not count."""
    several = (block.chosen.count > 1) | (block.rejected.count > 1)
    if not several.any():
        return
    asked = _mask(pc.not_equal(block.chosen.asked, block.rejected.asked))
    turns = [pc.replace_substring_regex(side.role, r"(tool\x1f|assistant\x1ftool\x1f)+", "") for _, side in block.sides]
    for place in np.flatnonzero(several & (asked | _mask(pc.not_equal(*turns)))):
        counts = " and ".join(f"{side.count[place]}" for _, side in block.sides)
        what = "what is asked differs" if asked[place] else "the sides part before their last turn"
        yield int(place), f"{what}: chosen and rejected go on for {counts} turns after the prompt"


def last_turn(block: Block) -> Found:
    """Sides that end with another turn than the assistant's."""
    others = [(name, side, _mask(pc.not_equal(side.last_role, "assistant"))) for name, side in block.sides]
    others = [(name, side, mask & (side.count > 0)) for name, side, mask in others]
    for place in np.flatnonzero(others[0][2] | others[1][2]):
        said = (f"{name} ends with a turn of the {side.last_role[place]}" for name, side, mask in others if mask[place])
        yield int(place), ", ".join(said)


# --- what stands in a side -------------------------------------------------------------------------

_TEMPLATE = (
    r"<\|[a-z_]{2,30}\|>|<\|(?:im_start|im_end)|\[/?INST\]|<</?SYS>>|</?(?:start|end)_of_turn>"
    r"|(?:^|\x1f)\s*<s>|</s>\s*(?:$|\x1f)"
    r"|(?:^|\n|\x1f)#{2,3} (?:Instruction|Response|Human|Assistant|User):"
    r"|(?:^|\n\n|\x1f)(?:Human|Assistant): "
)
_TEMPLATE_PYTHON = re.compile(_TEMPLATE)


def template_tokens(block: Block) -> Found:
    """Tokens and role markers of chat templates, in any of the three texts."""
    texts = {"prompt": block.prompt.text, "chosen": block.chosen.text, "rejected": block.rejected.text}
    masks = {name: _mask(pc.match_substring_regex(text, _TEMPLATE)) for name, text in texts.items()}
    for place in np.flatnonzero(np.any(list(masks.values()), axis=0)):
        seen = {name: _TEMPLATE_PYTHON.search(texts[name][place].as_py()) for name in texts if masks[name][place]}
        said = (f"{name} has {_quote(match.group())}" for name, match in seen.items() if match)
        yield int(place), ", ".join(said)


_CANNOT = r"(?:can[’']?t|cannot|can not|am unable to|[’']m unable to|am not able to|[’']m not able to)"
_HELP = (
    r"(?:assist|help|comply|fulfil|engage|support|condone|(?:answer|do|discuss|share) (?:that|this|your)"
    r"|(?:give|offer|provide|tell)(?: you)? "
    r"(?:any|that|this|with|how|you|information|instructions|advice|guidance|help))"
)
_REFUSAL = (
    rf"(?i)^\s*(?:(?:i[’']?m|i am) (?:very |really |so |truly )?sorry,? (?:but |however,? )?(?:as an? [^.,]{{1,40}}, )?"
    rf"i ?(?:really )?(?:{_CANNOT}|(?:won[’']t|will not|don[’']t feel comfortable|[’']m not comfortable) )"
    rf"|(?:sorry|apologies|i apologi[sz]e),? (?:but )?i ?{_CANNOT}"
    rf"|(?:unfortunately,? )?i ?(?:{_CANNOT}|won[’']t|will not) {_HELP}"
    rf"|as an ai[^.]{{0,60}}?,? i ?{_CANNOT})"
)
_PERHAPS_REFUSAL = r"(?i)^(?s:.{0,120})(?:can[’']?t|cannot|can not|unable|not able|won[’']t|will not|don[’']t think i)"

_NO_REFUSAL = re.compile(
    r"(?i)^[^.]*?(?:[’']t|not|unable to) (?:understand|agree|keep|believe|imagine|remember|wait)\b"
)


def refusal_chosen(block: Block) -> Found:
    """Chosen opens with a refusal, and rejected with nothing like one."""
    refused = _mask(pc.match_substring_regex(block.chosen.last, _REFUSAL)) & ~block.tie
    if not refused.any():
        return
    answered = ~_mask(pc.match_substring_regex(block.rejected.last, _PERHAPS_REFUSAL)) & ~_blank(block.rejected)
    for place in np.flatnonzero(refused & answered):
        text = block.chosen.last[place].as_py()
        if not _NO_REFUSAL.match(text):
            yield int(place), f"chosen begins {_quote(text)}"


def length_ratio(block: Block, *, ratio: float = 20, longer_characters: int = 200) -> Found:
    """A side at least `ratio` times as long as the other, in characters."""
    chosen_N, rejected_N = (pc.utf8_length(side.text).to_numpy() for _, side in block.sides)
    shorter_N, longer_N = np.minimum(chosen_N, rejected_N), np.maximum(chosen_N, rejected_N)
    visible = ~_blank(block.chosen) & ~_blank(block.rejected)
    for place in np.flatnonzero((longer_N >= ratio * shorter_N) & (longer_N >= longer_characters) & visible):
        long, short = ("chosen", "rejected") if chosen_N[place] > rejected_N[place] else ("rejected", "chosen")
        times = longer_N[place] / shorter_N[place]
        yield (
            int(place),
            f"{long} is {times:.0f} × as long as {short} ({longer_N[place]:,} and {shorter_N[place]:,} characters)",
        )


_LANGUAGES = re.compile(
    r"(?i)translat|language|alphabet|script|russian|ukrainian|bulgarian|serbian|greek|hebrew|arabic|persian|farsi|urdu"
    r"|hindi|bengali|tamil|telugu|thai|georgian|armenian|chinese|mandarin|japanese|kanji|korean|english|cyrillic"
)


def other_script(block: Block, *, letters: int = 20) -> Found:
    """One side in another script than the prompt and the other side, of at least so many `letters` each."""
    counts = [turns.scripts for turns in (block.prompt, block.chosen, block.rejected)]
    prompt_N, chosen_N, rejected_N = (_main_script(counts_NS, letters) for counts_NS in counts)
    for name, side_N, other_N in (("chosen", chosen_N, rejected_N), ("rejected", rejected_N, chosen_N)):
        for place in np.flatnonzero((side_N != prompt_N) & (side_N >= 0) & (prompt_N >= 0) & (other_N == prompt_N)):
            script = side_N[place]
            if not counts[0][place, script] and not _LANGUAGES.search(block.prompt.text[place].as_py()):
                yield (
                    int(place),
                    f"{name} is in {SCRIPTS[script]} script, prompt and other side in {SCRIPTS[prompt_N[place]]}",
                )


def _main_script(counts_NS: NDArray[np.int64], letters: int) -> NDArray[np.int64]:
    """The script of more than half of the letters; −1 where there is none or there are too few letters."""
    main_N, all_N = counts_NS.argmax(axis=1), counts_NS.sum(axis=1)
    most_N = counts_NS.max(axis=1)
    return np.where((most_N * 2 > all_N) & (most_N >= letters), main_N, -1)


def truncated(block: Block) -> Found:
    """Prompts and sides of which the scoring model saw only a part."""
    names = ("prompt", "chosen", "rejected")
    masks = [block.scored[f"{name}_truncated"] for name in names]
    for place in np.flatnonzero(np.any(masks, axis=0)):
        said = " and ".join(name for name, mask in zip(names, masks, strict=True) if mask[place])
        yield int(place), f"too long for the model that scored it: {said}"


_OPEN_END = re.compile(r"[\w,]\s*$")
_OPEN_WORD = r"(?:[^\n]{24},|\b(?:the|a|an|and|or|of|their|its|because|which|our|your|his|is|are|was|were))$"
_ENDING_LETTERS = 26


def cut_off(block: Block, *, characters: int = 40, alone_characters: int = 200) -> Found:
    """A side that is the other's beginning and stops in mid-sentence, or is long and stops after such as “of the”."""
    beginnings = dict(_beginnings(block, characters))
    yield from beginnings.items()
    said: dict[int, str] = {}
    for name, side in block.sides:
        long = pc.utf8_length(side.last).to_numpy() >= alone_characters
        ending = pc.utf8_slice_codeunits(side.last, -_ENDING_LETTERS)
        for place in np.flatnonzero(long & _mask(pc.match_substring_regex(ending, _OPEN_WORD))):
            said.setdefault(int(place), f"{name} stops in mid-sentence: {_quote('…' + ending[place].as_py())}")
    yield from ((place, detail) for place, detail in said.items() if place not in beginnings)


def _beginnings(block: Block, characters: int) -> Found:
    for place in np.flatnonzero(_may_begin(block.chosen.last, block.rejected.last)):
        texts = {name: side.last[place].as_py() for name, side in block.sides}
        short, long = sorted(texts, key=lambda name: len(texts[name]))
        text, rest = texts[short].rstrip(), texts[long][len(texts[short].rstrip()) :]
        goes_on = re.match(r"[ \w,]\W*\w", rest) and not rest.startswith("\n")
        if len(text) >= characters and texts[long].startswith(text) and _OPEN_END.search(text) and goes_on:
            yield int(place), f"{short} is the beginning of {long} and stops in mid-sentence: {_quote(text[-40:])}"


def _may_begin(one: pa.Array, two: pa.Array) -> NDArray[np.bool_]:
    """Whether two texts agree in four bytes up to where the shorter ends, and differ in length."""
    (one_B, one_ends), (two_B, two_ends) = flat(one), flat(two)
    one_length, two_length = np.diff(one_ends), np.diff(two_ends)
    shorter = np.minimum(one_length, two_length)
    agree = (one_length != two_length) & (shorter > 0)
    places = np.flatnonzero(agree)
    for share in (0, 0.25, 0.5, 0.75):
        offset = (shorter[places] * share).astype(np.int64)
        same = one_B[one_ends[places] + offset] == two_B[two_ends[places] + offset]
        places = places[same]
    return np.isin(np.arange(len(one)), places)


def repeated_text(block: Block, *, share: float = 0.5, times: int = 4, words: int = 12) -> Found:
    """More than a `share` of the words of a last turn is one passage, said at least so many `times`."""
    said: dict[int, str] = {}
    for name, side in block.sides:
        kinds = side.shingled
        suspects = (kinds.words_T >= words) & (kinds.distinct_T < (1 - share / 2) * kinds.words_T)
        for place in np.flatnonzero(suspects):
            loop = find_loop(side.last[place].as_py())
            if loop and loop.times >= times and loop.share > share:
                said.setdefault(int(place), f"{name} says {_quote(loop.passage, 40)} {loop.times:,} times")
    yield from said.items()


def tie(block: Block) -> Found:
    """Pairs whose sides are level."""
    for place in np.flatnonzero(block.tie):
        yield int(place), "neither side was preferred"
