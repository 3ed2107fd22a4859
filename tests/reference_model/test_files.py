"""Files that several processes write at once."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

from reference_model.files import write_whole

NAMES = ("index.html", "results.json")
WRITER = """
import sys
from pathlib import Path
from reference_model.files import write_whole
for _ in range(200):
    write_whole(Path(sys.argv[1]), dict.fromkeys(sys.argv[3:], sys.argv[2].encode() * 100_000))
"""


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
    assert seen == {b"a", b"b"}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)
    first, second = ((tmp_path / name).read_bytes() for name in NAMES)
    assert first == second


def test_files_are_put_in_place_while_no_other_process_puts_its_own(tmp_path: Path) -> None:
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    thread = threading.Thread(target=write_whole, args=(tmp_path, dict.fromkeys(NAMES, b"new")))
    thread.start()
    thread.join(0.1)
    assert not any((tmp_path / name).exists() for name in NAMES)
    os.close(other)
    thread.join()
    assert [(tmp_path / name).read_bytes() for name in NAMES] == [b"new", b"new"]
