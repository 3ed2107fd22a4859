"""What the machine could do: read bandwidth and matrix FLOP/s, and hence the least seconds a step
of the model can take.

A limit drifts with the background load of a shared machine, so that a share of it is only true
against one that was measured in the same run: ``durations_beside`` lets the probes take turns with
what you measure. The least seconds count what has to be done: each weight read once, each key and
value read once, and the useful FLOPs alone, those that causality leaves of attention.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, cast

import torch
import torch.nn.functional as F

from benchmarks.instruments.clock import durations, interleaved_durations
from benchmarks.instruments.readings import Unavailable
from benchmarks.subjects.built import Model, ModelConfig
from reference_model.costs import forward_flops, kv_cache_bytes, read_weight_bytes
from reference_model.linear import linear

if TYPE_CHECKING:
    from reference_model import devices

    Dtype = Literal[devices.Dtype, "int8"]

READ = "read"  # name of the probe of the bandwidth; those of matrix products are named by dtype

# Far above the last-level cache, and on a GPU long enough for the launch not to count.
READ_BYTES = {"cpu": 512 * 2**20, "cuda": 4 * 2**30}
MATRIX_SIDE = {"cpu": 1024, "cuda": 8192}
TRIALS = 3


@dataclass(frozen=True)
class Probe:
    """Something to time: one call reads ``nbytes`` and does ``flops``."""

    name: str
    function: Callable[[], object]
    nbytes: int
    flops: int


def dtypes() -> tuple[Dtype, ...]:
    """All whose products a machine is probed for."""
    from reference_model.devices import DTYPES  # an old commit's model, under asv, has none

    return (*DTYPES, "int8")


def read_probe(device: str = "cpu", nbytes: int | None = None) -> Probe:
    """A sum over ``nbytes`` (default: ``READ_BYTES``), rounded down to whole float32 values.

    Of PyTorch's operators that read everything and write next to nothing none reads faster.
    """
    values = (READ_BYTES[_kind(device)] if nbytes is None else nbytes) // 4
    # Ones are written down. Zeros need not be: until someone writes, all their pages can be the
    # same one, which is read from the processor's cache.
    buffer = torch.ones(values, device=device)
    return Probe(READ, buffer.sum, buffer.nbytes, values)


def matrix_probe(dtype: Dtype, device: str = "cpu") -> Probe | Unavailable:
    """A product of two square matrices by the operator that is fastest in a short trial.

    A dtype that the machine only emulates is as slow as that is; one that it refuses to multiply
    is unavailable, with the dtype as source and PyTorch's words as reason. An int8 product adds up
    in int32.
    """
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise ValueError(f"dtype {dtype!r} is unknown; use one of {', '.join(dtypes())}")
    n = MATRIX_SIDE[_kind(device)]
    if dtype == "int8":
        x, weight = torch.randint(-127, 128, (2, n, n), dtype=torch.int8, device=device)
        products: list[Callable[[], object]] = [lambda: torch._int_mm(x, weight.t())]
    else:
        x, weight = torch.randn(2, n, n, device=device).to(kind)
        # The model's own operator is among them: no limit may lie below what the model reaches.
        products = [partial(F.linear, x, weight), partial(_inferred, x, weight)]
    try:
        fastest = min(products, key=lambda product: min(durations(product, TRIALS)))
    except RuntimeError as error:
        return Unavailable(str(error).splitlines()[0], source=dtype)
    return Probe(dtype, fastest, x.nbytes + weight.nbytes, 2 * n**3)


def probes_for(device: str, *dtypes: Dtype) -> list[Probe]:
    """Of reading and of products in ``dtypes``; RuntimeError where the machine refuses one."""
    found: list[Probe] = [read_probe(device)]
    for dtype in dtypes:
        probe = matrix_probe(dtype, device)
        if isinstance(probe, Unavailable):
            raise RuntimeError(f"no {dtype} product to measure a limit with: {probe.reason}")
        found.append(probe)
    return found


@torch.inference_mode()
def _inferred(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The model's product as it is without gradients."""
    return linear(x, weight)


def _kind(device: str) -> str:
    return torch.device(device).type


@dataclass(frozen=True)
class MachineLimit:
    """What the machine reached, computing on ``threads`` threads (on a GPU: the host's)."""

    read_bytes_per_second: float
    flops_per_second: dict[str, float]  # by dtype
    absent: dict[str, str]  # dtype -> why it could not be measured
    threads: int

    def arithmetic(self, dtype: str) -> float:
        """FLOP/s of a dtype; ValueError, with the reason, where it was not measured."""
        if dtype not in self.flops_per_second:
            reason = self.absent.get(dtype, "its probe was not among those that ran")
            raise ValueError(f"no limit of {dtype} products: {reason}")
        return self.flops_per_second[dtype]

    def balance(self, dtype: str) -> float:
        """FLOPs per byte at which computing takes as long as reading."""
        return self.arithmetic(dtype) / self.read_bytes_per_second

    def roof(self, intensity: float, dtype: str) -> float:
        """The most FLOP/s that work of ``intensity`` FLOPs per byte can reach."""
        return min(self.arithmetic(dtype), intensity * self.read_bytes_per_second)


