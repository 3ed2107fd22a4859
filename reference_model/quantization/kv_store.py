"""What a compressed cache holds of a layer, and how attention is handed it piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reference_model.attention import Run
from reference_model.kernels import triton_attention
from reference_model.quantization.codec import Codec, Parts

if TYPE_CHECKING:
    from reference_model.quantization.kv_cache import QuantizedKVCache


class Store:
    """What a codec holds of one layer, K = 2: keys and values, or K = 1: one of them.

    ``parts`` are the codec's, (K, B, G, blocks, width) each; ``recent`` (K, B, G, tokens, D) are
    those that wait, in the model's dtype: never more than a window and an incomplete block.
    """

    def __init__(
        self,
        codec: Codec,
        shape: tuple[int, int, int],
        capacity: int,
        block: int,
        window: int,
        weight: Tensor,
    ) -> None:
        self.codec = codec
        blocks, waiting = (
            capacity // block * block // codec.block,
            min(window + block - 1, capacity),
        )
        self.parts = [
            torch.zeros(*shape, blocks, count, dtype=dtype, device=weight.device)
            for count, dtype in codec.layout
        ]
        self.recent = weight.new_zeros(*shape, waiting, codec.width)

    def append(self, x: Tensor, first: int, start: int, count: int) -> Tensor:
        """Take in x (K, B, G, T, D), tokens from ``start`` on, and encode what is before ``count``.

        Returns x with the tokens that waited in front of it, the first of them ``first``.
        """
        waited = self.recent[..., : start - first, :]
        exact = torch.cat((waited.to(x.dtype), x), dim=-2) if waited.shape[-2] else x
        leaving, staying = exact[..., : count - first, :], exact[..., count - first :, :]
        if leaving.shape[-2]:
            at = slice(first // self.codec.block, count // self.codec.block)
            fits = triton_attention.supports(leaving, self.codec)
            parts = (
                triton_attention.encode(leaving, self.codec) if fits else self.codec.encode(leaving)
            )
            for buffer, part in zip(self.parts, parts, strict=True):
                buffer[:, :, :, at] = part
        if staying.shape[-2]:
            self.recent[..., : staying.shape[-2], :] = staying
        return exact

    def filled(self, count: int) -> Parts:
        """Views of the parts that hold the first ``count`` tokens."""
        return tuple(part[:, :, :, : count // self.codec.block] for part in self.parts)

    def filled_apart(self, count: int) -> list[Parts]:
        """The same of keys and of values apart, or of the one kind that there is."""
        return list(zip(*(part.unbind() for part in self.filled(count)), strict=True))


def two_of(of_stores: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Of keys and of values, (B, G, …) each, from stores of both or of one of them."""
    keys, values = (each for tensor in of_stores for each in tensor.unbind())
    return keys, values


class _Source:
    """A layer as its queries read it, the first of which is token number ``start``."""

    block = 1

    def __init__(self, cache: QuantizedKVCache, layer: int, start: int, queries: int) -> None:
        self.stores, self.workspace = cache.stores[layer], cache.workspace
        self.groups = self.stores[0].recent.shape[2]
        self.encoded, self.start, self.queries = cache.encoded, start, queries

    def decoded(self, query: int) -> int:
        """How many of the first tokens this query reads decoded."""
        return self.encoded(self.start + query + 1)


class Decoded(_Source):
    """What is encoded."""

    def __init__(self, cache: QuantizedKVCache, layer: int, start: int, queries: int) -> None:
        super().__init__(cache, layer, start, queries)
        self.block = cache.block
        # Scores are fewer numbers than vectors only where queries are fewer than a vector is wide.
        self.scaled = queries > self.stores[0].codec.width

    def seen(self, query: int) -> tuple[int, int]:
        return 0, self.decoded(query)

    def levels(self, which: int, run: Run) -> Iterator[Tensor]:
        codec, parts = self._parts(which, run.tokens)
        split = (part.split(run.size // codec.block, dim=2) for part in parts)
        for piece in zip(*split, strict=True):
            levels = codec.levels(piece, self.workspace)
            scales = codec.scales(piece) if self.scaled else None
            yield levels if scales is None else levels.mul_(scales)

    def scales(self, which: int, tokens: slice) -> Tensor | None:
        codec, parts = self._parts(which, tokens)
        return None if self.scaled else codec.scales(parts)

    def _parts(self, which: int, tokens: slice) -> tuple[Codec, Parts]:
        store, index = _of(which, self.stores)
        at = slice(tokens.start // store.codec.block, tokens.stop // store.codec.block)
        return store.codec, tuple(part[index, :, :, at] for part in store.parts)


class Exact(_Source):
    """The tokens from the first that waited on, turned as what is decoded."""

    def __init__(
        self, cache: QuantizedKVCache, layer: int, start: int, queries: int, exact: list[Tensor]
    ) -> None:
        super().__init__(cache, layer, start, queries)
        self.exact, self.first = exact, cache.encoded(start)

    def seen(self, query: int) -> tuple[int, int]:
        return self.decoded(query), self.start + query + 1

    def levels(self, which: int, run: Run) -> Iterator[Tensor]:
        store, index = _of(which, self.stores)
        x = self.exact[which - index][index]
        at = slice(run.tokens.start - self.first, run.tokens.stop - self.first)
        for piece in x[:, :, at].split(run.size, dim=2):
            yield store.codec.rotate(piece)

    def scales(self, which: int, tokens: slice) -> None:
        return None


def _of(which: int, stores: Sequence[Store]) -> tuple[Store, int]:
    """The store of keys or of values, and which of its halves it is."""
    return (stores[0], which) if len(stores) == 1 else (stores[which], 0)
