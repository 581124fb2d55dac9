"""What the diagnosis says of a dataset: noise rate, kinds, worst slices, suspects and what the self-test promises."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from curate.checks import CHECKS
from curate.detect import CONTROLLED, FUSED, GROUPED, ORACLE, UNFITTED
from curate.metrics import METRICS
from curate.progress import printable
from curate.schema import KINDS
from curate.selftest import PROMISED_RATE, promise
from curate.view import RunView, plain_records

Summary = dict[str, Any]

SUSPECTS = 10
_WORST = 5
_FEWEST_IN_SLICE = 20
_SIGNIFICANT = 0.01
_WORTH_A_WORD = 0.97  # ceiling of the AUROC
_QUOTED = (FUSED, CONTROLLED, "length")
NAMES = {FUSED: "fused", CONTROLLED: "with length taken out", "length": "length alone"}
MEANINGS = {
    "clean": "pairs whose label is more likely right than wrong",
    "flipped": "pairs whose label is more likely wrong than right",
    "ambiguous": "near ties: as the data itself says, or because neither side is clearly better",
    "defective": "pairs that cannot be used as they are",
    "unresolved": "pairs about which the evidence says nothing certain",
}


def judge_run(view: RunView) -> Summary:
    """The diagnosis in numbers and words.

    Raises:
        RunError: the run is not diagnosed.
    """
    diagnosed = view.stage("diagnose")
    return {
        "noise": diagnosed["noise"],
        "sentence": noise_sentence(diagnosed["noise"], diagnosed["learners"]),
        "length_share": diagnosed["length_share"],
        "kinds": diagnosed["kinds"],
        "checks": checks_found(diagnosed["checks"]),
        "slices": worst_slices(view),
        "suspects": suspects(view, SUSPECTS),
        "selftest": promised(view) if view.has("selftest") else None,
        "signals": diagnosed["signals"],
    }


def noise_sentence(noise: Mapping[str, Any] | None, learners: int) -> str:
    """The noise rate in words, or why there is none."""
    if noise is None:
        return f"cannot tell: {learners} labelled pairs are too few to learn from"
    if not noise["can_tell"]:
        agrees = noise["p_value"] < _SIGNIFICANT
        why = "it agrees with the labels, but not on how many are wrong" if agrees else "it hardly goes with the labels"
        interval = f"{noise['low'] * 100:.0f} to {noise['high'] * 100:.0f} %"
        return f"cannot tell: anything from {interval} fits the evidence; {why}"
    sentence = (
        f"{noise['rate'] * 100:.1f} % of the labels are the wrong way round, near ties apart "
        f"({noise['low'] * 100:.1f} to {noise['high'] * 100:.1f} %)"
    )
    if not noise["follows_model"]:
        sentence += "; the labels do not agree with the evidence as the model expects, so take the rate with care"
    return sentence


def checks_found(counts: Mapping[str, int]) -> list[Summary]:
    """The checks that found something, in the registry's order."""
    return [
        {"check": name, "severity": check.severity, "pairs": counts[name], "explanation": check.explanation}
        for name, check in CHECKS.items()
        if counts.get(name)
    ]


def suspects(view: RunView, most: int) -> list[Summary]:
    """The pairs that are likeliest flipped, and why; defective ones have reasons of their own and are left out."""
    found = view.sql(
        f"""SELECT pair_id, row, kind, p_flip, evidence, reasons FROM diagnosis
            WHERE p_flip IS NOT NULL AND kind <> 'defective'
            QUALIFY row_number() OVER (PARTITION BY pair_id ORDER BY row) = 1
            ORDER BY p_flip DESC, row LIMIT {int(most)}"""
    )
    reasons = [list(texts) for texts in found.pop("reasons")]
    return [{**record, "reasons": texts} for record, texts in zip(plain_records(found), reasons, strict=True)]


