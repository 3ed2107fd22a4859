#!/usr/bin/env bash
# turboquant-pro 1.9.1: a vector in 3 bits comes back with a larger error than equally spaced levels
# have, though its levels are said to be those of Lloyd and Max, which have the least.
#
# Behaviour: the eight levels at 3 bits are 0.069, 0.5, 1.05 and 1.748 standard deviations and their
# negatives. Lloyd and Max's are 0.245, 0.756, 1.344 and 2.152; equally spaced ones are best 0.586 apart.
# The 2-bit levels are right.
# Output seen: error of normal vectors with 2 bits: turboquant-pro 0.116, Lloyd-Max 0.118, equally spaced 0.119
#              error of normal vectors with 3 bits: turboquant-pro 0.0443, Lloyd-Max 0.0347, equally spaced 0.0376
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 turboquant-pro==1.9.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
from turboquant_pro.core import TurboQuantKV

WIDTH = 128
x = np.random.default_rng(0).standard_normal((1, 1, 4000, WIDTH)).astype(np.float32)
LLOYD_MAX = {2: [0.4528, 1.5104], 3: [0.2451, 0.7560, 1.3439, 2.1520]}  # Max 1960, table I
EQUAL = {bits: [step * (i + 0.5) for i in range(2 ** (bits - 1))] for bits, step in ((2, 0.9957), (3, 0.5860))}


def error(found):
    return float(((found - x) ** 2).mean() / (x**2).mean())


def nearest(levels):
    levels = np.array(sorted([-level for level in levels] + levels), dtype=np.float32)
    return levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, x)]


found = {}
for bits in (2, 3):
    codec = TurboQuantKV(head_dim=WIDTH, n_heads=1, bits=bits, use_gpu=False, seed=0)
    found[bits] = error(codec.decompress(codec.compress(x))), error(nearest(LLOYD_MAX[bits])), error(nearest(EQUAL[bits]))
    print(f"error of normal vectors with {bits} bits: turboquant-pro {found[bits][0]:.3g}, "
          f"Lloyd-Max {found[bits][1]:.3g}, equally spaced {found[bits][2]:.3g}")
theirs, best, equal = found[3]
assert best < equal < theirs, "turboquant-pro has changed"
assert found[2][0] < 1.02 * found[2][1]
PYTHON
