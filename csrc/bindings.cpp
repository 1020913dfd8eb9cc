// The door between Python and the native code: shapes are checked here, and nowhere below.
#include <nanobind/nanobind.h>

namespace quinze { bool cpu_has_avx2(); }

NB_MODULE(_C, m) {
    m.def("cpu_has_avx2", &quinze::cpu_has_avx2);
}
