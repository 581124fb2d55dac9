"""What a dashboard may open, and what not."""

import json
import shutil

import pytest

from curate.errors import ConfigError, RunError
from curate.store import Run
from curate.workspace import VARIABLE, Workspace, manifest_fingerprint, run_facts


@pytest.fixture
def root(tmp_path):
    """A root with a run, another within a folder, and a link to one outside."""
    for name in ("root/one", "root/more/one", "root/a/b/c/deep", "outside/secret"):
        Run.create(tmp_path / name)
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside" / "secret")
    return tmp_path / "root"


def workspace(*runs, roots=(), read_only=False):
    return Workspace.of(list(runs), list(roots), read_only=read_only)


def test_runs_under_the_roots_have_names(root):
    assert workspace(roots=[root]).found() == {"one": root / "one", "more/one": root / "more" / "one"}


def test_given_runs_come_first_wherever_they_are(root, tmp_path):
    found = workspace(tmp_path / "outside" / "secret", root / "more" / "one", roots=[root]).found()
    assert list(found) == ["secret", "one", "root/one"]
    assert found["one"] == root / "more" / "one"


def test_the_environment_carries_it(root):
    made = workspace(root / "one", roots=[root], read_only=True)
    assert Workspace.from_environment(made.variables()) == made
    assert json.loads(made.variables()[VARIABLE])["read_only"] is True


def test_pages_that_were_not_started_by_the_command_say_so():
    with pytest.raises(ConfigError, match="curate app RUN"):
        Workspace.from_environment({})


@pytest.mark.parametrize("path", ["../outside/secret", "link", "/etc/passwd", "link/manifest.json"])
def test_what_lies_outside_is_refused(path, root):
    with pytest.raises(ConfigError, match="outside the folders"):
        workspace(roots=[root]).allowed(str(root / path))


@pytest.mark.parametrize("path", ["../new", "link", "link/new", "/tmp/new"])
def test_new_folders_outside_are_refused(path, root):
    with pytest.raises(ConfigError, match="outside the folders"):
        workspace(roots=[root]).allowed_new(str(root / path))


def test_a_root_whose_name_begins_like_another_is_another(root):
    (root.parent / "root2").mkdir()
    with pytest.raises(ConfigError, match="outside"):
        workspace(roots=[root]).allowed(str(root.parent / "root2"))


@pytest.mark.parametrize("path", ["none", "a\0b", "one/manifest.json/x"])
def test_what_does_not_exist_is_said_in_one_line(path, root):
    with pytest.raises(ConfigError, match="there is no such file") as said:
        workspace(roots=[root]).allowed(str(root / path))
    assert "\n" not in str(said.value)


def test_what_lies_inside_is_allowed(root):
    made = workspace(roots=[root])
    assert made.allowed(str(root / "more" / ".." / "one")) == root / "one"
    assert made.allowed_new(str(root / "new")) == root / "new"
    assert made.allowed_new(str(root / "one")) == root / "one"


def test_without_roots_nothing_is_allowed(root):
    with pytest.raises(ConfigError, match="--root"):
        workspace(root / "one").allowed(str(root / "one"))


def test_models_are_ids_or_lie_inside(root, monkeypatch):
    made = workspace(roots=[root])
    assert made.model("my-org/model") == "my-org/model"
    for spec in ("/etc", "./x", "~/x"):
        with pytest.raises(ConfigError):
            made.model(spec)
    monkeypatch.chdir(root.parent)
    with pytest.raises(ConfigError, match="outside"):
        made.model("outside")


def test_what_is_given_must_be_there(root):
    with pytest.raises(RunError, match="not a run"):
        workspace(root)
    with pytest.raises(ConfigError, match="--root"):
        workspace(roots=[root / "none"])


def test_the_fingerprint_follows_the_stages(root):
    before = manifest_fingerprint(root / "one")
    Run.open(root / "one").record("weigh", "abc", {})
    assert manifest_fingerprint(root / "one") != before


def test_a_damaged_run_is_listed_with_its_fault(root):
    (root / "one" / "manifest.json").write_text("{")
    assert "damaged" in run_facts(root / "one")["fault"]
    shutil.rmtree(root / "one")
    assert "not a run" in run_facts(root / "one")["fault"]
