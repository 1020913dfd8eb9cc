// What each weight is multiplied with: sums of squares of its inputs, column by column.
//
// Quantization asks for them: the error of a column that is multiplied with large numbers does more harm. Knows nothing of
// how weights are rounded.
#pragma once
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace quinze {

struct DecoderWeights;
struct Weight;

class Observer {
public:
    struct Seen {
        std::string name;             // of the tensor: "model.layers.0.mlp.up_proj.weight"
        std::vector<double> squares;  // (cols,) sum of x^2 over all tokens
        int64_t tokens = 0;
    };

    explicit Observer(const DecoderWeights& weights);
    // x (T, w.cols). Called from any thread, but for one weight from one at a time.
    void see(const Weight& w, const float* x, int64_t T);
    const std::unordered_map<const Weight*, Seen>& seen() const { return seen_; }

private:
    std::unordered_map<const Weight*, Seen> seen_;  // complete from the beginning: threads only look up
};

}  // namespace quinze
