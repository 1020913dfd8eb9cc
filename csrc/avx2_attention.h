// Attention in AVX2. Read by kernels_avx2.cpp only.
//
// Keys are taken a page at a time. Their scores become weights against the largest score so far; when a larger one
// comes, what was summed before is scaled down (the online softmax of Milakov and Gimelshein 2018).
#pragma once
#include "avx2_math.h"

namespace quinze {
namespace {

constexpr int64_t kPadded = (kMaxHeadDim + 7) / 8 * 8;
constexpr float kNone = -__builtin_inff();

// Of a block of Q8_0: its scale, and eight of its numbers.
inline __m256 cached_scale(const std::byte* block) {
    uint16_t d;
    std::memcpy(&d, block, 2);
    return broadcast_f16(d);
}
inline __m256 cached_q8(const std::byte* block, int64_t i, __m256 scale) {
    const __m128i q = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(block + 2 + i));
    return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)), scale);
}

// n numbers in the cache's format, zeros up to the next multiple of 8.
inline void load_row(const std::byte* p, Type type, int64_t n, float* y) {
    int64_t i = 0;
    if (type == Type::Q8_0) {  // a whole block may be written: there is room up to kPadded
        for (; i < n; i += kBlock, p += sizeof(BlockQ8_0))
            for (int64_t j = 0; j < kBlock && i + j < n; j += 8) _mm256_store_ps(y + i + j, cached_q8(p, j, cached_scale(p)));
        return;
    }
    if (type == Type::F16) {
        for (; i + 8 <= n; i += 8) _mm256_store_ps(y + i, load_f16(p + 2 * i));
    } else {
        for (; i + 8 <= n; i += 8) _mm256_store_ps(y + i, _mm256_loadu_ps(reinterpret_cast<const float*>(p + 4 * i)));
    }
    if (i == n) return;
    alignas(32) std::byte rest[32] = {};
    std::memcpy(rest, p + i * info(type).bytes, (n - i) * info(type).bytes);
    _mm256_store_ps(y + i, type == Type::F16 ? load_f16(rest) : _mm256_load_ps(reinterpret_cast<const float*>(rest)));
}

// Scores of one page's keys -> weights, in place; returns by how much earlier sums shrink. scores (n,), n <= 128, padded
// to a multiple of 8 with room behind.
inline float reweigh(float* scores, int64_t n, float scale, float& largest, float& sum) {
    const int64_t whole = (n + 7) / 8 * 8;
    for (int64_t i = n; i < whole; i++) scores[i] = kNone;
    __m256 m = _mm256_set1_ps(kNone);
    for (int64_t i = 0; i < whole; i += 8) {
        const __m256 s = _mm256_mul_ps(_mm256_load_ps(scores + i), _mm256_set1_ps(scale));
        _mm256_store_ps(scores + i, s);
        m = _mm256_max_ps(s, m);
    }
    const float found = max8(m), top = found > largest ? found : largest;
    __m256 total = _mm256_setzero_ps();
    for (int64_t i = 0; i < whole; i += 8) {
        const __m256 p = exp8(_mm256_sub_ps(_mm256_load_ps(scores + i), _mm256_set1_ps(top)));
        _mm256_store_ps(scores + i, p);
        total = _mm256_add_ps(total, p);
    }
    const float shrink = largest == kNone ? 0.0f : _mm256_cvtss_f32(exp8(_mm256_set1_ps(largest - top)));
    largest = top;
    sum = sum * shrink + sum8(total);
    return shrink;
}

// ---------------------------------------------------------------- few rows (decoding): each key is read once, as it lies

// Eight numbers, i of them from the beginning of a row; 32 share a scale in Q8_0, as they do in the loops below.
template <Type type> inline __m256 cached8(const std::byte* p, int64_t i, __m256 scale) {
    if constexpr (type == Type::F16) return load_f16(p + 2 * i);
    else if constexpr (type == Type::F32) return _mm256_loadu_ps(reinterpret_cast<const float*>(p + 4 * i));
    else return cached_q8(p + i / kBlock * static_cast<int64_t>(sizeof(BlockQ8_0)), i % kBlock, scale);
}
template <Type type> inline __m256 scale_at(const std::byte* p, int64_t i) {
    if constexpr (type == Type::Q8_0) return cached_scale(p + i / kBlock * static_cast<int64_t>(sizeof(BlockQ8_0)));
    else return _mm256_setzero_ps();
}

// The sums of four registers.
inline __m128 four_sums(__m256 a, __m256 b, __m256 c, __m256 d) {
    const __m256 t = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
}

