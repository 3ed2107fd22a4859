"""Attention over packed codes, compiled, gives what float64 gives of what the codes stand for."""

from __future__ import annotations

import ctypes
import itertools
import math
import mmap
import random
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from reference_model.kernels import packed_attention
from reference_model.kernels.compiled import PROCESSORS, compile_and_load
from reference_model.kernels.packed_attention import SOURCE, Held, attend, encode
from reference_model.quantization.codec import Parts
from reference_model.quantization.turboquant import Scale, TurboQuant

CASES = 500
# Numbers here are of size 1 to 10, so that float32 keeps six digits of them.
TOLERANCE = 3e-5
ABLE = list(PROCESSORS)[list(PROCESSORS).index(torch.backends.cpu.get_cpu_capability()) :]


@pytest.fixture(params=ABLE, scope="module")
def processor(request: pytest.FixtureRequest) -> Any:
    """Each path that this machine can run, in place of the one it would choose."""
    path = Path(packed_attention.__file__).with_name(SOURCE)
    compiled = compile_and_load(path, request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_attention, "library", lambda source: compiled)
        patch.setattr(packed_attention, "_CONSTANTS", type(packed_attention._CONSTANTS)())
        yield request.param


# ---- Encoding


def test_scales_are_numbered_as_the_choices_are() -> None:
    assert get_args(Scale) == packed_attention.SCALES


