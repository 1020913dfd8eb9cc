// The kernels of kernels_scalar.cpp, fast, for CPUs with AVX2, FMA and F16C. The only file compiled with their flags,
// and it is entered through the table alone, after the CPU was asked (dispatch.cpp).
#include "avx2_attention.h"
#include "avx2_codes.h"
#include "avx2_low_bits.h"
#include "avx2_packed.h"
#include "avx2_products.h"

namespace quinze {
namespace {

// ---------------------------------------------------------------- formats

template <Type type>
void dequantize_float(const std::byte* row, int64_t cols, float* y) {
    constexpr int64_t bytes = type == Type::F32 ? 4 : 2;
    int64_t i = 0;
    for (; i + 8 <= cols; i += 8) _mm256_storeu_ps(y + i, load8<type>(row + i * bytes));
    if (i < cols) _mm256_maskstore_ps(y + i, first_lanes(cols - i), load_some<type>(row + i * bytes, cols - i));
}
void dequantize_q8_0(const std::byte* row, int64_t cols, float* y) {
    const auto* block = reinterpret_cast<const BlockQ8_0*>(row);
    for (int64_t b = 0; b < cols / kBlock; b++) {
        const __m256 d = broadcast_f16(block[b].d);
        for (int i = 0; i < 32; i += 8) {
            const __m128i q = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(block[b].qs + i));
            _mm256_storeu_ps(y + 32 * b + i, _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q))));
        }
    }
}
void dequantize_q4_0(const std::byte* row, int64_t cols, float* y) {
    const auto* block = reinterpret_cast<const BlockQ4_0*>(row);
    for (int64_t b = 0; b < cols / kBlock; b++) {
        const __m256 d = broadcast_f16(block[b].d);
        const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block[b].qs)), low = _mm_set1_epi8(15);
        const __m128i halves[2] = {_mm_and_si128(packed, low), _mm_and_si128(_mm_srli_epi16(packed, 4), low)};
        for (int i = 0; i < 4; i++) {
            const __m128i half = _mm_sub_epi8(halves[i / 2], _mm_set1_epi8(8));
            const __m256i q = _mm256_cvtepi8_epi32(i % 2 ? _mm_unpackhi_epi64(half, half) : half);
            _mm256_storeu_ps(y + 32 * b + 8 * i, _mm256_mul_ps(d, _mm256_cvtepi32_ps(q)));
        }
    }
}

void quantize(const float* x, int64_t cols, int8_t* q8, int16_t* q16, float* scale, int32_t* sum8_out, int32_t* minus32) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    for (int64_t b = 0; b < cols / kBlock; b++, x += 32) {
        const __m256 v[4] = {_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8), _mm256_loadu_ps(x + 16), _mm256_loadu_ps(x + 24)};
        __m256 m = _mm256_setzero_ps(), poison = m;
        for (int i = 0; i < 4; i++) {
            m = _mm256_max_ps(_mm256_andnot_ps(sign, v[i]), m);  // a NaN is passed over here
            poison = _mm256_fmadd_ps(v[i], _mm256_setzero_ps(), poison);  // 0, or NaN where x is NaN or infinite
        }
        const float largest = max8(m);
        const float inverse = largest > 1e-36f ? 127.0f / largest : 0.0f;
        __m256i q[4], sum = _mm256_setzero_si256();
        for (int i = 0; i < 4; i++) {
            const __m256 scaled = _mm256_mul_ps(v[i], _mm256_set1_ps(inverse));
            // A NaN becomes 1, as in the specification: the scale is NaN and 0 would hide it.
            const __m256 finite = _mm256_cmp_ps(_mm256_andnot_ps(sign, scaled), _mm256_set1_ps(128.0f), _CMP_LT_OQ);
            q[i] = _mm256_cvtps_epi32(_mm256_blendv_ps(_mm256_set1_ps(1.0f), scaled, finite));
            sum = _mm256_add_epi32(sum, q[i]);
        }
        scale[b] = largest / 127.0f + sum8(poison);
        sum8_out[b] = 8 * sum8(sum);
        const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        const __m256i low = _mm256_packs_epi32(q[0], q[1]), high = _mm256_packs_epi32(q[2], q[3]);
        const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(q8 + 32 * b), bytes);
        __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(32), bytes);  // of each half, four times two sums
        pairs = _mm256_add_epi16(pairs, _mm256_shuffle_epi32(pairs, 0x4e));
        pairs = _mm256_sub_epi16(_mm256_setzero_si256(), _mm256_add_epi16(pairs, _mm256_shuffle_epi32(pairs, 0xb1)));
        minus32[2 * b] = _mm256_extract_epi32(pairs, 0), minus32[2 * b + 1] = _mm256_extract_epi32(pairs, 4);
        if (q16) {
            auto* to = reinterpret_cast<__m256i*>(q16 + 32 * b);
            _mm256_storeu_si256(to, _mm256_permute4x64_epi64(low, 0xd8));
            _mm256_storeu_si256(to + 1, _mm256_permute4x64_epi64(high, 0xd8));
        }
    }
}

