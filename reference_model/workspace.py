"""Buffers that are used again, for what lies between the steps of a calculation."""

import math
from collections.abc import Callable, Hashable
from typing import TypeVar, cast

import torch
from torch import Tensor

SHAPES_KEPT = 256  # views of the buffers that are remembered

Made = TypeVar("Made")


class Workspace:
    """A buffer for each name, which lasts from call to call and grows to the largest asked for.

    A large tensor that is allocated for every piece of work comes from the system each time, which
    has to find its pages anew. Who owns a workspace uses it in one thread at a time. Where nothing
    is ``reused``, and on CUDA, where PyTorch keeps what was freed, every tensor is a new one.

    ``room``: tokens that every tensor of `tokens` has room for. With fewer there are gaps between
    its heads, so that each core finds its heads where it left them, in its own cache.
    """

    def __init__(
        self, device: torch.device | str = "cpu", *, room: int = 0, reused: bool = True
    ) -> None:
        self.device = torch.device(device)
        self.reused = reused and self.device.type == "cpu"
        self.room = room
        self._buffers: dict[str, Tensor] = {}
        self._made: dict[Hashable, object] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def empty(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor of anything, which the next one of this name overwrites."""
        if not self.reused:
            return torch.empty(shape, dtype=dtype, device=self.device)
        return self.once((name, shape, dtype), lambda: self._view(name, shape, dtype))

    def tokens(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """The same for (…, tokens, width)."""
        if not self.reused:
            return torch.empty(shape, dtype=dtype, device=self.device)
        *outer, count, width = shape
        largest = (*outer, max(count, self.room), width)
        return self.empty(name, *largest, dtype=dtype).narrow(-2, 0, count)

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What ``make`` returned for this key; anew where buffers or the room have changed."""
        if not self.reused:
            return make()
        if (key := (key, self.room)) not in self._made:
            with torch.inference_mode(False):  # so that it may be written to in every mode
                made = make()
            if len(self._made) >= SHAPES_KEPT:
                self._made.clear()
            self._made[key] = made
        return cast(Made, self._made[key])

    def _view(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        nbytes = math.prod(shape) * dtype.itemsize
        if name not in self._buffers or nbytes > len(self._buffers[name]):
            self._made.clear()  # among it are views of the smaller one
            self._buffers[name] = torch.empty(nbytes, dtype=torch.uint8)
        return self._buffers[name][:nbytes].view(dtype).view(shape)
