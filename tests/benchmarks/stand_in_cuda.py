"""CUDA that is not there: kernels that run on after their call returned."""

from __future__ import annotations

from collections.abc import Callable


class Cuda:
    """A device of one stream: a kernel takes its seconds when its turn comes, not when called."""

    def __init__(self) -> None:
        self.host, self.stream, self.waits = 0.0, 0.0, 0

    def launch(self, seconds: float) -> Callable[[], None]:
        def function() -> None:
            self.host += 0.001  # what the call itself takes
            self.stream = max(self.host, self.stream) + seconds

        return function

    def is_initialized(self) -> bool:
        return True

    def synchronize(self) -> None:
        self.waits += 1
        self.host = max(self.host, self.stream)

    def Event(self, enable_timing: bool) -> Event:
        assert enable_timing
        return Event(self)


class Event:
    def __init__(self, cuda: Cuda) -> None:
        self.cuda, self.reached = cuda, -1.0

    def record(self) -> None:
        self.cuda.stream = max(self.cuda.host, self.cuda.stream)
        self.reached = self.cuda.stream

    def synchronize(self) -> None:
        self.cuda.waits += 1
        self.cuda.host = max(self.cuda.host, self.reached)

    def elapsed_time(self, later: Event) -> float:
        assert self.cuda.host >= later.reached, "the event has not happened yet"
        return 1e3 * (later.reached - self.reached)  # milliseconds, as CUDA's
