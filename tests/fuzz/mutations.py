"""Ways in which a file is not what its reader expects: its JSON, its bytes, what lies there."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TEXTS = (
    "</script><script>hacked()</script><img src=x onerror=hacked()>",
    "=HYPERLINK(1)",
    " ＝1+1",
    "\x1b]0;title\x07\x1b[2J",
    "\u202eabc\u2066",
    "a\nb\r\nc",
    "a|b`c`",
    "<!-- /verdicts -->",
    "../../../outside",
    "constructor",
    "\ud800",
    "",
    " ",
    "nan",
    "W" * 5000,
    "9" * 30_000,
)
NUMBERS = (0, -1, 1, 0.5, 1e308, -1e308, 5e-324, 2**31, 2**63, 10**400, -(10**25), 1e15)
OTHERS = (None, True, False, [], {}, [[]], {"a": {"b": [1]}}, [1, 2], ["x"] * 3, [None], [0, 0])
CONSTANTS = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "[" * 100_000, "9" * 5000)

ROUGH = ("text", "number", "other", "delete", "repeat", "move", "nest", "constant")


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    for key, inner in items:
        if isinstance(inner, dict | list):
            yield from places(inner)
        yield value, key


def mutate_json(content: bytes, random: random.Random) -> tuple[bytes, str]:
    """The document with one to three values changed, and what was done.

    Half of the documents keep the kind of every value, so that many are still read.
    """
    document, done = copy.deepcopy(json.loads(content)), []
    gentle = random.random() < 0.5
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        found = list(places(document))
        if gentle:
            found = [(c, k) for c, k in found if isinstance(c[k], str | int | float)] or found
        if not found:
            break
        container, key = random.choice(found)
        way = random.choice(ROUGH)
        if gentle:
            way = "text" if isinstance(container[key], str) else "number"
        done.append(f"{way} at {key!r}"[:60])
        if way == "delete":
            del container[key]
        elif way == "repeat" and isinstance(container, list):
            container.extend(container[: random.choice((1, 1000))])
        elif way == "move":
            other, place = random.choice(found)
            with_value = copy.deepcopy(container[key])
            try:
                other[place] = with_value
            except (IndexError, TypeError):
                container[key] = None
        elif way == "nest":
            container[key] = {"a": [{"b": container[key]}]}
        elif way == "constant":
            container[key] = f"%%{random.choice(CONSTANTS)}%%"
        else:
            container[key] = random.choice({"text": TEXTS, "number": NUMBERS}.get(way, OTHERS))
    text = json.dumps(document)
    for constant in CONSTANTS:
        text = text.replace(f'"%%{constant}%%"', constant)
    return text.encode("utf-8", "surrogatepass"), ", ".join(done)


def mutate_bytes(content: bytes, random: random.Random) -> tuple[bytes, str]:
    """The bytes, some of them others, fewer or more."""
    way = random.choice(("flip", "flip", "cut", "empty", "more", "zeros", "twice"))
    at = random.randrange(max(1, len(content)))
    if way == "flip":
        changed = bytearray(content)
        for _ in range(random.choice((1, 1, 8))):
            at = random.randrange(max(1, len(content)))
            changed[at] ^= 1 << random.randrange(8)
        return bytes(changed), f"a bit flipped near byte {at} of {len(content)}"
    if way == "cut":
        return content[:at], f"cut at byte {at} of {len(content)}"
    if way == "zeros":
        return content[:at] + b"\0" * 64 + content[at + 64 :], f"zeros at byte {at}"
    if way == "more":
        return content + random.randbytes(random.choice((1, 100, 70_000))), "bytes after its end"
    return (b"", "empty") if way == "empty" else (content * 2, "twice")


def replace_entry(path: Path, random: random.Random) -> str:
    """Something else in the place of a file."""
    way = random.choice(("folder", "dangling link", "FIFO", "link out", "link to itself", "gone"))
    content = path.read_bytes()
    path.unlink()
    if way == "folder":
        path.mkdir()
    elif way == "dangling link":
        path.symlink_to("nowhere.json")
    elif way == "FIFO":
        os.mkfifo(path)
    elif way == "link to itself":
        path.symlink_to(path.name)
    elif way == "link out":
        outside = path.parent.parent.parent / f"outside-{path.name}"
        outside.write_bytes(content)
        path.symlink_to(outside)
    return f"a {way} in its place"


def mutate_file(path: Path, random: random.Random, replaced: float = 0.15) -> str:
    """Change a JSON file in one of these ways; says how."""
    drawn = random.random()
    if drawn < replaced:
        return f"{path.name}: {replace_entry(path, random)}"
    content = path.read_bytes()
    changed, what = (mutate_json if drawn < 0.8 else mutate_bytes)(content, random)
    path.write_bytes(changed)
    return f"{path.name}: {what}"