def worst_slices(view: RunView) -> list[Summary]:
    """Slices whose rates are most surely high, beside the mean of their kind; one that holds all pairs says nothing."""
    found = view.sql(
        f"""SELECT *, low > sum(rate * pairs) OVER kind / sum(pairs) OVER kind AS clearly_above
            FROM slices WHERE rate IS NOT NULL WINDOW kind AS (PARTITION BY "by")
            QUALIFY pairs >= {_FEWEST_IN_SLICE} AND count(*) OVER kind > 1
            ORDER BY low DESC, rate DESC LIMIT {_WORST}"""
    )
    return plain_records(found)


def promised(view: RunView) -> Summary:
    """The promise, and the numbers behind it: the fused signal beside length alone and what length leaves of it."""
    rows = plain_records(view.table("selftest"))
    metrics = (
        "auroc",
        "average_precision",
        "precision_at_top_5_percent",
        "recall_at_80_precision",
        "auroc_above_length",
        "called_precision",
    )
    quoted = [
        row
        for row in rows
        if row["noise"] == "random"
        and row["rate"] == PROMISED_RATE
        and row["signal"] in _QUOTED
        and row["metric"] in metrics
    ]
    ceiling = next((row["mean"] for row in rows if row["signal"] == ORACLE), None)
    tested = view.stage("selftest")["pairs"]
    return {"sentence": promise(rows), "ceiling": ceiling, "rows": quoted, "pairs": tested}


# --- the text ------------------------------------------------------------------------------------


def verdict_lines(verdict: Summary) -> Iterable[tuple[str, str]]:
    """The diagnosis, line by line: (label, text)."""
    total = sum(verdict["kinds"].values())
    yield "noise", verdict["sentence"]
    for kind in KINDS:
        if verdict["kinds"][kind]:
            yield kind, f"{verdict['kinds'][kind]:,} ({verdict['kinds'][kind] / total:.1%}) {MEANINGS[kind]}"
    if verdict["length_share"] is not None:
        yield "length", f"explains {verdict['length_share']:.0%} of the evidence"
    for found in verdict["checks"]:
        yield "check", f"{found['check']}: {found['pairs']:,} ({found['severity']})"
    yield from _slice_lines(verdict["slices"])
    yield from _selftest_lines(verdict["selftest"])


def _slice_lines(slices: list[Summary]) -> Iterable[tuple[str, str]]:
    above = [one for one in slices if one["clearly_above"]]
    if slices and not above:
        yield "slices", "none is clearly above the whole; the highest:"
    for one in above or slices[:1]:
        interval = f"{one['low']:.0%} to {one['high']:.0%}"
        what = "votes wrong" if one["by"] == "annotator" else "flipped"
        yield "slice", f"{one['by']} {one['value']}: {one['rate']:.0%} {what} ({interval}) of {one['pairs']:,}"


def _selftest_lines(tested: Summary | None) -> Iterable[tuple[str, str]]:
    if tested is None:
        yield "self-test", "none yet: without it nobody knows how good the evidence is; curate selftest makes one"
        return
    if tested["sentence"] is None:
        yield "self-test", f"promises nothing: it planted other rates than {PROMISED_RATE:.0%}"
        return
    yield "self-test", f"{tested['sentence']} ({PROMISED_RATE:.0%} planted, folds grouped by prompt)"
    means = {(row["signal"], row["metric"]): row for row in tested["rows"] if row["folds"] == GROUPED}
    shown = [
        f"{NAMES[name]} {means[name, 'auroc']['mean']:.2f}/{means[name, 'average_precision']['mean']:.2f}"
        for name in _QUOTED
        if (name, "auroc") in means
    ]
    yield "", f"AUROC / average precision: {', '.join(shown)}"
    if tested["ceiling"] is not None and tested["ceiling"] < _WORTH_A_WORD:
        yield (
            "",
            f"a perfect detector would reach an AUROC of {tested['ceiling']:.2f}, for the labels were noisy before",
        )
    called = means.get((FUSED, "called_precision"))
    if called is not None:
        yield "", f"of the pairs that are called flipped, {called['mean']:.0%} are planted flips"
    gain = means[FUSED, "auroc_above_length"]
    yield "", f"AUROC above length alone: {gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"


