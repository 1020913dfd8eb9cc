// Packed weights: 16 rows interleaved, so that the lanes of a register are rows and a product reads one stream of memory.
//
// A "panel" is 16 rows; its blocks follow each other column by column, and a matrix is its panels, the last one filled up
// with rows of zeros. Within a block of 32 columns a "step" is 4 columns (the 4 bytes that one instruction multiplies and
// adds), and a "group" is 8 rows: 32 bytes hold one step of one group, byte 4 * row + column. Codes of four bits share
// bytes: the low nibble is step s, the high one step s + 4, in the way of Q4_0 itself. Every number is the file's own;
// only the six-bit scales of Q4_K and Q5_K are widened to bytes, which costs 2.8 and 2.3 % of their size.
#pragma once
#include "kernels.h"

namespace quinze {

inline constexpr int64_t kPanelRows = 16;

#pragma pack(push, 1)
struct PackedQ8_0 {
    uint16_t d[16];
    int8_t q[8][2][32];  // step, group, 4 * row + column
};
struct PackedQ4_0 {
    uint16_t d[16];
    uint8_t q[4][2][32];  // low nibbles: steps 0..3, high nibbles: steps 4..7
};
struct PackedQ4_1 {
    uint16_t d[16], m[16];
    uint8_t q[4][2][32];
};
struct PackedQ5_0 {
    uint16_t d[16];
    uint8_t h[2][32];  // group; bit s of byte 4 * row + column is the fifth bit of step s
    uint8_t q[4][2][32];
};
struct PackedQ5_1 {
    uint16_t d[16], m[16];
    uint8_t h[2][32];
    uint8_t q[4][2][32];
};
struct PackedQ4_K {
    uint16_t d[16], dmin[16];
    uint8_t scales[8][16], mins[8][16];  // block of 32 columns, row
    struct { uint8_t q[4][2][32]; } b[8];
};
struct PackedQ5_K {
    uint16_t d[16], dmin[16];
    uint8_t scales[8][16], mins[8][16];
    struct { uint8_t h[2][32], q[4][2][32]; } b[8];
};
struct PackedQ6_K {
    uint16_t d[16];
    int8_t scales[16][16];  // group of 16 columns, row
    struct {
        uint8_t h[2][2][32];  // steps 0..3 or 4..7, group; bits 2 * (step % 4) and one above are the upper two
        uint8_t q[4][2][32];
    } b[8];
};
#pragma pack(pop)

// The type that a matrix of the file becomes; itself where nothing would be gained.
[[maybe_unused]] static Type packed_type(Type type) {
    const int number = static_cast<int>(type);
    return info(type).quantized && number <= static_cast<int>(Type::Q6_K) ? static_cast<Type>(number - static_cast<int>(Type::Q8_0) + kFileTypes) : type;
}
[[maybe_unused]] static Type file_type(Type type) {
    const int number = static_cast<int>(type);
    return number < kFileTypes ? type : static_cast<Type>(number - kFileTypes + static_cast<int>(Type::Q8_0));
}
[[maybe_unused]] static bool is_packed(Type type) { return static_cast<int>(type) >= kFileTypes; }
[[maybe_unused]] static int64_t panels(int64_t rows) { return (rows + kPanelRows - 1) / kPanelRows; }
[[maybe_unused]] static int64_t panel_bytes(Type type, int64_t cols) { return kPanelRows * row_bytes(type, cols); }
// Of a whole matrix, in the file's layout or packed.
[[maybe_unused]] static int64_t matrix_bytes(const Weight& w) {
    return is_packed(w.type) ? panels(w.rows) * panel_bytes(w.type, w.cols) : w.rows * row_bytes(w);
}

// Panel `panel` of w (a matrix of the file) -> to, panel_bytes of it: how the layout is meant, and for any CPU.
void pack_panel(const Weight& w, int64_t panel, std::byte* to);
// Row `row` of any packed matrix -> y (cols,), exactly as the file's own row is decoded.
void unpack_row(const Weight& w, int64_t row, float* y);

// The same for a matrix of either kind.
void read_row(const Kernels& kernels, const Weight& w, int64_t row, float* y);

}  // namespace quinze
