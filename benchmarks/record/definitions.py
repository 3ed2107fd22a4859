"""The digest of some definitions, wherever they stand: what they do, without remarks.

`code_digest` is of whole modules and of all that they import. This one is of single functions,
classes and constants, so that a number of theirs can be held to what it stands for.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.record.code_digest import ROOT, drop_docstring

Function = ast.FunctionDef | ast.AsyncFunctionDef
Place = tuple[str, str]  # a module, and a name at its top or ``Class.method``


def definitions_digest(names: Iterable[str], root: Path = ROOT, aside: Collection[str] = ()) -> str:
    """Of ``names``, each ``module:name`` or ``module:Class.method``, and of what they use.

    What they use are functions and constants of their own module and of those of ours that it
    imports names from, each by what it uses in turn. A class is no part unless it is named, nor is
    a function that is ``aside``. Comments, docstrings, annotations, line breaks and the names of
    modules are in no digest. `ValueError` for a name that is not there.
    """
    read = _Sources(root)
    found: dict[Place, str] = {}
    due: list[Place] = []
    for name in names:
        module, _, definition = name.partition(":")
        due.append((module, definition))
    wanted = set(due)
    while due:
        place = due.pop()
        if place in found:
            continue
        node = read.definition(*place)
        if node is None:
            raise ValueError(f"{':'.join(place)} is not there; name where it stands now")
        if isinstance(node, ast.ClassDef) and place not in wanted:
            continue
        bare = plain(node)
        found[place] = canonical(bare)
        used = {each.id for each in ast.walk(bare) if isinstance(each, ast.Name)} - {*aside}
        due += (there for name in used if (there := read.origin(place[0], name)))
    of_names = sorted(f"{definition} {text}" for (_, definition), text in found.items())
    return sha256("\n".join(of_names).encode()).hexdigest()[:16]


class _Sources:
    """The modules of ours that were asked for, parsed."""

    def __init__(self, root: Path) -> None:
        self._root, self._known = root, dict[str, dict[str, ast.stmt | Place]]()

    def definition(self, module: str, name: str) -> ast.stmt | None:
        """Of a name that the module defines itself."""
        whole, _, method = name.partition(".")
        node = self._top(module).get(whole)
        if isinstance(node, tuple):
            return None
        if not method:
            return node
        inside = node.body if isinstance(node, ast.ClassDef) else []
        return next((e for e in inside if isinstance(e, Function) and e.name == method), None)

    def origin(self, module: str, name: str) -> Place | None:
        """Where a name that a module uses is defined; None where that is not a module of ours."""
        node = self._top(module).get(name)
        if node is None:
            return None
        return self.origin(*node) if isinstance(node, tuple) else (module, name)

    def _top(self, module: str) -> dict[str, ast.stmt | Place]:
        """What stands at the top of a module, by name: its own, or where it is imported from."""
        if module not in self._known:
            base = self._root.joinpath(*module.split("."))
            files = (base.with_suffix(".py"), base / "__init__.py")
            file = next((file for file in files if file.is_file()), None)
            tree = ast.parse(file.read_bytes()) if file else ast.Module([], [])
            self._known[module] = {name: each for node in tree.body for name, each in _named(node)}
        return self._known[module]


def _named(node: ast.stmt) -> Iterator[tuple[str, ast.stmt | Place]]:
    """The names that a statement gives, and of what."""
    if isinstance(node, Function | ast.ClassDef):
        yield node.name, node
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield from ((each.asname or each.name, (node.module, each.name)) for each in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            yield from ((name.id, node) for name in names if isinstance(name, ast.Name))


def plain(node: ast.stmt) -> ast.stmt:
    """A copy without docstrings and annotations."""
    found: ast.stmt = _Plain().visit(deepcopy(node))
    return found


class _Plain(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.returns = None
        drop_docstring(node)
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AsyncFunctionDef:
        self.generic_visit(node)
        node.returns = None
        drop_docstring(node)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.generic_visit(node)
        drop_docstring(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        self.generic_visit(node)
        if node.value is None:  # a field: its name is all that is left of it
            return ast.Expr(node.target)
        return ast.Assign([node.target], node.value)


def canonical(node: Any) -> str:
    """A syntax tree as text that is the same in each version of Python: without empty fields."""
    if isinstance(node, ast.AST):
        fields = (
            f"{name}={canonical(value)}"
            for name, value in ast.iter_fields(node)
            if value not in (None, []) and name not in ("ctx", "kind", "type_comment")
        )
        return f"{type(node).__name__}({', '.join(fields)})"
    if isinstance(node, list):
        return f"[{', '.join(map(canonical, node))}]"
    return repr(node)
