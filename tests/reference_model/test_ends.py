"""Where a model ends its text: as transformers does, with the same files."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from reference_model import checkpoints
from reference_model.__main__ import main
from reference_model.config import GPTConfig
from reference_model.errors import Notice, UserError
from reference_model.families.decoding import read_ends
from reference_model.generate import generate, stream
from reference_model.model import GPT

pytestmark = pytest.mark.K2

PROMPT = torch.tensor([[1, 2, 3], [7, 5, 2]])
NEW = 12


@pytest.fixture(scope="module")
def theirs(tiny_gpt2: Callable[..., Any]) -> Any:
    """transformers' GPT-2, untied, whose greedy text is not one token over and over."""
    return tiny_gpt2(n_positions=32, initializer_range=0.5, tie_word_embeddings=False)


@pytest.fixture(scope="module")
def as_saved(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("theirs")
    theirs.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(as_saved: Path, tmp_path: Path) -> Path:
    """What transformers saved, without generation_config.json."""
    copy = Path(shutil.copytree(as_saved, tmp_path / "folder"))
    (copy / "generation_config.json").unlink()
    return copy


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps(content), encoding="utf-8")


def ask(folder: Path, **fields: object) -> None:
    (folder / "generation_config.json").write_text(json.dumps(fields), encoding="utf-8")


def their_text(theirs: Any, folder: Path) -> torch.Tensor:
    model = type(theirs).from_pretrained(folder).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text: torch.Tensor = model.generate(
            PROMPT, attention_mask=torch.ones_like(PROMPT), do_sample=False, max_new_tokens=NEW
        )
    return text


def our_text(folder: Path, **choices: Any) -> torch.Tensor:
    return generate(checkpoints.load_huggingface(folder), PROMPT, NEW, **choices)


# ---- as transformers


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("steps", [[0], [4], [4, 9], [NEW]])
def test_each_row_ends_and_is_padded_as_by_transformers(
    theirs: Any, folder: Path, steps: list[int], use_cache: bool
) -> None:
    whole = our_text(folder)
    # Tokens that the first row writes at these steps, and one that the second writes at its fifth.
    ends = [int(whole[0, 3 + step]) for step in steps if step < NEW] + [int(whole[1, 3 + 5])]
    edit(folder, eos_token_id=ends if len(ends) > 1 else ends[0])
    found = our_text(folder, ends=read_ends(folder), use_cache=use_cache)
    assert torch.equal(found, their_text(theirs, folder))
    assert found.shape[1] <= whole.shape[1]


def test_the_padding_may_be_another_token(theirs: Any, folder: Path) -> None:
    whole = our_text(folder)
    edit(folder, eos_token_id=int(whole[0, 5]))
    ask(folder, eos_token_id=int(whole[0, 5]), pad_token_id=9)
    found = our_text(folder, ends=read_ends(folder), pad=9)
    assert torch.equal(found, their_text(theirs, folder))
    assert found[0, -1] == 9


@pytest.mark.parametrize(
    ("config", "generation", "ends"),
    [
        ({}, None, ()),
        ({"eos_token_id": 7}, None, (7,)),
        ({"eos_token_id": [7, 9]}, None, (7, 9)),
        ({"eos_token_id": None}, None, ()),
        ({"eos_token_id": 7}, {"eos_token_id": 9}, (9,)),
        ({"eos_token_id": 7}, {"eos_token_id": [9, 8]}, (9, 8)),
        ({"eos_token_id": 7}, {}, ()),
        ({"eos_token_id": 7}, {"eos_token_id": None}, ()),
    ],
)
def test_the_file_that_transformers_believes_names_the_ends(
    theirs: Any,
    folder: Path,
    config: dict[str, Any],
    generation: dict[str, Any] | None,
    ends: tuple[int, ...],
) -> None:
    edit(folder, **config)
    if generation is not None:
        ask(folder, **generation)
    told = type(theirs).from_pretrained(folder).generation_config.eos_token_id
    assert read_ends(folder) == ends == tuple([told] if isinstance(told, int) else told or ())


def test_an_end_beyond_the_vocabulary_never_comes(folder: Path) -> None:
    whole = our_text(folder)
    assert torch.equal(our_text(folder, ends=[50256, -1]), whole)
    end = int(whole[0, 5])
    found = our_text(folder, ends=[50256, end])
    assert (found[0, 6:] == end).all()  # padding is a token of the model


