#!/usr/bin/env bash
# transformers 5.23.0 reads a GGUF file whose positions are scaled as if they were not, and says
# nothing: neither an error nor a warning names what was left out.
#
# Behaviour: `llama.rope.scaling.type` and `llama.rope.scaling.factor` are how a GGUF file (written by
# gguf 0.19.0) tells of interpolated positions. from_pretrained with gguf_file drops both. The logits
# are not those of the model that was written.
# Output seen: rope_type default, logits off by 1.39 of the largest; as the file says, off by 0.0e+00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 numpy==2.4.6 transformers==5.23.0 gguf==0.19.0 accelerate==1.15.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - 2>told <<'PYTHON' || { cat told >&2; exit 1; }
import os
import warnings

import numpy as np
import torch
from gguf import GGUFWriter
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

warnings.simplefilter("error")  # a warning would be an answer, too
torch.manual_seed(0)
scaled = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
config = LlamaConfig(
    vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
    num_key_value_heads=4, max_position_embeddings=64, rope_parameters=scaled, initializer_range=0.5,
)
model = LlamaForCausalLM(config).eval()

writer = GGUFWriter("model.gguf", "llama")
writer.add_block_count(1)
writer.add_context_length(64)
writer.add_embedding_length(32)
writer.add_feed_forward_length(48)
writer.add_head_count(4)
writer.add_head_count_kv(4)
writer.add_layer_norm_rms_eps(config.rms_norm_eps)
writer.add_rope_freq_base(10000.0)
writer.add_vocab_size(50)
writer.add_uint32("llama.rope.dimension_count", 8)
writer.add_string("llama.rope.scaling.type", "linear")
writer.add_float32("llama.rope.scaling.factor", 4.0)
names = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
for name, tensor in model.state_dict().items():
    module = name.removesuffix(".weight").removeprefix("model.layers.0.")
    if module in ("self_attn.q_proj", "self_attn.k_proj"):  # llama.cpp's order of a head's rows
        tensor = tensor.view(4, 2, 4, 32).transpose(1, 2).reshape(32, 32)
    place = "" if module in ("model.embed_tokens", "model.norm", "lm_head") else "blk.0."
    writer.add_tensor(f"{place}{names[module]}.weight", np.ascontiguousarray(tensor.numpy()))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

read = AutoModelForCausalLM.from_pretrained(os.getcwd(), gguf_file="model.gguf").eval()
tokens = torch.arange(48)[None]
fixed = LlamaForCausalLM(config).eval()
fixed.load_state_dict(read.state_dict())
with torch.no_grad():
    expected = model(tokens).logits
    off, told = ((each(tokens).logits - expected).abs().max() / expected.abs().max()
                 for each in (read, fixed))
kind = read.config.rope_parameters["rope_type"]
print(f"rope_type {kind}, logits off by {off:.2f} of the largest; as the file says, off by {told:.1e}")
assert kind == "default" and off > 0.1 and told < 1e-5, "transformers has changed"
PYTHON
if grep -i "rope\|scal" told; then
    echo "transformers has changed: it tells" >&2
    exit 1
fi
