// What the compiled CPU kernels share: detection of the instruction set, threads, floating-point modes.
#pragma once

#if !defined(__GNUC__)
#error "GCC or Clang is needed for their vector types; without it spintok_kernels runs on torch"
#endif

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// The exported functions of the plain C interface.
#define SPINTOK_EXPORT __attribute__((visibility("default")))

// A vector must not cross a call: templates and lambdas do not reliably inherit the instruction set of the code around
// them, and the calling convention depends on it. Everything that takes or returns a vector is inlined into a function
// that has none in its signature.
#define SPINTOK_LAMBDA __attribute__((always_inline))
#define SPINTOK_INLINE SPINTOK_LAMBDA inline
#pragma GCC diagnostic ignored "-Wpsabi"

namespace {

enum Isa { PORTABLE = 0, AVX2 = 1, AVX512 = 2 };

// The best instruction set of this CPU.
inline int best_isa() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) return AVX2;
#endif
    return PORTABLE;
}

// A table of one pass for each instruction set, indexed by Isa.
#if defined(__x86_64__)
#define SPINTOK_PASSES(name) {portable::name, avx2::name, avx512::name}
#else
#define SPINTOK_PASSES(name) {portable::name, portable::name, portable::name}
#endif

// GOMP_parallel of the OpenMP that torch has loaded, or null.
using Team = void (*)(void (*work)(void *), void *context, unsigned threads, unsigned flags);
std::atomic<Team> torch_team{nullptr};

// Calls work(i, state) for every i in [0, count) on at most `threads` threads, this one included. Every thread has its
// own `State`. Throws std::bad_alloc if work does; work must throw nothing else.
//
// The threads are those of torch, if it has any: they wait for work in a loop for some time after each operation of
// torch, and threads of our own would have to wait for their cores.
template <class State, class Work>
void parallel(int64_t count, int threads, const Work &work) {
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    auto loop = [&] {
        try {
            State state;
            for (int64_t i; (i = next++) < count;) work(i, state);
        } catch (const std::bad_alloc &) {
            failed = true;
        }
    };
    const Team team = torch_team;
    if (threads < 2 || count < 2) {
        loop();
    } else if (team) {
        // All threads, as torch does, even if there is not work for all: GNU's OpenMP ends threads that are left out.
        team([](void *context) { (*static_cast<decltype(loop) *>(context))(); }, &loop, static_cast<unsigned>(threads), 0);
    } else {
        std::vector<std::thread> others;
        try {
            for (int64_t i = 1; i < std::min<int64_t>(threads, count); ++i) others.emplace_back(loop);
        } catch (const std::system_error &) {
            // The system has no more threads: those that started do all the work.
        }
        loop();
        for (auto &thread : others) thread.join();
    }
    if (failed) throw std::bad_alloc();
}

struct NoState {};

template <class Work>
void parallel(int64_t count, int threads, const Work &work) {
    parallel<NoState>(count, threads, [&](int64_t i, NoState &) { work(i); });
}

// Sets the floating-point modes of this thread until the end of the scope.
class FloatModes {
#if defined(__x86_64__)
  public:
    static constexpr unsigned DEFAULT = 0x1f80, FLUSH_SUBNORMALS = 0x9fc0;
    explicit FloatModes(unsigned modes) : before(_mm_getcsr()) { _mm_setcsr(modes); }
    ~FloatModes() { _mm_setcsr(before); }

  private:
    unsigned before;
#else
  public:
    static constexpr unsigned DEFAULT = 0, FLUSH_SUBNORMALS = 0;
    explicit FloatModes(unsigned) {}
#endif
};

}  // namespace
