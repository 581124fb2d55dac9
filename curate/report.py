"""What an audit found: as one plain dictionary for machines, and as text that a person likes to read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from curate.decided import tally_decided
from curate.progress import printable
from curate.verdict import judge_run, suspect_lines, verdict_lines
from curate.view import RunView, plain_records

Summary = dict[str, Any]

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_BARS = " ▁▂▃▄▅▆▇█"
_BINS = 40
_SUSPECTS = 5
_BLANK = " OR ".join(
    f"list_bool_and(list_transform({side}, lambda turn: regexp_full_match(turn.content, '\\s*')))"
    for side in ("chosen", "rejected")
)
_REASONS = 10  # shown; all are in the table


# --- the summary ---------------------------------------------------------------------------------


def summarize(view: RunView) -> Summary:
    """The report's numbers, for the stages that are done."""
    summary: Summary = {"run": str(view.path), "data": _data(view)}
    if view.has("scores"):
        summary["scoring"] = _scoring(view)
    if view.has("weights"):
        summary["margins"] = _margins(view)
        summary["weights"] = _weights(view)
        summary["length"] = _length(view)
    if view.has("diagnosis"):
        summary["diagnosis"] = judge_run(view)
    if decided := tally_decided(view):
        summary["decisions"] = decided
    return summary


def _records(view: RunView, query: str) -> list[dict[str, Any]]:
    """A query's rows as plain values."""
    return plain_records(view.sql(query))


def _data(view: RunView) -> Summary:
    ingested = view.stage("ingest")
    reasons = _records(
        view,
        "SELECT reason, count(*) AS rows, arg_min(file, row) AS file, arg_min(line, row) AS line FROM refused "
        "GROUP BY reason ORDER BY rows DESC, reason",
    )
    duplicates = _records(view, "SELECT count(*) - count(DISTINCT pair_id) AS n FROM pairs")[0]["n"]
    return {
        "inputs": [
            {name: entry[name] for name in ("path", "format", "why", "rows", "pairs", "refused")}
            for entry in ingested["inputs"]
        ],
        **{name: ingested[name] for name in ("rows", "pairs", "ties", "refused")},
        "exact_duplicates": duplicates,
        "blank_sides": _records(view, f"SELECT count(*) AS n FROM pairs WHERE {_BLANK}")[0]["n"],
        "refused_by_reason": reasons,
    }


def _scoring(view: RunView) -> Summary:
    scored = view.stage("score")
    passes = scored["passes"]
    seconds = sum(one["seconds"] for one in passes.values())
    counts = _records(
        view,
        """SELECT count(*) FILTER (unscored IS NOT NULL) AS unscored,
            count(*) FILTER (prompt_truncated) AS prompt_truncated,
            count(*) FILTER (chosen_truncated) AS chosen_truncated,
            count(*) FILTER (rejected_truncated) AS rejected_truncated,
            count(*) FILTER (identical_tokens) AS identical_to_the_model
        FROM scores""",
    )[0]
    return {
        "models": {name: one["spec"] for name, one in passes.items()},
        "rewards": _rewards(view, passes["reward_model"]) if "reward_model" in passes else None,
        **{name: passes["policy"][name] for name in ("device", "kernel", "why_padded")},
        **{name: scored[name] for name in ("dtype", "template", "max_length", "pairs")},
        "seconds": round(seconds, 1),
        "pairs_per_s": round(scored["pairs"] / max(seconds, 1e-9), 2),
        "tokens_per_s": round(sum(one["tokens"] for one in passes.values()) / max(seconds, 1e-9), 1),
        **counts,
        "unscored_by_reason": _records(
            view,
            "SELECT unscored AS reason, count(*) AS pairs FROM scores WHERE unscored IS NOT NULL "
            "GROUP BY 1 ORDER BY 2 DESC",
        ),
    }


def _rewards(view: RunView, scored: Summary) -> Summary:
    """How the reward model went about it, and how often it agrees with the label (ties apart)."""
    counts = _records(
        view,
        """SELECT count(*) FILTER (reward_chosen > reward_rejected) AS agree,
            count(*) FILTER (reward_chosen < reward_rejected) AS contradict
        FROM scores JOIN pairs USING (row) WHERE NOT tie""",
    )[0]
    names = ("device", "kernel", "why_alone", "template", "max_length", "unscored", "truncated")
    return {**{name: scored[name] for name in names}, **counts}


