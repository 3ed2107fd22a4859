"""What is written and read again: checkpoints in both layouts, adapters, tokenizers, settings."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.exact_cases.case import Case, Raised, refusal
from benchmarks.exact_cases.models import chosen, small_model, tokens_of

GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 61,
    "n_positions": 33,
    "n_embd": 42,
    "n_layer": 2,
    "n_head": 3,
}
LLAMA = {
    "model_type": "llama",
    "vocab_size": 61,
    "max_position_embeddings": 33,
    "hidden_size": 42,
    "intermediate_size": 50,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
}


def _logits(model: Any) -> object:
    import torch

    with torch.inference_mode():
        logits = model(tokens_of(model, 2, 7))
    parameters = len(list(model.parameters()))  # what is tied is one
    about = [str(model.wte.weight.dtype), chosen(model.config), model.training, parameters]
    return [logits, *about]


def _listed(folder: Path) -> object:
    """Names of files, and the tensors in them: what is written and read alike may be wrong."""
    from safetensors import safe_open

    found: list[object] = [sorted(path.name for path in folder.iterdir())]
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in sorted(file.keys()):
                tensor = file.get_tensor(name)
                found += [name, tensor]
    return found


def _saved(layout: str, stored: str | None, **choices: Any) -> object:
    """A model through a folder and back, and what the folder holds."""
    import torch

    from reference_model import checkpoints, export

    wanted = None if stored is None else getattr(torch, stored)
    model = small_model(**choices)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        if layout == "reference":
            checkpoints.save(model, folder, wanted)
            load = checkpoints.load
        else:
            export.save_huggingface(model, folder, wanted, eos_token_id=3)
            load = checkpoints.load_huggingface
        fields = json.loads((folder / "config.json").read_text())
        found = [_logits(model), _listed(folder), fields, _logits(load(folder))]
        return [*found, _logits(load(folder, torch.bfloat16).float())]


def _merged_and_saved() -> object:
    """Merged adapters are part of what is saved."""
    import torch

    from reference_model import checkpoints, lora

    model: Any = small_model(head="untied")
    config = lora.LoRAConfig(3, init_b="gaussian")
    lora.add_adapters(model, config, torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        apart = refusal(lambda: checkpoints.save(model, folder))
        lora.merge_adapters(model)
        checkpoints.save(model, folder)
        return [apart, _listed(folder), _logits(checkpoints.load(folder))]


def _head_of_its_own() -> object:
    """A folder that is said to be tied, and has a head that differs from the embedding."""
    from safetensors.torch import load_file, save_file

    from reference_model import checkpoints

    model = small_model()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        checkpoints.save(model, folder)
        weights = load_file(folder / "model.safetensors")
        found = []
        for factor in (1.0, 2.0):
            head = {"lm_head.weight": weights["wte.weight"] * factor}
            save_file({**weights, **head}, folder / "model.safetensors")
            found.append(_logits(checkpoints.load(folder)))
    return found


def _damaged() -> object:
    """What is missing, cut off or of another shape is refused."""
    from reference_model import checkpoints

    model = small_model()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        found = [refusal(lambda: checkpoints.load(folder))]
        checkpoints.save(model, folder)
        config, weights = folder / "config.json", folder / "model.safetensors"
        fields, content = config.read_text(), weights.read_bytes()
        for changed in ({"n_layer": 3}, {"n_embd": 45}, {"vocab_size": 60}, {"norm": "rmsnorm"}):
            config.write_text(json.dumps({**json.loads(fields), **changed}))
            found.append(refusal(lambda: checkpoints.load(folder)))
        config.write_text(fields)
        weights.write_bytes(content[:-100])
        found.append(refusal(lambda: checkpoints.load(folder)))
        model.wte.weight.data[3, 3] = float("inf")
        found.append(refusal(lambda: checkpoints.save(model, folder)))
    return [each if isinstance(each, Raised) else "accepted" for each in found]


def _adapters(layout: str, **fields: Any) -> object:
    """Adapters through PEFT's files and back, and what these say of them."""
    import torch

    from reference_model import lora, lora_files

    given: Any = layout
    model = small_model()
    config = lora.LoRAConfig(**{"rank": 3, "init_b": "gaussian", **fields})
    lora.add_adapters(model, config, torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "adapters"
        lora_files.save_adapters(model, folder, given)
        again = small_model()
        names = lora_files.load_adapters(again, folder)
        scales = [linear.scale for linear in lora.lora_linears(again).values()]
        told = json.loads((folder / "adapter_config.json").read_text())
        none = refusal(lambda: lora_files.save_adapters(small_model(), folder))
        return [_logits(model), _listed(folder), names, scales, told, _logits(again), none]


def _settings() -> object:
    """Configurations of Hugging Face's: which are read, as what, and which are refused."""
    from reference_model.families.gpt2 import config as config_from_huggingface

    changes: tuple[dict[str, Any], ...] = (
        {},
        {"tie_word_embeddings": False},
        {"layer_norm_epsilon": 1e-6},
        {"resid_pdrop": 0.1},
        {"n_inner": 168},
        {"n_inner": 100},
        {"activation_function": "relu"},
        {"n_ctx": 5},
        {"activation_function": "gelu_pytorch_tanh"},
        {"scale_attn_weights": False},
        {"reorder_and_upcast_attn": True},
        {"scale_attn_by_inverse_layer_idx": True},
        {"model_type": "llama"},
        {"n_head": 5},
        {"n_embd": "42"},
        {"unheard_of": 1},
        {"max_position_embeddings": 33},
        {"num_hidden_layers": 4},
    )
    place = Path("config.json")
    return [refusal(partial(config_from_huggingface, {**GPT2, **each}, place)) for each in changes]


def _settings_of_llama() -> object:
    """The same of the Llama type, and of folders that are of no known one."""
    from reference_model.checkpoints import family_of

    changes: tuple[dict[str, Any], ...] = (
        {},
        {"model_type": "qwen2", "num_key_value_heads": 1},
        {"model_type": "qwen3", "num_key_value_heads": 1, "head_dim": 10},
        {"model_type": "mistral", "num_key_value_heads": 1, "sliding_window": None},
        {"model_type": "mistral", "num_key_value_heads": 1, "sliding_window": 8},
        {"model_type": "gemma"},
        {"attention_bias": True, "mlp_bias": True, "rms_norm_eps": 1e-5},
        {"rope_theta": 500.0},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_scaling": {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 2.0}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 16}},
        {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
        {"rope_scaling": {"rope_type": "linear"}},
        {"tie_word_embeddings": True},
        {"hidden_act": "gelu"},
        {"unheard_of": 1},
    )
    place = Path("config.json")

    def read(fields: dict[str, Any]) -> object:
        return chosen(family_of(fields, place).config(fields, place))

    return [refusal(partial(read, {**LLAMA, **each})) for each in changes]


def _ends() -> object:
    from reference_model.families.decoding import read_ends

    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for fields in ({}, {"eos_token_id": 7}, {"eos_token_id": [1, 2]}, {"eos_token_id": "7"}):
            (folder / "config.json").write_text(json.dumps({**GPT2, **fields}))
            found.append(refusal(lambda: read_ends(folder)))
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [9, 4]}))
        found.append(refusal(lambda: read_ends(folder)))
    return found


