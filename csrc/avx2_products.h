// Matrix products in AVX2. Read by kernels_avx2.cpp only.
//
// gemv reads each row once, in the order of the file: it is bound by memory, which the hardware fetches ahead better
// than we do (docs/log.md). gemm turns 16 rows at a time into a small panel that stays in the first-level cache, in
// which the eight lanes of a register are eight rows, and multiplies it with 64 tokens before it takes the next: it is
// bound by the multipliers.
#pragma once
#include "avx2_math.h"
#include "packed.h"

namespace quinze {
namespace {

constexpr int64_t kTokenBlock = 64;  // tokens that meet one panel

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// ---------------------------------------------------------------- gemv, floating point

template <Type type> inline __m256 load8(const std::byte* p) {
    if constexpr (type == Type::F32) return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
    if constexpr (type == Type::F16) return load_f16(p);
    if constexpr (type == Type::BF16) return load_bf16(p);
}
template <Type type> inline __m256 load_some(const std::byte* p, int64_t n) {
    constexpr int64_t bytes = type == Type::F32 ? 4 : 2;
    alignas(32) std::byte padded[32] = {};
    std::memcpy(padded, p, n * bytes);
    return load8<type>(padded);
}

template <Type type>
void gemv_float(const Weight& w, int64_t row0, int64_t row1, const Activations& x, float* y) {
    constexpr int64_t bytes = type == Type::F32 ? 4 : 2;
    const int64_t n = w.cols;
    for (int64_t row = row0; row < row1; row++) {
        const std::byte* p = w.data + row * n * bytes;
        __m256 a = _mm256_setzero_ps(), b = a, c = a, d = a;
        int64_t i = 0;
        for (; i + 32 <= n; i += 32, p += 32 * bytes) {
            a = _mm256_fmadd_ps(load8<type>(p), _mm256_loadu_ps(x.f32 + i), a);
            b = _mm256_fmadd_ps(load8<type>(p + 8 * bytes), _mm256_loadu_ps(x.f32 + i + 8), b);
            c = _mm256_fmadd_ps(load8<type>(p + 16 * bytes), _mm256_loadu_ps(x.f32 + i + 16), c);
            d = _mm256_fmadd_ps(load8<type>(p + 24 * bytes), _mm256_loadu_ps(x.f32 + i + 24), d);
        }
        for (; i + 8 <= n; i += 8, p += 8 * bytes) a = _mm256_fmadd_ps(load8<type>(p), _mm256_loadu_ps(x.f32 + i), a);
        if (i < n) b = _mm256_fmadd_ps(load_some<type>(p, n - i), _mm256_maskload_ps(x.f32 + i, first_lanes(n - i)), b);
        y[row - row0] = sum8(_mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d)));
    }
}

// ---------------------------------------------------------------- gemv, quantized

// 32 weights times 32 activations, as eight partial sums. Q4_0 gives the sum for weight + 8, as it is stored.
inline __m256i dot(const BlockQ8_0& w, const int8_t* q) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w.qs));
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q));
    // maddubs wants one side unsigned: |w| * (x with the sign of w). |w| <= 128 and |x| <= 127 cannot overflow int16.
    return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(v), _mm256_sign_epi8(x, v)), _mm256_set1_epi16(1));
}
inline __m256i dot(const BlockQ4_0& w, const int8_t* q) {
    const __m256i twice = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w.qs)));
    const __m256i v = _mm256_and_si256(_mm256_srlv_epi64(twice, _mm256_setr_epi64x(0, 0, 4, 4)), _mm256_set1_epi8(15));
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q));
    return _mm256_madd_epi16(_mm256_maddubs_epi16(v, x), _mm256_set1_epi16(1));
}

