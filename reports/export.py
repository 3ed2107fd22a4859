"""What leaves for other programs: all measurements as CSV, and each chart as an SVG for slides."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from typing import Any

from reference_model.printing import UNSEEN, clean, warn
from reports.render.charts import panels
from reports.render.drawing import standalone_svg
from reports.render.formats import shown
from reports.render.page import CANNOT_BE_DRAWN, why_undrawn
from reports.render.titles import titled

COLUMNS = (
    "claim", "verdict", "metric", "option", "parameters", "unit", "value", "lo", "hi", "n",
    "direction", "choice", "source", "shown", "finding", "statement",
)  # fmt: skip


# What a spreadsheet would compute, were it the first character of a cell that is no blank.
FORMULA = frozenset("=+-@")


def as_csv(results: dict[str, Any]) -> str:
    """A row per measurement; lo and hi end its 95 % interval, empty where the value is exact.

    These are in full; ``shown`` has them rounded as the page and the README show them.

    The parameters are one JSON object a row: claims have different ones. A text that a spreadsheet
    would take for a formula begins with an apostrophe.
    """
    claims = {claim["id"]: claim for claim in results["claims"]}
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    table.writeheader()
    for m in results["measurements"]:
        low, high = m["interval"] or ("", "")
        parameters = _as_json(m["parameters"])
        told = {key: claims[m["claim"]][key] for key in ("verdict", "finding", "statement")}
        row = {**m, **told, "parameters": parameters, "lo": low, "hi": high, "shown": shown(m)}
        table.writerow({key: _cell(value) for key, value in row.items()})
    return text.getvalue()


def _as_json(parameters: dict[str, Any]) -> str:
    """What steers is spelled out as JSON does it, so that it reads back."""
    text = json.dumps(parameters, ensure_ascii=False)
    return UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1], text)


def _cell(value: Any) -> Any:
    """Numbers as they are; of a text, what steers is spelled out and nothing is a formula."""
    if not isinstance(value, str):
        return value
    value = clean(value, lines=True)
    first = unicodedata.normalize("NFKC", value.lstrip()[:1])  # a full-width sign is one, too
    return f"'{value}" if first in FORMULA else value


def as_svgs(results: dict[str, Any]) -> dict[str, str]:
    """File name, from the claim's id and the chart's place on the page, to the drawing."""
    drawings: dict[str, str] = {}
    for claim in results["claims"]:
        own = [m for m in results["measurements"] if m["claim"] == claim["id"]]
        name = re.sub(r"[^\w.-]", "-", claim["id"])  # an id is text from a file, not a path
        try:
            charts = titled(panels(claim, own), claim, own) if own else []
            drawn = [standalone_svg(panel) for panel in charts]
        except CANNOT_BE_DRAWN as error:  # as on the page: one claim costs no other its charts
            warn(f"no chart of {claim['id']}: {why_undrawn(error)}")
            continue
        drawings |= {f"{name}-{index}.svg": svg for index, svg in enumerate(drawn)}
    return drawings
