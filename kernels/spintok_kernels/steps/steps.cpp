// The front end and the transformer layers of an encoder that streams, on the CPU: a chunk of each of some streams.
//
// Plain C interface, called through ctypes. One thread computes a call.
//
// Whatever the company, a stream gets the same bits: each number is a sum of products in the order of their index, kept
// in one lane of one register, and rows and streams never meet in a sum. So the weights, which are larger than the
// caches, are read once for all streams of a call instead of once for each.
//
// Products: a weight (N, K) is packed once in panels of two vectors of outputs, [panel][K][2 W]. Rows are packed in tiles,
// [tile][K][R], so that the inner loop reads both in order and keeps R x 2 vectors of sums in registers.
// Attention: lanes are the queries for the scores, so softmax needs no sums across lanes; then they are the features.

#include <cmath>
#include <cstring>

#include "../cpu.h"

namespace {

enum Status { OK = 0, NO_MEMORY = 1, UNSUPPORTED = 2 };

// The tensors of a layer, in this order.
enum Weight { NORM_SCALE, NORM_SHIFT, QKV, QKV_BIAS, OUT, OUT_BIAS, NORM2_SCALE, NORM2_SHIFT, EXPAND, EXPAND_BIAS,
              CONTRACT, CONTRACT_BIAS, WEIGHTS };

struct Task {
    int64_t layers, width, heads, hidden;
    int64_t past;                     // frames whose keys and values a stream remembers
    int64_t frames;                   // of a step
    int64_t chunk;                    // of them, those that become part of the past
    bool pre;                         // norms before the products, not after the residuals
    float eps;
    const float *const *weights;      // (layers, WEIGHTS): packed matrices, and vectors; biases padded to panels
    int64_t streams;
    float *x;                         // (streams, frames, width): layer 0, then the last one
    uint16_t *const *keys, *const *values;  // (streams): each (layers, heads, past, width / heads) float16
    const int64_t *gone, *valid;      // (streams): frames before the chunk, and frames that it holds
    float *const *outputs;            // (layers): (streams, frames, width) or null
};

// Windows of the front end in a frame.
constexpr int64_t PER_FRAME = 2;

// The front end, as front_end.py declares it.
struct FrontEnd {
    int64_t length, hop, fft, bands;  // samples of a window, between windows and of a transform
    int64_t channels, width;          // of the convolution and of the result
    double half_life, prior, level_prior;  // in windows
    double floor, quiet, variance_floor, prior_energy;
    const double *prior_mean, *prior_variance;  // (bands)
    const float *window;              // (length)
    const float *waves;               // (2, fft / 2 + 1): cosines and sines of parts of a turn
    const float *mel;                 // (bands, fft / 2 + 1)
    const int64_t *ends;              // (bands, 2): where the bands are not zero
    const float *scale, *shift;       // (bands)
    const float *convolution, *convolution_bias;  // packed (channels, PER_FRAME * bands); bias or null
    const float *norm_scale, *norm_shift;         // (channels), or null
    const float *projection, *projection_bias;    // packed (width, channels), or null
    double eps;                       // of the norm
};

// What a stream has heard; see spintok.models.running.
struct Statistics {
    double *peak, *weight, *energy, *bands, *squares;  // (), (), (), (bands), (bands)
};

// Arrays, aligned to cache lines, that a thread reuses from one call to the next.
struct Scratch {
    std::vector<float> memory[12];
    std::vector<double> numbers;
    double *doubles(int64_t count) {
        if (static_cast<int64_t>(numbers.size()) < count) numbers.resize(count);
        return numbers.data();
    }
    float *floats(int which, int64_t count) {
        auto &array = memory[which];
        if (static_cast<int64_t>(array.size()) < count + 16) array.resize(count + 16);
        return reinterpret_cast<float *>((reinterpret_cast<uintptr_t>(array.data()) + 63) / 64 * 64);
    }
};

Scratch &scratch() {
    static thread_local Scratch own;
    return own;
}

// float16 without instructions for it: rounded to the nearest, ties to even.
inline float from_half(uint16_t h) {
    const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 1023;
    if (exponent == 0) {
        const float small = std::ldexp(static_cast<float>(fraction), -24);
        return sign ? -small : small;
    }
    const uint32_t bits = sign | (exponent == 31 ? 0x7f800000 : (exponent + 112) << 23) | fraction << 13;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

inline uint16_t to_half(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
    const float size = std::fabs(x);
    if (std::isnan(x)) return sign | 0x7e00;
    if (size >= 65520.0f) return sign | 0x7c00;
    if (size < 6.103515625e-5f) return sign | static_cast<uint16_t>(std::nearbyint(std::ldexp(size, 24)));
    bits &= 0x7fffffff;
    bits += 0xfff + (bits >> 13 & 1);
    return sign | static_cast<uint16_t>((bits >> 13) - (112 << 10));
}

}  // namespace

#define SPINTOK_BODY "steps/passes.h"
#include "../each_isa.h"

namespace {

using Run = void (*)(const Task &);
using Convolve = void (*)(const float *, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, const float *,
                          const float *, float *);
using Front = void (*)(const FrontEnd &, int64_t, int64_t, int64_t, const float *const *, const int64_t *,
                       const Statistics *, const Statistics *, float *);

}  // namespace

extern "C" {

// Increased when the arguments of the functions change, so that a stale build is noticed.
SPINTOK_EXPORT int spintok_steps_abi() { return 2; }

SPINTOK_EXPORT int spintok_steps_isa() { return best_isa(); }

// The number of outputs in a panel.
SPINTOK_EXPORT int spintok_steps_panel(int isa) { return isa == AVX512 ? 32 : isa == AVX2 ? 16 : 8; }

// Writes panels (ceil(n / P), k, P) of a weight (n, k), P = spintok_steps_panel(isa), zeros beyond n.
SPINTOK_EXPORT void spintok_steps_pack(const float *weight, int64_t n, int64_t k, int isa, float *panels) {
    const int64_t width = spintok_steps_panel(isa);
    for (int64_t start = 0; start < n; start += width)
        for (int64_t i = 0; i < k; ++i)
            for (int64_t j = 0; j < width; ++j)
                *panels++ = start + j < n ? weight[(start + j) * k + i] : 0.0f;
}

// Runs the layers. Returns a Status.
SPINTOK_EXPORT int spintok_steps(int64_t layers, int64_t width, int64_t heads, int64_t hidden, int64_t past,
                                 int64_t frames, int64_t chunk, int pre, float eps, const float *const *weights,
                                 int64_t streams, float *x, uint16_t *const *keys, uint16_t *const *values,
                                 const int64_t *gone, const int64_t *valid, float *const *outputs, int isa) {
    static const Run runs[] = SPINTOK_PASSES(run);
    if (isa < PORTABLE || isa > best_isa()) return UNSUPPORTED;
    try {
        runs[isa]({layers, width, heads, hidden, past, frames, chunk, pre != 0, eps, weights, streams, x, keys, values,
                   gone, valid, outputs});
        return OK;
    } catch (const std::bad_alloc &) {
        return NO_MEMORY;
    }
}

// The GELU of a convolution of some streams: out (streams, frames, groups * n) of a signal (groups, streams,
// frames + taps - 1, inner), with packed weights (groups) of (n, taps * inner) each, and biases (groups, n padded to
// panels). Returns a Status.
SPINTOK_EXPORT int spintok_steps_convolve(const float *signal, int64_t groups, int64_t streams, int64_t frames, int64_t taps,
                                          int64_t inner, int64_t n, const float *panels, const float *bias, float *out,
                                          int isa) {
    static const Convolve passes[] = SPINTOK_PASSES(convolve);
    if (isa < PORTABLE || isa > best_isa()) return UNSUPPORTED;
    try {
        passes[isa](signal, groups, streams, frames, taps, inner, n, panels, bias, out);
        return OK;
    } catch (const std::bad_alloc &) {
        return NO_MEMORY;
    }
}

// Local features (streams, frames, width) of a step of each of some streams, zero after the `valid` frames, and the
// statistics after its first `chunk` frames. Waveforms hold all samples of the frames. Returns a Status.
SPINTOK_EXPORT int spintok_steps_front_end(const FrontEnd *front, int64_t streams, int64_t frames, int64_t chunk,
                                           const float *const *waveforms, const int64_t *valid, const Statistics *before,
                                           const Statistics *after, float *out, int isa) {
    static const Front passes[] = SPINTOK_PASSES(front_end);
    if (isa < PORTABLE || isa > best_isa()) return UNSUPPORTED;
    try {
        passes[isa](*front, streams, frames, chunk, waveforms, valid, before, after, out);
        return OK;
    } catch (const std::bad_alloc &) {
        return NO_MEMORY;
    }
}

}  // extern "C"
