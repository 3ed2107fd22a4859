"""Rewrites of equal meaning, which do no harm: the gate has to let them pass."""

from __future__ import annotations

from reports.gate.validation.faults.change import HARMLESS, of_group
from reports.gate.validation.faults.places import (
    ATTENTION,
    CACHE,
    CODEC,
    COSTS,
    GENERATE,
    LORA,
    MEMORY,
    MODEL,
    NORMS,
    PACKING,
    POSITIONS,
    STATS,
)

rewrite = of_group(HARMLESS)

NBYTES_OF = (
    "def nbytes_of(tensors: Iterable[Tensor]) -> int:\n"
    '    """Bytes of these tensors, one that occurs twice counted once."""\n'
    "    return sum({(t.data_ptr(), t.nbytes): t.nbytes for t in tensors}.values())\n"
)

REWRITES = (
    rewrite(
        "a comment",
        "A comment is added to the model's forward pass.",
        (
            MODEL,
            "        for block in self.h:\n",
            "        # Each layer reads what the one before it wrote.\n"
            "        for block in self.h:\n",
        ),
    ),
    rewrite(
        "split by the function",
        "Queries, keys and values are split by PyTorch's function, not by the tensor's method.",
        (
            MODEL,
            "        q, k, v = qkv.split(self.heads, dim=1)  # (B, H, T, D), (B, G, T, D) twice\n",
            "        q, k, v = torch.split(qkv, self.heads, dim=1)\n",
        ),
    ),
    rewrite(
        "residual sum in one operator",
        "Post-LN scales and adds the residual in one operator instead of two.",
        (
            MODEL,
            "        x = self.ln_1(self.residual_scale * x + self.dropout(attended))\n",
            "        attended = self.dropout(attended)\n"
            "        x = self.ln_1(torch.add(attended, x, alpha=self.residual_scale))\n",
        ),
    ),
    rewrite(
        "root of the width kept",
        "The factor of scaled embeddings is computed once for a model.",
        (
            MODEL,
            "        self.wte = nn.Embedding(config.vocab_size, config.n_embd)\n",
            "        self.wte = nn.Embedding(config.vocab_size, config.n_embd)\n"
            "        self.embedding_factor = math.sqrt(config.n_embd)\n",
        ),
        (
            MODEL,
            "            x = x * math.sqrt(self.config.n_embd)\n",
            "            x = x * self.embedding_factor\n",
        ),
    ),
    rewrite(
        "layer norm by another name",
        "LayerNorm calls the operator itself, not the function around it.",
        (NORMS, "        return F.layer_norm(x, ", "        return torch.layer_norm(x, "),
    ),
    rewrite(
        "slopes as running products",
        "ALiBi's slopes are running products of the first one instead of powers.",
        (
            POSITIONS,
            "    slopes = 2.0 ** (-8.0 / lower * "
            "torch.arange(1, lower + 1, dtype=torch.float64))\n",
            "    first = torch.full((lower,), 2.0 ** (-8.0 / lower), dtype=torch.float64)\n"
            "    slopes = first.cumprod(0)\n",
        ),
    ),
    rewrite(
        "copy into a narrowed cache",
        "The cache copies into a narrowed view where it assigned to a slice.",
        (
            CACHE,
            "        self.keys[layer][:, :, start:end] = k\n"
            "        self.values[layer][:, :, start:end] = v\n",
            "        self.keys[layer].narrow(2, start, end - start).copy_(k)\n"
            "        self.values[layer].narrow(2, start, end - start).copy_(v)\n",
        ),
    ),
    rewrite(
        "where for masked_fill",
        "Sampling hides unlikely tokens by another operator.",
        (
            GENERATE,
            "        logits = logits.masked_fill(logits < least, -torch.inf)\n",
            "        logits = torch.where(logits < least, -torch.inf, logits)\n",
        ),
    ),
    rewrite(
        "scores scaled after the product",
        "A step through a packed cache scales the scores instead of the query.",
        (ATTENTION, "    q = q * (math.log2(math.e) / math.sqrt(D))\n", ""),
        (
            ATTENTION,
            "        _scale(scores, source.scales(KEYS, run.tokens), workspace)\n",
            "        _scale(scores, source.scales(KEYS, run.tokens), workspace)\n"
            "        scores *= math.log2(math.e) / math.sqrt(q.shape[-1])\n",
        ),
    ),
    rewrite(
        "update by einsum",
        "An adapter's update is computed by einsum instead of a matrix product.",
        (
            LORA,
            "self.scale * (adapter.B.to(dtype) @ adapter.A.to(dtype))\n",
            "self.scale * torch.einsum(\n"
            '                "dr,rn->dn", adapter.B.to(dtype), adapter.A.to(dtype)\n'
            "            )\n",
        ),
    ),
    rewrite(
        "adapter scaled before the product",
        "An adapter scales its r numbers a token, and not the product with B.",
        (
            LORA,
            "                part.addmm_(low, B.T, alpha=self.scale)\n",
            "                part.addmm_(low * self.scale, B.T)\n",
        ),
    ),
    rewrite(
        "a helper moves",
        "The function that counts a codec's bytes moves to another module, where it is imported.",
        (
            CODEC,
            "from reference_model.quantization.packing import LookUp\n",
            "from reference_model.quantization.packing import LookUp, nbytes_of\n",
        ),
        (CODEC, f"\n\n{NBYTES_OF}", ""),
        (CODEC, "from collections.abc import Iterable\n", ""),
        (PACKING, "import math\n", "import math\nfrom collections.abc import Iterable\n"),
        (PACKING, "def plane_widths(", f"{NBYTES_OF}\n\ndef plane_widths("),
    ),
    rewrite(
        "factors of FLOPs in another order",
        "The closed form of the projections' FLOPs has its factors in another order.",
        (
            COSTS,
            "        projections=config.n_layer * 4 * C * (queries + keys) * T,\n",
            "        projections=4 * T * (keys + queries) * C * config.n_layer,\n",
        ),
    ),
    rewrite(
        "storages by setdefault",
        "Held bytes are put down when a storage is met first, not each time.",
        (
            MEMORY,
            "        sizes[storage.device, storage.data_ptr()] = storage.nbytes()\n",
            "        sizes.setdefault((storage.device, storage.data_ptr()), storage.nbytes())\n",
        ),
    ),
    rewrite(
        "standard error written out",
        "The interval of a mean divides the deviation by √n where it asked for the error.",
        (
            STATS,
            "n - 1) * stats.sem(values))\n",
            "n - 1) * values.std(ddof=1) / math.sqrt(n))\n",
        ),
    ),
    rewrite(
        "larger of two p values",
        "Equivalence takes the larger of two p values instead of that of the nearer bound.",
        (
            STATS,
            "    nearer = np.minimum(value - low, high - value)\n"
            "    return np.asarray(stats.norm.sf(nearer / error))\n",
            "    apart = (value - low, high - value)\n"
            "    both = [stats.norm.sf(each / error) for each in apart]\n"
            "    return np.asarray(np.maximum(*both))\n",
        ),
    ),
)
