"""The checkouts: which commits are compared, and that each measures its own model and no other."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.data.git import git
from benchmarks.gate_worker import tree_hash
from reference_model.errors import UserError
from reports.gate.checkouts import check_origin, checked_out
from reports.gate.revisions import changed_environment
from reports.gate.verdict import NotComparable
from reports.gate.workers import running


def test_each_arm_has_its_own_model_and_heads_benchmarks(repository) -> None:
    base = repository.commit()
    repository.write("benchmarks/bench_new.py", "")
    (repository.path / "benchmarks" / "bench_gate.py").unlink()
    head = repository.commit(model="BYTES = 7\n")
    with checked_out(repository.path, base, head) as checkouts:
        models = [(a.folder / "reference_model/__init__.py").read_text() for a in checkouts]
        suites = [sorted(p.name for p in (a.folder / "benchmarks").iterdir()) for a in checkouts]
        assert "step" in models[0]
        assert models[1] == "BYTES = 7\n"
        assert suites[0] == suites[1]
        assert "bench_new.py" in suites[0]
        assert "bench_gate.py" not in suites[0]
        assert len(str(checkouts[0].folder)) == len(str(checkouts[1].folder))
        folder = checkouts[0].folder.parent
    assert not folder.exists()
    assert len(repository.git("worktree", "list").splitlines()) == 1


def test_the_checkouts_are_removed_after_a_failure_too(repository) -> None:
    folders = []

    def fail(checkouts) -> None:
        folders.append(checkouts[0].folder.parent)
        raise RuntimeError

    with pytest.raises(RuntimeError), checked_out(repository.path, "HEAD", "HEAD") as checkouts:
        fail(checkouts)
    assert not folders[0].exists()
    assert len(repository.git("worktree", "list").splitlines()) == 1


@pytest.mark.parametrize(("base", "head"), [("nowhere", "HEAD"), ("HEAD", "--help")])
def test_an_unknown_revision_is_named(repository, base: str, head: str) -> None:
    with (
        pytest.raises(UserError, match=r"'(nowhere|--help)' names no commit"),
        checked_out(repository.path, base, head),
    ):
        pass


@pytest.mark.K4
@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("reference_model/more.py", "git stash --include-untracked"),
        ("benchmarks/bench_new.py", "git stash --include-untracked"),
        ("reference_model/__init__.py", "git stash"),
        ("requirements.txt", "git stash"),
        ("torch.py", "git stash"),  # which the model may import
    ],
)
def test_uncommitted_changes_to_what_is_compared_are_refused_and_the_advice_helps(
    repository, path: str, advice: str
) -> None:
    base = repository.git("rev-parse", "HEAD")
    head = repository.commit()
    repository.write(path, "CHANGED = True\n")
    with (
        pytest.raises(UserError, match=f"1 uncommitted changes, such as {path}, .*: {advice}$"),
        checked_out(repository.path, base, head),
    ):
        pass
    subprocess.run(advice.split(), cwd=repository.path, check=True, capture_output=True)
    with checked_out(repository.path, base, head):
        pass


@pytest.mark.K4
def test_what_is_neither_measured_nor_imported_may_change(repository) -> None:
    repository.write("README.md", "")
    repository.commit()
    repository.write("README.md", "changed")
    repository.write("notes.txt", "")
    repository.write("scripts/try.py", "")
    with checked_out(repository.path, "HEAD", "HEAD"):
        pass
    repository.write("reference_model/more.py", "")
    with checked_out(repository.path, "HEAD~1", "HEAD~1"):
        pass  # of what is checked out nothing is compared


@pytest.mark.K4
@pytest.mark.parametrize("kind", ["autocrlf", "attributes", "hook", "filter", "sparse"])
def test_what_a_checkout_would_make_of_the_files_is_not_measured(
    repository, tmp_path: Path, kind: str
) -> None:
    """Each of these made a worktree whose files were not those of the commit, or none at all."""
    marker = tmp_path / "ran"
    if kind == "autocrlf":
        repository.git("config", "core.autocrlf", "true")
    elif kind == "attributes":
        repository.write(".gitattributes", "*.py text eol=crlf ident\n")
    elif kind == "hook":
        hook = repository.path / ".git/hooks/post-checkout"
        hook.write_text(f"#!/bin/sh\ntouch {marker} reference_model/more.py\nexit 1\n")
        hook.chmod(0o755)
    elif kind == "filter":
        repository.write(".gitattributes", "*.py filter=spoil\n")
        repository.git("config", "filter.spoil.smudge", f"touch {marker}; echo spoilt")
    else:
        repository.git("sparse-checkout", "set", "docs")
    repository.git("commit", "--quiet", "--allow-empty", "--message", "attributes")
    with (
        checked_out(repository.path, "HEAD~1", "HEAD") as checkouts,
        running(checkouts, "cpu", random.Random(0)) as (_, hellos),
    ):
        assert [hello["tree"] for hello in hellos] == [
            checkout.model_tree for checkout in checkouts
        ]
        assert repository.git("worktree", "list").count("\n") == 0
    assert not marker.exists()


@pytest.mark.K4
def test_a_repository_of_longer_hashes_is_compared_as_well(repository, tmp_path: Path) -> None:
    shutil.rmtree(repository.path / ".git")
    repository.git("init", "--quiet", "--object-format=sha256")
    for name in ("user.name", "user.email"):
        repository.git("config", name, "test")
    assert len(repository.commit()) == 64
    with (
        checked_out(repository.path, "HEAD", "HEAD") as checkouts,
        running(checkouts, "cpu", random.Random(0)) as (_, hellos),
    ):
        assert [len(hello["tree"]) for hello in hellos] == [64, 64]


@pytest.mark.K4
@pytest.mark.parametrize("keeper", ["a submodule", "kept by git-lfs"])
def test_a_model_whose_content_git_does_not_store_is_refused_by_name(
    repository, keeper: str
) -> None:
    if keeper == "a submodule":
        entry = f"160000 {'1' * 40}\treference_model/weights"
        git(repository.path, "update-index", "--index-info", given=entry)
        repository.git("commit", "--quiet", "--message", "a submodule")
        (repository.path / "reference_model/weights").mkdir()
    else:
        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
        repository.write("reference_model/weights", pointer)
        repository.commit()
    with (
        pytest.raises(UserError, match=f"reference_model/weights of .* is {keeper}"),
        checked_out(repository.path, "HEAD", "HEAD"),
    ):
        pass


def test_a_link_in_the_model_may_lead_nowhere(repository) -> None:
    (repository.path / "reference_model/link").symlink_to("nowhere")
    repository.commit()
    with (
        checked_out(repository.path, "HEAD", "HEAD") as checkouts,
        running(checkouts[:1], "cpu", random.Random(0)),
    ):
        assert (checkouts[0].folder / "reference_model/link").is_symlink()


def test_a_shallow_clone_is_refused(repository, tmp_path: Path) -> None:
    repository.commit()
    address = f"file://{repository.path}"
    repository.git("clone", "--quiet", "--depth=1", address, str(tmp_path / "shallow"))
    with (
        pytest.raises(UserError, match="git fetch --unshallow"),
        checked_out(tmp_path / "shallow", "HEAD", "HEAD"),
    ):
        pass


def test_a_head_that_is_older_than_the_gate_is_refused(repository) -> None:
    (repository.path / "benchmarks" / "gate_worker.py").unlink()
    repository.commit()
    with (
        pytest.raises(UserError, match="must not be older than the gate"),
        checked_out(repository.path, "HEAD", "HEAD"),
    ):
        pass


# ---- environments


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"pins": "torch==2.14.0\n"}, "requirements.txt"),
        ({"project": '[project]\ndependencies = ["numpy"]\n'}, "dependencies"),
        ({"project": '[project]\n[build-system]\nrequires = ["flit"]\n'}, "build-system"),
    ],
)
def test_commits_that_need_different_packages_are_not_comparable_in_one_environment(
    repository, changed: dict[str, str], named: str
) -> None:
    base = repository.git("rev-parse", "HEAD")
    head = repository.commit(**changed)
    with (
        pytest.raises(NotComparable, match=named),
        checked_out(repository.path, base, head),
    ):
        pass
    with checked_out(repository.path, base, head, sys.executable, shutil.which("git")) as checkouts:
        assert [checkout.python for checkout in checkouts] == [sys.executable, shutil.which("git")]


def test_a_comment_and_the_settings_of_a_tool_change_no_environment(repository) -> None:
    base = repository.git("rev-parse", "HEAD")
    head = repository.commit(
        pins="# why\ntorch==2.13.0\n", project="[project]\n[tool.ruff]\nline-length = 90\n"
    )
    assert changed_environment(repository.path, base, head) is None


def test_a_relative_interpreter_is_the_one_of_the_callers_folder(
    repository, monkeypatch, tmp_path: Path
) -> None:
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    with checked_out(repository.path, "HEAD", "HEAD", "./python", "./python") as checkouts:
        assert {checkout.python for checkout in checkouts} == {str(tmp_path / "python")}


# ---- origin


def test_a_process_reports_the_tree_that_git_knows_its_model_by(repository, root: Path) -> None:
    with (
        checked_out(repository.path, "HEAD", "HEAD") as checkouts,
        running(checkouts, "cpu", random.Random(0)) as (_, hellos),
    ):
        assert [hello["tree"] for hello in hellos] == [
            checkout.model_tree for checkout in checkouts
        ]
        places = [Path(hello["reference_model"]).parent for hello in hellos]
        assert places == [checkout.folder for checkout in checkouts]


def test_an_installed_copy_does_not_come_before_the_checkouts_own(
    repository, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(root))  # where there is another reference_model
    with (
        checked_out(repository.path, "HEAD", "HEAD") as checkouts,
        running(checkouts[:1], "cpu", random.Random(0)) as (_, (hello,)),
    ):
        assert Path(hello["reference_model"]).parent == checkouts[0].folder


def test_a_model_that_was_changed_in_its_checkout_is_an_error(repository) -> None:
    with checked_out(repository.path, "HEAD", "HEAD") as checkouts:
        (checkouts[1].folder / "reference_model" / "more.py").touch()
        with (
            pytest.raises(UserError, match="its files were changed meanwhile"),
            running(checkouts, "cpu", random.Random(0)),
        ):
            pass


@pytest.mark.parametrize("package", ["reference_model", "benchmarks"])
def test_a_package_from_another_place_is_an_error(repository, package: str) -> None:
    with checked_out(repository.path, "HEAD", "HEAD") as (base, _):
        hello = {
            "reference_model": base.folder / "reference_model",
            "benchmarks": base.folder / "benchmarks",
            "tree": base.model_tree,
        }
        check_origin(base, hello)
        with pytest.raises(UserError, match=f"imported {package} from"):
            check_origin(base, {**hello, package: Path("elsewhere")})


def test_the_hash_of_a_folder_is_gits_own_with_links_folders_and_programs(
    repository, root: Path
) -> None:
    assert tree_hash(repository.path / "reference_model") == repository.git(
        "rev-parse", "HEAD:reference_model"
    )
    inner = repository.path / "reference_model" / "a"
    repository.write("reference_model/a/x.py", "1")
    repository.write("reference_model/a.py", "2")
    repository.write("reference_model/a/__pycache__/x.pyc", "3")
    (inner / "empty").mkdir()
    (inner / "run").write_text("4")
    (inner / "run").chmod(0o755)
    (inner / "link").symlink_to("x.py")
    repository.commit()
    found = tree_hash(repository.path / "reference_model")
    assert found == repository.git("rev-parse", "HEAD:reference_model")
