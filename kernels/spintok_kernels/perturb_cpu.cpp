// Speaker perturbation on the CPU: pitch candidates, pitch-synchronous overlap-add, recursive filters.
//
// Plain C interface, called through ctypes. GCC or Clang, for their vector types; the file includes its parts once for
// each instruction set. Threads share a call by utterances, and an utterance is worked on by one thread alone: what it
// becomes depends neither on the others nor on the number of threads.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#include "cpu.h"

#if !defined(__GNUC__)
#error "perturb_cpu.cpp needs GCC or Clang; without it spintok perturbs with torch"
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// Vectors must not cross a call: templates and lambdas do not reliably take on the instruction set around them, and the
// calling convention depends on it. Everything that passes one is inlined into a function that has none in its
// signature.
#define SPINTOK_LAMBDA __attribute__((always_inline))
#define SPINTOK_INLINE SPINTOK_LAMBDA inline
#pragma GCC diagnostic ignored "-Wpsabi"

namespace {

enum Status { OK = 0, NO_MEMORY = 1, UNSUPPORTED = 2 };

// Arrays of floats that a thread keeps from one utterance to the next, cache-line aligned.
struct Scratch {
    std::vector<float> memory[4];
    std::vector<double> numbers[2];
    float *floats(int which, int64_t count) {
        auto &array = memory[which];
        if (static_cast<int64_t>(array.size()) < count + 16) array.resize(count + 16);
        return reinterpret_cast<float *>((reinterpret_cast<uintptr_t>(array.data()) + 63) / 64 * 64);
    }
};

// Calls work(utterance, scratch) for each of a batch.
template <class Work>
int each_utterance(int threads, int64_t batch, Work work) {
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    auto run = [&] {
        try {
            Scratch scratch;
            for (int64_t i; (i = next++) < batch;) work(i, scratch);
        } catch (const std::bad_alloc &) {
            failed = true;
        }
    };
    on_threads(std::min<int64_t>(threads, batch), run);
    return failed ? NO_MEMORY : OK;
}

// `count` numbers, then zeros up to `padded`, after `before` zeros.
void pad(float *out, int64_t before, const float *in, int64_t count, int64_t padded) {
    std::fill_n(out, before, 0.0f);
    std::copy_n(in, count, out + before);
    std::fill(out + before + count, out + before + padded, 0.0f);
}

// The pitch tracker's sizes: samples at 16 kHz and at a fourth of it. The tables that come with a call have them.
constexpr int64_t PITCH_HOP = 160, DECIMATION = 4, LOW_HOP = PITCH_HOP / DECIMATION;
constexpr int64_t TAPS_LOW = 49, WINDOW = 160, HALF = WINDOW / 2, BINS = 64, CANDIDATES = 81, LAGS = 96;

struct Decimation {
    const float *waveforms;  // (batch, samples)
    int64_t samples;
    const int64_t *lengths;
    const float *kernel;     // (TAPS_LOW)
    float *low;              // (batch, columns)
    int64_t columns;
};

struct Candidates {
    const float *low;     // (batch, frames * LOW_HOP)
    int64_t frames;
    const float *cosine;  // (HALF, BINS): the window times the cosine, from its middle on
    const float *sine;
    const float *lags;    // (BINS, LAGS): power spectrum -> correlations, then the energy, then padding
    float bonus;          // strength a candidate gets over the one below
    float *strengths;     // (batch, frames, LAGS)
    float *energy;        // (batch, frames)
};

struct Choice {
    const float *strengths;  // (batch, frames, LAGS)
    int64_t frames;
    const float *lowest;     // (batch): the range of candidates, in steps
    const float *highest;
    float *best;             // (batch, frames)
    float *place;
    float *offset;
};

// Samples of a cell, in which the pitch is constant; of a grain without pitch; of the low-pass between samples.
constexpr int64_t CELL = 80, LOW_CELL = CELL / DECIMATION, UNVOICED_PERIOD = 160, TAPS = 18, BEFORE = 8;
constexpr int64_t MARKS = 5;      // grains that begin in a cell at most
constexpr int64_t ALIGNMENT = 9;  // cells
constexpr int64_t REACH = 768;    // samples that a grain is read from its cell
// Columns of the interpolating polynomials that are worked out at a time, and that are kept.
constexpr int64_t CHUNK_CELLS = 64, CHUNK = CHUNK_CELLS * CELL, KEPT = CHUNK + 2 * REACH + 128;

struct OverlapAdd {
    const float *waveforms;  // (batch, samples)
    int64_t samples;
    const int64_t *lengths;
    const float *low;        // (batch, cells * LOW_CELL)
    int64_t cells;
    const float *old_rate;   // (batch, cells), cycles a sample
    const float *new_rate;
    const uint8_t *voiced;
    const float *narrowing;  // (batch, cells, 2)
    const float *overlap;
    const float *speed;      // (batch)
    const float *kernels;    // (batch, 4, TAPS)
    const float *smoother;   // (ALIGNMENT)
    float *output;           // (batch, samples)
};

constexpr int64_t SECTIONS = 16;

struct Cascade {
    const float *waveforms;  // (batch, samples)
    int64_t batch, samples;
    const double *sections;  // (batch, count, 5): b0 b1 b2 a1 a2
    int64_t count, streams;
    float *output;           // (batch, samples)
};

// Numbers too small to be normal are taken for zero while this lives: after silence a filter would live on them.
struct FlushToZero {
#if defined(__x86_64__)
    unsigned before = _mm_getcsr();
    FlushToZero() { _mm_setcsr(before | 0x8040); }
    ~FlushToZero() { _mm_setcsr(before); }
#else
    FlushToZero() {}
#endif
};

}  // namespace

