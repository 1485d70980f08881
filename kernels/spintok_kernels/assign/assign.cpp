// Fused codebook assignment on the CPU: matrix product, running best two and exact decision in one pass.
//
// Plain C interface, called through ctypes.
//
// Blocking: `pack` stores the codebook in panels of two vectors of codewords, [panel][D][2 W], once for any number of
// calls. A panel stays in the L1 cache while a strip of rows passes, in tiles that keep 12 (AVX-512) or 6 rows of sums in
// registers, and the next panel is fetched meanwhile. The scores of a strip with a block of panels, which stay in the L2
// cache, are searched for the best one and for all that may still win.
//
// Exact ids. With u = 2^-24, n terms and any order of summation, fused or not, the error of a float32 sum of products is
// at most n u / (1 - n u) times the sum of the absolute products, which is at most |z| |c| (Higham, Accuracy and
// Stability of Numerical Algorithms, section 3.1). So the error of every score of a row is at most
//     err = g32 (|z| max|c| + max|bias|) + n 2^-149 + g64 (...),
// where the second term is underflow and the third the rounding of the float64 definition itself. A codeword whose score
// is more than 2 err below the best cannot win. If one codeword is left, it is the answer; the others are decided by the
// definition: float64 sums over d = 0, 1, ..., and the lowest index of equal scores. Products of two float32 numbers are
// exact in float64, so those sums have the same bits everywhere, with or without fused multiply-add.
//
// For L2, argmin |z - c|^2 = argmax z.c - |c|^2 / 2. Subtracting the mean of the codebook from both sides leaves the
// argmin and makes err far smaller. Its rounding, u |z - mean| and u |c - mean|, is included in n.

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>

#include "../cpu.h"

namespace {

enum Status { OK = 0, NONFINITE_CODEBOOK = 1, NO_MEMORY = 2, UNSUPPORTED = 3 };

constexpr float INF = std::numeric_limits<float>::infinity();
// Rows, and codewords, whose scores are held at once, about 200 KB; bytes of a panel in the L1 cache; candidates of a row
// that are kept.
constexpr int64_t STRIP = 96, BLOCK = 512, PANEL_BYTES = 32 << 10;
constexpr int FEW = 6;
// Handing work to a thread that waits for it takes as long as some 100,000 products, waking one several million.
constexpr double PRODUCTS_FOR_THREADS = 2e6;
// One row waits for the codebook to come from the L2 or L3 cache, which takes longer than its products.
constexpr double PRODUCTS_FOR_THREADS_OF_A_ROW = 4e5;

using Floats = std::unique_ptr<float[], decltype(&std::free)>;

// Uninitialised, aligned to 64 bytes and a multiple of 64 bytes.
Floats floats(int64_t count) {
    void *memory = std::aligned_alloc(64, (static_cast<size_t>(std::max<int64_t>(count, 1)) * 4 + 63) / 64 * 64);
    if (!memory) throw std::bad_alloc();
    return Floats(static_cast<float *>(memory), &std::free);
}

// n u / (1 - n u) with u = 2^-bits: the relative error of a sum of n terms.
double gamma(double n, int bits) {
    double x = std::ldexp(n, -bits);
    return x < 0.5 ? x / (1 - x) : static_cast<double>(INF);
}

// A packed codebook, as cpu.py declares it.
struct Packed {
    const float *codebook;  // (k, d)
    int64_t k, d, l2, isa;
    float *panels, *bias, *mean;
    double *bounds;  // the largest norm and bias, the largest norm before centring, the norm of the mean
};

struct Book : Packed {
    explicit Book(const Packed &packed) : Packed(packed) {}

    double g32 = gamma(terms(), 24), g64 = gamma(terms(), 53), underflow = std::ldexp(terms(), -149);

