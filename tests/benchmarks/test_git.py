"""Git's answers: those of the repository, whatever the user has set, or an error in one line."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.data.git import changes, for_others, git, run_git, told, top_of
from reference_model.errors import UserError

pytestmark = pytest.mark.K4

WHO = "N <n@example.invalid> 0 +0000"


def as_the_user(folder: Path, *arguments: str) -> str:
    """What a bare call of git says: with the user's settings."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    return done.stdout.decode("utf-8", "replace").removesuffix("\n")


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what a user may have set for all repositories."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "settings"))
    (tmp_path / "settings").touch()

    def set_(name: str, value: str) -> None:
        as_the_user(tmp_path, "config", "--global", name, value)

    set_("user.name", "test")
    set_("user.email", "test@example.invalid")
    return set_


@pytest.fixture
def repository(tmp_path: Path, user: Callable[..., None]) -> Path:
    """Two commits, the second signed, and one file."""
    folder = tmp_path / "repository"
    git(tmp_path, "init", "--quiet", "--initial-branch=main", str(folder))
    (folder / "grün").write_bytes(b"one\r\ntwo\n")
    git(folder, "add", "--all")
    tree = git(folder, "write-tree")
    first = git(folder, "commit-tree", tree, "-m", "first")
    signed = f"tree {tree}\nparent {first}\nauthor {WHO}\ncommitter {WHO}\ngpgsig one\n\nzweitür\n"
    second = git(folder, "hash-object", "-t", "commit", "-w", "--stdin", given=signed)
    git(folder, "update-ref", "refs/heads/main", second)
    return folder


@pytest.mark.parametrize(
    ("name", "value", "question"),
    [
        ("log.showSignature", "true", ("log", "--format=%H")),
        ("i18n.logOutputEncoding", "latin1", ("log", "--format=%s")),
        ("color.ui", "always", ("log", "--oneline")),
        ("core.quotePath", "true", ("ls-tree", "HEAD")),
    ],
)
def test_an_answer_is_the_same_whatever_the_user_has_set(
    repository: Path, tmp_path: Path, user: Callable[..., None], name, value, question
) -> None:
    user("gpg.program", program(tmp_path / "gpg", "echo signed >&2"))
    user(name, "false")
    plain = as_the_user(repository, "-c", "i18n.logOutputEncoding=UTF-8", *question)
    user(name, value)
    assert as_the_user(repository, *question) != plain
    assert git(repository, *question) == plain


def test_a_file_that_changed_is_seen_whatever_a_monitor_of_files_says(
    repository: Path, tmp_path: Path, user: Callable[..., None]
) -> None:
    user("core.fsmonitor", program(tmp_path / "monitor", r"printf 'token\0'"))
    user("core.fsmonitorHookVersion", "2")
    as_the_user(repository, "update-index", "--fsmonitor")
    as_the_user(repository, "status")
    (repository / "grün").write_text("three")
    assert as_the_user(repository, "status", "--porcelain") == ""
    assert changes(repository) == [("grün", False)]


def test_a_file_that_git_does_not_know_is_seen_where_the_user_hides_them(
    repository: Path, user: Callable[..., None]
) -> None:
    user("status.showUntrackedFiles", "no")
    (repository / "new").mkdir()
    (repository / "new" / "file").touch()
    assert changes(repository) == [("new/file", True)]


def test_a_submodule_that_moved_is_seen_where_the_user_hides_them(
    repository: Path, user: Callable[..., None]
) -> None:
    user("diff.ignoreSubmodules", "all")
    git(repository, "init", "--quiet", "sub")
    for message in ("one", "two"):
        git(repository / "sub", "commit", "--quiet", "--allow-empty", "--message", message)
        if message == "one":
            entry = f"160000 {git(repository / 'sub', 'rev-parse', 'HEAD')}\tsub"
            git(repository, "update-index", "--index-info", given=entry)
            git(repository, "commit", "--quiet", "--allow-empty", "--message", "sub")
    assert changes(repository) == [("sub", False)]


def test_a_file_that_was_renamed_is_two_changes(repository: Path) -> None:
    git(repository, "mv", "grün", "blau")
    assert changes(repository) == [("blau", False), ("grün", False)]


