"""The trainer: step for step against TRL's and against a plain loop in float64, and what must change nothing."""

import importlib.util
import math
from dataclasses import dataclass, replace

import numpy as np
import peft
import pytest
import torch
import transformers

from curate import models
from curate.models import Device
from training.config import TrainConfig
from training.data import Pairs
from training.fitting import make_arguments, make_trainer
from training.margins import target_margins
from training.trainer import PairTrainer

# --- against TRL ---

TRLS = {
    "dpo": {"loss_type": "sigmoid", "beta": 0.1},
    "dpo_norm": {"loss_type": "sigmoid_norm", "beta": 5.0},
    "robust_dpo": {"loss_type": "robust", "beta": 0.1, "label_smoothing": 0.1},
    "simpo": {"loss_type": "simpo", "beta": 2.5, "simpo_gamma": 0.55 * 2.5, "cpo_alpha": 0.0},  # γ, not γ/β
}


@pytest.fixture
def trl(monkeypatch):
    if importlib.util.find_spec("trl") is None:
        pytest.skip("TRL is not installed: pip install trl==1.16.0")
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    import trl
    import trl.experimental.cpo

    return trl


def longest_first(rows, group):
    """Rows in the order that grouping by length leaves as it is."""
    parts = [rows[start : start + group] for start in range(0, len(rows), group)]
    return [row for part in parts for row in sorted(part, key=letters, reverse=True)]


def letters(row):
    """As many as the tokens of a pair, but for the template's."""
    return sum(len(turn["content"]) for side in ("prompt", "chosen", "rejected") for turn in row[side])


def trained_by_trl(trl, policy, rows, folder, loss):
    """Losses and gradient norms of every update."""
    cpo = trl.experimental.cpo
    kind, config = (cpo.CPOTrainer, cpo.CPOConfig) if loss == "simpo" else (trl.DPOTrainer, trl.DPOConfig)
    return trained_as(kind, config, policy, rows, folder, **TRLS[loss])


def trained_as(kind, config, policy, rows, folder, *, adapter=None, **loss):
    from datasets import Dataset

    settings = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 2.0,
        "max_length": 256,
        "optim": "adamw_torch",
        "learning_rate": 1e-3,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "max_grad_norm": 1.0,
        "train_sampling_strategy": "sequential",
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    tokenizer = transformers.AutoTokenizer.from_pretrained(policy)
    tokenizer.bos_token, tokenizer.pad_token = None, "<|begin|>"  # CPO would put it before the template's text
    trainer = kind(
        transformers.AutoModelForCausalLM.from_pretrained(policy),
        args=config(output_dir=str(folder), **settings, **loss),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        **(adapter or {}),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    return [line["loss"] for line in lines], [line["grad_norm"] for line in lines]


@pytest.mark.parametrize("loss", TRLS)
def test_every_update_equals_trls(loss, lab, trl, tmp_path):
    """Ten updates of two micro-batches, AdamW, warmup and cosine, clipped gradients."""
    rows = longest_first(lab.rows(20), 4)
    data = lab.write(tmp_path / "pairs.jsonl", rows)
    expected, norms = trained_by_trl(trl, lab.policy, rows, tmp_path / "trl", loss)
    for batching in ("packed", "length_grouped"):
        report = lab.train(data, tmp_path / batching, loss=loss, epochs=2.0, batching=batching)
        assert (report["updates"], report["batching"]) == (10, batching)
        # a loss of robust_dpo crosses 0, where only the absolute error says something
        assert lab.losses(tmp_path / batching) == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert list(lab.logged(tmp_path / batching, "grad_norm").values()) == pytest.approx(norms, rel=1e-4)


@pytest.mark.parametrize(
    ("ours", "trls", "reference_free"),
    [
        ({"loss": "gamma_dpo", "margin": "dpo", "beta": 0.1}, {"loss_type": "sigmoid", "beta": 0.1}, False),
        ({"loss": "gamma_dpo"}, {"loss_type": "sigmoid_norm", "beta": 10.0}, False),
        ({"loss": "gamma_simpo"}, {"loss_type": "sigmoid_norm", "beta": 10.0}, True),
    ],
)
def test_target_margins_and_weights_through_the_adapter_equal_ours(ours, trls, reference_free, lab, trl, tmp_path):
    from training.trl import GammaDPOTrainer

    gamma0 = 0.4 * trls["beta"]
    shares = [0.6, 1.4, 1.1, 0.9] * 5
    rows = lab.rows(20, target_margin=[gamma0 * share for share in shares], weight=shares[::-1])
    adapter = {"gamma0": gamma0, "weighted": True, "reference_free": reference_free}
    settings = {"precompute_ref_log_probs": True, **trls}
    expected, norms = trained_as(
        GammaDPOTrainer, trl.DPOConfig, lab.policy, rows, tmp_path / "trl", adapter=adapter, **settings
    )
    lab.train(lab.write(tmp_path / "pairs.jsonl", rows), tmp_path / "ours", epochs=2.0, targets="column", **ours)
    assert lab.losses(tmp_path / "ours") == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert list(lab.logged(tmp_path / "ours", "grad_norm").values()) == pytest.approx(norms, rel=1e-4)


# --- against a plain loop in float64 ---


@dataclass(frozen=True)
class Plain:
    """A policy's log-probs as anybody would write them: padded rows with a mask, log_softmax, nothing shared."""

    model: torch.nn.Module
    tokenizer: transformers.PreTrainedTokenizerBase

    @classmethod
    def load(cls, folder):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float64, attn_implementation="eager"
        )
        return cls(model, transformers.AutoTokenizer.from_pretrained(folder))

    def render(self, turns, **settings):
        text = self.tokenizer.apply_chat_template(turns, tokenize=False, **settings)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def log_probs(self, rows):
        """Sums over the completions and their tokens, (B, 2) each."""
        prompts = [self.render(row["prompt"], add_generation_prompt=True) for row in rows for _ in range(2)]
        whole = [self.render(row["prompt"] + row[side]) for row in rows for side in ("chosen", "rejected")]
        width = max(map(len, whole))
        ids = torch.tensor([[*tokens, *[0] * (width - len(tokens))] for tokens in whole])
        mask = torch.tensor([[1] * len(tokens) + [0] * (width - len(tokens)) for tokens in whole])
        log_p = torch.log_softmax(self.model(input_ids=ids, attention_mask=mask).logits[:, :-1], dim=-1)
        token = log_p.gather(2, ids[:, 1:, None])[:, :, 0]
        place = torch.arange(1, width)
        starts, stops = (torch.tensor([len(tokens) for tokens in each])[:, None] for each in (prompts, whole))
        scored = (place >= starts) & (place < stops)
        return (token * scored).sum(dim=1).view(-1, 2), scored.sum(dim=1).view(-1, 2)


