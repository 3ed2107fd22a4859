#!/usr/bin/env bash
# torch 2.13.0 on a CPU: the gradients of a LayerNorm's weight and bias are wrong by tens of percent
# where its input is bfloat16, though both parameters are float32, and by the number of threads.
#
# Behaviour: under bfloat16 autocast a LayerNorm takes a bfloat16 input as it is. Its backward adds
# the rows up in bfloat16, which has 8 bits: once the sum is 256 times a row's share, a row no
# longer changes it. More rows make it worse, more threads (partial sums) better. No warning.
# Output seen, relative error of the bias's gradient (the plain sum of the rows of the gradient):
#   64 rows 0.8 %, 512 rows 2.1 %, 4096 rows 74 % on one thread; 4096 rows 50 % on two
# Norms of which the input comes from a linear (post-norm, a norm after a block) meet it; a norm of
# the residual stream in float32 does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch

def error(rows, threads):
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 256, generator=generator).bfloat16()
    gradient = (torch.randn(rows, 256, generator=generator) + 1).bfloat16()
    norm = torch.nn.LayerNorm(256)
    with torch.autocast("cpu", torch.bfloat16):
        y = norm(x)
    y.backward(gradient)
    exact = gradient.double().sum(0)
    return ((norm.bias.grad.double() - exact).norm() / exact.norm()).item()

seen = {rows: error(rows, 1) for rows in (64, 512, 4096)}
for rows, off in seen.items():
    print(f"{rows} rows, one thread: the bias's gradient is off by {off:.1%}")
print(f"4096 rows, two threads: off by {error(4096, 2):.1%}")
assert seen[64] < 0.02 and seen[4096] > 0.3, "LayerNorm's backward has changed"
PYTHON
