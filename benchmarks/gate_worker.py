"""One process of a gate's side: it answers requests, one line of JSON each, about its own model.

``python -P -m benchmarks.gate_worker`` with that side's checkout as PYTHONPATH. The gate that asks
decides when and how often something is called, so that two such processes can take turns.

| request                                  | answer                                                |
|------------------------------------------|-------------------------------------------------------|
| do=hello, algorithm                      | what was imported from where, tree hash, versions     |
| do=suite                                 | timed: ids, ``name(parameters)``; exact: id → how;    |
|                                          | versions: name → asv's version                        |
| do=begins                                | begins: exact id → where its code begins, each        |
|                                          | ``module:name`` or a text; aside: as `Reach` has it   |
| do=exact, ids                            | values: id → number, or {"skipped": reason}           |
| do=prepare, id, name                     | threads, or skipped: reason; ``name`` for a copy      |
| do=measure, id, calls, warmup, processor | seconds: of each call                                 |

A request that fails is answered with {"error": one line}, and the process ends with its stdin.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import itertools
import json
import math
import os
import stat
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asv_runner.benchmarks._base import Benchmark

Answer = dict[str, Any]


class Worker:
    """The benchmarks of this process, and those that are set up."""

    def __init__(self) -> None:
        self._ready: dict[str, tuple[Callable[[], object], int]] = {}

    def hello(self, algorithm: str = "sha1") -> Answer:
        import torch

        import benchmarks
        import reference_model

        package = Path(str(reference_model.__file__)).resolve().parent
        return {
            "reference_model": str(package),
            "benchmarks": str(Path(str(benchmarks.__file__)).resolve().parent),
            "tree": tree_hash(package, algorithm),
            "torch": torch.__version__,
            "cuda": torch.cuda.is_available(),
            "python": sys.version.partition(" ")[0],
        }

    def suite(self) -> Answer:
        from asv_runner.discovery import disc_benchmarks

        from benchmarks.gate_suite import EXACT, TIMED

        found = list(disc_benchmarks("benchmarks"))
        known = [
            (f.name, _key(f.name, given)) for f in found for given in itertools.product(*f._params)
        ]
        return {
            "timed": [key for name, key in known if name in TIMED],
            "exact": {key: vars(EXACT[name]) for name, key in known if name in EXACT},
            "versions": {f.name: f.version for f in found},
        }

    def begins(self) -> Answer:
        """Those that cannot say where they begin are left out."""
        from benchmarks import gate_suite

        found = {}
        for name in gate_suite.EXACT:
            for given in itertools.product(*by_name(name)._params):
                with contextlib.suppress(ValueError):
                    found[_key(name, given)] = _begins(name, given)
        return {"begins": found, "aside": getattr(gate_suite, "ASIDE", ())}

    def exact(self, ids: list[str]) -> Answer:
        return {"values": {key: self._value(key) for key in ids}}

    def prepare(self, id: str, name: str | None = None) -> Answer:
        found = self._benchmark(id)
        if reason := _set_up(found):
            return {"skipped": reason}
        import torch

        call: Callable[[], object] = found.func
        parameters, threads = found._build_params(), torch.get_num_threads()
        self._ready[name or id] = (lambda: call(*parameters), threads)
        return {"threads": threads}

    def measure(self, id: str, calls: int, warmup: int, processor: int | None) -> Answer:
        """Time each of so many calls; a step on one thread stays on ``processor``."""
        import torch

        call, threads = self._ready[id]
        torch.set_num_threads(threads)
        _stay_on(processor if threads == 1 else None)
        for _ in range(warmup):
            call()
        gc.disable()  # a collection takes longer than a turn, and belongs to no call of it
        try:
            seconds = []
            for _ in range(calls):
                start = perf_counter()
                call()
                seconds.append(perf_counter() - start)
            return {"seconds": seconds}
        finally:
            gc.enable()

    def _value(self, key: str) -> float | dict[str, str]:
        found = self._benchmark(key)
        if reason := _set_up(found):
            return {"skipped": reason}
        value = float(found.do_run())
        if not math.isfinite(value):
            raise ValueError(f"{key} gives {value}, which is not a measurement")
        return value

    def _benchmark(self, key: str) -> Benchmark:
        """A fresh instance, so that several can be set up at once."""
        name = key.partition("(")[0]
        found = by_name(name)
        found.set_param_idx(_places(name)[key])
        return found


@cache
def _places(name: str) -> dict[str, int]:
    """Where asv counts each choice of a benchmark's parameters."""
    params = by_name(name)._params
    return {_key(name, given): at for at, given in enumerate(itertools.product(*params))}


