"""Random rotations: after one, every vector looks like a random one of its length."""

import math

import torch
from torch import Tensor

from reference_model.errors import UserError

HADAMARD_ROUNDS = 3


def haar(width: int, seed: int) -> Tensor:
    """A rotation drawn uniformly from all of them → (D, D) float64.

    The Q of a Gaussian matrix is uniform once R's diagonal is made positive (math-ph/0609050).
    """
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(width, width, dtype=torch.float64, generator=generator)
    q, r = torch.linalg.qr(gaussian)
    return q * r.diagonal().sign()


def hadamard(width: int, seed: int, rounds: int = HADAMARD_ROUNDS) -> Tensor:
    """``rounds`` times: random signs, then Hadamard's matrix over √D → (D, D) float64.

    One round is not enough: it sends a vector with a single coordinate to equal magnitudes, which
    no random vector has. Raises `UserError` where the width is no power of two.
    """
    if width < 1 or width & (width - 1):
        raise UserError(
            f"Hadamard's matrix needs a width of 2, 4, 8, …; received {width}; use haar"
        )
    if rounds < 1:
        raise UserError(f"rounds={rounds} rotates nothing; use a whole number ≥ 1")
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < width:  # Sylvester's construction
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    rotation = torch.eye(width, dtype=torch.float64)
    for _ in range(rounds):
        signs = torch.randint(0, 2, (width,), generator=generator).double() * 2 - 1
        # Signs first: without them a constant vector would come out as a single coordinate.
        rotation = matrix @ (signs[:, None] * rotation) / math.sqrt(width)
    return rotation
