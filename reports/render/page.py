"""The page: results.json as a reader's model of it, put through the template."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Template

from benchmarks.judging.claims import Region, region_of
from benchmarks.judging.rounding import Side, number
from reference_model.devices import DTYPES
from reports.render import formats
from reports.render.charts import TooMany, panels
from reports.render.choices import cards
from reports.render.drawing import script_bundle, specification, static_svg
from reports.render.marks import Panel, labels
from reports.render.texts import lesson_texts
from reports.render.titles import titled, told
from reports.templating import page, templates

HERE = Path(__file__).parent
ARTICLE = "6 Things I Learned Building LLMs From Scratch"
FEW_ROWS = 8  # a table this short stands open
FEW_SOURCES = 2
OTHER_PAGES = ("history.html", "gate.html")  # in the folder of a report, where they were made
# Of a drawing, in pixels, as the style sheet lays charts out on a wide screen.
WIDTH_ALONE, WIDTH_OF_TWO = 640, 384
MEANING = {
    "confirmed": "the 95 % interval, or the exact value, lies inside the claim's region",
    "refuted": "it lies wholly outside",
    "depends": "inside in one part of what was tested, outside in another",
    "open": "the interval reaches across the border, or it was not measured",
}
# What was measured, by which the claims can be filtered.
CHECKPOINT, NO_WEIGHTS, NOTHING = "checkpoint", "weightless", "nothing"
SUBJECTS = {
    CHECKPOINT: "the reference checkpoint",
    NO_WEIGHTS: "none that was trained",
    NOTHING: "not measured",
}
AGREEMENTS = {"agree": "one verdict on all models", "differ": "another verdict on another model"}
SYMBOLS = {"confirmed": "✓", "refuted": "✗", "depends": "◐", "open": "○"}
FIELD_NAMES = {
    "dirty": "uncommitted changes",
    "cpu": "CPU",
    "gpu": "GPU",
    "memory_bytes": "memory",
    "utc": "date",
    "packages": "version",
    "python": "Python",
    "onednn": "oneDNN",
    "blas": "BLAS",
    "governor": "clock governor",
}

View = dict[str, Any]
# What a chart raises for valid results whose labels or numbers it does not know.
CANNOT_BE_DRAWN = (ArithmeticError, LookupError, TypeError, ValueError)


def render_page(results: dict[str, Any], beside: Collection[str] = ()) -> str:
    """Valid results (see benchmarks.record.results.read_results) as one self-contained HTML page.

    ``beside`` names the other pages of its folder, of `OTHER_PAGES`, which it links to.
    """
    return page_of(page_view(results), beside)


def page_of(view: View, beside: Collection[str] = ()) -> str:
    """The page of a `page_view`."""
    library = script_bundle()
    return page(
        template("page.html.j2"),
        {**view, "library": library, "beside": beside},
        styles=[source("style.css")],
        scripts=[source("tables.js"), source("page.js")],
        later=[library],
    )


@cache
def template(name: str) -> Template:
    """One of the templates, in which every text that is filled in is escaped."""
    environment = templates(HERE / "templates")
    environment.filters.update(
        pieces=formats.pieces, words=formats.words, sentence=formats.sentence
    )
    return environment.get_template(name)


@cache
def source(name: str) -> str:
    """A style sheet or script of the pages."""
    return (HERE / "templates" / name).read_text(encoding="utf-8")


def page_view(results: dict[str, Any]) -> View:
    """What the page says and draws; drawing takes nearly all of the time."""
    measurements = {m["id"]: m for m in results["measurements"]}
    texts = lesson_texts()
    run = results["environment"]
    means = {claim: {"open": texts["open"], **own} for claim, own in texts["means"].items()}
    claims = [_claim_view(c, measurements, means, run) for c in results["claims"]]
    lessons = [_lesson_view(lesson, claims) for lesson in texts["lesson"]]
    model = next((c["subject"]["name"] for c in results["claims"] if "subject" in c), "")
    counts = Counter(claim["verdict"] for claim in claims)
    return {
        "measured": [c for c in claims if c["measured"]],
        "unmeasured": [c for c in claims if not c["measured"]],
        "claim_count": len(claims),
        "of_checkpoint": sum(claim["about"] == CHECKPOINT for claim in claims),
        "model": model,
        "others": list(dict.fromkeys(name for claim in claims for name in claim["elsewhere"])),
        "agreements": {
            name: words
            for name, words in AGREEMENTS.items()
            if any(claim["agreement"] == name for claim in claims)
        },
        "subjects": SUBJECTS | ({CHECKPOINT: model} if model else {}),
        "cards": cards(texts, claims, measurements),
        "lessons": [lesson for lesson in lessons if lesson["claims"] or lesson["unmeasured"]],
        "verdicts": [
            {"name": v, "symbol": SYMBOLS[v], "count": counts[v], "meaning": MEANING[v]}
            for v in SYMBOLS
        ],
        "held_out": _held_out(results["measurements"]),
        "publications": formats.PUBLICATIONS,
        **_environment_view(results["environment"]),
    }


def _claim_view(
    claim: View, measurements: dict[str, View], means: dict[str, dict[str, str]], run: View
) -> View:
    """``run`` is the environment of a claim that does not bring another."""
    other_run = claim.get("environment")
    made_by = other_run or run
    profile = made_by["profile"]
    own = [m for m in measurements.values() if m["claim"] == claim["id"]]
    anchor = claim["id"].replace(".", "-")
    verdict = claim["verdict"]
    charts, undrawn = _charts(claim, own, anchor)
    said_in = [letter for letter in claim["said_in"] if letter in formats.PUBLICATIONS]
    return {
        **claim,
        "anchor": anchor,
        "symbol": SYMBOLS[verdict],
        "told": told(claim),
        "measured": bool(own),
        "about": _about(claim, own),
        **_elsewhere(claim),
        "said_in": said_in,
        "papers": [s for s in claim["sources"] if not (said_in and ARTICLE in s)],
        "requirements": [{**r, "symbol": SYMBOLS[r["verdict"]]} for r in claim["requirements"]],
        "means": means.get(claim["id"], {}).get(verdict),
        "stale": claim.get("stale", False),
        "commits": claim.get("commits", []),
        "run": _stamp(other_run) if other_run else None,
        "took": formats.duration(claim["seconds"]),
        "command": f".venv/bin/python -m benchmarks run --fresh --profile {profile} "
        f"--only {claim['id']} --device {made_by['device']} --seed {made_by['seed']} "
        f"{_asked_about(made_by)}"
        "--out results.json",
        "charts": charts,
        "undrawn": undrawn,
        "table": _table_view(own, _sides(claim)) if own else None,
    }


def _elsewhere(claim: View) -> View:
    """What other models gave, by their names, and whether the decided verdicts are one."""
    found = {
        other["subject"]["name"]: {**other, "symbol": SYMBOLS[other["verdict"]]}
        for other in claim.get("elsewhere", ())
    }
    decided = {c["verdict"] for c in (claim, *found.values())} - {"open"}
    agreement = "" if not found else "differ" if len(decided) > 1 else "agree"
    return {"elsewhere": found, "agreement": agreement}


def _asked_about(run: View) -> str:
    """The arguments of the command that name model, text and dtype, where it is not ours."""
    given = {name: run[name] for name in ("model", "text", "dtype") if name in run}
    return "".join(f"--{name} {shlex.quote(value)} " for name, value in given.items())


def _about(claim: View, measurements: Sequence[View]) -> str:
    """What was measured: the run's model, no trained one, or nothing."""
    if not measurements:
        return NOTHING
    if "subject" in claim:
        return CHECKPOINT
    of_checkpoint = any(m["source"].startswith(CHECKPOINT) for m in measurements)
    return CHECKPOINT if of_checkpoint else NO_WEIGHTS


