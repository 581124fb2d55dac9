"""The report as one HTML file with plots: it needs no network, and shows a pair's text only as text.

Reads nothing but the `ReportContent` that it is given. plotly.js is in the file once, each figure as JSON. A content
security policy lets only the file's own two scripts run (by their hashes) and forbids every request, so what a text
could smuggle past the escaping would still do nothing.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from plotly.io import to_json
from plotly.offline import get_plotlyjs

from curate import charts
from curate.errors import storage_errors
from curate.noise import AgreementCurve
from curate.schema import KINDS
from curate.store import atomic_path

_FEWEST = 10  # pairs in a plot
_SLICES_PLOTTED = 30
_SLICES_LISTED = 100
_LONGEST_TEXT = 20_000  # characters of one message
_ALL_TEXTS = 1_500_000  # characters of all messages
_SEVERITIES = ("defect", "warning", "note")
_METRICS = {
    "auroc": "AUROC",
    "auroc_above_length": "AUROC above length",
    "average_precision": "Average precision",
}
_FOLDS = {"grouped": "folds grouped by prompt", "random": "random folds"}
_UNFITTED = {"none": "signals that need no fit"}

Verdict = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """All that the page says. An empty table or None is said to be missing; nothing is computed from the run.

    title: the dataset's name.
    facts: (label, value) for the head of the page: inputs, pairs, date, models, version.
    verdict: `rate`, `low`, `high` (in [0, 1] or None), `can_tell` and `sentence`.
    kinds, meanings: pairs of each of KINDS, and what each kind is.
    selftest_sentence: what the self-test promises, in words.
    curve: agreement by |evidence|; None where there is none.
    diagnosis, slices, selftest: tables as in `schema`; of the first, `pair_id`, `kind`, `p_flip`, `evidence`,
        `cluster`, `x` and `y` are read.
    baselines, signal_names: signals that any detector has to beat, and names to show for signals.
    checks: `check`, `severity`, `pairs`, `explanation`.
    suspects: the most suspicious pairs, in order: `pair_id`, `kind`, `p_flip`, `reasons` (strings), and `prompt`,
        `chosen` and `rejected` (messages with `role` and `content`).
    cluster_names: by the cluster's number.
    method: (label, value): how it was done, and with which settings.
    absent: why a part is missing, in a sentence, by part: curve, evidence, slices, map, selftest, checks or suspects.
    """

    title: str
    facts: Sequence[tuple[str, str]] = ()
    verdict: Verdict = field(default_factory=dict)
    kinds: Mapping[str, int] = field(default_factory=dict)
    meanings: Mapping[str, str] = field(default_factory=dict)
    selftest_sentence: str = ""
    curve: AgreementCurve | None = None
    diagnosis: pd.DataFrame = field(default_factory=pd.DataFrame)
    slices: pd.DataFrame = field(default_factory=pd.DataFrame)
    selftest: pd.DataFrame = field(default_factory=pd.DataFrame)
    baselines: Sequence[str] = charts.BASELINES
    signal_names: Mapping[str, str] = field(default_factory=dict)
    checks: pd.DataFrame = field(default_factory=pd.DataFrame)
    suspects: Sequence[Mapping[str, Any]] = ()
    cluster_names: Mapping[int, str] = field(default_factory=dict)
    method: Sequence[tuple[str, str]] = ()
    absent: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plot:
    """A figure of the page: `alt` says in words what it shows, `caption` how to read it."""

    name: str
    figure: go.Figure
    alt: str
    caption: str = ""
    title: str = ""

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.figure.layout.height)

    @property
    def json(self) -> Markup:
        """The figure, safe within a script element."""
        return Markup(to_json(self.figure, validate=False, engine="json").replace("<", "\\u003c"))


@dataclass(frozen=True)
class Table:
    """A table of the page: the columns from `numeric` on are numbers, the first is the row's name."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: int = 1


def write_report(content: ReportContent, target: Path) -> None:
    """Write the page, all of it or nothing.

    Raises:
        StorageError: the disk refuses.
    """
    page = render_html(content)
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as path:
            path.write_text(page, encoding="utf-8")


