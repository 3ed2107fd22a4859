"""Faults that hold more bytes, reserve more, or keep what should be gone."""

from __future__ import annotations

from reports.gate.validation.faults.change import of_group
from reports.gate.validation.faults.places import (
    BASELINES,
    CACHE,
    CODEC,
    GENERATE,
    INT8,
    KV_CACHE,
    KV_STORE,
    LORA,
    PLAIN,
    POSITIONS,
    TRAINING,
)

fault = of_group("memory")

MEMORY = (
    fault(
        "half caches kept in float32",
        "A cache of half precision reserves float32.",
        (
            CACHE,
            "            return [torch.zeros(shape, dtype=dtype, device=device) "
            "for _ in range(config.n_layer)]\n",
            "            wide = torch.promote_types(dtype, torch.float32)\n"
            "            return [torch.zeros(shape, dtype=wide, device=device) "
            "for _ in range(config.n_layer)]\n",
        ),
    ),
    fault(
        "generation's cache in the default dtype",
        "The cache that a generation makes is float32, whatever the model is.",
        (
            GENERATE,
            "            cache = KVCache(model.config, batch_size, capacity, "
            "weight.dtype, weight.device)\n",
            "            cache = KVCache(model.config, batch_size, capacity, "
            "device=weight.device)\n",
        ),
    ),
    fault(
        "cache remembers its arguments",
        "A cache keeps all the keys and values that it was given beside its buffers.",
        (
            CACHE,
            "        self._lengths = [0] * config.n_layer\n",
            "        self._lengths = [0] * config.n_layer\n"
            "        self.seen: list[tuple[Tensor, Tensor]] = []\n",
        ),
        (
            CACHE,
            "        start, end = self._advance(layer, k.shape[-2])\n"
            "        self.keys[layer][:, :, start:end] = k\n",
            "        start, end = self._advance(layer, k.shape[-2])\n"
            "        self.seen.append((k, v))\n"
            "        self.keys[layer][:, :, start:end] = k\n",
        ),
    ),
    fault(
        "angles of every start are kept",
        "Rotary angles of each start and length stay in the process for ever.",
        (POSITIONS, "Start = int | Tensor\n", "Start = int | Tensor\nKEPT: dict = {}\n"),
        (
            POSITIONS,
            "    angles = position_angles(start, length, frequencies)\n",
            "    key = base, config.d_head, start, length, str(device)\n"
            "    if isinstance(start, Tensor):\n"
            "        angles = position_angles(start, length, frequencies)\n"
            "    else:\n"
            "        angles = KEPT.setdefault(key, position_angles(start, length, frequencies))\n",
        ),
    ),
    fault(
        "merging keeps two originals",
        "A merged linear keeps the original weight and a copy of it.",
        (
            LORA,
            "        self.original, self._parameter = weight.data, (weight,)\n",
            "        self.original, self._parameter = weight.data.clone(), (weight,)\n",
        ),
    ),
    fault(
        "float weights outlive their rewrite",
        "An INT8 model keeps the float weights that it was made of.",
        (
            INT8,
            "    _check_ties(result, replaced, kept_alive)\n",
            "    _check_ties(result, replaced, kept_alive)\n    result.made_of = kept_alive\n",
        ),
    ),
    fault(
        "packed linears keep their codes",
        "A packed INT8 linear holds its codes beside the packed weight.",
        (
            INT8,
            '        super().__init__(None if product == "packed" else codes, steps, zeros)\n',
            "        super().__init__(codes, steps, zeros)\n",
        ),
    ),
    fault(
        "tied head coded twice",
        "On grids other than INT8 per channel a tied head gets codes of its own.",
        (
            INT8,
            "        if key not in shared:\n",
            "        if key not in shared or grid != PER_CHANNEL:\n",
        ),
    ),
    fault(
        "float32 steps per token",
        "Rounding per token reserves float32 for its steps and offsets.",
        (
            BASELINES,
            "        self.layout = (*planes, (1, torch.float16), (1, torch.float16))\n",
            "        self.layout = (*planes, (1, torch.float32), (1, torch.float32))\n",
        ),
    ),
    fault(
        "window reserves the whole capacity",
        "A packed cache with a window reserves exact room for all its tokens.",
        (
            KV_STORE,
            "            min(window + block - 1, capacity),\n",
            "            capacity if window else min(block - 1, capacity),\n",
        ),
    ),
    fault(
        "codec copied for each layer",
        "Each layer of a packed cache has its own copy of rotation and table.",
        (KV_CACHE, "import math\n", "import copy\nimport math\n"),
        (
            KV_CACHE,
            "                Store(codec, shape, capacity,",
            "                Store(copy.deepcopy(codec), shape, capacity,",
        ),
    ),
    fault(
        "packed cache copies projections",
        "A packed cache holds copies of the projections whose biases it drops.",
        (KV_CACHE, "import math\n", "import copy\nimport math\n"),
        (
            KV_CACHE,
            "        parts = parts_of(model)\n",
            "        parts = copy.deepcopy(parts_of(model))\n",
        ),
    ),
    fault(
        "all vectors encoded at once",
        "A codec encodes all vectors at once, with temporary tensors as large as all of them.",
        (
            CODEC,
            '        on_cpu, values = x.device.type == "cpu", self.block * self.width\n'
            "        return max(1, VALUES_AT_ONCE // values if on_cpu else x.numel() // values)\n",
            "        return max(1, x.numel() // (self.block * self.width))\n",
        ),
    ),
    fault(
        "gradients stay allocated",
        "Gradients are filled with zeros after a step, and stay.",
        (
            TRAINING,
            "            optimizer.zero_grad(set_to_none=True)\n",
            "            optimizer.zero_grad(set_to_none=False)\n",
        ),
    ),
    fault(
        "validation keeps its activations",
        "The validation loss is computed with gradients on, and keeps all activations.",
        (TRAINING, "@torch.inference_mode()\ndef mean_loss(", "def mean_loss("),
    ),
    fault(
        "stream records a graph",
        "Tokens that are streamed leave a graph behind, which grows with each of them.",
        (GENERATE, "@torch.inference_mode()\ndef stream(", "def stream("),
    ),
    fault(
        "training state holds a tied head twice",
        "The file of a training state stores a tied head's weight twice.",
        (
            TRAINING,
            '        "model": model.state_dict(),\n',
            '        "model": {name: each.clone() for name, each in model.state_dict().items()},\n',
        ),
    ),
    fault(
        "saved weights widened",
        "Weights that are saved without a dtype are written in float32 at least.",
        (
            PLAIN,
            '    result = tensor.to("cpu", dtype).contiguous()\n',
            "    wide = torch.promote_types(tensor.dtype, torch.float32)\n"
            '    result = tensor.to("cpu", dtype or wide).contiguous()\n',
        ),
    ),
)