// ---------------------------------------------------------------- everything between the products

void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* y) {
    __m256 a = _mm256_setzero_ps(), b = a;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m256 v = _mm256_loadu_ps(x + i), w = _mm256_loadu_ps(x + i + 8);
        a = _mm256_fmadd_ps(v, v, a);
        b = _mm256_fmadd_ps(w, w, b);
    }
    double square = sum8(_mm256_add_ps(a, b));
    for (; i < n; i++) square += static_cast<double>(x[i]) * x[i];
    const float inverse = static_cast<float>(1.0 / __builtin_sqrt(square / static_cast<double>(n) + eps));
    const __m256 scale = _mm256_set1_ps(inverse);
    for (i = 0; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), scale), _mm256_loadu_ps(weight + i)));
    for (; i < n; i++) y[i] = x[i] * inverse * weight[i];
}

void rope(float* x, const float* cos, const float* sin, int64_t heads, int64_t head_dim, bool interleaved) {
    const int64_t half = head_dim / 2;
    const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    for (int64_t h = 0; h < heads; h++, x += head_dim) {
        int64_t i = 0;
        if (interleaved) {
            for (; i + 4 <= half; i += 4) {  // four pairs (a, b): a c - b s, b c + a s
                const __m256 c = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(cos + i)), twice);
                const __m256 s = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(sin + i)), twice);
                const __m256 v = _mm256_loadu_ps(x + 2 * i), swapped = _mm256_permute_ps(v, 0xb1);
                _mm256_storeu_ps(x + 2 * i, _mm256_fmaddsub_ps(v, c, _mm256_mul_ps(swapped, s)));
            }
        } else {
            for (; i + 8 <= half; i += 8) {
                const __m256 c = _mm256_loadu_ps(cos + i), s = _mm256_loadu_ps(sin + i);
                const __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + half);
                _mm256_storeu_ps(x + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
                _mm256_storeu_ps(x + i + half, _mm256_fmadd_ps(a, s, _mm256_mul_ps(b, c)));
            }
        }
        for (; i < half; i++) {
            float& a = interleaved ? x[2 * i] : x[i];
            float& b = interleaved ? x[2 * i + 1] : x[i + half];
            const float turned = a * cos[i] - b * sin[i];
            b = a * sin[i] + b * cos[i];
            a = turned;
        }
    }
}

// f on eight numbers at a time; the last few are padded, so that all of them go through the same arithmetic.
template <class F>
inline void each8(float* x, const float* y, int64_t n, F f) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(x + i, f(_mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i)));
    if (i < n) {
        const __m256i rest = first_lanes(n - i);
        _mm256_maskstore_ps(x + i, rest, f(_mm256_maskload_ps(x + i, rest), _mm256_maskload_ps(y + i, rest)));
    }
}

float max(const float* x, int64_t n) {
    __m256 a = _mm256_set1_ps(kNone), b = a;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        a = _mm256_max_ps(_mm256_loadu_ps(x + i), a);  // the second operand stays if the first is NaN
        b = _mm256_max_ps(_mm256_loadu_ps(x + i + 8), b);
    }
    float largest = max8(_mm256_max_ps(a, b));
    for (; i < n; i++) largest = x[i] > largest ? x[i] : largest;
    return largest;
}

