"""Adapters on disk: written here and read by PEFT, written by PEFT and read here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from reference_model.costs import LoRATarget
from reference_model.errors import UserError
from reference_model.lora import (
    LoRAConfig,
    LoRALinear,
    lora_linears,
    merge_adapters,
    remove_adapters,
)
from reference_model.lora_files import CONFIG_FILE, WEIGHTS_FILE, load_adapters, save_adapters
from reference_model.model import GPT
from tests.reference_model.tiny import TOKENS, adapted

SOME: list[tuple[LoRATarget, ...]] = [
    ("query", "value"),
    ("qkv",),
    ("key", "mlp_out"),
    ("query", "key", "value", "attention_output", "mlp_in", "mlp_out"),
]
SCALINGS = ["lora", "rslora", "constant"]


@pytest.fixture
def theirs(tiny_model: Callable[..., GPT], tiny_gpt2: Callable[..., Any]) -> Callable[[], Any]:
    """theirs() → transformers' GPT-2 with a head, with the weights of the tiny model."""

    def build() -> Any:
        ours = tiny_model()
        model = tiny_gpt2(vocab_size=23, n_positions=12, attn_implementation="eager").double()
        for name, weight in model.transformer.named_parameters():
            own = ours.get_parameter(name).detach()
            turned = own.ndim == 2 and name.startswith("h.")  # Conv1D
            weight.data.copy_(own.T if turned else own)
        return model

    return build


@pytest.mark.parametrize("targets", SOME)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_saved_adapters_load_as_what_they_were(
    tiny_model: Callable[..., GPT],
    tmp_path: Path,
    targets: tuple[LoRATarget, ...],
    scaling: Any,
) -> None:
    model = adapted(tiny_model(), targets=targets, scaling=scaling, alpha=7.0, dropout=0.25)
    save_adapters(model, tmp_path)
    loaded = tiny_model()
    assert load_adapters(loaded, tmp_path) == list(lora_linears(model))
    assert torch.equal(loaded(TOKENS), model(TOKENS))
    for name, linear in lora_linears(model).items():
        other = lora_linears(loaded)[name]
        assert other.config == linear.config
        assert [part.outputs for part in other.parts] == [part.outputs for part in linear.parts]
    trained = {n for n, p in loaded.named_parameters() if p.requires_grad}
    assert trained == {n for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("targets", SOME)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_peft_reads_ours_onto_our_model(
    tiny_model: Callable[..., GPT],
    peft: ModuleType,
    tmp_path: Path,
    targets: tuple[LoRATarget, ...],
    scaling: Any,
) -> None:
    model = adapted(tiny_model(), targets=targets, scaling=scaling)
    save_adapters(model, tmp_path)
    read = peft.PeftModel.from_pretrained(tiny_model(), tmp_path).eval()
    assert not torch.allclose(model(TOKENS), tiny_model()(TOKENS), atol=0.1)
    torch.testing.assert_close(read(TOKENS), model(TOKENS), rtol=0, atol=1e-11)


@pytest.mark.parametrize("targets", SOME)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_peft_reads_ours_onto_transformers_model(
    tiny_model: Callable[..., GPT],
    theirs: Callable[[], Any],
    peft: ModuleType,
    tmp_path: Path,
    targets: tuple[LoRATarget, ...],
    scaling: Any,
) -> None:
    model = adapted(tiny_model(), targets=targets, scaling=scaling)
    save_adapters(model, tmp_path, layout="huggingface")
    read = peft.PeftModel.from_pretrained(theirs(), tmp_path).eval()
    torch.testing.assert_close(read(TOKENS).logits, model(TOKENS), rtol=0, atol=1e-11)


@pytest.mark.parametrize("rslora", [False, True])
def test_what_peft_trained_on_transformers_model_loads_here(
    tiny_model: Callable[..., GPT],
    theirs: Callable[[], Any],
    peft: ModuleType,
    tmp_path: Path,
    rslora: bool,
) -> None:
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=rslora,
        target_modules=["c_attn", "mlp.c_proj"],
        rank_pattern={"mlp.c_proj": 2},
        alpha_pattern={r"h\.1\.attn\.c_attn": 9},
        fan_in_fan_out=True,
    )
    torch.manual_seed(0)
    trained = peft.get_peft_model(theirs(), config).double().train()
    optimizer = torch.optim.SGD([p for p in trained.parameters() if p.requires_grad], lr=3.0)
    for _ in range(3):
        optimizer.zero_grad()
        trained(TOKENS, labels=TOKENS).loss.backward()
        optimizer.step()
    trained.save_pretrained(tmp_path)
    model = tiny_model()
    load_adapters(model, tmp_path)
    expected = trained.eval()(TOKENS).logits
    assert not torch.allclose(expected, tiny_model()(TOKENS), atol=0.01)
    torch.testing.assert_close(model(TOKENS), expected, rtol=0, atol=1e-10)
    on_theirs = theirs()
    load_adapters(on_theirs, tmp_path)  # their model with our adapters
    torch.testing.assert_close(on_theirs(TOKENS).logits, expected, rtol=0, atol=1e-10)
    merge_adapters(on_theirs)
    torch.testing.assert_close(on_theirs(TOKENS).logits, expected, rtol=0, atol=1e-10)
    remove_adapters(on_theirs)
    assert torch.equal(on_theirs(TOKENS).logits, theirs()(TOKENS).logits)


