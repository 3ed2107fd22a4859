"""What is printed: nothing from elsewhere steers a terminal, a full disk is told in one line."""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reference_model.command_line import exit_status
from reference_model.printing import clean, say, warn

pytestmark = pytest.mark.K8


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("safe\x9b31m", r"safe\x9b31m"),
        ("a\rb\x00\x7f", r"a\rb\x00\x7f"),
        ("txt.\u202eexe\u202c", r"txt.\u202eexe\u202c"),
        ("\u2066a\u2069\u200e\u061c", r"\u2066a\u2069\u200e\u061c"),
        ("one\u2028two\u2029", r"one\u2028two\u2029"),
        ("half \udcff", r"half \udcff"),
        ("hid\u200bden\ufeff\U000e0041", r"hid\u200bden\ufeff\U000e0041"),
        ("\ufff9a\ufffab\ufffb\u2060\u206f", r"\ufff9a\ufffab\ufffb\u2060\u206f"),
        ("a\nb\tc", r"a\nb\tc"),
    ],
)
def test_what_steers_a_terminal_or_is_unseen_is_spelled_out(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_letters_of_all_scripts_and_what_they_are_spelled_with_stay() -> None:
    text = "γ = 0.5 ± 1 \xa0 é e\u0301 שלום مرحبا می\u200cخواهم हिन्दी 漢字 👩\u200d💻 ✓"
    assert clean(text) == text


def test_of_several_lines_only_their_ends_and_tabs_stay() -> None:
    assert clean("a\n\tb\r\n\x1bc\u2028", lines=True) == "a\n\tb\\r\n\\x1bc\\u2028"


def test_what_is_said_and_warned_of_is_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\n\x1b[1mb")
    warn("c\n\x1b[1md")
    warn("e\n\x1bf", lines=True)
    assert capsys.readouterr() == ("a\n\\x1b[1mb\n", "c\\n\\x1b[1md\ne\n\\x1bf\n")


def test_what_the_encoding_lacks_is_spelled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    say("✓ ok")
    assert narrow.buffer.getvalue() == b"\\u2713 ok\n"  # type: ignore[attr-defined]


def speaking(redirection: str, said: str = "import sys; say('told')") -> tuple[int, str, str]:
    """Exit status, output and errors of a process that says a word, under a shell's redirection."""
    program = (
        "from reference_model.command_line import Parser, exit_status\n"
        "from reference_model.printing import say, warn\n"
        f"def command():\n    {said}\n"
        "raise SystemExit(exit_status(command))"
    )
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {redirection}', sys.executable, program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("said", ["say('told')", "Parser().parse_args(['--help'])"])
def test_a_full_disk_behind_the_output_is_one_line_and_status_2(said: str) -> None:
    status, _, errors = speaking(">/dev/full", said)
    assert (status, errors.count("\n")) == (2, 1)
    assert errors.startswith("error: cannot write to the standard output (No space left on device)")


def test_an_output_that_is_closed_is_one_line_and_status_2() -> None:
    status, _, errors = speaking(">&-")
    assert (status, errors.count("\n")) == (2, 1)
    assert errors.startswith("error: cannot write to the standard output (it is closed)")


def test_a_reader_that_has_seen_enough_ends_nothing() -> None:
    said = "import time; [say('y' * 9999) for _ in range(99)]; warn('at its end'); return 7"
    status, output, errors = speaking("| { head -c 3; }; exit 0", said)
    assert (status, output, errors) == (0, "yyy", "at its end\n")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_errors_that_cannot_be_told_change_neither_the_output_nor_the_status(
    redirection: str,
) -> None:
    assert speaking(redirection, "warn('lost'); say('told'); return 3") == (3, "told\n", "")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_a_progress_bar_that_cannot_be_shown_costs_no_work(redirection: str) -> None:
    said = (
        "from reference_model.printing import ErrorsForProgress; from tqdm import tqdm; "
        "bar = tqdm([1, 2], file=ErrorsForProgress(), dynamic_ncols=True); "
        "bar.write('a trace', file=ErrorsForProgress()); say(sum(bar))"
    )
    assert speaking(redirection, said) == (0, "3\n", "")


def test_a_mistake_is_one_line_whatever_it_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    from reference_model.errors import UserError

    def command() -> None:
        raise UserError("cannot read a\nb\x1b[2J\udcff; name another")

    assert exit_status(command) == 2
    assert capsys.readouterr().err == "error: cannot read a\\nb\\x1b[2J\\udcff; name another\n"


def test_nothing_prints_past_the_cleaning(root: Path) -> None:
    """`print` is for lines to another process alone, and those name it by ``file=``."""
    past = []
    for room in ("reference_model", "benchmarks", "reports"):
        for path in (root / room).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if not re.search(r"print\(|std(out|err)\.write", text):  # few have to be parsed
                continue
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call) and _prints(node):
                    past.append(f"{path.relative_to(root)}:{node.lineno}")
    # A background load's one word to who started it; a checkout that cannot import this module.
    assert {place.partition(":")[0] for place in past} == {
        "reference_model/printing.py",
        "reports/gate/validation/background_load.py",
        "reports/gate/__main__.py",
    }


def _prints(call: ast.Call) -> bool:
    written = ast.unparse(call.func)
    to = next((ast.unparse(k.value) for k in call.keywords if k.arg == "file"), "sys.stdout")
    in_print = written == "print" and to in ("sys.stdout", "sys.stderr")
    return in_print or written in ("sys.stdout.write", "sys.stderr.write")
