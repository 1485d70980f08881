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

void clear(Lanes &lanes) {
    for (int h = 0; h < 2; h++) {
        lanes.best[h] = lanes.second[h] = -INF - Vector{};
        lanes.panel[h] = Mask{};
    }
}

// In float64, as the squares of float32 numbers may overflow float32; in many sums, as one sum is bound by latency.
double norm(const float *x, int64_t n) {
    constexpr int PARTS = 32;
    double part[PARTS] = {};
    int64_t i = 0;
    for (; i + PARTS <= n; i += PARTS)
#pragma GCC unroll 32
        for (int j = 0; j < PARTS; j++) part[j] += static_cast<double>(x[i + j]) * x[i + j];
    for (; i < n; i++) part[0] += static_cast<double>(x[i]) * x[i];
    for (int half = PARTS / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++) part[j] += part[j + half];
    return std::sqrt(part[0]);
}

// Writes x - mean to out and returns it.
const float *shift(const float *x, const float *mean, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = x[i] - mean[i];
    return out;
}

// out[i][r] = rows[r][i], eight columns of a row at a time, so that reads use whole cache lines and writes are close.
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

// sums[r][h] = bias + the products of R rows `a`, `stride` numbers apart, with one panel.
SPINTOK_INLINE void tile(const float *a, int64_t stride, const float *panel, const float *bias, int64_t depth,
                         Vector (&sums)[R][2]) {
    const Vector *b = reinterpret_cast<const Vector *>(panel), *start = reinterpret_cast<const Vector *>(bias);
    for (int r = 0; r < R; r++) sums[r][0] = start[0], sums[r][1] = start[1];
    // One pointer for three rows: an x86 address has a scale of 1 or 2 strides, and there are few registers.
    const float *rows[R / 3];
    for (int i = 0; i < R / 3; i++) rows[i] = a + 3 * i * stride;
    for (int64_t d = 0; d < depth; d++, b += 2) {
        const Vector left = b[0], right = b[1];
#pragma GCC unroll 12
        for (int r = 0; r < R; r++) {
            const Vector x = repeated(rows[r / 3] + r % 3 * stride);
            sums[r][0] += x * left;
            sums[r][1] += x * right;
        }
#pragma GCC unroll 4
        for (int i = 0; i < R / 3; i++) ++rows[i];
    }
}

SPINTOK_INLINE void update(Lanes &lanes, const Vector (&sums)[2], int64_t panel) {
    const Mask number = static_cast<int32_t>(panel) - Mask{};
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        const Vector best = lanes.best[h], second = lanes.second[h], s = sums[h];
        const Mask wins = s > best;
        const Vector loser = wins ? best : s;
        lanes.second[h] = larger(loser, second);
        lanes.best[h] = wins ? s : best;
        lanes.panel[h] = wins ? number : lanes.panel[h];
    }
}

void pass(const Book &b, const float *a, Lanes *lanes, int64_t first, int64_t last) {
    for (int64_t panel = first; panel < last; panel++) {
        Vector sums[R][2];
        tile(a, b.d, b.panels + panel * P * b.d, b.bias + panel * P, b.d, sums);
#pragma GCC unroll 12
        for (int r = 0; r < R; r++) update(lanes[r], sums[r], panel);
    }
}

// One row `a` with `panels` panels at a time: one panel alone is bound by latency.
template <int panels>
SPINTOK_INLINE void row_pass(const Book &b, const float *a, Lanes &lanes, int64_t panel) {
    Vector sums[panels][2];
    const float *from = b.panels + panel * P * b.d;
    for (int i = 0; i < panels; i++)
        for (int h = 0; h < 2; h++) sums[i][h] = load(b.bias + (panel + i) * P + h * W);
    for (int64_t d = 0; d < b.d; d++) {
        const Vector x = repeated(a + d);
#pragma GCC unroll 4
        for (int i = 0; i < panels; i++)
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) sums[i][h] += x * load(from + (i * b.d + d) * P + h * W);
    }
    for (int i = 0; i < panels; i++) update(lanes, sums[i], panel + i);
}

