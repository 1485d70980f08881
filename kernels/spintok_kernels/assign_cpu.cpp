// Fused codebook assignment on the CPU: the matrix product, the running best two and the exact decision in one pass.
//
// Plain C interface, called through ctypes: no Python and no torch headers. GCC or Clang, for their vector types; the
// file includes itself once for each instruction set, so one text serves AVX-512, AVX2 and whatever else there is.
//
// Blocking: the codebook is packed in panels of two vectors of codewords, [panel][D][2 W]; rows are packed by 12
// (AVX-512) or 6, [group][D][R], so the inner loop reads both streams in order and keeps R x 2 sums in registers. A
// block of panels stays in the L2 cache while a strip of rows passes by. Each lane keeps its best score, that score's
// panel and its second best; lanes are merged once a row.
//
// Exact ids. With u = 2^-24, n terms and any order of summation, fused or not, a float32 sum of products is off by at
// most n u / (1 - n u) times the sum of the absolute products, which is at most |z| |c| (Higham, Accuracy and
// Stability of Numerical Algorithms, section 3.1). So every score of a row is within
//     err = g32 (|z| max|c| + max|bias|) + n 2^-149 + g64 (...)
// of the truth: the second term is underflow, the third the rounding of the float64 definition itself. Codewords
// whose score is more than 2 err below the best cannot win. If one is left it is the answer; the others are decided
// by the definition: float64 sums over d = 0, 1, ..., the lowest index among equals. Products of two float32 numbers
// are exact in float64, so those sums have the same bits everywhere, with or without fused multiply-add.
//
// For L2, argmin |z - c|^2 = argmax z.c - |c|^2 / 2, with the codebook's mean taken from both sides first: the same
// argmin and a far smaller err. Its rounding, u |z - mean| and u |c - mean|, is in n.

#ifndef SPINTOK_ISA

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "cpu.h"

#if !defined(__GNUC__)
#error "assign_cpu.cpp needs GCC or Clang; without it spintok_kernels computes with torch"
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

enum Status { OK = 0, NONFINITE_CODEBOOK = 1, NO_MEMORY = 2, UNSUPPORTED = 3 };

constexpr float INF = std::numeric_limits<float>::infinity();
constexpr int64_t BLOCK_BYTES = 512 << 10;
constexpr int64_t STRIP_BYTES = 192 << 10;

using Floats = std::unique_ptr<float[], decltype(&std::free)>;

Floats floats(int64_t count) {
    // 64-byte aligned, a multiple of 64 bytes; not initialised.
    void *memory = std::aligned_alloc(64, (static_cast<size_t>(std::max<int64_t>(count, 1)) * 4 + 63) / 64 * 64);
    if (!memory) throw std::bad_alloc();
    return Floats(static_cast<float *>(memory), &std::free);
}

struct Problem {
    const float *z, *c;
    int64_t n, k, d;
    bool l2;
    int32_t *ids;
    float *scores, *margins;

    // The codebook as the kernels read it: panels, their biases, the mean taken off (L2) and bounds over codewords.
    Floats panels, bias, mean;
    double max_norm = 0, max_bias = 0, max_raw_norm = 0, mean_norm = 0;

    // Bound on the error of a row's scores, `norm` long, and the size of what is summed.
    double g32 = 0, g64 = 0, underflow = 0;
    double size(double norm) const { return norm * max_norm + max_bias; }
    double error(double norm) const {
        return 1.0001 * (g32 * size(norm) + underflow + g64 * (norm + mean_norm + max_raw_norm) * max_raw_norm);
    }
};

// n u / (1 - n u) with u = 2^-bits: the relative error of a sum of n terms.
double gamma(double n, int bits) {
    double x = std::ldexp(n, -bits);
    return x < 0.5 ? x / (1 - x) : static_cast<double>(INF);
}

