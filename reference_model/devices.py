"""Where a model computes, and in which dtype: the words by which every command is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

from reference_model.errors import UserError

DEVICES = ("auto", "cpu", "cuda")
Dtype = Literal["float32", "bfloat16", "float16"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)


def add_device_and_dtype(add: Callable[..., Any]) -> None:
    """The two arguments; ``add`` is argparse's ``add_argument``, or pytest's ``addoption``."""
    add("--device", choices=DEVICES, default="auto", help="auto takes a GPU where there is one")
    told = "of weights, and of a cache without compression (default: float32)"
    add("--dtype", choices=DTYPES, default="float32", help=told)


def resolve_device(wanted: str) -> str:
    """``cpu`` or ``cuda``, for one of `DEVICES`; UserError where there is no CUDA."""
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no usable CUDA device; use --device cpu")
    return wanted
