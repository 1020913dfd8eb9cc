// Weight formats as they lie in a file, and the conversions of their numbers.
//
// The layouts are ggml's: 32 weights share one float16 scale, or 256 weights share one and each 16 or 32 of them a small
// integer that multiplies it (the "K" formats). Everything here is plain C++ with internal linkage:
// this header is also read by the one file that is compiled for AVX2, and an inline function with external linkage
// could be merged by the linker into code that must run on every CPU.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace quinze {

// First those of files; behind them the same quantized ones with 16 rows interleaved (packed.h).
enum class Type : int {
    F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K, Q2_K, Q3_K,
    Q8_0x16, Q4_0x16, Q4_1x16, Q5_0x16, Q5_1x16, Q4_Kx16, Q5_Kx16, Q6_Kx16,
};
inline constexpr int kFileTypes = 13, kTypes = 21;
inline constexpr int64_t kBlock = 32;   // activations that share a scale, and weights in a block of most formats
inline constexpr int64_t kSuper = 256;  // weights in a block of the K formats

// Packed: a file promises no alignment, so neither do we.
#pragma pack(push, 1)
struct BlockQ8_0 {
    uint16_t d;      // scale, float16
    int8_t qs[32];   // weight i = d * qs[i]
};
struct BlockQ4_0 {
    uint16_t d;       // scale, float16
    uint8_t qs[16];   // weight i = d * (low nibble of qs[i] - 8), weight 16 + i = d * (high nibble of qs[i] - 8)
};
struct BlockQ4_1 {
    uint16_t d, m;    // scale and minimum, float16
    uint8_t qs[16];   // weight i = d * (low nibble of qs[i]) + m, weight 16 + i = d * (high nibble of qs[i]) + m
};
struct BlockQ5_0 {
    uint16_t d;
    uint8_t qh[4];    // bit i is the fifth bit of code i
    uint8_t qs[16];   // the lower four, as in Q4_0: weight = d * (code - 16)
};
struct BlockQ5_1 {
    uint16_t d, m;
    uint8_t qh[4];
    uint8_t qs[16];   // weight = d * code + m
};
// Block j (of 8) of 32: weight = d * scale j * code - dmin * min j, where scales and mins have six bits each.
struct BlockQ4_K {
    uint16_t d, dmin;
    uint8_t scales[12];  // see six_bits
    uint8_t qs[128];     // 32 bytes for two blocks: low nibbles the first, high nibbles the second
};
struct BlockQ5_K {
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t qh[32];      // bit j of qh[i] is the fifth bit of code i of block j
    uint8_t qs[128];
};
// Group g (of 16) of 16: weight = d * scales[g] * (code - 32). Of each 128 weights, number 32 * k + i (k < 4) has its lower
// four bits in ql[64 * half + 32 * (k % 2) + i], low nibble for k < 2, and its upper two in bits 2k of qh[32 * half + i].
struct BlockQ6_K {
    uint8_t ql[128];
    uint8_t qh[64];
    int8_t scales[16];
    uint16_t d;
};
// Group g (of 16) of 16: weight = d * (low nibble of scales[g]) * code - dmin * (its high nibble). Of each 128 weights,
// number 32 * k + i (k < 4) has its code in bits 2k of qs[32 * half + i].
struct BlockQ2_K {
    uint8_t scales[16];
    uint8_t qs[64];
    uint16_t d, dmin;
};
// Group g of 16: weight = d * (scale g - 32) * (code - 4), see three_bit_scale. The lower two bits of a code lie as in
// Q2_K, and bit 4 * half + k of hmask[i] is its third.
struct BlockQ3_K {
    uint8_t hmask[32];
    uint8_t qs[64];
    uint8_t scales[12];
    uint16_t d;
};
#pragma pack(pop)
static_assert(sizeof(BlockQ2_K) == 84 && sizeof(BlockQ3_K) == 110);
static_assert(sizeof(BlockQ8_0) == 34, "scale (f16) + 32 int8");
static_assert(sizeof(BlockQ4_0) == 18, "scale (f16) + 32 nibbles");
static_assert(sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22 && sizeof(BlockQ5_1) == 24);
static_assert(sizeof(BlockQ4_K) == 144 && sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210);

// Eight scales and eight mins of six bits in twelve bytes: byte j and 4 + j hold scale j and min j (j < 4) in their lower
// six bits, and above them the upper two bits of scale 4 + j and min 4 + j, whose lower four are the nibbles of byte 8 + j.
struct SixBits {
    uint64_t scales, mins;  // byte j: number j
};
[[maybe_unused]] static SixBits six_bits(const uint8_t (&packed)[12]) {
    uint32_t a, b, c;
    std::memcpy(&a, packed, 4), std::memcpy(&b, packed + 4, 4), std::memcpy(&c, packed + 8, 4);
    const uint32_t high_scales = (c & 0x0f0f0f0fu) | ((a >> 2) & 0x30303030u);
    const uint32_t high_mins = ((c >> 4) & 0x0f0f0f0fu) | ((b >> 2) & 0x30303030u);
    return {(a & 0x3f3f3f3fu) | uint64_t{high_scales} << 32, (b & 0x3f3f3f3fu) | uint64_t{high_mins} << 32};
}