def _charts(claim: View, own: Sequence[View], anchor: str) -> tuple[list[View], str]:
    """The claim's charts, and an empty text; none, and why, where they cannot be drawn.

    A chart knows the labels that its experiment gives. Valid results of another version may lack
    them, or hold numbers that no axis can: one claim of such a file must not cost the whole page.
    """
    try:
        drawn = titled(panels(claim, own) if own else [], claim, own)
        width = WIDTH_ALONE if len(drawn) == 1 else WIDTH_OF_TWO
        return [_chart_view(p, f"{anchor}-{i}", width) for i, p in enumerate(drawn)], ""
    except CANNOT_BE_DRAWN as error:
        return [], why_undrawn(error)


def why_undrawn(error: Exception) -> str:
    if isinstance(error, TooMany):
        return str(error)
    return f"this version cannot draw these measurements ({type(error).__name__})"


def _chart_view(panel: Panel, name: str, width: int) -> View:
    return {
        "name": name,
        "title": panel.title,
        "note": panel.note,
        "legend": panel.legend,
        "svg": static_svg(panel, name, width),
        "specification": specification(panel),
    }


def _sides(claim: View) -> dict[str, Side]:
    """Of each measurement that a verdict rests on: which side of the region a number is on."""
    return {
        name: partial(_side, region_of(part["region"]))
        for part in claim["requirements"]
        for name in part["measurements"]
    }


