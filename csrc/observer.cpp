#include "observer.h"

#include "adapter.h"
#include "decoder.h"

namespace quinze {

Observer::Observer(const DecoderWeights& weights) {
    for (auto& [w, name] : named_weights(weights)) seen_[w] = {name, std::vector<double>(static_cast<size_t>(w->cols)), 0};
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
