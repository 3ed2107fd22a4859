"""INT8 weights for real: stored in int8, and multiplied in int8 where the machine can.

A rewrite of a built model: linears and embeddings are replaced by type, and what is left alone is
listed with the reason. No float copy of a weight stays behind.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_model.errors import UserError
from reference_model.lora import plain_names, unload_merged
from reference_model.parts import Role, is_transposed, parts_of
from reference_model.quantization.grid import Grid, to_grid

# How the product with a weight is computed:
#   dequantize  the codes become floats at each call; activations stay as they are
#   int_mm      activations are rounded to int8, a scale for each token; PyTorch's integer product
#   packed      activations are rounded to 8 bits, a scale for each call; FBGEMM's product, whose
#               weights lie as it wants them and can serve no look-up of embeddings (CPU)
Product = Literal["dequantize", "int_mm", "packed"]

PER_CHANNEL = Grid()
LARGEST = 127
# On CUDA the integer product refuses fewer rows, and numbers of rows that are no multiple of 8.
CUDA_LEAST_ROWS = 32


@dataclass(frozen=True)
class Rewrite:
    """What became of a model: module → the product that serves it, or why it stayed.

    A linear below an adapter goes by the name that it has without.
    """

    model: nn.Module
    replaced: dict[str, str]
    skipped: dict[str, str]


class _Int8Module(nn.Module):
    """Codes and the grid they count on: `to`, `half` and the like leave its steps in float32."""

    def __init__(self, codes: Tensor | None, steps: Tensor, zeros: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("codes", codes)  # int8; None where they are packed
        self.register_buffer("steps", steps)  # float32
        self.register_buffer("zeros", zeros)  # like steps, float32; None: symmetric
        self.codes: Tensor | None
        self.steps: Tensor
        self.zeros: Tensor | None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        steps, zeros = self.steps, self.zeros
        super()._apply(fn, recurse)
        self.steps = steps.to(self.steps.device)
        self.zeros = None if zeros is None else zeros.to(self.steps.device)
        return self


class Int8Embedding(_Int8Module):
    """Rows (V, C) of int8 codes and a step for each, (V, 1): a look-up returns ``dtype``."""

    def __init__(self, codes: Tensor, steps: Tensor, dtype: torch.dtype) -> None:
        super().__init__(codes, steps, None)
        self.codes: Tensor
        self.dtype = dtype

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.dtype = fn(self.steps.new_empty(0, dtype=self.dtype)).dtype  # cast with the rest
        return super()._apply(fn, recurse)

    @property
    def weight(self) -> Tensor:
        """The rows as floats, computed anew: for who asks for their dtype or device."""
        return (self.codes[:1] * self.steps[:1]).to(self.dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T) int64 → (B, T, C)."""
        return (F.embedding(tokens, self.codes) * F.embedding(tokens, self.steps)).to(self.dtype)


