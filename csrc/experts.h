// A mixture of experts in the place of an MLP: a router picks a few small MLPs for each token.
//
// Given weights where the file has them. Only the products of a token's chosen experts are computed, and while decoding
// only their weights are read; many tokens are put together by expert. T tokens, C hidden size, E experts, K of them for a
// token (one that all tokens share among them), F their intermediate size.
#pragma once
#include <cstdint>
#include <vector>

#include "cache.h"
#include "decoder_config.h"
#include "kernels.h"
#include "observer.h"
#include "thread_pool.h"

namespace quinze {

struct Expert {
    Weight gate, up, down;  // (F, C) (F, C) (C, F)
};
struct Experts {
    Weight router;             // (E, C)
    std::vector<Expert> each;  // (E,) empty where a layer has a plain MLP
    Expert shared;             // every token passes through it too (Qwen 2); no rows where there is none
    Weight shared_gate;        // (1, C) how much it counts: a sigmoid
};

class Mixture {
public:
    // scratch: kScratchBytes for each thread of the pool.
    Mixture(const DecoderConfig& config, const Kernels& kernels, ThreadPool& pool, const std::vector<Bytes>& scratch)
        : config_(config), kernels_(kernels), pool_(pool), scratch_(scratch) {}

    // x (T, C) += what the experts make of normed (T, C). T <= kMaxTokens; the first `alone` tokens are computed each by
    // itself, the others together.
    void add(const Experts& w, const float* normed, int64_t T, int64_t alone, float* x);
    Observer* observer = nullptr;  // sees what each expert reads, where somebody asks

private:
    // n rows of activations, laid end to end, in every form that weights multiply with.
    struct Rows {
        std::vector<float> f32, scale;
        std::vector<int8_t> q8;
        std::vector<int16_t> q16;
        std::vector<int32_t> sum8, minus32;
        void resize(int64_t numbers);
        Activations at(int64_t first, int64_t cols) const;  // first: a multiple of kBlock
    };
    // Tokens that pass through one expert.
    struct Group {
        const Expert* expert;
        int64_t row0, n;  // rows of `out_`, and of `chosen_` unless a single token is at hand
        int64_t alone;    // of the n, the first: each computed by itself
        int64_t at;       // where their numbers begin in `gate_`, `up_` and `inner_`
    };
    struct Piece { int64_t group, row0, row1; };

    void route(const Experts& w, const float* normed, int64_t T, int64_t alone);
    void pick(const float* scores, int64_t E, int32_t* picked, float* shares) const;
    void put_together(const Experts& w, int64_t T, int64_t alone);
    void share_out(bool down);
    void quantize(const float* x, int64_t cols, Rows& to, int64_t first) const;
    void multiply(const Weight& w, const Piece& piece, const Rows& x, int64_t first, int64_t n, int64_t alone, float* y,
                  int thread) const;

    const DecoderConfig& config_;
    const Kernels& kernels_;
    ThreadPool& pool_;
    const std::vector<Bytes>& scratch_;

    int64_t K_ = 0;
    Rows tokens_, chosen_, inner_;      // (T, C) (T * K, C) (T * K, F)
    std::vector<float> scores_;         // (T, E) of the router, then (T,) of the shared expert
    std::vector<float> shares_;         // (T, K) how much each counts
    std::vector<int32_t> picked_;       // (T, K) which experts; E is the shared one
    std::vector<int64_t> slot_, first_, alone_;  // (T, K) the row of each in `out_`; (E + 2,) the first row of each expert
    std::vector<Group> groups_;
    std::vector<Piece> pieces_;
    std::vector<float> gate_, up_, out_;  // (T * K, F) twice, (T * K, C)
};

}  // namespace quinze