def _distribution(view: RunView, column: str) -> Summary:
    found = _records(
        view,
        f"""SELECT count({column}) AS n, avg({column}) AS mean, stddev_samp({column}) AS sd, min({column}) AS min,
            max({column}) AS max FROM weights""",
    )[0]
    levels = ", ".join(str(level) for level in _QUANTILES)
    values = view.sql(f"SELECT quantile_cont({column}, [{levels}]) AS q FROM weights")["q"][0]
    return {
        **found,
        "quantiles": {f"{level:.0%}": float(value) for level, value in zip(_QUANTILES, values, strict=True)},
    }


def _margins(view: RunView) -> Summary:
    weighed = view.stage("weigh")
    sigma = weighed["noise_floor"]["sigma"]
    counts = _records(
        view,
        f"""SELECT count(weight) AS labelled, count(*) FILTER (margin > 0 AND weight IS NOT NULL) AS positive,
            count(*) FILTER (margin < 0 AND weight IS NOT NULL) AS negative,
            count(*) FILTER (margin IS NULL) AS without_margin,
            count(*) FILTER (abs(margin) < 2 * {sigma or 0.0}) AS unresolved FROM weights""",
    )[0]
    return {
        "kind": weighed["margin"],
        "beta": weighed["beta"],
        **_distribution(view, "margin"),
        **counts,
        "noise_floor": weighed["noise_floor"],
        "histogram": _histogram(view),
        "lowest": _records(
            view,
            f"SELECT pair_id, row, margin FROM weights WHERE weight IS NOT NULL ORDER BY margin, row LIMIT {_SUSPECTS}",
        ),
    }


def _histogram(view: RunView) -> Summary:
    """Counts in equal bins between the 1st and the 99th percentile; what lies beyond is counted apart."""
    low, high = view.sql("SELECT quantile_cont(margin, [0.01, 0.99]) AS q FROM weights")["q"][0]
    width = (high - low) / _BINS or 1.0
    counted = view.sql(
        f"""SELECT least(floor((margin - {low}) / {width}), {_BINS - 1})::INTEGER AS bin, count(*) AS n FROM weights
        WHERE margin BETWEEN {low} AND {high} GROUP BY bin"""
    )
    counts = [0] * _BINS
    for position, number in zip(counted["bin"], counted["n"], strict=True):
        counts[int(position)] = int(number)
    outside = view.sql(
        f"SELECT count(*) FILTER (margin < {low}) AS l, count(*) FILTER (margin > {high}) AS h FROM weights"
    )
    return {
        "low": float(low),
        "high": float(high),
        "counts": counts,
        "below": int(outside["l"][0]),
        "above": int(outside["h"][0]),
    }


def _weights(view: RunView) -> Summary:
    weighed = view.stage("weigh")
    effective = view.sql("SELECT sum(weight) ** 2 / sum(weight ** 2) AS n FROM weights")["n"][0]
    return {
        **{name: weighed[name] for name in ("gamma0", "tau", "population", "residual")},
        "weight": _distribution(view, "weight"),
        "target_margin": _distribution(view, "target_margin"),
        "effective_sample_size": float(effective),
    }


def _length(view: RunView) -> Summary:
    """How far the margin follows the difference in length (scored tokens, chosen − rejected).

    The rank correlation is Spearman's: equal values share the mean of their ranks, up to a constant.
    """
    return _records(
        view,
        """WITH pair AS (
            SELECT margin, chosen_tokens, rejected_tokens, chosen_tokens - rejected_tokens AS longer,
                rank() OVER (ORDER BY margin) + count(*) OVER (PARTITION BY margin) / 2 AS rank_margin,
                rank() OVER (ORDER BY longer) + count(*) OVER (PARTITION BY longer) / 2 AS rank_longer
            FROM weights JOIN scores USING (row) WHERE weight IS NOT NULL)
        SELECT avg((longer > 0)::DOUBLE) AS chosen_longer, avg((longer < 0)::DOUBLE) AS rejected_longer,
            median(chosen_tokens) AS median_chosen_tokens, median(rejected_tokens) AS median_rejected_tokens,
            corr(rank_margin, rank_longer) AS rank_correlation,
            avg((margin > 0)::DOUBLE) FILTER (longer > 0) AS positive_where_chosen_longer,
            avg((margin > 0)::DOUBLE) FILTER (longer < 0) AS positive_where_rejected_longer
        FROM pair""",
    )[0]