def plainly_trained(plain, rows, loss, *, batch, epochs, rate):
    """Losses, mean margins and mean target margins of every update, and the model's weights at last."""
    beta, gamma0 = 10.0, 4.0
    with torch.no_grad():
        reference = plain.log_probs(rows)[0] if loss == "gamma_dpo" else torch.zeros(len(rows), 2)
    mean_weight = sum(row["weight"] for row in rows) / len(rows)
    optimizer = torch.optim.SGD(plain.model.parameters(), lr=rate)
    losses, margins, targets = [], [], []
    for start in [start for _ in range(epochs) for start in range(0, len(rows), batch)]:
        part = rows[start : start + batch]
        log_probs, tokens = plain.log_probs(part)
        rewards = beta * (log_probs - reference[start : start + batch]) / tokens
        h = rewards[:, 0] - rewards[:, 1]
        gamma = torch.tensor([gamma0 if row["target_margin"] is None else row["target_margin"] for row in part])
        targets.append(gamma.double().mean().item())
        gamma = gamma.double() - (gamma0 if loss == "gamma_dpo" else 0.0)
        p, w = (torch.tensor([row[name] for row in part], dtype=torch.float64) for name in ("p_flip", "weight"))
        each = (1 - p) * torch.log1p(torch.exp(gamma - h)) + p * torch.log1p(torch.exp(gamma + h))
        value = (w / mean_weight * each).sum() / len(part)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(plain.model.parameters(), 1.0)
        optimizer.step()
        losses.append(value.item())
        margins.append(h.mean().item())
    state = plain.model.state_dict()
    return losses, margins, targets, torch.cat([state[name].flatten() for name in sorted(state)])


@pytest.mark.parametrize("batching", ["packed", "length_grouped"])
@pytest.mark.parametrize("loss", ["gamma_dpo", "gamma_simpo"])
def test_columns_of_a_file_equal_a_plain_loop(loss, batching, lab, tmp_path):
    """Static target margins, weights and soft labels; the last update of an epoch has two pairs instead of four.

    Plain gradient descent: Adam's first step on a weight whose gradient is all but 0 shows float32's rounding as it is.
    """
    columns = {
        "target_margin": [2.5, 6.0, None, 3.0, 5.5, 4.5, 1.0, 7.5, 4.0, 3.5],
        "weight": [1.0, 0.5, 2.0, 1.5, 0.25, 1.0, 3.0, 0.75, 1.25, 0.5],
        "p_flip": [0.0, 0.1, 0.9, 0.5, 0.0, 0.25, 1.0, 0.05, 0.4, 0.0],
    }
    rows = longest_first(lab.rows(10, **columns), 4)
    changes = {"loss": loss, "batching": batching, "epochs": 2.0, "schedule": "constant", "warmup": 0.0}
    changes |= {"optimizer": "sgd", "learning_rate": 0.02}
    report = lab.train(lab.write(tmp_path / "pairs.jsonl", rows), tmp_path / "out", **changes)
    assert report["targets"] == "column"
    assert report["mean_weight"] == pytest.approx(1.175)
    losses, margins, asked, weights = plainly_trained(Plain.load(lab.policy), rows, loss, batch=4, epochs=2, rate=0.02)
    assert lab.losses(tmp_path / "out") == pytest.approx(losses, rel=1e-5)
    assert list(lab.logged(tmp_path / "out", "margin").values()) == pytest.approx(margins, rel=1e-5, abs=1e-4)
    assert list(lab.logged(tmp_path / "out", "target_margin").values()) == pytest.approx(asked)
    assert torch.allclose(lab.weights(tmp_path / "out").double(), weights, rtol=0, atol=2e-6)


