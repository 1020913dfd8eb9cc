// Keys and values of one sequence.
#pragma once
#include <memory>
#include <vector>

#include "decoder_config.h"
#include "kernels.h"

namespace quinze {

// Memory aligned to a cache line, not initialized: most of it is written before it is read.
struct Freed { void operator()(std::byte* p) const; };
using Bytes = std::unique_ptr<std::byte[], Freed>;
Bytes allocate(size_t bytes);  // throws std::bad_alloc

// The keys and values of one sequence, in pages that are taken as it grows.
class Cache {
public:
    Cache(const DecoderConfig& config, Type type);
    Cache(const Cache&) = delete;
    Cache& operator=(const Cache&) = delete;
    int64_t length() const { return length_; }
    void grow(int64_t positions);            // room for so many; throws std::bad_alloc, and then nothing has changed
    void advance(int64_t n) { length_ += n; }
    void truncate(int64_t length);           // forgets what comes after; pages that hold nothing are given back
    int64_t bytes() const { return static_cast<int64_t>(pages_.size()) * page_bytes_; }
    KVView layer(int64_t index) const;
    std::byte* at(const KVView& view, int64_t offset, int64_t head, int64_t position) const;

    std::vector<float> logits;  // (V,) after the last token; empty before the first and after truncate

private:
    Type type_;
    int64_t head_dim_, head_bytes_, layer_bytes_, page_bytes_, kv_heads_;
    int64_t length_ = 0;
    std::vector<Bytes> pages_;
    std::vector<std::byte*> addresses_;
};

}  // namespace quinze
