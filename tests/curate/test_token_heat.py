"""Token heat: its pieces are the scored texts, its sums the stored log-probs, and it is computed once."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from curate import token_heat
from curate.cli import app
from curate.config import ComputeConfig, IngestConfig, ScoreConfig
from curate.engines import score
from curate.errors import RunError
from curate.heat import Heat, heat_path, stored_heat
from curate.pairs import ingest
from curate.store import Run
from curate.token_heat import pair_heat, pieces
from curate.view import RunView

ROWS = [
    {"prompt": "Say hello.", "chosen": "Hello, ¿qué tal? 你好 🙂", "rejected": "No."},
    {"prompt": "Say nothing.", "chosen": "", "rejected": "Nothing at all."},
]


@pytest.fixture(scope="module")
def run(tiny_policy, tiny_reference, tmp_path_factory):
    folder = tmp_path_factory.mktemp("heat")
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    run = Run.create(folder / "run")
    ingest(IngestConfig((str(folder / "data.jsonl"),)), run)
    config = ScoreConfig(policy=str(tiny_policy), reference=str(tiny_reference), template="raw")
    score(run, config, ComputeConfig(device="cpu"))
    return run


@pytest.mark.parametrize("place", [0, 1])
def test_pieces_are_the_texts_and_sums_the_stored_scores(run, place):
    with RunView(run.path) as view:
        row = view.table("scores").iloc[place]
        heat = pair_heat(view, row["pair_id"][:10])
    for side, said in (("chosen", heat.chosen), ("rejected", heat.rejected)):
        assert "".join(said.pieces).startswith(ROWS[place][side])
        assert sum(said.policy) == pytest.approx(row[f"policy_{side}_logp"], abs=1e-3)
        assert sum(said.reference) == pytest.approx(row[f"reference_{side}_logp"], abs=1e-3)
        assert np.allclose(said.speaks, np.subtract(said.policy, said.reference))


def test_it_is_computed_once_and_again_when_its_file_is_damaged(run, monkeypatch):
    with RunView(run.path) as view:
        pair_id = view.table("pairs")["pair_id"][0]
        first = pair_heat(view, pair_id)
        assert stored_heat(run.path, pair_id) == first
        monkeypatch.setattr(token_heat.models, "load_model", None)
        assert pair_heat(view, pair_id) == first
        monkeypatch.undo()
        heat_path(run.path, pair_id).write_text("{", encoding="utf-8")
        assert stored_heat(run.path, pair_id) is None
        assert pair_heat(view, pair_id) == first


def test_another_model_in_its_place_is_refused(run, monkeypatch):
    with RunView(run.path) as view:
        pair_id = view.table("pairs")["pair_id"][0]
        heat_path(run.path, pair_id).unlink(missing_ok=True)
        real = token_heat.models.resolve
        other = lambda spec, say: token_heat.models.ModelSource(spec, real(spec).path, "another")  # noqa: E731
        monkeypatch.setattr(token_heat.models, "resolve", other)
        with pytest.raises(RunError, match="not the model that scored this run any more"):
            pair_heat(view, pair_id)


@pytest.mark.parametrize("pair_id", ["../../etc/passwd", "A" * 32, "a" * 31, ""])
def test_only_ids_become_paths(run, pair_id):
    with pytest.raises(RunError, match="is not a pair's id"):
        heat_path(run.path, pair_id)


def test_without_a_reference_a_piece_speaks_as_far_as_it_is_above_the_mean():
    assert Heat(["a", "b", "c"], [-1.0, -2.0, -6.0], None).speaks == [2.0, 1.0, -3.0]
    assert Heat([], [], None).speaks == []


class Halves:
    """A tokenizer of bytes: a character may take several."""

    def decode(self, ids, **_):
        return bytes(ids).decode("utf-8", "replace")


def test_characters_of_several_tokens_are_one_piece():
    assert list(pieces(Halves(), list("é🙂x".encode()))) == [(0, "é"), (2, "🙂"), (6, "x")]
    assert list(pieces(Halves(), list("x🙂".encode()[:3]))) == [(0, "x"), (1, "\ufffd")]


def test_the_command_prints_both_ways(run):
    with RunView(run.path) as view:
        pair_id = view.table("pairs")["pair_id"][0]
    done = CliRunner().invoke(app, ["heat", str(run.path), pair_id[:8], "--json"], catch_exceptions=False)
    assert "".join(json.loads(done.stdout)["rejected"]["pieces"]).startswith("No.")
    shown = CliRunner().invoke(app, ["heat", str(run.path), pair_id[:8]], catch_exceptions=False).stdout
    assert shown.startswith(f"{pair_id[:8]}: log π of ")
    assert shown.count("against it") == 2
