// Each kernel reachable from Python by itself, so that tests can compare one set with the other and with others' work.
#include "bindings_kernels.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <cmath>
#include <optional>
#include <tuple>
#include <vector>

#include "decoder.h"
#include "encode.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace quinze {

Weight check_weight(int type, int64_t rows, int64_t cols, const WeightBytes& bytes, const std::string& name) {
    if (type < 0 || type >= kTypes) throw std::invalid_argument("tensor " + name + " is of unknown type " + std::to_string(type));
    constexpr int64_t limit = int64_t{1} << 28;
    if (rows < 1 || cols < 1 || rows > limit || cols > limit)
        throw std::invalid_argument("tensor " + name + " has no sensible shape");
    Weight w{static_cast<Type>(type), rows, cols, reinterpret_cast<const std::byte*>(bytes.data())};
    if (cols % info(w.type).block)
        throw std::invalid_argument("tensor " + name + " has rows of " + std::to_string(cols) + ", not a multiple of " +
                                    std::to_string(info(w.type).block));
    if (static_cast<int64_t>(bytes.shape(0)) != matrix_bytes(w))
        throw std::invalid_argument("tensor " + name + " has " + std::to_string(bytes.shape(0)) + " bytes where " +
                                    std::to_string(matrix_bytes(w)) + " are needed");
    return w;
}

const Kernels& kernels_named(const std::string& name) {
    const Kernels* found = find_kernels(name.c_str());
    if (!found) throw std::invalid_argument("this machine has no kernels named " + name);
    return *found;
}

