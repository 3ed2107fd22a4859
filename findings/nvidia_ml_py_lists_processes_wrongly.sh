#!/usr/bin/env bash
# nvidia-ml-py 12.535.77: the list of a GPU's processes is read by a struct of the wrong size.
#
# Behaviour: nvmlDeviceGetComputeRunningProcesses_v3 fills entries of 24 bytes. This version reads
# entries of 32 bytes, so that from the second process on numbers and memory are those of no
# process. The versions before and after it read 24.
# Output seen: 12.535.77 reads 32 bytes an entry, 12.535.108 reads 24
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
size() {
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "nvidia-ml-py==$1"
    "$folder/venv/bin/python" -c \
        "import ctypes, pynvml; print(ctypes.sizeof(pynvml.c_nvmlProcessInfo_t))"
}
wrong=$(size 12.535.77)
right=$(size 12.535.108)
echo "12.535.77 reads $wrong bytes an entry, 12.535.108 reads $right"
[ "$wrong" = 32 ] && [ "$right" = 24 ]