# --- the text ------------------------------------------------------------------------------------


def render(summary: Summary) -> RenderableType:
    """The summary as text."""
    parts: list[RenderableType] = [section(f"Audit of {summary['run']}", _data_lines(summary["data"]))]
    if "scoring" in summary:
        parts.append(section("Scoring", _scoring_lines(summary["scoring"])))
    if "margins" in summary:
        margins = summary["margins"]
        parts += [
            section(f"Margins ({margins['kind']}, β = {margins['beta']:g})", _margin_lines(margins, summary["length"])),
            section("γ-PO weights", _weight_lines(summary["weights"])),
        ]
    if "diagnosis" in summary:
        if summary["diagnosis"]["suspects"]:
            parts.append(section("Suspects", suspect_lines(summary["diagnosis"])))
        parts.append(section("Diagnosis", verdict_lines(summary["diagnosis"])))
    if "decisions" in summary:
        parts.append(section("Decisions", _decision_lines(summary["decisions"], summary["data"]["pairs"])))
    return Group(*parts)


def section(title: str, lines: Iterable[tuple[str, str]]) -> RenderableType:
    """A title, and indented below it lines of a name and a text."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in lines:
        grid.add_row(Text(printable(name)), Text(printable(value)))
    return Group(Text(printable(title), style="bold"), Padding(grid, (0, 0, 1, 2)))


def _decision_lines(decided: Summary, pairs: int) -> Iterable[tuple[str, str]]:
    for action, number in decided.items():
        yield action, _share(number, pairs)


def _share(part: float, whole: float) -> str:
    return f"{part:,.0f} ({part / whole:.1%})" if whole else f"{part:,.0f}"


def _paired(data: Summary) -> str:
    """The pairs, and how many rows they came from where that is another number."""
    rows, pairs = data["rows"] - data["refused"], data["pairs"]
    return f"{pairs:,} pairs" if rows == pairs else f"{rows:,} in {pairs:,} pairs"


def _data_lines(data: Summary) -> Iterable[tuple[str, str]]:
    for entry in data["inputs"]:
        yield "input", f"{entry['path']}: {entry['format']}, since {entry['why']}"
    yield "rows", f"{data['rows']:,} read = {_paired(data)} + {data['refused']:,} refused"
    reasons = data["refused_by_reason"]
    for reason in reasons[:_REASONS]:
        yield "refused", f"{reason['rows']:,} × {reason['reason']} (first: line {reason['line']} of {reason['file']})"
    if len(reasons) > _REASONS:
        rows = sum(reason["rows"] for reason in reasons[_REASONS:])
        yield "refused", f"{rows:,} × for {len(reasons) - _REASONS:,} other reasons; see the table refused"
    if data["ties"]:
        yield "ties", f"{_share(data['ties'], data['pairs'])}: no side was preferred; scored, but without weight"
    if data["exact_duplicates"]:
        yield "duplicates", f"{_share(data['exact_duplicates'], data['pairs'])} repeat a pair word for word"
    if data["blank_sides"]:
        yield "blank", f"{_share(data['blank_sides'], data['pairs'])} have a side without any text"


def _scoring_lines(scoring: Summary) -> Iterable[tuple[str, str]]:
    for name, spec in scoring["models"].items():
        yield name.replace("_", " "), spec
    how = f"{scoring['dtype']} on {scoring['device']}, {scoring['kernel']} kernel, {scoring['template']} template"
    yield "how", how + (f" ({scoring['why_padded']})" if scoring["why_padded"] else "")
    yield (
        "speed",
        (
            f"{scoring['pairs']:,} pairs in {scoring['seconds']:,.1f} worker seconds: "
            f"{scoring['pairs_per_s']:,.1f} pairs/s, {scoring['tokens_per_s']:,.0f} tokens/s"
        ),
    )
    if scoring["rewards"] is not None:
        yield "rewards", _reward_line(scoring["rewards"])
    for reason in scoring["unscored_by_reason"]:
        yield "unscored", f"{reason['pairs']:,} × {reason['reason']}"
    cut = [f"{scoring[f'{part}_truncated']:,} {part}" for part in ("prompt", "chosen", "rejected")]
    if any(scoring[f"{part}_truncated"] for part in ("prompt", "chosen", "rejected")):
        yield "truncated", f"at {scoring['max_length']:,} tokens: {', '.join(cut)}"
    if scoring["identical_to_the_model"]:
        yield "identical", f"{scoring['identical_to_the_model']:,} pairs whose sides are the same tokens"


def _reward_line(rewards: Summary) -> str:
    alone = f" ({rewards['why_alone']})" if rewards["why_alone"] else ""
    facts = [
        f"{_share(rewards['agree'], rewards['agree'] + rewards['contradict'])} higher for chosen",
        f"{rewards['kernel']} kernel{alone}",
        f"{rewards['template']} template",
    ]
    if rewards["truncated"]:
        facts.append(f"{rewards['truncated']:,} pairs truncated at {rewards['max_length']:,} tokens")
    if rewards["unscored"]:
        facts.append(f"{rewards['unscored']:,} pairs unscored")
    return ", ".join(facts)


def _margin_lines(margins: Summary, length: Summary) -> Iterable[tuple[str, str]]:
    histogram = margins["histogram"]
    top = max(histogram["counts"]) or 1
    bars = "".join(_BARS[-(-number * 8 // top)] for number in histogram["counts"])
    yield "1 % to 99 %", f"{histogram['low']:+.2f} {bars} {histogram['high']:+.2f}"
    yield "quantiles", f"{_quantiles(margins)}; {margins['min']:.3g} to {margins['max']:.3g}"
    yield (
        "sign",
        (
            f"{_share(margins['positive'], margins['labelled'])} positive: the policy agrees with the label; "
            f"{_share(margins['negative'], margins['labelled'])} negative"
        ),
    )
    if margins["without_margin"]:
        yield "none", f"{margins['without_margin']:,} pairs have no margin (unscored, or a side without tokens)"
    floor = margins["noise_floor"]
    if floor["sigma"] is not None:
        yield (
            "noise floor",
            (
                f"σ = {floor['sigma']:.2g} (measured on {floor['pairs']} pairs); "
                f"{margins['unresolved']:,} margins lie within 2σ of zero"
            ),
        )
    yield (
        "length",
        (
            f"chosen is longer in {length['chosen_longer']:.0%}, rejected in {length['rejected_longer']:.0%} "
            f"(medians {length['median_chosen_tokens']:.0f} and {length['median_rejected_tokens']:.0f} tokens)"
        ),
    )
    if length["rank_correlation"] is not None:
        yield "", f"rank correlation of margin and length difference {length['rank_correlation']:+.2f}"
    yield "lowest", ", ".join(f"{pair['pair_id'][:8]} {pair['margin']:.3g}" for pair in margins["lowest"])
    yield "caution", "the margin of a policy that was not trained for this says little about label noise"


def _weight_lines(weights: Summary) -> Iterable[tuple[str, str]]:
    weight, target = weights["weight"], weights["target_margin"]
    yield "setting", f"γ0 = {weights['gamma0']:g}, τ = {weights['tau']:g}, over {weights['population']:,} pairs"
    yield "weight", f"{_quantiles(weight)}; {weight['min']:.3f} to {weight['max']:.3f}, mean 1"
    yield "target margin", f"{_quantiles(target)}; {target['min']:.3f} to {target['max']:.3f}"
    yield "effective size", _share(weights["effective_sample_size"], weights["population"])
    yield "residual", f"{weights['residual']:.1e} (how exactly the optimality conditions hold)"


def _quantiles(distribution: Summary) -> str:
    return "  ".join(f"{name} {value:.3g}" for name, value in distribution["quantiles"].items())
