#!/usr/bin/env bash
# gguf 0.19.0: dequantize takes 8 times as long where each row of the bytes is one block.
#
# Behaviour: gguf.dequantize takes 16 rows at a time, however short they are. The bytes of a tensor
# as one long row, as rows of the tensor, or as a row for each block (the shape that a format of
# blocks suggests) give the same numbers to the bit; a row for each block takes a Python call for
# every 16 blocks.
# Output seen: 1,048,576 numbers in Q4_1: 6 ms as one row, 46 ms as a row for each block, 8 times as long
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check gguf==0.19.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
from time import perf_counter

import numpy as np
from gguf import GGMLQuantizationType, dequantize, quantize

Q4_1, BLOCK_BYTES = GGMLQuantizationType.Q4_1, 20
numbers = np.random.default_rng(0).standard_normal((1, 2**20)).astype(np.float32)
one_row = quantize(numbers, Q4_1)
a_row_for_each_block = one_row.reshape(-1, BLOCK_BYTES)


def seconds(content):
    found = []
    for _ in range(5):
        start = perf_counter()
        dequantize(content, Q4_1)
        found.append(perf_counter() - start)
    return min(found)


assert np.array_equal(dequantize(one_row, Q4_1).ravel(), dequantize(a_row_for_each_block, Q4_1).ravel())
fast, slow = seconds(one_row), seconds(a_row_for_each_block)
print(f"{numbers.size:,} numbers in Q4_1: {1e3 * fast:.0f} ms as one row, "
      f"{1e3 * slow:.0f} ms as a row for each block, {slow / fast:.0f} times as long")
assert slow > 4 * fast, "gguf has changed"
PYTHON
