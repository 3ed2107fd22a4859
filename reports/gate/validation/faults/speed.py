"""Faults that make the model do more work for the same answer."""

from __future__ import annotations

from reports.gate.validation.faults.change import of_group
from reports.gate.validation.faults.places import (
    CACHE,
    CODEC,
    FILLING,
    GENERATE,
    INT8,
    KV_STORE,
    LINEAR,
    LORA,
    MODEL,
    PACKING,
    TRAINING,
)

fault = of_group("speed")

BLOCKS = "        for block in self.h:\n            x = block(x, mask, rotation, cache)\n"

SPEED = (
    fault(
        "head reads all positions",
        "The head computes the logits of all positions, of which the last are kept.",
        (
            MODEL,
            "        if last_only:\n"
            "            x = x[:, -1:]\n"
            "        return self.lm_head(self.ln_f(x))  # (B, T, V)\n",
            "        y = self.lm_head(self.ln_f(x))  # (B, T, V)\n"
            "        return y[:, -1:] if last_only else y\n",
        ),
    ),
    fault(
        "generation forgets last_only",
        "Each step of a generation asks for all logits and takes the last.",
        (
            GENERATE,
            "    return model(tokens, cache, last_only=True)[:, -1]\n",
            "    return model(tokens, cache)[:, -1]\n",
        ),
    ),
    fault(
        "mask in each layer",
        "The mask is built anew in each layer.",
        (
            MODEL,
            BLOCKS,
            "        for block in self.h:\n"
            "            mask = self._mask(start, tokens.shape[1], span, x)\n"
            "            x = block(x, mask, rotation, cache)\n",
        ),
    ),
    fault(
        "angles in each layer",
        "Rotary angles are computed anew in each layer.",
        (
            MODEL,
            BLOCKS,
            "        for block in self.h:\n"
            "            rotation = self._rotation(start, tokens.shape[1], x)\n"
            "            x = block(x, mask, rotation, cache)\n",
        ),
    ),
    fault(
        "explicit mask for a whole prompt",
        "A prompt read at once has a mask of its own, where causality would do.",
        (MODEL, "ends_now and (span == length or length == 1):", "ends_now and length == 1:"),
    ),
    fault(
        "copied queries, keys and values",
        "Queries, keys and values are copied in each layer.",
        (
            MODEL,
            "        q, k, v = qkv.split(self.heads, dim=1)  #",
            "        q, k, v = qkv.contiguous().split(self.heads, dim=1)  #",
        ),
    ),
    fault(
        "cache hands out copies",
        "At each step and layer the cache copies all the keys and values that it holds.",
        (
            CACHE,
            "        return keys[:, :, :end].to(k.dtype), values[:, :, :end].to(v.dtype)\n",
            "        keys, values = (x[:, :, :end].contiguous() for x in (keys, values))\n"
            "        return keys.to(k.dtype), values.to(v.dtype)\n",
        ),
    ),
    fault(
        "static cache written anew",
        "A static cache is written to a new buffer at each step, not in place.",
        (
            CACHE,
            "        keys.index_copy_(2, rows, k.to(keys.dtype))\n"
            "        values.index_copy_(2, rows, v.to(values.dtype))\n",
            "        keys = self.keys[layer] = keys.index_copy(2, rows, k.to(keys.dtype))\n"
            "        values = self.values[layer] = values.index_copy(2, rows, "
            "v.to(values.dtype))\n",
        ),
    ),
    fault(
        "prompt read token by token",
        "A prompt enters the cache one token at a time.",
        (
            GENERATE,
            "    at_once = (cache and cache.prompt_at_once) or prompt.shape[1]\n",
            "    at_once = prompt.shape[1] if cache is None else 1\n",
        ),
    ),
    fault(
        "adapter multiplied out",
        "An adapter's B and A are multiplied out at each call.",
        (
            LORA,
            "                part.addmm_(low, B.T, alpha=self.scale)\n",
            "                part.addmm_(rows.to(B.dtype), (B @ adapter.A).T, alpha=self.scale)\n",
        ),
    ),
    fault(
        "bfloat16 weights widened",
        "A prompt in bfloat16 has all weights cast to float32 at each product.",
        (
            LINEAR,
            "    if x.dtype == torch.float16 and x.numel() > FEW_HALF_ROWS * x.shape[-1]:\n",
            "    if x.dtype.itemsize == 2 and x.numel() > FEW_HALF_ROWS * x.shape[-1]:\n",
        ),
        (LINEAR, "weight.float(), wide_bias).half()\n", "weight.float(), wide_bias).to(x.dtype)\n"),
    ),
    fault(
        "float16 weights widened for one row",
        "A decode step in float16 has all weights cast to float32.",
        (LINEAR, "FEW_HALF_ROWS = 2\n", "FEW_HALF_ROWS = 0\n"),
    ),
    fault(
        "oneDNN is never asked",
        "No weights are large enough any more for the faster product.",
        (LINEAR, "ONEDNN_PAYS_FROM = 2**18\n", "ONEDNN_PAYS_FROM = 2**28\n"),
    ),
    fault(
        "packed cache decoded to full vectors",
        "A decode step through a packed cache without a window scales all its keys and values.",
        (
            KV_STORE,
            "        self.scaled = queries > self.stores[0].codec.width\n",
            "        self.scaled = not cache.window or queries > self.stores[0].codec.width\n",
        ),
    ),
    fault(
        "codec works in small pieces",
        "A codec encodes and decodes in pieces 64 times as small.",
        (CODEC, "VALUES_AT_ONCE = 2**19\n", "VALUES_AT_ONCE = 2**13\n"),
    ),
    fault(
        "codes of 2 and 3 bits gathered row by row",
        "Decoding 2 and 3 bits takes the slow way of gathering.",
        (
            PACKING,
            "        whole = {2: torch.complex64, 4: torch.complex128}.get(codes)\n",
            "        whole = {2: torch.complex64}.get(codes)\n",
        ),
    ),
    fault(
        "INT8 weights decoded in float64",
        "Dequantised weights are computed in float64.",
        (
            INT8,
            "        parts = self.codes.view(rows, groups, -1).to(x.dtype)\n",
            "        parts = self.codes.view(rows, groups, -1).double()\n",
        ),
    ),
    fault(
        "integer product padded on every device",
        "INT8 products of fewer than 32 rows are filled up to 32 on a CPU, too.",
        (
            INT8,
            '        if codes.device.type == "cuda" and missing:\n',
            "        if missing:\n",
        ),
    ),
    fault(
        "validation one window at a time",
        "The validation loss reads one window at a time, whatever the batch size.",
        (
            TRAINING,
            "* len(part) for part in windows.split(batch_size)]\n",
            "* len(part) for part in windows.split(1)]\n",
        ),
    ),
    fault(
        "loading copies each tensor",
        "What a folder holds is copied once more on its way into the model.",
        (
            FILLING,
            "            (parameter.T if transposed else parameter)[at] = piece\n",
            "            (parameter.T if transposed else parameter)[at] = piece.clone()\n",
        ),
    ),
    fault(
        "slices for a split",
        "Queries, keys and values are sliced: the gradient of each begins as zeros of the whole.",
        (
            MODEL,
            "        q, k, v = qkv.split(self.heads, dim=1)  # (B, H, T, D), (B, G, T, D) twice\n",
            "        H, G, _ = self.heads\n"
            "        q, k, v = qkv[:, :H], qkv[:, H : H + G], qkv[:, H + G :]\n",
        ),
    ),
)
