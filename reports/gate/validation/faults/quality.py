"""Faults that change what the model, its rewrites or its training compute."""

from __future__ import annotations

from reports.gate.validation.faults.change import of_group
from reports.gate.validation.faults.places import (
    BASELINES,
    FILLING,
    GENERATE,
    GPT2,
    GRID,
    INT8,
    KV_CACHE,
    KV_STORE,
    LORA,
    LORA_FILES,
    MODEL,
    NORMS,
    POSITIONS,
    TRAINING,
    TURBOQUANT,
)

fault = of_group("quality")

MODEL_FAULTS = (
    fault(
        "learned positions from 1 in static steps",
        "Where the start is a tensor, learned positions are counted from 1.",
        (
            POSITIONS,
            "positions_from(start, x.shape[1], x.device), self.weight)\n",
            "positions_from(start + 1, x.shape[1], x.device), self.weight)\n",
        ),
    ),
    fault(
        "NTK base by the model's width",
        "NTK scaling raises its base by the width of the model, not of a head.",
        (
            POSITIONS,
            "factor ** (config.d_head / (config.d_head - 2))\n",
            "factor ** (config.n_embd / (config.n_embd - 2))\n",
        ),
    ),
    fault(
        "sines before cosines",
        "Sinusoidal positions have all sines first, not side by side with cosines.",
        (
            POSITIONS,
            "torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2).to(x.dtype)\n",
            "torch.cat((angles.sin(), angles.cos()), dim=-1).to(x.dtype)\n",
        ),
    ),
    fault(
        "ALiBi slopes of other numbers of heads",
        "Slopes for numbers of heads that are no power of two take each slope of the next power.",
        (
            POSITIONS,
            "torch.arange(1, 2 * lower + 1, 2, dtype=torch.float64))\n",
            "torch.arange(1, 2 * lower + 1, dtype=torch.float64))\n",
        ),
    ),
    fault(
        "a piece sees one token ahead",
        "A piece that continues a text, or is read with ALiBi, sees one token of the future.",
        (
            MODEL,
            "torch.arange(span, device=x.device) > q[:, None]  # (T, S)\n",
            "torch.arange(span, device=x.device) > q[:, None] + 1  # (T, S)\n",
        ),
    ),
    fault(
        "dropout of embeddings in evaluation",
        "Embeddings of a model with dropout are dropped in evaluation as well.",
        (
            MODEL,
            "        return self.dropout(self.wpe(x, start))\n",
            "        x, share = self.wpe(x, start), self.config.dropout\n"
            "        return F.dropout(x, share) if share else x\n",
        ),
    ),
    fault(
        "RMSNorm ignores its epsilon",
        "RMSNorm takes PyTorch's epsilon instead of the configured one.",
        (
            NORMS,
            "        return RMSNorm(width, eps=config.norm_epsilon)\n",
            "        return RMSNorm(width)\n",
        ),
    ),
    fault(
        "residual projections drawn too wide",
        "Residual projections are drawn for one branch a layer, not two.",
        (
            MODEL,
            "                    depth = 2 * self.config.n_layer if",
            "                    depth = self.config.n_layer if",
        ),
    ),
)

GENERATION_FAULTS = (
    fault(
        "top_k keeps one more",
        "Sampling keeps one token more than top_k says.",
        (GENERATE, "logits.topk(min(top_k, ", "logits.topk(min(top_k + 1, "),
    ),
    fault(
        "temperature ignored beside top_k",
        "With top_k the temperature has no effect.",
        (
            GENERATE,
            "    logits = (below / temperature).float()\n",
            "    logits = (below / (1.0 if top_k else temperature)).float()\n",
        ),
    ),
    fault(
        "generator ignored",
        "Sampling does not draw from the generator that it is given.",
        (GENERATE, ", 1, generator=generator)[:, 0]\n", ", 1)[:, 0]\n"),
    ),
    fault(
        "an ended sequence goes on",
        "Where the padding is no end itself, a sequence goes on after one token of it.",
        (
            GENERATE,
            "        self.which = self.which | torch.isin(token, self.ends)\n",
            "        self.which = torch.isin(token, self.ends)\n",
        ),
    ),
)

