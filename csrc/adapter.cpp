// How a decoder applies adapters: A x when a row of activations is ready, B (A x) behind each piece of a product.
#include "adapter.h"

#include <algorithm>

#include "decoder.h"

namespace quinze {

std::vector<std::pair<const Weight*, std::string>> named_weights(const DecoderWeights& weights) {
    std::vector<std::pair<const Weight*, std::string>> named{{&weights.head, "lm_head.weight"}};
    for (size_t i = 0; i < weights.layers.size(); i++) {
        const LayerWeights& l = weights.layers[i];
        const std::string layer = "model.layers." + std::to_string(i) + ".";
        for (const auto& [w, part] : {std::pair{&l.q, "self_attn.q_proj"}, {&l.k, "self_attn.k_proj"}, {&l.v, "self_attn.v_proj"},
                                      {&l.o, "self_attn.o_proj"}, {&l.gate, "mlp.gate_proj"}, {&l.up, "mlp.up_proj"},
                                      {&l.down, "mlp.down_proj"}})
            if (w->rows > 0) named.emplace_back(w, layer + part + ".weight");
    }
    return named;
}

int32_t Decoder::add_adapter(Adapter adapter) {
    for (const auto& [w, part] : adapter) max_rank_ = std::max(max_rank_, part.rank);
    const auto free = std::find(adapters_.begin(), adapters_.end(), nullptr);
    const auto at = static_cast<int32_t>(free - adapters_.begin());
    if (free == adapters_.end()) adapters_.emplace_back();
    adapters_[at] = std::make_unique<Adapter>(std::move(adapter));
    return at;
}

void Decoder::remove_adapter(int32_t index) {
    if (has_adapter(index)) adapters_[index].reset();
}

bool Decoder::has_adapter(int32_t index) const {
    return index >= 0 && index < static_cast<int64_t>(adapters_.size()) && adapters_[index];
}

const LowRank* Decoder::low_rank(int64_t t, const Weight& w) const {
    const int32_t adapter = rows_[t].adapter;
    if (adapter < 0) return nullptr;
    const auto found = adapters_[adapter]->find(&w);
    return found == adapters_[adapter]->end() ? nullptr : &found->second;
}

// Room for A x of T rows, for each weight that will read the activations at hand.
void Decoder::await(std::initializer_list<const Weight*> readers, int64_t T) {
    lows_.resize(readers.size());
    size_t i = 0;
    for (const Weight* w : readers) {
        Low& low = lows_[i++];
        low.w = w;
        if (static_cast<int64_t>(low.values.size()) < T * max_rank_) low.values.resize(T * max_rank_);
    }
}

// A x of row t, whose activations are ready.
void Decoder::reduce(int64_t t) {
    for (Low& low : lows_)
        if (const LowRank* part = low_rank(t, *low.w)) {
            const Weight a{Type::F32, part->rank, low.w->cols, reinterpret_cast<const std::byte*>(part->a.data())};
            kernels_.gemv[static_cast<int>(Type::F32)](a, 0, part->rank, input_from(t), low.values.data() + t * max_rank_);
        }
}

// y[:, row0:row1] = share * y + B (A x)    y (T, w.rows). Row by row, so that none hangs on the others of its step.
void Decoder::expand(const Weight& w, int64_t row0, int64_t row1, int64_t T, float* y, int thread) {
    const auto low = std::find_if(lows_.begin(), lows_.end(), [&](const Low& l) { return l.w == &w; });
    if (low == lows_.end()) return;
    constexpr int64_t most = kScratchBytes / static_cast<int64_t>(sizeof(float));
    float* sums = reinterpret_cast<float*>(scratch_[thread].get());
    for (int64_t t = 0; t < T; t++) {
        const LowRank* part = low_rank(t, w);
        if (!part) continue;
        float* out = y + t * w.rows;
        if (!part->share.empty())
            for (int64_t r = row0; r < row1; r++) out[r] *= part->share[r];
        const Weight b{Type::F32, w.rows, part->rank, reinterpret_cast<const std::byte*>(part->b.data())};
        Activations x;
        x.cols = part->rank;
        x.f32 = low->values.data() + t * max_rank_;
        for (int64_t from = row0; from < row1; from += most) {
            const int64_t to = std::min(from + most, row1);
            kernels_.gemv[static_cast<int>(Type::F32)](b, from, to, x, sums);
            kernels_.add(out + from, sums, to - from);
        }
    }
}

}  // namespace quinze