def test_a_stream_ends_with_its_last_row(folder: Path) -> None:
    model = checkpoints.load_huggingface(folder)
    whole = our_text(folder)
    end = int(whole[0, 5])
    steps = list(stream(model, PROMPT[:1], NEW, ends=[end]))
    assert [int(step) for step in steps] == whole[0, 3:6].tolist()


@pytest.mark.parametrize("pad", [-1, 50])
def test_padding_is_a_token_of_the_model(folder: Path, pad: int) -> None:
    with pytest.raises(UserError, match=rf"pad={pad} is no token; the model knows 0 … 49"):
        our_text(folder, ends=[3], pad=pad)


# ---- what decoding is asked for


def test_whatever_transformers_writes_by_default_is_known(
    transformers: ModuleType, folder: Path
) -> None:
    ask(folder, **transformers.GenerationConfig().to_dict())
    assert read_ends(folder) == ()
    ask(folder, **transformers.GenerationConfig._get_default_generation_params())
    assert read_ends(folder) == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("repetition_penalty", 1.2),
        ("no_repeat_ngram_size", 3),
        ("num_beams", 4),
        ("min_new_tokens", 5),
        ("suppress_tokens", [7]),
        ("forced_eos_token_id", 7),
        ("bad_words_ids", [[7]]),
        ("stop_strings", ["x"]),
        ("a_new_kind", 3),
        ("eos_token_id", "7"),
        ("eos_token_id", [7, True]),
        ("eos_token_id", 7.0),
    ],
)
def test_what_decoding_is_asked_for_and_not_done_is_refused(
    folder: Path, name: str, value: object
) -> None:
    ask(folder, **{name: value})
    with pytest.raises(UserError, match=rf"generation_config\.json has {name}="):
        read_ends(folder)
    if name != "a_new_kind":  # in config.json, what is not of decoding is the model's matter
        (folder / "generation_config.json").unlink()
        edit(folder, **{name: value})
        with pytest.raises(UserError, match=rf"/config\.json has {name}="):
            read_ends(folder)


def test_a_way_of_sampling_that_a_file_asks_for_is_told(folder: Path) -> None:
    ask(folder, do_sample=True, temperature=0.7, top_p=1.0, eos_token_id=4)
    with pytest.warns(Notice, match=r"sets do_sample=True, temperature=0\.7, which is ignored"):
        assert read_ends(folder) == (4,)


# ---- on the command line

ALPHABET = "abcdefgh"
END, BEYOND = len(ALPHABET), len(ALPHABET) + 1


