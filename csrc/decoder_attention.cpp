// Attention of a decoder: how the rows and keys of several sequences are shared out to the threads.
#include <algorithm>
#include <cmath>
#include <limits>

#include "decoder.h"

namespace quinze {
namespace {

// Where the keys of a row that comes by itself are parted, so that several threads can look at them: of short texts every
// page, further back every fourth. Fixed, so that the sums do not hang on the number of threads or on who shares the step.
int64_t next_part(int64_t key) {
    const int64_t pages = key < 8 * kPageTokens ? 1 : 4;
    return (key / (pages * kPageTokens) + 1) * pages * kPageTokens;
}

}  // namespace

// attended (T, H, D) from q (T, H, D) and the caches, in which a token sees all positions before it and its own, or the
// last `window` of them.
void Decoder::attend(int64_t layer, int64_t window) {
    const int64_t H = config_.heads, K = config_.kv_heads, D = config_.head_dim, group = H / K;
    const int64_t largest = kMaxAttentionRows / group > 0 ? kMaxAttentionRows / group * group : kMaxAttentionRows;
    int64_t room = 0, merges = 0;
    attending_.clear();
    merges_.clear();
    for (const Stretch& s : stretches_) merges += K * ceil_div(s.n * group, std::min(group, largest));
    merges_.reserve(static_cast<size_t>(merges));  // tasks point to them
    for (const Stretch& s : stretches_) {
        const int64_t rows = s.n * group, end = s.past + s.n;
        const int64_t first = window > 0 ? std::max<int64_t>(0, s.past + 1 - window) / kPageTokens * kPageTokens : 0;
        // Short pieces of prompts in smaller tiles, so that there is work for everyone.
        const int64_t even = round_up(ceil_div(rows * K, 4 * pool_.size()), group);
        const int64_t tile = s.together ? std::min({rows, largest, std::max(even, group)}) : std::min(rows, largest);
        AttentionTask task;
        task.q = q_.data() + s.row * H * D;
        task.heads = H, task.group = group, task.past = s.past;
        task.scale = config_.attention_scale, task.softcap = config_.attention_softcap;
        task.window = window, task.few = !s.together;
        task.kv = s.cache->layer(layer);
        // The last tiles see the most keys: they go first, so that no thread is left alone with one at the end.
        for (int64_t row0 = (ceil_div(rows, tile) - 1) * tile; row0 >= 0; row0 -= tile)
            for (int64_t head = 0; head < K; head++) {
                task.kv_head = head, task.row0 = row0, task.row1 = std::min(rows, row0 + tile);
                merges_.push_back({room, 0, task.row1 - row0, row0, head, &s});
                for (task.key0 = first; task.key0 < end; task.key0 = task.key1) {
                    task.key1 = s.together ? end : std::min(end, next_part(task.key0));
                    attending_.push_back({task, room, &merges_.back()});
                    merges_.back().parts++;
                    room += task.row1 - row0;
                }
            }
    }
    part_max_.resize(std::max<int64_t>(part_max_.size(), room));
    part_sum_.resize(part_max_.size());
    part_acc_.resize(std::max<int64_t>(part_acc_.size(), room * D));

    pool_.run(static_cast<int64_t>(attending_.size()), [&](int64_t index, int thread) {
        Attending& one = attending_[index];
        one.task.max = part_max_.data() + one.at;
        one.task.sum = part_sum_.data() + one.at;
        one.task.acc = part_acc_.data() + one.at * D;
        kernels_.attention(one.task, scratch_[thread].get());
        if (one.merge->parts == 1) merge(*one.merge);
    });
    if (attending_.size() > merges_.size())
        pool_.run(static_cast<int64_t>(merges_.size()), [&](int64_t index, int) {
            if (merges_[index].parts > 1) merge(merges_[index]);
        });
}

// The rows of a tile from their parts, which lie `rows` rows apart.
void Decoder::merge(const Merge& m) {
    const int64_t H = config_.heads, D = config_.head_dim, group = H / config_.kv_heads;
    for (int64_t r = 0; r < m.rows; r++) {
        const int64_t row = m.tile_row0 + r, token = m.stretch->row + row / group;
        float* y = attended_.data() + (token * H + m.head * group + row % group) * D;
        float largest = -std::numeric_limits<float>::infinity();
        for (int64_t p = 0; p < m.parts; p++) largest = std::max(largest, part_max_[m.at + p * m.rows + r]);
        double sum = 0;
        std::fill_n(y, D, 0.0f);
        for (int64_t p = 0; p < m.parts; p++) {
            const int64_t at = m.at + p * m.rows + r;
            if (part_max_[at] == -std::numeric_limits<float>::infinity()) continue;  // this part saw no key
            const float weight = std::exp(part_max_[at] - largest);
            sum += static_cast<double>(weight) * part_sum_[at];
            for (int64_t d = 0; d < D; d++) y[d] += weight * part_acc_[at * D + d];
        }
        const float inverse = static_cast<float>(1.0 / sum);
        for (int64_t d = 0; d < D; d++) y[d] *= inverse;
    }
}

}  // namespace quinze
