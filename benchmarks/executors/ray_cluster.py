"""Cells on a Ray cluster: this machine's, or one of many.

What a cell needs travels once to each node, as the working directory of its processes: our code,
the checkpoint, and the wheels that the texts are in. A node has Python and this project's packages.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.executors.cell import measure_cell, printing_into
from benchmarks.executors.executor import Answer, Ended, Order, Task
from reference_model.errors import UserError
from reference_model.printing import warn

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS_AND_CODE = ("benchmarks", "reference_model")
ASSETS = "assets"  # in the working directory
LOSSES = 3  # of the process that measures one cell, after which the cell has failed


class RayCluster:
    """As many cells at once as the cluster has cores; one that takes times has a node to itself.

    A cell whose process or node is lost is started again; no other is.
    """

    def __init__(self, address: str | None, jobs: int, extra_modules: Sequence[Path] = ()) -> None:
        """``address`` of a running cluster; without one a cluster of ``jobs`` cores starts here.

        UserError where Ray is missing or the cluster does not answer.
        """
        self._ray = _import_ray()
        self._staged = tempfile.TemporaryDirectory(prefix="llm-design-bench-ray-")
        folder = stage(Path(self._staged.name), extra_modules)
        how: dict[str, Any] = {"address": address} if address else {"num_cpus": jobs}
        try:
            self._ray.init(
                **how,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="error",
                runtime_env={"working_dir": str(folder)},
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            self._staged.cleanup()
            told = " ".join(str(error).split())[:300]
            raise UserError(
                f"--executor ray: the cluster {address or 'of this machine'} does not answer "
                f"({told}); start one with: ray start --head"
            ) from None
        nodes = [each["Resources"].get("CPU", 0) for each in self._ray.nodes() if each["Alive"]]
        self._cores, self._largest = int(sum(nodes)), int(max(nodes, default=1))
        self._measure = self._ray.remote(max_calls=1, max_retries=0)(_measure)
        self._running: dict[Any, tuple[Task, float, int]] = {}

    def has_room_for(self, task: Task) -> bool:
        """Ray lets a task wait for its cores; a few wait there, and the others here."""
        return len(self._running) < 2 * max(1, self._cores)

    def start(self, task: Task, losses: int = 0) -> None:
        cores = self._largest if task.cell.timed else 1
        asked = self._measure.options(num_cpus=cores, memory=task.cell.memory)
        self._running[asked.remote(task.order)] = (task, monotonic(), losses)

    def ended(self, within: float) -> Sequence[Ended]:
        if not self._running:
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=within)
        found = []
        for reference in ready:
            task, since, losses = self._running.pop(reference)
            try:
                answer, environment = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:  # its process or node is gone
                if losses + 1 < LOSSES:
                    warn(f"note: {task.name} lost its process, and is measured again")
                    self.start(task, losses + 1)
                    continue
                told = f"its process was lost {LOSSES} times: {type(error).__name__}"
                answer, environment = Answer("failed", told, monotonic() - since), None
            found.append(Ended(task, answer, environment))
        return found

    def close(self) -> None:
        for reference in self._running:
            with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
                self._ray.cancel(reference, force=True)
        self._running = {}
        self._ray.shutdown()
        self._staged.cleanup()


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise UserError(
            "--executor ray: Ray is not installed; it is the extra ray: pip install '.[ray]'"
        ) from None
    return ray


def stage(folder: Path, extra_modules: Sequence[Path] = ()) -> Path:
    """The working directory of the cluster's processes, made in ``folder``."""
    from benchmarks.data.assets import ASSETS as needed
    from benchmarks.data.assets import fetch

    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for name in WEIGHTS_AND_CODE:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for path in extra_modules:
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (folder / ASSETS).mkdir()
    for each in needed:
        with contextlib.suppress(UserError):  # only the cells that need it cannot do without
            shutil.copy(fetch(each), folder / ASSETS)
    return folder


def _measure(order: Order) -> tuple[Answer, dict[str, Any]]:
    """In a process of the cluster."""
    from dataclasses import replace

    from benchmarks.instruments.environment import run_stamp

    assets = Path.cwd() / ASSETS
    if any(assets.iterdir()):
        os.environ["LLM_DESIGN_BENCH_ASSETS"] = str(assets)
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        with printing_into(log):
            answer = measure_cell(order)
        printed = log.read_text("utf-8", "replace")
    return replace(answer, log=f"{printed}{answer.log}"), run_stamp(order.settings)
