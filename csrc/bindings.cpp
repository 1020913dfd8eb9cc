// The door between Python and the native code: shapes are checked here, and nowhere below.
//
// Everything that comes through it is hostile: sizes are compared with what they must hold before anything is read.
// The interpreter is let go (GIL released) while the decoder computes.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/function.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <mutex>
#include <optional>
#include <string>

#include "bindings_kernels.h"
#include "bindings_model.h"
#include "decoder.h"
#include "sampling.h"
#include "step.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace quinze {
namespace {

using Ids = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using NewFloats = nb::ndarray<nb::numpy, float, nb::c_contig>;

// ---------------------------------------------------------------- what Python holds (nanobind owns each `new`)

struct PyDecoder {
    std::vector<nb::object> kept;  // the arrays that the weights lie in; first, so that it is freed last
    Decoder decoder;
    PageCount pages = std::make_shared<std::atomic<int64_t>>(0);  // bytes of all caches
    std::vector<float> logits;  // of the step at hand
    std::mutex mutex;  // one computation at a time; always taken with the interpreter let go

    PyDecoder(const DecoderConfig& c, const nb::dict& config, const nb::dict& tensors, const Kernels& kernels, int threads)
        : decoder(c, read_weights(c, config, tensors, kept), kernels, threads) {}
};

struct PyCache {
    DecoderConfig config;
    Cache cache;
    PyCache(const DecoderConfig& config, Type type, PageCount count) : config(config), cache(config, type, std::move(count)) {}
};

PyDecoder* make_decoder(const nb::dict& config, const nb::dict& tensors, const std::string& kernels, int threads) {
    if (threads < 1 || threads > 1024) throw std::invalid_argument("threads must lie between 1 and 1024");
    return new PyDecoder(read_config(config), config, tensors, kernels_named(kernels), threads);
}

PyCache* make_cache(const PyDecoder& self, const std::string& type) {
    if (type != "f16" && type != "f32" && type != "q8_0") throw std::invalid_argument("a cache is of type f16, f32 or q8_0");
    return new PyCache(self.decoder.config(), type == "f16" ? Type::F16 : type == "f32" ? Type::F32 : Type::Q8_0, self.pages);
}

void check_ids(const PyDecoder& self, const PyCache& cache, const Ids& ids) {
    const DecoderConfig &a = self.decoder.config(), &b = cache.config;
    if (a.layers != b.layers || a.kv_heads != b.kv_heads || a.head_dim != b.head_dim || a.vocab != b.vocab)
        throw std::invalid_argument("this cache was made for another model");
    if (ids.shape(0) == 0) throw std::invalid_argument("no ids");
    if (static_cast<int64_t>(ids.shape(0)) + cache.cache.length() > kMaxSize) throw std::invalid_argument("too many ids");
    if (self.decoder.positions() > 0 && static_cast<int64_t>(ids.shape(0)) + cache.cache.length() > self.decoder.positions())
        throw std::invalid_argument("the model has only " + std::to_string(self.decoder.positions()) + " positions");
    for (size_t i = 0; i < ids.shape(0); i++)
        if (ids.data()[i] < 0 || ids.data()[i] >= a.vocab)
            throw std::invalid_argument("id " + std::to_string(ids.data()[i]) + " is outside the vocabulary of " +
                                        std::to_string(a.vocab));
}

// Asks Python at most every 20 ms: taking the interpreter back may cost 5 ms when other threads use it.
std::function<bool()> throttled(const nb::object& cancelled) {
    if (cancelled.is_none()) return nullptr;
    using Clock = std::chrono::steady_clock;
    return [&cancelled, asked = Clock::now()]() mutable {
        if (Clock::now() - asked < std::chrono::milliseconds(20)) return false;
        asked = Clock::now();
        nb::gil_scoped_acquire gil;
        return nb::cast<bool>(cancelled());
    };
}

// With the mutex held: nobody takes it away during the computation.
void check_adapter(const PyDecoder& self, int32_t adapter) {
    if (adapter != -1 && !self.decoder.has_adapter(adapter))
        throw std::invalid_argument("there is no adapter " + std::to_string(adapter));
}

bool forward(PyDecoder& self, PyCache& cache, const Ids& given, const nb::object& cancelled, int32_t adapter) {
    check_ids(self, cache, given);
    const std::vector<int32_t> ids(given.data(), given.data() + given.shape(0));  // another thread may write to the array
    const std::function<bool()> stop = throttled(cancelled);
    nb::gil_scoped_release release;
    const std::lock_guard lock(self.mutex);
    check_adapter(self, adapter);
    return self.decoder.forward(cache.cache, ids.data(), static_cast<int64_t>(ids.size()), nullptr, stop, false, adapter);
}

NewFloats forward_all(PyDecoder& self, PyCache& cache, const Ids& given, int32_t adapter) {
    check_ids(self, cache, given);
    const std::vector<int32_t> ids(given.data(), given.data() + given.shape(0));
    const size_t T = ids.size(), V = static_cast<size_t>(self.decoder.config().vocab);
    std::unique_ptr<float[]> logits(new float[T * V]);
    {
        nb::gil_scoped_release release;
        const std::lock_guard lock(self.mutex);
        check_adapter(self, adapter);
        self.decoder.forward(cache.cache, ids.data(), static_cast<int64_t>(T), logits.get(), nullptr, false, adapter);
    }
    return give(std::move(logits), {T, V});
}

using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

LowRank read_low_rank(const Weight& w, const std::string& name, const nb::tuple& given) {
    if (given.size() != 3) throw std::invalid_argument(name + " is not (A, B, share)");
    const Matrix a = nb::cast<Matrix>(given[0]), b = nb::cast<Matrix>(given[1]);
    const int64_t rank = static_cast<int64_t>(a.shape(0));
    if (rank < 1 || rank > kMaxRank || static_cast<int64_t>(a.shape(1)) != w.cols ||
        static_cast<int64_t>(b.shape(0)) != w.rows || static_cast<int64_t>(b.shape(1)) != rank)
        throw std::invalid_argument("the adapter of " + name + " has other sizes than its weight");
    LowRank part{rank, {a.data(), a.data() + a.size()}, {b.data(), b.data() + b.size()}, {}};
    if (!given[2].is_none()) {
        const Floats1 share = nb::cast<Floats1>(given[2]);
        if (static_cast<int64_t>(share.size()) != w.rows) throw std::invalid_argument("share of " + name + " has another size");
        part.share.assign(share.data(), share.data() + share.size());
    }
    return part;
}

int32_t add_adapter(PyDecoder& self, const nb::dict& parts) {
    Adapter adapter;
    size_t found = 0;
    for (const auto& [w, name] : self.decoder.named())
        if (parts.contains(name.c_str())) {
            adapter[w] = read_low_rank(*w, name, nb::cast<nb::tuple>(parts[name.c_str()]));
            found++;
        }
    if (found != parts.size() || found == 0) throw std::invalid_argument("an adapter names a weight that the model does not have");
    nb::gil_scoped_release release;
    const std::lock_guard lock(self.mutex);
    return self.decoder.add_adapter(std::move(adapter));
}

void remove_adapter(PyDecoder& self, int32_t index) {
    nb::gil_scoped_release release;
    const std::lock_guard lock(self.mutex);
    self.decoder.remove_adapter(index);
}

void observe(PyDecoder& self) {
    nb::gil_scoped_release release;
    const std::lock_guard lock(self.mutex);
    self.decoder.observe();
}

// name -> (sums of squares (cols,), tokens)
nb::dict observed(PyDecoder& self) {
    std::vector<Observer::Seen> seen;
    {
        nb::gil_scoped_release release;
        const std::lock_guard lock(self.mutex);
        if (self.decoder.observer())
            for (const auto& [weight, sums] : self.decoder.observer()->seen()) seen.push_back(sums);
    }
    nb::dict found;
    for (const Observer::Seen& one : seen) {
        std::unique_ptr<double[]> squares(new double[one.squares.size()]);
        std::copy(one.squares.begin(), one.squares.end(), squares.get());
        found[one.name.c_str()] = nb::make_tuple(give(std::move(squares), {one.squares.size()}), one.tokens);
    }
    return found;
}

NewFloats forward_hidden(PyDecoder& self, PyCache& cache, const Ids& given, const nb::object& cancelled) {
    check_ids(self, cache, given);
    const std::vector<int32_t> ids(given.data(), given.data() + given.shape(0));
    const size_t T = ids.size(), C = static_cast<size_t>(self.decoder.config().hidden);
    std::unique_ptr<float[]> states(new float[T * C]);
    bool finished = false;
    {
        const std::function<bool()> stop = throttled(cancelled);
        nb::gil_scoped_release release;
        const std::lock_guard lock(self.mutex);
        finished = self.decoder.forward(cache.cache, ids.data(), static_cast<int64_t>(T), states.get(), stop, true);
    }
    return give(std::move(states), {finished ? T : 0, C});
}

using Mask = nb::ndarray<const uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

int32_t sample(PyDecoder& self, PyCache& cache, Sampler& sampler, const std::optional<Mask>& given) {
    // A copy, for another thread may write to the array.
    const std::vector<uint32_t> mask = given ? std::vector<uint32_t>(given->data(), given->data() + given->size()) : std::vector<uint32_t>();
    nb::gil_scoped_release release;
    const std::lock_guard lock(self.mutex);
    const std::vector<float>& logits = cache.cache.logits;
    if (logits.empty()) throw std::invalid_argument("the cache has no logits yet: pass ids through the decoder first");
    const int32_t id = sampler.sample(logits.data(), static_cast<int64_t>(logits.size()), given ? mask.data() : nullptr,
                                      static_cast<int64_t>(mask.size()));
    sampler.accept(id);
    return id;
}

// (cache, ids, together, guesses, sampler or None, mask or None, adapter)
StepPiece read_piece(const PyDecoder& self, const nb::handle& given) {
    const nb::tuple fields = nb::cast<nb::tuple>(given);
    if (fields.size() != 7) throw std::invalid_argument("a piece is (cache, ids, together, guesses, sampler, mask, adapter)");
    PyCache& cache = nb::cast<PyCache&>(fields[0]);
    const Ids ids = nb::cast<Ids>(fields[1]);
    check_ids(self, cache, ids);
    StepPiece piece;
    piece.cache = &cache.cache;
    piece.ids.assign(ids.data(), ids.data() + ids.shape(0));
    piece.together = nb::cast<bool>(fields[2]);
    piece.guesses = nb::cast<int64_t>(fields[3]);
    if (!fields[4].is_none()) piece.sampler = nb::cast<Sampler*>(fields[4]);
    if (piece.guesses < 0 || piece.guesses >= static_cast<int64_t>(piece.ids.size()) ||
        (piece.guesses > 0 && (piece.together || !piece.sampler)))
        throw std::invalid_argument("guesses follow an id that is none, of a sequence that chooses and is no prompt");
    if (!fields[5].is_none()) {
        const Mask mask = nb::cast<Mask>(fields[5]);
        piece.masked = true;
        piece.mask.assign(mask.data(), mask.data() + mask.size());
    }
    piece.adapter = nb::cast<int32_t>(fields[6]);
    return piece;
}

// None when cancelled; else for each piece (ids chosen, logprobs of each, why nothing could be chosen or None).
nb::object step_all(PyDecoder& self, const nb::list& given, const nb::object& cancelled) {
    std::vector<StepPiece> pieces;
    int64_t rows = 0;
    for (const nb::handle one : given) {
        pieces.push_back(read_piece(self, one));
        rows += static_cast<int64_t>(pieces.back().ids.size());
        for (size_t i = 0; i + 1 < pieces.size(); i++)
            if (pieces[i].cache == pieces.back().cache || (pieces[i].sampler && pieces[i].sampler == pieces.back().sampler))
                throw std::invalid_argument("two pieces have the same cache, or the same sampler");
    }
    if (pieces.empty() || rows > kMaxTokens) throw std::invalid_argument("a step has 1 to " + std::to_string(kMaxTokens) + " ids");
    const std::function<bool()> stop = throttled(cancelled);
    bool done;
    {
        nb::gil_scoped_release release;
        const std::lock_guard lock(self.mutex);
        for (const StepPiece& piece : pieces) check_adapter(self, piece.adapter);
        for (StepPiece& piece : pieces) piece.cache->reserve(static_cast<int64_t>(piece.ids.size()));
        done = step(self.decoder, pieces, self.logits, stop);
    }
    if (!done) return nb::none();
    nb::list results;
    for (const StepPiece& piece : pieces) {
        nb::list logprobs;
        for (const Logprobs& found : piece.logprobs) logprobs.append(nb::make_tuple(found.chosen, nb::cast(found.most_likely)));
        results.append(nb::make_tuple(nb::cast(piece.chosen), logprobs, piece.error.empty() ? nb::none() : nb::object(nb::cast(piece.error))));
    }
    return results;
}

PyCache* begin_like(PyDecoder& self, const PyCache& other, int64_t length) {
    if (length < 0 || !other.cache.can_share(length)) throw std::invalid_argument("so many positions cannot be shared");
    auto made = std::make_unique<PyCache>(other.config, other.cache.type(), self.pages);
    made->cache.share(other.cache, length);
    return made.release();
}

void shorten(PyDecoder& self, PyCache& cache, int64_t length) {
    if (length < 0) throw std::invalid_argument("a length below zero");
    nb::gil_scoped_release release;
    const std::lock_guard lock(self.mutex);
    cache.cache.truncate(length);
}

Sampler* make_sampler(double temperature, int64_t top_k, double top_p, double min_p, double repetition_penalty,
                      uint64_t seed, const std::string& kernels, double typical_p, double presence_penalty,
                      double frequency_penalty, std::vector<std::pair<int32_t, float>> logit_bias, int64_t logprobs) {
    if (!(temperature >= 0) || top_k < 0 || !(top_p >= 0 && top_p <= 1) || !(min_p >= 0 && min_p <= 1) ||
        !(repetition_penalty > 0) || !(typical_p > 0 && typical_p <= 1) || !std::isfinite(presence_penalty) ||
        !std::isfinite(frequency_penalty))
        throw std::invalid_argument("a sampling parameter is out of range");
    for (const auto& [id, bias] : logit_bias)
        if (!std::isfinite(bias)) throw std::invalid_argument("the bias of id " + std::to_string(id) + " is not finite");
    return new Sampler(SamplingParams{temperature, top_k, top_p, min_p, repetition_penalty, seed, typical_p, presence_penalty,
                                      frequency_penalty, std::move(logit_bias), logprobs},
                       kernels_named(kernels));
}

int32_t sample_logits(Sampler& sampler, const Floats1& logits, const std::optional<Mask>& mask) {
    if (logits.shape(0) == 0 || logits.shape(0) > static_cast<size_t>(kMaxSize)) throw std::invalid_argument("no logits");
    return sampler.sample(logits.data(), static_cast<int64_t>(logits.shape(0)), mask ? mask->data() : nullptr,
                          mask ? static_cast<int64_t>(mask->size()) : 0);
}

nb::tuple last_logprobs(const Sampler& sampler) {
    const Logprobs& found = sampler.logprobs();
    return nb::make_tuple(found.chosen, nb::cast(found.most_likely));
}

}  // namespace
}  // namespace quinze

