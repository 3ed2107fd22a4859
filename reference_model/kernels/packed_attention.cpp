// Attention of one layer over keys and values in few bits, and the encoding of new ones.
//
// B batch, H heads of queries, G of keys and values, T new tokens, D width of a head, N floats of a
// vector register. `Job` is what reference_model/kernels/packed_attention.py fills in. Compiled for
// AVX-512, for AVX2 or for neither, which differ down to `sums` alone: how codes are widened, looked
// up and added up. No headers but the standard library's and the processor's.
//
// Codes are packed as reference_model/quantization/packing.py says: a word holds four codes. Register
// lane i reads word i, so that a shift by p codes gives coordinate 4 i + p: queries are laid out in
// that order once, and codes need no shuffle but the look-up itself.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int N = 16;
#elif defined(__AVX2__)
constexpr int N = 8;
#else
constexpr int N = 4;
#endif

typedef float vf __attribute__((vector_size(4 * N)));
typedef int32_t vi __attribute__((vector_size(4 * N)));
typedef uint32_t vu __attribute__((vector_size(4 * N)));
typedef uint16_t vh __attribute__((vector_size(2 * N)));
typedef uint8_t vb __attribute__((vector_size(N)));

template <class V>
inline V load(const void* from) {
    V x;
    std::memcpy(&x, from, sizeof x);
    return x;
}
inline void store(void* to, vf x) { std::memcpy(to, &x, sizeof x); }
inline vf all(float x) { return x - vf{}; }

// The level of each code; of a code's bits the table reads as many as it has.
#if defined(__AVX512F__)
struct Table {
    vf levels;
    explicit Table(const float* from) : levels(load<vf>(from)) {}
    template <int BITS>
    vf look_up(vu code) const {
        return (vf)_mm512_permutexvar_ps((__m512i)code, (__m512)levels);
    }
};
inline float sum(vf x) { return _mm512_reduce_add_ps((__m512)x); }
inline float largest(vf x) { return _mm512_reduce_max_ps((__m512)x); }
inline __m128 quarters(vf x) {  // the sum of its four parts
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256((__m512)x), _mm512_extractf32x8_ps((__m512)x, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
inline vu widen(const uint8_t* from) { return (vu)_mm512_cvtepu8_epi32(load<__m128i>(from)); }
inline vu widen(const uint16_t* from) { return (vu)_mm512_cvtepu16_epi32(load<__m256i>(from)); }
inline vu high_halves(const uint8_t* from) {  // of two words a byte: bits 8 to 11 of each lane
    const __m512i places = _mm512_set_epi32(0x80800780, 0x80800780, 0x80800680, 0x80800680, 0x80800580, 0x80800580,
                                            0x80800480, 0x80800480, 0x80800380, 0x80800380, 0x80800280, 0x80800280,
                                            0x80800180, 0x80800180, 0x80800080, 0x80800080);
    __m512i bytes = _mm512_shuffle_epi8(_mm512_set1_epi64(load<int64_t>(from)), places);
    return (vu)_mm512_srlv_epi32(bytes, _mm512_set1_epi64(4ll << 32)) & 0xf00;
}
#elif defined(__AVX2__)
struct Table {  // the upper half of 16 levels is the lower one, negative
    vf levels;
    explicit Table(const float* from) : levels(load<vf>(from)) {}
    template <int BITS>
    vf look_up(vu code) const {
        vf found = (vf)_mm256_permutevar8x32_ps((__m256)levels, (__m256i)code);
        return BITS < 4 ? found : (vf)((vu)found ^ ((code << 28) & 0x80000000u));
    }
};
inline float sum(vf x) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
inline float largest(vf x) {
    float found = x[0];
    for (int i = 1; i < N; ++i) found = x[i] > found ? x[i] : found;
    return found;
}
inline vu widen(const uint8_t* from) { return (vu)_mm256_cvtepu8_epi32(_mm_loadu_si64(from)); }
inline vu widen(const uint16_t* from) { return (vu)_mm256_cvtepu16_epi32(load<__m128i>(from)); }
inline vu high_halves(const uint8_t* from) {  // of two words a byte: bits 8 to 11 of each lane
    const __m256i places = _mm256_set_epi32(0x80800380, 0x80800380, 0x80800280, 0x80800280, 0x80800180, 0x80800180,
                                            0x80800080, 0x80800080);
    __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(load<int32_t>(from)), places);
    return (vu)_mm256_srlv_epi32(bytes, _mm256_set1_epi64x(4ll << 32)) & 0xf00;
}
#else
struct Table {
    const float* levels;
    explicit Table(const float* from) : levels(from) {}
    template <int BITS>
    vf look_up(vu code) const {
        code &= 15;
        return vf{levels[code[0]], levels[code[1]], levels[code[2]], levels[code[3]]};
    }
};
inline float sum(vf x) { return (x[0] + x[2]) + (x[1] + x[3]); }
inline float largest(vf x) { return std::max(std::max(x[0], x[2]), std::max(x[1], x[3])); }
inline vu widen(const uint8_t* from) { return __builtin_convertvector(load<vb>(from), vu); }
inline vu widen(const uint16_t* from) { return __builtin_convertvector(load<vh>(from), vu); }
inline vu high_halves(const uint8_t* from) {
    return vu{uint32_t(from[0]) << 8, uint32_t(from[0]) << 4, uint32_t(from[1]) << 8, uint32_t(from[1]) << 4} & 0xf00;
}
#endif

// The sums of four registers, side by side.
inline void sums(const vf x[4], float* to) {
#if defined(__AVX512F__)
    auto pairs = [](__m512 a, __m512 b) { return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); };
    __m512d ab = (__m512d)pairs((__m512)x[0], (__m512)x[1]), cd = (__m512d)pairs((__m512)x[2], (__m512)x[3]);
    _mm_storeu_ps(to, quarters((vf)_mm512_unpacklo_pd(ab, cd) + (vf)_mm512_unpackhi_pd(ab, cd)));
#else
    for (int i = 0; i < 4; ++i) to[i] = sum(x[i]);
#endif
}

