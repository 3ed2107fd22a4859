"""Outlier channels of known strength, planted into a model that computes the same as before."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from benchmarks.judging.claims import REFERENCE_LABEL
from benchmarks.subjects.built import Model
from reference_model.config import preset
from reference_model.errors import UserError
from reference_model.parts import Role, parts_of

AS_IT_IS, PLANTED = REFERENCE_LABEL, "planted outliers"  # which model a cell measures


def channels_of(model: Model, channels: Sequence[int]) -> list[int]:
    """The channels of a model at the places that ``channels`` have in the reference."""
    width = preset("reference").n_embd
    return [channel * model.config.n_embd // width for channel in channels]


@torch.no_grad()
def model_with_outliers(model: Model, channels: Sequence[int], strength: float) -> Model:
    """A copy whose normed activations are ``strength`` times as large in ``channels``.

    In every block γ and β of both norms are multiplied there, and the columns of the linear that
    reads them (attention's, and the MLP's) divided: SmoothQuant (2211.10438), turned around.
    Outputs are the same but for the last bits; a step that must span a whole row of activations, or
    of weights, becomes coarser. Raises `UserError` where no norm stands right before these
    linears, for a channel that is not there, and for a strength that is not positive.
    """
    config = model.config
    if config.norm_placement != "pre":
        raise UserError(
            f"outliers are planted between a norm and the linear behind it; received "
            f"norm_placement={config.norm_placement!r}: use 'pre'"
        )
    wrong = [channel for channel in channels if not 0 <= channel < config.n_embd]
    if wrong or not strength > 0:
        raise UserError(
            f"channels={list(channels)}, strength={strength} plant nothing; use channels from 0 to "
            f"{config.n_embd - 1} and a strength above 0"
        )
    result, at = copy.deepcopy(model), list(channels)
    parts = parts_of(result)
    readers: dict[str, tuple[Role, ...]] = {"ln_1": ("query",), "ln_2": ("mlp_gate", "mlp_in")}
    for layer, block in enumerate(result.h):
        for name, roles in readers.items():
            for parameter in block.get_submodule(name).parameters():
                parameter[at] *= strength
            for part in parts:
                if part.layer == layer and part.role in roles:
                    part.module.get_parameter("weight")[:, at] /= strength
    return result
