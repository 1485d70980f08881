// The passes of Sinkhorn and of the swapped-prediction loss over stored float32 scores, on the CPU.
//
// Plain C interface, called through ctypes. GCC or Clang, for their vector types; the file includes itself once for
// each instruction set. Each pass reads a row from memory once; what it needs again stays in the first caches.
//
// Rows are cut into at most GROUPS groups, whose partial sums are added in order, in float64: the result has the same
// bits whatever the number of threads. Scores are in units of log2 inside, so that exp is 2^x.

#ifndef SPINTOK_ISA

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

#include "cpu.h"

#if !defined(__GNUC__)
#error "loss_cpu.cpp needs GCC or Clang; without it spintok_kernels computes with torch"
#endif

// Vectors must not cross a call: templates and lambdas do not reliably take on the instruction set around them, and the
// calling convention depends on it. Everything that passes one is inlined into a pass, which has none in its signature.
#define SPINTOK_LAMBDA __attribute__((always_inline))
#define SPINTOK_INLINE SPINTOK_LAMBDA inline
#pragma GCC diagnostic ignored "-Wpsabi"

namespace {

enum Status { OK = 0, NO_MEMORY = 1, UNSUPPORTED = 2 };

constexpr int64_t GROUPS = 64;
// Rows summed in float32 before their sum goes to float64.
constexpr int64_t STRIP = 128;
constexpr float LOWEST = -3e38f;
// 2^f for |f| <= 1/2, least maximal relative error: 2e-9.
constexpr float C0 = 1.000000001f, C1 = 0.6931472057f, C2 = 0.2402264689f, C3 = 0.05550328777f,
                C4 = 0.009618488974f, C5 = 0.001339993118f, C6 = 0.0001534580749f;

struct Task {
    float *scores;    // (views, n, k); overwritten by swap with gradients
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

template <class Work>
void parallel(int threads, int64_t pieces, Work work) {
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    auto run = [&] {
        try {
            for (int64_t i; (i = next++) < pieces;) work(i);
        } catch (const std::bad_alloc &) {
            failed = true;
        }
    };
    on_threads(std::min<int64_t>(threads, pieces), run);
    if (failed) throw std::bad_alloc();
}

}  // namespace

#define SPINTOK_ISA portable
#define SPINTOK_WIDTH 4
#include "loss_cpu.cpp"
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
#include "loss_cpu.cpp"
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
#include "loss_cpu.cpp"
#undef SPINTOK_ISA
#undef SPINTOK_WIDTH
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

namespace {

using Pass = void (*)(const Task &, int64_t group);

// Runs `pass` of the wanted instruction set over all groups.
int run(const Task &task, const Pass (&passes)[3], int isa, int threads) {
    if (isa < PORTABLE || isa > best_isa()) return UNSUPPORTED;
    try {
        parallel(threads, task.groups, [&](int64_t group) { passes[isa](task, group); });
    } catch (const std::bad_alloc &) {
        return NO_MEMORY;
    }
    return OK;
}

#if defined(__x86_64__)
#define SPINTOK_PASSES(name) {portable::name, avx2::name, avx512::name}
#else
#define SPINTOK_PASSES(name) {portable::name, portable::name, portable::name}
#endif

}  // namespace

extern "C" {

#define SPINTOK_EXPORT __attribute__((visibility("default")))

SPINTOK_EXPORT int spintok_loss_abi() { return 1; }

SPINTOK_EXPORT int spintok_loss_isa() { return best_isa(); }

SPINTOK_EXPORT int64_t spintok_loss_groups(int64_t n) { return group_count(n); }

// sums (groups, views, k) <- log2 of the column sums of 2^(scale * score) in each group of rows.
SPINTOK_EXPORT int spintok_column_logsumexp(float *scores, int64_t views, int64_t n, int64_t k, float scale,
                                            int isa, int threads, double *sums) {
    static const Pass passes[] = SPINTOK_PASSES(column_logsumexp);
    const Task task{scores, views, n, k, scale, nullptr, 0, false, false, sums, nullptr, nullptr, group_count(n)};
    return run(task, passes, isa, threads);
}

// sums (groups, views, k) <- column sums of the row-wise softmax of scale * score + u.
SPINTOK_EXPORT int spintok_column_totals(float *scores, int64_t views, int64_t n, int64_t k, float scale,
                                         const float *u, int isa, int threads, double *sums) {
    static const Pass passes[] = SPINTOK_PASSES(column_totals);
    const Task task{scores, views, n, k, scale, u, 0, false, false, sums, nullptr, nullptr, group_count(n)};
    return run(task, passes, isa, threads);
}

// The last pass over both views: numbers (groups, 2) <- loss, agreeing rows; with `metrics`, sums <- column sums of
// the predictions, counts <- of their best codes; with `gradients`, scores <- prediction - target of the other view.
SPINTOK_EXPORT int spintok_swap(float *scores, int64_t n, int64_t k, float scale, const float *u, float inverse,
                                int gradients, int metrics, int isa, int threads, double *sums, double *counts,
                                double *numbers) {
    static const Pass passes[] = SPINTOK_PASSES(swap);
    const Task task{scores, 2, n, k, scale, u, inverse, gradients != 0, metrics != 0,
                    sums, counts, numbers, group_count(n)};
    return run(task, passes, isa, threads);
}

}  // extern "C"

#else  // SPINTOK_ISA: the part compiled once for each instruction set

namespace SPINTOK_ISA {
namespace {

constexpr int W = SPINTOK_WIDTH;
typedef float Vector __attribute__((vector_size(W * 4)));
typedef int32_t Mask __attribute__((vector_size(W * 4)));

SPINTOK_INLINE Vector load(const float *p) {
    Vector v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

SPINTOK_INLINE void store(float *p, Vector v) { std::memcpy(p, &v, sizeof v); }

// The last, short vector of a row: `count` numbers, then `fill`.
SPINTOK_INLINE Vector load_tail(const float *p, int64_t count, float fill) {
    Vector v = Vector{} + fill;
    std::memcpy(&v, p, count * sizeof(float));
    return v;
}

SPINTOK_INLINE Vector larger(Vector a, Vector b) { return a > b ? a : b; }

SPINTOK_INLINE float sum(Vector v) {
    float part[W], total = 0;
    store(part, v);
    for (float x : part) total += x;
    return total;
}

SPINTOK_INLINE float largest(Vector v) {
    float part[W], best = LOWEST;
    store(part, v);
    for (float x : part) best = std::max(best, x);
    return best;
}

// 2^x for x <= 127, relative error below 2e-7; 0 below 2^-126; NaN stays NaN.
SPINTOK_INLINE Vector exp2(Vector x) {
    const Vector magic = Vector{} + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const Vector low = Vector{} - 126.0f;
    const Vector y = larger(low, x);
    const Vector shifted = y + magic;
    const Vector f = y - (shifted - magic);
    Vector p = Vector{} + C6;
    p = p * f + C5;
    p = p * f + C4;
    p = p * f + C3;
    p = p * f + C2;
    p = p * f + C1;
    p = p * f + C0;
    const Mask exponent = ((Mask)shifted - 0x4B400000 + 127) << 23;
    p = p * (Vector)exponent;
    return x < low ? Vector{} : p;
}

// A scratch array of floats, cache-line aligned, zero at first.
struct Row {
    std::vector<float> memory;
    float *data;
    explicit Row(int64_t count) : memory(count + 16) {
        data = reinterpret_cast<float *>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
    }
};

// Calls body(column, load) for each vector of a row; load(p, fill) reads k numbers in all, never beyond.
template <class Body>
SPINTOK_INLINE void columns(int64_t k, Body body) {
    int64_t j = 0;
    for (; j + W <= k; j += W) body(j, [](const float *p, float) SPINTOK_LAMBDA { return load(p); });
    if (j < k) body(j, [count = k - j](const float *p, float fill) SPINTOK_LAMBDA { return load_tail(p, count, fill); });
}

void column_logsumexp(const Task &t, int64_t group) {
    const int64_t padded = (t.k + W - 1) / W * W;
    Row top(padded), total(padded);
    for (int64_t view = 0; view < t.views; ++view) {
        std::fill_n(top.data, padded, LOWEST);
        std::fill_n(total.data, padded, 0.0f);
        for (int64_t i = t.first(group); i < t.first(group + 1); ++i) {
            const float *row = t.scores + (view * t.n + i) * t.k;
            columns(t.k, [&](int64_t j, auto read) SPINTOK_LAMBDA {
                const Vector x = read(row + j, 0) * t.scale, m = load(top.data + j), s = load(total.data + j);
                const Vector d = x - m;
                // One exponential: of the smaller of the two terms, relative to the larger.
                const Vector e = exp2(d > 0 ? -d : d);
                store(total.data + j, d > 0 ? s * e + 1 : s + e);
                store(top.data + j, d > 0 ? x : m);
            });
        }
        double *out = t.sums + (group * t.views + view) * t.k;
        for (int64_t j = 0; j < t.k; ++j) out[j] = top.data[j] + std::log2(static_cast<double>(total.data[j]));
    }
}

// targets <- 2^(scale * row + u - max), the sum returned: a row of Q before its division.
SPINTOK_INLINE float targets(const Task &t, const float *row, const float *u, float *out) {
    Vector top = Vector{} + LOWEST;
    columns(t.k, [&](int64_t j, auto read) SPINTOK_LAMBDA {
        const Vector x = read(row + j, 0) * t.scale + read(u + j, LOWEST);
        store(out + j, x);
        top = larger(top, x);
    });
    const float highest = largest(top);
    Vector total{};
    columns(t.k, [&](int64_t j, auto) SPINTOK_LAMBDA {
        const Vector e = exp2(load(out + j) - highest);
        store(out + j, e);
        total += e;
    });
    return sum(total);
}

void column_totals(const Task &t, int64_t group) {
    const int64_t padded = (t.k + W - 1) / W * W;
    Row q(padded), strip(padded);
    for (int64_t view = 0; view < t.views; ++view) {
        double *out = t.sums + (group * t.views + view) * t.k;
        std::fill_n(out, t.k, 0.0);
        const int64_t last = t.first(group + 1);
        for (int64_t i = t.first(group), end; i < last; i = end) {
            end = std::min(i + STRIP, last);
            std::fill_n(strip.data, padded, 0.0f);
            for (int64_t r = i; r < end; ++r) {
                const float w = 1 / targets(t, t.scores + (view * t.n + r) * t.k, t.u + view * t.k, q.data);
                for (int64_t j = 0; j < padded; j += W)
                    store(strip.data + j, load(strip.data + j) + load(q.data + j) * w);
            }
            for (int64_t j = 0; j < t.k; ++j) out[j] += strip.data[j];
        }
    }
}

// The index of the row's highest score, the lowest one among equals.
int64_t best_code(const float *row, int64_t k) {
    Vector best = Vector{} + LOWEST;
    Mask where{};
    columns(k, [&](int64_t j, auto read) SPINTOK_LAMBDA {
        const Vector x = read(row + j, LOWEST);
        where = x > best ? Mask{} + static_cast<int32_t>(j) : where;
        best = larger(best, x);
    });
    const float highest = largest(best);
    int64_t code = k - 1;
    for (int lane = 0; lane < W; ++lane)
        if (best[lane] == highest) code = std::min<int64_t>(code, where[lane] + lane);
    return code;
}

void swap(const Task &t, int64_t group) {
    const int64_t padded = (t.k + W - 1) / W * W;
    Row q0(padded), q1(padded), p(padded), strip0(padded), strip1(padded);
    float *const q[] = {q0.data, q1.data}, *const strip[] = {strip0.data, strip1.data};
    double *const sums = t.metrics ? t.sums + group * 2 * t.k : nullptr;
    double *const counts = t.metrics ? t.extra + group * 2 * t.k : nullptr;
    if (t.metrics) {
        std::fill_n(sums, 2 * t.k, 0.0);
        std::fill_n(counts, 2 * t.k, 0.0);
    }
    double loss = 0, same = 0;
    const int64_t last = t.first(group + 1);
    for (int64_t i = t.first(group), end; i < last; i = end) {
        end = std::min(i + STRIP, last);
        for (float *s : strip) std::fill_n(s, padded, 0.0f);
        for (int64_t r = i; r < end; ++r) {
            float *const rows[] = {t.scores + r * t.k, t.scores + (t.n + r) * t.k};
            float scale[2];
            int64_t codes[2];
            for (int v : {0, 1}) scale[v] = 1 / targets(t, rows[v], t.u + v * t.k, q[v]);
            for (int v : {0, 1}) {
                float *const row = rows[v];
                const float *const target = q[1 - v];
                Vector best = Vector{} + LOWEST, total{}, cross{};
                columns(t.k, [&](int64_t j, auto read) SPINTOK_LAMBDA { best = larger(best, read(row + j, LOWEST)); });
                const float highest = largest(best);
                if (t.metrics) codes[v] = best_code(row, t.k);
                // Below the row's maximum both terms of the cross-entropy are >= 0.
                columns(t.k, [&](int64_t j, auto read) SPINTOK_LAMBDA {
                    const Vector x = (read(row + j, LOWEST) - highest) * t.inverse;
                    const Vector e = exp2(x);
                    store(p.data + j, e);
                    total += e;
                    // A pad's target is 0; its score, -infinity, must not meet it.
                    cross += (x > LOWEST ? x : Vector{}) * load(target + j);
                });
                const float partition = sum(total);
                loss += std::log(static_cast<double>(partition)) -
                        static_cast<double>(sum(cross)) * scale[1 - v] * 0.6931471805599453;
                const float wp = 1 / partition, wq = scale[1 - v];
                if (t.metrics)
                    for (int64_t j = 0; j < padded; j += W)
                        store(strip[v] + j, load(strip[v] + j) + load(p.data + j) * wp);
                if (t.gradients) {
                    int64_t j = 0;
                    for (; j + W <= t.k; j += W) store(row + j, load(p.data + j) * wp - load(target + j) * wq);
                    for (; j < t.k; ++j) row[j] = p.data[j] * wp - target[j] * wq;
                }
            }
            if (t.metrics) {
                for (int v : {0, 1}) counts[v * t.k + codes[v]] += 1;
                same += codes[0] == codes[1];
            }
        }
        if (t.metrics)
            for (int v : {0, 1})
                for (int64_t j = 0; j < t.k; ++j) sums[v * t.k + j] += strip[v][j];
    }
    t.numbers[2 * group] = loss;
    t.numbers[2 * group + 1] = same;
}

}  // namespace
}  // namespace SPINTOK_ISA

#endif
