// Products with weights that are codes with a scale and often a minimum, in AVX2: gemv of every quantized format, gemm of
// Q4_1, Q5_0, Q5_1 and the K formats. Read by kernels_avx2.cpp only.
//
// A weight is scale * code - min, so a product is scale * sum(code * x) - min * sum(x), and sum(x) is known beforehand.
// gemm walks as avx2_products.h tells.
#pragma once
#include "avx2_products.h"

namespace quinze {
namespace {

template <Type type> struct BlockOf;
template <> struct BlockOf<Type::Q8_0> { using type = BlockQ8_0; };
template <> struct BlockOf<Type::Q4_0> { using type = BlockQ4_0; };
template <> struct BlockOf<Type::Q4_1> { using type = BlockQ4_1; };
template <> struct BlockOf<Type::Q5_0> { using type = BlockQ5_0; };
template <> struct BlockOf<Type::Q5_1> { using type = BlockQ5_1; };
template <> struct BlockOf<Type::Q4_K> { using type = BlockQ4_K; };
template <> struct BlockOf<Type::Q5_K> { using type = BlockQ5_K; };
template <Type type> using Block = typename BlockOf<type>::type;

template <Type type> constexpr bool kIsK = type == Type::Q4_K || type == Type::Q5_K;
template <Type type> constexpr bool kFiveBits = type == Type::Q5_0 || type == Type::Q5_1 || type == Type::Q5_K;

// ---------------------------------------------------------------- codes

inline __m256i nibbles(const uint8_t (&qs)[16]) {
    const __m256i twice = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(qs)));
    return _mm256_and_si256(_mm256_srlv_epi64(twice, _mm256_setr_epi64x(0, 0, 4, 4)), _mm256_set1_epi8(15));
}
// Bit i of four bytes -> 16 in byte i where it is set.
inline __m256i fifths(const uint8_t (&qh)[4]) {
    const __m256i spread = _mm256_shuffle_epi8(broadcast_4(qh), _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
    const __m256i bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ull));
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit), _mm256_set1_epi8(16));
}
// The 32 codes of block j of a block of a file, in the order of the weights. j is 0 but for the K formats.
template <Type type> inline __m256i codes(const Block<type>& w, int j) {
    if constexpr (type == Type::Q4_0 || type == Type::Q4_1) return nibbles(w.qs);
    else if constexpr (!kIsK<type>) return _mm256_or_si256(nibbles(w.qs), fifths(w.qh));
    else {
        const __m256i packed = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w.qs + j / 2 * 32));
        const __m256i low = _mm256_and_si256(_mm256_srli_epi16(packed, j % 2 * 4), _mm256_set1_epi8(15));
        if constexpr (type == Type::Q4_K) return low;
        else {
            const __m256i bits = _mm256_srli_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w.qh)), j);
            return _mm256_or_si256(low, _mm256_slli_epi16(_mm256_and_si256(bits, _mm256_set1_epi8(1)), 4));
        }
    }
}
// The 32 codes of block j of a Q6_K block, 0..63.
inline __m256i codes_q6_k(const BlockQ6_K& w, int j) {
    const int half = j / 4, k = j % 4;
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w.ql + 64 * half + 32 * (k % 2)));
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w.qh + 32 * half));
    return _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(low, k / 2 * 4), _mm256_set1_epi8(15)),
                           _mm256_slli_epi16(_mm256_and_si256(_mm256_srli_epi16(high, 2 * k), _mm256_set1_epi8(3)), 4));
}

inline __m256i activations(const int8_t* q) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q)); }
// Lane pattern that broadcasts int16 number j of each half.
inline __m256i pick_16(int j) { return _mm256_set1_epi16(static_cast<short>(2 * j | (2 * j + 1) << 8)); }

// ---------------------------------------------------------------- gemv

