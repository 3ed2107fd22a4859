"""Folders of models, adapters and tokenizers: what transformers and PEFT make of them is right.

Where they read a folder to other logits or tokens than we do, without a word of ours, we are wrong.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor

from reference_model.__main__ import main
from reference_model.checkpoints import load_huggingface, load_tokenizer
from reference_model.errors import UserError
from reference_model.lora_files import load_adapters
from tests.fuzz.commands import call
from tests.fuzz.forked import Attempt
from tests.fuzz.mutations import mutate_bytes, mutate_file

VOCABULARY = 280
TEXT = "To be, or not\nto be 12"
TOKENS = torch.randint(VOCABULARY, (1, 7), generator=torch.Generator().manual_seed(5))
SHAPE = {"vocab_size": VOCABULARY, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}
FARTHEST = 1e-3  # of logits of order one, that two orders of sums may differ by
CONFIG_CHANGES: tuple[dict[str, Any], ...] = (
    {"hidden_size": 16, "n_embd": None},
    {"num_hidden_layers": 1},
    {"num_attention_heads": 4},
    {"num_attention_heads": 2},
    {"max_position_embeddings": 8},
    {"n_layer": 10**9},
    {"n_embd": 2**40},
    {"n_head": 10**12},
    {"n_inner": 48},
    {"vocab_size": 2**62},
    {"n_positions": 10**15},
    {"layer_norm_epsilon": 0.5},
    {"layer_norm_eps": 0.5},
    {"tie_word_embeddings": False},
    {"scale_attn_weights": False},
    {"scale_attn_by_inverse_layer_idx": True},
    {"reorder_and_upcast_attn": True},
    {"add_cross_attention": True},
    {"activation_function": "relu"},
    {"model_type": "gpt_neo"},
    {"quantization_config": {"load_in_8bit": True}},
    {"rope_parameters": {"rope_type": "linear"}},
    {"eos_token_id": 7},
    {"eos_token_id": [7, 9]},
    {"attn_pdrop": 0.9},
    {"torch_dtype": "bfloat16"},
    {"dtype": "float16"},
    {"architectures": ["GPT2DoubleHeadsModel"]},
)


class Models:
    """200 folders of GPT-2, tied and untied."""

    name, cases = "model folders", 200

    def __init__(self, folder: Path) -> None:
        self.folders = [folder / "tied", folder / "untied"]
        tokenizer = _trained_tokenizer()
        for place, tied in zip(self.folders, (True, False), strict=True):
            model = _random_gpt2(tie_word_embeddings=tied)
            model.save_pretrained(place)
            tokenizer.save(str(place / "tokenizer.json"))

    def __call__(self, attempt: Attempt) -> None:
        here = attempt.folder / "model"
        shutil.copytree(attempt.random.choice(self.folders), here)
        changes = (
            _change_tensors,
            _change_tensors,
            _change_config,
            _change_any_json,
            _change_bytes,
        )
        attempt.what(attempt.random.choice(changes)(here, attempt.random))
        call(
            attempt,
            main,
            ["generate", "--huggingface", str(here), "--prompt", "To", "--tokens", "3"],
        )
        _compare(attempt, lambda: load_huggingface(here), lambda: _their_model(here))


class Adapters:
    """150 adapters of PEFT on one model."""

    name, cases = "adapter folders", 150

    def __init__(self, folder: Path) -> None:
        from peft import LoraConfig, get_peft_model

        self.model, self.folders = folder / "model", []
        _random_gpt2().save_pretrained(self.model)
        for name, choices in (
            ("plain", {"target_modules": ["c_attn"]}),
            ("rs", {"target_modules": ["c_attn", "c_fc"], "use_rslora": True}),
            ("patterns", {"target_modules": ["c_attn", "c_fc"], "rank_pattern": {"c_fc": 2}}),
        ):
            wrapped = get_peft_model(
                _random_gpt2(), LoraConfig(r=4, lora_alpha=8, fan_in_fan_out=True, **choices)
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
        changes = (_change_adapter, _change_adapter, _change_any_json, _change_bytes)
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

        _compare(attempt, ours, theirs)


class Tokenizers:
    """150 tokenizers: what transformers makes of the same file is the answer."""

    name, cases = "tokenizer folders", 150

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "model"
        _random_gpt2().save_pretrained(self.folder)
        _trained_tokenizer().save(str(self.folder / "tokenizer.json"))

    def __call__(self, attempt: Attempt) -> None:
        here = attempt.folder / "model"
        shutil.copytree(self.folder, here)
        path = here / "tokenizer.json"
        if attempt.random.random() < 0.4:
            attempt.what(_change_tokenizer(path, attempt.random))
        else:
            attempt.what(mutate_file(path, attempt.random))
        call(
            attempt,
            main,
            ["generate", "--huggingface", str(here), "--prompt", TEXT, "--tokens", "2"],
        )
        try:
            ours = load_tokenizer(here).encode(TEXT).ids
        except UserError:
            return
        with contextlib.suppress(BaseException), _silent():
            from transformers import PreTrainedTokenizerFast

            theirs = PreTrainedTokenizerFast(tokenizer_file=str(path))(TEXT).input_ids
            if ours != theirs:
                attempt.wrong(f"tokens {ours[:9]}, transformers has {theirs[:9]}")


def _compare(
    attempt: Attempt,
    ours: Callable[[], Callable[[Tensor], Tensor]],
    theirs: Callable[[], Callable[[Tensor], Tensor] | None],
) -> None:
    told = io.StringIO()
    try:
        with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stderr(told):
            warnings.simplefilter("always")
            with torch.no_grad():
                mine = ours()(TOKENS)
    except UserError as error:
        attempt.outcome("refused")
        if "\n" in str(error):
            attempt.wrong("refused in several lines")
        return
    attempt.outcome("read")
    if warned or told.getvalue():
        return
    answer: Tensor | None = None
    with contextlib.suppress(BaseException), _silent(), torch.no_grad():
        model = theirs()
        answer = None if model is None else model(TOKENS)
    if answer is None or (
        answer.shape == mine.shape
        and torch.allclose(
            mine.float(), answer.float(), atol=FARTHEST, rtol=FARTHEST, equal_nan=True
        )
    ):
        return
    off = (mine - answer).abs().max() if answer.shape == mine.shape else "another shape"
    attempt.wrong(f"logits off by {off}")


def _their_model(folder: Path) -> Callable[[Tensor], Tensor] | None:
    """None where they would draw what is missing."""
    from transformers import GPT2LMHeadModel

    model, info = GPT2LMHeadModel.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", dtype=torch.float32
    )
    if info["missing_keys"] or info["mismatched_keys"]:
        raise AssertionError  # ours, which reads it, is compared with nothing
    model.eval()
    return lambda tokens: model(tokens).logits


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def _random_gpt2(**choices: Any) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(**SHAPE, bos_token_id=None, eos_token_id=None, **choices)
    model = GPT2LMHeadModel(config).eval()
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        middle = 1.0 if "ln_" in name and name.endswith("weight") else 0.0
        parameter.data = middle + 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def _trained_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT * 3, "the others there then"], trainer)
    return tokenizer


def _change_config(folder: Path, random: Random) -> str:
    changes = random.choice(CONFIG_CHANGES)
    _edit(folder / "config.json", changes)
    return f"config.json with {changes}"


def _change_any_json(folder: Path, random: Random) -> str:
    files = sorted(path for path in folder.glob("*.json") if path.name != "tokenizer.json")
    return mutate_file(random.choice(files), random, replaced=0.1)


def _change_bytes(folder: Path, random: Random) -> str:
    path = next(folder.glob("*.safetensors"))
    # Half of the changes in the header, which is a small part of the file.
    content, header = path.read_bytes(), 2000
    if random.random() < 0.5:
        start, what = mutate_bytes(content[:header], random)
        path.write_bytes(start + content[header:])
    else:
        changed, what = mutate_bytes(content, random)
        path.write_bytes(changed)
    return f"{path.name}: {what}"


def _change_tensors(folder: Path, random: Random) -> str:
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    name = random.choice(sorted(tensors))
    bare = {name: name.removeprefix("transformer.") for name in tensors}
    way = random.choice((
        "drop", "no prefix", "double prefix", "both spellings", "an equal head", "another head",
        "only the head", "NaN", "another shape", "half", "one bfloat16", "mask", "an extra",
        "scalar", "transposed", "integers", "layer beyond",
    ))  # fmt: skip
    if way == "drop":
        del tensors[name]
    elif way == "no prefix":
        tensors = {bare[name]: tensor for name, tensor in tensors.items()}
    elif way == "double prefix":
        tensors = {f"transformer.{name}": tensor for name, tensor in tensors.items()}
    elif way == "both spellings":
        tensors[bare[name]] = tensors[name] + random.choice((0.0, 1.0))
    elif way in ("an equal head", "another head"):
        wte = tensors["transformer.wte.weight"]
        tensors["lm_head.weight"] = wte.clone() if way == "an equal head" else wte.flip(0)
    elif way == "only the head":
        tensors["lm_head.weight"] = tensors.pop("transformer.wte.weight")
    elif way == "NaN":
        tensors[name].view(-1)[0] = random.choice((float("nan"), float("inf")))
    elif way == "another shape":
        tensors[name] = tensors[name][..., :-1].contiguous()
    elif way == "half":
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
    elif way == "one bfloat16":
        tensors[name] = tensors[name].bfloat16()
    elif way == "mask":
        tensors["transformer.h.0.attn.bias"] = torch.ones(1, 1, 16, 16).tril()
        tensors["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)
    elif way == "an extra":
        tensors["transformer.extra.weight"] = torch.ones(2)
    elif way == "scalar":
        tensors[name] = torch.tensor(1.0)
    elif way == "transposed":
        tensors[name] = tensors[name].mT.contiguous() if tensors[name].ndim == 2 else tensors[name]
    elif way == "integers":
        tensors[name] = tensors[name].mul(10).to(torch.int8)
    else:
        tensors["transformer.h.2.ln_1.weight"] = torch.ones(16)
    save_file(tensors, path, metadata={"format": "pt"})
    return f"tensors: {way} ({name})"


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
    _edit(folder / "adapter_config.json", changes)
    return f"adapter_config.json with {str(changes)[:80]}"


def _change_tokenizer(path: Path, random: Random) -> str:
    changes = random.choice((
        {"truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst",
                        "stride": 0}},
        {"padding": {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None,
                     "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}},
        {"normalizer": {"type": "Lowercase"}},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "(a*)*b"}, "content": ""}},
        {"pre_tokenizer": None},
        {"decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                     "use_regex": True}},
        {"post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False,
                            "use_regex": True}},
        {"added_tokens": [{"id": 10**12, "content": "To", "single_word": False, "lstrip": False,
                           "rstrip": False, "normalized": False, "special": True}]},
        {"added_tokens": [{"id": 4000, "content": "be", "single_word": False, "lstrip": False,
                           "rstrip": False, "normalized": False, "special": True}]},
        {"version": "9.0"},
    ))  # fmt: skip
    _edit(path, changes)
    return f"tokenizer.json with {str(changes)[:70]}"


def _edit(path: Path, changes: dict[str, Any]) -> None:
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    content = {
        key: value for key, value in content.items() if value is not None or key not in SHAPE
    }
    path.write_text(json.dumps(content), encoding="utf-8")
