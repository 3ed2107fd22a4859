"""Faults of what measures: clocks, counters, limits, windows of text, and closed forms of costs."""

from __future__ import annotations

from reports.gate.validation.faults.change import of_group
from reports.gate.validation.faults.places import (
    CACHE_QUALITY,
    CLOCK,
    COSTS,
    COUNTING,
    FINETUNING,
    FLOPS,
    LIMITS,
    MEMORY,
    NVML,
    PERPLEXITY,
    TEXTS,
    TOPICS,
    WINDOWS,
)

fault = of_group("instruments")

INSTRUMENTS = (
    fault(
        "warm-up is timed",
        "Durations of the calls that warm up are kept among the others.",
        (
            CLOCK,
            "    for function in arms.values():\n"
            "        for _ in range(warmup):\n"
            "            function()\n"
            "    seconds: dict[str, list[float]] = {name: [] for name in arms}\n",
            "    seconds: dict[str, list[float]] = {name: [] for name in arms}\n"
            "    for name, function in arms.items():\n"
            "        for _ in range(warmup):\n"
            "            seconds[name].append(_duration(function))\n",
        ),
    ),
    fault(
        "rounds always go forwards",
        "Arms that take turns do so in the same order in each round.",
        (
            CLOCK,
            "        for name in list(arms) if turn % 2 == 0 else reversed(list(arms)):\n",
            "        for name in list(arms):\n",
        ),
    ),
    fault(
        "milliseconds taken for seconds",
        "Durations on CUDA are milliseconds that are called seconds.",
        (CLOCK, "before.elapsed_time(after) / 1e3 for", "before.elapsed_time(after) for"),
    ),
    fault(
        "one process answers for all",
        "One fresh process is started, and its answer taken as often as processes were asked for.",
        (
            CLOCK,
            "    return [_one_process(target, request, threads, environment) "
            "for _ in range(processes)]\n",
            "    return [_one_process(target, request, threads, environment)] * processes\n",
        ),
    ),
    fault(
        "whole tables counted as read",
        "A look-up of embeddings counts the bytes of the whole table.",
        (
            COUNTING,
            "LOOKED_UP = (aten.embedding, aten.index_select, aten.index)\n",
            "LOOKED_UP = (aten.index_select, aten.index)\n",
        ),
    ),
    fault(
        "tied head counted twice",
        "Counted parameters have a matrix that is shared in them twice.",
        (
            COUNTING,
            "        return sum(p.numel() for p in Model(config).parameters())\n",
            "        found = Model(config).named_parameters(remove_duplicate=False)\n"
            "        return sum(p.numel() for _, p in found)\n",
        ),
    ),
    fault(
        "integer products count half",
        "FLOPs of an INT8 product are half of what they are.",
        (
            FLOPS,
            '"aten::_int_mm": lambda a, b, *_, out: 2 * a.numel() * b.shape[1],\n',
            '"aten::_int_mm": lambda a, b, *_, out: a.numel() * b.shape[1],\n',
        ),
    ),
    fault(
        "attention counted without a past",
        "FLOPs of attention count as many keys as queries, also where a cache holds more.",
        (
            FLOPS,
            "    return 2 * B * H * T * k.shape[-2] * (D + v.shape[-1])\n",
            "    return 2 * B * H * T * T * (D + v.shape[-1])\n",
        ),
    ),
    fault(
        "storage counted for each view",
        "Held bytes count a storage again for each view that begins elsewhere in it.",
        (
            MEMORY,
            "        sizes[storage.device, storage.data_ptr()] = storage.nbytes()\n",
            "        sizes[storage.device, tensor.data_ptr()] = storage.nbytes()\n",
        ),
    ),
    fault(
        "peak of the imports stays",
        "Before a call whose peak is wanted the system is asked to forget something else.",
        (MEMORY, 'CLEAR_REFS.write_text("5")', 'CLEAR_REFS.write_text("1")'),
    ),
    fault(
        "bandwidth probed on zeros",
        "The probe of bandwidth reads zeros, which need not lie in memory.",
        (
            LIMITS,
            "    buffer = torch.ones(values, device=device)\n",
            "    buffer = torch.zeros(values, device=device)\n",
        ),
    ),
    fault(
        "bound of a batch reads one cache",
        "The least seconds of a decode step count the cache of one sequence of a batch.",
        (
            LIMITS,
            "kv_cache_bytes(config, past, batch_size, width)\n",
            "kv_cache_bytes(config, past, 1, width)\n",
        ),
    ),
    fault(
        "texts share their stretches",
        "Stretches of one text go by the numbers of another's.",
        (WINDOWS, "        before += parts\n", ""),
    ),
    fault(
        "windows ignore the seed",
        "Windows are drawn from all over a text in the same way for every seed.",
        (
            WINDOWS,
            "    generator = np.random.default_rng(seed)\n",
            "    generator = np.random.default_rng(0)\n",
        ),
    ),
    fault(
        "losses of a model in training",
        "Losses are taken with the dropout of training on, where the model is in training.",
        (PERPLEXITY, "    model.eval()\n", ""),
    ),
    fault(
        "divergence turned round",
        "The divergence of predictions is taken from the compressed to the uncompressed.",
        (
            CACHE_QUALITY,
            "                    (probabilities * (expected - log_found)).sum(-1),\n",
            "                    (log_found.exp() * (log_found - expected)).sum(-1),\n",
        ),
    ),
    fault(
        "schedule of a fine-tune stands still",
        "A fine-tune keeps the learning rate of its first step.",
        (
            FINETUNING,
            "        spec.steps, spec.learning_rate, warmup_steps=spec.warmup_steps, ",
            "        spec.steps, spec.learning_rate / 4, warmup_steps=0, decay_steps=0, ",
        ),
    ),
    fault(
        "fine-tunes validated on held-out text",
        "What should be the validation loss of a fine-tune is that of held-out text.",
        (
            FINETUNING,
            'zip(("validation", "test"), windows, strict=True)',
            'zip(("test", "test"), windows, strict=True)',
        ),
    ),
    fault(
        "energy in mJ",
        "Energy is given in mJ and called J.",
        (
            NVML,
            '    return Reading(millijoules / 1000, "J", after.source)\n',
            '    return Reading(millijoules, "J", after.source)\n',
        ),
    ),
    fault(
        "every epoch in one order",
        "Batches of shuffled windows come in the same order in each epoch.",
        (TEXTS, "manual_seed(seed * 1_000_003 + epoch)\n", "manual_seed(seed * 1_000_003)\n"),
    ),
    fault(
        "passages in several splits",
        "A passage that several topics share is in training and in held-out text.",
        (TOPICS, "    return not known\n", "    return True\n"),
    ),
    fault(
        "causal pairs lack the diagonal",
        "Useful FLOPs of attention leave out half of the pairs of a token with itself.",
        (COSTS, "T * past + T * (T + 1) // 2\n", "T * past + T * T // 2\n"),
    ),
    fault(
        "adapters of all three count one",
        "The closed form of adapters on query, key and value together has the outputs of one.",
        (COSTS, '"qkv": (C, queries + 2 * keys),\n', '"qkv": (C, queries),\n'),
    ),
)
