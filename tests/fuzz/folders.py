"""What changed folders of models, adapters and tokenizers share: how they are made and judged.

Where transformers or PEFT read a folder to other logits or tokens than we do, without a word of
ours, we are wrong.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor

from reference_model.errors import UserError
from tests.fuzz.forked import Attempt
from tests.fuzz.mutations import mutate_bytes, mutate_file

VOCABULARY = 280
TEXT = "To be, or not\nto be 12"
TOKENS = torch.randint(VOCABULARY, (1, 7), generator=torch.Generator().manual_seed(5))
SHAPE = {"vocab_size": VOCABULARY, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}
FARTHEST = 1e-3  # of logits of order one, that two orders of sums may differ by


def random_gpt2(**choices: Any) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(**SHAPE, bos_token_id=None, eos_token_id=None, **choices)
    model = GPT2LMHeadModel(config).eval()
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        middle = 1.0 if "ln_" in name and name.endswith("weight") else 0.0
        parameter.data = middle + 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def trained_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT * 3, "the others there then"], trainer)
    return tokenizer


def compare(
    attempt: Attempt,
    ours: Callable[[], Callable[[Tensor], Tensor]],
    theirs: Callable[[], Callable[[Tensor], Tensor] | None],
) -> None:
    told = io.StringIO()
    try:
        with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stderr(told):
            warnings.simplefilter("always")
            with torch.no_grad():
                mine = ours()(TOKENS)
    except UserError as error:
        attempt.outcome("refused")
        if "\n" in str(error):
            attempt.wrong("refused in several lines")
        return
    attempt.outcome("read")
    if warned or told.getvalue():
        return
    answer: Tensor | None = None
    with contextlib.suppress(BaseException), silent(), torch.no_grad():
        model = theirs()
        answer = None if model is None else model(TOKENS)
    if answer is None or (
        answer.shape == mine.shape
        and torch.allclose(
            mine.float(), answer.float(), atol=FARTHEST, rtol=FARTHEST, equal_nan=True
        )
    ):
        return
    off = (mine - answer).abs().max() if answer.shape == mine.shape else "another shape"
    attempt.wrong(f"logits off by {off}")


@contextlib.contextmanager
def silent() -> Iterator[None]:
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def change_any_json(folder: Path, random: Random) -> str:
    files = sorted(path for path in folder.glob("*.json") if path.name != "tokenizer.json")
    return mutate_file(random.choice(files), random, replaced=0.1)


def change_bytes(folder: Path, random: Random) -> str:
    path = next(folder.glob("*.safetensors"))
    # Half of the changes in the header, which is a small part of the file.
    content, header = path.read_bytes(), 2000
    if random.random() < 0.5:
        start, what = mutate_bytes(content[:header], random)
        path.write_bytes(start + content[header:])
    else:
        changed, what = mutate_bytes(content, random)
        path.write_bytes(changed)
    return f"{path.name}: {what}"


def edit(path: Path, changes: dict[str, Any]) -> None:
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    content = {
        key: value for key, value in content.items() if value is not None or key not in SHAPE
    }
    path.write_text(json.dumps(content), encoding="utf-8")
