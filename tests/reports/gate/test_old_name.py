"""The validation can be imported and run by its old name for one version, with a warning."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

OLD, NEW = "reports.gate.campaign", "reports.gate.validation"
WARNED = rf"^{OLD}\S* is {NEW}\S* now; its old name goes with the next version$"


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if nothing had been imported by the old name; what is imported so is forgotten."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield
    for name in [name for name in sys.modules if name.startswith(OLD)]:
        del sys.modules[name]


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize(
    ("module", "new"),
    [
        ("lines", "lines"),
        ("faults.catalogue", "faults.catalogue"),
        ("neighbour", "background_load"),
        ("rivals", "peers"),
    ],
)
def test_a_module_by_its_old_name_is_the_new_one_and_warns(module: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=WARNED) as warned:
        found = import_module(f"{OLD}.{module}")
    assert found is import_module(f"{NEW}.{new}")
    told = [str(warning.message) for warning in warned]
    assert told[0].startswith(f"{OLD} is {NEW} now;")
    assert told[-1].startswith(f"{OLD}.{module} is {NEW}.{new} now;")
    assert found.__spec__ is not None
    assert found.__spec__.name == f"{NEW}.{new}"


@pytest.mark.usefixtures("anew")
def test_what_never_was_in_it_is_not_found() -> None:
    with (
        pytest.warns(DeprecationWarning, match=WARNED),
        pytest.raises(ModuleNotFoundError, match=rf"{NEW}\.nothing"),
    ):
        import_module(f"{OLD}.nothing")


def test_the_old_command_runs_and_says_its_new_name(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", OLD, "record", "--help"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"usage: python -m {NEW} record" in done.stdout
    assert f"DeprecationWarning: {OLD} is {NEW} now;" in done.stderr
