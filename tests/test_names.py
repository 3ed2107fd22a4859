"""What README and guides name is there: what they import, call, run and open."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
PACKAGES = "reference_model|benchmarks|reports|tests"
DOTTED = re.compile(rf"(?:{PACKAGES})(?:\.(?!json\b)[A-Za-z_]\w*)+")
MODULE = re.compile(rf"\bpython -m ((?:{PACKAGES})[\w.]*)")
TARGET = re.compile(r"^make ((?:[a-z-]+ ?)+)", re.MULTILINE)
# Paths below the repository, as text names them; a folder ends in a slash.
PATH = re.compile(r"(?:[\w.-]+/)+[\w.-]*|[A-Z]\w*\.md|\w+\.(?:toml|md)")
WRITTEN = re.compile(r"`([\w./]+)`:\n\n```")  # what a guide writes, whole
# Named for what a command writes, for a guide's own example, or for somebody else's folder.
NOT_HERE = re.compile(
    r"^(?:\.venv|\.asv|\.record|reports/site|runs|page/|charts/|big/|reference_model/$|adapter|merged"
    r"|benchmarks/bench_size)"
)


def pages() -> list[Path]:
    """All of the repository, and none of an environment, a cache or a result."""
    places = [ROOT, *(ROOT / name for name in (*PACKAGES.split("|"), "findings", ".ci"))]
    return sorted(
        page for place in places for page in place.glob("*.md" if place == ROOT else "**/*.md")
    )


def tokens(page: Path) -> Iterator[Token]:
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8")):
        yield token
        yield from token.children or []


def blocks(page: Path, *languages: str) -> list[str]:
    return [t.content for t in tokens(page) if t.type == "fence" and t.info.strip() in languages]


def words(page: Path) -> list[str]:
    """What stands in code within a sentence."""
    return [token.content for token in tokens(page) if token.type == "code_inline"]


def imported(program: str) -> Iterator[tuple[str, str]]:
    """(module, name) of each import of ours; the name is empty where the module alone is."""
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def shown() -> list[tuple[str, str]]:
    """All imports of ours in the pages' code, and all dotted names in their sentences."""
    found = set()
    for page in pages():
        for program in blocks(page, "python"):
            found |= {each for each in imported(program) if re.match(PACKAGES, each[0])}
        for word in words(page):
            if (name := word.partition("(")[0]) and DOTTED.fullmatch(name):
                module, _, attribute = name.rpartition(".")
                found.add((module, attribute))
    return sorted(found)


def is_there(module: str, name: str) -> bool:
    if not name or hasattr(importlib.import_module(module), name):
        return find_spec(module) is not None
    try:
        return find_spec(f"{module}.{name}") is not None
    except ModuleNotFoundError:  # the module is no package
        return False


@pytest.mark.parametrize(("module", "name"), shown())
def test_a_name_is_where_the_pages_show_it(module: str, name: str) -> None:
    assert is_there(module, name)


def test_names_are_collected_and_a_missing_one_is_found() -> None:
    assert ("reference_model.generate", "generate") in shown()
    assert len(shown()) >= 15
    assert not is_there("reference_model.generate", "no_such_name")


def commands() -> set[str]:
    found = set()
    for page in pages():
        for text in [*blocks(page, "sh", "text", "yaml"), *words(page)]:
            found |= {name.rstrip(".") for name in MODULE.findall(text)}
    return found


def test_every_module_that_a_page_runs_is_there() -> None:
    found = commands()
    assert {"benchmarks", "reports", "reference_model"} <= found
    assert [name for name in sorted(found) if find_spec(name) is None] == []


def test_every_target_of_make_that_a_page_names_is_there() -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for page in pages()
        for text in [*blocks(page, "sh", "text"), *words(page)]
        for each in TARGET.findall(text)
        for target in each.split()
    }
    assert {"report", "test", "gate", "history"} <= named
    assert named - known == set()


def test_every_file_that_a_page_names_is_there() -> None:
    missing, count = [], 0
    for page in pages():
        written = set(WRITTEN.findall(page.read_text(encoding="utf-8")))
        for word in words(page):
            if word in written:
                continue
            if not PATH.fullmatch(word) or NOT_HERE.match(word) or "://" in word:
                continue
            count += 1
            places = [ROOT, page.parent, *(ROOT / room for room in PACKAGES.split("|"))]
            if not any((place / word).exists() for place in places):
                missing.append(f"{page.relative_to(ROOT)}: {word}")
    assert missing == []
    assert count > 20
