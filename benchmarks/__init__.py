"""What measures the reference model and decides the claims."""

import sys

# A checkout is met by any Python; of an old one this is the first line that can tell.
if sys.version_info < (3, 11):  # noqa: UP036
    raise SystemExit(
        "error: this needs Python 3.11 or newer, and {} is {}.{}; run .venv/bin/python, which make "
        "setup PYTHON=python3.12 makes".format(sys.executable, *sys.version_info[:2])
    )

from benchmarks.moved import find_moved

find_moved()