// The float16 numbers that begin eight blocks in a row, `at` bytes further on.
template <class Block> inline __m256 eight_halves(const Block* p, int64_t at) {
    const auto half = [&](int i) {
        uint16_t v;
        std::memcpy(&v, reinterpret_cast<const std::byte*>(p + i) + at, 2);
        return static_cast<short>(v);
    };
    return _mm256_cvtph_ps(_mm_setr_epi16(half(0), half(1), half(2), half(3), half(4), half(5), half(6), half(7)));
}
inline __m256 eight_sums(const int32_t* sum8) { return _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(sum8))); }

// Eight blocks at a time: their scales are put together eight wide, and met one by one.
template <Type type>
void gemv_codes(const Weight& w, int64_t row0, int64_t row1, const Activations& x, float* y) {
    constexpr bool symmetric = type == Type::Q4_0 || type == Type::Q5_0, centered = type == Type::Q8_0;
    // weight + 8 or + 16 was counted, and sum8 is 8 * sum(x); or the minimum is missing.
    constexpr float excess = type == Type::Q4_0 ? -1.0f : type == Type::Q5_0 ? -2.0f : 0.125f;
    const int64_t blocks = w.cols / kBlock;
    const auto* p = reinterpret_cast<const Block<type>*>(w.data) + row0 * blocks;
    const auto product = [&](int64_t i) {
        if constexpr (centered) return _mm256_cvtepi32_ps(dot(p[i], x.q8 + 32 * i));
        else return _mm256_cvtepi32_ps(_mm256_madd_epi16(_mm256_maddubs_epi16(codes<type>(p[i], 0), activations(x.q8 + 32 * i)), _mm256_set1_epi16(1)));
    };
    alignas(32) float scales[8];
    for (int64_t row = row0; row < row1; row++, p += blocks) {
        __m256 sum[4] = {}, mins = {};
        int64_t i = 0;
        for (; i + 8 <= blocks; i += 8) {
            const __m256 xs = _mm256_loadu_ps(x.scale + i), scale = _mm256_mul_ps(eight_halves(p + i, 0), xs);
            _mm256_store_ps(scales, scale);
            if constexpr (symmetric) mins = _mm256_fmadd_ps(scale, eight_sums(x.sum8 + i), mins);
            else if constexpr (!centered) mins = _mm256_fmadd_ps(_mm256_mul_ps(eight_halves(p + i, 2), xs), eight_sums(x.sum8 + i), mins);
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++) sum[j % 4] = _mm256_fmadd_ps(product(i + j), _mm256_broadcast_ss(scales + j), sum[j % 4]);
        }
        float rest = 0;
        for (; i < blocks; i++) {
            const float scale = _cvtsh_ss(p[i].d) * x.scale[i];
            sum[0] = _mm256_fmadd_ps(product(i), _mm256_set1_ps(scale), sum[0]);
            if constexpr (symmetric) rest += scale * static_cast<float>(x.sum8[i]);
            else if constexpr (!centered) rest += _cvtsh_ss(p[i].m) * x.scale[i] * static_cast<float>(x.sum8[i]);
        }
        float total = sum8(_mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3])));
        if constexpr (!centered) total += excess * (sum8(mins) + rest);
        y[row - row0] = total;
    }
}

// One row's way through the blocks of Q4_K or Q5_K; two rows share what they read of the activations.
template <Type type> struct RowOfK {
    const Block<type>* p;
    __m256 sum = _mm256_setzero_ps(), mins = sum, part = sum;
    __m256i scales = _mm256_setzero_si256();

    inline void begin(__m256 counted) {
        const SixBits six = six_bits(p->scales);
        scales = _mm256_broadcastsi128_si256(_mm_cvtepu8_epi16(_mm_cvtsi64_si128(static_cast<long long>(six.scales))));
        const __m256 m = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(six.mins))));
        mins = _mm256_fmadd_ps(_mm256_mul_ps(broadcast_f16(p->dmin), m), counted, mins);
        part = _mm256_setzero_ps();
    }
    inline void add(int j, __m256i q, __m256 scale) {
        const __m256i product = _mm256_madd_epi16(_mm256_maddubs_epi16(codes<type>(*p, j), q), _mm256_shuffle_epi8(scales, pick_16(j)));
        part = _mm256_fmadd_ps(_mm256_cvtepi32_ps(product), scale, part);
    }
    inline void end() { sum = _mm256_fmadd_ps(broadcast_f16(p->d), part, sum), p++; }
    inline float total() const { return sum8(_mm256_fnmadd_ps(_mm256_set1_ps(0.125f), mins, sum)); }
};

