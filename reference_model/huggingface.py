"""Our codecs as a cache of transformers, for its decoders with attention in every layer.

    cache = packed_cache(lambda width: TurboQuant(width, 3))
    model.generate(**inputs, past_key_values=cache)

Keys and values are held in the codec's bytes from the first token on, and handed out decoded, in
the model's dtype. All tokens are held, also in layers that attend to a window: the model's mask
keeps the window. Written for transformers 5.23.0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, CacheLayerMixin

from reference_model.errors import UserError
from reference_model.positions import position_angles, rotate
from reference_model.quantization.codec import Codec, Parts, nbytes_of

MakeCodec = Callable[[int], Codec]  # of a width
Shared = Callable[[int, torch.device], Codec]  # of a width, on a device


def packed_cache(
    keys: MakeCodec, values: MakeCodec | None = None, frequencies: Tensor | None = None
) -> Cache:
    """An empty cache, for ``past_key_values``; each width has one codec, shared by all layers.

    ``values``: a codec of their own; else that of the keys. ``frequencies`` (D/2,), as
    `rotary_frequencies` gives them: keys are encoded before they are rotated (pre-RoPE), and
    rotated again when they are read; None: they are encoded as the model hands them over.
    """
    made: dict[tuple[MakeCodec, int, torch.device], Codec] = {}

    def shared(make: MakeCodec) -> Shared:
        def codec(width: int, device: torch.device) -> Codec:
            key = make, width, device
            if key not in made:
                made[key] = make(width).to(device)
            return made[key]

        return codec

    of_keys, of_values = shared(keys), shared(keys if values is None else values)

    def layer() -> PackedLayer:
        return PackedLayer(of_keys, of_values, frequencies)

    make: Any = layer  # called for each layer, as a class would be
    return Cache(layer_class_to_replicate=make)


def held_bytes(cache: Cache) -> int:
    """Bytes that the cache holds: codes, tokens that wait for a block, and codecs' tables once."""
    layers = [layer for layer in cache.layers if isinstance(layer, PackedLayer)]
    stores = [store for layer in layers for store in layer.stores]
    constants = [tensor for store in stores for tensor in store.codec.constants]
    return nbytes_of([tensor for store in stores for tensor in store.tensors] + constants)


def rotary_frequencies(model: nn.Module) -> Tensor:
    """By how much rotary positions turn each pair of a key from token to token → (D/2,) float64.

    For models whose pairs lie half a head apart, as Llama's do, and not side by side, as Cohere's.
    `UserError` where there is no rotation, or layers rotate their keys in different ways.
    """
    found = [
        buffer.double().cpu()
        for name, buffer in model.named_buffers()
        if name.endswith("inv_freq") and "original" not in name
    ]
    if not found or any(not torch.equal(one, found[0]) for one in found):
        told = "does not rotate its keys" if not found else "rotates its keys in several ways"
        raise UserError(f"{type(model).__name__} {told}; call packed_cache without frequencies")
    return found[0]


