"""Folders with a tokenizer: what transformers makes of the same file is right."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from random import Random

from reference_model.__main__ import main
from reference_model.checkpoints import load_tokenizer
from reference_model.errors import UserError
from tests.fuzz.commands import call
from tests.fuzz.folders import TEXT, edit, random_gpt2, silent, trained_tokenizer
from tests.fuzz.forked import Attempt
from tests.fuzz.mutations import mutate_file


class Tokenizers:
    """150 tokenizers: what transformers makes of the same file is the answer."""

    name, cases = "tokenizer folders", 150

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "model"
        random_gpt2().save_pretrained(self.folder)
        trained_tokenizer().save(str(self.folder / "tokenizer.json"))

    def __call__(self, attempt: Attempt) -> None:
        here = attempt.folder / "model"
        shutil.copytree(self.folder, here)
        path = here / "tokenizer.json"
        if attempt.random.random() < 0.4:
            attempt.what(_change_tokenizer(path, attempt.random))
        else:
            attempt.what(mutate_file(path, attempt.random))
        call(
            attempt,
            main,
            ["generate", "--huggingface", str(here), "--prompt", TEXT, "--tokens", "2"],
        )
        try:
            ours = load_tokenizer(here).encode(TEXT).ids
        except UserError:
            return
        with contextlib.suppress(BaseException), silent():
            from transformers import PreTrainedTokenizerFast

            theirs = PreTrainedTokenizerFast(tokenizer_file=str(path))(TEXT).input_ids
            if ours != theirs:
                attempt.wrong(f"tokens {ours[:9]}, transformers has {theirs[:9]}")


def _change_tokenizer(path: Path, random: Random) -> str:
    changes = random.choice((
        {"truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst",
                        "stride": 0}},
        {"padding": {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None,
                     "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}},
        {"normalizer": {"type": "Lowercase"}},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "(a*)*b"}, "content": ""}},
        {"pre_tokenizer": None},
        {"decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                     "use_regex": True}},
        {"post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False,
                            "use_regex": True}},
        {"added_tokens": [{"id": 10**12, "content": "To", "single_word": False, "lstrip": False,
                           "rstrip": False, "normalized": False, "special": True}]},
        {"added_tokens": [{"id": 4000, "content": "be", "single_word": False, "lstrip": False,
                           "rstrip": False, "normalized": False, "special": True}]},
        {"version": "9.0"},
    ))  # fmt: skip
    edit(path, changes)
    return f"tokenizer.json with {str(changes)[:70]}"
