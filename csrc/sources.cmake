# Every native source file, and the flags of each: AVX2 on one file only, so that the rest runs anywhere.
add_library(quinze_kernels STATIC
  csrc/kernels_scalar.cpp
  csrc/kernels_packed.cpp
  csrc/dispatch.cpp
  csrc/adapter.cpp
  csrc/cache.cpp
  csrc/decoder.cpp
  csrc/decoder_attention.cpp
  csrc/decoder_mlp.cpp
  csrc/decoder_products.cpp
  csrc/encode.cpp
  csrc/observer.cpp
  csrc/experts.cpp
  csrc/sampling.cpp
  csrc/step.cpp
)
target_include_directories(quinze_kernels PUBLIC csrc)
target_compile_options(quinze_kernels PRIVATE -O3 -Wall -Wextra)
target_link_libraries(quinze_kernels PUBLIC Threads::Threads)
set_target_properties(quinze_kernels PROPERTIES POSITION_INDEPENDENT_CODE ON)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  target_sources(quinze_kernels PRIVATE csrc/kernels_avx2.cpp)
  set_source_files_properties(csrc/kernels_avx2.cpp PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
  target_compile_definitions(quinze_kernels PRIVATE QUINZE_HAS_AVX2)
endif()
