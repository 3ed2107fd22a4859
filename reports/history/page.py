"""The history as one page that opens from disk: its steps, then each series, drawn and listed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.gate_suite import Exactness
from reference_model.files import write_whole
from reports.history.plotted import packed
from reports.history.series import NOISY, read_history
from reports.history.view import View, history_view
from reports.templating import page, templates

HERE = Path(__file__).parent
SHARED = HERE.parent / "render" / "templates"


def build_history(
    results: Path,
    out: Path,
    repository: Path = Path(),
    exactness: Mapping[str, Exactness] = NOISY,
) -> View:
    """Write the page to ``out``; returns what it shows. Arguments are those of `read_history`.

    A `UserError` where no ``results`` are understood, or none is of HEAD's line of first parents.
    """
    view = history_view(read_history(results, repository, exactness))
    write_whole(out.parent, {out.name: render(view).encode()})
    return view


def render(view: View) -> str:
    """Texts are escaped and cleaned: messages of commits, names of machines are others' words."""
    return page(
        templates(HERE).get_template("page.html.j2"),
        {**view, "data": packed(view["data"])},
        styles=[
            path.read_text(encoding="utf-8") for path in (SHARED / "style.css", HERE / "page.css")
        ],
        scripts=[(HERE / "page.js").read_text(encoding="utf-8")],
    )