@pytest.mark.parametrize("width", [32, 36, 63, 64, 80, 128, 256])
@pytest.mark.parametrize("bits", packed_attention.BITS)
def test_vectors_become_the_bytes_of_the_plain_way(processor: str, width: int, bits: int) -> None:
    x = torch.randn(3, 37, width, generator=torch.Generator().manual_seed(width))
    x[0, 0] = 0
    for scale in get_args(Scale):
        codec = TurboQuant(width, bits, scale=scale)
        plain, found = codec.quantize(codec.rotate(x)), encode(codec, x)
        for a, b in zip(plain, found, strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            if a.dtype == torch.uint8:  # a coordinate on an edge may fall to either side
                assert (a != b).sum() <= 1
            else:  # a last bit of float16, or what such a coordinate does to a scale
                torch.testing.assert_close(a, b, rtol=2e-3, atol=0)
        torch.testing.assert_close(codec.decode(found)[0, 0], torch.zeros(width))


def test_what_is_not_finite_stays_so(processor: str) -> None:
    codec = TurboQuant(64, 3)
    x = torch.randn(4, 64)
    x[1, 7], x[2, 3] = torch.nan, torch.inf
    decoded = codec.decode(encode(codec, x))
    assert decoded[[0, 3]].isfinite().all()
    assert not decoded[[1, 2]].isfinite().any()


def test_every_float_has_the_float16_that_pytorch_gives_it(processor: str) -> None:
    codec = TurboQuant(2, 2, rotation="none")
    exponents = torch.arange(-30, 17).float()
    sizes = torch.cat([2.0**exponents * f for f in (1, 1.0004883, 1.0014648, 1.5, 1.9997559)])
    x = torch.stack((sizes, torch.zeros_like(sizes)), -1)
    torch.testing.assert_close(encode(codec, x)[-1][:, 0], sizes.half(), rtol=0, atol=0)


def test_nothing_to_encode_is_encoded(processor: str) -> None:
    codec = TurboQuant(64, 3)
    assert [part.shape[:2] for part in encode(codec, torch.empty(5, 0, 64))] == [(5, 0)] * 3


# ---- Attention


def random_case(seed: int) -> dict[str, Any]:
    """Shapes, bits, windows, sinks and masks of one case; small, and off the round numbers."""
    draw = random.Random(seed)
    tokens = draw.choice([1, 1, 1, 2, 5, 33, 70])
    exact = draw.random() < 0.4
    width = draw.choice([32, 36, 40, 48, 63, 64, 64, 80, 96, 112, 128, 256])
    return {
        "batch": draw.choice([1, 1, 2, 3]),
        "groups": draw.choice([1, 2, 3]),
        "sharing": draw.choice([1, 1, 2, 3, 4, 7]),
        "tokens": tokens,
        "start": draw.choice([0, 1, 7, 63, 64, 65, 200]) if tokens < 70 else draw.choice([0, 50]),
        "window": draw.choice([1, 5, 16, 300]) if exact else 0,
        "sinks": draw.choice([0, 1, 4]) if exact else 0,
        "bits": (draw.choice([2, 3, 4]), draw.choice([2, 3, 4])) if draw.random() < 0.9 else None,
        "width": width,
        "scale": draw.choice(get_args(Scale)),
        "mask": draw.choice([None, None, "added", "of heads", "boolean"]),
        "bias": draw.random() < 0.5,
    }


@pytest.mark.parametrize("part", range(10))
def test_any_shape_gives_what_float64_gives(processor: str, part: int) -> None:
    cases = range(part, CASES if processor == ABLE[0] else CASES // 10, 10)
    for seed in cases:
        case = random_case(seed)
        found, expected = both_ways(case, seed)
        torch.testing.assert_close(
            found.double(), expected, rtol=0, atol=TOLERANCE, msg=lambda m, c=case: f"{c}: {m}"
        )


def test_a_long_text_is_read_in_splits_by_many_threads(
    processor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    case = random_case(3) | {"tokens": 1, "start": 3000, "groups": 1, "batch": 1, "bits": (3, 3)}
    for more in ({"window": 0, "sinks": 0}, {"window": 16, "sinks": 4}):
        found, expected = both_ways(case | more, 3)
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=TOLERANCE)


def test_threads_of_its_own_are_as_good_as_pytorchs(
    processor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_attention, "_pool", lambda: None)
    for seed in range(20):
        found, expected = both_ways(random_case(seed), seed)
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=TOLERANCE)


def test_who_may_see_nothing_reads_zeros(processor: str) -> None:
    codec = TurboQuant(64, 3)
    parts = encode(codec, torch.randn(1, 2, 9, 64))
    mask = torch.ones(1, 9, dtype=torch.bool)
    found = attend(
        torch.randn(1, 2, 1, 64), Held(codec, parts), Held(codec, parts), start=8, capacity=9,
        mask=~mask,
    )  # fmt: skip
    assert torch.equal(found, torch.zeros(1, 2, 1, 64))


@pytest.mark.parametrize("width", [2, 20, 64, 80])
def test_nothing_is_read_or_written_behind_what_is_held(processor: str, width: int) -> None:
    for bits, capacity in itertools.product(packed_attention.BITS, (1, 5, 67)):
        codec, sides = TurboQuant(width, bits), []
        for _ in range(2):
            first, last = (
                before_the_end((2, 2, n, width), torch.float32).normal_() for n in (1, 3)
            )
            parts = tuple(before_the_end((2, 2, capacity, n), dtype) for n, dtype in codec.layout)
            encode(codec, torch.randn(2, 2, capacity, width), parts)
            sides.append(Held(codec, parts, first, last))
        for tokens in (1, 2):
            start = 1 + capacity + 2 - tokens
            mask = before_the_end((4, tokens, start + tokens), torch.float32)
            q = torch.randn(2, 4, tokens, width)
            found = attend(q, *sides, start=start, capacity=capacity, window=2, mask=mask)
            assert found.isfinite().all()


def before_the_end(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros, behind which there is memory that may not be touched."""
    nbytes = math.prod(shape) * dtype.itemsize
    end = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, end + mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address + end), mmap.PAGESIZE, 0) == 0
    whole = torch.frombuffer(memory, dtype=dtype, offset=end - nbytes, count=math.prod(shape))
    return whole.view(shape)


def both_ways(case: dict[str, Any], seed: int) -> tuple[Tensor, Tensor]:
    """What the operator returns, and float64 from what is decoded: (B, H, T, D) each."""
    torch.manual_seed(seed)
    B, G, T, D = (case[name] for name in ("batch", "groups", "tokens", "width"))
    start, window = case["start"], case["window"]
    sinks = min(case["sinks"], start)
    H, length, capacity = G * case["sharing"], start + T, start + T + 3
    k, v = 3 * torch.randn(B, G, length, D), torch.randn(B, G, length, D)
    q = torch.randn(B, T, H, D).transpose(1, 2)
    mask = a_mask(case["mask"], H, T, start)
    sides, decoded = [], []
    for x, bits in zip((k, v), case["bits"] or (None, None), strict=True):
        bias = torch.randn(G, D) if case["bias"] and bits else None
        kept = x if bias is None else x - bias[:, None]
        codec = TurboQuant(D, bits, scale=case["scale"]) if bits else None
        encoded_here = codec is not None and not (window or sinks)
        slots = start if encoded_here else max(0, length - window - sinks)
        encoded = kept[:, :, sinks : sinks + slots]
        parts = parts_of(codec, encoded, capacity)
        first, last = kept[:, :, :sinks], kept[:, :, max(sinks, start - window) :]
        exact = (first.contiguous(), last.contiguous()) if window or sinks else (None, None)
        sides.append(Held(codec, parts, *exact, bias))
        decoded.append((codec, parts, kept))
    fresh = (k[:, :, start:], v[:, :, start:]) if encoded_here else None
    out_bias = torch.randn(G, D) if case["bias"] else None
    found = attend(
        q, *sides, start=start, capacity=capacity, fresh=fresh, window=window, mask=mask,
        out_bias=out_bias,
    )  # fmt: skip
    expected = torch.empty(B, H, T, D, dtype=torch.float64)
    for t in range(T):
        seen = start + t + 1
        border = max(sinks, seen - window)
        read = []
        for codec, parts, kept in decoded:
            filled = tuple(part[:, :, : border - sinks] for part in parts)
            middle = codec.decode(filled) if codec else filled[0]
            whole = torch.cat((kept[:, :, :sinks], middle, kept[:, :, border:seen]), 2).double()
            read.append(whole.repeat_interleave(case["sharing"], 1))
        scores = q[:, :, t : t + 1].double() @ read[0].mT / math.sqrt(D)
        if mask is not None:
            of_token = mask[..., t : t + 1, :seen]
            added = of_token.dtype != torch.bool
            scores = scores + of_token if added else scores.masked_fill(~of_token, -torch.inf)
        expected[:, :, t : t + 1] = scores.softmax(-1) @ read[1]
    if out_bias is not None:
        expected += out_bias.repeat_interleave(case["sharing"], 0)[:, None]
    return found, expected


def parts_of(codec: TurboQuant | None, x: Tensor, capacity: int) -> Parts:
    """Buffers of a cache that holds x (B, G, tokens, D) in its first slots."""
    shape = *x.shape[:2], capacity
    if codec is None:
        buffer = torch.zeros(*shape, x.shape[-1], dtype=torch.bfloat16)
        buffer[:, :, : x.shape[2]] = x
        return (buffer,)
    buffers = tuple(torch.zeros(*shape, count, dtype=dtype) for count, dtype in codec.layout)
    for buffer, part in zip(buffers, codec.encode(x), strict=True):
        buffer[:, :, : x.shape[2]] = part
    return buffers


def a_mask(kind: str | None, heads: int, tokens: int, start: int) -> Tensor | None:
    """(T, S), or (H, T, S), that hides at least what comes later; the own token is seen."""
    if kind is None:
        return None
    length = start + tokens
    own = torch.arange(start, length)[:, None]
    later = torch.arange(length) > own
    if kind == "boolean":
        hidden = later | (torch.rand(tokens, length) < 0.3)
        return ~hidden | (torch.arange(length) == own)
    shape = (heads, tokens, length) if kind == "of heads" else (tokens, length)
    return torch.randn(shape).masked_fill(later, -torch.inf)


# ---- Layout


def test_the_structures_have_no_gaps_that_c_would_fill_otherwise() -> None:
    for structure in (packed_attention._Side, packed_attention._Job):
        sizes = [ctypes.sizeof(field[1]) for field in structure._fields_]
        assert ctypes.sizeof(structure) == sum(sizes)