void one_row(const Book &b, const float *a, Lanes &lanes, int64_t first, int64_t last) {
    int64_t panel = first;
    for (; panel + 4 <= last; panel += 4) row_pass<4>(b, a, lanes, panel);
    for (; panel < last; panel++) row_pass<1>(b, a, lanes, panel);
}

// Offers every codeword that scores at least `threshold` to the definition. `a` is the row, centred for L2.
void rescan(const Book &b, const float *z, const float *a, double threshold, Decision &decision) {
    const int64_t panels = (b.k + P - 1) / P;
    for (int64_t panel = 0; panel < panels; panel++) {
        // Its best scores are those of this panel alone.
        Lanes lanes;
        clear(lanes);
        row_pass<1>(b, a, lanes, panel);
        for (int lane = 0; lane < P; lane++) {
            const int64_t code = panel * P + lane;
            if (code < b.k && !(lanes.best[lane / W][lane % W] < threshold)) decision.offer(code, exact_score(b, z, code));
        }
    }
}

// Decides a row from its lanes. `a` is the row, centred for L2.
void decide(const Problem &p, int64_t row, const float *a, const Lanes &lanes) {
    const Book &b = p.book;
    const float *z = p.z + row * b.d;
    const double infinity = static_cast<double>(INF), norm = SPINTOK_ISA::norm(a, b.d);
    if (!std::isfinite(norm) && !std::all_of(z, z + b.d, [](float x) { return std::isfinite(x); }))
        return report(p, row, -1, std::numeric_limits<double>::quiet_NaN());
    // All scores are equal. Padding makes such rows common.
    if (norm == 0 && !b.l2) return report(p, row, 0, b.k > 1 ? 0 : infinity);

    const double err = b.error(norm);
    Decision decision;
    if (!(b.size(norm) < 1e37) || !(err < 1e37)) {
        // float32 sums may overflow.
        for (int64_t code = 0; code < b.k; code++) decision.offer(code, exact_score(b, z, code));
        return report(p, row, decision.id, decision.best - decision.second);
    }
    // Merge one half of the lanes into the other until one is left; the order does not change the result.
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
        // No lane has two candidates, so each candidate is the best of its lane.
        for (int lane = 0; lane < P; lane++) {
            if (lanes.best[lane / W][lane % W] < threshold) continue;
            const int64_t code = static_cast<int64_t>(lanes.panel[lane / W][lane % W]) * P + lane;
            decision.offer(code, exact_score(b, z, code));
        }
    } else {
        rescan(b, z, a, threshold, decision);
    }
    report(p, row, decision.id, decision.best - decision.second);
}

void single(const Problem &p) {
    const Book &b = p.book;
    Floats shifted = floats(b.l2 ? b.d : 0);
    const float *a = b.l2 ? shift(p.z, b.mean, b.d, shifted.get()) : p.z;
    Lanes lanes;
    clear(lanes);
    one_row(b, a, lanes, 0, (b.k + P - 1) / P);
    decide(p, 0, a, lanes);
}

// At most `rows` rows from `first_row`; the caller's z is read in place but for centred rows and the last group.
void strip(const Problem &p, int64_t first_row, int64_t rows) {
    const Book &b = p.book;
    const int64_t panels = (b.k + P - 1) / P, groups = (rows + R - 1) / R, whole = rows / R * R;
    const int64_t block = std::max<int64_t>(1, BLOCK_BYTES / (4 * P * b.d));
    const float *z = p.z + first_row * b.d;
    Floats copies = floats((b.l2 ? groups * R : R) * b.d);
    Floats state = floats(groups * R * static_cast<int64_t>(sizeof(Lanes) / 4));
    Lanes *lanes = reinterpret_cast<Lanes *>(state.get());
    for (int64_t row = 0; row < groups * R; row++) clear(lanes[row]);
    // The last group is completed by copies of the last row, whose results are ignored.
    for (int64_t row = b.l2 ? 0 : whole; row < (b.l2 || whole < rows ? groups * R : 0); row++) {
        const float *from = z + std::min(row, rows - 1) * b.d;
        float *to = copies.get() + (b.l2 ? row : row - whole) * b.d;
        if (b.l2) shift(from, b.mean, b.d, to);
        else std::copy_n(from, b.d, to);
    }
    const auto group = [&](int64_t g) {
        if (b.l2) return static_cast<const float *>(copies.get()) + g * R * b.d;
        return g * R < whole ? z + g * R * b.d : copies.get();
    };
    for (int64_t first = 0; first < panels; first += block)
        for (int64_t g = 0; g < groups; g++) pass(b, group(g), lanes + g * R, first, std::min(panels, first + block));
    for (int64_t row = 0; row < rows; row++) decide(p, first_row + row, group(row / R) + row % R * b.d, lanes[row]);
}

