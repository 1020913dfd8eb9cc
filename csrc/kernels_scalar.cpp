// The kernels as one would explain them: loops, no tricks. They run on every CPU and are the specification of the
// fast ones, which tests compare with these.
#include <cmath>
#include <limits>
#include <vector>

#include "packed.h"

namespace quinze {
namespace {

// ---------------------------------------------------------------- formats

void dequantize_f32(const std::byte* row, int64_t cols, float* y) { std::memcpy(y, row, cols * 4); }

uint16_t load_u16(const std::byte* p) {
    uint16_t value;
    std::memcpy(&value, p, 2);
    return value;
}
void dequantize_f16(const std::byte* row, int64_t cols, float* y) {
    for (int64_t i = 0; i < cols; i++) y[i] = f16_to_float(load_u16(row + 2 * i));
}
void dequantize_bf16(const std::byte* row, int64_t cols, float* y) {
    for (int64_t i = 0; i < cols; i++) y[i] = bf16_to_float(load_u16(row + 2 * i));
}
void dequantize_q8_0(const std::byte* row, int64_t cols, float* y) {
    const auto* block = reinterpret_cast<const BlockQ8_0*>(row);
    for (int64_t b = 0; b < cols / kBlock; b++) {
        const float d = f16_to_float(block[b].d);
        for (int i = 0; i < 32; i++) y[32 * b + i] = d * static_cast<float>(block[b].qs[i]);
    }
}
void dequantize_q4_0(const std::byte* row, int64_t cols, float* y) {
    const auto* block = reinterpret_cast<const BlockQ4_0*>(row);
    for (int64_t b = 0; b < cols / kBlock; b++) {
        const float d = f16_to_float(block[b].d);
        for (int i = 0; i < 16; i++) {
            y[32 * b + i] = d * static_cast<float>((block[b].qs[i] & 15) - 8);
            y[32 * b + 16 + i] = d * static_cast<float>((block[b].qs[i] >> 4) - 8);
        }
    }
}

// Code i of a block of 32 with four bits, and its fifth.
int nibble(const uint8_t (&qs)[16], int i) { return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4; }
int fifth(const uint8_t (&qh)[4], int i) { return (qh[i / 8] >> i % 8 & 1) << 4; }

void dequantize_q4_1(const std::byte* row, int64_t cols, float* y) {
    const auto* block = reinterpret_cast<const BlockQ4_1*>(row);
    for (int64_t b = 0; b < cols / kBlock; b++) {
        const float d = f16_to_float(block[b].d), m = f16_to_float(block[b].m);
        for (int i = 0; i < 32; i++) y[32 * b + i] = d * static_cast<float>(nibble(block[b].qs, i)) + m;
    }
}
void dequantize_q5_0(const std::byte* row, int64_t cols, float* y) {
    const auto* block = reinterpret_cast<const BlockQ5_0*>(row);
    for (int64_t b = 0; b < cols / kBlock; b++) {
        const float d = f16_to_float(block[b].d);
        for (int i = 0; i < 32; i++)
            y[32 * b + i] = d * static_cast<float>((nibble(block[b].qs, i) | fifth(block[b].qh, i)) - 16);
    }
}
void dequantize_q5_1(const std::byte* row, int64_t cols, float* y) {
    const auto* block = reinterpret_cast<const BlockQ5_1*>(row);
    for (int64_t b = 0; b < cols / kBlock; b++) {
        const float d = f16_to_float(block[b].d), m = f16_to_float(block[b].m);
        for (int i = 0; i < 32; i++)
            y[32 * b + i] = d * static_cast<float>(nibble(block[b].qs, i) | fifth(block[b].qh, i)) + m;
    }
}
// Q4_K and Q5_K: code(block, j, i) is code i of the block j of 32.
template <class Block, class Code>
void dequantize_with_mins(const std::byte* row, int64_t cols, float* y, Code code) {
    const auto* block = reinterpret_cast<const Block*>(row);
    for (int64_t b = 0; b < cols / kSuper; b++) {
        const float d = f16_to_float(block[b].d), dmin = f16_to_float(block[b].dmin);
        const SixBits six = six_bits(block[b].scales);
        for (int j = 0; j < 8; j++) {
            const float scale = d * static_cast<float>(six.scales >> 8 * j & 63), min = dmin * static_cast<float>(six.mins >> 8 * j & 63);
            for (int i = 0; i < 32; i++) *y++ = scale * static_cast<float>(code(block[b], j, i)) - min;
        }
    }
}
void dequantize_q4_k(const std::byte* row, int64_t cols, float* y) {
    dequantize_with_mins<BlockQ4_K>(row, cols, y, [](const BlockQ4_K& b, int j, int i) {
        return b.qs[j / 2 * 32 + i] >> j % 2 * 4 & 15;
    });
}
void dequantize_q5_k(const std::byte* row, int64_t cols, float* y) {
    dequantize_with_mins<BlockQ5_K>(row, cols, y, [](const BlockQ5_K& b, int j, int i) {
        return (b.qs[j / 2 * 32 + i] >> j % 2 * 4 & 15) | (b.qh[i] >> j & 1) << 4;
    });
}
void dequantize_q6_k(const std::byte* row, int64_t cols, float* y) {
    const auto* block = reinterpret_cast<const BlockQ6_K*>(row);
    for (int64_t b = 0; b < cols / kSuper; b++) {
        const float d = f16_to_float(block[b].d);
        for (int i = 0; i < 256; i++) {
            const int half = i / 128, k = i / 32 % 4;
            const int low = block[b].ql[64 * half + 32 * (k % 2) + i % 32] >> k / 2 * 4 & 15;
            const int high = block[b].qh[32 * half + i % 32] >> 2 * k & 3;
            *y++ = d * static_cast<float>(block[b].scales[i / 16]) * static_cast<float>((low | high << 4) - 32);
        }
    }
}

void dequantize_q2_k(const std::byte* row, int64_t cols, float* y) {
    const auto* block = reinterpret_cast<const BlockQ2_K*>(row);
    for (int64_t b = 0; b < cols / kSuper; b++) {
        const float d = f16_to_float(block[b].d), dmin = f16_to_float(block[b].dmin);
        for (int i = 0; i < 256; i++) {
            const int code = block[b].qs[32 * (i / 128) + i % 32] >> i / 32 % 4 * 2 & 3, scale = block[b].scales[i / 16];
            *y++ = d * static_cast<float>(scale & 15) * static_cast<float>(code) - dmin * static_cast<float>(scale >> 4);
        }
    }
}
void dequantize_q3_k(const std::byte* row, int64_t cols, float* y) {
    const auto* block = reinterpret_cast<const BlockQ3_K*>(row);
    for (int64_t b = 0; b < cols / kSuper; b++) {
        const float d = f16_to_float(block[b].d);
        for (int i = 0; i < 256; i++) {
            const int low = block[b].qs[32 * (i / 128) + i % 32] >> i / 32 % 4 * 2 & 3, high = block[b].hmask[i % 32] >> i / 32 & 1;
            const int scale = three_bit_scale(block[b].scales, i / 16) - 32;
            *y++ = d * static_cast<float>(scale) * static_cast<float>((low | high << 2) - 4);
        }
    }
}

// Each block of 32 activations shares a scale, chosen so that the largest becomes 127 (as ggml does).
void quantize(const float* x, int64_t cols, int8_t* q8, int16_t* q16, float* scale, int32_t* sum8, int32_t* minus32) {
    for (int64_t b = 0; b < cols / kBlock; b++, x += 32, q8 += 32) {
        float largest = 0;
        for (int i = 0; i < 32; i++) largest = std::fabs(x[i]) > largest ? std::fabs(x[i]) : largest;
        // Below the smallest normal number the inverse would overflow; such a block is zero for all we can tell.
        const float inverse = largest > 1e-36f ? 127.0f / largest : 0.0f;
        int32_t sum = 0;
        for (int i = 0; i < 32; i++) {
            // A NaN or infinity must not vanish in a cast: it is kept in the scale below.
            const float scaled = x[i] * inverse;
            q8[i] = std::isfinite(scaled) ? static_cast<int8_t>(std::nearbyint(scaled)) : int8_t{1};
            sum += q8[i];
        }
        float poison = 0;
        for (int i = 0; i < 32; i++) poison += x[i] * 0.0f;  // 0, or NaN
        scale[b] = largest / 127.0f + poison;
        sum8[b] = 8 * sum;
        for (int half = 0; half < 2; half++) {
            int16_t pair[2] = {0, 0};
            for (int i = 16 * half; i < 16 * half + 16; i++) pair[i % 4 / 2] = static_cast<int16_t>(pair[i % 4 / 2] - 32 * q8[i]);
            std::memcpy(minus32 + 2 * b + half, pair, sizeof(pair));
        }
        if (q16) {
            for (int i = 0; i < 32; i++) q16[32 * b + i] = q8[i];
        }
    }
}

// ---------------------------------------------------------------- matrix products

double dot_float(const Weight& w, int64_t row, const float* x, void (*dequantize)(const std::byte*, int64_t, float*)) {
    const std::byte* p = w.data + row * row_bytes(w);
    const int64_t step = info(w.type).bytes;
    double sum = 0;
    for (int64_t i = 0; i < w.cols; i++) {
        float value;
        dequantize(p + i * step, 1, &value);
        sum += static_cast<double>(value) * x[i];
    }
    return sum;
}

// The integer product of a block is exact; only its scaling and the sum over blocks round.
double dot_q8_0(const BlockQ8_0* w, const int8_t* q, const float* scale, int64_t blocks) {
    double sum = 0;
    for (int64_t b = 0; b < blocks; b++) {
        int32_t product = 0;
        for (int i = 0; i < 32; i++) product += w[b].qs[i] * q[32 * b + i];
        sum += static_cast<double>(f16_to_float(w[b].d)) * scale[b] * product;
    }
    return sum;
}
double dot_q4_0(const BlockQ4_0* w, const int8_t* q, const float* scale, int64_t blocks) {
    double sum = 0;
    for (int64_t b = 0; b < blocks; b++) {
        int32_t product = 0;
        for (int i = 0; i < 16; i++) {
            product += ((w[b].qs[i] & 15) - 8) * q[32 * b + i];
            product += ((w[b].qs[i] >> 4) - 8) * q[32 * b + 16 + i];
        }
        sum += static_cast<double>(f16_to_float(w[b].d)) * scale[b] * product;
    }
    return sum;
}

// The other formats: what they stand for, times what the activations stand for.
double dot_decoded(const std::byte* w, int64_t block, int64_t bytes, const int8_t* q, const float* scale, int64_t cols,
                   void (*dequantize)(const std::byte*, int64_t, float*)) {
    double sum = 0;
    float values[kSuper];
    for (int64_t i = 0; i < cols; i += block, w += bytes) {
        dequantize(w, block, values);
        for (int64_t c = 0; c < block; c++)
            sum += static_cast<double>(values[c]) * scale[(i + c) / kBlock] * q[i + c];
    }
    return sum;
}

float dot(const Weight& w, int64_t row, const Activations& x, int64_t token) {
    const float* f32 = x.f32 + token * x.cols;
    const int64_t blocks = w.cols / kBlock;
    const std::byte* p = w.data + row * row_bytes(w);
    const int8_t* q = x.q8 + token * x.cols;
    const float* scale = x.scale + token * blocks;
    const auto decoded = [&](void (*dequantize)(const std::byte*, int64_t, float*)) {
        return static_cast<float>(dot_decoded(p, info(w.type).block, info(w.type).bytes, q, scale, w.cols, dequantize));
    };
    switch (w.type) {
        case Type::F32: return static_cast<float>(dot_float(w, row, f32, dequantize_f32));
        case Type::F16: return static_cast<float>(dot_float(w, row, f32, dequantize_f16));
        case Type::BF16: return static_cast<float>(dot_float(w, row, f32, dequantize_bf16));
        case Type::Q8_0: return static_cast<float>(dot_q8_0(reinterpret_cast<const BlockQ8_0*>(p), q, scale, blocks));
        case Type::Q4_0: return static_cast<float>(dot_q4_0(reinterpret_cast<const BlockQ4_0*>(p), q, scale, blocks));
        case Type::Q4_1: return decoded(dequantize_q4_1);
        case Type::Q5_0: return decoded(dequantize_q5_0);
        case Type::Q5_1: return decoded(dequantize_q5_1);
        case Type::Q4_K: return decoded(dequantize_q4_k);
        case Type::Q5_K: return decoded(dequantize_q5_k);
        case Type::Q6_K: return decoded(dequantize_q6_k);
        case Type::Q2_K: return decoded(dequantize_q2_k);
        case Type::Q3_K: return decoded(dequantize_q3_k);
        default: break;
    }
    // Packed: what the row stands for, times what the activations stand for.
    std::vector<float> values(w.cols);
    unpack_row(w, row, values.data());
    double sum = 0;
    for (int64_t i = 0; i < w.cols; i++) sum += static_cast<double>(values[i]) * scale[i / kBlock] * q[i];
    return static_cast<float>(sum);
}

void gemv(const Weight& w, int64_t row0, int64_t row1, const Activations& x, float* y) {
    for (int64_t row = row0; row < row1; row++) y[row - row0] = dot(w, row, x, 0);
}
void gemm(const Weight& w, int64_t row0, int64_t row1, const Activations& x, int64_t tokens, float* y, int64_t ldy,
          std::byte*) {
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t row = row0; row < row1; row++) y[t * ldy + row - row0] = dot(w, row, x, t);
}

// ---------------------------------------------------------------- everything between the products

void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* y) {
    double square = 0;
    for (int64_t i = 0; i < n; i++) square += static_cast<double>(x[i]) * x[i];
    const float inverse = static_cast<float>(1.0 / std::sqrt(square / static_cast<double>(n) + eps));
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * inverse * weight[i];
}