constexpr int64_t kAhead = 1024;  // bytes of the cache that are fetched ahead: it comes in many short stretches

// N rows of q (N, D), D a multiple of 8, against n keys, four or (of four rows) two at a time; the last may repeat, so that
// a score does not hang on how many keys there are. scores (N, 128)
template <Type type, int N>
void scores_few(const float* q, const std::byte* k, int64_t n, int64_t D, float* scores) {
    constexpr int M = N < 4 ? 4 : 2;
    const int64_t bytes = kv_row_bytes(type, D);
    for (int64_t key = 0; key < n; key += M) {
        const std::byte* p[M];
        __m256 s[N][M], scale[M];
#pragma GCC unroll 4
        for (int i = 0; i < M; i++) {
            p[i] = k + (key + i < n ? key + i : n - 1) * bytes;
            scale[i] = _mm256_setzero_ps();
            for (int64_t line = 0; line < bytes; line += 64) _mm_prefetch(reinterpret_cast<const char*>(p[i] + kAhead + line), _MM_HINT_T0);
        }
#pragma GCC unroll 4
        for (int r = 0; r < N; r++)
#pragma GCC unroll 4
            for (int i = 0; i < M; i++) s[r][i] = _mm256_setzero_ps();
        for (int64_t d = 0; d < D; d += 8)
#pragma GCC unroll 4
            for (int i = 0; i < M; i++) {
                if (type == Type::Q8_0 && d % kBlock == 0) scale[i] = scale_at<type>(p[i], d);
                const __m256 v = cached8<type>(p[i], d, scale[i]);
#pragma GCC unroll 4
                for (int r = 0; r < N; r++) s[r][i] = _mm256_fmadd_ps(v, _mm256_load_ps(q + r * kPadded + d), s[r][i]);
            }
        if constexpr (M == 4) {
#pragma GCC unroll 4
            for (int r = 0; r < N; r++) _mm_storeu_ps(scores + r * kPageTokens + key, four_sums(s[r][0], s[r][1], s[r][2], s[r][3]));
        } else {
#pragma GCC unroll 2
            for (int r = 0; r < N; r += 2) {
                const __m128 two = four_sums(s[r][0], s[r][1], s[r + 1][0], s[r + 1][1]);
                _mm_storel_pi(reinterpret_cast<__m64*>(scores + r * kPageTokens + key), two);
                _mm_storeh_pi(reinterpret_cast<__m64*>(scores + (r + 1) * kPageTokens + key), two);
            }
        }
    }
}
// Columns [d, d + 8 * M) of acc (N, D) += weights (N, 128) times the values.
template <Type type, int N, int M>
inline void values_columns(const float* weights, const std::byte* v, int64_t n, int64_t D, int64_t d, float* acc) {
    const int64_t bytes = kv_row_bytes(type, D);
    __m256 a[N][M];
#pragma GCC unroll 4
    for (int r = 0; r < N; r++)
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) a[r][m] = _mm256_loadu_ps(acc + r * D + d + 8 * m);
    for (int64_t key = 0; key < n; key++, v += bytes) {
        if (d == 0)
            for (int64_t line = 0; line < bytes; line += 64) _mm_prefetch(reinterpret_cast<const char*>(v + kAhead + line), _MM_HINT_T0);
        const __m256 scale = scale_at<type>(v, d);
        __m256 weight[N];
#pragma GCC unroll 4
        for (int r = 0; r < N; r++) weight[r] = _mm256_broadcast_ss(weights + r * kPageTokens + key);
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) {
            const __m256 x = cached8<type>(v, d + 8 * m, scale);
#pragma GCC unroll 4
            for (int r = 0; r < N; r++) a[r][m] = _mm256_fmadd_ps(weight[r], x, a[r][m]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < N; r++)
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) _mm256_storeu_ps(acc + r * D + d + 8 * m, a[r][m]);
}
// acc (N, D) += weights (N, 128) times the values, 32 or 16 columns at a time: twelve sums hide what a multiplication takes
template <Type type, int N>
void values_few(const float* weights, const std::byte* v, int64_t n, int64_t D, float* acc) {
    int64_t d = 0;
    if constexpr (N <= 3)
        for (; d + 32 <= D; d += 32) values_columns<type, N, 4>(weights, v, n, D, d, acc);
    for (; d + 16 <= D; d += 16) values_columns<type, N, 2>(weights, v, n, D, d, acc);
    if (d < D) values_columns<type, N, 1>(weights, v, n, D, d, acc);
}
template <Type type>
void scores_few(int64_t rows, const float* q, const std::byte* k, int64_t n, int64_t D, float* scores) {
    for (; rows >= 4; rows -= 4, q += 4 * kPadded, scores += 4 * kPageTokens) scores_few<type, 4>(q, k, n, D, scores);
    if (rows == 3) scores_few<type, 3>(q, k, n, D, scores);
    if (rows == 2) scores_few<type, 2>(q, k, n, D, scores);
    if (rows == 1) scores_few<type, 1>(q, k, n, D, scores);
}
template <Type type>
void values_few(int64_t rows, const float* weights, const std::byte* v, int64_t n, int64_t D, float* acc) {
    for (; rows >= 4; rows -= 4, weights += 4 * kPageTokens, acc += 4 * D) values_few<type, 4>(weights, v, n, D, acc);
    if (rows == 3) values_few<type, 3>(weights, v, n, D, acc);
    if (rows == 2) values_few<type, 2>(weights, v, n, D, acc);
    if (rows == 1) values_few<type, 1>(weights, v, n, D, acc);
}