class _WithoutGradient(torch.autograd.Function):
    """y, which depends on x and bias; who asks by how much is told why that is not known."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> NoReturn:
        raise UserError(
            "an integer product rounds its activations and has no gradient; train on a model with "
            "product='dequantize'"
        )


class Int8Linear(_Int8Module):
    """x (…, K) times the weight that ``codes`` (N, K) stand for, plus a float bias → (…, N).

    ``steps`` (1 or N, groups). Gradients pass through ``dequantize`` alone. NaN in x comes out as
    NaN, except from ``packed``: FBGEMM rounds it to some number.
    """

    def __init__(
        self,
        codes: Tensor,
        steps: Tensor,
        zeros: Tensor | None,
        bias: nn.Parameter | None,
        product: Product,
    ) -> None:
        super().__init__(None if product == "packed" else codes, steps, zeros)
        self.out_features, self.in_features = codes.shape
        self.product, self.bias = product, bias
        # Without VNNI two products may not fit their sum of 16 bits, unless activations have 7.
        self.seven_bits = product == "packed" and not torch.cpu._is_vnni_supported()
        self.packed: Any = _pack(codes, steps, bias) if product == "packed" else None

    def forward(self, x: Tensor) -> Tensor:
        """(…, K) → (…, N), in the dtype of x."""
        if self.product == "dequantize":
            return self._float_product(x)
        product = self._packed_product if self.product == "packed" else self._integer_product
        if not torch.is_grad_enabled():
            return product(x)
        with torch.no_grad():
            y = product(x)
        return _WithoutGradient.apply(y, x, self.bias)

    def _float_product(self, x: Tensor) -> Tensor:
        assert self.codes is not None
        rows, groups = self.steps.shape
        parts = self.codes.view(rows, groups, -1).to(x.dtype)
        if self.zeros is not None:
            parts = parts - self.zeros[..., None]
        # In float32 at least, as the steps are: half precision has no room for small ones.
        weight = (parts * self.steps[..., None]).to(x.dtype).view_as(self.codes)
        return F.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))

    def _packed_product(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            raise UserError(
                f"product='packed' multiplies on a CPU, received numbers on {x.device.type}; "
                "use product='int_mm'"
            )
        y = torch.ops.quantized.linear_dynamic(x.float(), self.packed, self.seven_bits)
        return y.to(x.dtype)

    def _integer_product(self, x: Tensor) -> Tensor:
        assert self.codes is not None
        rows = x.reshape(-1, self.in_features).float()
        scales = rows.abs().amax(-1, keepdim=True).clamp(min=1e-30) / LARGEST  # (rows, 1)
        codes = (rows / scales).round().to(torch.int8)
        missing = -len(codes) % 8 if len(codes) > CUDA_LEAST_ROWS else CUDA_LEAST_ROWS - len(codes)
        if codes.device.type == "cuda" and missing:
            codes = F.pad(codes, (0, 0, 0, missing))
        y = torch._int_mm(codes, self.codes.t())[: len(rows)] * (scales * self.steps.T)
        if self.bias is not None:
            y += self.bias
        return y.view(*x.shape[:-1], -1).to(x.dtype)


def _pack(codes: Tensor, steps: Tensor, bias: Tensor | None) -> Any:
    """FBGEMM's own layout of a weight, which holds no other copy of it."""
    with warnings.catch_warnings():  # the only way to hand it codes that exist already
        warnings.filterwarnings("ignore", message=".*quantize.* deprecated.*")
        weight = torch._make_per_channel_quantized_tensor(
            codes, steps[:, 0].double(), torch.zeros(len(codes), dtype=torch.int64), 0
        )
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        wide_bias = None if bias is None else bias.detach().float()
        return torch.ops.quantized.linear_prepack(weight, wide_bias)
    finally:
        torch.backends.quantized.engine = before


def packed_is_available() -> bool:
    """Whether this build of PyTorch has FBGEMM, for a processor of the right kind."""
    return "fbgemm" in torch.backends.quantized.supported_engines


