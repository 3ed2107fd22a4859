"""A module whose import takes 128 MB for a moment: for the instrument that must not count it."""

import torch

torch.ones(32 * 2**20).sum()


def ones(nbytes: int) -> object:
    return torch.ones(nbytes // 4)
