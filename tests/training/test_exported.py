"""Exports as trainers take them: curate's own reads every column as it is meant, TRL trains on the file as it is."""

import importlib.util
import json

import numpy as np
import pandas as pd
import pytest

from curate import engines
from curate.config import ComputeConfig, ExportConfig, IngestConfig, ScoreConfig, WeighConfig
from curate.decisions import Decisions
from curate.errors import ConfigError
from curate.exporting import export
from curate.pairs import ingest
from curate.store import Run
from curate.view import RunView
from curate.weighing import weigh
from training.config import TrainConfig
from training.data import columns_of_file
from training.train import train

#: Rows 6 and 7 are ties; about row 5 nothing is decided.
DECISIONS = [
    (0, "keep", None),
    (1, "soft", 0.75),
    (2, "weight", 3.0),
    (3, "flip", None),
    (4, "drop", None),
    (6, "keep", None),
]
LEFT = [0, 1, 2, 3, 5, 6]


@pytest.fixture(scope="module")
def scored(tiny_policy, tiny_reference, tmp_path_factory):
    """A run of eight pairs of messages, scored with a policy and a reference under the template chat, and weighed."""
    folder = tmp_path_factory.mktemp("scored")
    rows = [
        {
            "q": [{"role": "user", "content": f"Question {at}?"}],
            "a": [{"role": "assistant", "content": "Yes" + "!" * at}],
            "b": [{"role": "assistant", "content": f"No, {at}."}],
            "won": "tie" if at > 5 else "a",
        }
        for at in range(8)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"prompt": "q", "response_a": "a", "response_b": "b", "label": "won"}
    run = Run.create(folder / "run")
    ingest(IngestConfig((str(folder / "data.jsonl"),), columns=columns), run)
    score = ScoreConfig(str(tiny_policy), str(tiny_reference), template="chat", max_length=256, max_prompt_length=200)
    engines.score(run, score, ComputeConfig(device="cpu"))
    weigh(run, WeighConfig())
    with RunView(run.path) as view:
        Decisions(view).decide_all(pd.DataFrame(DECISIONS, columns=["row", "action", "value"]), origin="test")
    return run


@pytest.fixture(scope="module")
def files(scored, tmp_path_factory):
    """The run's exports for TRL: a file for each container."""
    folder = tmp_path_factory.mktemp("exports")
    with RunView(scored.path) as view:
        for container in ("parquet", "jsonl"):
            export(view, folder / container, ExportConfig("trl", container))
    return {container: folder / container / f"train.{container}" for container in ("parquet", "jsonl")}


@pytest.fixture(params=["parquet", "jsonl"])
def file(files, request):
    return files[request.param]


def read(file, folder, **settings):
    """What a training makes of a file's columns."""
    config = TrainConfig(**settings)
    run = Run.create(folder)
    ingest(config.ingest(str(file)), run)
    return run, columns_of_file(run, config)


def test_every_column_is_taken_as_it_is_meant(scored, file, tmp_path):
    _, found = read(file, tmp_path / "run", loss="gamma_dpo")
    with RunView(scored.path) as view:
        margins = view.table("weights").set_index("row")["target_margin"][LEFT].to_numpy(float, copy=True)
        scores = view.table("scores").set_index("row").loc[LEFT]
    np.testing.assert_array_equal(found.treated.p_flip_N, [0, 0.25, 0, 0, 0, 0.5])
    np.testing.assert_array_equal(found.treated.weight_N, [1, 1, 3, 1, 1, 1])
    assert not found.treated.swap_N.any()
    margins[3] = np.nan
    np.testing.assert_array_equal(found.target_margin_N, margins)
    assert np.isnan(margins).tolist() == [False, False, False, True, False, True]
    reference = scores[["reference_chosen_logp", "reference_rejected_logp"]].to_numpy(copy=True)
    reference[3] = reference[3, ::-1]
    np.testing.assert_array_equal(found.reference_N2, reference)
    tokens = scores[["chosen_tokens", "rejected_tokens"]].to_numpy(float, copy=True)
    tokens[3] = tokens[3, ::-1]
    np.testing.assert_array_equal(found.scored_tokens_N2, tokens)


