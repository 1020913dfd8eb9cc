// Adapters (LoRA): what a few small matrices add to a model's products, for those rows of a step that pass through one.
//
//     y = share * (W x) + B (A x)
//
// The weights stay as they are, so sequences with different adapters, or with none, are computed in one step. Knows nothing
// of files, names or scales: whoever makes one has multiplied the scale into B.
#pragma once
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace quinze {

struct DecoderWeights;
struct Weight;

struct LowRank {
    int64_t rank = 0;
    std::vector<float> a;      // (rank, cols)
    std::vector<float> b;      // (rows, rank)
    std::vector<float> share;  // (rows,) by which the model's own product is multiplied (DoRA); empty: by 1
};
using Adapter = std::unordered_map<const Weight*, LowRank>;

inline constexpr int64_t kMaxRank = 4096;

// Every weight of a linear layer, by the name of its tensor.
std::vector<std::pair<const Weight*, std::string>> named_weights(const DecoderWeights& weights);

}  // namespace quinze