template <class Block>
void gemv_block(const Weight& w, int64_t row0, int64_t row1, const Activations& x, float* y) {
    constexpr bool q4 = sizeof(Block) == sizeof(BlockQ4_0);
    const int64_t blocks = w.cols / kBlock;
    const auto* p = reinterpret_cast<const Block*>(w.data);
    // The scaled sums of one block.
    const auto step = [&](const Block& v, int64_t i, __m256& acc) {
        __m256i product = dot(v, x.q8 + 32 * i);
        // What was counted too much is taken from one of the eight sums: integers, so nothing is lost.
        if constexpr (q4) product = _mm256_sub_epi32(product, _mm256_zextsi128_si256(_mm_cvtsi32_si128(x.sum8[i])));
        const __m256 scale = _mm256_mul_ps(broadcast_f16(v.d), _mm256_broadcast_ss(x.scale + i));
        acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(product), scale, acc);
    };
    // Q4_0: two rows share what they read of the activations. The second comes from far away: of two neighbors at once
    // the hardware fetches neither ahead (docs/log.md). Q8_0 is bound by memory as it is.
    const int64_t half = q4 ? (row1 - row0 + 1) / 2 : row1 - row0;
    for (int64_t row = row0; row < row0 + half; row++) {
        const int64_t second = row + half < row1 ? row + half : row;
        const Block *v = p + row * blocks, *u = p + second * blocks;
        __m256 a = _mm256_setzero_ps(), b = a, c = a, d = a;
        int64_t i = 0;
        for (; i + 2 <= blocks; i += 2) {
            step(v[i], i, a);
            if constexpr (q4) step(u[i], i, c);
            step(v[i + 1], i + 1, b);
            if constexpr (q4) step(u[i + 1], i + 1, d);
        }
        if (i < blocks) {
            step(v[i], i, a);
            if constexpr (q4) step(u[i], i, c);
        }
        if constexpr (q4) y[second - row0] = sum8(_mm256_add_ps(c, d));
        y[row - row0] = sum8(_mm256_add_ps(a, b));
    }
}

// ---------------------------------------------------------------- gemm: what is common

// The rows of a panel as a file has them; one beyond the last repeats it.
struct PanelRows {
    const std::byte* at[kPanelRows];
    PanelRows(const Weight& w, int64_t row, int64_t n) {
        for (int64_t i = 0; i < kPanelRows; i++) at[i] = w.data + (row + least(i, n - 1)) * row_bytes(w);
    }
};

// Walks rows in panels of 16 and tokens in blocks of 64. For each, `fill(row, n, k0, k1)` makes the panel of the columns
// k0..k1 of the n rows from `row` on, and `tile(t, n, k0, k1, sums)` adds the products of n tokens from t on; sums (n, 16).
// TILE is the largest n.
template <int64_t TILE, class Fill, class Run>
void walk(int64_t cols, int64_t row0, int64_t row1, int64_t tokens, int64_t panel_cols, float* y, int64_t ldy, float* sums,
          Fill fill, Run tile) {
    constexpr int64_t block = kTokenBlock / TILE * TILE;
    for (int64_t t0 = 0; t0 < tokens; t0 += block) {
        const int64_t t1 = least(tokens, t0 + block);
        for (int64_t r = row0; r < row1; r += kPanelRows) {
            const int64_t n = least(kPanelRows, row1 - r);
            std::memset(sums, 0, (t1 - t0) * kPanelRows * sizeof(float));
            for (int64_t k0 = 0; k0 < cols; k0 += panel_cols) {
                const int64_t k1 = least(cols, k0 + panel_cols);
                fill(r, n, k0, k1);
                for (int64_t t = t0; t < t1; t += TILE)
                    tile(t, least(TILE, t1 - t), k0, k1, sums + (t - t0) * kPanelRows);
            }
            for (int64_t t = t0; t < t1; t++)
                std::memcpy(y + t * ldy + (r - row0), sums + (t - t0) * kPanelRows, n * sizeof(float));
        }
    }
}

// ---------------------------------------------------------------- gemm, floating point: 16 rows x 6 tokens

constexpr int64_t kFloatPanel = 256;

// panel (k, 16)
template <Type type>
void pack_float(const std::byte* const* rows, int64_t k0, int64_t k1, float* panel) {
    constexpr int64_t bytes = type == Type::F32 ? 4 : 2;
    for (int64_t k = k0; k < k1; k += 8) {
        const int64_t n = least(8, k1 - k);
        for (int64_t half = 0; half < 16; half += 8) {
            __m256 r[8];
            for (int i = 0; i < 8; i++) {
                const std::byte* p = rows[half + i] + k * bytes;
                r[i] = n == 8 ? load8<type>(p) : load_some<type>(p, n);
            }
            transpose8(r);
            for (int64_t i = 0; i < n; i++) _mm256_store_ps(panel + (k - k0 + i) * 16 + half, r[i]);
        }
    }
}

