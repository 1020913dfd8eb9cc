// Products of one token with weights that are codes with a scale and often a minimum, in AVX2, as they lie in the file.
// Read by kernels_avx2.cpp only.
//
// A weight is scale * code - min, so a product is scale * sum(code * x) - min * sum(x), and sum(x) is known beforehand.
#pragma once
#include "avx2_products.h"

namespace quinze {
namespace {

template <Type type> struct BlockOf;
template <> struct BlockOf<Type::Q8_0> { using type = BlockQ8_0; };
template <> struct BlockOf<Type::Q4_0> { using type = BlockQ4_0; };
template <> struct BlockOf<Type::Q4_1> { using type = BlockQ4_1; };
template <> struct BlockOf<Type::Q5_0> { using type = BlockQ5_0; };
template <> struct BlockOf<Type::Q5_1> { using type = BlockQ5_1; };
template <> struct BlockOf<Type::Q4_K> { using type = BlockQ4_K; };
template <> struct BlockOf<Type::Q5_K> { using type = BlockQ5_K; };
template <> struct BlockOf<Type::Q6_K> { using type = BlockQ6_K; };
template <Type type> using Block = typename BlockOf<type>::type;

template <Type type> constexpr bool kIsK = type == Type::Q4_K || type == Type::Q5_K;
template <Type type> constexpr bool kFiveBits = type == Type::Q5_0 || type == Type::Q5_1 || type == Type::Q5_K;

// ---------------------------------------------------------------- codes

inline __m256i nibbles(const uint8_t (&qs)[16]) {
    const __m256i twice = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(qs)));
    return _mm256_and_si256(_mm256_srlv_epi64(twice, _mm256_setr_epi64x(0, 0, 4, 4)), _mm256_set1_epi8(15));
}
// Bit i of four bytes -> 16 in byte i where it is set.
inline __m256i fifths(const uint8_t (&qh)[4]) {
    const __m256i spread = _mm256_shuffle_epi8(broadcast_4(qh), _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
    const __m256i bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ull));
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit), _mm256_set1_epi8(16));
}
// The 32 codes of block j of a Q6_K block, 0..63.
inline __m256i codes_q6_k(const BlockQ6_K& w, int j) {
    const int half = j / 4, k = j % 4;
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w.ql + 64 * half + 32 * (k % 2)));
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w.qh + 32 * half));
    return _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(low, k / 2 * 4), _mm256_set1_epi8(15)),
                           _mm256_slli_epi16(_mm256_and_si256(_mm256_srli_epi16(high, 2 * k), _mm256_set1_epi8(3)), 4));
}

// The 32 codes of block j of a block of a file, in the order of the weights. j is 0 but for the K formats.
template <Type type> inline __m256i codes(const Block<type>& w, int j) {
    if constexpr (type == Type::Q4_0 || type == Type::Q4_1) return nibbles(w.qs);
    else if constexpr (type == Type::Q6_K) return codes_q6_k(w, j);
    else if constexpr (!kIsK<type>) return _mm256_or_si256(nibbles(w.qs), fifths(w.qh));
    else {
        const __m256i packed = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w.qs + j / 2 * 32));
        const __m256i low = _mm256_and_si256(_mm256_srli_epi16(packed, j % 2 * 4), _mm256_set1_epi8(15));
        if constexpr (type == Type::Q4_K) return low;
        else {
            const __m256i bits = _mm256_srli_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w.qh)), j);
            return _mm256_or_si256(low, _mm256_slli_epi16(_mm256_and_si256(bits, _mm256_set1_epi8(1)), 4));
        }
    }
}
inline __m256i activations(const int8_t* q) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q)); }
// Lane pattern that broadcasts int16 number j of each half.
inline __m256i pick_16(int j) { return _mm256_set1_epi16(static_cast<short>(2 * j | (2 * j + 1) << 8)); }

