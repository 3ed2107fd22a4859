"""Folders that contradict themselves: read as transformers reads them, told, or refused."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor

from reference_model import checkpoints, reading, tensor_files
from reference_model.checkpoints import load_huggingface
from reference_model.errors import Notice, UserError
from reference_model.model import GPT
from reference_model.tensor_files import Entry

TOKENS = torch.randint(50, (2, 12), generator=torch.Generator().manual_seed(3))
WTE, HEAD = "transformer.wte.weight", "lm_head.weight"
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def theirs() -> Any:
    """transformers' GPT-2 of two layers, tied, with weights of some size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import GPT2Config, GPT2LMHeadModel, logging
    logging.disable_progress_bar()
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=50,
        n_positions=16,
        n_embd=16,
        n_layer=2,
        n_head=2,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def as_saved(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("theirs")
    theirs.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(as_saved: Path, tmp_path: Path) -> Path:
    """What transformers saved, to be changed."""
    return Path(shutil.copytree(as_saved, tmp_path / "folder"))


@pytest.fixture(scope="module")
def own_as_saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from reference_model.config import GPTConfig

    folder = tmp_path_factory.mktemp("ours")
    sizes = {"vocab_size": 50, "context_length": 16, "n_layer": 2, "n_head": 2, "n_embd": 16}
    torch.manual_seed(2)
    checkpoints.save(GPT(GPTConfig(**sizes)), folder)
    return folder


@pytest.fixture
def own_folder(own_as_saved: Path, tmp_path: Path) -> Path:
    """What `save` wrote, to be changed."""
    return Path(shutil.copytree(own_as_saved, tmp_path / "own"))


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(9))


