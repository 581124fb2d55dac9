"""An export's card: what it holds, what was removed and why, and where it comes from, as Markdown with a YAML head.

Reads what `curate.exporting` reports. Texts from data and logs are shown as text, whatever is in them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from curate.progress import printable

_MOST_REASONS = 50
_GONE = {
    "decision": "dropped by decision",
    "tie": "ties",
    "format": "the format cannot hold them",
    "refused": "rows that never became pairs",
}
_COLUMNS = {
    "pair_id": "hash of prompt, chosen and rejected as they stand here",
    "row": "the pair's row in the run",
    "source": "where the pair comes from",
    "decision": "what was decided about it: keep, flip, soft, weight, review, or none",
    "flipped": "chosen and rejected have changed places",
    "weight": "how much the pair counts in the loss; 1 unless a decision says otherwise",
    "p_flip": "the soft label to train with: P(rejected is better); 0 unless decided otherwise, 0.5 for ties that stay",
    "target_margin": "γ_i; null where there is none, as for flipped pairs",
    "margin": "γ_i",
    "diagnosed_p_flip": "for information: the probability that the label, as it stands here, is wrong",
    "score_chosen": "rating in the data",
    "score_rejected": "rating in the data",
    "votes_for": "annotators who agree with the label as it stands here",
    "votes_against": "annotators who contradict it",
    "votes_tied": "annotators who called it a tie",
    "ref_chosen_logps": "log-probs of the reference, nats, summed over the side's tokens",
    "ref_rejected_logps": "the same of the other side",
    "prompt_tokens": "tokens that the reference saw",
    "chosen_tokens": "tokens of the side",
    "rejected_tokens": "tokens of the side",
    "curate_weight": "how much the pair counts in the loss",
    "curate_p_flip": "the soft label to train with: P(rejected is better)",
}


def card(report: Mapping[str, Any]) -> str:
    """The card's text."""
    parts = [_head(report), _counts(report), _notes(report), _use(report), _columns(report), _removed(report)]
    return "\n\n".join(filter(None, [*parts, _rules(report), _origin(report)])) + "\n"


def _head(report: Mapping[str, Any]) -> str:
    """What the hub reads: which file is which split. JSON is YAML."""
    splits: dict[str, list[str]] = {}
    for file in report["files"]:
        splits.setdefault(file["split"], []).append(file["file"])
    files = json.dumps([{"split": split, "path": paths} for split, paths in splits.items()])
    return (
        f"---\nconfigs:\n- config_name: default\n  data_files: {files}\n---\n\n# Preference pairs, exported by curate"
    )


def _counts(report: Mapping[str, Any]) -> str:
    removed = {_GONE[name]: pairs for name, pairs in report["removed"].items()}
    splits: dict[str, int] = {}
    for file in report["files"]:
        splits[file["split"]] = splits.get(file["split"], 0) + file["pairs"]
    lines = [("pairs of the run", report["pairs"]), ("refused rows", report["refused"])]
    lines += [(f"− {what}", pairs) for what, pairs in removed.items()]
    lines += [
        ("**pairs exported**", report["exported"]),
        *((f"in `{split}`", pairs) for split, pairs in splits.items()),
    ]
    lines += [(f"decided: {action}", pairs) for action, pairs in report["actions"].items()]
    text = f"Format `{report['format']}` ({report['title']}), {report['container']}."
    if report["test_share"]:
        drawn = f"about {report['test_share']:g} of the prompts, drawn with seed {report['seed']}"
        text += f" `test` holds {drawn}; all pairs of a prompt are in the same split."
    return f"{text}\n\n" + _table(("", "count"), [(what, f"{pairs:,}") for what, pairs in lines])


def _notes(report: Mapping[str, Any]) -> str:
    notes = list(report["notes"])
    if not report["decided"]:
        notes.append("nothing was decided: every pair is as it is labelled")
    if report["decided_elsewhere"]:
        notes.append(f"the log names {report['decided_elsewhere']:,} pairs that are not in the run")
    return "\n".join(f"- {_inline(note)}" for note in notes)


def _use(report: Mapping[str, Any]) -> str:
    return f"## Use\n\n{report['use']}"


def _columns(report: Mapping[str, Any]) -> str:
    known = [(f"`{name}`", _COLUMNS[name]) for name in report["columns"] if name in _COLUMNS]
    return "## Columns beside the texts\n\n" + _table(("column", "holds"), known) if known else ""


def _removed(report: Mapping[str, Any]) -> str:
    found = report["reasons"]
    if not found:
        return ""
    lines = [
        _texts(_GONE[it["gone"]], it["reason"], it["origin"] or "", f"{it['pairs']:,}") for it in found[:_MOST_REASONS]
    ]
    more = f"\n\nand {len(found) - _MOST_REASONS} more reasons" if len(found) > _MOST_REASONS else ""
    return (
        "## Removed\n\n`_removed` holds each of them.\n\n"
        + _table(("what", "reason", "decided by", "count"), lines)
        + more
    )


def _rules(report: Mapping[str, Any]) -> str:
    if not report["rules"]:
        return ""
    lines = [_texts(it["origin"], it["action"], it["reason"], it["who"], f"{it['pairs']:,}") for it in report["rules"]]
    plans = [
        f"`{_code(it['origin'])}`, applied by {_inline(it['who'])} at {it['at']}:\n\n{_fenced(it['plan'])}"
        for it in report["plans"]
    ]
    return "\n\n".join(["## Decisions", _table(("by", "action", "reason", "who", "pairs"), lines), *plans])


def _origin(report: Mapping[str, Any]) -> str:
    inputs = [
        _texts(it["path"], it["format"], f"{it['rows']:,}", f"{it['pairs']:,}", it["sha256"]) for it in report["inputs"]
    ]
    models = [
        _texts(name, it["model"], it["fingerprint"], it["template"], it["dtype"])
        for name, it in report["models"].items()
    ]
    parts = ["## Where it comes from", _table(("file", "format", "rows", "pairs", "sha256"), inputs)]
    if models:
        parts.append(_table(("pass", "model", "fingerprint", "template", "dtype"), models))
    if report["weights"]:
        settings = ", ".join(f"{name} {value}" for name, value in report["weights"].items())
        parts.append(f"Target margins: {settings}.")
    stages = ", ".join(f"{name} {key}" for name, key in report["fingerprints"].items())
    parts.append(f"Run {_inline(report['run'])}, stages {stages}; curate {report['curate']}.")
    return "\n\n".join(parts)


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def _texts(*texts: str) -> list[str]:
    return [_inline(text) for text in texts]


#: What is markup within a line: emphasis, code, links, HTML, entities, formulas, mail addresses and bare URLs.
_MARKUP = re.compile(r"[\\`*_~|<>\[\]&$@]|:(?=//)|(?<=www)\.", re.IGNORECASE)


def _inline(text: str) -> str:
    """A text on one line that Markdown shows as it is."""
    return _MARKUP.sub(r"\\\g<0>", printable(text))


def _code(text: str) -> str:
    return printable(text).replace("`", "'")


def _fenced(text: str) -> str:
    """A text as it is, behind a fence longer than any in it."""
    fence = "`" * max(3, 1 + max((len(found) for found in re.findall("`+", text)), default=0))
    return f"{fence}toml\n{printable(text.rstrip(), keep=chr(10))}\n{fence}"
