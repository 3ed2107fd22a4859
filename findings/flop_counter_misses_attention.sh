#!/usr/bin/env bash
# torch 2.13.0's FlopCounterMode counts 0 for most products of a model on a CPU, without a warning.
#
# Behaviour: it has formulas for mm, addmm, bmm, baddbmm and convolutions. Whatever else multiplies
# counts 0: attention on a CPU, a matrix times a vector, an LSTM, cdist, and a whole encoder layer
# in evaluation mode, which runs as one operator. The same layer counts in training mode.
# Output seen (FLOPs counted, FLOPs by the shapes):
#   attention 0 of 8192, matrix times vector 0 of 4096, LSTM 0 of 262144, cdist 0 of 262144,
#   encoder layer in evaluation 0 of 73728, in training 65536 of 73728
# Who trusts the total takes attention for free, and a model in evaluation for one without work.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

def counted(call):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()

q = torch.randn(1, 2, 8, 16)
matrix, vector = torch.randn(64, 32), torch.randn(32)
lstm, sequence = torch.nn.LSTM(16, 16), torch.randn(8, 8, 16)
layer = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
x = torch.randn(2, 8, 16)
seen = {
    "attention": (counted(lambda: scaled_dot_product_attention(q, q, q)), 2 * 2 * 2 * 8 * 8 * 16),
    "matrix times vector": (counted(lambda: matrix @ vector), 2 * 64 * 32),
    "LSTM": (counted(lambda: lstm(sequence)), 2 * 8 * 8 * 4 * 16 * 32),
    "cdist": (counted(lambda: torch.cdist(matrix, matrix)), 2 * 64 * 64 * 32),
    "encoder layer in training": (counted(lambda: layer.train()(x)), 73_728),
    "encoder layer in evaluation": (counted(lambda: layer.eval()(x)), 73_728),
}
for name, (found, real) in seen.items():
    print(f"{name}: counted {found} of {real} FLOPs")
expected = [0, 0, 0, 0, 65_536, 0]
assert [found for found, _ in seen.values()] == expected, "the counter has changed"
PYTHON
