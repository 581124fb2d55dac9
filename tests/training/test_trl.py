"""TRL's own trainer with target margins and weights per pair, against a plain loop over the same tokens."""

import importlib.util
import runpy
from pathlib import Path
from typing import NamedTuple

import pytest

if importlib.util.find_spec("trl") is None:
    pytest.skip("TRL is not installed: pip install trl==1.16.0", allow_module_level=True)

import torch
import transformers
import trl
from datasets import Dataset

from curate.errors import ConfigError, InputError
from training.losses import LOSSES, LossSettings, PairLogProbs, reward_margin
from training.trl import GammaDPOTrainer

ROOT = Path(__file__).parents[2]
MAX_LENGTH, BETA, GAMMA0, RATE = 40, 0.1, 0.04, 0.02
TEXTS = [
    ("Say hello.", "Hello, my friend!", "No."),
    ("What is 2 + 2?", "It is 4.", "Maybe 5, or 7?"),
    ("A prompt that fills all the tokens there are.", "Yes.", "No."),  # TRL lets this pair vanish
    ("Where?", "Here, and this answer is so long that it is cut off.", "There."),  # and cuts this one
    ("Why?", "Because.", "It is so, I say."),
    ("Who?", "You.", "Me, the model."),
]
TARGETS = [0.9, 0.1, 50.0, 0.5, None, 0.3]
WEIGHTS = [1.5, 0.0, 50.0, 0.5, 1.0, 2.0]
REFERENCE_CHOSEN = [-70.0, -33.0, 50.0, -120.0, -41.0, -20.0]
REFERENCE_REJECTED = [-12.0, -50.0, 50.0, -28.0, -66.0, -61.0]
KEPT = [0, 1, 3, 4, 5]
STEPS = [[[0, 1], [3, 4]], [[5]]] * 2  # two epochs of KEPT: steps of two micro-batches, the last of an epoch of one
COLUMNS = {
    "target_margin": TARGETS,
    "weight": WEIGHTS,
    "ref_chosen_logps": REFERENCE_CHOSEN,
    "ref_rejected_logps": REFERENCE_REJECTED,
}


def pairs(*names, conversational=False, **columns):
    """The dataset with some of COLUMNS, and others."""
    prompt, chosen, rejected = (list(texts) for texts in zip(*TEXTS, strict=True))
    if conversational:
        prompt = [[{"role": "user", "content": text}] for text in prompt]
        chosen, rejected = ([[{"role": "assistant", "content": text}] for text in side] for side in (chosen, rejected))
    columns = {**{name: COLUMNS[name] for name in names}, **columns}
    ids = [f"id-{index}" for index in range(len(TEXTS))]
    return Dataset.from_dict({"pair_id": ids, "prompt": prompt, "chosen": chosen, "rejected": rejected, **columns})