// Every loop over an array of registers is unrolled by name: otherwise gcc 12 keeps the arrays in memory (docs/log.md).
template <int N>
void tile_float(const float* panel, const float* x, int64_t cols, int64_t k, float* sums) {
    __m256 a[N], b[N];
#pragma GCC unroll 6
    for (int t = 0; t < N; t++) a[t] = _mm256_load_ps(sums + 16 * t), b[t] = _mm256_load_ps(sums + 16 * t + 8);
    for (int64_t i = 0; i < k; i++, panel += 16) {
        const __m256 w0 = _mm256_load_ps(panel), w1 = _mm256_load_ps(panel + 8);
#pragma GCC unroll 6
        for (int t = 0; t < N; t++) {
            const __m256 v = _mm256_broadcast_ss(x + t * cols + i);
            a[t] = _mm256_fmadd_ps(w0, v, a[t]);
            b[t] = _mm256_fmadd_ps(w1, v, b[t]);
        }
    }
#pragma GCC unroll 6
    for (int t = 0; t < N; t++) _mm256_store_ps(sums + 16 * t, a[t]), _mm256_store_ps(sums + 16 * t + 8, b[t]);
}

template <Type type>
void gemm_float(const Weight& w, int64_t row0, int64_t row1, const Activations& x, int64_t tokens, float* y, int64_t ldy,
                std::byte* scratch) {
    auto* panel = reinterpret_cast<float*>(scratch);
    float* sums = panel + kFloatPanel * kPanelRows;
    walk<6>(w.cols, row0, row1, tokens, kFloatPanel, y, ldy, sums,
        [&](int64_t r, int64_t n, int64_t k0, int64_t k1) { pack_float<type>(PanelRows(w, r, n).at, k0, k1, panel); },
        [&](int64_t t, int64_t n, int64_t k0, int64_t k1, float* s) {
            const float* v = x.f32 + t * w.cols + k0;
            switch (n) {
                case 6: return tile_float<6>(panel, v, w.cols, k1 - k0, s);
                case 5: return tile_float<5>(panel, v, w.cols, k1 - k0, s);
                case 4: return tile_float<4>(panel, v, w.cols, k1 - k0, s);
                case 3: return tile_float<3>(panel, v, w.cols, k1 - k0, s);
                case 2: return tile_float<2>(panel, v, w.cols, k1 - k0, s);
                default: return tile_float<1>(panel, v, w.cols, k1 - k0, s);
            }
        });
}

// ---------------------------------------------------------------- gemm, quantized: 16 rows x 4 tokens

// Eight rows of four 32-bit words -> four registers, word j of all eight rows in register j.
inline void transpose_words(const __m128i (&row)[8], __m256i (&word)[4]) {
    __m256i r[4];
    for (int i = 0; i < 4; i++) r[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(row[i]), row[i + 4], 1);
    const __m256i a = _mm256_unpacklo_epi32(r[0], r[1]), b = _mm256_unpacklo_epi32(r[2], r[3]),
                  c = _mm256_unpackhi_epi32(r[0], r[1]), d = _mm256_unpackhi_epi32(r[2], r[3]);
    word[0] = _mm256_unpacklo_epi64(a, b), word[1] = _mm256_unpackhi_epi64(a, b);
    word[2] = _mm256_unpacklo_epi64(c, d), word[3] = _mm256_unpackhi_epi64(c, d);
}

template <class Block>
inline void pack_scales(const std::byte* const* rows, int64_t block, float* scales) {
    for (int64_t i = 0; i < kPanelRows; i++)
        scales[i] = _cvtsh_ss(reinterpret_cast<const Block*>(rows[i])[block].d);
}

// Q4_0. panel per block: (8 steps of 4 columns, 2 groups of 8 rows, 32 bytes), each a nibble 0..15.
inline void pack_q4_0(const std::byte* const* rows, int64_t b0, int64_t b1, uint8_t* panel, float* scales) {
    const __m256i low = _mm256_set1_epi8(15);
    for (int64_t b = b0; b < b1; b++, panel += 512, scales += 16) {
        pack_scales<BlockQ4_0>(rows, b, scales);
        for (int group = 0; group < 2; group++) {
            __m128i r[8];
            for (int i = 0; i < 8; i++)
                r[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(
                    reinterpret_cast<const BlockQ4_0*>(rows[8 * group + i])[b].qs));
            __m256i word[4];
            transpose_words(r, word);
            for (int j = 0; j < 4; j++) {
                auto* to = reinterpret_cast<__m256i*>(panel + 32 * group);
                _mm256_store_si256(to + 2 * j, _mm256_and_si256(word[j], low));
                _mm256_store_si256(to + 2 * (j + 4), _mm256_and_si256(_mm256_srli_epi16(word[j], 4), low));
            }
        }
    }
}

