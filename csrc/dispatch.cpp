// Which kernels this CPU can run, asked once.
#include <cstring>

#include "kernels.h"

namespace quinze {

#if !defined(QUINZE_HAS_AVX2)
const Kernels* avx2_kernels() { return nullptr; }  // kernels_avx2.cpp is not part of a build for another CPU
#endif

bool cpu_has_avx2() {
#if defined(__x86_64__)
    static const bool has =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    return has && avx2_kernels() != nullptr;
#else
    return false;
#endif
}

const Kernels* find_kernels(const char* name) {
    if (std::strcmp(name, "scalar") == 0) return &scalar_kernels();
    if (std::strcmp(name, "avx2") == 0) return cpu_has_avx2() ? avx2_kernels() : nullptr;
    if (std::strcmp(name, "auto") == 0) return cpu_has_avx2() ? avx2_kernels() : &scalar_kernels();
    return nullptr;
}

}  // namespace quinze