// e^x for x <= 0, to 2 units in the last place; 0 below -87, NaN of NaN.
inline vf exponential(vf x) {
    const vf low = all(-87.0f);
    vi below = x < low;
    vf y = below ? low : x;
    const float magic = 12582912.0f;  // 1.5 * 2^23: what is added is rounded to a whole number
    vf shifted = y * 1.44269504f + magic;
    vf k = shifted - magic;
    vf f = (y - k * 0.693359375f) + k * 2.12194440e-4f;
    vf p = f * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * f * f + f + 1.0f;
    vf power = (vf)(((vi)shifted << 23) + 0x3f800000);  // the low bits of `shifted` are k
    return below ? vf{} : p * power;
}

inline vf of_halves(const uint16_t* from) {  // float16, N of them
    vu bits = widen(from);
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

}  // namespace

extern "C" {

// Keys, or values, of one layer. Null: there are none.
struct Side {
    uint8_t *low, *high;  // (B, G, capacity, bytes) each: planes of codes, or bfloat16 in `low`
    uint16_t* scales;  // (B, G, capacity) float16
    const float *levels, *edges;  // (16,) by code, repeated where there are fewer; between magnitudes
    const float *turn, *turn_back;  // the rotation, Rᵀ and R, (D, room) with zeros behind D
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
    int64_t encode_at, encode_count;  // slots that new tokens are encoded into
    int64_t sinks, waiting, window;  // tokens in `first`, in `last`; how many newest are read exactly
    int32_t B, G, H, T, D, threads;
    void (*parallel)(void (*)(void*), void*, unsigned, unsigned);  // GOMP_parallel
};
}

namespace {

constexpr int BLOCK = 64;  // tokens that are scored together
constexpr int LARGEST_D = 256;
constexpr int ROOM = LARGEST_D + 4 * N;
constexpr float LOWEST = -std::numeric_limits<float>::max();

int padded(int width) { return (width + 4 * N - 1) / (4 * N) * (4 * N); }

// ---- Sources: vectors of one head, four registers at a time

template <int BITS>
struct Codes {
    int64_t of_low, of_high, tail;  // bytes of a token; from `tail` on a load would run out
    const uint8_t *low, *high;
    const uint16_t* scales;
    Table table;

    static int64_t low_bytes(int D) { return BITS == 4 ? (D + 1) / 2 : BITS == 2 ? (D + 3) / 4 : (D + 7) / 8 * 2; }
    static int64_t high_bytes(int D) { return BITS == 3 ? (D + 7) / 8 : 0; }