# --- what changes nothing ---


@pytest.fixture
def pairs(lab, tmp_path):
    """A function that writes pairs and gives their file."""
    return lambda rows, name="pairs": lab.write(tmp_path / f"{name}.jsonl", rows)


@pytest.mark.parametrize("targets", ["online", "online_exact"])
def test_gamma_dpo_at_an_infinite_tau_is_dpo_norm(targets, lab, pairs, tmp_path):
    data = pairs(lab.rows(12))
    lab.train(data, tmp_path / "plain", loss="dpo_norm")
    lab.train(data, tmp_path / "gamma", loss="gamma_dpo", beta=5.0, tau=1e12, targets=targets)
    assert lab.losses(tmp_path / "gamma") == pytest.approx(lab.losses(tmp_path / "plain"), rel=5e-6)  # float32
    assert torch.allclose(lab.weights(tmp_path / "gamma"), lab.weights(tmp_path / "plain"), rtol=0, atol=5e-6)


def test_online_targets_matter_at_the_usual_tau(lab, pairs, tmp_path):
    data = pairs(lab.rows(12))
    lab.train(data, tmp_path / "plain", loss="dpo_norm")
    lab.train(data, tmp_path / "gamma", loss="gamma_dpo", beta=5.0, tau=1.0)
    assert lab.losses(tmp_path / "gamma") != pytest.approx(lab.losses(tmp_path / "plain"), rel=1e-3)


def test_a_pair_of_weight_zero_is_dropped_without_a_trace(lab, pairs, tmp_path):
    weights = [1.0, 2.0, 0.0, 1.5, 0.5, 1.0, 0.0, 1.0, 2.5, 1.0]
    rows = lab.rows(10, weight=weights)
    report = lab.train(pairs(rows), tmp_path / "all")
    assert report["counts"] == {"trained": 8, "weight 0": 2}
    lab.train(pairs([row for row in rows if row["weight"]], "some"), tmp_path / "some")
    assert lab.losses(tmp_path / "all") == lab.losses(tmp_path / "some")
    assert torch.equal(lab.weights(tmp_path / "all"), lab.weights(tmp_path / "some"))


