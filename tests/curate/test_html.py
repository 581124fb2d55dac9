"""The HTML report: its numbers, its sentences where something is missing, and the real page in Chromium."""

import base64
import dataclasses
import hashlib
import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from curate.errors import StorageError
from curate.html import ReportContent, render_html, visible, write_report
from curate.noise import agreement_curve, fit_lapse, p_flip
from curate.schema import DIAGNOSIS, KINDS, SELFTEST, SLICES

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>document.title = 'stolen'</script>",
    "<img src=http://evil.example/pixel.png onerror=\"document.title = 'stolen'\">",
    '[click](javascript:alert(1)) <a href="javascript:alert(1)">javascript:</a>',
    "<style>body { display: none }</style><link rel=stylesheet href=http://evil.example/style.css>",
    "nul \x00 bell \x07 escape \x1b[31m backspace \x08",
    "right to left \u202egnp.exe\u202c and \u2066isolated\u2069, zero width \u200b, lone \ud800",
    "{{ 7 * 7 }} {% raw %} ${alert(1)} %{y} <!-- ]]> & &amp; &#60;b&#62;",
    "family \U0001f468\u200d\U0001f469\u200d\U0001f467, \u0645\u0631\u062d\u0628\u0627, tab\tand\r\nline",
]
NOISE = 0.12


def diagnosis(pairs, seed=0):
    """A table of the schema: margins simulated from the lapse model, four clusters on a map."""
    rng = np.random.default_rng(seed)
    size = np.abs(rng.normal(0, 2.2, pairs))
    agrees = (rng.random(pairs) < expit(1.5 * size)) ^ (rng.random(pairs) < NOISE)
    margin = np.where(agrees, size, -size)
    fit = fit_lapse(margin)
    chance = p_flip(margin, fit)
    kind = np.select([chance > 0.5, np.abs(margin) < 0.15], ["flipped", "ambiguous"], "clean").astype(object)
    kind[rng.random(pairs) < 0.03] = "defective"
    unknown = rng.random(pairs) < 0.02
    kind[unknown] = "unresolved"
    cluster = rng.integers(0, 6, pairs)
    centre = 3 * np.stack([np.cos(cluster), np.sin(cluster)]) * (1 + cluster % 3)
    table = pd.DataFrame(
        {
            "pair_id": [f"{number:016x}" for number in rng.integers(0, 2**62, pairs)],
            "row": np.arange(pairs),
            "kind": kind,
            "p_flip": np.where(unknown, np.nan, chance),
            "evidence": np.where(unknown, np.nan, fit.slope * margin),
            "checks": [[]] * pairs,
            "reasons": [["the evidence says the other side is better"]] * pairs,
            "cluster": pd.array(cluster, dtype="Int32"),
            "x": (centre[0] + rng.normal(0, 1.1, pairs)).astype(np.float32),
            "y": (centre[1] + rng.normal(0, 1.1, pairs)).astype(np.float32),
        }
    )
    assert list(table.columns) == DIAGNOSIS.names
    return table, margin, fit


def slices(names=(), seed=1):
    rng = np.random.default_rng(seed)
    groups = {
        "source": ["helpful-base", "helpful-online", "harmless-base", *names],
        "annotator": [f"worker {number:03d}" for number in range(40)],
        "cluster": ["recipes, cooking", "python, code, error", "poems", "travel", "arithmetic, sums", "small talk"],
        "length": ["chosen much shorter", "about equal", "chosen much longer"],
        "turns": ["1", "2–3", "4 and more"],
    }
    rows = []
    for by, values in groups.items():
        for value in values:
            pairs = int(rng.integers(40, 4_000))
            rate = float(np.clip(rng.normal(NOISE, 0.05), 0.01, 0.45))
            half = 1.5 * np.sqrt(rate * (1 - rate) / pairs) + 0.01
            counts = rng.multinomial(pairs, [0.87 - rate, rate, 0.08, 0.02, 0.03])
            rows.append((by, value, pairs, rate, max(rate - half, 0), rate + half, *(int(count) for count in counts)))
    return pd.DataFrame(rows, columns=SLICES.names)