def test_what_peft_trained_on_our_model_loads_here(
    tiny_model: Callable[..., GPT], with_pefts_adapters: Callable[..., Any], tmp_path: Path
) -> None:
    trained = with_pefts_adapters(tiny_model(), target_modules=["attn.c_attn"]).double()
    trained.save_pretrained(tmp_path)
    model = tiny_model()
    load_adapters(model, tmp_path)
    torch.testing.assert_close(model(TOKENS), trained(TOKENS), rtol=0, atol=1e-11)


def test_slices_trained_on_by_peft_load_as_one_adapter(
    tiny_model: Callable[..., GPT], peft: ModuleType, tmp_path: Path
) -> None:
    model = adapted(tiny_model(), targets=("query", "value"))
    save_adapters(model, tmp_path / "ours")
    theirs = peft.PeftModel.from_pretrained(tiny_model(), tmp_path / "ours", is_trainable=True)
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.1  # the zero blocks as well
    theirs.save_pretrained(tmp_path / "theirs")
    again = tiny_model()
    load_adapters(again, tmp_path / "theirs")
    torch.testing.assert_close(again(TOKENS), theirs.eval()(TOKENS), rtol=0, atol=1e-11)
    # And where only PEFT's tensors are changed within a file of ours.
    tensors = load_file(tmp_path / "ours" / WEIGHTS_FILE)
    with_notes = {n: t + 0.1 if "lora_B" in n else t for n, t in tensors.items()}
    rewrite(tmp_path / "ours", with_notes)
    loaded = tiny_model()
    load_adapters(loaded, tmp_path / "ours")
    (parts,) = {len(linear.parts) for linear in lora_linears(loaded).values()}
    assert parts == 1
    assert torch.equal(loaded(TOKENS), again(TOKENS))


def test_a_changed_scale_is_believed_over_the_note(
    tiny_model: Callable[..., GPT], tmp_path: Path
) -> None:
    save_adapters(adapted(tiny_model()), tmp_path)
    edit(tmp_path, lora_alpha=1.0)
    model = tiny_model()
    load_adapters(model, tmp_path)
    assert {linear.scale for linear in lora_linears(model).values()} == {1.0 / 6}


def test_merged_adapters_are_saved_as_unmerged_ones(
    tiny_model: Callable[..., GPT], tmp_path: Path
) -> None:
    model = adapted(tiny_model())
    save_adapters(model, tmp_path / "beside")
    merge_adapters(model)
    save_adapters(model, tmp_path / "merged")
    one, other = (load_file(tmp_path / name / WEIGHTS_FILE) for name in ("beside", "merged"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    config, other_config = (
        (tmp_path / name / CONFIG_FILE).read_text(encoding="utf-8") for name in ("beside", "merged")
    )
    assert config == other_config


def test_adapters_of_any_linear_are_kept(tmp_path: Path) -> None:
    def build() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))

    model = build()
    config = LoRAConfig(rank=2, init_b="gaussian", scaling="constant")
    model[1] = LoRALinear(model[1], config, generator=torch.Generator().manual_seed(0))
    save_adapters(model, tmp_path)
    loaded = build()
    assert load_adapters(loaded, tmp_path) == ["1"]
    x = torch.ones(1, 5)
    assert torch.equal(loaded(x), model(x))
    assert not torch.allclose(loaded(x), build()(x))


# ---- what is refused: in one line, and the model stays as it was


def edit(folder: Path, **changes: object) -> None:
    path = folder / CONFIG_FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")