// The definition of a score: float64, in the order of d.
double exact_score(const Problem &p, const float *z, int64_t code) {
    const float *c = p.c + code * p.d;
    double dot = 0, square = 0;
    for (int64_t d = 0; d < p.d; d++) {
        double x = c[d];
        dot += static_cast<double>(z[d]) * x;
        square += x * x;
    }
    return p.l2 ? dot - 0.5 * square : dot;
}

struct Decision {
    int32_t id = -1;
    double best = -static_cast<double>(INF), second = -static_cast<double>(INF);

    void offer(int64_t code, double score) {
        if (score > best || (score == best && code < id)) {
            second = best;
            best = score;
            id = static_cast<int32_t>(code);
        } else {
            second = std::max(second, score);
        }
    }
};

void report(const Problem &p, int64_t row, int32_t id, double margin) {
    p.ids[row] = id;
    if (!p.scores) return;
    const float *z = p.z + row * p.d;
    double score = std::numeric_limits<double>::quiet_NaN();
    if (id >= 0) {
        const float *c = p.c + id * p.d;
        score = 0;
        for (int64_t d = 0; d < p.d; d++) {
            double x = z[d], y = c[d];
            score += p.l2 ? -(x - y) * (x - y) : x * y;
        }
    }
    p.scores[row] = static_cast<float>(score);
    p.margins[row] = static_cast<float>(p.l2 ? 2 * margin : margin);
}

// Calls work(i) for i in [0, count) on up to `threads` threads. Subnormal numbers count, whatever the caller has set:
// the error bound and the float64 sums rely on them.
template <class Work> void parallel(int64_t count, int threads, const Work &work) {
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    auto loop = [&] {
#if defined(__x86_64__)
        const unsigned modes = _mm_getcsr();
        _mm_setcsr(0x1f80);
#endif
        try {
            for (int64_t i; (i = next++) < count;) work(i);
        } catch (const std::bad_alloc &) {
            failed = true;
        }
#if defined(__x86_64__)
        _mm_setcsr(modes);
#endif
    };
    on_threads(std::min<int64_t>(threads, count), loop);
    if (failed) throw std::bad_alloc();
}

}  // namespace

#if defined(__x86_64__)
#pragma GCC push_options
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,fma,prefer-vector-width=512")
#endif
#define SPINTOK_ISA avx512
#define SPINTOK_LANES 16
#define SPINTOK_ROWS 12
#include "assign_cpu.cpp"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#pragma GCC pop_options

#pragma GCC push_options
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define SPINTOK_ISA avx2
#define SPINTOK_LANES 8
#define SPINTOK_ROWS 6
#include "assign_cpu.cpp"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#pragma GCC pop_options
#endif

#define SPINTOK_ISA portable
#define SPINTOK_LANES 4
#define SPINTOK_ROWS 6
#include "assign_cpu.cpp"

extern "C" {

// Changes with the functions' arguments, so that a stale build is noticed.
__attribute__((visibility("default"))) int spintok_assign_abi() { return 1; }

// The best instruction set of this machine that has a kernel: 0 portable, 1 AVX2, 2 AVX-512.
__attribute__((visibility("default"))) int spintok_assign_isa() { return best_isa(); }

// ids[n] of z (n, d) in the codebook c (k, d), k >= 1; -1 for rows with NaN or infinities. scores and margins are
// both null or both [n]. Returns a Status.
__attribute__((visibility("default"))) int spintok_assign(const float *z, int64_t n, int64_t d, const float *c,
                                                          int64_t k, int l2, int isa, int threads, int32_t *ids,
                                                          float *scores, float *margins) {
    if (isa > spintok_assign_isa() || isa < 0) return UNSUPPORTED;
    // Starting a thread costs as much as some million products.
    if (static_cast<double>(n) * static_cast<double>(k) * static_cast<double>(d) < 2e6) threads = 1;
    try {
        Problem p{z, c, n, k, d, l2 != 0, ids, scores, margins, floats(0), floats(0), floats(0)};
        switch (isa) {
#if defined(__x86_64__)
            case AVX512: return avx512::solve(p, threads);
            case AVX2: return avx2::solve(p, threads);
#endif
            default: return portable::solve(p, threads);
        }
    } catch (const std::bad_alloc &) {
        return NO_MEMORY;
    }
}

}  // extern "C"

