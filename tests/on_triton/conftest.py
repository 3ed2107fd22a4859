"""Where the kernels run: in Triton's interpreter on a CPU, else on the GPU that there is."""

from __future__ import annotations

import os

import pytest
import torch

# A GPU divides by zero in silence; the interpreter is numpy, which warns.
SILENT = ("invalid value encountered in divide", "overflow encountered in cast")


def pytest_itemcollected(item: pytest.Item) -> None:
    for what in SILENT:
        item.add_marker(pytest.mark.filterwarnings(f"ignore:{what}:RuntimeWarning"))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> str:
    """Skips where neither is there. The interpreter's machine has eight multiprocessors."""
    from reference_model.kernels import triton_attention

    if os.environ.get("TRITON_INTERPRET") == "1":
        monkeypatch.setattr(triton_attention, "_multiprocessors", lambda device: 8)
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip("no GPU; `make test-triton` runs this in Triton's interpreter")
    return "cuda"
