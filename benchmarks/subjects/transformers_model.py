"""A causal language model of transformers, as transformers runs it.

It is called as ours is, ``model(tokens, cache) → logits``, and its own modules do the work. For
families that are not built here: what an experiment asks of a model's inside, it asks the parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from reference_model.errors import UserError

PREFIX = "hf:"


class TransformersModel(nn.Module):
    """``causal_lm`` with the call of our model."""

    def __init__(self, causal_lm: nn.Module) -> None:
        super().__init__()
        self.causal_lm = causal_lm

    def forward(self, tokens: Tensor, cache: Any = None, last_only: bool = False) -> Tensor:
        """Logits (B, T, V) of tokens (B, T) that follow what the cache holds; or of the last."""
        found = self.causal_lm(
            input_ids=tokens,
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=1 if last_only else 0,
        )
        logits: Tensor = found.logits
        return logits


@dataclass(frozen=True)
class Opened:
    """A model with its tokenizer; ``width`` of a head, and the tokens that its context has."""

    model: TransformersModel
    tokenizer: Tokenizer
    width: int
    context: int


@lru_cache(maxsize=2)
def open_with_transformers(name: str, dtype: torch.dtype) -> Opened:
    """``name``: behind ``hf:`` a folder, or a name on the hub, which is fetched from there.

    Raises `UserError` without transformers, where there is no such model, where it is no causal
    language model, and where its tokenizer has no fast form.
    """
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise UserError(f"{PREFIX}NAME needs transformers ({error}); pip install it") from None
    logging.disable_progress_bar()
    place = name.removeprefix(PREFIX)
    model = _loaded(name, lambda: AutoModelForCausalLM.from_pretrained(place, dtype=dtype))
    tokenizer = _loaded(name, lambda: AutoTokenizer.from_pretrained(place))
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(f"{name} has a tokenizer without tokenizer.json; save it as a fast one")
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    context = getattr(config, "max_position_embeddings", None) or 1024
    wrapped = TransformersModel(model.eval())
    return Opened(wrapped, tokenizer.backend_tokenizer, width, context)


def _loaded(name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:
        # The errors of transformers and of the hub are of many types, and have many lines.
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"transformers cannot load {name}: {reason}; name a folder or a model of the hub"
        ) from None