#else  // SPINTOK_ISA: the part compiled once for each instruction set

namespace {
namespace SPINTOK_ISA {

constexpr int W = SPINTOK_LANES, R = SPINTOK_ROWS, P = 2 * W;
typedef float vf __attribute__((vector_size(4 * W)));
typedef int32_t vi __attribute__((vector_size(4 * W)));

struct Lanes {
    vf best[2], second[2];
    vi panel[2];
};

// In float64: the squares of float32 numbers can leave float32. Eight sums, as one would wait for itself.
double norm(const float *x, int64_t n) {
    double part[8] = {};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) part[j] += static_cast<double>(x[i + j]) * x[i + j];
    for (; i < n; i++) part[0] += static_cast<double>(x[i]) * x[i];
    return std::sqrt(((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7])));
}

const float *shift(const float *x, const float *mean, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = x[i] - mean[i];
    return out;
}

// out[i][r] = rows[r][i], eight columns of a row at a time: reads fill cache lines, writes stay near each other.
template <int count> void interleave(const float *const *rows, int64_t n, float *out) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int r = 0; r < count; r++) {
            const float *x = rows[r] + i;
            float *to = out + i * count + r;
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++) to[j * count] = x[j];
        }
    for (; i < n; i++)
        for (int r = 0; r < count; r++) out[i * count + r] = rows[r][i];
}

// sums[r][h] = bias + the products of `rows` packed rows with one panel.
template <int rows>
__attribute__((always_inline)) inline void tile(const float *a, const float *panel, const float *bias, int64_t depth,
                                                vf (&sums)[rows][2]) {
    const vf *b = reinterpret_cast<const vf *>(panel), *start = reinterpret_cast<const vf *>(bias);
    for (int r = 0; r < rows; r++) sums[r][0] = start[0], sums[r][1] = start[1];
    for (int64_t d = 0; d < depth; d++, a += R, b += 2) {
        const vf left = b[0], right = b[1];
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            sums[r][0] += a[r] * left;
            sums[r][1] += a[r] * right;
        }
    }
}

template <int rows>
void pass(const Problem &p, const float *a, Lanes *lanes, int64_t first, int64_t last) {
    for (int64_t panel = first; panel < last; panel++) {
        vf sums[rows][2];
        tile<rows>(a, p.panels.get() + panel * P * p.d, p.bias.get() + panel * P, p.d, sums);
        const vi number = static_cast<int32_t>(panel) - vi{};
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) {
                const vf best = lanes[r].best[h], second = lanes[r].second[h], s = sums[r][h];
                const vi wins = s > best;
                const vf loser = wins ? best : s;
                lanes[r].second[h] = loser > second ? loser : second;
                lanes[r].best[h] = wins ? s : best;
                lanes[r].panel[h] = wins ? number : lanes[r].panel[h];
            }
        }
    }
}

// Offers every codeword that scores at least `threshold` to the definition.
void rescan(const Problem &p, const float *z, const float *a, double threshold, Decision &decision) {
    const int64_t panels = (p.k + P - 1) / P;
    for (int64_t panel = 0; panel < panels; panel++) {
        vf sums[1][2];
        tile<1>(a, p.panels.get() + panel * P * p.d, p.bias.get() + panel * P, p.d, sums);
        for (int lane = 0; lane < P; lane++) {
            const int64_t code = panel * P + lane;
            if (code < p.k && !(sums[0][lane / W][lane % W] < threshold)) decision.offer(code, exact_score(p, z, code));
        }
    }
}