def _side(region: Region, value: float) -> object:
    return region.side(value, value)


def _table_view(measurements: Sequence[View], sides: Mapping[str, Side]) -> View:
    """Columns for the labels that vary; what all measurements share is said once, above."""
    keys = list(dict.fromkeys(key for m in measurements for key in labels(m)))
    sources = list(dict.fromkeys(m["source"] for m in measurements))
    columns, shared = [], []
    for key in keys:
        values = [labels(m).get(key) for m in measurements]
        if len(measurements) > 1 and all(value == values[0] for value in values):
            shared.append((key, formats.label(values[0])))
        else:
            columns.append(key)
    return {
        "columns": columns,
        "shared": shared,
        "rows": [_row_view(m, columns, sides.get(m["id"])) for m in measurements],
        "has_n": any(m["n"] is not None for m in measurements),
        "has_unit": any(m["unit"] != "1" for m in measurements),
        "open": len(measurements) <= FEW_ROWS,
        "sources": ", ".join(sources) if len(sources) <= FEW_SOURCES else "each with its source",
    }


def _row_view(measurement: View, columns: Sequence[str], side: Side | None = None) -> View:
    value, interval = formats.with_interval(measurement["value"], measurement["interval"], side)
    unit = measurement["unit"]
    if unit == "bytes" and measurement["value"] >= 1e6:
        value = f"{value} ({formats.byte_size(measurement['value'])})"
    own, population = labels(measurement), measurement.get("population")
    return {
        "metric": formats.words(measurement["metric"]),
        "labels": [formats.label(own[c]) if c in own else "" for c in columns],
        "value": value,
        "interval": f"{interval}, {population}" if population else interval,
        "n": "" if measurement["n"] is None else number(measurement["n"]),
        "unit": "" if unit == "1" else unit,
        "source": measurement["source"],
    }


def _lesson_view(lesson: View, claims: Sequence[View]) -> View:
    own = [claim for claim in claims if claim["lesson"] == lesson["id"]]
    return {
        **lesson,
        "anchor": lesson["id"],
        "claims": [claim for claim in own if claim["measured"]],
        "unmeasured": [claim for claim in own if not claim["measured"]],
    }


def _held_out(measurements: Sequence[View]) -> list[View]:
    """How well the model predicts held-out text as it is, in the run's dtype."""
    metrics = ("held_out_loss", "perplexity", "bits_per_byte")
    found = [m for m in measurements if m["metric"] in metrics and m["option"] in DTYPES]
    return [_row_view(m, ()) for m in found]


def _environment_view(environment: View) -> View:
    """The stamp for the header, and every field of it as (name, text) for the table at the end."""
    rest = {k: v for k, v in environment.items() if k != "checkpoint"}
    return {
        "stamp": _stamp(environment),
        "checkpoint": _facts(environment.get("checkpoint") or {}),
        "facts": _facts(rest),
    }


def _stamp(environment: View) -> View:
    commit = environment["commit"]
    known = commit.isalnum() and len(commit) >= 12
    return {
        "profile": environment["profile"],
        "machine": _machine(environment),
        "commit": commit[:12] if known else commit,
        "known": known,
        "dirty": environment["dirty"] is True,
        "date": formats.moment(environment["utc"]),
    }


def _machine(environment: View) -> str:
    parts = [environment["cpu"], f"{environment['cores']} cores"]
    gpu = environment["gpu"]
    if not gpu.startswith(("none", "unknown")):
        parts.append(gpu)
    return ", ".join(parts)


def _facts(values: View, prefix: str = "") -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{FIELD_NAMES.get(key, formats.words(key))}"
        if isinstance(value, dict):
            facts += _facts(value, f"{name}: ")
        elif (key == "memory_bytes" or prefix == "caches: ") and isinstance(value, int):
            facts.append((name, formats.byte_size(value)))
        elif key == "utc":
            facts.append((name, formats.moment(value)))
        elif isinstance(value, list):
            facts.append((name, ", ".join(map(formats.label, value))))
        elif value is not None:
            facts.append((name, formats.label(value)))
    return facts
