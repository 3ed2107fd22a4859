"""Adapters that PEFT wrote: read to PEFT's own logits, or refused by the key that forbids it."""

from __future__ import annotations

import copy
import functools
import json
import re
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from reference_model import peft_settings
from reference_model.checkpoints import load_huggingface
from reference_model.errors import Notice, UserError
from reference_model.lora import lora_linears
from reference_model.lora_files import CONFIG_FILE, WEIGHTS_FILE, load_adapters
from reference_model.model import GPT
from reference_model.peft_settings import read_settings

# PEFT asks transformers by a name that transformers has given up; every other warning is an error.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is dep:FutureWarning")

TOKENS = torch.randint(30, (2, 8), generator=torch.Generator().manual_seed(5))
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
HEAD = "base_model.model.lm_head.base_layer.weight"


@pytest.fixture(scope="module")
def peft() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import peft
        import transformers
    transformers.logging.disable_progress_bar()
    return peft


@pytest.fixture(scope="module")
def bases(peft: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tied and an untied GPT-2 of two layers, as transformers saves them."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folders = {}
    for name in ("tied", "untied"):
        torch.manual_seed(1)
        config = GPT2Config(
            vocab_size=30,
            n_positions=8,
            n_embd=8,
            n_layer=2,
            n_head=2,
            initializer_range=0.4,
            tie_word_embeddings=name == "tied",
            bos_token_id=None,
            eos_token_id=None,
        )
        folders[name] = tmp_path_factory.mktemp(name)
        GPT2LMHeadModel(config).save_pretrained(folders[name])
    return folders


@functools.cache
def _their_base(folder: Path) -> Any:
    from transformers import GPT2LMHeadModel

    return GPT2LMHeadModel.from_pretrained(folder).eval()


def their_base(folder: Path) -> Any:
    """A model of its own, since PEFT changes the one that it is given."""
    return copy.deepcopy(_their_base(folder))


def write_adapter(peft: Any, base: Path, folder: Path, **choices: Any) -> None:
    """As PEFT saves it, with A and B as large as trained ones."""
    config = peft.LoraConfig(**{"r": 3, "target_modules": ["c_attn"], **choices})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that c_attn is a Conv1D, that the head is saved as well
        model = peft.get_peft_model(their_base(base), config)
        generator = torch.Generator().manual_seed(0)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)
        model.save_pretrained(folder)


def their_logits(peft: Any, base: Path, folder: Path) -> Tensor:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logits: Tensor = peft.PeftModel.from_pretrained(their_base(base), folder)(TOKENS).logits
    return logits


def our_logits(base: Path, folder: Path) -> Tensor:
    model = load_huggingface(base)
    load_adapters(model, folder)
    with torch.no_grad():
        logits: Tensor = model(TOKENS)
    return logits


def assert_same(peft: Any, base: Path, folder: Path) -> None:
    expected = their_logits(peft, base, folder)
    with torch.no_grad():
        assert (expected - load_huggingface(base)(TOKENS)).abs().max() > 0.1
    torch.testing.assert_close(our_logits(base, folder), expected, **CLOSE)


def refusal(base: Path, folder: Path) -> str:
    model = load_huggingface(base)
    with pytest.raises(UserError) as raised:
        load_adapters(model, folder)
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 500
    assert not lora_linears(model)
    return message


def edit(folder: Path, **changes: object) -> None:
    path = folder / CONFIG_FILE
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps(content), encoding="utf-8")


