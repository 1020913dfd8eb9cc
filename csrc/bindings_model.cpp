#include "bindings_model.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>

#include "bindings_kernels.h"

namespace nb = nanobind;

namespace quinze {
namespace {

int64_t dimension(const nb::dict& config, const char* key, int64_t least = 1, int64_t most = kMaxSize) {
    const int64_t value = nb::cast<int64_t>(config[key]);
    if (value < least || value > most)
        throw std::invalid_argument(std::string(key) + " is " + std::to_string(value) + ", outside " +
                                    std::to_string(least) + " to " + std::to_string(most));
    return value;
}

// Reads tensors by name and keeps their arrays alive.
class TensorReader {
public:
    TensorReader(const nb::dict& tensors, std::vector<nb::object>& kept) : tensors_(tensors), kept_(kept) {}

    bool has(const std::string& name) const { return tensors_.contains(name.c_str()); }
    int64_t size(const std::string& name) const {  // columns; 0 if there is none
        return has(name) ? nb::cast<int64_t>(nb::cast<nb::tuple>(tensors_[name.c_str()])[2]) : 0;
    }

    // name -> (type, rows, cols, bytes)
    Weight matrix(const std::string& name, int64_t rows, int64_t cols) {
        if (!has(name)) throw std::invalid_argument("tensor " + name + " is missing");
        const nb::tuple entry = nb::cast<nb::tuple>(tensors_[name.c_str()]);
        if (entry.size() != 4) throw std::invalid_argument("tensor " + name + " is not (type, rows, cols, bytes)");
        const Weight w = check_weight(nb::cast<int>(entry[0]), nb::cast<int64_t>(entry[1]), nb::cast<int64_t>(entry[2]),
                                      nb::cast<WeightBytes>(entry[3]), name);
        if (w.rows != rows || w.cols != cols)
            throw std::invalid_argument("tensor " + name + " is " + std::to_string(w.rows) + " x " + std::to_string(w.cols) +
                                        " where " + std::to_string(rows) + " x " + std::to_string(cols) + " is needed");
        kept_.push_back(nb::borrow(entry[3]));
        return w;
    }
    std::vector<float> vector(const std::string& name, int64_t size) {
        const Weight w = matrix(name, 1, size);
        std::vector<float> values(size);
        read_row(scalar_kernels(), w, 0, values.data());
        return values;
    }
    std::vector<float> optional_vector(const std::string& name, int64_t size) {
        return has(name) ? vector(name, size) : std::vector<float>();
    }

private:
    const nb::dict& tensors_;
    std::vector<nb::object>& kept_;
};

// The experts of one layer; as many as there are names for.
Experts read_experts(TensorReader& read, const DecoderConfig& c, const nb::dict& config, const std::string& mlp) {
    const auto expert = [&](const std::string& name, const char* inner) {
        const int64_t F = dimension(config, inner);
        return Expert{read.matrix(name + "gate_proj.weight", F, c.hidden), read.matrix(name + "up_proj.weight", F, c.hidden),
                      read.matrix(name + "down_proj.weight", c.hidden, F)};
    };
    Experts found;
    const int64_t E = dimension(config, "num_experts", c.experts_per_token, 65536);
    if (c.experts_per_token < 1) throw std::invalid_argument("num_experts_per_tok is 0");
    found.router = read.matrix(mlp + "gate.weight", E, c.hidden);
    for (int64_t e = 0; e < E; e++)
        found.each.push_back(expert(mlp + "experts." + std::to_string(e) + ".", "moe_intermediate_size"));
    if (read.has(mlp + "shared_expert_gate.weight")) {
        found.shared = expert(mlp + "shared_expert.", "shared_expert_intermediate_size");
        found.shared_gate = read.matrix(mlp + "shared_expert_gate.weight", 1, c.hidden);
    }
    return found;
}

}  // namespace

DecoderConfig read_config(const nb::dict& config) {
    DecoderConfig c;
    c.vocab = dimension(config, "vocab_size");
    c.hidden = dimension(config, "hidden_size");
    c.intermediate = dimension(config, "intermediate_size");
    c.layers = dimension(config, "num_hidden_layers", 1, 10000);
    c.heads = dimension(config, "num_attention_heads", 1, 10000);
    c.kv_heads = dimension(config, "num_key_value_heads", 1, 10000);
    c.head_dim = dimension(config, "head_dim", 1, kMaxHeadDim);
    c.eps = nb::cast<float>(config["rms_norm_eps"]);
    c.layer_norm = nb::cast<bool>(config["layer_norm"]);
    c.gelu = nb::cast<bool>(config["gelu"]);
    c.rope_interleaved = nb::cast<bool>(config["rope_interleaved"]);
    c.rope_scale = nb::cast<float>(config["rope_scale"]);
    c.frequencies = nb::cast<std::vector<double>>(config["frequencies"]);
    c.local_frequencies = nb::cast<std::vector<double>>(config["local_frequencies"]);
    c.windows = nb::cast<std::vector<int64_t>>(config["windows"]);
    c.attention_scale = nb::cast<float>(config["attention_scale"]);
    c.attention_softcap = nb::cast<float>(config["attention_softcap"]);
    c.logit_softcap = nb::cast<float>(config["logit_softcap"]);
    c.embedding_scale = nb::cast<float>(config["embedding_scale"]);
    c.experts_per_token = dimension(config, "num_experts_per_tok", 0, 1024);
    c.normalize_shares = nb::cast<bool>(config["norm_topk_prob"]);
    if (c.heads % c.kv_heads) throw std::invalid_argument("num_attention_heads is not a multiple of num_key_value_heads");
    for (const float number : {c.eps, c.rope_scale, c.attention_scale, c.attention_softcap, c.logit_softcap, c.embedding_scale})
        if (!(number >= 0 && number < 1e30f)) throw std::invalid_argument("eps, a scale or a cap is out of range");
    if (c.attention_scale == 0) throw std::invalid_argument("attention_scale is 0");
    for (const std::vector<double>* frequencies : {&c.frequencies, &c.local_frequencies}) {
        if (static_cast<int64_t>(frequencies->size()) > c.head_dim / 2)
            throw std::invalid_argument("there are more than head_dim / 2 frequencies");
        for (const double frequency : *frequencies)
            if (!(frequency >= 0 && frequency < 1e30)) throw std::invalid_argument("a frequency is out of range");
    }
    if (!c.windows.empty() && static_cast<int64_t>(c.windows.size()) != c.layers)
        throw std::invalid_argument("windows does not have num_hidden_layers numbers");
    for (const int64_t window : c.windows)
        if (window < 0 || window > kMaxSize) throw std::invalid_argument("a window is out of range");
    return c;
}

DecoderWeights read_weights(const DecoderConfig& c, const nb::dict& config, const nb::dict& tensors, std::vector<nb::object>& kept) {
    TensorReader read(tensors, kept);
    const int64_t HD = c.heads * c.head_dim, KD = c.kv_heads * c.head_dim;
    DecoderWeights weights;
    weights.embed = read.matrix("model.embed_tokens.weight", c.vocab, c.hidden);
    weights.head = read.has("lm_head.weight") ? read.matrix("lm_head.weight", c.vocab, c.hidden) : weights.embed;
    if (read.has("model.embed_positions.weight"))
        weights.positions = read.matrix("model.embed_positions.weight", dimension(config, "max_position_embeddings"), c.hidden);
    // Gemma's files hold what is added to 1.
    const auto with_offset = [offset = nb::cast<float>(config["norm_offset"])](std::vector<float> weight) {
        for (float& w : weight) w += offset;
        return weight;
    };
    const auto norm = [&](const std::string& name) {
        Norm n{with_offset(read.optional_vector(name + ".weight", c.hidden)), read.optional_vector(name + ".bias", c.hidden)};
        if (c.layer_norm != !n.bias.empty() && n) throw std::invalid_argument(name + " has a bias, or lacks one");
        return n;
    };
    weights.norm = norm("model.norm");
    if (!weights.norm) throw std::invalid_argument("tensor model.norm.weight is missing");
    // Of each head by itself, or of all of them together: its size tells.
    const auto head_norm = [&](const std::string& name, int64_t together) {
        return with_offset(read.optional_vector(name, read.size(name) == c.head_dim ? c.head_dim : together));
    };
    for (int64_t i = 0; i < c.layers; i++) {
        const std::string layer = "model.layers." + std::to_string(i) + ".";
        LayerWeights& l = weights.layers.emplace_back();
        // Where a norm follows the MLP, "post_attention" means what it says; in the others it stands before the MLP.
        const bool post = read.has(layer + "post_feedforward_layernorm.weight");
        l.attention_norm = norm(layer + "input_layernorm");
        l.mlp_norm = norm(layer + (post ? "pre_feedforward_layernorm" : "post_attention_layernorm"));
        if (post) l.attention_post = norm(layer + "post_attention_layernorm"), l.mlp_post = norm(layer + "post_feedforward_layernorm");
        else if (!l.attention_norm || !l.mlp_norm) throw std::invalid_argument("a norm of " + layer + " is missing");
        l.q = read.matrix(layer + "self_attn.q_proj.weight", HD, c.hidden);
        l.k = read.matrix(layer + "self_attn.k_proj.weight", KD, c.hidden);
        l.v = read.matrix(layer + "self_attn.v_proj.weight", KD, c.hidden);
        l.o = read.matrix(layer + "self_attn.o_proj.weight", c.hidden, HD);
        l.q_bias = read.optional_vector(layer + "self_attn.q_proj.bias", HD);
        l.k_bias = read.optional_vector(layer + "self_attn.k_proj.bias", KD);
        l.v_bias = read.optional_vector(layer + "self_attn.v_proj.bias", KD);
        l.o_bias = read.optional_vector(layer + "self_attn.o_proj.bias", c.hidden);
        l.q_norm = head_norm(layer + "self_attn.q_norm.weight", HD);
        l.k_norm = head_norm(layer + "self_attn.k_norm.weight", KD);
        if (read.has(layer + "mlp.gate.weight")) {
            if (!l.mlp_norm || post) throw std::invalid_argument("the norms of " + layer + " do not go with experts");
            l.experts = read_experts(read, c, config, layer + "mlp.");
            continue;
        }
        if (read.has(layer + "mlp.gate_proj.weight"))
            l.gate = read.matrix(layer + "mlp.gate_proj.weight", c.intermediate, c.hidden);
        else if (!c.gelu) throw std::invalid_argument("tensor " + layer + "mlp.gate_proj.weight is missing");
        l.gate_bias = read.optional_vector(layer + "mlp.gate_proj.bias", c.intermediate);
        l.up_bias = read.optional_vector(layer + "mlp.up_proj.bias", c.intermediate);
        l.down_bias = read.optional_vector(layer + "mlp.down_proj.bias", c.hidden);
        l.up = read.matrix(layer + "mlp.up_proj.weight", c.intermediate, c.hidden);
        l.down = read.matrix(layer + "mlp.down_proj.weight", c.hidden, c.intermediate);
    }
    return weights;
}

}  // namespace quinze
