// Attention of one layer over keys and values in few bits, and the encoding of new ones.
//
// B batch, H heads of queries, G of keys and values, T new tokens, D width of a head, N floats of a vector register.
// `Job` is what reference_model/kernels/packed_attention.py fills in. Compiled for AVX-512, for AVX2 or for neither,
// which differ down to `sums` alone: how codes are widened, looked up and added up.
//
// Codes are packed as reference_model/quantization/packing.py says: a word holds four codes. Register lane i reads word
// i, so that a shift by p codes gives coordinate 4 i + p. Rotations come with their columns in that order, so that no
// code needs a shuffle but the look-up itself.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <thread>
#include <type_traits>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
constexpr int N = 16;
#elif defined(__AVX2__)
#include <immintrin.h>
constexpr int N = 8;
#else
constexpr int N = 4;
#endif

// Keys, or values, of one layer. Null: there are none. `room` is D rounded up to whole groups.
struct Side {
    uint8_t *low, *high;  // (B, G, capacity, bytes) each: planes of codes, or bfloat16 in `low`
    uint16_t* scales;  // (B, G, capacity) float16
    const float *levels, *edges;  // (16,) by code, repeated where there are fewer; between magnitudes
    const float *turn, *turn_back;  // Rᵀ (D, room) and R (room, room); `room` columns, or rows, as lanes read
    const float *bias, *fresh;  // (G, D), taken off what is encoded: new tokens (B, G, T, D)
    int64_t fresh_b, fresh_g, fresh_t;  // strides, in floats
    const float *first, *last;  // (B, G, ·, D) contiguous: sinks and newest tokens, exact
    int32_t bits, scale;  // 2, 3, 4 or 16; which scale, in the order of `Scale`
};

struct Job {
    Side keys, values;
    const float* queries;  // (B, H, T, D), null: nothing is asked
    int64_t query_b, query_h, query_t;
    float* out;  // (B, H, T, D) contiguous
    const float *out_bias, *mask;  // (G, D) added to it; (1 or H, T, start + T) added to scores, null: causal
    int64_t mask_h, capacity, start;  // stride of its heads; slots of the planes; tokens before the new ones
    int64_t sinks, waiting, window;  // tokens in `first`, in `last`; how many newest are read exactly
    int32_t B, G, H, T, D, threads;
    void (*parallel)(void (*)(void*), void*, unsigned, unsigned);  // GOMP_parallel
};

