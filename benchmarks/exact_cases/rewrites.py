"""Models that were rewritten: INT8 linears and norms, simulated rounding, adapters."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.exact_cases.case import Case, refusal
from benchmarks.exact_cases.models import fill, normal, small_model, tokens_of
from benchmarks.suite.int8_workloads import skip_packed

if TYPE_CHECKING:
    from torch import nn

    from reference_model.quantization.grid import Grid

WIDE: dict[str, Any] = {"n_embd": 192}  # three groups of 64 inputs
ASKED = ("per tensor", "per channel", "per group")


def read(model: nn.Module, batch_size: int = 2) -> object:
    """Logits of one token, of several, and of more than a kernel's smallest block of rows."""
    import torch

    given: Any = model
    with torch.inference_mode():
        return [given(tokens_of(given, batch_size, length)) for length in (1, 7, 33)]


def _int8(
    product: str, grid: dict[str, Any] | None = None, dtype: str = "float32", **choices: Any
) -> object:
    from reference_model.quantization.grid import Grid
    from reference_model.quantization.int8 import weight_bytes, with_int8_linears

    skip_packed(product)
    model = small_model(dtype, **{**WIDE, **choices})
    made = with_int8_linears(model, product, Grid(**(grid or {})))  # type: ignore[arg-type]
    return [
        read(made.model),
        weight_bytes(made.model),
        weight_bytes(model),
        made.replaced,
        list(made.skipped),
    ]


def _int8_partly() -> object:
    """Some linears skipped, one after the other rewritten; a tied pair that may not be parted."""
    from reference_model.quantization.int8 import with_int8_linears

    model = small_model(head="untied", **WIDE)
    kept = with_int8_linears(model, "dequantize", skip=lambda n: "kept" if "mlp" in n else None)
    again = with_int8_linears(kept.model, "dequantize")
    tied = small_model(**WIDE)
    return [
        read(kept.model),
        kept.skipped,
        read(again.model),
        sorted(again.replaced),
        sorted(again.skipped),
        refusal(
            lambda: with_int8_linears(
                tied, "dequantize", skip=lambda n: "kept" if n == "wte" else None
            )
        ),
        refusal(lambda: with_int8_linears(model, "int_mm", _grid(bits=4, granularity="per group"))),
        refusal(lambda: with_int8_linears(model, "none")),  # type: ignore[arg-type]
    ]


def _grid(**fields: Any) -> Grid:
    from reference_model.quantization.grid import Grid

    return Grid(**fields)


def _one_linear(product: str) -> object:
    """Inputs that are zero, tiny, large, or not finite."""
    import torch

    from reference_model.linear import Linear
    from reference_model.quantization.int8 import with_int8_linears

    skip_packed(product)
    linear: Any = torch.nn.Sequential(Linear(64, 24), Linear(24, 40, bias=False))
    fill(linear)
    made: Any = with_int8_linears(linear, product).model  # type: ignore[arg-type]
    x = normal("inputs", 3, 5, 64)
    x[0, 0] = 0
    x[1] *= 1e-6
    x[2] *= 1e4
    with torch.inference_mode():
        return [made(x), made(x[:1, :1])]


def _grids() -> object:
    """Codes, steps and zeros of every grid, of weights with a zero row and with one outlier."""
    from reference_model.quantization.grid import Grid, rounded, to_grid

    weight = normal("weight", 6, 128)
    weight[2] = 0
    weight[4, 7] = 30
    weight[5] = weight[5].abs() + 1  # no zero between its ends
    found: list[object] = []
    for bits in (2, 3, 4, 5, 8):
        for granularity in ASKED:
            for zero in ("symmetric", "asymmetric"):
                grid = Grid(bits, granularity, zero)  # type: ignore[arg-type]
                codes = to_grid(weight, grid)
                found += [
                    grid.name,
                    codes.codes,
                    codes.steps,
                    codes.zeros,
                    codes.values,
                    rounded(weight, grid),
                ]
    found += [refusal(lambda: Grid(9)), refusal(lambda: Grid(4, "per row"))]  # type: ignore[arg-type]
    return [*found, refusal(lambda: to_grid(weight / 0, Grid()))]