def config(folder, **changes):
    settings = {
        "output_dir": str(folder),
        "precompute_ref_log_probs": True,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_steps": len(STEPS),
        "max_length": MAX_LENGTH,
        "beta": BETA,
        "optim": "sgd",
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "train_sampling_strategy": "sequential",
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    return trl.DPOConfig(**{**settings, **changes})


def trained(trainer):
    """Train: the loss of every micro-batch, and the parameters afterwards."""
    losses, compute_loss = [], trainer.compute_loss

    def recorded(*args, **kwargs):
        loss = compute_loss(*args, **kwargs)
        losses.append(loss.item())
        return loss

    trainer.compute_loss = recorded
    trainer.train()
    return losses, parameters(trainer.model)


def parameters(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


class Case(NamedTuple):
    """What is trained: a loss of ours, TRL's name of it, and which columns the dataset has."""

    loss: str
    settings: LossSettings
    loss_type: str
    columns: tuple[str, ...]
    conversational: bool = False

    def trainer(self, policy, folder, **others):
        return GammaDPOTrainer(
            str(policy),
            args=config(folder, loss_type=self.loss_type),
            train_dataset=pairs(*self.columns, conversational=self.conversational),
            gamma0=GAMMA0 if "target_margin" in self.columns else None,
            weighted="weight" in self.columns,
            reference_free=not self.settings.needs_reference,
            **others,
        )


STORED = ("ref_chosen_logps", "ref_rejected_logps")
SUMS, NORM, SIMPO = (LossSettings(name, BETA, GAMMA0 / BETA) for name in ("dpo", "dpo_norm", "simpo"))
CASES = {
    "γ-DPO": Case("gamma_dpo", SUMS, "sigmoid", ("target_margin",)),
    "γ-DPO, stored reference": Case("gamma_dpo", SUMS, "sigmoid", ("target_margin", *STORED), True),
    "γ-DPO per token": Case("gamma_dpo", NORM, "sigmoid_norm", ("target_margin",), True),
    "γ-DPO per token, all columns": Case("gamma_dpo", NORM, "sigmoid_norm", tuple(COLUMNS)),
    "γ-SimPO": Case("gamma_simpo", SIMPO, "sigmoid_norm", ("target_margin",)),
    "γ-SimPO, all columns": Case("gamma_simpo", SIMPO, "sigmoid_norm", tuple(COLUMNS)),
    "weights alone": Case("dpo", LossSettings("dpo", BETA), "sigmoid", ("weight",)),
}


# --- the plain loop ---


class Sides:
    """Tokens of both sides of a pair with their prompt, cut to length, and where the completions start."""

    def __init__(self, tokenizer, index, conversational):
        prompt, *sides = TEXTS[index]
        if conversational:
            prompt = f"<|user|>{prompt}<|end|><|assistant|>"
        self.start = len(tokenizer(prompt)["input_ids"])
        self.ids = [tokenizer(f"{prompt}{side}<|end|>")["input_ids"][:MAX_LENGTH] for side in sides]

    def log_probs(self, model):
        """Sums over the completions, shape (2,)."""
        return torch.stack([self._log_prob(model, ids) for ids in self.ids])

    def _log_prob(self, model, ids):
        log_prob_TV = torch.log_softmax(model(torch.tensor([ids])).logits[0], dim=-1)
        return sum(log_prob_TV[t - 1, ids[t]] for t in range(self.start, len(ids)))

    def counts(self):
        return torch.tensor([len(ids) - self.start for ids in self.ids])


def batch_loss(case, sides, model, reference, batch):
    policy_B2 = torch.stack([sides[index].log_probs(model) for index in batch])
    tokens_B2 = torch.stack([sides[index].counts() for index in batch])
    reference_B2 = torch.stack([reference[index] for index in batch])
    logps = PairLogProbs(*policy_B2.T, *tokens_B2.T, *reference_B2.T)
    targets = torch.tensor([GAMMA0 if TARGETS[index] is None else TARGETS[index] for index in batch])
    return LOSSES[case.loss](
        reward_margin(logps, case.settings),
        case.settings,
        target_margin_B=targets if "target_margin" in case.columns else None,
        weight_B=torch.tensor([WEIGHTS[index] for index in batch]) if "weight" in case.columns else None,
    ).mean()


def plainly_trained(case, sides, policy, reference):
    """What `trained` returns, of STEPS with plain gradient descent."""
    model = transformers.AutoModelForCausalLM.from_pretrained(policy)
    losses = []
    for step in STEPS:
        values = [batch_loss(case, sides, model, reference, batch) for batch in step]
        losses += [value.item() for value in values]
        gradient = torch.autograd.grad(sum(values) / len(step), list(model.parameters()))
        moved = parameters(model) - RATE * torch.cat([part.flatten() for part in gradient])
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(moved, model.parameters())
    return losses, parameters(model)


def reference_of(case, sides, model):
    """Log-probs of the reference by pair: those that are stored, or the model's."""
    if set(STORED) <= set(case.columns):
        return {index: torch.tensor([REFERENCE_CHOSEN[index], REFERENCE_REJECTED[index]]) for index in KEPT}
    with torch.no_grad():
        return {index: sides[index].log_probs(model) for index in KEPT}


@pytest.fixture(scope="module")
def tokenizer(tiny_policy):
    return transformers.AutoTokenizer.from_pretrained(tiny_policy)


@pytest.fixture
def reference(tiny_reference):
    return transformers.AutoModelForCausalLM.from_pretrained(tiny_reference)


# --- steps ---


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_step_equals_the_formulas(case, tiny_policy, reference, tokenizer, tmp_path):
    sides = {index: Sides(tokenizer, index, case.conversational) for index in KEPT}
    expected = plainly_trained(case, sides, tiny_policy, reference_of(case, sides, reference))
    second_model = {"ref_model": reference} if case.settings.needs_reference and STORED[0] not in case.columns else {}
    found = trained(case.trainer(tiny_policy, tmp_path, **second_model))
    assert found[0] == pytest.approx(expected[0], rel=1e-6, abs=2e-6)
    assert torch.allclose(found[1], expected[1], rtol=0, atol=1e-6)


# --- what changes nothing, and what leaves no trace ---


def stored(folder, policy, *names, kind=GammaDPOTrainer, dataset=None, others=(), **changes):
    """A trainer on pairs with a stored reference and more columns."""
    dataset = pairs(*STORED, *names, **changes) if dataset is None else dataset
    return kind(str(policy), args=config(folder), train_dataset=dataset, **dict(others))


def test_weights_of_one_change_nothing(tiny_policy, tmp_path):
    plain = trained(stored(tmp_path, tiny_policy))
    weighted = trained(stored(tmp_path, tiny_policy, weight=[1] * len(TEXTS), others={"weighted": True}))
    assert weighted[0] == plain[0]
    assert torch.equal(weighted[1], plain[1])


def test_target_margins_of_gamma0_are_trls_own_dpo(tiny_policy, reference, tmp_path):
    settings = {"args": config(tmp_path), "ref_model": reference}
    own = trained(trl.DPOTrainer(str(tiny_policy), train_dataset=pairs(), **settings))
    dataset = pairs(target_margin=[0.3] * len(TEXTS))
    found = trained(GammaDPOTrainer(str(tiny_policy), train_dataset=dataset, gamma0=0.3, **settings))
    assert found[0] == own[0]
    assert torch.equal(found[1], own[1])


def test_pairs_of_weight_zero_leave_no_gradient(tiny_policy, tmp_path):
    trainer = stored(tmp_path, tiny_policy, weight=[0.0] * len(TEXTS), others={"weighted": True})
    before = parameters(trainer.model)
    losses, after = trained(trainer)
    assert losses == [0.0] * len(losses)
    assert torch.equal(after, before)


def test_a_changed_pair_of_weight_zero_changes_nothing(tiny_policy, tmp_path):
    runs = []
    for text in ("Maybe 5, or 7?", "Never 9, or 3!"):  # of the same length
        dataset = pairs("weight", "target_margin", *STORED)
        dataset = dataset.map(lambda pair, text=text: {"rejected": text} if pair["weight"] == 0 else {})
        settings = {"weighted": True, "gamma0": GAMMA0}
        runs.append(trained(stored(tmp_path, tiny_policy, dataset=dataset, others=settings)))
    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])


