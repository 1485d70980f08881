// The kernel of assign.cpp, compiled once for each instruction set.

namespace SPINTOK_ISA {
namespace {

#include "../simd.h"

// Rows that share the registers, rows of the tiles for the rest, and codewords in a panel.
constexpr int R = W == 16 ? 12 : 6, REST = W == 16 ? 4 : 3, P = 2 * W;
// Columns of a panel, and numbers of a row of scores, that are in use at once.
constexpr int64_t DEPTH = PANEL_BYTES / (4 * P), SCORES = BLOCK + W, SHARE = P * R / STRIP;

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

// An upper bound of the norm of a row, within a relative 1e-3 of it.
double bound_of_norm(const float *x, int64_t n) {
    Vector sums[4] = {};
    int64_t i = 0;
    for (; i + 4 * W <= n; i += 4 * W)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            const Vector v = load(x + i + j * W);
            sums[j] += v * v;
        }
    float square = sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    for (; i < n; i++) square += x[i] * x[i];
    // Twice the error of the sum; between these limits neither overflow nor underflow matters.
    const double error = gamma(2.0 * static_cast<double>(n), 23);
    if (square > 1e-25f && square < 1e30f && error < 1e-3) return std::sqrt(static_cast<double>(square) * (1 + error));
    return norm(x, n);
}

// Scores of `rows` rows `a`, `stride` numbers apart, with one panel: to what is in `out`, or to `bias` if there is one,
// the products of `depth` columns are added.
template <int rows>
SPINTOK_INLINE void tile(const float *a, int64_t stride, const float *panel, const float *bias, int64_t depth,
                         const float *next, float *out) {
    Vector sums[rows][2];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) sums[r][h] = load(bias ? bias + h * W : out + r * SCORES + h * W);
    // One pointer for three rows: an x86 address has a scale of 1 or 2 strides, and there are few registers.
    const float *from[(rows + 2) / 3];
    for (int i = 0; i < (rows + 2) / 3; i++) from[i] = a + 3 * i * stride;
    for (int64_t d = 0; d < depth; d++, panel += P, next += SHARE) {
        __builtin_prefetch(next, 0, 2);
        const Vector left = load(panel), right = load(panel + W);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            const Vector x = repeated(from[r / 3] + r % 3 * stride);
            sums[r][0] += x * left;
            sums[r][1] += x * right;
        }
#pragma GCC unroll 4
        for (int i = 0; i < (rows + 2) / 3; i++) ++from[i];
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) store(out + r * SCORES + h * W, sums[r][h]);
}

void whole_tile(const float *a, int64_t stride, const float *panel, const float *bias, int64_t depth, const float *next,
                float *out) {
    tile<R>(a, stride, panel, bias, depth, next, out);
}

void rest_tile(const float *a, int64_t stride, const float *panel, const float *bias, int64_t depth, const float *next,
                float *out) {
    tile<REST>(a, stride, panel, bias, depth, next, out);
}

// Scores of one row with `panels` panels at a time: one panel alone is bound by latency.
template <int panels> SPINTOK_INLINE void one_row(const Book &b, const float *a, int64_t panel, float *out) {
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
    for (int i = 0; i < panels; i++)
        for (int h = 0; h < 2; h++) store(out + i * P + h * W, sums[i][h]);
}

// Scores of the row `a` with the panels first ... last - 1.
void score_row(const Book &b, const float *a, int64_t first, int64_t last, float *out) {
    int64_t panel = first;
    for (; panel + 4 <= last; panel += 4) one_row<4>(b, a, panel, out + (panel - first) * P);
    for (; panel + 2 <= last; panel += 2) one_row<2>(b, a, panel, out + (panel - first) * P);
    for (; panel < last; panel++) one_row<1>(b, a, panel, out + (panel - first) * P);
}

// Which codewords may win a row, after some blocks of the codebook.
struct Row {
    enum Kind { NORMAL, NONFINITE, ZERO, LARGE } kind;
    double slack;  // a codeword that scores so much less than the best one cannot win
    float best, second;
    int count;  // of candidates; more than FEW are not kept
    int32_t codes[FEW];
    float scores[FEW];

    // `z` is the row, `a` the same, centred for L2.
    void start(const Book &b, const float *z, const float *a) {
        const double norm = bound_of_norm(a, b.d), err = b.error(norm);
        kind = NORMAL;
        if (!std::isfinite(norm) && !std::all_of(z, z + b.d, [](float x) { return std::isfinite(x); })) kind = NONFINITE;
        // All scores are equal. Padding makes such rows common.
        else if (norm == 0 && !b.l2) kind = ZERO;
        // float32 sums may overflow.
        else if (!(b.size(norm) < 1e37) || !(err < 1e37)) kind = LARGE;
        slack = 2 * err;
        best = second = -INF;
        count = 0;
    }

