"""The KV cache: allocated once, filled in place, owned by the caller.

B batch, H heads of queries, G of keys and values, T new tokens, D width of a head.

The model asks a cache three things: where the next token stands (`start`), how many keys it will
hand out for so many new tokens (`span`), and to take in a layer's new tokens and `attend` to all.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from reference_model.attention import Run, attend, attend_in_pieces
from reference_model.config import GPTConfig
from reference_model.errors import UserError
from reference_model.kernels import packed_attention
from reference_model.kernels.packed_attention import Held
from reference_model.workspace import Workspace


class KVCache:
    """Keys and values, a buffer (B, G, capacity, D) each for every layer, uncompressed.

    `length` is the number of tokens that all layers have seen; `nbytes` is what the buffers
    hold (their capacity), `nbytes_used` the part of it that is filled.
    """

    prompt_at_once: int | None = None  # tokens of a prompt to be read at once; None: all of them

    def __init__(
        self,
        config: GPTConfig,
        batch_size: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (batch_size, config.n_kv_head, capacity, config.d_head)

        def buffers() -> list[Tensor]:
            return [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.n_layer)]

        self.keys, self.values = buffers(), buffers()
        self.batch_size, self.capacity = batch_size, capacity
        self._lengths = [0] * config.n_layer
        self.workspace = Workspace(device)

    @property
    def length(self) -> int:
        """Tokens held by every layer (the last layer is filled last)."""
        return self._lengths[-1]

    @property
    def start(self) -> int | Tensor:
        """Position of the next token."""
        return self.length

    def span(self, new_tokens: int) -> int:
        """How many keys a layer hands out once it was updated with so many new tokens."""
        return self.length + new_tokens

    @property
    def nbytes(self) -> int:
        """Bytes reserved, read off the buffers."""
        return sum(buffer.nbytes for buffer in (*self.keys, *self.values))

    @property
    def nbytes_used(self) -> int:
        """Bytes of the tokens held, read off views of the buffers."""
        return sum(b[:, :, : self.length].nbytes for b in (*self.keys, *self.values))

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append k, v (B, G, T, D) of one layer; return all it holds, (B, G, length, D) each.

        What comes back has the dtype of k and v, also where the cache stores a smaller one.
        """
        self.append(layer, k, v)
        keys, values, end = self.keys[layer], self.values[layer], self._lengths[layer]
        return keys[:, :, :end].to(k.dtype), values[:, :, :end].to(v.dtype)

    def append(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Append k, v (B, G, T, D) of one layer, and read nothing."""
        start, end = self._advance(layer, k.shape[-2])
        self.keys[layer][:, :, start:end] = k
        self.values[layer][:, :, start:end] = v

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Append k, v (B, G, T, D) of one layer; q (B, H, T, D) over all it holds → (B, H, T, D).

        mask as in `attention.attend`, over the keys that `span` counts. What is held in another
        dtype than q is converted piece by piece, so that no copy of all of it is made.
        """
        if self.keys[layer].dtype == q.dtype or (q.requires_grad and torch.is_grad_enabled()):
            return attend(q, *self.update(layer, k, v), mask)
        self.append(layer, k, v)
        if self.keys[layer].dtype == torch.bfloat16 and packed_attention.can_attend(q, k, v):
            return packed_attention.attend(
                q,
                Held(None, (self.keys[layer],)),
                Held(None, (self.values[layer],)),
                start=self._lengths[layer] - k.shape[-2],
                capacity=self.capacity,
                mask=mask,
            )
        wide = torch.promote_types(q.dtype, torch.float32)
        past = self._lengths[layer] - k.shape[-2] if mask is None else None
        source = _Converted(self, layer, past, wide)
        return attend_in_pieces(q.to(wide), [source], mask, self.workspace, self.capacity).to(
            q.dtype
        )

    def forget(self, length: int) -> None:
        """Go back to the first ``length`` tokens, so that what follows them can be read again."""
        if not 0 <= length <= self.length:
            raise UserError(f"the KV cache holds {self.length} tokens and cannot keep {length}")
        self._lengths = [length] * len(self._lengths)

    def _advance(self, layer: int, count: int) -> tuple[int, int]:
        """First and last + 1 of so many new tokens of a layer. `UserError` without room."""
        start = self._lengths[layer]
        end = start + count
        if end > self.capacity:
            raise UserError(
                f"the KV cache has room for {self.capacity} tokens, received token {end}; "
                "build it with a larger capacity"
            )
        self._lengths[layer] = end
        return start, end


class StaticKVCache(KVCache):
    """The same, handed out whole: every step has the same shapes, whatever the cache holds.

    So one compiled or recorded step (torch.compile, CUDA graphs) serves all tokens. `position`
    lives on the device, where a replayed step can advance it; the model masks what is not filled.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch_size: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(config, batch_size, capacity, dtype, device)
        self.position = torch.zeros((), dtype=torch.int64, device=device)

    def keep_address(self) -> None:
        """Tell the compiler that the buffers stay where they are, which CUDA graphs ask for."""
        for buffer in (*self.keys, *self.values, self.position):
            torch._dynamo.mark_static_address(buffer, guard=False)

    @property
    def length(self) -> int:
        """Tokens held by every layer; waits for the device."""
        return int(self.position)

    @property
    def start(self) -> Tensor:
        """Position of the next token, a scalar on the device."""
        return self.position

    def span(self, new_tokens: int) -> int:
        """All keys there is room for."""
        return self.capacity

    def forget(self, length: int) -> None:
        """As in `KVCache`."""
        super().forget(length)
        self.position.fill_(length)

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """As in `KVCache`, over all room."""
        return attend(q, *self.update(layer, k, v), mask)

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Put k, v (B, G, T, D) where they belong; return all room, (B, G, capacity, D) each.

        A token beyond the capacity is an IndexError, on CUDA one of the device.
        """
        rows = self.position + torch.arange(k.shape[-2], device=k.device)
        keys, values = self.keys[layer], self.values[layer]
        keys.index_copy_(2, rows, k.to(keys.dtype))
        values.index_copy_(2, rows, v.to(values.dtype))
        if layer == len(self.keys) - 1:
            self.position += k.shape[-2]
        return keys.to(k.dtype), values.to(v.dtype)


class _Converted:
    """What a layer of a plain cache holds, in a wider dtype.

    The first query comes after ``past`` tokens, and reads none behind itself; None: a mask tells.
    """

    block = 1

    def __init__(self, cache: KVCache, layer: int, past: int | None, dtype: torch.dtype) -> None:
        self.held = cache.keys[layer], cache.values[layer]
        self.groups, self.length = cache.keys[layer].shape[1], cache._lengths[layer]
        self.workspace, self.past, self.dtype = cache.workspace, past, dtype

    def seen(self, query: int) -> tuple[int, int]:
        return 0, self.length if self.past is None else self.past + query + 1

    def levels(self, which: int, run: Run) -> Iterator[Tensor]:
        held = self.held[which].narrow(2, run.start, run.size * run.pieces)
        for piece in held.chunk(run.pieces, dim=2):
            yield self.workspace.tokens("numbers", *piece.shape, dtype=self.dtype).copy_(piece)

    def scales(self, which: int, tokens: slice) -> None:
        return None
