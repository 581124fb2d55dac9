"""The report: its numbers against pandas on the run's Parquet files, and its text for runs at every stage."""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from curate import ComputeConfig, IngestConfig, Run, RunView, ScoreConfig, WeighConfig, ingest, score, weigh
from curate.report import render, summarize

ROOT = Path(__file__).parents[2]
LEVELS = {"5%": 0.05, "25%": 0.25, "50%": 0.5, "75%": 0.75, "95%": 0.95}
VOTES = IngestConfig(
    ("votes.jsonl",),
    columns={"prompt": "prompt", "response_a": "chosen", "response_b": "rejected", "label": "vote", "source": "source"},
)
LENGTHS = {"max_length": 160, "max_prompt_length": 90}
TEMPLATE = (
    "{% for turn in messages %}{% if 'forbidden' in turn['content'] %}{{ raise_exception('not this one') }}{% endif %}"
    "<|{{ turn['role'] }}|>{{ turn['content'] }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def votes():
    """Pairs with ties, copies, equal, empty and forbidden sides, and rows to refuse for two reasons."""
    lines = (ROOT / "data" / "demo.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [{**json.loads(line), "vote": "aabtb"[index % 5]} for index, line in enumerate(lines[:60])]
    rows = [{**row, "vote": "tie" if row["vote"] == "t" else row["vote"]} for row in rows]
    rows[5]["rejected"] = ""
    rows[6]["rejected"] = rows[6]["chosen"]
    rows[10]["chosen"] = "forbidden"
    rows[8]["vote"], rows[9]["vote"], rows[12]["vote"] = "?", "?", None
    return [*rows, rows[0], rows[1], rows[0]]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def lines_of(summary):
    """The rendered report, a line an entry: (label, value), with titles as (title, "")."""
    console = Console(file=io.StringIO(), width=300, highlight=False)
    console.print(render(summary))
    lines = [line.rstrip() for line in console.file.getvalue().splitlines() if line.strip()]
    return [tuple((*re.split(r"\s{2,}", line.strip(), maxsplit=1), "")[:2]) for line in lines]


@pytest.fixture(scope="module")
def stages(tmp_path_factory, tiny_policy, tiny_reference):
    """The run's folder, its summary after each stage, and its tables read by pandas."""
    folder = tmp_path_factory.mktemp("report")
    write(folder / "votes.jsonl", votes())
    run, summaries = Run.create(folder / "run"), {}

    def look(stage):
        with RunView(run.path) as view:
            summaries[stage] = summarize(view)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ingest(VOTES, run)
    look("ingest")
    (folder / "own.jinja").write_text(TEMPLATE)
    models = {"policy": str(tiny_policy), "reference": str(tiny_reference), "template": str(folder / "own.jinja")}
    score(run, ScoreConfig(**models, **LENGTHS, features=False), ComputeConfig(device="cpu"))
    look("score")
    weigh(run, WeighConfig(margin="dpo_norm", beta=2.0))
    look("weigh")
    tables = {"pairs": pd.concat(pd.read_parquet(path) for path in sorted(run.pairs_path.iterdir()))}
    for name in ("refused", "scores", "weights"):
        tables[name] = pd.read_parquet(run.path / f"{name}.parquet")
    return run, summaries, tables


def test_stages_show_what_is_there(stages):
    _, summaries, _ = stages
    assert list(summaries["ingest"]) == ["run", "data"]
    assert list(summaries["score"]) == ["run", "data", "scoring"]
    assert list(summaries["weigh"]) == ["run", "data", "scoring", "margins", "weights", "length"]
    assert summaries["ingest"]["data"] == summaries["weigh"]["data"]
    assert summaries["score"]["scoring"] == summaries["weigh"]["scoring"]


def test_the_summary_is_json(stages):
    _, summaries, _ = stages
    for summary in summaries.values():
        assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_data(stages):
    run, summaries, tables = stages
    data = summaries["weigh"]["data"]
    pairs, refused = tables["pairs"], tables["refused"]
    assert summaries["weigh"]["run"] == str(run.path)
    assert (data["rows"], data["pairs"], data["refused"]) == (63, len(pairs), len(refused)) == (63, 60, 3)
    assert data["ties"] == pairs["tie"].sum() == 11
    blank = [
        [all(not turn["content"].strip() for turn in side) for side in pairs[name]] for name in ("chosen", "rejected")
    ]
    assert data["blank_sides"] == np.any(blank, axis=0).sum() == 2
    assert data["exact_duplicates"] == pairs["pair_id"].duplicated().sum() == 4
    assert data["inputs"] == [
        {
            "path": "votes.jsonl",
            "format": "columns",
            "why": "--columns says so",
            "rows": 63,
            "pairs": 60,
            "refused": 3,
        }
    ]
    by_reason = refused.groupby("reason")["line"].agg(["size", "min"]).sort_values("size", ascending=False)
    assert data["refused_by_reason"] == [
        {"reason": reason, "rows": number, "file": "votes.jsonl", "line": line}
        for reason, (number, line) in by_reason.iterrows()
    ]
    assert [(reason["rows"], reason["line"]) for reason in data["refused_by_reason"]] == [(2, 9), (1, 13)]


def test_scoring(stages, tiny_policy, tiny_reference):
    run, summaries, tables = stages
    scoring, scores = summaries["weigh"]["scoring"], tables["scores"]
    assert scoring["models"] == {"policy": str(tiny_policy), "reference": str(tiny_reference)}
    assert (scoring["dtype"], scoring["device"]) == ("float32", "cpu")
    assert scoring["template"] == str(run.path.parent / "own.jinja")
    assert (scoring["max_length"], scoring["pairs"]) == (160, 60)
    for part in ("prompt", "chosen", "rejected"):
        assert scoring[f"{part}_truncated"] == scores[f"{part}_truncated"].sum() > 0
    assert scoring["identical_to_the_model"] == scores["identical_tokens"].sum() > 0
    assert scoring["unscored"] == scores["unscored"].notna().sum() == 1
    assert scoring["unscored_by_reason"] == [{"reason": "the chat template refuses it: not this one", "pairs": 1}]
    files = run.path.glob("scores/*/[0-9]*.parquet")
    shards = [json.loads(pq.read_metadata(path).metadata[b"curate"]) for path in files]
    assert len(shards) == 2
    seconds, tokens = (sum(shard[name] for shard in shards) for name in ("seconds", "tokens"))
    assert scoring["seconds"] == pytest.approx(seconds, abs=0.06)
    assert scoring["pairs_per_s"] == pytest.approx(60 / seconds, abs=0.01)
    assert scoring["tokens_per_s"] == pytest.approx(tokens / seconds, abs=0.1)


def assert_distribution(found, values):
    values = values.dropna()
    assert found["n"] == len(values)
    for name, expected in {
        "mean": values.mean(),
        "sd": values.std(),
        "min": values.min(),
        "max": values.max(),
    }.items():
        assert found[name] == pytest.approx(expected, rel=1e-12, abs=1e-12), name
    expected = {name: values.quantile(level) for name, level in LEVELS.items()}
    assert found["quantiles"] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_margins(stages):
    run, summaries, tables = stages
    margins = summaries["weigh"]["margins"]
    scores, margin = tables["scores"], tables["weights"]["margin"]
    ratio = {
        side: (scores[f"policy_{side}_logp"] - scores[f"reference_{side}_logp"]) / scores[f"{side}_tokens"]
        for side in ("chosen", "rejected")
    }
    np.testing.assert_allclose(margin, 2.0 * (ratio["chosen"] - ratio["rejected"]), rtol=1e-12)
    assert (margins["kind"], margins["beta"]) == ("dpo_norm", 2.0)
    assert_distribution(margins, margin)
    labelled = margin[tables["weights"]["weight"].notna()]  # a tie has no label to agree with
    assert margins["labelled"] == len(labelled) < margin.notna().sum()
    assert margins["positive"] == (labelled > 0).sum() > 0
    assert margins["negative"] == (labelled < 0).sum() > 0
    expected = tables["weights"][tables["weights"]["weight"].notna()].sort_values(["margin", "row"])
    assert [pair["row"] for pair in margins["lowest"]] == expected["row"].head(5).tolist()
    assert margins["without_margin"] == margin.isna().sum() == 3  # two empty and a forbidden side
    assert margins["unresolved"] == (margin.abs() < 2 * margins["noise_floor"]["sigma"]).sum()
    rescored = pd.read_parquet(next(run.path.glob("scores/policy-*/noise_floor.parquet")))
    assert margins["noise_floor"]["pairs"] == margin[tables["weights"]["row"].isin(rescored["row"])].notna().sum() > 0


def test_histogram(stages):
    _, summaries, tables = stages
    margins = summaries["weigh"]["margins"]
    found, margin = margins["histogram"], tables["weights"]["margin"].dropna()
    low, high = margin.quantile([0.01, 0.99])
    assert (found["low"], found["high"]) == pytest.approx((low, high), rel=1e-12)
    inside = margin[margin.between(found["low"], found["high"])]
    assert found["counts"] == np.histogram(inside, bins=40, range=(found["low"], found["high"]))[0].tolist()
    assert (found["below"], found["above"]) == ((margin < low).sum(), (margin > high).sum()) == (1, 1)
    total = sum(found["counts"]) + found["below"] + found["above"] + margins["without_margin"]
    assert total == summaries["weigh"]["data"]["pairs"]


def test_histogram_of_two_values(stages, tmp_path):
    """The largest margin is in the last bin, and nothing lies beyond."""
    run, _, tables = stages
    copy = shutil.copytree(run.path, tmp_path / "run")
    tables["weights"].assign(margin=[-1.0, 1.0] * 30).to_parquet(copy / "weights.parquet")
    with RunView(copy) as view:
        found = summarize(view)["margins"]["histogram"]
    assert found == {"low": -1.0, "high": 1.0, "counts": [30, *[0] * 38, 30], "below": 0, "above": 0}


def test_weights(stages):
    _, summaries, tables = stages
    weights, table = summaries["weigh"]["weights"], tables["weights"]
    assert (weights["gamma0"], weights["tau"]) == (pytest.approx(0.8), 10.0)
    assert weights["population"] == table["weight"].notna().sum() == (~tables["pairs"]["tie"]).sum() - 3 == 46
    assert_distribution(weights["weight"], table["weight"])
    assert_distribution(weights["target_margin"], table["target_margin"])
    assert weights["weight"]["mean"] == pytest.approx(1.0)
    expected = table["weight"].sum() ** 2 / (table["weight"] ** 2).sum()
    assert weights["effective_sample_size"] == pytest.approx(expected, rel=1e-12)
    assert weights["residual"] < 1e-9


def test_length(stages):
    _, summaries, tables = stages
    length = summaries["weigh"]["length"]
    joined = tables["scores"].merge(tables["weights"], on=["pair_id", "row"])
    weighed = joined[joined["weight"].notna()]
    longer = weighed["chosen_tokens"] - weighed["rejected_tokens"]
    assert longer.duplicated().any()
    expected = {
        "chosen_longer": (longer > 0).mean(),
        "rejected_longer": (longer < 0).mean(),
        "median_chosen_tokens": weighed["chosen_tokens"].median(),
        "median_rejected_tokens": weighed["rejected_tokens"].median(),
        "rank_correlation": weighed["margin"].corr(longer, method="spearman"),
        "positive_where_chosen_longer": (weighed["margin"][longer > 0] > 0).mean(),
        "positive_where_rejected_longer": (weighed["margin"][longer < 0] > 0).mean(),
    }
    assert length == pytest.approx(expected, rel=1e-9)


# --- the text ---


def test_text_of_the_data(stages):
    run, summaries, tables = stages
    reasons = tables["refused"]["reason"].tolist()
    assert lines_of(summaries["ingest"]) == [
        (f"Audit of {run.path}", ""),
        ("input", "votes.jsonl: columns, since --columns says so"),
        ("rows", "63 read = 60 pairs + 3 refused"),
        ("refused", f"2 × {reasons[0]} (first: line 9 of votes.jsonl)"),
        ("refused", f"1 × {reasons[2]} (first: line 13 of votes.jsonl)"),
        ("ties", "11 (18.3%): no side was preferred; scored, but without weight"),
        ("duplicates", "4 (6.7%) repeat a pair word for word"),
        ("blank", "2 (3.3%) have a side without any text"),
    ]
    assert reasons[0].startswith("label is '?'")
    assert reasons[2].startswith("label is None")


def test_text_of_the_scores(stages, tiny_policy, tiny_reference):
    run, summaries, tables = stages
    found, scores = lines_of(summaries["score"]), tables["scores"]
    assert found[:8] == lines_of(summaries["ingest"])
    cut = [int(scores[f"{part}_truncated"].sum()) for part in ("prompt", "chosen", "rejected")]
    values = dict(found[9:])
    assert found[8] == ("Scoring", "")
    assert list(values) == ["policy", "reference", "how", "speed", "unscored", "truncated", "identical"]
    assert (values["policy"], values["reference"]) == (str(tiny_policy), str(tiny_reference))
    assert values["how"] == f"float32 on cpu, packed kernel, {run.path.parent / 'own.jinja'} template"
    assert values["unscored"] == "1 × the chat template refuses it: not this one"
    assert re.fullmatch(r"60 pairs in [\d.]+ worker seconds: [\d.,]+ pairs/s, [\d,]+ tokens/s", values["speed"])
    assert values["truncated"] == f"at 160 tokens: {cut[0]} prompt, {cut[1]} chosen, {cut[2]} rejected"
    assert values["identical"] == f"{scores['identical_tokens'].sum()} pairs whose sides are the same tokens"


def test_text_of_the_weights(stages):
    _, summaries, _ = stages
    summary = summaries["weigh"]
    found = lines_of(summary)
    assert [line for line in found if not line[1]] == [
        (f"Audit of {summary['run']}", ""),
        ("Scoring", ""),
        ("Margins (dpo_norm, β = 2)", ""),
        (f"rank correlation of margin and length difference {summary['length']['rank_correlation']:+.2f}", ""),
        ("γ-PO weights", ""),
    ]
    values = dict(found)
    bars = re.search(r"^\S+ (.{40}) \S+$", values["1 % to 99 %"])[1]
    counts = summary["margins"]["histogram"]["counts"]
    assert [bar != " " for bar in bars] == [number > 0 for number in counts]
    assert {counts[at] for at, bar in enumerate(bars) if bar == "█"} == {max(counts)}
    positive, negative, n = (summary["margins"][name] for name in ("positive", "negative", "labelled"))
    assert values["sign"] == (
        f"{positive} ({positive / n:.1%}) positive: the policy agrees with the label; "
        f"{negative} ({negative / n:.1%}) negative"
    )
    assert values["none"] == "3 pairs have no margin (unscored, or a side without tokens)"
    assert values["noise floor"].endswith(f"{summary['margins']['unresolved']} margins lie within 2σ of zero")
    assert values["setting"] == "γ0 = 0.8, τ = 10, over 46 pairs"
    size = summary["weights"]["effective_sample_size"]
    assert values["effective size"] == f"{size:.0f} ({size / 46:.1%})"


def test_a_narrow_terminal_loses_nothing(stages):
    _, summaries, _ = stages
    shown = []
    for width in (60, 300):
        console = Console(file=io.StringIO(), width=width, highlight=False)
        console.print(render(summaries["weigh"]))
        shown.append(re.sub(r"\s", "", console.file.getvalue()))
    assert len(shown[0]) == len(shown[1])
    assert sorted(shown[0]) == sorted(shown[1])


def test_one_pair(tmp_path, tiny_policy):
    """No spread and no correlation: JSON says null, the text is there all the same."""
    write(tmp_path / "one.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "cd"}])
    run = Run.create(tmp_path / "run")
    ingest(IngestConfig((str(tmp_path / "one.jsonl"),)), run)
    score(run, ScoreConfig(policy=str(tiny_policy), features=False), ComputeConfig(device="cpu"))
    weigh(run, WeighConfig())
    with RunView(run.path) as view:
        summary = summarize(view)
    margin = pd.read_parquet(run.weights_path)["margin"][0]
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert (summary["margins"]["n"], summary["margins"]["mean"], summary["margins"]["sd"]) == (1, margin, None)
    assert summary["weights"]["weight"]["quantiles"] == dict.fromkeys(LEVELS, 1.0)
    assert sum(summary["margins"]["histogram"]["counts"]) == 1
    assert summary["length"] == {
        "chosen_longer": 0.0,
        "rejected_longer": 1.0,
        "median_chosen_tokens": 2.0,
        "median_rejected_tokens": 3.0,
        "rank_correlation": None,
        "positive_where_chosen_longer": None,
        "positive_where_rejected_longer": float(margin > 0),
    }
    assert ("effective size", "1 (100.0%)") in lines_of(summary)


def test_refused_rows_alike_are_told_by_their_first(tmp_path):
    """Over several files: the first row of each reason, the most frequent reason first."""
    good = {"prompt": "a", "chosen": "b", "rejected": "c"}
    write(tmp_path / "1.jsonl", [good, {**good, "chosen": None}])
    write(tmp_path / "2.jsonl", [{**good, "rejected": 7}, good, {**good, "rejected": 7}, {**good, "chosen": None}])
    write(tmp_path / "3.jsonl", [good, {**good, "rejected": 7}])
    run = Run.create(tmp_path / "run")
    ingest(IngestConfig((str(tmp_path / "*.jsonl"),)), run)
    with RunView(run.path) as view:
        data = summarize(view)["data"]
    assert [(entry["rows"], entry["pairs"], entry["refused"]) for entry in data["inputs"]] == [
        (2, 1, 1),
        (4, 1, 3),
        (2, 1, 1),
    ]
    assert data["refused_by_reason"] == [
        {"reason": "rejected is a number (7), not text", "rows": 3, "file": str(tmp_path / "2.jsonl"), "line": 1},
        {"reason": "chosen is missing", "rows": 2, "file": str(tmp_path / "1.jsonl"), "line": 2},
    ]
