"""The page Training: reads what trainings and comparisons write, as far as they are."""

import base64
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import curate
from curate.arms import by_arm
from curate.store import write_table

LINES = [
    {"step": 1, "loss": 0.69, "accuracy": 0.5, "margin": 0.0, "target_margin": 4.0},
    {"step": 2, "loss": 0.60, "accuracy": 0.6, "margin": 0.1, "target_margin": 4.0},
    {"step": 2, "loss": 0.61, "accuracy": 0.7, "margin": 0.2, "target_margin": 4.0},  # taken up again
    {"step": 2, "eval_loss": 0.65, "eval_accuracy": 0.55, "eval_margin": 0.05},
]
REPORT = {
    "counts": {"held_out": 36, "trained": 178, "weight 0": 15, "defective": 9},
    "before": {"loss": 0.6931, "accuracy": 0.5},
    "after": {"loss": 0.6421, "accuracy": 0.611},
}


@pytest.fixture
def training(own_run):
    """A training of the run, that is not done."""
    folder = own_run.parent / "trained"
    folder.mkdir()
    with curate.RunView(own_run) as view:
        files = {entry["path"]: entry["sha256"] for entry in view.stage("ingest")["inputs"]}
    settings = {"model": "smollm2", "loss": "gamma_dpo", "beta": 10.0, "treat": "weights"}
    (folder / "training.json").write_text(json.dumps({"settings": settings, "data": {"files": files}}))
    lines = "".join(json.dumps(line) + "\n" for line in LINES)
    (folder / "metrics.jsonl").write_text(lines + '{"step": 3, "lo')
    return folder


def finish(folder, run):
    (folder / "report.json").write_text(json.dumps(REPORT))
    with curate.RunView(run) as view:
        keys = view.table("pairs", ["pair_id", "row"]).drop_duplicates("pair_id").head(50)
    keys["in_sample_mean"], keys["in_sample_variability"] = 0.5, -0.25
    write_table(folder / "signals.parquet", pa.Table.from_pandas(keys, preserve_index=False))


def figures(page):
    return {chart.proto.id.rpartition("-")[2]: json.loads(chart.proto.spec) for chart in page.get("plotly_chart")}


def numbers(written):
    """An array as plotly writes it."""
    return np.frombuffer(base64.b64decode(written["bdata"]), written["dtype"]).tolist()


def test_a_training_that_goes_on(own_run, training, open_page, on_screen):
    page = open_page(own_run, "training")
    assert page.selectbox(key="training").value == "trained"
    assert on_screen(page)["Updates"][0] == "2"
    assert any("not finished" in caption.value for caption in page.caption)
    loss = figures(page)["curve_loss"]["data"]
    assert [trace["name"] for trace in loss] == ["training pairs", "held-out pairs"]
    assert [numbers(trace["y"]) for trace in loss] == [[0.69, 0.61], [0.65]]
    assert "curve_target_margin" in figures(page)


def test_a_training_that_is_done(own_run, training, open_page, on_screen):
    finish(training, own_run)
    page = open_page(own_run, "training")
    shown = {name: value for name, (value, _) in on_screen(page).items()}
    assert shown == {"Updates": "2", "Trained on": "178", "Held out": "36", "Left out": "24"}
    held_out = page.dataframe[0].value.set_index("what")
    assert list(held_out.loc["Loss"]) == [0.6931, 0.6421]
    points = figures(page)["dynamics"]["data"]
    assert sum(len(trace["customdata"]) for trace in points) == 50


def test_a_click_in_the_dynamics_opens_the_pair(own_run, training, open_page):
    finish(training, own_run)
    page = open_page(own_run, "training")
    with curate.RunView(own_run) as view:
        pair_id = view.table("pairs", ["pair_id"])["pair_id"][0]
    points = [{"x": 0.25, "y": 0.5, "customdata": pair_id}]
    page.session_state["dynamics"] = {"selection": {"points": points, "point_indices": [], "box": [], "lasso": []}}
    page.run()
    assert page.query_params["id"] in (pair_id, [pair_id])


def test_trainings_of_other_data_are_not_shown(own_run, training, open_page):
    settings = json.loads((training / "training.json").read_text())
    settings["data"]["files"] = {"other.jsonl": "0" * 64}
    (training / "training.json").write_text(json.dumps(settings))
    page = open_page(own_run, "training")
    assert not page.selectbox
    assert page.code[0].value == f"curate train {own_run} -o OUT"
    assert any("1 trainings here are of other data" in caption.value for caption in page.caption)


def test_a_damaged_training_is_an_error_in_one_line(own_run, training, open_page):
    (training / "metrics.jsonl").write_text("nonsense\n")
    page = open_page(own_run, "training")
    assert page.error
    assert "metrics.jsonl: damaged" in page.code[0].value


def test_the_table_of_a_comparison(own_run, open_page):
    accuracies = {"raw": [0.5, 0.54], "weights": [0.6, 0.66], "oracle_drop": [0.7, 0.75]}
    rows = [
        {"seed": seed, "arm": arm, "trained": 100, "held_out": 40, "noise": 0.3, "accuracy": accuracy}
        | {"margin": 0.1, "loss": 0.6, "calibration_error": 0.1, "seconds": 1.0}
        for arm, found in accuracies.items()
        for seed, accuracy in enumerate(found)
    ]
    folder = own_run / "compare" / "abc"
    folder.mkdir(parents=True)
    said = {"config": {}, "compare": {"arms": list(accuracies), "plant": 0.3}}
    write_table(folder / "results.parquet", pa.Table.from_pylist(rows), said)
    page = open_page(own_run, "training")
    shown = page.dataframe[0].value.set_index("arm")
    expected = by_arm(pd.DataFrame(rows), list(accuracies)).set_index("arm")
    assert shown.loc["weights", "lead"] == pytest.approx(0.11) == expected.loc["weights", "lead"]
    assert any("30% planted flips, 2 seeds, 40 to 40 held-out pairs" in caption.value for caption in page.caption)
