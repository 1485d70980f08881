// The passes of loss.cpp, compiled once for each instruction set.

namespace SPINTOK_ISA {
namespace {

#include "../simd.h"

// A scratch array of floats, aligned to cache lines and initialised to zero.
struct Row {
    std::vector<float> memory;
    float *data;
    explicit Row(int64_t count) : memory(count + 16) {
        data = reinterpret_cast<float *>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
    }
};

// Calls body(column, load) for each vector of a row; load(p, fill) never reads past the k numbers of the row.
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
                // One exponential is enough: that of the smaller term relative to the larger.
                const Vector e = exp2(d > 0 ? -d : d);
                store(total.data + j, d > 0 ? s * e + 1 : s + e);
                store(top.data + j, d > 0 ? x : m);
            });
        }
        double *out = t.sums + (group * t.views + view) * t.k;
        for (int64_t j = 0; j < t.k; ++j) out[j] = top.data[j] + std::log2(static_cast<double>(total.data[j]));
    }
}

// Writes 2^(scale * row + u - max), a row of Q before its division, to `out` and returns the sum.
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

// The index of the row's highest score, the lowest index of equal ones.
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
                // With the row's maximum subtracted both terms of the cross-entropy are >= 0.
                columns(t.k, [&](int64_t j, auto read) SPINTOK_LAMBDA {
                    const Vector x = (read(row + j, LOWEST) - highest) * t.inverse;
                    const Vector e = exp2(x);
                    store(p.data + j, e);
                    total += e;
                    // Padding has target 0 and score -infinity, whose product would be NaN.
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