#define SPINTOK_ISA portable
#define SPINTOK_WIDTH 4
#include "perturb_parts.h"
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
#include "perturb_parts.h"
#undef SPINTOK_ISA
#undef SPINTOK_WIDTH
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define SPINTOK_ISA avx2
#define SPINTOK_WIDTH 8
#include "perturb_parts.h"
#undef SPINTOK_ISA
#undef SPINTOK_WIDTH
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

namespace {

template <class Task>
using Pass = void (*)(const Task &, int64_t utterance, Scratch &);

// Runs `pass` of the wanted instruction set over all utterances.
template <class Task>
int run(const Task &task, const Pass<Task> (&passes)[3], int64_t batch, int isa, int threads) {
    if (isa < PORTABLE || isa > best_isa()) return UNSUPPORTED;
    return each_utterance(threads, batch, [&](int64_t i, Scratch &scratch) { passes[isa](task, i, scratch); });
}

#if defined(__x86_64__)
#define SPINTOK_PASSES(name) {portable::name, avx2::name, avx512::name}
#else
#define SPINTOK_PASSES(name) {portable::name, portable::name, portable::name}
#endif

}  // namespace

extern "C" {

#define SPINTOK_EXPORT __attribute__((visibility("default")))

SPINTOK_EXPORT int spintok_perturb_abi() { return 1; }

SPINTOK_EXPORT int spintok_perturb_isa() { return best_isa(); }

SPINTOK_EXPORT int spintok_decimate(const float *waveforms, int64_t batch, int64_t samples, const int64_t *lengths,
                                    const float *kernel, int isa, int threads, float *low, int64_t columns) {
    static const Pass<Decimation> passes[] = SPINTOK_PASSES(decimate);
    return run({waveforms, samples, lengths, kernel, low, columns}, passes, batch, isa, threads);
}

SPINTOK_EXPORT int spintok_candidates(const float *low, int64_t batch, int64_t frames, const float *cosine,
                                      const float *sine, const float *lags, float bonus, int isa, int threads,
                                      float *strengths, float *energy) {
    static const Pass<Candidates> passes[] = SPINTOK_PASSES(candidates);
    return run({low, frames, cosine, sine, lags, bonus, strengths, energy}, passes, batch, isa, threads);
}

SPINTOK_EXPORT int spintok_choose(const float *strengths, int64_t batch, int64_t frames, const float *lowest,
                                  const float *highest, int isa, int threads, float *best, float *place,
                                  float *offset) {
    static const Pass<Choice> passes[] = SPINTOK_PASSES(choose);
    return run({strengths, frames, lowest, highest, best, place, offset}, passes, batch, isa, threads);
}

SPINTOK_EXPORT int spintok_overlap_add(const float *waveforms, int64_t batch, int64_t samples, const int64_t *lengths,
                                       const float *low, int64_t cells, const float *old_rate, const float *new_rate,
                                       const uint8_t *voiced, const float *narrowing, const float *overlap,
                                       const float *speed, const float *kernels, const float *smoother, int isa,
                                       int threads, float *output) {
    static const Pass<OverlapAdd> passes[] = SPINTOK_PASSES(overlap_add);
    return run({waveforms, samples, lengths, low, cells, old_rate, new_rate, voiced, narrowing, overlap, speed, kernels,
                smoother, output},
               passes, batch, isa, threads);
}

SPINTOK_EXPORT int spintok_cascade(const float *waveforms, int64_t batch, int64_t samples, const double *sections,
                                   int64_t count, int isa, int threads, float *output) {
    static const Pass<Cascade> passes[] = SPINTOK_PASSES(cascade);
    const int64_t streams = batch >= 2 * threads ? 2 : 1;
    const Cascade task{waveforms, batch, samples, sections, count, streams, output};
    return run(task, passes, (batch + streams - 1) / streams, isa, threads);
}

}  // extern "C"
