"""The history as one page that opens from disk: its steps, then each series, drawn and listed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from asv.util import human_value

from reference_model.files import write_whole
from reference_model.printing import clean
from reports.history.drawing import drawing
from reports.history.series import History, Series, Setting, read_history
from reports.history.steps import LEAST_VALUES, Step, exact_steps, noisy_steps
from reports.templating import templates

HERE = Path(__file__).parent
SHORT = 8  # characters of a commit's hash

View = dict[str, Any]


def build_history(results: Path, out: Path, repository: Path = Path()) -> View:
    """Write the page to ``out``; returns what it shows.

    A `UserError` where ``results`` are none of asv's, or none lies on HEAD's line of first parents.
    """
    view = history_view(read_history(results, repository))
    write_whole(out.parent, {out.name: render(view).encode()})
    return view


def render(view: View) -> str:
    """Texts are escaped and cleaned: messages of commits, names of machines are others' words."""
    found = templates(HERE, HERE.parent / "render" / "templates")
    return clean(found.get_template("page.html.j2").render(view), lines=True)


def history_view(history: History) -> View:
    settings = [_setting_view(s, f"m{n}") for n, s in enumerate(history.settings, start=1)]
    steps = [row for setting in settings for row in setting["steps"]]
    # Newest first; within a commit what is worse, and of that the largest.
    steps.sort(key=lambda row: (row["worse"], row["size"]), reverse=True)
    steps.sort(key=lambda row: row["place"], reverse=True)
    groups = [
        {"commit": rows[0]["commit"], "rows": rows}
        for rows in (list(g) for _, g in groupby(steps, key=lambda row: row["place"]))
    ]
    return {
        "settings": settings,
        "step_groups": groups,
        "counts": {
            "steps": len(steps),
            "worse": sum(row["worse"] for row in steps),
            "series": sum(setting["drawn"] for setting in settings),
            "noisy": sum(setting["noisy"] for setting in settings),
            "short": sum(setting["short"] for setting in settings),
        },
        "least_values": LEAST_VALUES,
        "skipped_files": history.skipped_files,
        "commits_elsewhere": history.commits_elsewhere,
        "other_benchmarks": history.other_benchmarks,
    }


def _setting_view(setting: Setting, anchor: str) -> View:
    charts: list[View] = []
    steps: list[View] = []
    empty: list[str] = []
    for number, series in enumerate(setting.series):
        if not series.measured:
            empty.append(
                f"{_name(series)} ({series.count('skipped')} skipped, "
                f"{series.count('failed')} failed)"
            )
            continue
        found = steps_of(series)
        chart = _chart_view(setting, series, found, f"{anchor}-{number}")
        charts.append(chart)
        steps += [_step_row(setting, series, step, chart["anchor"]) for step in found]
    by_file = [
        {
            "file": file,
            "kinds": [
                {"title": title, "charts": chosen}
                for title, exact in (("Measured", False), ("Counted", True))
                if (chosen := [chart for chart in inside if chart["exact"] is exact])
            ],
        }
        for file, inside in ((f, list(g)) for f, g in groupby(charts, key=lambda c: c["file"]))
    ]
    measured = {at for series in setting.series for at, _ in series.measured}
    return {
        "anchor": anchor,
        "machine": setting.machine,
        "facts": setting.facts,
        "commits": [
            {**_commit(setting, at), "measured": at in measured}
            for at in reversed(range(len(setting.commits)))
        ],
        "measured_commits": len(measured),
        "files": by_file,
        "steps": steps,
        "empty": empty,
        "drawn": len(charts),
        "noisy": sum(not chart["exact"] for chart in charts),
        "short": sum(chart["short"] for chart in charts),
    }


def steps_of(series: Series) -> list[Step]:
    """At places of ``series.points``; gaps are passed over."""
    measured = series.measured
    values = [value for _, value in measured]
    if series.exactness is None:
        found = noisy_steps(values)
    else:
        found = exact_steps(values, series.exactness)
    return [Step(measured[step.at][0], step.before, step.after) for step in found]