// The same for Q6_K, whose halves of a block of 32 have a scale each. What 32 times the activations are is shared too.
struct RowOfQ6K {
    const BlockQ6_K* p;
    __m256 sum = _mm256_setzero_ps(), part = sum;
    __m256i scales = _mm256_setzero_si256();

    inline void begin() {
        const __m128i even_first = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
        scales = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p->scales)), even_first));
        part = _mm256_setzero_ps();
    }
    inline void add(int j, __m256i q, __m256i excess, __m256 scale) {
        const __m256i pairs = _mm256_sub_epi16(_mm256_maddubs_epi16(codes_q6_k(*p, j), q), excess);
        part = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_shuffle_epi8(scales, pick_16(j)))), scale, part);
    }
    inline void end() { sum = _mm256_fmadd_ps(broadcast_f16(p->d), part, sum), p++; }
    inline float total() const { return sum8(sum); }
};

// Two rows at a time. The second comes from far away: of two neighbors at once the hardware fetches neither ahead, and
// the speed is a third (docs/log.md).
template <class Row, class Step>
void two_by_two(const Weight& w, int64_t row0, int64_t row1, float* y, Step step) {
    const int64_t blocks = w.cols / kSuper, half = (row1 - row0 + 1) / 2;
    const auto* p = reinterpret_cast<decltype(Row::p)>(w.data);
    for (int64_t row = row0; row < row0 + half; row++) {
        const int64_t second = row + half < row1 ? row + half : row;
        Row a{p + row * blocks}, b{p + second * blocks};
        for (int64_t i = 0; i < blocks; i++) step(a, b, i);
        y[second - row0] = b.total();
        y[row - row0] = a.total();
    }
}

template <Type type>
void gemv_k(const Weight& w, int64_t row0, int64_t row1, const Activations& x, float* y) {
    using Row = RowOfK<type>;
    two_by_two<Row>(w, row0, row1, y, [&](Row& a, Row& b, int64_t i) {
        const __m256 counted = _mm256_mul_ps(_mm256_loadu_ps(x.scale + 8 * i), eight_sums(x.sum8 + 8 * i));
        a.begin(counted), b.begin(counted);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {
            const __m256i q = activations(x.q8 + 256 * i + 32 * j);
            const __m256 scale = _mm256_broadcast_ss(x.scale + 8 * i + j);
            a.add(j, q, scale), b.add(j, q, scale);
        }
        a.end(), b.end();
    });
}
void gemv_q6_k(const Weight& w, int64_t row0, int64_t row1, const Activations& x, float* y) {
    two_by_two<RowOfQ6K>(w, row0, row1, y, [&](RowOfQ6K& a, RowOfQ6K& b, int64_t i) {
        a.begin(), b.begin();
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {
            const __m256i q = activations(x.q8 + 256 * i + 32 * j), excess = _mm256_maddubs_epi16(_mm256_set1_epi8(32), q);
            const __m256 scale = _mm256_broadcast_ss(x.scale + 8 * i + j);
            a.add(j, q, excess, scale), b.add(j, q, excess, scale);
        }
        a.end(), b.end();
    });
}

// ---------------------------------------------------------------- gemm: 16 rows x 4 tokens

