// The kernel of assign.cpp, compiled once for each instruction set.

namespace SPINTOK_ISA {
namespace {

#include "../simd.h"

// Rows that share the registers, and codewords in a panel.
constexpr int R = W == 16 ? 12 : 6, P = 2 * W;

struct Lanes {
    Vector best[2], second[2];
    Mask panel[2];
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
                                                Vector (&sums)[rows][2]) {
    const Vector *b = reinterpret_cast<const Vector *>(panel), *start = reinterpret_cast<const Vector *>(bias);
    for (int r = 0; r < rows; r++) sums[r][0] = start[0], sums[r][1] = start[1];
    for (int64_t d = 0; d < depth; d++, a += R, b += 2) {
        const Vector left = b[0], right = b[1];
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
        Vector sums[rows][2];
        tile<rows>(a, p.panels.get() + panel * P * p.d, p.bias.get() + panel * P, p.d, sums);
        const Mask number = static_cast<int32_t>(panel) - Mask{};
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) {
                const Vector best = lanes[r].best[h], second = lanes[r].second[h], s = sums[r][h];
                const Mask wins = s > best;
                const Vector loser = wins ? best : s;
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
        Vector sums[1][2];
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
                lane.best[h] = lane.second[h] = -INF - Vector{};
                lane.panel[h] = Mask{};
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
        const FloatModes modes(FloatModes::DEFAULT);
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
    parallel((p.n + rows - 1) / rows, threads, [&](int64_t i) {
        // The error bound and the float64 sums rely on subnormal numbers, whatever the caller has set.
        const FloatModes modes(FloatModes::DEFAULT);
        strip(p, i * rows, std::min(rows, p.n - i * rows));
    });
    return OK;
}

}  // namespace
}  // namespace SPINTOK_ISA
