"""The branch of results: real repositories, pushes at once, and nothing that is lost."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.data.git import git, run_git
from reference_model.errors import UserError
from reports.history.store import BRANCH, _merge_folder, bring, keep, merged

# Fifty by LLM_DESIGN_BENCH_TRIALS=50: the figure in .ci/README.md.
TRIALS = int(os.environ.get("LLM_DESIGN_BENCH_TRIALS", "1"))
AT_ONCE = 4
COLUMNS = ["result", "params", "version", "started_at"]


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for who, what in itertools.product(("AUTHOR", "COMMITTER"), ("NAME", "EMAIL")):
        monkeypatch.setenv(f"GIT_{who}_{what}", "store@example.invalid")


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet", "--bare", "remote.git")
    return tmp_path / "remote.git"


def clone(remote: Path, name: str) -> Path:
    folder = remote.parent / name
    run_git(remote.parent, "clone", "--quiet", str(remote), name)  # which warns: it is empty
    return folder


def content(started_at: float = 1.0, **results: Any) -> dict[str, Any]:
    """A result file of asv's: each benchmark has one parameter with as many values as results."""
    rows = {
        name: [value, [[str(n) for n in range(len(value or [0]))]], "1", started_at]
        for name, value in results.items()
    }
    run = {"params": {"machine": "any"}, "requirements": {}, "env_name": "env"}
    told = {"commit_hash": "a" * 40, "date": 0, "python": "3.12", **run, "version": 2}
    return {**told, "result_columns": COLUMNS, "results": rows}


def write(folder: Path, name: str, what: Any) -> None:
    path = folder / ".asv/results" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(what if isinstance(what, str) else json.dumps(what))


def read(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / ".asv/results" / name).read_text())


def kept(folder: Path) -> bool:
    return keep(folder, "origin", folder / ".asv/results", "results", pause=lambda seconds: None)


def test_results_come_back_from_the_branch_as_they_were_kept(remote: Path) -> None:
    one, two = clone(remote, "one"), clone(remote, "two")
    write(one, "local/aaaa-env.json", content(time_step=[1.5]))
    write(one, "local/machine.json", {"machine": "local", "version": 1})
    assert kept(one)
    assert bring(two, "origin", two / ".asv/results") == 2
    assert read(two, "local/aaaa-env.json") == content(time_step=[1.5])
    assert bring(two, "origin", two / ".asv/results") == 0


def test_a_branch_that_has_everything_gets_no_commit(remote: Path) -> None:
    one = clone(remote, "one")
    write(one, "local/aaaa-env.json", content(time_step=[1.5]))
    assert kept(one)
    before = git(remote, "rev-parse", BRANCH)
    assert not kept(one)
    assert git(remote, "rev-parse", BRANCH) == before


def test_neither_the_index_nor_the_files_of_the_repository_are_touched(remote: Path) -> None:
    one = clone(remote, "one")
    (one / "mine.txt").write_text("mine")
    git(one, "add", "mine.txt")
    write(one, "local/aaaa-env.json", content(time_step=[1.5]))
    kept(one)
    assert git(one, "status", "--porcelain").splitlines() == ["A  mine.txt", "?? .asv/"]
    assert git(remote, "ls-tree", "-r", "--name-only", BRANCH) == "local/aaaa-env.json"


def test_two_runs_of_one_commit_keep_the_benchmarks_of_both(remote: Path) -> None:
    one, two = clone(remote, "one"), clone(remote, "two")
    write(one, "local/aaaa-env.json", content(time_step=[1.5], track_bytes=[7]))
    write(two, "local/aaaa-env.json", content(time_other=[2.5]))
    assert kept(one)
    assert kept(two)
    bring(one, "origin", one / ".asv/results")
    assert read(one, "local/aaaa-env.json")["results"].keys() == {
        "time_step", "track_bytes", "time_other",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "theirs", "stays"),
    [
        ((2.0, [1.5]), (1.0, [9.0]), [1.5]),
        ((1.0, [1.5]), (2.0, [9.0]), [9.0]),
        ((2.0, None), (1.0, [9.0]), [9.0]),
        ((2.0, [None, 1.5]), (1.0, [9.0, 8.0]), [9.0, 8.0]),
        ((2.0, [float("nan")]), (1.0, [9.0]), [9.0]),
        ((1.0, [1.5]), (1.0, [9.0]), [1.5]),
    ],
    ids=["later", "earlier", "failed", "failed in part", "skipped", "at once"],
)
def test_the_later_measurement_stays_and_a_failure_replaces_none(
    ours: tuple, theirs: tuple, stays: list
) -> None:
    found = merged(content(ours[0], time_step=ours[1]), content(theirs[0], time_step=theirs[1]))
    assert found["results"]["time_step"][0] == stays