// Numbers of eight blocks of eight rows, one register a row -> to[block][row].
inline void store_turned(__m256 (&r)[8], float* to) {
    transpose8(r);
    for (int j = 0; j < 8; j++) _mm256_store_ps(to + kPanelRows * j, r[j]);
}

// scales, mins (blocks, 16): weight = scale * code - 8 * min, because what meets `min` is 8 * sum(x).
template <Type type>
inline void pack_scales_and_mins(const std::byte* const* rows, int64_t b0, int64_t b1, float* scales, float* mins) {
    if constexpr (kIsK<type>) {
        for (int64_t b = b0 / 8; b < b1 / 8; b++, scales += 8 * kPanelRows, mins += 8 * kPanelRows)
            for (int group = 0; group < 2; group++) {
                __m256 d[8], m[8];
                for (int i = 0; i < 8; i++) {
                    const Block<type>& w = reinterpret_cast<const Block<type>*>(rows[8 * group + i])[b];
                    const SixBits six = six_bits(w.scales);
                    const auto floats = [](uint64_t bytes) { return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(bytes)))); };
                    d[i] = _mm256_mul_ps(broadcast_f16(w.d), floats(six.scales));
                    m[i] = _mm256_mul_ps(_mm256_mul_ps(broadcast_f16(w.dmin), floats(six.mins)), _mm256_set1_ps(0.125f));
                }
                store_turned(d, scales + 8 * group), store_turned(m, mins + 8 * group);
            }
    } else {
        for (int64_t b = b0; b < b1; b++, scales += kPanelRows, mins += kPanelRows)
            for (int64_t i = 0; i < kPanelRows; i++) {
                const Block<type>& w = reinterpret_cast<const Block<type>*>(rows[i])[b];
                scales[i] = _cvtsh_ss(w.d);
                if constexpr (type == Type::Q5_0) mins[i] = 2 * scales[i];
                else mins[i] = -0.125f * _cvtsh_ss(w.m);
            }
    }
}

// panel per block: (8 steps of 4 columns, 2 groups of 8 rows, 32 bytes), as for Q4_0
template <Type type>
inline void pack_codes(const std::byte* const* rows, int64_t b0, int64_t b1, uint8_t* panel) {
    constexpr int64_t per = kIsK<type> ? 8 : 1;
    for (int64_t b = b0; b < b1; b++, panel += 512)
        for (int group = 0; group < 2; group++) {
            __m128i low[8], high[8];
            for (int i = 0; i < 8; i++) {
                const __m256i c = codes<type>(reinterpret_cast<const Block<type>*>(rows[8 * group + i])[b / per], static_cast<int>(b % per));
                low[i] = _mm256_castsi256_si128(c), high[i] = _mm256_extracti128_si256(c, 1);
            }
            __m256i word[4];
            auto* to = reinterpret_cast<__m256i*>(panel + 32 * group);
            transpose_words(low, word);
            for (int j = 0; j < 4; j++) _mm256_store_si256(to + 2 * j, word[j]);
            transpose_words(high, word);
            for (int j = 0; j < 4; j++) _mm256_store_si256(to + 2 * (j + 4), word[j]);
        }
}

#define QUINZE_KEEP(a, b, c, d, e, f, g, h) \
    asm volatile("" : "+x"(a), "+x"(b), "+x"(c), "+x"(d), "+x"(e), "+x"(f), "+x"(g), "+x"(h))