class PackedLayer(CacheLayerMixin):
    """One layer of `packed_cache`. No method is inherited: those would touch plain tensors.

    ``is_croppable``: whether tokens can be taken back without a trace; out of a block they cannot.
    """

    is_compileable = False
    is_sliding = False
    is_croppable = True

    def __init__(self, keys: Shared, values: Shared, frequencies: Tensor | None) -> None:
        super().__init__()
        self.makers, self.frequencies = (keys, values), frequencies
        self.stores: tuple[_Store, ...] = ()

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """With the widths, the dtype and the device of the first states (B, H, T, D)."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.stores = tuple(
            _Store(make(states.shape[-1], self.device), states[..., :0, :])
            for make, states in zip(self.makers, (key_states, value_states), strict=True)
        )
        self.is_croppable = all(store.codec.block == 1 for store in self.stores)
        self.is_initialized = True

    @torch.no_grad()
    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Take in (B, H, T, D) each, and hand out all that is held, decoded: (B, H, length, D)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values = self.stores
        keys.append(self._rotated(key_states, keys.length, -1))
        values.append(value_states)
        return self._rotated(keys.read(), 0, 1), values.read()

    def _rotated(self, keys: Tensor, start: int, direction: int) -> Tensor:
        if self.frequencies is None:
            return keys
        frequencies = self.frequencies.to(keys.device)
        angles = direction * position_angles(start, keys.shape[-2], frequencies)
        turning = keys[..., : 2 * len(frequencies)].double()  # some models rotate a part of a head
        turned = rotate(turning, angles.cos(), angles.sin()).to(keys.dtype)
        return torch.cat((turned, keys[..., turning.shape[-1] :]), dim=-1)

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self.stores[0].length if self.stores else 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many keys are handed out once so many tokens came in, and the first one's place."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """-1: there is none."""
        return -1

    def crop(self, tokens_to_remove: int) -> None:
        """Give up the newest −n tokens; 0 does nothing, as in transformers' DynamicLayer."""
        if tokens_to_remove > 0:
            raise ValueError(f"crop({tokens_to_remove}): give a negative number of tokens")
        if tokens_to_remove < 0 and self.stores:
            length = max(0, self.get_seq_length() + tokens_to_remove)
            for store in self.stores:
                store.check_crop(length)
            for store in self.stores:
                store.crop(length)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Of the batch, as beams were chosen."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these of the batch."""
        for store in self.stores:
            store.of_batch(lambda held: held[indices.to(held.device)])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each of the batch so many times, one after the other."""
        for store in self.stores:
            store.of_batch(lambda held: held.repeat_interleave(repeats, dim=0))

    def reset(self) -> None:
        """Hold nothing."""
        self.stores, self.is_initialized = (), False

    def offload(self) -> None:
        """Packed states stay where they are."""

    def prefetch(self) -> None:
        """As `offload`."""


class _Store:
    """Keys or values of a layer: encoded blocks, and the tokens (B, H, t, D) that wait for one."""

    def __init__(self, codec: Codec, waiting: Tensor) -> None:
        self.codec, self.waiting = codec, waiting
        self.parts: Parts = ()

    @property
    def tensors(self) -> list[Tensor]:
        return [*self.parts, self.waiting]

    @property
    def encoded(self) -> int:
        return self.parts[0].shape[-2] * self.codec.block if self.parts else 0

    @property
    def length(self) -> int:
        return self.encoded + self.waiting.shape[-2]

    def append(self, states: Tensor) -> None:
        """New ones are encoded once, and never again."""
        exact = torch.cat((self.waiting, states), dim=-2) if self.waiting.shape[-2] else states
        whole = exact.shape[-2] // self.codec.block * self.codec.block
        if whole:
            new = self.codec.encode(exact[..., :whole, :])
            held = zip(self.parts, new, strict=True) if self.parts else ((part,) for part in new)
            self.parts = tuple(torch.cat(pair, dim=-2) for pair in held)
        self.waiting = exact[..., whole:, :].clone()  # a view would keep all of them

    def read(self) -> Tensor:
        """All of them, in the model's dtype."""
        if not self.parts:
            return self.waiting
        decoded = self.codec.decode(self.parts).to(self.waiting.dtype)
        return torch.cat((decoded, self.waiting), dim=-2) if self.waiting.shape[-2] else decoded

    def check_crop(self, length: int) -> None:
        if length < self.encoded and length % self.codec.block:
            raise UserError(
                f"{self.codec.name} encodes {self.codec.block} tokens together and cannot go back "
                f"to {length}; use a codec without blocks"
            )

    def crop(self, length: int) -> None:
        kept = min(length, self.encoded)
        self.parts = tuple(part[..., : kept // self.codec.block, :] for part in self.parts)
        self.waiting = self.waiting[..., : length - kept, :]

    def of_batch(self, choose: Callable[[Tensor], Tensor]) -> None:
        self.parts, self.waiting = tuple(map(choose, self.parts)), choose(self.waiting)