def test_a_benchmark_that_lost_a_parameter_is_replaced_by_its_later_form() -> None:
    before, after = content(1.0, time_step=[9.0, 8.0]), content(2.0, time_step=[1.5])
    after["results"]["time_step"][1] = [["one"]]
    assert merged(before, after)["results"]["time_step"][0] == [1.5]


def test_two_processors_under_one_name_are_never_joined_and_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours, theirs = content(1.0, time_step=[1.5]), content(2.0, time_step=[9.0], time_other=[8.0])
    ours["params"], theirs["params"] = {"cpu": "one"}, {"cpu": "two"}
    assert merged(ours, theirs) == theirs
    assert "two processors use one machine's name at aaaaaaaa" in capsys.readouterr().err


def test_files_of_other_columns_are_merged_by_the_columns_names() -> None:
    theirs = {
        **content(),
        "result_columns": ["started_at", "result", "duration"],
        "results": {"time_step": [5.0, [9.0], 3.0]},
    }
    both = merged(content(1.0, time_step=[1.5], time_other=[2.5]), theirs)
    assert both["result_columns"] == [*COLUMNS, "duration"]
    assert both["results"]["time_other"] == [[2.5], [["0"]], "1", 1.0]
    assert both["results"]["time_step"] == [[9.0], None, None, 5.0, 3.0]