# --- evaluation ---


def test_evaluation_has_the_same_loss_and_can_be_of_other_pairs(tiny_policy, reference, tokenizer, tmp_path):
    case = CASES["γ-DPO"]._replace(columns=("target_margin", "weight"))
    evaluated = pairs(*case.columns)
    trainer = case.trainer(
        tiny_policy,
        tmp_path,
        eval_dataset=evaluated,
        ref_model=reference,
        compute_metrics=lambda predicted: {"vocabulary": predicted.predictions.shape[-1]},
    )
    inputs = set()  # of both models
    for model in (trainer.model, reference):
        model.register_forward_pre_hook(lambda _, __, given: inputs.update(given), with_kwargs=True)
    sides = {index: Sides(tokenizer, index, False) for index in KEPT}
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_policy)
    with torch.no_grad():
        expected = batch_loss(case, sides, model, reference_of(case, sides, reference), KEPT).item()
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] == pytest.approx(expected, abs=2e-6)
    assert metrics["eval_vocabulary"] == len(tokenizer)
    assert trainer.evaluate(evaluated)["eval_loss"] == pytest.approx(expected, abs=2e-6)
    assert "labels" in inputs
    assert "weight" not in inputs
    with pytest.raises(ConfigError, match="the eval dataset has no column 'target_margin'"):
        trainer.evaluate(trainer.train_dataset)  # whose margins are in the reference already


# --- refusals ---


