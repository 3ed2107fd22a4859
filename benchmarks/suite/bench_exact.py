"""Exact numbers of many small cases: results, by fingerprint, and what calls cost and leave."""

from typing import Any

from benchmarks.exact_cases import calls, tables, timed
from benchmarks.exact_cases.begins import begins
from benchmarks.suite.benchmark import Benchmark
from benchmarks.suite.workloads import start

timeout = 180


class _Fingerprints(Benchmark):
    """The results of a table's cases, each as one number."""

    version = "1"
    unit = "1"
    param_names = ("case",)
    table: tuple[Any, ...] = ()

    @classmethod
    def begins(cls, case: str) -> list[str]:
        return tables.begins_of(cls.table, case)

    def setup(self, case: str) -> None:
        self.fingerprint = tables.fingerprint_of(self.table, case)

    def track_fingerprint(self, case: str) -> float:
        return self.fingerprint


class Double(_Fingerprints):
    """In float64, where another order of sums shows least."""

    table = tables.DOUBLE
    params = (tables.names(table),)


class Single(_Fingerprints):
    """In float32."""

    table = tables.SINGLE
    params = (tables.names(table),)


class Rounded(_Fingerprints):
    """Where numbers are rounded on the way: another order of sums may move one by a step."""

    table = tables.ROUNDED
    params = (tables.names(table),)


class Half(_Fingerprints):
    """In half precision."""

    table = tables.HALF
    params = (tables.names(table),)


class Numbers(_Fingerprints):
    """Formulas and rules, without a model."""

    table = tables.NUMBERS
    params = (tables.names(table),)


class KnownAnswers(_Fingerprints):
    """The suite's own statistics, instruments and verdicts, on what has a known answer."""

    table = tables.KNOWN
    params = (tables.names(table),)


class KnownRounded(_Fingerprints):
    """The same where a model's numbers are rounded on the way."""

    table = tables.KNOWN_ROUNDED
    params = (tables.names(table),)


class Timed(Benchmark):
    """What the benchmarks do that other ones time, with small models."""

    version = "2"  # 1 had the profile's model
    params = (timed.WAYS,)
    param_names = ("benchmark",)

    @classmethod
    def begins(cls, benchmark: str) -> list[str]:
        return timed.begins_of(benchmark)

    def setup(self, benchmark: str) -> None:
        start()
        self.work, self.moved = timed.work_of(benchmark), timed.bytes_of(benchmark)

    def track_work(self, benchmark: str) -> float:
        return self.work

    def track_bytes(self, benchmark: str) -> int:
        return self.moved

    track_work.unit = "FLOP, or as tracked"  # type: ignore[attr-defined]
    track_bytes.unit = "bytes"  # type: ignore[attr-defined]


class Footprint(Benchmark):
    """Of one call of each kind."""

    version = "1"
    params = (tables.names(calls.CALLS),)
    param_names = ("call",)

    @classmethod
    def begins(cls, call: str) -> list[str]:
        return [*begins(calls.footprint_of), *tables.begins_of(calls.CALLS, call)]

    def setup(self, call: str) -> None:
        self.footprint = calls.footprint_of(call)

    def track_flops(self, call: str) -> int:
        return self.footprint["flops"]

    def track_peak_bytes(self, call: str) -> int:
        return self.footprint["peak"]

    def track_allocated_bytes(self, call: str) -> int:
        return self.footprint["allocated"]

    def track_allocations(self, call: str) -> int:
        return self.footprint["allocations"]

    def track_kept_bytes(self, call: str) -> int:
        return self.footprint["kept"]

    def track_held_bytes(self, call: str) -> int:
        return self.footprint["held"]

    def track_waits(self, call: str) -> int:
        return self.footprint["waits"]

    def track_made_anew(self, call: str) -> int:
        return self.footprint["made anew"]

    def track_python_lines(self, call: str) -> int:
        return self.footprint["python"]

    def track_left_behind(self, call: str) -> int:
        return self.footprint["left behind"]

    track_flops.unit = "FLOP"  # type: ignore[attr-defined]
    track_peak_bytes.unit = "bytes"  # type: ignore[attr-defined]
    track_allocated_bytes.unit = "bytes"  # type: ignore[attr-defined]
    track_allocations.unit = "allocations"  # type: ignore[attr-defined]
    track_kept_bytes.unit = "bytes"  # type: ignore[attr-defined]
    track_held_bytes.unit = "bytes"  # type: ignore[attr-defined]
    track_waits.unit = "waits"  # type: ignore[attr-defined]
    track_made_anew.unit = "tensors"  # type: ignore[attr-defined]
    track_python_lines.unit = "lines"  # type: ignore[attr-defined]
    track_left_behind.unit = "things"  # type: ignore[attr-defined]
