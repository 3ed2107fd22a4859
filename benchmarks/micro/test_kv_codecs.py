"""Keys and values in few bits: packing, encoding, decoding, and one query over what is packed."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.subjects.built import Model
from reference_model.config import preset
from reference_model.quantization.codebook import lloyd_max
from reference_model.quantization.codec import nbytes_of
from reference_model.quantization.kv_cache import QuantizedKVCache
from reference_model.quantization.packing import LookUp, pack, unpack
from reference_model.quantization.turboquant import TurboQuant

WIDTH, TOKENS = 64, 1024
KEYS = (2, 12, TOKENS, WIDTH)  # two layers' keys of GPT-2 small
BITS = (2, 3, 4)
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 5e-3, torch.float16: 5e-4}


@pytest.mark.benchmark(group="codec, two layers of 1,024 tokens")
def test_copy(timed, put) -> None:
    x = put(torch.randn(KEYS))
    into = torch.empty_like(x)
    found = timed(lambda: into.copy_(x), nbytes=2 * x.nbytes)
    assert torch.equal(found, x)


@pytest.mark.benchmark(group="codec, two layers of 1,024 tokens")
@pytest.mark.parametrize("bits", BITS)
def test_encode(timed, put, bits: int) -> None:
    x = put(torch.randn(KEYS))
    codec = TurboQuant(WIDTH, bits).to(x.device)
    held = x.numel() * codec.bits_per_value / 8
    parts = timed(
        lambda: codec.encode(x),
        nbytes=x.nbytes + int(held),
        flops=2 * WIDTH * x.numel(),
        product="float32",  # whatever the keys are in, they are turned in it
    )
    assert nbytes_of(parts) == held
    relative = (codec.decode(parts) - x).square().sum() / x.float().square().sum()
    assert float(relative) == pytest.approx(lloyd_max(WIDTH, bits).distortion, rel=0.02)


@pytest.mark.benchmark(group="codec, two layers of 1,024 tokens")
@pytest.mark.parametrize("bits", BITS)
def test_decode(timed, put, bits: int) -> None:
    x = put(torch.randn(KEYS))
    codec = TurboQuant(WIDTH, bits).to(x.device)
    parts = codec.encode(x)
    found = timed(
        lambda: codec.decode(parts),
        nbytes=4 * x.numel() + nbytes_of(parts),
        flops=2 * WIDTH * x.numel(),
        dtype="float32",  # of what is decoded, whatever was encoded
    )
    *planes, scale = parts
    levels = torch.tensor(lloyd_max(WIDTH, bits).levels, dtype=torch.float64, device=x.device)
    positive = levels[len(levels) // 2 :]
    codes = unpack(tuple(planes), bits, WIDTH).long()
    exact = torch.cat((positive, -positive))[codes] * scale.double() @ codec.rotation.double()
    assert (found.double() - exact).abs().max() < 1e-4


@pytest.mark.benchmark(group="packing, two layers of 1,024 tokens")
@pytest.mark.parametrize("bits", BITS)
def test_pack(timed, device, bits: int) -> None:
    codes = torch.randint(2**bits, KEYS, device=device).to(torch.uint8)
    planes = timed(lambda: pack(codes, bits), nbytes=codes.numel() * (8 + bits) // 8, dtype="uint8")
    assert torch.equal(unpack(planes, bits, WIDTH), codes)


@pytest.mark.benchmark(group="packing, two layers of 1,024 tokens")
@pytest.mark.parametrize("bits", BITS)
def test_look_up(timed, device, bits: int) -> None:
    codes = torch.randint(2**bits, KEYS, device=device).to(torch.uint8)
    levels = torch.randn(2**bits, device=device)
    look_up, planes = LookUp(levels, bits), pack(codes, bits)
    nbytes = codes.numel() * (32 + bits) // 8
    found = timed(lambda: look_up(planes, WIDTH), nbytes=nbytes, dtype="float32")
    assert torch.equal(found, levels[codes.long()])


@pytest.mark.benchmark(group="attention over a packed cache, one query")
@pytest.mark.parametrize("past", [128, 1023])
@pytest.mark.parametrize("bits", BITS)
def test_rotated_attention(timed, put, bits: int, past: int) -> None:
    model = put(Model(preset("gpt2", n_layer=1, vocab_size=8)))
    cache = QuantizedKVCache(model, 1, past + 1, TurboQuant(WIDTH, bits))
    k, v = put(torch.randn(2, 1, 12, past, WIDTH))
    cache.update(0, k, v)
    q, new_k, new_v = put(torch.randn(3, 1, 12, 1, WIDTH))

    def step() -> torch.Tensor:
        cache.forget(past)  # each call is the first after the same past
        return cache.attend(0, q, new_k, new_v)

    flops = 4 * 768 * (past + 1)
    found = timed(step, nbytes=cache.nbytes_used, flops=flops, product="float32")
    # The plain way: everything decoded into the model's own basis, in float64.
    cache.forget(past)
    keys, values = (x.double() for x in cache.update(0, new_k, new_v))
    expected = (q.double() @ keys.mT / math.sqrt(WIDTH)).softmax(-1) @ values
    assert (found.double() - expected).abs().max() < TOLERANCE[q.dtype]