def suspect_lines(verdict: Summary) -> Iterable[tuple[str, str]]:
    """The suspects: (id, probability and reasons)."""
    for pair in verdict["suspects"]:
        yield (
            pair["pair_id"][:8],
            f"p_flip {pair['p_flip']:.2f}, {pair['kind']}: {'; '.join(pair['reasons']) or 'nothing speaks against it'}",
        )


# --- the self-test, in full ----------------------------------------------------------------------

_COLUMNS = {
    "auroc": "AUROC",
    "auroc_above_length": "− length",
    "average_precision": "AP",
    "precision_at_100": "P@100",
    "precision_at_n_flip": "P@n",
    "recall_at_95_precision": "R@95",
}
_WITH_INTERVAL = ("auroc", "auroc_above_length")


def selftest_records(view: RunView) -> list[Summary]:
    """The rows of the self-test as plain values.

    Raises:
        RunError: there is none.
    """
    return plain_records(view.table("selftest"))


def selftest_table(view: RunView) -> RenderableType:
    """The self-test for a terminal: every signal where the report quotes it, the fused one and length elsewhere."""
    rows = selftest_records(view)
    parts: list[RenderableType] = []
    ranked = dict.fromkeys((row["noise"], row["rate"]) for row in rows if row["metric"] == "average_precision")
    for noise, rate in ranked:
        everything = (noise, rate) == ("random", PROMISED_RATE)
        shown = [
            row
            for row in rows
            if (row["noise"], row["rate"]) == (noise, rate) and (everything or row["signal"] in _QUOTED)
        ]
        parts.append(_ranking(f"{_NOISES.get(noise, noise)}, {rate:.0%} of the pairs", shown))
    sentence = promise(rows)
    return Group(*parts, _single_figures(rows), Text(f"\n{sentence}" if sentence else ""))


_SINGLE = ("random", "annotator", "ties")
_NOISES = {
    "random": "Random flips",
    "hard": "Hard pairs flipped (smallest margin of the policy)",
    "hard_fused": "Hard pairs flipped (smallest fused signal)",
    "longer": "Flips in favour of the longer side",
}


def _ranking(title: str, rows: list[Summary]) -> RenderableType:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    for name in ("signal", "folds", *_COLUMNS.values()):
        table.add_column(name, no_wrap=True, justify="left" if name in ("signal", "folds") else "right")
    found = {(row["signal"], row["folds"], row["metric"]): row for row in rows}
    for signal, folds in dict.fromkeys((row["signal"], row["folds"]) for row in rows):
        values = [_figure(found.get((signal, folds, metric))) for metric in _COLUMNS]
        if any(values):
            table.add_row(Text(printable(signal)), "" if folds == UNFITTED else folds, *values)
    return Padding(table, (0, 0, 1, 0))


def _figure(row: Summary | None) -> str:
    if row is None:
        return ""
    sign = "+" if row["metric"] == "auroc_above_length" else ""
    spread = ""
    if row["metric"] in _WITH_INTERVAL and row["low"] is not None:
        spread = f"±{(row['high'] - row['low']) / 2:.2f}"
    return f"{row['mean']:{sign}.2f}{spread}"


def _single_figures(rows: list[Summary]) -> RenderableType:
    """What is no ranking: estimated rates, false alarms, annotators, ties."""
    table = Table.grid(padding=(0, 2))
    for row in rows:
        is_ranking = row["metric"] in METRICS or row["metric"] in _COLUMNS
        if row["signal"] == ORACLE or (row["noise"] in _SINGLE and not is_ranking):
            interval = "" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
            what = "ceiling of the AUROC" if row["signal"] == ORACLE else row["metric"].replace("_", " ")
            table.add_row(f"{row['noise']} {row['rate']:.0%}", row["folds"], what, f"{row['mean']:.3f}", interval)
    return table
