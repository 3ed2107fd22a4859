#!/usr/bin/env bash
# transformers 5.23.0: of two tensors that name one weight, with and without the model's prefix, the
# one without wins, and nothing is said, not even in the loading info.
#
# Behaviour: GPT2LMHeadModel reads `transformer.ln_f.weight` and `ln_f.weight` as the same weight.
# Where a file holds both with different values, from_pretrained takes the latter and reports
# neither as unexpected, missing or mismatched. (A head that differs from a tied embedding is told.)
# Output seen: ln_f.weight is 7.0 (the file's transformer.ln_f.weight is 1.0), unexpected keys: none
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 numpy==2.4.6 transformers==5.23.0 safetensors==0.8.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

config = GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=1, n_head=2,
                    bos_token_id=None, eos_token_id=None)
GPT2LMHeadModel(config).save_pretrained("model")
tensors = load_file("model/model.safetensors")
tensors["ln_f.weight"] = torch.full_like(tensors["transformer.ln_f.weight"], 7.0)
save_file(tensors, "model/model.safetensors", metadata={"format": "pt"})
model, told = GPT2LMHeadModel.from_pretrained("model", output_loading_info=True)
print("ln_f.weight", model.transformer.ln_f.weight[0].item(), {k: list(v) for k, v in told.items()})
assert model.transformer.ln_f.weight[0] == 7 and not any(told.values()), "transformers has changed"
PYTHON
