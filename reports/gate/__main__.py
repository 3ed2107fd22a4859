"""python -m reports.gate --base REV --head REV: did this commit make it worse?

Exit status: 0 pass, 10 regression, 11 inconclusive, 12 error (wrong arguments and every exception),
13 not comparable.
"""

from __future__ import annotations

import sys
import traceback

ERROR = 12  # as `verdict.Verdict` has it


def guarded() -> int:
    """The command's exit status.

    It imports parts of the checkout that it judges: what is broken there is an error as well, and
    Python's own status for one is not the gate's.
    """
    try:
        from reports.gate.command import main
    except Exception as error:
        traceback.print_exc()
        print(f"error: this checkout cannot be imported: {error}", file=sys.stderr)
        return ERROR
    return main()


if __name__ == "__main__":
    sys.exit(guarded())
