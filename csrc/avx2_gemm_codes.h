// Products of many tokens with weights that are codes with a scale and often a minimum, in AVX2: gemm of Q4_1, Q5_0, Q5_1 and
// the K formats. Read by kernels_avx2.cpp only. A panel is filled from the file here, from packed weights in
// avx2_packed.h; the tiles that meet it are the same, and so are the bits that come out.
#pragma once
#include "avx2_codes.h"

namespace quinze {
namespace {

// panel per block: (8 steps of 4 columns, 2 groups of 8 rows, 32 bytes), as for Q4_0
template <Type type>
inline void pack_codes(const std::byte* const* rows, int64_t b0, int64_t b1, uint8_t* panel) {
    constexpr int64_t per = kTypeInfo[static_cast<int>(type)].block / kBlock;
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

// ---------------------------------------------------------------- Q4_1, Q5_0, Q5_1

struct PanelCodes {
    static constexpr int64_t cols = 512, blocks = cols / kBlock;
    uint8_t codes[blocks][512];
    float scales[blocks][16], mins[blocks][16];  // weight = scale * code - 8 * min, because what meets `min` is 8 * sum(x)
};

template <Type type>
inline void fill_codes(const std::byte* const* rows, int64_t b0, int64_t b1, PanelCodes& panel) {
    pack_codes<type>(rows, b0, b1, panel.codes[0]);
    for (int64_t b = b0; b < b1; b++)
        for (int64_t i = 0; i < kPanelRows; i++) {
            const Block<type>& w = reinterpret_cast<const Block<type>*>(rows[i])[b];
            panel.scales[b - b0][i] = _cvtsh_ss(w.d);
            if constexpr (type != Type::Q5_0) panel.mins[b - b0][i] = -0.125f * _cvtsh_ss(w.m);
        }
}

#define QUINZE_KEEP(a, b, c, d, e, f, g, h) \
    asm volatile("" : "+x"(a), "+x"(b), "+x"(c), "+x"(d), "+x"(e), "+x"(f), "+x"(g), "+x"(h))

// In int16 sixteen products of a nibble and an int8 fit (30480), and eight of a five-bit code (31496): those are added up
// in two halves, the first of which waits in memory.
template <bool five, bool symmetric>
inline void tile_codes(const uint8_t* panel, const float* scales, const float* mins, int64_t blocks, const int8_t* const (&q)[4],
                       const float* const (&xs)[4], const int32_t* const (&sum8)[4], float* sums) {
    const __m256i one = _mm256_set1_epi16(1);
    alignas(32) int32_t waiting[8][8];
    auto* first = reinterpret_cast<__m256i*>(waiting);
    for (int64_t b = 0; b < blocks; b++, panel += 512, scales += kPanelRows, mins += symmetric ? 0 : kPanelRows) {
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
        const __m256 w0 = _mm256_load_ps(scales), w1 = _mm256_load_ps(scales + 8);
        const auto finish = [&](int t, __m256i s0, __m256i s1) {
            s0 = _mm256_madd_epi16(s0, one), s1 = _mm256_madd_epi16(s1, one);
            if (five) s0 = _mm256_add_epi32(s0, first[2 * t]), s1 = _mm256_add_epi32(s1, first[2 * t + 1]);
            float* to = sums + 16 * t;
            if constexpr (symmetric) {  // the codes are 16 too large
                const __m256i excess = _mm256_set1_epi32(2 * sum8[t][b]);
                add_scaled(to, _mm256_sub_epi32(s0, excess), _mm256_sub_epi32(s1, excess), w0, w1, xs[t][b]);
                return;
            }
            const __m256 counted = _mm256_set1_ps(xs[t][b] * static_cast<float>(sum8[t][b]));
            _mm256_store_ps(to, _mm256_fnmadd_ps(_mm256_load_ps(mins), counted, _mm256_load_ps(to)));
            _mm256_store_ps(to + 8, _mm256_fnmadd_ps(_mm256_load_ps(mins + 8), counted, _mm256_load_ps(to + 8)));
            add_scaled(to, s0, s1, w0, w1, xs[t][b]);
        };
        finish(0, s00, s10), finish(1, s01, s11), finish(2, s02, s12), finish(3, s03, s13);
    }
}

template <Type type, class Fill>
void gemm_with_codes(int64_t cols, int64_t row0, int64_t row1, const Activations& x, int64_t tokens, float* y, int64_t ldy,
                     std::byte* scratch, Fill fill) {
    auto& panel = *reinterpret_cast<PanelCodes*>(scratch);
    static_assert(sizeof(PanelCodes) % 64 == 0 && sizeof(PanelCodes) <= 16 * 1024);
    walk<4>(cols, row0, row1, tokens, PanelCodes::cols, y, ldy, reinterpret_cast<float*>(scratch + sizeof(PanelCodes)),
        [&](int64_t r, int64_t n, int64_t k0, int64_t k1) { fill(r, n, k0 / kBlock, k1 / kBlock, panel); },
        [&](int64_t t, int64_t n, int64_t k0, int64_t k1, float* s) {
            const FourTokens four(x, t, n, k0);
            tile_codes<kFiveBits<type>, type == Type::Q5_0>(panel.codes[0], panel.scales[0], panel.mins[0], (k1 - k0) / kBlock, four.q8, four.xs, four.sum8, s);
        });
}

// ---------------------------------------------------------------- Q4_K, Q5_K

struct PanelK {
    static constexpr int64_t cols = 512, blocks = cols / kBlock;
    uint8_t codes[blocks][512];
    int16_t scales[blocks][2][16];  // of each group's rows, each twice
    float mins[blocks][16];
    float d[cols / kSuper][16], dmin8[cols / kSuper][16];  // dmin / 8, because what meets it is 8 * sum(x)
};

// Eight blocks of one super-block: scales and mins as bytes (block, row).
inline void widen_k_scales(const uint8_t (&scales)[8][16], const uint8_t (&mins)[8][16], int64_t super, PanelK& panel) {
    for (int j = 0; j < 8; j++)
        for (int group = 0; group < 2; group++) {
            _mm256_store_si256(reinterpret_cast<__m256i*>(panel.scales[8 * super + j][group]), bytes_twice_as_16(sixteen_bytes(scales[j]), group));
            _mm256_store_ps(panel.mins[8 * super + j] + 8 * group, _mm256_cvtepi32_ps(bytes_as_32(sixteen_bytes(mins[j]), group)));
        }
}
template <Type type>
inline void fill_k(const std::byte* const* rows, int64_t b0, int64_t b1, PanelK& panel) {
    pack_codes<type>(rows, b0, b1, panel.codes[0]);
    for (int64_t super = b0 / 8; super < b1 / 8; super++) {
        uint8_t scales[8][16], mins[8][16];
        const int64_t at = super - b0 / 8;
        for (int i = 0; i < 16; i++) {
            const Block<type>& w = reinterpret_cast<const Block<type>*>(rows[i])[super];
            const SixBits six = six_bits(w.scales);
            for (int j = 0; j < 8; j++) {
                scales[j][i] = static_cast<uint8_t>(six.scales >> 8 * j);
                mins[j][i] = static_cast<uint8_t>(six.mins >> 8 * j);
            }
            panel.d[at][i] = _cvtsh_ss(w.d), panel.dmin8[at][i] = _cvtsh_ss(w.dmin) * 0.125f;
        }
        widen_k_scales(scales, mins, at, panel);
    }
}

// Integer sums of a block meet its small scale while they are integers, and the scale of the activations as floats; the
// float scale of the row comes once for 256 columns, and so does what the mins take away.
template <bool five>
inline void tile_k(const PanelK& panel, int64_t blocks, const FourTokens& x, float* sums) {
    alignas(32) float part[8][8], counted[4][8];
    alignas(32) int32_t waiting[8][8];
    auto* first = reinterpret_cast<__m256i*>(waiting);
    const auto at = [](const auto& lanes) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(lanes)); };
    for (int64_t b = 0; b < blocks; b += 8) {
        for (int j = 0; j < 8; j++) {
            const uint8_t* codes = panel.codes[b + j];
            __m256i s00, s01, s02, s03, s10, s11, s12, s13;
            s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = _mm256_setzero_si256();
#pragma GCC unroll 8
            for (int k = 0; k < 8; k++) {
                if (five && k == 4) {
                    const __m256i c0 = at(panel.scales[b + j][0]), c1 = at(panel.scales[b + j][1]);
                    _mm256_store_si256(first, _mm256_madd_epi16(s00, c0)), _mm256_store_si256(first + 1, _mm256_madd_epi16(s10, c1));
                    _mm256_store_si256(first + 2, _mm256_madd_epi16(s01, c0)), _mm256_store_si256(first + 3, _mm256_madd_epi16(s11, c1));
                    _mm256_store_si256(first + 4, _mm256_madd_epi16(s02, c0)), _mm256_store_si256(first + 5, _mm256_madd_epi16(s12, c1));
                    _mm256_store_si256(first + 6, _mm256_madd_epi16(s03, c0)), _mm256_store_si256(first + 7, _mm256_madd_epi16(s13, c1));
                    s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = _mm256_setzero_si256();
                }
                const __m256i w0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(codes + 64 * k)),
                              w1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(codes + 64 * k + 32));
                const int64_t column = 32 * (b + j) + 4 * k;
                __m256i v = broadcast_4(x.q8[0] + column);
                s00 = _mm256_add_epi16(s00, _mm256_maddubs_epi16(w0, v)), s10 = _mm256_add_epi16(s10, _mm256_maddubs_epi16(w1, v));
                v = broadcast_4(x.q8[1] + column);
                s01 = _mm256_add_epi16(s01, _mm256_maddubs_epi16(w0, v)), s11 = _mm256_add_epi16(s11, _mm256_maddubs_epi16(w1, v));
                v = broadcast_4(x.q8[2] + column);
                s02 = _mm256_add_epi16(s02, _mm256_maddubs_epi16(w0, v)), s12 = _mm256_add_epi16(s12, _mm256_maddubs_epi16(w1, v));
                v = broadcast_4(x.q8[3] + column);
                s03 = _mm256_add_epi16(s03, _mm256_maddubs_epi16(w0, v)), s13 = _mm256_add_epi16(s13, _mm256_maddubs_epi16(w1, v));
                QUINZE_KEEP(s00, s01, s02, s03, s10, s11, s12, s13);
            }
            const __m256i c0 = at(panel.scales[b + j][0]), c1 = at(panel.scales[b + j][1]);
            const auto finish = [&](int t, __m256i s0, __m256i s1) {
                s0 = _mm256_madd_epi16(s0, c0), s1 = _mm256_madd_epi16(s1, c1);
                if (five) s0 = _mm256_add_epi32(s0, first[2 * t]), s1 = _mm256_add_epi32(s1, first[2 * t + 1]);
                const __m256 xs = _mm256_broadcast_ss(x.xs[t] + b + j);
                const __m256 p0 = j ? _mm256_load_ps(part[2 * t]) : _mm256_setzero_ps(), p1 = j ? _mm256_load_ps(part[2 * t + 1]) : _mm256_setzero_ps();
                _mm256_store_ps(part[2 * t], _mm256_fmadd_ps(_mm256_cvtepi32_ps(s0), xs, p0));
                _mm256_store_ps(part[2 * t + 1], _mm256_fmadd_ps(_mm256_cvtepi32_ps(s1), xs, p1));
            };
            finish(0, s00, s10), finish(1, s01, s11), finish(2, s02, s12), finish(3, s03, s13);
        }
        __m256 m[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) m[i] = _mm256_setzero_ps();
        for (int t = 0; t < 4; t++) _mm256_store_ps(counted[t], _mm256_mul_ps(_mm256_loadu_ps(x.xs[t] + b), eight_sums(x.sum8[t] + b)));
        for (int j = 0; j < 8; j++) {
            const __m256 m0 = _mm256_load_ps(panel.mins[b + j]), m1 = _mm256_load_ps(panel.mins[b + j] + 8);
#pragma GCC unroll 4
            for (int t = 0; t < 4; t++) {
                const __m256 c = _mm256_broadcast_ss(counted[t] + j);
                m[2 * t] = _mm256_fmadd_ps(m0, c, m[2 * t]), m[2 * t + 1] = _mm256_fmadd_ps(m1, c, m[2 * t + 1]);
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            float* to = sums + 8 * i;
            const int at8 = i % 2 * 8;
            const __m256 sum = _mm256_fmadd_ps(_mm256_load_ps(panel.d[b / 8] + at8), _mm256_load_ps(part[i]), _mm256_load_ps(to));
            _mm256_store_ps(to, _mm256_fnmadd_ps(_mm256_load_ps(panel.dmin8[b / 8] + at8), m[i], sum));
        }
    }
}

