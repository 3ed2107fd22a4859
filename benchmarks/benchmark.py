"""What every class of `bench_*.py` is: one whose tracked numbers are numbers.

asv stores NaN for what was skipped, so that a commit whose model answers NaN would look like one
that lacks the model. An exception it stores as a failure, and goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from inspect import unwrap
from typing import Any


class Benchmark:
    """Each ``track_`` method of a subclass raises ValueError on a value that is not finite."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in dir(cls):  # those of its bases as well, under its own name
            if name.startswith("track_"):
                setattr(cls, name, _finite(cls, unwrap(getattr(cls, name))))


def _finite(owner: type, track: Callable[..., Any]) -> Callable[..., Any]:
    name = f"{owner.__module__.rpartition('.')[2]}.{owner.__qualname__}.{track.__name__}"

    @wraps(track)
    def tracked(self: Any, *given: Any) -> Any:
        value = track(self, *given)
        if not math.isfinite(value):
            parameters = ", ".join(map(str, given[-len(self.param_names) :]))
            raise ValueError(f"{name}({parameters}) gives {value}, which is not a measurement")
        return value

    return tracked
