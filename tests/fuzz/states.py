"""Training states that are not what was written: none may be resumed."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from reference_model.config import GPTConfig
from reference_model.errors import UserError
from reference_model.model import GPT
from reference_model.training import STATE_FILE, Recipe, train
from tests.fuzz.forked import Attempt
from tests.fuzz.mutations import mutate_bytes

CONFIG = GPTConfig(vocab_size=23, context_length=8, n_layer=1, n_head=2, n_embd=16)
RECIPE = Recipe(steps=4, learning_rate=1e-3, warmup_steps=1, evaluate_every=2)
TOKENS = torch.arange(200) % 23


def _batches(step: int) -> torch.Tensor:
    return TOKENS[step : step + 18].view(2, 9)


def _run(folder: Path, steps: int) -> GPT:
    torch.manual_seed(0)
    model = GPT(CONFIG)
    for progress in train(model, _batches, TOKENS, RECIPE, folder):
        if progress.step >= steps:
            break
    return model


class TrainingStates:
    """500 states with bits flipped, cut, lengthened: each is refused in one line."""

    name, cases = "training states", 500

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "state"
        _run(self.folder, 3)

    def __call__(self, attempt: Attempt) -> None:
        shutil.copytree(self.folder, here := attempt.folder / "run")
        path = here / STATE_FILE
        before = path.read_bytes()
        after, what = mutate_bytes(before, attempt.random)
        path.write_bytes(after)
        attempt.what(what)
        try:
            _run(here, 4)
        except UserError as error:
            attempt.outcome("refused")
            if "\n" in str(error):
                attempt.wrong("refused in several lines")
            if path.read_bytes() != after:
                attempt.damaged("the state is not what it was")
            return
        attempt.outcome("read")
        if after != before:
            attempt.wrong("resumed from a state that is not the one that was written")
