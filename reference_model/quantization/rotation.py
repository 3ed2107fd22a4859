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
    if rounds < 1:
        raise UserError(f"rounds={rounds} rotates nothing; use a whole number ≥ 1")
    matrix = sylvester(width)
    rotation = torch.eye(width, dtype=torch.float64)
    for signs in random_signs(width, seed, rounds).double():
        # Signs first: without them a constant vector would come out as a single coordinate.
        rotation = matrix @ (signs[:, None] * rotation) / math.sqrt(width)
    return rotation


def sylvester(width: int) -> Tensor:
    """Hadamard's matrix of 1 and −1 by Sylvester's construction → (D, D) float64, symmetric."""
    if width < 1 or width & (width - 1):
        raise UserError(
            f"Hadamard's matrix needs a width of 2, 4, 8, …; received {width}; use haar"
        )
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < width:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    return matrix


def random_signs(width: int, seed: int, rounds: int) -> Tensor:
    """1 and −1 at random → (rounds, D) int8."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randint(0, 2, (width,), generator=generator) for _ in range(rounds)]
    return (torch.stack(drawn) * 2 - 1).to(torch.int8)