    float threshold() const { return static_cast<float>(static_cast<double>(best) - slack); }

    void keep(int32_t code, float score) {
        if (count == FEW) {
            // The best score may have risen since these were kept.
            count = 0;
            const float least = threshold();
            for (int i = 0; i < FEW; i++)
                if (scores[i] >= least) codes[count] = codes[i], scores[count++] = scores[i];
        }
        if (count < FEW) codes[count] = code, scores[count] = score;
        count++;
    }

    // Offers the scores of `count` codewords, a multiple of P, of which `code` is the first.
    void offer(const float *from, int64_t count, int64_t code, bool details) {
        Vector top[4];
        for (int i = 0; i < 4; i++) top[i] = Vector{} - INF;
        int64_t i = 0;
        for (; i + 2 * P <= count; i += 2 * P)
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) top[j] = larger(top[j], load(from + i + j * W));
        for (; i < count; i += W) top[0] = larger(top[0], load(from + i));
        if (details) runner_up(from, count);
        best = std::max(best, largest(larger(larger(top[0], top[1]), larger(top[2], top[3]))));
        const float least = threshold();
        for (i = 0; i < count; i += P) {
            uint32_t which = at_least(load(from + i), least) | at_least(load(from + i + W), least) << W;
            for (; which; which &= which - 1) {
                const int64_t j = i + __builtin_ctz(which);
                keep(static_cast<int32_t>(code + j), from[j]);
            }
        }
    }

    // Takes over what was found in other codewords.
    void merge(const Row &other) {
        second = std::max({second, other.second, std::min(best, other.best)});
        best = std::max(best, other.best);
        const float least = threshold();
        if (other.best < least) return;
        if (other.count > FEW) {
            count = FEW + 1;
            return;
        }
        for (int i = 0; i < other.count; i++)
            if (other.scores[i] >= least) keep(other.codes[i], other.scores[i]);
    }

    // Brings `second` up to date, before `best` is.
    void runner_up(const float *from, int64_t count) {
        Vector most = Vector{} - INF, next = most;
        for (int64_t i = 0; i < count; i += W) {
            const Vector v = load(from + i);
            next = larger(next, v > most ? most : v);
            most = larger(most, v);
        }
        float first = best;
        for (int i = 0; i < W; i++) {
            second = std::max({second, next[i], std::min(first, most[i])});
            first = std::max(first, most[i]);
        }
    }
};

// Decides a row whose scores were all offered. `a` is the row, centred for L2.
void decide(const Problem &p, int64_t n, const float *a, const Row &row) {
    const Book &b = p.book;
    const float *z = p.z + n * b.d;
    if (row.kind == Row::NONFINITE) return report(p, n, -1, std::numeric_limits<double>::quiet_NaN());
    if (row.kind == Row::ZERO) return report(p, n, 0, b.k > 1 ? 0 : static_cast<double>(INF));
    Decision decision;
    const float least = row.threshold();
    if (row.kind == Row::LARGE) {
        for (int64_t code = 0; code < b.k; code++) decision.offer(code, exact_score(b, z, code));
    } else if (row.count <= FEW) {
        int count = 0, only = 0;
        for (int i = 0; i < row.count; i++)
            if (row.scores[i] >= least) only = i, count++;
        if (count == 1)
            return report(p, n, row.codes[only], static_cast<double>(row.best) - static_cast<double>(row.second));
        for (int i = 0; i < row.count; i++)
            if (row.scores[i] >= least) decision.offer(row.codes[i], exact_score(b, z, row.codes[i]));
    } else {
        alignas(64) float scores[P];
        for (int64_t first = 0; first < b.k; first += P) {
            score_row(b, a, first / P, first / P + 1, scores);
            for (int64_t code = first; code < std::min(b.k, first + P); code++)
                if (scores[code - first] >= least) decision.offer(code, exact_score(b, z, code));
        }
    }
    report(p, n, decision.id, decision.best - decision.second);
}

// The memory of a thread.
struct Scratch {
    Floats memory = floats(0);
    int64_t held = 0;
    Row rows[STRIP];

    float *get(int64_t count) {
        if (count > held) memory = floats(held = count);
        return memory.get();
    }
};

