"""The figures: their numbers against counts by hand, their order, their colours, and names as plain text."""

import itertools
import re

import numpy as np
import pandas as pd
import pytest

from curate import charts
from curate.detect import CONTROLLED, EXPLANATIONS
from curate.noise import agreement_curve, fit_lapse
from curate.schema import KINDS, SELFTEST, SLICES

# Machado, Oliveira and Fernandes (2009), severity 1: what linear RGB becomes.
VISION = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def linear(colour):
    channels = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089])
    root = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def contrast(one, other):
    dark, light = sorted(linear(colour) @ [0.2126, 0.7152, 0.0722] + 0.05 for colour in (one, other))
    return light / dark


def slices(rows):
    """Rows of (by, value, pairs, rate); intervals of ± 0.05."""
    return pd.DataFrame(
        [(by, value, pairs, rate, rate - 0.05, rate + 0.05, pairs, 0, 0, 0, 0) for by, value, pairs, rate in rows],
        columns=SLICES.names,
    )


def selftest(rows):
    """Rows of (signal, rate, folds, mean), of the metric auroc."""
    return pd.DataFrame(
        [
            ("random", rate, folds, signal, "auroc", mean, mean - 0.02, mean + 0.03)
            for signal, rate, folds, mean in rows
        ],
        columns=SELFTEST.names,
    )


# --- colours and names ----------------------------------------------------------------------------


def test_every_kind_has_its_colour_and_symbol():
    assert list(charts.KIND_COLOURS) == list(charts.KIND_SYMBOLS) == list(KINDS)
    assert len(set(charts.KIND_SYMBOLS.values())) == len(KINDS)


@pytest.mark.parametrize("vision", VISION)
def test_kinds_are_told_apart_by_everyone(vision):
    seen = [lab(np.asarray(VISION[vision]) @ linear(colour)) for colour in charts.KIND_COLOURS.values()]
    assert min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)) > 15


@pytest.mark.parametrize("page", ["#ffffff", "#15181c"])
def test_kinds_are_visible_in_light_and_dark(page):
    assert min(contrast(colour, page) for colour in charts.KIND_COLOURS.values()) > 2.5
    assert contrast(charts.KIND_COLOURS["flipped"], page) > 3
    assert contrast(charts.ACCENT, page) > 3


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain", "plain"),
        ("<a href='javascript:x'>y</a> &lt;", "&lt;a href='javascript:x'&gt;y&lt;/a&gt; &amp;l…"),
        ("two\nlines\tand\x07\u202ebidi", "two lines and\\x07\\u202ebidi"),
        ("x" * 40, "x" * 31 + "…"),
        (7, "7"),
        ("", ""),
    ],
)
def test_label(name, shown):
    assert charts.label(name) == shown


def test_names_from_the_data_are_escaped_in_every_figure():
    name = "<b>&"
    table = pd.DataFrame(
        {"pair_id": ["ab"] * 2, "kind": "clean", "p_flip": 0.1, "cluster": 0, "x": [0.0, 1.0], "y": [0.0, 1.0]}
    )
    rows = slices([("source", name, 5, 0.1), ("source", "b", 5, 0.2)])
    figures = [
        charts.text_map(table, {0: name}),
        charts.slice_rates(rows),
        charts.selftest_scores(selftest([(name, 0.2, "grouped", 0.7)]), "auroc", "grouped"),
    ]
    for figure in figures:
        text = str(figure.to_dict())
        assert "&lt;b&gt;&amp;" in text
        assert name not in text


# --- kinds, agreement, evidence -------------------------------------------------------------------


def test_kind_counts():
    figure = charts.kind_counts({"clean": 1_500, "flipped": 500})
    bars = figure.data[0]
    assert list(bars.y) == list(KINDS)
    assert list(bars.x) == [1_500, 500, 0, 0, 0]
    assert bars.text[:3] == ("1,500 (75.0%)", "500 (25.0%)", "0 (0.0%)")
    assert figure.layout.xaxis.range[0] == 0
    assert charts.kind_counts({}).data[0].text[0] == "0 (0.0%)"


def test_agreement_shows_the_curve_and_where_it_levels_off():
    rng = np.random.default_rng(0)
    margin = rng.normal(1, 2, 3_000)
    fit = fit_lapse(margin)
    curve = agreement_curve(margin, fit)
    figure = charts.agreement(curve, 0.1)
    line, points = figure.data
    np.testing.assert_array_equal(line.y, curve.fit_G)
    np.testing.assert_array_equal(points.y, curve.agreement_G)
    np.testing.assert_allclose(points.y + points.error_y.array, curve.high_G)
    np.testing.assert_allclose(points.y - points.error_y.arrayminus, curve.low_G)
    assert [shape.y0 for shape in figure.layout.shapes] == [0.5, 0.9]
    assert len(charts.agreement(curve).layout.shapes) == 1


