"""python -m reference_model describe | generate | score.

What a choice costs, what a model writes, and how well it predicts a text.

Exit status: 0 done, 2 the input was wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from reference_model.command_line import Parser, about, exit_status, seed, utf8
from reference_model.config import PRESETS, GPTConfig, preset
from reference_model.devices import add_device_and_dtype, resolve_device
from reference_model.errors import UserError
from reference_model.printing import say
from reference_model.reading import read_bytes

if TYPE_CHECKING:
    from reference_model.models import OpenedModel

MOST_TEXT = 2**30  # bytes


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""

    def command() -> None:
        options = _parser().parse_args(arguments)
        say(COMMANDS[options.command](options))

    return exit_status(command)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m reference_model",
        description="Say what a configuration costs, let a model write, or tell what a text costs.",
        example="describe gpt2 position=rope",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    describe = commands.add_parser(
        "describe",
        **about("print parameters, FLOPs and bytes of a configuration"),
        example="gpt2 position=rope head=untied",
    )
    describe.add_argument("preset", help=", ".join(PRESETS))
    describe.add_argument(
        "choices", nargs="*", metavar="FIELD=VALUE", help="a field to change, such as position=rope"
    )

    generate = commands.add_parser(
        "generate",
        **about("continue a prompt, and print the text"),
        example="--prompt 'Enter KING' --tokens 60 --kv-bits 4",
    )
    _add_model(generate)
    generate.add_argument("--prompt", type=utf8, default="ROMEO\n", help="text to continue")
    generate.add_argument(
        "--tokens", type=int, default=120, help="how many to write (default: 120)"
    )
    generate.add_argument(
        "--past-end", action="store_true", help="write on after the model's end-of-text token"
    )
    generate.add_argument(
        "--temperature", type=float, default=0.8, help="0 is greedy (default: 0.8)"
    )
    generate.add_argument("--top-k", type=int, help="draw from the K likeliest tokens alone")
    generate.add_argument("--seed", type=seed, default=0, help="of the draws (default: 0)")
    caching = generate.add_mutually_exclusive_group()
    caching.add_argument(
        "--no-cache", action="store_true", help="compute all tokens anew at each step"
    )
    caching.add_argument(
        "--kv-bits",
        type=int,
        choices=(2, 3, 4),
        help="compress keys and values with TurboQuant to this many bits per number",
    )

    score = commands.add_parser(
        "score",
        **about("tell what a text costs a model, in nats a token and bits a byte"),
        example="--model reference --text README.md",
    )
    _add_model(score)
    score.add_argument("--text", type=Path, required=True, help="a file in UTF-8")
    score.add_argument(
        "--window",
        type=int,
        help="tokens in a window (default: the model's context, at most 1,024)",
    )
    score.add_argument(
        "--stride",
        type=int,
        help="tokens from the start of one window to the next (default: half a window)",
    )
    score.add_argument("--json", action="store_true", help="print it as JSON")
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--model",
        default="reference",
        help="reference, smollm2 (fetched once, 93 MB), a folder in our layout or Hugging Face's, "
        "or a .gguf file (default: reference)",
    )
    for name, told in (("--checkpoint", "this project's"), ("--huggingface", "Hugging Face's")):
        source.add_argument(name, type=Path, help=f"a folder in {told} layout, instead of --model")
    add_device_and_dtype(parser.add_argument)


def _describe(options: argparse.Namespace) -> str:
    from reference_model import costs

    config = preset(options.preset, **dict(_choice(text) for text in options.choices))
    parts = costs.parameters_by_part(config) | {"all": costs.parameter_count(config)}
    lines = [f"{name:>16}  {count:>15,} parameters" for name, count in parts.items()]
    flops = costs.forward_flops(config, 1, config.context_length - 1).total
    lines += [
        f"{'weights':>16}  {costs.weight_bytes(config):>15,} bytes in float32",
        f"{'KV cache':>16}  {costs.kv_cache_bytes(config, 1):>15,} bytes a token in float32",
        f"{'decoding':>16}  {flops:>15,} FLOPs for token {config.context_length:,}",
    ]
    return "\n".join(lines)


def _choice(text: str) -> tuple[str, Any]:
    """`position=rope` → ("position", "rope"), in the field's own type where it has one."""
    name, separator, value = text.partition("=")
    if not separator:
        raise UserError(f"{text!r} is not a choice; write FIELD=VALUE, such as position=rope")
    kind = get_type_hints(GPTConfig).get(name)
    if kind is bool and value in ("True", "False"):
        return name, value == "True"
    for plain in (int, float):
        if plain not in (kind, *get_args(kind)):
            continue
        try:
            return name, plain(value)
        except ValueError:
            pass  # the configuration names the field and what it takes
    return name, value