def _checkpoint() -> object:
    """The shipped model: its card, its tokenizer on awkward texts, its logits on one."""
    import torch

    from benchmarks.suite.codec_workloads import reference_checkpoint
    from reference_model import checkpoints, tokenizer_file

    tokenizer = checkpoints.reference_tokenizer()
    texts = ("Enter KING", "", "  two  blanks\n\n", "naïve déjà", "ROMEO\nO, she doth teach")
    ids = [tokenizer_file.encode(tokenizer, text) for text in texts]
    texts_again = [tokenizer_file.decode(tokenizer, each) for each in ids]
    model = reference_checkpoint()
    with torch.inference_mode():
        logits = model(torch.tensor([ids[-1]]))
    card = checkpoints.reference_card()["config"]
    return [ids, texts_again, logits, chosen(model.config), card]


LINEARS = (
    "transformer.h.0.attn.c_attn",
    "transformer.h.1.attn.c_proj",
    "transformer.h.1.mlp.c_fc",
    "transformer.h.10.mlp.c_proj",
    "lm_head",
)
OF_PEFT: tuple[dict[str, Any], ...] = (
    {},
    {"r": 4, "lora_alpha": 32, "lora_dropout": 0.1, "use_rslora": True},
    {"target_modules": ["c_attn", "mlp.c_fc"], "init_lora_weights": "gaussian"},
    {"target_modules": "all-linear", "exclude_modules": ["c_proj"]},
    {"target_modules": ".*c_(attn|fc)"},
    {"target_modules": ["c_attn", "c_proj"], "layers_to_transform": [1, 10]},
    {"target_modules": ["c_proj"], "layers_to_transform": 1, "layers_pattern": "h"},
    {"target_modules": "all-linear", "rank_pattern": {"c_attn": 2, "h.1.mlp.c_fc": 16}},
    {"target_modules": "all-linear", "alpha_pattern": {"mlp.*": 3, "c_attn": 64}, "r": 6},
    {"target_modules": ["(c_attn"]},
    {"target_modules": "(a+)+b"},
    {"target_modules": 3},
    {"rank_pattern": ["c_attn"]},
    {"lora_alpha": 0},
    {"lora_dropout": 1.5},
    {"use_dora": True},
    {"init_lora_weights": "pissa_niter_4"},
    {"init_lora_weights": "unheard of"},
    {"bias": "all"},
    {"unknown": 1},
    {"peft_type": "LOHA"},
)


