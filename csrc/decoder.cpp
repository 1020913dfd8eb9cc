#include "decoder.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>

namespace quinze {
namespace {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

bool any_quantized(std::initializer_list<const Weight*> weights) {
    return std::any_of(weights.begin(), weights.end(), [](const Weight* w) { return info(w->type).quantized; });
}
bool any_wide(std::initializer_list<const Weight*> weights) {
    return std::any_of(weights.begin(), weights.end(), [](const Weight* w) { return info(w->type).wide; });
}

}  // namespace

void Freed::operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
Bytes allocate(size_t bytes) { return Bytes(static_cast<std::byte*>(::operator new[](bytes, std::align_val_t{64}))); }

// ---------------------------------------------------------------- cache

Cache::Cache(const DecoderConfig& config, Type type)
    : type_(type), head_dim_(config.head_dim), head_bytes_(kPageTokens * config.head_dim * info(type).bytes),
      layer_bytes_(2 * config.kv_heads * head_bytes_), page_bytes_(config.layers * layer_bytes_), kv_heads_(config.kv_heads) {}

void Cache::grow(int64_t positions) {
    const size_t wanted = static_cast<size_t>(ceil_div(positions, kPageTokens));
    pages_.reserve(wanted);
    addresses_.reserve(wanted);
    while (pages_.size() < wanted) {
        pages_.push_back(allocate(static_cast<size_t>(page_bytes_)));
        addresses_.push_back(pages_.back().get());
    }
}

void Cache::truncate(int64_t length) {
    if (length >= length_) return;
    length_ = length;
    logits.clear();
    pages_.resize(static_cast<size_t>(ceil_div(length, kPageTokens)));
    addresses_.resize(pages_.size());
}

KVView Cache::layer(int64_t index) const {
    KVView view;
    view.pages = addresses_.data();
    view.k_offset = index * layer_bytes_;
    view.v_offset = view.k_offset + kv_heads_ * head_bytes_;
    view.head_bytes = head_bytes_;
    view.head_dim = head_dim_;
    view.type = type_;
    return view;
}

std::byte* Cache::at(const KVView& view, int64_t offset, int64_t head, int64_t position) const {
    return view.pages[position / kPageTokens] + offset + head * head_bytes_ +
           position % kPageTokens * (head_bytes_ / kPageTokens);
}

// ---------------------------------------------------------------- decoder

Decoder::Decoder(DecoderConfig config, DecoderWeights weights, const Kernels& kernels, int threads)
    : config_(std::move(config)), weights_(std::move(weights)), kernels_(kernels), pool_(threads) {
    for (int i = 0; i < pool_.size(); i++) scratch_.push_back(allocate(kScratchBytes));
}

bool Decoder::forward(Cache& cache, const int32_t* ids, int64_t n, float* all, const std::function<bool()>& cancelled) {
    cache.grow(cache.length() + n);
    cache.logits.clear();
    for (int64_t done = 0; done < n;) {
        const int64_t T = std::min(n - done, kMaxTokens);
        float* rows = all ? all + done * config_.vocab : nullptr;
        if (!block(cache, ids + done, T, done + T == n, rows, cancelled)) return false;
        done += T;
    }
    return true;
}

void Decoder::resize(int64_t T) {
    if (T <= room_) return;
    const int64_t C = config_.hidden, F = config_.intermediate, HD = config_.heads * config_.head_dim,
                  KD = config_.kv_heads * config_.head_dim, widest = std::max({C, F, HD});
    room_ = 0;  // until all of them have grown
    for (std::vector<float>* v : {&x_, &normed_, &product_}) v->resize(T * C);
    for (std::vector<float>* v : {&q_, &attended_}) v->resize(T * HD);
    for (std::vector<float>* v : {&k_, &v_}) v->resize(T * KD);
    for (std::vector<float>* v : {&gate_, &up_}) v->resize(T * F);
    for (std::vector<float>* v : {&cos_, &sin_}) v->resize(T * config_.frequencies.size());
    for (std::vector<float>* v : {&local_cos_, &local_sin_}) v->resize(T * config_.local_frequencies.size());
    q8_.resize(T * widest);
    q16_.resize(T > 1 ? T * widest : 0);
    scale_.resize(T * ceil_div(widest, kBlock));
    sum8_.resize(T * ceil_div(widest, kBlock));
    room_ = T;
}

// x (T, C) from the ids' embeddings, and their positions' where these are learned.
void Decoder::embed(const int32_t* ids, int64_t past, int64_t T) {
    const int64_t C = config_.hidden;
    const auto read = [&](const Weight& w, int64_t row, float* y) {
        kernels_.dequantize[static_cast<int>(w.type)](w.data + row * row_bytes(w), C, y);
    };
    for (int64_t t = 0; t < T; t++) {
        float* x = x_.data() + t * C;
        read(weights_.embed, ids[t], x);
        if (config_.embedding_scale != 1.0f)
            for (int64_t i = 0; i < C; i++) x[i] *= config_.embedding_scale;
        if (positions() > 0) {
            read(weights_.positions, past + t, product_.data());
            kernels_.add(x, product_.data(), C);
        }
    }
}

// The angle of pair i at position p is p * frequency i (Su et al. 2021).
void Decoder::angles(const std::vector<double>& frequencies, int64_t past, int64_t T, std::vector<float>& cos, std::vector<float>& sin) {
    const int64_t half = static_cast<int64_t>(frequencies.size());
    for (int64_t i = 0; i < half; i++) {
        for (int64_t t = 0; t < T; t++) {
            const double angle = static_cast<double>(past + t) * frequencies[i];
            cos[t * half + i] = static_cast<float>(std::cos(angle)) * config_.rope_scale;
            sin[t * half + i] = static_cast<float>(std::sin(angle)) * config_.rope_scale;
        }
    }
}

// Row t of x, in the forms that the weights which read it multiply with.
void Decoder::prepare(const float* x, int64_t t, bool quantized, bool wide) {
    const int64_t cols = input_.cols, blocks = cols / kBlock;
    if (quantized)
        kernels_.quantize(x + t * cols, cols, q8_.data() + t * cols, wide ? q16_.data() + t * cols : nullptr,
                          scale_.data() + t * blocks, sum8_.data() + t * blocks);
}

void Decoder::quantize(const float* x, int64_t cols, int64_t T, std::initializer_list<const Weight*> readers) {
    const bool quantized = any_quantized(readers), wide = T > 1 && any_wide(readers);
    input_ = {cols, x, q8_.data(), q16_.data(), scale_.data(), sum8_.data()};
    if (quantized) pool_.run(T, [&](int64_t t, int) { prepare(x, t, quantized, wide); });
}

void Decoder::normalize_row(const Norm& norm, const float* x, float* y) {
    const int64_t C = config_.hidden;
    if (config_.layer_norm) kernels_.layer_norm(x, norm.weight.data(), norm.bias.data(), C, config_.eps, y);
    else kernels_.rms_norm(x, norm.weight.data(), C, config_.eps, y);
}

void Decoder::normalize(const float* x, const Norm& norm, int64_t T, std::initializer_list<const Weight*> readers) {
    if (!norm) return quantize(x, config_.hidden, T, readers);
    const bool quantized = any_quantized(readers), wide = T > 1 && any_wide(readers);
    const int64_t C = config_.hidden;
    input_ = {C, normed_.data(), q8_.data(), q16_.data(), scale_.data(), sum8_.data()};
    pool_.run(T, [&](int64_t t, int) {
        normalize_row(norm, x + t * C, normed_.data() + t * C);
        prepare(normed_.data(), t, quantized, wide);
    });
}

// y[:, row0:row1] = X W[row0:row1]^T    y (T, w.rows)
void Decoder::multiply(const Weight& w, int64_t row0, int64_t row1, int64_t T, float* y, int thread) {
    const int type = static_cast<int>(w.type);
    if (T == 1) kernels_.gemv[type](w, row0, row1, input_, y + row0);
    else kernels_.gemm[type](w, row0, row1, input_, T, y + row0, w.rows, scratch_[thread].get());
}

// How many rows of a weight are one piece of work: many enough to be worth handing out, few enough to share evenly.
int64_t Decoder::rows_at_once(int64_t rows, int64_t T) const {
    if (pool_.size() == 1) return T == 1 ? rows : std::min<int64_t>(rows, 128);
    const int64_t even = round_up(ceil_div(rows, pool_.size() * 8), 16);
    return T == 1 ? even : std::min<int64_t>(even, 128);
}

void Decoder::project(std::initializer_list<Product> products, int64_t T) {
    int64_t rows = 0, pieces = 0;
    for (const Product& p : products) rows += p.w->rows;
    const int64_t step = rows_at_once(rows, T);
    for (const Product& p : products) pieces += ceil_div(p.w->rows, step);
    pool_.run(pieces, [&](int64_t piece, int thread) {
        for (const Product& p : products) {
            const int64_t here = ceil_div(p.w->rows, step);
            if (piece < here) {
                multiply(*p.w, piece * step, std::min((piece + 1) * step, p.w->rows), T, p.y, thread);
                return;
            }
            piece -= here;
        }
    });
}

// x += X W^T + bias, which is normalized first where the family does so
void Decoder::project_add(const Weight& w, const std::vector<float>& bias, const Norm& post, int64_t T, float* x) {
    if (post) {
        project({{&w, product_.data()}}, T);
        pool_.run(T, [&](int64_t t, int) {
            float* y = product_.data() + t * w.rows;
            if (!bias.empty()) kernels_.add(y, bias.data(), w.rows);
            normalize_row(post, y, y);
            kernels_.add(x + t * w.rows, y, w.rows);
        });
        return;
    }
    const int64_t step = rows_at_once(w.rows, T);
    pool_.run(ceil_div(w.rows, step), [&](int64_t piece, int thread) {
        const int64_t row0 = piece * step, row1 = std::min(row0 + step, w.rows);
        multiply(w, row0, row1, T, product_.data(), thread);
        for (int64_t t = 0; t < T; t++) {
            kernels_.add(x + t * w.rows + row0, product_.data() + t * w.rows + row0, row1 - row0);
            if (!bias.empty()) kernels_.add(x + t * w.rows + row0, bias.data() + row0, row1 - row0);
        }
    });
}

// gate = activation(X gate^T) * (X up^T), or activation(X up^T) where nothing gates
void Decoder::gate_up(const LayerWeights& layer, int64_t T) {
    const int64_t F = config_.intermediate, step = rows_at_once(F, T);
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

// The queries or keys x (heads, D) of token t, made ready for the scores: bias, norm, rotation.
void Decoder::place_heads(float* x, int64_t heads, const std::vector<float>& bias, const std::vector<float>& norm, bool local,
                          int64_t t) {
    const int64_t D = config_.head_dim;
    if (!bias.empty()) kernels_.add(x, bias.data(), heads * D);
    if (!norm.empty()) {
        const int64_t n = static_cast<int64_t>(norm.size());
        for (float* part = x; part < x + heads * D; part += n) kernels_.rms_norm(part, norm.data(), n, config_.eps, part);
    }
    const int64_t half = static_cast<int64_t>((local ? config_.local_frequencies : config_.frequencies).size());
    if (half == 0) return;
    const float *cos = (local ? local_cos_ : cos_).data() + t * half, *sin = (local ? local_sin_ : sin_).data() + t * half;
    if (2 * half == D) return kernels_.rope(x, cos, sin, heads, D, config_.rope_interleaved);
    for (int64_t h = 0; h < heads; h++) kernels_.rope(x + h * D, cos, sin, 1, 2 * half, config_.rope_interleaved);
}

// attended (T, H, D) from q (T, H, D) and the cache, in which token t sees the positions 0 .. past + t, or the last
// `window` of them.
void Decoder::attend(const KVView& kv, int64_t past, int64_t T, int64_t window) {
    const int64_t H = config_.heads, K = config_.kv_heads, D = config_.head_dim, group = H / K, rows = T * group;
    const int64_t tile = std::min(rows, kMaxAttentionRows / group > 0 ? kMaxAttentionRows / group * group : kMaxAttentionRows);
    const int64_t first = window > 0 ? std::max<int64_t>(0, past + 1 - window) / kPageTokens * kPageTokens : 0;
    const int64_t tiles = ceil_div(rows, tile), pages = ceil_div(past + T - first, kPageTokens);
    // Few rows and many keys (decoding): the keys are shared out too, and the pieces of each softmax merged after.
    int64_t parts = 1;
    if (K * tiles < 4 * pool_.size()) parts = std::min(pages, ceil_div(4 * pool_.size(), K * tiles));
    const int64_t part_keys = ceil_div(pages, parts) * kPageTokens;
    parts = ceil_div(past + T - first, part_keys);

    const int64_t tasks = K * tiles * parts;
    part_max_.resize(std::max<int64_t>(part_max_.size(), tasks * tile));
    part_sum_.resize(part_max_.size());
    part_acc_.resize(std::max<int64_t>(part_acc_.size(), tasks * tile * D));

    // Row `row` of head `head` from its parts, which lie `tile` rows apart.
    const auto merge = [&](int64_t first, int64_t head, int64_t row) {
        const float* maxima = part_max_.data() + first;
        float largest = maxima[0];
        for (int64_t p = 1; p < parts; p++) largest = std::max(largest, maxima[p * tile]);
        double sum = 0;
        float* y = attended_.data() + (row / group * H + head * group + row % group) * D;
        std::fill_n(y, D, 0.0f);
        for (int64_t p = 0; p < parts; p++) {
            const int64_t at = first + p * tile;
            if (part_max_[at] == -std::numeric_limits<float>::infinity()) continue;  // this part saw no key
            const float weight = std::exp(part_max_[at] - largest);
            sum += static_cast<double>(weight) * part_sum_[at];
            for (int64_t d = 0; d < D; d++) y[d] += weight * part_acc_[at * D + d];
        }
        const float inverse = static_cast<float>(1.0 / sum);
        for (int64_t d = 0; d < D; d++) y[d] *= inverse;
    };
    pool_.run(tasks, [&](int64_t index, int thread) {
        AttentionTask task;
        // The last tiles see the most keys: they go first, so that no thread is left alone with one at the end.
        const int64_t part = index % parts, row_tile = tiles - 1 - index / parts % tiles, head = index / parts / tiles;
        task.q = q_.data();
        task.heads = H, task.group = group, task.kv_head = head;
        task.row0 = row_tile * tile, task.row1 = std::min(rows, task.row0 + tile);
        task.past = past;
        task.key0 = first + part * part_keys, task.key1 = std::min(past + T, task.key0 + part_keys);
        task.scale = config_.attention_scale, task.softcap = config_.attention_softcap;
        task.window = window;
        task.kv = kv;
        task.max = part_max_.data() + index * tile;
        task.sum = part_sum_.data() + index * tile;
        task.acc = part_acc_.data() + index * tile * D;
        kernels_.attention(task, scratch_[thread].get());
        if (parts == 1)
            for (int64_t row = task.row0; row < task.row1; row++) merge(index * tile + row - task.row0, head, row);
    });
    if (parts > 1)
        pool_.run(K * tiles, [&](int64_t index, int) {
            const int64_t row_tile = tiles - 1 - index % tiles, row0 = row_tile * tile;
            for (int64_t row = row0; row < std::min(rows, row0 + tile); row++)
                merge(index * parts * tile + row - row0, index / tiles, row);
        });
}

bool Decoder::block(Cache& cache, const int32_t* ids, int64_t T, bool last, float* all, const std::function<bool()>& cancelled) {
    const int64_t C = config_.hidden, H = config_.heads, K = config_.kv_heads, D = config_.head_dim, HD = H * D,
                  past = cache.length();
    resize(T);
    angles(config_.frequencies, past, T, cos_, sin_);
    angles(config_.local_frequencies, past, T, local_cos_, local_sin_);
    embed(ids, past, T);

    for (int64_t l = 0; l < config_.layers; l++) {
        if (cancelled && cancelled()) return false;
        const LayerWeights& layer = weights_.layers[l];
        const KVView kv = cache.layer(l);
        const int64_t window = config_.windows.empty() ? 0 : config_.windows[l];
        const bool local = window > 0 && !config_.local_frequencies.empty();
        normalize(x_.data(), layer.attention_norm, T, {&layer.q, &layer.k, &layer.v});
        project({{&layer.q, q_.data()}, {&layer.k, k_.data()}, {&layer.v, v_.data()}}, T);
        pool_.run(T, [&](int64_t t, int) {
            place_heads(q_.data() + t * HD, H, layer.q_bias, layer.q_norm, local, t);
            place_heads(k_.data() + t * K * D, K, layer.k_bias, layer.k_norm, local, t);
            if (!layer.v_bias.empty()) kernels_.add(v_.data() + t * K * D, layer.v_bias.data(), K * D);
            for (int64_t h = 0; h < K; h++) {
                const auto store = [&](int64_t offset, const float* from) {
                    std::byte* to = cache.at(kv, offset, h, past + t);
                    if (kv.type == Type::F16) kernels_.store_f16(from, D, reinterpret_cast<uint16_t*>(to));
                    else std::memcpy(to, from, D * sizeof(float));
                };
                store(kv.k_offset, k_.data() + (t * K + h) * D);
                store(kv.v_offset, v_.data() + (t * K + h) * D);
            }
        });
        // After the last layer's keys and values only those rows matter whose logits are wanted.
        const int64_t wanted = l + 1 < config_.layers || all ? T : (last ? 1 : 0);
        if (wanted == 0) break;
        const int64_t skipped = T - wanted;
        if (skipped > 0) {
            std::copy_n(q_.data() + skipped * HD, wanted * HD, q_.data());
            std::copy_n(x_.data() + skipped * C, wanted * C, x_.data());
        }
        attend(kv, past + skipped, wanted, window);
        quantize(attended_.data(), HD, wanted, {&layer.o});
        project_add(layer.o, layer.o_bias, layer.attention_post, wanted, x_.data());
        normalize(x_.data(), layer.mlp_norm, wanted, {&layer.gate, &layer.up});
        gate_up(layer, wanted);
        quantize(gate_.data(), config_.intermediate, wanted, {&layer.down});
        project_add(layer.down, layer.down_bias, layer.mlp_post, wanted, x_.data());
    }
    if (all || last) {
        // The residual of the last token was moved to the front unless all are wanted.
        const int64_t wanted = all ? T : 1;
        normalize(x_.data(), weights_.norm, wanted, {&weights_.head});
        if (!all) cache.logits.resize(config_.vocab);
        float* logits = all ? all : cache.logits.data();
        project({{&weights_.head, logits}}, wanted);
        if (config_.logit_softcap > 0) {
            const int64_t n = wanted * config_.vocab, step = 8192;
            pool_.run(ceil_div(n, step), [&](int64_t piece, int) {
                kernels_.softcap(logits + piece * step, std::min(step, n - piece * step), config_.logit_softcap);
            });
        }
    }
    cache.advance(T);
    return true;
}

}  // namespace quinze