    Codes(const Side& side, int64_t head, const Job& job)
        : of_low(low_bytes(job.D)),
          of_high(high_bytes(job.D)),
          tail(job.capacity),
          low(side.low + head * job.capacity * of_low),
          high(side.high + head * job.capacity * of_high),
          scales(side.scales + head * job.capacity),
          table(side.levels) {
        if (job.D % (4 * N) && head + 1 == int64_t(job.B) * job.G) --tail;
    }
    static int coordinate(int group, int p, int lane) { return 4 * (group * N + lane) + p; }
    inline vu words(const uint8_t* l, const uint8_t* h) const {
        return BITS == 4 ? widen((const uint16_t*)l) : BITS == 2 ? widen(l) : widen(l) | high_halves(h);
    }
    inline void read(int64_t token, int group, vf x[4]) const {
        constexpr int LOW = BITS == 4 ? 2 * N : N;
        const uint8_t *l = low + token * of_low + group * LOW, *h = high + token * of_high + group * (N / 2);
        vu word;
        if (__builtin_expect(token < tail, 1)) {
            word = words(l, h);
        } else {
            uint8_t copy[2 * N] = {}, high_copy[N] = {};
            std::memcpy(copy, l, std::min<int64_t>(LOW, of_low - group * LOW));
            if (BITS == 3) std::memcpy(high_copy, h, std::min<int64_t>(N / 2, of_high - group * (N / 2)));
            word = words(copy, high_copy);
        }
#pragma GCC unroll 4
        for (int p = 0; p < 4; ++p) x[p] = table.look_up<BITS>(word >> (BITS * p));
    }
};

template <class T>
struct Dense {  // float, or uint16_t: bfloat16
    const T* values;
    const uint16_t* scales = nullptr;
    int width;

    Dense(const T* all_heads, int64_t head, int64_t tokens, int D) : values(all_heads + head * tokens * D), width(D) {}
    static int coordinate(int group, int p, int lane) { return (4 * group + p) * N + lane; }
    static vf widened(const float* from) { return load<vf>(from); }
    static vf widened(const uint16_t* from) { return (vf)(widen(from) << 16); }
    inline void read(int64_t token, int group, vf x[4]) const {
        for (int p = 0; p < 4; ++p) {
            int begin = (4 * group + p) * N, left = width - begin;
            const T* from = values + token * width + begin;
            if (left >= N) {
                x[p] = widened(from);
            } else {
                T copy[N] = {};
                if (left > 0) std::memcpy(copy, from, left * sizeof(T));
                x[p] = widened(copy);
            }
        }
    }
};

// ---- Products of ROWS rows at a time

constexpr int ROWS = 4;
constexpr int TILE = N == 16 ? 4 : 2;  // registers of a row that are summed up together

// y (ROWS, columns) = x (ROWS, D of x_stride) m (D, columns), or added to y.
template <bool ADD = false>
void multiply(const float* x, const float* m, float* y, int D, int64_t x_stride, int columns) {
    for (int c = 0; c < columns; c += TILE * N) {
        vf acc[ROWS][TILE] = {};
        if (ADD)
            for (int r = 0; r < ROWS; ++r)
                for (int u = 0; u < TILE; ++u) acc[r][u] = load<vf>(y + r * columns + c + u * N);
        for (int j = 0; j < D; ++j)
            for (int u = 0; u < TILE; ++u) {
                vf column = load<vf>(m + int64_t(j) * columns + c + u * N);
                for (int r = 0; r < ROWS; ++r) acc[r][u] += x[r * x_stride + j] * column;
            }
        for (int r = 0; r < ROWS; ++r)
            for (int u = 0; u < TILE; ++u) store(y + r * columns + c + u * N, acc[r][u]);
    }
}

// ---- Encoding

struct Encoder {
    const Side& side;
    const Job& job;
    int room = padded(job.D), words = (job.D + 3) / 4;

    // Codes of two words are eight bytes: shifts bring neighbours together, then pairs of them.
    template <int BITS>
    void pack(const uint8_t* codes, uint8_t* low, uint8_t* high) const {
        constexpr uint64_t PAIRS = BITS == 2 ? 0x000f000f000f000f : BITS == 3 ? 0x003f003f003f003f : 0x00ff00ff00ff00ff;
        for (int w = 0; w < words; w += 2) {
            uint64_t x = load<uint64_t>(codes + 4 * w);
            x = (x | x >> (8 - BITS)) & PAIRS;
            if (BITS == 4) {
                x = (x | x >> 8) & 0x0000ffff0000ffff;
                uint32_t both = uint32_t(x | x >> 16);
                std::memcpy(low + 2 * w, &both, std::min(4, (job.D + 1) / 2 - 2 * w));
                continue;
            }
            x |= x >> (16 - 2 * BITS);
            low[w] = x;
            if (w + 1 < words || BITS == 3) low[w + 1] = x >> 32;
            if (BITS == 3) high[w / 2] = (x >> 8 & 15) | (x >> 36 & 240);
        }
    }