def test_target_margins_of_another_loss_are_refused_by_the_footer(files, tmp_path):
    with pytest.raises(ConfigError, match="target_margin was made for another loss"):
        read(files["parquet"], tmp_path / "run", loss="gamma_dpo", beta=9.0, targets="column")


def test_our_trainer_takes_the_file_as_it_is(tiny_policy, tiny_reference, file, tmp_path):
    config = TrainConfig(
        model=str(tiny_policy),
        loss="gamma_dpo",
        targets="column",
        lora=False,
        batch_size=2,
        micro_batch=2,
        max_steps=1,
        max_length=256,
        eval_share=0.0,
        device="cpu",
    )
    report = train(config, str(file), tmp_path / "out")
    assert report["counts"]["trained"] == len(LEFT)


def test_a_tie_is_known_as_one_and_has_a_soft_label(file, tmp_path):
    run, found = read(file, tmp_path / "run")
    with RunView(run.path) as view:
        assert view.table("pairs", ["tie"])["tie"].tolist() == [row == 6 for row in LEFT]
    assert found.softened_N.all()


# --- TRL ---

needs_trl = pytest.mark.skipif(
    importlib.util.find_spec("trl") is None, reason="TRL is not installed: pip install trl==1.16.0"
)


def dataset(file, cache):
    import datasets

    kind = "parquet" if file.suffix == ".parquet" else "json"
    return datasets.load_dataset(kind, data_files=str(file), split="train", cache_dir=str(cache))


def settings(folder, **changes):
    import trl

    return trl.DPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=3,
        max_steps=1,
        max_length=256,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        **changes,
    )


def losses(trainer):
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@needs_trl
@pytest.mark.parametrize("name", ["trl", "trl-standard"])
def test_trls_own_trainer_loads_it_and_takes_a_step(name, scored, tiny_policy, tmp_path):
    import trl

    with RunView(scored.path) as view:
        export(view, tmp_path / "out", ExportConfig(name))
    pairs = dataset(tmp_path / "out" / "train.parquet", tmp_path / "cache")
    assert len(pairs) == len(LEFT)
    trainer = trl.DPOTrainer(str(tiny_policy), args=settings(tmp_path), train_dataset=pairs)
    assert np.isfinite(losses(trainer)).all()


@needs_trl
def test_gamma_in_trl_takes_target_margins_weights_and_the_stored_reference(file, tiny_policy, tmp_path):
    from training.trl import GammaDPOTrainer

    made = settings(tmp_path, loss_type="sigmoid_norm", beta=10.0, precompute_ref_log_probs=True)
    pairs = dataset(file, tmp_path / "cache")
    trainer = GammaDPOTrainer(str(tiny_policy), args=made, train_dataset=pairs, gamma0=4.0, weighted=True)
    assert np.isfinite(losses(trainer)).all()


@needs_trl
def test_the_stored_reference_is_what_trl_computes(files, tiny_policy, tiny_reference, tmp_path):
    """The flipped pair's too, whose sides have changed places."""
    import transformers
    import trl

    pairs = dataset(files["parquet"], tmp_path / "cache")
    stored = np.array([pairs["ref_chosen_logps"], pairs["ref_rejected_logps"]])
    reference = transformers.AutoModelForCausalLM.from_pretrained(tiny_reference)
    bare = pairs.remove_columns(["ref_chosen_logps", "ref_rejected_logps"])
    made = settings(tmp_path, precompute_ref_log_probs=True)
    trainer = trl.DPOTrainer(str(tiny_policy), ref_model=reference, args=made, train_dataset=bare)
    found = trainer.train_dataset
    np.testing.assert_allclose(stored, [found["ref_chosen_logps"], found["ref_rejected_logps"]], rtol=1e-4)
