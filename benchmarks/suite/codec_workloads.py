"""What bench_kv_codecs.py measures: caches in few bits, their codecs, and what they cost.

As in workloads.py, only the standard library is imported before a benchmark is set up.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING

from benchmarks.suite.asked_model import DTYPE
from benchmarks.suite.workloads import (
    SIZE,
    Step,
    cache_bytes,
    cached_heads,
    device,
    finish,
    of_this_commit,
    repeated_step,
    start,
)

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.subjects.built import Model
    from reference_model.cache import KVCache
    from reference_model.quantization.codec import Codec

CODEC_WIDTH = 64  # of GPT-2's heads and the checkpoint's
ENCODED = (4, 12, 256, CODEC_WIDTH)  # layers, heads, tokens of what is encoded and decoded
UNIT_VECTORS = 20_000
READ_WINDOWS = SIZE.windows


@of_this_commit()
def kv_codec(name: str, width: int = CODEC_WIDTH) -> Codec:
    """A codec by "kind bits", as bench_kv_codecs.py spells it."""
    start()
    from reference_model.quantization.baselines import AbsmaxBlocks, PerToken
    from reference_model.quantization.turboquant import TurboQuant, TurboQuantProd

    kind, _, bits = name.rpartition(" ")
    builders: dict[str, Callable[[int, int], Codec]] = {
        "turboquant": TurboQuant,
        "prod": partial(TurboQuantProd, projection="orthonormal"),
        "rotated blocks": partial(AbsmaxBlocks, seed=0),
        "token": PerToken,
    }
    return builders[kind](width, int(bits))


@of_this_commit()
def filled_quantized_cache(model: Model, codec: str, past: int, room: int = 0) -> KVCache:
    """A compressed cache that holds ``past`` tokens, and has room for more."""
    import torch

    from reference_model.quantization.kv_cache import QuantizedKVCache

    config, weight = model.config, model.wte.weight
    kv = QuantizedKVCache(model, 1, past + room, kv_codec(codec, config.d_head))
    rows = torch.randn(1, cached_heads(config), past, config.d_head).to(weight)
    with torch.inference_mode():
        for layer in range(config.n_layer):
            kv.update(layer, rows, rows)
    return kv


def quantized_decode_step(model: Model, codec: str, past: int) -> Step:
    """The token after ``past`` others, again and again."""
    return repeated_step(model, filled_quantized_cache(model, codec, past, room=1), past)


def bits_per_value(model: Model, kv: KVCache, tokens: int) -> float:
    """Everything that a cache of so many tokens holds, over its numbers."""
    config = model.config
    values = 2 * config.n_layer * tokens * cached_heads(config) * config.d_head
    return 8 * cache_bytes(kv) / values


def distortion(codec: Codec) -> float:
    """E‖x − x̂‖² of random unit vectors."""
    import torch

    x = torch.randn(UNIT_VECTORS, codec.width, generator=torch.Generator().manual_seed(0))
    x = x / x.norm(dim=-1, keepdim=True)
    return float((codec.decode(codec.encode(x)) - x).square().sum(-1).mean())


def codec_steps(name: str) -> tuple[Step, Step]:
    """Encoding and decoding random keys."""
    codec = kv_codec(name).to(device())
    import torch

    x = torch.randn(ENCODED, device=device(), dtype=getattr(torch, DTYPE))
    parts = codec.encode(x)

    def encode() -> None:
        codec.encode(x)
        finish()

    def decode() -> None:
        codec.decode(parts)
        finish()

    return encode, decode


@cache  # read once: a benchmark that changes it changes a copy
@of_this_commit()
def reference_checkpoint() -> Model:
    start()
    from reference_model.checkpoints import load_reference

    return load_reference()


@of_this_commit()
def held_out_tokens(model: Model) -> Tensor:
    """The start of one test play, (N,), as it is shipped with the checkpoint: asv has no other.

    Commits are compared on it, token by token the same. It is no sample of a text, and nothing that
    is measured on it claims an interval.
    """
    from safetensors.torch import load_file

    from reference_model.checkpoints import REFERENCE_FOLDER

    tokens = load_file(REFERENCE_FOLDER / "test_slice.safetensors")["tokens"].long()
    return tokens[: READ_WINDOWS * model.config.context_length + 1]


@cache  # the gate asks for one number at a time
@of_this_commit()
def quality_through_cache(name: str) -> dict[str, float]:
    """What reading held-out text through a compressed cache costs the checkpoint, nats a token."""
    from benchmarks.instruments.cache_quality import qualities
    from benchmarks.instruments.windows import windows_of
    from reference_model.quantization.kv_cache import QuantizedKVCache

    model, codec = reference_checkpoint(), kv_codec(name)
    context = model.config.context_length
    caches = {"codec": lambda batch: QuantizedKVCache(model, batch, context, codec)}
    windows = windows_of(held_out_tokens(model), context)
    baseline, found = qualities(model, windows, caches)
    quality = found["codec"]
    return {
        "loss_increase": float((quality.losses - baseline).mean()),
        "prediction_kl": float(quality.divergences.mean()),
    }
