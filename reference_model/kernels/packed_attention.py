"""Attention over packed keys and values, and their encoding, by the C++ beside this file.

The plain way is `QuantizedKVCache`'s own and `TurboQuant.quantize`; both give the same to float32's
precision. Taken on a CPU, in float32, where no gradient is asked for and nobody counts operators.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from reference_model.kernels.compiled import library

if TYPE_CHECKING:
    from reference_model.quantization.codec import Parts
    from reference_model.quantization.turboquant import TurboQuant

SOURCE = "packed_attention.cpp"
BITS = (2, 3, 4)
WIDTHS = range(2, 257)
BFLOAT16 = 16  # what `bits` says of vectors that are not packed
SCALES = ("norm", "norm_corrected", "least_squares", "unbiased")  # as the C++ numbers them

_Pointer = ctypes.c_void_p
_Int64 = ctypes.c_int64
_Int32 = ctypes.c_int32


class _Side(ctypes.Structure):
    _fields_ = (
        *((name, _Pointer) for name in ("low", "high", "scales", "levels", "edges")),
        *((name, _Pointer) for name in ("turn", "turn_back", "bias", "fresh")),
        *((name, _Int64) for name in ("fresh_b", "fresh_g", "fresh_t")),
        *((name, _Pointer) for name in ("first", "last")),
        *((name, _Int32) for name in ("bits", "scale")),
    )


class _Job(ctypes.Structure):
    _fields_ = (
        ("keys", _Side),
        ("values", _Side),
        ("queries", _Pointer),
        *((name, _Int64) for name in ("query_b", "query_h", "query_t")),
        *((name, _Pointer) for name in ("out", "out_bias", "mask")),
        *((name, _Int64) for name in ("mask_h", "capacity", "start")),
        *((name, _Int64) for name in ("sinks", "waiting", "window")),
        *((name, _Int32) for name in "BGHTD"),
        ("threads", _Int32),
        ("parallel", _Pointer),
    )


@dataclass(frozen=True)
class Held:
    """Keys, or values, of one layer: G heads each of a batch of B, D wide.

    ``parts`` (B, G, capacity, ·) as the codec lays them out, or one tensor in bfloat16 without one;
    ``first`` and ``last`` (B, G, ·, D) float32, sinks and newest tokens that are read exactly;
    ``bias`` (G, D) is taken off what is encoded. All contiguous.
    """

    codec: TurboQuant | None
    parts: Parts
    first: Tensor | None = None
    last: Tensor | None = None
    bias: Tensor | None = None


def can_encode(codec: TurboQuant, x: Tensor) -> bool:
    """Whether these vectors may be packed here."""
    return codec.bits in BITS and codec.width in WIDTHS and _is_open(x)


def can_attend(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether attention of these queries, keys and values may be computed here."""
    wide = all(x.dtype == torch.float32 for x in (q, k, v))
    return wide and q.shape[-1] in WIDTHS and _is_open(q, k, v)


def _is_open(*tensors: Tensor) -> bool:
    """On a CPU, without gradients, where no mode counts operators or traces: it would see none."""
    return (
        all(x.device.type == "cpu" for x in tensors)
        and not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors))
        and not torch.compiler.is_compiling()
        and _get_current_dispatch_mode() is None
        and library(SOURCE) is not None
    )


def encode(codec: TurboQuant, x: Tensor, into: Parts | None = None) -> Parts:
    """x (…, T, D) → parts, as `TurboQuant.encode`; ``into`` has to be contiguous."""
    x = x.float().contiguous()
    count = x.numel() // codec.width
    parts = into or tuple(
        torch.empty(*x.shape[:-1], numbers, dtype=dtype) for numbers, dtype in codec.layout
    )
    job = _Job(B=1, G=1, T=count, D=codec.width, capacity=count, threads=torch.get_num_threads())
    keys = _side(Held(codec, parts), x.view(1, 1, -1, codec.width))
    job.keys = keys.side
    if count:
        _run(job)
    return parts


