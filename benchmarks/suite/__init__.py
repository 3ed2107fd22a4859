"""The benchmarks that asv and the gate run, and what they are made of.

asv takes this folder for a package called "suite", so that a benchmark's name says nothing of where
the folder lies, and an old commit is asked to import one module at a time. What the benchmarks
import is `benchmarks`, which asv's path does not have.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path


def _import_benchmarks() -> None:
    """From the folder above: another package of this name may be installed."""
    folder = Path(__file__).resolve().parents[1]
    spec = spec_from_file_location(
        "benchmarks", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules["benchmarks"] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules["benchmarks"])


if __name__ == "suite" and "benchmarks" not in sys.modules:
    _import_benchmarks()
