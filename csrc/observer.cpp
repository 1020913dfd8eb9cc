#include "observer.h"

#include "decoder.h"

namespace quinze {

Observer::Observer(const DecoderWeights& weights) {
    const auto watch = [&](const Weight& w, const std::string& name) {
        if (w.rows > 0) seen_[&w] = {name, std::vector<double>(static_cast<size_t>(w.cols)), 0};
    };
    watch(weights.head, "lm_head.weight");
    for (size_t i = 0; i < weights.layers.size(); i++) {
        const LayerWeights& l = weights.layers[i];
        const std::string layer = "model.layers." + std::to_string(i) + ".";
        for (const auto& [w, part] : {std::pair{&l.q, "self_attn.q_proj"}, {&l.k, "self_attn.k_proj"}, {&l.v, "self_attn.v_proj"},
                                      {&l.o, "self_attn.o_proj"}, {&l.gate, "mlp.gate_proj"}, {&l.up, "mlp.up_proj"},
                                      {&l.down, "mlp.down_proj"}})
            watch(*w, layer + part + ".weight");
    }
}

void Observer::see(const Weight& w, const float* x, int64_t T) {
    const auto found = seen_.find(&w);
    if (found == seen_.end()) return;
    Seen& seen = found->second;
    double* squares = seen.squares.data();
    for (int64_t t = 0; t < T; t++, x += w.cols)
        for (int64_t c = 0; c < w.cols; c++) squares[c] += static_cast<double>(x[c]) * x[c];
    seen.tokens += T;
}

}  // namespace quinze
