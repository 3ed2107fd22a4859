"""The KV cache in few bits: any codec for keys, any for values, the newest tokens as they came."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reference_model.attention import attend
from reference_model.cache import KVCache
from reference_model.errors import UserError
from reference_model.quantization.codec import Codec, nbytes_of

if TYPE_CHECKING:
    from reference_model.model import GPT


class QuantizedKVCache(KVCache):
    """Keys and values as their codecs hold them, allocated once and appended in place.

    What a token reads depends on its own position t alone, however the text was cut into pieces:
    the ``window`` newest tokens up to t exactly, the ones before them decoded. Where a codec
    encodes ``block`` tokens together, an incomplete block is read exactly, too. With a window of 0
    a token reads even its own key and value decoded.

    ``drop_biases``: the key bias adds the same number to all scores of a query, which the softmax
    does not see, so that k − b_k is cached; unless rotary positions turn the bias by where it
    stands. And since weights sum to 1, v − b_v is cached and b_v added to the weighted sum. Both
    are exact, and free: a quantiser's error grows with the length of what it is given.

    One codec object may serve both; its rotation and tables are then held once. Codecs are moved
    to the model's device.
    """

    def __init__(
        self,
        model: GPT,
        batch_size: int,
        capacity: int,
        keys: Codec,
        values: Codec | None = None,
        *,
        window: int = 0,
        drop_biases: bool = True,
    ) -> None:
        config, weight = model.config, model.wte.weight
        self.key_codec, self.value_codec = keys, keys if values is None else values
        for codec in (self.key_codec, self.value_codec):
            if codec.width != config.d_head:
                raise UserError(
                    f"{codec.name} encodes vectors {codec.width} wide, but the model's heads are "
                    f"{config.d_head} wide; build it with that width"
                )
            codec.to(weight.device)
        if window < 0:
            raise UserError(f"window={window} is no number of tokens; use 0 or more")
        self.capacity, self.window = capacity, window
        self.block = math.lcm(self.key_codec.block, self.value_codec.block)
        # The model's own layers, not copies: their biases are no bytes of the cache.
        self._projections = [block.attn.c_attn for block in model.h] if config.bias else None
        self._drop_key_bias = drop_biases and config.bias and config.position != "rope"
        self._drop_value_bias = drop_biases and config.bias
        rows, blocks = (batch_size, config.n_head), capacity // self.block * self.block
        # Never more than these wait to be encoded.
        waiting = min(window + self.block - 1, capacity)

        def buffers(codec: Codec) -> list[list[Tensor]]:
            return [
                [
                    torch.zeros(*rows, blocks // codec.block, n, dtype=dtype, device=weight.device)
                    for n, dtype in codec.layout
                ]
                for _ in range(config.n_layer)
            ]

        def recent() -> list[Tensor]:
            return [weight.new_zeros(*rows, waiting, config.d_head) for _ in model.h]

        self.key_parts, self.value_parts = buffers(self.key_codec), buffers(self.value_codec)
        self.recent_keys, self.recent_values = recent(), recent()
        self._constants = [*self.key_codec.constants, *self.value_codec.constants]
        self._lengths = [0] * config.n_layer

    def encoded(self, length: int | Tensor) -> int | Tensor:
        """How many of the first tokens the last of ``length`` ones reads decoded."""
        past_window = (length - self.window) // self.block * self.block
        return past_window.clamp(min=0) if isinstance(length, Tensor) else max(0, past_window)

    @property
    def nbytes(self) -> int:
        """Bytes reserved, read off the buffers; windows, rotations and tables included."""
        parts = [part for layer in (*self.key_parts, *self.value_parts) for part in layer]
        return nbytes_of([*parts, *self.recent_keys, *self.recent_values, *self._constants])

    @property
    def nbytes_used(self) -> int:
        """Bytes of the tokens held, read off views of the buffers, and of what is held once."""
        count = self.encoded(self.length)
        layers = ((self.key_codec, self.key_parts), (self.value_codec, self.value_parts))
        held = sum(
            part[:, :, : count // codec.block].nbytes
            for codec, parts in layers
            for layer in parts
            for part in layer
        )
        waiting = (*self.recent_keys, *self.recent_values)
        held += sum(buffer[:, :, : self.length - count].nbytes for buffer in waiting)
        return held + nbytes_of(self._constants)

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append k, v (B, H, T, D) of one layer; return all that the last token reads, decoded.

        (B, H, length, D) each, in the model's own basis: the plain way, which `attend` equals.
        """
        start, end = self._advance(layer, k.shape[-2])
        bias_k, bias_v = self._biases(layer)
        found = []
        for x, bias, codec, parts, recent in (
            (k, bias_k, self.key_codec, self.key_parts[layer], self.recent_keys[layer]),
            (v, bias_v, self.value_codec, self.value_parts[layer], self.recent_values[layer]),
        ):
            exact = self._append(x - bias, codec, parts, recent, start, end)
            decoded = codec.decode(self._filled(codec, parts, end)).to(x.dtype)
            left = exact[:, :, exact.shape[-2] - (end - decoded.shape[-2]) :]
            found.append(torch.cat((decoded, left), dim=-2) + bias)
        return found[0], found[1]

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """As in `KVCache`, in the codecs' bases: q is turned once, and the weighted sum back once."""
        start, end = self._advance(layer, k.shape[-2])
        bias_k, bias_v = self._biases(layer)
        key_codec, key_parts = self.key_codec, self.key_parts[layer]
        value_codec, value_parts = self.value_codec, self.value_parts[layer]
        k = self._append(k - bias_k, key_codec, key_parts, self.recent_keys[layer], start, end)
        v = self._append(v - bias_v, value_codec, value_parts, self.recent_values[layer], start, end)
        count = self.encoded(end)
        first = end - k.shape[-2]  # token of the first exact key
        if q.shape[-2] == 1 or self.window + self.block == 1:
            k, v, first = k[:, :, count - first :], v[:, :, count - first :], count
        else:
            mask = self._mask(mask, start, end, count, first, q.device)
        turned = key_codec.rotate(q)
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.to(turned.dtype)
        k, v = key_codec.rotate(k), value_codec.rotate(v)
        encoded_k = self._filled(key_codec, key_parts, end)
        encoded_v = self._filled(value_codec, value_parts, end)
        if q.shape[-2] == 1:
            key_levels, key_scales = key_codec.levels_and_scales(encoded_k)
            value_levels, value_scales = value_codec.levels_and_scales(encoded_v)
            y = _attend_one(
                turned, (key_levels, key_scales, k), (value_levels, value_scales, v), mask
            )
        else:
            keys = torch.cat((key_codec.dequantize(encoded_k), k), dim=-2)
            values = torch.cat((value_codec.dequantize(encoded_v), v), dim=-2)
            y = attend(turned, keys, values, mask)
        return value_codec.unrotate(y).to(q.dtype) + bias_v

    def _append(
        self, x: Tensor, codec: Codec, parts: list[Tensor], recent: Tensor, start: int, end: int
    ) -> Tensor:
        """Encode what leaves the window. Exact tokens (B, H, …, D), from the first that waited."""
        before, after = self.encoded(start), self.encoded(end)
        waited = recent[:, :, : start - before]
        exact = torch.cat((waited.to(x.dtype), x), dim=-2) if waited.shape[-2] else x
        leaving, staying = exact[:, :, : after - before], exact[:, :, after - before :]
        if leaving.shape[-2]:
            at = slice(before // codec.block, after // codec.block)
            for buffer, part in zip(parts, codec.encode(leaving), strict=True):
                buffer[:, :, at] = part
        recent[:, :, : staying.shape[-2]] = staying
        return exact

    def _filled(self, codec: Codec, parts: list[Tensor], length: int) -> tuple[Tensor, ...]:
        """Views of the buffers: what the last of ``length`` tokens reads of them."""
        return tuple(part[:, :, : self.encoded(length) // codec.block] for part in parts)

    def _biases(self, layer: int) -> tuple[Tensor | float, Tensor | float]:
        """b_k and b_v, (H, 1, D) each, as far as they are dropped; 0 where they are not."""
        if self._projections is None:
            return 0.0, 0.0
        bias = self._projections[layer].bias.detach()
        _, k, v = bias.view(3, -1, 1, self.key_codec.width)
        return k if self._drop_key_bias else 0.0, v if self._drop_value_bias else 0.0

    def _mask(
        self,
        mask: Tensor | None,
        start: int,
        end: int,
        count: int,
        first: int,
        device: torch.device,
    ) -> Tensor:
        """Who reads what of ``count`` encoded tokens, followed by the exact ones from ``first`` on.

        (T, count + end − first) or with heads before, boolean or added, as ``mask`` is over tokens.
        A token that leaves the window on the way stands in both; each query reads it once.
        """
        query = torch.arange(start, end, device=device)[:, None]  # (T, 1)
        reads_decoded = torch.as_tensor(self.encoded(query + 1))
        decoded = torch.arange(count, device=device)
        exact = torch.arange(first, end, device=device)
        readable = torch.cat(
            (decoded < reads_decoded, (exact >= reads_decoded) & (exact <= query)), dim=1
        )
        if mask is None:
            return readable
        of_tokens = mask[..., torch.cat((decoded, exact))]
        if of_tokens.dtype == torch.bool:
            return of_tokens & readable
        return of_tokens.masked_fill(~readable, -torch.inf)


Factors = tuple[Tensor, Tensor | None, Tensor]  # levels and scales of the encoded, then the exact


def _attend_one(q: Tensor, keys: Factors, values: Factors, mask: Tensor | None) -> Tensor:
    """One query a head, q (B, H, 1, D): scales meet scores and weights, not keys and values."""
    levels, scales, exact = keys
    decoded = q @ levels.mT  # (B, H, 1, S)
    if scales is not None:
        decoded *= scales.mT
    scores = torch.cat((decoded, q @ exact.mT), dim=-1) if exact.shape[-2] else decoded
    scores *= 1 / math.sqrt(q.shape[-1])
    if mask is not None:
        if mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, -torch.inf)
        else:
            scores = scores + mask
    weights = scores.softmax(dim=-1)
    levels, scales, exact = values
    of_decoded = weights[..., : levels.shape[-2]]
    y = (of_decoded if scales is None else of_decoded * scales.mT) @ levels
    return y + weights[..., levels.shape[-2] :] @ exact if exact.shape[-2] else y
