# Every native source file, and the flags of each: AVX2 on one file only, so that the rest runs anywhere.
add_library(quinze_kernels STATIC csrc/dispatch.cpp)
target_include_directories(quinze_kernels PUBLIC csrc)
target_compile_options(quinze_kernels PRIVATE -O3 -Wall -Wextra)
target_link_libraries(quinze_kernels PUBLIC Threads::Threads)
set_target_properties(quinze_kernels PROPERTIES POSITION_INDEPENDENT_CODE ON)
