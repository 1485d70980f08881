// The passes of Sinkhorn and of the swapped-prediction loss over stored float32 scores, on the CPU.
//
// Plain C interface, called through ctypes. Each pass reads a row from memory once and rereads it from the cache.
//
// Rows are divided into at most GROUPS groups, whose partial sums are added in order, in float64: the number of threads
// does not change the bits of the result. Scores are in units of log2, so that exp is 2^x.

#include <cmath>
#include <cstring>

#include "../cpu.h"

namespace {

enum Status { OK = 0, NO_MEMORY = 1, UNSUPPORTED = 2 };

constexpr int64_t GROUPS = 64;
// Rows whose sum is accumulated in float32 before it is added in float64.
constexpr int64_t STRIP = 128;
constexpr float LOWEST = -3e38f;

struct Task {
    float *scores;    // (views, n, k); swap overwrites them by gradients
    int64_t views, n, k;
    float scale;      // log2(e) / epsilon
    const float *u;   // (views, k), in units of log2
    float inverse;    // log2(e) / temperature
    bool gradients, metrics;
    double *sums;     // (groups, views, k): column results of each group
    double *extra;    // swap: (groups, views, k) counts of the best codes
    double *numbers;  // swap: (groups, 2): loss, rows whose views agree
    int64_t groups;
    int64_t first(int64_t group) const { return n * group / groups; }
};

int64_t group_count(int64_t n) { return std::max<int64_t>(1, std::min(GROUPS, n / 16)); }

}  // namespace

#define SPINTOK_BODY "swapped_prediction/passes.h"
#include "../each_isa.h"

namespace {

using Pass = void (*)(const Task &, int64_t group);

// Runs the pass of instruction set `isa` on all groups.
int run(const Task &task, const Pass (&passes)[3], int isa, int threads) {
    if (isa < PORTABLE || isa > best_isa()) return UNSUPPORTED;
    try {
        parallel(task.groups, threads, [&](int64_t group) { passes[isa](task, group); });
    } catch (const std::bad_alloc &) {
        return NO_MEMORY;
    }
    return OK;
}

}  // namespace

extern "C" {

SPINTOK_EXPORT int spintok_loss_abi() { return 2; }

SPINTOK_EXPORT int spintok_loss_isa() { return best_isa(); }

SPINTOK_EXPORT void spintok_loss_use(Team team) { torch_team = team; }

SPINTOK_EXPORT int64_t spintok_loss_groups(int64_t n) { return group_count(n); }

// Writes log2 of the column sums of 2^(scale * score) of each group of rows to sums (groups, views, k).
SPINTOK_EXPORT int spintok_column_logsumexp(float *scores, int64_t views, int64_t n, int64_t k, float scale,
                                            int isa, int threads, double *sums) {
    static const Pass passes[] = SPINTOK_PASSES(column_logsumexp);
    const Task task{scores, views, n, k, scale, nullptr, 0, false, false, sums, nullptr, nullptr, group_count(n)};
    return run(task, passes, isa, threads);
}

// Writes the column sums of the row-wise softmax of scale * score + u to sums (groups, views, k).
SPINTOK_EXPORT int spintok_column_totals(float *scores, int64_t views, int64_t n, int64_t k, float scale,
                                         const float *u, int isa, int threads, double *sums) {
    static const Pass passes[] = SPINTOK_PASSES(column_totals);
    const Task task{scores, views, n, k, scale, u, 0, false, false, sums, nullptr, nullptr, group_count(n)};
    return run(task, passes, isa, threads);
}

// The last pass over both views. Writes the loss and the number of agreeing rows to numbers (groups, 2). With `metrics`,
// writes column sums of the predictions to sums and counts of their best codes to counts. With `gradients`, overwrites
// the scores by the prediction minus the target of the other view.
SPINTOK_EXPORT int spintok_swap(float *scores, int64_t n, int64_t k, float scale, const float *u, float inverse,
                                int gradients, int metrics, int isa, int threads, double *sums, double *counts,
                                double *numbers) {
    static const Pass passes[] = SPINTOK_PASSES(swap);
    const Task task{scores, 2, n, k, scale, u, inverse, gradients != 0, metrics != 0,
                    sums, counts, numbers, group_count(n)};
    return run(task, passes, isa, threads);
}

}  // extern "C"
