// The table of kernels: what a CPU must be able to do so that a decoder can run on it.
//
// kernels_scalar.cpp is the specification; kernels_avx2.cpp holds the same functions, by the same names, fast.
// A kernel knows nothing of models, threads or Python. All shapes are checked by whoever fills the arguments.
// T tokens, C columns, D head size, H query heads; one "row" of a weight makes one number of the output.
#pragma once
#include "blocks.h"

namespace quinze {

// T rows of activations, in every form that the weights at hand multiply with.
struct Activations {
    int64_t cols = 0;
    const float* f32 = nullptr;     // (T, cols)            for F32, F16, BF16
    const int8_t* q8 = nullptr;     // (T, cols)            for quantized weights: x is about scale * q8
    const int16_t* q16 = nullptr;   // (T, cols)            the same numbers wider: what gemm of Q8_0 reads
    const float* scale = nullptr;   // (T, cols / 32)
    const int32_t* sum8 = nullptr;  // (T, cols / 32)       8 * sum of the block's q8: Q4_0 stores weight + 8, others a minimum
    // (T, cols / 16) of 16 columns, two int16: -32 * sum of the q8 where column % 4 < 2, and of the rest. Q6_K stores
    // weight + 32, and what its products must lose is known in the form in which they are summed.
    const int32_t* minus32 = nullptr;
};

// Memory of one thread, for panels and tiles. Aligned to 64 bytes.
inline constexpr int64_t kScratchBytes = 512 * 1024;
inline constexpr int64_t kMaxHeadDim = 256;
inline constexpr int64_t kMaxTokens = 256;  // tokens in one call of gemm

// Where one layer's keys and values lie: pages of kPageTokens positions.
inline constexpr int64_t kPageTokens = 128;
struct KVView {
    std::byte* const* pages = nullptr;
    int64_t k_offset = 0, v_offset = 0;  // bytes from a page's beginning to this layer's keys and values
    int64_t head_bytes = 0;              // bytes from one head to the next: kPageTokens * D numbers
    int64_t head_dim = 0;
    Type type = Type::F16;               // F16, F32 or Q8_0
};
// Bytes of the D numbers of one head at one position. Q8_0: whole blocks of 32, the last one filled up with zeros.
[[maybe_unused]] static int64_t kv_row_bytes(Type type, int64_t D) {
    return (D + info(type).block - 1) / info(type).block * info(type).bytes;
}

inline constexpr int64_t kMaxAttentionRows = 48;  // query rows in one AttentionTask

// Some query rows of one key/value head against some of its keys, as one piece of a softmax that is merged later.
// A row is (token t, head g of the group): row = t * group + g, and it sees the keys 0 .. past + t.
struct AttentionTask {
    const float* q = nullptr;            // (T, H, D)
    int64_t heads = 0, group = 0, kv_head = 0;
    int64_t row0 = 0, row1 = 0;          // rows [row0, row1), at most kMaxAttentionRows
    int64_t past = 0;                    // positions in the cache before the first token of q
    int64_t key0 = 0, key1 = 0;          // keys [key0, key1) are looked at
    float scale = 0;
    KVView kv;
    float* max = nullptr;                // out (rows,)    largest score; -inf where no key was seen
    float* sum = nullptr;                // out (rows,)    sum of exp(score - max)
    float* acc = nullptr;                // out (rows, D)  sum of exp(score - max) * v
    int64_t window = 0;                  // a token sees its last `window` keys, its own among them; 0: all before it
    float softcap = 0;                   // scores become softcap * tanh(score / softcap); 0: they stay
    // Two ways to the same sums, which round differently: for rows that come one by one, and for many at once. What a row
    // gets hangs on this alone, never on the other rows of the task or on where the keys are parted into pages.
    bool few = false;
};

struct Kernels {
    const char* name;

    // y = W[row0:row1] x for one token. y (row1 - row0,). Of packed weights row0 is a multiple of 16, here and below.
    void (*gemv[kTypes])(const Weight& w, int64_t row0, int64_t row1, const Activations& x, float* y);
    // Y = X W[row0:row1]^T for T <= kMaxTokens tokens. y (T, ldy), its first row1 - row0 columns are written
    void (*gemm[kTypes])(const Weight& w, int64_t row0, int64_t row1, const Activations& x, int64_t tokens,
                         float* y, int64_t ldy, std::byte* scratch);
    // One row of any format that files have -> float32. Rows of packed weights: read_row (packed.h).
    void (*dequantize[kFileTypes])(const std::byte* row, int64_t cols, float* y);
    // x (cols,) -> q8, scale, sum8, minus32, and q16 unless null. cols is a multiple of 32.
    void (*quantize)(const float* x, int64_t cols, int8_t* q8, int16_t* q16, float* scale, int32_t* sum8, int32_t* minus32);
    // 16 rows of a quantized matrix of a file -> panel_bytes (packed.h); the last panel is filled up with zeros.
    void (*pack)(const Weight& w, int64_t panel, std::byte* to);

    // y = x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019)
    void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps, float* y);
    // Turns pairs of x (heads, D) by the angles of one position (Su et al. 2021). cos, sin (D / 2,)
    void (*rope)(float* x, const float* cos, const float* sin, int64_t heads, int64_t head_dim, bool interleaved);
    void (*softmax)(float* x, int64_t n);
    // gate = silu(gate) * up, silu(g) = g / (1 + exp(-g)) (Shazeer 2020)
    void (*silu_mul)(float* gate, const float* up, int64_t n);
    void (*add)(float* x, const float* y, int64_t n);  // x += y
    float (*max)(const float* x, int64_t n);
    // sum of exp(x - max); NaN in, NaN out
    double (*sum_exp)(const float* x, int64_t n, float max);
    void (*store_f16)(const float* x, int64_t n, uint16_t* y);
    // x (n,) -> kv_row_bytes(Q8_0, n) bytes: blocks of 32 with scale = largest / 127
    void (*store_q8_0)(const float* x, int64_t n, std::byte* y);
    void (*attention)(const AttentionTask& task, std::byte* scratch);

    // What some families want besides.
    // y = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias (Ba et al. 2016). x and y may be the same
    void (*layer_norm)(const float* x, const float* weight, const float* bias, int64_t n, float eps, float* y);
    // GELU by its tanh formula, x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3) (Hendrycks and Gimpel 2016)
    void (*gelu)(float* x, int64_t n);
    void (*gelu_mul)(float* gate, const float* up, int64_t n);  // gate = gelu(gate) * up
    void (*softcap)(float* x, int64_t n, float cap);            // x = cap * tanh(x / cap) (Gemma 2)
};

const Kernels& scalar_kernels();
const Kernels* avx2_kernels();  // null where this build or this CPU has none
bool cpu_has_avx2();
// "scalar", "avx2" or "auto"; null if this CPU cannot run them
const Kernels* find_kernels(const char* name);

}  // namespace quinze
