// Rounding weights to few bits with the least damage.
//
// A group of weights x becomes codes l and a scale (and offset) with x about scale * l + offset. Which scale is best is
// not known beforehand: some twenty are tried around the one that just covers the range. Each gives codes, the codes give
// the scale of least squares, and the one whose squared error is smallest stays. Nothing here is ggml's code; its files
// and ours are read by the same rules (blocks.h).
#include "encode.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace quinze {
namespace {

// Four numbers at once, on any CPU that the compiler knows.
typedef float Four __attribute__((vector_size(16)));
typedef int32_t FourInts __attribute__((vector_size(16)));

Four four(float v) { return Four{v, v, v, v}; }
float total(Four v) { return v[0] + v[1] + v[2] + v[3]; }
Four rounded(Four v, float most) {  // to the nearest of 0 .. most
    v += four(0.5f);
    v = v < four(0) ? four(0) : v;
    v = v > four(most + 0.5f) ? four(most + 0.5f) : v;
    return __builtin_convertvector(__builtin_convertvector(v, FourInts), Four);
}

// N weights that share a scale, and how much each counts.
template <int N> struct Group {
    Four x[N / 4], w[N / 4];
    float low, high, largest;  // the smallest, the greatest, and the one furthest from zero
    Group(const float* from, const float* importance) {
        std::memcpy(x, from, sizeof x);
        low = high = from[0];
        for (int i = 1; i < N; i++) low = std::min(low, from[i]), high = std::max(high, from[i]);
        largest = -low > high ? low : high;
        float weights[N];
        for (int i = 0; i < N; i++) weights[i] = importance ? importance[i] : 1.0f;
        std::memcpy(w, weights, sizeof w);
    }
};

struct Line { float scale, offset; };

// Codes 0 .. most, weight = scale * code + offset. `below`: the offset may not be above zero (the K formats store -offset).
template <int N> Line fit_line(const Group<N>& g, int most, bool below) {
    const float low = below ? std::min(g.low, 0.0f) : g.low;
    const float range = g.high - low;
    if (!(range > 1e-30f)) return {0, low};
    Line best{range / static_cast<float>(most), low};
    float least = INFINITY;
    for (int step = -12; step <= 12; step++) {
        const Four inverse = four((static_cast<float>(most) + 0.1f * static_cast<float>(step)) / range), start = four(low);
        Four codes[N / 4], sw{}, sx{}, sl{}, sll{}, sxl{};
        for (int i = 0; i < N / 4; i++) {
            codes[i] = rounded((g.x[i] - start) * inverse, static_cast<float>(most));
            const Four wl = g.w[i] * codes[i];
            sw += g.w[i], sx += g.w[i] * g.x[i], sl += wl, sll += wl * codes[i], sxl += wl * g.x[i];
        }
        const double W = total(sw), X = total(sx), L = total(sl), LL = total(sll), XL = total(sxl), det = W * LL - L * L;
        if (!(det > 0)) continue;
        Line line{static_cast<float>((W * XL - X * L) / det), static_cast<float>((LL * X - L * XL) / det)};
        if (below && line.offset > 0) line = {static_cast<float>(XL / LL), 0};
        if (!(line.scale > 0)) continue;
        Four error{};
        for (int i = 0; i < N / 4; i++) {
            const Four off = g.x[i] - four(line.scale) * codes[i] - four(line.offset);
            error += g.w[i] * off * off;
        }
        if (total(error) < least) least = total(error), best = line;
    }
    return best;
}

// Codes -half .. half - 1, weight = scale * code; the scale may be negative.
template <int N> float fit_scale(const Group<N>& g, int half) {
    if (!(std::fabs(g.largest) > 1e-30f)) return 0;
    float best = g.largest / static_cast<float>(-half), least = INFINITY;
    for (int step = -12; step <= 12; step++) {
        // The end that has no twin goes to the largest weight; with a step below zero it may also lie beyond the range.
        const Four inverse = four(-(static_cast<float>(half) + 0.1f * static_cast<float>(step)) / g.largest);
        Four codes[N / 4], sll{}, sxl{};
        for (int i = 0; i < N / 4; i++) {
            codes[i] = rounded(g.x[i] * inverse + four(static_cast<float>(half)), static_cast<float>(2 * half - 1)) - four(static_cast<float>(half));
            const Four wl = g.w[i] * codes[i];
            sll += wl * codes[i], sxl += wl * g.x[i];
        }
        const float LL = total(sll);
        if (!(LL > 0)) continue;
        const float scale = total(sxl) / LL;
        Four error{};
        for (int i = 0; i < N / 4; i++) {
            const Four off = g.x[i] - four(scale) * codes[i];
            error += g.w[i] * off * off;
        }
        if (total(error) < least) least = total(error), best = scale;
    }
    return best;
}

// The nearest codes 0 .. most for a scale and an offset that are settled.
template <int N> void nearest(const Group<N>& g, float scale, float offset, int most, uint8_t* codes) {
    const Four inverse = four(scale != 0 ? 1 / scale : 0), start = four(offset);
    for (int i = 0; i < N / 4; i++) {
        const Four c = rounded((g.x[i] - start) * inverse, static_cast<float>(most));
        for (int k = 0; k < 4; k++) codes[4 * i + k] = static_cast<uint8_t>(c[k]);
    }
}

// The offset of least squares for codes and a scale that are settled, at most zero.
template <int N> float fit_offset(const Group<N>& g, float scale, const uint8_t* codes) {
    float sum = 0, weight = 0;
    for (int i = 0; i < N; i++) {
        const float w = g.w[i / 4][i % 4];
        sum += w * (g.x[i / 4][i % 4] - scale * static_cast<float>(codes[i])), weight += w;
    }
    return weight > 0 ? std::min(sum / weight, 0.0f) : 0;
}

void pack_nibbles(const uint8_t (&codes)[32], uint8_t* qs) {
    for (int i = 0; i < 16; i++) qs[i] = static_cast<uint8_t>((codes[i] & 15) | (codes[16 + i] & 15) << 4);
}
void pack_fifths(const uint8_t (&codes)[32], uint8_t* qh) {
    std::memset(qh, 0, 4);
    for (int i = 0; i < 32; i++) qh[i / 8] = static_cast<uint8_t>(qh[i / 8] | (codes[i] >> 4) << i % 8);
}

template <class Block> void encode_symmetric(const float* x, const float* importance, Block& out) {
    constexpr int half = sizeof(Block) == sizeof(BlockQ4_0) ? 8 : 16;
    const Group<32> g(x, importance);
    uint8_t codes[32];
    out.d = float_to_f16(fit_scale(g, half));
    const float d = f16_to_float(out.d);
    nearest(g, d, d * -half, 2 * half - 1, codes);
    if (d == 0) std::fill_n(codes, 32, static_cast<uint8_t>(half));
    pack_nibbles(codes, out.qs);
    if constexpr (half == 16) pack_fifths(codes, out.qh);
}

template <class Block> void encode_line(const float* x, const float* importance, Block& out) {
    constexpr int most = sizeof(Block) == sizeof(BlockQ4_1) ? 15 : 31;
    const Group<32> g(x, importance);
    const Line line = fit_line(g, most, false);
    uint8_t codes[32];
    out.d = float_to_f16(line.scale), out.m = float_to_f16(line.offset);
    nearest(g, f16_to_float(out.d), f16_to_float(out.m), most, codes);
    pack_nibbles(codes, out.qs);
    if constexpr (most == 31) pack_fifths(codes, out.qh);
}

// The other way round from six_bits (blocks.h).
void pack_six_bits(const uint8_t (&scales)[8], const uint8_t (&mins)[8], uint8_t (&packed)[12]) {
    for (int j = 0; j < 4; j++) {
        packed[j] = static_cast<uint8_t>(scales[j] | (scales[4 + j] >> 4) << 6);
        packed[4 + j] = static_cast<uint8_t>(mins[j] | (mins[4 + j] >> 4) << 6);
        packed[8 + j] = static_cast<uint8_t>((scales[4 + j] & 15) | (mins[4 + j] & 15) << 4);
    }
}
uint8_t six_bit(float value, float unit) {
    return static_cast<uint8_t>(unit > 0 ? std::clamp(std::nearbyint(value / unit), 0.0f, 63.0f) : 0.0f);
}

template <class Block> void encode_with_mins(const float* x, const float* importance, Block& out) {
    constexpr int most = sizeof(Block) == sizeof(BlockQ4_K) ? 15 : 31;
    Line lines[8];
    float scale = 0, min = 0;
    const auto group = [&](int j) { return Group<32>(x + 32 * j, importance ? importance + 32 * j : nullptr); };
    for (int j = 0; j < 8; j++) {
        lines[j] = fit_line(group(j), most, true);
        scale = std::max(scale, lines[j].scale), min = std::max(min, -lines[j].offset);
    }
    out.d = float_to_f16(scale / 63), out.dmin = float_to_f16(min / 63);
    const float d = f16_to_float(out.d), dmin = f16_to_float(out.dmin);
    uint8_t scales[8], mins[8], codes[8][32];
    for (int j = 0; j < 8; j++) {
        const Group<32> g = group(j);
        scales[j] = six_bit(lines[j].scale, d);
        const float s = d * scales[j];
        // The scale has moved by its rounding; the minimum can make up for some of that.
        nearest(g, s, lines[j].offset, most, codes[j]);
        mins[j] = six_bit(-fit_offset(g, s, codes[j]), dmin);
        nearest(g, s, -dmin * mins[j], most, codes[j]);
    }
    pack_six_bits(scales, mins, out.scales);
    for (int j = 0; j < 8; j += 2)
        for (int i = 0; i < 32; i++)
            out.qs[16 * j + i] = static_cast<uint8_t>((codes[j][i] & 15) | (codes[j + 1][i] & 15) << 4);
    if constexpr (most == 31)
        for (int i = 0; i < 32; i++) {
            int bits = 0;
            for (int j = 0; j < 8; j++) bits |= (codes[j][i] >> 4) << j;
            out.qh[i] = static_cast<uint8_t>(bits);
        }
}

void encode_q6_k(const float* x, const float* importance, BlockQ6_K& out) {
    float scales[16], largest = 0;
    const auto group = [&](int g) { return Group<16>(x + 16 * g, importance ? importance + 16 * g : nullptr); };
    for (int g = 0; g < 16; g++) {
        scales[g] = fit_scale(group(g), 32);
        if (std::fabs(scales[g]) > std::fabs(largest)) largest = scales[g];
    }
    out.d = float_to_f16(largest / -128);
    const float d = f16_to_float(out.d);
    std::memset(out.ql, 0, sizeof out.ql), std::memset(out.qh, 0, sizeof out.qh);
    for (int g = 0; g < 16; g++) {
        out.scales[g] = static_cast<int8_t>(d != 0 ? std::clamp(std::nearbyint(scales[g] / d), -128.0f, 127.0f) : 0.0f);
        const float s = d * out.scales[g];
        uint8_t codes[16];
        nearest(group(g), s, s * -32, 63, codes);
        const int half = g / 8, k = g / 2 % 4;
        for (int i = 0; i < 16; i++) {
            const int at = 16 * (g % 2) + i;
            uint8_t &low = out.ql[64 * half + 32 * (k % 2) + at], &high = out.qh[32 * half + at];
            low = static_cast<uint8_t>(low | (codes[i] & 15) << k / 2 * 4);
            high = static_cast<uint8_t>(high | (codes[i] >> 4) << 2 * k);
        }
    }
}

// Code i of a block of 256 into its two bits (blocks.h).
void put_two_bits(int i, int code, uint8_t (&qs)[64]) {
    uint8_t& to = qs[32 * (i / 128) + i % 32];
    to = static_cast<uint8_t>(to | (code & 3) << i / 32 % 4 * 2);
}

void encode_q2_k(const float* x, const float* importance, BlockQ2_K& out) {
    Line lines[16];
    float scale = 0, min = 0;
    const auto group = [&](int g) { return Group<16>(x + 16 * g, importance ? importance + 16 * g : nullptr); };
    for (int g = 0; g < 16; g++) {
        lines[g] = fit_line(group(g), 3, true);
        scale = std::max(scale, lines[g].scale), min = std::max(min, -lines[g].offset);
    }
    out.d = float_to_f16(scale / 15), out.dmin = float_to_f16(min / 15);
    const float d = f16_to_float(out.d), dmin = f16_to_float(out.dmin);
    const auto four_bit = [](float value, float unit) { return unit > 0 ? std::clamp(std::nearbyint(value / unit), 0.0f, 15.0f) : 0.0f; };
    std::memset(out.qs, 0, sizeof out.qs);
    for (int g = 0; g < 16; g++) {
        const Group<16> weights = group(g);
        uint8_t codes[16], best[16] = {};
        float least = INFINITY;
        int pair = 0;
        // Four bits are coarse: the neighbors of the rounded scale are tried too, each with the minimum that suits it.
        const int near = static_cast<int>(four_bit(lines[g].scale, d));
        for (int s = std::max(0, near - 1); s <= std::min(15, near + 1); s++) {
            const float step = d * static_cast<float>(s);
            nearest(weights, step, lines[g].offset, 3, codes);
            const float m = four_bit(-fit_offset(weights, step, codes), dmin);
            nearest(weights, step, -dmin * m, 3, codes);
            float error = 0;
            for (int i = 0; i < 16; i++) {
                const float off = weights.x[i / 4][i % 4] - step * static_cast<float>(codes[i]) + dmin * m;
                error += weights.w[i / 4][i % 4] * off * off;
            }
            if (error < least) least = error, pair = s | static_cast<int>(m) << 4, std::copy_n(codes, 16, best);
        }
        out.scales[g] = static_cast<uint8_t>(pair);
        for (int i = 0; i < 16; i++) put_two_bits(16 * g + i, best[i], out.qs);
    }
}

void encode_q3_k(const float* x, const float* importance, BlockQ3_K& out) {
    float scales[16], largest = 0;
    const auto group = [&](int g) { return Group<16>(x + 16 * g, importance ? importance + 16 * g : nullptr); };
    for (int g = 0; g < 16; g++) {
        scales[g] = fit_scale(group(g), 4);
        if (std::fabs(scales[g]) > std::fabs(largest)) largest = scales[g];
    }
    out.d = float_to_f16(largest / -32);
    const float d = f16_to_float(out.d);
    std::memset(&out, 0, offsetof(BlockQ3_K, d));
    for (int g = 0; g < 16; g++) {
        const int scale = d != 0 ? static_cast<int>(std::clamp(std::nearbyint(scales[g] / d), -32.0f, 31.0f)) : 0, stored = scale + 32;
        out.scales[g % 8] = static_cast<uint8_t>(out.scales[g % 8] | (stored & 15) << g / 8 * 4);
        out.scales[8 + g % 4] = static_cast<uint8_t>(out.scales[8 + g % 4] | (stored >> 4) << g / 4 * 2);
        const float s = d * static_cast<float>(scale);
        uint8_t codes[16];
        nearest(group(g), s, s * -4, 7, codes);
        for (int i = 0; i < 16; i++) {
            const int at = 16 * g + i;
            put_two_bits(at, codes[i], out.qs);
            out.hmask[at % 32] = static_cast<uint8_t>(out.hmask[at % 32] | (codes[i] >> 2) << at / 32);
        }
    }
}

template <class Block, int64_t N>
void encode_blocks(const float* x, const float* importance, int64_t cols, std::byte* out,
                   void (*encode)(const float*, const float*, Block&)) {
    for (int64_t i = 0; i < cols; i += N, out += sizeof(Block)) {
        Block block;
        encode(x + i, importance ? importance + i : nullptr, block);
        std::memcpy(out, &block, sizeof block);
    }
}

}  // namespace