void solve(const Problem &p, int threads) {
    if (p.n == 0) return;
    if (p.n == 1) {
        const FloatModes modes(FloatModes::DEFAULT);
        return single(p);
    }
    const int64_t most = std::max<int64_t>(R, STRIP_BYTES / (4 * p.book.d) / R * R);
    const int64_t count = (p.n + most * threads - 1) / (most * threads) * threads;
    const int64_t rows = std::max<int64_t>(R, ((p.n + count - 1) / count + R - 1) / R * R);
    parallel((p.n + rows - 1) / rows, threads, [&](int64_t i) {
        // The error bound and the float64 sums rely on subnormal numbers, whatever the caller has set.
        const FloatModes modes(FloatModes::DEFAULT);
        strip(p, i * rows, std::min(rows, p.n - i * rows));
    });
}

int pack(const Book &b, int threads) {
    const int64_t panels = (b.k + P - 1) / P;
    double mean_square = 0;
    std::vector<double> total(static_cast<size_t>(b.d), 0.0);
    if (b.l2)
        for (int64_t j = 0; j < b.k; j++)
            for (int64_t d = 0; d < b.d; d++) total[static_cast<size_t>(d)] += b.codebook[j * b.d + d];
    for (int64_t d = 0; d < b.d; d++) {
        b.mean[d] = static_cast<float>(total[static_cast<size_t>(d)] / static_cast<double>(b.k));
        mean_square += static_cast<double>(b.mean[d]) * b.mean[d];
    }

    std::vector<double> norms(static_cast<size_t>(panels * P), 0.0), raw(norms);
    parallel(panels, threads, [&](int64_t panel) {
        const FloatModes modes(FloatModes::DEFAULT);
        Floats shifted = floats(b.l2 ? P * b.d : 0);
        const float *codes[P];
        for (int lane = 0; lane < P; lane++) {
            const int64_t code = panel * P + lane;
            const float *c = b.codebook + std::min(code, b.k - 1) * b.d;
            codes[lane] = b.l2 ? shift(c, b.mean, b.d, shifted.get() + lane * b.d) : c;
            // The last panel is completed by copies of the last codeword that score -inf, so that none is a candidate.
            b.bias[code] = code < b.k ? 0 : -INF;
            if (code >= b.k) continue;
            const double size = norm(codes[lane], b.d);
            norms[static_cast<size_t>(code)] = size;
            raw[static_cast<size_t>(code)] = b.l2 ? norm(c, b.d) : size;
            if (b.l2) b.bias[code] = static_cast<float>(-0.5 * size * size);
        }
        interleave<P>(codes, b.d, b.panels + panel * P * b.d);
    });
    double largest_norm = 0, largest_raw = 0;
    for (int64_t code = 0; code < b.k; code++) {
        const size_t j = static_cast<size_t>(code);
        if (!std::isfinite(raw[j])) return NONFINITE_CODEBOOK;
        largest_norm = std::max(largest_norm, norms[j]);
        largest_raw = std::max(largest_raw, raw[j]);
    }
    b.bounds[0] = largest_norm;
    b.bounds[1] = b.l2 ? 0.5 * largest_norm * largest_norm : 0;
    b.bounds[2] = largest_raw;
    b.bounds[3] = std::sqrt(mean_square);
    return OK;
}

}  // namespace
}  // namespace SPINTOK_ISA