def test_evidence_bins_count_every_pair_once():
    rng = np.random.default_rng(1)
    evidence = np.concatenate([rng.normal(1, 2, 5_000), [np.inf, -np.inf, 1e9, -1e9], np.full(7, np.nan)])
    kind = pd.Series(np.array(KINDS)[rng.integers(0, 5, len(evidence))])
    edges, counts = charts.evidence_bins(evidence, kind)
    assert 0.0 in edges
    assert 38 <= len(edges) - 1 <= 44
    np.testing.assert_allclose(np.diff(edges), edges[1] - edges[0])
    for code, name in enumerate(KINDS):
        assert counts[code].sum() == ((kind == name) & ~np.isnan(evidence)).sum()
    first = int(np.flatnonzero(edges == 0.0)[0])
    assert counts[:, first].sum() == ((evidence >= 0) & (evidence < edges[first + 1])).sum()


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, 1e-300])
def test_evidence_that_is_all_the_same(value):
    edges, counts = charts.evidence_bins(np.full(9, value), pd.Series(["clean"] * 9))
    assert counts.sum() == 9
    assert 0.0 in edges
    assert (np.diff(edges) > 0).all()


def test_no_evidence_at_all():
    edges, counts = charts.evidence_bins(np.full(3, np.nan), pd.Series(["unresolved"] * 3))
    assert counts.sum() == 0
    assert len(edges) > 1


def test_evidence_histogram_is_stacked_from_zero():
    table = pd.DataFrame({"evidence": pd.array([1.0, 2.0, -1.0, None], dtype="Float64"), "kind": ["clean"] * 4})
    table.loc[2, "kind"] = "flipped"
    figure = charts.evidence_histogram(table)
    assert figure.layout.barmode == "stack"
    assert figure.layout.yaxis.rangemode == "tozero"
    assert {bar.name: int(np.sum(bar.y)) for bar in figure.data} == {"clean": 2, "flipped": 1}


# --- slices ---------------------------------------------------------------------------------------


def test_worst_slices_share_the_room_and_are_in_order():
    table = slices(
        [("annotator", f"w{number}", 10, 0.3 - number / 1_000) for number in range(200)]
        + [("source", "a", 10, 0.05), ("source", "b", 10, 0.2), ("turns", "only", 10, 0.4), ("custom", "x", 9, 0.1)]
        + [("custom", "y", 9, 0.2), ("length", "long", 10, np.nan), ("length", "short", 10, 0.1)]
    )
    worst = charts.worst_slices(table, 8)
    assert list(worst["by"]) == ["source"] * 2 + ["annotator"] * 4 + ["custom"] * 2
    assert list(worst["value"]) == ["b", "a", "w0", "w1", "w2", "w3", "y", "x"]
    assert charts.worst_slices(slices([])).empty
    assert charts.worst_slices(table.assign(rate=np.nan)).empty


def test_slice_rates():
    table = slices([("source", "b", 1_234, 0.3), ("source", "a", 10, 0.1), ("turns", "1", 5, 0.2)])
    figure = charts.slice_rates(table, 0.16)
    points = figure.data[0]
    assert list(points.x) == [0.3, 0.1, 0.2]
    assert list(points.y) == [1, 2, 4]  # rows 0 and 3 are headings
    assert figure.layout.yaxis.ticktext == ("<b>source</b>", "b", "a", "<b>turns</b>", "1")
    np.testing.assert_allclose(points.error_x.array, 0.05)
    assert list(points.marker.color) == [charts.KIND_COLOURS["flipped"], charts.ACCENT, charts.ACCENT]
    assert figure.layout.xaxis.range[0] == 0
    assert [note.text for note in figure.layout.annotations] == ["1,234", "10", "5", "all: 16.0%"]
    assert not charts.slice_rates(table).layout.shapes


# --- the map --------------------------------------------------------------------------------------


def places(pairs):
    rng = np.random.default_rng(2)
    return pd.DataFrame(
        {
            "pair_id": [f"{number:08x}{0:08x}" for number in range(pairs)],
            "kind": np.array(KINDS)[rng.integers(0, 5, pairs)],
            "p_flip": pd.array(rng.random(pairs), dtype="Float64"),
            "cluster": pd.array(rng.integers(0, 3, pairs), dtype="Int32"),
            "x": rng.normal(size=pairs).astype(np.float32),
            "y": rng.normal(size=pairs).astype(np.float32),
        }
    )


