// Products with packed weights (packed.h), in AVX2. Read by kernels_avx2.cpp only.
//
// The lanes of a register are rows, so a row's sums never cross lanes, and what a block of activations brings is loaded
// once for 16 rows. gemv adds block after block to one sum a row, in the very order of gemm: both give the same bits.
// Pieces of work begin at a whole panel.
#pragma once
#include "avx2_gemm_codes.h"
#include "packed.h"

namespace quinze {
namespace {

template <Type type> struct PackedOf;
template <> struct PackedOf<Type::Q8_0> { using type = PackedQ8_0; };
template <> struct PackedOf<Type::Q4_0> { using type = PackedQ4_0; };
template <> struct PackedOf<Type::Q4_1> { using type = PackedQ4_1; };
template <> struct PackedOf<Type::Q5_0> { using type = PackedQ5_0; };
template <> struct PackedOf<Type::Q5_1> { using type = PackedQ5_1; };
template <> struct PackedOf<Type::Q4_K> { using type = PackedQ4_K; };
template <> struct PackedOf<Type::Q5_K> { using type = PackedQ5_K; };
template <> struct PackedOf<Type::Q6_K> { using type = PackedQ6_K; };
template <Type type> using Packed = typename PackedOf<type>::type;

inline __m256i load32(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// ---------------------------------------------------------------- codes of one step of one group

inline __m256i nibbles_of(const uint8_t (&q)[4][2][32], int step, int group) {
    const __m256i v = load32(q[step % 4][group]);
    return _mm256_and_si256(step < 4 ? v : _mm256_srli_epi16(v, 4), _mm256_set1_epi8(15));
}
// Bits are moved within 16, and those that came from the neighboring byte masked away.
inline __m256i fifths_of(const uint8_t (&h)[2][32], int step, int group) {
    const __m256i v = load32(h[group]);
    const __m256i moved = step < 4 ? _mm256_slli_epi16(v, 4 - step) : _mm256_srli_epi16(v, step - 4);
    return _mm256_and_si256(moved, _mm256_set1_epi8(16));
}
inline __m256i upper_twos_of(const uint8_t (&h)[2][2][32], int step, int group) {
    const __m256i v = load32(h[step / 4][group]);
    const int i = step % 4;
    const __m256i moved = i < 2 ? _mm256_slli_epi16(v, 4 - 2 * i) : _mm256_srli_epi16(v, 2 * i - 4);
    return _mm256_and_si256(moved, _mm256_set1_epi8(48));
}
inline __m256i codes_of(const PackedQ4_0& w, int, int step, int group) { return nibbles_of(w.q, step, group); }
inline __m256i codes_of(const PackedQ4_1& w, int, int step, int group) { return nibbles_of(w.q, step, group); }
inline __m256i codes_of(const PackedQ5_0& w, int, int step, int group) {
    return _mm256_or_si256(nibbles_of(w.q, step, group), fifths_of(w.h, step, group));
}
inline __m256i codes_of(const PackedQ5_1& w, int, int step, int group) {
    return _mm256_or_si256(nibbles_of(w.q, step, group), fifths_of(w.h, step, group));
}
inline __m256i codes_of(const PackedQ4_K& w, int j, int step, int group) { return nibbles_of(w.b[j].q, step, group); }
inline __m256i codes_of(const PackedQ5_K& w, int j, int step, int group) {
    return _mm256_or_si256(nibbles_of(w.b[j].q, step, group), fifths_of(w.b[j].h, step, group));
}
inline __m256i codes_of(const PackedQ6_K& w, int j, int step, int group) {
    return _mm256_or_si256(nibbles_of(w.b[j].q, step, group), upper_twos_of(w.b[j].h, step, group));
}

// ---------------------------------------------------------------- gemv

// What meets a minimum: scale * 8 * sum of each block of the activations, of as many columns as are looked at together.
constexpr int64_t kColumnsAtOnce = 16384;
struct Counted { float at[kColumnsAtOnce / kBlock]; };

// The compiler must not reorder these sums: it would keep dozens of partial sums and spill them.
#define QUINZE_HOLD(a, b) asm volatile("" : "+x"(a), "+x"(b))

// Steps [first, last) of block j times their activations, added up in int16. s0, s1: the two groups.
template <class Block>
inline void add_steps(const Block& w, int j, int first, int last, const int8_t* q, __m256i& s0, __m256i& s1) {
#pragma GCC unroll 8
    for (int k = first; k < last; k++) {
        const __m256i x = broadcast_4(q + 4 * k);
        s0 = _mm256_add_epi16(s0, _mm256_maddubs_epi16(codes_of(w, j, k, 0), x));
        s1 = _mm256_add_epi16(s1, _mm256_maddubs_epi16(codes_of(w, j, k, 1), x));
        QUINZE_HOLD(s0, s1);
    }
}

// Blocks [b0, b1) of one panel, added to its 16 sums. Sixteen products of a nibble and an int8 fit int16 (30480), and
// eight of a five-bit code (31496).
template <Type type>
inline void panel_product(const Packed<type>* w, int64_t b0, int64_t b1, const Activations& x, const Counted& counted, __m256 (&sum)[2]) {
    constexpr bool symmetric = type == Type::Q4_0 || type == Type::Q5_0;
    const __m256i one = _mm256_set1_epi16(1);
    for (int64_t b = b0; b < b1; b++, w++) {
        const int8_t* q = x.q8 + 32 * b;
        _mm_prefetch(reinterpret_cast<const char*>(w + 4), _MM_HINT_T0);
        __m256i s0, s1;
        s0 = s1 = _mm256_setzero_si256();
        if constexpr (type == Type::Q8_0) {
#pragma GCC unroll 8
            for (int k = 0; k < 8; k++) {
                // As in gemv of Q8_0: |w| * (x with the sign of w) cannot overflow int16.
                const __m256i v0 = load32(w->q[k][0]), v1 = load32(w->q[k][1]), c = broadcast_4(q + 4 * k);
                s0 = _mm256_add_epi32(s0, _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(v0), _mm256_sign_epi8(c, v0)), one));
                s1 = _mm256_add_epi32(s1, _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(v1), _mm256_sign_epi8(c, v1)), one));
            }
        } else if constexpr (kFiveBits<type>) {
            add_steps(*w, 0, 0, 4, q, s0, s1);
            __m256i t0, t1;
            t0 = t1 = _mm256_setzero_si256();
            add_steps(*w, 0, 4, 8, q, t0, t1);
            s0 = _mm256_add_epi32(_mm256_madd_epi16(s0, one), _mm256_madd_epi16(t0, one));
            s1 = _mm256_add_epi32(_mm256_madd_epi16(s1, one), _mm256_madd_epi16(t1, one));
        } else {
            add_steps(*w, 0, 0, 8, q, s0, s1);
            s0 = _mm256_madd_epi16(s0, one), s1 = _mm256_madd_epi16(s1, one);
        }
        if constexpr (symmetric) {  // the codes are 8 or 16 too large
            const __m256i excess = _mm256_set1_epi32(type == Type::Q5_0 ? 2 * x.sum8[b] : x.sum8[b]);
            s0 = _mm256_sub_epi32(s0, excess), s1 = _mm256_sub_epi32(s1, excess);
        } else if constexpr (type != Type::Q8_0) {
            const __m256 c = _mm256_set1_ps(counted.at[b - b0]), eighth = _mm256_set1_ps(0.125f);
            sum[0] = _mm256_fmadd_ps(_mm256_mul_ps(load_f16(w->m), eighth), c, sum[0]);
            sum[1] = _mm256_fmadd_ps(_mm256_mul_ps(load_f16(w->m + 8), eighth), c, sum[1]);
        }
        const __m256 xs = _mm256_broadcast_ss(x.scale + b);
        sum[0] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(s0), _mm256_mul_ps(load_f16(w->d), xs), sum[0]);
        sum[1] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(s1), _mm256_mul_ps(load_f16(w->d + 8), xs), sum[1]);
    }
}

