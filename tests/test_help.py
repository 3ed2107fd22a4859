"""Each command says in --help what it does, with an example that works and its exit statuses."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reference_model.command_line import Parser
from reference_model.devices import DEVICES, DTYPES

ROOT = Path(__file__).parents[1]
LONGEST = 35  # words of a sentence


def commands() -> list[str]:
    """The modules that make a parser of arguments, found in their text."""
    found = []
    for room in ("reference_model", "benchmarks", "reports", "tests/fuzz"):
        for path in sorted((ROOT / room).rglob("*.py")):
            calls = (
                node
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Call)
            )
            names = {getattr(call.func, "id", getattr(call.func, "attr", "")) for call in calls}
            if names & {"Parser", "ArgumentParser"}:
                found.append(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return found


def with_subcommands(parser: Any) -> Iterator[Any]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from with_subcommands(each)


def parser_of(module: str) -> Parser:
    return importlib.import_module(module)._parser()


def parsers() -> list[Any]:
    found = [each for module in commands() for each in with_subcommands(parser_of(module))]
    return [pytest.param(each, id=each.prog.removeprefix("python -m ")) for each in found]


def explained(parser: Any) -> dict[str, str]:
    """The argument or subcommand -> what --help says of it; empty, where it says nothing."""
    found = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= {each.dest: each.help or "" for each in action._choices_actions}
        else:
            found[action.dest] = action.help or ""
    return found


def too_long(text: str) -> list[str]:
    sentences = re.split(r"(?<=[.:;!?])\s+|\n\s*\n", text)
    return [each for each in sentences if len(each.split()) > LONGEST]


def test_every_command_is_found() -> None:
    assert {"benchmarks.__main__", "reports.__main__", "reports.gate.command"} <= set(commands())
    assert len(parsers()) > 30


@pytest.mark.parametrize("parser", parsers())
def test_help_says_what_it_does_with_an_example_and_every_exit_status(parser: Any) -> None:
    assert parser.prog.startswith("python -m ")
    assert re.fullmatch(r"[A-Z][^\n]+\.", parser.description)
    told = parser.format_help()
    assert f"\nexample:\n  .venv/bin/{parser.prog}" in told
    _, _, statuses = told.partition("\nexit status:\n")
    assert [int(line.split()[0]) for line in statuses.splitlines()] == sorted(parser.statuses)
    assert 0 in parser.statuses
    assert max(parser.statuses) >= 12  # its own, or that of an interruption
    texts = [parser.description, *parser.statuses.values(), *explained(parser).values()]
    assert [each for text in texts for each in too_long(text)] == []


@pytest.mark.parametrize("parser", parsers())
def test_the_example_is_one_that_the_parser_takes(parser: Any) -> None:
    parser.parse_args(shlex.split(parser.example))


@pytest.mark.parametrize("parser", parsers())
def test_every_argument_is_explained(parser: Any) -> None:
    assert [name for name, told in explained(parser).items() if not told] == []


def test_every_command_takes_the_same_devices_and_dtypes() -> None:
    asked: dict[str, set[Any]] = {"device": set(), "dtype": set()}
    for each in parsers():
        for action in each.values[0]._actions:
            if action.dest in asked:
                asked[action.dest].add(tuple(action.choices))
    # The gate compares two commits on one device, which it does not choose by itself.
    assert asked == {"device": {DEVICES, DEVICES[1:]}, "dtype": {DTYPES}}


def test_an_example_that_the_parser_refuses_is_found() -> None:
    from reference_model.errors import UserError

    wrong = Parser(prog="python -m x", description="X.", example="--no-such-option")
    with pytest.raises(UserError, match="unrecognized arguments"):
        wrong.parse_args(shlex.split(wrong.example))
