"""A verdict as a small SVG to put into a README: one for each claim, and one for the gate."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from benchmarks.data.json_files import read_json
from reference_model.errors import UserError
from reference_model.printing import clean
from reports.gate.verdict import Verdict
from reports.reading import read

HEIGHT, PADDING, SIZE = 20, 8, 11  # pixels
LONGEST = 80  # characters of one side
LEFT = "#333333"
# Blue, orange, violet and grey stay apart for the colour-blind; white text on each of them has a
# contrast of 4.5 at least. Symbol and word say the same without a colour.
LOOKS = {
    "confirmed": ("✓", "#0067a5"),
    "refuted": ("✗", "#ad4a00"),
    "depends": ("◐", "#6a4c93"),
    "open": ("○", "#595959"),
    "pass": ("✓", "#0067a5"),
    "regression": ("✗", "#ad4a00"),
    "inconclusive": ("○", "#595959"),
    "error": ("!", "#ad4a00"),
    "not comparable": ("≠", "#595959"),
}
GATE = tuple(verdict.words for verdict in Verdict)
# Of Verdana at 11 pixels, roughly: the text is stretched to what is reckoned here.
NARROW, WIDE = frozenset("fijlrt.,:;'!|()[]- "), frozenset("mwMW—%@")


def badges(path: Path, only: str | None = None) -> dict[str, str]:
    """File name to SVG, of each claim of a results file, or of the gate's report in JSON.

    ``only`` is the id of one claim. UserError, in one line, on a file that is neither, and on a
    claim that it does not have.
    """
    report = _gate_report(path)
    if report is not None and only is None:
        verdict = report["verdict"]
        return {"gate.svg": badge("gate", verdict, f"Gate: {verdict}. {report.get('reason', '')}")}
    claims = read(path)["claims"]
    chosen = [claim for claim in claims if only in (None, claim["id"])]
    if not chosen:
        raise UserError(f"{path} has no claim {only!r}; leave --claim out for all of them")
    found = {}
    for claim in chosen:
        name = re.sub(r"[^\w.-]", "-", claim["id"])  # an id is text from a file, not a path
        title = f"{claim['statement']} {claim['finding']}"
        found[f"{name}.svg"] = badge(claim["id"], claim["verdict"], title)
    return found


def badge(name: str, verdict: str, title: str) -> str:
    """``name`` on the left, the verdict on the right; ``title`` is read aloud and shown on hover.

    UserError on a verdict that nothing here gives.
    """
    if verdict not in LOOKS:
        raise UserError(f"no badge for the verdict {verdict!r}; known are {', '.join(LOOKS)}")
    symbol, colour = LOOKS[verdict]
    left, right = _text(name), f"{symbol} {verdict}"
    first, second = (2 * PADDING + text_width(text) for text in (left, right))
    whole = first + second
    words = " ".join(clean(title, lines=True).split())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole}" height="{HEIGHT}" '
        f'viewBox="0 0 {whole} {HEIGHT}" role="img" aria-label={quoteattr(words)}>\n'
        f"<title>{escape(words)}</title>\n"
        f'<rect width="{whole}" height="{HEIGHT}" rx="3" fill="{LEFT}"/>\n'
        f'<path d="M{first} 0h{second - 3}a3 3 0 0 1 3 3v{HEIGHT - 6}a3 3 0 0 1-3 3H{first}z" '
        f'fill="{colour}"/>\n'
        f'<g fill="#ffffff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="{SIZE}" '
        f'aria-hidden="true">\n'
        f"{_line(left, PADDING)}{_line(right, first + PADDING)}</g>\n</svg>\n"
    )


def text_width(text: str) -> int:
    """Pixels that ``text`` takes."""
    return sum(4 if c in NARROW else 10 if c in WIDE or c.isupper() else 7 for c in text)


def _line(text: str, x: int) -> str:
    return f'<text x="{x}" y="14" textLength="{text_width(text)}">{escape(text)}</text>\n'


def _text(text: str) -> str:
    line = " ".join(clean(text, lines=True).split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def _gate_report(path: Path) -> dict[str, Any] | None:
    """What the gate wrote to ``path``; None where it is another file, or none that can be read."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return None
    is_gate = isinstance(found, dict) and found.get("verdict") in GATE and "exit_status" in found
    return found if is_gate else None