// In int16 sixteen products of a nibble and an int8 fit (30480), and eight of a five-bit code (31496): those are added up
// in two halves, the first of which waits in memory.
template <bool five>
inline void tile_codes(const uint8_t* panel, const float* scales, const float* mins, int64_t blocks, const int8_t* const (&q)[4],
                       const float* const (&xs)[4], const int32_t* const (&sum8)[4], float* sums) {
    const __m256i one = _mm256_set1_epi16(1);
    alignas(32) int32_t waiting[8][8];
    auto* first = reinterpret_cast<__m256i*>(waiting);
    for (int64_t b = 0; b < blocks; b++, panel += 512, scales += kPanelRows, mins += kPanelRows) {
        __m256i s00, s01, s02, s03, s10, s11, s12, s13;
        s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = _mm256_setzero_si256();
#pragma GCC unroll 8
        for (int k = 0; k < 8; k++) {
            if (five && k == 4) {
                _mm256_store_si256(first, _mm256_madd_epi16(s00, one)), _mm256_store_si256(first + 1, _mm256_madd_epi16(s10, one));
                _mm256_store_si256(first + 2, _mm256_madd_epi16(s01, one)), _mm256_store_si256(first + 3, _mm256_madd_epi16(s11, one));
                _mm256_store_si256(first + 4, _mm256_madd_epi16(s02, one)), _mm256_store_si256(first + 5, _mm256_madd_epi16(s12, one));
                _mm256_store_si256(first + 6, _mm256_madd_epi16(s03, one)), _mm256_store_si256(first + 7, _mm256_madd_epi16(s13, one));
                s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = _mm256_setzero_si256();
            }
            const __m256i w0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(panel + 64 * k)),
                          w1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(panel + 64 * k + 32));
            const int64_t at = 32 * b + 4 * k;
            __m256i x = broadcast_4(q[0] + at);
            s00 = _mm256_add_epi16(s00, _mm256_maddubs_epi16(w0, x)), s10 = _mm256_add_epi16(s10, _mm256_maddubs_epi16(w1, x));
            x = broadcast_4(q[1] + at);
            s01 = _mm256_add_epi16(s01, _mm256_maddubs_epi16(w0, x)), s11 = _mm256_add_epi16(s11, _mm256_maddubs_epi16(w1, x));
            x = broadcast_4(q[2] + at);
            s02 = _mm256_add_epi16(s02, _mm256_maddubs_epi16(w0, x)), s12 = _mm256_add_epi16(s12, _mm256_maddubs_epi16(w1, x));
            x = broadcast_4(q[3] + at);
            s03 = _mm256_add_epi16(s03, _mm256_maddubs_epi16(w0, x)), s13 = _mm256_add_epi16(s13, _mm256_maddubs_epi16(w1, x));
            QUINZE_KEEP(s00, s01, s02, s03, s10, s11, s12, s13);
        }
        const __m256 w0 = _mm256_load_ps(scales), w1 = _mm256_load_ps(scales + 8), m0 = _mm256_load_ps(mins), m1 = _mm256_load_ps(mins + 8);
        const auto finish = [&](int t, __m256i s0, __m256i s1) {
            s0 = _mm256_madd_epi16(s0, one), s1 = _mm256_madd_epi16(s1, one);
            if (five) s0 = _mm256_add_epi32(s0, first[2 * t]), s1 = _mm256_add_epi32(s1, first[2 * t + 1]);
            float* to = sums + 16 * t;
            const __m256 counted = _mm256_set1_ps(xs[t][b] * static_cast<float>(sum8[t][b]));
            _mm256_store_ps(to, _mm256_fnmadd_ps(m0, counted, _mm256_load_ps(to)));
            _mm256_store_ps(to + 8, _mm256_fnmadd_ps(m1, counted, _mm256_load_ps(to + 8)));
            add_scaled(to, s0, s1, w0, w1, xs[t][b]);
        };
        finish(0, s00, s10), finish(1, s01, s11), finish(2, s02, s12), finish(3, s03, s13);
    }
}

// What four tokens bring to a tile; the last may repeat.
struct FourTokens {
    const int8_t* q8[4];
    const float* xs[4];
    const int32_t* sum8[4];
    FourTokens(const Activations& x, int64_t t, int64_t n, int64_t k0) {
        for (int64_t i = 0; i < 4; i++) {
            const int64_t token = t + least(i, n - 1), block = token * (x.cols / kBlock) + k0 / kBlock;
            q8[i] = x.q8 + token * x.cols + k0;
            xs[i] = x.scale + block, sum8[i] = x.sum8 + block;
        }
    }
};

