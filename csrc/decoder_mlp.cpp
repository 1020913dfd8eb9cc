// The MLP of a decoder.
#include <algorithm>

#include "decoder.h"

namespace quinze {

// gate = activation(X gate^T) * (X up^T), or activation(X up^T) where nothing gates
void Decoder::gate_up(const LayerWeights& layer, int64_t T) {
    const int64_t F = config_.intermediate, step = rows_at_once(F, row_bytes(layer.up), T);
    const bool gated = layer.gate.rows > 0;
    const auto activate_mul = config_.gelu ? kernels_.gelu_mul : kernels_.silu_mul;
    const auto add_bias = [&](const std::vector<float>& bias, float* y, int64_t row0, int64_t n) {
        if (!bias.empty()) kernels_.add(y, bias.data() + row0, n);
    };
    pool_.run(ceil_div(F, step), [&](int64_t piece, int thread) {
        const int64_t row0 = piece * step, row1 = std::min(row0 + step, F), n = row1 - row0;
        if (gated) multiply(layer.gate, row0, row1, T, gate_.data(), thread);
        multiply(layer.up, row0, row1, T, gated ? up_.data() : gate_.data(), thread);
        for (int64_t t = 0; t < T; t++) {
            float *gate = gate_.data() + t * F + row0, *up = up_.data() + t * F + row0;
            add_bias(layer.up_bias, gated ? up : gate, row0, n);
            if (gated) {
                add_bias(layer.gate_bias, gate, row0, n);
                activate_mul(gate, up, n);
            } else {
                kernels_.gelu(gate, n);
            }
        }
    });
}

}  // namespace quinze