@pytest.mark.K8
@pytest.mark.parametrize(
    "damaged",
    [
        '{"results": {',
        "[]",
        json.dumps({**content(), "results": []}),
        json.dumps({**content(), "results": {"time_step": [1]}}),
        json.dumps({**content(), "results": {"time_step": None}}),
        json.dumps({**content(time_step=[1.0]), "result_columns": ["result", [], "params"]}),
        json.dumps(content("soon", time_step=[1.0])),  # type: ignore[arg-type]
        json.dumps(content(time_step=[10**400])),
        "[" * 100_000,
    ],
    ids=[
        "cut off", "a list", "a list of rows", "a number of a result", "no row", "strange columns",
        "a strange date", "an endless number", "deep",
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_and_takes_no_place_of_a_whole_one(
    remote: Path, capsys: pytest.CaptureFixture[str], damaged: str
) -> None:
    one = clone(remote, "one")
    write(one, "local/aaaa-env.json", content(time_step=[1.5]))
    kept(one)
    write(one, "local/aaaa-env.json", damaged)
    write(one, "local/bbbb-env.json", damaged)
    assert not kept(one)
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in told] == [
        "skipped local/aaaa-env.json",
        "skipped local/bbbb-env.json",
    ]
    assert git(remote, "ls-tree", "-r", "--name-only", BRANCH) == "local/aaaa-env.json"


@pytest.mark.K6
def test_a_folder_on_the_branch_that_is_a_link_leads_to_no_file_outside(
    remote: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, outside = clone(remote, "one"), tmp_path / "outside"
    outside.mkdir()
    (folder / ".asv/results").mkdir(parents=True)
    (folder / ".asv/results/local").symlink_to(outside)
    other = clone(remote, "other")
    write(other, "local/x.json", content())
    assert _merge_folder(other / ".asv/results", folder / ".asv/results") == 0
    assert list(outside.iterdir()) == []
    assert (
        capsys.readouterr().err == "skipped local/x.json: it leads out of the folder of results\n"
    )


@pytest.mark.K8
def test_what_lies_where_the_branch_has_a_file_stays_and_is_named(
    remote: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = clone(remote, "one"), clone(remote, "two")
    for name in ("aaaa", "bbbb", "cccc"):
        write(one, f"local/{name}-env.json", content(time_step=[1.5]))
    assert kept(one)
    there = two / ".asv/results/local"
    there.mkdir(parents=True)
    os.mkfifo(there / "aaaa-env.json")
    (there / "bbbb-env.json").symlink_to("bbbb-env.json")
    assert bring(two, "origin", two / ".asv/results") == 1
    assert (there / "aaaa-env.json").is_fifo()
    assert (there / "bbbb-env.json").is_symlink()
    told = [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()]
    assert told == ["skipped local/aaaa-env.json", "skipped local/bbbb-env.json"]


@pytest.mark.parametrize("trial", range(TRIALS))
def test_nothing_is_lost_of_pushes_that_come_at_once(remote: Path, trial: int) -> None:
    """Each of several processes keeps a file of its own and a benchmark in a file of all."""
    names = [f"machine{number}" for number in range(AT_ONCE)]
    for name in names:
        folder = clone(remote, name)
        write(folder, f"{name}/aaaa-env.json", content(time_step=[trial]))
        write(folder, "shared/aaaa-env.json", content(**{f"time_{name}": [trial]}))
        write(folder, "benchmarks.json", {f"time_{name}": {"unit": "seconds"}, "version": 2})
    started = [
        subprocess.Popen(
            [sys.executable, "-P", "-m", "reports.history.store", "keep"],
            cwd=remote.parent / name,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    assert [(process.wait(), process.communicate()[1]) for process in started] == [
        (0, "")
    ] * AT_ONCE
    last = clone(remote, "last")
    bring(last, "origin", last / ".asv/results")
    assert set(read(last, "shared/aaaa-env.json")["results"]) == {f"time_{name}" for name in names}
    assert {f"time_{name}" for name in names} < read(last, "benchmarks.json").keys()
    for name in names:
        assert read(last, f"{name}/aaaa-env.json") == content(time_step=[trial])


@pytest.mark.K4
def test_what_is_kept_are_the_bytes_of_the_files_whatever_the_user_has_set(
    remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = clone(remote, "one"), clone(remote, "two")
    settings = one / "settings"
    for name, value in (
        ("core.autocrlf", "input"),
        ("core.attributesFile", str(one / "attributes")),
        ("filter.spoil.clean", "echo spoilt"),
        ("filter.spoil.smudge", "echo spoilt"),
        ("core.hooksPath", str(one / "hooks")),
        ("push.followTags", "true"),
        ("core.splitIndex", "true"),
    ):
        git(one, "config", "--file", str(settings), name, value)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    (one / "attributes").write_text("*.json filter=spoil text\n")
    (one / "hooks").mkdir()
    hook = one / "hooks/pre-push"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    text = json.dumps(content(time_step=[1.5]), indent=1).replace("\n", "\r\n")
    write(one, "local/aaaa-env.json", text)
    assert kept(one)
    git(one, "fetch", "--quiet", "origin", BRANCH)
    git(one, "tag", "--annotate", "--message", "mine", "mine", "FETCH_HEAD")
    write(one, "local/bbbb-env.json", text)
    assert kept(one)
    assert bring(two, "origin", two / ".asv/results") == 2
    for name in ("aaaa", "bbbb"):
        written = two / f".asv/results/local/{name}-env.json"
        assert written.read_bytes() == text.encode()
    assert git(remote, "tag") == ""
    assert not list((one / ".git").glob("sharedindex*"))


@pytest.mark.K8
def test_what_is_no_file_among_the_results_is_named_and_never_read(
    remote: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = clone(remote, "one")
    write(one, "local/aaaa-env.json", content(time_step=[1.5]))
    folder = one / ".asv/results/local"
    (tmp_path / "secret").write_text(json.dumps(content(time_step=[9.0])))
    (folder / "link.json").symlink_to(tmp_path / "secret")
    (folder / "nowhere.json").symlink_to(tmp_path / "nowhere")
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "pipe.json")
    (one / ".asv/results/other").symlink_to(folder)
    assert kept(one)
    names = ["folder.json", "link.json", "nowhere.json", "pipe.json"]
    told = [line.partition(": ")[0] for line in capsys.readouterr().err.splitlines()]
    assert told == [*(f"skipped local/{name}" for name in names), "skipped other"]
    assert git(remote, "ls-tree", "-r", "--name-only", BRANCH) == "local/aaaa-env.json"


@pytest.mark.K8
def test_a_link_on_the_branch_reads_nothing_of_whoever_brings_it(
    remote: Path, tmp_path: Path
) -> None:
    one = clone(remote, "one")
    (tmp_path / "secret").write_text(json.dumps(content(time_step=[9.0])))
    place = git(one, "hash-object", "-w", "--stdin", given=str(tmp_path / "secret"))
    tree = git(one, "mktree", given=f"120000 blob {place}\tlink.json\n")
    commit = git(one, "commit-tree", tree, "-m", "a link")
    git(one, "push", "--quiet", "origin", f"{commit}:refs/heads/{BRANCH}")
    assert bring(one, "origin", one / ".asv/results") == 0


def test_a_remote_that_refuses_is_named_and_not_asked_for_ever(remote: Path) -> None:
    one = clone(remote, "one")
    hook = remote / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    write(one, "local/aaaa-env.json", content(time_step=[1.5]))
    refused = r"origin refuses asv-results: .*pre-receive hook declined"
    with pytest.raises(UserError, match=refused):
        kept(one)


def test_a_folder_without_results_is_refused(remote: Path) -> None:
    with pytest.raises(UserError, match="make history writes it"):
        kept(clone(remote, "one"))


def test_keeping_needs_nothing_but_the_standard_library(root: Path) -> None:
    """The job that may push runs it without a single installed package."""
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-m", "reports.history.store", "--help"],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
