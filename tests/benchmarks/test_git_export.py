"""Files as git stores them, whatever settings, attributes and filters would make of them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from benchmarks.data.git import git
from benchmarks.data.git_export import export
from reference_model.errors import UserError

pytestmark = pytest.mark.K4

CONTENTS = {
    ".gitattributes": b"*.txt text eol=crlf\n*.id ident\n*.16 working-tree-encoding=UTF-16\n"
    b"*.bin filter=lfs\n",
    "unix.txt": b"a\nb\n",
    "windows.py": b"a\r\nb\r\n",
    "file.id": b"$Id$\n",
    "text.16": b"abc\n",
    "weights.bin": b"version https://git-lfs.github.com/spec/v1\n",
    "empty": b"",
    "a folder/two\nlines": b"\0\xff",
    os.fsdecode(b"\xff"): b"not UTF-8",
    "-rf": b"no option",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    git(tmp_path, "init", "--quiet", str(folder))
    return folder


def stored(repository: Path, content: bytes) -> str:
    (repository / "content").write_bytes(content)
    return git(repository, "hash-object", "-w", "--no-filters", "content")


def tree(repository: Path, *entries: tuple[str, str, str]) -> str:
    """Of (mode, hash, name); a folder's hash is a tree's."""
    kinds = {"040000": "tree", "160000": "commit"}
    lines = (f"{mode} {kinds.get(mode, 'blob')} {hash}\t{name}\0" for mode, hash, name in entries)
    return git(repository, "mktree", "-z", "--missing", given="".join(lines))


def test_every_byte_is_written_as_it_is_stored(repository: Path, tmp_path: Path) -> None:
    git(repository, "config", "core.autocrlf", "true")
    git(repository, "config", "filter.lfs.smudge", "exit 1")
    git(repository, "config", "filter.lfs.required", "true")
    lines = [f"100644 {stored(repository, of)}\t{name}\0" for name, of in CONTENTS.items()]
    git(repository, "update-index", "-z", "--index-info", given="".join(lines))
    written = tmp_path / "written"
    export(repository, git(repository, "write-tree"), written)
    found = {
        str(path.relative_to(written)): path.read_bytes()
        for path in written.rglob("*")
        if path.is_file()
    }
    assert found == CONTENTS


def test_links_programs_and_the_folders_of_submodules_are_what_they_were(
    repository: Path, tmp_path: Path
) -> None:
    run, link = stored(repository, b"run"), stored(repository, b"somewhere/else")
    of_all = tree(
        repository, ("100755", run, "run"), ("120000", link, "link"), ("160000", "1" * 40, "sub"),
        ("100644", run, "plain"),
    )  # fmt: skip
    export(repository, of_all, tmp_path / "written")
    assert os.readlink(tmp_path / "written/link") == "somewhere/else"
    modes = [(tmp_path / "written" / name).stat().st_mode for name in ("run", "plain")]
    assert [bool(mode & stat.S_IXUSR) for mode in modes] == [True, False]
    assert list((tmp_path / "written/sub").iterdir()) == []


def test_nothing_is_written_through_a_link_or_out_of_the_folder(
    repository: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    file, link = stored(repository, b"x"), stored(repository, str(outside).encode())
    inner = tree(repository, ("100644", file, "file"))
    for hostile in (
        (("120000", link, "a"), ("040000", inner, "a")),
        (("100644", file, "a"), ("100644", link, "a")),
        (("040000", inner, ".."),),
        (("040000", inner, ".git"),),
    ):
        with pytest.raises(UserError, match=r"File exists|which no folder can hold"):
            export(repository, tree(repository, *hostile), tmp_path / "written")
    assert list(outside.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"repository", "outside", "written"}


def test_content_that_git_lacks_is_named(repository: Path, tmp_path: Path) -> None:
    lost = tree(repository, ("100644", "1" * 40, "lost"))
    with pytest.raises(UserError, match="git lacks the content of lost"):
        export(repository, lost, tmp_path / "written")


def test_content_that_is_damaged_is_told_in_gits_words(repository: Path, tmp_path: Path) -> None:
    name = stored(repository, os.urandom(100_000))
    damaged = tree(repository, ("100644", name, "damaged"))
    place = repository / ".git/objects" / name[:2] / name[2:]
    place.chmod(0o644)
    place.write_bytes(place.read_bytes()[:90_000])
    with pytest.raises(UserError, match=r"git cat-file (failed|warns): "):
        export(repository, damaged, tmp_path / "written")


def test_a_place_that_cannot_be_written_is_an_error(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write the files of .* \(Not a directory\)"):
        export(repository, tree(repository), tmp_path / "file" / "in it")


def test_a_repository_of_longer_hashes_is_written_too(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--object-format=sha256", "long")
    of_one = tree(tmp_path / "long", ("100644", stored(tmp_path / "long", b"one"), "one"))
    assert len(of_one) == 64
    export(tmp_path / "long", of_one, tmp_path / "written")
    assert (tmp_path / "written/one").read_bytes() == b"one"
