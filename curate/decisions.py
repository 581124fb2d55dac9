"""Decisions about the pairs of a run: made, taken back, looked up, and compared with what the run says now.

Reads the tables `pairs`, `weights` and `diagnosis`; writes the log of decisions. A `RunView` for which `Decisions` are
open has one more table for its `sql`, `decisions`: a line for each pair about which something is decided, with `row`,
`pair_id`, `action`, `value`, `target_margin`, `reason`, `origin` (rule or page), `margin` and `p_flip` at that time,
`entry`, `decided_at` and `who`.

The latest entry that stands decides, whether it is about one pair or about many. What a bulk entry decided is fixed
when it is made: other scores change no decision, and `compare` says what its plan would decide now. Pairs that are the
same word for word are told apart by their order in the input.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from curate.choices import Choices, known
from curate.decision_log import DecisionLog
from curate.entries import BulkDecision, Entry, PairDecision, this_user
from curate.errors import RunError
from curate.plans import Plan
from curate.schema import DECIDED
from curate.standing import Standing, pattern
from curate.store import Run
from curate.view import RunView, plain_records

_LATER = "decided here later"  # what a bulk entry that repeats decisions comes from
_RESTS_ON = ("ingest", "weigh", "diagnose")  # stages
_HEAD = ("entry", "decided_at", "who", "kind")
_HISTORY = [*_HEAD, "stands", *DECIDED.names[2:]]
_NAMED = pa.schema([("nth", pa.int64()), ("pair_id", pa.string()), ("copy", pa.int32())])

#: Where the given pairs stand, and what is known of them.
_FACTS = """
SELECT row, {known}
FROM (
    SELECT nth, keys.row FROM given LEFT JOIN keys ON pair = pair_id::UUID AND keys.copy = coalesce(given.copy, 0)
) {joins}
ORDER BY nth
"""

#: Of what a file says about its pairs, in whatever order.
_DIGEST = """
SELECT bit_xor(md5_number(concat_ws('/', pair_id, copy, action,
    coalesce(value::VARCHAR, ''), coalesce(target_margin::VARCHAR, ''), reason, origin))) FROM read_parquet($file)
