// Packed weights as one would explain them: how they come from the file's, and what they stand for. The specification
// of avx2_packed.h, and what runs on any CPU. packed.h draws the layout.
#include <algorithm>

#include "packed.h"

namespace quinze {
namespace {

template <class Block> const Block& block_at(const Weight& w, int64_t row, int64_t index) {
    return reinterpret_cast<const Block*>(w.data + row * row_bytes(w))[index];
}

// ---------------------------------------------------------------- codes of the file

int nibble(const uint8_t (&qs)[16], int i) { return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4; }
int fifth(const uint8_t (&qh)[4], int i) { return (qh[i / 8] >> i % 8 & 1) << 4; }
int half_of(const uint8_t (&qs)[128], int j, int i) { return qs[j / 2 * 32 + i] >> j % 2 * 4 & 15; }

// Code i of block j (of 32 columns) of a block.
int code(const BlockQ4_0& w, int, int i) { return nibble(w.qs, i); }
int code(const BlockQ4_1& w, int, int i) { return nibble(w.qs, i); }
int code(const BlockQ5_0& w, int, int i) { return nibble(w.qs, i) | fifth(w.qh, i); }
int code(const BlockQ5_1& w, int, int i) { return nibble(w.qs, i) | fifth(w.qh, i); }
int code(const BlockQ4_K& w, int j, int i) { return half_of(w.qs, j, i); }
int code(const BlockQ5_K& w, int j, int i) { return half_of(w.qs, j, i) | (w.qh[i] >> j & 1) << 4; }
int code(const BlockQ6_K& w, int j, int i) {
    const int half = j / 4, k = j % 4;
    return (w.ql[64 * half + 32 * (k % 2) + i] >> k / 2 * 4 & 15) | (w.qh[32 * half + i] >> 2 * k & 3) << 4;
}

// ---------------------------------------------------------------- where they go

// Lower four bits, and the fifth or the upper two, of column i of a block of 32, in row `row` of the panel.
void put_nibble(uint8_t (&q)[4][2][32], int row, int i, int code) {
    const int step = i / 4, at = 4 * (row % 8) + i % 4;
    q[step % 4][row / 8][at] |= static_cast<uint8_t>((code & 15) << step / 4 * 4);
}
void put_fifth(uint8_t (&h)[2][32], int row, int i, int code) {
    h[row / 8][4 * (row % 8) + i % 4] |= static_cast<uint8_t>((code >> 4 & 1) << i / 4);
}
void put_upper_two(uint8_t (&h)[2][2][32], int row, int i, int code) {
    const int step = i / 4;
    h[step / 4][row / 8][4 * (row % 8) + i % 4] |= static_cast<uint8_t>((code >> 4 & 3) << 2 * (step % 4));
}
int get_nibble(const uint8_t (&q)[4][2][32], int row, int i) {
    const int step = i / 4;
    return q[step % 4][row / 8][4 * (row % 8) + i % 4] >> step / 4 * 4 & 15;
}
int get_fifth(const uint8_t (&h)[2][32], int row, int i) { return (h[row / 8][4 * (row % 8) + i % 4] >> i / 4 & 1) << 4; }
int get_upper_two(const uint8_t (&h)[2][2][32], int row, int i) {
    const int step = i / 4;
    return (h[step / 4][row / 8][4 * (row % 8) + i % 4] >> 2 * (step % 4) & 3) << 4;
}

// ---------------------------------------------------------------- one row of one block, there and back

void put(const BlockQ8_0& w, int row, PackedQ8_0& to) {
    to.d[row] = w.d;
    for (int i = 0; i < 32; i++) to.q[i / 4][row / 8][4 * (row % 8) + i % 4] = w.qs[i];
}
void put(const BlockQ4_0& w, int row, PackedQ4_0& to) {
    to.d[row] = w.d;
    for (int i = 0; i < 32; i++) put_nibble(to.q, row, i, code(w, 0, i));
}
void put(const BlockQ4_1& w, int row, PackedQ4_1& to) {
    to.d[row] = w.d, to.m[row] = w.m;
    for (int i = 0; i < 32; i++) put_nibble(to.q, row, i, code(w, 0, i));
}
void put(const BlockQ5_0& w, int row, PackedQ5_0& to) {
    to.d[row] = w.d;
    for (int i = 0; i < 32; i++) put_nibble(to.q, row, i, code(w, 0, i)), put_fifth(to.h, row, i, code(w, 0, i));
}
void put(const BlockQ5_1& w, int row, PackedQ5_1& to) {
    to.d[row] = w.d, to.m[row] = w.m;
    for (int i = 0; i < 32; i++) put_nibble(to.q, row, i, code(w, 0, i)), put_fifth(to.h, row, i, code(w, 0, i));
}
template <class Block, class Packed> void put_k_scales(const Block& w, int row, Packed& to) {
    to.d[row] = w.d, to.dmin[row] = w.dmin;
    const SixBits six = six_bits(w.scales);
    for (int j = 0; j < 8; j++) {
        to.scales[j][row] = static_cast<uint8_t>(six.scales >> 8 * j & 63);
        to.mins[j][row] = static_cast<uint8_t>(six.mins >> 8 * j & 63);
    }
}
void put(const BlockQ4_K& w, int row, PackedQ4_K& to) {
    put_k_scales(w, row, to);
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 32; i++) put_nibble(to.b[j].q, row, i, code(w, j, i));
}
void put(const BlockQ5_K& w, int row, PackedQ5_K& to) {
    put_k_scales(w, row, to);
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 32; i++) put_nibble(to.b[j].q, row, i, code(w, j, i)), put_fifth(to.b[j].h, row, i, code(w, j, i));
}
void put(const BlockQ6_K& w, int row, PackedQ6_K& to) {
    to.d[row] = w.d;
    for (int g = 0; g < 16; g++) to.scales[g][row] = w.scales[g];
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 32; i++)
            put_nibble(to.b[j].q, row, i, code(w, j, i)), put_upper_two(to.b[j].h, row, i, code(w, j, i));
}