template <Type type>
void gemm_codes(const Weight& w, int64_t row0, int64_t row1, const Activations& x, int64_t tokens, float* y, int64_t ldy,
                std::byte* scratch) {
    constexpr int64_t panel_cols = 512;
    auto* panel = reinterpret_cast<uint8_t*>(scratch);
    auto* scales = reinterpret_cast<float*>(scratch + panel_cols * kPanelRows);
    float *mins = scales + panel_cols / kBlock * kPanelRows, *sums = mins + panel_cols / kBlock * kPanelRows;
    walk<4>(w, row0, row1, tokens, panel_cols, y, ldy, sums,
        [&](const std::byte* const* rows, int64_t k0, int64_t k1) {
            pack_codes<type>(rows, k0 / kBlock, k1 / kBlock, panel);
            pack_scales_and_mins<type>(rows, k0 / kBlock, k1 / kBlock, scales, mins);
        },
        [&](int64_t t, int64_t n, int64_t k0, int64_t k1, float* s) {
            const FourTokens four(x, t, n, k0);
            tile_codes<kFiveBits<type>>(panel, scales, mins, (k1 - k0) / kBlock, four.q8, four.xs, four.sum8, s);
        });
}

// ---------------------------------------------------------------- gemm, Q6_K

// Here the activations take the unsigned side, as x + 128, for the weights (code - 32) are the smaller ones: four products
// are at most 4 * 255 * 32 = 32640 and fit int16. What 128 adds is the same for every token, and known from the weights.
struct PanelQ6K {
    int8_t weights[8][8][2][32];  // block, step of 4 columns, group of 8 rows
    int16_t scales[8][2][2][16];  // block, half, group: each row's scale twice
    int32_t excess[8][2][8];      // block, group: 128 * sum of scale * weight
    float d[2][8];                // of the whole 256 columns
};

inline void pack_q6_k(const std::byte* const* rows, int64_t super, PanelQ6K& panel) {
    const __m256i center = _mm256_set1_epi8(32);
    for (int group = 0; group < 2; group++) {
        const auto block = [&](int i) -> const BlockQ6_K& { return reinterpret_cast<const BlockQ6_K*>(rows[8 * group + i])[super]; };
        for (int i = 0; i < 8; i++) panel.d[group][i] = _cvtsh_ss(block(i).d);
        for (int j = 0; j < 8; j++) {
            __m128i low[8], high[8];
            for (int i = 0; i < 8; i++) {
                const BlockQ6_K& w = block(i);
                const __m256i c = codes_q6_k(w, j), sums = _mm256_sad_epu8(c, _mm256_setzero_si256()), v = _mm256_sub_epi8(c, center);
                low[i] = _mm256_castsi256_si128(v), high[i] = _mm256_extracti128_si256(v, 1);
                const int scale0 = w.scales[2 * j], scale1 = w.scales[2 * j + 1];
                const int sum0 = _mm256_extract_epi16(sums, 0) + _mm256_extract_epi16(sums, 4) - 512,
                          sum1 = _mm256_extract_epi16(sums, 8) + _mm256_extract_epi16(sums, 12) - 512;
                panel.excess[j][group][i] = 128 * (scale0 * sum0 + scale1 * sum1);
                for (int k = 0; k < 2; k++) {
                    panel.scales[j][0][group][2 * i + k] = static_cast<int16_t>(scale0);
                    panel.scales[j][1][group][2 * i + k] = static_cast<int16_t>(scale1);
                }
            }
            __m256i word[4];
            transpose_words(low, word);
            for (int k = 0; k < 4; k++) _mm256_store_si256(reinterpret_cast<__m256i*>(panel.weights[j][k][group]), word[k]);
            transpose_words(high, word);
            for (int k = 0; k < 4; k++) _mm256_store_si256(reinterpret_cast<__m256i*>(panel.weights[j][4 + k][group]), word[k]);
        }
    }
}

