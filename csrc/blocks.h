// Weight formats as they lie in a file, and the conversions of their numbers.
//
// The layouts are ggml's: 32 weights share one float16 scale. Everything here is plain C++ with internal linkage:
// this header is also read by the one file that is compiled for AVX2, and an inline function with external linkage
// could be merged by the linker into code that must run on every CPU.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace quinze {

enum class Type : int { F32, F16, BF16, Q8_0, Q4_0 };
inline constexpr int kTypes = 5;
inline constexpr int64_t kBlock = 32;  // weights in one block of a quantized format

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
#pragma pack(pop)
static_assert(sizeof(BlockQ8_0) == 34, "scale (f16) + 32 int8");
static_assert(sizeof(BlockQ4_0) == 18, "scale (f16) + 32 nibbles");

struct TypeInfo {
    const char* name;      // ggml's name
    int64_t block, bytes;  // `block` weights take `bytes` bytes
    bool quantized;        // multiplied with activations in int8
};
inline constexpr TypeInfo kTypeInfo[kTypes] = {
    {"F32", 1, 4, false}, {"F16", 1, 2, false}, {"BF16", 1, 2, false},
    {"Q8_0", 32, sizeof(BlockQ8_0), true}, {"Q4_0", 32, sizeof(BlockQ4_0), true},
};
[[maybe_unused]] static const TypeInfo& info(Type type) { return kTypeInfo[static_cast<int>(type)]; }

// A matrix that stays where the file has it. Row r begins at data + r * row_bytes().
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