def test_what_is_only_asked_about_is_not_written_to(repository: Path) -> None:
    os.utime(repository / "grün", (0, 0))  # git would note it
    before = (repository / ".git/index").read_bytes()
    changes(repository)
    assert (repository / ".git/index").read_bytes() == before


def test_a_path_is_no_pattern(repository: Path) -> None:
    assert git(repository, "ls-files", "--", "g*") == ""
    assert git(repository, "ls-files", "--", "grün") == "grün"


def test_line_ends_of_the_users_own_checkout_are_no_change(
    repository: Path, user: Callable[..., None]
) -> None:
    user("core.autocrlf", "true")
    (repository / "new").write_bytes(b"one\r\n")
    git(repository, "add", "new")
    git(repository, "commit", "--quiet", "--message", "new")
    os.utime(repository / "new", (0, 0))  # git has to read it again
    assert changes(repository) == []


@pytest.mark.parametrize("place", ["core.hooksPath", ".git/hooks"])
def test_hooks_are_not_run(
    repository: Path, tmp_path: Path, user: Callable[..., None], place: str
) -> None:
    hooks = tmp_path / "hooks" if place == "core.hooksPath" else repository / place
    hooks.mkdir(exist_ok=True)
    for hook in ("pre-commit", "post-commit", "post-checkout"):
        program(hooks / hook, "touch ran; exit 1")
    if place == "core.hooksPath":
        user(place, str(hooks))
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "third")
    git(repository, "checkout", "--quiet", "--detach", "HEAD~1")
    assert not list(tmp_path.rglob("ran"))


def test_a_commit_asks_for_no_signature(
    repository: Path, tmp_path: Path, user: Callable[..., None]
) -> None:
    user("commit.gpgSign", "true")
    user("gpg.program", program(tmp_path / "gpg", "exit 1"))
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "third")
    assert git(repository, "rev-list", "--count", "HEAD") == "3"


def test_commits_and_parents_are_those_that_were_committed(repository: Path) -> None:
    head, first = git(repository, "rev-list", "HEAD").split()
    as_the_user(repository, "replace", head, first)
    (repository / ".git/info/grafts").write_text(f"{head}\n")
    assert as_the_user(repository, "log", "--format=%s") == "first"
    assert git(repository, "log", "--format=%s") == "zweitür\nfirst"


def test_the_variables_of_a_hook_an_alias_or_a_search_for_faults_have_no_effect(
    repository: Path,
    tmp_path: Path,
    user: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = git(repository, "log", "--format=%H", "--", "grün")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "another"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "another" / "index"))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'core.worktree'='/'")
    monkeypatch.setenv("GIT_TRACE", "1")
    user("trace2.normalTarget", "2")
    done = run_git(repository, "log", "--format=%H", "--", "grün")
    assert (done.stdout.strip(), done.stderr) == (plain, "")


def test_git_speaks_english_and_asks_nobody(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LANG", "LC_ALL", "LC_MESSAGES", "LANGUAGE"):
        monkeypatch.setenv(name, "de_DE.UTF-8")
    variables = git(repository, "-c", "alias.variables=!env", "variables").splitlines()
    assert {"LC_ALL=C", "GIT_TERMINAL_PROMPT=0"} <= set(variables)
    assert git(repository, "-c", "alias.asked=!cat", "asked") == ""  # nothing to read


def test_settings_that_name_who_and_where_are_kept(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("COUNT", "1"), ("KEY_0", "safe.directory"), ("VALUE_0", "*")):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    monkeypatch.setenv("GIT_AUTHOR_NAME", "somebody")
    assert git(repository, "config", "safe.directory") == "*"
    assert git(repository, "var", "GIT_AUTHOR_IDENT").startswith("somebody <")


def test_a_program_that_calls_git_itself_meets_the_same_settings(
    repository: Path, tmp_path: Path, user: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("COUNT", "1"), ("KEY_0", "my.own"), ("VALUE_0", "kept")):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "another"))
    user("core.autocrlf", "true")
    user("core.hooksPath", str(tmp_path))
    program(tmp_path / "post-checkout", "exit 1")

    def called(*words: str) -> str:
        done = subprocess.run(["git", *words], env=for_others(), check=True, capture_output=True)
        return done.stdout.decode()

    called("clone", "--quiet", str(repository), str(tmp_path / "clone"))
    (repository / "plain").write_bytes(b"one\n")
    git(repository, "add", "plain")
    git(repository, "commit", "--quiet", "--message", "plain")
    called("-C", str(tmp_path / "clone"), "pull", "--quiet")
    assert (tmp_path / "clone/plain").read_bytes() == b"one\n"
    assert called("config", "my.own") == "kept\n"


