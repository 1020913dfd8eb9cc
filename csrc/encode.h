// Weights -> the blocks of a file, for every quantized format but Q8_0 (which Python does). Knows nothing of models.
#pragma once
#include "blocks.h"

namespace quinze {

bool can_encode(Type type);
// One row of `cols` weights, a multiple of the format's block, as it lies in a file. `importance` (cols,) says how much the
// square of each column's error counts; null: all the same. Not finite in, nothing sensible out.
void encode_row(Type type, const float* x, const float* importance, int64_t cols, std::byte* out);

}  // namespace quinze