def by_name(name: str) -> Benchmark:
    """A fresh one, as asv makes it.

    One module is imported, in whatever folder its file lies; to know of all of them, as asv does
    where a file lies deeper than a name says, takes a quarter as long as to import torch.
    """
    from asv_runner.discovery import _get_benchmark, get_benchmark_from_name

    file, *parts = name.split(".")
    for module in _modules(file) if len(parts) == 2 else ():
        owner = vars(module).get(parts[0])
        found = owner and _get_benchmark(parts[1], module, owner, getattr(owner, parts[1], None))
        if found and found.name == name:
            return found
    return get_benchmark_from_name("benchmarks", name)


@cache
def _modules(file: str) -> list[Any]:
    """Those of the suite that are called so; asv enters no folder without ``__init__.py``."""
    import benchmarks

    root = Path(str(benchmarks.__file__)).parent
    files = [each.relative_to(root.parent) for each in sorted(root.rglob(f"{file}.py"))]
    return [
        importlib.import_module(".".join(each.with_suffix("").parts))
        for each in files
        if (root.parent / each.parent / "__init__.py").exists()
    ]


def _begins(name: str, given: Sequence[object]) -> list[str]:
    """As a benchmark's class says by ``begins``, or else all of that class."""
    file, kind, _ = name.split(".")
    (module,) = (each for each in _modules(file) if hasattr(each, kind))
    say = getattr(getattr(module, kind), "begins", None)
    return say(*given) if say else [f"{module.__name__}:{kind}"]


def _key(name: str, given: Iterable[object]) -> str:
    return f"{name}({', '.join(map(str, given))})"


def _set_up(found: Benchmark) -> str | None:
    """Why a benchmark cannot be set up with this model; None once it is.

    asv's own `do_setup` says the same, without the reason.
    """
    try:
        found.set_cache(found.do_setup_cache())
        for setup in found._setups:
            setup(*found._build_params())
    except NotImplementedError as error:
        return str(error) or "not implemented"
    return None


def _stay_on(processor: int | None) -> None:
    """Keep every thread of this process on one processor, or let it use all."""
    if not hasattr(os, "sched_setaffinity"):  # not on macOS and Windows
        return
    try:
        threads = os.listdir("/proc/self/task")
    except FileNotFoundError:
        threads = ["0"]  # this one
    for thread in threads:
        allowed = ALL_PROCESSORS if processor is None else {processor}
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread), allowed)


# The gate's, which starts a process on some of them.
ALL_PROCESSORS = os.sched_getaffinity(os.getppid()) if hasattr(os, "sched_getaffinity") else set()


def tree_hash(folder: Path, algorithm: str = "sha1") -> str:
    """The name that git gives to the content of a folder; compiled files are not content."""
    entries = []
    for path in folder.iterdir():
        if path.name == "__pycache__" or path.suffix == ".pyc":
            continue
        if path.is_symlink():
            mode, name = "120000", _object("blob", os.fsencode(os.readlink(path)), algorithm)
        elif path.is_dir():
            mode, name = "40000", tree_hash(path, algorithm)
        else:
            executable = path.stat().st_mode & stat.S_IXUSR
            mode = "100755" if executable else "100644"
            name = _object("blob", path.read_bytes(), algorithm)
        if name != _object("tree", b"", algorithm):
            file = os.fsencode(path.name)
            entries.append((file + b"/" * (mode == "40000"), mode.encode(), file, name))
    lines = (
        mode + b" " + file + b"\0" + bytes.fromhex(name) for _, mode, file, name in sorted(entries)
    )
    return _object("tree", b"".join(lines), algorithm)


def _object(kind: str, content: bytes, algorithm: str) -> str:
    header = f"{kind} {len(content)}".encode() + b"\0"
    return hashlib.new(algorithm, header + content, usedforsecurity=False).hexdigest()


def _requests() -> Iterator[Answer]:
    for line in sys.stdin:
        yield json.loads(line)


def main() -> None:
    # What benchmarks print goes to stderr: stdout is for the answers alone.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker()
    for request in _requests():
        try:
            answer = getattr(worker, request.pop("do"))(**request)
            line = json.dumps(answer, allow_nan=False)
        except Exception as error:
            traceback.print_exc()
            where = request.get("id") or ""
            line = json.dumps({"error": f"{where} {type(error).__name__}: {error}".strip()})
        print(line, file=answers, flush=True)


if __name__ == "__main__":
    main()
