"""The processes of a pair: when they start, where, and what the ones before have to do with it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from reference_model.errors import UserError
from reports.gate import pairs as pairs_module
from reports.gate.checkouts import Checkouts, checked_out
from reports.gate.machine import troubles
from reports.gate.pairs import CONTROL, Pairs
from reports.gate.workers import Processes, threads_of

ONE, TWO = (f"bench_gate.Step.time_step({name})" for name in ("one", "two"))
PROCESSORS = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
needs_two = pytest.mark.skipif(len(PROCESSORS) < 2, reason="one processor, or none can be chosen")


class Noted(Processes):
    """That keeps those which were made."""

    made: list[Noted]

    def __init__(self, *given, **named) -> None:
        self.allowed, self.hurried, self.was_ready = (*given, ())[4], False, False
        super().__init__(*given, **named)
        Noted.made.append(self)

    def hurry(self) -> None:
        self.hurried = True
        super().hurry()

    def ready(self):
        self.was_ready = True
        return super().ready()

    def pids(self) -> set[int]:
        return {worker._process.pid for worker in self.workers}

    def ended(self) -> bool:
        return all(worker._process.returncode is not None for worker in self.workers)


@pytest.fixture
def checkouts(repository, monkeypatch: pytest.MonkeyPatch) -> Iterator[Checkouts]:
    """Of a small repository, with processes that are noted and few turns."""
    monkeypatch.setattr(pairs_module, "MOST_SECONDS", 0.01)
    monkeypatch.setattr(pairs_module, "Processes", Noted)
    Noted.made = []
    with checked_out(repository.path, "HEAD", "HEAD") as made:
        yield made


@needs_two
def test_the_next_pair_starts_beside_the_turns_of_this_one_where_it_does_not_step(
    checkouts: Checkouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped_on, in_turns = [], pairs_module.in_turns

    def noted(id, one, other, swapped, processor):
        stepped_on.append((processor, len(Noted.made)))
        return in_turns(id, one, other, swapped, processor)

    monkeypatch.setattr(pairs_module, "in_turns", noted)
    with Pairs(checkouts, "cpu", random.Random(0), control=ONE) as pairs:
        pairs.measure([ONE, TWO])
        first, second = Noted.made
        assert first.ended()
        assert not first.allowed
        assert not second.ended()
        assert second.hurried
        assert {processor for processor, _ in stepped_on} == PROCESSORS - set(second.allowed)
        assert {made for _, made in stepped_on} == {2}  # before the first of the turns
        pairs.measure([ONE, TWO])
    assert len(Noted.made) == 3
    assert all(made.ended() for made in Noted.made)
    assert len(set.union(*(made.pids() for made in Noted.made))) == 3 * 3


def test_where_no_pair_is_to_come_nothing_starts(checkouts: Checkouts) -> None:
    with Pairs(checkouts, "cpu", random.Random(0)) as pairs:
        pairs.measure([ONE], more_to_come=False)
    assert len(Noted.made) == 1


def test_what_the_next_ones_do_not_hold_starts_anew(checkouts: Checkouts) -> None:
    with Pairs(checkouts, "cpu", random.Random(0)) as pairs:
        pairs.measure([ONE])
        before = list(Noted.made)
        assert pairs.measure([TWO], more_to_come=False).log_ratios.keys() == {TWO}
        assert all(made.ended() for made in before)


def test_a_gpu_is_shared_and_one_processor_too_so_that_nothing_starts_beside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkouts = (None, None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    assert Pairs(checkouts, "cpu", random.Random(0))._others(0) == {1}  # type: ignore[arg-type]
    assert Pairs(checkouts, "cuda", random.Random(0))._others(0) == set()  # type: ignore[arg-type]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    assert Pairs(checkouts, "cpu", random.Random(0))._others(0) == set()  # type: ignore[arg-type]


TWO_THREADS = """
threads = 1
class cuda:
    is_available = staticmethod(lambda: False)
__version__ = "0"
def get_num_threads():
    return threads
def set_num_threads(count):
    global threads
    threads = count