def rewrite(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Other tensors, and the notes as they were."""
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS_FILE, framework="pt") as opened:
        notes = opened.metadata()
    save_file(tensors, folder / WEIGHTS_FILE, notes)


def drop(part: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS_FILE)
        rewrite(folder, {name: t for name, t in tensors.items() if part not in name})

    return change


def rename(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS_FILE)
        rewrite(folder, {name.replace(old, new): t for name, t in tensors.items()})

    return change


def truncate(folder: Path) -> None:
    path = folder / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / CONFIG_FILE).unlink(), "adapter_config.json does not exist"),
        (lambda folder: (folder / WEIGHTS_FILE).unlink(), "safetensors does not exist"),
        (lambda folder: (folder / CONFIG_FILE).write_text("{"), "cannot be read"),
        (truncate, "is not a whole safetensors file"),
        (lambda folder: edit(folder, peft_type="IA3"), "peft_type='IA3'"),
        (lambda folder: edit(folder, use_dora=True), "use_dora=True"),
        (lambda folder: edit(folder, init_lora_weights="pissa"), "changes the base weights"),
        (lambda folder: edit(folder, init_lora_weights="pissa_niter_4"), "changes the base weig"),
        (lambda folder: edit(folder, init_lora_weights=["pissa"]), "is not known here"),
        (
            lambda folder: edit(folder, r=5),
            "gives rank 5 for h.0.attn.c_attn, but its A has rank 6",
        ),
        (lambda folder: edit(folder, rank_pattern=[5]), "not an object"),
        (lambda folder: edit(folder, alpha_pattern={"(": 5}), "no pattern"),
        (
            lambda folder: edit(folder, lora_alpha="x"),
            "alpha='x' for h.0.attn.c_attn, which sc",
        ),
        (
            lambda folder: edit(folder, lora_alpha=None),
            "alpha=None for h.0.attn.c_attn, which",
        ),
        (lambda folder: edit(folder, lora_dropout="x"), "dropout='x', which is not a probability"),
        (drop("lora_A"), "has only B for h.0.attn.c_attn"),
        (drop(""), "holds no adapters"),
        (rename("lora_A", "lora_E"), "which is no A or B of a linear"),
        (rename("h.1", "h.2"), "adapts h.2.attn.c_attn, which GPT lacks"),
        (rename("attn.c_attn", "mlp.c_fc"), "which maps 16 to 64; use adapters of this model"),
        (rename("attn.c_attn", "ln_1"), "an adapter needs a linear, received LayerNorm"),
    ],
)
def test_a_damaged_or_foreign_folder_is_refused(
    tiny_model: Callable[..., GPT],
    tmp_path: Path,
    damage: Callable[[Path], None],
    message: str,
) -> None:
    save_adapters(adapted(tiny_model()), tmp_path)
    damage(tmp_path)
    model = tiny_model()
    with pytest.raises(UserError, match=message) as raised:
        load_adapters(model, tmp_path)
    assert "\n" not in str(raised.value)
    assert not lora_linears(model)
    assert all(p.requires_grad for p in model.parameters())


def test_notes_that_make_no_sense_are_left_alone(
    tiny_model: Callable[..., GPT], tmp_path: Path
) -> None:
    model = adapted(tiny_model())
    save_adapters(model, tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    name = "h.0.attn.c_attn"
    note = {"slices": [[0, 16]], **dataclasses.asdict(LoRAConfig(rank=3))}
    for notes in ("{", "[]", json.dumps({name: 1}), json.dumps({name: note})):
        save_file(tensors, tmp_path / WEIGHTS_FILE, {"adapters": notes})
        loaded = tiny_model()
        load_adapters(loaded, tmp_path)
        torch.testing.assert_close(loaded(TOKENS), model(TOKENS), rtol=0, atol=1e-12)


def test_a_model_without_adapters_has_none_to_save(
    tiny_model: Callable[..., GPT], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="GPT has no adapters to save"):
        save_adapters(tiny_model(), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_adapters_of_the_llama_type_are_kept_under_our_names_as_well(
    tiny_model: Callable[..., GPT], tmp_path: Path
) -> None:
    choices = {"position": "rope", "norm": "rmsnorm", "mlp": "swiglu", "n_kv_head": 1}
    model = adapted(tiny_model(**choices), targets=("query", "mlp_gate"))
    save_adapters(model, tmp_path / "ours")
    again = tiny_model(**choices)
    load_adapters(again, tmp_path / "ours")
    assert torch.equal(again(TOKENS), model(TOKENS))


def test_an_unknown_layout_is_refused(tiny_model: Callable[..., GPT], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="layout='conv1d' is not known"):
        save_adapters(adapted(tiny_model()), tmp_path, layout="conv1d")  # type: ignore[arg-type]


def test_adapters_are_not_loaded_upon_adapters(
    tiny_model: Callable[..., GPT], tmp_path: Path
) -> None:
    model = adapted(tiny_model())
    save_adapters(model, tmp_path)
    with pytest.raises(UserError, match="has adapters already"):
        load_adapters(model, tmp_path)