void decide(const Problem &p, int64_t row, const float *a, double norm, const Lanes &lanes) {
    const float *z = p.z + row * p.d;
    const double infinity = static_cast<double>(INF);
    if (!std::isfinite(norm) && !std::all_of(z, z + p.d, [](float x) { return std::isfinite(x); }))
        return report(p, row, -1, std::numeric_limits<double>::quiet_NaN());
    // Nothing to tell the codewords apart by, and padding makes such rows common.
    if (norm == 0 && !p.l2) return report(p, row, 0, p.k > 1 ? 0 : infinity);

    const double err = p.error(norm);
    Decision decision;
    if (!(p.size(norm) < 1e37) || !(err < 1e37)) {
        // float32 sums could overflow.
        for (int64_t code = 0; code < p.k; code++) decision.offer(code, exact_score(p, z, code));
        return report(p, row, decision.id, decision.best - decision.second);
    }
    // Halves on halves: as many lanes at once as there are, and the same result in any order.
    alignas(64) float tops[P], seconds[P];
    std::memcpy(tops, lanes.best, sizeof tops);
    std::memcpy(seconds, lanes.second, sizeof seconds);
    for (int half = P / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) {
            const float x = tops[i], y = tops[i + half], low = x > y ? y : x;
            const float u = seconds[i], v = seconds[i + half], rest = u > v ? u : v;
            tops[i] = x > y ? x : y;
            seconds[i] = low > rest ? low : rest;
        }
    const float best = tops[0], second = seconds[0];
    const double threshold = static_cast<double>(best) - 2 * err;
    if (second < threshold) {
        int winner = 0;
        while (lanes.best[winner / W][winner % W] != best) winner++;
        const int64_t code = static_cast<int64_t>(lanes.panel[winner / W][winner % W]) * P + winner;
        return report(p, row, static_cast<int32_t>(code), static_cast<double>(best) - static_cast<double>(second));
    }
    bool all_known = true;
    for (int lane = 0; lane < P; lane++) all_known &= lanes.second[lane / W][lane % W] < threshold;
    if (all_known) {
        // No lane holds two of the candidates, so each is some lane's best.
        for (int lane = 0; lane < P; lane++) {
            if (lanes.best[lane / W][lane % W] < threshold) continue;
            const int64_t code = static_cast<int64_t>(lanes.panel[lane / W][lane % W]) * P + lane;
            decision.offer(code, exact_score(p, z, code));
        }
    } else {
        rescan(p, z, a, threshold, decision);
    }
    report(p, row, decision.id, decision.best - decision.second);
}

void strip(const Problem &p, int64_t first_row, int64_t rows) {
    const int64_t panels = (p.k + P - 1) / P, groups = (rows + R - 1) / R;
    const int64_t block = std::max<int64_t>(1, BLOCK_BYTES / (4 * P * p.d));
    Floats a = floats(groups * R * p.d), state = floats(groups * R * static_cast<int64_t>(sizeof(Lanes) / 4));
    Lanes *lanes = reinterpret_cast<Lanes *>(state.get());
    std::vector<double> norms(static_cast<size_t>(groups * R));
    Floats shifted = floats(R * p.d);
    for (int64_t g = 0; g < groups; g++) {
        const float *rows_in[R];
        for (int r = 0; r < R; r++) {
            const int64_t row = g * R + r;
            Lanes &lane = lanes[row];
            for (int h = 0; h < 2; h++) {
                lane.best[h] = lane.second[h] = -INF - vf{};
                lane.panel[h] = vi{};
            }
            // Rows beyond the last are the last again: computed, never looked at.
            const float *z = p.z + (first_row + std::min(row, rows - 1)) * p.d;
            rows_in[r] = p.l2 ? shift(z, p.mean.get(), p.d, shifted.get() + r * p.d) : z;
            norms[static_cast<size_t>(row)] = norm(rows_in[r], p.d);
        }
        interleave<R>(rows_in, p.d, a.get() + g * R * p.d);
    }
    for (int64_t first = 0; first < panels; first += block) {
        const int64_t last = std::min(panels, first + block);
        for (int64_t g = 0; g < groups; g++) {
            const float *in = a.get() + g * R * p.d;
            const int64_t left = rows - g * R;
            if (left > R / 3 * 2) pass<R>(p, in, lanes + g * R, first, last);
            else if (left > R / 3) pass<R / 3 * 2>(p, in, lanes + g * R, first, last);
            else if (left > 1) pass<R / 3>(p, in, lanes + g * R, first, last);
            else pass<1>(p, in, lanes + g * R, first, last);
        }
    }
    for (int64_t row = 0; row < rows; row++)
        decide(p, first_row + row, a.get() + row / R * R * p.d + row % R, norms[static_cast<size_t>(row)], lanes[row]);
}

