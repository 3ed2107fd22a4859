"""CI: what the workflows may do, and the scripts that hold all of their logic."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
SCRIPTS = sorted(path.name for path in (ROOT / ".ci").iterdir())
TREE = "a 'tree' of \"$(touch hacked)\""  # a folder that a shell would take for something else
SAME_REPOSITORY = "github.event.pull_request.head.repo.full_name == github.repository"


def read(name: str) -> dict[str, Any]:
    found = yaml.safe_load((ROOT / ".github/workflows" / f"{name}.yml").read_text())
    found["on"] = found.pop(True)  # YAML 1.1 takes the word for a boolean
    return found


def jobs() -> list[Any]:
    return [
        pytest.param(path.stem, job, id=f"{path.stem}-{name}")
        for path in WORKFLOWS
        for name, job in read(path.stem)["jobs"].items()
    ]


def test_there_is_a_workflow_for_tests_gate_and_history() -> None:
    assert [path.stem for path in WORKFLOWS] == ["gate", "history", "test"]


@pytest.mark.parametrize(("workflow", "job"), jobs())
def test_every_step_runs_a_target_or_script_of_ours_or_an_action_pinned_by_commit(
    workflow: str, job: dict[str, Any]
) -> None:
    for step in job["steps"]:
        if "run" in step:
            if step["run"] == 'make report PROFILE="$PROFILE"':
                continue
            script = re.fullmatch(r"\.ci/([a-z-]+)( [-A-Za-z=$\" ]*)?", step["run"].strip())
            assert script, step["run"]
            assert script[1] in SCRIPTS
        else:
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_read_and_no_more_unless_a_job_says_why(path: Path) -> None:
    workflow = read(path.stem)
    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in workflow["on"]
    assert "workflow_run" not in workflow["on"]
    assert "secrets." not in path.read_text()


@pytest.mark.parametrize(("workflow", "job"), jobs())
def test_only_a_job_that_pushes_has_the_right_to_and_nothing_of_a_pull_request_has(
    workflow: str, job: dict[str, Any]
) -> None:
    pushes = job.get("permissions", {}).get("contents") == "write"
    for step in job["steps"]:
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is pushes
    if "pull_request" in read(workflow)["on"]:
        assert "permissions" not in job
    if pushes:  # and runs no installed package, nor what was measured
        assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/keep-history"]


@pytest.mark.parametrize(("workflow", "job"), jobs())
def test_a_runner_of_ones_own_takes_branches_of_the_same_repository_only(
    workflow: str, job: dict[str, Any]
) -> None:
    if "self-hosted" in job["runs-on"]:
        assert job["if"].split(" && ")[-1] == SAME_REPOSITORY
        assert "||" not in job["if"]


def test_results_are_kept_of_main_alone() -> None:
    history = read("history")
    assert set(history["on"]) == {"push", "schedule", "workflow_dispatch"}
    assert history["on"]["push"] == {"branches": ["main"]}
    for name in ("keep", "pages"):
        assert history["jobs"][name]["if"].endswith("github.ref == 'refs/heads/main'")


def test_every_supported_python_is_tested(root: Path) -> None:
    declared = re.search(r'requires-python = ">=(3\.\d+)"', (root / "pyproject.toml").read_text())
    assert declared
    tested = read("test")["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert declared[1] == tested[0]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [re.search(r"Python :: (3\.\d+)$", each) for each in project["classifiers"]]
    assert [each[1] for each in named if each] == tested


# ---- the scripts


def stand_in(folder: Path, script: str, python: str) -> Path:
    """A tree that has the script, a make that says what it was asked for, and that python."""
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / script, folder / ".ci")
    for name, text in ((".venv/bin/python", python), ("bin/make", 'echo "make $*" >>asked\n')):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(f"#!/bin/sh\n{text}")
        (folder / name).chmod(0o755)
    return folder


def run(folder: Path, script: str, *arguments: str, **variables: str) -> Any:
    """The script where nobody chose a commit or a machine: `make test` hands its own words on."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("BASE", "HEAD", "MACHINE")}
    inherited["PATH"] = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [folder / ".ci" / script, *arguments],
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


ENVIRONMENTS = """
if [ "$2" = reports.gate.environments ]; then
    echo "$ENVIRONMENTS"
    exit
fi
"""
GATE = f"""{{ printf '%s|' "$@"; echo; }} >>asked
{ENVIRONMENTS}
while [ "$1" != --markdown ]; do shift; done
echo "the summary" >"$2"
exit $STATUS
"""


