"""What a text costs: each token predicted once, in windows that slide; and the command line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from reference_model import __main__ as command
from reference_model import checkpoints
from reference_model.__main__ import main
from reference_model.errors import UserError
from reference_model.model import GPT
from reference_model.score import score, token_nats

TEXT = "Enter KING HENRY, and others.\nNow is the winter of our discontent — made glorious.\n"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return checkpoints.reference_tokenizer()


@pytest.fixture(scope="module")
def model() -> GPT:
    return checkpoints.load_reference()


def by_hand(model: GPT, ids: list[int], window: int, stride: int) -> list[float]:
    """Each token from those before it, back to where its window begins."""
    nats, begin = [], 0
    for token in range(1, len(ids)):
        while token >= begin + window:
            begin += stride
        with torch.no_grad():
            logits = model(torch.tensor([ids[begin:token]]))[0, -1].double()
        nats.append(float(logits.logsumexp(0) - logits[ids[token]]))
    return nats


@pytest.mark.parametrize(
    ("window", "stride"), [(12, 4), (12, 11), (12, 1), (5, 2), (26, 13), (64, 8)]
)
def test_each_token_is_predicted_once_from_what_its_window_has_before_it(
    tiny_model: Callable[..., GPT], window: int, stride: int
) -> None:
    model = tiny_model(position="rope")
    ids = torch.randint(23, (26,), generator=torch.Generator().manual_seed(2)).tolist()
    found = token_nats(model, ids, window, stride)
    assert found.tolist() == pytest.approx(by_hand(model, ids, window, stride), abs=1e-6)


def test_a_model_that_knows_nothing_pays_the_logarithm_of_its_vocabulary(
    tokenizer: Tokenizer, model: GPT
) -> None:
    blind = GPT(model.config).eval()
    torch.nn.init.zeros_(blind.wte.weight)
    found = score(blind, tokenizer, TEXT)
    assert found.nats_per_token == pytest.approx(math.log(4096))
    assert found.bits_per_byte == pytest.approx(12 * found.tokens / found.text_bytes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_of_a_model_in_half_precision_are_taken_and_summed_in_full(
    tokenizer: Tokenizer, dtype: torch.dtype
) -> None:
    # Of a loss near 8 bfloat16 would leave four digits in binary behind the point.
    model = checkpoints.load_reference(dtype)
    ids = tokenizer.encode(TEXT).ids
    with torch.no_grad():
        logits = model(torch.tensor([ids[:-1]]))[0]
    assert logits.dtype == dtype
    expected = -logits.double().log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    found = token_nats(model, ids, 512, 256)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert score(model, tokenizer, TEXT).nats == pytest.approx(float(expected.sum()), abs=1e-4)


def test_a_text_is_scored_where_the_model_lies() -> None:
    # "meta" stands for a GPU: losses that have no numbers cannot come back to the CPU.
    with pytest.raises(RuntimeError, match="Cannot copy out of meta"):
        token_nats(checkpoints.load_reference().to("meta"), [1, 2, 3, 4], 512, 256)


def test_bytes_are_those_of_what_was_predicted(tokenizer: Tokenizer, model: GPT) -> None:
    found = score(model, tokenizer, TEXT)
    ids = tokenizer.encode(TEXT).ids
    assert found.tokens == len(ids) - 1
    assert found.text_bytes == len(TEXT.encode()) - len(tokenizer.decode(ids[:1]).encode())
    assert found.prefix == ()
    assert (found.window, found.stride) == (512, 256)


def test_a_prefix_is_told_and_the_whole_text_predicted(model: GPT) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = checkpoints.reference_tokenizer()
    first = tokenizer.id_to_token(0)
    tokenizer.post_processor = TemplateProcessing(single=f"{first} $A", special_tokens=[(first, 0)])
    found = score(model, tokenizer, TEXT)
    assert found.prefix == (first,)
    assert found.tokens == len(tokenizer.encode(TEXT).ids) - 1
    assert found.text_bytes == len(TEXT.encode())


def test_marks_around_an_empty_text_are_nothing_to_predict(model: GPT) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = checkpoints.reference_tokenizer()
    first, last = tokenizer.id_to_token(0), tokenizer.id_to_token(1)
    tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(first, 0), (last, 1)]
    )
    assert score(model, tokenizer, TEXT).prefix == (first,)
    with pytest.raises(UserError, match="no byte to predict"):
        score(model, tokenizer, "")


@pytest.mark.parametrize(
    ("text", "sizes", "told"),
    [
        ("", {}, "the text has 0 tokens; use one of at least 2"),
        (TEXT, {"window": 513}, "window=513 cannot be read; use 2 … 512 tokens"),
        (TEXT, {"window": 1}, "window=1 cannot be read"),
        (TEXT, {"window": 8, "stride": 8}, "stride=8 leaves tokens out; use 1 … 7"),
        (TEXT, {"stride": 0}, "stride=0 leaves tokens out"),
    ],
)
def test_what_cannot_be_scored_is_told(
    tokenizer: Tokenizer, model: GPT, text: str, sizes: dict[str, int], told: str
) -> None:
    with pytest.raises(UserError) as raised:
        score(model, tokenizer, text, **sizes)
    assert told in str(raised.value)


def test_losses_that_are_no_numbers_are_told(tokenizer: Tokenizer) -> None:
    model = checkpoints.load_reference()
    model.ln_f.weight.data[0] = math.inf
    with pytest.raises(UserError, match="not finite"):
        score(model, tokenizer, TEXT)


# ---- the command


def test_the_command_tells_what_the_function_finds(
    tokenizer: Tokenizer, model: GPT, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    expected = score(model, tokenizer, TEXT, 32, 8)
    asked = ["score", "--text", str(tmp_path / "text.txt"), "--window=32", "--stride=8"]
    asked.append("--device=cpu")  # as above
    assert main([*asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["nats_per_token"] == expected.nats_per_token
    assert told["bits_per_byte"] == expected.bits_per_byte
    assert (told["tokens"], told["text_bytes"]) == (expected.tokens, expected.text_bytes)
    assert (told["window"], told["stride"], told["prefix"]) == (32, 8, [])
    assert main(asked) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3] == "in float32 on cpu"
    assert lines[1] == f"{expected.nats_per_token:.4f} nats a token"
    assert lines[-1] == "before the text: nothing"


def test_the_command_scores_in_the_dtype_and_on_the_device_that_were_asked_for(
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    asked = ["score", "--text", str(tmp_path / "text.txt"), "--json"]
    assert main([*asked, "--dtype=bfloat16", "--device=cpu"]) == 0
    told = json.loads(capsys.readouterr().out)
    expected = score(checkpoints.load_reference(torch.bfloat16), tokenizer, TEXT)
    assert told["nats_per_token"] == expected.nats_per_token
    assert (told["device"], told["dtype"]) == ("cpu", "bfloat16")
    monkeypatch.setattr(command, "resolve_device", {"cuda": "meta"}.__getitem__)
    with pytest.raises(RuntimeError, match="Cannot copy out of meta"):
        main([*asked, "--device=cuda"])


@pytest.mark.parametrize(
    ("content", "arguments", "told"),
    [
        (b"\xff\xfe", [], "is not UTF-8"),
        (TEXT.encode(), ["--model", "nowhere"], "there is no model 'nowhere'"),
        (TEXT.encode(), ["--model", "nowhere.gguf"], "does not exist"),
        (None, [], "does not exist"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes | None,
    arguments: list[str],
    told: str,
) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    assert main(["score", "--text", str(path), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