def test_a_duplicated_pair_equals_weight_two(lab, pairs, tmp_path):
    rows = lab.rows(7)
    full = {"loss": "dpo", "batch_size": 8, "epochs": 5.0}
    lab.train(pairs([rows[0], *rows]), tmp_path / "twice", **full)
    report = lab.train(pairs(lab.rows(7, weight=[2, *[1] * 6]), "heavy"), tmp_path / "heavy", **full)
    assert report["mean_weight"] == pytest.approx(8 / 7)
    assert lab.losses(tmp_path / "heavy") == pytest.approx(lab.losses(tmp_path / "twice"), rel=1e-6)
    assert torch.allclose(lab.weights(tmp_path / "heavy"), lab.weights(tmp_path / "twice"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("batching", ["packed", "length_grouped"])
def test_accumulation_changes_nothing_though_updates_are_not_full(batching, lab, pairs, tmp_path):
    """Updates of 8 and 3 pairs: in one micro-batch, and in micro-batches of 3 and 2, of 2 and 1."""
    data = pairs(lab.rows(11, weight=[0.5 + 0.1 * at for at in range(11)]))
    outputs = [tmp_path / f"{size}" for size in (8, 4, 2)]
    for output in outputs:
        settings = {"micro_batch": int(output.name), "batch_size": 8, "loss": "dpo_norm", "epochs": 2.0}
        lab.train(data, output, batching=batching, **settings)
    whole, *parts = outputs
    for part in parts:
        assert lab.losses(part) == pytest.approx(lab.losses(whole), rel=1e-5)
        assert torch.allclose(lab.weights(part), lab.weights(whole), rtol=0, atol=1e-6)


# --- pairs of weight 0 in a batch ---


def gradients(trainer, pairs):
    """Of a batch's loss, with respect to all weights."""
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model.train(), trainer.collate(pairs), num_items_in_batch=2)
    loss.backward()
    return loss.item(), torch.cat([weight.grad.flatten() for weight in trainer.model.parameters()])


@pytest.mark.parametrize("batching", ["packed", "length_grouped"])
def test_padding_has_no_loss_and_no_gradient(batching, lab, pairs, tmp_path):
    lab.train(pairs(lab.rows(5)), tmp_path / "made")
    made = Pairs(tmp_path / "made" / "pairs.arrow", held_out=False)
    config, device = TrainConfig(**lab.settings(batching=batching)), Device("cpu", "float32")
    arguments = make_arguments(config, device, tmp_path / "none")
    trainer = make_trainer(config, models.resolve(config.model, print), device, arguments, made)
    real, padding = [made[0], made[1]], made[len(made)]
    assert (padding.is_padding, padding.weight, padding.chosen) == (True, 0.0, made[0].chosen)
    loss, alone = gradients(trainer, [padding])
    assert loss == 0
    assert torch.equal(alone, torch.zeros_like(alone))
    assert len(trainer.targets.state_dict()["history"]) == 8  # as it starts: padding is no earlier margin
    trainer.targets = target_margins("constant", trainer.settings)
    loss, without = gradients(trainer, real)
    odd = replace(padding, reference_chosen=math.nan, reference_rejected=math.inf)
    found, beside = gradients(trainer, [*real, odd])
    assert found == pytest.approx(loss, rel=1e-6)
    assert torch.allclose(beside, without, rtol=0, atol=1e-5)  # of at most 7; a longer row rounds differently
    assert len(torch.cat(trainer._seen)) == 4  # it is not among the margins that are logged


# --- settings that may change the last digits only ---


@pytest.mark.parametrize("lora", [False, True])
def test_activation_checkpointing_changes_nothing(lora, lab, pairs, tmp_path):
    data = pairs(lab.rows(8))
    lab.train(data, tmp_path / "kept", lora=lora)
    lab.train(data, tmp_path / "computed again", lora=lora, gradient_checkpointing=True)
    assert lab.losses(tmp_path / "computed again") == pytest.approx(lab.losses(tmp_path / "kept"), rel=1e-6)
    assert torch.allclose(lab.weights(tmp_path / "computed again"), lab.weights(tmp_path / "kept"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("batching", ["packed", "length_grouped"])
def test_bfloat16_stays_near_float32(lora, batching, lab, pairs, tmp_path):
    data = pairs(lab.rows(12))
    settings = {"lora": lora, "loss": "simpo", "batching": batching, "learning_rate": 2e-3 if lora else 2e-4}
    reports = {dtype: lab.train(data, tmp_path / dtype, dtype=dtype, **settings) for dtype in ("float32", "bfloat16")}
    assert [(report["dtype"], report["batching"]) for report in reports.values()] == [(it, batching) for it in reports]
    losses = lab.losses(tmp_path / "float32")
    assert lab.losses(tmp_path / "bfloat16") == pytest.approx(losses, rel=0.03)
    assert lab.losses(tmp_path / "bfloat16") != pytest.approx(losses, rel=1e-5)


# --- the model that is written ---


@pytest.mark.parametrize(("lora", "batching"), [(False, "length_grouped"), (True, "packed")])
def test_the_written_model_gives_the_trainers_log_probs(lora, batching, lab, pairs, tmp_path, monkeypatch):
    """Margins of the held-out pairs at last, pair by pair; with LoRA of the merged model and of the adapter."""
    judged, judge = [], PairTrainer.judge
    monkeypatch.setattr(PairTrainer, "judge", lambda self, held_out: judged.append(judge(self, held_out)) or judged[-1])
    rows, others, output = lab.rows(12), lab.rows(6, seed=1), tmp_path / "out"
    settings = {"lora": lora, "loss": "simpo", "batching": batching, "eval_data": str(pairs(others, "others"))}
    report = lab.train(pairs(rows), output, learning_rate=5e-3, epochs=2.0, **settings)
    assert report["after"] == judged[-1].metrics()
    assert np.abs(judged[-1].margin_N - judged[0].margin_N).max() > 0.1
    for plain in [Plain.load(output / "model"), *([adapted(lab.policy, output / "adapter")] if lora else [])]:
        with torch.no_grad():
            log_probs, tokens = plain.log_probs(others)
        rewards = 2.5 * log_probs / tokens
        assert judged[-1].margin_N == pytest.approx((rewards[:, 0] - rewards[:, 1]).numpy(), abs=1e-4)


def adapted(policy, folder):
    plain = Plain.load(policy)
    return replace(plain, model=peft.PeftModel.from_pretrained(plain.model, folder))