// Q4_K, Q5_K: blocks count 32 columns. A block's integer sums meet its small scale while they are integers; what the mins
// take away is put together once for 256 columns.
template <Type type>
inline void panel_product_k(const Packed<type>* w, int64_t b0, int64_t b1, const Activations& x, const Counted& counted, __m256 (&sum)[2]) {
    for (int64_t b = b0; b < b1; b += 8, w++) {
        __m256 part0 = _mm256_setzero_ps(), part1 = part0, min0 = part0, min1 = part0;
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {
            const int8_t* q = x.q8 + 32 * (b + j);
            for (int line = 0; line < static_cast<int>(sizeof(w->b[0])); line += 64)
                _mm_prefetch(reinterpret_cast<const char*>(&w->b[j]) + 1024 + line, _MM_HINT_T0);
            const __m256i scales = sixteen_bytes(w->scales[j]), mins = sixteen_bytes(w->mins[j]);
            const __m256i c0 = bytes_twice_as_16(scales, 0), c1 = bytes_twice_as_16(scales, 1);
            __m256i s0, s1;
            s0 = s1 = _mm256_setzero_si256();
            if constexpr (kFiveBits<type>) {
                add_steps(*w, j, 0, 4, q, s0, s1);
                __m256i t0, t1;
                t0 = t1 = _mm256_setzero_si256();
                add_steps(*w, j, 4, 8, q, t0, t1);
                s0 = _mm256_add_epi32(_mm256_madd_epi16(s0, c0), _mm256_madd_epi16(t0, c0));
                s1 = _mm256_add_epi32(_mm256_madd_epi16(s1, c1), _mm256_madd_epi16(t1, c1));
            } else {
                add_steps(*w, j, 0, 8, q, s0, s1);
                s0 = _mm256_madd_epi16(s0, c0), s1 = _mm256_madd_epi16(s1, c1);
            }
            const __m256 xs = _mm256_broadcast_ss(x.scale + b + j), c = _mm256_broadcast_ss(counted.at + (b - b0) + j);
            part0 = _mm256_fmadd_ps(_mm256_cvtepi32_ps(s0), xs, part0);
            part1 = _mm256_fmadd_ps(_mm256_cvtepi32_ps(s1), xs, part1);
            min0 = _mm256_fmadd_ps(_mm256_cvtepi32_ps(bytes_as_32(mins, 0)), c, min0);
            min1 = _mm256_fmadd_ps(_mm256_cvtepi32_ps(bytes_as_32(mins, 1)), c, min1);
        }
        const __m256 eighth = _mm256_set1_ps(0.125f);
        sum[0] = _mm256_fmadd_ps(load_f16(w->d), part0, sum[0]), sum[1] = _mm256_fmadd_ps(load_f16(w->d + 8), part1, sum[1]);
        sum[0] = _mm256_fnmadd_ps(_mm256_mul_ps(load_f16(w->dmin), eighth), min0, sum[0]);
        sum[1] = _mm256_fnmadd_ps(_mm256_mul_ps(load_f16(w->dmin + 8), eighth), min1, sum[1]);
    }
}