int solve(Problem &p, int threads) {
    const int64_t panels = (p.k + P - 1) / P;
    p.panels = floats(panels * P * p.d);
    p.bias = floats(panels * P);
    p.mean = floats(p.d);
    double mean_square = 0;
    std::vector<double> total(static_cast<size_t>(p.d), 0.0);
    if (p.l2)
        for (int64_t j = 0; j < p.k; j++)
            for (int64_t d = 0; d < p.d; d++) total[static_cast<size_t>(d)] += p.c[j * p.d + d];
    for (int64_t d = 0; d < p.d; d++) {
        p.mean[d] = static_cast<float>(total[static_cast<size_t>(d)] / static_cast<double>(p.k));
        mean_square += static_cast<double>(p.mean[d]) * p.mean[d];
    }
    p.mean_norm = std::sqrt(mean_square);

    std::vector<double> norms(static_cast<size_t>(panels * P), 0.0), raw(norms);
    parallel(panels, threads, [&](int64_t panel) {
        Floats shifted = floats(p.l2 ? P * p.d : 0);
        const float *codes[P];
        for (int lane = 0; lane < P; lane++) {
            const int64_t code = panel * P + lane;
            const float *c = p.c + std::min(code, p.k - 1) * p.d;
            codes[lane] = p.l2 ? shift(c, p.mean.get(), p.d, shifted.get() + lane * p.d) : c;
            // Beyond the last codeword comes the last again, but scoring -inf, so that it is nobody's candidate.
            p.bias[code] = code < p.k ? 0 : -INF;
            if (code >= p.k) continue;
            const double size = norm(codes[lane], p.d);
            norms[static_cast<size_t>(code)] = size;
            raw[static_cast<size_t>(code)] = p.l2 ? norm(c, p.d) : size;
            if (p.l2) p.bias[code] = static_cast<float>(-0.5 * size * size);
        }
        interleave<P>(codes, p.d, p.panels.get() + panel * P * p.d);
    });
    for (int64_t code = 0; code < p.k; code++) {
        const size_t j = static_cast<size_t>(code);
        if (!std::isfinite(raw[j])) return NONFINITE_CODEBOOK;
        p.max_norm = std::max(p.max_norm, norms[j]);
        p.max_raw_norm = std::max(p.max_raw_norm, raw[j]);
    }
    if (p.l2) p.max_bias = 0.5 * p.max_norm * p.max_norm;
    // D products, a bias, and what centring rounds.
    const double terms = static_cast<double>(p.d) + 8;
    p.g32 = gamma(terms, 24);
    p.g64 = gamma(terms, 53);
    p.underflow = std::ldexp(terms, -149);

    if (p.n == 0) return OK;
    const int64_t most = std::max<int64_t>(R, STRIP_BYTES / (4 * p.d) / R * R);
    const int64_t count = (p.n + most * threads - 1) / (most * threads) * threads;
    const int64_t rows = std::max<int64_t>(R, ((p.n + count - 1) / count + R - 1) / R * R);
    parallel((p.n + rows - 1) / rows, threads, [&](int64_t i) { strip(p, i * rows, std::min(rows, p.n - i * rows)); });
    return OK;
}

}  // namespace SPINTOK_ISA
}  // namespace

#undef SPINTOK_ISA
#undef SPINTOK_LANES
#undef SPINTOK_ROWS
#endif
