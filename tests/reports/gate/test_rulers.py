"""By whose benchmarks a commit is judged: one that brings its own ruler is judged by base's."""

from __future__ import annotations

import pytest

from reports.gate.compare import Request, compare
from tests.reports.gate.conftest import BENCH, MODEL

WORK = "bench_gate.Work.track_flops(held)"
LARGER = MODEL.replace("BYTES = 100", "BYTES = 104")
BLIND = BENCH.replace("return self.bytes", "return 100")
VERSIONED = BENCH.replace("class Work:", 'class Work:\n    version = "1"')
OF_SUITE = """
from types import SimpleNamespace
TIMED = ()
EXACT = {
    "bench_gate.Work.track_flops": SimpleNamespace(better="lower", tolerance=0.0),
    "bench_gate.Known.track_mean": SimpleNamespace(better="same", tolerance=0.0, of="suite"),
}
"""
KNOWN = """
from benchmarks.exact_cases import ANSWER
class Known:
    version = "1"
    def track_mean(self):
        from benchmarks.mean import mean
        return mean([1, 2, ANSWER])
"""


def exact(repository) -> dict:
    return compare(repository.path, Request("HEAD~1", "HEAD", "*track*"), lambda line: None)


def kinds(report: dict) -> list[tuple[str, str]]:
    return [(each["id"], each["kind"]) for each in report["exact"]["differences"]]


def test_a_head_that_blinds_its_own_benchmark_is_seen_by_bases(repository) -> None:
    repository.commit(model=LARGER, bench=BLIND)
    report = exact(repository)
    assert report["exit_status"] == 10
    assert kinds(report) == [(WORK, "worse")]
    assert report["exact"]["differences"][0]["because"] == "by base's own benchmarks"


def test_a_head_that_lets_more_pass_is_judged_by_what_base_lets_pass(repository) -> None:
    suite = (repository.path / "benchmarks/gate_suite.py").read_text()
    repository.write("benchmarks/gate_suite.py", suite.replace("tolerance=0.0", "tolerance=50.0"))
    repository.commit(model=LARGER)
    report = exact(repository)
    assert report["exit_status"] == 10
    assert (WORK, "worse") in kinds(report)


def test_a_benchmark_that_measures_the_same_model_otherwise_needs_a_new_version(repository) -> None:
    repository.commit(bench=VERSIONED)
    repository.commit(bench=VERSIONED.replace("return self.bytes", "return self.bytes / 2"))
    assert kinds(exact(repository)) == [(WORK, "measured otherwise")]
    other = VERSIONED.replace("return self.bytes", "return self.bytes / 2")
    repository.git("revert", "--no-edit", "HEAD")
    repository.commit(bench=other.replace('"1"', '"2"'))
    report = exact(repository)
    assert report["exit_status"] == 0
    assert report["notes"] == [
        "bench_gate.Work.track_flops has a new version and measures otherwise"
    ]


def test_another_ruler_and_another_model_in_one_commit_are_both_told(repository) -> None:
    repository.commit(bench=VERSIONED)
    repository.commit(model=LARGER, bench=VERSIONED.replace("self.bytes\n", "self.bytes / 2\n"))
    assert sorted(kinds(exact(repository))) == [(WORK, "measured otherwise"), (WORK, "worse")]


def test_a_suites_own_function_is_judged_as_each_commit_has_it(repository) -> None:
    repository.write("benchmarks/gate_suite.py", OF_SUITE)
    repository.write("benchmarks/exact_cases/__init__.py", "ANSWER = 6\n")
    repository.write("benchmarks/mean.py", "def mean(x):\n    return sum(x) / len(x)\n")
    repository.commit(bench=BENCH + KNOWN)
    repository.write("benchmarks/mean.py", "def mean(x):\n    return sum(x) / (len(x) - 1)\n")
    repository.commit()
    assert kinds(exact(repository)) == [("bench_gate.Known.track_mean()", "changed: verify")]
    repository.git("revert", "--no-edit", "HEAD")
    # A head whose cases hide what its function does: base's cases ask it, too.
    repository.write("benchmarks/exact_cases/__init__.py", "ANSWER = 3\n")
    repository.write("benchmarks/mean.py", "def mean(x):\n    return max(x)\n")
    repository.commit()
    (found,) = exact(repository)["exact"]["differences"]
    assert found["head"] in (3, 6)
    assert found["kind"] == "changed: verify"