@pytest.mark.parametrize(
    ("status", "exits"), [(0, 0), (10, 10), (11, 0), (12, 12), (13, 13)],
    ids=["pass", "regression", "inconclusive", "error", "not comparable"],
)  # fmt: skip
def test_only_an_inconclusive_gate_passes_with_a_warning(
    tmp_path: Path, status: int, exits: int
) -> None:
    tree, summary = stand_in(tmp_path / TREE, "gate", GATE), tmp_path / "summary"
    done = run(
        tree,
        *("gate", "--device", "cuda"),
        STATUS=str(status),
        GITHUB_STEP_SUMMARY=str(summary),
        ENVIRONMENTS="--base-python=one two\n--head-python=another",
    )
    assert done.returncode == exits, done.stderr
    assert ("::warning" in done.stdout) == (status == 11)
    assert ("::error" in done.stdout) == (status in (10, 12, 13))
    words = "--base-python=one two --head-python=another"
    told = f"What the commits need differs; they ran with `{words}`."
    assert summary.read_text() == f"the summary\n\n{told}\n"
    _, environments, gate = (tree / "asked").read_text().splitlines()
    assert environments == "-m|reports.gate.environments|--base=HEAD^1|--head=HEAD|"
    commits = "--base=HEAD^1|--head=HEAD|--base-python=one two|--head-python=another"
    assert gate.startswith(f"-m|reports.gate|{commits}|--json|")
    assert gate.endswith("|--device|cuda|")


@pytest.mark.parametrize(
    ("status", "exits"), [(0, 12), (12, 12), (13, 13)],
    ids=["which is no pass", "as where the model cannot be imported", "but keeps its status"],
)  # fmt: skip
def test_a_gate_that_wrote_no_summary_gets_one_that_says_so(
    tmp_path: Path, status: int, exits: int
) -> None:
    tree = stand_in(tmp_path / TREE, "gate", f"{ENVIRONMENTS}exit {status}\n")
    summary = tmp_path / "summary"
    assert run(tree, "gate", GITHUB_STEP_SUMMARY=str(summary)).returncode == exits
    told = f"### Gate: no summary was written, exit status {exits}; see the log\n"
    assert summary.read_text() == told


def test_a_gate_without_an_environment_is_an_error(tmp_path: Path) -> None:
    tree = stand_in(tmp_path / TREE, "gate", "exit 0\n")
    (tree / "bin/make").write_text("#!/bin/sh\nexit 2\n")
    done = run(tree, "gate")
    assert done.returncode == 12
    assert "::error title=The gate does not pass::the environment could not be made" in done.stdout


def test_a_change_has_to_pass_lint_the_suite_the_tests_with_a_browser_and_a_smoke_report(
    tmp_path: Path,
) -> None:
    asked = 'echo "$* $LLM_DESIGN_BENCH_REQUIRE_BROWSER" >>asked\n'
    tree = stand_in(tmp_path / TREE, "run", asked)
    for name, text in (("make", asked), ("chromium", "")):
        (tree / "bin" / name).write_text(f"#!/bin/sh\n{text}")
        (tree / "bin" / name).chmod(0o755)
    assert run(tree, "run", LLM_DESIGN_BENCH_REQUIRE_BROWSER="").returncode == 0
    assert [line.strip() for line in (tree / "asked").read_text().splitlines()] == [
        "lint",
        "-m asv check --environment existing:.venv/bin/python",
        "test 1",
        "test-ray",
        "test-triton",
        "report PROFILE=smoke",
    ]


def test_history_is_brought_measured_and_shown_and_tells_a_failure_at_the_end(
    tmp_path: Path,
) -> None:
    tree = stand_in(tmp_path / TREE, "history", 'echo "$*" >>asked\n')
    (tree / "bin/make").write_text(
        '#!/bin/sh\necho "make $*" >>asked\nmkdir -p .asv/html reports/site\n'
        '[ "$1" != history ] || exit 3\n'
    )
    done = run(tree, "history", "COMMITS=2")
    assert done.returncode == 3
    *before, measured = (tree / "asked").read_text().splitlines()
    assert before == ["make setup", "-m reports.history.store bring --remote origin"]
    assert re.fullmatch(r"make history COMMITS=2 MACHINE=ci-[A-Za-z0-9-]*", measured)
    assert (tree / "reports/site/asv").is_dir()


def test_what_was_measured_is_kept_by_the_script_that_may_push(tmp_path: Path, root: Path) -> None:
    remote, tree = tmp_path / "remote.git", tmp_path / TREE
    subprocess.run(["git", "init", "--quiet", "--bare", remote], check=True)
    subprocess.run(["git", "clone", "--quiet", remote, tree], check=True, capture_output=True)
    (tree / ".ci").mkdir()
    shutil.copy(root / ".ci/keep-history", tree / ".ci")
    (tree / ".asv/results/local").mkdir(parents=True)
    (tree / ".asv/results/local/machine.json").write_text('{"machine": "local"}')
    who = {
        f"GIT_{role}_{what}": "store@example.invalid"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    done = run(tree, "keep-history", PYTHONPATH=str(root), **who)
    assert done.returncode == 0, done.stderr
    listed = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "asv-results"],
        cwd=remote, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert listed.stdout == "local/machine.json\n"
