"""The KV cache: allocated once, filled in place, owned by the caller."""

import torch
from torch import Tensor

from reference_model.config import GPTConfig
from reference_model.errors import UserError


class KVCache:
    """Keys and values of every layer, (L, B, H, capacity, D) each, uncompressed.

    `length` is the number of tokens that all layers have seen; `nbytes` is what the buffers
    hold (their capacity), `nbytes_used` the part of it that is filled.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch_size: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (config.n_layer, batch_size, config.n_head, capacity, config.d_head)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.capacity = capacity
        self._lengths = [0] * config.n_layer

    @property
    def length(self) -> int:
        """Tokens held by every layer (the last layer is filled last)."""
        return self._lengths[-1]

    @property
    def nbytes(self) -> int:
        """Bytes reserved, read off the buffers."""
        return self.keys.nbytes + self.values.nbytes

    @property
    def nbytes_used(self) -> int:
        """Bytes of the tokens held, read off views of the buffers."""
        filled = slice(0, self.length)
        return self.keys[..., filled, :].nbytes + self.values[..., filled, :].nbytes

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append k, v (B, H, T, D) of one layer; return all it holds, (B, H, length, D) each.

        What comes back has the dtype of k and v, also where the cache stores a smaller one.
        """
        start = self._lengths[layer]
        end = start + k.shape[-2]
        if end > self.capacity:
            raise UserError(
                f"the KV cache has room for {self.capacity} tokens, received token {end}; "
                "build it with a larger capacity"
            )
        self.keys[layer, :, :, start:end] = k
        self.values[layer, :, :, start:end] = v
        self._lengths[layer] = end
        return self.keys[layer, :, :, :end].to(k.dtype), self.values[layer, :, :, :end].to(v.dtype)