// Adds integer sums of one block, scaled, to the float sums of one token.
inline void add_scaled(float* sums, __m256i s0, __m256i s1, __m256 w0, __m256 w1, float scale) {
    const __m256 d = _mm256_set1_ps(scale);
    _mm256_store_ps(sums, _mm256_fmadd_ps(_mm256_cvtepi32_ps(s0), _mm256_mul_ps(w0, d), _mm256_load_ps(sums)));
    _mm256_store_ps(sums + 8, _mm256_fmadd_ps(_mm256_cvtepi32_ps(s1), _mm256_mul_ps(w1, d), _mm256_load_ps(sums + 8)));
}

// The compiler must not reorder these sums: it would keep sixty partial sums and spill them.
#define QUINZE_KEEP(a, b, c, d, e, f, g, h) \
    asm volatile("" : "+x"(a), "+x"(b), "+x"(c), "+x"(d), "+x"(e), "+x"(f), "+x"(g), "+x"(h))

// Eight products of a nibble and an int8 are at most 8 * 15 * 127 = 15240: they are added up in int16.
inline void tile_q4_0(const uint8_t* panel, const float* scales, int64_t blocks, const int8_t* const (&q)[4],
                      const float* const (&xs)[4], const int32_t* const (&sum8)[4], float* sums) {
    const __m256i one = _mm256_set1_epi16(1);
    for (int64_t b = 0; b < blocks; b++, panel += 512, scales += 16) {
        __m256i s00, s01, s02, s03, s10, s11, s12, s13;
        s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = _mm256_setzero_si256();
#pragma GCC unroll 8
        for (int k = 0; k < 8; k++) {
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
            const __m256i eight = _mm256_set1_epi32(sum8[t][b]);
            add_scaled(sums + 16 * t, _mm256_sub_epi32(_mm256_madd_epi16(s0, one), eight),
                       _mm256_sub_epi32(_mm256_madd_epi16(s1, one), eight), w0, w1, xs[t][b]);
        };
        finish(0, s00, s10), finish(1, s01, s11), finish(2, s02, s12), finish(3, s03, s13);
    }
}

// Q8_0. panel per block: (16 steps of 2 columns, 2 groups of 8 rows, 16 int16).
inline void pack_q8_0(const std::byte* const* rows, int64_t b0, int64_t b1, int16_t* panel, float* scales) {
    for (int64_t b = b0; b < b1; b++, panel += 512, scales += 16) {
        pack_scales<BlockQ8_0>(rows, b, scales);
        for (int group = 0; group < 2; group++)
            for (int eight = 0; eight < 4; eight++) {  // columns 8 * eight .. + 8
                __m128i r[8];
                for (int i = 0; i < 8; i++)
                    r[i] = _mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(
                        reinterpret_cast<const BlockQ8_0*>(rows[8 * group + i])[b].qs + 8 * eight)));
                __m256i word[4];
                transpose_words(r, word);
                for (int j = 0; j < 4; j++)
                    _mm256_store_si256(reinterpret_cast<__m256i*>(panel + ((4 * eight + j) * 2 + group) * 16), word[j]);
            }
    }
}

inline void tile_q8_0(const int16_t* panel, const float* scales, int64_t blocks, const int16_t* const (&q)[4],
                      const float* const (&xs)[4], float* sums) {
    for (int64_t b = 0; b < blocks; b++, panel += 512, scales += 16) {
        __m256i s00, s01, s02, s03, s10, s11, s12, s13;
        s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = _mm256_setzero_si256();
#pragma GCC unroll 16
        for (int k = 0; k < 16; k++) {
            const __m256i w0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(panel + 32 * k)),
                          w1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(panel + 32 * k + 16));
            const int64_t at = 32 * b + 2 * k;
            __m256i x = broadcast_4(q[0] + at);
            s00 = _mm256_add_epi32(s00, _mm256_madd_epi16(w0, x)), s10 = _mm256_add_epi32(s10, _mm256_madd_epi16(w1, x));
            x = broadcast_4(q[1] + at);
            s01 = _mm256_add_epi32(s01, _mm256_madd_epi16(w0, x)), s11 = _mm256_add_epi32(s11, _mm256_madd_epi16(w1, x));
            x = broadcast_4(q[2] + at);
            s02 = _mm256_add_epi32(s02, _mm256_madd_epi16(w0, x)), s12 = _mm256_add_epi32(s12, _mm256_madd_epi16(w1, x));
            x = broadcast_4(q[3] + at);
            s03 = _mm256_add_epi32(s03, _mm256_madd_epi16(w0, x)), s13 = _mm256_add_epi32(s13, _mm256_madd_epi16(w1, x));
            QUINZE_KEEP(s00, s01, s02, s03, s10, s11, s12, s13);
        }
        const __m256 w0 = _mm256_load_ps(scales), w1 = _mm256_load_ps(scales + 8);
        add_scaled(sums, s00, s10, w0, w1, xs[0][b]), add_scaled(sums + 16, s01, s11, w0, w1, xs[1][b]);
        add_scaled(sums + 32, s02, s12, w0, w1, xs[2][b]), add_scaled(sums + 48, s03, s13, w0, w1, xs[3][b]);
    }
}
#undef QUINZE_KEEP