// Q6_K: sums of 16 columns begin with what the codes are too large by. In between they may run over int16 and back:
// at the end |code - 32| <= 32 keeps them within 32512.
inline void panel_product_q6_k(const PackedQ6_K* w, int64_t b0, int64_t b1, const Activations& x, __m256 (&sum)[2]) {
    for (int64_t b = b0; b < b1; b += 8, w++) {
        const __m256 d0 = load_f16(w->d), d1 = load_f16(w->d + 8);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {
            const int8_t* q = x.q8 + 32 * (b + j);
            const int32_t* excess = x.minus32 + 2 * (b + j);
            for (int line = 0; line < static_cast<int>(sizeof(w->b[0])); line += 64)
                _mm_prefetch(reinterpret_cast<const char*>(&w->b[j]) + 1024 + line, _MM_HINT_T0);
            const __m256i first = sixteen_bytes(w->scales[2 * j]), second = sixteen_bytes(w->scales[2 * j + 1]);
            __m256i s0, s1, t0, t1;
            s0 = s1 = _mm256_set1_epi32(excess[0]);
            add_steps(*w, j, 0, 4, q, s0, s1);
            t0 = t1 = _mm256_set1_epi32(excess[1]);
            add_steps(*w, j, 4, 8, q, t0, t1);
            s0 = _mm256_add_epi32(_mm256_madd_epi16(s0, signed_bytes_twice_as_16(first, 0)), _mm256_madd_epi16(t0, signed_bytes_twice_as_16(second, 0)));
            s1 = _mm256_add_epi32(_mm256_madd_epi16(s1, signed_bytes_twice_as_16(first, 1)), _mm256_madd_epi16(t1, signed_bytes_twice_as_16(second, 1)));
            const __m256 xs = _mm256_broadcast_ss(x.scale + b + j);
            sum[0] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(s0), _mm256_mul_ps(d0, xs), sum[0]);
            sum[1] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(s1), _mm256_mul_ps(d1, xs), sum[1]);
        }
    }
}
#undef QUINZE_HOLD

