"""The one writer of outputs: whole or not there, and a place stays what it was."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import filelock
import pytest

from reference_model.errors import UserError
from reference_model.files import check_writable, write_whole

pytestmark = pytest.mark.K6

NAMES = ("index.html", "results.json")
WRITER = """
import sys
from pathlib import Path
from reference_model.files import write_whole
for _ in range(50):
    write_whole(Path(sys.argv[1]), dict.fromkeys(sys.argv[3:], sys.argv[2].encode() * 100_000))
"""
TO_ITS_OUTPUT = """
import sys
from pathlib import Path
from reference_model.files import check_writable, write_whole
print("before")
check_writable(Path(sys.argv[1]))
write_whole(Path(sys.argv[1]).parent, {Path(sys.argv[1]).name: b"content\\n"})
print("after")
"""


def write(path: Path, content: bytes = b"new") -> None:
    check_writable(path)
    write_whole(path.parent, {path.name: content})


def refusal(path: Path) -> str:
    """The one line that comes before the work; after it there is one, too. Nothing is changed."""
    before = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    with pytest.raises(UserError) as early:
        check_writable(path)
    with pytest.raises(UserError) as late:
        write_whole(path.parent, {path.name: b"new"})
    for told in (str(early.value), str(late.value)):
        assert told.startswith("cannot write to ")
        assert "\n" not in told
    assert before == (sorted(path.parent.iterdir()) if path.parent.is_dir() else [])
    return str(early.value)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ---- two that write at once


def test_of_two_that_write_the_same_files_each_is_whole_at_any_time_and_all_are_of_one(
    root: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*command, letter, *NAMES], cwd=root) for letter in "ab"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        for name in NAMES:
            if (tmp_path / name).exists():
                content = (tmp_path / name).read_bytes()
                assert len(content) == 100_000
                assert len(set(content)) == 1
                seen.add(content[:1])
    assert [writer.wait() for writer in writers] == [0, 0]
    assert seen <= {b"a", b"b"}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)
    first, second = ((tmp_path / name).read_bytes() for name in NAMES)
    assert first == second


def test_files_are_put_in_place_while_no_other_process_puts_its_own(tmp_path: Path) -> None:
    other = os.open(tmp_path, os.O_RDONLY)
    filelock.lock_descriptor(other)
    thread = threading.Thread(target=write_whole, args=(tmp_path, dict.fromkeys(NAMES, b"new")))
    thread.start()
    thread.join(0.1)
    assert not any((tmp_path / name).exists() for name in NAMES)
    os.close(other)
    thread.join()
    assert [(tmp_path / name).read_bytes() for name in NAMES] == [b"new", b"new"]


# ---- what a place is, it stays


@pytest.mark.parametrize("target", ["absolute", "relative", "dangling", "of links"])
def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path, target: str) -> None:
    real, link = tmp_path / "elsewhere" / "real", tmp_path / "link"
    if target != "dangling":
        real.parent.mkdir()
        real.write_bytes(b"old")
    if target == "of links":
        (tmp_path / "second").symlink_to(real)
        link.symlink_to("second")
    else:
        link.symlink_to("elsewhere/real" if target == "relative" else real)
    write(link)
    assert link.is_symlink()
    assert not real.is_symlink()
    assert real.read_bytes() == b"new"
    assert [path.name for path in real.parent.iterdir()] == ["real"]


@pytest.mark.parametrize("kept", [0o600, 0o640, 0o755])
def test_a_file_keeps_its_mode_and_owner(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(kept)
    owner = (12345, 23456) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    os.chown(path, *owner)
    write(path)
    assert path.read_bytes() == b"new"
    assert mode(path) == kept
    assert (path.stat().st_uid, path.stat().st_gid) == owner


@pytest.mark.parametrize(("mask", "wanted"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_new_file_has_the_mode_that_the_umask_gives(
    tmp_path: Path, mask: int, wanted: int
) -> None:
    before = os.umask(mask)
    try:
        write(tmp_path / "file")
    finally:
        os.umask(before)
    assert mode(tmp_path / "file") == wanted


def test_a_second_name_of_a_file_keeps_the_old_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    os.link(tmp_path / "file", tmp_path / "second")
    write(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert (tmp_path / "second").read_bytes() == b"old"


@pytest.fixture
def device(tmp_path: Path) -> Callable[[str, int], Path]:
    """A device of the tests' own: root could replace that of the machine, were it not kept."""

    def make(name: str, minor: int) -> Path:
        if os.geteuid() != 0:
            return Path("/dev", name)
        path = tmp_path / name
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        try:
            path.open("wb").close()
        except OSError:
            pytest.skip("the folder of the tests has no devices")
        return path

    return make


def test_a_device_is_written_through(tmp_path: Path, device: Callable[[str, int], Path]) -> None:
    null = device("null", 3)
    (tmp_path / "link").symlink_to(null)
    for path in (null, tmp_path / "link"):
        write(path)
    assert stat.S_ISCHR(null.stat().st_mode)
    assert (tmp_path / "link").is_symlink()


def test_a_pipe_is_written_through(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write(tmp_path / "pipe")
    assert os.read(reader, 100) == b"new"
    os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_the_output_of_a_command_is_written_in_its_turn(
    root: Path, tmp_path: Path, name: str
) -> None:
    command = [sys.executable, "-c", TO_ITS_OUTPUT, name]
    with (tmp_path / "out").open("wb") as out:
        subprocess.run(command, cwd=root, stdout=out, check=True)
    piped = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, check=True)
    assert (tmp_path / "out").read_bytes() == piped.stdout == b"before\ncontent\nafter\n"


def test_a_full_device_is_one_line(device: Callable[[str, int], Path]) -> None:
    with pytest.raises(UserError, match=r"cannot write to .*full \(No space left on device\)"):
        write(device("full", 7))


# ---- refusals


def test_what_takes_no_bytes_is_refused_by_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    assert "it is a folder; name a file in it" in refusal(tmp_path / "folder")
    assert "it is a folder; name a file in it" in refusal(tmp_path / "link")


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("other")
    (tmp_path / "other").symlink_to("one")
    assert "symbolic links" in refusal(tmp_path / "one")


def test_a_place_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    assert "Not a directory" in refusal(tmp_path / "file" / "results.json")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_folder_that_takes_no_file_is_refused() -> None:
    assert "cannot write to /proc/self/results.json" in refusal(Path("/proc/self/results.json"))


def test_a_file_that_may_not_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"old")
    # The tests may run as root, who may write anything.
    monkeypatch.setattr(os, "access", lambda path, wanted: False)
    assert "Permission denied" in refusal(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_place_in_a_folder_that_will_be_made_is_none_yet(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "newer" / "results.json")
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "new" / "newer" / "results.json")
    assert (tmp_path / "new" / "newer" / "results.json").read_bytes() == b"new"


def test_everything_is_on_the_disk_before_anything_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append("folder" if is_folder else f"{os.fstat(descriptor).st_size} bytes")
        sync(descriptor)

    def renamed(part: Path, target: Path) -> None:
        done.append("rename")
        replace(part, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_whole(tmp_path, {"one": b"1", "two": b"22"})
    assert done == ["1 bytes", "2 bytes", "rename", "rename", "folder"]


def test_a_disk_that_fills_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        (tmp_path / name).write_bytes(b"old")

    def full(descriptor: int) -> None:
        if os.fstat(descriptor).st_size > 3:  # the second file
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_whole(tmp_path, {NAMES[0]: b"new", NAMES[1]: b"newer"})
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert left == dict.fromkeys(NAMES, b"old")
