"""What the page says in its own words: of each lesson, and of each verdict on a claim."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.judging.claims import EXPERIMENTS

LESSONS_FILE = Path(__file__).with_name("lessons.toml")


@cache
def lesson_texts() -> dict[str, Any]:
    """lessons.toml, and as ``means`` what each lesson's folder says of its claims, by verdict."""
    means: dict[str, dict[str, str]] = {}
    for path in sorted(EXPERIMENTS.glob("*/meanings.toml")):
        means |= tomllib.loads(path.read_text(encoding="utf-8"))
    return {**tomllib.loads(LESSONS_FILE.read_text(encoding="utf-8")), "means": means}
