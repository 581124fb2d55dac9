"""Build the demo preference dataset.

Reads the texts in ``demo_texts.py`` and writes ``demo.jsonl`` next to this file.
The result depends on nothing but the texts and the seed.

    python data/make_demo.py           # rewrite data/demo.jsonl
    python data/make_demo.py --check   # exit with 1 if the file is not what would be written
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demo_texts import CYRILLIC, REFUSAL, TEXTS, TIES, Text, Tie

SEED = 7
OUT = Path(__file__).with_name("demo.jsonl")

NOISY_SOURCE = "advice"
SOURCE_OF_TOPIC = {
    "cooking": "advice",
    "travel": "advice",
    "everyday": "advice",
    "safety": "advice",
    "science": "knowledge",
    "history_geography": "knowledge",
    "language": "knowledge",
    "rewriting": "writing",
    "emails": "writing",
    "formatting": "writing",
    "maths": "maths",
    "code": "code",
}
ANNOTATORS = ("ann-1", "ann-2", "ann-3", "ann-4")
BAD_ANNOTATOR = "ann-3"

FLIPS_NOISY = 20  # planted flips in the noisy source
FLIPS_OTHER = 22  # planted flips in all other sources together
FLIPS_BAD_ANNOTATOR = 21  # of all flips, those made by the bad annotator
EXPECTED = {
    "clean": 158,
    "flipped": FLIPS_NOISY + FLIPS_OTHER,
    "near_tie": 20,
    "duplicate": 6,
    "contradiction": 4,
    "defective": 10,
}


@dataclass(eq=False)
class Row:
    """One row to be written; ``twin`` is the row that a duplicate or contradiction repeats."""

    prompt: str
    chosen: str
    rejected: str
    source: str
    truth: str
    note: str = ""
    annotator: str = ""
    twin: Row | None = None


def find_text(prompt_start: str) -> Text:
    """Return the only text whose prompt starts like this."""
    (text,) = (t for t in TEXTS if t.prompt.startswith(prompt_start))
    return text


def cut_off(answer: str) -> str:
    """Return the first part of an answer, ending inside a sentence."""
    words = answer.split(" ")
    cut = " ".join(words[: len(words) * 3 // 5])
    assert cut[-1].isalpha(), f"not inside a sentence: {cut!r}"
    return cut


def defective(text: Text, chosen: str, rejected: str, note: str) -> Row:
    """Return a defective row with the prompt of a text."""
    return Row(text.prompt, chosen, rejected, SOURCE_OF_TOPIC[text.topic], "defective", note)


def broken_sides() -> list[Row]:
    """Return the rows in which a side is missing or both sides are the same."""
    empty = find_text("What is a good substitute for buttermilk")
    blank = find_text("Name the five oceans")
    same_mail = find_text("Write a thank-you note to a teacher")
    same_sum = find_text("Add three quarters and one sixth")
    note = "Both sides are the same text{}."
    return [
        defective(empty, empty.good, "", "The rejected side is empty."),
        defective(blank, " \n\t ", blank.good, "The chosen side is only whitespace."),
        defective(same_mail, same_mail.good, same_mail.good, note.format(", a good answer")),
        defective(same_sum, same_sum.worse, same_sum.worse, note.format(", a wrong answer")),
    ]


def broken_texts() -> list[Row]:
    """Return the rows in which the chosen answer itself is broken or out of place."""
    loop = find_text("How can I remember people's names")
    template = find_text("How do I merge two dictionaries")
    turns = find_text("Is tap water safe to drink in Switzerland")
    cut = find_text("What did Gutenberg change")
    refused = find_text("Explain the idiom")
    script = find_text("Why does the sky look blue")
    sentence = loop.good.split(". ")[-1]
    next_turn = "\n\nHuman: Thanks! And in Italy?\n\nAssistant: It is safe there too."
    return [
        defective(
            loop,
            " ".join([sentence] * 8),
            loop.good,
            "The chosen answer repeats one sentence over and over.",
        ),
        defective(
            template,
            template.good + "<|im_end|>\n<|im_start|>assistant\n",
            template.worse,
            "Chat template tokens are left in the chosen answer.",
        ),
        defective(
            turns,
            turns.good + next_turn,
            turns.worse,
            "The chosen answer runs on into invented turns with role markers.",
        ),
        defective(
            cut,
            cut_off(cut.good),
            cut.good,
            "An answer cut off in mid-sentence is chosen over the complete one.",
        ),
        defective(
            refused,
            REFUSAL,
            refused.good,
            "A needless refusal is chosen over a good answer.",
        ),
        defective(
            script,
            CYRILLIC,
            script.good,
            "The chosen answer is in another script (Cyrillic) than the prompt (Latin).",
        ),
    ]


def clean_row(text: Text) -> Row:
    """Return a row with the right label."""
    return Row(text.prompt, text.good, text.worse, SOURCE_OF_TOPIC[text.topic], "clean")


def flipped_row(text: Text) -> Row:
    """Return a row with the wrong label."""
    note = f"Planted flip: the chosen answer is the worse one ({text.flaw})."
    return Row(text.prompt, text.worse, text.good, SOURCE_OF_TOPIC[text.topic], "flipped", note)


def tie_row(tie: Tie, rng: random.Random) -> Row:
    """Return a row with two equally good answers, in the order that a coin gives."""
    sides = [tie.first, tie.second]
    if rng.random() < 0.5:
        sides.reverse()
    note = "Both answers are equally good; a coin set the label."
    return Row(tie.prompt, sides[0], sides[1], SOURCE_OF_TOPIC[tie.topic], "near_tie", note)


def copy_of(row: Row, truth: str) -> Row:
    """Return a copy of a row, with the sides swapped if it is a contradiction."""
    sides = (row.chosen, row.rejected) if truth == "duplicate" else (row.rejected, row.chosen)
    return Row(row.prompt, *sides, row.source, truth, twin=row)


def copies(clean: Sequence[Row], rng: random.Random) -> list[Row]:
    """Return exact and contradictory copies of some clean rows."""
    n_same = EXPECTED["duplicate"]
    picked = rng.sample(clean, n_same + EXPECTED["contradiction"])
    same = [copy_of(row, "duplicate") for row in picked[:n_same]]
    opposite = [copy_of(row, "contradiction") for row in picked[n_same:]]
    return same + opposite


def pick_flips(texts: Sequence[Text], rng: random.Random) -> set[Text]:
    """Choose the texts whose label is flipped, with more of them in the noisy source."""
    noisy = [t for t in texts if SOURCE_OF_TOPIC[t.topic] == NOISY_SOURCE]
    other = [t for t in texts if SOURCE_OF_TOPIC[t.topic] != NOISY_SOURCE]
    return set(rng.sample(noisy, FLIPS_NOISY) + rng.sample(other, FLIPS_OTHER))


def assign_annotators(rows: Sequence[Row], rng: random.Random) -> None:
    """Give each annotator a quarter of the rows, and half of the flips to the bad one."""
    good = [a for a in ANNOTATORS if a != BAD_ANNOTATOR]
    flips = [r for r in rows if r.truth == "flipped"]
    others = [r for r in rows if r.truth != "flipped"]
    n_bad = len(rows) // len(ANNOTATORS) - FLIPS_BAD_ANNOTATOR
    for group, n in ((flips, FLIPS_BAD_ANNOTATOR), (others, n_bad)):
        names = [BAD_ANNOTATOR] * n + [good[i % len(good)] for i in range(len(group) - n)]
        rng.shuffle(names)
        for row, name in zip(group, names, strict=True):
            row.annotator = name
    for row in rows:
        if row.truth == "duplicate" and row.twin is not None:
            row.annotator = row.twin.annotator  # the same record, exported twice


def put_copies_last(rows: list[Row]) -> None:
    """Swap rows so that each copy comes after the row that it repeats."""
    for copy in [r for r in rows if r.twin is not None]:
        assert copy.twin is not None
        i, j = rows.index(copy), rows.index(copy.twin)
        if i < j:
            rows[i], rows[j] = rows[j], rows[i]


def build_rows() -> list[Row]:
    """Return all rows in file order."""
    rng = random.Random(SEED)
    rows = broken_sides() + broken_texts()
    used = {r.prompt for r in rows}
    texts = [t for t in TEXTS if t.prompt not in used]
    flips = pick_flips(texts, rng)
    labelled = [flipped_row(t) if t in flips else clean_row(t) for t in texts]
    rows += labelled + [tie_row(t, rng) for t in TIES]
    rows += copies([r for r in labelled if r.truth == "clean"], rng)
    assign_annotators(rows, rng)
    rng.shuffle(rows)
    put_copies_last(rows)
    return rows


def truth_note(row: Row, ids: dict[Row, str]) -> str:
    """Return the note of a row; copies name the row that they repeat."""
    if row.twin is None:
        return row.note
    if row.truth == "duplicate":
        return f"Exact copy of {ids[row.twin]}."
    return f"Same prompt and answers as {ids[row.twin]}, with the opposite label."


def to_jsonl(rows: Sequence[Row]) -> str:
    """Return the rows as JSON Lines."""
    ids = {row: f"demo-{i:04d}" for i, row in enumerate(rows, start=1)}
    records = [
        {
            "id": ids[row],
            "prompt": row.prompt,
            "chosen": row.chosen,
            "rejected": row.rejected,
            "source": row.source,
            "annotator": row.annotator,
            "truth": row.truth,
            "truth_note": truth_note(row, ids),
        }
        for row in rows
    ]
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def check_counts(rows: Sequence[Row]) -> Counter[str]:
    """Return the number of rows per truth, after asserting that the counts add up."""
    counts = Counter(row.truth for row in rows)
    assert counts == EXPECTED, f"expected {EXPECTED}, built {dict(counts)}"
    base = counts["clean"] + counts["flipped"] + counts["defective"]
    assert base == len(TEXTS), f"{len(TEXTS)} texts gave {base} rows"
    assert counts["near_tie"] == len(TIES)
    return counts


def main() -> int:
    """Write or check the file, print the counts, and return the exit status."""
    parser = argparse.ArgumentParser(description="Build data/demo.jsonl from demo_texts.py.")
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    args = parser.parse_args()
    rows = build_rows()
    counts = check_counts(rows)
    wanted = to_jsonl(rows).encode("utf-8")
    if args.check and (not OUT.is_file() or OUT.read_bytes() != wanted):
        print(f"{OUT.name} differs from what make_demo.py would write", file=sys.stderr)
        return 1
    if not args.check:
        OUT.write_bytes(wanted)
    for truth in EXPECTED:
        print(f"{truth:<14}{counts[truth]:>4}")
    print(f"{'rows':<14}{len(rows):>4}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