void rope(float* x, const float* cos, const float* sin, int64_t heads, int64_t head_dim, bool interleaved) {
    const int64_t half = head_dim / 2;
    for (int64_t h = 0; h < heads; h++, x += head_dim) {
        for (int64_t i = 0; i < half; i++) {
            float& a = interleaved ? x[2 * i] : x[i];
            float& b = interleaved ? x[2 * i + 1] : x[i + half];
            const float turned = a * cos[i] - b * sin[i];
            b = a * sin[i] + b * cos[i];
            a = turned;
        }
    }
}

float max(const float* x, int64_t n) {
    float largest = -std::numeric_limits<float>::infinity();
    for (int64_t i = 0; i < n; i++) largest = x[i] > largest ? x[i] : largest;
    return largest;
}

double sum_exp(const float* x, int64_t n, float max) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += std::exp(x[i] - max);
    return sum;
}

void softmax(float* x, int64_t n) {
    const float largest = max(x, n);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] = std::exp(x[i] - largest);
    for (int64_t i = 0; i < n; i++) x[i] = static_cast<float>(x[i] / sum);
}

void silu_mul(float* gate, const float* up, int64_t n) {
    for (int64_t i = 0; i < n; i++) gate[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

void add(float* x, const float* y, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] += y[i];
}

void layer_norm(const float* x, const float* weight, const float* bias, int64_t n, float eps, float* y) {
    double sum = 0, square = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    const double mean = sum / static_cast<double>(n);
    for (int64_t i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
    const double inverse = 1.0 / std::sqrt(square / static_cast<double>(n) + eps);
    for (int64_t i = 0; i < n; i++) y[i] = static_cast<float>((x[i] - mean) * inverse) * weight[i] + bias[i];
}

float gelu_of(float x) {
    const float u = 0.7978845608f * (x + 0.044715f * x * x * x);
    return x / (1.0f + std::exp(-2.0f * u));
}
void gelu(float* x, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] = gelu_of(x[i]);
}
void gelu_mul(float* gate, const float* up, int64_t n) {
    for (int64_t i = 0; i < n; i++) gate[i] = gelu_of(gate[i]) * up[i];
}

void softcap(float* x, int64_t n, float cap) {
    for (int64_t i = 0; i < n; i++) x[i] = cap * std::tanh(x[i] / cap);
}

void store_f16(const float* x, int64_t n, uint16_t* y) {
    for (int64_t i = 0; i < n; i++) y[i] = float_to_f16(x[i]);
}

// Numbers that are none stay none: their block's scale is NaN.
void store_q8_0(const float* x, int64_t n, std::byte* y) {
    for (int64_t i = 0; i < n; i += kBlock, y += sizeof(BlockQ8_0)) {
        const int64_t count = n - i < kBlock ? n - i : kBlock;
        float largest = 0, poison = 0;
        for (int64_t j = 0; j < count; j++) {
            largest = std::fabs(x[i + j]) > largest ? std::fabs(x[i + j]) : largest;
            poison += x[i + j] * 0.0f;
        }
        BlockQ8_0 block{};
        block.d = float_to_f16(largest / 127.0f + poison);
        const float inverse = largest > 1e-36f ? 127.0f / largest : 0.0f;
        for (int64_t j = 0; j < count; j++)
            block.qs[j] = poison == 0 ? static_cast<int8_t>(std::nearbyint(x[i + j] * inverse)) : int8_t{1};
        std::memcpy(y, &block, sizeof block);
    }
}

// ---------------------------------------------------------------- attention

float number_at(const std::byte* p, int64_t i, Type type) {
    if (type == Type::F16) return f16_to_float(load_u16(p + 2 * i));
    if (type == Type::Q8_0) {
        const auto& block = reinterpret_cast<const BlockQ8_0*>(p)[i / kBlock];
        return f16_to_float(block.d) * static_cast<float>(block.qs[i % kBlock]);
    }
    float value;
    std::memcpy(&value, p + 4 * i, 4);
    return value;
}

void attention(const AttentionTask& a, std::byte*) {
    const KVView& kv = a.kv;
    const int64_t D = kv.head_dim, token_bytes = kv_row_bytes(kv.type, D);
    const auto at = [&](int64_t offset, int64_t position) {
        return kv.pages[position / kPageTokens] + offset + a.kv_head * kv.head_bytes + position % kPageTokens * token_bytes;
    };
    for (int64_t row = a.row0; row < a.row1; row++) {
        const int64_t t = row / a.group, head = a.kv_head * a.group + row % a.group;
        const float* q = a.q + (t * a.heads + head) * D;
        const int64_t visible = a.past + t + 1, end = a.key1 < visible ? a.key1 : visible;
        const int64_t first = a.window > 0 && visible - a.window > a.key0 ? visible - a.window : a.key0;
        float* acc = a.acc + (row - a.row0) * D;
        for (int64_t d = 0; d < D; d++) acc[d] = 0;

        const auto score = [&](int64_t position) {
            const std::byte* k = at(kv.k_offset, position);
            double sum = 0;
            for (int64_t d = 0; d < D; d++) sum += static_cast<double>(q[d]) * number_at(k, d, kv.type);
            float s = static_cast<float>(sum) * a.scale;
            if (a.softcap > 0) softcap(&s, 1, a.softcap);
            return s;
        };
        // Twice over the keys, so that no row of scores need be kept however long the cache is.
        float largest = -std::numeric_limits<float>::infinity(), sum = 0;
        for (int64_t p = first; p < end; p++) {
            const float s = score(p);
            largest = s > largest ? s : largest;
        }
        for (int64_t p = first; p < end; p++) {
            const float weight = std::exp(score(p) - largest);
            const std::byte* v = at(kv.v_offset, p);
            sum += weight;
            for (int64_t d = 0; d < D; d++) acc[d] += weight * number_at(v, d, kv.type);
        }
        a.max[row - a.row0] = largest;
        a.sum[row - a.row0] = sum;
    }
}

}  // namespace

const Kernels& scalar_kernels() {
    static const Kernels kernels = {
        "scalar",
        {gemv, gemv, gemv, gemv, gemv, gemv, gemv, gemv, gemv, gemv, gemv, gemv, gemv, gemv, gemv, gemv, gemv, gemv, gemv, gemv, gemv},
        {gemm, gemm, gemm, gemm, gemm, gemm, gemm, gemm, gemm, gemm, gemm, gemm, gemm, gemm, gemm, gemm, gemm, gemm, gemm, gemm, gemm},
        {dequantize_f32, dequantize_f16, dequantize_bf16, dequantize_q8_0, dequantize_q4_0, dequantize_q4_1, dequantize_q5_0,
         dequantize_q5_1, dequantize_q4_k, dequantize_q5_k, dequantize_q6_k, dequantize_q2_k, dequantize_q3_k},
        quantize, pack_panel, rms_norm, rope, softmax, silu_mul, add, max, sum_exp, store_f16, store_q8_0, attention,
        layer_norm, gelu, gelu_mul, softcap,
    };
    return kernels;
}

}  // namespace quinze
