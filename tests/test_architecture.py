"""Data flows one way: a module imports only what stands before it, and heavy libraries only where they belong."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Each row may import the rows above it (and its own).
LAYERS = [
    {"errors"},
    {"config", "schema", "json_array"},
    {"canon"},
    {"values"},
    {"extras", "splitting", "dialogues"},
    {"form", "rankings", "comparing"},
    {"formats_texts", "formats_chats", "formats_arena", "formats_helpsteer", "formats_ranked", "column_mapping"},
    {"formats_compared"},
    {"formats"},
    {"readers", "store", "progress"},
    {"finding", "llamafactory", "reading"},
    {"inputs"},
    {"pairs"},
    {"explaining"},
    {"explaining_text"},
    {"models", "attention"},
    {"packing"},
    {"tokens"},
    {"logprobs", "rewards"},
    {"scoring"},
    {"engines", "margins", "gamma", "noise"},
    {"weighing", "arms"},
    {"view"},
    {"expressions"},
    {"signals", "rates", "metrics", "planting", "clusters", "shingles"},
    {"imported", "probe", "slices", "kinds", "turns", "repeats"},
    {"sides", "trainings"},
    {"checks"},
    {"evidence"},
    {"detect"},
    {"diagnosing", "selftest"},
    {"lexing", "opinions", "columns"},
    {"predicates", "aggregates"},
    {"compiling", "plans", "movement"},
    {"applying", "ready_made", "entries"},
    {"decision_log", "effects", "export_folder"},
    {"standing"},
    {"choices"},
    {"decisions", "exporters", "sinks", "flipping", "json_text"},
    {"selecting", "provenance", "dataset_card", "decided"},
    {"removed", "own_schema"},
    {"exporting"},
    {"browsing", "heat"},
    {"saved_views", "token_heat"},
    {"verdict", "auditing", "charts"},
    {"preview", "brushing"},
    {"report", "html", "doctor", "preview_text"},
    {"page"},
    {"console", "jobs", "workspace"},
    {"cli_training", "cli_curation", "cli_export", "cli_heat", "cli_app"},
    {"cli"},
    {"__init__", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted((ROOT / "curate").glob("*.py"))


def imports(path):
    """Absolute names of the modules that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def inner(names):
    return {name.split(".")[1] for name in names if name.startswith("curate.")} & LEVEL.keys()


def test_every_module_has_its_layer():
    assert {path.stem for path in MODULES} == LEVEL.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_point_backwards(path):
    later = {name for name in inner(imports(path)) if LEVEL[name] > LEVEL[path.stem]}
    assert not later


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_library_imports_neither_pages_nor_trainer(path):
    outer = {name.split(".")[0] for name in imports(path)} & {"app", "training", "streamlit", "plotly"}
    plots = {name: {"plotly"} for name in ("charts", "brushing", "html")}
    allowed = {"cli": outer, "cli_training": outer, **plots}.get(path.stem, set())
    assert outer <= allowed


COMMANDS = {name for name in LEVEL if name.startswith("cli")} | {"console", "auditing", "doctor"}
STAGES = {"pairs", "models", "attention", "packing", "tokens", "logprobs", "rewards", "scoring", "engines", "weighing"}
PAGES = sorted((ROOT / "app").rglob("*.py"))


@pytest.mark.parametrize(("folder", "foreign"), [("app", COMMANDS | STAGES), ("training", COMMANDS | {"report"})])
def test_the_outer_packages_use_only_what_is_theirs(folder, foreign):
    for path in (ROOT / folder).rglob("*.py"):
        assert not inner(imports(path)) & foreign, path


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_pages_know_neither_models_nor_trainer_nor_files(path):
    outer = {name.split(".")[0] for name in imports(path)} - {"__future__", "app", "curate"}
    assert not outer & {"torch", "transformers", "training", "duckdb", "pyarrow", "subprocess", "shutil", "glob", "io"}
    called = [ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert "open" not in called
    touching = {"read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "unlink", "iterdir", "glob"}
    assert not {name.rpartition(".")[2] for name in called} & touching


def loaded_by(code):
    """Heavy libraries that a fresh interpreter has loaded after running some code."""
    heavy = ("torch", "transformers", "pandas", "duckdb", "scipy", "ray", "pyarrow")
    script = f"import sys\n{code}\nprint(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import curate", set()),
        ("import curate.cli", set()),
        ("from curate import gamma_weights", {"scipy"}),
        ("from curate import RunView", {"duckdb", "pandas", "pyarrow"}),
        ("import curate.pairs", {"pyarrow"}),
        ("from app import parts, state", {"duckdb", "pandas", "pyarrow", "scipy"}),
    ],
)
def test_light_imports_stay_light(code, allowed):
    assert loaded_by(code) <= allowed