    template <int BITS>
    void quantize(const float* y, int rows, int64_t at) const {  // vectors (rows, room) → slots of all
        constexpr int HALF = 1 << (BITS - 1);
        alignas(64) uint8_t codes[ROWS][ROOM];
        Table table(side.levels);
        vf squares[ROWS] = {};
        for (int c = 0; c < room; c += N)
            for (int r = 0; r < ROWS; ++r) squares[r] += load<vf>(y + r * room + c) * load<vf>(y + r * room + c);
        float norms[ROWS];  // before the rest, so that one root does not wait for another
        for (int r = 0; r < ROWS; ++r) norms[r] = std::sqrt(sum(squares[r]));
        for (int r = 0; r < rows; ++r, ++at) {
            vf edges[HALF], of_levels = {}, products = {};
            for (int e = 0; e < HALF - 1; ++e) edges[e] = all(norms[r] * side.edges[e]);
            for (int c = 0; c < room; c += N) {
                vf x = load<vf>(y + r * room + c), magnitude = (vf)((vu)x & 0x7fffffffu);
                vu code = (vu)(x < vf{}) & uint32_t(HALF);
                for (int e = 0; e < HALF - 1; ++e) code -= (vu)(magnitude > edges[e]);
                vb bytes = __builtin_convertvector(code, vb);
                std::memcpy(codes[r] + c, &bytes, N);
                if (!side.scale) continue;
                vf level = table.look_up<BITS>(code);
                for (int i = std::max(0, job.D - c); i < N; ++i) level[i] = 0;  // no coordinate
                of_levels += level * level;
                products += x * level;
            }
            std::memset(codes[r] + job.D, 0, room - job.D);
            float scale = norms[r], length = sum(of_levels), product = sum(products);
            if (side.scale == 1) scale = norms[r] / std::sqrt(length);
            if (side.scale == 2) scale = product / length;
            if (side.scale == 3) scale = norms[r] == 0.0f ? 0.0f : norms[r] * norms[r] / product;
            side.scales[at] = to_half(scale);
            pack<BITS>(codes[r], side.low + at * Codes<BITS>::low_bytes(job.D),
                 side.high + at * Codes<BITS>::high_bytes(job.D));
        }
    }