"""
_DECIDES = "SELECT count(*) FROM decisions WHERE entry = $entry"

_COMPARED = """
SELECT row, pairs.pair_id, was.action AS was, was.value AS was_value, now.action AS now, now.value AS now_value
FROM (
    SELECT keys.row, action, value
    FROM read_parquet($file) AS given JOIN keys ON pair = pair_id::UUID AND keys.copy = given.copy
) AS was FULL JOIN ({choices}) AS now USING (row) JOIN pairs USING (row)
WHERE was.action IS DISTINCT FROM now.action OR was.value IS DISTINCT FROM now.value
ORDER BY row
"""

_GONE = """
SELECT {what} FROM {pairs} AS given ANTI JOIN keys ON pair = pair_id::UUID AND keys.copy = coalesce(given.copy, 0)
"""


class Decisions:
    """The decisions about a run's pairs; one for each view. Threads may share it.

    decisions = Decisions(RunView("runs/demo"))
    decisions.decide([PairDecision(pair_id, "drop", reason="there is no question", origin="page pairs")])
    decisions.apply(read_plan("sure.toml"), origin="sure.toml")
    decisions.current()                        # a DataFrame
    """

    def __init__(self, view: RunView) -> None:
        """Open the decisions.

        Raises:
            RunError: the run holds no pairs, or the log, or a file that belongs to it, is damaged.
        """
        self._view = view
        self._guard = threading.RLock()
        self.log = DecisionLog(Run.open(view.path))
        self._standing = Standing(view, self.log)
        self.refresh()

    # --- reading ---

    def refresh(self) -> None:
        """Bring the table `decisions` up to date, at the cost of what is new in the log.

        Raises:
            RunError: the log, or a file that belongs to it, is damaged.
        """
        with self._guard:
            self._standing.refresh()

    def current(self) -> pd.DataFrame:
        """The table `decisions`, in the input's order."""
        return self._frame("SELECT * FROM decisions ORDER BY row")

    def is_empty(self) -> bool:
        """Whether nothing is decided about any pair."""
        with self._guard:
            self.refresh()
            return not self._value("SELECT EXISTS (FROM decisions)")

    def reviewed(self) -> list[int]:
        """Rows of the pairs about which an entry of their own stands."""
        rows: list[int] = self._frame("SELECT row FROM singles ORDER BY row")["row"].tolist()
        return rows

    def rows(self, pair_id: str) -> list[int]:
        """Where the pairs of this id stand: one, or more where they are the same word for word; none is no error."""
        found = self._frame(
            "SELECT row FROM keys WHERE pair = try_cast($pair_id AS UUID) ORDER BY row", pair_id=pair_id
        )
        return [int(row) for row in found["row"]]

    def history(self, pair_id: str) -> pd.DataFrame:
        """All that was decided about a pair, the oldest first, and whether it stands or was taken back."""
        query = "SELECT * FROM read_parquet($file) WHERE pair_id = $pair_id ORDER BY copy"
        self.refresh()
        found = [(entry, entry.said) for entry in self.log.about(pair_id)]
        for entry in filter(self.log.has_file, self.log.bulks()):
            told = self._frame(query, file=pattern(self.log.file(entry)), pair_id=pair_id)
            found += [(entry, line) for line in plain_records(told)]
        found.sort(key=lambda it: self.log.place(it[0]))
        lines = [{**said, **_head(entry), "stands": self.log.stands(entry)} for entry, said in found]
        return pd.DataFrame(lines, columns=_HISTORY)

    def gone(self) -> pd.DataFrame:
        """Entries that stand and name pairs which the run does not hold: `gone` of their `pairs`."""
        with self._guard:
            self.refresh()
            counts = self._singles_gone() | self._bulks_gone()
        found = [(entry, entry.said) for entry in self.log.entries() if counts.get(entry.id)]
        lines = [
            {**_head(entry), "origin": said["origin"], "pairs": said.get("pairs", 1), "gone": counts[entry.id]}
            for entry, said in found
        ]
        return pd.DataFrame(lines, columns=[*_HEAD, "origin", "pairs", "gone"])

    def compare(self, entry_id: str) -> pd.DataFrame:
        """Pairs about which a bulk entry's plan would decide something else now than it did: `was` and `now`.

        Raises:
            ConfigError: the plan does not fit the run any more.
            RunError: no entry has this id, or it has no plan.
        """
        entry = self.log.find(entry_id)
        if not isinstance(entry.decision, BulkDecision) or not entry.decision.plan:
            raise RunError(f"{self.log.path}: entry {entry.id} has no plan")
        now = Choices.of_plan(self._view, Plan.from_toml(entry.decision.plan, entry.decision.origin))
        file = pattern(self.log.file(entry))
        return self._frame(_COMPARED.format(choices=now.sql), file=file, **now.parameters)

    # --- writing ---

    def decide(self, choices: Sequence[PairDecision], who: str | None = None) -> list[Entry]:
        """Decide about pairs one by one: an entry each, all with one sync. Their row, margin and p_flip are noted.

        Raises:
            RunError: the run holds no such pair.
            StorageError: the disk refuses.
        """
        with self._guard:
            who = who or this_user()
            entries = [Entry.new(choice, who) for choice in self._with_facts(choices)]
            self.log.append(entries)
            self.refresh()
        return entries

    def apply(self, plan: Plan, *, origin: str, who: str | None = None, spare_reviewed: bool = False) -> Entry:
        """Decide as a plan says, with one entry. Pairs that no rule matches are left as they are.

        Args:
            origin: the file or page that the plan comes from.
            spare_reviewed: leave out pairs about which an entry of their own stands.

        Returns:
            The entry. Where nothing would change, that is the one which decided the same before.

        Raises:
            ConfigError: the plan does not fit the run.
            StorageError: the disk refuses.
        """
        choices = Choices.of_plan(self._view, plan)
        return self._decide_all(choices, plan.toml(), origin, who, spare_reviewed=spare_reviewed)

    def decide_all(self, table: pd.DataFrame, *, origin: str, who: str | None = None) -> Entry:
        """Decide about any pairs with one entry, that can be taken back as one.

        Args:
            table: `row`, `action`, and `value`, `target_margin`, `reason`, `origin` (a rule) as needed.
            origin: the file or page that it comes from.

        Returns, Raises: see `apply`.
        """
        return self._decide_all(Choices.of_table(table), "", origin, who)

    def undo(self, entry_id: str, who: str | None = None) -> Entry:
        """Take back an entry, as if it had never been made; see `DecisionLog.undo`."""
        undo = self.log.undo(entry_id, who)
        self.refresh()
        return undo

    def take_over(self, other: DecisionLog, who: str | None = None) -> tuple[list[Entry], Entry | None]:
        """Take over the entries of another run's log. What was decided here later about the same pairs stays on top.

        Returns:
            What is new, and a bulk entry that repeats the later decisions about pairs which the new ones are about too;
            None where there are no such pairs.

        Raises:
            RunError: the pairs of a bulk entry are missing there.
            StorageError: the disk refuses.
        """
        with self._guard, self.log.bulk(alone=True):
            self.refresh()
            new = self.log.lacks(other)
            later = self._decided_later(other, new)
            self.log.copy_pairs(new, other)
            if later.empty:
                self.log.append(new)
                again = None
            else:
                with self._staged(Choices.of_table(later), "", _LATER) as (decision, staged):
                    again = Entry.new(decision, who)
                    self.log.append_bulk(again, staged, below=new)
            self.refresh()
        return new, again

    # --- inside ---

    def _decided_later(self, other: DecisionLog, new: Sequence[Entry]) -> pd.DataFrame:
        """What stands here about pairs of which new entries of another log say something older."""
        with RunView(self._view.path) as view:
            Standing(view, other).refresh()
            theirs = view.sql("SELECT row, entry, decided_at AS since FROM decisions")
        theirs = theirs[theirs["entry"].isin([entry.id for entry in new])]
        found = self.current().merge(theirs[["row", "since"]], on="row")
        return found[found["decided_at"] > found["since"]]

    def _frame(self, query: str, **parameters: Any) -> pd.DataFrame:
        with self._guard:
            self.refresh()
            frame: pd.DataFrame = self._standing.run(query, **parameters).df()
        return frame

    def _with_facts(self, choices: Sequence[PairDecision]) -> Iterator[PairDecision]:
        tables, columns = known(self._view)
        joins = " ".join(f"LEFT JOIN {table} USING (row)" for table in tables)
        named = _named({"pair_id": it.pair_id, "copy": it.copy} for it in choices)
        found = self._standing.run(_FACTS.format(known=columns, joins=joins), named).fetchall()
        for choice, (row, margin, p_flip) in zip(choices, found, strict=True):
            if row is None:
                copy = "" if choice.copy is None else f", copy {choice.copy}"
                raise RunError(f"{self._view.path}: no pair has the id {choice.pair_id}{copy}")
            yield replace(choice, row=row, margin=margin, p_flip=p_flip)

    def _decide_all(
        self, choices: Choices, plan: str, origin: str, who: str | None, *, spare_reviewed: bool = False
    ) -> Entry:
        with self._guard, self.log.bulk(alone=spare_reviewed):  # a review made meanwhile would not be spared
            self.refresh()
            with self._staged(choices, plan, origin, spare_reviewed=spare_reviewed) as (decision, staged):
                if (same := self._same(decision)) is not None:
                    return same
                entry = Entry.new(decision, who)
                self.log.append_bulk(entry, staged)
            self.refresh()
        return entry

    @contextmanager
    def _staged(
        self, choices: Choices, plan: str, origin: str, *, spare_reviewed: bool = False
    ) -> Iterator[tuple[BulkDecision, Path]]:
        """A bulk decision and the file of its pairs, which goes unless it is moved to its place."""
        staged = self.log.folder / f".{uuid.uuid4().hex}.parquet.tmp"
        try:
            actions = choices.write(self._standing, self._view, staged, spare_reviewed=spare_reviewed)
            digest = self._value(_DIGEST, file=pattern(staged)) or 0
            yield BulkDecision(plan, origin, sum(actions.values()), actions, f"{digest:032x}", self._stages()), staged
        finally:
            staged.unlink(missing_ok=True)

    def _stages(self) -> dict[str, str]:
        stages = self._view.manifest["stages"]
        return {name: stages[name]["fingerprint"] for name in _RESTS_ON if name in stages}

    def _same(self, new: BulkDecision) -> Entry | None:
        """The entry that decides just the same already, with none on top of it."""
        for entry in reversed(self.log.bulks()):
            old = entry.said
            alike = (old["plan"], old["origin"], old["digest"]) == (new.plan, new.origin, new.digest)
            if alike and self._value(_DECIDES, entry=entry.id) == new.pairs:
                return entry
        return None

    def _value(self, query: str, **parameters: Any) -> Any:
        ((value,),) = self._standing.run(query, **parameters).fetchall()
        return value

    def _singles_gone(self) -> dict[str, int]:
        """Ids of entries about single pairs that are not in the run, each with 1."""
        singles = [entry for entry in self.log.entries() if entry.kind == "pair" and self.log.stands(entry)]
        query = _GONE.format(what="nth", pairs="given")
        gone = self._standing.run(query, _named(entry.said for entry in singles)).fetchall()
        return {singles[nth].id: 1 for (nth,) in gone}

    def _bulks_gone(self) -> dict[str, int]:
        """By id of a bulk entry how many of its pairs are not in the run."""
        query = _GONE.format(what="count(*)", pairs="read_parquet($file)")
        files = {it.id: pattern(self.log.file(it)) for it in self.log.bulks() if self.log.stands(it)}
        return {entry: self._value(query, file=file) for entry, file in files.items()}


def _head(entry: Entry) -> dict[str, Any]:
    return {"entry": entry.id, "decided_at": entry.at, "who": entry.who, "kind": entry.kind}


def _named(pairs: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Pairs by `pair_id` and `copy`, numbered."""
    return pa.Table.from_pylist([{**pair, "nth": nth} for nth, pair in enumerate(pairs)], _NAMED)
