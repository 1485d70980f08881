// Speaker perturbation on the CPU: pitch candidates, pitch-synchronous overlap-add, recursive filters.
//
// Plain C interface, called through ctypes. One thread processes an utterance, so its result depends neither on the
// other utterances nor on the number of threads.

#include <cmath>
#include <cstring>

#include "../cpu.h"

namespace {

enum Status { OK = 0, NO_MEMORY = 1, UNSUPPORTED = 2 };

// Arrays, aligned to cache lines, that a thread reuses from one utterance to the next.
struct Scratch {
    std::vector<float> memory[4];
    std::vector<double> numbers[2];
    float *floats(int which, int64_t count) {
        auto &array = memory[which];
        if (static_cast<int64_t>(array.size()) < count + 16) array.resize(count + 16);
        return reinterpret_cast<float *>((reinterpret_cast<uintptr_t>(array.data()) + 63) / 64 * 64);
    }
};

// Writes `before` zeros, `count` numbers, and zeros up to `padded` numbers after the first zeros.
void pad(float *out, int64_t before, const float *in, int64_t count, int64_t padded) {
    std::fill_n(out, before, 0.0f);
    std::copy_n(in, count, out + before);
    std::fill(out + before + count, out + before + padded, 0.0f);
}

// Sizes of the pitch tracker, in samples at 16 kHz and at a fourth of it; see tables.py, whose tables each call passes.
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
    const float *cosine;  // (HALF, BINS): the second half of the windowed cosine
    const float *sine;
    const float *lags;    // (BINS, LAGS): power spectrum -> correlations, then the energy, then padding
    float bonus;          // added to the strength for each candidate below
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

// Samples of a cell, in which the pitch is constant; of a grain without pitch; of the interpolating low-pass.
constexpr int64_t CELL = 80, LOW_CELL = CELL / DECIMATION, UNVOICED_PERIOD = 160, TAPS = 18, BEFORE = 8;
constexpr int64_t MARKS = 5;      // the largest number of grains that begin in a cell
constexpr int64_t ALIGNMENT = 9;  // cells
constexpr int64_t REACH = 768;    // the largest distance in samples at which a cell reads a grain
// Columns of the interpolating polynomials that are computed at a time, and that are stored.
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

}  // namespace

#define SPINTOK_BODY "perturb/passes.h"
#include "../each_isa.h"

namespace {

template <class Task>
using Pass = void (*)(const Task &, int64_t utterance, Scratch &);

// Runs the pass of instruction set `isa` on all utterances.
template <class Task>
int run(const Task &task, const Pass<Task> (&passes)[3], int64_t batch, int isa, int threads) {
    if (isa < PORTABLE || isa > best_isa()) return UNSUPPORTED;
    try {
        parallel<Scratch>(batch, threads, [&](int64_t i, Scratch &scratch) { passes[isa](task, i, scratch); });
    } catch (const std::bad_alloc &) {
        return NO_MEMORY;
    }
    return OK;
}

}  // namespace

extern "C" {

SPINTOK_EXPORT int spintok_perturb_abi() { return 2; }

SPINTOK_EXPORT int spintok_perturb_isa() { return best_isa(); }

SPINTOK_EXPORT void spintok_perturb_use(Team team) { torch_team = team; }

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
