"""LoRA: a frozen linear plus s·BA, trained instead of it (Hu et al., 2106.09685).

A rewrite of a built model. B (d, r), A (r, n), rank r, n inputs, d outputs. The scaling law s(r) is
one choice: α/r (LoRA), α/√r (rsLoRA, Kalajdzievski, 2312.03732) or α alone. `lora_files.py` keeps
adapters in PEFT's format.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from reference_model.config import check_choices
from reference_model.costs import LoRATarget
from reference_model.errors import UserError, notice
from reference_model.parts import Part, is_transposed, parts_of
from reference_model.parts import shape_of as shape_of_linear

ScalingLaw = Literal["lora", "rslora", "constant"]  # s = α/r, α/√r, α
# How A's entries are drawn. Kaiming is LoRA's own and PEFT's default; PEFT's "gaussian" has a
# deviation that depends on the rank, which changes how the update grows with it.
InitA = Literal["kaiming_uniform", "gaussian", "peft_gaussian"]  # U(±1/√n), N(0, 1/n), N(0, 1/r²)
InitB = Literal["zero", "gaussian"]  # 0: the model starts as it was; N(0, 1/d), d of the slice


@dataclass(frozen=True)
class LoRAConfig:
    """Shape, scale and initialisation of adapters. A wrong value raises `UserError`."""

    rank: int
    alpha: float = 16.0
    scaling: ScalingLaw = "lora"
    targets: tuple[LoRATarget, ...] = ("query", "value")  # of every layer
    init_a: InitA = "kaiming_uniform"
    init_b: InitB = "zero"
    dropout: float = 0.0  # of the adapter's input; the base sees all of it

    def __post_init__(self) -> None:
        check_choices(self)
        if not isinstance(self.rank, int) or isinstance(self.rank, bool) or self.rank < 1:
            raise UserError(f"rank={self.rank!r} is not a rank; use a whole number ≥ 1")
        if not isinstance(self.alpha, (int, float)) or not 0 < abs(self.alpha) < math.inf:
            raise UserError(f"alpha={self.alpha!r} is no scale; use a finite number other than 0")
        if not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout < 1:
            raise UserError(f"dropout={self.dropout!r} is not a probability; use 0 ≤ dropout < 1")
        if not isinstance(self.targets, tuple) or not self.targets:
            raise UserError(
                f"targets={self.targets!r} names no linears; use a tuple of "
                f"{', '.join(get_args(LoRATarget))}"
            )
        for target in self.targets:
            if target not in get_args(LoRATarget):
                raise UserError(
                    f"unknown LoRA target {target!r}; use one of {', '.join(get_args(LoRATarget))}"
                )
        if len(set(self.targets)) < len(self.targets):
            raise UserError(f"targets={self.targets!r} names one twice; name each once")
        if "qkv" in self.targets and {"query", "key", "value"} & set(self.targets):
            raise UserError(
                f"targets={self.targets!r} adapts a projection twice; use qkv or its parts"
            )

    @property
    def scale(self) -> float:
        """s in W + s·BA."""
        divisors = {"lora": self.rank, "rslora": math.sqrt(self.rank), "constant": 1}
        return self.alpha / divisors[self.scaling]


class Adapter(nn.Module):
    """A (r, n) and B (d, r) of one slice of a linear's outputs."""

    def __init__(
        self, outputs: slice, rank: int, inputs: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.outputs = outputs
        rows = outputs.stop - outputs.start
        self.A = nn.Parameter(torch.zeros(rank, inputs, device=device, dtype=dtype))
        self.B = nn.Parameter(torch.zeros(rows, rank, device=device, dtype=dtype))

    @torch.no_grad()
    def initialize(self, config: LoRAConfig, generator: torch.Generator | None = None) -> None:
        """Draw A and B anew. Drawn in float32 where the generator is: the same on every device."""
        rank, inputs = self.A.shape
        place = generator.device if generator is not None else torch.device("cpu")
        drawn = torch.empty(rank, inputs, device=place)
        if config.init_a == "kaiming_uniform":
            drawn.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
        else:
            deviation = inputs**-0.5 if config.init_a == "gaussian" else 1 / rank
            drawn.normal_(0, deviation, generator=generator)
        self.A.copy_(drawn)
        if config.init_b == "gaussian":
            drawn = torch.empty(self.B.shape, device=place)
            self.B.copy_(drawn.normal_(0, len(self.B) ** -0.5, generator=generator))
        else:
            self.B.zero_()


class LoRALinear(nn.Module):
    """A frozen linear, and an adapter for each adapted slice of its outputs.

    ``base`` is an `nn.Linear`, Hugging Face's Conv1D, whose weight is (in, out), or an INT8 linear,
    which cannot be merged. ``slices`` are the adapted outputs; by default all d of them. The
    config's targets are for `add_adapters`, and not looked at here. As with PEFT, A and B of a base
    in half precision are float32, and so is their product; only the sum has the base's dtype.
    """

    def __init__(
        self,
        base: nn.Module,
        config: LoRAConfig,
        slices: tuple[slice, ...] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = shape_of(base)
        self.base, self.config, self.scale = base.requires_grad_(False), config, config.scale
        self.dropout = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        weight = _float_weight(base)
        like = weight if weight is not None else next(base.buffers(), torch.empty(0))
        dtype = torch.float32 if weight is None else _wide(weight.dtype)
        self.adapters = nn.ModuleList(
            Adapter(outputs, config.rank, self.in_features, like.device, dtype)
            for outputs in sorted(
                slices or (slice(0, self.out_features),), key=lambda outputs: outputs.start
            )
        )
        for adapter in self.parts:
            adapter.initialize(config, generator)
        # While merged, the weight as it was: unmerging puts it back, to the bit. Not saved, but
        # moved and cast with the rest. And the parameter that held it, by which others may know it.
        self.register_buffer("original", None, persistent=False)
        self.original: Tensor | None
        self._parameter: tuple[nn.Parameter, ...] = ()

    @property
    def merged(self) -> bool:
        """Whether the base's weight holds the update."""
        return self.original is not None

    @property
    def bias(self) -> nn.Parameter | None:
        """The base's (d,), which no adapter changes."""
        bias = getattr(self.base, "bias", None)
        return bias if isinstance(bias, nn.Parameter) else None

    def forward(self, x: Tensor) -> Tensor:
        """(…, n) → (…, d): the base's product, to which s·(x Aᵀ)Bᵀ is added where it lies."""
        y: Tensor = self.base(x)
        if self.merged:
            return y
        rows = self.dropout(x).reshape(-1, self.in_features)
        out = y.view(-1, self.out_features)
        pieces, end = [], 0  # the columns of the output, adapted or not
        for adapter in self.parts:
            part, B = out[:, adapter.outputs], adapter.B
            low = rows.to(adapter.A.dtype) @ adapter.A.T  # (rows, r)
            # Fused, unless the base is kept in fewer bits than its adapters, or under autocast.
            fused = part.dtype == low.dtype == B.dtype
            if torch.is_grad_enabled():
                added = (
                    torch.addmm(part, low, B.T, alpha=self.scale)
                    if fused
                    else torch.add(part, low @ B.T, alpha=self.scale).to(part.dtype)
                )
                pieces += [out[:, end : adapter.outputs.start], added]
                end = adapter.outputs.stop
            elif fused:  # in place, where no gradient has to know: nothing is copied
                part.addmm_(low, B.T, alpha=self.scale)
            else:
                part.add_(low @ B.T, alpha=self.scale)
        if torch.is_grad_enabled():
            y = torch.cat([*pieces, out[:, end:]], dim=1).view_as(y)
        return y

    @torch.no_grad()
    def delta_weight(self) -> Tensor:
        """ΔW = s·BA as (d, n), whichever way the base's weight lies; 0 outside the slices.

        In float32 at least.
        """
        first = self.parts[0].A
        dtype = _wide(first.dtype)
        delta = first.new_zeros(self.out_features, self.in_features, dtype=dtype)
        for adapter in self.parts:
            delta[adapter.outputs] = self.scale * (adapter.B.to(dtype) @ adapter.A.to(dtype))
        return delta

    @torch.no_grad()
    def merge(self) -> None:
        """Add ΔW to the base's weight, of which the original is kept; nothing where it is merged.

        The sum is a parameter of its own: what the weight was tied to, such as the embedding of a
        head, stays as it is. Raises `UserError` for a base without a floating-point weight.
        """
        weight = self._weight_to_merge()
        if self.merged:
            return
        delta = self.delta_weight()
        merged = weight + (delta.T if is_transposed(self.base) else delta)
        self.original, self._parameter = weight.data, (weight,)
        self.base.weight = nn.Parameter(merged.to(weight.dtype), weight.requires_grad)

    def unmerge(self) -> None:
        """Put the original weight back, tied where it was tied; nothing where it is not merged."""
        if self.original is not None:
            (weight,) = self._parameter
            # Nobody casts or moves a parameter that only waits here.
            if (weight.dtype, weight.device) != (self.original.dtype, self.original.device):
                weight.data = self.original
            self.base.weight = weight
            self.original, self._parameter = None, ()

    def _weight_to_merge(self) -> nn.Parameter:
        weight = _float_weight(self.base)
        if weight is None:
            raise UserError(
                f"adapters cannot be merged into {type(self.base).__name__}, whose weight is "
                "quantised; merge before quantising, or serve the adapters beside it"
            )
        return weight

    @property
    def parts(self) -> list[Adapter]:
        """The adapters, one for each slice."""
        return list(self.adapters)  # type: ignore[arg-type]


def _wide(dtype: torch.dtype) -> torch.dtype:
    """float32 in the place of what has fewer bits."""
    return torch.promote_types(dtype, torch.float32)


def _float_weight(base: nn.Module) -> nn.Parameter | None:
    weight = getattr(base, "weight", None)
    return weight if isinstance(weight, nn.Parameter) and weight.is_floating_point() else None


def shape_of(base: nn.Module) -> tuple[int, int]:
    """Inputs n and outputs d of a linear. Raises `UserError` for any other module."""
    shape = None if isinstance(base, LoRALinear) else shape_of_linear(base)
    if shape is None:
        raise UserError(
            f"an adapter needs a linear, received {type(base).__name__}; use nn.Linear, Conv1D or "
            "INT8"
        )
    return shape


def add_adapters(
    model: nn.Module, config: LoRAConfig, generator: torch.Generator | None = None
) -> list[str]:
    """Freeze a model and put adapters on the targets of every layer, in place.

    Its type is one that `parts.py` knows. Returns the names of the wrapped linears. The head is
    never among them, as a tied one is the embedding. Raises `UserError` where there are adapters
    already, or no such linears.
    """
    check_plain(model)
    chosen: dict[str, list[slice]] = {}
    for target in config.targets:
        for part in _parts_for(model, target):
            chosen.setdefault(part.name, []).append(part.outputs)
    wrapped = {}
    for name, module in model.named_modules():
        if name in chosen:
            outputs = range(shape_of(module)[1])
            slices = (outputs[each] for each in chosen[name])
            taken = tuple(slice(each.start, each.stop) for each in slices)
            wrapped[name] = LoRALinear(module, config, taken, generator)
    put_adapters(model, wrapped)
    return list(wrapped)


def _parts_for(model: nn.Module, target: LoRATarget) -> list[Part]:
    """The parts that an adapter of this target adapts; `UserError` where there are none."""
    fused = target == "qkv"
    found = [part for part in parts_of(model) if part.role == ("query" if fused else target)]
    if fused:  # where one module does all three, and of that all outputs
        found = [replace(p, outputs=slice(None)) for p in found if p.outputs != slice(None)]
    if not found:
        raise UserError(
            f"{type(model).__name__} has no module that is known as its {target}; use a model of "
            "the GPT-2 or Llama type, or wrap its linears in LoRALinear"
        )
    return found


def check_plain(model: nn.Module) -> None:
    """Raise `UserError` for a model that has adapters."""
    if lora_linears(model):
        raise UserError(f"{type(model).__name__} has adapters already; remove them first")


def put_adapters(model: nn.Module, linears: Mapping[str, LoRALinear]) -> None:
    """Freeze a model and put adapted linears (name → linear) in the place of its own."""
    model.requires_grad_(False)
    for name, linear in linears.items():
        model.set_submodule(name, linear.train(model.training))
        linear.adapters.requires_grad_(True)


def lora_linears(model: nn.Module) -> dict[str, LoRALinear]:
    """The adapted linears of a model, by name."""
    return {n: module for n, module in model.named_modules() if isinstance(module, LoRALinear)}


def plain_names(model: nn.Module) -> dict[str, str]:
    """Module → its name in the plain model, for those below adapters."""
    return {f"{name}.base": name for name in lora_linears(model)}


def adapter_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Every A and B: what an optimiser is given."""
    return [p for linear in lora_linears(model).values() for p in linear.adapters.parameters()]


def merge_adapters(model: nn.Module) -> None:
    """Add every ΔW to its weight: the model is then as fast as without adapters.

    The original weights are kept meanwhile, as large again as those that are adapted. A tied head
    gets a weight of its own, with a warning, and is tied again once it is unmerged. Raises
    `UserError`, before any is merged, where there is nothing to merge or a base is quantised.
    """
    linears = _some_adapters(model)
    for linear in linears.values():
        linear._weight_to_merge()
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for name, linear in linears.items():
        weight = f"{name}.base.weight"
        others = [n for n in owners[id(linear.base.weight)] if n != weight]
        if others:
            notice(
                f"{name} was tied to {others[0].removesuffix('.weight')}; merged, it has its own "
                "weight and is saved untied"
            )
        linear.merge()


def unmerge_adapters(model: nn.Module) -> None:
    """The weights as they were before they were merged, to the bit."""
    for linear in _some_adapters(model).values():
        linear.unmerge()


def remove_adapters(model: nn.Module) -> None:
    """Put the plain linears back, with their own weights, merged or not; they stay frozen."""
    for name, linear in _some_adapters(model).items():
        linear.unmerge()
        model.set_submodule(name, linear.base)


def unload_merged(model: nn.Module) -> None:
    """Put plain linears in the place of the merged ones, for good: what they hold is the sum."""
    for name, linear in lora_linears(model).items():
        if linear.merged:
            model.set_submodule(name, linear.base)


def _some_adapters(model: nn.Module) -> dict[str, LoRALinear]:
    linears = lora_linears(model)
    if not linears:
        raise UserError(f"{type(model).__name__} has no adapters; add or load some first")
    return linears
