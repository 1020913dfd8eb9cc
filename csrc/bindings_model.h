// A model as Python hands it over: a dictionary of numbers and one of tensors. Every size is checked here.
#pragma once
#include <nanobind/nanobind.h>

#include <vector>

#include "decoder.h"

namespace quinze {

// Of any one dimension: products of two fit int64 with room to spare.
inline constexpr int64_t kMaxSize = int64_t{1} << 28;

// Throws std::invalid_argument, naming the number, for one that is out of range.
DecoderConfig read_config(const nanobind::dict& config);
// The weights stay where their arrays have them, which are put into `kept`.
DecoderWeights read_weights(const DecoderConfig& c, const nanobind::dict& config, const nanobind::dict& tensors,
                            std::vector<nanobind::object>& kept);

}  // namespace quinze