// Eight of sixteen bytes in the lanes of a register: as int32, or each twice as int16.
inline __m256i sixteen_bytes(const void* p) { return _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(p))); }
inline __m256i bytes_as_32(__m256i bytes, int group) {
    const __m256i first = _mm256_setr_epi32(0x80808000, 0x80808001, 0x80808002, 0x80808003, 0x80808004, 0x80808005, 0x80808006, 0x80808007);
    return _mm256_shuffle_epi8(bytes, group ? _mm256_add_epi32(first, _mm256_set1_epi32(8)) : first);
}
inline __m256i bytes_twice_as_16(__m256i bytes, int group) {
    const __m256i first = _mm256_setr_epi32(0x80008000, 0x80018001, 0x80028002, 0x80038003, 0x80048004, 0x80058005, 0x80068006, 0x80078007);
    return _mm256_shuffle_epi8(bytes, group ? _mm256_add_epi32(first, _mm256_set1_epi32(0x00080008)) : first);
}
inline __m256i signed_bytes_twice_as_16(__m256i bytes, int group) {
    const __m256i first = _mm256_setr_epi32(0x00800080, 0x01800180, 0x02800280, 0x03800380, 0x04800480, 0x05800580, 0x06800680, 0x07800780);
    return _mm256_srai_epi16(_mm256_shuffle_epi8(bytes, group ? _mm256_add_epi32(first, _mm256_set1_epi32(0x08000800)) : first), 8);
}

// ---------------------------------------------------------------- gemv

// The float16 numbers that begin eight blocks in a row, `at` bytes further on.
template <class Block> inline __m256 eight_halves(const Block* p, int64_t at) {
    const auto half = [&](int i) {
        uint16_t v;
        std::memcpy(&v, reinterpret_cast<const std::byte*>(p + i) + at, 2);
        return static_cast<short>(v);
    };
    return _mm256_cvtph_ps(_mm_setr_epi16(half(0), half(1), half(2), half(3), half(4), half(5), half(6), half(7)));
}
inline __m256 eight_sums(const int32_t* sum8) { return _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(sum8))); }

// Eight blocks at a time: their scales are put together eight wide, and met one by one.
template <Type type>
void gemv_codes(const Weight& w, int64_t row0, int64_t row1, const Activations& x, float* y) {
    constexpr bool symmetric = type == Type::Q4_0 || type == Type::Q5_0, centered = type == Type::Q8_0;
    // weight + 8 or + 16 was counted, and sum8 is 8 * sum(x); or the minimum is missing.
    constexpr float excess = type == Type::Q4_0 ? -1.0f : type == Type::Q5_0 ? -2.0f : 0.125f;
    const int64_t blocks = w.cols / kBlock;
    const auto* p = reinterpret_cast<const Block<type>*>(w.data) + row0 * blocks;
    const auto product = [&](int64_t i) {
        if constexpr (centered) return _mm256_cvtepi32_ps(dot(p[i], x.q8 + 32 * i));
        else return _mm256_cvtepi32_ps(_mm256_madd_epi16(_mm256_maddubs_epi16(codes<type>(p[i], 0), activations(x.q8 + 32 * i)), _mm256_set1_epi16(1)));
    };
    alignas(32) float scales[8];
    for (int64_t row = row0; row < row1; row++, p += blocks) {
        __m256 sum[4] = {}, mins = {};
        int64_t i = 0;
        for (; i + 8 <= blocks; i += 8) {
            const __m256 xs = _mm256_loadu_ps(x.scale + i), scale = _mm256_mul_ps(eight_halves(p + i, 0), xs);
            _mm256_store_ps(scales, scale);
            if constexpr (symmetric) mins = _mm256_fmadd_ps(scale, eight_sums(x.sum8 + i), mins);
            else if constexpr (!centered) mins = _mm256_fmadd_ps(_mm256_mul_ps(eight_halves(p + i, 2), xs), eight_sums(x.sum8 + i), mins);
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++) sum[j % 4] = _mm256_fmadd_ps(product(i + j), _mm256_broadcast_ss(scales + j), sum[j % 4]);
        }
        float rest = 0;
        for (; i < blocks; i++) {
            const float scale = _cvtsh_ss(p[i].d) * x.scale[i];
            sum[0] = _mm256_fmadd_ps(product(i), _mm256_set1_ps(scale), sum[0]);
            if constexpr (symmetric) rest += scale * static_cast<float>(x.sum8[i]);
            else if constexpr (!centered) rest += _cvtsh_ss(p[i].m) * x.scale[i] * static_cast<float>(x.sum8[i]);
        }
        float total = sum8(_mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3])));
        if constexpr (!centered) total += excess * (sum8(mins) + rest);
        y[row - row0] = total;
    }
}

