"""The folder of a report: index.html, and the results it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.record.results import results_text
from reference_model.files import write_whole
from reports.merge_results import merge_results
from reports.render.page import OTHER_PAGES, render_page


def build_site(results: Sequence[Path], out: Path) -> Path:
    """Write ``out``/index.html and ``out``/results.json; the path of the page.

    Everything is rendered before anything is written. UserError on results none of which can be
    read or a folder that cannot be written.
    """
    merged = merge_results(results)
    beside = [name for name in OTHER_PAGES if (out / name).is_file()]
    files = {"index.html": render_page(merged, beside).encode()}
    copy = out / "results.json"
    if len(results) > 1 or not results[0].is_file():  # a pipe is read once
        files["results.json"] = results_text(merged).encode()
    elif not (copy.exists() and copy.samefile(results[0])):
        files["results.json"] = results[0].read_bytes()
    write_whole(out, files)
    return out / "index.html"
