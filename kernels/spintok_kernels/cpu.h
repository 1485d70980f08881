// What the compiled CPU kernels share: the instruction sets there may be, the best that is there, and threads.
#pragma once

#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace {

enum Isa { PORTABLE = 0, AVX2 = 1, AVX512 = 2 };

// The best of this machine.
inline int best_isa() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return AVX2;
#endif
    return PORTABLE;
}

// Calls work() on `threads` threads, this one included, or on as many as can be had; work must not throw.
template <class Work>
void on_threads(int64_t threads, Work &work) {
    std::vector<std::thread> others;
    try {
        for (int64_t i = 1; i < threads; ++i) others.emplace_back([&work] { work(); });
    } catch (const std::system_error &) {
        // No more threads to be had: those that run do all the work.
    }
    work();
    for (auto &thread : others) thread.join();
}

}  // namespace
