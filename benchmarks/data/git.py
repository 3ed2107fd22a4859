"""All of git, by settings that are fixed here: the user's own change no answer.

What git warns of is read as well: a warning about what was asked for is an error. Line ends alone
are left to the user, since git has to read a work tree by the settings that wrote it; `git_export`
writes files as they are stored.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import IO, NamedTuple

from reference_model.errors import UserError

SETTINGS = {
    "core.hooksPath": "/dev/null",  # git knows that name on Windows, too
    "core.fsmonitor": "false",  # a program that says which files have changed
    "core.splitIndex": "false",  # a part of our own index would stay in the repository
    "core.quotePath": "false",
    "core.warnAmbiguousRefs": "true",
    "log.showSignature": "false",  # what gpg says would stand before the commit
    "i18n.logOutputEncoding": "UTF-8",
    "color.ui": "false",
    "commit.gpgSign": "false",  # it may ask for a password
    "push.gpgSign": "false",
    "push.followTags": "false",  # nothing but what is named
    "gc.auto": "0",  # in the background, beside what is measured
    "maintenance.auto": "false",
    "advice.graftFileDeprecated": "false",
}
# Of git's variables, those say who the user is, and how remotes, settings and repositories are
# found. All others would change what is asked or answered: a hook's GIT_DIR, GIT_TRACE.
KEPT = re.compile(
    "GIT_(AUTHOR_|COMMITTER_|SSH|SSL_|HTTP_|PROXY_|ASKPASS$|ALLOW_PROTOCOL$|EXEC_PATH$"
    "|CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|KEY_|VALUE_)"
    "|CEILING_DIRECTORIES$|DISCOVERY_ACROSS_FILESYSTEM$)"
)
VARIABLES = {
    "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0",  # a missing password is an error and no question
    "GIT_OPTIONAL_LOCKS": "0",
    **dict.fromkeys(("GIT_TRACE2", "GIT_TRACE2_EVENT", "GIT_TRACE2_PERF"), "0"),
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",  # commits as they are, not what somebody shows in their place
    "GIT_GRAFT_FILE": os.devnull,  # parents, too
}
OF_OTHERS = ("GIT_TERMINAL_PROMPT", "GIT_NO_REPLACE_OBJECTS", "GIT_GRAFT_FILE")
# Warnings about something other than the answer.
HARMLESS = re.compile("unable to access '.*': Permission denied|.* will be replaced by (CR)?LF")
MOST_TOLD = 400  # characters of what git says

Done = subprocess.CompletedProcess[str]


def run_git(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None, given: str = ""
) -> Done:
    """Whatever its exit status; ``given`` is its input. `UserError` where there is no git.

    Texts are as UTF-8 has them; what is none has marks in its place.
    """
    try:
        done = subprocess.run(
            _command(folder, *arguments),
            env=_variables() | dict(environment or {}),
            input=given.encode("utf-8", "surrogateescape"),
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise _unusable(error) from None
    # By hand, since Python's texts have no carriage returns.
    stdout, stderr = (each.decode("utf-8", "replace") for each in (done.stdout, done.stderr))
    return Done(done.args, done.returncode, stdout, stderr)


def git(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None, given: str = ""
) -> str:
    """What git answers, without the last line's end.

    `UserError` with what it said where it fails or warns.
    """
    return answer(run_git(folder, *arguments, environment=environment, given=given))


def answer(done: Done) -> str:
    """As `git`, of one that has run."""
    warned = [
        line.partition(": ")[2]
        for line in done.stderr.splitlines()
        if line.startswith(("warning: ", "error: "))
    ]
    if done.returncode != 0:
        raise UserError(f"git {_subcommand(done)} failed: {told(done)}")
    if touching := [text for text in warned if not HARMLESS.match(text)]:
        raise UserError(f"git {_subcommand(done)} warns: {touching[0][:MOST_TOLD]}")
    return done.stdout.removesuffix("\n")


def told(done: Done) -> str:
    """What git said, in one line and without its hints."""
    lines = (line for line in done.stderr.splitlines() if not line.startswith("hint:"))
    said = " ".join(" ".join(lines).split())[:MOST_TOLD]
    return said or f"exit status {done.returncode}"


def top_of(folder: Path) -> Path:
    """The work tree that ``folder`` lies in; `UserError` where there is none."""
    # Going up instead of git's own path of it: that may not be UTF-8.
    inside, *up = git(folder, "rev-parse", "--is-inside-work-tree", "--show-cdup").split("\n")
    if inside != "true":
        raise UserError(f"{folder} is in no work tree of git; go to a checkout")
    return (folder / "".join(up)).resolve()


class Change(NamedTuple):
    """``path`` is relative to the top of the work tree."""

    path: str
    untracked: bool


def changes(folder: Path) -> list[Change]:
    """What differs from the commit that is checked out, and the files that git does not know."""
    listed = git(
        folder, "status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames",
        "--ignore-submodules=none",
    )  # fmt: skip
    return [Change(entry[3:], entry.startswith("??")) for entry in listed.split("\0") if entry]


def for_others() -> dict[str, str]:
    """Variables for a program that calls git by itself, in checkouts of its own."""
    variables = _inherited() | {name: VARIABLES[name] for name in OF_OTHERS}
    named = variables.get("GIT_CONFIG_COUNT", "")
    count = int(named) if named.isdecimal() else 0
    settings = SETTINGS | {"core.autocrlf": "false"}
    for at, (name, value) in enumerate(settings.items(), start=count):
        variables |= {f"GIT_CONFIG_KEY_{at}": name, f"GIT_CONFIG_VALUE_{at}": value}
    return variables | {"GIT_CONFIG_COUNT": str(count + len(settings))}


@contextmanager
def started(folder: Path, *arguments: str, given: IO[bytes] | int = DEVNULL) -> Iterator[IO[bytes]]:
    """The output of a command that runs meanwhile; `UserError` at the end where it failed."""
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                _command(folder, *arguments),
                env=_variables(),
                stdin=given,
                stdout=PIPE,
                stderr=said,
            )
        except OSError as error:
            raise _unusable(error) from None
        cut_off = None
        with process:
            assert process.stdout is not None
            try:
                yield process.stdout
            except EOFError as error:
                cut_off = error
            except BaseException:
                process.kill()
                raise
        said.seek(0)
        done = Done(process.args, process.returncode, "", said.read().decode("utf-8", "replace"))
        answer(done)
        if cut_off:
            raise UserError(f"git {_subcommand(done)} ended too early: {told(done)}")


def _command(folder: Path, *arguments: str) -> list[str]:
    settings = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
    return ["git", "-C", str(folder), "--no-pager", *settings, *arguments]


def _subcommand(done: Done) -> str:
    return str(done.args[len(_command(Path()))])


def _variables() -> dict[str, str]:
    return _inherited() | VARIABLES


def _inherited() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or KEPT.match(name)
    }


def _unusable(error: OSError) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError("git is not installed; install it (Debian: apt install git)")
    return UserError(f"git cannot be started ({error.strerror}); see to its installation")
