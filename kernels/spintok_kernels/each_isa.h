// Includes the file SPINTOK_BODY once for each instruction set, in a namespace of that name: portable, avx2, avx512.
// SPINTOK_WIDTH is the number of floats in a vector.

#define SPINTOK_ISA portable
#define SPINTOK_WIDTH 4
#include SPINTOK_BODY
#undef SPINTOK_ISA
#undef SPINTOK_WIDTH

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,fma,prefer-vector-width=512")
#endif
#define SPINTOK_ISA avx512
#define SPINTOK_WIDTH 16
#include SPINTOK_BODY
#undef SPINTOK_ISA
#undef SPINTOK_WIDTH
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#define SPINTOK_ISA avx2
#define SPINTOK_WIDTH 8
#include SPINTOK_BODY
#undef SPINTOK_ISA
#undef SPINTOK_WIDTH
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
