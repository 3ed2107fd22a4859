"""The recipe that made the small model which recalls: `benchmarks/instruments/recall.py` asks it.

One CPU core needs about ten minutes, on random pairs alone. Few pairs, with few keys and values
that come again and again, are what it learns to look up; then there are more and more, until
a text is as long as the prompts. With many pairs from the first it learns nothing at all.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.instruments import recall
from benchmarks.instruments.recall import KEYS, PAIRS, VALUES, recall_prompts, recalled
from benchmarks.subjects.built import Model, ModelConfig
from reference_model import checkpoints, training
from reference_model.command_line import Parser, exit_status
from reference_model.files import write_whole
from reference_model.printing import ErrorsForProgress, say

CONFIG = ModelConfig(
    vocab_size=KEYS + VALUES,
    context_length=4 * PAIRS,
    n_layer=2,
    n_head=2,
    n_embd=128,  # heads are 64 wide, as those of the reference checkpoint and of GPT-2
    d_mlp=64,
    position="rope",
    norm="rmsnorm",
    initialization="xavier",
)
RECIPE = training.Recipe(
    steps=1200,
    learning_rate=5e-3,
    optimizer="muon",
    warmup_steps=50,
    evaluate_every=100,
    patience=1200,  # it learns long texts last
)
EMBEDDING_SPREAD = 0.1  # to begin with: beside what attention adds, tokens are to be seen
TOKENS = 8192  # of a step
FIRST_PAIRS, LEAST_LENGTH = 4, 32  # pairs to begin with, in texts of so many tokens at least
LEAST_WORDS = 32  # keys and values that half of the texts have to begin with
HELD, GROWN = 400, 900  # steps after which the pairs begin to grow, and have grown
VALIDATED, PROVED = 16, 64  # prompts during the training, and those it is tried on at the end
OTHER_SEED = 1_000_000_007  # of prompts that it was not trained on


def pairs_at(step: int) -> int:
    """How many pairs the texts of a step have: from FIRST_PAIRS to PAIRS, by a constant factor."""
    share = min(1.0, max(0.0, (step - HELD) / (GROWN - HELD)))
    return round(FIRST_PAIRS * (PAIRS / FIRST_PAIRS) ** share)


def batch(step: int, seed: int = RECIPE.seed) -> Tensor:
    """Texts (B, T): each of the pairs once, then some of them again and again, at random.

    A text has no end of its own: its last token is no more than a target.
    """
    pairs = pairs_at(step)
    length = max(4 * pairs, LEAST_LENGTH)
    rows, visits = max(2, TOKENS // length), length // 2 + 1
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    keys, values = (_words(rows, pairs, most, generator) for most in (KEYS, VALUES))
    again = torch.randint(pairs, (rows, visits - pairs), generator=generator)
    order = torch.cat((torch.arange(pairs).expand(rows, -1), again), dim=1)
    both = torch.stack((keys.gather(1, order), KEYS + values.gather(1, order)), dim=2)
    return both.flatten(1)[:, : length + 1]


def _words(rows: int, pairs: int, most: int, generator: torch.Generator) -> Tensor:
    """Different words of each row (rows, pairs): every other row has them of a few words alone."""
    drawn = torch.rand(rows, most, generator=generator)
    drawn[::2, max(LEAST_WORDS, pairs) :] = 2  # behind all others
    return drawn.argsort(1)[:, :pairs]


def untrained() -> Model:
    """The model to begin with."""
    torch.manual_seed(RECIPE.seed)
    model = Model(CONFIG)
    nn.init.normal_(model.wte.weight, std=EMBEDDING_SPREAD)
    return model


def run(out: Path) -> None:
    """Train, then write weights, configuration and card to ``out``."""
    torch.set_num_threads(1)  # sums depend on how many there are
    model = untrained()
    validation = recall_prompts(VALIDATED, OTHER_SEED, asks=PAIRS).tokens.flatten()
    progress = training.Progress()
    with tqdm(total=RECIPE.steps, unit="step", dynamic_ncols=True, file=ErrorsForProgress()) as bar:
        for progress in training.train(model, batch, validation, RECIPE):
            bar.update(progress.step - bar.n)
            if progress.curve:
                last = progress.curve[-1]
                bar.set_postfix(
                    train=f"{last['train']:.3f}", validation=f"{last['validation']:.3f}"
                )
    checkpoints.save(model, out, torch.float16)
    prompts = recall_prompts(PROVED, OTHER_SEED + 1)
    shipped = checkpoints.load(out)
    found = recalled(shipped, prompts, None)
    card: dict[str, Any] = {
        "name": "llm-design-bench model that recalls",
        "command": "python -m benchmarks.training.train_recall",
        "recipe": {
            **dataclasses.asdict(RECIPE),
            "tokens_a_step": TOKENS,
            "pairs": [FIRST_PAIRS, PAIRS],
            "pairs_grow_between": [HELD, GROWN],
            "embedding_spread": EMBEDDING_SPREAD,
        },
        "tokens_seen": progress.tokens,
        "best_step": progress.best_step,
        "loss_curve": progress.curve,
        "recalled": {"pairs": PAIRS, "prompts": PROVED, "share": float(found.mean())},
    }
    write_whole(out, {"card.json": (json.dumps(card, indent=2) + "\n").encode()})
    say(f"it recalls {found.mean():.2%} of {found.size:,} values")
    say(f"digest {recall.digest_of(shipped)}")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.training.train_recall",
        description="Train the small model that recalls, which is shipped.",
        example="--out runs/recall",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=recall.RECALL_MODEL,
        help="folder for the finished model (default: the shipped one)",
    )
    return parser


def main() -> int:
    """Returns the exit status."""

    def command() -> None:
        run(_parser().parse_args().out)

    return exit_status(command)


if __name__ == "__main__":
    sys.exit(main())