@pytest.fixture(scope="module")
def scripted_as_saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes, by position, "abc", an end, "de", a token without text and "f" on."""
    folder = tmp_path_factory.mktemp("scripted")
    script = [0, 0, 1, 2, END, 3, 4, BEYOND] + [5] * 8  # what follows each position
    config = GPTConfig(
        vocab_size=BEYOND + 1, context_length=16, n_layer=1, n_head=1, n_embd=16, head="untied"
    )
    model = GPT(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if name.endswith(("ln_1.weight", "ln_f.weight")) else 0.0)
        model.wpe.weight.copy_(torch.eye(16))
        for position, token in enumerate(script):
            model.lm_head.weight[token, position] = 1
    checkpoints.save(model, folder)
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(ALPHABET)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def scripted(scripted_as_saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scripted_as_saved, tmp_path / "scripted"))


Printed = pytest.CaptureFixture[str]


@pytest.fixture
def written(scripted: Path, capsys: Printed) -> Callable[..., str]:
    """written(*arguments) → what the command writes of the prompt "hh"."""

    def run(*arguments: str) -> str:
        command = ["generate", "--checkpoint", str(scripted), "--prompt", "hh"]
        assert main([*command, "--temperature", "0", *arguments]) == 0
        return capsys.readouterr().out.removesuffix("\n")

    return run


def test_the_command_stops_where_the_model_ends(
    scripted: Path, written: Callable[..., str]
) -> None:
    ask(scripted, eos_token_id=END)
    assert written("--tokens", "6") == "hhabc"
    assert written("--tokens", "3") == "hhabc"
    assert written("--tokens", "2") == "hhab"


def test_an_option_goes_on_and_the_mark_stands_between_the_texts(
    scripted: Path, written: Callable[..., str]
) -> None:
    ask(scripted, eos_token_id=END)
    assert written("--tokens", "6", "--past-end") == "hhabc<end>de"
    (scripted / "generation_config.json").unlink()
    assert written("--tokens", "6") == "hhabc<end>de"


def test_a_token_without_text_is_told(
    scripted: Path, written: Callable[..., str], capsys: Printed
) -> None:
    assert written("--tokens", "8") == "hhabc<end>def"
    assert main(["generate", "--checkpoint", str(scripted), "--prompt", "hh", "--tokens", "8"]) == 0
    told = capsys.readouterr().err
    assert told == "note: 1 tokens are not known to the tokenizer, the first is 9\n"


def test_a_notice_is_one_line_of_the_command(scripted: Path, capsys: Printed) -> None:
    ask(scripted, temperature=0.5)
    assert main(["generate", "--checkpoint", str(scripted), "--prompt", "hh", "--tokens", "1"]) == 0
    told = capsys.readouterr().err
    assert told.startswith("note: ")
    assert told.endswith("sets temperature=0.5, which is ignored: options say how to sample\n")
    assert told.count("\n") == 1


# ---- one line, whatever the folder holds


@pytest.mark.K8
@pytest.mark.parametrize("temperature", ["0", "1"])
@pytest.mark.parametrize(
    ("value", "told"),
    [
        (float("nan"), "model.safetensors has ln_f.weight with numbers that are not finite"),
        (float("inf"), "model.safetensors has ln_f.weight with numbers that are not finite"),
        (3e38, "answers with numbers that are not finite"),
    ],
)
def test_weights_that_are_no_numbers_are_told_in_one_line(
    scripted: Path, capsys: Printed, value: float, told: str, temperature: str
) -> None:
    file = scripted / "model.safetensors"
    tensors = load_file(file)
    tensors["ln_f.weight"][3] = value
    tensors["lm_head.weight"][:, 3] = 3e38
    save_file(tensors, file)
    command = ["generate", "--checkpoint", str(scripted), "--prompt", "hh", "--tokens", "4"]
    assert main([*command, "--temperature", temperature]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert err.count("\n") == 1


@pytest.mark.K8
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000])
def test_json_that_is_nested_too_deep_is_told_in_one_line(
    scripted: Path, capsys: Printed, name: str, content: str
) -> None:
    (scripted / name).write_text(content, encoding="utf-8")
    assert main(["generate", "--checkpoint", str(scripted), "--prompt", "hh"]) == 2
    err = capsys.readouterr().err
    assert f"{name} cannot be read (it is nested too deep)" in err
    assert err.count("\n") == 1


@pytest.mark.K8
def test_a_prompt_that_is_not_utf8_is_told_in_one_line(scripted: Path, capsys: Printed) -> None:
    assert main(["generate", "--checkpoint", str(scripted), "--prompt", "h\udcff"]) == 2
    err = capsys.readouterr().err
    assert r"'h\udcff' is not UTF-8" in err
    assert err.count("\n") == 1


@pytest.mark.K8
def test_a_path_that_is_not_utf8_is_told_in_one_line(scripted: Path, capsys: Printed) -> None:
    strange = scripted.with_name("s\udcffx")
    scripted.rename(strange)  # safetensors opens none of these
    assert main(["generate", "--checkpoint", str(strange), "--prompt", "hh"]) == 2
    err = capsys.readouterr().err
    assert r"s\udcffx/model.safetensors" in err
    assert err.count("\n") == 1


@pytest.mark.K8
def test_more_tokens_than_can_be_counted_are_told_in_one_line(
    scripted: Path, capsys: Printed
) -> None:
    model = GPT(GPTConfig(vocab_size=10, n_layer=1, n_head=1, n_embd=16, position="none"))
    checkpoints.save(model, scripted)
    command = ["generate", "--checkpoint", str(scripted), "--prompt", "hh"]
    assert main([*command, "--tokens", str(10**20)]) == 2
    err = capsys.readouterr().err
    assert "new_tokens=100000000000000000000 cannot be written; use a whole number" in err
    assert err.count("\n") == 1
