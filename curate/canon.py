"""What every format is turned into: a prompt with two completions, or with several that are ranked."""

from __future__ import annotations

from dataclasses import dataclass, replace


class Refused(Exception):
    """This row cannot become a pair; the message says why."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Vote:
    """One annotator's vote: +1 agrees with the label, −1 contradicts it, 0 is a tie."""

    annotator: str
    vote: int


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and two completions, the preferred one first (in a tie: the one listed first)."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    tie: bool = False
    source: str | None = None
    votes: tuple[Vote, ...] = ()
    rating_chosen: float | None = None
    rating_rejected: float | None = None

    def swap(self) -> Pair:
        """The same pair with the opposite label."""
        return replace(
            self,
            chosen=self.rejected,
            rejected=self.chosen,
            votes=tuple(Vote(vote.annotator, -vote.vote) for vote in self.votes),
            rating_chosen=self.rating_rejected,
            rating_rejected=self.rating_chosen,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """One of several completions of a prompt. The higher its score, the better; equal scores are a tie.

    rating: a number that stands in the data and is higher for the better answer; a rank is none.
    """

    turns: tuple[Message, ...]
    score: float
    rating: float | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """A prompt and its answers, in the order of the data. Which of them become pairs is a policy of its own.

    ties: whether two answers of equal score are a tie; else they are no pair.
    """

    prompt: tuple[Message, ...]
    answers: tuple[Answer, ...]
    source: str | None = None
    ties: bool = True
