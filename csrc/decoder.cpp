// A decoder, step by step: buffers, embeddings, layers, logits.
#include "decoder.h"

#include <algorithm>
#include <cmath>

namespace quinze {

Decoder::Decoder(DecoderConfig config, DecoderWeights weights, const Kernels& kernels, int threads)
    : config_(std::move(config)), weights_(std::move(weights)), kernels_(kernels), pool_(threads) {
    for (int i = 0; i < pool_.size(); i++) scratch_.push_back(allocate(kScratchBytes));
}

bool Decoder::forward(Cache& cache, const int32_t* ids, int64_t n, float* all, const std::function<bool()>& cancelled,
                      bool hidden, int32_t adapter) {
    const int64_t each = hidden ? config_.hidden : config_.vocab;
    cache.reserve(n);
    cache.logits.clear();
    for (int64_t done = 0; done < n;) {
        Piece piece{&cache, ids + done, std::min(n - done, kMaxTokens)};
        piece.together = n > 1 || all;
        piece.all = all != nullptr;
        piece.adapter = adapter;
        piece.wanted = all ? piece.n : done + piece.n == n ? 1 : 0;
        if (!all && piece.wanted) cache.logits.resize(config_.vocab);
        if (!forward({piece}, all ? all + done * each : cache.logits.data(), cancelled, hidden)) {
            cache.logits.clear();
            return false;
        }
        done += piece.n;
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
    q16_.resize(T * widest);
    scale_.resize(T * ceil_div(widest, kBlock));
    sum8_.resize(T * ceil_div(widest, kBlock));
    minus32_.resize(2 * sum8_.size());
    room_ = T;
}

// The rows of a step, those that are computed by themselves first.
void Decoder::begin(const std::vector<Piece>& pieces) {
    rows_.clear();
    stretches_.clear();
    alone_ = 0;
    adapting_ = std::any_of(pieces.begin(), pieces.end(), [](const Piece& piece) { return piece.adapter >= 0; });
    for (const Piece& piece : pieces) {
        const int64_t past = piece.cache->length();
        stretches_.push_back({piece.cache, static_cast<int64_t>(rows_.size()), piece.n, past, piece.together});
        for (int64_t i = 0; i < piece.n; i++) rows_.push_back({piece.cache, past + i, piece.adapter});
        if (!piece.together) alone_ += piece.n;
    }
}

// x (T, C) from the ids' embeddings, and their positions' where these are learned.
void Decoder::embed(const std::vector<Piece>& pieces) {
    const int64_t C = config_.hidden;
    int64_t t = 0;
    for (const Piece& piece : pieces)
        for (int64_t i = 0; i < piece.n; i++, t++) {
            float* x = x_.data() + t * C;
            read_row(kernels_, weights_.embed, piece.ids[i], x);
            if (config_.embedding_scale != 1.0f)
                for (int64_t c = 0; c < C; c++) x[c] *= config_.embedding_scale;
            if (positions() > 0) {
                read_row(kernels_, weights_.positions, rows_[t].position, product_.data());
                kernels_.add(x, product_.data(), C);
            }
        }
}

// The angle of pair i at position p is p * frequency i (Su et al. 2021).
void Decoder::angles(const std::vector<double>& frequencies, int64_t T, std::vector<float>& cos, std::vector<float>& sin) {
    const int64_t half = static_cast<int64_t>(frequencies.size());
    for (int64_t i = 0; i < half; i++) {
        for (int64_t t = 0; t < T; t++) {
            const double angle = static_cast<double>(rows_[t].position) * frequencies[i];
            cos[t * half + i] = static_cast<float>(std::cos(angle)) * config_.rope_scale;
            sin[t * half + i] = static_cast<float>(std::sin(angle)) * config_.rope_scale;
        }
    }
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

// Queries and keys made ready, keys and values put into the caches.
void Decoder::store(const LayerWeights& layer, int64_t index, bool local, int64_t T) {
    const int64_t H = config_.heads, K = config_.kv_heads, D = config_.head_dim;
    pool_.run(T, [&](int64_t t, int) {
        const auto& [cache, position, adapter] = rows_[t];
        const KVView kv = cache->layer(index);
        place_heads(q_.data() + t * H * D, H, layer.q_bias, layer.q_norm, local, t);
        place_heads(k_.data() + t * K * D, K, layer.k_bias, layer.k_norm, local, t);
        if (!layer.v_bias.empty()) kernels_.add(v_.data() + t * K * D, layer.v_bias.data(), K * D);
        for (int64_t h = 0; h < K; h++) {
            const auto put = [&, position = position, cache = cache](int64_t offset, const float* from) {
                std::byte* to = cache->at(kv, offset, h, position);
                if (kv.type == Type::F16) kernels_.store_f16(from, D, reinterpret_cast<uint16_t*>(to));
                else if (kv.type == Type::Q8_0) kernels_.store_q8_0(from, D, to);
                else std::memcpy(to, from, D * sizeof(float));
            };
            put(kv.k_offset, k_.data() + (t * K + h) * D);
            put(kv.v_offset, v_.data() + (t * K + h) * D);
        }
    });
}

// Behind the last layer's keys and values only those rows matter whose logits are wanted: they move to the front. The last
// row of a prompt is computed by itself from here on. Returns how many there are.
int64_t Decoder::keep_wanted(const std::vector<Piece>& pieces) {
    const int64_t C = config_.hidden, HD = config_.heads * config_.head_dim;
    int64_t kept = 0;
    alone_ = 0;
    std::vector<Stretch> left;
    for (size_t i = 0; i < pieces.size(); i++) {
        const auto& [cache, row, n, past, together] = stretches_[i];
        const int64_t wanted = pieces[i].wanted, skipped = n - wanted;
        if (wanted == 0) continue;
        const bool all = together && pieces[i].all;
        left.push_back({cache, kept, wanted, past + skipped, all});
        if (!all) alone_ += wanted;
        for (int64_t t = row + skipped; t < row + n; t++, kept++) {
            if (kept == t) continue;
            std::copy_n(q_.data() + t * HD, HD, q_.data() + kept * HD);
            std::copy_n(x_.data() + t * C, C, x_.data() + kept * C);
            rows_[kept] = rows_[t];
        }
    }
    stretches_ = std::move(left);
    return kept;
}

// logits (T, V) of the rows at hand
void Decoder::head(float* logits, int64_t T) {
    const Weight& w = weights_.head;
    normalize(x_.data(), weights_.norm, T, {&w});
    const int64_t step = rows_at_once(w.rows, row_bytes(w), T);
    pool_.run(ceil_div(w.rows, step), [&](int64_t piece, int thread) {
        const int64_t row0 = piece * step, row1 = std::min(row0 + step, w.rows);
        multiply(w, row0, row1, T, logits, thread);
        if (config_.logit_softcap > 0)
            for (int64_t t = 0; t < T; t++) kernels_.softcap(logits + t * w.rows + row0, row1 - row0, config_.logit_softcap);
    });
}

bool Decoder::forward(const std::vector<Piece>& pieces, float* logits, const std::function<bool()>& cancelled, bool hidden) {
    begin(pieces);
    int64_t T = static_cast<int64_t>(rows_.size());
    resize(T);
    angles(config_.frequencies, T, cos_, sin_);
    angles(config_.local_frequencies, T, local_cos_, local_sin_);
    embed(pieces);

    for (int64_t l = 0; l < config_.layers; l++) {
        if (cancelled && cancelled()) return false;
        const LayerWeights& layer = weights_.layers[l];
        const int64_t window = config_.windows.empty() ? 0 : config_.windows[l];
        const bool local = window > 0 && !config_.local_frequencies.empty();
        normalize(x_.data(), layer.attention_norm, T, {&layer.q, &layer.k, &layer.v});
        project({{&layer.q, q_.data()}, {&layer.k, k_.data()}, {&layer.v, v_.data()}}, T);
        store(layer, l, local, T);
        if (l + 1 == config_.layers) T = keep_wanted(pieces);
        if (T == 0) break;
        attend(l, window);
        quantize(attended_.data(), config_.heads * config_.head_dim, T, {&layer.o});
        project_add(layer.o, layer.o_bias, layer.attention_post, T, x_.data());
        if (!layer.experts.each.empty()) {
            normalize(x_.data(), layer.mlp_norm, T, {});
            mixture_.add(layer.experts, normed_.data(), T, std::min(alone_, T), x_.data());
            continue;
        }
        normalize(x_.data(), layer.mlp_norm, T, {&layer.gate, &layer.up});
        gate_up(layer, T);
        quantize(gate_.data(), config_.intermediate, T, {&layer.down});
        project_add(layer.down, layer.down_bias, layer.mlp_post, T, x_.data());
    }
    if (T > 0 && hidden) {
        normalize(x_.data(), weights_.norm, T, {});
        std::copy_n(normed_.data(), T * config_.hidden, logits);
    } else if (T > 0) {
        head(logits, T);
    }
    for (const Piece& piece : pieces) piece.cache->advance(piece.n);
    return true;
}

}  // namespace quinze
