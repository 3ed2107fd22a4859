"""What the kernels give is what float64 gives one step at a time, from the same bytes."""

from __future__ import annotations

import dataclasses
import itertools
import math
from itertools import chain
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from reference_model.kernels.triton_attention import Packed, attend_packed, encode
from reference_model.quantization.codec import Parts
from reference_model.quantization.packing import pack, unpack
from reference_model.quantization.turboquant import Scale, TurboQuant

WIDTHS = (32, 42, 64, 80, 96, 128, 200, 256)
BITS = (1, 2, 3, 4)
GROUPS, SHARING, BATCH = 2, 2, 2
# Of results of size 1: float32's rounding, and that of what is given back.
TOLERANCE = {torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def random_parts(codec: TurboQuant, count: int, device: str, batch: int = BATCH) -> Parts:
    """Any codes, and scales that differ."""
    shape = (batch, GROUPS, count)
    codes = torch.randint(2**codec.bits, (*shape, codec.width)).to(torch.uint8)
    scales = (codec.width**0.5 * torch.rand(*shape, 1)).half()
    return tuple(part.to(device) for part in (*pack(codes, codec.bits), scales))


def decoded(codec: TurboQuant, parts: Parts) -> Tensor:
    """Level times scale, turned back: in float64, from the codes one by one."""
    *planes, scales = (part.cpu() for part in parts)
    codes = unpack(tuple(planes), codec.bits, codec.width).long()
    levels = codec.look_up.table[: 2**codec.bits, 0].double()
    return levels[codes] * scales.double() @ codec.rotation.double()


def plain(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None = None
) -> Tensor:
    """Softmax attention in float64."""
    q, k, v = (each.cpu().double() for each in (q, k, v))
    k, v = (each.repeat_interleave(q.shape[1] // each.shape[1], 1) for each in (k, v))
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is None:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool)
        mask = seen.tril(scores.shape[-1] - scores.shape[-2])
    mask = mask.cpu()
    added = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return added.softmax(-1) @ v


def difference(
    device: str,
    keys: TurboQuant,
    values: TurboQuant,
    *,
    count: int = 37,
    exact: int = 5,
    length: int = 1,
    sharing: int = SHARING,
    dtype: torch.dtype = torch.float32,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> float:
    """The largest one between the kernels and float64, over random codes."""
    codecs = [codec.to(device) for codec in (keys, values)]
    parts = [random_parts(codec, count, device) for codec in (keys, values)]
    q = torch.randn(BATCH, GROUPS * sharing, length, keys.width, device=device).to(dtype)
    near = torch.randn(2, BATCH, GROUPS, exact, keys.width, device=device).to(dtype)
    found = attend_packed(
        q,
        *map(Packed.of, codecs, parts),
        (near[0], near[1]) if exact else None,
        count,
        mask if mask is None else mask.to(device),
        scale,
        bias if bias is None else bias.to(device),
    )
    assert found.dtype == dtype
    assert found.shape == q.shape
    k, v = (
        torch.cat((decoded(codec, part), each.cpu().double()), -2)
        for codec, part, each in zip((keys, values), parts, near, strict=True)
    )
    expected = plain(q, k, v, mask, scale)
    if bias is not None:
        expected += bias.double().repeat_interleave(sharing, 1)
    return float((found.cpu().double() - expected).abs().max())


# ---- attention


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_token_reads_what_float64_reads_at_each_width_and_size_of_code(
    device: str, width: int, bits: int
) -> None:
    codec = TurboQuant(width, bits)
    assert difference(device, codec, codec) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("bits", list(itertools.permutations((2, 3, 4), 2)))
def test_keys_and_values_may_have_codecs_of_their_own(device: str, bits: tuple[int, int]) -> None:
    codecs = TurboQuant(64, bits[0]), TurboQuant(64, bits[1], rotation="hadamard", seed=9)
    assert difference(device, *codecs) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize("sharing", [1, 2, 3, 8, 20])
def test_heads_that_share_keys_read_the_same_ones(device: str, sharing: int, length: int) -> None:
    codec = TurboQuant(32, 3)
    found = difference(device, codec, codec, sharing=sharing, length=length)
    assert found < TOLERANCE[torch.float32]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("length", [1, 6])
def test_exact_tokens_and_queries_may_have_any_precision(
    device: str, length: int, dtype: torch.dtype
) -> None:
    codec = TurboQuant(64, 3)
    found = difference(device, codec, codec, length=length, exact=20, dtype=dtype)
    assert found < TOLERANCE[dtype]


@pytest.mark.parametrize(("count", "exact"), [(0, 9), (9, 0), (1, 1), (300, 0), (300, 150)])
@pytest.mark.parametrize("length", [1, 9])
def test_there_may_be_few_or_many_tokens_of_either_kind(
    device: str, length: int, count: int, exact: int
) -> None:
    codec = TurboQuant(64, 4)
    length = min(length, count + exact)
    found = difference(device, codec, codec, count=count, exact=exact, length=length)
    assert found < TOLERANCE[torch.float32]


@pytest.mark.parametrize("width", [32, 128, 256])
def test_of_a_prompt_each_token_sees_those_before_it_and_itself(device: str, width: int) -> None:
    codec = TurboQuant(width, 3)
    found = difference(device, codec, codec, count=90, exact=0, length=90)
    assert found < TOLERANCE[torch.float32]


@pytest.mark.parametrize("kind", ["boolean", "added", "added, float16"])
@pytest.mark.parametrize("heads", [False, True])
@pytest.mark.parametrize("length", [1, 11])
def test_a_mask_is_followed(device: str, length: int, heads: bool, kind: str) -> None:
    codec = TurboQuant(64, 2)
    mask = torch.randn(*([GROUPS * SHARING] * heads), length, 42)
    if kind == "boolean":
        mask = (mask > 0.5) | (torch.arange(42) == 41)
    elif kind == "added":
        mask = mask.masked_fill(mask > 1, -torch.inf)
    else:
        mask = mask.half()
    found = difference(device, codec, codec, length=length, mask=mask)
    assert found < TOLERANCE[torch.float32]


def test_masks_may_differ_between_sequences(device: str) -> None:
    codec = TurboQuant(32, 3)
    mask = torch.randn(BATCH, 1, 4, 42)
    assert difference(device, codec, codec, length=4, mask=mask) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("length", [1, 3])
def test_a_bias_of_the_values_is_added_to_their_sum(device: str, length: int) -> None:
    codec = TurboQuant(48, 3)
    bias = torch.randn(1, GROUPS, 1, 48)
    assert difference(device, codec, codec, length=length, bias=bias) < TOLERANCE[torch.float32]


def test_scores_are_multiplied_by_the_scale_that_is_given(device: str) -> None:
    codec = TurboQuant(32, 3)
    assert difference(device, codec, codec, scale=0.3) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("bits", [2, 3])
def test_batches_and_heads_may_lie_anywhere(device: str, bits: int) -> None:
    codec = TurboQuant(64, bits)
    parts = [random_parts(codec, 37, device) for _ in range(2)]
    # Room behind the tokens; keys in every second of some batches, values in one of three layers.
    rooms = [
        [p.new_zeros(GROUPS, 2 * BATCH, 50, p.shape[-1]).transpose(0, 1)[::2] for p in parts[0]],
        [p.new_zeros(BATCH, 3, GROUPS, 60, p.shape[-1])[:, 1] for p in parts[1]],
    ]
    for room, part in zip(chain(*rooms), chain(*parts), strict=True):
        room[:, :, :37] = part
    packed = [Packed.of(codec.to(device), tuple(room)) for room in rooms]
    # Queries and exact tokens as a projection gives them: heads beside each other.
    q = torch.randn(BATCH, 1, GROUPS * SHARING, 64, device=device).transpose(1, 2)
    near = torch.randn(2, BATCH, 5, GROUPS, 64, device=device).transpose(2, 3)
    found = attend_packed(q, packed[0], packed[1], (near[0], near[1]), 37)
    k, v = (
        torch.cat((decoded(codec, part), each.cpu().double()), -2)
        for part, each in zip(parts, near, strict=True)
    )
    assert (found.cpu().double() - plain(q, k, v, None)).abs().max() < TOLERANCE[torch.float32]


def test_levels_of_ones_own_are_looked_up(device: str) -> None:
    codec = TurboQuant(32, 2).to(device)
    packed = Packed.of(codec, random_parts(codec, 8, device))
    ours = dataclasses.replace(packed, levels=torch.tensor([1.0, 1, 1, 1], device=device))
    q = torch.randn(BATCH, GROUPS, 1, 32, device=device)
    turned = codec.rotate(attend_packed(q, packed, ours, None, 8))
    assert (turned - turned[..., :1]).abs().max() < 1e-5


@pytest.mark.parametrize("length", [1, 5])
def test_a_query_that_may_see_nothing_gets_zeros_and_others_are_none_the_worse(
    device: str, length: int
) -> None:
    codec = TurboQuant(32, 3).to(device)
    packed = Packed.of(codec, random_parts(codec, 40, device))
    q = torch.randn(BATCH, GROUPS, length, 32, device=device)
    mask = torch.ones(GROUPS, length, 40, dtype=torch.bool, device=device)
    mask[1, 0] = False
    found = attend_packed(q, packed, packed, None, 40, mask)
    assert found[:, 1, 0].eq(0).all()
    found[:, 1, 0] = 1
    assert found.ne(0).all()


@pytest.mark.parametrize("kind", ["key", "value", "query", "exact"])
def test_what_is_no_number_is_passed_on(device: str, kind: str) -> None:
    codec = TurboQuant(32, 3).to(device)
    parts = [random_parts(codec, 40, device) for _ in range(2)]
    q = torch.randn(BATCH, GROUPS, 1, 32, device=device)
    near = torch.randn(2, BATCH, GROUPS, 5, 32, device=device)
    spoilt = {"key": parts[0][-1], "value": parts[1][-1], "query": q, "exact": near[0]}[kind]
    spoilt[1, 0, -1] = torch.nan
    packed = [Packed.of(codec, each) for each in parts]
    found = attend_packed(q, packed[0], packed[1], (near[0], near[1]), 40)
    assert found[1, 0].isnan().all()
    assert not found[1, 1].isnan().any()
    assert not found[0].isnan().any()


# ---- encoding


def turned(codec: TurboQuant, x: Tensor) -> Tensor:
    return x.cpu().double() @ codec.rotation.double().T


def check(codec: TurboQuant, x: Tensor, parts: Parts) -> None:
    """Codes are those of float64, but next to an edge; scales follow from them."""
    codes = unpack(tuple(part.cpu() for part in parts[:-1]), codec.bits, codec.width)
    y = turned(codec, x)
    norm = y.norm(dim=-1, keepdim=True)
    half = 2 ** (codec.bits - 1)
    magnitude, sign = (codes % half).double(), codes >= half
    edges = torch.tensor((0.0, *codec.edges, torch.inf), dtype=torch.float64)
    slack = 1e-6 * norm
    assert (y.abs() >= norm * edges[magnitude.long()] - slack).all()
    assert (y.abs() <= norm * edges[magnitude.long() + 1] + slack).all()
    assert ((y < 0) == sign)[y.abs() > slack].all()
    levels = codec.look_up.table[: 2**codec.bits, 0].double()[codes.long()]
    length, product = levels.norm(dim=-1, keepdim=True), (y * levels).sum(-1, keepdim=True)
    expected = {
        "norm": norm,
        "norm_corrected": norm / length,
        "least_squares": product / length**2,
        "unbiased": norm**2 / product,
    }[codec.scale]
    assert torch.allclose(parts[-1].cpu().double(), expected, rtol=2**-10, atol=1e-6)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("width", WIDTHS)
def test_codes_and_scales_are_those_of_the_definition(device: str, width: int, bits: int) -> None:
    for scale in get_args(Scale) if width in (42, 64) else ("norm",):
        codec = TurboQuant(width, bits, scale=scale)
        x = torch.randn(BATCH, GROUPS, 21, width, device=device) * 3
        check(codec, x, encode(x, codec.to(device)))


@pytest.mark.parametrize("bits", BITS)
def test_without_a_rotation_every_byte_is_the_codecs_own(device: str, bits: int) -> None:
    # Nothing is rounded before codes are chosen; what fills up a plane's last byte is 0.
    codec = TurboQuant(36, bits, rotation="none")
    x = torch.randn(BATCH, GROUPS, 21, 36)
    found = encode(x.to(device), codec.to(device))
    assert [part.dtype for part in found] == [dtype for _, dtype in codec.layout]
    for part, expected in zip(found[:-1], codec.encode(x)[:-1], strict=True):
        assert torch.equal(part.cpu(), expected)


@pytest.mark.parametrize("bits", BITS)
def test_nothing_is_written_behind_a_result(
    device: str, monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    behind: list[Tensor] = []
    new_empty, guard = Tensor.new_empty, 64

    def guarded(self: Tensor, *shape: int, **how: Any) -> Tensor:
        if "device" in how:  # the interpreter's own
            return new_empty(self, *shape, **how)
        count = math.prod(shape)
        room = new_empty(self, count + guard, **how).fill_(7)
        behind.append(room[count:])
        return room[:count].view(shape)

    monkeypatch.setattr(Tensor, "new_empty", guarded)
    codec = TurboQuant(36, bits).to(device)
    parts = encode(torch.randn(1, GROUPS, 21, 36, device=device), codec)
    packed = Packed.of(codec, parts)
    attend_packed(torch.randn(1, GROUPS, 3, 36, device=device), packed, packed, None, 21)
    assert len(behind) == len(parts) + 2
    assert all(tail.eq(7).all() for tail in behind)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_bias_is_subtracted_and_views_are_read_where_they_lie(
    device: str, dtype: torch.dtype
) -> None:
    codec = TurboQuant(32, 3, scale="unbiased")
    x = torch.randn(2, BATCH, 6, GROUPS, 32, device=device).transpose(2, 3).to(dtype)
    bias = torch.randn(2, 1, GROUPS, 1, 32, device=device).to(dtype)
    parts = encode(x, codec.to(device), bias)
    assert [part.shape[:-1] for part in parts] == [(2, BATCH, GROUPS, 6)] * 3
    check(codec, x.float() - bias.float(), parts)
    assert all(part.numel() == 0 for part in encode(x[..., :0, :], codec.to(device)))


@pytest.mark.parametrize("scale", get_args(Scale))
def test_zeros_decode_to_zeros_and_what_is_not_finite_to_what_is_not(
    device: str, scale: Scale
) -> None:
    codec = TurboQuant(32, 3, scale=scale).to(device)
    x = torch.randn(4, 32, device=device)
    x[0] = 0
    x[1, 3] = torch.nan
    x[2] = 1e6  # beyond float16
    scales = encode(x, codec)[-1].cpu()
    assert scales[0] == 0
    assert scales[1].isnan()
    assert scales[2] == torch.inf
    assert scales[3].isfinite()
