"""The folder of a report: index.html, and the results it was made of."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from benchmarks.results import read_results
from reference_model.errors import UserError
from reports.render.page import render_page


def build_site(results: Path, out: Path) -> Path:
    """Write ``out``/index.html and ``out``/results.json; the path of the page.

    Everything is rendered before anything is written, and every file is written beside its place
    and then renamed. UserError on results that cannot be read or a folder that cannot be written.
    """
    files = {"index.html": render_page(read_results(results)).encode()}
    copy = out / "results.json"
    try:
        if not (copy.exists() and copy.samefile(results)):
            files["results.json"] = results.read_bytes()
        out.mkdir(parents=True, exist_ok=True)
        _replace_together(out, files)
    except OSError as error:
        raise UserError(
            f"cannot write the page to {out}: {error.strerror}; "
            "give --out a folder that you can write to"
        ) from error
    return out / "index.html"


def _replace_together(folder: Path, files: dict[str, bytes]) -> None:
    written: dict[str, str] = {}
    try:
        for name, content in files.items():
            with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{name}.", delete=False) as file:
                written[name] = file.name
                file.write(content)
            os.chmod(file.name, 0o644)
        for name, beside in written.items():
            os.replace(beside, folder / name)
    finally:
        for beside in written.values():
            with suppress(FileNotFoundError):
                os.unlink(beside)
