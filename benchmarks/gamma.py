"""γ-PO solver: agreement with published figures where they are at hand, speed, and exactness.

    python benchmarks/gamma.py [--golden FILE] [--pairs 1000000] [--seed 0]

The golden file holds margins, the released implementation's γ after 20 steps and the exact γ.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from curate import gamma_weights

SETTINGS = [  # published: β, γ0/β, τ
    ("Llama-3-8B-Instruct", 10.0, 0.4, 10.0),
    ("Gemma-2-9B-it", 10.0, 0.5, 20.0),
    ("Mistral-7B-Instruct-v0.2", 2.5, 0.15, 10.0),
    ("Qwen2.5-7B-Instruct", 10.0, 0.3, 3.0),
]
GOLDEN = Path(__file__).parents[2] / "shared" / "golden" / "gamma_official.json"


def compare_with_golden(path: Path) -> None:
    """Largest difference to the released outputs (published settings) and to the exact ones (all settings)."""
    released, exact = 0.0, 0.0
    for case in json.loads(path.read_text(encoding="utf-8")):
        gamma0 = case.get("gamma0") or case["beta"] * case["gamma_beta_ratio"]
        found = gamma_weights(np.array(case["reward_margin"]), gamma0=gamma0, tau=case["tau"]).target_margin
        exact = max(exact, float(np.abs(found - case["gamma_exact"]).max()))
        if "beta" in case:
            released = max(released, float(np.abs(found - case["gamma_official_20_steps"]).max()))
    print(
        f"golden: {released:.1e} from the released outputs at published settings, "
        f"{exact:.1e} from the exact optimum at all settings"
    )


def time_settings(pairs: int, seed: int) -> None:
    """Seconds (best of 3) and residual at each published setting, on normal margins of standard deviation β/2."""
    normal = np.random.default_rng(seed).standard_normal(pairs)
    for name, beta, ratio, tau in SETTINGS:
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            found = gamma_weights(normal * beta / 2, gamma0=ratio * beta, tau=tau)
            seconds.append(time.perf_counter() - started)
        print(f"{name:26} {pairs:>10,} pairs  {min(seconds):6.3f} s  residual {found.residual:.1e}")


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, default=GOLDEN)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.golden.is_file():
        compare_with_golden(options.golden)
    else:
        print(f"golden: {options.golden} is not here; give one with --golden")
    time_settings(options.pairs, options.seed)


if __name__ == "__main__":
    main()
