"""The gate as a process: its exit statuses, its files, its timer."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from reference_model.errors import UserError
from reports.gate import command
from reports.gate import compare as compare_module
from reports.gate import pairs as pairs_module
from reports.gate.pairs import CONTROL
from tests.reports.gate.conftest import BENCH, TORCH

ONE = "bench_gate.Step.time_step(one)"


def assert_status(done: subprocess.CompletedProcess[str], status: int, said: str) -> None:
    assert (done.returncode, re.search(said, done.stdout + done.stderr) is not None) == (
        status,
        True,
    ), done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [(), ("--base", "HEAD"), ("--base=HEAD", "--head=x", "-z")])
def test_wrong_arguments_exit_with_12_and_not_with_argparses_2(gate, arguments) -> None:
    assert_status(gate(*arguments), 12, r"^error: ")


def test_a_model_that_is_not_there_is_told_before_anything_is_measured(gate) -> None:
    done = gate("--base=HEAD", "--head=HEAD", "--model=models/none.gguf")
    assert_status(done, 12, "^error: .*there is no file or folder models/none.gguf")


def test_model_and_dtype_reach_the_suite_of_both_checkouts(
    gate, repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = BENCH.replace(
        "        return self.bytes",
        "        import os\n"
        "        assert os.path.isabs(os.environ['LLM_DESIGN_BENCH_MODEL'])\n"
        "        assert os.environ['LLM_DESIGN_BENCH_DTYPE'] == 'bfloat16'\n"
        "        return self.bytes",
    )
    repository.write("a.gguf", "")
    repository.commit(bench=asked)
    words = ("--base=HEAD", "--head=HEAD", "--select=*.track_*")
    assert_status(gate(*words), 12, "KeyError: 'LLM_DESIGN_BENCH_MODEL'")
    asked_for = gate(*words, "--model=a.gguf", "--dtype=bfloat16")
    assert_status(asked_for, 0, "measured with LLM_DESIGN_BENCH_DTYPE=bfloat16")
    # The caller's own variables are nobody's request.
    monkeypatch.setenv("LLM_DESIGN_BENCH_MODEL", "/a.gguf")
    assert_status(gate(*words), 12, "KeyError: 'LLM_DESIGN_BENCH_MODEL'")


@pytest.mark.parametrize(("asked", "seen"), [("cpu", False), ("cuda", True)])
def test_the_device_reaches_the_suite_of_both_arms(
    gate, repository, monkeypatch: pytest.MonkeyPatch, asked: str, seen: bool
) -> None:
    told = BENCH.replace(
        "        return self.bytes",
        "        import os\n"
        f"        assert os.environ['LLM_DESIGN_BENCH_DEVICE'] == {asked!r}\n"
        f"        assert os.environ.get('CUDA_VISIBLE_DEVICES') == {'0' if seen else ''!r}\n"
        "        return self.bytes",
    )
    repository.write("torch.py", TORCH.replace("False", "True"))
    repository.commit(bench=told)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    # The caller's own variable is nobody's request.
    monkeypatch.setenv("LLM_DESIGN_BENCH_DEVICE", "tpu")
    words = ("--base=HEAD", "--head=HEAD", "--select=*.track_*", f"--device={asked}")
    assert_status(gate(*words), 0, "PASS")


def test_a_gpu_that_torch_does_not_find_exits_with_12(gate) -> None:
    done = gate("--base=HEAD", "--head=HEAD", "--device=cuda")
    assert_status(done, 12, "^error: --device cuda: torch finds no usable CUDA device")


def test_an_unknown_revision_exits_with_12_and_the_files_say_so(gate, tmp_path: Path) -> None:
    files = [f"--{kind}={tmp_path / kind}" for kind in ("json", "html", "markdown")]
    done = gate("--base=nowhere", "--head=HEAD", *files)
    assert_status(done, 12, "^error: 'nowhere' names no commit")
    assert json.loads((tmp_path / "json").read_text())["exit_status"] == 12
    assert "Error" in (tmp_path / "html").read_text()
    assert (tmp_path / "markdown").read_text().startswith("### Gate: error")


@pytest.mark.K6
@pytest.mark.parametrize("option", ["json", "html", "markdown"])
def test_an_output_that_cannot_be_written_is_told_before_anything_is_measured(
    gate, repository, tmp_path: Path, option: str
) -> None:
    repository.commit(bench="raise SystemExit('it was measured')\n")
    (tmp_path / "file").touch()
    others = {"json", "html", "markdown"} - {option}
    files = [f"--{other}={tmp_path / 'new' / other}" for other in others]
    for place, reason in ((tmp_path, "it is a folder"), (tmp_path / "file/out", "Not a directory")):
        done = gate("--base=HEAD", "--head=HEAD", f"--{option}={place}", *files)
        assert_status(done, 12, f"^error: cannot write to {place}.*{reason}")
        assert "measured" not in done.stderr
        assert {file.name for file in (tmp_path / "new").iterdir()} == others  # with the reason
    assert {path.name for path in tmp_path.iterdir()} == {"file", "new", "repository"}


@pytest.mark.K6
def test_trying_the_outputs_leaves_nothing(repository, tmp_path: Path, monkeypatch) -> None:
    places = [tmp_path / "new" / kind for kind in ("json", "html", "markdown")]
    places[0].parent.mkdir()
    places[1].write_text("before")
    files = [f"--{place.name}={place}" for place in places]
    found = []

    def look(*given) -> None:
        found.extend((path.name, path.read_text()) for path in places[0].parent.iterdir())
        raise UserError("that was all")

    monkeypatch.setattr(compare_module, "compare", look)
    monkeypatch.chdir(repository.path)
    assert command.main(["--base=HEAD", "--head=HEAD", *files]) == 12
    assert found == [("html", "before")]
    assert all("that was all" in place.read_text() for place in places)


@pytest.mark.K6
def test_an_output_that_fails_in_the_end_is_an_error_and_keeps_no_other_from_being_written(
    repository, tmp_path: Path, monkeypatch
) -> None:
    places = [tmp_path / kind for kind in ("json", "html", "markdown")]

    def passes(*given) -> dict:
        places[0].mkdir()  # meanwhile
        report = compare_module.failed(None, compare_module.Verdict.PASS, "all is well")
        return report | {"verdict": "pass", "exit_status": 0}

    monkeypatch.setattr(compare_module, "compare", passes)
    monkeypatch.chdir(repository.path)
    files = [f"--{place.name}={place}" for place in places]
    assert command.main(["--base=HEAD", "--head=HEAD", *files]) == 12
    assert all("cannot write to" in place.read_text() for place in places[1:])


def test_an_exception_of_any_kind_exits_with_12(gate, repository) -> None:
    repository.write("reference_model/__init__.py", "import no_such_package\n")
    repository.commit()
    assert_status(gate("--base=HEAD", "--head=HEAD"), 12, "no_such_package")


def test_a_number_that_is_none_exits_with_12(gate, repository) -> None:
    repository.commit(model="BYTES = float('nan')\ndef step(): ...\n")
    done = gate("--base=HEAD~1", "--head=HEAD")
    assert_status(done, 12, "head: .*nan, which is not a measurement")


def test_a_checkout_whose_own_model_is_broken_exits_with_12(
    gate, repository, root: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken" / "reference_model"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("import no_such_package\n")
    done = gate("--base=HEAD", "--head=HEAD", path=f"{broken.parent}{os.pathsep}{root}")
    assert_status(done, 12, "error: this checkout cannot be imported: .*no_such_package")


def test_an_interpreter_that_is_not_there_exits_with_12_without_a_traceback(gate) -> None:
    done = gate("--base=HEAD", "--head=HEAD", "--base-python=.venv-none/bin/python")
    assert_status(done, 12, "^error: --base-python .venv-none/bin/python: there is no such program")
    assert "Traceback" not in done.stderr


def test_a_hang_up_that_the_caller_ignores_is_ignored() -> None:
    """As by nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        command.main([])
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_windows_is_told_where_the_gate_runs(
    repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(os, "killpg")
    assert command.main(["--base=HEAD", "--head=HEAD"]) == 12
    assert capsys.readouterr().err.startswith("error: the gate runs on Linux and macOS;")


def test_other_packages_exit_with_13(gate, repository) -> None:
    repository.commit(pins="torch==2.12.0\n")
    assert_status(gate("--base=HEAD~1", "--head=HEAD"), 13, "^not comparable: the pinned versions")


def test_a_benchmark_that_does_nothing_exits_with_12(gate, repository) -> None:
    repository.commit(model="BYTES = 100\ndef step(): ...\n")
    done = gate("--base=HEAD~1", "--head=HEAD", "--select=*Step*one*", "--budget=60")
    assert_status(done, 12, "measures nothing")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
@pytest.mark.parametrize("budget", [1, 2])
def test_a_process_that_hangs_is_an_error_soon_after_the_budget(
    repository, monkeypatch: pytest.MonkeyPatch, capsys, budget: int
) -> None:
    monkeypatch.chdir(repository.path)
    monkeypatch.setattr(command, "GRACE", 0.5)
    monkeypatch.setattr(compare_module, "BUDGET", 1.0)
    repository.commit(model="while True: pass\n")
    started = time.monotonic()
    assert command.main(["--base=HEAD~1", "--head=HEAD", f"--budget={budget}"]) == 12
    assert budget + 0.5 <= time.monotonic() - started < 20
    said = f"error: no verdict within {budget + 0.5:.0f} seconds: a benchmark hangs"
    assert said in capsys.readouterr().err
    assert len(repository.git("worktree", "list").splitlines()) == 1


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
def test_a_gate_that_ends_leaves_no_timer_behind(repository, monkeypatch) -> None:
    monkeypatch.chdir(repository.path)
    assert command.main(["--base=HEAD", "--head=HEAD", "--select=nothing"]) == 12
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_real_pairs_are_measured_until_the_budget_is_spent_and_everything_is_written(
    gate, repository, tmp_path: Path
) -> None:
    repository.commit()
    path, page = tmp_path / "gate.json", tmp_path / "gate.html"
    # The eight pairs of the first look, of two benchmarks, take more than 4 s on any machine. On a
    # busy one the first pair may.
    assert 8 * 2 * pairs_module.LEAST_SECONDS > 4
    for budget in (4, 8, 16, 32):
        done = gate(
            "--base=HEAD~1", "--head=HEAD", f"--budget={budget}", "--seed=1", f"--json={path}",
            f"--html={page}", "--select=*(one)",
        )  # fmt: skip
        report = json.loads(path.read_text())
        if budget == 4:
            said = "INCONCLUSIVE: .*the budget is spent|INCONCLUSIVE: unstable"
            assert_status(done, 11, said)
        if report["pairs"]:
            break
    assert report["pairs"]
    for pair in report["pairs"]:
        assert set(pair["log_ratios"]) == {ONE, CONTROL}
        assert 0.0009 < pair["seconds"][ONE][0] < 0.1
    assert page.read_text().count("<circle") == 2 * len(report["pairs"])
