// One step for many sequences: their ids pass through the decoder together, then each that wants one chooses its next id.
//
// Guesses may follow a sequence's last id. They are computed in the same pass, and the sampler chooses from the true
// logits behind each: as long as it chooses what was guessed, the next choice is there already. So the ids are those that
// come without guesses, and their odds too. Knows nothing of texts, turns or Python.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "decoder.h"
#include "sampling.h"

namespace quinze {

struct StepPiece {
    Cache* cache = nullptr;
    std::vector<int32_t> ids;      // what follows in the cache; the last `guesses` of them are guesses
    bool together = false;         // as part of a prompt (decoder.h)
    int64_t guesses = 0;
    Sampler* sampler = nullptr;    // chooses what comes after; null: nothing is to be chosen yet
    bool masked = false;
    std::vector<uint32_t> mask;    // a bit for each id that may be chosen; for the first choice
    int32_t adapter = -1;

    std::vector<int32_t> chosen;   // out: one id, and one more for each guess that was right
    std::vector<Logprobs> logprobs;
    std::string error;             // out: why nothing could be chosen; else empty
};

// False when `cancelled` said yes; then no cache is longer. Guesses that were wrong are not in the caches afterwards.
// `logits` is room that grows as needed, and serves the next step again.
bool step(Decoder& decoder, std::vector<StepPiece>& pieces, std::vector<float>& logits, const std::function<bool()>& cancelled);

}  // namespace quinze
