"""The README's and the docs' examples run: Python blocks with their output, and every command line parses."""

import contextlib
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).parents[1]
PAGE_OF_FORMATS = ROOT / "docs" / "formats.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page):
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(page):
    """The `curate …` command lines of a page's console blocks."""
    for language, text in blocks(page):
        if language == "console":
            for line in text.replace("\\\n", " ").splitlines():
                if line.startswith("$ ") and "curate " in line:
                    yield line


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory, tiny_policy):
    """A folder with runs/demo, as `make demo` leaves it, scored by a tiny model."""
    folder = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "curate", "audit", str(ROOT / "data" / "demo.jsonl")]
    command += ["-o", "runs/demo", "--policy", str(tiny_policy)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page, demo_run, tmp_path, monkeypatch):
    """Each page in a copy of the run: some of them decide about its pairs."""
    monkeypatch.chdir(shutil.copytree(demo_run, tmp_path / "docs"))
    found = blocks(page)
    names = {}
    for (language, code), (following, expected) in zip(found, [*found, ("end", "")][1:], strict=True):
        if language == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(code, page.name, "exec"), names)
            if following == "":
                assert printed.getvalue() == expected


def test_the_plan_of_the_docs_fits_any_diagnosed_run(demo_run, tmp_path):
    plans = [text for language, text in blocks(ROOT / "docs" / "curation.md") if language == "toml"]
    (tmp_path / "plan.toml").write_text("".join(plans), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "curate",
        "decide",
        "runs/demo",
        "--plan",
        str(tmp_path / "plan.toml"),
        "--dry-run",
    ]
    done = subprocess.run([*command, "--json"], cwd=demo_run, check=True, capture_output=True, encoding="utf-8")
    actions = {line["action"]: line["pairs"] for line in json.loads(done.stdout)["actions"]}
    assert actions["drop"] == 4  # two pairs without text on a side, two of equal sides


@pytest.mark.parametrize("line", [line for page in PAGES for line in commands(page)])
def test_command_lines_parse(line):
    from curate.cli import app

    words = shlex.split(line.partition("curate ")[2].split(" | ")[0].rstrip("'"))
    group = typer.main.get_command(app)
    context = group.make_context("curate", [words[0], "--help"], resilient_parsing=True)
    name, command, rest = group.resolve_command(context, words)
    command.make_context(name, rest)


def test_the_table_of_formats_is_what_is_read():
    from curate.formats import FORMATS

    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", PAGE_OF_FORMATS.read_text(encoding="utf-8"), re.MULTILINE)
    words = {"pair": "a pair", "ranking": "a ranking", "joined": "one answer"}
    assert rows == [(form.name, form.title, words[form.shape]) for form in FORMATS.values()]


def test_the_table_of_policies_is_what_there_is():
    from curate.config import PAIRINGS

    text = PAGE_OF_FORMATS.read_text(encoding="utf-8")
    assert tuple(re.findall(r"^\| `([a-z][a-z-]*)` \| [^|]+ \|$", text, re.MULTILINE)) == PAIRINGS


def test_every_command_is_documented():
    from curate.cli import app

    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    for name in typer.main.get_command(app).commands:
        assert f"curate {name}" in text