// The rows from `first_row` on, at most STRIP of them. The caller's z is read in place but for centred rows, the last
// few and strides that would put all rows of a tile into the same lines of the cache.
void strip(const Problem &p, int64_t first_row, int64_t count, Scratch &scratch) {
    const Book &b = p.book;
    const float *z = p.z + first_row * b.d;
    const int64_t padded = count == 1 ? 1 : (count + REST - 1) / REST * REST;
    const bool all = b.l2 || (b.d % 1024 == 0 && count > 1);
    const int64_t stride = all ? b.d + W : b.d, kept = all ? 0 : count == 1 ? 1 : count / REST * REST;
    const int64_t whole = all ? padded : kept;  // rows that lie a stride apart
    float *scores = scratch.get(padded * SCORES + (padded - kept) * stride), *copies = scores + padded * SCORES;
    for (int64_t row = kept; row < padded; row++) {
        // The rows are completed by copies of the last one, whose results are ignored.
        const float *from = z + std::min(row, count - 1) * b.d;
        float *to = copies + (row - kept) * stride;
        if (b.l2) shift(from, b.mean, b.d, to);
        else std::copy_n(from, b.d, to);
    }
    const auto at = [&](int64_t row) { return row < kept ? z + row * b.d : copies + (row - kept) * stride; };
    for (int64_t row = 0; row < count; row++) scratch.rows[row].start(b, z + row * b.d, at(row));

    const int64_t panels = (b.k + P - 1) / P;
    for (int64_t first = 0; first < panels; first += BLOCK / P) {
        const int64_t last = std::min(panels, first + BLOCK / P);
        if (count == 1) score_row(b, at(0), first, last, scores);
        // A panel, or a part of it, stays in the L1 cache while the rows pass.
        else
            for (int64_t panel = first; panel < last; panel++)
                for (int64_t d = 0; d < b.d; d += DEPTH) {
                    const float *part = b.panels + (panel * b.d + d) * P;
                    const float *bias = d == 0 ? b.bias + panel * P : nullptr;
                    const int64_t depth = std::min(DEPTH, b.d - d);
                    const float *next = part + P * depth;
                    float *out = scores + (panel - first) * P;
                    int64_t row = 0;
                    for (; row + R <= whole; row += R)
                        whole_tile(at(row) + d, stride, part, bias, depth, next + row / R * SHARE * depth, out + row * SCORES);
                    for (; row < padded; row += REST)
                        rest_tile(at(row) + d, stride, part, bias, depth, next, out + row * SCORES);
                }
        for (int64_t row = 0; row < count; row++)
            if (scratch.rows[row].kind == Row::NORMAL)
                scratch.rows[row].offer(scores + row * SCORES, (last - first) * P, first * P, p.scores != nullptr);
    }
    for (int64_t row = 0; row < count; row++) decide(p, first_row + row, at(row), scratch.rows[row]);
}

// The only row: the threads share the blocks of the codebook.
void one(const Problem &p, int threads) {
    const FloatModes modes(FloatModes::DEFAULT);
    const Book &b = p.book;
    const Floats shifted = floats(b.l2 ? b.d : 0);
    const float *a = b.l2 ? shift(p.z, b.mean, b.d, shifted.get()) : p.z;
    Row row;
    row.start(b, p.z, a);
    const int64_t panels = (b.k + P - 1) / P, block = BLOCK / P, blocks = (panels + block - 1) / block;
    const auto search = [&](int64_t i, Row &into) {
        alignas(64) float scores[BLOCK];
        const int64_t first = i * block, last = std::min(panels, first + block);
        score_row(b, a, first, last, scores);
        into.offer(scores, (last - first) * P, first * P, p.scores != nullptr);
    };
    if (row.kind == Row::NORMAL && (threads < 2 || blocks < 2)) {
        for (int64_t i = 0; i < blocks; i++) search(i, row);
    } else if (row.kind == Row::NORMAL) {
        std::vector<Row> found(static_cast<size_t>(blocks), row);
        parallel(blocks, threads, [&](int64_t i) {
            const FloatModes inside(FloatModes::DEFAULT);
            search(i, found[static_cast<size_t>(i)]);
        });
        for (const Row &part : found) row.merge(part);
    }
    decide(p, 0, a, row);
}

void solve(const Problem &p, int threads) {
    if (p.n == 0) return;
    if (p.n == 1) return one(p, threads);
    // Strips of similar size, a multiple of the threads, of whole tiles, if only of the smaller ones.
    const int64_t count = (p.n + STRIP * threads - 1) / (STRIP * threads) * threads;
    const int64_t rows = std::min<int64_t>(STRIP, ((p.n + count - 1) / count + REST - 1) / REST * REST);
    parallel<Scratch>((p.n + rows - 1) / rows, threads, [&](int64_t i, Scratch &scratch) {
        // The error bound and the float64 sums rely on subnormal numbers, whatever the caller has set.
        const FloatModes modes(FloatModes::DEFAULT);
        strip(p, i * rows, std::min(rows, p.n - i * rows), scratch);
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
