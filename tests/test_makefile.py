"""`make` as a newcomer meets it: set-up is done once, and what is given stays a word."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TARGETS = [
    "setup", "report", "readme", "test", "test-ray", "test-triton", "fuzz", "lint", "lock", "train",
    "history", "gate", "gate-proof", "peers",
]  # fmt: skip
# Instead of Python: it writes down its name and words. With FAIL nothing is complete.
RECORDER = """#!/bin/sh
{ printf '%s\\0' "$0" "$@"; printf '\\1\\0'; } >>"$RECORDED"
case "$*" in *benchmarks.set_up*--check) test -z "$FAIL";; esac
"""


class Checkout:
    """A folder with the Makefile, and environments whose Python only records."""

    def __init__(self, folder: Path, root: Path, venv: str = ".venv") -> None:
        self.folder, self.venv = folder, venv
        self.recorded = folder.parent / "recorded"
        folder.mkdir()
        shutil.copy(root / "Makefile", folder)
        for name in (venv, ".venv-peers", ".venv-ray", ".venv-triton"):
            for program in ("python", "zizmor"):
                self.program(folder / name / "bin" / program, RECORDER)

    def program(self, path: Path, text: str) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def make(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        # Variables of an outer make, under which the tests may run, would change this one.
        ours = {
            "PYTHON",
            "PROFILE",
            "MODEL",
            "DEVICE",
            "DTYPE",
            "COMMITS",
            "MACHINE",
            "BASE",
            "HEAD",
            "VENV",
            "PEERS",
            "RAY",
            "TRITON",
            "PAGE",
        }
        kept = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("MAKE", "MFLAGS")) and k not in ours
        }
        self.recorded.unlink(missing_ok=True)
        return subprocess.run(
            ["make", "--no-print-directory", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            env={**kept, "RECORDED": str(self.recorded), "FAIL": "", **variables},
        )

    def calls(self) -> list[list[str]]:
        """The words of each call, the program first."""
        content = self.recorded.read_text() if self.recorded.exists() else ""
        return [call.split("\0")[:-1] for call in content.split("\1\0")[:-1]]


@pytest.fixture
def checkout(tmp_path: Path, root: Path) -> Checkout:
    return Checkout(tmp_path / "checkout", root)


def test_make_alone_lists_every_target(checkout: Checkout) -> None:
    listed = checkout.make().stdout
    assert [line.split()[1] for line in listed.splitlines()] == TARGETS


def test_setup_is_done_once_and_then_needs_no_python_of_the_system(checkout: Checkout) -> None:
    done = checkout.make("setup", "PYTHON=no-such-python")
    assert done.returncode == 0
    assert checkout.calls() == [
        [".venv/bin/python", "-m", "benchmarks.set_up", ".venv", "--texts", "--check"]
    ]


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "lock"])
def test_every_target_does_the_setup_that_it_needs(checkout: Checkout, target: str) -> None:
    python = checkout.program(checkout.folder / "python", RECORDER)
    assert checkout.make(target, f"PYTHON={python}", FAIL="yes").returncode == 0
    needs_none_of_the_texts = target in ("readme", "lint", "history", "test-ray", "test-triton")
    words = ["-m", "benchmarks.set_up", ".venv"] + ["--texts"] * (not needs_none_of_the_texts)
    check, version, made, *rest = checkout.calls()
    assert check == [".venv/bin/python", *words, "--check"]
    assert version[:2] == [python, "-c"]
    assert made == [python, *words]
    if target in ("peers", "test-ray", "test-triton"):
        name = target.removeprefix("test-")
        words = ["-m", "benchmarks.set_up", f".venv-{name}", f"--{name}"]
        assert rest[0] == [".venv/bin/python", *words, "--check"]
        assert rest[2] == [python, *words]
        assert rest[3][0] == f".venv-{name}/bin/python"
    assert (rest == []) == (target == "setup")


def test_an_old_python_is_refused_in_one_line(checkout: Checkout) -> None:
    old = checkout.program(checkout.folder / "python3.10", "#!/bin/sh\nexit 1\n")
    done = checkout.make("setup", f"PYTHON={old}", FAIL="yes")
    first, *rest = done.stderr.splitlines()
    assert done.returncode == 2
    assert first == (
        f"error: {old} is missing or older than Python 3.11; name another: make PYTHON=python3.12"
    )
    assert all(line.startswith("make: ***") for line in rest)


def test_a_missing_python_is_named(checkout: Checkout) -> None:
    done = checkout.make("setup", "PYTHON=no-such-python", FAIL="yes")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no-such-python is missing or older than Python 3.11")


def test_a_python_without_venv_is_refused_in_one_line(root: Path, tmp_path: Path) -> None:
    program = (
        "import runpy, sys; sys.modules['ensurepip'] = None;"
        "runpy.run_module('benchmarks.set_up', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "venv"],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    begun, told = done.stderr.splitlines()
    assert begun.startswith(f"setting up {tmp_path / 'venv'}")
    assert told.startswith(f"error: {sys.executable} cannot create environments; install")


# ---- words


HOSTILE = [
    "two words", " a ", "it's", 'a "quoted" one', "$(touch hacked)", "`touch hacked`",
    "; touch hacked; ", "' ; touch hacked ; '", '" ; touch hacked ; "', "x && touch hacked",
    "$(shell touch hacked)", "${shell touch hacked}", "$$(touch hacked)", "$(BASE)", "$HOME", "*",
    "x\ntouch hacked", "x\n\ttouch hacked", "#x", "\\", "%", "--output=hacked", "été",
]  # fmt: skip
USERS = [
    ("gate", "BASE", "--base="),
    ("gate", "HEAD", "--head="),
    ("report", "PROFILE", "--profile="),
    ("report", "MODEL", "--model="),
    ("report", "DEVICE", "--device="),
    ("report", "DTYPE", "--dtype="),
    ("history", "PROFILE", "--profile="),
    ("history", "COMMITS", "--commits="),
    ("history", "MACHINE", "--machine="),
]


@pytest.mark.K9
@pytest.mark.parametrize("given", ["an argument", "the environment"])
@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_is_passed_as_one_word_and_never_run(
    checkout: Checkout, value: str, given: str
) -> None:
    for target, variable, option in USERS:
        if given == "an argument":
            done = checkout.make(target, f"{variable}={value}")
            wanted = option + value.lstrip(" ")  # as make reads its arguments
        else:
            done = checkout.make(target, **{variable: value})
            wanted = option + value
        assert done.returncode == 0, done.stderr
        using = [call for call in checkout.calls() if any(w.startswith(option) for w in call)]
        assert using
        assert all(wanted in call for call in using)
    assert not list(checkout.folder.rglob("hacked"))


@pytest.mark.K9
@pytest.mark.parametrize("value", [v for v in HOSTILE if v[0] not in " -"])
def test_an_environment_or_a_python_of_any_name_is_used(
    tmp_path: Path, root: Path, value: str
) -> None:
    checkout = Checkout(tmp_path / "checkout", root, venv=value)
    python = checkout.program(checkout.folder / "bin" / value, RECORDER)
    done = checkout.make("gate", f"VENV={value}", f"PYTHON={python}", FAIL="yes")
    assert done.returncode == 0, done.stderr
    programs = [call[0] for call in checkout.calls()]
    assert programs == [f"{value}/bin/python", python, python, *2 * [f"{value}/bin/python"]]
    assert not list(checkout.folder.rglob("hacked"))


@pytest.mark.K9
@pytest.mark.parametrize("name", HOSTILE)
def test_a_checkout_of_any_name_works(tmp_path: Path, root: Path, name: str) -> None:
    checkout = Checkout(tmp_path / name, root)
    for target in ("help", "setup", "report", "test", "history", "gate", "peers"):
        done = checkout.make(target)
        assert done.returncode == 0, done.stderr
        if target == "report":
            address = f"file://{checkout.folder}/reports/site/index.html"
            assert done.stdout.endswith(f"The page: {address}\n")
    assert not list(tmp_path.rglob("hacked"))


@pytest.mark.K9
def test_words_for_the_gate_are_lines(checkout: Checkout) -> None:
    told = '--base-python=a b/$(x)\'*/python\n--head-python="c"/python'
    checkout.program(
        checkout.folder / ".venv/bin/python",
        RECORDER + f'case "$2" in *.environments) cat <<"END"\n{told}\nEND\nesac\n',
    )
    assert checkout.make("gate").returncode == 0
    gate = checkout.calls()[-1]
    assert gate[3:7] == ["--base=HEAD~1", "--head=HEAD", *told.split("\n")]