def selftest(seed=2):
    """As the stage makes it: fitted signals with both folds, the others with none, and the oracle."""
    rng = np.random.default_rng(seed)
    fitted = {"length": 0.7, "likelihood": 0.71, "hidden_middle": 0.75, "hidden_last": 0.74, "fused": 0.79}
    fitted |= {"fused_length_controlled": 0.66, "vote_majority": 0.74}
    unfitted = {"token_difference": 0.69, "dpo_margin": 0.57, "simpo_margin": 0.5}
    signals = [(name, folds, mean) for folds in ("grouped", "random") for name, mean in fitted.items()]
    signals += [(name, "none", mean) for name, mean in unfitted.items()]
    rows = [("random", 0.0, "grouped", "oracle", "auroc", 0.88, 0.85, 0.91)]
    for noise, rates in {"random": (0.1, 0.2, 0.4), "hard": (0.2,), "longer": (0.2,)}.items():
        for rate, (signal, folds, mean) in itertools.product(rates, signals):
            best = mean + 0.04 * (folds == "random") - 0.1 * rate + rng.normal(0, 0.01)
            scores = {"auroc": best, "average_precision": rate + (best - 0.5) * 1.2, "precision_at_100": best}
            scores |= {"auroc_above_length": best - 0.68} if signal != "length" else {}
            scores |= {"rate": 0.2, "rate_error": np.nan} if signal == "fused" else {}
            rows += [
                (noise, rate, folds, signal, metric, score, score - 0.03, score + 0.03)
                for metric, score in scores.items()
            ]
    return pd.DataFrame(rows, columns=SELFTEST.names)


def messages(text, role="assistant"):
    return [{"role": role, "content": text}]


def suspect(number, text, **changes):
    return {
        "pair_id": f"{number:016x}",
        "kind": "flipped",
        "p_flip": 0.97 - number / 100,
        "reasons": [
            "the evidence says the other side is better (log-odds −3.1)",
            "the rating disagrees with the label",
        ],
        "prompt": messages(text, "user"),
        "chosen": messages(text),
        "rejected": messages(text),
        **changes,
    }


CHECKS = pd.DataFrame(
    [
        ("repeated", "warning", 214, "the same pair stands in the data more than once"),
        ("identical_sides", "defect", 31, "chosen and rejected are the same text"),
        ("cut_off", "note", 1_020, "a side ends in the middle of a sentence"),
        ("empty_side", "defect", 4, "a side has no text at all"),
    ],
    columns=["check", "severity", "pairs", "explanation"],
)


def content(pairs=4_000, **changes):
    table, margin, fit = diagnosis(pairs)
    text = (
        "How do I boil an egg?\n\n1. Put it into cold water.\n2. Heat it until it boils, and wait for six minutes. " * 3
    )
    parts = {
        "title": "helpful-harmless.jsonl",
        "facts": [
            ("inputs", "data/helpful-harmless.jsonl (hh format), data/more.parquet (TRL format)"),
            ("pairs", f"{pairs:,} (12 rows refused, 40 ties)"),
            ("date", "25 November 2026"),
            ("policy", "HuggingFaceTB/SmolLM2-135M-Instruct"),
            ("reference", "HuggingFaceTB/SmolLM2-135M"),
            ("curate", "0.1.0"),
        ],
        "verdict": {
            "rate": fit.rate,
            "low": fit.low,
            "high": fit.high,
            "can_tell": True,
            "sentence": "The labels are noisier than those of most published datasets; sources differ.",
        },
        "kinds": table["kind"].value_counts().to_dict(),
        "selftest_sentence": "On your data this finds 6 of 10 planted flips at 80% precision.",
        "curve": agreement_curve(margin, fit),
        "diagnosis": table,
        "slices": slices(),
        "selftest": selftest(),
        "signal_names": {"length": "length alone", "fused_length_controlled": "with length taken out"},
        "meanings": {kind: f"pairs that are {kind}, in more words than one" for kind in KINDS},
        "checks": CHECKS,
        "suspects": [suspect(number, text) for number in range(10)],
        "cluster_names": dict(enumerate(["recipes, cooking", "python, code", "poems", "travel", "sums", "small talk"])),
        "method": [
            ("noise model", "lapse rate, profile likelihood"),
            ("folds", "10, grouped by prompt; 3 repeats"),
            ("seed", "0"),
        ],
    }
    return ReportContent(**{**parts, **changes})


PLOTS = ["kinds", "curve", "evidence", "slices", "map"]
METRICS = ("auroc", "auroc_above_length", "average_precision")
SCORES = [f"{metric}-{folds}-random" for metric in METRICS for folds in ("grouped", "random")]


