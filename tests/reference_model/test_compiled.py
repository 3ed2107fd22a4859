"""C++ is compiled once, for this processor, and where it cannot be the plain way goes on."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest

from reference_model.errors import Notice
from reference_model.kernels import compiled
from reference_model.kernels.compiled import CannotCompile, compile_and_load

SMALL = 'extern "C" int answer() { return 42; }\n'


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "small.cpp"
    path.write_text(SMALL)
    return path


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What this process found out about its compiler before, and what it will."""
    compiled._found.cache_clear()
    yield
    compiled._found.cache_clear()


def test_a_function_of_the_source_is_called(source: Path, tmp_path: Path) -> None:
    assert compile_and_load(source, "DEFAULT", tmp_path / "kept").answer() == 42


def test_what_was_compiled_is_not_compiled_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_and_load(source, "DEFAULT", tmp_path / "kept")

    def again(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(compiled, "_compile", again)
    assert compile_and_load(source, "DEFAULT", tmp_path / "kept").answer() == 42


def test_another_source_or_processor_is_another_library(source: Path, tmp_path: Path) -> None:
    compile_and_load(source, "DEFAULT", tmp_path / "kept")
    source.write_text(SMALL.replace("42", "43"))
    assert compile_and_load(source, "DEFAULT", tmp_path / "kept").answer() == 43
    assert len(list((tmp_path / "kept").glob("*.so"))) == 2


@pytest.mark.parametrize(
    ("compiler", "told"),
    [("no-such-compiler", "no compiler called 'no-such-compiler'"), ("false", "failed")],
)
def test_a_compiler_that_is_missing_or_fails_is_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, told: str
) -> None:
    monkeypatch.setenv("CXX", compiler)
    with pytest.raises(CannotCompile, match=told):
        compile_and_load(source, "DEFAULT", tmp_path / "kept")


def test_without_any_compiler_the_names_tried_are_told(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotCompile, match=r"no C\+\+ compiler \(c\+\+, g\+\+, clang\+\+\)"):
        compile_and_load(source, "DEFAULT", tmp_path / "kept")


def test_an_error_in_the_source_is_told_by_its_line(source: Path, tmp_path: Path) -> None:
    source.write_text("int answer() { return forty; }\n")
    with pytest.raises(CannotCompile, match=r"error: .*forty"):
        compile_and_load(source, "DEFAULT", tmp_path / "kept")
    assert not list((tmp_path / "kept").glob("*.so"))


def test_a_processor_without_a_path_is_named(source: Path, tmp_path: Path) -> None:
    with pytest.raises(CannotCompile, match="PyTorch calls SVE256"):
        compile_and_load(source, "SVE256", tmp_path / "kept")


def test_a_place_that_cannot_be_written_is_named(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CannotCompile, match="cannot be written or loaded"):
        compile_and_load(source, "DEFAULT", tmp_path / "file" / "kept")


def test_a_damaged_library_is_named(source: Path, tmp_path: Path) -> None:
    compile_and_load(source, "DEFAULT", tmp_path / "kept")
    (kept,) = (tmp_path / "kept").glob("*.so")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / kept.name).write_bytes(b"no library")
    with pytest.raises(CannotCompile, match="cannot be written or loaded"):
        compile_and_load(source, "DEFAULT", tmp_path / "damaged")


def test_the_plain_way_is_told_of_once(
    forgotten: None, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.delenv(compiled.VARIABLE, raising=False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiled.library("packed_attention.cpp") is None
    assert compiled.library("packed_attention.cpp") is None
    (told,) = [str(w.message) for w in recwarn if issubclass(w.category, Notice)]
    assert "no-such-compiler" in told
    assert "plain, slower way" in told
    assert "\n" not in told


def test_the_plain_way_can_be_asked_for(
    forgotten: None, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setenv(compiled.VARIABLE, "plain")
    assert compiled.library("packed_attention.cpp") is None
    assert not recwarn.list


def test_this_machine_has_the_compiled_way() -> None:
    """Where it has not, every other test of it would be skipped, and nobody would know."""
    assert isinstance(compiled.library("packed_attention.cpp"), ctypes.CDLL)
