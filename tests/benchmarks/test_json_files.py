"""JSON that anyone may have written: what is refused, and why."""

from __future__ import annotations

import os
import re
from pathlib import Path
from threading import Thread

import pytest

from benchmarks.data import json_files
from benchmarks.data.json_files import LONGEST_TEXT, MOST_LEVELS, read_json

pytestmark = pytest.mark.K8


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' stands twice in one object"),
        ('{"a": NaN}', "contains NaN"),
        ('{"a": -1e999}', "a number beyond 1e"),
        (f'{{"a": 1{"0" * 400}}}', "a number beyond 1e"),
        (f'{{"a": 1{"0" * 5000}}}', "digits"),
        ("[" * (MOST_LEVELS + 1) + "]" * (MOST_LEVELS + 1), "levels deep"),
        ("[" * 100_000, "levels deep"),
        (f'["{"x" * (LONGEST_TEXT + 1)}"]', "longer than 20,000 characters"),
        ('["\\u001b[2J"]', r"'\x1b[2J' contains characters that cannot be printed"),
        ('{"a\\ud800": 1}', r"'a\ud800' contains characters that cannot be printed"),
        ('{"a": 1', "not valid JSON"),
        ("\ufeff{}", "not valid JSON"),
    ],
)
def test_it_is_refused_with_the_reason_in_one_short_line(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "file.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(told)) as raised:
        read_json(path)
    assert len(str(raised.value)) < 300
    assert len(str(raised.value).splitlines()) == 1


def test_a_huge_file_is_refused_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_files, "MOST_BYTES", 2_000_000)
    path = tmp_path / "huge.json"
    path.write_bytes(b" " * 1_999_999 + b"7")
    assert read_json(path) == 7
    path.write_bytes(b" " * 2_000_000 + b"7")
    with pytest.raises(ValueError, match="more than 2 MB"):
        read_json(path)


@pytest.mark.parametrize("part", ["[],", "{},", "0,", '{"a":{"a":{"a":0}}},'])
def test_a_file_of_too_many_values_is_refused_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(json_files, "MOST_VALUES", 1000)
    path = tmp_path / "many.json"
    most = 999 // len(re.findall(r"[\[{,]", part))
    path.write_text(f"[{part * most}0]")
    assert len(read_json(path)) == most + 1
    path.write_text(f"[{part * (most + 1)}")  # that it is no JSON would come to light later
    with pytest.raises(ValueError, match="more than 1,000 commas and brackets"):
        read_json(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe.json"
    os.mkfifo(path)
    with pytest.raises(ValueError, match="not valid JSON"):
        read_json(path)


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="this system's pipes have no path")
def test_a_pipe_that_a_shell_names_is_read_to_its_end() -> None:
    taken, given = os.pipe()

    def write() -> None:
        for part in (b'{"a"', b": 1}"):
            os.write(given, part)
        os.close(given)

    writer = Thread(target=write)
    writer.start()
    assert read_json(Path(f"/dev/fd/{taken}")) == {"a": 1}
    writer.join()
    os.close(taken)


def test_texts_in_any_script_with_line_breaks_and_tabs_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text('["α/√r 模型 😀\\n\\t"]', encoding="utf-8")
    assert read_json(path) == ["α/√r 模型 😀\n\t"]