// Scale g (of 16) of Q3_K, 0..63: the lower four bits are a nibble of byte g % 8, the upper two lie in byte 8 + g % 4.
[[maybe_unused]] static int three_bit_scale(const uint8_t (&packed)[12], int g) {
    return (packed[g % 8] >> g / 8 * 4 & 15) | (packed[8 + g % 4] >> g / 4 * 2 & 3) << 4;
}

struct TypeInfo {
    const char* name;      // ggml's name
    int64_t block, bytes;  // `block` weights take `bytes` bytes
    bool quantized;        // multiplied with activations in int8
    bool wide;             // whose gemm reads them as int16
};
inline constexpr TypeInfo kTypeInfo[kTypes] = {
    {"F32", 1, 4, false, false},
    {"F16", 1, 2, false, false},
    {"BF16", 1, 2, false, false},
    {"Q8_0", kBlock, sizeof(BlockQ8_0), true, true},
    {"Q4_0", kBlock, sizeof(BlockQ4_0), true, false},
    {"Q4_1", kBlock, sizeof(BlockQ4_1), true, false},
    {"Q5_0", kBlock, sizeof(BlockQ5_0), true, false},
    {"Q5_1", kBlock, sizeof(BlockQ5_1), true, false},
    {"Q4_K", kSuper, sizeof(BlockQ4_K), true, false},
    {"Q5_K", kSuper, sizeof(BlockQ5_K), true, false},
    {"Q6_K", kSuper, sizeof(BlockQ6_K), true, false},
    {"Q2_K", kSuper, sizeof(BlockQ2_K), true, false},
    {"Q3_K", kSuper, sizeof(BlockQ3_K), true, false},
    // Bytes of one row's share: only whole panels of 16 rows lie together.
    {"Q8_0x16", kBlock, 34, true, true},
    {"Q4_0x16", kBlock, 18, true, false},
    {"Q4_1x16", kBlock, 20, true, false},
    {"Q5_0x16", kBlock, 22, true, false},
    {"Q5_1x16", kBlock, 24, true, false},
    {"Q4_Kx16", kSuper, 148, true, false},
    {"Q5_Kx16", kSuper, 180, true, false},
    {"Q6_Kx16", kSuper, 210, true, false},
};
[[maybe_unused]] static const TypeInfo& info(Type type) { return kTypeInfo[static_cast<int>(type)]; }

// A matrix that stays where the file has it. Row r begins at data + r * row_bytes(), unless it is packed: then only
// every sixteenth begins anywhere.
struct Weight {
    Type type = Type::F32;
    int64_t rows = 0, cols = 0;
    const std::byte* data = nullptr;
};
[[maybe_unused]] static int64_t row_bytes(Type type, int64_t cols) { return cols / info(type).block * info(type).bytes; }
[[maybe_unused]] static int64_t row_bytes(const Weight& w) { return row_bytes(w.type, w.cols); }

[[maybe_unused]] static float bits_to_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
[[maybe_unused]] static uint32_t float_to_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

[[maybe_unused]] static float bf16_to_float(uint16_t half) { return bits_to_float(uint32_t{half} << 16); }

// IEEE 754 binary16 -> binary32, exact.
[[maybe_unused]] static float f16_to_float(uint16_t half) {
    const uint32_t sign = uint32_t{half & 0x8000u} << 16;
    const uint32_t exponent = (half >> 10) & 0x1f, mantissa = half & 0x3ff;
    if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact in float32
        const float magnitude = static_cast<float>(mantissa) * 5.9604644775390625e-08f;
        return bits_to_float(float_to_bits(magnitude) | sign);
    }
    if (exponent == 31) return bits_to_float(sign | 0x7f800000u | (mantissa << 13));
    return bits_to_float(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

// binary32 -> binary16, to nearest, ties to even: the same as VCVTPS2PH.
[[maybe_unused]] static uint16_t float_to_f16(float value) {
    const uint32_t bits = float_to_bits(value), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);   // NaN
    if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65536 and above: infinity
    if (magnitude < 0x38800000u) {
        // Below 2^-14: adding 0.5 leaves the rounded subnormal in the low bits of the sum.
        const uint32_t rounded = float_to_bits(bits_to_float(magnitude) + 0.5f);
        return static_cast<uint16_t>(sign | (rounded - 0x3f000000u));
    }
    const uint32_t odd = (magnitude >> 13) & 1;
    return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

}  // namespace quinze
