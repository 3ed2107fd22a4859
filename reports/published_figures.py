"""A published figure by its name: the path to it in a JSON file of reports/published."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.data.json_files import read_json
from benchmarks.judging.rounding import Figures, figures
from reference_model.errors import UserError
from reports.reading import of_today

# A step of a path: a key, the labels of the items of a list that are meant, or both.
STEP = re.compile(r"(?=[^/])(?P<key>[^/\[\]]*)(?:\[(?P<labels>[^\]]*)\])?(?:/|$)")
LABEL = re.compile(r"(?P<key>[^=,]+)=(?P<value>.*?)(?:,(?=[^=,]+=)|$)")
VALUES = ("value", "share", "mean")  # what an object with an interval calls its value
OVER = " over "
AS = " as "
CLAIM_FORMS = ("finding", "verdict", "statement", "scale")


@dataclass(frozen=True)
class Figure:
    """A number; its 95 % interval and the n behind it, or None where it is exact."""

    value: float
    interval: tuple[float, float] | None = None
    n: int | None = None
    unit: str = ""

    def changed(self, change: Callable[[float], float], unit: str) -> Figure:
        """Each of its numbers by ``change``, which keeps or turns their order."""
        if self.interval is None:
            return Figure(change(self.value), None, self.n, unit)
        low, high = sorted(change(end) for end in self.interval)
        return Figure(change(self.value), (low, high), self.n, unit)


def _rms(figures: Sequence[Figure]) -> Figure:
    return Figure(math.sqrt(math.fsum(f.value**2 for f in figures) / len(figures)))


# What many figures become one by.
ONE_OF_MANY: Mapping[str, Callable[[Sequence[Figure]], Figure]] = {
    "least": lambda figures: min(figures, key=lambda f: f.value),
    "most": lambda figures: max(figures, key=lambda f: f.value),
    "count": lambda figures: Figure(len(figures)),
    "sum": lambda figures: Figure(math.fsum(f.value for f in figures)),
    "mean": lambda figures: Figure(math.fsum(f.value for f in figures) / len(figures)),
    "rms": _rms,
}
# Another scale; a unit that is named here is written behind the value.
SCALES: Mapping[str, Callable[[Figure], Figure]] = {
    "inverse": lambda f: f.changed(lambda x: 1 / x, ""),
    "percent": lambda f: f.changed(
        (lambda x: x) if f.unit == "percent" else (lambda x: 100 * x), " %"
    ),
    "MB": lambda f: f.changed(lambda x: x / 1e6, " MB"),
}
PARTS = ("value", "interval", "low", "high", "n")


def figure_text(folder: Path, name: str) -> str:
    """What ``name`` stands for now, such as "1.44 (1.31–1.59)".

    A name is ``FILE PATH [over PATH] [as FORM …]``, as reports/figures.py explains it. UserError,
    in one line, where the file, the path or the form leads to no figure, or to several.
    """
    file, _, path = name.partition(" ")
    path, forms = _forms(path)
    content = published(folder / file)
    if len(forms) == 1 and forms[0] in CLAIM_FORMS:
        return _claim(content, name, path, forms[0])
    named, over, base = path.partition(OVER)
    found = list(_figures(content, name, named))
    if over:
        found = _ratios(name, found, list(_figures(content, name, base)), forms)
    return _written(_scaled(_one(name, found, forms), forms), forms)


def _forms(path: str) -> tuple[str, list[str]]:
    before, found, forms = path.rpartition(AS)
    known = {*ONE_OF_MANY, *SCALES, *PARTS, *CLAIM_FORMS}
    return (before, forms.split()) if found and known.issuperset(forms.split()) else (path, [])


@lru_cache(maxsize=64)
def published(path: Path) -> dict[str, Any] | list[Any]:
    """What a published file holds, with its measurements by claim and metric; not to be changed."""
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; name a published JSON file") from None
    if not isinstance(found, dict | list):
        raise UserError(f"{path} holds one value and no names; name another published file")
    if isinstance(found, dict) and "measurements" in found:
        found = of_today(found) if "schema" in found else found
        # A measurement's id is the path to it: claim/metric[label=value,…].
        for m in found["measurements"]:
            of_metric = found.setdefault(m["claim"], {}).setdefault(m["metric"], [])
            of_metric.append({**m, "option": m["option"], **m["parameters"]})
    return found


def _figures(document: Any, name: str, path: str) -> Iterator[Figure]:
    nodes = [document]
    position = 0
    while position < len(path):
        step = STEP.match(path, position)
        if step is None:
            raise UserError(
                f"{name}: {path[position:]!r} is no step of a path; write KEY[LABEL=…]/…"
            )
        nodes = [found for node in nodes for found in _below(node, step)]
        if not nodes:
            raise UserError(f"{name}: nothing is called {step[0]!r} there; look into the file")
        position = step.end()
    return (_figure(node, name) for node in nodes)


def _below(node: Any, step: re.Match[str]) -> list[Any]:
    """What a step leads to: of lists each item, of those only the ones with the labels."""
    inner: list[Any] = []
    for each in node if isinstance(node, list) else [node]:
        if not step["key"]:
            inner.append(each)
        elif isinstance(each, dict) and (step["key"] in each or step["key"] == "*"):
            inner += each.values() if step["key"] == "*" else [each[step["key"]]]
    items = [item for each in inner for item in (each if isinstance(each, list) else [each])]
    labels = {found["key"]: found["value"] for found in LABEL.finditer(step["labels"] or "")}
    return [
        item
        for item in items
        if not labels
        or (isinstance(item, dict) and all(_is(item.get(k), v) for k, v in labels.items()))
    ]


def _is(value: Any, text: str) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(text) == value
        except ValueError:
            return False
    return str(value) == text


def _figure(node: Any, name: str) -> Figure:
    if isinstance(node, int | float) and not isinstance(node, bool):
        return Figure(node)
    if isinstance(node, dict):
        for key in VALUES:
            if key in node and not isinstance(node[key], dict | list | str):
                interval = node.get("interval")
                ends = None if interval is None else (interval[0], interval[1])
                return Figure(node[key], ends, node.get("n"), str(node.get("unit", "")))
    raise UserError(f"{name}: what stands there is no number; name one")


def _one(name: str, found: Sequence[Figure], forms: Sequence[str]) -> Figure:
    for form in forms:
        if form in ONE_OF_MANY:
            return ONE_OF_MANY[form](found)
    if len(found) != 1:
        raise UserError(
            f"{name}: {len(found)} figures are called so; add labels until it is one, or say "
            f"which: {', '.join(ONE_OF_MANY)}"
        )
    return found[0]


def _ratios(
    name: str, found: Sequence[Figure], base: Sequence[Figure], forms: Sequence[str]
) -> list[Figure]:
    """One over the other; of lists the geometric mean of the ratios, with its interval."""
    from benchmarks.judging.stats import geometric_mean_ratio_interval

    if any(form in ONE_OF_MANY for form in forms) or len(found) == len(base) == 1:
        return [Figure(_one(name, found, forms).value / _one(name, base, forms).value)]
    if len(found) != len(base):
        raise UserError(
            f"{name}: {len(found)} figures over {len(base)}; name as many on both sides"
        )
    mean = geometric_mean_ratio_interval(
        [one.value / other.value for one, other in zip(found, base, strict=True)]
    )
    return [Figure(mean.value, mean.interval, mean.n)]


def _scaled(figure: Figure, forms: Sequence[str]) -> Figure:
    figure = Figure(figure.value, figure.interval, figure.n, figure.unit)
    for form, scale in SCALES.items():
        if form in forms:
            figure = scale(figure)
    return figure


def _written(figure: Figure, forms: Sequence[str]) -> str:
    unit = figure.unit if figure.unit in (" %", " MB") else ""
    part = next((form for form in forms if form in PARTS), None)
    if part == "n":
        return f"{figure.n:,}" if figure.n is not None else "exact"
    told = figures(figure.value, figure.interval)
    if part == "value" or (part is None and told.low is None):
        return f"{told.value}{unit}"
    if part is None:
        return f"{told.value}{unit} ({told.interval})"
    ends = told if told.low is not None else Figures(told.value, told.value, told.value)
    return f"{getattr(ends, part)}{unit}"


def _claim(document: Any, name: str, path: str, form: str) -> str:
    claims = document.get("claims", ()) if isinstance(document, dict) else ()
    claim = next((claim for claim in claims if claim["id"] == path), None)
    if claim is None:
        raise UserError(f"{name}: the file knows no claim {path!r}; see python -m benchmarks list")
    return str(claim[form])