NB_MODULE(_C, m) {
    using namespace quinze;
    nb::set_leak_warnings(false);  // an engine that lives to the end of the program is no leak
    m.def("cpu_has_avx2", &cpu_has_avx2);
    bind_kernels(m);
    nb::exception<BadLogits>(m, "BadLogits", PyExc_ArithmeticError);

    nb::class_<PyCache>(m, "Cache")
        .def_prop_ro("length", [](const PyCache& self) { return self.cache.length(); })
        .def_prop_ro("bytes", [](const PyCache& self) { return self.cache.bytes(); })
        .def("missing", [](const PyCache& self, int64_t n) { return self.cache.missing(std::clamp<int64_t>(n, 0, kMaxSize)); }, "n"_a,
             "Bytes that room for n more ids would take.")
        .def("can_share", [](const PyCache& self, int64_t n) { return n >= 0 && self.cache.can_share(n); }, "length"_a,
             "Whether another sequence may begin with the first `length` ids of this one.");

    nb::class_<Sampler>(m, "Sampler")
        .def("read", &Sampler::read, "id"_a, "An id of the prompt.")
        .def("accept", &Sampler::accept, "id"_a, "An id of the reply.")
        .def("sample", &sample_logits, "logits"_a, "mask"_a = nb::none(), "The next id; it is not accepted by itself.")
        .def("logprobs", &last_logprobs, "Of the id sampled last: (its own, [(id, logprob), ...] of the most likely).");
    m.def("sampler", &make_sampler, nb::kw_only(), "temperature"_a, "top_k"_a, "top_p"_a, "min_p"_a, "repetition_penalty"_a,
          "seed"_a, "kernels"_a = "auto", "typical_p"_a = 1.0, "presence_penalty"_a = 0.0, "frequency_penalty"_a = 0.0,
          "logit_bias"_a = std::vector<std::pair<int32_t, float>>{}, "logprobs"_a = -1);

    nb::class_<PyDecoder>(m, "Decoder")
        .def_prop_ro("threads", [](const PyDecoder& self) { return self.decoder.threads(); })
        .def_prop_ro("kernels", [](const PyDecoder& self) { return std::string(self.decoder.kernels().name); })
        .def("cache", &make_cache, "type"_a = "f16")
        .def("forward", &forward, "cache"_a, "ids"_a, "cancelled"_a = nb::none(), "adapter"_a = -1,
             "Appends ids to the cache; False if `cancelled()` said yes on the way.")
        .def("forward_all", &forward_all, "cache"_a, "ids"_a, "adapter"_a = -1, "The same; returns the logits of every id, (T, V).")
        .def("forward_hidden", &forward_hidden, "cache"_a, "ids"_a, "cancelled"_a = nb::none(),
             "The same; returns what the head would read of every id, (T, C); no rows if `cancelled()` said yes on the way.")
        .def("sample", &sample, "cache"_a, "sampler"_a, "mask"_a = nb::none(),
             "Chooses and accepts the id after the last one; mask (ceil(V / 32),): a bit for each id that may be chosen.")
        .def("truncate", &shorten, "cache"_a, "length"_a)
        .def("add_adapter", &add_adapter, "parts"_a,
             "name of a weight -> (A (rank, cols), B (rows, rank), share (rows,) or None); returns the adapter's number.")
        .def("remove_adapter", &remove_adapter, "adapter"_a)
        .def("observe", &observe, "Sums up from now on what each weight is multiplied with.")
        .def("observed", &observed, "name -> (sums of squares of its inputs (cols,), tokens) since `observe`.")
        .def_prop_ro("cache_bytes", [](const PyDecoder& self) { return self.pages->load(); }, "Of the pages of all caches.")
        .def("share", &begin_like, "cache"_a, "length"_a, "A cache that begins with the first `length` ids of another one.")
        .def("step", &step_all, "pieces"_a, "cancelled"_a = nb::none(),
             "Appends the ids of each (cache, ids, together, guesses, sampler, mask, adapter) to its cache, and chooses.");
    m.def("decoder", &make_decoder, "config"_a, "tensors"_a, "kernels"_a = "auto", "threads"_a = 1);
}