// What four tokens bring to a tile; the last may repeat, and what is computed for the repeated one is thrown away: `sums`
// has room.
struct FourTokens {
    const int8_t* q8[4];
    const int16_t* q16[4];
    const float* xs[4];
    const int32_t* sum8[4];
    const int32_t* minus32[4];
    FourTokens(const Activations& x, int64_t t, int64_t n, int64_t k0) {
        for (int64_t i = 0; i < 4; i++) {
            const int64_t token = t + least(i, n - 1), block = token * (x.cols / kBlock) + k0 / kBlock;
            q8[i] = x.q8 + token * x.cols + k0, q16[i] = x.q16 + token * x.cols + k0;
            xs[i] = x.scale + block, sum8[i] = x.sum8 + block, minus32[i] = x.minus32 + 2 * block;
        }
    }
};

// fill(row, n, k0, k1, panel, scales): from the file, or from packed weights (avx2_packed.h).
template <class Fill>
void gemm_q4_0(int64_t cols, int64_t row0, int64_t row1, const Activations& x, int64_t tokens, float* y, int64_t ldy,
               std::byte* scratch, Fill fill) {
    constexpr int64_t panel_cols = 512;
    auto* panel = reinterpret_cast<uint8_t*>(scratch);
    auto* scales = reinterpret_cast<float*>(scratch + panel_cols * kPanelRows);
    walk<4>(cols, row0, row1, tokens, panel_cols, y, ldy, scales + panel_cols / kBlock * kPanelRows,
        [&](int64_t r, int64_t n, int64_t k0, int64_t k1) { fill(r, n, k0 / kBlock, k1 / kBlock, panel, scales); },
        [&](int64_t t, int64_t n, int64_t k0, int64_t k1, float* s) {
            const FourTokens four(x, t, n, k0);
            tile_q4_0(panel, scales, (k1 - k0) / kBlock, four.q8, four.xs, four.sum8, s);
        });
}
template <class Fill>
void gemm_q8_0(int64_t cols, int64_t row0, int64_t row1, const Activations& x, int64_t tokens, float* y, int64_t ldy,
               std::byte* scratch, Fill fill) {
    constexpr int64_t panel_cols = 256;
    auto* panel = reinterpret_cast<int16_t*>(scratch);
    auto* scales = reinterpret_cast<float*>(scratch + panel_cols * kPanelRows * 2);
    walk<4>(cols, row0, row1, tokens, panel_cols, y, ldy, scales + panel_cols / kBlock * kPanelRows,
        [&](int64_t r, int64_t n, int64_t k0, int64_t k1) { fill(r, n, k0 / kBlock, k1 / kBlock, panel, scales); },
        [&](int64_t t, int64_t n, int64_t k0, int64_t k1, float* s) {
            const FourTokens four(x, t, n, k0);
            tile_q8_0(panel, scales, (k1 - k0) / kBlock, four.q16, four.xs, s);
        });
}

void gemm_file_q4_0(const Weight& w, int64_t row0, int64_t row1, const Activations& x, int64_t tokens, float* y, int64_t ldy,
                    std::byte* scratch) {
    gemm_q4_0(w.cols, row0, row1, x, tokens, y, ldy, scratch,
        [&](int64_t r, int64_t n, int64_t b0, int64_t b1, uint8_t* panel, float* scales) { pack_q4_0(PanelRows(w, r, n).at, b0, b1, panel, scales); });
}
void gemm_file_q8_0(const Weight& w, int64_t row0, int64_t row1, const Activations& x, int64_t tokens, float* y, int64_t ldy,
                    std::byte* scratch) {
    gemm_q8_0(w.cols, row0, row1, x, tokens, y, ldy, scratch,
        [&](int64_t r, int64_t n, int64_t b0, int64_t b1, int16_t* panel, float* scales) { pack_q8_0(PanelRows(w, r, n).at, b0, b1, panel, scales); });
}

}  // namespace
}  // namespace quinze
