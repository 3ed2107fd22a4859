#!/usr/bin/env bash
# triton 3.7.1: whether a compiled kernel computes with 8 or with 32 bits depends on the value of an
# argument. An int argument that is 1 becomes a constant of the code, and a constant widens nothing.
#
# Behaviour: of `tl.load(x) << n`, x a pointer to uint8, the compiler makes a shift of 32 bits, as of
# every int argument n. For n = 1 it makes one of 8 bits, so that the highest bit is lost. The
# interpreter (TRITON_INTERPRET=1) keeps 32 bits for every n, so that tests in it find nothing.
# `do_not_specialize=["n"]` keeps 32 bits, but not for an n that is handed over within a tuple.
# Output seen (no GPU is needed: types are read off what is compiled for sm_80):
#   n = 2: i32, n = 1: i8, n = 1 and do_not_specialize: i32, the same within a tuple: i8
#   interpreter: 200 << 1 = 400; in 8 bits it is 144
# Whoever unpacks codes of few bits from bytes has wrong ones for one size of code alone. A cast to
# int32 before the shift helps.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    triton==3.7.1 torch==2.13.0 numpy==2.4.6
cat >"$folder/kernels.py" <<'PYTHON'
import re, sys
import torch, triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

@triton.jit
def shifted(x, y, n):
    at = tl.arange(0, 8)
    tl.store(y + at, (tl.load(x + at) << n).to(tl.int32))

@triton.jit(do_not_specialize=["n"])
def plain(x, y, n):
    at = tl.arange(0, 8)
    tl.store(y + at, (tl.load(x + at) << n).to(tl.int32))

@triton.jit(do_not_specialize=["n"])
def within(x, y, n):
    at = tl.arange(0, 8)
    tl.store(y + at, (tl.load(x + at) << n[0]).to(tl.int32))

x, y = torch.full((8,), 200, dtype=torch.uint8), torch.zeros(8, dtype=torch.int32)
if sys.argv[1] == "interpret":
    shifted[1,](x, y, 1)
    print(f"interpreter: 200 << 1 = {y[0]}; in 8 bits it is {200 << 1 & 255}")
    assert y[0] == 400, "the interpreter has changed"
    sys.exit()

class StandIn:  # a driver of a GPU that is not there
    def get_current_device(self): return 0
    def get_current_stream(self, device): return 0
    def get_current_target(self): return GPUTarget("cuda", 80, 32)

driver.set_active(StandIn())

def width(kernel, n):
    text = kernel.warmup(x, y, n, grid=(1,)).asm["ttir"]
    return re.search(r"arith.shli .*tensor<8x(i\d+)>", text)[1]

seen = [width(shifted, 2), width(shifted, 1), width(plain, 1), width(within, (1,))]
print("n = 2: {}, n = 1: {}, n = 1 and do_not_specialize: {}, the same within a tuple: {}".format(*seen))
assert seen == ["i32", "i8", "i32", "i8"], "the compiler has changed"
PYTHON
export TRITON_CACHE_DIR="$folder/cache"
"$folder/venv/bin/python" "$folder/kernels.py" compile
TRITON_INTERPRET=1 "$folder/venv/bin/python" "$folder/kernels.py" interpret