    // New tokens `begin` to `end` of one of B G heads.
    void operator()(int64_t head, int64_t begin, int64_t end) const {
        alignas(64) float x[ROWS * ROOM] = {}, y[ROWS * ROOM];
        const float* fresh = side.fresh + head / job.G * side.fresh_b + head % job.G * side.fresh_g;
        const float* bias = side.bias ? side.bias + head % job.G * job.D : nullptr;
        for (int64_t t = begin; t < end; t += ROWS) {
            int rows = int(std::min<int64_t>(ROWS, end - t));
            const float* from = fresh + t * side.fresh_t;
            bool copied = bias || room > job.D || rows < ROWS;
            for (int r = 0; copied && r < rows; ++r)
                for (int d = 0; d < job.D; ++d) x[r * room + d] = from[r * side.fresh_t + d] - (bias ? bias[d] : 0.0f);
            multiply(copied ? x : from, side.turn, y, job.D, copied ? room : side.fresh_t, room);
            int64_t at = head * job.capacity + job.encode_at + t;
            if (side.bits == 2) quantize<2>(y, rows, at);
            if (side.bits == 3) quantize<3>(y, rows, at);
            if (side.bits == 4) quantize<4>(y, rows, at);
        }
    }
};

// ---- Attention

inline void scale(float* x, float factor, int room) {
    for (int d = 0; d < room; ++d) x[d] *= factor;
}

// What queries have read so far: the softmax is carried along (1805.02867).
struct Read {
    float top = LOWEST, total = 0.0f;
};

// Scores (BLOCK,) → weights, where tokens `from` to `to` of a block are seen. What was read before
// fades by the factor returned.
float softmax(float* scores, int from, int to, float root, const uint16_t* key_scales, const uint16_t* value_scales,
              const float* mask, Read& read, float* weights) {
    for (int i = 0; i < BLOCK; i += N)
        store(scores + i, load<vf>(scores + i) * (key_scales ? of_halves(key_scales + i) * root : all(root)));
    for (int i = from; mask && i < to; ++i) scores[i] += mask[i];
    std::fill(scores, scores + from, -INFINITY);
    std::fill(scores + to, scores + BLOCK, -INFINITY);
    vf top = all(read.top), total = {};
    for (int i = 0; i < BLOCK; i += N) {
        vf s = load<vf>(scores + i);
        top = s > top ? s : top;
    }
    float highest = largest(top), fading = highest == read.top ? 1.0f : std::exp(read.top - highest);
    for (int i = 0; i < BLOCK; i += N) {
        vf weight = exponential(load<vf>(scores + i) - highest);
        total += weight;
        store(weights + i, value_scales ? weight * of_halves(value_scales + i) : weight);
    }
    std::fill(weights, weights + from, 0.0f);  // who is not seen may have a scale that is not finite
    std::fill(weights + to, weights + BLOCK, 0.0f);
    read.total = read.total * fading + sum(total);
    read.top = highest;
    return fading;
}

// Scales of a block's tokens, BLOCK of them though only `count` are held; null where there are none.
const uint16_t* block_of(const uint16_t* scales, int64_t token, int count, uint16_t* copy) {
    if (!scales || count == BLOCK) return scales ? scales + token : nullptr;
    std::fill(copy + count, copy + BLOCK, 0);
    return (const uint16_t*)std::memcpy(copy, scales + token, sizeof(uint16_t) * count);
}

// Where tokens lie: in few bits, or exactly, among the first or the last.
enum Segment { PACKED, FIRST, LAST };

template <class F>
void with_source(const Job& job, const Side& side, int64_t head, Segment segment, F f) {
    if (segment == FIRST) return f(Dense<float>(side.first, head, job.sinks, job.D));
    if (segment == LAST) return f(Dense<float>(side.last, head, job.waiting, job.D));
    if (side.bits == 2) return f(Codes<2>(side, head, job));
    if (side.bits == 3) return f(Codes<3>(side, head, job));
    if (side.bits == 4) return f(Codes<4>(side, head, job));
    return f(Dense<uint16_t>((const uint16_t*)side.low, head, job.capacity, job.D));
}

// f(place in the source's order, coordinate), for all of a vector.
template <class Source, class F>
void each_place(const Source&, int room, F f) {
    for (int i = 0; i < room; ++i) f(i, Source::coordinate(i / N / 4, i / N % 4, i % N));
}

// What a query sees of a segment: tokens `begin` to `end`; `mask` is that of the segment's first.
struct Sight {
    int64_t begin = 0, end = 0;
    const float* mask = nullptr;
};

// One token's queries of Q heads (Q, room), who see the same tokens, decoded in registers. What they
// have read, seen (Q, room), is carried along.
template <int Q>
void read_few(const Job& job, int64_t head, Segment segment, const Sight* sights, const float* queries, Read* reads,
              float* seen, int room) {
    alignas(64) float laid[Q * ROOM], read[Q * ROOM], scores[Q][BLOCK], weights[Q][BLOCK];
    uint16_t copies[2][BLOCK];
    const uint16_t* key_scales = nullptr;
    float root = 1 / std::sqrt(float(job.D));
    with_source(job, job.keys, head, segment, [&](const auto& keys) {
        each_place(keys, room, [&](int i, int d) {
            for (int n = 0; n < Q; ++n) laid[(i / N * Q + n) * N + i % N] = queries[n * room + d];
        });
    });
    with_source(job, job.values, head, segment, [&](const auto& values) {
        each_place(values, room, [&](int i, int d) {
            for (int n = 0; n < Q; ++n) read[n * room + i] = seen[n * room + d];
        });
    });
    for (int64_t t = sights[0].begin; t < sights[0].end; t += BLOCK) {
        int count = int(std::min<int64_t>(BLOCK, sights[0].end - t));
        with_source(job, job.keys, head, segment, [&](const auto& keys) {
            for (int i = 0; i < count; i += 4) {  // the last tokens again, where fewer than four are left
                vf acc[Q][4] = {};
                for (int s = 0; s < room / (4 * N); ++s)
#pragma GCC unroll 4
                    for (int u = 0; u < 4; ++u) {
                        vf x[4];
                        keys.read(t + std::min(i + u, count - 1), s, x);
                        for (int p = 0; p < 4; ++p)
                            for (int n = 0; n < Q; ++n) acc[n][u] += x[p] * load<vf>(laid + ((s * 4 + p) * Q + n) * N);
                    }
                for (int n = 0; n < Q; ++n) sums(acc[n], scores[n] + i);
            }
            key_scales = block_of(keys.scales, t, count, copies[0]);
        });
        with_source(job, job.values, head, segment, [&](const auto& values) {
            const uint16_t* value_scales = block_of(values.scales, t, count, copies[1]);
            for (int n = 0; n < Q; ++n) {
                const float* mask = sights[n].mask ? sights[n].mask + t : nullptr;
                scale(read + n * room,
                      softmax(scores[n], 0, count, root, key_scales, value_scales, mask, reads[n], weights[n]), room);
            }
            for (int s = 0; s < room / (4 * N); ++s) {
                vf acc[Q][4];
                float* to = read + s * 4 * N;
                for (int n = 0; n < Q; ++n)
                    for (int p = 0; p < 4; ++p) acc[n][p] = load<vf>(to + n * room + p * N);
                for (int i = 0; i < count; ++i) {
                    vf x[4];
                    values.read(t + i, s, x);
                    for (int n = 0; n < Q; ++n)
                        for (int p = 0; p < 4; ++p) acc[n][p] += weights[n][i] * x[p];
                }
                for (int n = 0; n < Q; ++n)
                    for (int p = 0; p < 4; ++p) store(to + n * room + p * N, acc[n][p]);
            }
        });
    }
    with_source(job, job.values, head, segment, [&](const auto& values) {
        each_place(values, room, [&](int i, int d) {
            for (int n = 0; n < Q; ++n) seen[n * room + d] = read[n * room + i];
        });
    });
}

// Any number of queries (rows, room), rows a multiple of ROWS: a block of tokens is decoded once for
// all of them. scratch (2, room, BLOCK).
void read_many(const Job& job, int64_t head, Segment segment, const std::vector<Sight>& sights, const float* queries,
               Read* reads, float* seen, int room, float* scratch) {
    float *k = scratch, *v = scratch + room * BLOCK;  // (room, BLOCK), (BLOCK, room)
    alignas(64) float scores[ROWS][BLOCK], weights[ROWS][BLOCK];
    uint16_t copies[2][BLOCK];
    const uint16_t *key_scales = nullptr, *value_scales = nullptr;
    float root = 1 / std::sqrt(float(job.D));
    int64_t begin = std::numeric_limits<int64_t>::max(), end = 0;
    for (const Sight& sight : sights)
        if (sight.begin < sight.end) begin = std::min(begin, sight.begin), end = std::max(end, sight.end);
    std::memset(scratch, 0, sizeof(float) * 2 * room * BLOCK);
    for (int64_t t = begin; t < end; t += BLOCK) {
        int count = int(std::min<int64_t>(BLOCK, end - t));
        auto decode = [&](const auto& source, float* to, int of_coordinate, int of_token) {
            alignas(64) float x[ROOM];
            for (int i = 0; i < count; ++i) {
                for (int s = 0; s < room / (4 * N); ++s) source.read(t + i, s, (vf*)(x + s * 4 * N));
                each_place(source, room, [&](int at, int d) { to[d * of_coordinate + i * of_token] = x[at]; });
            }
        };
        with_source(job, job.keys, head, segment, [&](const auto& keys) {
            decode(keys, k, BLOCK, 1);
            key_scales = block_of(keys.scales, t, count, copies[0]);
        });
        with_source(job, job.values, head, segment, [&](const auto& values) {
            decode(values, v, 1, room);
            value_scales = block_of(values.scales, t, count, copies[1]);
        });
        for (size_t r = 0; r < sights.size(); r += ROWS) {
            bool any = false;
            for (int i = 0; i < ROWS; ++i)
                any |= sights[r + i].begin < std::min(sights[r + i].end, t + count) && sights[r + i].end > t;
            if (!any) continue;
            multiply(queries + r * room, k, scores[0], job.D, room, BLOCK);
            float* y = seen + r * room;
            for (int i = 0; i < ROWS; ++i) {
                const Sight& sight = sights[r + i];
                int from = int(std::clamp<int64_t>(sight.begin - t, 0, count));
                int to = int(std::clamp<int64_t>(sight.end - t, from, count));
                const float* mask = sight.mask ? sight.mask + t : nullptr;
                scale(y + i * room,
                      softmax(scores[i], from, to, root, key_scales, value_scales, mask, reads[r + i], weights[i]),
                      room);
            }
            multiply<true>(weights[0], v, y, count, BLOCK, room);
        }
    }
}

// Queries over one layer, a row each, `room` floats wide.
struct Attention {
    const Job& job;
    int room = padded(job.D), sharing = job.H / job.G;
    int64_t splits = 1, length = job.start + job.T, newest = length - job.waiting;  // position of the first in `last`
    std::vector<float> sums = {};  // (B H, splits, room): what each split has read of one token
    std::vector<Read> reads = {};  // (B H, splits)