def change(folder: Path, how: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    how(tensors)
    save_file(tensors, folder / WEIGHTS_FILE)


@pytest.fixture(scope="module")
def plain_as_saved(
    peft: Any, bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    write_adapter(peft, bases["tied"], folder, target_modules=["c_attn", "mlp.c_fc"])
    return folder


@pytest.fixture
def plain(plain_as_saved: Path, tmp_path: Path) -> Path:
    """A plain adapter on c_attn and c_fc, to be changed."""
    return Path(shutil.copytree(plain_as_saved, tmp_path / "plain"))


# ---- what is read


@pytest.mark.K2
@pytest.mark.parametrize(
    "choices",
    [
        {"init_lora_weights": "mica"},
        {"init_lora_weights": "orthogonal", "r": 4},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": False},
        {"lora_alpha": -4},
        {"lora_alpha": 0.5, "use_rslora": True},
        {"target_modules": "all-linear"},
        {"target_modules": r".*\.h\.1\.(attn|mlp)\.c_proj"},
        {"target_modules": ["c_proj"], "exclude_modules": ["attn.c_proj"]},
        {"target_modules": ["c_proj"], "exclude_modules": r".*\.0\..*"},
        {"target_modules": ["c_proj"], "layers_to_transform": [1]},
        {"layers_to_transform": 0, "layers_pattern": "h"},
        {"layers_to_transform": [0, 1], "layers_pattern": ["blocks", "h"]},
        {"rank_pattern": {"^transformer.h.0.attn.c_attn$": 2}, "alpha_pattern": {"c_attn": 5}},
        {"alpha_pattern": {r"h\.[01]\.mlp.*": 3, r"h\.1\..*": -2, "c_attn": 7}},
        {"r": 12},  # more than the width
    ],
    ids=str,
)
def test_what_peft_reads_is_read_to_the_same_logits(
    peft: Any, bases: dict[str, Path], tmp_path: Path, choices: dict[str, Any]
) -> None:
    write_adapter(peft, bases["tied"], tmp_path, **choices)
    assert_same(peft, bases["tied"], tmp_path)


@pytest.mark.K2
def test_whatever_peft_writes_by_default_is_known(peft: Any, tmp_path: Path) -> None:
    peft.LoraConfig(target_modules=["c_attn"]).save_pretrained(tmp_path)
    assert read_settings(tmp_path / CONFIG_FILE).alpha("h.0.attn.c_attn") == 8


@pytest.mark.K2
@pytest.mark.parametrize(
    "fields",
    [
        {"enable_lora": None, "merge_weights": False},  # of PEFT's first versions
        {"base_model_name_or_path": "x", "revision": "y", "task_type": "SEQ_CLS"},
        {"loftq_config": {"loftq_bits": 4}, "megatron_core": "other", "peft_version": "0.1"},
        {"use_a_new_kind": False, "a_new_kind": None},
    ],
)
def test_what_asks_for_nothing_is_read(
    bases: dict[str, Path], plain: Path, fields: dict[str, Any]
) -> None:
    expected = our_logits(bases["tied"], plain)
    edit(plain, **fields)
    assert torch.equal(our_logits(bases["tied"], plain), expected)


# ---- what is refused by its key


@pytest.mark.K2
@pytest.mark.parametrize("target", ["attn.c_proj.weight", "mlp.c_fc.weight"])
def test_an_adapter_of_a_parameter_is_refused_by_that_key(
    peft: Any, bases: dict[str, Path], tmp_path: Path, target: str
) -> None:
    # PEFT reads a Conv1D's weight as a linear's, and would not transpose the product.
    write_adapter(peft, bases["tied"], tmp_path, target_modules=[], target_parameters=[target])
    assert f"has target_parameters=['{target}']" in refusal(bases["tied"], tmp_path)


@pytest.mark.K2
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("peft_type", "LOHA"),
        ("bias", "all"),
        ("use_rslora", 1),
        ("init_lora_weights", "olora"),
        ("init_lora_weights", "lora_ga"),
        ("init_lora_weights", "new"),
        ("use_dora", True),
        ("use_bdlora", {"nblocks": 2}),
        ("lora_bias", True),
        ("alora_invocation_tokens", [1]),
        ("arrow_config", {"top_k": 3}),
        ("layer_replication", [[0, 2]]),
        ("modules_to_save", ["lm_head"]),
        ("trainable_token_indices", [1]),
        ("ensure_weight_tying", True),
        ("a_new_kind", 3),
        ("target_modules", {"c_attn": 1}),
        ("layers_to_transform", [True]),
        ("lora_alpha", 0),
        ("lora_alpha", True),
        ("lora_dropout", 1.0),
    ],
)
def test_what_is_more_than_ab_or_not_known_is_refused_by_its_name(
    bases: dict[str, Path], plain: Path, name: str, value: object
) -> None:
    edit(plain, **{name: value})
    message = refusal(bases["tied"], plain)
    assert message.startswith(str(plain / CONFIG_FILE))
    assert f"has {name}=" in message


def test_a_type_that_is_not_told_is_refused(bases: dict[str, Path], plain: Path) -> None:
    path = plain / CONFIG_FILE
    fields = json.loads(path.read_text(encoding="utf-8"))
    del fields["peft_type"]
    path.write_text(json.dumps(fields), encoding="utf-8")
    assert "has no peft_type" in refusal(bases["tied"], plain)


# ---- the configuration and the tensors


@pytest.mark.K1
@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": ["c_attn"]},
        {"target_modules": r".*c_attn"},
        {"target_modules": r".*c_(at|f)"},
        {"target_modules": ["attn", "fc"]},
        {"target_modules": None},
        {"target_modules": []},
        {"exclude_modules": ["c_fc"]},
        {"layers_to_transform": [0]},
        {"layers_to_transform": [1], "layers_pattern": "blocks"},
    ],
    ids=str,
)
def test_an_adapter_that_the_configuration_leaves_out_is_refused(
    bases: dict[str, Path], plain: Path, changes: dict[str, Any]
) -> None:
    edit(plain, **changes)
    message = refusal(bases["tied"], plain)
    assert re.search(r"leaves transformer\.h\.\d\.\S+ without an adapter", message)


