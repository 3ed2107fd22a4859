"""The gate's side of a checkout's processes: it starts them, asks, and ends them."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal

from reference_model.errors import UserError
from reports.gate import guard
from reports.gate.checkouts import Checkout, check_origin

Device = Literal["cpu", "cuda"]
Answer = dict[str, Any]

TIMEOUT = 180.0  # seconds for one answer
LONGEST = 64 << 20  # bytes of one answer: thousands of benchmarks take one
MOST_TOLD = 2000  # characters of what a process says of its failure
ENDING = 10.0  # seconds that a process which was killed may take to end
OF_SUITE = ("LLM_DESIGN_BENCH_MODEL", "LLM_DESIGN_BENCH_DTYPE")  # by which it is told of a model
PADDING = 4096  # bytes that the environment may grow by: where a stack begins depends on it


class Worker:
    """One fresh process of a checkout."""

    def __init__(self, checkout: Checkout, device: Device, layout: random.Random) -> None:
        self.checkout = checkout
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        try:
            self._process = subprocess.Popen(
                [checkout.python, "-P", "-m", "benchmarks.gate_worker"],
                cwd=checkout.folder,
                env=_environment(checkout, device, layout),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                process_group=0,  # so that what a benchmark starts ends with it
            )
        except OSError as error:
            self._log.close()
            raise UserError(
                f"{checkout.name}: {checkout.python} does not start: {error.strerror}"
            ) from None
        self._buffer = b""

    def allow(self, processors: Collection[int]) -> None:
        """Where it may run until it is measured: `measure` says so itself."""
        for thread in threads_of(self._process.pid):
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setaffinity(thread, processors)

    def send(self, do: str, **arguments: Any) -> None:
        """Ask without waiting, so that two processes can work at once."""
        assert self._process.stdin is not None
        try:
            print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
        except OSError:
            raise self._failure("ended before it was asked") from None

    def receive(self, timeout: float = TIMEOUT) -> Answer:
        line = self._line(time.monotonic() + timeout)
        try:
            answer = dict(json.loads(line))
        except (ValueError, TypeError, RecursionError):
            raise self._failure("answered something else than it was asked") from None
        if "error" in answer:
            raise UserError(f"{self.checkout.name}: {_one_line(str(answer['error']))}")
        return answer

    def ask(self, do: str, **arguments: Any) -> Answer:
        self.send(do, **arguments)
        return self.receive()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._end()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            with suppress(OSError):  # what was not yet read by a process that is gone
                stream.close()

    def _line(self, deadline: float) -> bytes:
        """One line of the process. Its pipe is read bare, so that waiting for it can end."""
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise self._failure("gave no answer in time")
            read = os.read(pipe, 1 << 16)
            if not read:
                raise self._failure("crashed")
            self._buffer += read
            if len(self._buffer) > LONGEST:
                raise self._failure(f"gave an answer of more than {LONGEST >> 20} MiB")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _failure(self, what: str) -> UserError:
        self._end()
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - MOST_TOLD))
        said = self._log.read().decode("utf-8", "replace").strip().splitlines()
        status = f"exit status {self._process.returncode}"
        if what == "crashed" and self._process.returncode == -signal.SIGKILL:
            status = (
                "signal 9, which a system sends when memory runs out; free some and run it again"
            )
        return UserError(
            f"{self.checkout.name}: a process {what}: {_one_line((said or [status])[-1])}"
        )

    def _end(self) -> None:
        """Kill it, and what it started; one that the system does not let go of is not waited for.

        As long as it was not waited for, its number is nobody else's.
        """
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):  # macOS: it has ended
                os.killpg(self._process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(ENDING)


def threads_of(process: int) -> list[int]:
    """By their numbers; only the first, where the system does not list them."""
    try:
        return [int(thread) for thread in os.listdir(f"/proc/{process}/task")]
    except FileNotFoundError:  # or it has ended
        return [process]


def _one_line(text: str) -> str:
    return " ".join(text[:MOST_TOLD].split())


def _environment(checkout: Checkout, device: Device, layout: random.Random) -> dict[str, str]:
    """The caller's variables without those that could change what is imported or computed on."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "OMP_", "MKL_", "GOMP_", "KMP_", "ASV_"))
        and name not in OF_SUITE
    }
    if device == "cpu":  # also for a suite that does not read the variable below
        kept["CUDA_VISIBLE_DEVICES"] = ""
    return (
        kept
        | dict(checkout.variables)
        | {
            "PYTHONPATH": str(checkout.folder),
            guard.VARIABLE: str(checkout.folder),
            "PYTHONHASHSEED": str(layout.randrange(2**32)),
            "PYTHONNOUSERSITE": "1",
            "LLM_DESIGN_BENCH_PROFILE": "gate",
            "LLM_DESIGN_BENCH_DEVICE": device,
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "GATE_PADDING": "x" * layout.randrange(PADDING),
        }
    )


def _hashing(checkout: Checkout) -> dict[str, str]:
    """What a process has to be told: git names objects by SHA-256 in some repositories."""
    return {"algorithm": "sha256"} if len(checkout.model_tree) == 64 else {}


class Processes:
    """Fresh processes, one of each checkout, that were asked to prepare ``ids``.

    They may be at it still. They are started in any order. ``processors``: where they may run until
    `hurry`; anywhere by default.
    """

    def __init__(
        self,
        checkouts: Sequence[Checkout],
        device: Device,
        layout: random.Random,
        ids: Sequence[str] = (),
        processors: Collection[int] = (),
    ) -> None:
        self.ids, self.threads, self._device = tuple(ids), dict[str, int](), device
        self._started: dict[int, Worker] = {}
        self._hellos: list[Answer] = []
        try:
            for at in layout.sample(range(len(checkouts)), len(checkouts)):
                self._started[at] = Worker(checkouts[at], device, layout)
                if processors:
                    self._started[at].allow(processors)
            for worker in self.workers:
                worker.send("hello", **_hashing(worker.checkout))
                for id in ids:
                    worker.send("prepare", id=id)
        except BaseException:
            self.close()
            raise

    @property
    def workers(self) -> list[Worker]:
        """In the order of the checkouts."""
        return [self._started[at] for at in sorted(self._started)]

    def hurry(self) -> None:
        """Let them run on every processor that this process may run on."""
        for worker in self.workers:
            worker.allow(os.sched_getaffinity(0))

    def ready(self) -> list[Answer]:
        """Their hellos, once all of them hold what they were asked to.

        `UserError` where one is not what it should be, or has not one of ``ids``.
        """
        for worker in self.workers[len(self._hellos) :]:
            check_origin(worker.checkout, hello := worker.receive())
            if self._device == "cuda" and not hello["cuda"]:
                raise UserError("--device cuda: torch finds no usable CUDA device")
            for id in self.ids:
                answer = worker.receive()
                if reason := answer.get("skipped"):
                    raise UserError(
                        f"{worker.checkout.name}: a timed benchmark was skipped: {reason}"
                    )
                self.threads[id] = answer["threads"]
            self._hellos.append(hello)
        return self._hellos

    def close(self) -> None:
        for worker in self.workers:
            worker.close()


@contextmanager
def running(
    checkouts: Sequence[Checkout], device: Device, layout: random.Random
) -> Iterator[tuple[list[Worker], list[Answer]]]:
    """A fresh process of each checkout, all started at once, imports checked; their hellos."""
    processes = Processes(checkouts, device, layout)
    try:
        hellos = processes.ready()
        yield processes.workers, hellos
    finally:
        processes.close()
