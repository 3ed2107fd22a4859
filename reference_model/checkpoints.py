"""Weights in and out: our own folders, GPT-2 in the Hugging Face layout, the shipped checkpoint.

Each folder holds `config.json` and `model.safetensors`, or safetensors shards and their index.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor

from reference_model.config import GPTConfig, from_fields
from reference_model.errors import UserError
from reference_model.files import write_whole
from reference_model.model import GPT

REFERENCE_FOLDER = Path(__file__).with_name("checkpoint")

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

# Hugging Face's GPT-2 keeps these four as Conv1D, (in, out) where a linear has (out, in).
CONV1D = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
# Causal masks that old GPT-2 files carry as if they were weights, as in h.0.attn.masked_bias.
MASKS = (".attn.bias", ".attn.masked_bias")


def save(model: GPT, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write config and weights (cast to dtype, if one is given); a tied head is stored once.

    Raises `UserError` where the folder cannot be written; it then stays as it was.
    """
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in model.state_dict().items()
        if not (name == "lm_head.weight" and model.config.head == "tied")
    }
    config = json.dumps(dataclasses.asdict(model.config), indent=2) + "\n"
    write_whole(
        folder, {WEIGHTS_FILE: safetensors.torch.save(tensors), CONFIG_FILE: config.encode()}
    )


def load(folder: Path, dtype: torch.dtype = torch.float32) -> GPT:
    """The model of a folder that `save` wrote, in evaluation mode.

    Raises `UserError` for a missing or damaged file, and for missing, unknown or wrongly shaped
    tensors, by name.
    """
    config = from_fields(read_json(folder / CONFIG_FILE))
    return _fill(config, _read_tensors(folder), folder, dtype)


def load_huggingface(folder: Path, dtype: torch.dtype = torch.float32) -> GPT:
    """GPT-2 from a local folder in the Hugging Face layout. Raises as `load` does."""
    config = config_from_huggingface(read_json(folder / CONFIG_FILE), folder / CONFIG_FILE)
    tensors = {}
    for name, tensor in _read_tensors(folder).items():
        name = name.removeprefix("transformer.")
        if name.endswith(MASKS):
            continue
        transposed = name.endswith(CONV1D) and tensor.ndim == 2
        tensors[name] = tensor.T.contiguous() if transposed else tensor
    return _fill(config, tensors, folder, dtype)


def config_from_huggingface(fields: Mapping[str, Any], source: Path) -> GPTConfig:
    """Our configuration of a Hugging Face GPT-2 `config.json`; refuses what it cannot represent."""
    expected: dict[str, tuple[Any, ...]] = {
        "model_type": ("gpt2",),
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    }
    for name, allowed in expected.items():
        value = fields.get(name, allowed[0])
        if value not in allowed:
            raise UserError(
                f"{source} has {name}={value!r}, which the reference model cannot represent; "
                f"it knows {' and '.join(map(repr, allowed))}"
            )
    width = fields.get("n_embd", 768)
    if fields.get("n_inner") not in (None, 4 * width):
        raise UserError(
            f"{source} has n_inner={fields['n_inner']!r}, which the reference model cannot "
            f"represent; its MLP is always 4·n_embd={4 * width} wide"
        )
    return GPTConfig(
        vocab_size=fields.get("vocab_size", 50257),
        context_length=fields.get("n_positions", 1024),
        n_layer=fields.get("n_layer", 12),
        n_head=fields.get("n_head", 12),
        n_embd=width,
        norm_epsilon=fields.get("layer_norm_epsilon", 1e-5),
        head="tied" if fields.get("tie_word_embeddings", True) else "untied",
    )


def load_reference(dtype: torch.dtype = torch.float32) -> GPT:
    """The shipped checkpoint: a GPT-2 of 5.9 M parameters, trained on plays (see its card)."""
    return load(REFERENCE_FOLDER, dtype)


def reference_tokenizer() -> Tokenizer:
    """The byte-level BPE that the shipped checkpoint was trained with."""
    return load_tokenizer(REFERENCE_FOLDER)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The `tokenizer.json` of a folder. Raises `UserError` where it is missing or damaged."""
    path = folder / "tokenizer.json"
    if not path.exists():
        raise UserError(f"{path} does not exist; put the model's own tokenizer there")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library has no exception of its own
        raise UserError(f"{path} is not a tokenizer ({error}); fetch it again") from None


def reference_card() -> dict[str, Any]:
    """The shipped checkpoint's card: data, recipe, tokens seen, losses."""
    return read_json(REFERENCE_FOLDER / "card.json")


def _fill(config: GPTConfig, tensors: dict[str, Tensor], folder: Path, dtype: torch.dtype) -> GPT:
    if config.head == "tied" and "wte.weight" in tensors:
        tensors["lm_head.weight"] = tensors["wte.weight"]
    with torch.device("meta"):  # draws no random weights only to throw them away
        model = GPT(config)
    expected = model.state_dict()
    missing, unknown = sorted(expected.keys() - tensors), sorted(tensors.keys() - expected)
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing)} tensors, the first is {missing[0]}; "
            "use weights of the shape that its config.json tells"
        )
    if unknown:
        raise UserError(
            f"{folder} has {len(unknown)} tensors too many, the first is {unknown[0]}; "
            "use weights of the shape that its config.json tells"
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise UserError(
                f"{folder} has {name} of shape {tuple(tensor.shape)}, its config.json asks for "
                f"{tuple(expected[name].shape)}; use weights and configuration of one model"
            )
    model.load_state_dict({name: t.to(dtype) for name, t in tensors.items()}, assign=True)
    if config.head == "tied":
        model.lm_head.weight = model.wte.weight
    return model.requires_grad_(True).eval()


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    files = [folder / WEIGHTS_FILE]
    if (folder / INDEX_FILE).exists():
        shards = read_json(folder / INDEX_FILE).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(n, str) for n in shards.values()):
            raise UserError(
                f"{folder / INDEX_FILE} has no weight_map of file names; fetch it again"
            )
        files = [folder / name for name in sorted(set(shards.values()))]
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors.update(read_safetensors(file)[0])
    return tensors


def read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file. Raises `UserError` where it is missing or damaged."""
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return tensors, opened.metadata() or {}
    except FileNotFoundError:
        raise UserError(f"{file} does not exist; name a folder that holds {file.name}") from None
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{file} is not a whole safetensors file ({error}); fetch or write it again"
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """The object that a file holds. Raises `UserError` where it is missing or holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; name a folder that holds {path.name}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); fetch or write it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {type(content).__name__}, not an object; write it again")
    return content