double sum_exp(const float* x, int64_t n, float max) {
    const __m256 top = _mm256_set1_ps(max);
    double sum = 0;
    for (int64_t start = 0; start < n; start += 1024) {  // float32 within a stretch, float64 across
        const int64_t end = least(n, start + 1024);
        __m256 total = _mm256_setzero_ps();
        int64_t i = start;
        for (; i + 8 <= end; i += 8) total = _mm256_add_ps(total, exp8(_mm256_sub_ps(_mm256_loadu_ps(x + i), top)));
        if (i < end) {
            const __m256i rest = first_lanes(end - i);
            const __m256 p = exp8(_mm256_sub_ps(_mm256_maskload_ps(x + i, rest), top));
            total = _mm256_add_ps(total, _mm256_and_ps(p, _mm256_castsi256_ps(rest)));
        }
        sum += sum8(total);
    }
    return sum;
}

void softmax(float* x, int64_t n) {
    const __m256 top = _mm256_set1_ps(max(x, n));
    each8(x, x, n, [&](__m256 v, __m256) { return exp8(_mm256_sub_ps(v, top)); });
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    const __m256 inverse = _mm256_set1_ps(static_cast<float>(1.0 / sum));
    each8(x, x, n, [&](__m256 v, __m256) { return _mm256_mul_ps(v, inverse); });
}

void silu_mul(float* gate, const float* up, int64_t n) {
    const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
    each8(gate, up, n, [&](__m256 g, __m256 u) {
        return _mm256_mul_ps(_mm256_div_ps(g, _mm256_add_ps(one, exp8(_mm256_xor_ps(g, sign)))), u);
    });
}

void add(float* x, const float* y, int64_t n) {
    each8(x, y, n, [](__m256 a, __m256 b) { return _mm256_add_ps(a, b); });
}

void layer_norm(const float* x, const float* weight, const float* bias, int64_t n, float eps, float* y) {
    __m256 a = _mm256_setzero_ps();
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) a = _mm256_add_ps(a, _mm256_loadu_ps(x + i));
    double sum = sum8(a), square = 0;
    for (; i < n; i++) sum += x[i];
    const double mean = sum / static_cast<double>(n);
    const __m256 middle = _mm256_set1_ps(static_cast<float>(mean));
    a = _mm256_setzero_ps();
    for (i = 0; i + 8 <= n; i += 8) {
        const __m256 v = _mm256_sub_ps(_mm256_loadu_ps(x + i), middle);
        a = _mm256_fmadd_ps(v, v, a);
    }
    square = sum8(a);
    for (; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
    const double inverse = 1.0 / __builtin_sqrt(square / static_cast<double>(n) + eps);
    const __m256 scale = _mm256_set1_ps(static_cast<float>(inverse));
    for (i = 0; i + 8 <= n; i += 8) {
        const __m256 v = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), middle), scale);
        _mm256_storeu_ps(y + i, _mm256_fmadd_ps(v, _mm256_loadu_ps(weight + i), _mm256_loadu_ps(bias + i)));
    }
    for (; i < n; i++) y[i] = static_cast<float>((x[i] - mean) * inverse) * weight[i] + bias[i];
}

void gelu(float* x, int64_t n) {
    each8(x, x, n, [](__m256 v, __m256) { return gelu8(v); });
}
void gelu_mul(float* gate, const float* up, int64_t n) {
    each8(gate, up, n, [](__m256 g, __m256 u) { return _mm256_mul_ps(gelu8(g), u); });
}

void softcap(float* x, int64_t n, float cap) {
    each8(x, x, n, [&](__m256 v, __m256) { return softcap8(v, cap); });
}

void store_f16(const float* x, int64_t n, uint16_t* y) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(y + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < n; i++) y[i] = _cvtss_sh(x[i], _MM_FROUND_TO_NEAREST_INT);
}

