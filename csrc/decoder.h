// A decoder-only transformer: token ids in, logits out.
//
// Given weights that lie where the file has them, and a table of kernels. What tells one family from another is data:
// numbers in DecoderConfig, and which of the optional weights are there. Knows nothing of files, text, sampling or Python. Shapes are checked by whoever fills DecoderConfig and DecoderWeights (bindings.cpp).
// T tokens of one call, C hidden size, F intermediate size, H query heads, K key/value heads, D head size, V vocabulary.
#pragma once
#include <functional>
#include <vector>

#include "cache.h"
#include "decoder_config.h"
#include "kernels.h"
#include "observer.h"
#include "thread_pool.h"

namespace quinze {

// One of them, with what only LayerNorm has. Empty where a family has no norm in that place.
struct Norm {
    std::vector<float> weight, bias;
    explicit operator bool() const { return !weight.empty(); }
};
// Biases are empty where there are none.
struct LayerWeights {
    Norm attention_norm, mlp_norm;            // (C,) before attention and before the MLP; OLMo 2 has none there
    Norm attention_post, mlp_post;            // (C,) behind them, before the sum (Gemma 2, OLMo 2)
    Weight q, k, v, o;                        // (H*D, C) (K*D, C) (K*D, C) (C, H*D)
    std::vector<float> q_bias, k_bias, v_bias, o_bias;
    std::vector<float> q_norm, k_norm;        // RMSNorm of each head (D,) or of all together (H*D,) (K*D,)
    Weight gate, up, down;                    // (F, C) (F, C) (C, F); gate.rows is 0 where nothing gates
    std::vector<float> gate_bias, up_bias, down_bias;
};
struct DecoderWeights {
    Weight embed, head;  // (V, C); the same where they are tied
    Weight positions;    // (P, C) a vector for each position, where they are learned (GPT-2); else no rows
    Norm norm;           // (C,)
    std::vector<LayerWeights> layers;
};

class Decoder {
public:
    Decoder(DecoderConfig config, DecoderWeights weights, const Kernels& kernels, int threads);

    // Appends `n` ids to the cache. Logits go to cache.logits (of the last token), or, unless null, to all (n, V).
    // `cancelled` is asked before each layer; false is returned when it says yes, and the cache then holds
    // the blocks that were finished.
    bool forward(Cache& cache, const int32_t* ids, int64_t n, float* all, const std::function<bool()>& cancelled);

    const DecoderConfig& config() const { return config_; }
    int64_t positions() const { return weights_.positions.rows; }  // where they are learned there are no more; else 0
    const Kernels& kernels() const { return kernels_; }
    int threads() const { return pool_.size(); }
    void observe() { observer_ = std::make_unique<Observer>(weights_); }  // from now on; earlier sums are forgotten
    const Observer* observer() const { return observer_.get(); }

private:
    struct Product { const Weight* w; float* y; };  // y (T, w->rows)

    bool block(Cache& cache, const int32_t* ids, int64_t T, bool last, float* all, const std::function<bool()>& cancelled);
    void resize(int64_t T);
    void embed(const int32_t* ids, int64_t past, int64_t T);
    void angles(const std::vector<double>& frequencies, int64_t past, int64_t T, std::vector<float>& cos, std::vector<float>& sin);
    void normalize_row(const Norm& norm, const float* x, float* y);
    void normalize(const float* x, const Norm& norm, int64_t T, std::initializer_list<const Weight*> readers);
    void quantize(const float* x, int64_t cols, int64_t T, std::initializer_list<const Weight*> readers);
    void prepare(const float* x, int64_t t, bool quantized, bool wide);
    void multiply(const Weight& w, int64_t row0, int64_t row1, int64_t T, float* y, int thread);
    int64_t rows_at_once(int64_t rows, int64_t T) const;
    void project(std::initializer_list<Product> products, int64_t T);
    void project_add(const Weight& w, const std::vector<float>& bias, const Norm& post, int64_t T, float* x);
    void gate_up(const LayerWeights& layer, int64_t T);
    void place_heads(float* x, int64_t heads, const std::vector<float>& bias, const std::vector<float>& norm, bool local, int64_t t);
    void attend(const KVView& kv, int64_t past, int64_t T, int64_t window);

    const DecoderConfig config_;
    const DecoderWeights weights_;
    const Kernels& kernels_;
    ThreadPool pool_;
    std::vector<Bytes> scratch_;  // one a thread

    int64_t room_ = 0;  // tokens that the buffers below hold
    std::vector<float> x_, normed_, q_, k_, v_, attended_, gate_, up_, product_;
    std::vector<float> cos_, sin_, local_cos_, local_sin_;  // (T, R / 2)
    std::vector<int8_t> q8_;
    std::vector<int16_t> q16_;
    std::vector<float> scale_;
    std::vector<int32_t> sum8_;
    Activations input_;  // what the products at hand read
    std::unique_ptr<Observer> observer_;  // null: nobody asks
    std::vector<float> part_max_, part_sum_, part_acc_;  // pieces of a softmax over many keys
};

}  // namespace quinze
