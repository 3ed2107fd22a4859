#!/usr/bin/env bash
# torch 2.13.0 on a CPU: attention answers a query that holds a NaN with zeros, so that a model with
# a NaN among its weights goes on with numbers, and writes text.
#
# Behaviour: F.scaled_dot_product_attention gives the row of such a query as zeros, with and without
# is_causal; by its own plain backend (SDPBackend.MATH) the row is NaN. A NaN in a key is passed on.
# Output seen: the query's row: [0.0, 0.0, 0.0, 0.0]; by the plain backend: [nan, nan, nan, nan]
# Whoever looks for NaN in a model's answer alone does not see one in a query's weights or bias.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

q, k, v = torch.randn(3, 1, 1, 6, 4, generator=torch.Generator().manual_seed(0))
q[0, 0, 3, 0] = torch.nan
row = scaled_dot_product_attention(q, k, v, is_causal=True)[0, 0, 3]
with sdpa_kernel(SDPBackend.MATH):
    plain = scaled_dot_product_attention(q, k, v, is_causal=True)[0, 0, 3]
print(f"the query's row: {row.tolist()}; by the plain backend: {plain.tolist()}")
assert row.eq(0).all() and plain.isnan().all(), "attention has changed"
PYTHON
