// From logits to the next token.
//
// Given logits (V,) and what is asked of the choice; returns an id. The order is that of transformers: repetition
// penalty, temperature, top-k, top-p, min-p, draw. Knows nothing of text or models.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "kernels.h"

namespace quinze {

struct SamplingParams {
    double temperature = 0;         // 0: the most likely token
    int64_t top_k = 0;              // 0: all
    double top_p = 1, min_p = 0;    // 1, 0: all
    double repetition_penalty = 1;  // 1: off
    uint64_t seed = 0;
};

// The logits held a NaN or nothing but infinities: no token can be chosen from them.
struct BadLogits : std::runtime_error {
    using std::runtime_error::runtime_error;
};

inline constexpr size_t kPenaltyWindow = 256;  // tokens that the repetition penalty looks back on

class Sampler {
public:
    Sampler(const SamplingParams& params, const Kernels& kernels) : params_(params), kernels_(kernels), state_(params.seed) {}

    void accept(int32_t id);                           // `id` is now part of the sequence
    int32_t sample(const float* logits, int64_t n);    // throws BadLogits

private:
    struct Candidate { float logit; int32_t id; };

    double uniform();  // [0, 1)
    int32_t choose(const float* logits, int64_t n);
    void take_most_likely(const float* logits, int64_t n, int64_t k);
    void take_above(const float* logits, int64_t n, float threshold);
    void take_nucleus(const float* logits, int64_t n, float largest, double total);

    const SamplingParams params_;
    const Kernels& kernels_;
    uint64_t state_;
    std::vector<int32_t> recent_;  // a ring of the last kPenaltyWindow
    size_t next_ = 0;
    std::vector<float> adjusted_, scaled_;
    std::vector<Candidate> candidates_;
};

}  // namespace quinze