ADAPTER_FAULTS = (
    fault(
        "merging forgets the scale",
        "A merged adapter adds BA without its scale.",
        (
            LORA,
            "self.scale * (adapter.B.to(dtype) @ adapter.A.to(dtype))\n",
            "adapter.B.to(dtype) @ adapter.A.to(dtype)\n",
        ),
    ),
    fault(
        "unmerging subtracts",
        "Unmerging subtracts the update instead of putting back what was kept.",
        (
            LORA,
            "            self.base.weight = weight\n            self.original, ",
            "            delta = self.delta_weight().to(weight.dtype)\n"
            "            delta = delta.T if _is_transposed(self.base) else delta\n"
            "            weight.data = self.base.weight.data - delta\n"
            "            self.base.weight = weight\n            self.original, ",
        ),
    ),
    fault(
        "saved alpha is that of a slice",
        "A file of fused adapters has the alpha of one slice.",
        (
            LORA_FILES,
            'linear.scale * _divisor(len(a), linear.config.scaling == "rslora")\n',
            "linear.config.alpha\n",
        ),
    ),
)

FILE_FAULTS = (
    fault(
        "attention's square matrix is not turned",
        "A square Conv1D weight of Hugging Face's layout is read and written unturned.",
        (
            GPT2,
            'CONV1D = ("attn.c_attn.weight", "attn.c_proj.weight", ',
            'CONV1D = ("attn.c_attn.weight", ',
        ),
    ),
    fault(
        "an own head is dropped in silence",
        "A head that differs from the embedding it is said to be tied to is replaced by it.",
        (
            FILLING,
            "and both and not _same(weights.entries, wte, head, dtype):\n",
            "and not both:\n",
        ),
    ),
)

QUANTISER_FAULTS = (
    fault(
        "INT8 keys clamped to 126",
        "The largest value of each INT8 vector becomes 126 steps instead of 127.",
        (BASELINES, ".round().clamp(-127, 127)\n", ".round().clamp(-126, 126)\n"),
    ),
    fault(
        "ties go up",
        "Weights that lie between two codes of a symmetric grid go to the upper one.",
        (
            GRID,
            "        codes = (parts / steps[..., None]).round()\n        zeros = ",
            "        codes = (parts / steps[..., None] + 0.5).floor()\n        zeros = ",
        ),
    ),
    fault(
        "zero point off by one",
        "The zero of an asymmetric grid lies one code too high, so that the largest is cut off.",
        (
            GRID,
            "        zeros = (-low / steps).round() - 2 ** (grid.bits - 1)\n",
            "        zeros = (-low / steps).round() - 2 ** (grid.bits - 1) + 1\n",
        ),
    ),
    fault(
        "symmetric grids have 8 bits",
        "A symmetric grid has 8 bits, whatever is asked for.",
        (
            GRID,
            "        largest = 2 ** (grid.bits - 1) - 1\n",
            "        largest = 127\n",
        ),
    ),
    fault(
        "dequantised linears drop their bias",
        "INT8 linears of the product dequantize add no bias.",
        (
            INT8,
            "F.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))\n",
            "F.linear(x, weight)\n",
        ),
    ),
    fault(
        "prompts see a wider window",
        "In a prompt of several tokens one more is read exactly than in a step of one.",
        (
            KV_STORE,
            "self.encoded(self.start + query + 1)",
            "self.encoded(self.start + query + (self.queries == 1))",
        ),
    ),
    fault(
        "rotary key biases dropped",
        "The packed cache drops key biases of rotary models, too.",
        (
            KV_CACHE,
            '        constant = not config.qk_norm and config.position != "rope"\n',
            "        constant = not config.qk_norm\n",
        ),
    ),
    fault(
        "codebook of width 64 for all",
        "TurboQuant takes the codebook of vectors 64 wide for every width.",
        (TURBOQUANT, "else uniform)(width, bits)\n", "else uniform)(64, bits)\n"),
    ),
)

TRAINING_FAULTS = (
    fault(
        "a resumed run warms up again",
        "A training run that is resumed starts its schedule anew.",
        (
            TRAINING,
            "        self.step, self.tokens = 0, 0  # taken so far\n",
            "        self.step, self.tokens, self.begun = 0, 0, 0\n",
        ),
        (
            TRAINING,
            "        training.step, training.tokens = progress.step, progress.tokens\n",
            "        training.step, training.tokens = progress.step, progress.tokens\n"
            "        training.begun = progress.step\n",
        ),
        (
            TRAINING,
            "        factor = learning_rate_factor(self.step, self.recipe)\n",
            "        factor = learning_rate_factor(self.step - self.begun, self.recipe)\n",
        ),
    ),
    fault(
        "norms and biases decay",
        "Weight decay also applies to norms and biases.",
        (
            TRAINING,
            '{"params": others, "weight_decay": 0.0}',
            '{"params": others, "weight_decay": recipe.weight_decay}',
        ),
    ),
)

QUALITY = (
    *MODEL_FAULTS,
    *GENERATION_FAULTS,
    *ADAPTER_FAULTS,
    *FILE_FAULTS,
    *QUANTISER_FAULTS,
    *TRAINING_FAULTS,
)
