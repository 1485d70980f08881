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

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>

#include "../cpu.h"

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

}  // namespace

#define SPINTOK_BODY "assign/passes.h"
#include "../each_isa.h"

extern "C" {

// Changes with the functions' arguments, so that a stale build is noticed.
SPINTOK_EXPORT int spintok_assign_abi() { return 1; }

// The best instruction set of this machine that has a kernel: 0 portable, 1 AVX2, 2 AVX-512.
SPINTOK_EXPORT int spintok_assign_isa() { return best_isa(); }

// ids[n] of z (n, d) in the codebook c (k, d), k >= 1; -1 for rows with NaN or infinities. scores and margins are
// both null or both [n]. Returns a Status.
SPINTOK_EXPORT int spintok_assign(const float *z, int64_t n, int64_t d, const float *c,
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
