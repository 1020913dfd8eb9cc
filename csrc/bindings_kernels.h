// What both parts of the bindings need: weights checked for their size, and new arrays given to Python.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>

#include "packed.h"

namespace quinze {

using WeightBytes = nanobind::ndarray<const uint8_t, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;
using Floats1 = nanobind::ndarray<const float, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;

// Throws std::invalid_argument, naming `name`, unless the bytes are exactly those of such a matrix.
Weight check_weight(int type, int64_t rows, int64_t cols, const WeightBytes& bytes, const std::string& name);
// "scalar", "avx2" or "auto"; throws std::invalid_argument where this CPU has no such kernels.
const Kernels& kernels_named(const std::string& name);
// `_C.kernels(name)`: each kernel by itself, for tests and benchmarks.
void bind_kernels(nanobind::module_& m);

template <class T>
nanobind::ndarray<nanobind::numpy, T, nanobind::c_contig> give(std::unique_ptr<T[]> values, std::initializer_list<size_t> shape) {
    T* data = values.release();
    nanobind::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
    return nanobind::ndarray<nanobind::numpy, T, nanobind::c_contig>(data, shape, owner);
}

}  // namespace quinze
