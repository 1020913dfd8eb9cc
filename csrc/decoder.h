// A decoder-only transformer: token ids in, logits out.
//
// Given weights that lie where the file has them, and a table of kernels. What tells one family from another is data:
// numbers in DecoderConfig, and which of the optional weights are there. Knows nothing of files, text, sampling or Python. Shapes are checked by whoever fills DecoderConfig and DecoderWeights (bindings.cpp).
// T tokens of one call, C hidden size, F intermediate size, H query heads, K key/value heads, D head size, V vocabulary.
#pragma once
#include <functional>
#include <vector>

#include "adapter.h"
#include "cache.h"
#include "decoder_config.h"
#include "experts.h"
#include "observer.h"
#include "packed.h"
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
    Experts experts;                          // instead of these; experts.each is empty where there are none
};
struct DecoderWeights {
    Weight embed, head;  // (V, C); the same where they are tied
    Weight positions;    // (P, C) a vector for each position, where they are learned (GPT-2); else no rows
    Norm norm;           // (C,)
    std::vector<LayerWeights> layers;
};

// What one sequence gives to a step: ids that follow what its cache holds. The cache must have room for them (reserve).
struct Piece {
    Cache* cache = nullptr;
    const int32_t* ids = nullptr;
    int64_t n = 0;
    // As part of a prompt, whose ids are computed together; else each is computed as if it came by itself. What an id gets
    // hangs on this, its sequence and nothing else: not on how a prompt is cut, nor on who shares the step.
    bool together = false;
    int64_t wanted = 0;       // of so many of the last ids are logits wanted: 0 to n, of a prompt 0 or 1
    bool all = false;         // a prompt of which all logits are wanted, computed together too; wanted is n
    int32_t adapter = -1;     // which adapter its rows pass through; -1: none
};

class Decoder {
public:
    Decoder(DecoderConfig config, DecoderWeights weights, const Kernels& kernels, int threads);

    // Appends each piece's ids to its cache, with one pass over the weights for all. Those that are not `together` come
    // first, one that wants all of its logits last; at most kMaxTokens ids in all. `cancelled` is asked before each
    // layer; false is returned when it says yes, and no cache is longer then.
    // Logits (sum of wanted, V) go to `logits`, in the order of the pieces; with `hidden` what the head would read, (.., C).
    bool forward(const std::vector<Piece>& pieces, float* logits, const std::function<bool()>& cancelled, bool hidden = false);
    // The same for one sequence and any number of ids. Logits go to cache.logits (of the last token), or, unless null, to
    // all (n, V). When cancelled the cache holds the blocks that were finished. With `hidden`, all (n, C) gets what the head
    // would read, and there are no logits.
    bool forward(Cache& cache, const int32_t* ids, int64_t n, float* all, const std::function<bool()>& cancelled, bool hidden = false,
                 int32_t adapter = -1);

    int32_t add_adapter(Adapter adapter);  // its number for pieces; one that was removed may be given again
    void remove_adapter(int32_t index);
    bool has_adapter(int32_t index) const;
    std::vector<std::pair<const Weight*, std::string>> named() const { return named_weights(weights_); }

    const DecoderConfig& config() const { return config_; }
    int64_t positions() const { return weights_.positions.rows; }  // where they are learned there are no more; else 0
    const Kernels& kernels() const { return kernels_; }
    int threads() const { return pool_.size(); }
    void observe() {  // from now on; earlier sums are forgotten
        observer_ = std::make_unique<Observer>(weights_);
        mixture_.observer = observer_.get();
    }
    const Observer* observer() const { return observer_.get(); }
    ThreadPool& pool() { return pool_; }

private:
    struct Product { const Weight* w; float* y; };  // y (T, w->rows)
    // One row of the step: a token.
    struct Row { Cache* cache; int64_t position; int32_t adapter; };
    // Rows that follow each other in one sequence.
    struct Stretch { const Cache* cache; int64_t row, n, past; bool together; };
    struct Low { const Weight* w; std::vector<float> values; };  // A x (T, max_rank_) for one of the weights that read x
    struct Merge { int64_t at, parts, rows, tile_row0, head; const Stretch* stretch; };
    struct Attending { AttentionTask task; int64_t at; const Merge* merge; };

    void begin(const std::vector<Piece>& pieces);
    int64_t keep_wanted(const std::vector<Piece>& pieces);
    void head(float* logits, int64_t T);
    void resize(int64_t T);
    void embed(const std::vector<Piece>& pieces);
    void angles(const std::vector<double>& frequencies, int64_t T, std::vector<float>& cos, std::vector<float>& sin);
    void normalize_row(const Norm& norm, const float* x, float* y);
    void normalize(const float* x, const Norm& norm, int64_t T, std::initializer_list<const Weight*> readers);
    void quantize(const float* x, int64_t cols, int64_t T, std::initializer_list<const Weight*> readers);
    void prepare(const float* x, int64_t t, bool quantized, bool wide);
    Activations input_from(int64_t t) const;
    const LowRank* low_rank(int64_t t, const Weight& w) const;
    void await(std::initializer_list<const Weight*> readers, int64_t T);
    void reduce(int64_t t);
    void expand(const Weight& w, int64_t row0, int64_t row1, int64_t T, float* y, int thread);
    bool same_sums(Type type) const;
    void multiply(const Weight& w, int64_t row0, int64_t row1, int64_t T, float* y, int thread);
    int64_t rows_at_once(int64_t rows, int64_t bytes, int64_t T) const;
    void project(std::initializer_list<Product> products, int64_t T);
    void project_add(const Weight& w, const std::vector<float>& bias, const Norm& post, int64_t T, float* x);
    void gate_up(const LayerWeights& layer, int64_t T);
    void place_heads(float* x, int64_t heads, const std::vector<float>& bias, const std::vector<float>& norm, bool local, int64_t t);
    void store(const LayerWeights& layer, int64_t index, bool local, int64_t T);
    void attend(int64_t layer, int64_t window);
    void merge(const Merge& merge);

    const DecoderConfig config_;
    const DecoderWeights weights_;
    const Kernels& kernels_;
    ThreadPool pool_;
    std::vector<Bytes> scratch_;  // one a thread
    Mixture mixture_{config_, kernels_, pool_, scratch_};

    std::vector<std::unique_ptr<Adapter>> adapters_;  // null where one was removed
    int64_t max_rank_ = 0;
    bool adapting_ = false;  // a row of the step at hand passes through one
    std::vector<Low> lows_;

    // The step at hand. Its first `alone_` rows are computed each by itself, the others together.
    std::vector<Row> rows_;
    std::vector<Stretch> stretches_;
    int64_t alone_ = 0;

    int64_t room_ = 0;  // tokens that the buffers below hold
    std::vector<float> x_, normed_, q_, k_, v_, attended_, gate_, up_, product_;
    std::vector<float> cos_, sin_, local_cos_, local_sin_;  // (T, R / 2)
    std::vector<int8_t> q8_;
    std::vector<int16_t> q16_;
    std::vector<float> scale_;
    std::vector<int32_t> sum8_, minus32_;
    Activations input_;  // what the products at hand read
    std::unique_ptr<Observer> observer_;  // null: nobody asks
    std::vector<Attending> attending_;
    std::vector<Merge> merges_;
    std::vector<float> part_max_, part_sum_, part_acc_;  // pieces of a softmax over many keys
};

}  // namespace quinze