namespace {

using Floats2 = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Floats3 = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
template <class T> using New = nb::ndarray<nb::numpy, T, nb::c_contig>;

struct KernelSet { const Kernels& k; };

template <class A> int64_t size(const A& a, int axis = 0) { return static_cast<int64_t>(a.shape(axis)); }
void require(bool right, const char* what) { if (!right) throw std::invalid_argument(what); }
int checked_type(int type) {
    require(type >= 0 && type < kTypes, "unknown type");
    return type;
}
std::unique_ptr<float[]> copy(const Floats1& x) {
    std::unique_ptr<float[]> y(new float[x.shape(0)]);
    std::copy_n(x.data(), x.shape(0), y.get());
    return y;
}

// X (T, cols) quantized as the decoder does it, where cols allow.
struct Quantized {
    std::vector<int8_t> q8; std::vector<int16_t> q16; std::vector<float> scale; std::vector<int32_t> sum8, minus32;
    Activations x;
    Quantized(const Kernels& k, const float* f32, int64_t T, int64_t cols) {
        const int64_t blocks = cols / kBlock;
        q8.resize(T * cols), q16.resize(T * cols), scale.resize(T * blocks), sum8.resize(T * blocks), minus32.resize(2 * T * blocks);
        if (cols % kBlock == 0)
            for (int64_t t = 0; t < T; t++)
                k.quantize(f32 + t * cols, cols, q8.data() + t * cols, q16.data() + t * cols, scale.data() + t * blocks,
                           sum8.data() + t * blocks, minus32.data() + 2 * t * blocks);
        x = {cols, f32, q8.data(), q16.data(), scale.data(), sum8.data(), minus32.data()};
    }
};

New<float> gemv(const KernelSet& s, int type, const WeightBytes& bytes, int64_t rows, const Floats1& x) {
    const Weight w = check_weight(type, rows, size(x), bytes, "w");
    const Quantized q(s.k, x.data(), 1, w.cols);
    std::unique_ptr<float[]> y(new float[rows]);
    s.k.gemv[type](w, 0, rows, q.x, y.get());
    return give(std::move(y), {static_cast<size_t>(rows)});
}

// Rows [row0, row1) only, so that tests reach pieces that begin and end anywhere.
New<float> gemm(const KernelSet& s, int type, const WeightBytes& bytes, int64_t rows, const Floats2& x, int64_t row0, int64_t row1) {
    const int64_t T = size(x);
    const Weight w = check_weight(type, rows, size(x, 1), bytes, "w");
    require(T >= 1 && T <= kMaxTokens && 0 <= row0 && row0 < row1 && row1 <= rows, "rows or tokens are out of range");
    require(!is_packed(w.type) || row0 % kPanelRows == 0, "a piece of packed weights begins at a panel of 16 rows");
    const Quantized q(s.k, x.data(), T, w.cols);
    const Bytes scratch = allocate(kScratchBytes);
    const int64_t n = row1 - row0;
    std::unique_ptr<float[]> y(new float[T * n]);
    s.k.gemm[type](w, row0, row1, q.x, T, y.get(), n, scratch.get());
    return give(std::move(y), {static_cast<size_t>(T), static_cast<size_t>(n)});
}

New<float> dequantize(const KernelSet& s, int type, const WeightBytes& bytes, int64_t cols) {
    const Weight w = check_weight(type, 1, cols, bytes, "w");
    std::unique_ptr<float[]> y(new float[cols]);
    read_row(s.k, w, 0, y.get());
    return give(std::move(y), {static_cast<size_t>(cols)});
}

// A matrix as a file has it -> the same packed, (type, bytes). Lets the interpreter go, and takes rows of panels only, so
// that whoever has several cores shares a matrix out.
std::pair<int, New<uint8_t>> pack(const KernelSet& s, int type, const WeightBytes& bytes, int64_t rows, int64_t cols, int64_t panel0, int64_t panel1) {
    const Weight w = check_weight(type, rows, cols, bytes, "w");
    const Type packed = packed_type(w.type);
    require(is_packed(packed) && !is_packed(w.type), "weights of this type are not packed");
    require(0 <= panel0 && panel0 < panel1 && panel1 <= panels(rows), "panels are out of range");
    const int64_t each = panel_bytes(packed, cols);
    std::unique_ptr<uint8_t[]> y(new uint8_t[(panel1 - panel0) * each]);
    {
        nb::gil_scoped_release release;
        for (int64_t p = panel0; p < panel1; p++) s.k.pack(w, p, reinterpret_cast<std::byte*>(y.get() + (p - panel0) * each));
    }
    return {static_cast<int>(packed), give(std::move(y), {static_cast<size_t>((panel1 - panel0) * each)})};
}

// Rows of a packed matrix -> (rows, cols).
New<float> unpack(const KernelSet& s, int type, const WeightBytes& bytes, int64_t rows, int64_t cols) {
    const Weight w = check_weight(type, rows, cols, bytes, "w");
    std::unique_ptr<float[]> y(new float[rows * cols]);
    for (int64_t r = 0; r < rows; r++) read_row(s.k, w, r, y.get() + r * cols);
    return give(std::move(y), {static_cast<size_t>(rows), static_cast<size_t>(cols)});
}

std::tuple<New<int8_t>, New<int16_t>, New<float>, New<int32_t>, New<int16_t>> quantize(const KernelSet& s, const Floats1& x) {
    const size_t n = x.shape(0), blocks = n / kBlock;
    require(n > 0 && n % kBlock == 0, "x is not made of blocks of 32");
    std::unique_ptr<int8_t[]> q8(new int8_t[n]);
    std::unique_ptr<int16_t[]> q16(new int16_t[n]);
    std::unique_ptr<float[]> scale(new float[blocks]);
    std::unique_ptr<int32_t[]> sum8(new int32_t[blocks]);
    std::unique_ptr<int16_t[]> minus32(new int16_t[4 * blocks]);
    std::vector<int32_t> pairs(2 * blocks);
    s.k.quantize(x.data(), size(x), q8.get(), q16.get(), scale.get(), sum8.get(), pairs.data());
    std::memcpy(minus32.get(), pairs.data(), 8 * blocks);
    return {give(std::move(q8), {n}), give(std::move(q16), {n}), give(std::move(scale), {blocks}), give(std::move(sum8), {blocks}),
            give(std::move(minus32), {2 * blocks, 2})};
}

New<float> rms_norm(const KernelSet& s, const Floats1& x, const Floats1& weight, float eps) {
    require(size(x) > 0 && size(x) == size(weight), "x and weight differ in size");
    std::unique_ptr<float[]> y(new float[x.shape(0)]);
    s.k.rms_norm(x.data(), weight.data(), size(x), eps, y.get());
    return give(std::move(y), {x.shape(0)});
}

New<float> rope(const KernelSet& s, const Floats2& x, const Floats1& cos, const Floats1& sin, bool interleaved) {
    require(size(x, 1) % 2 == 0 && size(cos) == size(x, 1) / 2 && size(sin) == size(cos), "cos and sin do not fit x");
    std::unique_ptr<float[]> y(new float[x.size()]);
    std::copy_n(x.data(), x.size(), y.get());
    s.k.rope(y.get(), cos.data(), sin.data(), size(x), size(x, 1), interleaved);
    return give(std::move(y), {x.shape(0), x.shape(1)});
}

New<float> softmax(const KernelSet& s, const Floats1& x) {
    require(size(x) > 0, "x is empty");
    auto y = copy(x);
    s.k.softmax(y.get(), size(x));
    return give(std::move(y), {x.shape(0)});
}
New<float> silu_mul(const KernelSet& s, const Floats1& gate, const Floats1& up) {
    require(size(gate) == size(up), "gate and up differ in size");
    auto y = copy(gate);
    s.k.silu_mul(y.get(), up.data(), size(up));
    return give(std::move(y), {gate.shape(0)});
}
New<float> add(const KernelSet& s, const Floats1& x, const Floats1& y) {
    require(size(x) == size(y), "x and y differ in size");
    auto sum = copy(x);
    s.k.add(sum.get(), y.data(), size(y));
    return give(std::move(sum), {x.shape(0)});
}
New<uint8_t> store_q8_0(const KernelSet& s, const Floats1& x) {
    const auto bytes = static_cast<size_t>(kv_row_bytes(Type::Q8_0, size(x)));
    std::unique_ptr<uint8_t[]> y(new uint8_t[bytes]);
    s.k.store_q8_0(x.data(), size(x), reinterpret_cast<std::byte*>(y.get()));
    return give(std::move(y), {bytes});
}
New<uint16_t> store_f16(const KernelSet& s, const Floats1& x) {
    std::unique_ptr<uint16_t[]> y(new uint16_t[x.shape(0)]);
    s.k.store_f16(x.data(), size(x), y.get());
    return give(std::move(y), {x.shape(0)});
}

New<float> layer_norm(const KernelSet& s, const Floats1& x, const Floats1& weight, const Floats1& bias, float eps) {
    require(size(x) > 0 && size(x) == size(weight) && size(x) == size(bias), "x, weight and bias differ in size");
    std::unique_ptr<float[]> y(new float[x.shape(0)]);
    s.k.layer_norm(x.data(), weight.data(), bias.data(), size(x), eps, y.get());
    return give(std::move(y), {x.shape(0)});
}
New<float> gelu(const KernelSet& s, const Floats1& x) {
    auto y = copy(x);
    s.k.gelu(y.get(), size(x));
    return give(std::move(y), {x.shape(0)});
}
New<float> gelu_mul(const KernelSet& s, const Floats1& gate, const Floats1& up) {
    require(size(gate) == size(up), "gate and up differ in size");
    auto y = copy(gate);
    s.k.gelu_mul(y.get(), up.data(), size(up));
    return give(std::move(y), {gate.shape(0)});
}
New<float> softcap(const KernelSet& s, const Floats1& x, float cap) {
    require(cap > 0, "a cap is above zero");
    auto y = copy(x);
    s.k.softcap(y.get(), size(x), cap);
    return give(std::move(y), {x.shape(0)});
}

// q (T, H, D); k, v (N, K, D) lie in a cache whose last T positions are q's own. `part` keys are looked at together
// (0: all), and the pieces merged. few: as rows that come one by one are computed. Returns (T, H, D).
New<float> attention(const KernelSet& s, const Floats3& q, const Floats3& k, const Floats3& v, const std::string& type, int64_t part,
                     int64_t window, float softcap, bool few) {
    const int64_t T = size(q), H = size(q, 1), D = size(q, 2), N = size(k), K = size(k, 1);
    require(T >= 1 && N >= T && H >= 1 && K >= 1 && H % K == 0 && D >= 1 && D <= kMaxHeadDim && size(k, 2) == D && part >= 0,
            "q and k do not fit");
    require(window >= 0 && softcap >= 0, "a window or a cap below zero");
    require(size(v) == N && size(v, 1) == K && size(v, 2) == D, "k and v differ in shape");
    require(type == "f16" || type == "f32" || type == "q8_0", "a cache is of type f16, f32 or q8_0");
    DecoderConfig config;
    config.layers = 1, config.kv_heads = K, config.head_dim = D;
    Cache cache(config, type == "f16" ? Type::F16 : type == "f32" ? Type::F32 : Type::Q8_0);
    cache.reserve(N);
    const KVView view = cache.layer(0);
    for (int64_t n = 0; n < N; n++)
        for (int64_t h = 0; h < K; h++)
            for (const auto& [offset, from] : {std::pair{view.k_offset, k.data()}, std::pair{view.v_offset, v.data()}}) {
                std::byte* to = cache.at(view, offset, h, n);
                if (type == "f16") s.k.store_f16(from + (n * K + h) * D, D, reinterpret_cast<uint16_t*>(to));
                else if (type == "q8_0") s.k.store_q8_0(from + (n * K + h) * D, D, to);
                else std::memcpy(to, from + (n * K + h) * D, D * sizeof(float));
            }
    const int64_t group = H / K, rows = T * group;
    if (part == 0) part = N;
    const Bytes scratch = allocate(kScratchBytes);
    std::unique_ptr<float[]> y(new float[T * H * D]);
    std::vector<float> max(kMaxAttentionRows), sum(kMaxAttentionRows), acc(kMaxAttentionRows * D);
    for (int64_t head = 0; head < K; head++)
        for (int64_t row0 = 0; row0 < rows; row0 += kMaxAttentionRows) {
            const int64_t row1 = std::min(rows, row0 + kMaxAttentionRows), n = row1 - row0;
            std::vector<double> largest(n, -INFINITY), total(n), whole(n * D);
            for (int64_t key0 = 0; key0 < N; key0 += part) {
                s.k.attention({q.data(), H, group, head, row0, row1, N - T, key0, std::min(N, key0 + part),
                               static_cast<float>(1 / std::sqrt(static_cast<double>(D))), view, max.data(), sum.data(), acc.data(),
                               window, softcap, few},
                              scratch.get());
                for (int64_t r = 0; r < n; r++) {
                    if (max[r] == -INFINITY) continue;
                    const double m = std::max<double>(largest[r], max[r]), old = std::exp(largest[r] - m), now = std::exp(max[r] - m);
                    largest[r] = m;
                    total[r] = total[r] * old + sum[r] * now;
                    for (int64_t d = 0; d < D; d++) whole[r * D + d] = whole[r * D + d] * old + acc[r * D + d] * now;
                }
            }
            for (int64_t r = 0; r < n; r++) {
                const int64_t row = row0 + r, at = (row / group * H + head * group + row % group) * D;
                for (int64_t d = 0; d < D; d++) y[at + d] = static_cast<float>(whole[r * D + d] / total[r]);
            }
        }
    return give(std::move(y), {q.shape(0), q.shape(1), q.shape(2)});
}

// x (rows, cols) -> the bytes of its rows. Lets the interpreter go: whoever has several cores calls it from several threads.
New<uint8_t> encode(int type, const Floats2& x, const std::optional<Floats1>& importance) {
    require(type >= 0 && type < kTypes && can_encode(static_cast<Type>(type)), "weights cannot be encoded into this type");
    const int64_t rows = size(x), cols = size(x, 1), bytes = row_bytes(static_cast<Type>(type), cols);
    require(rows > 0 && cols > 0 && cols % info(static_cast<Type>(type)).block == 0, "rows are not made of whole blocks");
    require(!importance || size(*importance) == cols, "importance is not one number a column");
    std::unique_ptr<uint8_t[]> y(new uint8_t[rows * bytes]);
    {
        nb::gil_scoped_release release;
        for (int64_t r = 0; r < rows; r++)
            encode_row(static_cast<Type>(type), x.data() + r * cols, importance ? importance->data() : nullptr, cols,
                       reinterpret_cast<std::byte*>(y.get() + r * bytes));
    }
    return give(std::move(y), {static_cast<size_t>(rows * bytes)});
}

}  // namespace

