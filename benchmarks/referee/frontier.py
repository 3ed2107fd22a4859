"""Which formats none beats, of points that are as good as they are small."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


def frontier(points: Mapping[Name, tuple[float, float]]) -> set[Name]:
    """Names of those that none beats: (bits, KL), where no other has fewer bits and a lower KL.

    By their values alone; intervals say how sure that is.
    """
    return {
        name
        for name, (bits, loss) in points.items()
        if not any(
            other_bits <= bits and other <= loss and (other_bits, other) != (bits, loss)
            for other_bits, other in points.values()
        )
    }
