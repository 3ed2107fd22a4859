"""What is done, counted rather than timed: parameters, FLOPs, operators, bytes, kernel launches.

Counts are exact and the same on every machine that chooses the same operators, so that they stand
beside each time, and their equality with the closed forms of `costs` is a test.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.instruments.flops import flops, tensors
from benchmarks.instruments.readings import Reading, Unavailable
from benchmarks.subjects.built import Model, ModelConfig

aten = torch.ops.aten


@dataclass(frozen=True)
class Counts:
    """What one call did. FLOPs are those of matrix products, a multiplication and an addition two.

    ``bytes_in`` and ``bytes_out`` are what the operators were given and what they wrote, each
    operator by itself: an upper bound on memory traffic, since caches are left out of account.
    Views move nothing; a table that is looked up counts the rows that were asked for.
    """

    by_operator: dict[str, int]  # calls of each operator, views included
    flops_by_operator: dict[str, int]
    bytes_in: int
    bytes_out: int

    @property
    def operators(self) -> int:
        """Calls of all operators: what the cost of dispatch is proportional to."""
        return sum(self.by_operator.values())

    @property
    def flops(self) -> int:
        """All that was executed, by the rules of `flops`."""
        return sum(self.flops_by_operator.values())

    @property
    def attention_flops(self) -> int:
        """The part of the fused operators that do softmax attention and nothing else."""
        of = {n: c for n, c in self.flops_by_operator.items() if "attention" in n}
        return sum(count for name, count in of.items() if "multi_head" not in name)


def count(function: Callable[[], object]) -> Counts:
    """Count one call of ``function``.

    Raises ValueError where an operator may multiply matrices and its FLOPs are not known: PyTorch's
    own counter says 0 of those.
    """
    with _Recorder() as recorder:
        function()
    return Counts(dict(recorder.calls), dict(recorder.flops), recorder.bytes_in, recorder.bytes_out)


def counted_parameters(config: ModelConfig) -> int:
    """Parameters of the model as built, a shared matrix counted once."""
    with torch.device("meta"):  # shapes without memory
        return sum(p.numel() for p in Model(config).parameters())


def kernel_launches(function: Callable[[], object]) -> Reading | Unavailable:
    """Kernels that one call launches on the GPU; copies and fills are not kernels."""
    source = "torch profiler"
    if not torch.cuda.is_available():
        return Unavailable("torch finds no usable CUDA device, and a CPU launches nothing", source)
    from torch.profiler import ProfilerActivity, profile

    function()  # what happens at the first call alone is not counted
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        function()
        torch.cuda.synchronize()
    on_device = [e for e in recorded.events() if e.device_type.name == "CUDA"]
    kernels = [e for e in on_device if not e.name.startswith(("Memcpy", "Memset"))]
    return Reading(len(kernels), "launches", source)


# ---- bytes


def _nbytes(tensor: Tensor) -> int:
    """Bytes that lie behind a tensor: what is repeated by a stride of 0 lies there once."""
    sizes = (n for n, s in zip(tensor.shape, tensor.stride(), strict=True) if s != 0)
    return math.prod(sizes) * tensor.element_size()


LOOKED_UP = (aten.embedding, aten.index_select, aten.index)
# The last is a view that is not declared as one.
MOVES_NOTHING = (
    aten.empty,
    aten.empty_like,
    aten.empty_strided,
    aten.new_empty,
    aten._unsafe_view,
)
FIRST_IS_ONLY_WRITTEN = (aten.copy_, aten.fill_, aten.zero_)


def _moved(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> tuple[int, int]:
    """Bytes in and out of one operator."""
    returned = [r.alias_info for r in func._schema.returns]
    if any(alias is not None and not alias.is_write for alias in returned):
        return 0, 0  # a view
    packet = func.overloadpacket
    if packet in MOVES_NOTHING:
        return 0, 0
    written = sum(_nbytes(tensor) for tensor in tensors(out))
    if not returned and args:  # what returns nothing has written its first argument
        written = sum(_nbytes(tensor) for tensor in tensors(args[0]))
    if packet in LOOKED_UP:
        return written + sum(_nbytes(t) for t in tensors((args[1:], kwargs))), written
    given = args[1:] if packet in FIRST_IS_ONLY_WRITTEN else args
    return sum(_nbytes(tensor) for tensor in tensors((given, kwargs))), written


class _Recorder(TorchDispatchMode):
    """Sees every operator just before its kernel."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing that is counted is compiled; PyTorch would import its compiler, for seconds."""
        return False

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.flops: Counter[str] = Counter()
        self.bytes_in = self.bytes_out = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        # In inference mode composite operators arrive whole: count what they are made of, so that
        # the counts do not depend on the mode.
        with self:
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        out = func(*args, **kwargs)
        name = func.name()
        self.calls[name] += 1
        if found := flops(func, args, kwargs, out):
            self.flops[name] += found
        read, written = _moved(func, args, kwargs, out)
        self.bytes_in += read
        self.bytes_out += written
        return out