def _chart_view(setting: Setting, series: Series, steps: Sequence[Step], anchor: str) -> View:
    exact = series.exactness is not None
    gaps = [
        f"{count} {state}"
        for state in ("failed", "skipped", "not measured")
        if (count := series.count(state))
    ]
    first, last = series.measured[0], series.measured[-1]
    starts = {step.at: step for step in steps}
    return {
        "anchor": anchor,
        "name": _name(series),
        "file": series.benchmark.partition(".")[0],
        "title": series.benchmark.partition(".")[2],
        "parameters": [(name, _plain(value)) for name, value in series.parameters],
        "unit": series.unit,
        "exact": exact,
        "short": not exact and len(series.measured) < LEAST_VALUES,
        "gaps": gaps,
        "steps": len(steps),
        "spoken": (
            f"{_name(series)}: {_amount(series, first[1])} at {_hash(setting, first[0])}, "
            f"{_amount(series, last[1])} at {_hash(setting, last[0])}; "
            f"{len(steps)} step{'' if len(steps) == 1 else 's'}"
        ),
        "drawing": drawing(series, steps, lambda value: _amount(series, value)),
        "ends": (_hash(setting, 0), _hash(setting, len(setting.commits) - 1)),
        "rows": [
            {
                "hash": _hash(setting, at),
                "value": _amount(series, point.value) if point.value is not None else point.state,
                "interval": (
                    f"{_amount(series, point.interval[0])} – {_amount(series, point.interval[1])}"
                    if point.interval
                    else ""
                ),
                "step": _change(starts[at]) if at in starts else "",
            }
            for at, point in reversed(list(enumerate(series.points)))
            if point.state != "not measured"
        ],
    }


def _step_row(setting: Setting, series: Series, step: Step, anchor: str) -> View:
    commit = _commit(setting, step.at)
    before = max(at for at, _ in series.measured if at < step.at)
    same = series.exactness is not None and series.exactness.better == "same"
    return {
        "place": setting.commits[step.at].place,
        "commit": commit,
        "benchmark": _name(series),
        "anchor": anchor,
        "machine": setting.machine,
        "exact": series.exactness is not None,
        "from": _amount(series, step.before),
        "to": _amount(series, step.after),
        "change": _change(step),
        "size": abs(step.after / step.before - 1) if step.before else float("inf"),
        "worse": same or step.after > step.before,  # less is better in the whole suite
        # The change may as well have come with one of these.
        "unmeasured": step.at - before - 1,
    }


def _commit(setting: Setting, at: int) -> View:
    commit = setting.commits[at]
    return {
        "hash": commit.hash[:SHORT],
        "date": commit.date,
        "subject": " ".join(c for c in commit.subject.split() if c.isprintable()),
    }


def _hash(setting: Setting, at: int) -> str:
    return setting.commits[at].hash[:SHORT]


def _name(series: Series) -> str:
    """As the gate and asv's own command line spell it."""
    return f"{series.benchmark}({', '.join(value for _, value in series.parameters)})"


def _plain(parameter: str) -> str:
    """asv stores parameters as Python spells them: texts in quotes."""
    return parameter[1:-1] if parameter[:1] == parameter[-1:] == "'" else parameter


def _amount(series: Series, value: float) -> str:
    """Counts in full, so that a difference of one is seen; times to four digits, with a unit."""
    if series.unit in ("s", "seconds"):
        return str(human_value(value, "seconds"))
    if series.exactness is not None:
        return f"{value:,.10g}"
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def _change(step: Step) -> str:
    if step.before == 0:
        return "from 0"
    share = 100 * (step.after / step.before - 1)
    return f"{share:+.1f} %" if abs(share) >= 0.1 else f"{share:+.2g} %"
