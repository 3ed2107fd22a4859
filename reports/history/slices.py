"""The suite in slices, one for each file of it: what asv is asked to measure at a time."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from asv.benchmarks import Benchmarks
from asv.config import Config
from asv.environment import get_environments
from asv.results import Results, iter_results_for_machine_and_hash


def slices_to_measure(root: Path, machine: str, commit: str) -> list[str]:
    """Words for ``asv run --bench``, each for a slice of which not all was measured at a commit.

    By the suite that asv discovered last and the results in root/.asv/results. As for asv's
    ``--skip-existing-successful``, what failed was not measured, nor what has another version now.
    """
    config = Config.load(str(root / "asv.conf.json"))
    config.results_dir = str(root / ".asv" / "results")
    suite = Benchmarks.load(config)
    environments = {each.name for each in get_environments(config, None)}
    measured: set[str] = set()
    for found in iter_results_for_machine_and_hash(config.results_dir, machine, commit):
        if found.env_name in environments:
            # A file of another shape than asv's is for asv to tell of, when it measures.
            with suppress(Exception):
                measured |= _measured(found, suite)
    return [slice_of(file) for file in sorted({_file(name) for name in suite.keys() - measured})]


def _measured(found: Results, suite: Benchmarks) -> set[str]:
    return {
        name
        for name in found.get_result_keys(suite)
        if None not in found.get_result_value(name, suite[name]["params"])  # a failure
    }


def slice_of(file: str) -> str:
    return rf"^{re.escape(file)}\."


def _file(benchmark: str) -> str:
    return benchmark.partition(".")[0]
