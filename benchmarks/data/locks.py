"""The locks that `make lock` makes from requirements.in, and how they are read.

Each names what is installed by version and content. A plain list of versions, which the project had
before, is read alike.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAIN = "requirements.txt"  # all but torch
TORCH_CPU = "requirements-torch-cpu.txt"  # as PyTorch's own index has it, without CUDA
TORCH = "requirements-torch.txt"  # as the package index has it, with what it needs of CUDA
PEERS = "benchmarks/peers/requirements.txt"
RAY = "benchmarks/executors/requirements.txt"
TRITON = "tests/on_triton/requirements.txt"  # the one that TORCH brings along


def requirements_of(text: str) -> list[str]:
    """The requirements of a lock or list, one a line, without hashes and remarks."""
    lines = text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines()
    bare = (re.split(r"(?:^|\s)#|\s--hash", line, maxsplit=1)[0].strip() for line in lines)
    return [line for line in bare if line]


def versions() -> str:
    """What is locked as a plain list: a hash would oblige pip to have one for all that it meets."""
    names = (TORCH, MAIN)
    found = [each for name in names for each in requirements_of((ROOT / name).read_text("utf-8"))]
    return "".join(f"{each}\n" for each in found)
