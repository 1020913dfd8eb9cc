// A decoder-only transformer: token ids in, logits out.
//
// Given weights that lie where the file has them, and a table of kernels. What tells one family from another is data:
// numbers in DecoderConfig, and which of the optional weights are there. Knows nothing of files, text, sampling or Python. Shapes are checked by whoever fills DecoderConfig and DecoderWeights (bindings.cpp).
// T tokens of one call, C hidden size, F intermediate size, H query heads, K key/value heads, D head size, V vocabulary.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "kernels.h"
#include "thread_pool.h"

namespace quinze {

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
};

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

// Memory aligned to a cache line, not initialized: most of it is written before it is read.
struct Freed { void operator()(std::byte* p) const; };
using Bytes = std::unique_ptr<std::byte[], Freed>;
Bytes allocate(size_t bytes);  // throws std::bad_alloc

// The keys and values of one sequence, in pages that are taken as it grows.
class Cache {
public:
    Cache(const DecoderConfig& config, Type type);
    Cache(const Cache&) = delete;
    Cache& operator=(const Cache&) = delete;
    int64_t length() const { return length_; }
    void grow(int64_t positions);            // room for so many; throws std::bad_alloc, and then nothing has changed
    void advance(int64_t n) { length_ += n; }
    void truncate(int64_t length);           // forgets what comes after; pages that hold nothing are given back
    int64_t bytes() const { return static_cast<int64_t>(pages_.size()) * page_bytes_; }
    KVView layer(int64_t index) const;
    std::byte* at(const KVView& view, int64_t offset, int64_t head, int64_t position) const;

    std::vector<float> logits;  // (V,) after the last token; empty before the first and after truncate

private:
    Type type_;
    int64_t head_dim_, head_bytes_, layer_bytes_, page_bytes_, kv_heads_;
    int64_t length_ = 0;
    std::vector<Bytes> pages_;
    std::vector<std::byte*> addresses_;
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
    std::vector<float> part_max_, part_sum_, part_acc_;  // pieces of a softmax over many keys
};

}  // namespace quinze
