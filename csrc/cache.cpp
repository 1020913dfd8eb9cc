// Pages of a cache: taken as it grows, shared, given back as it shrinks.
#include "cache.h"

#include <algorithm>
#include <new>

namespace quinze {
namespace {

// A text may be taken back by so many tokens (guesses that were wrong) behind what a window has left.
constexpr int64_t kTakenBack = kPageTokens;

int64_t longest_window(const DecoderConfig& config) {
    if (config.windows.empty() || std::find(config.windows.begin(), config.windows.end(), 0) != config.windows.end()) return 0;
    return *std::max_element(config.windows.begin(), config.windows.end());
}

}  // namespace

void Freed::operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
Bytes allocate(size_t bytes) { return Bytes(static_cast<std::byte*>(::operator new[](bytes, std::align_val_t{64}))); }

Cache::Page::Page(int64_t size, PageCount counted)
    : data(allocate(static_cast<size_t>(size))), bytes(size), count(std::move(counted)) {
    if (count) count->fetch_add(bytes);
}
Cache::Page::~Page() {
    if (count) count->fetch_sub(bytes);
}

Cache::Cache(const DecoderConfig& config, Type type, PageCount count)
    : type_(type), kv_heads_(config.kv_heads), head_dim_(config.head_dim),
      head_bytes_(kPageTokens * kv_row_bytes(type, config.head_dim)), layer_bytes_(2 * config.kv_heads * head_bytes_),
      page_bytes_(config.layers * layer_bytes_), window_(longest_window(config)), count_(std::move(count)) {}

int64_t Cache::missing(int64_t n) const {
    const int64_t have = static_cast<int64_t>(pages_.size()), first = length_ / kPageTokens;
    int64_t pages = std::max<int64_t>(0, ceil_div(length_ + n, kPageTokens) - have);
    if (n > 0 && first < have && pages_[first].use_count() > 1) pages++;
    return pages * page_bytes_;
}

void Cache::reserve(int64_t n) {
    if (n <= 0) return;
    const size_t wanted = static_cast<size_t>(ceil_div(length_ + n, kPageTokens)), first = length_ / kPageTokens;
    pages_.reserve(wanted);
    addresses_.reserve(wanted);
    // Of the pages that are there, at most the one in which the text ends is written to.
    if (first < pages_.size() && pages_[first].use_count() > 1) {
        auto mine = std::make_shared<Page>(page_bytes_, count_);
        std::copy_n(addresses_[first], page_bytes_, mine->data.get());
        addresses_[first] = mine->data.get();
        pages_[first] = std::move(mine);
    }
    while (pages_.size() < wanted) {
        pages_.push_back(std::make_shared<Page>(page_bytes_, count_));
        addresses_.push_back(pages_.back()->data.get());
    }
}

void Cache::advance(int64_t n) {
    length_ += n;
    if (window_ == 0) return;
    const int64_t gone = std::min<int64_t>((length_ - window_ - kTakenBack) / kPageTokens, static_cast<int64_t>(pages_.size()));
    for (int64_t i = gone - 1; i >= 0 && pages_[i]; i--) pages_[i].reset(), addresses_[i] = nullptr;
}

void Cache::truncate(int64_t length) {
    if (length >= length_) return;
    length_ = length;
    logits.clear();
    pages_.resize(static_cast<size_t>(ceil_div(length, kPageTokens)));
    addresses_.resize(pages_.size());
}

bool Cache::can_share(int64_t length) const {
    if (length > length_) return false;
    const int64_t from = window_ > 0 ? std::max<int64_t>(0, length + 1 - window_) / kPageTokens : 0;
    return length == 0 || from >= ceil_div(length, kPageTokens) || pages_[from] != nullptr;
}

void Cache::share(const Cache& other, int64_t length) {
    const int64_t count = ceil_div(length, kPageTokens);
    pages_.assign(other.pages_.begin(), other.pages_.begin() + count);
    addresses_.assign(other.addresses_.begin(), other.addresses_.begin() + count);
    length_ = length;
    logits.clear();
}

int64_t Cache::bytes() const {
    return page_bytes_ * std::count_if(pages_.begin(), pages_.end(), [](const Shared& page) { return page != nullptr; });
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