inline void tile_q6_k(const PanelQ6K& panel, const int8_t* const (&q)[4], const float* const (&xs)[4], float* sums) {
    const __m256i raised = _mm256_set1_epi8(static_cast<char>(0x80));
    const auto at = [](const auto& lanes) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(lanes)); };
    const __m256 d0 = _mm256_load_ps(panel.d[0]), d1 = _mm256_load_ps(panel.d[1]);
    for (int b = 0; b < 8; b++) {
        __m256i s00, s01, s02, s03, s10, s11, s12, s13;
        s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = _mm256_setzero_si256();
#pragma GCC unroll 4
        for (int k = 0; k < 8; k += 2) {
            const auto add = [&](const int8_t* x, __m256i& s0, __m256i& s1) {
                const __m256i x0 = _mm256_xor_si256(broadcast_4(x + 32 * b + 4 * k), raised), x1 = _mm256_xor_si256(broadcast_4(x + 32 * b + 4 * k + 4), raised);
                const __m256i t0 = _mm256_add_epi16(_mm256_maddubs_epi16(x0, at(panel.weights[b][k][0])), _mm256_maddubs_epi16(x1, at(panel.weights[b][k + 1][0])));
                const __m256i t1 = _mm256_add_epi16(_mm256_maddubs_epi16(x0, at(panel.weights[b][k][1])), _mm256_maddubs_epi16(x1, at(panel.weights[b][k + 1][1])));
                s0 = _mm256_add_epi32(s0, _mm256_madd_epi16(t0, at(panel.scales[b][k / 4][0])));
                s1 = _mm256_add_epi32(s1, _mm256_madd_epi16(t1, at(panel.scales[b][k / 4][1])));
            };
            add(q[0], s00, s10), add(q[1], s01, s11), add(q[2], s02, s12), add(q[3], s03, s13);
            QUINZE_KEEP(s00, s01, s02, s03, s10, s11, s12, s13);
        }
        const __m256i e0 = at(panel.excess[b][0]), e1 = at(panel.excess[b][1]);
        add_scaled(sums, _mm256_sub_epi32(s00, e0), _mm256_sub_epi32(s10, e1), d0, d1, xs[0][b]);
        add_scaled(sums + 16, _mm256_sub_epi32(s01, e0), _mm256_sub_epi32(s11, e1), d0, d1, xs[1][b]);
        add_scaled(sums + 32, _mm256_sub_epi32(s02, e0), _mm256_sub_epi32(s12, e1), d0, d1, xs[2][b]);
        add_scaled(sums + 48, _mm256_sub_epi32(s03, e0), _mm256_sub_epi32(s13, e1), d0, d1, xs[3][b]);
    }
}

void gemm_q6_k(const Weight& w, int64_t row0, int64_t row1, const Activations& x, int64_t tokens, float* y, int64_t ldy,
               std::byte* scratch) {
    auto& panel = *reinterpret_cast<PanelQ6K*>(scratch);
    static_assert(sizeof(PanelQ6K) % 64 == 0 && sizeof(PanelQ6K) <= 8 * 1024);
    auto* sums = reinterpret_cast<float*>(scratch + sizeof(PanelQ6K));
    walk<4>(w, row0, row1, tokens, kSuper, y, ldy, sums,
        [&](const std::byte* const* rows, int64_t k0, int64_t) { pack_q6_k(rows, k0 / kSuper, panel); },
        [&](int64_t t, int64_t n, int64_t k0, int64_t, float* s) {
            const FourTokens four(x, t, n, k0);
            tile_q6_k(panel, four.q8, four.xs, s);
        });
}
#undef QUINZE_KEEP

}  // namespace
}  // namespace quinze
