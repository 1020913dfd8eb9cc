// A mixture of experts: route, put together, multiply, sum up (Shazeer et al. 2017; Jiang et al. 2024).
#include "experts.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace quinze {

void Mixture::Rows::resize(int64_t numbers) {
    if (static_cast<int64_t>(q8.size()) >= numbers) return;
    f32.resize(numbers), q8.resize(numbers), q16.resize(numbers);
    scale.resize(numbers / kBlock + 1), sum8.resize(scale.size()), minus32.resize(2 * scale.size());
}

Activations Mixture::Rows::at(int64_t first, int64_t cols) const {
    const int64_t block = first / kBlock;
    return {cols, f32.data() + first, q8.data() + first, q16.data() + first, scale.data() + block, sum8.data() + block,
            minus32.data() + 2 * block};
}

// x (cols,) into one row of `to`. Columns that are not whole blocks meet no quantized weights.
void Mixture::quantize(const float* x, int64_t cols, Rows& to, int64_t first) const {
    std::memcpy(to.f32.data() + first, x, cols * sizeof(float));
    const int64_t block = first / kBlock;
    if (cols % kBlock == 0)
        kernels_.quantize(x, cols, to.q8.data() + first, to.q16.data() + first, to.scale.data() + block, to.sum8.data() + block,
                          to.minus32.data() + 2 * block);
}

// y[:, row0:row1] = X W[row0:row1]^T    X (n, w.cols) begins at `first` in x, y (n, w.rows)
void Mixture::multiply(const Weight& w, const Piece& piece, const Rows& x, int64_t first, int64_t n, int64_t alone, float* y,
                       int thread) const {
    const int type = static_cast<int>(w.type);
    const auto from = [&](int64_t t) { return x.at(first + t * w.cols, w.cols); };
    if (observer && piece.row0 == 0) observer->see(w, from(0).f32, n);
    for (int64_t t = 0; t < alone; t++) kernels_.gemv[type](w, piece.row0, piece.row1, from(t), y + t * w.rows + piece.row0);
    if (n > alone)
        kernels_.gemm[type](w, piece.row0, piece.row1, from(alone), n - alone, y + alone * w.rows + piece.row0, w.rows,
                            scratch_[thread].get());
}

// The K largest of E probabilities, the first of equal ones first. NaN is never larger than another.
void Mixture::pick(const float* scores, int64_t E, int32_t* picked, float* shares) const {
    const int64_t k = config_.experts_per_token;
    float total = 0;
    for (int64_t j = 0; j < k; j++) {
        int64_t best = -1;
        for (int64_t e = 0; e < E; e++) {
            if (std::find(picked, picked + j, static_cast<int32_t>(e)) != picked + j) continue;
            if (best < 0 || scores[e] > scores[best]) best = e;
        }
        picked[j] = static_cast<int32_t>(best);
        shares[j] = scores[best];
        total += scores[best];
    }
    if (config_.normalize_shares)
        for (int64_t j = 0; j < k; j++) shares[j] /= total;
}

// Which experts each token passes through, and how much each counts.
void Mixture::route(const Experts& w, const float* normed, int64_t T, int64_t alone) {
    const int64_t C = config_.hidden, E = w.router.rows, k = config_.experts_per_token;
    const bool shared = w.shared.up.rows > 0;
    K_ = k + shared;
    tokens_.resize(T * C);
    scores_.resize(std::max<int64_t>(scores_.size(), T * (E + 1)));
    shares_.resize(T * K_), picked_.resize(T * K_);
    pool_.run(T, [&](int64_t t, int) { quantize(normed + t * C, C, tokens_, t * C); });
    pool_.run(ceil_div(E, 16), [&](int64_t piece, int thread) {
        multiply(w.router, {0, piece * 16, std::min(E, piece * 16 + 16)}, tokens_, 0, T, alone, scores_.data(), thread);
    });
    float* shared_scores = scores_.data() + T * E;
    if (shared) multiply(w.shared_gate, {0, 0, 1}, tokens_, 0, T, alone, shared_scores, 0);
    pool_.run(T, [&](int64_t t, int) {
        kernels_.softmax(scores_.data() + t * E, E);
        pick(scores_.data() + t * E, E, picked_.data() + t * K_, shares_.data() + t * K_);
        if (shared) {
            picked_[t * K_ + k] = static_cast<int32_t>(E);
            shares_[t * K_ + k] = 1.0f / (1.0f + std::exp(-shared_scores[t]));
        }
    });
}

