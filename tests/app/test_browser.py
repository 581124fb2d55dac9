"""The dashboard in a real browser: the whole path, and texts that try to do something.

Needs Chromium and playwright: skipped where either is missing.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest

import curate
from curate.browsing import Browser, Order, Wanted
from curate.decisions import Decisions
from curate.entries import PairDecision
from curate.saved_views import SavedView, save_view
from curate.view import RunView

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
    pytest.mark.timeout(600),
]

ROOT = Path(__file__).parents[2]
PAGES = ("", "pairs", "pair", "slices", "weights", "curate", "training", "runs")
SECONDS = 60_000


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def served(run, root, *options):
    """The address at which `curate app` serves a run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "curate", "app", run, "--port", port, "--root", root, *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "STREAMLIT_SERVER_HEADLESS": "true"}
    with (root / "server.log").open("wb") as log:
        server = subprocess.Popen(
            list(map(str, command)), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(f"{address}/_stcore/health", server, root / "server.log")
            yield address
        finally:
            server.terminate()
            server.wait(30)


def wait_for(address, server, log):
    for _ in range(240):
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(address) as answer:
                answer.read()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
    raise AssertionError(log.read_text())


def settled(page):
    """Wait until the page has run and stands still."""
    page.wait_for_timeout(400)
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]', timeout=SECONDS)
    page.wait_for_timeout(400)


def opened(page, address, name, **query):
    page.goto(f"{address}/{name}?{urlencode(query)}")
    page.wait_for_selector('[data-testid="stHeading"]', timeout=SECONDS)
    settled(page)


def metric(page, label):
    tile = page.locator('[data-testid="stMetric"]').filter(has_text=label)
    return tile.locator('[data-testid="stMetricValue"]').first.inner_text().strip()


def query_of(page):
    return urllib.parse.parse_qs(urllib.parse.urlparse(page.url).query)


def button(page, name):
    return page.get_by_role("button", name=re.compile(f"^{re.escape(name)}"))


@pytest.fixture
def page(chromium):
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    shown = context.new_page()
    yield shown
    context.close()


# --- the whole path ---


def brush(page, share_from, share_to):
    """Draw a range over the first histogram, by shares of its width."""
    area = page.locator(".nsewdrag").first
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    height = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + share_from * box["width"], height)
    page.mouse.down()
    page.mouse.move(box["x"] + (share_from + share_to) / 2 * box["width"], height, steps=5)
    page.mouse.move(box["x"] + share_to * box["width"], height, steps=5)
    page.mouse.up()
    settled(page)


def test_open_brush_filter_read_flip_undo_preview(own_run, page):
    with RunView(own_run) as view, served(own_run, own_run.parent) as address:
        decisions = Decisions(view)
        browser = Browser(view, decisions)
        opened(page, address, "pairs")
        assert metric(page, "Pairs") == "240"

        brush(page, 0.5, 1.1)
        (where,) = query_of(page)["where"]
        assert re.fullmatch(r"p_flip between [\d.]+ and [\d.]+", where)
        wanted = Wanted(where, Order("p_flip", descending=True))
        assert int(metric(page, "Pairs")) == browser.count(wanted) < 240

        page.get_by_label("Annotator", exact=True).click()
        page.get_by_role("option", name="ann-1").click()
        settled(page)
        (where,) = query_of(page)["where"]
        assert where.endswith('and "ann-1" in annotators')
        wanted = Wanted(where, wanted.order)
        assert int(metric(page, "Pairs")) == browser.count(wanted) > 1

        first, second = browser.page(wanted, 0, 2)["pair_id"]
        page.get_by_text("Read from the first one on").click()
        page.wait_for_selector("text=" + first[:12], timeout=SECONDS)
        settled(page)
        assert query_of(page)["where"] == [where]

        page.keyboard.press("f")
        page.wait_for_selector("text=" + second[:12], timeout=SECONDS)
        settled(page)
        assert decisions.current()[["pair_id", "action"]].values.tolist() == [[first, "flip"]]
        assert query_of(page)["id"] == [second]

        page.keyboard.press("p")
        page.wait_for_selector("text=" + first[:12], timeout=SECONDS)
        settled(page)
        assert metric(page, "Decision") == "Flip"
        page.keyboard.press("u")
        settled(page)
        assert metric(page, "Decision") == "None"
        assert decisions.is_empty()

        opened(page, address, "curate", rule=where)
        page.wait_for_selector("text=What becomes of them", timeout=SECONDS)
        assert metric(page, "Pairs that stay") == f"{240 - browser.count(wanted)}"
        button(page, "Decide so").click()
        settled(page)
        assert len(decisions.current()) == browser.count(wanted)


def test_an_export_is_started_and_ends(own_run, page):
    with served(own_run, own_run.parent) as address:
        opened(page, address, "curate")
        button(page, "Export").click()
        page.wait_for_selector("text=Exported.", timeout=2 * SECONDS)
    assert any(path.suffix == ".parquet" for path in Path(f"{own_run}-export").rglob("*"))


def test_typing_a_note_decides_nothing(own_run, page):
    with RunView(own_run) as view, served(own_run, own_run.parent) as address:
        opened(page, address, "pair")
        page.get_by_label("Note").click()
        page.keyboard.type("drop flip skip usual")
        page.keyboard.press("Tab")
        settled(page)
        assert Decisions(view).is_empty()


@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_their_width(demo_run, chromium, width, tmp_path):
    run = Path(shutil.copytree(demo_run, tmp_path / "run"))
    context = chromium.new_context(viewport={"width": width, "height": 900})
    shown = context.new_page()
    with served(run, tmp_path) as address:
        for name in ("pairs", "pair", "curate"):
            opened(shown, address, name)
            main = shown.locator('[data-testid="stMain"]')
            assert main.evaluate("it => it.scrollWidth - it.clientWidth") <= 1, name
    context.close()