@torch.no_grad()
def with_int8_linears(
    model: nn.Module,
    product: Product = "int_mm",
    grid: Grid = PER_CHANNEL,
    skip: Callable[[str], str | None] = lambda name: None,
) -> Rewrite:
    """A copy whose linears, and token embedding, hold int8.

    ``skip`` gives the reason for a module that shall stay as it is, or None. Norms stay, and
    positions, of which a step reads one row. A head that is tied to the embedding shares its codes,
    8 bits per channel on any grid; with ``packed`` the look-up has int8 rows of its own. Also takes
    Hugging Face's Conv1D, whose weight is (in, out). Adapters stay beside the linears that they
    adapt; merged ones are part of the weights, for good. What holds int8 already stays as it is.
    Raises `UserError` for a grid that a product cannot serve.
    """
    _check(product, grid, model)
    result = copy.deepcopy(model)
    unload_merged(result)
    replaced: dict[str, str] = {}
    skipped: dict[str, str] = {}
    shared: dict[int, tuple[Tensor, Tensor, Tensor | None]] = {}  # weight → codes, steps, zeros

    def codes_of(
        weight: Tensor, grid: Grid, turned: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        key = weight.data_ptr()
        if key not in shared:
            found = to_grid(weight.T.contiguous() if turned else weight, grid)
            zeros = found.zeros.float() if grid.zero == "asymmetric" else None
            shared[key] = found.codes, found.steps.float(), zeros
        return shared[key]

    kept_alive = []  # an address names a weight only as long as the weight lives
    below_adapters = plain_names(result)
    roles = {part.name: part.role for part in parts_of(result)}
    for place, module in list(result.named_modules()):
        name = below_adapters.get(place, place)
        if isinstance(module, _Int8Module):
            skipped[name] = "in INT8 already"
            continue
        weight = getattr(module, "weight", None)
        if not isinstance(weight, nn.Parameter):
            continue
        reason = skip(name) or _reason_to_stay(module, roles.get(place))
        if reason is not None:
            skipped[name] = reason
            continue
        kept_alive.append(weight)
        if isinstance(module, nn.Embedding):
            codes, steps, zeros = codes_of(weight, PER_CHANNEL)  # a row is a channel
            new: nn.Module = Int8Embedding(codes, steps, weight.dtype)
            replaced[name] = "look-up of int8 rows"
        else:
            codes, steps, zeros = codes_of(weight, grid, is_transposed(module))
            bias = getattr(module, "bias", None)
            new = Int8Linear(codes, steps, zeros, bias, product)
            replaced[name] = product
        _put(result, place, new)
    _check_ties(result, replaced, kept_alive)
    return Rewrite(result, replaced, skipped)


def _check(product: Product, grid: Grid, model: nn.Module) -> None:
    if product not in get_args(Product):
        raise UserError(
            f"product={product!r} is not known; use one of {', '.join(get_args(Product))}"
        )
    plain = grid.granularity == "per channel" and grid.zero == "symmetric"
    if product != "dequantize" and not plain:
        raise UserError(
            f"product={product!r} multiplies whole channels of a symmetric grid, received "
            f"{grid.name}; use product='dequantize'"
        )
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    if product == "packed" and not (on_cpu and packed_is_available()):
        raise UserError(
            "product='packed' needs FBGEMM on a CPU, which this machine or build of PyTorch has "
            "not; use product='int_mm'"
        )


def _reason_to_stay(module: nn.Module, role: Role | None) -> str | None:
    """Why a module with a weight is not rewritten; None where it is."""
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return "a norm: next to no bytes"
    if isinstance(module, nn.Embedding):
        return "positions: a step reads one row" if role == "positions" else None
    if isinstance(module, nn.Linear) or is_transposed(module):
        return None
    return f"a {type(module).__name__}, which is no linear"


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _check_ties(model: nn.Module, replaced: dict[str, str], rewritten: list[nn.Parameter]) -> None:
    """A tied weight that survived on one side would double the bytes, and go unseen."""
    addresses = {weight.data_ptr() for weight in rewritten}
    for name, parameter in model.named_parameters():
        if parameter.data_ptr() in addresses:
            stayed = name.removesuffix(".weight")
            # Of the two that share it, the one that was rewritten.
            tied = [p.name for p in parts_of(model) if p.role in ("head", "embedding")]
            other = next((name for name in reversed(tied) if name in replaced), "another module")
            raise UserError(
                f"{other} is tied to {stayed}, which stays in floating point, so that both would "
                "be held; skip both or neither"
            )


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all weights, read off the tensors; what FBGEMM packed counts by its contents."""
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in _tensors(model)}
    return sum(held.values()) + sum(
        _packed_bytes(module.packed)
        for module in model.modules()
        if isinstance(module, Int8Linear) and module.packed is not None
    )


def _tensors(model: nn.Module) -> list[Tensor]:
    return [t for t in (*model.parameters(), *model.buffers()) if t is not None]


# FBGEMM cuts a packed weight (N, K) into blocks, of which the last in either direction is allocated
# whole: 512 inputs on every processor, and 48 outputs with VNNI, fewer without.
PACKED_BLOCK = (48, 512)


def _packed_bytes(packed: Any) -> int:
    """Whole blocks of codes, and for each channel a step, a zero and the sum of its codes, four
    bytes each; the bias is the module's own.
    """
    weight, _ = torch.ops.quantized.linear_unpack(packed)
    rows, columns = (
        math.ceil(size / of) * of for size, of in zip(weight.shape, PACKED_BLOCK, strict=True)
    )
    return rows * columns + 12 * len(weight)
