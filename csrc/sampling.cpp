#include "sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace quinze {
namespace {

constexpr double kCold = 1e-6;  // below it the second token's odds vanish in float32 anyway
constexpr int64_t kStride = 64;  // logits looked at through their maximum only, unless it is large enough

bool more_likely(float a, int32_t a_id, float b, int32_t b_id) { return a > b || (a == b && a_id < b_id); }

bool any_nan(const float* x, int64_t n) {
    int found = 0;
    for (int64_t i = 0; i < n; i++) found |= x[i] != x[i];
    return found != 0;
}

}  // namespace

// splitmix64 (Steele, Lea and Flood 2014)
double Sampler::uniform() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

void Sampler::read(int32_t id) {
    if (recent_.size() < kPenaltyWindow) recent_.push_back(id);
    else recent_[next_++ % kPenaltyWindow] = id;
}

void Sampler::accept(int32_t id) {
    read(id);
    said_[id]++;
}

int32_t Sampler::sample(const float* logits, int64_t n, const uint32_t* mask, int64_t words) {
    if (any_nan(logits, n)) throw BadLogits("The model's logits contain NaN.");
    if (!std::isfinite(kernels_.max(logits, n))) throw BadLogits("The model's largest logit is infinite.");
    const int32_t id = choose(adjust(logits, n, mask, words), n);
    if (params_.logprobs >= 0) note_logprobs(logits, n, id);
    return id;
}