"""


def with_two_threads(repository, name: str) -> None:
    """A commit whose step ``name`` runs on two threads."""
    bench = (repository.path / "benchmarks/bench_gate.py").read_text()
    repository.write("torch.py", TWO_THREADS)
    start = f"        import torch\n        torch.set_num_threads(1 + (name == {name!r}))\n"
    repository.commit(
        bench=bench.replace(
            "        import reference_model\n", start + "        import reference_model\n", 1
        )
    )


@needs_two
@pytest.mark.parametrize("seed", range(3))
def test_steps_on_several_threads_come_last_once_the_next_processes_are_ready(
    repository, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(pairs_module, "Processes", Noted)
    Noted.made = []
    with_two_threads(repository, "one")
    order = []

    def noted(id, one, other, swapped, processor):
        order.append((id, Noted.made[-1].was_ready))
        return 0.0, [1.0, 1.0]

    monkeypatch.setattr(pairs_module, "in_turns", noted)
    with (
        checked_out(repository.path, "HEAD", "HEAD") as checkouts,
        Pairs(checkouts, "cpu", random.Random(seed)) as pairs,
    ):
        pairs.measure([ONE, TWO])
    assert order == [(TWO, False), (ONE, True)]


@needs_two
def test_what_started_on_some_processors_steps_on_all_that_the_gate_may_use(
    repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_two_threads(repository, "one")
    some = set(sorted(PROCESSORS)[:1])
    with checked_out(repository.path, "HEAD", "HEAD") as (base, _):
        processes = Processes([base], "cpu", random.Random(0), [ONE, TWO], some)
        try:
            processes.ready()
            (worker,), (pid,) = processes.workers, [w._process.pid for w in processes.workers]
            assert os.sched_getaffinity(pid) == some
            for id, expected in ((ONE, PROCESSORS), (TWO, {max(PROCESSORS)})):
                worker.ask("measure", id=id, calls=1, warmup=0, processor=max(PROCESSORS))
                assert os.sched_getaffinity(pid) == expected
        finally:
            processes.close()


def test_what_cannot_be_set_up_is_an_error_when_it_is_waited_for(repository) -> None:
    repository.commit(model="")
    with checked_out(repository.path, "HEAD", "HEAD") as checkouts:
        processes = Processes(checkouts, "cpu", random.Random(0), [ONE])
        try:
            with pytest.raises(UserError, match="base: a timed benchmark was skipped: this commit"):
                processes.ready()
        finally:
            processes.close()


def test_to_prepare_a_benchmark_imports_no_other_file_of_the_suite(repository) -> None:
    repository.write("benchmarks/bench_other.py", "raise SystemExit('imported')\n")
    repository.commit()
    with checked_out(repository.path, "HEAD", "HEAD") as (base, _):
        processes = Processes([base], "cpu", random.Random(0), [ONE])
        try:
            processes.ready()
            with pytest.raises(UserError, match="imported"):
                processes.workers[0].ask("suite")
        finally:
            processes.close()


def test_a_system_without_processors_to_choose_from_or_a_list_of_threads_goes_on(
    repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS, and in a container without /proc."""
    torch = (repository.path / "torch.py").read_text()
    lacks = (
        "import os\nos.__dict__.pop('sched_getaffinity')\nos.__dict__.pop('sched_setaffinity')\n"
    )
    repository.write("torch.py", lacks + torch)
    repository.commit()
    for name in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(pairs_module, "MOST_SECONDS", 0.01)
    with (
        checked_out(repository.path, "HEAD", "HEAD") as checkouts,
        Pairs(checkouts, "cpu", random.Random(0), control=ONE) as pairs,
    ):
        assert pairs.measure([ONE]).log_ratios.keys() == {ONE, CONTROL}


def test_threads_that_the_system_does_not_list_are_one() -> None:
    assert os.getpid() in threads_of(os.getpid())
    assert threads_of(2**30) == [2**30]


def test_the_gates_own_load_is_no_trouble_and_that_of_others_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    calm = {"stolen": 0.0, "load": 4.0, "megahertz": 3000.0, "throttled": 0}
    assert troubles([calm] * 8) == []
    assert troubles([{**calm, "load": 6.0}] * 8) == ["a load of 6.0 on 2 processors"]
