"""The digest of the code that a cell rests on: all that can change a number, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.record import code_digest as module
from benchmarks.record.code_digest import closure, code_digest

FILES = {
    "benchmarks/experiments/one.py": '"""Words."""\nfrom benchmarks.helper import f\nX = 1\n',
    "benchmarks/helper.py": "def f():\n    from reference_model import deep\n    return deep.Y\n",
    "benchmarks/table.toml": "a = 1\n",
    "benchmarks/unrelated.py": "Z = 1\n",
    "reference_model/__init__.py": "",
    "reference_model/deep.py": "import torch\nY = 2  # two\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def digest(tree: Path) -> str:
    module._imports.cache_clear()
    module._module_digest.cache_clear()
    return code_digest("benchmarks.experiments.one", tree)


def test_all_modules_of_ours_are_found_whenever_they_are_imported(tree: Path) -> None:
    found = closure("benchmarks.experiments.one", tree)
    assert found == {
        "benchmarks.experiments.one",
        "benchmarks.helper",
        "reference_model",
        "reference_model.deep",
    }


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("benchmarks/experiments/one.py", '"""Words."""', "# Other words."),
        ("benchmarks/experiments/one.py", "X = 1", "\nX = (1)"),
        ("benchmarks/helper.py", "f():", 'f():\n    """What it returns."""'),
        ("reference_model/deep.py", "# two", "# a couple"),
        ("benchmarks/unrelated.py", "Z = 1", "Z = 2"),
        ("benchmarks/table.toml", "a = 1", "a = 2"),  # which nobody names
    ],
)
def test_remarks_and_what_is_not_imported_change_nothing(
    tree: Path, name: str, old: str, new: str
) -> None:
    before = digest(tree)
    (tree / name).write_text((tree / name).read_text().replace(old, new, 1))
    assert digest(tree) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("benchmarks/experiments/one.py", "X = 1", "X = 2"),
        ("benchmarks/helper.py", "return deep.Y", "return deep.Y + 1"),
        ("reference_model/deep.py", "Y = 2", "Y = 3"),
        ("reference_model/__init__.py", "", "import os\n"),
    ],
)
def test_code_that_is_imported_anywhere_changes_it(
    tree: Path, name: str, old: str, new: str
) -> None:
    before = digest(tree)
    (tree / name).write_text((tree / name).read_text().replace(old, new, 1))
    assert digest(tree) != before


def test_a_file_of_data_that_a_module_names_belongs_to_it(tree: Path) -> None:
    helper = tree / "benchmarks/helper.py"
    helper.write_text(f'{helper.read_text()}TABLE = "table.toml"\n')
    before = digest(tree)
    (tree / "benchmarks/table.toml").write_text("a = 2\n")
    assert digest(tree) != before


def test_a_real_experiment_rests_on_the_model_and_not_on_the_reports_or_the_run() -> None:
    found = closure("benchmarks.experiments.cache.lesson")
    assert {"reference_model.model", "benchmarks.instruments.memory"} <= found
    assert not any(name.startswith(("reports", "benchmarks.running")) for name in found)
