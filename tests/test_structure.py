"""The cut of the project: who may import whom, what is shipped, and what a newcomer is promised."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from benchmarks.data import locks
from benchmarks.judging.claims import load_claims

LOCKS = (locks.MAIN, locks.TORCH_CPU, locks.TORCH, locks.PEERS, locks.RAY, locks.TRITON)
ROOMS = ("reference_model", "benchmarks", "reports")


def python_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def imported_modules(path: Path) -> Iterator[str]:
    """The full name of each module that a file imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: import by the full name"
            yield str(node.module)


def imported_packages(room: Path) -> dict[str, set[str]]:
    """Top-level package -> the files of the room that import it."""
    users: dict[str, set[str]] = {}
    for path in python_files(room):
        for module in imported_modules(path):
            users.setdefault(module.partition(".")[0], set()).add(path.name)
    return users


def canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def requirement_name(requirement: str) -> str:
    return canonical(re.split(r"[\s<>=!~\[;]", requirement, maxsplit=1)[0])


@pytest.fixture(scope="module")
def project(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def pins(root: Path) -> dict[str, str]:
    """Distribution -> version, of what is installed here; of torch, without CUDA's libraries."""
    torch = read_lock(root / locks.TORCH, applying=True)["torch"]
    return {"torch": torch, **read_lock(root / locks.MAIN, applying=True)}


def read_lock(path: Path, applying: bool = False) -> dict[str, str]:
    """Distribution -> version, of all of a lock or of what applies to this Python and system."""
    lines = locks.requirements_of(path.read_text(encoding="utf-8"))
    found = [Requirement(line) for line in lines]
    return {
        each.name: str(each.specifier).removeprefix("==")
        for each in found
        if not applying or each.marker is None or each.marker.evaluate()
    }


# ---- rooms and arrows


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("reference_model", {"benchmarks", "reports", "tests"}),
        ("benchmarks", {"reports", "tests"}),
        ("reports", {"tests"}),
    ],
)
def test_imports_follow_the_arrows(root: Path, room: str, forbidden: set[str]) -> None:
    users = imported_packages(root / room)
    assert users, f"{room} has no module"
    against = {package: users[package] for package in forbidden & users.keys()}
    assert against == {}


@pytest.mark.parametrize(
    ("room", "extras"),
    [
        ("reference_model", ["gguf", "huggingface", "triton"]),
        ("benchmarks", ["suite", "peers", "huggingface", "ray"]),
        ("reports", ["suite"]),
    ],
)
def test_a_room_imports_only_what_the_project_declares(
    root: Path, project: dict, room: str, extras: list[str]
) -> None:
    declared = {requirement_name(line) for line in project["dependencies"]}
    for extra in extras:
        declared |= {requirement_name(line) for line in project["optional-dependencies"][extra]}
    # What is not installed has no owner: a package is then named as its distribution is.
    owners = {"llama_cpp": ["llama-cpp-python"], **metadata.packages_distributions()}
    undeclared = {
        package: users
        for package, users in imported_packages(root / room).items()
        if package not in sys.stdlib_module_names
        and package not in ROOMS
        and declared.isdisjoint(canonical(name) for name in owners.get(package, [package]))
    }
    assert undeclared == {}


def test_what_asv_imports_needs_nothing_but_the_standard_library_and_numpy(root: Path) -> None:
    # asv imports every module of the folder, in the environment of an old commit. Folders without
    # an __init__.py it does not enter. preload.py alone imports more, in asv's fork server alone;
    # tests/benchmarks/test_preload.py holds that.
    program = (
        "import importlib, pkgutil, sys\n"
        "absent = ['torch', 'scipy', 'tokenizers', 'safetensors', 'tqdm', 'tabulate', 'altair',"
        " 'jsonschema', 'platformdirs', 'transformers', 'peft', 'reports']\n"
        "sys.modules.update(dict.fromkeys(absent))\n"  # None: importing it fails
        "package = importlib.import_module('benchmarks')\n"
        "for found in pkgutil.walk_packages(package.__path__, 'benchmarks.'):\n"
        "    importlib.import_module(found.name)\n"
        "    print(found.name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {"benchmarks.suite.workloads", "benchmarks.suite.bench_cache"} <= set(
        done.stdout.split()
    )


