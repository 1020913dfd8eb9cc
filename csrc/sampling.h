// From logits to the next token.
//
// Given logits (V,), perhaps a mask of the ids that may be said, and what is asked of the choice; returns an id. The
// order is that of transformers and vLLM: mask, repetition penalty, frequency and presence penalties, bias, temperature,
// top-k, top-p, min-p, typical-p, draw. Knows nothing of text or models.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kernels.h"

namespace quinze {

struct SamplingParams {
    double temperature = 0;         // 0: the most likely token
    int64_t top_k = 0;              // 0: all
    double top_p = 1, min_p = 0;    // 1, 0: all
    double repetition_penalty = 1;  // 1: off
    uint64_t seed = 0;
    double typical_p = 1;                                 // 1: all
    double presence_penalty = 0, frequency_penalty = 0;   // 0: off
    std::vector<std::pair<int32_t, float>> logit_bias;
    int64_t logprobs = -1;                                // how many of the most likely are told; -1: not even the chosen
};

// What the model itself thought: logarithms of its odds before anything that was asked of the choice changed them.
struct Logprobs {
    double chosen = 0;
    std::vector<std::pair<int32_t, double>> most_likely;
};

// The logits held a NaN or nothing but infinities: no token can be chosen from them.
struct BadLogits : std::runtime_error {
    using std::runtime_error::runtime_error;
};

inline constexpr size_t kPenaltyWindow = 256;  // tokens that the repetition penalty looks back on

class Sampler {
public:
    Sampler(const SamplingParams& params, const Kernels& kernels) : params_(params), kernels_(kernels), state_(params.seed) {}

    void read(int32_t id);    // `id` is part of the prompt: only the repetition penalty minds it
    void accept(int32_t id);  // `id` is part of the reply
    // Bit i of mask (words of 32; ids behind the last are not allowed) says whether id i may be chosen; null: all may.
    int32_t sample(const float* logits, int64_t n, const uint32_t* mask = nullptr, int64_t words = 0);  // throws BadLogits
    const Logprobs& logprobs() const { return logprobs_; }  // of the id sampled last

private:
    struct Candidate { float logit; int32_t id; };

    double uniform();  // [0, 1)
    const float* adjust(const float* logits, int64_t n, const uint32_t* mask, int64_t words);
    int32_t choose(const float* logits, int64_t n);
    void keep_typical(size_t kept, float largest);
    void note_logprobs(const float* logits, int64_t n, int32_t id);
    void take_most_likely(const float* logits, int64_t n, int64_t k);
    void take_above(const float* logits, int64_t n, float threshold);
    void take_nucleus(const float* logits, int64_t n, float largest, double total);

    const SamplingParams params_;
    const Kernels& kernels_;
    uint64_t state_;
    std::vector<int32_t> recent_;  // a ring of the last kPenaltyWindow
    size_t next_ = 0;
    std::unordered_map<int32_t, int32_t> said_;  // how often the reply has each id
    std::vector<float> adjusted_, scaled_;
    std::vector<Candidate> candidates_;
    Logprobs logprobs_;
};

}  // namespace quinze
