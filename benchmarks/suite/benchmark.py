"""What every class of `bench_*.py` is: one with a lasting name, whose tracked numbers are numbers.

asv takes this folder for the suite, and the gate takes benchmarks/: a benchmark is called after its
file by both. asv stores NaN for what was skipped, so that a commit whose model answers NaN
would look like one that lacks the model. An exception it stores as a failure, and goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import update_wrapper, wraps
from inspect import unwrap
from types import FunctionType
from typing import Any


class Benchmark:
    """Each ``track_`` method of a subclass raises ValueError on a value that is not finite."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in dir(cls):  # those of its bases as well, under its own name
            if not name.startswith(("track_", "time_")):
                continue
            lasting = f"{cls.__module__.rpartition('.')[2]}.{cls.__qualname__}.{name}"
            function = unwrap(getattr(cls, name))
            timed = name.startswith("time_")  # by asv, which should time nothing of ours
            own = _copy(function) if timed else _finite(lasting, function)
            vars(own)["benchmark_name"] = lasting
            setattr(cls, name, own)


def _copy(function: Any) -> Any:
    code, names, default = function.__code__, function.__globals__, function.__defaults__
    return update_wrapper(FunctionType(code, names, None, default, function.__closure__), function)


def _finite(name: str, track: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(track)
    def tracked(self: Any, *given: Any) -> Any:
        value = track(self, *given)
        if not math.isfinite(value):
            parameters = ", ".join(map(str, given[-len(self.param_names) :]))
            raise ValueError(f"{name}({parameters}) gives {value}, which is not a measurement")
        return value

    return tracked
