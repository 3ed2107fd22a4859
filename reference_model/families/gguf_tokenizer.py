"""The tokenizer that a GGUF file holds: byte-level BPE, and the rule that cuts a text first.

The rule has a name in the file; one that is not known here is refused, since another would give
other tokens. What it does is told by the tokenizers that the models were published with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence, Split
from tokenizers.processors import TemplateProcessing

from reference_model.errors import UserError
from reference_model.reading import quoted
from reference_model.settings import ANY, Known, check_settings

PREFIX = "tokenizer."
# What a token is: one that ends, begins or pads a text, or one that is never cut or merged.
CONTROL, USER_DEFINED = 3, 4
ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
_KNOWN: Known = {
    **dict.fromkeys(("model", "pre", "tokens", "token_type", "merges", "scores", *ENDS), ANY),
    **dict.fromkeys(("bos_token_id", "padding_token_id", "unknown_token_id", "mask_token_id"), ANY),
    **dict.fromkeys(("add_bos_token", "separator_token_id", "seperator_token_id"), ANY),
    # Of filling in the middle, which is a matter of the prompt.
    **{f"fim_{part}_token_id": ANY for part in ("pre", "suf", "mid", "pad", "rep", "sep")},
    **{f"{part}_token_id": ANY for part in ("prefix", "suffix", "middle")},
    "add_eos_token": (False,),
    "add_space_prefix": (False,),
}
# A contraction, a word with what stands before it, digits, signs with line ends, line ends, blanks.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _by_words(digits: str) -> PreTokenizer:
    cut = Split(Regex(_WORDS.format(digits=digits)), "isolated")
    return Sequence([cut, ByteLevel(add_prefix_space=False, use_regex=False)])


def _by_digits() -> PreTokenizer:
    """Each digit alone, before GPT-2's rule."""
    return Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])


RULES: dict[str, Callable[[], PreTokenizer]] = {
    "gpt-2": lambda: ByteLevel(add_prefix_space=False),
    "smollm": _by_digits,
    "llama-bpe": lambda: _by_words("{1,3}"),
    "qwen2": lambda: _by_words(""),
}


def tokenizer_of(metadata: Mapping[str, Any], path: Path) -> Tokenizer:
    """The tokenizer of a file. `UserError` for what it holds and we cannot build, by the key."""
    fields = _fields(metadata, path)
    kind, rule = fields.get("model"), fields.get("pre")
    if kind != "gpt2":
        raise UserError(
            f"{path} has {PREFIX}ggml.model={quoted(kind)}, which cannot be built here; use a file "
            "with a byte-level BPE, 'gpt2'"
        )
    if not isinstance(rule, str) or rule not in RULES:
        raise UserError(
            f"{path} has {PREFIX}ggml.pre={quoted(rule)}, a rule that is not known here; use a "
            f"file with one of {', '.join(RULES)}"
        )
    for name in ("tokens", "merges"):
        texts = fields.get(name, [])
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise UserError(f"{path} has {PREFIX}ggml.{name} that are no texts; fetch it again")
    tokens = fields.get("tokens", [])
    ids = {token: number for number, token in enumerate(tokens)}
    if len(ids) < len(tokens) or not tokens:
        told = "one of its tokens twice" if tokens else "no tokens"
        raise UserError(f"{path} has {told}; fetch it again")
    merges = [tuple(merge.split(" ", 1)) for merge in fields.get("merges", [])]
    if any(len(pair) != 2 or not {*pair, "".join(pair)} <= ids.keys() for pair in merges):
        raise UserError(f"{path} has merges of what is no token; fetch it again")
    whole = rule == "llama-bpe"  # a word that is a token is not merged
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges, ignore_merges=whole))
    tokenizer.pre_tokenizer = RULES[rule]()
    tokenizer.decoder = decoders.ByteLevel()
    if rule == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    kinds = fields.get("token_type", [])
    for token, its_kind in zip(tokens, kinds, strict=False):
        if its_kind == CONTROL:
            tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        elif its_kind == USER_DEFINED:
            tokenizer.add_tokens([AddedToken(token, normalized=False)])
    if fields.get("add_bos_token", whole):
        first = _token(fields, "bos_token_id", path)
        tokenizer.post_processor = TemplateProcessing(
            single=f"{tokens[first]} $A", special_tokens=[(tokens[first], first)]
        )
    return tokenizer


def ends_of(metadata: Mapping[str, Any], path: Path) -> tuple[int, ...]:
    """The tokens that end a text."""
    fields = _fields(metadata, path)
    return tuple(dict.fromkeys(_token(fields, name, path) for name in ENDS if name in fields))


def _fields(metadata: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Without what stands before all of them; templates of chats have no effect on a text."""
    found = {
        name.removeprefix(f"{PREFIX}ggml."): value
        for name, value in metadata.items()
        if name.startswith(PREFIX) and not name.startswith(f"{PREFIX}chat_template")
    }
    check_settings(found, _KNOWN, path)
    return found


def _token(fields: Mapping[str, Any], name: str, path: Path) -> int:
    value = fields.get(name)
    if type(value) is not int or not 0 <= value < len(fields.get("tokens", [])):
        raise UserError(
            f"{path} has {PREFIX}ggml.{name}={quoted(value)}, which is no token's id; fetch it "
            "again"
        )
    return value
