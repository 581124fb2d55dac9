"""Small trainings: pairs made up on the spot, a tiny model, and what a training leaves behind."""

import gc
import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

WORDS = ["the", "a", "one", "this", "cat", "dog", "tree", "river", "stone", "runs", "sleeps", "sings", "red", "cold"]


def _text(rng, low, high):
    return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))


def _turn(role, text):
    return [{"role": role, "content": text}]


@dataclass(frozen=True)
class Lab:
    """Trains `policy` as suits tests: all weights, in float32, pairs in the data's order, every update logged."""

    policy: Path

    def rows(self, count, seed=0, **columns):
        """Pairs in TRL's conversational format; columns: numbers of each pair."""
        rng = random.Random(seed)
        made = [
            {
                "prompt": _turn("user", f"{number} {_text(rng, 2, 6)}"),
                "chosen": _turn("assistant", _text(rng, 1, 7)),
                "rejected": _turn("assistant", _text(rng, 1, 7)),
            }
            for number in range(count)
        ]
        return [{**row, **{name: values[at] for name, values in columns.items()}} for at, row in enumerate(made)]

    def write(self, path, rows):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    def settings(self, **changes):
        return {
            "model": str(self.policy),
            "lora": False,
            "learning_rate": 1e-3,
            "batch_size": 4,
            "micro_batch": 2,
            "shuffle": False,
            "eval_share": 0.0,
            "log_every": 1,
            "max_length": 256,
            "device": "cpu",
            **changes,
        }

    def train(self, data, output, **changes):
        """Train in this process; the report."""
        from training.config import TrainConfig
        from training.train import train

        return train(TrainConfig(**self.settings(**changes)), str(data), output)

    def words(self, data, output, **changes):
        """The same on the command line."""
        settings = [word for name, value in self.settings(**changes).items() for word in ("--set", _toml(name, value))]
        return ["train", str(data), "-o", str(output), *settings]

    def logged(self, output, name="loss"):
        """A logged number by update; of lines of the same update the last counts."""
        lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        return {line["step"]: line[name] for line in lines if name in line}

    def losses(self, output):
        """Of every update, in their order."""
        found = self.logged(output)
        assert list(found) == list(range(1, len(found) + 1))
        return list(found.values())

    def weights(self, output, file="model/model.safetensors"):
        """All numbers of a written model, or of an adapter, one after the other."""
        import torch
        from safetensors.torch import load_file

        tensors = load_file(output / file)
        return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def _toml(name, value):
    return f"{name}={str(value).lower() if isinstance(value, bool) else value}"


@pytest.fixture(scope="session")
def lab(tiny_policy):
    import training.train  # noqa: F401

    gc.freeze()  # a training collects garbage, which takes half a second with all the modules
    yield Lab(tiny_policy)
    gc.unfreeze()
