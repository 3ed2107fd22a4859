"""Modules by the names that they had before: they can be imported by these for one more version.

They lay in benchmarks/ itself. Benchmarks are none of them, nor are the experiments of a lesson: a
folder stands where a module did.

>>> import benchmarks.stats  # the module benchmarks.judging.stats, with a DeprecationWarning
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import CodeType, ModuleType

# Folder of benchmarks/ → what moved into it from benchmarks/ itself.
ROOMS = {
    "data": ("assets", "git", "git_export", "install_failures", "json_files", "locks"),
    "experiments": ("experiment",),
    "experiments.lora": ("product_moments", "variance_checks"),
    "judging": (
        *("claims", "findings", "label_words", "rounding", "sentences", "stats", "verdicts"),
    ),
    "record": ("results",),
    "suite": (
        *("benchmark", "codec_workloads", "file_workloads", "gate_workloads", "int8_workloads"),
        *("lora_workloads", "preload", "workloads"),
    ),
    "training": ("train_reference",),
}
NEW_NAMES = {
    f"benchmarks.{name}": f"benchmarks.{room}.{name}"
    for room, names in ROOMS.items()
    for name in names
}


DEPRECATED = "{old} is {new} now; its old name goes with the next version"


class Moved(MetaPathFinder, InspectLoader):
    """Finds a module by its old name, and gives the one that there is by its new name.

    ``new_names``: of modules, or of packages whose modules moved with them.
    """

    def __init__(self, new_names: Mapping[str, str]) -> None:
        self._new_names = new_names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        new = self._new_name(fullname)
        if new is None:
            return None
        warnings.warn(DEPRECATED.format(old=fullname, new=new), DeprecationWarning, stacklevel=2)
        return ModuleSpec(fullname, self, loader_state=new)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(spec.loader_state)
        self._own_spec = module.__spec__  # the import system gives it that of the old name
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own_spec

    def get_code(self, fullname: str) -> CodeType | None:
        """For ``python -m`` with the old name."""
        spec = find_spec(self._new_name(fullname) or fullname)
        assert spec is not None
        assert isinstance(spec.loader, InspectLoader)
        return spec.loader.get_code(spec.name)

    def get_source(self, fullname: str) -> None:
        return None

    def _new_name(self, name: str) -> str | None:
        """None of what has not moved, nor the package that it lies in."""
        old, inside = name, ""
        while old not in self._new_names:
            old, dot, last = old.rpartition(".")
            if not dot:
                return None
            inside = f".{last}{inside}"
        return self._new_names[old] + inside


def find_moved() -> None:
    """Let imports find them, where nothing else has the name."""
    if not any(isinstance(each, Moved) for each in sys.meta_path):
        sys.meta_path.append(Moved(NEW_NAMES))
