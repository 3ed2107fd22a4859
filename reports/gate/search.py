"""Which commit of a range did it: bisection with a judge that may be in doubt.

Every commit is compared with the same base, so that what is looked for stays as large as it is. The
judge is in doubt where a comparison decides nothing or cannot be made. Such a commit is passed
over: what remains in the end is then several commits, of which one did it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, log2

Judge = Callable[[str], bool | None]  # of a commit: it is worse, is not, or nobody can tell


def suspects(commits: Sequence[str], judge: Judge) -> list[str]:
    """Those of ``commits``, from the oldest to the newest, of which one did it.

    The newest is known to be worse, and what came before the oldest is not. One commit, where the
    judge is never in doubt.
    """
    good, bad = -1, len(commits) - 1
    doubtful: set[int] = set()
    while due := [at for at in range(good + 1, bad) if at not in doubtful]:
        middle = min(due, key=lambda at: abs(2 * at - good - bad))
        worse = judge(commits[middle])
        if worse is None:
            doubtful.add(middle)
        elif worse:
            bad = middle
        else:
            good = middle
    return list(commits[good + 1 : bad + 1])


def most_judged(commits: int) -> int:
    """How many are judged where there is no doubt, at most."""
    return ceil(log2(commits)) if commits else 0