    int64_t slots(int64_t t) const {  // how many of them query t reads
        return std::max<int64_t>(0, job.start + t + 1 - job.window - job.sinks);
    }
    Sight seen_by(int64_t t, Segment which, int64_t split) const {
        int64_t next = job.start + t + 1, size = ((slots(t) + splits - 1) / splits + BLOCK - 1) / BLOCK * BLOCK;
        if (which == FIRST) return {0, std::min(job.sinks, next)};
        if (which == LAST) return {std::max(job.sinks, next - job.window) - newest, next - newest};
        if (splits == 1) return {0, slots(t)};
        return {std::min(split * size, slots(t)), std::min((split + 1) * size, slots(t))};
    }

    // Sums (ROWS, room) → `rows` rows of what comes out, from `row` on.
    void finish(const float* seen, const Read* read, int rows, int64_t row) const {
        alignas(64) float turned[ROWS * ROOM];
        if (job.values.turn_back) multiply(seen, job.values.turn_back, turned, job.D, room, room);
        const float* from = job.values.turn_back ? turned : seen;
        for (int r = 0; r < rows; ++r) {
            const float* bias = job.out_bias ? job.out_bias + (row + r) / job.T % job.H / sharing * job.D : nullptr;
            float part = read[r].total == 0.0f ? 0.0f : 1 / read[r].total;  // who saw nothing has read 0
            for (int d = 0; d < job.D; ++d)
                job.out[(row + r) * job.D + d] = from[r * room + d] * part + (bias ? bias[d] : 0.0f);
        }
    }

