"""Attention over TurboQuant's packed codes on CUDA, and the packing, each fused in Triton.

No key is unpacked into memory: a query is turned into the codec's basis once, every program reads a
stretch of codes and keeps a running softmax, and the weighted sum of values is turned back once.
Triton is imported at the first call, so that a machine without a GPU needs none.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_model.quantization.codec import Codec, Parts
from reference_model.quantization.turboquant import TurboQuant

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
WIDTHS = range(32, 257)
CAPABILITY = (8, 0)  # of a GPU; the tests compile for this one


@dataclass(frozen=True)
class Packed:
    """Keys or values as a codec holds them; B and G may have any strides."""

    planes: tuple[Tensor, ...]  # (B, G, capacity, bytes) uint8 each; two of them at 3 bits
    scales: Tensor  # (B, G, capacity, 1) float16
    levels: Tensor  # (2^bits,) float32, by code
    rotation: Tensor  # (D, D) float32, y = x Rᵀ

    @classmethod
    def of(cls, codec: Codec, parts: Parts) -> Packed:
        """Views of TurboQuant's parts (B, G, capacity, …) and of its tables."""
        assert isinstance(codec, TurboQuant)
        *planes, scales = parts
        levels = codec.look_up.table[: 2**codec.bits, 0]  # of the first code of a word
        return cls(tuple(planes), scales, levels, codec.rotation)

    @property
    def bits(self) -> int:
        return (len(self.levels) - 1).bit_length()

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As kernels take them: two planes, which are the same one but at 3 bits."""
        return self.planes[0], self.planes[-1], self.scales, self.levels


def supports(x: Tensor, *codecs: Codec) -> bool:
    """Whether queries such as x can attend to what these codecs hold, and x can be encoded."""
    return (
        x.is_cuda
        and torch.version.cuda is not None
        and torch.cuda.get_device_capability(x.device) >= CAPABILITY
        and x.dtype in DTYPES
        and x.shape[-1] in WIDTHS
        and not (torch.is_grad_enabled() and x.requires_grad)  # there is no backward pass
        and all(type(codec) is TurboQuant for codec in codecs)
        and _has_triton()
    )


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def attend_packed(
    q: Tensor,
    keys: Packed,
    values: Packed,
    exact: tuple[Tensor, Tensor] | None,
    count: int,
    mask: Tensor | None = None,
    scale: float | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """q (B, H, T, D) over ``count`` packed tokens and the exact ones behind them → (B, H, T, D).

    ``exact``: keys and values (B, G, E, D) each, in the model's own basis. mask, over count + E
    tokens in this order, and no mask as in `attention.attend`. Without a scale it is 1/√D. ``bias``
    (…, G, 1, D) is added to the sums of values. A query that may see nothing gets zeros beside it.
    """
    from reference_model.kernels import triton_kernels as kernels

    (batch, heads, length, width), groups = q.shape, keys.scales.shape[1]
    q, sharing = _dense(q), heads // groups
    k, v = map(_dense, exact or (keys.scales, keys.scales))  # in whose place nothing is read
    columns = count + (k.shape[-2] if exact else 0)
    kind, seen = "none" if length == 1 else "causal", q.expand(batch, heads, length, width)
    if mask is not None:
        kind = "boolean" if mask.dtype == torch.bool else "added"
        seen = mask.expand(batch, heads, length, columns)
    added = q if bias is None else _dense(bias.expand(batch, groups, 1, width))

    block, rows = _power_of_2(width), _power_of_2(sharing * length)
    rows = min(rows, 4096 // block, 64)  # what registers hold, by ptxas's account, and no more
    few = rows < 16
    tokens, warps = 4096 // block if few else min(4096 // block, 32), 4 if few else 8
    programs = batch * groups * -(-sharing * length // rows)
    span = _span(programs, columns, tokens, block, q.device)
    packed, all_parts = -(-count // span), -(-count // span) + -(-(columns - count) // span)
    turned = (q.float() @ keys.rotation.T).contiguous()
    of_packed, of_exact = torch.empty_like(turned), torch.empty_like(turned)
    sums = turned.new_empty(batch * heads * length, all_parts, width)
    stats = turned.new_empty(batch * heads * length, all_parts, 2)
    with torch.cuda.device_of(q):
        kernels.attend[programs, all_parts](
            q, q.stride(), turned, keys.tensors, _strides(keys.tensors),
            values.tensors, _strides(values.tensors), (k, v), _strides((k, v)),
            seen, seen.stride(), sums, stats, groups, sharing, length, count, columns, span,
            1 / math.sqrt(width) if scale is None else scale, kind, keys.bits, values.bits,
            width, block, rows, tokens, num_warps=warps, num_stages=2,
        )  # fmt: skip
        kernels.combine[batch * heads * length,](
            sums, stats, added, added.stride(), of_packed, of_exact, groups, sharing, length,
            packed, all_parts, bias is not None, width, block, _power_of_2(all_parts),
        )  # fmt: skip
    y = torch.addmm(of_exact.view(-1, width), of_packed.view(-1, width), values.rotation)
    return y.view(q.shape).to(q.dtype)


def encode(x: Tensor, codec: Codec, bias: Tensor | None = None) -> Parts:
    """As TurboQuant's `encode` of x − bias: x (…, T, D) of at most 5 dimensions → parts."""
    assert isinstance(codec, TurboQuant)
    from reference_model.kernels import triton_kernels as kernels

    width, block = codec.width, _power_of_2(codec.width)
    parts = tuple(x.new_empty(*x.shape[:-1], n, dtype=dtype) for n, dtype in codec.layout)
    rows, of_rows = x.numel() // width, 2048 // block
    if not rows:
        return parts
    x = _dense(x[(None,) * (5 - x.ndim)])
    less = x if bias is None else _dense(bias.expand(x.shape))
    levels = Packed.of(codec, parts).levels
    with torch.cuda.device_of(x):
        kernels.encode[-(-rows // of_rows),](
            x, x.stride(), less, less.stride(), x.shape[:4], codec.rotation.contiguous(),
            levels, levels.stride(0), *parts[:1], *parts[-2:], rows, codec.edges, codec.scale,
            bias is not None, codec.bits, width, block, of_rows, 16,
        )  # fmt: skip
    return parts


def _dense(x: Tensor) -> Tensor:
    """Its last dimension lies side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _strides(tensors: tuple[Tensor, ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(each.stride() for each in tensors)


def _power_of_2(number: int) -> int:
    """The least that is not below it."""
    return 1 << (number - 1).bit_length()


def _span(programs: int, columns: int, tokens: int, block: int, device: torch.device) -> int:
    """Tokens of one program: so few that all multiprocessors are busy, and `combine` has room."""
    stretches = min(-(-4 * _multiprocessors(device) // programs), 16_384 // block)
    return tokens * -(-columns // (stretches * tokens))


def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
