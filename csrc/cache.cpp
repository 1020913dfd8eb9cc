// Pages of a cache: taken as it grows, given back as it shrinks.
#include "cache.h"

#include <new>

namespace quinze {

void Freed::operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
Bytes allocate(size_t bytes) { return Bytes(static_cast<std::byte*>(::operator new[](bytes, std::align_val_t{64}))); }

Cache::Cache(const DecoderConfig& config, Type type)
    : type_(type), head_dim_(config.head_dim), head_bytes_(kPageTokens * config.head_dim * info(type).bytes),
      layer_bytes_(2 * config.kv_heads * head_bytes_), page_bytes_(config.layers * layer_bytes_), kv_heads_(config.kv_heads) {}

void Cache::grow(int64_t positions) {
    const size_t wanted = static_cast<size_t>(ceil_div(positions, kPageTokens));
    pages_.reserve(wanted);
    addresses_.reserve(wanted);
    while (pages_.size() < wanted) {
        pages_.push_back(allocate(static_cast<size_t>(page_bytes_)));
        addresses_.push_back(pages_.back().get());
    }
}

void Cache::truncate(int64_t length) {
    if (length >= length_) return;
    length_ = length;
    logits.clear();
    pages_.resize(static_cast<size_t>(ceil_div(length, kPageTokens)));
    addresses_.resize(pages_.size());
}

KVView Cache::layer(int64_t index) const {
    KVView view;
    view.pages = addresses_.data();
    view.k_offset = index * layer_bytes_;
    view.v_offset = view.k_offset + kv_heads_ * head_bytes_;
    view.head_bytes = head_bytes_;
    view.head_dim = head_dim_;
    view.type = type_;
    return view;
}

std::byte* Cache::at(const KVView& view, int64_t offset, int64_t head, int64_t position) const {
    return view.pages[position / kPageTokens] + offset + head * head_bytes_ +
           position % kPageTokens * (head_bytes_ / kPageTokens);
}

}  // namespace quinze
