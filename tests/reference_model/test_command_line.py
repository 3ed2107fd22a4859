"""python -m reference_model: what it prints, and how it refuses."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from unittest.mock import Mock, call

import pytest
import torch

from reference_model import __main__ as ours
from reference_model import generate as generating
from reference_model.__main__ import main
from reference_model.checkpoints import REFERENCE_FOLDER
from reference_model.command_line import exit_status
from reference_model.devices import DTYPES
from reference_model.errors import notice

Printed = pytest.CaptureFixture[str]
FOLDER = [f"--checkpoint={REFERENCE_FOLDER}"]


def refusal(printed: Printed, *arguments: str) -> str:
    """The one line on standard error of a command that must fail."""
    assert main(list(arguments)) == 2
    out, err = printed.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


# ---- describe


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["gpt2"], "124,439,808 parameters"),
        (["gpt2", "head=untied"], "163,037,184 parameters"),
        (["gpt2", "position=rope", "bias=False"], "123,551,232 parameters"),
        (["gpt2", "n_layer=1"], "46,473,216 parameters"),
    ],
)
def test_describe_counts_what_was_chosen(capsys: Printed, arguments: list[str], count: str) -> None:
    assert main(["describe", *arguments]) == 0
    last_part = next(line for line in capsys.readouterr().out.splitlines() if " all " in line)
    assert count in last_part


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["describe", "gpt3"], "unknown preset 'gpt3'; use one of toy, reference, gpt2"),
        (["describe", "gpt2", "position=rotary"], "position='rotary' is not a known choice"),
        (["describe", "gpt2", "layers=3"], "unknown field 'layers'"),
        (["describe", "gpt2", "n_layer=many"], "n_layer='many' is not a size"),
        (["describe", "gpt2", "dropout=much"], "dropout='much' is not a finite number"),
        (["describe", "gpt2", "bias=no"], "bias='no' is not a switch"),
        (["describe", "gpt2", "rope"], "'rope' is not a choice; write FIELD=VALUE"),
        (["describe"], "--help explains"),
        (["explain"], "--help explains"),
        ([], "--help explains"),
        (["generate", "--tokens", "ten"], "--tokens"),
        (["generate", "--tokens", "0"], "new_tokens=0"),
        (["generate", "--temperature", "-1"], "temperature=-1.0"),
        (["generate", "--prompt", ""], "at least one token"),
        (["generate", "--seed", "9" * 20], "is not a whole number from 0 to 2^32 - 1"),
        (["generate", "--tokens", "600"], "has 512 positions"),
        (["generate", "--checkpoint", "nowhere"], "config.json does not exist"),
        (["generate", "--huggingface", "nowhere"], "config.json does not exist"),
    ],
)
def test_wrong_input_is_told_in_one_line(
    capsys: Printed, arguments: list[str], message: str
) -> None:
    assert message in refusal(capsys, *arguments)


@pytest.mark.K8
def test_memory_that_is_not_there_is_told_in_one_line(capsys: Printed) -> None:
    def numbers() -> None:
        torch.empty(2**55)

    def bytes_() -> None:
        raise MemoryError

    for command in (numbers, bytes_):
        assert exit_status(command) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: not enough memory")
        assert err.count("\n") == 1


def test_only_a_notice_is_printed_as_one(capsys: Printed) -> None:
    def tell() -> None:
        notice("told")
        warnings.warn("of a library", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="of a library"):
        assert exit_status(tell) == 0
    assert capsys.readouterr().err == "note: told\n"


def test_any_other_failure_is_not_the_users(capsys: Printed) -> None:
    def fail() -> None:
        raise RuntimeError("another")

    with pytest.raises(RuntimeError, match="another"):
        exit_status(fail)


# ---- generate


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the shipped checkpoint, to be damaged."""
    return Path(shutil.copytree(REFERENCE_FOLDER, tmp_path / "copy"))


def test_a_prompt_is_continued_and_a_seed_repeats_it(capsys: Printed) -> None:
    def written(*arguments: str) -> str:
        assert main(["generate", "--prompt", "My lord,", "--tokens", "12", *arguments]) == 0
        return capsys.readouterr().out

    first = written()
    assert first.startswith("My lord,")
    assert len(first) > 20
    assert written() == first
    assert written("--seed", "1") != first
    assert written("--temperature", "0") == written("--temperature", "0", "--no-cache")
    assert written("--top-k", "1") == written("--temperature", "0")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("more", [[], ["--no-cache"], ["--kv-bits=3"], FOLDER])
def test_a_model_writes_in_the_dtype_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: Printed, dtype: str, more: list[str]
) -> None:
    found = set()
    monkeypatch.setattr(ours, "_check_numbers", lambda logits, _: found.add(logits.dtype))
    assert main(["generate", "--tokens=3", f"--dtype={dtype}", *more]) == 0
    assert found == {getattr(torch, dtype)}
    assert len(capsys.readouterr().out) > len("ROMEO\n")


def test_a_model_writes_on_the_device_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # "meta" stands for a GPU: it has no numbers, and the first one that is read ends it.
    monkeypatch.setattr(ours, "resolve_device", {"cuda": "meta"}.__getitem__)
    prompts = Mock()
    monkeypatch.setattr(generating, "check_request", prompts)
    generators = Mock(return_value=torch.Generator())
    monkeypatch.setattr(torch, "Generator", generators)
    for more in ([], ["--no-cache"], ["--kv-bits=3"]):
        with pytest.raises(RuntimeError, match="meta tensors"):
            main(["generate", "--tokens=3", "--device=cuda", *more])
        assert generators.call_args == call("meta")  # of the draws
        assert prompts.call_args.args[1].device.type == "meta"


@pytest.mark.parametrize("words", [["generate"], ["score", "--text=README.md"]])
@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("--device=cuda", "--device cuda: torch finds no usable CUDA device; use --device cpu"),
        ("--device=tpu", "argument --device: invalid choice: 'tpu'"),
        ("--dtype=float64", "argument --dtype: invalid choice: 'float64'"),
    ],
)
def test_a_device_or_a_dtype_that_cannot_be_is_told_before_a_model_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: Printed, words: list[str], asked: str, told: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(ours, "_opened", lambda *given: pytest.fail("it was read"))
    assert told in refusal(capsys, *words, asked)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.safetensors", "model.safetensors is not a whole safetensors file"),
        ("config.json", "config.json cannot be read"),
        ("tokenizer.json", "tokenizer.json cannot be read"),
    ],
)
def test_a_truncated_checkpoint_is_named_in_one_line(
    capsys: Printed, copied: Path, name: str, message: str
) -> None:
    whole = (copied / name).read_bytes()
    (copied / name).write_bytes(whole[: len(whole) // 2])
    assert message in refusal(capsys, "generate", "--checkpoint", str(copied))


def test_a_checkpoint_without_its_tokenizer_is_named(capsys: Printed, copied: Path) -> None:
    (copied / "tokenizer.json").unlink()
    message = refusal(capsys, "generate", "--checkpoint", str(copied))
    assert "tokenizer.json does not exist" in message


def test_the_command_ends_with_status_2_and_without_a_traceback(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "reference_model", "describe", "gpt2", "norm=batchnorm"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "error: norm='batchnorm' is not a known choice; use one of layernorm, rmsnorm\n"
    )
