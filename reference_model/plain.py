"""The plain model that a rewritten one stands for, where it stands for one: what a folder holds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reference_model.config import GPTConfig
from reference_model.errors import UserError
from reference_model.lora import LoRALinear, lora_linears
from reference_model.model import GPT


def plain_weights(model: GPT) -> tuple[GPTConfig, dict[str, Tensor]]:
    """Configuration and weights, by the names of a plain model; a tied head has none of its own.

    Merged adapters are part of the weights. Whether the head is tied is read off the tensors, since
    one that was merged no longer is. Raises `UserError`, with the first module's name, where an
    adapter is not merged, and for any other rewrite: no name or dtype in a folder would tell of it.
    """
    with torch.device("meta"):
        plain = GPT(model.config)
    found = dict(model.named_modules(remove_duplicate=False))
    for name, expected in plain.named_modules():
        if expected.state_dict():  # a folder holds nothing of dropout, which may be on or off
            _check(name or "the model", found.get(name), type(expected))
    tensors = model.state_dict()
    for name, linear in lora_linears(model).items():
        for key in linear.state_dict(prefix=f"{name}."):
            del tensors[key]
        tensors |= linear.base.state_dict(prefix=f"{name}.")
    shapes = {name: tensor.shape for name, tensor in plain.state_dict().items()}
    for name in sorted(shapes.keys() | tensors.keys()):
        if name not in shapes or name not in tensors or shapes[name] != tensors[name].shape:
            raise UserError(
                f"{name} is not what the model's configuration asks for; use one that fits it"
            )
    tied = tensors["lm_head.weight"].data_ptr() == tensors["wte.weight"].data_ptr()
    if tied:
        del tensors["lm_head.weight"]
    return model.config.replace(head="tied" if tied else "untied"), tensors


def stored(name: str, tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A weight as it is written, cast to dtype if one is given.

    Raises `UserError` for what is not finite, or overflows there: no folder with it would load.
    """
    result = tensor.to("cpu", dtype).contiguous()
    if not result.isfinite().all():
        raise UserError(
            f"{name} has numbers that are not finite in {result.dtype}; "
            "store a wider dtype, or a model whose training did not diverge"
        )
    return result


def _check(name: str, module: nn.Module | None, kind: type[nn.Module]) -> None:
    if isinstance(module, LoRALinear):
        if not module.merged:
            raise UserError(
                f"{name} has an adapter that is not merged; use merge_adapters first, or "
                "save_adapters, which keeps adapters apart from the model"
            )
        module = module.base
    if not isinstance(module, kind):
        found = "missing" if module is None else type(module).__name__
        raise UserError(
            f"{name} is {found} where a folder of weights holds {kind.__name__}; "
            "save the model as it was before it was rewritten"
        )
