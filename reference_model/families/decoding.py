"""What the JSON files of a Hugging Face folder say of decoding: which tokens end a text.

Keys and defaults are those of transformers 5.23.0 (PreTrainedConfig, GenerationConfig).
"""

from pathlib import Path
from typing import Any

from reference_model.errors import UserError, notice
from reference_model.reading import quoted, read_json
from reference_model.settings import ANY, Known, check_settings

# What decoding is asked for where the caller does not say: the caller here always does, by
# --tokens, --temperature and --top-k.
SAMPLING: dict[str, tuple[Any, ...]] = {
    "do_sample": (False, None),
    "temperature": (1.0, 1, None),
    "top_k": (50, 0, None),
    "top_p": (1.0, 1, None),
    "min_p": (None, 0.0, 0),
    "top_h": (None,),
    "typical_p": (1.0, 1, None),
    "epsilon_cutoff": (0.0, 0, None),
    "eta_cutoff": (0.0, 0, None),
}
_WITHOUT_EFFECT = (
    *("bos_token_id", "decoder_start_token_id", "max_length", "max_new_tokens", "max_time"),
    *("use_cache", "cache_implementation", "cache_config", "max_cache_len", "low_memory"),
    *("return_dict_in_generate", "output_scores", "output_logits", "output_attentions"),
    *("output_hidden_states", "remove_invalid_values", "early_stopping", "length_penalty"),
    *("num_beam_groups", "diversity_penalty", "encoder_repetition_penalty"),
    *("encoder_no_repeat_ngram_size", "compile_config", "disable_compile", "prefill_chunk_size"),
    *("continuous_batching_config", "is_assistant", "num_assistant_tokens"),
    *("num_assistant_tokens_schedule", "assistant_confidence_threshold", "assistant_lookbehind"),
    *("assistant_early_exit", "assistant_ensemble_weight", "target_lookbehind"),
    *(
        "prompt_lookup_num_tokens",
        "renormalize_logits",
        "max_matching_ngram_size",
        "speculation_type",
    ),
    *("transformers_version", "_from_model_config"),
)
DECODING: Known = {
    **dict.fromkeys(_WITHOUT_EFFECT, ANY),
    **dict.fromkeys(SAMPLING, ANY),
    **dict.fromkeys(("eos_token_id", "pad_token_id"), ANY),
    "num_beams": (1, None),
    "num_return_sequences": (1, None),
    "min_length": (0, None),
    "min_new_tokens": (None, 0),
    "repetition_penalty": (1.0, 1, None),
    "no_repeat_ngram_size": (0, None),
    "guidance_scale": (None, 1.0, 1),
    "penalty_alpha": (None, 0.0, 0),
    **dict.fromkeys(
        (
            *("bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "sequence_bias"),
            *("forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty"),
            *("stop_strings", "constraints", "force_words_ids", "dola_layers", "token_healing"),
            *("watermarking_config", "use_mtp"),
        ),
        (None, False, [], {}),
    ),
}


def read_ends(folder: Path) -> tuple[int, ...]:
    """The tokens that end a text, as `eos_token_id` has them; none where the folder names none.

    As in transformers, `generation_config.json` tells alone where there is one, and `config.json`
    otherwise. Tells of a way of sampling that the file asks for. Raises `UserError` for what
    decoding is asked for and is not done here, by the key's name.
    """
    path = folder / "generation_config.json"
    if path.exists():
        fields = read_json(path)
    else:
        path = folder / "config.json"
        fields = {name: value for name, value in read_json(path).items() if name in DECODING}
    check_settings(fields, DECODING, path)
    asked = [
        f"{name}={quoted(fields[name])}"
        for name, neutral in SAMPLING.items()
        if name in fields and fields[name] not in neutral
    ]
    if asked:
        notice(f"{path} sets {', '.join(asked)}, which is ignored: options say how to sample")
    told = fields.get("eos_token_id")
    ends = told if isinstance(told, list) else [] if told is None else [told]
    if any(type(end) is not int for end in ends):
        raise UserError(f"{path} has eos_token_id={quoted(told)}; use a token's id, or a list")
    return tuple(ends)
