"""Where and in which dtype: one list of words, and one rule for what they mean."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
import torch

from reference_model.devices import DEVICES, DTYPES, add_device_and_dtype, resolve_device
from reference_model.errors import UserError


def test_a_dtype_is_called_as_pytorch_calls_it() -> None:
    assert [str(getattr(torch, name)) for name in DTYPES] == [f"torch.{name}" for name in DTYPES]


def test_nothing_that_is_asked_for_means_a_gpu_where_there_is_one_and_float32() -> None:
    parser = argparse.ArgumentParser()
    add_device_and_dtype(parser.add_argument)
    assert vars(parser.parse_args([])) == {"device": "auto", "dtype": "float32"}


@pytest.mark.parametrize("there", [False, True])
def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert resolve_device("auto") == ("cuda" if there else "cpu")
    assert resolve_device("cpu") == "cpu"


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert {resolve_device(name) for name in DEVICES} == {"cpu", "cuda"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda: torch finds no usable CUDA device; use "):
        resolve_device("cuda")


def test_only_one_file_and_the_benchmarks_of_dtypes_list_their_names(root: Path) -> None:
    # The suite of asv runs beside old commits' models, which have no such list.
    listed = re.compile(r'"float32",\s*"bfloat16",\s*"float16"')
    found = {
        path.relative_to(root).as_posix()
        for room in ("reference_model", "benchmarks", "reports")
        for path in (root / room).rglob("*.py")
        if listed.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"reference_model/devices.py", "benchmarks/suite/bench_precision.py"}
