#pragma once

// A loop compiled several times, for the widest vectors of the machine it runs on. Floating-point contraction is off
// (CMakeLists.txt), so every version computes the same bits.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define ISTHMUS_VECTORIZED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), optimize("O3")))
#else
#define ISTHMUS_VECTORIZED
#endif
