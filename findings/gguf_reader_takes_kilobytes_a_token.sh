#!/usr/bin/env bash
# gguf 0.19.0: opening a file takes kilobytes of memory for each token of its vocabulary, and seconds,
# even to read one tensor: GGUFReader makes several memory-mapped arrays for each token.
#
# Behaviour: GGUFReader reads all metadata when it is made. Each text of a list becomes two numpy
# memmap objects, which are kept; each number of a list becomes one. A file of 1.8 MB, with the
# 100,000 tokens and kinds of a common tokenizer and one tensor, takes more than 100 MB.
# Output seen: 1.8 MB, 100000 tokens: 2.6 s and 206 MB to open it, to read one tensor of 4 bytes
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 gguf==0.19.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import os
import re
import time
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFWriter

COUNT = 100_000
writer = GGUFWriter("model.gguf", "llama")
writer.add_token_list([f"t{number}" for number in range(COUNT)])
writer.add_token_types([1] * COUNT)
writer.add_tensor("token_embd.weight", np.ones(1, np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()


def held():
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


before, began = held(), time.monotonic()
reader = GGUFReader("model.gguf")
taken, seconds = held() - before, time.monotonic() - began
size = os.path.getsize("model.gguf")
print(f"{size / 1e6:.1f} MB, {COUNT} tokens: {seconds:.1f} s and {taken / 1e6:.0f} MB to open it, "
      f"to read one tensor of {reader.tensors[0].n_bytes} bytes")
assert taken > 50 * size, "gguf has changed"
PYTHON