// The products are those of `dequantize` in kernels_scalar.cpp, in the same order, so that the same numbers come out.
void get(const PackedQ8_0& w, int row, float* y) {
    const float d = f16_to_float(w.d[row]);
    for (int i = 0; i < 32; i++) y[i] = d * static_cast<float>(w.q[i / 4][row / 8][4 * (row % 8) + i % 4]);
}
void get(const PackedQ4_0& w, int row, float* y) {
    const float d = f16_to_float(w.d[row]);
    for (int i = 0; i < 32; i++) y[i] = d * static_cast<float>(get_nibble(w.q, row, i) - 8);
}
void get(const PackedQ4_1& w, int row, float* y) {
    const float d = f16_to_float(w.d[row]), m = f16_to_float(w.m[row]);
    for (int i = 0; i < 32; i++) y[i] = d * static_cast<float>(get_nibble(w.q, row, i)) + m;
}
void get(const PackedQ5_0& w, int row, float* y) {
    const float d = f16_to_float(w.d[row]);
    for (int i = 0; i < 32; i++) y[i] = d * static_cast<float>((get_nibble(w.q, row, i) | get_fifth(w.h, row, i)) - 16);
}
void get(const PackedQ5_1& w, int row, float* y) {
    const float d = f16_to_float(w.d[row]), m = f16_to_float(w.m[row]);
    for (int i = 0; i < 32; i++) y[i] = d * static_cast<float>(get_nibble(w.q, row, i) | get_fifth(w.h, row, i)) + m;
}
template <class Packed, class Code> void get_k(const Packed& w, int row, float* y, Code code) {
    const float d = f16_to_float(w.d[row]), dmin = f16_to_float(w.dmin[row]);
    for (int j = 0; j < 8; j++) {
        const float scale = d * static_cast<float>(w.scales[j][row]), min = dmin * static_cast<float>(w.mins[j][row]);
        for (int i = 0; i < 32; i++) *y++ = scale * static_cast<float>(code(j, i)) - min;
    }
}
void get(const PackedQ4_K& w, int row, float* y) {
    get_k(w, row, y, [&](int j, int i) { return get_nibble(w.b[j].q, row, i); });
}
void get(const PackedQ5_K& w, int row, float* y) {
    get_k(w, row, y, [&](int j, int i) { return get_nibble(w.b[j].q, row, i) | get_fifth(w.b[j].h, row, i); });
}
void get(const PackedQ6_K& w, int row, float* y) {
    const float d = f16_to_float(w.d[row]);
    for (int i = 0; i < 256; i++) {
        const int j = i / 32, code = get_nibble(w.b[j].q, row, i % 32) | get_upper_two(w.b[j].h, row, i % 32);
        *y++ = d * static_cast<float>(w.scales[i / 16][row]) * static_cast<float>(code - 32);
    }
}