// Tokens that pass through the same expert get neighboring rows.
void Mixture::put_together(const Experts& w, int64_t T, int64_t alone) {
    const int64_t E = w.router.rows;
    first_.assign(E + 2, 0);
    alone_.assign(E + 1, 0);
    for (const int32_t e : picked_) first_[e + 1]++;
    for (int64_t i = 0; i < alone * K_; i++) alone_[picked_[i]]++;
    for (int64_t e = 0; e <= E; e++) first_[e + 1] += first_[e];
    groups_.clear();
    int64_t at = 0;
    for (int64_t e = 0; e <= E; e++) {
        const int64_t n = first_[e + 1] - first_[e];
        if (n == 0) continue;
        const Expert& expert = e < E ? w.each[e] : w.shared;
        groups_.push_back({&expert, first_[e], n, alone_[e], at});
        at += round_up(n * expert.up.rows, kBlock);
    }
    slot_.resize(T * K_);
    for (int64_t i = 0; i < T * K_; i++) slot_[i] = first_[picked_[i]]++;
    gate_.resize(std::max<int64_t>(gate_.size(), at)), up_.resize(gate_.size());
    out_.resize(std::max<int64_t>(out_.size(), T * K_ * config_.hidden));
    inner_.resize(at);
}

// Rows of all groups' matrices as pieces of work, enough of them to be shared evenly.
void Mixture::share_out(bool down) {
    int64_t total = 0;
    for (const Group& group : groups_) total += down ? group.expert->down.rows : group.expert->up.rows;
    const int64_t even = round_up(ceil_div(total, pool_.size() * 8), 16);
    pieces_.clear();
    for (size_t g = 0; g < groups_.size(); g++) {
        const int64_t rows = down ? groups_[g].expert->down.rows : groups_[g].expert->up.rows;
        const int64_t step = groups_[g].n == 1 ? even : std::min<int64_t>(even, 64);
        for (int64_t row = 0; row < rows; row += step)
            pieces_.push_back({static_cast<int64_t>(g), row, std::min(rows, row + step)});
    }
}

void Mixture::add(const Experts& w, const float* normed, int64_t T, int64_t alone, float* x) {
    const int64_t C = config_.hidden;
    route(w, normed, T, alone);
    put_together(w, T, alone);
    if (T > 1) {
        chosen_.resize(T * K_ * C);
        pool_.run(T * K_, [&](int64_t i, int) { quantize(normed + i / K_ * C, C, chosen_, slot_[i] * C); });
    }
    const auto activate_mul = config_.gelu ? kernels_.gelu_mul : kernels_.silu_mul;

    share_out(false);
    pool_.run(static_cast<int64_t>(pieces_.size()), [&](int64_t index, int thread) {
        const Piece& piece = pieces_[index];
        const Group& group = groups_[piece.group];
        const Rows& given = T > 1 ? chosen_ : tokens_;
        const int64_t F = group.expert->up.rows, first = T > 1 ? group.row0 * C : 0;
        multiply(group.expert->gate, piece, given, first, group.n, group.alone, gate_.data() + group.at, thread);
        multiply(group.expert->up, piece, given, first, group.n, group.alone, up_.data() + group.at, thread);
        for (int64_t n = 0; n < group.n; n++) {
            const int64_t at = group.at + n * F + piece.row0;
            activate_mul(gate_.data() + at, up_.data() + at, piece.row1 - piece.row0);
        }
    });
    pool_.run(static_cast<int64_t>(groups_.size()), [&](int64_t index, int) {
        const Group& group = groups_[index];
        const int64_t F = group.expert->up.rows;
        for (int64_t n = 0; n < group.n; n++) quantize(gate_.data() + group.at + n * F, F, inner_, group.at + n * F);
    });
    share_out(true);
    pool_.run(static_cast<int64_t>(pieces_.size()), [&](int64_t index, int thread) {
        const Piece& piece = pieces_[index];
        const Group& group = groups_[piece.group];
        multiply(group.expert->down, piece, inner_, group.at, group.n, group.alone, out_.data() + group.row0 * C, thread);
    });
    pool_.run(T, [&](int64_t t, int) {
        for (int64_t i = t * K_; i < (t + 1) * K_; i++)
            for (int64_t c = 0; c < C; c++) x[t * C + c] += shares_[i] * out_[slot_[i] * C + c];
    });
}

}  // namespace quinze