class Page(HTMLParser):
    """What a page holds: its start tags with their attributes, and its text outside of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self._open = [], [], ""
        self.feed(text)
        self.text = "".join(self.texts)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        if tag in ("th", "td", "dt", "dd", "li"):
            self.texts.append(" ")

    def handle_endtag(self, tag):
        self._open = ""

    def handle_data(self, data):
        if self._open not in ("script", "style"):
            self.texts.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    def plots(self):
        return [attrs["id"].removeprefix("plot-") for attrs in self.all("div") if attrs.get("class", "")[:4] == "plot"]


def words(page):
    return " ".join(page.text.split())


@pytest.fixture(scope="module")
def full():
    return content()


@pytest.fixture(scope="module")
def page(full):
    return Page(render_html(full))


# --- what it says ---------------------------------------------------------------------------------


def test_every_part_is_there_with_its_numbers(full, page):
    assert page.plots() == PLOTS + SCORES
    said = words(page)
    verdict = full.verdict
    assert f"{verdict['rate']:.1%} of the labels are the wrong way round" in said
    assert f"95% interval {verdict['low'] * 100:.1f}–{verdict['high'] * 100:.1f}%" in said
    assert verdict["sentence"] in said
    assert full.selftest_sentence in said
    assert all(meaning in said for meaning in full.meanings.values())
    assert all(value in said for _, value in [*full.facts, *full.method])
    evidence = full.diagnosis["evidence"]
    against, known = (evidence < 0).sum(), evidence.notna().sum()
    assert f"against the label of {against:,} of {known:,} pairs ({against / known:.1%})" in said


def test_figures_have_words_and_tables_have_headers(page):
    labels = [attrs for attrs in page.all("div") if attrs.get("class") == "plot"]
    assert all(attrs["role"] == "img" and len(attrs["aria-label"]) > 20 for attrs in labels)
    assert f"{content(50).kinds['clean']} clean" in Page(render_html(content(50))).all("div")[0]["aria-label"]
    heads = page.all("th")
    assert heads
    assert all(attrs["scope"] in ("col", "row") for attrs in heads)
    assert [attrs["href"] for attrs in page.all("a")] == [
        f"#{attrs['id']}" for attrs in page.all("section") if "id" in attrs
    ]


def test_plotly_is_embedded_once_and_the_file_stays_small(full, tmp_path):
    target = tmp_path / "report.html"
    write_report(full, target)
    text = target.read_text(encoding="utf-8")
    assert text.count("* plotly.js v") == 1
    assert target.stat().st_size < 8e6
    assert text == render_html(full)  # nothing random in it


def test_a_million_pairs(full):
    small = full.diagnosis
    many = small.iloc[np.arange(1_000_000) % len(small)].reset_index(drop=True)
    text = render_html(dataclasses.replace(full, diagnosis=many))
    assert len(text.encode()) < 8e6
    assert "5,000 of 1,000,000 pairs, drawn at random" in text


def test_long_texts_are_cut_and_say_so():
    longest = 300_000
    suspects = [suspect(number, "word " * (longest // 5)) for number in range(40)]
    text = render_html(content(50, suspects=suspects))
    assert len(text.encode()) < 8e6
    shown = 1_500_000 // 120
    assert f"… and {longest - shown:,} more characters" in text


def test_checks_by_severity_and_slices_by_rate(page):
    said = words(page)
    places = [said.index(name) for name in ("identical_sides", "empty_side", "repeated", "cut_off")]
    assert places == sorted(places)
    worst = slices().sort_values("rate", ascending=False).iloc[0]
    assert f"{worst['by']}: {worst['value']}" in said
    assert "The 30 noisiest of 55 slices" in said


def test_the_self_test_table_leaves_out_what_was_not_measured(page):
    said = words(page)
    assert "Planted: random; folds grouped by prompt" in said
    assert "Planted: random; signals that need no fit" in said
    assert "rate error" not in said
    assert "A perfect detector would reach an AUROC of 0.88 here" in said
    score = (
        selftest()
        .query("signal == 'fused' and noise == 'random' and rate == 0.2 and folds == 'grouped' and metric == 'auroc'")
        .iloc[0]
    )
    assert f"{score['mean']:.3f} ({score['low']:.3f}–{score['high']:.3f})" in said


# --- what is missing ------------------------------------------------------------------------------


def test_nothing_but_a_title():
    page = Page(render_html(ReportContent(title="empty.jsonl")))
    assert page.plots() == []
    for sentence in (
        "Cannot tell how many labels are the wrong way round",
        "No pair was diagnosed.",
        "There is no evidence that labels could agree with.",
        "Nothing speaks for either side of any pair.",
        "The data has no groups to compare.",
        "There is no map",
        "No noise was planted",
        "No check found anything.",
        "No pair is under suspicion.",
    ):
        assert sentence in words(page)


def test_three_pairs():
    page = Page(render_html(content(3, slices=pd.DataFrame(), selftest=pd.DataFrame())))
    assert page.plots() == ["kinds"]
    assert "Only 3 pairs with evidence: too few for a curve." in words(page)
    assert "Only 3 pairs on the map: too few to show." in words(page)


def test_a_rate_that_cannot_be_told_is_shown_nowhere(full):
    rateless = full.slices.assign(rate=np.nan, low=np.nan, high=np.nan)
    verdict = {
        "rate": 0.31,
        "low": 0.0,
        "high": 0.5,
        "can_tell": False,
        "sentence": "cannot tell: the evidence is too weak",
    }
    text = render_html(dataclasses.replace(full, verdict=verdict, slices=rateless))
    said = words(Page(text))
    assert "Cannot tell" in said
    assert "The evidence is too weak" in said
    assert "cannot tell:" not in said
    assert "31.0%" not in said
    assert "1 − noise rate" not in text
    assert "The data cannot tell how noisy its groups are." in said
    assert f"source: helpful-base {full.slices['pairs'][0]:,} – –" in said  # the table still counts


def test_without_features_there_is_no_map(full):
    bare = full.diagnosis.assign(x=np.nan, y=np.nan, cluster=pd.array([None] * len(full.diagnosis), dtype="Int32"))
    page = Page(render_html(dataclasses.replace(full, diagnosis=bare, absent={"map": "Scored with --no-features."})))
    assert "map" not in page.plots()
    assert "Scored with --no-features." in words(page)


def test_one_source_is_no_slice(full):
    one = full.slices[~full.slices["by"].isin(["source", "annotator"])]
    one = pd.concat([full.slices[:1], one])
    page = Page(render_html(dataclasses.replace(full, slices=one)))
    assert "Not compared, since the data has fewer than two groups of each: source, annotator." in words(page)


def test_a_suspect_without_words():
    bare = suspect(0, "", p_flip=None, reasons=None, prompt=None, chosen=np.array(messages("yes")), kind="defective")
    said = words(Page(render_html(content(50, suspects=[bare]))))
    assert "defective p_flip – Read the pair prompt No messages. chosen assistant yes" in said


def test_a_disk_that_refuses(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="report"):
        write_report(ReportContent(title="x"), tmp_path / "file" / "report.html")


# --- what is hostile ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<b> & 'x'", "&lt;b&gt; &amp; &#39;x&#39;"),
        ("a\r\nb\tc", "a\nb\tc"),
        ("a\rb", 'a<span class="code">\\r</span>b'),
        ("\u202e", '<span class="code">\\u202e</span>'),
        ("\ud800", '<span class="code">\\ud800</span>'),
        ("\U000e0041", '<span class="code">\\U000e0041</span>'),
        ("é\u0301 \U0001f468\u200d\U0001f469 \u3000", "é\u0301 \U0001f468\u200d\U0001f469 \u3000"),
    ],
)
def test_visible(text, shown):
    assert visible(text) == shown


@pytest.fixture(scope="module")
def hostile():
    """Hostile text in all places that a dataset can reach."""
    text = " ".join(HOSTILE)
    names = [one.replace("\ud800", "") for one in HOSTILE]  # no table can hold half a surrogate pair
    return content(
        200,
        title=HOSTILE[1],
        facts=[(one, one) for one in HOSTILE],
        method=[(text, text)],
        verdict={"rate": 0.1, "low": 0.05, "high": 0.2, "can_tell": True, "sentence": text},
        selftest_sentence=text,
        slices=slices(names).assign(rate=lambda frame: frame["rate"].where(frame["by"] != "source", 0.45)),
        selftest=selftest().replace({"signal": {"fused": HOSTILE[3], "hidden_last": HOSTILE[1]}}),
        checks=CHECKS.assign(explanation=" ".join(names), check=names[:4]),
        suspects=[suspect(number, one, reasons=[one], kind=one) for number, one in enumerate(HOSTILE)]
        + [suspect(99, "x", prompt=[{"role": one, "content": one} for one in HOSTILE])],
        cluster_names=dict(enumerate(names)),
    )


def test_hostile_text_makes_no_element(hostile):
    page = Page(render_html(hostile))
    assert {name for name, _ in page.tags} == {name for name, _ in Page(render_html(content(200))).tags}
    assert not page.all("img")
    assert page.all("link") == [{"rel": "icon", "href": "data:,"}]
    assert all(attrs["href"].startswith("#") for attrs in page.all("a"))
    assert not [attrs for _, attrs in page.tags for name in attrs if name.startswith("on")]
    for text in (HOSTILE[0], HOSTILE[1], HOSTILE[2], HOSTILE[3], HOSTILE[4], HOSTILE[7]):
        assert page.text.count(text) >= 4  # in the head, the prompt, and both sides
    assert "right to left \\u202egnp.exe\\u202c" in page.text
    assert not set(page.text) & set("\x00\x07\x08\x1b\u200b\u202c\u202e\u2066\u2069\ud800")


def test_only_the_two_scripts_of_the_page_may_run(hostile):
    text = render_html(hostile)
    policy = next(attrs["content"] for attrs in Page(text).all("meta") if "http-equiv" in attrs)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in scripts]
    assert policy.startswith(f"default-src 'none'; script-src {' '.join(hashes)};")
    assert len(scripts) == 2


def test_no_text_of_a_pair_is_in_a_figure(full):
    secret = "a text that stands nowhere else"
    text = render_html(dataclasses.replace(full, suspects=[suspect(0, secret)]))
    figures = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    assert len(figures) == len(PLOTS + SCORES)
    assert text.count(secret) == 3
    assert not any(secret in figure or "<" in figure for figure in figures)
    assert all(json.loads(figure)["data"] for figure in figures)


# --- in a browser ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Open a page in Chromium: the DOM after its scripts ran, and the addresses that it asked for."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    folder = tmp_path_factory.mktemp("browser")

    def open_page(text):
        (folder / "page.html").write_text(text, encoding="utf-8")
        switches = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        paths = [f"--user-data-dir={folder / 'profile'}", f"--log-net-log={folder / 'net.json'}"]
        address = (folder / "page.html").as_uri()
        offline = "--host-resolver-rules=MAP * ~NOTFOUND"
        done = subprocess.run(
            [chromium, *switches, *paths, offline, "--virtual-time-budget=30000", "--dump-dom", address],
            capture_output=True,
            timeout=200,
            check=True,
        )
        events = json.loads((folder / "net.json").read_text())["events"]
        asked = [event["params"] for event in events if "url" in event.get("params", {})]
        own = {ask["url"] for ask in asked if ask.get("initiator", "not an origin") != "not an origin"}
        return Page(done.stdout.decode()), own - {address}

    return open_page


def drawn(page):
    """How many plots the page's own script says that it drew, and how many there are."""
    svgs = [attrs for attrs in page.all("svg") if attrs.get("class") == "main-svg"]
    plots = [attrs for attrs in page.all("div") if attrs.get("class", "").startswith("plot ")]
    assert len(svgs) >= len(plots)
    return int(page.all("html")[0].get("data-drawn", -1)), len(plots)


