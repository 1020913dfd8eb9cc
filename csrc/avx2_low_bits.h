// Products with Q2_K and Q3_K in AVX2: rows are decoded to bytes once, and these are multiplied with every token.
// Read by kernels_avx2.cpp only.
//
// A group of 16 weights is scale * code - minimum, with small integers for both: sums of 16 products stay integers, and so
// does what the minimum (or the 4 that a code of Q3_K is too large by) takes off, which the sums of the activations tell.
#pragma once
#include <algorithm>

#include "avx2_products.h"

namespace quinze {
namespace {

inline constexpr int64_t kLowCols = 4096;  // columns decoded at a time: some rows of them stay in the first cache
inline constexpr int kLowRows = 4;

struct LowBlock {
    float d, off;          // of the scales, and of what is taken off, for -32 times the sum of the activations
    int16_t scale[16], min[16];
    uint8_t code[256];
};

// The 32 codes of block j, without those third bits.
inline __m256i two_bits(const uint8_t (&qs)[64], int j) {
    const __m256i packed = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(qs + 32 * (j / 4)));
    return _mm256_and_si256(_mm256_srli_epi16(packed, 2 * (j % 4)), _mm256_set1_epi8(3));
}

inline void decode_low(const BlockQ2_K& w, LowBlock& to) {
    to.d = f16_to_float(w.d), to.off = f16_to_float(w.dmin) / 32;
    for (int g = 0; g < 16; g++) to.scale[g] = w.scales[g] & 15, to.min[g] = w.scales[g] >> 4;
    for (int j = 0; j < 8; j++) _mm256_storeu_si256(reinterpret_cast<__m256i*>(to.code + 32 * j), two_bits(w.qs, j));
}
inline void decode_low(const BlockQ3_K& w, LowBlock& to) {
    to.d = f16_to_float(w.d), to.off = to.d / 8;  // 4 / 32
    for (int g = 0; g < 16; g++) to.min[g] = to.scale[g] = static_cast<int16_t>(three_bit_scale(w.scales, g) - 32);
    const __m256i mask = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w.hmask));
    for (int j = 0; j < 8; j++) {
        const __m256i third = _mm256_and_si256(_mm256_srli_epi16(mask, j), _mm256_set1_epi8(1));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to.code + 32 * j), _mm256_or_si256(two_bits(w.qs, j), _mm256_slli_epi16(third, 2)));
    }
}

// The product of 256 weights with a token: q8, scale and minus32 begin where the block does.
inline float product_low(const LowBlock& w, const int8_t* q8, const float* scale, const int32_t* minus32) {
    __m256 sum = _mm256_setzero_ps();
    float off = 0;
    for (int j = 0; j < 8; j++) {
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w.code + 32 * j)),
                                                   _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q8 + 32 * j)));
        const __m256i scales = _mm256_set_m128i(_mm_set1_epi16(w.scale[2 * j + 1]), _mm_set1_epi16(w.scale[2 * j]));
        sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, scales)), _mm256_set1_ps(scale[j]), sum);
        int16_t sums[4];
        std::memcpy(sums, minus32 + 2 * j, sizeof sums);
        off += scale[j] * static_cast<float>(w.min[2 * j] * (sums[0] + sums[1]) + w.min[2 * j + 1] * (sums[2] + sums[3]));
    }
    return w.d * sum8(sum) + w.off * off;
}

template <Type type> struct LowOf;
template <> struct LowOf<Type::Q2_K> { using type = BlockQ2_K; };
template <> struct LowOf<Type::Q3_K> { using type = BlockQ3_K; };

template <Type type> void gemv_low(const Weight& w, int64_t row0, int64_t row1, const Activations& x, float* y) {
    for (int64_t row = row0; row < row1; row++) {
        const auto* p = reinterpret_cast<const typename LowOf<type>::type*>(w.data + row * row_bytes(w));
        double sum = 0;
        for (int64_t b = 0; b < w.cols / kSuper; b++) {
            LowBlock block;
            decode_low(p[b], block);
            sum += product_low(block, x.q8 + kSuper * b, x.scale + 8 * b, x.minus32 + 16 * b);
        }
        y[row - row0] = static_cast<float>(sum);
    }
}

template <Type type>
void gemm_low(const Weight& w, int64_t row0, int64_t row1, const Activations& x, int64_t tokens, float* y, int64_t ldy,
              std::byte* scratch) {
    static_assert(kLowRows * kLowCols / kSuper * sizeof(LowBlock) <= kScratchBytes);
    auto* blocks = reinterpret_cast<LowBlock*>(scratch);
    for (int64_t first = row0; first < row1; first += kLowRows) {
        const int64_t rows = std::min<int64_t>(kLowRows, row1 - first);
        for (int64_t c = 0; c < w.cols; c += kLowCols) {
            const int64_t n = std::min(kLowCols, w.cols - c) / kSuper, b0 = c / kSuper;
            for (int64_t r = 0; r < rows; r++) {
                const auto* p = reinterpret_cast<const typename LowOf<type>::type*>(w.data + (first + r) * row_bytes(w));
                for (int64_t b = 0; b < n; b++) decode_low(p[b0 + b], blocks[r * n + b]);
            }
            for (int64_t t = 0; t < tokens; t++)
                for (int64_t r = 0; r < rows; r++) {
                    float sum = 0;
                    for (int64_t b = 0; b < n; b++)
                        sum += product_low(blocks[r * n + b], x.q8 + t * x.cols + kSuper * (b0 + b), x.scale + (t * x.cols) / kBlock + 8 * (b0 + b),
                                           x.minus32 + (t * x.cols) / 16 + 16 * (b0 + b));
                    float& to = y[t * ldy + first + r - row0];
                    to = c == 0 ? sum : to + sum;
                }
        }
    }
}

}  // namespace
}  // namespace quinze