template <Type type, class Fill>
void gemm_with_k(int64_t cols, int64_t row0, int64_t row1, const Activations& x, int64_t tokens, float* y, int64_t ldy,
                 std::byte* scratch, Fill fill) {
    auto& panel = *reinterpret_cast<PanelK*>(scratch);
    static_assert(sizeof(PanelK) % 64 == 0 && sizeof(PanelK) <= 16 * 1024);
    walk<4>(cols, row0, row1, tokens, PanelK::cols, y, ldy, reinterpret_cast<float*>(scratch + sizeof(PanelK)),
        [&](int64_t r, int64_t n, int64_t k0, int64_t k1) { fill(r, n, k0 / kBlock, k1 / kBlock, panel); },
        [&](int64_t t, int64_t n, int64_t k0, int64_t k1, float* s) {
            tile_k<kFiveBits<type>>(panel, (k1 - k0) / kBlock, FourTokens(x, t, n, k0), s);
        });
}

// ---------------------------------------------------------------- Q6_K

struct PanelQ6K {
    static constexpr int64_t cols = 512, blocks = cols / kBlock;
    uint8_t codes[blocks][512];
    int16_t scales[blocks][2][2][16];  // block, half, group: each row's scale twice
    float d[cols / kSuper][16];
};

inline void fill_q6_k(const std::byte* const* rows, int64_t b0, int64_t b1, PanelQ6K& panel) {
    pack_codes<Type::Q6_K>(rows, b0, b1, panel.codes[0]);
    for (int64_t super = b0 / 8; super < b1 / 8; super++)
        for (int i = 0; i < 16; i++) {
            const BlockQ6_K& w = reinterpret_cast<const BlockQ6_K*>(rows[i])[super];
            const int64_t at = super - b0 / 8;
            panel.d[at][i] = _cvtsh_ss(w.d);
            for (int g = 0; g < 16; g++)
                for (int k = 0; k < 2; k++) panel.scales[8 * at + g / 2][g % 2][i / 8][2 * (i % 8) + k] = w.scales[g];
        }
}