def test_asv_finds_benchmarks_only_in_the_files_named_bench(root: Path) -> None:
    # asv imports every module of the folder and takes whatever is named time_, mem_, peakmem_ or
    # track_: a helper with such a name would enter the history, a module that acts would act.
    program = (
        "from asv_runner.discovery import disc_benchmarks\n"
        "print(*(found.name for found in disc_benchmarks('benchmarks')), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [name for name in done.stdout.split() if not name.startswith("bench_")] == []


# ---- size


def test_the_model_reads_in_under_300_lines(root: Path) -> None:
    model = (root / "reference_model" / "model.py").read_text(encoding="utf-8")
    assert len(model.splitlines()) < 300


def test_every_module_stays_under_400_lines(root: Path) -> None:
    lengths = {
        str(path.relative_to(root)): len(path.read_text(encoding="utf-8").splitlines())
        for folder in ROOMS
        for path in python_files(root / folder)
    }
    assert {name: length for name, length in lengths.items() if length >= 400} == {}


@pytest.mark.parametrize(("profile", "budget"), [("smoke", 60.0), ("quick", 480.0)])
def test_the_experiments_of_a_profile_fit_its_budget_of_seconds(
    profile: str, budget: float
) -> None:
    from benchmarks.experiments.catalogue import all_experiments

    declared = {entry.claim: entry.seconds for entry in all_experiments()}
    assert declared
    for claim, seconds in declared.items():
        assert set(seconds) == {"smoke", "quick", "full"}, claim
        assert all(value is None or value > 0 for value in seconds.values()), claim
    assert sum(seconds[profile] or 0.0 for seconds in declared.values()) <= budget


def test_a_claim_has_at_most_one_experiment_and_each_experiment_has_a_claim(root: Path) -> None:
    from benchmarks.experiments.catalogue import all_experiments

    measured = [entry.claim for entry in all_experiments()]
    claims = {claim.id for claim in load_claims()}
    assert len(measured) == len(set(measured))
    assert set(measured) <= claims


def test_the_top_of_benchmarks_is_a_list_of_rooms(root: Path) -> None:
    files = {path.name for path in (root / "benchmarks").glob("*.py")}
    assert len(files) <= 6, files


def test_few_files_of_benchmarks_know_by_which_class_a_model_is_built(root: Path) -> None:
    named = re.compile(r"\bGPT\b(?!-)|\bGPTConfig\b")
    files = [path for kind in ("py", "md", "toml") for path in root.glob(f"benchmarks/**/*.{kind}")]
    assert sum(bool(named.search(path.read_text(encoding="utf-8"))) for path in files) <= 12


# ---- what is installed


def test_every_declared_dependency_is_pinned(
    root: Path, project: dict, pins: dict[str, str]
) -> None:
    declared = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    others = chain(*(read_lock(root / name) for name in (locks.PEERS, locks.RAY, locks.TRITON)))
    names = {requirement_name(line) for line in declared}
    assert names - pins.keys() - set(others) == set()


@pytest.mark.K9
@pytest.mark.parametrize("name", LOCKS)
def test_every_file_that_may_be_installed_is_locked_by_its_content(root: Path, name: str) -> None:
    text = (root / name).read_text(encoding="utf-8")
    entries = re.split(r"\n(?=\S)", "".join(re.findall(r"^[^#].*\n", text, re.M)).strip())
    for entry in entries:
        first, *hashes = entry.split(" \\\n    ")
        assert re.fullmatch(r"[a-z0-9-]+==[\w.+]+( ; [^\\#]+)?", first)
        assert hashes, first
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes)


