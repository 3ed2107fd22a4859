"""What is timed elsewhere: how much work the timed call of each benchmark does, by its parameters.

The history's benchmarks are run as asv runs them, and the micro suite's as pytest does, with small
models and a clock that runs by the work. One that measures something else shows, in no time.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.exact_cases.begins import begins
from benchmarks.exact_cases.case import Case
from benchmarks.exact_cases.stand_ins import PROBES, in_miniature
from benchmarks.gate_suite import EXACT_BUT_LONG, NOT_COMPARED
from benchmarks.suite.workloads import SIZE, of_this_commit

MICRO = Path(__file__).resolve().parents[1] / "micro"
MOST_BYTES = 4 * 2**20  # that a call of the micro suite moves and is made
HEAD = "lm_head"  # of GPT-2's width: 39 M weights take a second to round
LEFT_OUT = (
    "bench_cache.DeviceMemory.track_nvml_memory",  # asks a device
    "bench_lora.Exponents.track_deviation_from_law",  # draws its own matrices, for a second
    "bench_files.Loading.track_peak_over_weights",  # writes a whole model, for a second
)


def _ways() -> tuple[str, ...]:
    """Each timed benchmark with each choice of its parameters, as asv writes it."""
    found = []
    for name in NOT_COMPARED:
        module, kind, _ = name.split(".")
        if name in EXACT_BUT_LONG or name in LEFT_OUT:
            continue
        params = getattr(import_module(f"benchmarks.suite.{module}"), kind).params
        found += [f"{name}({', '.join(map(str, way))})" for way in itertools.product(*params)]
    return tuple(found)


WAYS = _ways()


@cache
@of_this_commit()
def _measured(way: str) -> Any:
    """`Cost` of a timed call, or the number that is tracked."""
    from benchmarks.gate_worker import by_name
    from reference_model.config import PRESETS

    name = way.partition("(")[0]
    at = [each for each in WAYS if each.partition("(")[0] == name].index(way)
    asked = dict.fromkeys(("suite.workloads.MODEL", "suite.lora_workloads.MODEL"))  # none
    lengths = {"suite.workloads.PROMPT_TOKENS": 16, "suite.workloads.NEW_TOKENS": 4}
    sizes = {**PROBES, **asked, **lengths}
    small = dict.fromkeys((SIZE.model, SIZE.small_model), PRESETS["toy"])
    with in_miniature(sizes), patch.dict(PRESETS, small):
        found = by_name(name)
        found.set_param_idx(at)
        return _value(found)


def begins_of(way: str) -> list[str]:
    """Where the code of a timed benchmark begins."""
    module, kind, _ = way.partition("(")[0].split(".")
    return [way, *begins([_measured, work_of, bytes_of]), f"benchmarks.suite.{module}:{kind}"]


def _value(found: Any) -> object:
    found.set_cache(found.do_setup_cache())
    for setup in found._setups:
        setup(*found._build_params())
    call = partial(found.func, *found._build_params())
    return _cost(call) if found.type == "time" else call()


def _cost(call: Callable[[], object]) -> Cost:
    from benchmarks.instruments.counting import count

    counted = count(call)
    return Cost(counted.flops, counted.bytes_in + counted.bytes_out)


@dataclass(frozen=True)
class Cost:
    """Of a call."""

    flops: int
    nbytes: int


def work_of(way: str) -> float:
    """FLOPs of a timed call, or the number that is tracked."""
    found = _measured(way)
    return float(found.flops if isinstance(found, Cost) else found)


def bytes_of(way: str) -> int:
    """That the operators of a timed call read and write; 0 for what is tracked."""
    found = _measured(way)
    return found.nbytes if isinstance(found, Cost) else 0


class _TooLarge(Exception):
    """A call that would take too long to be counted, or to be compared with float64."""


class _Benchmark:
    """What the micro suite's tests ask pytest-benchmark for: each is called once, and counted."""

    def __init__(self) -> None:
        self.extra_info: dict[str, object] = {}
        self.stats = None
        self.costs: list[Cost] = []

    def __call__(self, function: Callable[..., Any], *given: Any, **named: Any) -> Any:
        found: list[Any] = []
        self.costs.append(_cost(lambda: found.append(function(*given, **named))))
        return found[0]

    def pedantic(
        self, function: Callable[..., Any], setup: Callable[[], object] | None = None, **named: Any
    ) -> Any:
        if setup is not None:
            setup()
        return self(function)


def _timed_by(benchmark: _Benchmark) -> Callable[..., Any]:
    """The micro suite's own fixture, with nothing that is timed."""

    def run(
        function: Callable[[], Any],
        *,
        nbytes: int,
        flops: int = 0,
        setup: Callable[[], object] | None = None,
        **labels: object,
    ) -> Any:
        benchmark.extra_info.update(bytes=nbytes, flops=flops, **labels)
        if nbytes > MOST_BYTES:
            raise _TooLarge
        return benchmark.pedantic(function, setup) if setup else benchmark(function)

    return run


def _micro(name: str) -> object:
    """Parameters of each benchmark of a file → what it says of its call, and the call's FLOPs."""
    import torch

    found: dict[str, object] = {}
    for test, function in vars(import_module(f"benchmarks.micro.{name}")).items():
        if not test.startswith("test_"):
            continue
        marks = [m.args for m in getattr(function, "pytestmark", ()) if m.name == "parametrize"]
        for rows in itertools.product(*(values for _, values in marks)):
            given: dict[str, Any] = {}
            for (names, _), row in zip(marks, rows, strict=True):
                given |= (
                    {names: row} if isinstance(names, str) else dict(zip(names, row, strict=True))
                )
            if HEAD in given.values():
                continue
            benchmark = _Benchmark()
            fixtures = {
                "benchmark": benchmark,
                "timed": _timed_by(benchmark),
                "copies": lambda weight: [weight],
                "enough": lambda outputs: outputs,
                "put": lambda drawn: drawn,  # in float32, on the CPU
                "device": "cpu",
            }
            asked = inspect.signature(function).parameters
            torch.manual_seed(0)
            with torch.inference_mode(), suppress(_TooLarge):
                function(**given, **{k: v for k, v in fixtures.items() if k in asked})
            flops = [cost.flops for cost in benchmark.costs]
            found[f"{test} {given}"] = [benchmark.extra_info, flops]
    return found


CASES = tuple(
    Case(
        f"micro suite, {path.stem.removeprefix('test_')}",
        "as there",
        "as there",
        "a benchmark that times something else, or misstates it",
        partial(_micro, path.stem),
        partial(tuple, [f"benchmarks.micro.{path.stem}:*"]),
    )
    for path in sorted(MICRO.glob("test_*.py"))
)
