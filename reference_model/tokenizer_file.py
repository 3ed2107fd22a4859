"""A folder's `tokenizer.json`, as it is for reading a prompt: what its training left is off."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Encoding, Tokenizer

from reference_model.errors import UserError, notice
from reference_model.reading import parse_json, read_bytes, read_json
from reference_model.settings import ANY, Known, check_settings

MOST_BYTES = 20 * 2**20  # read within seconds; GPT-2's own has 1.4 MB
_KNOWN: Known = dict.fromkeys(
    (
        *("version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer"),
        *("post_processor", "decoder", "model"),
    ),
    ANY,
)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder, without the truncation, padding and dropout of a training.

    A `tokenizer_config.json` that says otherwise is told. Raises `UserError` where the tokenizer is
    missing or damaged, or has a key that is not known.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        raise UserError(f"{path} does not exist; put the model's own tokenizer there")
    content = read_bytes(path, MOST_BYTES)
    fields = parse_json(content, path)
    if not isinstance(fields, dict):
        raise UserError(f"{path} is not a tokenizer; fetch it again")
    check_settings(fields, _KNOWN, path)
    with _told(f"{path} is not a tokenizer", "fetch it again"):
        tokenizer = Tokenizer.from_buffer(content)
        tokenizer.no_truncation()
        tokenizer.no_padding()
    if getattr(tokenizer.model, "dropout", None):
        tokenizer.model.dropout = None
        notice(f"{path} drops merges at random, as in training; here it keeps them all")
    _tell_of_prefix_space(folder / "tokenizer_config.json", fields, path)
    return tokenizer


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text. Raises `UserError` where the tokenizer's own rules fail on it."""
    ids: list[int] = encoded(tokenizer, text).ids
    return ids


def encoded(tokenizer: Tokenizer, text: str) -> Encoding:
    """The tokens of a text, and where each stands in it. Raises as `encode` does."""
    with _told("the tokenizer fails on the text", "use another text or tokenizer"):
        return tokenizer.encode(text)


def decode(tokenizer: Tokenizer, ids: list[int]) -> str:
    """The text of ids, with the marks that end or pad one: what is hidden joins two texts.

    Ids that the tokenizer does not know have no text, which is told.
    """
    unknown = [i for i in ids if tokenizer.id_to_token(i) is None]
    if unknown:
        notice(f"{len(unknown)} tokens are not known to the tokenizer, the first is {unknown[0]}")
    with _told("the tokenizer fails on what was written", "use the model's own tokenizer"):
        text: str = tokenizer.decode(ids, skip_special_tokens=False)
    return text


def _tell_of_prefix_space(path: Path, fields: dict[str, Any], followed: Path) -> None:
    """transformers' own GPT-2 tokenizer follows this key, its general one `tokenizer.json`."""
    if not path.exists():
        return
    told = read_json(path).get("add_prefix_space")
    pre_tokenizer = fields.get("pre_tokenizer")
    own = pre_tokenizer.get("add_prefix_space") if isinstance(pre_tokenizer, dict) else None
    if isinstance(told, bool) and isinstance(own, bool) and told != own:
        notice(
            f"{path} has add_prefix_space={told} and {followed.name} has {own}; "
            f"{followed.name} is followed"
        )


@contextlib.contextmanager
def _told(what: str, advice: str) -> Iterator[None]:
    """Raise `UserError` for any failure of the library, which has no exception of its own.

    Where its core panics it is no `Exception`, and lines are on the standard error by then.
    """
    try:
        with _without_standard_error():
            yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{what} ({' '.join(str(error).split())}); {advice}") from None


@contextlib.contextmanager
def _without_standard_error() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # closed
            kept = os.dup(2)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, 2)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, nowhere)
            os.dup2(nowhere, 2)
        yield
