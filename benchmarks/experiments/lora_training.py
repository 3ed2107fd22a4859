"""L1, LoRA in training: what the rank does to a fine-tune of the checkpoint on another text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.instruments.finetuning import FineTune, Outcome, outcome_of
from reference_model.lora import ScalingLaw

RANKS = (4, 16, 64, 256)
SCALINGS: dict[str, ScalingLaw] = {"alpha/r": "lora", "alpha/sqrt(r)": "rslora"}
SEEDS = 5

# ---- lora.rank-pays

# The equal-rate comparison is at the middle one: AdamW's rate in the recipe that made the
# checkpoint, written down before any fine-tune. The span is what a trial with another seed, on
# validation text, needed for every rank's best rate to lie inside.
LEARNING_RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
EQUAL_RATE = LEARNING_RATES[2]
STEPS, WARMUP_STEPS, BATCH_SIZE, LENGTH = 32, 4, 4, 128
FOLDER = Path(__file__).parents[2] / "runs" / "lora_rank_pays"

Cell = tuple[str, int, float]  # scaling, rank, learning rate
Sweep = Mapping[Cell, list[Outcome]]  # an outcome for each seed


def sweep(folder: Path) -> Sweep:
    """All fine-tunes: those kept in ``folder``, and the others, which are run and kept there."""
    found: dict[Cell, list[Outcome]] = {}
    for seed in range(SEEDS):
        for option, scaling in SCALINGS.items():
            for rank in RANKS:
                for rate in LEARNING_RATES:
                    spec = FineTune(
                        scaling, rank, rate, seed, STEPS, WARMUP_STEPS, BATCH_SIZE, LENGTH
                    )
                    outcome = outcome_of(spec, folder)
                    found.setdefault((option, rank, rate), []).append(outcome)
    return found