bool can_encode(Type type) { return info(type).quantized && type != Type::Q8_0 && static_cast<int>(type) < kFileTypes; }

void encode_row(Type type, const float* x, const float* importance, int64_t cols, std::byte* out) {
    switch (type) {
        case Type::Q4_0: return encode_blocks<BlockQ4_0, 32>(x, importance, cols, out, encode_symmetric<BlockQ4_0>);
        case Type::Q4_1: return encode_blocks<BlockQ4_1, 32>(x, importance, cols, out, encode_line<BlockQ4_1>);
        case Type::Q5_0: return encode_blocks<BlockQ5_0, 32>(x, importance, cols, out, encode_symmetric<BlockQ5_0>);
        case Type::Q5_1: return encode_blocks<BlockQ5_1, 32>(x, importance, cols, out, encode_line<BlockQ5_1>);
        case Type::Q4_K: return encode_blocks<BlockQ4_K, 256>(x, importance, cols, out, encode_with_mins<BlockQ4_K>);
        case Type::Q5_K: return encode_blocks<BlockQ5_K, 256>(x, importance, cols, out, encode_with_mins<BlockQ5_K>);
        case Type::Q6_K: return encode_blocks<BlockQ6_K, 256>(x, importance, cols, out, encode_q6_k);
        case Type::Q2_K: return encode_blocks<BlockQ2_K, 256>(x, importance, cols, out, encode_q2_k);
        case Type::Q3_K: return encode_blocks<BlockQ3_K, 256>(x, importance, cols, out, encode_q3_k);
        default: return;  // can_encode said no
    }
}

}  // namespace quinze