def test_a_suites_own_function_is_right_that_gives_the_old_number_with_either_model(
    repository,
) -> None:
    mean = "import reference_model\n\ndef mean(x):\n    return reference_model.BYTES\n"
    repository.write("benchmarks/gate_suite.py", OF_SUITE)
    repository.write("benchmarks/exact_cases/__init__.py", "ANSWER = 6\n")
    repository.write("benchmarks/mean.py", mean)
    repository.commit(bench=BENCH + KNOWN)
    smaller = MODEL.replace("BYTES = 100", "BYTES = 96")
    # The suite is the same: what its function says of a smaller model is no fault of its own.
    repository.commit(model=smaller)
    report = exact(repository)
    assert kinds(report) == [(WORK, "better")]
    assert report["notes"] == [
        "the suite's own functions and experiments are the same in both commits; their numbers (1) "
        "were not asked for"
    ]
    repository.git("revert", "--no-edit", "HEAD")
    # Nor where suite and cases change beside the model: with base's model it says what it said.
    repository.write("benchmarks/mean.py", mean + "\n# a remark\n")
    repository.write("benchmarks/exact_cases/__init__.py", "ANSWER = 6  # as before\n")
    repository.commit(model=smaller)
    assert kinds(exact(repository)) == [(WORK, "better")]
    repository.git("revert", "--no-edit", "HEAD")
    repository.write("benchmarks/mean.py", mean.replace("BYTES", "BYTES + 1"))
    repository.commit(model=smaller)
    assert ("bench_gate.Known.track_mean()", "changed: verify") in kinds(exact(repository))


def test_what_bases_benchmarks_cannot_ask_of_heads_model_is_told_and_does_not_fail(
    repository,
) -> None:
    renamed = MODEL.replace("BYTES", "SIZE")
    repository.commit(
        model=renamed, bench=BENCH.replace("BYTES", "SIZE").replace("class Work", "class Size")
    )
    report = exact(repository)
    assert ("bench_gate.Work.track_flops(held)", "gone") in kinds(report)


MEAN = "def mean(x):\n    return sum(x) / len(x)\n"
KNOWN_MEAN = "bench_gate.Known.track_mean()"


@pytest.fixture
def suite(repository):
    """A repository whose suite has a number of a model and one of its own function."""
    repository.write("benchmarks/gate_suite.py", OF_SUITE)
    repository.write("benchmarks/exact_cases/__init__.py", "ANSWER = 6\n")
    repository.write("benchmarks/mean.py", MEAN)
    repository.write("benchmarks/other.py", "def other(x):\n    return x\n")
    repository.commit(bench=BENCH + KNOWN)
    return repository


def test_numbers_of_the_same_code_are_not_asked_for_where_other_code_differs(suite) -> None:
    suite.write("benchmarks/other.py", "def other(x):\n    return -x\n")
    suite.write("benchmarks/added.py", "def added(x):\n    return x\n")
    suite.commit()
    report = exact(suite)
    assert report["exit_status"] == 0
    assert report["exact"]["compared"] == 0
    assert report["notes"] == [
        "numbers that rest on the same code in both commits were not asked for: 2"
    ]


def test_of_two_models_a_benchmark_of_the_same_code_is_asked_once(suite) -> None:
    suite.write("benchmarks/other.py", "def other(x):\n    return -x\n")
    suite.commit(model=LARGER)
    report = exact(suite)
    assert kinds(report) == [(WORK, "worse")]
    assert report["exact"]["differences"][0]["because"] == ""
    assert report["notes"] == [
        "numbers that rest on the same code in both commits were not asked for: 1"
    ]


def test_a_case_that_is_the_same_is_asked_of_a_changed_function(suite) -> None:
    suite.write("benchmarks/exact_cases/__init__.py", "ANSWER = 6\nOTHER = 7\n")
    suite.write("benchmarks/mean.py", MEAN.replace("len(x)", "len(x[1:])"))
    suite.commit()
    report = exact(suite)
    assert kinds(report) == [(KNOWN_MEAN, "changed: verify")]
    assert report["exact"]["compared"] == 1


@pytest.mark.parametrize(
    ("file", "added"),
    [
        # It says that nothing changed, by another worker, and alters a function when imported.
        ("gate_worker.py", "\nWorker.begins = lambda self: {'begins': {}, 'aside': ()}\n"),
        ("bench_gate.py", "\nKnown.track_mean = lambda self: 4\n"),
    ],
)
def test_a_head_that_can_alter_what_it_says_is_asked_everything(suite, file, added) -> None:
    text = (suite.path / "benchmarks" / file).read_text()
    if file == "gate_worker.py":
        text = text.replace('\nif __name__ == "__main__"', f'{added}\n\nif __name__ == "__main__"')
    else:
        text += added
    suite.write(f"benchmarks/{file}", text)
    suite.commit()
    report = exact(suite)
    assert report["exact"]["compared"] == 2
    assert report["notes"] == []
    assert kinds(report) == ([(KNOWN_MEAN, "changed: verify")] if file == "bench_gate.py" else [])