def render_html(content: ReportContent) -> str:
    """The page. The same content gives the same text."""
    page = _environment().get_template("report.html.jinja")
    return page.render(
        content=content,
        verdict=_verdict(content.verdict),
        kinds=_kinds(content),
        curve=_curve(content),
        evidence=_evidence(content),
        slices=_slices(content),
        slice_table=_slice_table(content.slices),
        slices_left_out=_slices_left_out(content.slices),
        map=_map(content),
        selftest=_selftest(content),
        selftest_tables=_selftest_tables(content),
        checks=_checks(content),
        suspects=_suspects(content),
        ceiling=None if content.selftest.empty else charts.ceiling(content.selftest),
        plotly_js=_plotly_js(),
        kind_colours=charts.KIND_COLOURS,
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("curate", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": visible, "hash": _hash, "count": "{:,}".format}
    return environment


@cache
def _plotly_js() -> Markup:
    return Markup(get_plotlyjs().replace("\r\n", "\n"))


def _hash(script: Markup) -> str:
    """A script's name in the content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def visible(text: object) -> Markup:
    """Text as HTML that is nothing but text; characters that hide or steer (controls, overrides) show as codes."""
    escaped = str(escape(str(text).replace("\r\n", "\n")))
    return Markup("".join(_code(letter) if _hides(letter) else letter for letter in escaped))


def _code(letter: str) -> str:
    return f'<span class="code">{letter.encode("unicode_escape").decode()}</span>'


def _hides(letter: str) -> bool:
    """Joiners do not: emoji and several scripts need them."""
    return unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and letter not in "\n\t\u200c\u200d"


# --- numbers as words ----------------------------------------------------------------------------


def _percent(share: Any) -> str:
    return "–" if share is None or pd.isna(share) else f"{share:.1%}"


def _interval(low: Any, high: Any) -> str:
    return "–" if pd.isna(low) or pd.isna(high) else f"{100 * low:.1f}–{100 * high:.1f}%"


def _pairs(number: int) -> str:
    return "1 pair" if number == 1 else f"{number:,} pairs"


# --- the parts, from top to bottom ---------------------------------------------------------------


def _verdict(verdict: Verdict) -> dict[str, str]:
    told = bool(verdict.get("can_tell")) and not pd.isna(verdict.get("rate"))
    low, high = verdict.get("low"), verdict.get("high")
    return {
        "rate": _percent(verdict["rate"]) if told else "",
        "interval": _interval(low, high) if told and not pd.isna(low) else "",
        "sentence": _sentence(verdict.get("sentence") or ""),
    }


def _sentence(text: str) -> str:
    """With a capital letter, and without what the headline says."""
    text = text.removeprefix("cannot tell: ")
    return text[:1].upper() + text[1:]


def _overall(content: ReportContent) -> float | None:
    rate = content.verdict.get("rate")
    return float(rate) if content.verdict.get("can_tell") and rate is not None and not pd.isna(rate) else None


def _kinds(content: ReportContent) -> Plot | str:
    counts = {kind: int(content.kinds.get(kind, 0)) for kind in KINDS}
    if not sum(counts.values()):
        return "No pair was diagnosed."
    said = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    return Plot("kinds", charts.kind_counts(counts), f"Pairs of each kind: {said}.")


def _missing(content: ReportContent, part: str, otherwise: str) -> str:
    return content.absent.get(part) or otherwise


def _curve(content: ReportContent) -> Plot | str:
    curve = content.curve
    if curve is None:
        return _missing(content, "curve", "There is no evidence that labels could agree with.")
    if (pairs := int(curve.pairs_G.sum())) < _FEWEST:
        return f"Only {_pairs(pairs)} with evidence: too few for a curve."
    rate = _overall(content)
    level = "" if rate is None else f" It levels off at {1 - rate:.1%}: what is missing to 100% is label noise."
    alt = (
        f"Labels agree with the evidence in {curve.agreement_G[0]:.0%} of the pairs where it is weakest and in "
        f"{curve.agreement_G[-1]:.0%} where it is strongest."
    )
    caption = (
        f"Each point stands for about {_pairs(round(pairs / len(curve.pairs_G)))}; the line is the fitted model.{level}"
    )
    return Plot("curve", charts.agreement(curve, rate), alt, caption)


def _evidence(content: ReportContent) -> Plot | str:
    table = content.diagnosis
    known = int(table["evidence"].notna().sum()) if "evidence" in table else 0
    if known == 0:
        return _missing(content, "evidence", "Nothing speaks for either side of any pair.")
    if known < _FEWEST:
        return f"Only {_pairs(known)} with evidence: too few for a histogram."
    against = int((table["evidence"] < 0).sum())
    alt = f"The evidence speaks against the label of {against:,} of {_pairs(known)} ({against / known:.1%})."
    caption = f"{alt} The outermost bars hold all that lies beyond."
    if without := len(table) - known:
        caption += f" {_pairs(without)} without evidence {'is' if without == 1 else 'are'} not shown."
    return Plot("evidence", charts.evidence_histogram(table), alt, caption)


def _slices(content: ReportContent) -> Plot | str:
    if content.slices.empty:
        return _missing(content, "slices", "The data has no groups to compare.")
    worst = charts.worst_slices(content.slices, _SLICES_PLOTTED)
    if worst.empty:
        return _missing(content, "slices", "The data cannot tell how noisy its groups are.")
    first = worst.sort_values("rate", ascending=False).iloc[0]
    alt = f"Noise rates of {len(worst)} slices; the highest is {first['by']} {first['value']} at {first['rate']:.1%}."
    shown = f"The {len(worst)} noisiest of {len(content.slices):,} slices." if len(worst) < len(content.slices) else ""
    caption = (
        f"{shown} Rates are shrunk towards the whole, so that small slices do not stand out by chance. Bars are 95% "
        "intervals, numbers on the right count labels; red: all of the interval lies above the overall rate."
    )
    return Plot("slices", charts.slice_rates(worst, _overall(content)), alt, caption.strip())


def _slices_left_out(slices: pd.DataFrame) -> str:
    """Which kinds of slices the data does not have."""
    counts = {} if slices.empty else slices.groupby("by").size().to_dict()
    missing = [by for by in charts.SLICE_ORDER if counts.get(by, 0) < 2]
    if not missing or len(missing) == len(charts.SLICE_ORDER):
        return ""
    return f"Not compared, since the data has fewer than two groups of each: {', '.join(missing)}."


def _slice_table(slices: pd.DataFrame) -> Table | None:
    if slices.empty:
        return None
    worst = slices.sort_values(["rate", "pairs"], ascending=False)[:_SLICES_LISTED]
    rows = [
        (
            f"{slice_['by']}: {slice_['value']}",
            f"{slice_['pairs']:,}",
            _percent(slice_["rate"]),
            _interval(slice_["low"], slice_["high"]),
            *(f"{slice_[kind]:,}" for kind in KINDS),
        )
        for slice_ in worst.to_dict("records")
    ]
    shown = f"The noisiest {len(rows)} of {len(slices):,} slices" if len(rows) < len(slices) else "All slices"
    return Table(shown, ("slice", "labels", "rate", "95% interval", *KINDS), rows)


def _map(content: ReportContent) -> Plot | str:
    table = content.diagnosis
    placed = int((table["x"].notna() & table["y"].notna()).sum()) if {"x", "y"} <= set(table) else 0
    if placed == 0:
        return _missing(content, "map", "There is no map: the run has no features of the texts.")
    if placed < _FEWEST:
        return f"Only {_pairs(placed)} on the map: too few to show."
    limit = 5_000
    shown = f"{limit:,} of {placed:,} pairs, drawn at random" if placed > limit else _pairs(placed)
    clusters = table["cluster"].nunique()
    caption = f"{shown}. Near one another are pairs with similar texts; the axes have no meaning of their own."
    alt = f"A map of {shown} in {clusters} clusters of similar texts, by kind."
    return Plot("map", charts.text_map(table, content.cluster_names, limit=limit), alt, caption)


def _selftest(content: ReportContent) -> list[Plot] | str:
    table = content.selftest
    if table.empty:
        return _missing(content, "selftest", "No noise was planted, so how well it would be found is not known.")
    noise = "random" if (table["noise"] == "random").any() else str(table["noise"].iloc[0])
    parts = {
        (metric, folds, noise): charts.planted(table[table["folds"] == folds], metric, noise)
        for metric, folds in itertools.product(_METRICS, _FOLDS)
    }
    plots = [_selftest_plot(content, part, chosen) for chosen, part in parts.items() if len(part)]
    return plots or "The self-test says nothing of single signals."


def _selftest_plot(content: ReportContent, part: pd.DataFrame, chosen: tuple[str, str, str]) -> Plot:
    best = part.sort_values("mean").iloc[-1]
    title = f"{_METRICS[chosen[0]]}, {_FOLDS[chosen[1]]}"
    name = _named(content, best["signal"])
    alt = f"{title}: the best is {name} with {best['mean']:.2f} at {best['rate']:.0%} planted noise."
    figure = charts.selftest_scores(content.selftest, *chosen, baselines=content.baselines, names=content.signal_names)
    return Plot("-".join(chosen), figure, alt, title=title)


def _named(content: ReportContent, signal: Any) -> str:
    return content.signal_names.get(str(signal), str(signal).replace("_", " "))


def _selftest_tables(content: ReportContent) -> list[Table]:
    """One for each kind of noise and of folds: a row for each signal and rate, a column for each metric."""
    known = content.selftest[content.selftest["mean"].notna()] if len(content.selftest) else content.selftest
    if known.empty:
        return []
    order = {name: place for place, name in enumerate(charts.ranked_signals(known, content.baselines))}
    said = _FOLDS | _UNFITTED
    return [
        _score_table(content, part, f"Planted: {noise}; {said.get(str(folds), str(folds))}", order)
        for (noise, folds), part in known.groupby(["noise", "folds"], sort=False)
    ]


def _score_table(content: ReportContent, part: pd.DataFrame, caption: str, order: Mapping[str, int]) -> Table:
    metrics = [str(metric) for metric in part["metric"].unique()]
    cells = {
        (row["signal"], row["rate"], row["metric"]): _score(row["mean"], row["low"], row["high"])
        for row in part.to_dict("records")
    }
    keys = sorted({(signal, rate) for signal, rate, _ in cells}, key=lambda key: (order[key[0]], key[1]))
    rows = [
        (_named(content, signal), f"{rate:.0%}", *(cells.get((signal, rate, metric), "–") for metric in metrics))
        for signal, rate in keys
    ]
    return Table(caption, ("signal", "planted", *(metric.replace("_", " ") for metric in metrics)), rows)


def _score(mean: float, low: float | None, high: float | None) -> str:
    return f"{mean:.3f}" if pd.isna(low) or pd.isna(high) else f"{mean:.3f} ({low:.3f}–{high:.3f})"


def _checks(content: ReportContent) -> pd.DataFrame | str:
    if content.checks.empty:
        return _missing(content, "checks", "No check found anything.")
    rank = {severity: place for place, severity in enumerate(_SEVERITIES)}
    ordered = content.checks.assign(rank=content.checks["severity"].map(rank).fillna(len(rank)))
    return ordered.sort_values(["rank", "pairs"], ascending=[True, False])


def _suspects(content: ReportContent) -> list[dict[str, Any]] | str:
    if not content.suspects:
        return _missing(content, "suspects", "No pair is under suspicion.")
    longest = min(_LONGEST_TEXT, _ALL_TEXTS // max(sum(map(_messages_of, content.suspects)), 1))
    return [
        {
            "pair_id": str(pair["pair_id"]),
            "kind": str(pair["kind"]),
            "p_flip": "–" if pair["p_flip"] is None or pd.isna(pair["p_flip"]) else f"{pair['p_flip']:.2f}",
            "reasons": [str(reason) for reason in _listed(pair["reasons"])],
            **{
                side: [_turn(turn, longest) for turn in _listed(pair[side])]
                for side in ("prompt", "chosen", "rejected")
            },
        }
        for pair in content.suspects
    ]


def _listed(values: Iterable[Any] | None) -> list[Any]:
    return [] if values is None else list(values)


def _messages_of(pair: Mapping[str, Any]) -> int:
    return sum(len(_listed(pair[side])) for side in ("prompt", "chosen", "rejected"))


def _turn(turn: Mapping[str, Any], longest: int) -> dict[str, Any]:
    text = str(turn["content"] or "")
    return {"role": str(turn["role"]), "content": text[:longest], "more": max(len(text) - longest, 0)}
