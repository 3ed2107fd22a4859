#!/usr/bin/env bash
# asv 0.6.6 stores a track_ benchmark that returns NaN as one that was skipped, and calls the run
# a success.
#
# Behaviour: a benchmark that raises is stored as null and ends the run with exit status 2; one that
# returns NaN is stored as NaN, which is also what a benchmark gets whose setup raises
# NotImplementedError (a skip), and the run ends with 0. In the history a model that broke looks like one that was
# never measured.
# Output seen: exit status 0, track_broken [NaN], track_skipped [NaN]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check asv==0.6.6 asv-runner==0.3.2
mkdir -p "$folder/suite/benchmarks" && cd "$folder/suite"
git init --quiet --initial-branch=main
git -c user.name=N -c user.email=n@example.org commit --quiet --allow-empty -m first
touch benchmarks/__init__.py
cat >benchmarks/bench.py <<'PYTHON'
def track_broken():
    return float("nan")


class Skipped:
    def setup(self):
        raise NotImplementedError("not here")

    def track_skipped(self):
        return 1
PYTHON
cat >asv.conf.json <<'JSON'
{"version": 1, "project": "example", "repo": ".", "branches": ["main"],
 "environment_type": "existing"}
JSON
export HOME="$folder" # where asv keeps what it knows of the machine
"$folder/venv/bin/asv" machine --yes >/dev/null 2>&1
status=0
"$folder/venv/bin/asv" run --python=same --set-commit-hash "$(git rev-parse HEAD)" --quick \
    >log 2>&1 || status=$?
echo "exit status $status"
"$folder/venv/bin/python" - "$status" <<'PYTHON'
import json, math, pathlib, sys

(path,) = (p for p in pathlib.Path("results").rglob("*.json")
           if p.name not in ("machine.json", "benchmarks.json"))
results = json.loads(path.read_text())["results"]
stored = {name.rpartition(".")[2]: value[0] for name, value in results.items()}
print(stored)
same = all(len(stored[n]) == 1 and math.isnan(stored[n][0]) for n in ("track_broken", "track_skipped"))
assert same and sys.argv[1] == "0", "asv has changed"
PYTHON