template <Type type>
void gemv_packed(const Weight& w, int64_t row0, int64_t row1, const Activations& x, float* y) {
    constexpr int64_t per = kTypeInfo[static_cast<int>(type)].block / kBlock;
    constexpr bool has_min = kIsK<type> || type == Type::Q4_1 || type == Type::Q5_1;
    const int64_t blocks = w.cols / kBlock, step = kColumnsAtOnce / kBlock;
    Counted counted;
    for (int64_t b0 = 0; b0 < blocks; b0 += step) {
        const int64_t b1 = least(blocks, b0 + step);
        for (int64_t b = b0; has_min && b < b1; b++) counted.at[b - b0] = x.scale[b] * static_cast<float>(x.sum8[b]);
        for (int64_t row = row0; row < row1; row += kPanelRows) {
            const auto* p = reinterpret_cast<const Packed<type>*>(w.data) + (row / kPanelRows * blocks + b0) / per;
            const int64_t n = least(kPanelRows, row1 - row);
            alignas(32) float lanes[kPanelRows] = {};
            if (b0 > 0) std::memcpy(lanes, y + row - row0, n * sizeof(float));
            __m256 sum[2] = {_mm256_load_ps(lanes), _mm256_load_ps(lanes + 8)};
            if constexpr (kIsK<type>) panel_product_k<type>(p, b0, b1, x, counted, sum);
            else if constexpr (type == Type::Q6_K) panel_product_q6_k(p, b0, b1, x, sum);
            else panel_product<type>(p, b0, b1, x, counted, sum);
            _mm256_store_ps(lanes, sum[0]), _mm256_store_ps(lanes + 8, sum[1]);
            std::memcpy(y + row - row0, lanes, n * sizeof(float));
        }
    }
}

// ---------------------------------------------------------------- gemm: panels filled without turning anything

template <class Block>
inline void unpack_codes(const Block& w, int j, uint8_t* panel) {
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++)
        for (int group = 0; group < 2; group++)
            _mm256_store_si256(reinterpret_cast<__m256i*>(panel + 64 * k + 32 * group), codes_of(w, j, k, group));
}
inline void unpack_halves(const uint16_t (&halves)[16], float factor, float* to) {
    for (int i = 0; i < 16; i += 8) _mm256_store_ps(to + i, _mm256_mul_ps(load_f16(halves + i), _mm256_set1_ps(factor)));
}
inline void unpack_q8_0(const PackedQ8_0& w, int16_t* panel) {
    for (int k = 0; k < 8; k++)
        for (int group = 0; group < 2; group++) {
            const __m256i v = load32(w.q[k][group]);
            const __m256i first = _mm256_set1_epi32(0x01800080), lanes = _mm256_setr_epi32(0, 0x04000400, 0x08000800, 0x0c000c00, 0, 0x04000400, 0x08000800, 0x0c000c00);
            const __m256i pick = _mm256_add_epi32(first, lanes);
            auto* to = reinterpret_cast<__m256i*>(panel + 64 * k + 16 * group);
            _mm256_store_si256(to, _mm256_srai_epi16(_mm256_shuffle_epi8(v, pick), 8));
            _mm256_store_si256(to + 2, _mm256_srai_epi16(_mm256_shuffle_epi8(v, _mm256_add_epi32(pick, _mm256_set1_epi32(0x02000200))), 8));
        }
}