// Sums of 16 columns begin with what the codes are too large by, known from the activations. In between they may run over
// int16 and back: at the end |code - 32| <= 32 keeps them within 32512.
inline void tile_q6_k(const PanelQ6K& panel, int64_t blocks, const FourTokens& x, float* sums) {
    const auto at = [](const auto& lanes) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(lanes)); };
    alignas(32) int32_t waiting[8][8];
    auto* first = reinterpret_cast<__m256i*>(waiting);
    for (int64_t b = 0; b < blocks; b++) {
        const uint8_t* codes = panel.codes[b];
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            __m256i s00, s01, s02, s03, s10, s11, s12, s13;
            s00 = s10 = _mm256_set1_epi32(x.minus32[0][2 * b + half]), s01 = s11 = _mm256_set1_epi32(x.minus32[1][2 * b + half]);
            s02 = s12 = _mm256_set1_epi32(x.minus32[2][2 * b + half]), s03 = s13 = _mm256_set1_epi32(x.minus32[3][2 * b + half]);
#pragma GCC unroll 4
            for (int k = 4 * half; k < 4 * half + 4; k++) {
                const __m256i w0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(codes + 64 * k)),
                              w1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(codes + 64 * k + 32));
                const int64_t column = 32 * b + 4 * k;
                __m256i v = broadcast_4(x.q8[0] + column);
                s00 = _mm256_add_epi16(s00, _mm256_maddubs_epi16(w0, v)), s10 = _mm256_add_epi16(s10, _mm256_maddubs_epi16(w1, v));
                v = broadcast_4(x.q8[1] + column);
                s01 = _mm256_add_epi16(s01, _mm256_maddubs_epi16(w0, v)), s11 = _mm256_add_epi16(s11, _mm256_maddubs_epi16(w1, v));
                v = broadcast_4(x.q8[2] + column);
                s02 = _mm256_add_epi16(s02, _mm256_maddubs_epi16(w0, v)), s12 = _mm256_add_epi16(s12, _mm256_maddubs_epi16(w1, v));
                v = broadcast_4(x.q8[3] + column);
                s03 = _mm256_add_epi16(s03, _mm256_maddubs_epi16(w0, v)), s13 = _mm256_add_epi16(s13, _mm256_maddubs_epi16(w1, v));
                QUINZE_KEEP(s00, s01, s02, s03, s10, s11, s12, s13);
            }
            const __m256i c0 = at(panel.scales[b][half][0]), c1 = at(panel.scales[b][half][1]);
            s00 = _mm256_madd_epi16(s00, c0), s10 = _mm256_madd_epi16(s10, c1), s01 = _mm256_madd_epi16(s01, c0), s11 = _mm256_madd_epi16(s11, c1);
            s02 = _mm256_madd_epi16(s02, c0), s12 = _mm256_madd_epi16(s12, c1), s03 = _mm256_madd_epi16(s03, c0), s13 = _mm256_madd_epi16(s13, c1);
            if (half == 0) {
                _mm256_store_si256(first, s00), _mm256_store_si256(first + 1, s10), _mm256_store_si256(first + 2, s01);
                _mm256_store_si256(first + 3, s11), _mm256_store_si256(first + 4, s02), _mm256_store_si256(first + 5, s12);
                _mm256_store_si256(first + 6, s03), _mm256_store_si256(first + 7, s13);
                continue;
            }
            const __m256 d0 = _mm256_load_ps(panel.d[b / 8]), d1 = _mm256_load_ps(panel.d[b / 8] + 8);
            const auto finish = [&](int t, __m256i s0, __m256i s1) {
                add_scaled(sums + 16 * t, _mm256_add_epi32(s0, first[2 * t]), _mm256_add_epi32(s1, first[2 * t + 1]), d0, d1, x.xs[t][b]);
            };
            finish(0, s00, s10), finish(1, s01, s11), finish(2, s02, s12), finish(3, s03, s13);
        }
    }
}
#undef QUINZE_KEEP

