"""What a text costs a model: nats a token and bits a byte, by a window that slides over it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy

from reference_model.config import LARGEST
from reference_model.errors import UserError
from reference_model.model import GPT
from reference_model.reading import quoted
from reference_model.tokenizer_file import encoded

LONGEST = 1024  # window by default, where the model was trained on more


@dataclass(frozen=True)
class Score:
    """``tokens``: how many were predicted: all but the first of the encoded text.

    ``nats``: their summed negative log-likelihood; ``text_bytes``: UTF-8 bytes of the predicted
    text; ``prefix``: special tokens before the text.
    """

    tokens: int
    nats: float
    text_bytes: int
    window: int
    stride: int
    prefix: tuple[str, ...]

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.text_bytes


def score(
    model: GPT,
    tokenizer: Tokenizer,
    text: str,
    window: int | None = None,
    stride: int | None = None,
) -> Score:
    """Each token is predicted once, from those before it in its window of ``window`` tokens.

    Windows begin ``stride`` tokens apart (by default half a window), so that a token has at least
    ``window − stride`` others before it, but for those at the beginning. Raises `UserError` for a
    text of fewer than two tokens, sizes that cannot be, and losses that are not finite.
    """
    context = model.config.context_length
    window = min(context, LONGEST) if window is None else window
    stride = max(1, window // 2) if stride is None else stride
    _check_sizes(model, window, stride)
    found = encoded(tokenizer, text)
    ids, offsets = found.ids, found.offsets
    before = zip(found.tokens, found.special_tokens_mask, offsets, strict=True)
    leading = takewhile(lambda each: each[1] and each[2][0] == each[2][1], before)
    prefix = tuple(token for token, _, _ in leading)
    if len(ids) < 2:
        raise UserError(f"the text has {len(ids)} tokens; use one of at least 2")
    text_bytes = len(text[offsets[1][0] :].encode())  # from where what is predicted begins
    if not text_bytes:
        raise UserError("the text has no byte to predict; use a longer one")
    nats = token_nats(model, ids, window, stride)
    return Score(len(nats), float(nats.sum()), text_bytes, window, stride, prefix)


@torch.inference_mode()
def token_nats(model: GPT, ids: Sequence[int], window: int, stride: int) -> Tensor:
    """Nats of every token but the first → (N − 1,) float64, on the CPU."""
    device = model.wte.weight.device
    tokens = torch.tensor(ids, device=device)
    highest = max(ids)
    if highest >= model.config.vocab_size:
        raise UserError(
            f"the text holds token {highest}, the model knows 0 … {model.config.vocab_size - 1}; "
            "encode it with the model's own tokenizer"
        )
    found, done = [], 1
    for begin in range(0, len(ids), stride):
        end = min(begin + window, len(ids))
        if end > done:
            logits = model(tokens[None, begin : end - 1])[0, done - begin - 1 :]  # (T, V)
            if logits.dtype != torch.float64:
                logits = logits.float()
            loss = cross_entropy(logits, tokens[done:end], reduction="none")
            found.append(loss.double().cpu())
            done = end
        if end == len(ids):
            break
    nats = torch.cat(found)
    if not nats.isfinite().all():
        raise UserError("the model answers with numbers that are not finite; fetch it again")
    return nats


def _check_sizes(model: GPT, window: int, stride: int) -> None:
    most = model.config.context_length if model.config.position == "learned" else LARGEST
    if not 2 <= window <= most:
        raise UserError(f"window={quoted(window)} cannot be read; use 2 … {most} tokens")
    if not 1 <= stride < window:
        raise UserError(
            f"stride={quoted(stride)} leaves tokens out; use 1 … {window - 1}, less than the window"
        )