def test_the_browser_draws_every_plot_and_asks_for_nothing(browse, full):
    page, asked = browse(render_html(full))
    assert asked == set()
    assert drawn(page) == (11, 11)
    points = [attrs for attrs in page.all("path") if attrs.get("class") == "point"]
    placed = full.diagnosis["x"].notna().sum()
    assert len(points) >= placed  # the map alone has a point for each
    for text in ("1 − noise rate", "helpful-base", "recipes, cooking", "with length taken out", "ceiling", "10%"):
        assert text in page.text


def test_hostile_text_does_nothing_in_the_browser(browse, hostile):
    """Neither with the content security policy nor without it: the escaping alone is enough."""
    guarded = render_html(hostile)
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", guarded)
    assert len(bare) < len(guarded)
    for text in (guarded, bare):
        page, asked = browse(text)
        assert asked == set()
        assert drawn(page) == (11, 11)
        assert not page.all("img")
        assert all(attrs["href"].startswith("#") for attrs in page.all("a"))
        title = page.text.split("curate report")[0]
        assert "stolen'</script> · " in title  # the text of the title, not what the script would make of it


def test_the_policy_stops_what_the_escaping_would_let_through(browse):
    smuggled = "<script>document.title = 'stolen'</script><img src='http://evil.example/pixel.png'>"
    guarded = render_html(content(50)).replace("</footer>", f"</footer>{smuggled}")
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", guarded)
    page, asked = browse(guarded)
    assert asked == set()
    assert drawn(page)[0] > 0
    assert "<title>stolen" not in page.text
    assert page.text.split("curate report")[0].strip().startswith("helpful-harmless.jsonl")
    page, asked = browse(bare)  # the test itself sees what it looks for
    assert asked == {"http://evil.example/pixel.png"}
    assert page.text.strip().startswith("stolen")


def test_the_folder_of_the_file_is_made(tmp_path):
    write_report(ReportContent(title="small"), tmp_path / "new" / "report.html")
    assert "small" in (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