def attend(
    q: Tensor,
    keys: Held,
    values: Held,
    *,
    start: int,
    capacity: int,
    fresh: tuple[Tensor, Tensor] | None = None,
    window: int = 0,
    mask: Tensor | None = None,
    out_bias: Tensor | None = None,
) -> Tensor:
    """q (B, H, T, D) over tokens of keys and values → (B, H, T, D), `start` the first's position.

    Slot i of ``capacity`` ones of ``parts`` holds the token behind the sinks and i more. ``fresh``
    k, v (B, G, T, D), none of them a sink, are encoded first; without it all is held already, as
    what is in bfloat16 has to be. Query t reads the ``window`` newest tokens up to its own, and the
    sinks, exactly, the others decoded. mask as in `attention.attend`; without one each token sees
    itself and those before it.
    """
    batch, heads, tokens, width = q.shape
    groups = keys.parts[0].shape[1]
    q = q if q.stride(-1) == 1 else q.contiguous()
    out = torch.empty(batch, heads, tokens, width)
    k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in fresh) if fresh else (None, None)
    assert fresh is None or (keys.codec and values.codec)
    sides = _side(keys, k), _side(values, v)
    added, of_head = _added(mask, tokens, start)
    job = _Job(
        keys=sides[0].side,
        values=sides[1].side,
        queries=q.data_ptr(),
        query_b=q.stride(0),
        query_h=q.stride(1),
        query_t=q.stride(2),
        out=out.data_ptr(),
        out_bias=_address(out_bias),
        mask=_address(added),
        mask_h=of_head,
        capacity=capacity,
        start=start,
        sinks=0 if keys.first is None else keys.first.shape[2],
        waiting=0 if keys.last is None else keys.last.shape[2],
        window=window,
        B=batch,
        G=groups,
        H=heads,
        T=tokens,
        D=width,
        threads=torch.get_num_threads(),
    )
    _run(job)
    return out


def _added(mask: Tensor | None, tokens: int, start: int) -> tuple[Tensor | None, int]:
    """A mask as numbers to add, (1 or H, T, S) contiguous, and the stride of its heads."""
    if mask is None:
        return None, 0
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape).masked_fill_(~mask, -torch.inf)
    mask = mask.float().reshape(-1, *mask.shape[-2:])
    mask = mask.expand(-1, tokens, start + tokens).contiguous()
    return mask, mask.stride(0) if len(mask) > 1 else 0


@dataclass(frozen=True)
class _Given:
    side: _Side
    kept: tuple[Tensor | None, ...]  # whose memory the side points into


def _side(held: Held, fresh: Tensor | None) -> _Given:
    codec = held.codec
    if codec is None:
        side = _Side(low=held.parts[0].data_ptr(), bits=BFLOAT16)
        constants: tuple[Tensor, ...] = ()
    else:
        *planes, scales = held.parts
        constants = levels, edges, turn, turn_back = _constants(codec)
        side = _Side(
            low=planes[0].data_ptr(),
            high=planes[-1].data_ptr(),
            scales=scales.data_ptr(),
            levels=levels.data_ptr(),
            edges=edges.data_ptr(),
            turn=turn.data_ptr(),
            turn_back=turn_back.data_ptr(),
            bits=codec.bits,
            scale=SCALES.index(codec.scale),
        )
    side.bias, side.first, side.last = (_address(x) for x in (held.bias, held.first, held.last))
    if fresh is not None:
        side.fresh = fresh.data_ptr()
        side.fresh_b, side.fresh_g, side.fresh_t = fresh.stride()[:3]
    return _Given(side, (*constants, fresh))


_CONSTANTS: WeakKeyDictionary[TurboQuant, tuple[Tensor, ...]] = WeakKeyDictionary()


def _constants(codec: TurboQuant) -> tuple[Tensor, ...]:
    """Levels by code (16,), edges, Rᵀ (D, room) and R (room, room): once a codec.

    ``room`` is the width in whole groups of four registers. The rotated coordinates stand as lanes
    read them, one word of four codes each; what is behind the width is zero.
    """
    if codec not in _CONSTANTS:
        compiled = library(SOURCE)
        assert compiled is not None
        lanes = compiled.packed_lanes()
        behind = -codec.width % (4 * lanes)
        turn_back = F.pad(codec.rotation, (0, behind, 0, behind))
        turn_back = turn_back.unflatten(0, (-1, lanes, 4)).transpose(1, 2).flatten(0, 2)
        _CONSTANTS[codec] = (
            codec.look_up.table[: 2**codec.bits, 0].repeat(2 ** (4 - codec.bits)),
            torch.tensor(codec.edges, dtype=torch.float32),
            turn_back.T[: codec.width].contiguous(),
            turn_back.contiguous(),
        )
    return _CONSTANTS[codec]


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _run(job: _Job) -> None:
    compiled = library(SOURCE)
    assert compiled is not None
    job.parallel = _pool()
    compiled.packed_attention(ctypes.byref(job))


@functools.cache
def _pool() -> int | None:
    """Where OpenMP's runtime shares out work, if PyTorch loaded one that is called GOMP's way."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except (AttributeError, OSError):
        return None