# ---- warnings and failures


def test_a_name_of_two_things_is_an_error_even_where_the_user_wants_no_warning(
    repository: Path, user: Callable[..., None]
) -> None:
    user("core.warnAmbiguousRefs", "false")
    git(repository, "branch", "two")
    git(repository, "tag", "two", "HEAD~1")
    with pytest.raises(UserError, match=r"^git rev-parse warns: refname 'two' is ambiguous"):
        git(repository, "rev-parse", "two")


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, said: str, status: int = 0) -> None:
    """A git that says something on the standard error, and "answer"."""
    (folder / "said").write_text(said)
    (folder / "bin").mkdir()
    program(folder / "bin/git", f"cat '{folder}/said' >&2; echo answer; exit {status}")
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=os.pathsep)


@pytest.mark.parametrize(
    "warning",
    [
        "warning: could not open directory 'closed/': Permission denied",
        "error: refs/heads/main does not point to a valid object!",
    ],
)
def test_what_git_warns_of_beside_an_answer_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warning: str
) -> None:
    stand_in(tmp_path, monkeypatch, f"progress\n{warning}\nmore\n")
    with pytest.raises(UserError) as raised:
        git(tmp_path, "status")
    assert str(raised.value) == f"git status warns: {warning.partition(': ')[2]}"


@pytest.mark.parametrize(
    "said",
    [
        "warning: unable to access '~/.config/git/attributes': Permission denied\n",
        "warning: in the working copy of 'a', LF will be replaced by CRLF the next time\n",
        "hint: use git switch\n",
    ],
)
def test_what_git_says_about_something_else_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    stand_in(tmp_path, monkeypatch, said)
    assert git(tmp_path, "status") == "answer"


def test_a_repository_of_another_user_is_refused_in_one_line_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = (
        "fatal: detected dubious ownership in repository at '/a'\n"
        "To add an exception for this directory, call:\n\n"
        "\tgit config --global --add safe.directory /a\nhint: a hint\n"
    )
    stand_in(tmp_path, monkeypatch, said, 128)
    with pytest.raises(UserError) as raised:
        git(tmp_path, "rev-parse", "HEAD")
    assert str(raised.value) == (
        "git rev-parse failed: fatal: detected dubious ownership in repository at '/a' To add an "
        "exception for this directory, call: git config --global --add safe.directory /a"
    )


def test_a_machine_without_git_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="git is not installed"):
        git(tmp_path, "status")


def test_a_failure_without_a_word_is_told_by_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, "", 3)
    assert told(run_git(tmp_path, "status")) == "exit status 3"


# ---- texts and places


def test_texts_are_whole_and_what_is_not_utf8_has_marks(repository: Path) -> None:
    assert git(repository, "cat-file", "blob", "HEAD:grün") == "one\r\ntwo"
    (repository / "grün").write_bytes(b"  \xff\n\n")
    git(repository, "add", "--all")
    assert git(repository, "cat-file", "blob", ":grün") == "  �\n"


@pytest.mark.parametrize("name", ["a folder ", "two\nlines", os.fsdecode(b"\xff"), "-C"])
def test_the_top_of_a_work_tree_is_found_whatever_its_name(tmp_path: Path, name: str) -> None:
    top = tmp_path / name
    (top / "in" / "it").mkdir(parents=True)
    git(top, "init", "--quiet")
    assert top_of(top / "in" / "it") == top_of(top) == top.resolve()


def test_a_folder_without_a_work_tree_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a git repository"):
        top_of(tmp_path)
    git(tmp_path, "init", "--quiet", "--bare")
    with pytest.raises(UserError, match="is in no work tree of git"):
        top_of(tmp_path)