def shown(figure):
    return sorted(re.match(r"\w+", text).group() for trace in figure.data for text in trace.text)


def test_map_shows_each_pair_in_its_place():
    table = places(50)
    table.loc[0, ["x", "p_flip", "cluster"]] = None
    table.loc[1, ["p_flip", "cluster"]] = None
    figure = charts.text_map(table, {0: "eggs"})
    assert shown(figure) == sorted(table["pair_id"][1:].str[:8])
    assert [trace.name for trace in figure.data] == [kind for kind in KINDS if (table["kind"][1:] == kind).any()]
    trace = next(trace for trace in figure.data if trace.name == table["kind"][1])
    at = [text.startswith(table["pair_id"][1][:8]) for text in trace.text]
    assert np.asarray(trace.x)[at] == pytest.approx(table["x"][1], abs=1e-4)
    assert trace.type == "scatter"
    texts = " ".join(text for trace in figure.data for text in trace.text)
    assert "eggs" in texts
    assert "cluster 1" in texts  # it has no name
    assert [note.text for note in figure.layout.annotations] == ["eggs"]


def test_map_draws_the_same_few_of_many_each_time():
    table = places(6_000)
    one, other = (charts.text_map(table, {}, limit=100) for _ in range(2))
    assert len(shown(one)) == 100
    assert shown(one) == shown(other)
    assert len(shown(charts.text_map(table, {}))) == 5_000


def test_map_by_p_flip():
    table = places(20)
    figure = charts.text_map(table, {}, colour="p_flip")
    assert len(figure.data) == 1
    assert list(figure.data[0].marker.color) == sorted(table["p_flip"])
    assert (figure.data[0].marker.cmin, figure.data[0].marker.cmax) == (0, 1)


# --- the self-test --------------------------------------------------------------------------------


def test_selftest_scores():
    rows = [("fused", 0.2, "grouped", 0.8), ("length", 0.2, "grouped", 0.7), ("probe", 0.2, "grouped", 0.9)]
    rows += [("fused", 0.1, "grouped", 0.8), ("fused", 0.3, "grouped", np.nan), ("fused", 0.2, "random", 0.95)]
    rows += [("oracle", 0.0, "grouped", 0.93), ("raw_margin", 0.2, "none", 0.4)]
    table = selftest(rows)
    figure = charts.selftest_scores(table, "auroc", "grouped", names={"length": "length alone"})
    assert figure.layout.yaxis.ticktext == ("<i>length alone</i>", "probe", "fused", "raw margin")
    tenth, fifth = figure.data
    assert (tenth.name, fifth.name) == ("10%", "20%")
    assert dict(zip(np.round(fifth.y), fifth.x, strict=True)) == {2: 0.8, 0: 0.7, 1: 0.9, 3: 0.4}
    np.testing.assert_allclose(fifth.error_x.array, 0.03)
    np.testing.assert_allclose(fifth.error_x.arrayminus, 0.02)
    assert sorted(shape.x0 for shape in figure.layout.shapes if shape.xref == "x") == [0.5, 0.93]
    other = charts.selftest_scores(table, "auroc", "random", names={"length": "length alone"})
    assert 0.4 in other.data[-1].x  # what needs no fit is shown with any folds
    assert other.layout.xaxis.range == figure.layout.xaxis.range
    assert other.layout.yaxis.ticktext == figure.layout.yaxis.ticktext


def test_a_gain_is_shown_around_zero():
    table = selftest([("fused", 0.2, "grouped", 0.07), ("probe", 0.2, "grouped", -0.01)])
    figure = charts.selftest_scores(table.assign(metric="auroc_above_length"), "auroc_above_length", "grouped")
    assert [shape.x0 for shape in figure.layout.shapes] == [0.0]
    assert figure.layout.xaxis.range == pytest.approx((-0.06, 0.13))
    assert charts.ceiling(table) is None


def test_baselines_are_signals_of_the_self_test():
    assert charts.BASELINES[1] == CONTROLLED
    assert set(charts.BASELINES) < set(EXPLANATIONS)


def test_chance_of_average_precision_is_the_planted_rate():
    table = selftest([("fused", 0.1, "grouped", 0.5), ("fused", 0.4, "grouped", 0.7)])
    figure = charts.selftest_scores(table.assign(metric="average_precision"), "average_precision", "grouped")
    assert [shape.x0 for shape in figure.layout.shapes] == [0.1, 0.4]
