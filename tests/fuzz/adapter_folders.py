"""Folders of adapters: what PEFT makes of them is right."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from reference_model.checkpoints import load_huggingface
from reference_model.lora_files import load_adapters
from tests.fuzz.folders import VOCABULARY, change_any_json, change_bytes, compare, edit, random_gpt2
from tests.fuzz.forked import Attempt


class Adapters:
    """150 adapters of PEFT on one model."""

    name, cases = "adapter folders", 150

    def __init__(self, folder: Path) -> None:
        from peft import LoraConfig, get_peft_model

        self.model, self.folders = folder / "model", []
        random_gpt2().save_pretrained(self.model)
        for name, choices in (
            ("plain", {"target_modules": ["c_attn"]}),
            ("rs", {"target_modules": ["c_attn", "c_fc"], "use_rslora": True}),
            ("patterns", {"target_modules": ["c_attn", "c_fc"], "rank_pattern": {"c_fc": 2}}),
        ):
            wrapped = get_peft_model(
                random_gpt2(), LoraConfig(r=4, lora_alpha=8, fan_in_fan_out=True, **choices)
            )
            for parameter_name, parameter in wrapped.named_parameters():
                if "lora_B" in parameter_name:
                    torch.nn.init.normal_(parameter, std=0.3)
            wrapped.save_pretrained(folder / name)
            self.folders.append(folder / name)

    def __call__(self, attempt: Attempt) -> None:
        here = attempt.folder / "adapter"
        shutil.copytree(attempt.random.choice(self.folders), here)
        (here / "README.md").unlink(missing_ok=True)
        changes = (_change_adapter, _change_adapter, change_any_json, change_bytes)
        attempt.what(attempt.random.choice(changes)(here, attempt.random))

        def ours() -> Callable[[Tensor], Tensor]:
            model = load_huggingface(self.model)
            load_adapters(model, here)
            return model

        def theirs() -> Callable[[Tensor], Tensor] | None:
            from peft import PeftModel
            from transformers import GPT2LMHeadModel

            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                base = GPT2LMHeadModel.from_pretrained(self.model, attn_implementation="eager")
                model = PeftModel.from_pretrained(base, here).eval()
            if any("missing adapter keys" in str(each.message) for each in told):
                return None
            return lambda tokens: model(tokens).logits

        compare(attempt, ours, theirs)


def _change_adapter(folder: Path, random: Random) -> str:
    changes = random.choice((
        {"r": 10**9}, {"r": 0}, {"r": -1}, {"lora_alpha": -4}, {"lora_alpha": 0},
        {"lora_alpha": float("nan")}, {"use_rslora": True}, {"use_dora": True},
        {"fan_in_fan_out": False}, {"bias": "all"}, {"bias": "lora_only"},
        {"init_lora_weights": "pissa"}, {"init_lora_weights": "mica"}, {"layers_to_transform": [0]},
        {"layers_pattern": "h"}, {"rank_pattern": {"c_attn": 10**9}}, {"alpha_pattern": {".*": 3}},
        {"alpha_pattern": {"h.0.attn.c_attn": 3}}, {"rank_pattern": {"(a+)+$" * 20: 2}},
        {"target_modules": "(.*)*c_attn"}, {"target_modules": "all-linear"},
        {"target_modules": ["c_attn", "lm_head"]}, {"modules_to_save": ["lm_head"]},
        {"target_parameters": ["attn.c_proj.weight"]}, {"exclude_modules": ["c_fc"]},
        {"peft_type": "LOHA"}, {"lora_bias": True}, {"arrow_config": {"top_k": 3}},
        {"alora_invocation_tokens": [1]}, {"trainable_token_indices": [1]},
        {"layer_replication": [[0, 2]]}, {"lora_dropout": 0.9}, {"unknown_key": 3},
        {"base_model_name_or_path": "\u001b[2Jevil"}, {"task_type": "SEQ_CLS"},
    ))  # fmt: skip
    if random.random() < 0.3:
        path = folder / "adapter_model.safetensors"
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        name = random.choice(sorted(tensors))
        way = random.choice(("drop", "NaN", "another rank", "half", "other prefix", "an extra"))
        if way == "drop":
            del tensors[name]
        elif way == "NaN":
            tensors[name].view(-1)[0] = float("nan")
        elif way == "another rank":
            tensors[name] = tensors[name][:-1].contiguous()
        elif way == "half":
            tensors[name] = tensors[name].half()
        elif way == "other prefix":
            tensors[name.removeprefix("base_model.model.")] = tensors.pop(name)
        else:
            tensors["base_model.model.lm_head.base_layer.weight"] = torch.ones(VOCABULARY, 16)
        save_file(tensors, path)
        return f"adapter tensors: {way} ({name})"
    edit(folder / "adapter_config.json", changes)
    return f"adapter_config.json with {str(changes)[:80]}"