# --- texts that try to do something ---

EVIL = "http://evil.invalid"
PAYLOADS = [
    "<script>window.pwned = 1</script>",
    f"<img src='{EVIL}/img.png' onerror='window.pwned = 1'>",
    f"![x]({EVIL}/markdown.png)",
    f"[x](javascript:window.pwned=1) <{EVIL}/auto>",
    f"<style>body, .stApp {{outline: 7px solid red}} @import '{EVIL}/a.css';</style>",
    f"<link rel=stylesheet href={EVIL}/b.css><iframe src={EVIL}></iframe>",
    "</div></ins></del></span><form id=pwned action=/x><input autofocus onfocus=window.pwned=1></form>",
    f"<svg onload=window.pwned=1><a xlink:href='{EVIL}'></svg>",
    f"$\\href{{{EVIL}}}{{x}}$ :red[colour] :material/delete: `code` **bold** # title",
    "\u202egnp.exe\u202c \u200bhidden \x1b[31m {{7*7}} %s ${jndi:ldap://x}",
    "'; DROP TABLE pairs; -- \" ' ` \\",
    '=HYPERLINK("http://evil.invalid")',
]


@pytest.fixture(scope="module")
def hostile_run(tiny_policy, tmp_path_factory):
    """A run whose every text is a payload, in a folder and from a file whose names are, too."""
    folder = tmp_path_factory.mktemp("hostile")
    file = folder / "<img src=x onerror=window.pwned=1> ![x](y) $z$.jsonl"
    rows = []
    for at, payload in enumerate(PAYLOADS * 3):
        other = PAYLOADS[(at + 1) % len(PAYLOADS)]
        sides = {"chosen": f"{payload} word {at}", "rejected": f"{other} other word {at}"}
        rows.append({"id": payload, "prompt": f"{payload} {at // 2}", **sides, "source": payload, "annotator": other})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run = folder / "runs" / "<b onclick=window.pwned=1>![r](x) :red[run] $r$"
    run.parent.mkdir()
    config = curate.AuditConfig(curate.IngestConfig((str(file),)), curate.ScoreConfig(policy=str(tiny_policy)))
    curate.audit(config, run)
    with RunView(run) as view:
        ids = view.table("pairs", ["pair_id"])["pair_id"]
        decisions = Decisions(view)
        for payload, pair_id in zip(PAYLOADS, ids, strict=False):
            decisions.decide([PairDecision(pair_id, "drop", reason=payload, origin=payload)], who=payload)
    for number, payload in enumerate(PAYLOADS):
        save_view(run, SavedView(f"{number}{payload}"[:60], f"contains(prompt, {json.dumps('x')})"))
    return run


@pytest.fixture(scope="module")
def hostile_address(hostile_run):
    with served(hostile_run, hostile_run.parents[1]) as address:
        yield address


def watched(page, address):
    """What the page asks of others, and what it pops up."""
    found = []
    page.on("request", lambda it: it.url.startswith((address, "data:", "blob:")) or found.append(it.url))
    page.on("websocket", lambda it: it.url.split("//")[1].startswith(address.split("//")[1]) or found.append(it.url))
    page.on("dialog", lambda it: (found.append(it.message), it.dismiss()))
    page.on("popup", lambda it: found.append(it.url))
    return found


def unharmed(page):
    assert page.evaluate("window.pwned") is None
    assert page.locator("#pwned, iframe[src*=evil], img[src*=evil], a[href*=evil], link[href*=evil]").count() == 0
    for place in ("body", ".stApp"):
        assert page.evaluate(f"getComputedStyle(document.querySelector('{place}')).outlineWidth") != "7px"


@pytest.mark.parametrize("name", PAGES)
def test_payloads_do_nothing_on_any_page(hostile_address, page, name):
    found = watched(page, hostile_address)
    opened(page, hostile_address, name)
    for it in page.locator('[data-testid="stExpander"] summary').all():
        it.click()
    settled(page)
    unharmed(page)
    assert page.locator("text=Traceback").count() == 0
    assert not found


def test_payloads_do_nothing_where_pairs_are_read(hostile_run, hostile_address, page):
    """Each payload as a text, with what differs and plain, as a reason and as a name, is on the screen as it is."""
    found = watched(page, hostile_address)
    with RunView(hostile_run) as view:
        ids = view.table("pairs", ["pair_id"])["pair_id"][: len(PAYLOADS)]
    for payload, pair_id in zip(PAYLOADS, ids, strict=True):
        opened(page, hostile_address, "pair", id=pair_id)
        unharmed(page)
        page.get_by_text("Plain", exact=True).click()
        settled(page)
        unharmed(page)
        chosen = page.locator(".said").nth(1).inner_text()
        assert payload.isprintable() is (payload in chosen)
    assert not found


@pytest.mark.parametrize("payload", PAYLOADS)
def test_payloads_in_urls_and_filters_do_nothing(hostile_run, page, payload, hostile_address):
    found = watched(page, hostile_address)
    for name, query in (
        ("pairs", {"where": payload}),
        ("pairs", {"where": f"source = {json.dumps(payload)}" if '"' not in payload else "tie", "sort": payload}),
        ("pair", {"id": payload}),
        ("curate", {"rule": payload}),
        ("pairs", {"run": payload}),
    ):
        page.goto(f"{hostile_address}/{name}?{urlencode(query)}")
        page.wait_for_selector('[data-testid="stAlert"], [data-testid="stHeading"]', timeout=SECONDS)
        settled(page)
        unharmed(page)
    assert not found
