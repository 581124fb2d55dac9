"""γ-DPO in TRL's own trainer, on pairs that curate exported with their target margins.

    python examples/trl_gamma.py --data pairs.parquet --model my-org/my-sft-model --output runs/trl

The file (Parquet or JSON lines) has `prompt`, `chosen`, `rejected` and `target_margin`; with --weighted also `weight`.
Where it has `ref_chosen_logps` and `ref_rejected_logps` they are the reference, else the model as it is now. --beta and
--gamma0 are those that the target margins were computed with. Needs `pip install trl==1.16.0`.
"""

import argparse
from collections.abc import Sequence

import torch
from datasets import load_dataset
from trl import DPOConfig

from training.trl import GammaDPOTrainer


def main(arguments: Sequence[str] | None = None) -> None:
    """Train a few steps, save the model and print the last loss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="exported pairs, .parquet or .jsonl")
    parser.add_argument("--model", required=True, help="folder or hub id")
    parser.add_argument("--output", required=True, help="folder for the trained model")
    parser.add_argument("--beta", type=float, default=10.0, help="β of the length-normalised margin")
    parser.add_argument("--gamma0", type=float, default=4.0, help="γ0, the mean target margin")
    parser.add_argument("--simpo", action="store_true", help="γ-SimPO: no reference")
    parser.add_argument("--weighted", action="store_true", help="multiply each pair's loss by its weight")
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args(arguments)

    gpu = torch.cuda.is_available()
    kind = "parquet" if options.data.endswith(".parquet") else "json"
    trainer = GammaDPOTrainer(
        options.model,
        args=DPOConfig(
            output_dir=options.output,
            loss_type="sigmoid_norm",
            beta=options.beta,
            precompute_ref_log_probs=True,
            max_length=2048,  # TRL cuts at 1,024 unless told otherwise, and says nothing
            bf16=gpu,  # TRL's default is bfloat16, on a CPU too
            dataloader_pin_memory=gpu,
            max_steps=options.steps,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=4,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=load_dataset(kind, data_files=options.data, split="train"),
        gamma0=options.gamma0,
        weighted=options.weighted,
        reference_free=options.simpo,
    )
    trainer.train()
    trainer.save_model()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(f"loss {losses[0]:.4f} at the first step, {losses[-1]:.4f} at the last; model in {options.output}")


if __name__ == "__main__":
    main()
