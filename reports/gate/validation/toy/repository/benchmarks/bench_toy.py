"""The toy's functions, timed and counted."""

from __future__ import annotations


def arguments_of(name):
    """Of a function of the toy: a few milliseconds of work that stays in a core's caches."""
    import random

    import torch

    rng, generator = random.Random(0), torch.Generator().manual_seed(0)

    def whole():
        """Whole numbers, whose sums no order changes."""
        return torch.randint(-32, 33, (192, 192), generator=generator).float()

    make = {
        "added": lambda: (1200 * [[rng.randrange(1000) for _ in range(500)]],),
        "checked": lambda: (rng.randbytes(100_000), 120),
        "ordered": lambda: ([rng.randrange(1_000_000) for _ in range(25_000)],),
        "allocated": lambda: (9000, 16_000),
        "multiplied": lambda: (whole(), whole(), 16),
    }
    return make[name]()


def call_of(name):
    """It on one thread, as it is called."""
    import torch

    import reference_model

    torch.set_num_threads(1)
    function, given = getattr(reference_model, name), arguments_of(name)
    return lambda: function(*given)


NAMES = (
    "added",
    "checked",
    "ordered",
    "allocated",
    "multiplied",
)


class Step:
    params = (NAMES,)

    def setup(self, name):
        self.call = call_of(name)

    def time_step(self, name):
        self.call()


class Result:
    params = (NAMES,)

    def setup(self, name):
        import torch

        self.values = torch.as_tensor(call_of(name)(), dtype=torch.float64).flatten()

    def track_result(self, name):
        """One number that moves where a value or the order of values does."""
        import torch

        places = torch.arange(len(self.values), dtype=torch.float64) % 1021 + 1
        return float(self.values @ places)


class Memory:
    params = (("allocated",),)

    def setup(self, name):
        self.bytes = call_of(name)()

    def track_bytes(self, name):
        return self.bytes


class Work:
    params = (("ordered",),)

    def setup(self, name):
        import random

        from reference_model import ordered

        rng, self.comparisons = random.Random(0), 0
        ordered([Counted(rng.random(), self) for _ in range(1000)])

    def track_comparisons(self, name):
        return self.comparisons


class Counted:
    """A value that tells a ``counter`` of each comparison."""

    def __init__(self, value, counter):
        self.value, self.counter = value, counter

    def __lt__(self, other):
        self.counter.comparisons += 1
        return self.value < other.value
