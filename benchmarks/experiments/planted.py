"""Models that compute what the checkpoint does, and are harder to quantise by a known strength."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from reference_model.errors import UserError
from reference_model.model import GPT


@torch.no_grad()
def with_planted_outliers(model: GPT, channels: Sequence[int], strength: float) -> GPT:
    """A copy in which some channels that leave a norm are ``strength`` times as large.

    γ and β of ln_1 and ln_2 grow in these channels, and the columns of c_attn and c_fc that read
    them shrink as much, so that the outputs stay what they were (SmoothQuant, 2211.10438, turned
    around). Raises `UserError` where a norm does not stand before what reads it.
    """
    if model.config.norm_placement != "pre":
        raise UserError(
            f"outliers are planted between a norm and a linear, and norm_placement="
            f"{model.config.norm_placement!r} has other readers; use norm_placement='pre'"
        )
    planted = copy.deepcopy(model)
    for layer in range(model.config.n_layer):
        for norm, reader in (("ln_1", "attn.c_attn"), ("ln_2", "mlp.c_fc")):
            module = planted.get_submodule(f"h.{layer}.{norm}")
            for parameter in module.parameters():
                parameter[list(channels)] *= strength
            columns = planted.get_parameter(f"h.{layer}.{reader}.weight")
            columns[:, list(channels)] /= strength
    return planted
