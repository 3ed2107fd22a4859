"""The folder of a report: index.html, and the results it was made of."""

from __future__ import annotations

from pathlib import Path

from benchmarks.results import read_results
from reference_model.files import write_whole
from reports.render.page import render_page


def build_site(results: Path, out: Path) -> Path:
    """Write ``out``/index.html and ``out``/results.json; the path of the page.

    Everything is rendered before anything is written. UserError on results that cannot be read or
    a folder that cannot be written.
    """
    files = {"index.html": render_page(read_results(results)).encode()}
    copy = out / "results.json"
    if not (copy.exists() and copy.samefile(results)):
        files["results.json"] = results.read_bytes()
    write_whole(out, files)
    return out / "index.html"