@pytest.mark.parametrize(
    ("others", "changes", "message"),
    [
        ({}, {"loss_type": "hinge"}, "loss_type is hinge"),
        ({}, {"loss_type": ["sigmoid", "sft"]}, r"loss_type is sigmoid\+sft"),
        ({"reference_free": True}, {}, "reference_free is SimPO"),
        ({"reference_free": True, "ref_model": object()}, {"loss_type": "sigmoid_norm"}, "leave ref_model out"),
        ({"ref_model": object()}, {}, "brings the reference's log-probs"),
        ({"gamma0": -1.0}, {}, "gamma0 is -1.0"),
        ({"gamma0": float("nan")}, {}, "gamma0 is nan"),
        ({}, {"precompute_ref_log_probs": False}, "precompute_ref_log_probs is False"),
        ({}, {"f_divergence_type": "forward_kl"}, "f_divergence_type and ld_alpha"),
        ({"weighted": True}, {"use_weighting": True}, "choose one"),
        ({"weighted": True}, {}, "no column 'weight'"),
        ({"gamma0": 0.4}, {}, "no column 'target_margin'"),
    ],
)
def test_settings_that_cannot_be(others, changes, message, tiny_policy, tmp_path):
    with pytest.raises(ConfigError, match=message) as caught:
        GammaDPOTrainer(str(tiny_policy), args=config(tmp_path, **changes), train_dataset=pairs(*STORED), **others)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"weight": [1.0, -0.5, 1.0, -2.0, 1.0, 1.0]}, r"the train dataset, pair id-1 \(and 1 more\): weight is -0.5"),
        ({"weight": [1.0, 1.0, 1.0, 1.0, 1.0, None]}, "pair id-5: weight is nan"),
        ({"weight": [float("inf")] + [1.0] * 5}, "pair id-0: weight is inf"),
        ({"weight": ["1"] * 6}, "column 'weight' holds string"),
        ({"target_margin": [0.0, 1.0, 2.0, 3.0, float("-inf"), 5.0]}, "pair id-4: target_margin is -inf"),
        ({"ref_chosen_logps": [*REFERENCE_CHOSEN[:-1], None]}, "pair id-5: ref_chosen_logps is nan"),
        ({"chosen": ["<|end|>"] + ["Yes."] * 5, "prompt": [""] * 6}, "pair id-0: TRL scores no token of one side"),
        (
            {"prompt_tokens": [10] * 6, "chosen_tokens": [18] * 6, "rejected_tokens": [4] * 6},
            r"pair id-1 \(and 3 more\): .* have 14, 9, 15 tokens in TRL and 10, 18, 4 in the stored reference",
        ),
    ],
)
def test_values_that_cannot_be(columns, message, tiny_policy, tmp_path):
    dataset = pairs(**{**COLUMNS, **columns})
    with pytest.raises(InputError, match=message) as caught:
        stored(tmp_path, tiny_policy, dataset=dataset, others={"weighted": True, "gamma0": GAMMA0})
    assert "\n" not in str(caught.value)


def test_half_a_reference_and_a_stream_are_refused(tiny_policy, tmp_path):
    with pytest.raises(ConfigError, match="has ref_chosen_logps alone"):
        stored(tmp_path, tiny_policy, dataset=pairs("ref_chosen_logps"))
    with pytest.raises(ConfigError, match="is a IterableDataset"):
        stored(tmp_path, tiny_policy, dataset=pairs(*STORED).to_iterable_dataset())


def test_counts_of_the_references_tokens_that_agree(tiny_policy, tokenizer, tmp_path):
    sides = [Sides(tokenizer, index, False) for index in range(len(TEXTS))]
    counts = [[side.start, *side.counts().tolist()] for side in sides]
    columns = dict(zip(("prompt_tokens", "chosen_tokens", "rejected_tokens"), zip(*counts, strict=True), strict=True))
    trainer = stored(tmp_path, tiny_policy, **columns)
    assert trainer.train_dataset["pair_id"][:] == [f"id-{index}" for index in KEPT]


def test_other_releases_of_trl_are_refused(monkeypatch):
    monkeypatch.setattr(trl, "__version__", "1.14.2")
    with pytest.raises(ConfigError, match=r"TRL 1.14.2 was not tested .* install trl==1.16.\*"):
        runpy.run_path(str(ROOT / "training" / "trl.py"))


# --- the example ---


@pytest.mark.parametrize(("ending", "more"), [("parquet", []), ("jsonl", ["--simpo", "--weighted"])])
def test_the_example_runs(ending, more, tiny_policy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    dataset = pairs("target_margin", "weight", conversational=True)
    data, output = tmp_path / f"pairs.{ending}", tmp_path / "trained"
    dataset.to_parquet(data) if ending == "parquet" else dataset.to_json(data)
    example = runpy.run_path(str(ROOT / "examples" / "trl_gamma.py"))
    arguments = ["--data", data, "--model", tiny_policy, "--output", output, "--steps", 2, *more]
    example["main"]([str(argument) for argument in arguments])
    assert "at the last; model in" in capsys.readouterr().out.splitlines()[-1]
    model = transformers.AutoModelForCausalLM.from_pretrained(output)
    assert not torch.equal(
        parameters(model), parameters(transformers.AutoModelForCausalLM.from_pretrained(tiny_policy))
    )