// One row's way through the blocks of Q4_K or Q5_K; two rows share what they read of the activations.
template <Type type> struct RowOfK {
    const Block<type>* p;
    __m256 sum = _mm256_setzero_ps(), mins = sum, part = sum;
    __m256i scales = _mm256_setzero_si256();

    inline void begin(__m256 counted) {
        const SixBits six = six_bits(p->scales);
        scales = _mm256_broadcastsi128_si256(_mm_cvtepu8_epi16(_mm_cvtsi64_si128(static_cast<long long>(six.scales))));
        const __m256 m = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(six.mins))));
        mins = _mm256_fmadd_ps(_mm256_mul_ps(broadcast_f16(p->dmin), m), counted, mins);
        part = _mm256_setzero_ps();
    }
    inline void add(int j, __m256i q, __m256 scale) {
        const __m256i product = _mm256_madd_epi16(_mm256_maddubs_epi16(codes<type>(*p, j), q), _mm256_shuffle_epi8(scales, pick_16(j)));
        part = _mm256_fmadd_ps(_mm256_cvtepi32_ps(product), scale, part);
    }
    inline void end() { sum = _mm256_fmadd_ps(broadcast_f16(p->d), part, sum), p++; }
    inline float total() const { return sum8(_mm256_fnmadd_ps(_mm256_set1_ps(0.125f), mins, sum)); }
};

// The same for Q6_K, whose halves of a block of 32 have a scale each. What 32 times the activations are is shared too.
struct RowOfQ6K {
    const BlockQ6_K* p;
    __m256 sum = _mm256_setzero_ps(), part = sum;
    __m256i scales = _mm256_setzero_si256();

    inline void begin() {
        const __m128i even_first = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
        scales = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p->scales)), even_first));
        part = _mm256_setzero_ps();
    }
    inline void add(int j, __m256i q, __m256i excess, __m256 scale) {
        const __m256i pairs = _mm256_sub_epi16(_mm256_maddubs_epi16(codes_q6_k(*p, j), q), excess);
        part = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_shuffle_epi8(scales, pick_16(j)))), scale, part);
    }
    inline void end() { sum = _mm256_fmadd_ps(broadcast_f16(p->d), part, sum), p++; }
    inline float total() const { return sum8(sum); }
};

// Two rows at a time. The second comes from far away: of two neighbors at once the hardware fetches neither ahead, and
// the speed is a third (docs/log.md).
template <class Row, class Step>
void two_by_two(const Weight& w, int64_t row0, int64_t row1, float* y, Step step) {
    const int64_t blocks = w.cols / kSuper, half = (row1 - row0 + 1) / 2;
    const auto* p = reinterpret_cast<decltype(Row::p)>(w.data);
    for (int64_t row = row0; row < row0 + half; row++) {
        const int64_t second = row + half < row1 ? row + half : row;
        Row a{p + row * blocks}, b{p + second * blocks};
        for (int64_t i = 0; i < blocks; i++) step(a, b, i);
        y[second - row0] = b.total();
        y[row - row0] = a.total();
    }
}

template <Type type>
void gemv_k(const Weight& w, int64_t row0, int64_t row1, const Activations& x, float* y) {
    using Row = RowOfK<type>;
    two_by_two<Row>(w, row0, row1, y, [&](Row& a, Row& b, int64_t i) {
        const __m256 counted = _mm256_mul_ps(_mm256_loadu_ps(x.scale + 8 * i), eight_sums(x.sum8 + 8 * i));
        a.begin(counted), b.begin(counted);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {
            const __m256i q = activations(x.q8 + 256 * i + 32 * j);
            const __m256 scale = _mm256_broadcast_ss(x.scale + 8 * i + j);
            a.add(j, q, scale), b.add(j, q, scale);
        }
        a.end(), b.end();
    });
}
void gemv_q6_k(const Weight& w, int64_t row0, int64_t row1, const Activations& x, float* y) {
    two_by_two<RowOfQ6K>(w, row0, row1, y, [&](RowOfQ6K& a, RowOfQ6K& b, int64_t i) {
        a.begin(), b.begin();
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {
            const __m256i q = activations(x.q8 + 256 * i + 32 * j), excess = _mm256_maddubs_epi16(_mm256_set1_epi8(32), q);
            const __m256 scale = _mm256_broadcast_ss(x.scale + 8 * i + j);
            a.add(j, q, excess, scale), b.add(j, q, excess, scale);
        }
        a.end(), b.end();
    });
}


}  // namespace
}  // namespace quinze