// The logits themselves if nothing changes them, else a changed copy.
const float* Sampler::adjust(const float* logits, int64_t n, const uint32_t* mask, int64_t words) {
    const bool repeated = params_.repetition_penalty != 1 && !recent_.empty();
    const bool counted = (params_.presence_penalty != 0 || params_.frequency_penalty != 0) && !said_.empty();
    if (!mask && !repeated && !counted && params_.logit_bias.empty()) return logits;
    adjusted_.assign(logits, logits + n);
    if (repeated) {
        // Each token once, however often it was said (Keskar et al. 2019).
        const float penalty = static_cast<float>(params_.repetition_penalty);
        for (const int32_t id : recent_)
            if (id >= 0 && id < n) adjusted_[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
    }
    if (counted)
        for (const auto& [id, times] : said_)
            if (id >= 0 && id < n)
                adjusted_[id] -= static_cast<float>(params_.presence_penalty + times * params_.frequency_penalty);
    for (const auto& [id, bias] : params_.logit_bias)
        if (id >= 0 && id < n) adjusted_[id] += bias;
    if (mask)
        for (int64_t start = 0; start < n; start += 32) {
            const uint32_t allowed = start / 32 < words ? mask[start / 32] : 0;
            const int64_t end = std::min<int64_t>(start + 32, n);
            if (allowed == 0xffffffffu) continue;
            for (int64_t i = start; i < end; i++)
                if (!(allowed >> (i - start) & 1)) adjusted_[i] = -INFINITY;
        }
    if (!std::isfinite(kernels_.max(adjusted_.data(), n)))
        throw BadLogits(mask ? "No token is allowed here that the model could say." : "A penalty or bias made a logit infinite.");
    return adjusted_.data();
}

void Sampler::note_logprobs(const float* logits, int64_t n, int32_t id) {
    const float largest = kernels_.max(logits, n);
    scaled_.assign(logits, logits + n);
    const double total = std::log(kernels_.sum_exp(scaled_.data(), n, largest)) + largest;
    logprobs_.chosen = logits[id] - total;
    logprobs_.most_likely.clear();
    if (params_.logprobs == 0) return;
    take_most_likely(logits, n, std::min(params_.logprobs, n));
    for (const Candidate& c : candidates_) logprobs_.most_likely.emplace_back(c.id, c.logit - total);
}

int32_t Sampler::choose(const float* logits, int64_t n) {
    // Candidates are left most likely first, so that top-p and the draw walk them in that order.
    if (params_.temperature < kCold || params_.top_k == 1) {
        take_most_likely(logits, n, 1);
        return candidates_[0].id;
    }
    const double inverse = 1.0 / params_.temperature;
    const float largest = kernels_.max(logits, n);
    const auto odds = [&](float logit) { return std::exp((static_cast<double>(logit) - largest) * inverse); };

    const bool top_k = params_.top_k > 0 && params_.top_k < n;
    if (top_k) {
        take_most_likely(logits, n, params_.top_k);
    } else if (params_.top_p < 1) {
        scaled_.resize(n);
        for (int64_t i = 0; i < n; i++) scaled_[i] = (logits[i] - largest) * static_cast<float>(inverse);
        take_nucleus(logits, n, largest, kernels_.sum_exp(scaled_.data(), n, 0));
    } else {
        // min-p keeps exp((logit - largest) / t) >= p: a threshold on the logits themselves.
        const double reach = params_.min_p > 0 ? params_.temperature * std::log(params_.min_p) : -INFINITY;
        take_above(logits, n, static_cast<float>(largest + reach));
    }

    size_t kept = candidates_.size();
    if (top_k && params_.top_p < 1) {
        double total = 0, sum = 0;
        for (const Candidate& c : candidates_) total += odds(c.logit);
        for (kept = 0; kept < candidates_.size() && (kept == 0 || sum < params_.top_p * total); kept++)
            sum += odds(candidates_[kept].logit);
    }
    // Not sorted if only min-p is asked for; the most likely token itself always stays.
    for (size_t i = 0; i < kept; i++)
        if (odds(candidates_[i].logit) < params_.min_p && candidates_[i].logit < largest) candidates_[i].logit = -INFINITY;
    if (params_.typical_p < 1) keep_typical(kept, largest);
    double total = 0;
    for (size_t i = 0; i < kept; i++) total += odds(candidates_[i].logit);
    double left = uniform() * total;
    int32_t id = candidates_[0].id;
    for (size_t i = 0; i < kept; i++) {
        if (candidates_[i].logit == -INFINITY) continue;
        id = candidates_[i].id;
        left -= odds(candidates_[i].logit);
        if (left < 0) break;
    }
    return id;
}

// Of the candidates, the fewest whose surprise is nearest to the expected one and whose odds together reach typical_p;
// the others become impossible (Meister et al. 2022).
void Sampler::keep_typical(size_t kept, float largest) {
    const double inverse = 1.0 / params_.temperature;
    const auto scaled = [&](const Candidate& c) { return (static_cast<double>(c.logit) - largest) * inverse; };
    double total = 0, entropy = 0;
    for (size_t i = 0; i < kept; i++) total += std::exp(scaled(candidates_[i]));
    const double log_total = std::log(total);
    std::vector<std::pair<double, double>> found;  // distance from the expected surprise, odds
    found.reserve(kept);
    for (size_t i = 0; i < kept; i++) {
        if (candidates_[i].logit == -INFINITY) continue;
        const double log_p = scaled(candidates_[i]) - log_total, p = std::exp(log_p);
        found.emplace_back(log_p, p);
        if (p > 0) entropy -= p * log_p;
    }
    for (auto& [distance, p] : found) distance = std::fabs(-distance - entropy);
    std::sort(found.begin(), found.end());
    double sum = 0, reach = 0;
    for (const auto& [distance, p] : found) {
        reach = distance;
        if ((sum += p) >= params_.typical_p) break;
    }
    for (size_t i = 0; i < kept; i++)
        if (std::fabs(log_total - scaled(candidates_[i]) - entropy) > reach + 1e-12) candidates_[i].logit = -INFINITY;
}

// The k most likely, most likely first: a heap whose root is the least likely of the k best so far. Most strides of
// the vocabulary are dismissed by their maximum alone.
void Sampler::take_most_likely(const float* logits, int64_t n, int64_t k) {
    const auto better = [](const Candidate& a, const Candidate& b) { return more_likely(a.logit, a.id, b.logit, b.id); };
    candidates_.clear();
    for (int64_t start = 0; start < n; start += kStride) {
        const int64_t end = std::min(start + kStride, n);
        const bool full = static_cast<int64_t>(candidates_.size()) == k;
        if (full && !(kernels_.max(logits + start, end - start) > candidates_.front().logit)) continue;
        for (int64_t i = start; i < end; i++) {
            const Candidate c{logits[i], static_cast<int32_t>(i)};
            if (static_cast<int64_t>(candidates_.size()) < k) {
                candidates_.push_back(c);
                std::push_heap(candidates_.begin(), candidates_.end(), better);
            } else if (better(c, candidates_.front())) {
                std::pop_heap(candidates_.begin(), candidates_.end(), better);
                candidates_.back() = c;
                std::push_heap(candidates_.begin(), candidates_.end(), better);
            }
        }
    }
    std::sort_heap(candidates_.begin(), candidates_.end(), better);
}

void Sampler::take_above(const float* logits, int64_t n, float threshold) {
    candidates_.clear();
    for (int64_t start = 0; start < n; start += kStride) {
        const int64_t end = std::min(start + kStride, n);
        if (kernels_.max(logits + start, end - start) < threshold) continue;
        for (int64_t i = start; i < end; i++)
            if (logits[i] >= threshold) candidates_.push_back({logits[i], static_cast<int32_t>(i)});
    }
}

// The fewest tokens whose odds together reach top_p of all. A threshold is lowered until enough tokens are above it,
// so that only those few are sorted, not the vocabulary.
void Sampler::take_nucleus(const float* logits, int64_t n, float largest, double total) {
    const double inverse = 1.0 / params_.temperature, wanted = params_.top_p * total;
    for (double reach = 4;; reach *= 2) {
        take_above(logits, n, static_cast<float>(largest - reach * params_.temperature));
        double sum = 0;
        for (const Candidate& c : candidates_) sum += std::exp((static_cast<double>(c.logit) - largest) * inverse);
        if (sum >= wanted || reach > 1000 || static_cast<int64_t>(candidates_.size()) == n) break;
    }
    std::sort(candidates_.begin(), candidates_.end(),
              [](const Candidate& a, const Candidate& b) { return more_likely(a.logit, a.id, b.logit, b.id); });
    double sum = 0;
    size_t kept = 0;
    for (; kept < candidates_.size() && (kept == 0 || sum < wanted); kept++)
        sum += std::exp((static_cast<double>(candidates_[kept].logit) - largest) * inverse);
    candidates_.resize(kept);
}

}  // namespace quinze
