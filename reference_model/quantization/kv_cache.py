"""The KV cache in few bits: any codec for keys, any for values, some tokens as they came."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reference_model.attention import Source, attend, attend_in_pieces
from reference_model.cache import KVCache
from reference_model.errors import UserError
from reference_model.kernels import packed_attention, triton_attention
from reference_model.kernels.packed_attention import Held
from reference_model.parts import parts_of
from reference_model.quantization.codec import Codec, Parts, nbytes_of
from reference_model.quantization.kv_store import Decoded, Exact, Sinks, Store, two_of
from reference_model.quantization.turboquant import TurboQuant
from reference_model.workspace import Workspace

if TYPE_CHECKING:
    from reference_model.model import GPT

# Tokens of a prompt: what lies between a model's layers is then no more than a long text's cache.
PROMPT_AT_ONCE = 512


class QuantizedKVCache(KVCache):
    """Keys and values as their codecs hold them, allocated once and appended in place.

    What a token reads depends on its own position t alone, however the text was cut into pieces:
    the ``sinks`` first tokens and the ``window`` newest ones up to t exactly, those between them
    decoded. Where a codec encodes ``block`` tokens together, counted from behind the sinks, an
    incomplete block is read exactly, too. With a window of 0 a token reads even its own key and
    value decoded.

    ``drop_biases``: the key bias adds the same number to all scores of a query, which the softmax
    does not see, so that k − b_k is cached; unless rotary positions turn the bias by where it
    stands, or keys are normed with it. And since weights sum to 1, v − b_v is cached and b_v added
    to the weighted sum. Both are exact, and free: a quantiser's error grows with the length of what
    it is given.

    ``values``: a codec of their own. Without one keys and values share theirs, and each operator
    serves both at once. Codecs that are calibrated layer by layer come as a list, one for each
    layer. On another device than the model's, codecs are copied to it.
    """

    def __init__(
        self,
        model: GPT,
        batch_size: int,
        capacity: int,
        keys: Codec | Sequence[Codec],
        values: Codec | Sequence[Codec] | None = None,
        *,
        window: int = 0,
        sinks: int = 0,
        drop_biases: bool = True,
    ) -> None:
        config, weight = model.config, model.wte.weight.detach()
        of_layers = _codecs_of_layers(keys, values, config.n_layer)
        here = {codec: codec.to(weight.device) for codecs in of_layers for codec in codecs}
        for codec in here:
            if codec.width != config.d_head:
                raise UserError(
                    f"{codec.name} encodes vectors {codec.width} wide, but the model's heads are "
                    f"{config.d_head} wide; build it with that width"
                )
        for name, count in (("window", window), ("sinks", sinks)):
            if count < 0:
                raise UserError(f"{name}={count} is no number of tokens; use 0 or more")
        self.capacity, self.window, self.sinks = capacity, window, min(sinks, capacity)
        self.block = math.lcm(*(codec.block for codec in here))
        # The model's own layers, not copies: their biases are no bytes of the cache.
        parts = parts_of(model)
        of_keys, of_values = ([p for p in parts if p.role == role] for role in ("key", "value"))
        self._projections = list(zip(of_keys, of_values, strict=True))
        # After a norm or a rotation the bias is no longer the part that all keys share.
        constant = not config.qk_norm and config.position != "rope"
        drops = drop_biases and config.qkv_bias
        self._drops_key_bias, self._drops_value_bias = drops and constant, drops
        shape = (2 // len(of_layers[0]), batch_size, config.n_kv_head)
        of_layers = [[here[codec] for codec in codecs] for codecs in of_layers]
        self.stores = [
            [
                Store(codec, shape, capacity, self.block, window, self.sinks, weight)
                for codec in codecs
            ]
            for codecs in of_layers
        ]
        self._lengths = [0] * config.n_layer
        self.batch_size = batch_size
        self.workspace = Workspace(weight.device)
        self.prompt_at_once = PROMPT_AT_ONCE if weight.device.type == "cpu" else None

    def encoded(self, length: int) -> int:
        """How many tokens, from the sinks on, the last of ``length`` ones reads decoded."""
        return max(0, (length - self.sinks - self.window) // self.block * self.block)

    def forget(self, length: int) -> None:
        """As in `KVCache`; `UserError` where tokens that waited would have to be exact again."""
        waited = self.window + self.block > 1
        if waited and self.encoded(length) != self.encoded(self.length):
            raise UserError(
                f"the KV cache cannot go back to {length} tokens: it holds those before "
                f"{self.sinks + self.encoded(self.length)} compressed; prefill the text again"
            )
        super().forget(length)

    @property
    def nbytes(self) -> int:
        """Bytes reserved, read off the buffers; exact tokens, rotations and tables included."""
        stores = [store for of_layer in self.stores for store in of_layer]
        constants = [tensor for store in stores for tensor in store.codec.constants]
        return nbytes_of([t for s in stores for t in (*s.parts, s.first, s.recent)] + constants)

    @property
    def nbytes_used(self) -> int:
        """Bytes of the tokens held, read off views of the buffers, and of what is held once."""
        stores = [store for of_layer in self.stores for store in of_layer]
        views = [view for s in stores for view in s.used(self.length, self.encoded(self.length))]
        constants = nbytes_of(tensor for store in stores for tensor in store.codec.constants)
        return sum(view.nbytes for view in views) + constants

    def append(self, layer: int, k: Tensor, v: Tensor) -> None:
        """As in `KVCache`."""
        start, _ = self._advance(layer, k.shape[-2])
        self._append(layer, k, v, self._biases(layer), start)

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append k, v (B, G, T, D) of one layer; return all that the last token reads, decoded.

        (B, G, length, D) each, in the model's own basis: the plain way, which `attend` equals.
        """
        start, end = self._advance(layer, k.shape[-2])
        bias = self._biases(layer)
        exact = self._append(layer, k, v, bias, start)
        leaving = self.encoded(end) - self.encoded(start)
        keys, values = self._decoded(layer, end, [x[..., leaving:, :] for x in exact])
        return (keys, values) if bias is None else (keys + bias[0], values + bias[1])

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """As in `KVCache`, in the codecs' bases: q is turned once, the weighted sum back once."""
        if packed_attention.can_attend(q, k, v) and (held := self._packed(layer)):
            return self._attend_compiled(layer, q, k, v, mask, held)
        start, end = self._advance(layer, k.shape[-2])
        bias = self._biases(layer)
        exact = self._append(layer, k, v, bias, start)
        codecs = [store.codec for store in self.stores[layer]]
        if triton_attention.supports(q, *codecs):
            return self._attend_on_cuda(layer, q, exact, start, end, mask, bias)
        if q.requires_grad and torch.is_grad_enabled():  # in pieces, none would be kept
            mask = self._mask(mask, start, end, self.encoded(start), q.device)
            y = attend(q, *self._decoded(layer, end, exact), mask)
        else:
            y = self._attend(layer, codecs[0].rotate(q), exact, start, mask)
            y = codecs[-1].unrotate(y).to(q.dtype)
        if bias is None:
            return y
        sharing = y.shape[1] // v.shape[1]  # heads that share a value, and so its bias
        return y + (bias[1] if sharing == 1 else bias[1].repeat_interleave(sharing, 1))

    def _packed(self, layer: int) -> list[tuple[TurboQuant, Parts, Tensor]] | None:
        """Of keys and of values codec, buffers and sinks, where compiled code may use them."""
        stores, found = self.stores[layer], []
        for store, half in ((stores[0], 0), (stores[-1], -1)):
            codec = store.codec
            if not isinstance(codec, TurboQuant) or store.recent.dtype != torch.float32:
                return None
            found.append((codec, store.halves[half], store.first_halves[half]))
        return found if all(c.bits in packed_attention.BITS for c, _, _ in found) else None

    def _attend_compiled(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        held: list[tuple[TurboQuant, Parts, Tensor]],
    ) -> Tensor:
        """What `attend` does, in one call where each new token is encoded at once."""
        start, _ = self._advance(layer, k.shape[-2])
        fresh: tuple[Tensor, Tensor] | None = (k, v)
        newest: tuple[Tensor | None, Tensor | None] = (None, None)
        found = self._biases(layer)
        if self.window or start < self.sinks:
            fresh, newest = None, two_of(self._append(layer, k, v, found, start))
        biases = (None, None) if found is None else found[:, 0, :, 0].unbind()
        keys, values = (
            Held(codec, parts, first, None if last is None else last.contiguous(), bias)
            for (codec, parts, first), last, bias in zip(held, newest, biases, strict=True)
        )
        return packed_attention.attend(
            q,
            keys,
            values,
            start=start,
            capacity=self.capacity - self.sinks,
            fresh=fresh,
            window=self.window,
            mask=mask,
            out_bias=values.bias,
        )

    def _attend_on_cuda(
        self,
        layer: int,
        q: Tensor,
        exact: list[Tensor],
        start: int,
        end: int,
        mask: Tensor | None,
        bias: Tensor | None,
    ) -> Tensor:
        """What `attend` does, by Triton's kernels."""
        sinks, first, count = min(self.sinks, end), self.encoded(start), self.encoded(end)
        if q.shape[-2] == 1 or self.window == 0:  # nobody reads exactly what was encoded just now
            exact, first = [x[..., count - first :, :] for x in exact], count
        if q.shape[-2] > 1 and (self.window or sinks):
            mask = self._mask(mask, start, end, first, q.device)
        if sinks:  # they stand among the exact ones, which kernels read last
            exact = [s.with_sinks(end, x) for s, x in zip(self.stores[layer], exact, strict=True)]
            if mask is not None:
                rest = mask.shape[-1] - sinks - count
                of_sinks, packed, last = mask.split((sinks, count, rest), dim=-1)
                mask = torch.cat((packed, of_sinks, last), dim=-1)
        k_packed, v_packed = (
            triton_attention.Packed.of(store.codec, parts)
            for store in self.stores[layer]
            for parts in store.filled_apart(count)
        )
        of_values = None if bias is None else bias[1]
        return triton_attention.attend_packed(
            q, k_packed, v_packed, two_of(exact), count, mask, bias=of_values
        )

    def _mask(
        self, mask: Tensor | None, start: int, end: int, first: int, device: torch.device
    ) -> Tensor:
        """Who reads what of the sinks, what is encoded, and exact tokens: those behind ``first``.

        (T, all of them) or with heads before, boolean or added, as ``mask`` is over tokens. A token
        that leaves the window on the way stands twice; each query reads it once.
        """
        query = torch.arange(start, end, device=device)[:, None]  # (T, 1)
        behind = (query + 1 - self.sinks - self.window).clamp(min=0)
        border = self.sinks + behind // self.block * self.block
        sinks, decoded, exact = (
            torch.arange(begin, max(begin, stop), device=device)
            for begin, stop in (
                (0, min(self.sinks, end)),
                (self.sinks, self.sinks + self.encoded(end)),
                (self.sinks + first, end),
            )
        )
        readable = torch.cat(
            (sinks <= query, decoded < border, (exact >= border) & (exact <= query)), dim=1
        )
        if mask is None:
            return readable
        of_tokens = mask[..., torch.cat((sinks, decoded, exact))]
        if of_tokens.dtype == torch.bool:
            return of_tokens & readable
        return of_tokens.masked_fill(~readable, -torch.inf)

    def _attend(
        self, layer: int, q: Tensor, exact: list[Tensor], start: int, mask: Tensor | None
    ) -> Tensor:
        """Turned queries from ``start`` on, piece by piece; what is ``exact`` came from `_append`.

        Each query reads the sinks exactly, decoded what has left its window, and from there on to
        itself exactly.
        """
        queries = q.shape[-2]
        sources: list[Source] = [
            Sinks(self, layer, start, queries),
            Decoded(self, layer, start, queries),
            Exact(self, layer, start, queries, exact),
        ]
        return attend_in_pieces(q, sources, mask, self.workspace, self.capacity)

    def _decoded(self, layer: int, end: int, exact: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The sinks of ``end`` tokens, those decoded, and what is ``exact``; biases stay off."""
        read = []
        for store, newest in zip(self.stores[layer], exact, strict=True):
            past = store.codec.decode(store.filled(self.encoded(end))).to(newest.dtype)
            read.append(store.with_sinks(end, past, newest))
        return two_of(read)

    def _append(
        self, layer: int, k: Tensor, v: Tensor, bias: Tensor | None, start: int
    ) -> list[Tensor]:
        """Exact tokens of each store of a layer, from the first that waited, without sinks."""
        both = torch.stack((k, v))
        if bias is not None:
            both = both - bias
        first, count = self.encoded(start), self.encoded(start + k.shape[-2])
        stores = self.stores[layer]
        return [
            store.append(x, start, first, count)
            for store, x in zip(stores, both.chunk(len(stores)), strict=True)
        ]

    def _biases(self, layer: int) -> Tensor | None:
        """b_k and b_v as far as they are dropped, else 0: (2, 1, G, 1, D); None where all are."""
        if not self._drops_value_bias:
            return None
        keys, values = self._projections[layer]
        if keys.module is values.module:  # where they lie side by side: nothing is copied
            bias = keys.module.get_parameter("bias").detach()
            first, end = keys.outputs.start, values.outputs.stop
            both = bias.narrow(0, first, end - first)
        else:
            both = torch.cat(
                [part.module.get_parameter("bias").detach() for part in (keys, values)]
            )
        heads = self.stores[layer][0].recent.shape[2]
        both = both.view(2, 1, heads, 1, -1)
        return both if self._drops_key_bias else torch.stack((torch.zeros_like(both[0]), both[1]))


def _codecs_of_layers(
    keys: Codec | Sequence[Codec], values: Codec | Sequence[Codec] | None, layers: int
) -> list[list[Codec]]:
    """Of each layer, one codec that keys and values share, or two."""
    given = [keys] if values is None or values is keys else [keys, values]
    found: list[Sequence[Codec]] = []
    for each in given:
        of_layers = [each] * layers if isinstance(each, Codec) else each
        if len(of_layers) != layers:
            raise UserError(
                f"received codecs for {len(of_layers)} layers, but the model has {layers}; give "
                "one codec, or one for each layer"
            )
        found.append(of_layers)
    return [list(of_layer) for of_layer in zip(*found, strict=True)]
