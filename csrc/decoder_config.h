// What a decoder is: numbers that tell one family from another.
#pragma once
#include <cstdint>
#include <vector>

namespace quinze {

// Small sums that several files need.
constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

struct DecoderConfig {
    int64_t vocab = 0, hidden = 0, intermediate = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0;
    float eps = 1e-5f;
    bool layer_norm = false;  // norms subtract the mean and have a bias (GPT-2); else RMSNorm
    bool gelu = false;        // the activation, by its tanh formula; else SiLU

    std::vector<double> frequencies;        // (R / 2,) radians a position; the first R numbers of a head turn. Empty: none
    std::vector<double> local_frequencies;  // the same, for layers with a window; empty: they turn like the others
    float rope_scale = 1;                   // cos and sin are multiplied by it (YaRN, LongRoPE)
    bool rope_interleaved = false;          // pairs are neighbours (Meta, ggml), not halves (Hugging Face)

    std::vector<int64_t> windows;  // (layers,) a token sees so many keys, its own among them; 0: all before it. Empty: all 0
    float attention_scale = 1;     // of the scores; usually 1 / sqrt(D)
    float attention_softcap = 0, logit_softcap = 0;  // x becomes cap * tanh(x / cap); 0: it stays (Gemma 2)
    float embedding_scale = 1;                       // sqrt(C) in Gemma

    int64_t experts_per_token = 0;  // in layers with a mixture of experts (experts.h)
    bool normalize_shares = false;  // the shares of the chosen ones are made to add up to 1
};

}  // namespace quinze