def _settings_of_peft() -> object:
    """Rank, α and place of adapters by many `adapter_config.json`, and those that are refused."""
    from reference_model.peft_settings import read_settings

    def read(path: Path) -> object:
        settings = read_settings(path)
        return [
            [[settings.adapts(n), settings.rank(n), settings.alpha(n)] for n in LINEARS],
            [settings.dropout(), settings.scaling, settings.gaussian],
        ]

    found = []
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "adapter_config.json"
        for fields in OF_PEFT:
            path.write_text(json.dumps({"peft_type": "LORA", **fields}))
            found.append(refusal(partial(read, path)))
        path.write_text("{}")
        return [*found, refusal(partial(read, path))]


OF_LLAMA = {"position": "rope", "norm": "rmsnorm", "mlp": "swiglu", "bias": False}
SAVED: tuple[tuple[str, str | None, dict[str, Any]], ...] = (
    ("reference", None, {"position": "rope", "norm": "rmsnorm", "norm_placement": "double"}),
    ("reference", "float16", {"head": "untied", "bias": False, "position": "alibi"}),
    ("huggingface", None, {}),
    ("huggingface", "bfloat16", {"head": "untied", "bias": False}),
    ("reference", None, {"dtype": "bfloat16", "position": "sinusoidal"}),
    ("huggingface", None, {"dtype": "bfloat16"}),
    ("huggingface", None, {**OF_LLAMA, "n_kv_head": 1, "qkv_bias": True}),
    ("huggingface", "float16", {**OF_LLAMA, "head": "untied", "qk_norm": True, "d_head": 10}),
)
SINGLE = (
    *(
        Case(
            f"saved and loaded, {layout}, {choices.get('dtype', 'float32')} as {stored}"
            f"{', Llama type' if 'mlp' in choices else ''}",
            "2 layers, 42 wide",
            "float32 and as saved",
            "a tensor or a field that is lost",
            partial(_saved, layout, stored, **choices),
        )
        for layout, stored, choices in SAVED
    ),
    Case(
        "settings of PEFT",
        "21 configurations, 5 linears",
        "none",
        "a pattern, a rank or an α that is read otherwise",
        _settings_of_peft,
    ),
    Case(
        "merged and saved",
        "2 layers, 42 wide",
        "float32",
        "adapters that are lost or saved twice",
        _merged_and_saved,
    ),
    Case(
        "a head of its own",
        "2 layers, 42 wide",
        "float32",
        "a tensor that is dropped in silence",
        _head_of_its_own,
    ),
    Case("damaged folders", "7 kinds of damage", "float32", "a wrong model that loads", _damaged),
    *(
        Case(
            f"adapters saved, {layout}",
            "2 layers, 42 wide, rank 3",
            "float32",
            "a scale or a slice that is lost",
            partial(_adapters, layout, **fields),
        )
        for layout, fields in (
            ("reference", {}),
            ("huggingface", {"scaling": "rslora", "targets": ("query", "mlp_out")}),
        )
    ),
    Case(
        "settings of Hugging Face",
        "18 configurations",
        "none",
        "a field that is dropped in silence",
        _settings,
    ),
    Case(
        "settings of the Llama type",
        "17 configurations",
        "none",
        "a field that is dropped in silence",
        _settings_of_llama,
    ),
    Case("ends of a text", "5 folders", "none", "an end that is not read", _ends),
    Case(
        "the shipped checkpoint",
        "6 layers, 256 wide, 5 texts",
        "float32",
        "a tokenizer or weights that are read otherwise",
        _checkpoint,
    ),
)
