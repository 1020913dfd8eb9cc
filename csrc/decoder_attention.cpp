// Attention of a decoder: how its rows and keys are shared out to the threads.
#include <algorithm>
#include <cmath>
#include <limits>

#include "decoder.h"

namespace quinze {

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

}  // namespace quinze
