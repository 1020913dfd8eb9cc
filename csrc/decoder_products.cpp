// Matrix products of a decoder: activations in the forms that weights multiply with, and rows shared out to the threads.
#include <algorithm>

#include "decoder.h"

namespace quinze {
namespace {

constexpr int64_t kPieceBytes = 160 * 1024;

bool any_quantized(std::initializer_list<const Weight*> weights) {
    return std::any_of(weights.begin(), weights.end(), [](const Weight* w) { return info(w->type).quantized; });
}
bool any_wide(std::initializer_list<const Weight*> weights) {
    return std::any_of(weights.begin(), weights.end(), [](const Weight* w) { return info(w->type).wide; });
}

}  // namespace

// Row t of x, in the forms that the weights which read it multiply with.
void Decoder::prepare(const float* x, int64_t t, bool quantized, bool wide) {
    const int64_t cols = input_.cols, blocks = cols / kBlock;
    if (quantized)
        kernels_.quantize(x + t * cols, cols, q8_.data() + t * cols, wide ? q16_.data() + t * cols : nullptr,
                          scale_.data() + t * blocks, sum8_.data() + t * blocks, minus32_.data() + 2 * t * blocks);
}

void Decoder::quantize(const float* x, int64_t cols, int64_t T, std::initializer_list<const Weight*> readers) {
    const bool quantized = any_quantized(readers), wide = (T > 1 || alone_ == 0) && any_wide(readers);
    input_ = {cols, x, q8_.data(), q16_.data(), scale_.data(), sum8_.data(), minus32_.data()};
    if (adapting_) await(readers, T);
    if (quantized || adapting_)
        pool_.run(T, [&](int64_t t, int) {
            prepare(x, t, quantized, wide);
            if (adapting_) reduce(t);
        });
}

void Decoder::normalize_row(const Norm& norm, const float* x, float* y) {
    const int64_t C = config_.hidden;
    if (config_.layer_norm) kernels_.layer_norm(x, norm.weight.data(), norm.bias.data(), C, config_.eps, y);
    else kernels_.rms_norm(x, norm.weight.data(), C, config_.eps, y);
}

void Decoder::normalize(const float* x, const Norm& norm, int64_t T, std::initializer_list<const Weight*> readers) {
    if (!norm) return quantize(x, config_.hidden, T, readers);
    const bool quantized = any_quantized(readers), wide = (T > 1 || alone_ == 0) && any_wide(readers);
    const int64_t C = config_.hidden;
    input_ = {C, normed_.data(), q8_.data(), q16_.data(), scale_.data(), sum8_.data(), minus32_.data()};
    if (adapting_) await(readers, T);
    pool_.run(T, [&](int64_t t, int) {
        normalize_row(norm, x + t * C, normed_.data() + t * C);
        prepare(normed_.data(), t, quantized, wide);
        if (adapting_) reduce(t);
    });
}

// The activations from row t on.
Activations Decoder::input_from(int64_t t) const {
    const int64_t blocks = input_.cols / kBlock;
    return {input_.cols, input_.f32 + t * input_.cols, input_.q8 + t * input_.cols, input_.q16 + t * input_.cols,
            input_.scale + t * blocks, input_.sum8 + t * blocks, input_.minus32 + 2 * t * blocks};
}

// y[:, row0:row1] = X W[row0:row1]^T    y (T, w.rows). Tokens that are computed by themselves go together too where that
// gives the very same numbers. Elsewhere the piece of the weight comes from memory for the first of them, and from the
// second-level cache for the others.
void Decoder::multiply(const Weight& w, int64_t row0, int64_t row1, int64_t T, float* y, int thread) {
    const int type = static_cast<int>(w.type);
    if (observer_ && row0 == 0) observer_->see(w, input_.f32, T);
    const int64_t alone = T > 1 && same_sums(w.type) ? 0 : std::min(alone_, T);
    for (int64_t t = 0; t < alone; t++) kernels_.gemv[type](w, row0, row1, input_from(t), y + t * w.rows + row0);
    if (T > alone)
        kernels_.gemm[type](w, row0, row1, input_from(alone), T - alone, y + alone * w.rows + row0, w.rows, scratch_[thread].get());
    if (adapting_) expand(w, row0, row1, T, y, thread);
}

// Whether gemm gives the bits of gemv.
bool Decoder::same_sums(Type type) const { return is_packed(type) || &kernels_ == &scalar_kernels(); }

// How many rows of a weight are one piece of work: many enough to be worth handing out, few enough to share evenly, and,
// where several tokens meet them, to stay in the second-level cache meanwhile.
int64_t Decoder::rows_at_once(int64_t rows, int64_t bytes, int64_t T) const {
    const int64_t even = pool_.size() == 1 ? rows : round_up(ceil_div(rows, pool_.size() * 8), 16);
    if (T == 1) return even;
    const int64_t cached = std::max<int64_t>(16, kPieceBytes / bytes / 16 * 16);
    return std::min({even, int64_t{128}, cached});
}

void Decoder::project(std::initializer_list<Product> products, int64_t T) {
    int64_t rows = 0, pieces = 0;
    for (const Product& p : products) rows += p.w->rows;
    const int64_t step = rows_at_once(rows, row_bytes(*products.begin()->w), T);
    for (const Product& p : products) pieces += ceil_div(p.w->rows, step);
    pool_.run(pieces, [&](int64_t piece, int thread) {
        for (const Product& p : products) {
            const int64_t here = ceil_div(p.w->rows, step);
            if (piece < here) {
                multiply(*p.w, piece * step, std::min((piece + 1) * step, p.w->rows), T, p.y, thread);
                return;
            }
            piece -= here;
        }
    });
}

// x += X W^T + bias, which is normalized first where the family does so
void Decoder::project_add(const Weight& w, const std::vector<float>& bias, const Norm& post, int64_t T, float* x) {
    if (post) {
        project({{&w, product_.data()}}, T);
        pool_.run(T, [&](int64_t t, int) {
            float* y = product_.data() + t * w.rows;
            if (!bias.empty()) kernels_.add(y, bias.data(), w.rows);
            normalize_row(post, y, y);
            kernels_.add(x + t * w.rows, y, w.rows);
        });
        return;
    }
    const int64_t step = rows_at_once(w.rows, row_bytes(w), T);
    pool_.run(ceil_div(w.rows, step), [&](int64_t piece, int thread) {
        const int64_t row0 = piece * step, row1 = std::min(row0 + step, w.rows);
        multiply(w, row0, row1, T, product_.data(), thread);
        for (int64_t t = 0; t < T; t++) {
            kernels_.add(x + t * w.rows + row0, product_.data() + t * w.rows + row0, row1 - row0);
            if (!bias.empty()) kernels_.add(x + t * w.rows + row0, bias.data() + row0, row1 - row0);
        }
    });
}

}  // namespace quinze
