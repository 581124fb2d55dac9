"""Pages driven without a browser, over the demo run as a tiny model scores it."""

import json
import shutil
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pandas as pd
import pytest

import curate
from curate.applying import match_query
from curate.config import DiagnoseConfig
from curate.workspace import Workspace

streamlit = pytest.importorskip("streamlit", reason="the dashboard is not installed: pip install -e '.[app]'")

ROOT = Path(__file__).parents[2]
MAIN = ROOT / "app" / "main.py"


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory, tiny_policy):
    """The demo pairs, audited with a judge that knows most of the truth; not to be written to."""
    folder, data = tmp_path_factory.mktemp("app"), ROOT / "data" / "demo.jsonl"
    truths = [json.loads(line)["truth"] for line in data.read_text(encoding="utf-8").splitlines()]
    rng = np.random.default_rng(0)
    judge = [(-1.0 if truth == "flipped" else 1.0) + 0.6 * rng.normal() for truth in truths]
    pd.DataFrame({"row": range(len(truths)), "judge": judge}).to_csv(folder / "judge.csv", index=False)
    config = curate.AuditConfig(
        curate.IngestConfig((str(data),)),
        curate.ScoreConfig(policy=str(tiny_policy)),
        diagnose=DiagnoseConfig(signals=(str(folder / "judge.csv"),)),
    )
    curate.audit(config, folder / "runs" / "demo")
    return folder / "runs" / "demo"


@pytest.fixture
def own_run(demo_run, tmp_path):
    """A copy of it, for a test that decides."""
    return Path(shutil.copytree(demo_run, tmp_path / "runs" / "own"))


@pytest.fixture
def open_page(monkeypatch):
    """A function that opens a page, as its URL does, on one or more runs."""
    from streamlit.testing.v1 import AppTest

    def opened(runs, page="overview", *, roots=(), read_only=False, **query):
        runs = [runs] if isinstance(runs, Path) else list(runs)
        workspace = Workspace.of(runs, [Path(root) for root in roots], read_only=read_only)
        for name, value in workspace.variables().items():
            monkeypatch.setenv(name, value)
        at = AppTest.from_file(MAIN, default_timeout=120)
        for name, value in query.items():
            at.query_params[name] = value
        at.switch_page(f"app_pages/{page}.py")
        at.run()
        assert not at.exception, at.exception
        return at

    streamlit.cache_data.clear()
    streamlit.cache_resource.clear()
    return opened


def linked(link):
    """The query parameters of a link to another page."""
    return {name: values[0] for name, values in parse_qs(link.proto.query_string).items()}


def tiles(at):
    """Label → number on screen, and the predicate that its link asks for (None: it has no link)."""
    found = {}

    def walk(block):
        children = list(block.children.values())
        metrics = [child for child in children if child.type == "metric"]
        links = [linked(child) for child in children if child.type == "page_link"]
        for metric in metrics:
            found[metric.label] = metric.value, links[0].get("where", "") if links else None
        for child in children:
            if hasattr(child, "children"):
                walk(child)

    walk(at.main)
    return found


@pytest.fixture(scope="session")
def on_screen():
    return tiles


@pytest.fixture(scope="session")
def link_of():
    return linked


@pytest.fixture(scope="session")
def count():
    """A function that counts a predicate's pairs in a run."""

    def counted(run, where):
        with curate.RunView(run) as view:
            if not where:
                return len(view.table("pairs", ["row"]))
            query = match_query(view, where)
            return int(view.sql(f"SELECT count(*) AS pairs FROM ({query.sql})", **query.parameters)["pairs"][0])

    return counted