    // D products, a bias, and the roundings of centring.
    double terms() const { return static_cast<double>(d) + 8; }
    // The size of the sums of a row of this norm, and a bound on their errors.
    double size(double norm) const { return norm * bounds[0] + bounds[1]; }
    double error(double norm) const {
        const double raw = bounds[2], mean_norm = bounds[3];
        return 1.0001 * (g32 * size(norm) + underflow + g64 * (norm + mean_norm + raw) * raw);
    }
};

struct Problem {
    Book book;
    const float *z;
    int64_t n;
    int32_t *ids;
    float *scores, *margins;  // both null or both (n)
};

// The definition of a score: float64, in the order of d.
double exact_score(const Book &b, const float *z, int64_t code) {
    const float *c = b.codebook + code * b.d;
    double dot = 0, square = 0;
    for (int64_t d = 0; d < b.d; d++) {
        double x = c[d];
        dot += static_cast<double>(z[d]) * x;
        square += x * x;
    }
    return b.l2 ? dot - 0.5 * square : dot;
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
    const Book &b = p.book;
    const float *z = p.z + row * b.d;
    double score = std::numeric_limits<double>::quiet_NaN();
    if (id >= 0) {
        const float *c = b.codebook + id * b.d;
        score = 0;
        for (int64_t d = 0; d < b.d; d++) {
            double x = z[d], y = c[d];
            score += b.l2 ? -(x - y) * (x - y) : x * y;
        }
    }
    p.scores[row] = static_cast<float>(score);
    p.margins[row] = static_cast<float>(b.l2 ? 2 * margin : margin);
}

}  // namespace

#define SPINTOK_BODY "assign/passes.h"
#include "../each_isa.h"

namespace {

using Pack = int (*)(const Book &, int threads);
using Solve = void (*)(const Problem &, int threads);

}  // namespace

extern "C" {

// Increased when the arguments of the functions change, so that a stale build is noticed.
SPINTOK_EXPORT int spintok_assign_abi() { return 4; }

SPINTOK_EXPORT int spintok_assign_isa() { return best_isa(); }

SPINTOK_EXPORT void spintok_assign_use(Team team) { torch_team = team; }

// The number of codewords in a panel.
SPINTOK_EXPORT int spintok_assign_panel(int isa) { return isa == AVX512 ? 32 : isa == AVX2 ? 16 : 8; }

// Packs the codebook (k, d), k >= 1, into panels (ceil(k / P), d, P), bias (ceil(k / P) P), mean (d) and bounds (4),
// with P = spintok_assign_panel(isa). Returns a Status.
SPINTOK_EXPORT int spintok_assign_pack(const Packed *book, int threads) {
    static const Pack packs[] = SPINTOK_PASSES(pack);
    if (book->isa < PORTABLE || book->isa > best_isa()) return UNSUPPORTED;
    if (static_cast<double>(book->k) * static_cast<double>(book->d) < PRODUCTS_FOR_THREADS) threads = 1;
    try {
        return packs[book->isa](Book(*book), threads);
    } catch (const std::bad_alloc &) {
        return NO_MEMORY;
    }
}

// Writes ids (n) of z (n, d) in a packed codebook; -1 for rows with NaN or infinities. scores and margins are both null
// or both (n). Returns a Status.
SPINTOK_EXPORT int spintok_assign(const Packed *book, const float *z, int64_t n, int threads, int32_t *ids,
                                  float *scores, float *margins) {
    static const Solve solves[] = SPINTOK_PASSES(solve);
    if (book->isa < PORTABLE || book->isa > best_isa()) return UNSUPPORTED;
    const double rows = static_cast<double>(n) * static_cast<double>(book->k);
    if (rows * static_cast<double>(book->d) < (n == 1 ? PRODUCTS_FOR_THREADS_OF_A_ROW : PRODUCTS_FOR_THREADS)) threads = 1;
    try {
        solves[book->isa]({Book(*book), z, n, ids, scores, margins}, threads);
        return OK;
    } catch (const std::bad_alloc &) {
        return NO_MEMORY;
    }
}

}  // extern "C"