template <Type type>
void gemm_packed(const Weight& w, int64_t row0, int64_t row1, const Activations& x, int64_t tokens, float* y, int64_t ldy,
                 std::byte* scratch) {
    constexpr int64_t per = kTypeInfo[static_cast<int>(type)].block / kBlock;
    const int64_t blocks = w.cols / kBlock;
    const auto block_of = [&](int64_t row, int64_t b) -> const Packed<type>& {
        return reinterpret_cast<const Packed<type>*>(w.data)[(row / kPanelRows * blocks + b) / per];
    };
    if constexpr (type == Type::Q8_0) {
        gemm_q8_0(w.cols, row0, row1, x, tokens, y, ldy, scratch, [&](int64_t r, int64_t, int64_t b0, int64_t b1, int16_t* panel, float* scales) {
            for (int64_t b = b0; b < b1; b++, panel += 512, scales += kPanelRows) {
                unpack_q8_0(block_of(r, b), panel);
                unpack_halves(block_of(r, b).d, 1, scales);
            }
        });
    } else if constexpr (type == Type::Q4_0) {
        gemm_q4_0(w.cols, row0, row1, x, tokens, y, ldy, scratch, [&](int64_t r, int64_t, int64_t b0, int64_t b1, uint8_t* panel, float* scales) {
            for (int64_t b = b0; b < b1; b++, panel += 512, scales += kPanelRows) {
                unpack_codes(block_of(r, b), 0, panel);
                unpack_halves(block_of(r, b).d, 1, scales);
            }
        });
    } else if constexpr (kIsK<type>) {
        gemm_with_k<type>(w.cols, row0, row1, x, tokens, y, ldy, scratch, [&](int64_t r, int64_t, int64_t b0, int64_t b1, PanelK& panel) {
            for (int64_t b = b0; b < b1; b++) unpack_codes(block_of(r, b), static_cast<int>(b % 8), panel.codes[b - b0]);
            for (int64_t at = 0; at < (b1 - b0) / 8; at++) {
                const Packed<type>& v = block_of(r, b0 + 8 * at);
                widen_k_scales(v.scales, v.mins, at, panel);
                unpack_halves(v.d, 1, panel.d[at]), unpack_halves(v.dmin, 0.125f, panel.dmin8[at]);
            }
        });
    } else if constexpr (type == Type::Q6_K) {
        gemm_with_q6_k(w.cols, row0, row1, x, tokens, y, ldy, scratch, [&](int64_t r, int64_t, int64_t b0, int64_t b1, PanelQ6K& panel) {
            for (int64_t b = b0; b < b1; b++) {
                const PackedQ6_K& v = block_of(r, b);
                const int j = static_cast<int>(b % 8);
                unpack_codes(v, j, panel.codes[b - b0]);
                for (int half = 0; half < 2; half++)
                    for (int group = 0; group < 2; group++)
                        _mm256_store_si256(reinterpret_cast<__m256i*>(panel.scales[b - b0][half][group]),
                                           signed_bytes_twice_as_16(sixteen_bytes(v.scales[2 * j + half]), group));
                if (j == 0) unpack_halves(v.d, 1, panel.d[(b - b0) / 8]);
            }
        });
    } else {
        gemm_with_codes<type>(w.cols, row0, row1, x, tokens, y, ldy, scratch, [&](int64_t r, int64_t, int64_t b0, int64_t b1, PanelCodes& panel) {
            for (int64_t b = b0; b < b1; b++) {
                const Packed<type>& v = block_of(r, b);
                unpack_codes(v, 0, panel.codes[b - b0]);
                unpack_halves(v.d, 1, panel.scales[b - b0]);
                if constexpr (type != Type::Q5_0) unpack_halves(v.m, -0.125f, panel.mins[b - b0]);
            }
        });
    }
}

// ---------------------------------------------------------------- packing

// 32 columns of 16 rows as codes (8 steps, 2 groups, 32 bytes) -> nibbles, and bits five or five and six.
inline void pack_nibbles(const uint8_t* panel, uint8_t (&q)[4][2][32]) {
    const __m256i low = _mm256_set1_epi8(15);
    for (int k = 0; k < 4; k++)
        for (int group = 0; group < 2; group++) {
            const __m256i a = load32(panel + 64 * k + 32 * group), b = load32(panel + 64 * (k + 4) + 32 * group);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(q[k][group]),
                                _mm256_or_si256(_mm256_and_si256(a, low), _mm256_slli_epi16(_mm256_and_si256(b, low), 4)));
        }
}
inline void pack_fifths(const uint8_t* panel, uint8_t (&h)[2][32]) {
    for (int group = 0; group < 2; group++) {
        __m256i bits = _mm256_setzero_si256();
#pragma GCC unroll 8
        for (int k = 0; k < 8; k++) {
            const __m256i v = _mm256_and_si256(load32(panel + 64 * k + 32 * group), _mm256_set1_epi8(16));
            bits = _mm256_or_si256(bits, k < 4 ? _mm256_srli_epi16(v, 4 - k) : _mm256_slli_epi16(v, k - 4));
        }
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(h[group]), bits);
    }
}
inline void pack_upper_twos(const uint8_t* panel, uint8_t (&h)[2][2][32]) {
    for (int half = 0; half < 2; half++)
        for (int group = 0; group < 2; group++) {
            __m256i bits = _mm256_setzero_si256();
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) {
                const __m256i v = _mm256_and_si256(load32(panel + 64 * (4 * half + k) + 32 * group), _mm256_set1_epi8(48));
                bits = _mm256_or_si256(bits, k < 2 ? _mm256_srli_epi16(v, 4 - 2 * k) : _mm256_slli_epi16(v, 2 * k - 4));
            }
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(h[half][group]), bits);
        }
}

