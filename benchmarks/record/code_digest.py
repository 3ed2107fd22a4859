"""Which code a measurement rests on: the modules it imports, without remarks.

A comment, a docstring or another line break changes no number, so that they are no reason to
measure anew. Everything else is, since nobody can tell from the outside what it does.
"""

from __future__ import annotations

import ast
from functools import cache
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("benchmarks", "reference_model")


def code_digest(module: str, root: Path = ROOT) -> str:
    """Of the code of ``module`` and of all of ours that it imports, directly or not, at any time.

    A file beside a module that the module names, such as a table of published configurations,
    belongs to it.
    """
    digest = sha256()
    for name in sorted(closure(module, root)):
        digest.update(f"{name} {_module_digest(_file_of(name, root))}\n".encode())
    return digest.hexdigest()[:16]


def closure(module: str, root: Path = ROOT) -> set[str]:
    """The names of ``module`` and of all modules of ours that it imports."""
    found: set[str] = set()
    due = [module]
    while due:
        name = due.pop()
        if name in found or (file := _file_of(name, root)) is None:
            continue
        found.add(name)
        due += _imports(name, file)
    return found


def _file_of(name: str, root: Path) -> Path | None:
    if name.partition(".")[0] not in PACKAGES:
        return None
    path = root.joinpath(*name.split("."))
    return next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()), None)


@cache
def _imports(name: str, path: Path) -> list[str]:
    """What a module imports, inside its functions too; a package comes before what is in it."""
    parts = name.split(".")
    found = [".".join(parts[:end]) for end in range(1, len(parts))]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module)
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@cache
def _module_digest(path: Path) -> str:
    tree = ast.parse(path.read_bytes())  # a tree of its own, since this changes it
    named = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            drop_docstring(node)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            named += _file_beside(path, node.value)
    digest = sha256(ast.dump(tree).encode())
    for file in sorted(set(named)):
        digest.update(sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def drop_docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> None:
    """Take the docstring out of ``node``, which stays valid Python."""
    if ast.get_docstring(node, clean=False) is not None:
        node.body = node.body[1:] or [ast.Pass()]


def _file_beside(path: Path, text: str) -> list[Path]:
    """The data file that a text in a module names, if there is one."""
    if not 0 < len(text) < 100 or "\0" in text or "/" in text or "." not in text.strip("."):
        return []
    file = path.with_name(text)
    return [file] if file.is_file() and file.suffix != ".py" else []