// ---------------------------------------------------------------- many rows (prefill): a page becomes a panel in float32

// keys (n, D) -> panel (D, 128)
inline void pack_keys(const std::byte* k, Type type, int64_t n, int64_t D, float* row, float* panel) {
    const int64_t bytes = kv_row_bytes(type, D), padded = (D + 7) / 8 * 8;
    for (int64_t key = 0; key < n; key += 8) {
        for (int64_t i = 0; i < 8; i++) {
            if (key + i < n) load_row(k + (key + i) * bytes, type, D, row + i * kPadded);
            else std::memset(row + i * kPadded, 0, padded * sizeof(float));
        }
        for (int64_t d = 0; d < padded; d += 8) {
            __m256 r[8];
            for (int i = 0; i < 8; i++) r[i] = _mm256_load_ps(row + i * kPadded + d);
            transpose8(r);
            for (int i = 0; i < 8; i++) _mm256_store_ps(panel + (d + i) * kPageTokens + key, r[i]);
        }
    }
}

// out (N, *) = or += a (N, inner) times b (inner, *), 16 columns.
template <int N>
void product16(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t inner, bool add, float* out, int64_t ldo) {
    __m256 x[N], y[N];
#pragma GCC unroll 6
    for (int r = 0; r < N; r++) {
        x[r] = add ? _mm256_load_ps(out + r * ldo) : _mm256_setzero_ps();
        y[r] = add ? _mm256_load_ps(out + r * ldo + 8) : _mm256_setzero_ps();
    }
    for (int64_t i = 0; i < inner; i++, b += ldb) {
        const __m256 b0 = _mm256_load_ps(b), b1 = _mm256_load_ps(b + 8);
#pragma GCC unroll 6
        for (int r = 0; r < N; r++) {
            const __m256 v = _mm256_broadcast_ss(a + r * lda + i);
            x[r] = _mm256_fmadd_ps(v, b0, x[r]);
            y[r] = _mm256_fmadd_ps(v, b1, y[r]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < N; r++) _mm256_store_ps(out + r * ldo, x[r]), _mm256_store_ps(out + r * ldo + 8, y[r]);
}
inline void product(int64_t rows, const float* a, int64_t lda, const float* b, int64_t ldb, int64_t inner, int64_t cols, bool add,
                    float* out, int64_t ldo) {
    for (int64_t c = 0; c < cols; c += 16) {
        int64_t r = 0;
        for (; r + 6 <= rows; r += 6) product16<6>(a + r * lda, lda, b + c, ldb, inner, add, out + r * ldo + c, ldo);
        for (; r + 2 <= rows; r += 2) product16<2>(a + r * lda, lda, b + c, ldb, inner, add, out + r * ldo + c, ldo);
        if (r < rows) product16<1>(a + r * lda, lda, b + c, ldb, inner, add, out + r * ldo + c, ldo);
    }
}

void attention(const AttentionTask& a, std::byte* scratch) {
    const KVView& kv = a.kv;
    const int64_t D = kv.head_dim, rows = a.row1 - a.row0, token_bytes = kv_row_bytes(kv.type, D);
    const bool few = a.few && D % 8 == 0;
    // What lies in the scratch memory. Sums are kept 16 columns wide, so that whole registers can be written.
    auto* q = reinterpret_cast<float*>(scratch);         // (rows, kPadded)
    float* scores = q + kMaxAttentionRows * kPadded;     // (rows, 128)
    float* wide = scores + kMaxAttentionRows * kPageTokens;  // (rows, kPadded)
    float* row = wide + kMaxAttentionRows * kPadded;     // (8, kPadded)
    float* panel = row + 8 * kPadded;                    // (kPadded, 128) keys, then (128, kPadded) values
    static_assert((2 * kMaxAttentionRows * kPadded + kMaxAttentionRows * kPageTokens + 8 * kPadded + kPadded * kPageTokens) *
                      static_cast<int64_t>(sizeof(float)) <= kScratchBytes);
    const int64_t columns = (D + 15) / 16 * 16;

    int64_t first[kMaxAttentionRows] = {}, visible[kMaxAttentionRows], most = 0;  // keys [first, visible) of each row
    for (int64_t r = 0; r < rows; r++) {
        const int64_t t = (a.row0 + r) / a.group, head = a.kv_head * a.group + (a.row0 + r) % a.group;
        load_row(reinterpret_cast<const std::byte*>(a.q + (t * a.heads + head) * D), Type::F32, D, q + r * kPadded);
        visible[r] = a.past + t + 1 < a.key1 ? a.past + t + 1 : a.key1;
        first[r] = a.window > 0 && a.past + t + 1 > a.window ? a.past + t + 1 - a.window : 0;
        most = visible[r] > most ? visible[r] : most;
        a.max[r] = kNone, a.sum[r] = 0;
        std::memset(few ? a.acc + r * D : wide + r * kPadded, 0, (few ? D : columns) * sizeof(float));
    }
    // From the beginning of a page: so a row's sums do not hang on where the others' windows begin.
    const int64_t begin = first[0] / kPageTokens * kPageTokens;
    for (int64_t key = a.key0 > begin ? a.key0 : begin; key < most;) {
        const int64_t page = key / kPageTokens, end = (page + 1) * kPageTokens < most ? (page + 1) * kPageTokens : most, n = end - key;
        const std::byte* k = kv.pages[page] + kv.k_offset + a.kv_head * kv.head_bytes + key % kPageTokens * token_bytes;
        const std::byte* v = kv.pages[page] + kv.v_offset + a.kv_head * kv.head_bytes + key % kPageTokens * token_bytes;
        if (few) {
            if (kv.type == Type::F16) scores_few<Type::F16>(rows, q, k, n, D, scores);
            else if (kv.type == Type::Q8_0) scores_few<Type::Q8_0>(rows, q, k, n, D, scores);
            else scores_few<Type::F32>(rows, q, k, n, D, scores);
        } else {
            pack_keys(k, kv.type, n, D, row, panel);
            product(rows, q, kPadded, panel, kPageTokens, D, (n + 7) / 8 * 8, false, scores, kPageTokens);
        }
        for (int64_t r = 0; r < rows; r++) {
            float* s = scores + r * kPageTokens;
            const int64_t seen = visible[r] - key < n ? visible[r] - key : n;
            if (seen <= 0 || first[r] - key >= seen) {
                std::memset(s, 0, n * sizeof(float));
                continue;
            }
            if (a.softcap > 0)
                for (int64_t i = 0; i < seen; i += 8)
                    _mm256_store_ps(s + i, softcap8(_mm256_mul_ps(_mm256_load_ps(s + i), _mm256_set1_ps(a.scale)), a.softcap));
            for (int64_t i = 0; i < first[r] - key; i++) s[i] = kNone;
            const float shrink = reweigh(s, seen, a.softcap > 0 ? 1.0f : a.scale, a.max[r], a.sum[r]);
            for (int64_t i = seen; i < n; i++) s[i] = 0;
            if (shrink == 1.0f) continue;
            float* acc = few ? a.acc + r * D : wide + r * kPadded;
            for (int64_t d = 0; d < (few ? D : columns); d += 8)
                _mm256_storeu_ps(acc + d, _mm256_mul_ps(_mm256_loadu_ps(acc + d), _mm256_set1_ps(shrink)));
        }
        if (few) {
            if (kv.type == Type::F16) values_few<Type::F16>(rows, scores, v, n, D, a.acc);
            else if (kv.type == Type::Q8_0) values_few<Type::Q8_0>(rows, scores, v, n, D, a.acc);
            else values_few<Type::F32>(rows, scores, v, n, D, a.acc);
        } else {
            for (int64_t i = 0; i < n; i++) {
                float* to = panel + i * kPadded;
                load_row(v + i * token_bytes, kv.type, D, to);
                for (int64_t d = (D + 7) / 8 * 8; d < columns; d++) to[d] = 0;
            }
            product(rows, scores, kPageTokens, panel, kPadded, n, columns, true, wide, kPadded);
        }
        key = end;
    }
    if (!few)
        for (int64_t r = 0; r < rows; r++) std::memcpy(a.acc + r * D, wide + r * kPadded, D * sizeof(float));
}

}  // namespace
}  // namespace quinze
