#!/usr/bin/env bash
# transformers 5.23.0 ignores rope_theta in config.json where rope_parameters stand beside it, as in
# every folder that it writes. It does not warn.
#
# Behaviour: from_pretrained takes the base from rope_parameters and drops the other. Older files, and
# guides written for them, have rope_theta at the top: who edits it there to try a longer context
# measures the old model.
# Output seen: rope_theta 1000000.0 at the top: the same logits True; in rope_parameters: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 numpy==2.4.6 transformers==5.23.0 safetensors==0.8.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - 2>told <<'PYTHON' || { cat told >&2; exit 1; }
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
    max_position_embeddings=64, initializer_range=0.5,
)
LlamaForCausalLM(config).save_pretrained("model")
path, tokens = Path("model/config.json"), torch.arange(48)[None]
written = json.loads(path.read_text())


def logits(**changes):
    path.write_text(json.dumps({**written, **changes}))
    model = AutoModelForCausalLM.from_pretrained("model").eval()
    with torch.no_grad():
        return model(tokens).logits


plain, edited = logits(), logits(rope_theta=1e6)
moved = logits(rope_parameters={**written["rope_parameters"], "rope_theta": 1e6})
same, other = torch.equal(plain, edited), torch.equal(plain, moved)
print(f"rope_theta {1e6} at the top: the same logits {same}; in rope_parameters: {other}")
assert same and not other, "transformers has changed"
PYTHON
if grep -i "rope" told; then
    echo "transformers has changed: it tells" >&2
    exit 1
fi
