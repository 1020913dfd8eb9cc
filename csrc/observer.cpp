#include "observer.h"

#include "adapter.h"
#include "decoder.h"

namespace quinze {

Observer::Observer(const DecoderWeights& weights) {
    const auto watch = [&](const Weight& w, const std::string& name) {
        if (w.rows > 0) seen_[&w] = {name, std::vector<double>(static_cast<size_t>(w.cols)), 0};
    };
    for (auto& [w, name] : named_weights(weights)) watch(*w, name);
    for (size_t i = 0; i < weights.layers.size(); i++) {
        const Experts& experts = weights.layers[i].experts;
        const std::string mlp = "model.layers." + std::to_string(i) + ".mlp.";
        const auto expert = [&](const Expert& one, const std::string& name) {
            watch(one.gate, mlp + name + ".gate_proj.weight"), watch(one.up, mlp + name + ".up_proj.weight");
            watch(one.down, mlp + name + ".down_proj.weight");
        };
        for (size_t e = 0; e < experts.each.size(); e++) expert(experts.each[e], "experts." + std::to_string(e));
        expert(experts.shared, "shared_expert");
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
