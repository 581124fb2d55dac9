"""Saved views: names for predicates, that several people may save at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from curate.errors import ConfigError, RunError
from curate.saved_views import LONGEST_NAME, SavedView, forget_view, save_view, saved_views
from curate.store import Run


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run").path


def test_views_are_kept_replaced_and_forgotten(run):
    assert saved_views(run) == []
    suspects = SavedView("suspects", "p_flip > 0.5", "p_flip desc", "undecided")
    save_view(run, SavedView("web", 'source = "web"'))
    save_view(run, SavedView("suspects"))
    save_view(run, suspects)
    assert saved_views(run) == [suspects, SavedView("web", 'source = "web"')]
    assert str(suspects.wanted.order) == "p_flip desc"
    forget_view(run, "web")
    assert saved_views(run) == [suspects]


def test_views_saved_at_once_all_survive(run):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: save_view(run, SavedView(f"view {number}")), range(24)))
    assert len(saved_views(run)) == 24


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (("", ""), "a view's name has 1 to 60 characters"),
        (("x" * (LONGEST_NAME + 1), ""), "found 61"),
        (("a", "p_flip >"), "expected a column"),
    ],
)
def test_impossible_views_are_refused(fields, said):
    with pytest.raises(ConfigError, match=said):
        SavedView(*fields)


@pytest.mark.parametrize("text", ["{", "[1]", '[{"name": "a", "wher": ""}]', '[{"name": "", "where": ""}]'])
def test_a_damaged_file_is_named_and_not_overwritten(run, text):
    path = run / "views.json"
    path.write_text(text, encoding="utf-8")
    for attempt in (lambda: saved_views(run), lambda: save_view(run, SavedView("a"))):
        with pytest.raises(RunError, match=r"views\.json: damaged"):
            attempt()
    assert path.read_text(encoding="utf-8") == text
