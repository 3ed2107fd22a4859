"""What codecs are calibrated by is what attention saw of the text, whatever pieces it came in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from reference_model.cache import KVCache
from reference_model.errors import UserError
from reference_model.model import GPT
from reference_model.quantization.calibration import calibrate

CONTEXT = 24
WIDTH = 8


class Seen(KVCache):
    """A plain cache that keeps what each layer's attention was given."""

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        self.seen = [*getattr(self, "seen", []), (q, k, v)]
        return super().attend(layer, q, k, v, mask)


def seen_by(model: GPT, text: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    cache = Seen(model.config, len(text), text.shape[1], torch.float32)
    with torch.inference_mode():
        model(text, cache)
    return cache.seen


def text_of(model: GPT) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(model.config.vocab_size, (3, 13), generator=generator)


@pytest.mark.parametrize(
    "choices",
    [
        {"bias": False},
        {},
        {"position": "rope", "bias": False, "n_head": 4, "n_kv_head": 2, "d_head": WIDTH},
    ],
    ids=["no bias", "biases", "rotated, shared keys"],
)
def test_moments_are_those_of_the_queries_and_of_values_weighed_by_their_keys(
    tiny_model: Callable[..., GPT], choices: dict[str, object]
) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT, **choices)
    text = text_of(model)
    for layer, (q, k, v) in enumerate(seen_by(model, text)):
        if model.config.qkv_bias:
            bias = model.h[layer].attn.c_attn.bias.detach().view(3, 1, -1, 1, WIDTH)
            k, v = k - bias[1], v - bias[2]
        heads, sharing = k.shape[1], q.shape[1] // k.shape[1]
        of_queries, of_values = torch.zeros(2, heads, WIDTH, WIDTH, dtype=torch.float64)
        for head in range(heads):
            rows = q[:, head * sharing : (head + 1) * sharing].double().reshape(-1, WIDTH)
            of_queries[head] = sum(torch.outer(row, row) for row in rows) / len(rows)
            keys, values = (x[:, head].double().reshape(-1, WIDTH) for x in (k, v))
            weights = torch.stack([key @ of_queries[head] @ key for key in keys])
            weights /= weights.mean()
            outer = [w * torch.outer(row, row) for w, row in zip(weights, values, strict=True)]
            of_values[head] = sum(outer) / len(outer)
        found = calibrate(model, [text])[layer]
        assert (found.queries - of_queries.mean(0)).abs().max() < 1e-4
        assert (found.values - of_values.mean(0)).abs().max() < 1e-4
        assert found.largest_key == pytest.approx(float(k.abs().max()), rel=1e-5)
        assert found.largest_value == pytest.approx(float(v.abs().max()), rel=1e-5)
        assert found.tokens == 3 * 13


def test_several_texts_count_as_one(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT)
    text = text_of(model)
    together, apart = calibrate(model, [text]), calibrate(model, list(text[:, None]))
    for one, other in zip(together, apart, strict=True):
        assert (one.queries - other.queries).abs().max() < 1e-5
        assert (one.values - other.values).abs().max() < 1e-5
        assert one.largest_key == pytest.approx(other.largest_key, rel=1e-5)
        assert one.tokens == other.tokens


def test_biases_that_are_kept_are_calibrated_with(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT)
    kept = calibrate(model, [text_of(model)], drop_biases=False)
    dropped = calibrate(model, [text_of(model)])
    assert (kept[0].values - dropped[0].values).abs().max() > 0.01
    assert kept[0].largest_key != dropped[0].largest_key


def test_no_text_is_refused(tiny_model: Callable[..., GPT]) -> None:
    with pytest.raises(UserError, match="there is no text to calibrate by"):
        calibrate(tiny_model(torch.float32), [])
