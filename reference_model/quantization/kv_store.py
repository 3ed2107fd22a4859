"""What a compressed cache holds of a layer, and how attention is handed it piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reference_model.attention import Run
from reference_model.kernels import triton_attention
from reference_model.quantization.codec import Codec, Parts, written

if TYPE_CHECKING:
    from reference_model.quantization.kv_cache import QuantizedKVCache


class Store:
    """What a codec holds of one layer, K = 2: keys and values, or K = 1: one of them.

    ``first`` (K, B, G, sinks, D) are the first tokens, in the model's dtype. What is encoded or
    waits is counted from behind them. ``parts`` are the codec's, (K, B, G, blocks, width) each;
    ``recent`` (K, B, G, tokens, D) are those that wait, in the model's dtype: never more than a
    window and an incomplete block.
    """

    def __init__(
        self,
        codec: Codec,
        shape: tuple[int, int, int],
        capacity: int,
        block: int,
        window: int,
        sinks: int,
        weight: Tensor,
    ) -> None:
        self.codec, self.sinks = codec, sinks
        capacity -= sinks
        blocks, waiting = (
            capacity // block * block // codec.block,
            min(window + block - 1, capacity),
        )
        self.parts = [
            torch.zeros(*shape, blocks, count, dtype=dtype, device=weight.device)
            for count, dtype in codec.layout
        ]
        self.first = weight.new_zeros(*shape, sinks, codec.width)
        self.recent = weight.new_zeros(*shape, waiting, codec.width)
        # Views of keys alone, and of values alone: quicker to narrow down than all of it.
        self.halves = [tuple(part[half] for part in self.parts) for half in range(shape[0])]
        self.first_halves = [self.first[half] for half in range(shape[0])]

    def append(self, x: Tensor, start: int, first: int, count: int) -> Tensor:
        """Take in x (K, B, G, T, D), tokens from ``start`` on, and encode what is before ``count``.

        Returns x without sinks, with the tokens that waited in front of it, the first of them
        ``first``; it and ``count`` are counted from behind the sinks. What is held has no gradient;
        what is returned keeps that of x.
        """
        if start < self.sinks:
            of_sinks, x = x.tensor_split((self.sinks - start,), dim=-2)
            self.first.narrow(-2, start, of_sinks.shape[-2]).copy_(of_sinks.detach())
        waited, leaving = max(0, start - self.sinks) - first, count - first
        if waited:
            x = torch.cat((self.recent.narrow(-2, 0, waited).to(x.dtype), x), dim=-2)
        given = x.detach()
        if leaving:
            at = first // self.codec.block, leaving // self.codec.block
            into = tuple(part.narrow(-2, *at) for part in self.parts)
            left = given.narrow(-2, 0, leaving)
            if triton_attention.supports(left, self.codec):
                written(triton_attention.encode(left, self.codec), into)
            else:
                self.codec.encode(left, into)
        if staying := x.shape[-2] - leaving:
            self.recent.narrow(-2, 0, staying).copy_(given.narrow(-2, leaving, staying))
        return x

    def with_sinks(self, length: int, *others: Tensor) -> Tensor:
        """The sinks among the first ``length`` tokens, and others (K, B, G, ·, D) behind them."""
        return torch.cat((self.first[..., :length, :].to(others[0].dtype), *others), dim=-2)

    def used(self, length: int, count: int) -> list[Tensor]:
        """Views of what holds the first ``length`` tokens, ``count`` of them encoded."""
        waiting = max(0, length - self.sinks - count)
        exact = self.first[..., :length, :], self.recent[..., :waiting, :]
        return [*self.filled(count), *exact]

    def filled(self, count: int) -> Parts:
        """Views of the parts that hold the first ``count`` tokens behind the sinks."""
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
        self.sinks = cache.sinks

    def decoded(self, query: int) -> tuple[int, int]:
        """First and last + 1 of the tokens that this query reads decoded, behind the sinks."""
        return self.sinks, self.sinks + self.encoded(self.start + query + 1)


class Decoded(_Source):
    """What is encoded."""

    def __init__(self, cache: QuantizedKVCache, layer: int, start: int, queries: int) -> None:
        super().__init__(cache, layer, start, queries)
        self.block = cache.block
        # Scores are fewer numbers than vectors only where queries are fewer than a vector is wide.
        self.scaled = queries > self.stores[0].codec.width

    def seen(self, query: int) -> tuple[int, int]:
        return self.decoded(query)

    def levels(self, which: int, run: Run) -> Iterator[Tensor]:
        codec, parts = self._parts(which, run.tokens)
        for piece in zip(*(part.chunk(run.pieces, dim=2) for part in parts), strict=True):
            levels = codec.levels(piece, self.workspace)
            scales = codec.scales(piece) if self.scaled else None
            yield levels if scales is None else levels.mul_(scales)

    def scales(self, which: int, tokens: slice) -> Tensor | None:
        codec, parts = self._parts(which, tokens)
        return None if self.scaled else codec.scales(parts)

    def _parts(self, which: int, tokens: slice) -> tuple[Codec, Parts]:
        store, half = _of(which, self.stores)
        block = store.codec.block
        at = (tokens.start - self.sinks) // block, (tokens.stop - tokens.start) // block
        return store.codec, tuple(part.narrow(2, *at) for part in store.halves[half])


class Exact(_Source):
    """The tokens from the first that waited on, turned as what is decoded."""

    def __init__(
        self, cache: QuantizedKVCache, layer: int, start: int, queries: int, exact: list[Tensor]
    ) -> None:
        super().__init__(cache, layer, start, queries)
        self.exact, self.first = exact, cache.sinks + cache.encoded(start)

    def seen(self, query: int) -> tuple[int, int]:
        return self.decoded(query)[1], max(self.sinks, self.start + query + 1)

    def levels(self, which: int, run: Run) -> Iterator[Tensor]:
        store, half = _of(which, self.stores)
        x = self.exact[which - half][half]
        of_run = x.narrow(2, run.start - self.first, run.size * run.pieces)
        for piece in of_run.chunk(run.pieces, dim=2):
            yield store.codec.rotate(piece)

    def scales(self, which: int, tokens: slice) -> None:
        return None


class Sinks(Exact):
    """The first tokens, turned as what is decoded."""

    def __init__(self, cache: QuantizedKVCache, layer: int, start: int, queries: int) -> None:
        super().__init__(cache, layer, start, queries, [s.first for s in cache.stores[layer]])
        self.first = 0

    def seen(self, query: int) -> tuple[int, int]:
        return 0, min(self.sinks, self.start + query + 1)


def _of(which: int, stores: Sequence[Store]) -> tuple[Store, int]:
    """The store of keys or of values, and which of its halves it is."""
    return (stores[0], which) if len(stores) == 1 else (stores[which], 0)
