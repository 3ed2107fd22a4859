"""results.json in which something is not what it should be, before every command that reads it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from reports.__main__ import main
from tests.fuzz.commands import call
from tests.fuzz.forked import Attempt
from tests.fuzz.mutations import mutate_file

PUBLISHED = Path(__file__).resolve().parents[2] / "reports" / "published" / "quick.json"
CLAIMS = ("tying.abandoned", "int8.norm-damage", "int8.weights-quality", "cache.memory-law")
OLD = "of another run"
README = "above\n<!-- verdicts -->\nold\n<!-- /verdicts -->\nbelow\n"


class MutatedResults:
    """500 files of four claims, each read by one command."""

    name, cases = "results.json", 500
    reserves_addresses = True  # V8, which draws: far more than it uses, so that no limit fits

    def __init__(self, folder: Path) -> None:
        whole = json.loads(PUBLISHED.read_text(encoding="utf-8"))
        whole["claims"] = [claim for claim in whole["claims"] if claim["id"] in CLAIMS]
        whole["measurements"] = [m for m in whole["measurements"] if m["claim"] in CLAIMS]
        self.content = json.dumps(whole)
        from reports.render.drawing import script_bundle

        script_bundle()  # seconds, and the same for every page

    def __call__(self, attempt: Attempt) -> None:
        path, whole = attempt.folder / "results.json", attempt.folder / "whole.json"
        whole.write_text(self.content, encoding="utf-8")
        path.write_text(self.content, encoding="utf-8")
        attempt.what(mutate_file(path, attempt.random, replaced=0.08))
        command = attempt.random.choice(("table", "markdown", "into", "csv", "compare", "build"))
        if command == "build":
            out = attempt.folder / "site"
            out.mkdir()
            (out / "index.html").write_text(OLD)
            done = call(attempt, main, ["build", str(path), "--out", str(out)])
            page = (out / "index.html").read_text(encoding="utf-8")
            if page != OLD if done.status else not page.rstrip().endswith("</html>"):
                attempt.damaged("index.html is neither the old page nor a whole new one")
        elif command == "into":
            readme = attempt.folder / "README.md"
            readme.write_text(README)
            done = call(attempt, main, ["table", str(path), "--into", str(readme)])
            text = readme.read_text(encoding="utf-8")
            kept = text.startswith("above\n<!-- verdicts -->") and text.endswith("below\n")
            if text != README if done.status else not kept or text.count("<!--") != 2:
                attempt.damaged("the text around the table is not what it was")
        elif command == "csv":
            out = attempt.folder / "all.csv"
            out.write_text(OLD)
            done = call(attempt, main, ["csv", str(path), "--out", str(out)])
            if done.status and out.read_text() != OLD:
                attempt.damaged("all.csv is not what it was")
            elif not done.status:
                _check_cells(attempt, out.read_text(encoding="utf-8"))
        elif command == "compare":
            call(attempt, main, ["compare", str(path), str(whole)])
        else:
            layout = ["--format", "markdown"] if command == "markdown" else []
            call(attempt, main, ["table", str(path), *layout])


def _check_cells(attempt: Attempt, text: str) -> None:
    rows = list(csv.reader(io.StringIO(text)))
    if len({len(row) for row in rows}) != 1:
        attempt.damaged("rows of all.csv have different lengths")
    for cell in (cell for row in rows for cell in row):
        if cell.strip()[:1] in tuple("=+@＝＋＠－") or (
            cell.strip().startswith("-") and not _is_number(cell)
        ):
            attempt.wrong(f"a spreadsheet would compute the cell {cell[:40]!r}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