template <Type type>
void pack_fast(const Weight& w, int64_t panel, std::byte* to) {
    const int64_t row0 = panel * kPanelRows;
    if (w.rows - row0 < kPanelRows) return pack_panel(w, panel, to);
    const PanelRows rows(w, row0, kPanelRows);
    auto* packed = reinterpret_cast<Packed<type>*>(to);
    alignas(32) uint8_t codes[512];
    for (int64_t b = 0; b < w.cols / info(type).block; b++) {
        Packed<type>& p = packed[b];
        const auto row = [&](int i) -> const Block<type>& { return reinterpret_cast<const Block<type>*>(rows.at[i])[b]; };
        for (int i = 0; i < 16; i++) {
            p.d[i] = row(i).d;
            if constexpr (type == Type::Q4_1 || type == Type::Q5_1) p.m[i] = row(i).m;
            if constexpr (kIsK<type>) {
                p.dmin[i] = row(i).dmin;
                const SixBits six = six_bits(row(i).scales);
                for (int j = 0; j < 8; j++)
                    p.scales[j][i] = static_cast<uint8_t>(six.scales >> 8 * j), p.mins[j][i] = static_cast<uint8_t>(six.mins >> 8 * j);
            }
            if constexpr (type == Type::Q6_K)
                for (int g = 0; g < 16; g++) p.scales[g][i] = row(i).scales[g];
        }
        if constexpr (type == Type::Q8_0) {
            for (int group = 0; group < 2; group++)
                for (int half = 0; half < 2; half++) {
                    __m128i r[8];
                    for (int i = 0; i < 8; i++) r[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row(8 * group + i).qs + 16 * half));
                    __m256i word[4];
                    transpose_words(r, word);
                    for (int k = 0; k < 4; k++) _mm256_storeu_si256(reinterpret_cast<__m256i*>(p.q[4 * half + k][group]), word[k]);
                }
        } else {
            constexpr int per = kTypeInfo[static_cast<int>(type)].block / kBlock;
            for (int j = 0; j < per; j++) {
                pack_codes<type>(rows.at, b * per + j, b * per + j + 1, codes);
                if constexpr (per == 8) {
                    pack_nibbles(codes, p.b[j].q);
                    if constexpr (type == Type::Q5_K) pack_fifths(codes, p.b[j].h);
                    if constexpr (type == Type::Q6_K) pack_upper_twos(codes, p.b[j].h);
                } else {
                    pack_nibbles(codes, p.q);
                    if constexpr (kFiveBits<type>) pack_fifths(codes, p.h);
                }
            }
        }
    }
}
void pack(const Weight& w, int64_t panel, std::byte* to) {
    switch (w.type) {
        case Type::Q8_0: return pack_fast<Type::Q8_0>(w, panel, to);
        case Type::Q4_0: return pack_fast<Type::Q4_0>(w, panel, to);
        case Type::Q4_1: return pack_fast<Type::Q4_1>(w, panel, to);
        case Type::Q5_0: return pack_fast<Type::Q5_0>(w, panel, to);
        case Type::Q5_1: return pack_fast<Type::Q5_1>(w, panel, to);
        case Type::Q4_K: return pack_fast<Type::Q4_K>(w, panel, to);
        case Type::Q5_K: return pack_fast<Type::Q5_K>(w, panel, to);
        case Type::Q6_K: return pack_fast<Type::Q6_K>(w, panel, to);
        default: return;
    }
}

}  // namespace
}  // namespace quinze
