"""What a piece of code rests on: the definitions that it reaches by name, function by function.

`code_digest` takes a module and all that it imports, whole. Here a name leads to the function or
constant that it stands for, and on to the names in there. A class is reached whole, as is a module
that is handed on as a value. What stands at the top of a module without a name runs when it is
imported, and belongs to whatever reaches into it. Annotations are not followed.

What no reader can follow is a module imported by a name that is computed. Who runs one has to say
so: ``benchmarks.micro.test_int8:*`` is all of that module.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path

WHOLE, TOP = "*", ""  # in place of a name: all of a module's; what stands there without one
SPELLED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+(:[A-Za-z_]\w*)?")
Place = tuple[str, str]  # a module, and a name at its top
Function = ast.FunctionDef | ast.AsyncFunctionDef
NO_CODE = (".md", ".py", ".pyc")  # words about it; the rest of the files are data


@dataclass
class _Module:
    lines: list[bytes]
    names: dict[str, list[ast.stmt] | Place] = field(default_factory=dict)  # a module: (it, WHOLE)
    unnamed: list[ast.stmt] = field(default_factory=list)
    imported: list[str] = field(default_factory=list)


class Reach:
    """Of the code of ``package`` in ``root``; each module is read once.

    ``aside``: places, as ``module:name``, whose data files are no part; a start may name some.
    """

    def __init__(self, root: Path, package: str, aside: Collection[str] = ()) -> None:
        self._root, self._package = root, package
        self._aside = {_place(name) for name in aside}
        self._modules: dict[str, _Module | None] = {}
        self._known: dict[Place, tuple[str, list[Place]]] = {}

    def digest(self, starts: Iterable[str], within: str = "") -> str:
        """Of all that ``starts`` reach, each ``module:name`` or a text that is taken as it is.

        ``within``: only of modules that begin so. `ValueError` where something is not there.
        """
        starts = list(starts)
        texts = [text for text in starts if not self._is_ours(text)]
        places = self.places(text for text in starts if self._is_ours(text))
        found = [f"{':'.join(p)} {self._read(p)[0]}" for p in places if p[0].startswith(within)]
        return sha256("\n".join([*texts, *sorted(found)]).encode()).hexdigest()[:16]

    def places(self, starts: Iterable[str]) -> set[Place]:
        """All that they reach."""
        found: set[Place] = set()
        due = [_place(start) for start in starts]
        while due:
            place = due.pop()
            if place not in found:
                found.add(place)
                due += self._read(place)[1]
        return found

    def by_itself(self, name: str) -> str:
        """What a module does when it is imported, beside giving names; of its own text alone."""
        module = self._module(name)
        if module is None:
            return ""
        return "\n".join(ast.unparse(each) for each in module.unnamed if not _is_main(each))

    def _is_ours(self, text: str) -> bool:
        return text.partition(":")[0].partition(".")[0] == self._package and ":" in text

    def _read(self, place: Place) -> tuple[str, list[Place]]:
        """What stands at a place, as a digest, and where it leads."""
        if place not in self._known:
            self._known[place] = self._read_anew(*place)
        return self._known[place]

    def _read_anew(self, name: str, definition: str) -> tuple[str, list[Place]]:
        module = self._module(name)
        if module is None:
            raise ValueError(f"{name} is not there")
        if definition == WHOLE:
            own = [key for key, entry in module.names.items() if isinstance(entry, list)]
            return "", [(name, TOP), *((name, key) for key in own)]
        if definition == TOP:
            statements = module.unnamed
            packages = [(parent, TOP) for parent in _parents(name) if self._module(parent)]
            leads = packages + [(each, TOP) for each in module.imported]
        else:
            entry = module.names.get(definition)
            if entry is None:  # given within a statement that does more, such as a loop
                return "", [(name, WHOLE)]
            if isinstance(entry, tuple):
                return "", [entry]
            statements, leads = entry, [(name, TOP)]
        digest = sha256()
        for statement in statements:
            digest.update(
                b"\n".join(module.lines[_first_line(statement) - 1 : statement.end_lineno])
            )
        for statement in statements:
            leads += self._leads(name, statement)
            for file in self._data(statement) if (name, definition) not in self._aside else ():
                digest.update(sha256(file.read_bytes()).digest())
        return digest.hexdigest()[:16], leads

    # ---- names

    def _leads(self, module: str, statement: ast.stmt) -> Iterator[Place]:
        inside = self._imported_inside(statement)
        for chain in _chains(statement):
            if isinstance(chain, str):
                yield from self._spelled(chain)
            elif chain[0] in inside:
                yield from self._along(inside[chain[0]], chain[1:])
            elif (found := self._of_name(module, chain[0])) is not None:
                yield from self._along(found, chain[1:])

    def _imported_inside(self, statement: ast.stmt) -> dict[str, Place]:
        """What a function imports itself, by the name it gives it."""
        if not isinstance(statement, Function | ast.ClassDef):
            return {}
        return {
            name: place
            for node in ast.walk(statement)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name, place in self._given_by(node)
        }

    def _given_by(self, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Place]]:
        """The names that an import gives, and of what; those of other packages are left out."""
        if isinstance(node, ast.Import):
            for each in node.names:
                full = each.name if each.asname else each.name.partition(".")[0]
                if full.partition(".")[0] == self._package:
                    yield each.asname or full, (full, WHOLE)
        elif node.module and not node.level and self._begins_here(node.module):
            for each in node.names:
                of_module = f"{node.module}.{each.name}"
                is_module = self._file(of_module) is not None
                place = (of_module, WHOLE) if is_module else (node.module, each.name)
                yield each.asname or each.name, place

    def _modules_of(self, node: ast.Import | ast.ImportFrom) -> list[str]:
        given = [place[0] for _, place in self._given_by(node)]
        whole = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        return [name for name in (*given, *whole) if self._file(name) is not None]

    def _begins_here(self, module: str) -> bool:
        return module.partition(".")[0] == self._package

    def _of_name(self, name: str, definition: str) -> Place | None:
        module = self._module(name)
        entry = module.names.get(definition) if module else None
        return entry if isinstance(entry, tuple) else (name, definition) if entry else None

    def _along(self, place: Place, attributes: Sequence[str]) -> Iterator[Place]:
        """Where a name with attributes leads: into a module as far as there are modules."""
        name, definition = place
        while definition == WHOLE and attributes:
            first, *attributes = attributes
            if self._file(f"{name}.{first}") is not None:
                name = f"{name}.{first}"
            elif (found := self._of_name(name, first)) is not None:
                name, definition = found
            else:
                return  # what every module has, such as its __file__
        yield name, definition

    def _spelled(self, text: str) -> Iterator[Place]:
        """A module, or a name in one, that a text spells out, as for a process of its own."""
        if not self._begins_here(text) or not SPELLED.fullmatch(text):
            return
        module, _, definition = text.partition(":")
        if self._file(module) is not None:
            found = self._of_name(module, definition) if definition else (module, WHOLE)
            yield found or (module, WHOLE)

    # ---- files

    def _module(self, name: str) -> _Module | None:
        if name not in self._modules:
            file = self._file(name)
            self._modules[name] = self._parsed(file.read_bytes()) if file else None
        return self._modules[name]

    def _file(self, name: str) -> Path | None:
        base = self._root.joinpath(*name.split("."))
        return next(
            (f for f in (base.with_suffix(".py"), base / "__init__.py") if f.is_file()), None
        )

    def _parsed(self, source: bytes) -> _Module:
        module = _Module(source.splitlines())
        for node in ast.parse(source).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                module.names |= dict(self._given_by(node))
                module.imported += self._modules_of(node)
            elif names := _names_of(node):
                for name in names:
                    earlier = module.names.get(name)
                    before = earlier if isinstance(earlier, list) else []
                    module.names[name] = [*before, node]
            elif not _says_nothing(node):
                module.unnamed.append(node)
        return module

    def _data(self, statement: ast.stmt) -> list[Path]:
        """The data files that a text in a statement names, wherever they lie."""
        return [file for text in _texts(statement) for file in self._files.get(text, ())]

    @cached_property
    def _files(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for file in sorted((self._root / self._package).rglob("*")):
            if file.is_file() and file.suffix not in NO_CODE:
                found.setdefault(file.name, []).append(file)
        return found


def _place(name: str) -> Place:
    module, _, definition = name.partition(":")
    return module, definition


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _first_line(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(each.lineno for each in decorators)])


def _names_of(node: ast.stmt) -> list[str]:
    """That a statement gives something to; none where it does more than that."""
    if isinstance(node, Function | ast.ClassDef):
        return [node.name]
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return []
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    each = [e for t in targets for e in (t.elts if isinstance(t, ast.Tuple) else [t])]
    return [e.id for e in each if isinstance(e, ast.Name)] if _all_names(each) else []


def _all_names(targets: Iterable[ast.expr]) -> bool:
    return all(isinstance(each, ast.Name) for each in targets)


def _is_main(node: ast.stmt) -> bool:
    """Which runs in a process of its own."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def _says_nothing(node: ast.stmt) -> bool:
    """A docstring, or what only a type checker reads."""
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _chains(node: ast.AST) -> Iterator[list[str] | str]:
    """Each name with the attributes that are asked of it, and each text; no annotation."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node.value
        return
    attributes: list[str] = []
    inner = node
    while isinstance(inner, ast.Attribute):
        attributes.insert(0, inner.attr)
        inner = inner.value
    if isinstance(inner, ast.Name):
        yield [inner.id, *attributes]
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST):
                yield from _chains(each)


def _texts(statement: ast.stmt) -> set[str]:
    """The last part of each path that is spelled out."""
    found = (each for each in _chains(statement) if isinstance(each, str))
    return {text.rpartition("/")[2] for text in found if 0 < len(text) < 100}