void bind_kernels(nb::module_& m) {
    nb::class_<KernelSet>(m, "Kernels")
        .def_prop_ro("name", [](const KernelSet& s) { return std::string(s.k.name); })
        .def("gemv", &gemv, "type"_a, "weight"_a, "rows"_a, "x"_a)
        .def("gemm", &gemm, "type"_a, "weight"_a, "rows"_a, "x"_a, "row0"_a, "row1"_a)
        .def("dequantize", &dequantize, "type"_a, "weight"_a, "cols"_a)
        .def("pack", &pack, "type"_a, "weight"_a, "rows"_a, "cols"_a, "panel0"_a, "panel1"_a)
        .def("unpack", &unpack, "type"_a, "weight"_a, "rows"_a, "cols"_a)
        .def("quantize", &quantize, "x"_a)
        .def("rms_norm", &rms_norm, "x"_a, "weight"_a, "eps"_a)
        .def("rope", &rope, "x"_a, "cos"_a, "sin"_a, "interleaved"_a)
        .def("softmax", &softmax, "x"_a)
        .def("silu_mul", &silu_mul, "gate"_a, "up"_a)
        .def("add", &add, "x"_a, "y"_a)
        .def("max", [](const KernelSet& s, const Floats1& x) { return s.k.max(x.data(), size(x)); }, "x"_a)
        .def("sum_exp", [](const KernelSet& s, const Floats1& x, float max) { return s.k.sum_exp(x.data(), size(x), max); }, "x"_a, "max"_a)
        .def("store_f16", &store_f16, "x"_a)
        .def("store_q8_0", &store_q8_0, "x"_a)
        .def("attention", &attention, "q"_a, "k"_a, "v"_a, "type"_a, "part"_a = 0, "window"_a = 0, "softcap"_a = 0.0f, "few"_a = false)
        .def("layer_norm", &layer_norm, "x"_a, "weight"_a, "bias"_a, "eps"_a)
        .def("gelu", &gelu, "x"_a)
        .def("gelu_mul", &gelu_mul, "gate"_a, "up"_a)
        .def("softcap", &softcap, "x"_a, "cap"_a);
    m.def("encode", &encode, "type"_a, "x"_a, "importance"_a = nb::none());
    m.def("packed_type", [](int type) -> std::optional<int> {
        const Type packed = packed_type(static_cast<Type>(checked_type(type)));
        return is_packed(packed) && type < kFileTypes ? std::optional(static_cast<int>(packed)) : std::nullopt;
    }, "type"_a);
    m.def("packed_size", [](int type, int64_t rows, int64_t cols) {
        const Weight w{static_cast<Type>(checked_type(type)), rows, cols, nullptr};
        require(is_packed(w.type) && rows > 0 && cols > 0 && rows < (1 << 28) && cols < (1 << 28) && cols % info(w.type).block == 0, "no packed matrix has this shape");
        return matrix_bytes(w);
    }, "type"_a, "rows"_a, "cols"_a);
    m.def("kernels", [](const std::string& name) { return new KernelSet{kernels_named(name)}; }, "name"_a,
          nb::rv_policy::take_ownership);
}

}  // namespace quinze