def change(folder: Path, how: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    how(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def rename(how: Callable[[str], str]) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        for key in list(tensors):
            tensors[how(key)] = tensors.pop(key)

    return change


def edit(folder: Path, *dropped: str, **changes: object) -> None:
    path = folder / "config.json"
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    for name in dropped:
        del content[name]
    path.write_text(json.dumps(content), encoding="utf-8")


def logits_of(model: Any) -> Tensor:
    with torch.no_grad():
        found = model(TOKENS)
    return found if isinstance(found, Tensor) else found.logits


def their_logits(theirs: Any, folder: Path) -> Tensor:
    """Of what transformers makes of the folder."""
    return logits_of(type(theirs).from_pretrained(folder).eval())


def refusal(folder: Path, load: Callable[[Path], GPT] = load_huggingface) -> str:
    with pytest.raises(UserError) as raised:
        load(folder)
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 500
    return message


# ---- the head and the embedding


@pytest.mark.K1
@pytest.mark.parametrize("silent", [False, True])
def test_a_head_that_differs_from_the_embedding_is_kept_and_told(
    theirs: Any, folder: Path, silent: bool
) -> None:
    change(folder, lambda t: t.update({HEAD: drawn(50, 16)}))
    edit(folder, *(["tie_word_embeddings"] if silent else []))
    with pytest.warns(Notice, match=r"differs from wte\.weight.*the model is untied"):
        model = load_huggingface(folder)
    assert model.config.head == "untied"
    torch.testing.assert_close(logits_of(model), their_logits(theirs, folder), rtol=0, atol=1e-5)
    assert (logits_of(model) - logits_of(theirs)).abs().max() > 1


def test_a_head_that_equals_the_embedding_stays_tied(theirs: Any, folder: Path) -> None:
    change(folder, lambda t: t.update({HEAD: t[WTE].clone()}))
    model = load_huggingface(folder)
    assert model.lm_head.weight is model.wte.weight
    torch.testing.assert_close(logits_of(model), logits_of(theirs), rtol=0, atol=1e-5)


def test_a_head_that_equals_the_embedding_in_the_dtype_asked_for_stays_tied(folder: Path) -> None:
    change(folder, lambda t: t.update({HEAD: t[WTE].bfloat16()}))
    model = load_huggingface(folder, torch.bfloat16)
    assert model.lm_head.weight is model.wte.weight
    with pytest.warns(Notice, match="untied"):
        assert load_huggingface(folder).config.head == "untied"


def test_a_tied_folder_may_store_the_head_alone(theirs: Any, folder: Path) -> None:
    change(folder, lambda t: t.update({HEAD: t.pop(WTE)}))
    model = load_huggingface(folder)
    assert model.lm_head.weight is model.wte.weight
    torch.testing.assert_close(logits_of(model), their_logits(theirs, folder), rtol=0, atol=1e-5)
    torch.testing.assert_close(logits_of(model), logits_of(theirs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_what_save_model_leaves_of_tied_tensors_is_read(
    theirs: Any, folder: Path, tied: bool
) -> None:
    save_model(theirs, str(folder / "model.safetensors"))
    assert WTE not in load_file(folder / "model.safetensors")
    edit(folder, tie_word_embeddings=tied)
    model = load_huggingface(folder)
    assert model.config.head == ("tied" if tied else "untied")
    torch.testing.assert_close(logits_of(model), logits_of(theirs), rtol=0, atol=1e-5)


def test_an_untied_folder_without_its_head_is_refused(folder: Path) -> None:
    edit(folder, tie_word_embeddings=False)
    assert "lacks 1 tensors, the first is lm_head.weight" in refusal(folder)
    change(folder, lambda t: t.update({HEAD: t.pop(WTE)}))
    assert "lacks 1 tensors, the first is wte.weight" in refusal(folder)


def test_our_own_folders_are_read_by_the_same_rules(own_folder: Path) -> None:
    whole = checkpoints.load(own_folder)
    change(own_folder, lambda t: t.update({HEAD: t["wte.weight"].clone()}))
    assert checkpoints.load(own_folder).config.head == "tied"
    change(own_folder, lambda t: t.pop("wte.weight"))
    assert torch.equal(logits_of(checkpoints.load(own_folder)), logits_of(whole))
    head = drawn(50, 16)
    change(own_folder, lambda t: t.update({"wte.weight": t[HEAD], HEAD: head}))
    with pytest.warns(Notice, match="the model is untied"):
        model = checkpoints.load(own_folder)
    assert torch.equal(model.lm_head.weight, head)
    assert torch.equal(model.wte.weight, whole.wte.weight)
    checkpoints.save(model, own_folder)
    assert torch.equal(logits_of(checkpoints.load(own_folder)), logits_of(model))


# ---- one name for each tensor


@pytest.mark.parametrize(
    "how",
    [
        lambda key: key.removeprefix("transformer."),
        lambda key: f"base_model.model.{key}",
        lambda key: f"base_model.model.{key.replace('c_attn.', 'c_attn.base_layer.')}",
        lambda key: f"module.{key}",
        lambda key: f"_orig_mod.{key}",
    ],
    ids=["bare", "PEFT", "PEFT's linears", "data parallel", "compiled"],
)
def test_wrappers_are_no_part_of_a_name(
    theirs: Any, folder: Path, how: Callable[[str], str]
) -> None:
    change(folder, rename(how))
    model = load_huggingface(folder)
    torch.testing.assert_close(logits_of(model), logits_of(theirs), rtol=0, atol=1e-5)


@pytest.mark.K1
@pytest.mark.parametrize("name", ["wte.weight", "wpe.weight", "h.0.attn.c_attn.weight"])
def test_two_spellings_of_one_tensor_have_to_agree(theirs: Any, folder: Path, name: str) -> None:
    change(folder, lambda t: t.update({name: t[f"transformer.{name}"].clone()}))
    torch.testing.assert_close(
        logits_of(load_huggingface(folder)), logits_of(theirs), rtol=0, atol=1e-5
    )
    change(folder, lambda t: t[name].view(-1)[-1].add_(1))
    assert f"has {name} twice, as" in refusal(folder)
    change(folder, lambda t: t.update({name: t[name][:-1].clone()}))
    assert f"has {name} twice, as" in refusal(folder)


# ---- the index and its shards


@pytest.fixture
def shards(theirs: Any, tmp_path: Path) -> Path:
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    return tmp_path / "shards"


def index_of(folder: Path) -> dict[str, Any]:
    path = folder / "model.safetensors.index.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def write_index(folder: Path, content: dict[str, Any]) -> None:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(content), encoding="utf-8")


def test_an_index_beside_a_whole_file_is_left_alone_and_told(theirs: Any, folder: Path) -> None:
    write_index(folder, {"weight_map": {"wte.weight": "gone.safetensors"}})
    with pytest.warns(Notice, match=r"model\.safetensors is read"):
        model = load_huggingface(folder)
    torch.testing.assert_close(logits_of(model), their_logits(theirs, folder), rtol=0, atol=1e-5)


def test_an_index_that_names_the_wrong_shard_is_refused(shards: Path) -> None:
    index = index_of(shards)
    load_huggingface(shards)
    places = index["weight_map"]
    places[WTE] = next(name for name in places.values() if name != places[WTE])
    write_index(shards, index)
    assert "do not agree on who holds transformer.wte.weight" in refusal(shards)
    del places[WTE]
    write_index(shards, index)
    assert "do not agree on who holds transformer.wte.weight" in refusal(shards)


def test_a_shard_that_lacks_a_tensor_of_the_index_is_refused(shards: Path) -> None:
    other = shards / index_of(shards)["weight_map"]["transformer.ln_f.bias"]
    tensors = load_file(other)
    del tensors["transformer.ln_f.bias"]
    save_file(tensors, other)
    assert "do not agree on who holds transformer.ln_f.bias" in refusal(shards)


def test_a_tensor_in_two_shards_is_refused(shards: Path) -> None:
    places = index_of(shards)["weight_map"]
    other = shards / next(name for name in places.values() if name != places[WTE])
    save_file({**load_file(other), WTE: drawn(50, 16)}, other)
    assert "do not agree on who holds transformer.wte.weight" in refusal(shards)


@pytest.mark.parametrize("name", ["../model.safetensors", "/model.safetensors", "a\0b", "..", ""])
def test_a_shard_lies_in_the_folder(shards: Path, name: str) -> None:
    write_index(shards, {"weight_map": {WTE: name}})
    assert "has no weight_map of file names" in refusal(shards)


# ---- names of settings


def test_the_names_of_sizes_common_to_transformers_are_read(theirs: Any, folder: Path) -> None:
    edit(
        folder,
        *("n_embd", "n_layer", "n_head", "n_positions"),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
    )
    model = load_huggingface(folder)
    torch.testing.assert_close(logits_of(model), their_logits(theirs, folder), rtol=0, atol=1e-5)
    torch.testing.assert_close(logits_of(model), logits_of(theirs), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("n_embd", "hidden_size"),
        ("n_layer", "num_hidden_layers"),
        ("n_head", "num_attention_heads"),
        ("n_positions", "max_position_embeddings"),
    ],
)
def test_two_names_of_one_setting_have_to_agree(folder: Path, name: str, other: str) -> None:
    value = json.loads((folder / "config.json").read_text(encoding="utf-8"))[name]
    edit(folder, **{other: value})
    load_huggingface(folder)
    edit(folder, **{other: 2 * value})
    assert f"has {name}={value} and {other}={2 * value}, two names of one" in refusal(folder)


@pytest.mark.K1
def test_an_older_name_that_transformers_leaves_alone_is_told_where_it_differs(
    theirs: Any, folder: Path
) -> None:
    edit(folder, n_ctx=16)
    load_huggingface(folder)
    edit(folder, n_ctx=8)
    with pytest.warns(Notice, match="n_ctx=8 and 16 positions"):
        model = load_huggingface(folder)
    torch.testing.assert_close(logits_of(model), their_logits(theirs, folder), rtol=0, atol=1e-5)


@pytest.mark.K1
@pytest.mark.parametrize("value", ["false", 0, None])
def test_whether_the_head_is_tied_is_no_guess(folder: Path, value: object) -> None:
    edit(folder, tie_word_embeddings=value)
    assert "tie_word_embeddings=" in refusal(folder)


@pytest.mark.K1
def test_a_key_that_stands_twice_is_refused(folder: Path) -> None:
    path = folder / "config.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"n_head": 2', '"n_head": 2, "n_head": 4'), encoding="utf-8")
    assert "'n_head' stands twice in one object" in refusal(folder)


@pytest.mark.K2
def test_what_is_known_to_have_no_effect_has_none_in_transformers_either(
    theirs: Any, folder: Path
) -> None:
    odd: dict[str, Any] = {
        **dict.fromkeys(("is_decoder", "xla_device", "model_parallel", "output_past"), True),
        **dict.fromkeys(("use_bfloat16", "torchscript", "gradient_checkpointing"), True),
        **dict.fromkeys(("reorder_and_upcast_attn", "output_hidden_states"), True),
        **dict.fromkeys(("predict_special_tokens", "use_cache", "summary_use_proj"), False),
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop", "initializer_range"), 0.5),
        **dict.fromkeys(("n_special", "chunk_size_feed_forward", "num_labels", "top_k"), 3),
        **dict.fromkeys(("unk_token_id", "bos_token_id", "pad_token_id", "min_length"), 3),
        "finetuning_task": "x",
        "repetition_penalty": 2.0,
        "task_specific_params": {"text-generation": {"do_sample": True}},
    }
    edit(folder, **odd)
    assert torch.equal(their_logits(theirs, folder), logits_of(theirs))
    torch.testing.assert_close(
        logits_of(load_huggingface(folder)), logits_of(theirs), rtol=0, atol=1e-5
    )


# ---- sizes that no machine holds


@pytest.mark.K8
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("n_layer", "has 2 layers, its config.json asks for 1000000000"),
        ("n_embd", "wte.weight of shape (50, 16), its config.json asks for (50, 1000000000)"),
        ("vocab_size", "wte.weight of shape (50, 16), its config.json asks for (1000000000, 16)"),
        ("n_positions", "wpe.weight of shape (16, 16), its config.json asks for (1000000000, 16)"),
    ],
)
def test_sizes_are_compared_with_the_file_before_a_model_is_built(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    edit(folder, **{name: 10**9})
    monkeypatch.setattr(GPT, "__init__", lambda *_: pytest.fail("built before it refused"))
    assert message in refusal(folder)


@pytest.mark.K8
def test_a_model_of_very_many_layers_is_refused_before_it_is_built(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(folder, lambda t: t.update({f"h.{i}.x": torch.ones(0) for i in range(1001)}))
    edit(folder, n_layer=1001)
    monkeypatch.setattr(GPT, "__init__", lambda *_: pytest.fail("built before it refused"))
    assert "has 1,001 layers; use at most 1,000" in refusal(folder)


@pytest.mark.K8
def test_weights_are_read_only_when_all_their_shapes_are_right(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(folder, lambda t: t.update({"transformer.ln_f.bias": torch.ones(15)}))
    monkeypatch.setattr(Entry, "read", lambda *_: pytest.fail("read before it refused"))
    assert "ln_f.bias of shape (15,)" in refusal(folder)


@pytest.mark.K8
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float8_e5m2])
def test_weights_that_are_no_numbers_are_refused_by_name(folder: Path, stored: torch.dtype) -> None:
    # Attention may hide them: PyTorch's own answers such a query with zeros, on a CPU.
    change(folder, lambda t: t["transformer.h.0.attn.c_attn.bias"][0].fill_(1e5))
    load_huggingface(folder)
    with pytest.raises(UserError, match=r"c_attn\.bias with .* not finite in float16"):
        load_huggingface(folder, torch.float16)
    change(
        folder,
        lambda t: t.update(
            {k: (v / 0).to(stored) for k, v in t.items() if k.endswith("h.0.attn.c_attn.bias")}
        ),
    )
    assert "h.0.attn.c_attn.bias with numbers that are not finite in float32" in refusal(folder)


@pytest.mark.K8
def test_the_limits_of_a_folder_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_files, "MOST_HEADER_BYTES", 1000)
    assert "has a header of" in refusal(folder)
    monkeypatch.setattr(tensor_files, "MOST_SHARDS", 2)
    (folder / "model.safetensors").unlink()
    write_index(folder, {"weight_map": {str(i): f"{i}.safetensors" for i in range(3)}})
    assert "names 3 files, more than 2" in refusal(folder)
    (folder / "config.json").write_bytes(b" " * (reading.MOST_BYTES + 1))
    assert "holds more than 16,777,216 bytes" in refusal(folder)


@pytest.mark.K8
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_fifo_or_a_folder_is_no_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert f"{name} is not a file" in refusal(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    assert f"{name} is not a file" in refusal(folder)


@pytest.mark.K8
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 100_000, "nested too deep"),
        ('{"layer_norm_epsilon": NaN}', "contains NaN"),
        ('{"layer_norm_epsilon": -Infinity}', "contains -Infinity"),
        ('{"layer_norm_epsilon": 1e999}', "norm_epsilon=inf is not a finite number"),
        (f'{{"layer_norm_epsilon": 1{"0" * 4000}}}', "is not a finite number"),
        (f'{{"n_layer": 1{"0" * 5000}}}', "digits"),
        (
            f'{{"n_layer": 1{"0" * 4000}}}',
            "is not a size; use a whole number",
        ),
    ],
)
def test_json_that_is_no_configuration_is_told_in_one_line(
    folder: Path, text: str, told: str
) -> None:
    (folder / "config.json").write_text(text, encoding="utf-8")
    assert told in refusal(folder)
