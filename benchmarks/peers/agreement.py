"""SmolLM2 in our model class and in transformers': are losses and greedy text the same?

    python -m benchmarks.peers.agreement

Both have the same weights, decoded from the Q4_1 file. Losses are of the test plays, by a window
that slides; transformers' are summed here a second time, window by window.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.data.assets import play_texts
from reference_model.command_line import Parser, exit_status
from reference_model.export import save_huggingface
from reference_model.generate import generate
from reference_model.models import open_model
from reference_model.printing import say
from reference_model.published import SMOLLM2
from reference_model.score import token_nats

WINDOW, STRIDE = 512, 256
CHARACTERS, NEW_TOKENS = 20_000, 64
PROMPT = "The history of the sea is"


@torch.inference_mode()
def their_nats(model: Any, ids: Sequence[int]) -> float:
    """Nats a token: each window's new tokens, given all of the window before them."""
    total, done = 0.0, 1
    for begin in range(0, len(ids), STRIDE):
        end = min(begin + WINDOW, len(ids))
        logits = model(torch.tensor([ids[begin:end]])).logits[0].double()
        for token in range(done, end):
            row = logits[token - 1 - begin]
            total += float(row.logsumexp(0) - row[ids[token]])
        done = end
        if end == len(ids):
            break
    return total / (len(ids) - 1)


def compared() -> dict[str, Any]:
    """What both say of the same tokens."""
    import transformers

    transformers.logging.set_verbosity_error()
    ours = open_model(SMOLLM2.name)
    with tempfile.TemporaryDirectory() as folder:
        save_huggingface(ours.model, Path(folder))
        theirs = transformers.LlamaForCausalLM.from_pretrained(folder).eval()
    text = "\n".join(play_texts("test").values())[:CHARACTERS]
    ids = ours.tokenizer.encode(text).ids
    mine, other = float(token_nats(ours.model, ids, WINDOW, STRIDE).mean()), their_nats(theirs, ids)
    prompt = torch.tensor([ours.tokenizer.encode(PROMPT).ids])
    written = generate(ours.model, prompt, NEW_TOKENS)
    expected = theirs.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return {
        "tokens predicted": len(ids) - 1,
        "window": WINDOW,
        "stride": STRIDE,
        "prefix": [],
        "our nats a token": mine,
        "their nats a token": other,
        "difference": abs(mine - other),
        f"same {NEW_TOKENS} greedy tokens": torch.equal(written, expected),
    }


def _parser() -> Parser:
    return Parser(
        prog="python -m benchmarks.peers.agreement",
        description="Compare SmolLM2's losses and text in our model class and in transformers'.",
    )


def main(arguments: Sequence[str]) -> int:
    _parser().parse_args(arguments)
    say(json.dumps(compared(), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
