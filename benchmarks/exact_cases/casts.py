"""Rewritten models that are cast afterwards."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.exact_cases.case import Case, refusal
from benchmarks.exact_cases.models import small_model
from benchmarks.exact_cases.rewrites import READ, WIDE, read
from benchmarks.suite.int8_workloads import skip_packed


def _cast(kind: str, dtype: str) -> object:
    """A rewritten model that is cast afterwards: what it holds, and what it gives."""
    import torch

    from reference_model import lora
    from reference_model.quantization.int8 import with_int8_linears
    from reference_model.quantization.norms import NormScheme, with_int8_norms

    skip_packed(kind)
    model: Any = small_model(**WIDE)
    if kind == "adapters":
        generator = torch.Generator().manual_seed(0)
        lora.add_adapters(model, lora.LoRAConfig(3, init_b="gaussian"), generator)
    elif kind == "norms":
        model, _ = with_int8_norms(model, NormScheme(weights="int8"))
    else:
        model = with_int8_linears(model, kind).model  # type: ignore[arg-type]
    model = model.to(getattr(torch, dtype))
    held = [model.named_parameters(), model.named_buffers()]
    return [[(name, each) for part in held for name, each in part], refusal(lambda: read(model))]


HALF = tuple(
    Case(
        f"{kind}, cast to {dtype}",
        READ,
        dtype,
        "steps or adapters that are cast as weights are",
        partial(_cast, kind, dtype),
    )
    for kind in ("dequantize", "int_mm", "packed", "norms", "adapters")
    for dtype in ("bfloat16", "float16")
)