    // Rows `begin` to `end`, head after head, of the `sharing` · T that share a head of keys. Of a single
    // token each split reads a piece of the slots.
    void read(int64_t head, int64_t begin, int64_t end, int64_t split) {
        int64_t rows = end - begin, all = (rows + ROWS - 1) / ROWS * ROWS + ROWS;
        std::vector<float> floats((2 * all + (job.T > 1 ? 2 * BLOCK : 0)) * room);
        float *q = floats.data(), *seen = q + all * room, *scratch = seen + all * room;
        std::vector<Read> now(all);
        std::vector<Sight> sights(all);
        auto head_of = [&](int64_t r) { return head % job.G * sharing + (begin + r) / job.T; };
        auto token_of = [&](int64_t r) { return (begin + r) % job.T; };
        auto turn = [&](float* x, const float* matrix) {
            alignas(64) float turned[ROWS * ROOM];
            for (int64_t r = 0; matrix && r < rows; r += ROWS) {
                multiply(x + r * room, matrix, turned, job.D, room, room);
                std::copy(turned, turned + ROWS * room, x + r * room);
            }
        };
        auto segment = [&](Segment which, int64_t position) {
            for (int64_t r = 0; r < rows; ++r) {
                sights[r] = seen_by(token_of(r), which, split);
                if (job.mask) sights[r].mask = job.mask + head_of(r) * job.mask_h + token_of(r) * length + position;
            }
            if (job.T > 1) return read_many(job, head, which, sights, q, now.data(), seen, room, scratch);
            constexpr decltype(&read_few<1>) few[] = {read_few<1>, read_few<2>, read_few<3>, read_few<4>};
            for (int64_t r = 0; r < rows; r += 4)
                few[std::min<int64_t>(rows - r, 4) - 1](job, head, which, &sights[r], q + r * room, &now[r],
                                                        seen + r * room, room);
        };
        for (int64_t r = 0; r < rows; ++r) {
            const float* from = job.queries + head / job.G * job.query_b + head_of(r) * job.query_h;
            std::memcpy(q + r * room, from + token_of(r) * job.query_t, sizeof(float) * job.D);
        }
        // Exact tokens are in the model's basis, packed ones in the codec's: sums are turned in between.
        if (job.sinks && split == 0) segment(FIRST, 0);
        if (job.waiting && split == 0) segment(LAST, newest);
        if (job.sinks || job.waiting) turn(seen, job.values.turn);
        turn(q, job.keys.turn);
        segment(PACKED, job.sinks);
        for (int64_t r = 0, count; r < rows; r += count) {  // rows of one head lie together in what comes out
            int64_t row = (head / job.G * job.H + head_of(r)) * job.T + token_of(r), at = row * splits + split;
            count = splits > 1 ? 1 : std::min<int64_t>({ROWS, rows - r, job.T - token_of(r)});
            if (splits == 1) {
                finish(seen + r * room, &now[r], int(count), row);
            } else {
                reads[at] = now[r];
                std::copy(seen + r * room, seen + (r + 1) * room, &sums[at * room]);
            }
        }
    }