@pytest.mark.K1
def test_two_spellings_of_one_adapter_have_to_agree(bases: dict[str, Path], plain: Path) -> None:
    name = "h.0.attn.c_attn.lora_A.weight"
    first, second = f"base_model.model.transformer.{name}", f"base_model.model.{name}"
    expected = our_logits(bases["tied"], plain)
    change(plain, lambda t: t.update({second: t[first].clone()}))
    assert torch.equal(our_logits(bases["tied"], plain), expected)
    change(plain, lambda t: t.update({second: t[first] + 1}))
    assert f"has {name} twice" in refusal(bases["tied"], plain)


@pytest.fixture(scope="module", params=["tied", "untied"])
def on_the_head(
    request: pytest.FixtureRequest,
    peft: Any,
    bases: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:
    """A base, and PEFT's adapter on its head, with which PEFT saves the head itself."""
    base, folder = bases[request.param], tmp_path_factory.mktemp("head")
    write_adapter(peft, base, folder, target_modules=["lm_head", "c_attn"])
    assert HEAD in load_file(folder / WEIGHTS_FILE)
    return base, folder


@pytest.mark.K1
def test_a_head_saved_beside_its_adapter_is_the_models_own(
    peft: Any, on_the_head: tuple[Path, Path]
) -> None:
    base, folder = on_the_head
    model = load_huggingface(base)
    assert "lm_head" in load_adapters(model, folder)
    with torch.no_grad():
        logits = model(TOKENS)
    torch.testing.assert_close(logits, their_logits(peft, base, folder), **CLOSE)


@pytest.mark.K1
def test_a_head_that_differs_from_the_models_own_is_refused(
    on_the_head: tuple[Path, Path], tmp_path: Path
) -> None:
    base, folder = on_the_head
    folder = Path(shutil.copytree(folder, tmp_path / "copy"))
    change(folder, lambda t: t[HEAD].view(-1)[-1].mul_(1.01))
    assert "differs from the model's own lm_head.weight" in refusal(base, folder)
    change(folder, lambda t: t.update({HEAD: torch.cat([t[HEAD], t[HEAD][:2]])}))
    assert "differs from the model's own lm_head.weight" in refusal(base, folder)


@pytest.mark.K1
def test_a_head_saved_in_half_precision_is_compared_in_it(
    on_the_head: tuple[Path, Path], tmp_path: Path
) -> None:
    base, folder = on_the_head
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    change(copy, lambda t: t.update({HEAD: t[HEAD].bfloat16()}))
    assert torch.equal(our_logits(base, copy), our_logits(base, folder))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_what_is_stored_in_eight_bits_is_read_and_compared(
    on_the_head: tuple[Path, Path], tmp_path: Path, dtype: torch.dtype
) -> None:
    base, folder = on_the_head
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    change(copy, lambda t: t.update({key: tensor.to(dtype) for key, tensor in t.items()}))
    rounded = Path(shutil.copytree(folder, tmp_path / "rounded"))
    change(rounded, lambda t: t.update({k: v.to(dtype).float() for k, v in t.items() if k != HEAD}))
    assert torch.equal(our_logits(base, copy), our_logits(base, rounded))
    change(copy, lambda t: t.update({HEAD: (t[HEAD].float() * 1.5).to(dtype)}))
    assert "differs from the model's own" in refusal(base, copy)


@pytest.mark.K1
def test_a_head_that_cannot_be_compared_is_told(on_the_head: tuple[Path, Path]) -> None:
    base, folder = on_the_head
    model = load_huggingface(base)
    model.lm_head = WithoutWeight()
    with (
        pytest.warns(Notice, match="not kept to compare with"),
        pytest.raises(UserError, match="WithoutWeight"),
    ):
        load_adapters(model, folder)


class WithoutWeight(torch.nn.Module):
    """Stands for a quantised head."""


# ---- bounds


@pytest.mark.K8
@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "((a|t|r)*)*x",
        "(.*)*c_attn",
        ".*.*.*c_attn",
        ".?" * 30 + "x",
        "(.|t)(.|r)(.|a)c_attn",
        r"(t)\1",
        "(?=t)c_attn",
        "(?i:C_ATTN)",
        "[^]](t+)+",
        "x" * 201,
    ],
)
@pytest.mark.parametrize("setting", ["rank_pattern", "target_modules", "layers_pattern"])
def test_a_pattern_that_may_take_for_ever_is_refused(
    bases: dict[str, Path], plain: Path, setting: str, pattern: str
) -> None:
    edit(
        plain,
        layers_to_transform=[0, 1],
        **{setting: {pattern: 3} if setting == "rank_pattern" else pattern},
    )
    assert re.search(f"has (a )?{setting} (for|of)", refusal(bases["tied"], plain))