def test_locks_agree_with_what_they_are_made_of_and_name_nothing_twice(root: Path) -> None:
    found = {name: read_lock(root / name) for name in LOCKS}
    wanted = re.search(r"^torch==(.*)$", (root / "requirements.in").read_text(), re.M)
    assert wanted
    assert found[locks.TORCH]["torch"] == wanted[1]
    assert found[locks.TORCH_CPU] == {"torch": f"{wanted[1]}+cpu"}
    # For torch's build for CPUs: with the one for CUDA it comes along.
    assert found.pop(locks.TRITON) == {"triton": found[locks.TORCH]["triton"]}
    names = [name for lock in found for name in found[lock] if lock != locks.TORCH_CPU]
    assert len(names) == len(set(names))


def test_the_tests_run_with_the_pinned_versions(pins: dict[str, str]) -> None:
    # A local label such as 2.13.0+cpu names a build, not another version.
    found = {name: metadata.version(name).partition("+")[0] for name in pins}
    assert found == pins


def test_the_pins_are_complete(pins: dict[str, str]) -> None:
    missing = set()
    for name in pins:
        for line in metadata.requires(name) or []:
            needed = Requirement(line)
            # CUDA's libraries come and go with the build of torch: they are not ours to pin.
            cuda = canonical(needed.name).startswith(("nvidia-", "cuda-", "triton"))
            if not cuda and (needed.marker is None or needed.marker.evaluate({"extra": ""})):
                missing |= {canonical(needed.name)} - pins.keys()
    assert missing == set()


def test_the_wheel_ships_the_model_and_its_checkpoint_and_nothing_else(
    root: Path, repository_files: list[Path], tmp_path: Path
) -> None:
    wanted = [path.relative_to(root) for path in repository_files]
    source = tmp_path / "source"
    for name in wanted:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, target)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", tmp_path, source], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("llm_design_bench-*.whl")
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    model = {name for name in wanted if name.parts[0] == "reference_model"}
    for guides in ("", "families", "quantization"):
        model -= set(Path("reference_model", guides).glob("*.md"))  # they stay with the source
    assert shipped == {name.as_posix() for name in model}


# ---- what a newcomer is promised


def test_the_readme_opens_with_the_two_commands(root: Path) -> None:
    first_block = (root / "README.md").read_text(encoding="utf-8").split("```")[1]
    commands = re.findall(r"^(?:\$ )?(make \w+)", first_block, flags=re.MULTILINE)
    assert {"make report", "make test"} <= set(commands)


def test_no_file_speaks_of_one_machine(root: Path, repository_files: list[Path]) -> None:
    home = re.compile(r"(?<![\w.~}])/(?:work|root|home|tmp|Users|opt)/\w")
    private_host = re.compile(r"://(?:[^/\s]*\.)?(?:internal|local|lan|corp|intranet)\b")
    # One index is not private: PyTorch's own, which has the build without CUDA.
    package_source = re.compile(
        r"(?:index[-_]url|find[-_]links)[=:\s]+(?!https://download\.pytorch\.org/)\S*/", re.I
    )
    found = [
        f"{path.relative_to(root)}:{number}: {line.strip()[:80]}"
        for path in repository_files
        if path != Path(__file__) and b"\0" not in path.read_bytes()[:1024]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if home.search(line) or private_host.search(line) or package_source.search(line)
    ]
    assert found == []


def test_the_newest_version_of_the_changelog_is_the_projects(root: Path, project: dict) -> None:
    found = re.findall(r"^## (\d+\.\d+\.\d+)$", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert found[0] == project["version"]
    assert found == sorted(found, key=lambda name: [*map(int, name.split("."))], reverse=True)


def test_each_kind_of_fault_is_told_and_has_tests_that_carry_its_mark(root: Path) -> None:
    page, settings = (root / "tests" / name for name in ("README.md", "conftest.py"))
    told = set(re.findall(r"^\| `(K\d+)` \|", page.read_text(encoding="utf-8"), re.M))
    registered = set(re.findall(r'^    "(K\d+)": ', settings.read_text(encoding="utf-8"), re.M))
    carried = {
        mark
        for path in (root / "tests").rglob("test_*.py")
        for mark in re.findall(r"pytest\.mark\.(K\d+)\b", path.read_text(encoding="utf-8"))
    }
    assert told == registered == carried