void store_q8_0(const float* x, int64_t n, std::byte* y) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    for (int64_t i = 0; i < n; i += kBlock, y += sizeof(BlockQ8_0)) {
        alignas(32) float padded[kBlock] = {};
        const float* from = x + i;
        if (n - i < kBlock) from = static_cast<float*>(std::memcpy(padded, x + i, (n - i) * sizeof(float)));
        __m256 v[4], m = _mm256_setzero_ps(), poison = m;
        for (int j = 0; j < 4; j++) {
            v[j] = _mm256_loadu_ps(from + 8 * j);
            m = _mm256_max_ps(_mm256_andnot_ps(sign, v[j]), m);  // a NaN is passed over here
            poison = _mm256_fmadd_ps(v[j], _mm256_setzero_ps(), poison);
        }
        const float largest = max8(m), bad = sum8(poison);
        const __m256 inverse = _mm256_set1_ps(largest > 1e-36f ? 127.0f / largest : 0.0f);
        BlockQ8_0 block;
        block.d = static_cast<uint16_t>(_cvtss_sh(largest / 127.0f + bad, _MM_FROUND_TO_NEAREST_INT));
        __m256i q[4];
        for (int j = 0; j < 4; j++) q[j] = bad == 0 ? _mm256_cvtps_epi32(_mm256_mul_ps(v[j], inverse)) : _mm256_set1_epi32(1);
        const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(block.qs),
                            _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
        std::memcpy(y, &block, sizeof block);
    }
}

}  // namespace

const Kernels* avx2_kernels() {
    static const Kernels kernels = {
        "avx2",
        {gemv_float<Type::F32>, gemv_float<Type::F16>, gemv_float<Type::BF16>, gemv_block<BlockQ8_0>, gemv_block<BlockQ4_0>,
         gemv_codes<Type::Q4_1>, gemv_codes<Type::Q5_0>, gemv_codes<Type::Q5_1>, gemv_k<Type::Q4_K>, gemv_k<Type::Q5_K>, gemv_q6_k,
         gemv_low<Type::Q2_K>, gemv_low<Type::Q3_K>,
         gemv_packed<Type::Q8_0>, gemv_packed<Type::Q4_0>, gemv_packed<Type::Q4_1>, gemv_packed<Type::Q5_0>, gemv_packed<Type::Q5_1>,
         gemv_packed<Type::Q4_K>, gemv_packed<Type::Q5_K>, gemv_packed<Type::Q6_K>},
        {gemm_float<Type::F32>, gemm_float<Type::F16>, gemm_float<Type::BF16>, gemm_file_q8_0, gemm_file_q4_0,
         gemm_file<Type::Q4_1>, gemm_file<Type::Q5_0>, gemm_file<Type::Q5_1>, gemm_file<Type::Q4_K>, gemm_file<Type::Q5_K>, gemm_file<Type::Q6_K>,
         gemm_low<Type::Q2_K>, gemm_low<Type::Q3_K>,
         gemm_packed<Type::Q8_0>, gemm_packed<Type::Q4_0>, gemm_packed<Type::Q4_1>, gemm_packed<Type::Q5_0>, gemm_packed<Type::Q5_1>,
         gemm_packed<Type::Q4_K>, gemm_packed<Type::Q5_K>, gemm_packed<Type::Q6_K>},
        {dequantize_float<Type::F32>, dequantize_float<Type::F16>, dequantize_float<Type::BF16>, dequantize_q8_0, dequantize_q4_0,
         // Rows of these are only decoded for embeddings, a few at a time.
         scalar_kernels().dequantize[5], scalar_kernels().dequantize[6], scalar_kernels().dequantize[7],
         scalar_kernels().dequantize[8], scalar_kernels().dequantize[9], scalar_kernels().dequantize[10],
         scalar_kernels().dequantize[11], scalar_kernels().dequantize[12]},
        quantize, pack, rms_norm, rope, softmax, silu_mul, add, max, sum_exp, store_f16, store_q8_0, attention,
        layer_norm, gelu, gelu_mul, softcap,
    };
    return &kernels;
}

}  // namespace quinze
