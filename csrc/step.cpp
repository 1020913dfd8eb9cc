// A step: pieces for the decoder, a sampler for each sequence, guesses checked.
#include "step.h"

#include <algorithm>

namespace quinze {
namespace {

// Chooses from logits (1 + guesses, V), one row after the other, for as long as the guesses are right.
void choose(StepPiece& piece, const float* logits, int64_t V) {
    const int32_t* guess = piece.ids.data() + piece.ids.size() - piece.guesses;
    try {
        for (int64_t i = 0; i <= piece.guesses; i++) {
            const bool masked = piece.masked && i == 0;
            const int32_t id = piece.sampler->sample(logits + i * V, V, masked ? piece.mask.data() : nullptr,
                                                     static_cast<int64_t>(piece.mask.size()));
            piece.sampler->accept(id);
            piece.chosen.push_back(id);
            piece.logprobs.push_back(piece.sampler->logprobs());
            if (i < piece.guesses && id != guess[i]) break;
        }
    } catch (const std::exception& error) {  // threads of the pool must not throw
        piece.error = error.what();
    }
}

}  // namespace

bool step(Decoder& decoder, std::vector<StepPiece>& pieces, std::vector<float>& logits, const std::function<bool()>& cancelled) {
    const int64_t V = decoder.config().vocab;
    std::vector<Piece> parts;
    std::vector<StepPiece*> order;
    int64_t wanted = 0;
    for (const bool together : {false, true})
        for (StepPiece& piece : pieces) {
            if (piece.together != together) continue;
            Piece part{piece.cache, piece.ids.data(), static_cast<int64_t>(piece.ids.size()), together};
            part.wanted = piece.sampler ? 1 + piece.guesses : 0;
            part.adapter = piece.adapter;
            wanted += part.wanted;
            parts.push_back(part);
            order.push_back(&piece);
        }
    if (static_cast<int64_t>(logits.size()) < wanted * V) logits.resize(static_cast<size_t>(wanted * V));
    if (!decoder.forward(parts, logits.data(), cancelled)) return false;
    std::vector<int64_t> first(parts.size(), 0);  // row of each piece's logits
    for (size_t i = 1; i < parts.size(); i++) first[i] = first[i - 1] + parts[i - 1].wanted;
    decoder.pool().run(static_cast<int64_t>(order.size()), [&](int64_t i, int) {
        if (order[i]->sampler) choose(*order[i], logits.data() + first[i] * V, V);
    });
    for (StepPiece& piece : pieces)
        if (piece.guesses > 0) {
            const int64_t right = std::max<int64_t>(static_cast<int64_t>(piece.chosen.size()) - 1, 0);
            piece.cache->truncate(piece.cache->length() - (piece.guesses - right));
        }
    return true;
}

}  // namespace quinze