    void merge() const {  // the splits of each row
        for (int64_t row = 0; row < int64_t(job.B) * job.H; ++row) {
            alignas(64) float seen[ROWS * ROOM] = {};
            Read merged;
            for (int64_t at = row * splits; at < (row + 1) * splits; ++at)
                merged.top = std::max(merged.top, reads[at].top);
            for (int64_t at = row * splits; at < (row + 1) * splits; ++at) {
                float factor = std::exp(reads[at].top - merged.top);
                merged.total += factor * reads[at].total;
                for (int d = 0; d < room; ++d) seen[d] += factor * sums[at * room + d];
            }
            finish(seen, &merged, 1, row);
        }
    }
};

// f(0) … f(items − 1) on the threads of PyTorch's own pool, or on new ones where it has another.
template <class F>
void share(const Job& job, int64_t most, int64_t items, F f) {
    struct Work {
        std::atomic<int64_t> next{0};
        int64_t items;
        F& f;
    } work{{0}, items, f};
    auto take = [](void* given) {
        Work& work = *static_cast<Work*>(given);
        for (int64_t i; (i = work.next++) < work.items;) work.f(i);
    };
    int threads = int(std::min(most, items));
    if (threads <= 1) return take(&work);
    if (job.parallel) return job.parallel(take, &work, threads, 0);
    std::vector<std::thread> more;
    for (int i = 1; i < threads; ++i) more.emplace_back(take, &work);
    take(&work);
    for (std::thread& thread : more) thread.join();
}

constexpr int64_t SMALLEST_SPLIT = 512, ENCODED_TOGETHER = 256, ROWS_TOGETHER = 128, FEW = 64;

void encode(const Job& job) {
    int64_t heads = int64_t(job.B) * job.G, sides = job.values.fresh ? 2 : 1;
    int64_t pieces = (job.encode_count + ENCODED_TOGETHER - 1) / ENCODED_TOGETHER;
    int threads = sides * heads * job.encode_count > FEW ? job.threads : 1;  // few are done sooner than shared
    share(job, threads, sides * heads * pieces, [&](int64_t item) {
        int64_t begin = item % pieces * ENCODED_TOGETHER;
        Encoder{item / pieces < heads ? job.keys : job.values, job}(
            item / pieces % heads, begin, std::min(begin + ENCODED_TOGETHER, job.encode_count));
    });
}

void attend(const Job& job) {
    Attention attention{job};
    int64_t heads = int64_t(job.B) * job.G, rows = int64_t(attention.sharing) * job.T;
    int64_t pieces = (rows + ROWS_TOGETHER - 1) / ROWS_TOGETHER, &splits = attention.splits;
    if (job.T == 1 && heads < 4 * job.threads)
        splits = std::clamp<int64_t>(attention.slots(0) / SMALLEST_SPLIT, 1, (4 * job.threads + heads - 1) / heads);
    if (splits > 1) attention.sums.resize(job.B * job.H * splits * attention.room);
    if (splits > 1) attention.reads.resize(job.B * job.H * splits);
    share(job, job.threads, heads * pieces * splits, [&](int64_t item) {
        int64_t piece = item / splits, begin = piece % pieces * ROWS_TOGETHER;
        attention.read(piece / pieces, begin, std::min(begin + ROWS_TOGETHER, rows), item % splits);
    });
    if (splits > 1) attention.merge();
}
}  // namespace

extern "C" int packed_room(int D) { return padded(D); }

extern "C" void packed_attention(const Job* job) {
    if (job->encode_count) encode(*job);
    if (job->queries) attend(*job);
}
