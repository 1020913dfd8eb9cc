// Keys and values of one sequence, in pages that several sequences may share.
//
// A page holds kPageTokens positions of every layer. It is taken when a sequence reaches it; a sequence that begins like
// another one takes that one's pages over, and copies a page only when it is about to write into it (copy on write).
#pragma once
#include <atomic>
#include <memory>
#include <vector>

#include "decoder_config.h"
#include "kernels.h"

namespace quinze {

// Memory aligned to a cache line, not initialized: most of it is written before it is read.
struct Freed { void operator()(std::byte* p) const; };
using Bytes = std::unique_ptr<std::byte[], Freed>;
Bytes allocate(size_t bytes);  // throws std::bad_alloc

// How many bytes the pages of all caches that count here take; one page that is shared counts once.
using PageCount = std::shared_ptr<std::atomic<int64_t>>;

class Cache {
public:
    Cache(const DecoderConfig& config, Type type, PageCount count = nullptr);  // type: F16, F32 or Q8_0
    Cache(const Cache&) = delete;
    Cache& operator=(const Cache&) = delete;
    Type type() const { return type_; }
    int64_t length() const { return length_; }
    int64_t missing(int64_t n) const;        // bytes that room for n more positions would take
    void reserve(int64_t n);                 // room for n more; throws std::bad_alloc, and then the length is what it was
    void advance(int64_t n);                 // n positions were written; pages that no window reaches back to are given back
    void truncate(int64_t length);           // forgets what comes after; pages that hold nothing are given back
    bool can_share(int64_t length) const;    // whether the first `length` positions have all that a next token looks at
    void share(const Cache& other, int64_t length);  // becomes the first `length` positions of another cache
    int64_t bytes() const;                   // of its pages, shared ones too
    KVView layer(int64_t index) const;
    std::byte* at(const KVView& view, int64_t offset, int64_t head, int64_t position) const;

    std::vector<float> logits;  // (V,) after the last token; empty before the first and after truncate

private:
    struct Page {
        Bytes data;
        int64_t bytes;
        PageCount count;
        Page(int64_t bytes, PageCount count);
        ~Page();
    };
    using Shared = std::shared_ptr<Page>;

    const Type type_;
    const int64_t kv_heads_, head_dim_, head_bytes_, layer_bytes_, page_bytes_;
    const int64_t window_;  // the longest of all layers; 0: some layer sees everything
    const PageCount count_;
    int64_t length_ = 0;
    std::vector<Shared> pages_;  // null where no window reaches back to
    std::vector<std::byte*> addresses_;
};

}  // namespace quinze
