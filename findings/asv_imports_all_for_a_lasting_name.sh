#!/usr/bin/env bash
# A benchmark of asv-runner 0.3.2 that has a benchmark_name of its own, as moved ones have so that
# their history goes on, fails on every commit on which another file of the suite cannot be
# imported. A file counts that comes before its own in the alphabet.
#
# Behaviour: asv guesses a benchmark's file from its name. Where the guess fails, it imports one
# file of the suite after the other to look for the name, and an import error ends the search. So two
# benchmarks that are alike, in two files, differ on an old commit: the one that is called after
# its file is measured, the one that kept an older name fails.
# Output seen: "bench_new.track_plain 1" and "bench_old.track_moved ModuleNotFoundError: No module
# named 'not_yet'"
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check asv-runner==0.3.2
mkdir "$folder/benchmarks" && cd "$folder"
touch benchmarks/__init__.py
cat >benchmarks/bench_new.py <<'PYTHON'
def track_plain():
    return 1


def track_moved():
    return 1


track_moved.benchmark_name = "bench_old.track_moved"  # where it was before
PYTHON
echo "import not_yet  # a library that an old commit does not have" >benchmarks/bench_another.py
"$folder/venv/bin/python" - <<'PYTHON'
from asv_runner.discovery import get_benchmark_from_name

found = {}
for name in ("bench_new.track_plain", "bench_old.track_moved"):
    try:
        found[name] = str(get_benchmark_from_name("benchmarks", name).do_run())
    except Exception as error:
        found[name] = f"{type(error).__name__}: {error}"
    print(name, found[name])
assert found == {
    "bench_new.track_plain": "1",
    "bench_old.track_moved": "ModuleNotFoundError: No module named 'not_yet'",
}, "asv-runner has changed"
PYTHON
