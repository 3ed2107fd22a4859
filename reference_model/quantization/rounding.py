"""Simulated INT8: weights are rounded to its grid and kept as floats.

So a model loses exactly the accuracy that INT8 weights would cost it, and neither gains speed nor
saves memory.
"""

import copy
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from reference_model.errors import UserError
from reference_model.model import GPT

Granularity = Literal["per tensor", "per channel"]

LARGEST = 127  # symmetric: -128 is not used, so that -x is on the grid where x is


def round_int8(values: Tensor, granularity: Granularity) -> Tensor:
    """The multiples of scale nearest to ``values``, where the largest magnitude is 127 · scale.

    ``per tensor`` has one scale, ``per channel`` one for each index of the first axis, which is the
    output of a linear. Ties go to the even multiple. Raises `UserError` on another granularity, and
    on values that are not finite.
    """
    if granularity not in get_args(Granularity):
        raise UserError(
            f"granularity={granularity!r} is not known; use {' or '.join(get_args(Granularity))}"
        )
    if not values.isfinite().all():
        raise UserError("weights that are not finite have no INT8 grid; check the checkpoint")
    channels = values.shape[0] if granularity == "per channel" else 1
    rows = values.double().reshape(channels, -1)  # in float64, rounding is the only error
    largest = rows.abs().amax(dim=1, keepdim=True)
    scale = torch.where(largest > 0, largest / LARGEST, 1.0)
    return ((rows / scale).round() * scale).view_as(values).to(values.dtype)


@torch.no_grad()
def with_rounded_linears(model: GPT, granularity: Granularity) -> tuple[GPT, list[str]]:
    """A copy with the weights of all linears rounded, and the names of those weights.

    Biases, norms and positions stay as they are. So does the token embedding of an untied model,
    which is looked up and not multiplied; a tied one is the head's weight, one tensor that INT8
    would hold once, and is rounded with it (a channel of the head is a token's row).
    """
    rounded, names = copy.deepcopy(model), []
    for name, module in rounded.named_modules():
        if isinstance(module, nn.Linear):
            module.weight.copy_(round_int8(module.weight, granularity))
            names.append(f"{name}.weight")
    return rounded, names


@torch.no_grad()
def with_rounded_norms(model: GPT) -> tuple[GPT, list[str]]:
    """A copy with γ and β of every norm rounded, each per tensor, and the names of both.

    Everything else stays as it is, and so does the arithmetic of the norms.
    """
    rounded, names = copy.deepcopy(model), []
    for name, module in rounded.named_modules():
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
            for kind, parameter in module.named_parameters():
                parameter.copy_(round_int8(parameter, "per tensor"))
                names.append(f"{name}.{kind}")
    return rounded, names
