"""The digest of definitions: what they do, wherever they stand, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.record.definitions import definitions_digest

ONE = '''
"""Words."""
from numpy import sin

from package.two import Kept, halved

LEAST, MOST = 1, 2
OTHER: float = 3.0

class Wanted:
    """Words."""

    field: int
    usual: int = LEAST

    def method(self, x: float) -> float:
        """Words."""
        found: Kept = helper(x)
        return found + sin(x)

def helper(x):
    return halved(x) + told(x)

def told(x):
    return "words"

def unused():
    return OTHER
'''
TWO = "class Kept:\n    y = 1\n\n\ndef halved(x):\n    return x / FACTOR\n\n\nFACTOR = 2\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "package").mkdir()
    for name, text in (("one", ONE), ("two", TWO)):
        (tmp_path / "package" / f"{name}.py").write_text(text)
    return tmp_path


def digest(tree: Path, *names: str) -> str:
    wanted = names or ("package.one:Wanted",)
    return definitions_digest(wanted, tree, aside=("told",))


def change(tree: Path, name: str, old: str, new: str) -> None:
    file = tree / "package" / f"{name}.py"
    assert file.read_text().count(old) > 0
    file.write_text(file.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("one", '"""Words."""', '"""Other words."""'),
        ("one", "x: float) -> float", "x: int) -> int"),
        ("one", "found: Kept =", "found ="),
        ("one", "usual: int =", "usual ="),
        (
            "one",
            "    return halved(x) + told(x)",
            "    # why\n    return (\n        halved(x) + told(x))",
        ),
        ("one", 'return "words"', 'return "other words"'),
        ("one", "OTHER: float = 3.0", "OTHER: float = 4.0"),
        ("two", "y = 1", "y = 2"),
    ],
)
def test_remarks_annotations_and_what_is_aside_or_not_used_change_nothing(
    tree: Path, name: str, old: str, new: str
) -> None:
    before = digest(tree)
    change(tree, name, old, new)
    assert digest(tree) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("one", "field: int", "another: int"),
        ("one", "LEAST, MOST = 1, 2", "LEAST, MOST = 0, 2"),
        ("one", "found + sin", "found - sin"),
        ("one", "halved(x) +", "2 * halved(x) +"),
        ("two", "x / FACTOR", "x // FACTOR"),
        ("two", "FACTOR = 2", "FACTOR = 3"),
    ],
)
def test_what_is_named_and_what_it_uses_from_anywhere_changes_it(
    tree: Path, name: str, old: str, new: str
) -> None:
    before = digest(tree)
    change(tree, name, old, new)
    assert digest(tree) != before


def test_a_definition_that_moves_to_another_file_keeps_its_digest(tree: Path) -> None:
    before = digest(tree)
    (tree / "package/one.py").write_text(
        ONE.replace(
            "def helper(x):\n    return halved(x) + told(x)\n", "from package.three import helper\n"
        )
    )
    (tree / "package/three.py").write_text(
        "from package.two import halved\n\ndef helper(x):\n    return halved(x) + told(x)\n"
    )
    assert digest(tree) == before
    (tree / "package/one.py").rename(tree / "package/moved.py")
    assert digest(tree, "package.moved:Wanted") == before


def test_a_method_is_named_without_the_rest_of_its_class(tree: Path) -> None:
    before = digest(tree, "package.one:Wanted.method")
    change(tree, "one", "usual: int = LEAST", "usual: int = MOST")
    assert digest(tree, "package.one:Wanted.method") == before
    change(tree, "one", "found + sin", "found - sin")
    assert digest(tree, "package.one:Wanted.method") != before


@pytest.mark.parametrize("name", ["package.one:gone", "package.gone:x", "package.one:Wanted.gone"])
def test_a_name_that_is_not_there_is_refused(tree: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is not there; name where it stands now"):
        digest(tree, name)
