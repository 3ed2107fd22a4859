"""What the page says before a chart is drawn: its steps, its failures, each series' caption."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from reports.history.amounts import amount, change
from reports.history.plotted import COLUMNS, SHORT, plotted, plotted_commits, short
from reports.history.series import PASSING, History, Series, Setting
from reports.history.steps import (
    LEAST_VALUES,
    MOST_STEPS,
    VALUES_PER_FALSE_STEP,
    Step,
    exact_steps,
    expected_false_steps,
    noisy_steps,
)

# A page must not grow with what it finds; the charts show all the same.
MOST_ROWS = 1000  # of steps
MOST_NAMES = 200  # of failed series, skipped files and the like

View = dict[str, Any]


def history_view(history: History) -> View:
    """``data`` is what the script draws from, all else what the template says."""
    labels = _labels(history.settings)
    views = [
        _setting_view(setting, label, f"m{number}")
        for number, (setting, label) in enumerate(zip(history.settings, labels, strict=True), 1)
    ]
    commits, data = plotted_commits(history.settings)
    steps = [row for view in views for row in view["steps"]]
    # Newest first; within a commit what is worse, and of that the largest.
    steps.sort(key=lambda row: (row["worse"], row["size"]), reverse=True)
    steps.sort(key=lambda row: row["place"], reverse=True)
    shown = steps[:MOST_ROWS]
    groups = [
        {"commit": rows[0]["commit"], "rows": rows}
        for rows in (list(g) for _, g in groupby(shown, key=lambda row: row["place"]))
    ]
    broken = [row for view in views for row in view["broken"]]
    for view, known in zip(views, data, strict=True):
        view["measured_commits"] = sum(value for _, value in known["commits"])
    return {
        "settings": views,
        "step_groups": groups,
        "older_steps": len(steps) - len(shown),
        "broken": broken,
        "counts": {
            "steps": len(steps),
            "worse": sum(row["worse"] for row in steps),
            "series": sum(view["drawn"] for view in views),
            "short": sum(view["short"] for view in views),
            "failed": sum(
                s.count("failed") for setting in history.settings for s in setting.series
            ),
            "failed_last": sum(row["state"] == "failed" for row in broken),
            "skipped_last": sum(row["state"] == "skipped" for row in broken),
        },
        "expected_false_steps": sum(view["false_steps"] for view in views),
        "values_per_false_step": VALUES_PER_FALSE_STEP,
        "least_values": LEAST_VALUES,
        "most_steps": MOST_STEPS,
        "most_names": MOST_NAMES,
        "columns": COLUMNS,
        "skipped_files": history.skipped_files,
        "commits_elsewhere": history.commits_elsewhere,
        "other_benchmarks": history.other_benchmarks,
        "data": {
            "commits": commits,
            "settings": {view["anchor"]: known for view, known in zip(views, data, strict=True)},
            "series": {a: chart for view in views for a, chart in view.pop("plotted").items()},
        },
    }


def _labels(settings: Sequence[Setting]) -> list[str]:
    """The machine, and what tells its settings apart."""
    labels = []
    for setting in settings:
        alike = [other.facts for other in settings if other.machine == setting.machine]
        differ = [
            f"{key} {value}"
            for key, value in setting.facts.items()
            if key not in PASSING and any(facts.get(key) != value for facts in alike)
        ]
        labels.append(short(", ".join([setting.machine, *differ])))
    return labels


def _setting_view(setting: Setting, label: str, anchor: str) -> View:
    charts: list[View] = []
    steps: list[View] = []
    broken: list[View] = []
    empty: list[str] = []
    drawn: View = {}
    false_steps = 0.0
    for number, series in enumerate(setting.series):
        chart = f"{anchor}-{number}"
        newest = _newest(setting, series)
        if newest["state"] != "measured":
            broken.append({**newest, "benchmark": name(series), "machine": label})
        if not series.measured:
            empty.append(
                f"{name(series)} ({series.count('skipped')} skipped, "
                f"{series.count('failed')} failed)"
            )
            continue
        if newest["state"] != "measured":
            broken[-1]["anchor"] = chart
        found = steps_of(series)
        drawn[chart] = plotted(series, found)
        charts.append(_chart_view(setting, series, found, newest, chart, drawn[chart]))
        steps += [_step_row(setting, series, step, chart, label) for step in found]
        if series.exactness is None:
            false_steps += expected_false_steps(len(series.measured))
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
    return {
        "anchor": anchor,
        "machine": label,
        "facts": {short(key): short(text) for key, text in setting.facts.items()},
        "commits": len(setting.commits),
        "files": by_file,
        "steps": steps,
        "broken": broken,
        "empty": empty,
        "drawn": len(charts),
        "short": sum(chart["short"] for chart in charts),
        "false_steps": false_steps,
        "plotted": drawn,
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


def _newest(setting: Setting, series: Series) -> View:
    """What became of the series at the newest commit where it was tried."""
    at = max(at for at, point in enumerate(series.points) if point.state != "not measured")
    return {"state": series.points[at].state, "hash": _hash(setting, at)}


def _chart_view(
    setting: Setting,
    series: Series,
    steps: Sequence[Step],
    newest: View,
    anchor: str,
    drawn: View,
) -> View:
    exact = series.exactness is not None
    counts = {state: series.count(state) for state in ("failed", "skipped", "not measured")}
    first, last = series.measured[0], series.measured[-1]
    tried = len(series.points) - counts["not measured"]
    listed = sum(len(drawn[key]) for key in ("at", "failed", "skipped"))
    return {
        "anchor": anchor,
        "name": name(series),
        "file": short(series.benchmark.file),
        "title": short(series.benchmark.title),
        "parameters": [(short(key), short(_plain(text))) for key, text in series.parameters],
        "unit": short(series.benchmark.unit),
        "exact": exact,
        "short": not exact and len(series.measured) < LEAST_VALUES,
        "gaps": [f"{count:,} {state}" for state, count in counts.items() if count],
        "newest": newest,
        "listed": f"{tried:,} commits" if listed == tried else f"{listed:,} of {tried:,} commits",
        "spoken": (
            f"{name(series)}: {_amount(series, first[1])} at {_hash(setting, first[0])}, "
            f"{_amount(series, last[1])} at {_hash(setting, last[0])}; "
            f"{len(steps)} step{'' if len(steps) == 1 else 's'}"
        ),
    }


def _step_row(setting: Setting, series: Series, step: Step, anchor: str, label: str) -> View:
    commit = setting.commits[step.at]
    before = max(at for at, _ in series.measured if at < step.at)
    same = series.exactness is not None and series.exactness.better == "same"
    return {
        "place": commit.place,
        "commit": {
            "hash": commit.hash[:SHORT],
            "date": commit.date,
            "subject": short(commit.subject),
        },
        "benchmark": name(series),
        "anchor": anchor,
        "machine": label,
        "exact": series.exactness is not None,
        "from": _amount(series, step.before),
        "to": _amount(series, step.after),
        "change": change(step.before, step.after),
        "size": abs(step.after / step.before - 1) if step.before else float("inf"),
        "worse": same or step.after > step.before,  # less is better in the whole suite
        # The change may as well have come with one of these.
        "unmeasured": step.at - before - 1,
    }


def _hash(setting: Setting, at: int) -> str:
    return setting.commits[at].hash[:SHORT]


def name(series: Series) -> str:
    """As the gate and the command line of the tool that measured it spell it."""
    described, values = series.benchmark, ", ".join(value for _, value in series.parameters)
    if described.brackets == "[]" and not values:
        return short(described.name)
    return short(f"{described.name}{described.brackets[0]}{values}{described.brackets[1]}")


def _plain(parameter: str) -> str:
    """asv stores parameters as Python spells them: texts in quotes."""
    return parameter[1:-1] if parameter[:1] == parameter[-1:] == "'" else parameter


def _amount(series: Series, value: float) -> str:
    return amount(value, series.benchmark.unit, series.exactness is not None)
