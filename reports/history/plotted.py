"""What the page's script draws a series from: as few numbers as its pixels can show.

A chart is COLUMNS pixels wide. Where a series has more than three values for each, the least, the
greatest and the last of each column stay, so that a page does not grow with the number of commits.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from typing import Any

from reference_model.printing import clean
from reports.history.amounts import change, rounded
from reports.history.series import Commit, Series, Setting
from reports.history.steps import Step

COLUMNS = 304  # of the drawing, which history.js makes as wide
MOST_INTERVALS = 100  # values of a series that are drawn with theirs; more of them overlap
MOST_MARKS = 60  # steps of a series that are drawn; more would hide it
SHORT = 8  # characters of a commit's hash
LONGEST = 200  # characters of any other text

Plotted = dict[str, Any]


def plotted(series: Series, steps: Sequence[Step]) -> Plotted:
    """Places are those of ``series.points``, each told by its distance from the one before.

    In ``at`` it is negative where commits without a value lie between.
    """
    exact = series.exactness is not None
    points, n = series.points, len(series.points)
    measured = [at for at, _ in series.measured]
    gaps_before = _gaps_before(series)
    marked = steps if len(steps) <= MOST_MARKS else []
    at = sorted({*thinned(series), *(step.at for step in marked)})
    found: Plotted = {
        "exact": exact,
        "unit": series.benchmark.unit,
        "commits": n,
        "at": [
            here - there if gaps_before[here] == gaps_before[there] else there - here
            for there, here in zip([0, *at], at, strict=False)
        ],
        "value": [rounded(points[i].value or 0.0, exact) for i in at],
        "steps": [
            [s.at, *(rounded(v, exact) for v in (s.before, s.after)), change(s.before, s.after)]
            for s in marked
        ],
    }
    if len(measured) <= MOST_INTERVALS and not exact:
        intervals = [points[i].interval for i in at]
        for end, name in enumerate(("low", "high")):
            found[name] = [pair and rounded(pair[end], exact) for pair in intervals]
    for state in ("failed", "skipped"):
        places = [i for i, point in enumerate(points) if point.state == state]
        found[state] = _distances(_last_of_columns(places, n))
    return found


def thinned(series: Series) -> list[int]:
    """Places of the values that are drawn."""
    measured, n = series.measured, len(series.points)
    if len(measured) <= 3 * COLUMNS:
        return [at for at, _ in measured]
    columns: dict[int, list[tuple[float, int]]] = {}
    for at, value in measured:
        columns.setdefault(at * COLUMNS // n, []).append((value, at))
    return sorted({at for c in columns.values() for _, at in (min(c), max(c), c[-1])})


def _last_of_columns(places: Sequence[int], n: int) -> list[int]:
    if len(places) <= COLUMNS:
        return list(places)
    return sorted({at * COLUMNS // n: at for at in places}.values())


def _gaps_before(series: Series) -> list[int]:
    """How many commits without a value lie before each place."""
    counts, count = [], 0
    for point in series.points:
        counts.append(count)
        count += point.value is None
    return counts


def _distances(places: Sequence[int]) -> list[int]:
    return [here - there for there, here in zip([0, *places], places, strict=False)]


def plotted_commits(settings: Sequence[Setting]) -> tuple[list[list[Any]], list[Plotted]]:
    """All commits that were measured in any setting; and of each setting, which ones.

    A commit: place, hash, date, subject. A setting's commit: index in that list, 1 if it has a
    value and 0 if all has failed or was skipped.
    """
    known: dict[int, Commit] = {}
    tried: list[dict[int, int]] = []
    for setting in settings:
        states: dict[int, int] = {}
        for series in setting.series:
            for commit, point in zip(setting.commits, series.points, strict=True):
                if point.state != "not measured":
                    states[commit.place] = max(
                        states.get(commit.place, 0), int(point.value is not None)
                    )
        known |= {c.place: c for c in setting.commits if c.place in states}
        tried.append(states)
    index = {place: number for number, place in enumerate(sorted(known))}
    commits = [
        [place, *(clean(text) for text in (c.hash[:SHORT], c.date, short(c.subject)))]
        for place, c in sorted(known.items())
    ]
    return commits, [
        {
            "first": setting.commits[0].place,
            "ends": [clean(setting.commits[end].hash[:SHORT]) for end in (0, -1)],
            "commits": [[index[place], value] for place, value in sorted(states.items())],
        }
        for setting, states in zip(settings, tried, strict=True)
    ]


def short(text: str) -> str:
    """In one line that no file can make as long as it is itself."""
    line = " ".join(text[: 2 * LONGEST].split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"


def packed(data: Any) -> str:
    """JSON, compressed, as letters: nothing of it can be taken for a part of the page."""
    content = json.dumps(data, separators=(",", ":"), allow_nan=False).encode()
    return base64.b64encode(gzip.compress(content, compresslevel=6, mtime=0)).decode()
