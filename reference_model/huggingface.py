"""What the JSON files of a GPT-2 folder in the Hugging Face layout say of model and decoding.

Keys and defaults are those of transformers 5.23.0 (GPT2Config, PreTrainedConfig, GenerationConfig)
and of the older configurations of GPT-2 that are still in use.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reference_model.config import GPTConfig, checked
from reference_model.errors import UserError, notice
from reference_model.reading import quoted, read_json
from reference_model.settings import ANY, Known, check_settings, read_setting

# Our field → its names in config.json. The second is common to all of transformers' models.
SIZES: dict[str, tuple[str, ...]] = {
    "vocab_size": ("vocab_size",),
    "context_length": ("n_positions", "max_position_embeddings"),
    "n_layer": ("n_layer", "num_hidden_layers"),
    "n_head": ("n_head", "num_attention_heads"),
    "n_embd": ("n_embd", "hidden_size"),
    "norm_epsilon": ("layer_norm_epsilon",),
}
_READ_BELOW = (
    *(name for names in SIZES.values() for name in names),
    *("n_inner", "n_ctx", "tie_word_embeddings"),
)
# Of dropout, initialisation, other heads than the language model's, labels, the library itself,
# how much is returned and where the file came from.
_WITHOUT_EFFECT = (
    *("resid_pdrop", "embd_pdrop", "attn_pdrop", "initializer_range", "gradient_checkpointing"),
    *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels"),
    *("summary_first_dropout", "n_special", "predict_special_tokens", "id2label", "label2id"),
    *("num_labels", "_num_labels", "problem_type", "finetuning_task", "task_specific_params"),
    *("architectures", "tokenizer_class", "transformers_version", "_name_or_path", "name_or_path"),
    *("_commit_hash", "dtype", "torch_dtype", "use_bfloat16", "torchscript", "return_dict"),
    *("output_attentions", "output_hidden_states", "output_past", "use_return_dict"),
    *("chunk_size_feed_forward", "attn_implementation", "_attn_implementation"),
    *("_attn_implementation_autoset", "model_parallel", "xla_device", "is_decoder"),
    *("unk_token_id", "sep_token_id", "cls_token_id", "mask_token_id"),
    "reorder_and_upcast_attn",  # the same sum, in another order and in float32
)

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
_DECODING_WITHOUT_EFFECT = (
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
_DECODING: Known = {
    **dict.fromkeys(_DECODING_WITHOUT_EFFECT, ANY),
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

_MODEL: Known = {
    **dict.fromkeys((*_DECODING, *_READ_BELOW, *_WITHOUT_EFFECT), ANY),
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "is_encoder_decoder": (False,),
}


def config_from_huggingface(fields: Mapping[str, Any], source: Path) -> GPTConfig:
    """Our configuration of a Hugging Face GPT-2 `config.json`.

    Raises `UserError` for what it asks for and we cannot represent or do not know, by the key's
    name, and for two names of one size that differ.
    """
    check_settings(fields, _MODEL, source)
    defaults = GPTConfig()
    sizes = {
        name: read_setting(fields, names, getattr(defaults, name), source)
        for name, names in SIZES.items()
    }
    tied = fields.get("tie_word_embeddings", True)
    if not isinstance(tied, bool):
        raise UserError(f"{source} has tie_word_embeddings={quoted(tied)}; use true or false")
    choices = {"head": "tied" if tied else "untied", "d_mlp": fields.get("n_inner")}
    config = checked({**sizes, **choices}, source)
    context = fields.get("n_ctx")
    if context is not None and context != config.context_length:
        notice(
            f"{source} has n_ctx={quoted(context)} and {config.context_length} positions; n_ctx "
            "is left alone, as by transformers"
        )
    return config


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
        fields = {name: value for name, value in read_json(path).items() if name in _DECODING}
    check_settings(fields, _DECODING, path)
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