def machine_limit(device: str = "cpu", rounds: int = 5) -> MachineLimit:
    """All limits of a device, its probes in turns, in about two seconds."""
    probes = [read_probe(device), *(matrix_probe(dtype, device) for dtype in dtypes())]
    measured = [probe for probe in probes if isinstance(probe, Probe)]
    return limit_from(
        probes,
        interleaved_durations({probe.name: probe.function for probe in measured}, rounds),
    )


def limit_from(
    probes: Sequence[Probe | Unavailable], seconds: Mapping[str, Sequence[float]]
) -> MachineLimit:
    """The limits that samples of the probes' seconds, by name, say; the median counts.

    ``seconds`` may hold more, such as the arms that the probes took turns with.
    """
    rates, absent = {}, {}
    read = 0.0
    for probe in probes:
        if isinstance(probe, Unavailable):
            absent[probe.source] = probe.reason
        elif probe.name == READ:
            read = probe.nbytes / statistics.median(seconds[READ])
        else:
            rates[probe.name] = probe.flops / statistics.median(seconds[probe.name])
    if not read:
        raise ValueError("no probe reads: a limit needs the bandwidth, from read_probe()")
    return MachineLimit(read, rates, absent, torch.get_num_threads())


def durations_beside(
    probes: Sequence[Probe], arms: Mapping[str, Callable[[], object]], rounds: int
) -> tuple[MachineLimit, dict[str, list[float]]]:
    """The seconds of arms that take turns, and the limit, which is probed before each of them.

    One probe in a round would not do: a load's burst that hits it is gone before the rest.
    """
    turns: dict[str, Callable[[], object]] = {}
    for name, function in arms.items():
        turns |= {f"{probe.name} before {name}": probe.function for probe in probes}
        turns[name] = function
    seconds = interleaved_durations(turns, rounds)
    probed = {
        probe.name: [s for name in arms for s in seconds[f"{probe.name} before {name}"]]
        for probe in probes
    }
    return limit_from(probes, probed), {name: seconds[name] for name in arms}


@dataclass(frozen=True)
class Bound:
    """The least seconds of a step on a machine: it can read and compute at the same time."""

    nbytes: int  # that have to be read
    flops: int  # that are useful
    seconds_reading: float
    seconds_computing: float

    @property
    def seconds(self) -> float:
        return max(self.seconds_reading, self.seconds_computing)

    @property
    def intensity(self) -> float:
        """Useful FLOPs per byte that has to be read."""
        return self.flops / self.nbytes

    def share(self, measured_seconds: float) -> float:
        """Share of the limit that ``measured_seconds`` reach: 1 is as fast as can be."""
        return self.seconds / measured_seconds


def decode_bound(
    config: ModelConfig,
    past: int,
    limit: MachineLimit,
    dtype: Dtype = "float32",
    batch_size: int = 1,
) -> Bound:
    """One token for each of ``batch_size`` sequences that hold ``past`` tokens each.

    Weights are read once for the whole batch, keys and values of each sequence; all in ``dtype``.
    """
    width = bytes_per_value(dtype)
    nbytes = read_weight_bytes(config, width) + kv_cache_bytes(config, past, batch_size, width)
    flops = forward_flops(config, 1, past, last_only=True, attention="useful").total
    return _bound(nbytes, flops * batch_size, limit, dtype)


def prefill_bound(
    config: ModelConfig,
    new_tokens: int,
    limit: MachineLimit,
    dtype: Dtype = "float32",
    batch_size: int = 1,
) -> Bound:
    """A prompt of ``new_tokens`` for each sequence, and the scores of its last position alone.

    The weights are all that has to be read: keys and values come from this very step.
    """
    flops = forward_flops(config, new_tokens, last_only=True, attention="useful").total
    nbytes = read_weight_bytes(config, bytes_per_value(dtype))
    return _bound(nbytes, flops * batch_size, limit, dtype)


def dtype_of(model: Model) -> Dtype:
    """The dtype of a model's weights, by name."""
    return cast("Dtype", str(model.wte.weight.dtype).removeprefix("torch."))


def bytes_per_value(dtype: Dtype) -> int:
    """4 for float32, 2 for its halves, 1 for int8."""
    kind: torch.dtype = getattr(torch, dtype)
    return kind.itemsize


def _bound(nbytes: int, flops: int, limit: MachineLimit, dtype: Dtype) -> Bound:
    reading = nbytes / limit.read_bytes_per_second
    return Bound(nbytes, flops, reading, flops / limit.arithmetic(dtype))
