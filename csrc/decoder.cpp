// A decoder, step by step: buffers, embeddings, layers, logits.
#include "decoder.h"

#include <algorithm>
#include <cmath>

namespace quinze {

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