def _rounded(grid: dict[str, Any]) -> object:
    from reference_model.quantization.rounding import with_rounded_linears, with_rounded_norms

    model = small_model(**WIDE)
    linears, names = with_rounded_linears(model, _grid(**grid))
    some, of_mlp = with_rounded_linears(model, _grid(**grid), lambda name: "mlp" in name)
    norms, of_norms = with_rounded_norms(model)
    return [read(linears), names, read(some), of_mlp, read(norms), of_norms]


def _norms(norm: str, **scheme: Any) -> object:
    from reference_model.quantization.norms import NormScheme, with_int8_norms

    made, names = with_int8_norms(small_model(norm=norm, **WIDE), NormScheme(**scheme))
    return [read(made), names]


# ---- adapters

ADAPTED: dict[str, dict[str, Any]] = {
    "lora": {"rank": 3},
    "rslora": {"rank": 3, "scaling": "rslora"},
    "constant": {"rank": 3, "scaling": "constant", "alpha": 0.5},
    "all targets": {
        "rank": 5,
        "alpha": 7.0,
        "targets": ("query", "key", "value", "attention_output", "mlp_in", "mlp_out"),
    },
    "qkv at once": {"rank": 2, "targets": ("qkv",), "scaling": "rslora"},
    "key alone, gaussian A": {"rank": 1, "targets": ("key",), "init_a": "gaussian"},
    "PEFT's gaussian A": {"rank": 4, "init_a": "peft_gaussian"},
    "rank above the width": {"rank": 50, "targets": ("mlp_out",)},
}


def _adapted(dtype: str, **fields: Any) -> object:
    """Beside, merged, unmerged and removed; drawn anew, with what it counts and trains."""
    import torch

    from reference_model import lora

    model: Any = small_model(dtype)
    plain = read(model)
    config = lora.LoRAConfig(**{"init_b": "gaussian", **fields})
    names = lora.add_adapters(model, config, torch.Generator().manual_seed(0))
    linears = lora.lora_linears(model)
    found: list[object] = [plain, names, config.scale, read(model)]
    found += [[each.delta_weight() for each in linears.values()], _trained(model)]
    with torch.enable_grad():
        loss = model(tokens_of(model, 2, 7)).square().mean()
        loss.backward()
    found += [loss, [parameter.grad for parameter in lora.adapter_parameters(model)]]
    lora.merge_adapters(model)
    found += [read(model), [each.merged for each in linears.values()]]
    lora.unmerge_adapters(model)
    found.append(read(model))
    lora.merge_adapters(model)
    lora.remove_adapters(model)
    return [*found, read(model), sorted(name for name, _ in model.named_parameters())]


def _trained(model: Any) -> object:
    return {name: parameter.requires_grad for name, parameter in model.named_parameters()}


