"""Tables of claims with their verdicts, for a terminal and the README, and of measurements."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from reference_model.errors import UserError
from reference_model.files import write_whole
from reports import markdown
from reports.render.formats import label, shown, words

START, END = "<!-- verdicts -->", "<!-- /verdicts -->"
MEASUREMENTS = ("<!-- measurements -->", "<!-- /measurements -->")


def verdict_table(results: dict[str, Any]) -> str:
    """A row per claim: its id, what was said, what was found, and at which scale.

    A column more for each other model that was asked.
    """
    of_others = [
        {other["subject"]["name"]: other["finding"] for other in claim.get("elsewhere", ())}
        for claim in results["claims"]
    ]
    others = list(dict.fromkeys(name for found in of_others for name in found))
    rows = [
        [
            markdown.code(claim["id"]),
            markdown.text(claim["statement"]),
            markdown.text(claim["finding"]),
            markdown.text(claim["scale"]),
            *(markdown.text(found.get(name, "")) for name in others),
        ]
        for claim, found in zip(results["claims"], of_others, strict=True)
    ]
    headers = ["claim", "what was said", "what was found", "tested at"]
    headers += [f"on {markdown.text(name)}" for name in others]
    padded = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    # Columns as wide as their longest sentence would make every line of the file that long.
    head, rule, *lines = (re.sub(r" +\|", " |", line) for line in padded.splitlines())
    return "\n".join([head, re.sub("-+", "---", rule), *lines])


def terminal_table(results: dict[str, Any]) -> str:
    """The same rows for a terminal, as wide as it is, and in a line how the verdicts are spread."""
    rows = [
        [" ".join(claim[key].split()) for key in ("id", "statement", "finding")]
        for claim in results["claims"]
    ]
    taken = max((len(row[0]) for row in rows), default=0)
    room = max(60, shutil.get_terminal_size((120, 24)).columns - taken - 4)
    widths = [None, room // 2, room - room // 2]
    headers = ["claim", "what was said", "what was found"]
    table = tabulate(rows, headers, maxcolwidths=widths, disable_numparse=True)
    counts = Counter(claim["verdict"] for claim in results["claims"])
    return f"{table}\n\n{', '.join(f'{count} {name}' for name, count in counts.most_common())}"


def measurement_table(results: dict[str, Any], claim: str, metrics: Sequence[str]) -> str:
    """A row per option and parameters of a claim, a column per metric, intervals in brackets.

    Raises `UserError` where the results have none of it.
    """
    rows: dict[tuple[Any, ...], dict[str, str]] = {}
    keys: dict[str, None] = {}
    for m in results["measurements"]:
        if m["claim"] != claim or m["metric"] not in metrics:
            continue
        labels = {"option": m["option"], **m["parameters"]}
        keys |= dict.fromkeys(labels)
        rows.setdefault(tuple(sorted(labels.items(), key=str)), {})[m["metric"]] = shown(m)
    if not rows:
        raise UserError(
            f"these results hold no {' or '.join(metrics)} of {claim}; see the ids in their "
            "measurements"
        )
    table = [
        [markdown.text(label(dict(row).get(key, ""))) for key in keys]
        + [cells.get(name, "") for name in metrics]
        for row, cells in rows.items()
    ]
    titles = [markdown.text(words(name)) for name in (*keys, *metrics)]
    return tabulate(table, headers=titles, tablefmt="github", disable_numparse=True)


def put_into(path: Path, table: str, marks: tuple[str, str] = (START, END)) -> None:
    """Replace what stands between the two marks of a text file.

    UserError where one of them is missing, or stands in it or in the table once more: the next
    table would replace something else.
    """
    opening, closing = marks
    try:
        text = path.read_bytes().decode("utf-8")  # its line ends are its own
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}; name a text file") from None
    before, start, rest = text.partition(opening)
    _, end, after = rest.partition(closing)
    if not start or not end:
        raise UserError(
            f"{path} has no place for a table; put {opening} and {closing} where it belongs"
        )
    if text.count(opening) > 1 or text.count(closing) > 1:
        raise UserError(f"{path} has {opening} or {closing} twice; leave one of each")
    if opening in table or closing in table:
        raise UserError(
            f"the table holds {opening} or {closing}, so that it would end there; reword it"
        )
    line_end = "\r\n" if "\r\n" in text else "\n"
    new = f"{before}{line_end.join([opening, *table.splitlines(), closing])}{after}"
    write_whole(path.parent, {path.name: new.encode()})