def _generate(options: argparse.Namespace) -> str:
    import torch

    from reference_model import tokenizer_file
    from reference_model.generate import check_request, generate
    from reference_model.quantization.kv_cache import QuantizedKVCache
    from reference_model.quantization.turboquant import TurboQuant

    device = resolve_device(options.device)
    opened = _opened(options, device)
    model, tokenizer = opened.model, opened.tokenizer
    ends = () if options.past_end else opened.find_ends()
    encoded = tokenizer_file.encode(tokenizer, options.prompt)
    prompt = torch.tensor([encoded], dtype=torch.long, device=device)
    cache = None
    if options.kv_bits is not None:
        # Before memory is taken for as many tokens.
        check_request(model.config, prompt, options.tokens, options.temperature, options.top_k)
        codec = TurboQuant(model.config.d_head, options.kv_bits)
        cache = QuantizedKVCache(model, 1, prompt.shape[1] + options.tokens - 1, codec)
    model.register_forward_hook(lambda *passed: _check_numbers(passed[-1], opened.place))
    sequence = generate(
        model,
        prompt,
        options.tokens,
        use_cache=not options.no_cache,
        temperature=options.temperature,
        top_k=options.top_k,
        generator=torch.Generator(device).manual_seed(options.seed),
        cache=cache,
        ends=ends,
    )
    tokens = sequence[0].tolist()
    return tokenizer_file.decode(tokenizer, tokens[:-1] if tokens[-1] in ends else tokens)


def _score(options: argparse.Namespace) -> str:
    from reference_model.score import score

    try:
        text = read_bytes(options.text, MOST_TEXT).decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{options.text} is not UTF-8; use a text file") from None
    device = resolve_device(options.device)
    opened = _opened(options, device)
    found = score(opened.model, opened.tokenizer, text, options.window, options.stride)
    told = {
        "model": str(opened.place),
        "device": device,
        "dtype": options.dtype,
        "tokens": found.tokens,
        "nats_per_token": found.nats_per_token,
        "bits_per_byte": found.bits_per_byte,
        "text_bytes": found.text_bytes,
        "window": found.window,
        "stride": found.stride,
        "prefix": list(found.prefix),
    }
    if options.json:
        return json.dumps(told, indent=2)
    return "\n".join(
        (
            f"{found.tokens:,} tokens predicted, of {found.text_bytes:,} bytes",
            f"{found.nats_per_token:.4f} nats a token",
            f"{found.bits_per_byte:.4f} bits a byte",
            f"in {options.dtype} on {device}",
            f"windows of {found.window:,} tokens, {found.stride:,} apart",
            f"before the text: {' '.join(found.prefix) or 'nothing'}",
        )
    )


def _opened(options: argparse.Namespace, device: str) -> OpenedModel:
    import torch

    from reference_model import checkpoints
    from reference_model.models import of_folder, open_model

    dtype = getattr(torch, options.dtype)
    if options.checkpoint:
        opened = of_folder(options.checkpoint, checkpoints.load, dtype)
    elif options.huggingface:
        opened = of_folder(options.huggingface, checkpoints.load_huggingface, dtype)
    else:
        opened = open_model(options.model, dtype)
    opened.model.to(device)
    return opened


COMMANDS = {"describe": _describe, "generate": _generate, "score": _score}


def _check_numbers(logits: Any, folder: Path) -> None:
    """The likeliest of numbers that are none is no token."""
    if not logits.isfinite().all():
        raise UserError(
            f"the model of {folder} answers with numbers that are not finite; "
            "fetch or train its weights again"
        )


if __name__ == "__main__":
    sys.exit(main())