template <class Block, class Packed> void pack_blocks(const Weight& w, int64_t panel, std::byte* to) {
    const int64_t blocks = w.cols / info(w.type).block, row0 = panel * kPanelRows, n = std::min(kPanelRows, w.rows - row0);
    std::memset(to, 0, panel_bytes(packed_type(w.type), w.cols));
    auto* packed = reinterpret_cast<Packed*>(to);
    for (int64_t row = 0; row < n; row++)
        for (int64_t b = 0; b < blocks; b++) put(block_at<Block>(w, row0 + row, b), static_cast<int>(row), packed[b]);
}
template <class Packed> void unpack_blocks(const Weight& w, int64_t row, float* y) {
    const int64_t block = info(w.type).block, blocks = w.cols / block;
    const auto* packed = reinterpret_cast<const Packed*>(w.data + row / kPanelRows * panel_bytes(w.type, w.cols));
    for (int64_t b = 0; b < blocks; b++, y += block) get(packed[b], static_cast<int>(row % kPanelRows), y);
}

static_assert(sizeof(PackedQ8_0) == 16 * 34 && sizeof(PackedQ4_0) == 16 * 18 && sizeof(PackedQ4_1) == 16 * 20);
static_assert(sizeof(PackedQ5_0) == 16 * 22 && sizeof(PackedQ5_1) == 16 * 24 && sizeof(PackedQ4_K) == 16 * 148);
static_assert(sizeof(PackedQ5_K) == 16 * 180 && sizeof(PackedQ6_K) == 16 * 210);

}  // namespace

void pack_panel(const Weight& w, int64_t panel, std::byte* to) {
    switch (w.type) {
        case Type::Q8_0: return pack_blocks<BlockQ8_0, PackedQ8_0>(w, panel, to);
        case Type::Q4_0: return pack_blocks<BlockQ4_0, PackedQ4_0>(w, panel, to);
        case Type::Q4_1: return pack_blocks<BlockQ4_1, PackedQ4_1>(w, panel, to);
        case Type::Q5_0: return pack_blocks<BlockQ5_0, PackedQ5_0>(w, panel, to);
        case Type::Q5_1: return pack_blocks<BlockQ5_1, PackedQ5_1>(w, panel, to);
        case Type::Q4_K: return pack_blocks<BlockQ4_K, PackedQ4_K>(w, panel, to);
        case Type::Q5_K: return pack_blocks<BlockQ5_K, PackedQ5_K>(w, panel, to);
        case Type::Q6_K: return pack_blocks<BlockQ6_K, PackedQ6_K>(w, panel, to);
        default: return;
    }
}

void unpack_row(const Weight& w, int64_t row, float* y) {
    switch (w.type) {
        case Type::Q8_0x16: return unpack_blocks<PackedQ8_0>(w, row, y);
        case Type::Q4_0x16: return unpack_blocks<PackedQ4_0>(w, row, y);
        case Type::Q4_1x16: return unpack_blocks<PackedQ4_1>(w, row, y);
        case Type::Q5_0x16: return unpack_blocks<PackedQ5_0>(w, row, y);
        case Type::Q5_1x16: return unpack_blocks<PackedQ5_1>(w, row, y);
        case Type::Q4_Kx16: return unpack_blocks<PackedQ4_K>(w, row, y);
        case Type::Q5_Kx16: return unpack_blocks<PackedQ5_K>(w, row, y);
        case Type::Q6_Kx16: return unpack_blocks<PackedQ6_K>(w, row, y);
        default: return;
    }
}

void read_row(const Kernels& kernels, const Weight& w, int64_t row, float* y) {
    if (is_packed(w.type)) return unpack_row(w, row, y);
    kernels.dequantize[static_cast<int>(w.type)](w.data + row * row_bytes(w), w.cols, y);
}

}  // namespace quinze
