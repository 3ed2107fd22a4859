"""Triton's side of triton_attention.py: two kernels that attend, one that encodes.

Whole numbers are int32 and others float32 before they meet an operator: where they are narrower,
Triton's interpreter and its compiler differ.
"""

import triton
import triton.language as tl


@triton.jit
def _levels(packed, strides, batch, group, token, inside, BITS, D, BLOCK: tl.constexpr):
    """Of one head's packed tokens: levels (tokens, BLOCK), any one where there is no code."""
    CODES: tl.constexpr = 4 if BITS == 3 else 8 // BITS  # of a word
    at = tl.arange(0, BLOCK // CODES)[None, :]
    there = inside[:, None] & (at < (D + CODES - 1) // CODES)
    low = packed[0] + batch * strides[0][0] + group * strides[0][1] + token[:, None] * strides[0][2]
    word = tl.load(low + at, there, other=0).to(tl.int32)
    if BITS == 3:  # the upper halves of two words are a byte
        high = packed[1] + batch * strides[1][0] + group * strides[1][1]
        byte = tl.load(high + token[:, None] * strides[1][2] + at // 2, there, other=0)
        word |= ((byte.to(tl.int32) >> (4 * (at % 2))) & 15) << 8
    shift = BITS * tl.arange(0, CODES)[None, None, :]
    code = (word[:, :, None] >> shift) & (2**BITS - 1)
    return tl.load(packed[3] + strides[3][0] * tl.reshape(code, (token.shape[0], BLOCK)))


@triton.jit
def _scales(packed, strides, batch, group, token, inside):
    at = packed[2] + batch * strides[2][0] + group * strides[2][1] + token * strides[2][2]
    return tl.load(at, inside, other=0).to(tl.float32)


@triton.jit
def _exact(vectors, strides, batch, group, token, inside, D, BLOCK: tl.constexpr):
    """Vectors (tokens, BLOCK) as they came, 0 beyond D and where there is no token."""
    column = tl.arange(0, BLOCK)[None, :]
    at = vectors + batch * strides[0] + group * strides[1] + token[:, None] * strides[2] + column
    return tl.load(at, inside[:, None] & (column < D), other=0).to(tl.float32)


@triton.jit(do_not_specialize=["length", "count", "columns", "span"])  # they change with each call
def attend(
    q, q_strides, turned, keys, key_strides, values, value_strides,
    exact, exact_strides, mask, mask_strides, sums, stats,
    groups, sharing, length, count, columns, span, scale,
    MASK: tl.constexpr, BITS_K: tl.constexpr, BITS_V: tl.constexpr,
    D: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """What one stretch of tokens, packed or exact, adds to a block of queries: Σ p v, max and Σ p.

    Its rows are the queries of the heads that share keys. Sums of packed values are in the codec's
    basis; ``sums`` (B·H·T, stretches, D) and ``stats`` (B·H·T, stretches, 2) are float32.
    """
    blocks = tl.cdiv(sharing * length, ROWS)
    head, part = tl.program_id(0) // blocks, tl.program_id(1)
    batch, group = (head // groups).to(tl.int64), (head % groups).to(tl.int64)
    row = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    asked = row < sharing * length
    position, column = row % length, tl.arange(0, BLOCK)[None, :]
    heads = group * sharing + row // length
    row = (batch * groups * sharing + heads) * length + position  # of all
    inside, past = asked[:, None] & (column < D), columns - length

    stretches = tl.cdiv(count, span)  # of packed tokens; then come the exact ones
    most = tl.full((ROWS,), -float("inf"), tl.float32)
    total, acc = tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS, BLOCK), tl.float32)
    for EXACT in tl.static_range(2):  # one of the two loops is empty
        first = (count + (part - stretches) * span) if EXACT else part * span
        last = tl.minimum(first + span, columns if EXACT else count)
        if EXACT:
            first = tl.where(part < stretches, last, first)
            of_q = batch * q_strides[0] + heads * q_strides[1] + position * q_strides[2]
            x = tl.load(q + of_q[:, None] + column, inside, other=0).to(tl.float32)
        else:
            x = tl.load(turned + row[:, None] * D + column, inside, other=0)
        if MASK == "causal":  # nobody sees what is behind the last of these queries
            last = tl.minimum(last, past + tl.max(tl.where(asked, position, 0)) + 1)
        for start in range(first, last, TOKENS):
            token = start + tl.arange(0, TOKENS)
            seen = token < last
            if EXACT:
                k = _exact(exact[0], exact_strides[0], batch, group, token - count, seen, D, BLOCK)
                v = _exact(exact[1], exact_strides[1], batch, group, token - count, seen, D, BLOCK)
            else:
                k = _levels(keys, key_strides, batch, group, token, seen, BITS_K, D, BLOCK)
                v = _levels(values, value_strides, batch, group, token, seen, BITS_V, D, BLOCK)
            score = scale * tl.dot(x, tl.trans(k), input_precision="ieee")
            if not EXACT:
                score *= _scales(keys, key_strides, batch, group, token, seen)[None, :]
            visible = asked[:, None] & seen[None, :]
            if MASK == "causal":
                visible &= token[None, :] <= past + position[:, None]
            elif MASK != "none":
                of_head = batch * mask_strides[0] + heads * mask_strides[1]
                entry = mask + (of_head + position * mask_strides[2])[:, None]
                entry += token[None, :] * mask_strides[3]
                if MASK == "added":
                    score += tl.load(entry, visible, other=0).to(tl.float32)
                else:
                    visible &= tl.load(entry, visible, other=0).to(tl.int32) != 0
            score = tl.where(visible, score, -float("inf"))
            new = tl.maximum(most, tl.max(score, 1))
            base = tl.where(new == -float("inf"), 0.0, new)  # nothing was visible up to here
            weight, kept = tl.exp(score - base[:, None]), tl.exp(most - base)
            total, most = total * kept + tl.sum(weight, 1), new
            if not EXACT:
                weight *= _scales(values, value_strides, batch, group, token, seen)[None, :]
            acc = acc * kept[:, None] + tl.dot(weight, v, input_precision="ieee")

    at = row * tl.num_programs(1) + part
    tl.store(sums + at[:, None] * D + column, acc, inside)
    tl.store(stats + 2 * at, most, asked)
    tl.store(stats + 2 * at + 1, total, asked)


@triton.jit(do_not_specialize=["length", "packed", "parts"])
def combine(
    sums, stats, bias, bias_strides, of_packed, of_exact, groups, sharing, length, packed, parts,
    BIAS: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """The stretches of one query as one: what packed values gave, and what exact ones and biases.

    A query that sees nothing has zeros, as in PyTorch's attention.
    """
    row = tl.program_id(0).to(tl.int64)
    part, column = tl.arange(0, PARTS), tl.arange(0, BLOCK)
    at, there = row * parts + part, part < parts
    most = tl.load(stats + 2 * at, there, other=-float("inf"))
    top = tl.max(most, 0)
    weight = tl.exp(most - tl.where(top == -float("inf"), 0.0, top))
    total = tl.sum(weight * tl.load(stats + 2 * at + 1, there, other=0), 0)
    weight = tl.where(total == 0, 0.0, weight / total)
    inside = there[:, None] & (column < D)[None, :]
    found = weight[:, None] * tl.load(sums + at[:, None] * D + column[None, :], inside, other=0)
    turned = tl.sum(tl.where((part < packed)[:, None], found, 0.0), 0)
    straight = tl.sum(tl.where((part < packed)[:, None], 0.0, found), 0)
    if BIAS:
        head = row // length // sharing
        at = head // groups * bias_strides[0] + head % groups * bias_strides[1]
        straight += tl.load(bias + at + column, column < D, other=0).to(tl.float32)
    tl.store(of_packed + row * D + column, turned, column < D)
    tl.store(of_exact + row * D + column, straight, column < D)


@triton.jit(do_not_specialize=["rows"])
def encode(
    x, x_strides, bias, bias_strides, sizes, rotation, levels, step, low, high, scales, rows,
    EDGES: tl.constexpr, SCALE: tl.constexpr, BIAS: tl.constexpr, BITS: tl.constexpr,
    D: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    """Vectors (K, B, G, T, D), less a bias, turned into the codec's basis → planes and scales."""
    CODES: tl.constexpr = 4 if BITS == 3 else 8 // BITS  # of a word
    WORDS: tl.constexpr = BLOCK // CODES
    HELD: tl.constexpr = (D + CODES - 1) // CODES
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    asked, column = row < rows, tl.arange(0, BLOCK)
    rest, of_x, of_bias = row, row * 0, row * 0
    for i in tl.static_range(3, -1, -1):
        of_x += rest % sizes[i] * x_strides[i]
        of_bias += rest % sizes[i] * bias_strides[i]
        rest //= sizes[i]
    y = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(0, D, PIECE):
        d = start + tl.arange(0, PIECE)
        inside = asked[:, None] & (d < D)[None, :]
        piece = tl.load(x + of_x[:, None] + d[None, :], inside, other=0).to(tl.float32)
        if BIAS:
            piece -= tl.load(bias + of_bias[:, None] + d[None, :], inside, other=0).to(tl.float32)
        inside = (d < D)[:, None] & (column < D)[None, :]
        turn = tl.load(rotation + column[None, :] * D + d[:, None], inside, other=0)
        y += tl.dot(piece, turn, input_precision="ieee")

    norm = tl.sqrt_rn(tl.sum(y * y, 1))
    code = (y < 0).to(tl.int32) << (BITS - 1)  # sign and magnitude; 0 beyond D, where y is 0
    for i in tl.static_range(len(EDGES)):
        code += (tl.abs(y) > (norm * EDGES[i])[:, None]).to(tl.int32)
    scale = norm
    if SCALE != "norm":
        level = tl.where(column < D, tl.load(levels + code * step), 0.0)
        squared, product = tl.sum(level * level, 1), tl.sum(y * level, 1)
        if SCALE == "norm_corrected":
            scale = tl.div_rn(norm, tl.sqrt_rn(squared))
        elif SCALE == "least_squares":
            scale = tl.div_rn(product, squared)
        else:
            scale = tl.where(norm == 0, 0.0, tl.div_rn(norm * norm, product))
    tl.store(scales + row, scale.to(tl.float16), asked)

    shift = BITS * tl.arange(0, CODES)[None, None, :]
    word = tl.sum(tl.reshape(code, (ROWS, WORDS, CODES)) << shift, 2)
    WIDE: tl.constexpr = HELD + HELD % 2 if BITS == 3 else HELD
    at = tl.arange(0, WORDS)[None, :]
    tl.store(low + row[:, None] * WIDE + at, word.to(tl.uint8), asked[:, None] & (at < WIDE))
    if BITS == 3:  # the upper halves of two words are a byte
        shift = 4 * tl.arange(0, 2)[None, None, :]
        byte = tl.sum(tl.reshape(word >> 8, (ROWS, WORDS // 2, 2)) << shift, 2)
        at = tl.arange(0, WORDS // 2)[None, :]
        there = asked[:, None] & (at < WIDE // 2)
        tl.store(high + row[:, None] * (WIDE // 2) + at, byte.to(tl.uint8), there)
