"""Simulated rounding: weights are moved to their grid and kept as floats.

So a model loses exactly the accuracy that such weights would cost it, and neither gains speed nor
saves memory. What really stores them is int8.py.
"""

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from reference_model.errors import UserError
from reference_model.lora import plain_names, unload_merged
from reference_model.model import GPT
from reference_model.parts import is_transposed
from reference_model.quantization.grid import Grid, rounded

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def with_rounded_linears(
    model: M, grid: Grid, chosen: Callable[[str], bool] = lambda name: True
) -> tuple[M, list[str]]:
    """A copy with the weights of all linears (of those ``chosen`` by name) on the grid, by name.

    Biases, norms and positions stay as they are. So does the token embedding of an untied model,
    which is looked up and not multiplied; a tied one is the head's weight, one tensor that INT8
    would hold once, and is rounded with it (a channel of the head is a token's row). Also takes
    transformers' Conv1D, whose weight is (in, out). Adapters stay beside their linears; merged ones
    are part of the weights, for good. Raises `UserError` where no linear holds floats.
    """
    result, names = copy.deepcopy(model), []
    unload_merged(result)
    if not any(
        isinstance(module, nn.Linear) or is_transposed(module) for module in result.modules()
    ):
        raise UserError(
            f"{type(model).__name__} has no linears in floating point to round; give one that has"
        )
    below_adapters = plain_names(result)
    for name, module in result.named_modules():
        if not chosen(below_adapters.get(name, name)):
            continue
        if isinstance(module, nn.Linear):
            module.weight.copy_(rounded(module.weight, grid))
            names.append(f"{name}.weight")
        elif is_transposed(module):
            weight = module.get_parameter("weight")
            weight.copy_(rounded(weight.T.contiguous(), grid).T)
            names.append(f"{name}.weight")
    return result, names


@torch.no_grad()
def with_rounded_norms(model: GPT) -> tuple[GPT, list[str]]:
    """A copy with γ and β of every norm rounded, each per tensor, and the names of both.

    Everything else stays as it is, and so does the arithmetic of the norms. Raises `UserError`
    where no norm holds floats.
    """
    result, names = copy.deepcopy(model), []
    for name, module in result.named_modules():
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
            for kind, parameter in module.named_parameters():
                parameter.copy_(rounded(parameter, Grid(granularity="per tensor")))
                names.append(f"{name}.{kind}")
    if not names:
        raise UserError(
            f"{type(model).__name__} has no norms in floating point to round; give one that has"
        )
    return result, names