def _fresh_adapters() -> object:
    """B is 0: the model says what it said; A is as it was drawn."""
    import torch

    from reference_model import lora

    model: Any = small_model()
    lora.add_adapters(model, lora.LoRAConfig(4, dropout=0.5), torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    trained = model.train()(tokens_of(model, 2, 7))
    return [read(model.eval()), trained, list(lora.adapter_parameters(model))]


def _adapters_and_int8() -> object:
    """Adapters beside INT8 linears; merged ones inside them; what cannot be merged."""
    import torch

    from reference_model import lora
    from reference_model.quantization.int8 import with_int8_linears

    def model() -> Any:
        made: Any = small_model(**WIDE)
        config = lora.LoRAConfig(4, init_b="gaussian")
        lora.add_adapters(made, config, torch.Generator().manual_seed(0))
        return made

    beside = with_int8_linears(model(), "int_mm")
    lora.merge_adapters(merged := model())
    inside = with_int8_linears(merged, "int_mm")
    return [
        read(beside.model),
        sorted(beside.replaced),
        read(inside.model),
        sorted(inside.replaced),
        refusal(lambda: lora.merge_adapters(beside.model)),
        refusal(lambda: lora.add_adapters(beside.model, lora.LoRAConfig(2))),
        refusal(lambda: lora.remove_adapters(small_model())),
    ]


def _refused_adapters() -> object:
    from reference_model.lora import LoRAConfig

    wrong: tuple[dict[str, Any], ...] = (
        {"rank": 0},
        {"rank": 2, "alpha": 0},
        {"rank": 2, "dropout": 1.0},
        {"rank": 2, "targets": ()},
        {"rank": 2, "targets": ("qkv", "query")},
        {"rank": 2, "scaling": "r"},
        {"rank": True},
        {"rank": 2, "targets": ("query", "query")},
    )
    return [refusal(partial(LoRAConfig, **each)) for each in wrong]


READ = "B 2, T 1, 7 and 33; 3 heads, 192 wide"
SINGLE = (
    Case(
        "grids",
        "6 × 128, 2 to 8 bits, every grid",
        "float32",
        "steps, zeros or codes that are off",
        _grids,
    ),
    *(
        Case(
            f"rounded linears and norms, {grid.get('granularity', 'per channel')}",
            READ,
            "float32",
            "weights that are rounded or spared by mistake",
            partial(_rounded, grid),
        )
        for grid in (
            {},
            {"granularity": "per tensor", "bits": 4},
            {"granularity": "per group", "bits": 3, "zero": "asymmetric"},
        )
    ),
    *(
        Case(
            f"int8 dequantize, {name}",
            READ,
            "float32",
            "a product that is off",
            partial(_int8, "dequantize", grid),
        )
        for name, grid in (
            ("per channel", {}),
            ("per group of 4 bits", {"granularity": "per group", "bits": 4}),
            ("asymmetric", {"zero": "asymmetric"}),
            ("per tensor", {"granularity": "per tensor"}),
        )
    ),
    Case(
        "int8, some linears",
        READ,
        "float32",
        "linears that are rewritten or spared by mistake",
        _int8_partly,
    ),
    *(
        Case(
            f"adapters, {name}",
            "B 2, T 1, 7 and 33; 3 heads, 42 wide",
            "float32",
            "a scale, slice or merge that is off",
            partial(_adapted, "float32", **fields),
        )
        for name, fields in ADAPTED.items()
    ),
    Case(
        "adapters, fresh",
        "B 2, T 7, rank 4",
        "float32",
        "another draw, or a start that is not the model's",
        _fresh_adapters,
    ),
    Case(
        "adapters, refused",
        "8 configurations",
        "none",
        "what is wrong and passes",
        _refused_adapters,
    ),
)
REWRITTEN: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied, rope, rmsnorm, no bias": {
        "head": "untied",
        "position": "rope",
        "norm": "rmsnorm",
        "bias": False,
    },
}
# Activations may step over an edge where sums are in another order.
ROUNDED = (
    *(
        Case(
            f"int8 {product}, {name}",
            READ,
            "float32",
            "a product that is off",
            partial(_int8, product, **choices),
        )
        for product in ("int_mm", "packed")
        for name, choices in REWRITTEN.items()
    ),
    *(
        Case(
            f"int8 {product}, one linear",
            "(3, 5, 64) and one row; 1e-6 to 1e4",
            "float32",
            "rows that are 0, tiny or large",
            partial(_one_linear, product),
        )
        for product in ("dequantize", "int_mm", "packed")
    ),
    *(
        Case(
            f"int8 norms, {norm}, {scheme}",
            READ,
            "float32",
            "statistics that are off",
            partial(_norms, norm, **scheme),
        )
        for norm in ("layernorm", "rmsnorm")
        for scheme in (
            {"weights": "int8"},
            {"input": "int8"},
            {"weights": "int8", "statistics": "integer"},
        )
    ),
    Case("int8 beside adapters", READ, "float32", "adapters that INT8 loses", _adapters_and_int8),
)
HALF = (
    Case(
        "int8 int_mm, bfloat16",
        READ,
        "bfloat16",
        "a path that one dtype alone takes",
        partial(_int8, "int_mm", dtype="bfloat16"),
    ),
    Case(
        "int8 dequantize, float16",
        READ,
        "float16",
        "a path that one dtype alone takes",
        partial(_int8, "dequantize", dtype="float16"),
    ),
    Case(
        "adapters, bfloat16",
        "B 2, T 1, 7 and 33",
        "bfloat16",
        "a sum in too few bits",
        partial(_adapted, "bfloat16", rank=3, targets=("query", "value", "mlp_out")),
    ),
)