@pytest.mark.K8
def test_the_worst_pattern_that_is_read_matches_within_milliseconds(plain: Path) -> None:
    name = "transformer.h.47.attn.c_attn"
    groups = "|".join("transfo"[:n] for n in range(1, 8))
    worst = f".*({groups}).*({groups})x"
    assert len(worst) < peft_settings.LONGEST_PATTERN
    edit(plain, alpha_pattern={worst: 1}, target_modules=worst)
    settings = read_settings(plain / CONFIG_FILE)
    started = time.perf_counter()
    assert not settings.adapts(name)
    assert settings.alpha(name) == 8
    assert time.perf_counter() - started < 1  # measured: 2 ms


@pytest.mark.K8
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rank_pattern": {str(i): 1 for i in range(2001)}}, "rank_pattern of 2,001 patterns"),
        ({"alpha_pattern": {f"{i}.*": 1 for i in range(17)}}, "with 16 repeats together"),
        ({"target_modules": [str(i) for i in range(2001)]}, "a list of at most 2,000"),
        ({"layers_to_transform": list(range(2001))}, "a list of at most 2,000"),
        ({"rank_pattern": {"[": 1}}, "is no pattern"),
        ({"r": 10**9}, "tells rank 1000000000 for"),
        ({"lora_alpha": 10**4000}, "which scales nothing"),
    ],
)
def test_counts_are_checked_before_anything_is_matched(
    bases: dict[str, Path], plain: Path, changes: dict[str, Any], told: str
) -> None:
    edit(plain, **changes)
    assert told in refusal(bases["tied"], plain)


@pytest.mark.K8
def test_a_rank_beyond_all_use_is_refused_before_memory_is_taken(
    bases: dict[str, Path], plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rank = 8 + 24 + 1  # one more than inputs and outputs of c_attn

    def grow(tensors: dict[str, Tensor]) -> None:
        for key, tensor in tensors.items():
            shape = (rank, 8) if "lora_A" in key else (len(tensor), rank)
            tensors[key] = torch.zeros(shape)

    edit(plain, r=rank)
    change(plain, grow)
    monkeypatch.setattr("reference_model.lora_files.LoRALinear", lambda *_: pytest.fail("built"))
    assert "tells rank 33 for transformer.h.0.attn.c_attn" in refusal(bases["tied"], plain)


@pytest.mark.K8
def test_an_a_that_is_no_matrix_is_refused(bases: dict[str, Path], plain: Path) -> None:
    key = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"
    change(plain, lambda t: t.update({key: torch.ones(8)}))
    assert f"has {key}, which is no A or B" in refusal(bases["tied"], plain)


@pytest.mark.K8
@pytest.mark.parametrize("part", ["A", "B"])
def test_adapters_that_are_no_numbers_are_refused(
    bases: dict[str, Path], plain: Path, part: str
) -> None:
    key = f"base_model.model.transformer.h.0.attn.c_attn.lora_{part}.weight"
    change(plain, lambda t: t[key][0].fill_(torch.nan))
    assert f"has {key} with numbers that are not finite" in refusal(bases["tied"], plain)


@pytest.mark.K8
def test_notes_beyond_a_linears_outputs_are_left_alone(bases: dict[str, Path], plain: Path) -> None:
    expected = our_logits(bases["tied"], plain)
    tensors = load_file(plain / WEIGHTS_FILE)
    name = "transformer.h.0.attn.c_attn"
    note = {"rank": 1, "alpha": 8.0 / 3, "targets": ["query", "key", "value"]}
    for slices in ([[0, 10**30]] * 3, [[0, 16], [8, 24], [16, 24]], [[-8, 0], [0, 8], [8, 16]]):
        notes = json.dumps({name: {**note, "slices": slices}})
        save_file(tensors, plain / WEIGHTS_FILE, {"adapters": notes})
        assert torch.equal(our_logits(bases["tied"], plain), expected)
    # More rows of A than there are, where B has nothing that would tell.
    bare = {key: tensor * ("lora_A" in key) for key, tensor in tensors.items()}
    twice = {"rank": 2, "alpha": 16.0 / 3, "targets": ["query", "key", "value"]}
    notes = json.dumps({name: {**twice, "slices": [[0, 8], [8, 16], [16, 24]]}})
    save_file(bare, plain / WEIGHTS_FILE, {"adapters": notes})
    our_logits(bases["tied"], plain)
    save_file(tensors, plain / WEIGHTS_FILE, {"adapters": "[" * 100_000})
    assert torch.equal(our_logits(bases["tied"], plain), expected)
    assert isinstance(load_huggingface(bases["tied"]), GPT)
