"""A page on a run that lacks a stage says which command makes it."""

import shutil

import pytest

import curate


@pytest.fixture(scope="module")
def stages(demo_run, tmp_path_factory):
    """The demo run after each of its stages."""
    found = {}
    for last, stage in enumerate(("ingest", "score", "weigh", "diagnose")):
        found[stage] = tmp_path_factory.mktemp("stages") / stage
        shutil.copytree(demo_run, found[stage])
        for later in ("selftest", "diagnose", "weigh", "score")[: 4 - last]:
            curate.Run.open(found[stage]).strike(later)
    return found


@pytest.mark.parametrize(
    ("page", "stage", "command"),
    [
        ("overview", "ingest", "score"),
        ("overview", "score", "weigh"),
        ("overview", "weigh", "diagnose"),
        ("overview", "diagnose", "selftest"),
        ("slices", "ingest", "score"),
        ("slices", "weigh", "diagnose"),
        ("weights", "ingest", "score"),
        ("weights", "score", "weigh"),
        ("training", "ingest", "train"),
        ("training", "weigh", "compare"),
    ],
)
def test_the_command_that_is_missing(page, stage, command, stages, open_page):
    found = [code.value for code in open_page(stages[stage], page).code]
    assert any(line.startswith(f"curate {command} {stages[stage]}") for line in found), found


@pytest.mark.parametrize("page", ["overview", "slices", "weights", "training", "runs"])
def test_pages_without_any_run(page, open_page, tmp_path):
    at = open_page([], page, roots=[tmp_path])
    assert any("curate a" in code.value for code in at.code)