template <class Fill>
void gemm_with_q6_k(int64_t cols, int64_t row0, int64_t row1, const Activations& x, int64_t tokens, float* y, int64_t ldy,
                    std::byte* scratch, Fill fill) {
    auto& panel = *reinterpret_cast<PanelQ6K*>(scratch);
    static_assert(sizeof(PanelQ6K) % 64 == 0 && sizeof(PanelQ6K) <= 16 * 1024);
    walk<4>(cols, row0, row1, tokens, PanelQ6K::cols, y, ldy, reinterpret_cast<float*>(scratch + sizeof(PanelQ6K)),
        [&](int64_t r, int64_t n, int64_t k0, int64_t k1) { fill(r, n, k0 / kBlock, k1 / kBlock, panel); },
        [&](int64_t t, int64_t n, int64_t k0, int64_t k1, float* s) { tile_q6_k(panel, (k1 - k0) / kBlock, FourTokens(x, t, n, k0), s); });
}

// ---------------------------------------------------------------- from the file

template <Type type>
void gemm_file(const Weight& w, int64_t row0, int64_t row1, const Activations& x, int64_t tokens, float* y, int64_t ldy,
               std::byte* scratch) {
    const auto fill = [&](int64_t r, int64_t n, int64_t b0, int64_t b1, auto& panel) {
        const PanelRows rows(w, r, n);
        if constexpr (kIsK<type>) fill_k<type>(rows.at, b0, b1, panel);
        else if constexpr (type == Type::Q6_K) fill_q6_k(rows.at, b0, b1, panel);
        else fill_codes<type>(rows.at, b0, b1, panel);
    };
    if constexpr (kIsK<type>) gemm_with_k<type>(w.cols, row0, row1, x, tokens, y, ldy, scratch, fill);
    else if constexpr (type == Type::Q6_K) gemm_with_q6_k(w.cols, row0, row1, x, tokens, y, ldy, scratch, fill);
    else gemm_with_codes<type>(w.cols, row0, row1, x, tokens, y, ldy, scratch, fill);
}

}  // namespace
}  // namespace quinze