namespace {

typedef float vf __attribute__((vector_size(4 * N)));
typedef int32_t vi __attribute__((vector_size(4 * N)));
typedef uint32_t vu __attribute__((vector_size(4 * N)));
typedef uint64_t vl __attribute__((vector_size(4 * N)));
typedef uint16_t vh __attribute__((vector_size(2 * N)));
typedef uint8_t vb __attribute__((vector_size(N)));
typedef uint8_t vq __attribute__((vector_size(N / 2)));

template <class V>
inline V load(const void* from) {
    V x;
    std::memcpy(&x, from, sizeof x);
    return x;
}
template <class V>
inline V load(const void* from, int64_t bytes) {  // which may be fewer than it has: the rest is zero
    if (bytes >= int64_t(sizeof(V))) return load<V>(from);
    V x = {};
    if (bytes > 0) std::memcpy(&x, from, bytes);
    return x;
}
template <class V>
inline void store(void* to, V x, int64_t bytes = sizeof(V)) {
    if (bytes >= int64_t(sizeof x)) std::memcpy(to, &x, sizeof x);
    if (bytes > 0 && bytes < int64_t(sizeof x)) std::memcpy(to, &x, bytes);
}
inline vf all_of(float x) { return x - vf{}; }
inline vi lanes() {
    constexpr int32_t FIRST[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return load<vi>(FIRST);
}

// Of a code's bits `look_up` reads as many as it has. `high_halves`, of two words a byte: their bits 8 to 11.
#if defined(__AVX512F__)
typedef vf Table;
template <int BITS>
inline vf look_up(Table levels, vu code) {
    return (vf)_mm512_permutexvar_ps((__m512i)code, (__m512)levels);
}
inline vu widen(vb x) { return (vu)_mm512_cvtepu8_epi32((__m128i)x); }
inline vu widen(vh x) { return (vu)_mm512_cvtepu16_epi32((__m256i)x); }
inline vu high_halves(vq x) {
    const vl places = vl{0, 1, 2, 3, 4, 5, 6, 7} * 0x0000010000000100 + 0x8080008080800080;
    vu bytes = (vu)_mm512_shuffle_epi8(_mm512_set1_epi64((int64_t)x), (__m512i)places);
    return bytes >> (vu)(vl{} + (uint64_t(4) << 32)) & 0xf00;
}
inline float sum(vf x) { return _mm512_reduce_add_ps((__m512)x); }
inline float largest(vf x) { return _mm512_reduce_max_ps((__m512)x); }
#else
#if defined(__AVX2__)
typedef vf Table;  // the upper half of 16 levels is the lower one, negative
template <int BITS>
inline vf look_up(Table levels, vu code) {
    vf found = (vf)_mm256_permutevar8x32_ps((__m256)levels, (__m256i)code);
    return BITS < 4 ? found : (vf)((vu)found ^ ((code << 28) & 0x80000000u));
}
inline vu widen(vb x) { return (vu)_mm256_cvtepu8_epi32(_mm_loadu_si64(&x)); }
inline vu widen(vh x) { return (vu)_mm256_cvtepu16_epi32((__m128i)x); }
#else
struct Table {
    float levels[16];
};
template <int BITS>
inline vf look_up(const Table& of, vu code) {
    return vf{of.levels[code[0] & 15], of.levels[code[1] & 15], of.levels[code[2] & 15], of.levels[code[3] & 15]};
}
inline vu widen(vb x) { return __builtin_convertvector(x, vu); }
inline vu widen(vh x) { return __builtin_convertvector(x, vu); }
#endif
inline vu high_halves(vq x) {
    std::conditional_t<N == 8, uint32_t, uint16_t> halves;
    std::memcpy(&halves, &x, sizeof x);
    return ((halves + vu{}) >> (vu)(4 * lanes()) & 15) << 8;
}
typedef float v4 __attribute__((vector_size(16)));
inline float sum(vf x) {
    v4 y = load<v4>(&x);
    if (N == 8) y += load<v4>((const char*)&x + 16);
    return (y[0] + y[2]) + (y[1] + y[3]);
}
inline float largest(vf x) {
    v4 y = load<v4>(&x), z = load<v4>((const char*)&x + 4 * N - 16);
    y = z > y ? z : y;
    return std::max(std::max(y[0], y[2]), std::max(y[1], y[3]));
}
#endif

// The sums of four registers, side by side.
inline void sums(const vf x[4], float* to) {
#if defined(__AVX512F__)
    auto pairs = [](vf a, vf b) {
        return _mm512_unpacklo_ps((__m512)a, (__m512)b) + _mm512_unpackhi_ps((__m512)a, (__m512)b);
    };
    __m512d ab = (__m512d)pairs(x[0], x[1]), cd = (__m512d)pairs(x[2], x[3]);
    __m512 four = (__m512)_mm512_unpacklo_pd(ab, cd) + (__m512)_mm512_unpackhi_pd(ab, cd);
    __m256 two = _mm512_castps512_ps256(four) + _mm512_extractf32x8_ps(four, 1);
    _mm_storeu_ps(to, _mm256_castps256_ps128(two) + _mm256_extractf128_ps(two, 1));
#else
    for (int i = 0; i < 4; ++i) to[i] = sum(x[i]);
#endif
}

// e^x for x <= 0, to 2 units in the last place; 0 below -87, NaN of NaN.
inline vf exponential(vf x) {
    const vf low = all_of(-87.0f);
    vi below = x < low;
    vf y = below ? low : x;
    const float magic = 12582912.0f;  // 1.5 * 2^23: what is added is rounded to a whole number
    vf shifted = y * 1.44269504f + magic;
    vf k = shifted - magic;
    vf f = (y - k * 0.693359375f) + k * 2.12194440e-4f;
    vf p = all_of(1.9875691500e-4f);
    for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        p = p * f + c;
    p = p * f * f + f + 1.0f;
    vf power = (vf)(((vi)shifted << 23) + 0x3f800000);  // the low bits of `shifted` are k
    return below ? vf{} : p * power;
}

inline vf of_halves(vh halves) {  // float16
    vu bits = widen(halves);
    vf magnitude = (vf)((bits & 0x7fff) << 13) * 0x1p112f;
    vu special = (vu)((bits & 0x7c00) == 0x7c00) & 0x7f800000u;
    return (vf)((vu)magnitude | special | ((bits & 0x8000) << 16));
}

uint16_t to_half(float x) {  // to nearest, ties to even, as PyTorch rounds
    uint32_t bits = load<uint32_t>(&x), sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return sign | 0x7e00;
    if (bits >= 0x47800000) return sign | 0x7c00;
    if (bits < 0x38800000) {  // below 2^-14 adding 1/2 leaves the code in the lowest bits
        float shifted = load<float>(&bits) + 0.5f;
        return sign | (load<uint32_t>(&shifted) - 0x3f000000);
    }
    return sign | ((bits + 0xfff + (bits >> 13 & 1) - 0x38000000) >> 13);
}

constexpr int GROUP = 4 * N, BLOCK = 64;  // coordinates that are read together; tokens that are scored together
constexpr int ROWS = 4, TILE = N == 16 ? 4 : 2;  // of a product: rows, and registers of each, at a time
constexpr int ROOM = 256 + GROUP;  // floats of the widest vector, filled up to whole groups

int room_of(const Job& job) { return (job.D + GROUP - 1) / GROUP * GROUP; }

// y (ROWS, columns) = x (ROWS, inner of x_stride) m (inner, columns), or added to y.
template <bool ADD = false>
void multiply(const float* x, const float* m, float* y, int inner, int64_t x_stride, int columns) {
    for (int c = 0; c < columns; c += TILE * N) {
        vf acc[ROWS][TILE] = {};
        if (ADD)
            for (int r = 0; r < ROWS; ++r)
                for (int u = 0; u < TILE; ++u) acc[r][u] = load<vf>(y + r * columns + c + u * N);
        for (int j = 0; j < inner; ++j)
            for (int u = 0; u < TILE; ++u) {
                vf column = load<vf>(m + int64_t(j) * columns + c + u * N);
                for (int r = 0; r < ROWS; ++r) acc[r][u] += x[r * x_stride + j] * column;
            }
        for (int r = 0; r < ROWS; ++r)
            for (int u = 0; u < TILE; ++u) store(y + r * columns + c + u * N, acc[r][u]);
    }
}

// x (rows, room) m (inner, room), in place; rows up to a multiple of ROWS. Null: nothing is to be done.
void turn(float* x, const float* m, int64_t rows, int inner, int room) {
    alignas(64) float turned[ROWS * ROOM];
    for (int64_t r = 0; m && r < rows; r += ROWS, x += ROWS * room) {
        multiply(x, m, turned, inner, room, room);
        std::copy(turned, turned + ROWS * room, x);
    }
}

// ---- Vectors of one head

template <int BITS>
struct Codes {
    typedef std::conditional_t<BITS == 4, vh, vb> Low;
    const Job& job;
    const Side& side;
    int64_t of_low, of_high, tail;  // bytes of a token; from `tail` on loads would run out of the planes
    uint8_t *low, *high;
    uint16_t* scales;
    Table table = load<Table>(side.levels);

    Codes(const Job& job, const Side& side, int64_t head) : job(job), side(side) {
        of_low = BITS == 3 ? (job.D + 7) / 8 * 2 : (job.D * BITS + 7) / 8;
        of_high = BITS == 3 ? (job.D + 7) / 8 : 0;
        low = side.low + head * job.capacity * of_low;
        high = side.high + head * job.capacity * of_high;
        scales = side.scales + head * job.capacity;
        tail = (int64_t(job.B) * job.G - head) * job.capacity - (GROUP + job.D - 1) / job.D;
    }

    inline vu word(int64_t token, int group, bool whole) const {
        int64_t l = group * sizeof(Low), h = group * sizeof(vq);
        vu found = widen(load<Low>(low + token * of_low + l, whole ? sizeof(Low) : of_low - l));
        if (BITS != 3) return found;
        return found | high_halves(load<vq>(high + token * of_high + h, whole ? sizeof(vq) : of_high - h));
    }
    inline void read(int64_t token, int group, vf x[4]) const {
        vu codes = __builtin_expect(token < tail, 1) ? word(token, group, true)
                                                     : word(std::min(token, job.capacity - 1), group, false);
#pragma GCC unroll 4
        for (int p = 0; p < 4; ++p) x[p] = look_up<BITS>(table, codes >> (BITS * p));
    }
    inline void write(int64_t token, int group, vu word) const {
        int64_t l = group * sizeof(Low), h = group * sizeof(vq);
        vl pairs = (vl)word;
        store(low + token * of_low + l, __builtin_convertvector(word, Low), of_low - l);
        vq halves = __builtin_convertvector((pairs >> 8 & 15) | (pairs >> 36 & 240), vq);
        if (BITS == 3) store(high + token * of_high + h, halves, of_high - h);
    }

    // Turned vectors y (ROWS, room), `rows` of them → slots from `slot` on.
    void quantize(const float* y, int rows, int64_t slot) const {
        constexpr int HALF = 1 << (BITS - 1);
        const int room = room_of(job);
        float norms[ROWS];  // before the rest, so that one root does not wait for another
        for (int r = 0; r < ROWS; ++r) {
            vf squares = {};
            for (int c = r * room; c < (r + 1) * room; c += N) squares += load<vf>(y + c) * load<vf>(y + c);
            norms[r] = std::sqrt(sum(squares));
        }
        for (int r = 0; r < rows; ++r, ++slot, y += room) {
            vf edges[HALF], squares = {}, products = {};
            for (int e = 0; e < HALF - 1; ++e) edges[e] = all_of(norms[r] * side.edges[e]);
            for (int c = 0; c < room; c += GROUP) {
                vu word = {};
                for (int p = 0; p < 4; ++p) {
                    vf x = load<vf>(y + c + p * N), magnitude = (vf)((vu)x & 0x7fffffffu);
                    vu code = (vu)(x < vf{}) & uint32_t(HALF);
                    for (int e = 0; e < HALF - 1; ++e) code -= (vu)(magnitude > edges[e]);
                    word |= code << (BITS * p);
                    if (!side.scale) continue;
                    vf level = c + 4 * lanes() + p < job.D ? look_up<BITS>(table, code) : vf{};
                    squares += level * level;
                    products += x * level;
                }
                write(slot, c / GROUP, word);
            }
            float scale = norms[r], square = sum(squares), product = sum(products);
            if (side.scale == 1) scale = norms[r] / std::sqrt(square);
            if (side.scale == 2) scale = product / square;
            if (side.scale == 3) scale = norms[r] == 0.0f ? 0.0f : norms[r] * norms[r] / product;
            scales[slot] = to_half(scale);
        }
    }
};

template <class T>
struct Dense {  // float, or bfloat16
    typedef std::conditional_t<sizeof(T) == 4, vf, vh> V;
    const T* values;
    int64_t width, tokens;

    static vf widened(vf x) { return x; }
    static vf widened(vh x) { return (vf)(widen(x) << 16); }
    inline void read(int64_t token, int group, vf x[4]) const {
        const T* from = values + std::min(token, tokens - 1) * width;
        for (int64_t p = 0, at = group * GROUP; p < 4; ++p, at += N)
            x[p] = widened(load<V>(from + at, int64_t(sizeof(T)) * (width - at)));
    }
};

template <class F>
void with_codes(const Job& job, const Side& side, int64_t head, F f) {
    if (side.bits == 2) f(Codes<2>(job, side, head));
    if (side.bits == 3) f(Codes<3>(job, side, head));
    if (side.bits == 4) f(Codes<4>(job, side, head));
}

// New tokens `begin` to `end` of one of B G heads.
void encode(const Job& job, const Side& side, int64_t head, int64_t begin, int64_t end) {
    alignas(64) float x[ROWS * ROOM] = {};
    const int room = room_of(job);
    const float* bias = side.bias ? side.bias + head % job.G * job.D : nullptr;
    const float* fresh = side.fresh + head / job.G * side.fresh_b + head % job.G * side.fresh_g;
    with_codes(job, side, head, [&](const auto& codes) {
        for (int64_t t = begin; t < end; t += ROWS) {
            int rows = int(std::min<int64_t>(ROWS, end - t));
            for (int r = 0; r < rows; ++r) {
                const float* from = fresh + (t + r) * side.fresh_t;
                for (int d = 0; d < job.D; ++d) x[r * room + d] = from[d] - (bias ? bias[d] : 0.0f);
            }
            turn(x, side.turn, ROWS, job.D, room);
            codes.quantize(x, rows, job.start - job.sinks + t);
        }
    });
}

// ---- Attention

// What a query sees, tokens `begin` to `end` of a segment, whose first has the mask `mask`; and what it
// has read so far: the softmax is carried along (1805.02867).
struct Query {
    int64_t begin = 0, end = 0;
    const float* mask = nullptr;
    float top = -std::numeric_limits<float>::max(), total = 0.0f;
};

enum Segment { PACKED, FIRST, LAST };  // tokens in few bits, or exact ones

// Rows `begin` to `begin` + `count`, head after head, of the H/G · T queries that share a head of keys; of
// a single token a split of the slots. Vectors are `room` wide.
struct Rows {
    const Job& job;
    int64_t head, begin, count, split, splits;
    int room = room_of(job);
    int64_t all = (count + ROWS - 1) / ROWS * ROWS;
    std::vector<float> vectors = std::vector<float>(all * room), seen = vectors;  // queries, and sums of values
    std::vector<Query> queries = std::vector<Query>(all);
    std::vector<float> decoded = {}, turned = {};  // a block of tokens, (BLOCK, room) and (room, BLOCK)
    Segment segment = PACKED;
    int64_t token = 0;  // the block's first
    float of_scores[BLOCK], of_weights[BLOCK];  // what they are multiplied by

    int64_t token_of(int64_t r) const { return (begin + r) % job.T; }
    int64_t head_of(int64_t r) const { return head % job.G * (job.H / job.G) + (begin + r) / job.T; }

    template <class F>
    void with_source(const Side& side, F f) const {
        const int64_t at = head * job.D;
        if (segment == FIRST) return f(Dense<float>{side.first + at * job.sinks, job.D, job.sinks});
        if (segment == LAST) return f(Dense<float>{side.last + at * job.waiting, job.D, job.waiting});
        if (side.bits == 16) return f(Dense<uint16_t>{(uint16_t*)side.low + at * job.capacity, job.D, job.capacity});
        with_codes(job, side, head, f);
    }

    // The block from `from` on of tokens before `end`: how many there are.
    int start(int64_t from, int64_t end) {
        auto scales = [&](const Side& side, float factor, float* to) {
            const uint16_t* held =
                segment == PACKED && side.scales ? side.scales + head * job.capacity + from : nullptr;
            for (int i = 0; i < BLOCK; i += N)
                store(to + i, held ? factor * of_halves(load<vh>(held + i, 2 * (end - from - i))) : all_of(factor));
        };
        scales(job.keys, 1 / std::sqrt(float(job.D)), of_scores);
        scales(job.values, 1.0f, of_weights);
        token = from;
        return int(std::min<int64_t>(BLOCK, end - from));
    }

    // Row r's scores of the block → weights of the tokens that it sees. What it read before fades.
    void weigh(int64_t r, float* scores) {
        Query& query = queries[r];
        const int from = int(std::clamp<int64_t>(query.begin - token, 0, BLOCK));
        const int to = int(std::clamp<int64_t>(query.end - token, from, BLOCK));
        auto is_seen = [&](int i) { return (i + lanes() >= from) & (i + lanes() < to); };
        vf top = all_of(query.top), total = {};
        for (int i = 0; i < BLOCK; i += N) {
            vf score = load<vf>(scores + i) * load<vf>(of_scores + i);
            if (query.mask) score += load<vf>(query.mask + token + i, 4 * (to - i));
            score = is_seen(i) ? score : all_of(-INFINITY);
            top = score > top ? score : top;
            store(scores + i, score);
        }
        const float highest = largest(top), fading = highest == query.top ? 1.0f : std::exp(query.top - highest);
        for (int i = 0; i < BLOCK; i += N) {
            vf weight = exponential(load<vf>(scores + i) - highest);
            total += weight;  // the scale of a token that is not seen may be no number
            store(scores + i, is_seen(i) ? weight * load<vf>(of_weights + i) : vf{});
        }
        query.top = highest, query.total = query.total * fading + sum(total);
        for (int c = 0; c < room; c += N) store(&seen[r * room + c], load<vf>(&seen[r * room + c]) * fading);
    }

    // Q rows from `row` on, of one token: they see the same, which is decoded in registers.
    template <int Q>
    void few(int64_t row) {
        alignas(64) float scores[Q][BLOCK];
        float *q = &vectors[row * room], *y = &seen[row * room];
        for (int64_t t = queries[row].begin, end = queries[row].end; t < end; t += BLOCK) {
            const int tokens = start(t, end);
            with_source(job.keys, [&](const auto& keys) {
                for (int i = 0; i < tokens; i += 4) {  // some behind the last, too
                    vf acc[Q][4] = {};
                    for (int g = 0; g < room / GROUP; ++g)
#pragma GCC unroll 4
                        for (int u = 0; u < 4; ++u) {
                            vf x[4];
                            keys.read(t + i + u, g, x);
                            for (int p = 0; p < 4; ++p)
                                for (int n = 0; n < Q; ++n)
                                    acc[n][u] += x[p] * load<vf>(q + n * room + g * GROUP + p * N);
                        }
                    for (int n = 0; n < Q; ++n) sums(acc[n], scores[n] + i);
                }
            });
            for (int n = 0; n < Q; ++n) weigh(row + n, scores[n]);
            with_source(job.values, [&](const auto& values) {
                for (int g = 0; g < room / GROUP; ++g) {
                    vf acc[Q][4];
                    for (int n = 0; n < Q; ++n)
                        for (int p = 0; p < 4; ++p) acc[n][p] = load<vf>(y + n * room + g * GROUP + p * N);
                    for (int i = 0; i < tokens; ++i) {
                        vf x[4];
                        values.read(t + i, g, x);
                        for (int n = 0; n < Q; ++n)
                            for (int p = 0; p < 4; ++p) acc[n][p] += scores[n][i] * x[p];
                    }
                    for (int n = 0; n < Q; ++n)
                        for (int p = 0; p < 4; ++p) store(y + n * room + g * GROUP + p * N, acc[n][p]);
                }
            });
        }
    }

    // All rows: a block of tokens is decoded once for all of them.
    void many() {
        alignas(64) float scores[ROWS][BLOCK];
        decoded.resize(BLOCK * room), turned.resize(BLOCK * room);
        int64_t first = std::numeric_limits<int64_t>::max(), end = 0;
        for (const Query& query : queries)
            if (query.begin < query.end) first = std::min(first, query.begin), end = std::max(end, query.end);
        for (int64_t t = first; t < end; t += BLOCK) {
            const int tokens = start(t, end);
            auto decode = [&](const auto& source) {
                for (int i = 0; i < tokens; ++i)
                    for (int g = 0; g < room / GROUP; ++g) {
                        vf x[4];
                        source.read(t + i, g, x);
                        for (int p = 0; p < 4; ++p) store(&decoded[i * room + g * GROUP + p * N], x[p]);
                    }
            };
            with_source(job.keys, decode);
            for (int c = 0; c < room; ++c)
                for (int i = 0; i < BLOCK; ++i) turned[c * BLOCK + i] = decoded[i * room + c];
            with_source(job.values, decode);
            for (int64_t r = 0; r < all; r += ROWS) {
                auto elsewhere = [&](const Query& query) { return query.begin >= t + tokens || query.end <= t; };
                if (std::all_of(&queries[r], &queries[r] + ROWS, elsewhere)) continue;
                multiply(&vectors[r * room], turned.data(), scores[0], room, room, BLOCK);
                for (int i = 0; i < ROWS; ++i) weigh(r + i, scores[i]);
                multiply<true>(scores[0], decoded.data(), &seen[r * room], tokens, BLOCK, room);
            }
        }
    }

    // A segment whose first token is number `position`.
    void read(Segment which, int64_t position) {
        segment = which;
        for (int64_t r = 0; r < count; ++r) {
            const int64_t next = job.start + token_of(r) + 1;
            const int64_t slots = std::max<int64_t>(0, next - job.window - job.sinks);
            const int64_t size = ((slots + splits - 1) / splits + BLOCK - 1) / BLOCK * BLOCK;
            auto see = [&](int64_t begin, int64_t end) { queries[r].begin = begin, queries[r].end = end; };
            if (which == FIRST) see(0, std::min(job.sinks, next));
            if (which == LAST) see(std::max(job.sinks, next - job.window) - position, next - position);
            if (which == PACKED) see(std::min(split * size, slots), std::min((split + 1) * size, slots));
            const int64_t of_row = head_of(r) * job.mask_h + token_of(r) * (job.start + job.T);
            queries[r].mask = job.mask ? job.mask + of_row + position : nullptr;
        }
        if (job.T > 1) return many();
        constexpr void (Rows::* FEW[])(int64_t) = {&Rows::few<1>, &Rows::few<2>, &Rows::few<3>, &Rows::few<4>};
        for (int64_t r = 0; r < count; r += 4) (this->*FEW[std::min<int64_t>(count - r, 4) - 1])(r);
    }

    void read() {
        for (int64_t r = 0; r < count; ++r) {
            const float* from = job.queries + head / job.G * job.query_b + head_of(r) * job.query_h;
            std::memcpy(&vectors[r * room], from + token_of(r) * job.query_t, sizeof(float) * job.D);
        }
        // Exact tokens are in the model's basis, packed ones in the codec's: sums are turned in between.
        if (job.sinks && split == 0) read(FIRST, 0);
        if (job.waiting && split == 0) read(LAST, job.start + job.T - job.waiting);
        if (job.sinks || job.waiting) turn(seen.data(), job.values.turn, count, job.D, room);
        turn(vectors.data(), job.keys.turn, count, job.D, room);
        read(PACKED, job.sinks);
    }

    void merge(const Rows& other) {  // another split of the same queries
        for (int64_t r = 0; r < count; ++r) {
            Query &a = queries[r], b = other.queries[r];
            const float top = std::max(a.top, b.top), of_a = std::exp(a.top - top), of_b = std::exp(b.top - top);
            a.top = top, a.total = of_a * a.total + of_b * b.total;
            for (int64_t i = r * room; i < (r + 1) * room; ++i) seen[i] = of_a * seen[i] + of_b * other.seen[i];
        }
    }

    void finish() {
        turn(seen.data(), job.values.turn_back, count, room, room);
        for (int64_t r = 0; r < count; ++r) {
            const float* bias = job.out_bias ? job.out_bias + head % job.G * job.D : nullptr;
            float* out = job.out + ((head / job.G * job.H + head_of(r)) * job.T + token_of(r)) * job.D;
            float part = queries[r].total == 0.0f ? 0.0f : 1 / queries[r].total;  // who saw nothing has read 0
            for (int d = 0; d < job.D; ++d) out[d] = seen[r * room + d] * part + (bias ? bias[d] : 0.0f);
        }
    }
};

// f(0) … f(items − 1) on the threads of PyTorch's own pool, or on new ones where it has another.
template <class F>
void share(const Job& job, int64_t most, int64_t items, F f) {
    std::atomic<int64_t> next{0};
    auto work = [&] {
        for (int64_t i; (i = next++) < items;) f(i);
    };
    auto call = [](void* given) { (*static_cast<decltype(work)*>(given))(); };
    const int threads = int(std::min(most, items));
    if (threads > 1 && job.parallel) return job.parallel(call, &work, threads, 0);
    std::vector<std::thread> more;
    for (int i = 1; i < threads; ++i) more.emplace_back(work);
    work();
    for (std::thread& thread : more) thread.join();
}

constexpr int64_t SMALLEST_SPLIT = 512, ENCODED_TOGETHER = 256, ROWS_TOGETHER = 128, FEW = 64;

void encode(const Job& job) {
    int64_t heads = int64_t(job.B) * job.G, sides = job.values.fresh ? 2 : 1;
    int64_t pieces = (job.T + ENCODED_TOGETHER - 1) / ENCODED_TOGETHER;
    int threads = sides * heads * job.T > FEW ? job.threads : 1;  // few are done sooner than shared
    share(job, threads, sides * heads * pieces, [&](int64_t item) {
        int64_t begin = item % pieces * ENCODED_TOGETHER, end = std::min<int64_t>(begin + ENCODED_TOGETHER, job.T);
        encode(job, item / pieces < heads ? job.keys : job.values, item / pieces % heads, begin, end);
    });
}

void attend(const Job& job) {
    int64_t heads = int64_t(job.B) * job.G, rows = int64_t(job.H / job.G) * job.T, splits = 1;
    int64_t pieces = (rows + ROWS_TOGETHER - 1) / ROWS_TOGETHER, slots = job.start + 1 - job.window - job.sinks;
    if (job.T == 1 && heads < 4 * job.threads)
        splits = std::clamp<int64_t>(slots / SMALLEST_SPLIT, 1, (4 * job.threads + heads - 1) / heads);
    std::vector<Rows> parts;  // of a head each split
    for (int64_t i = 0; splits > 1 && i < heads * splits; ++i)
        parts.push_back({job, i / splits, 0, rows, i % splits, splits});
    share(job, job.threads, splits > 1 ? parts.size() : heads * pieces, [&](int64_t i) {
        if (splits > 1) return parts[i].read();
        int64_t begin = i % pieces * ROWS_TOGETHER;
        Rows piece{job, i / pieces, begin, std::min(ROWS_TOGETHER, rows - begin), 0, 1};
        piece.read(), piece.finish();
    });
    for (size_t i = 0; i < parts.size(); ++i)
        if (i % splits) parts[i / splits * splits].merge(parts[i]);
    for (size_t i = 0; i < parts.size(); i += splits) parts[i].finish();
}
}  // namespace

extern "C" int packed_lanes() { return N; }

extern "C" void packed_attention(const Job* job) {
    if (job->keys.fresh) encode(*job);
    if (job->queries) attend(*job);
}
