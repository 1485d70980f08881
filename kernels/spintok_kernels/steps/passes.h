// The passes of steps.cpp, compiled once for each instruction set.

namespace SPINTOK_ISA {
namespace {

#include "../simd.h"

// Outputs of a panel, and the most rows of a tile: its sums fill the registers.
constexpr int64_t P = 2 * W;
constexpr int64_t MOST_ROWS = SPINTOK_WIDTH == 16 ? 12 : 6;

enum Mode { STORE, GELU, ADD };

SPINTOK_INLINE int64_t padded(int64_t count) { return (count + P - 1) / P * P; }

// x Phi(x), from erfc(z) = exp(-z^2) t poly(t) with z = |x| / sqrt(2) and t = 1 / (1 + 0.4 z): a minimax fit of relative
// error 6e-8 for z < 9.5. The error of the result is below 3e-7.
SPINTOK_INLINE Vector gelu(Vector x) {
    const Vector size = larger(x, -x);
    const Vector t = 1.0f / (1.0f + 0.282842712f * size);
    Vector p = Vector{} + 0.0402678549f;
    p = p * t - 0.135472819f;
    p = p * t + 0.0738456771f;
    p = p * t + 0.0997255966f;
    p = p * t + 0.0715110153f;
    p = p * t + 0.196961895f;
    p = p * t + 0.200958863f;
    p = p * t + 0.226575673f;
    p = p * t + 0.225626305f;
    const Vector tail = 0.5f * x * (exp2(x * x * -0.721347520f) * (p * t));
    return x < 0 ? tail : x - tail;
}

SPINTOK_INLINE void store_some(float *p, Vector v, int64_t count) {
    if (count >= W)
        store(p, v);
    else if (count > 0)
        std::memcpy(p, &v, count * sizeof(float));
}

// R rows of sums of k products each with one panel, added to the bias or to zero.
template <int R>
SPINTOK_INLINE void tile(const float *a, int64_t row, int64_t step, const float *b, int64_t stride, int64_t k,
                         const float *bias, Mode mode, float *c, int64_t c_stride, int64_t rows, int64_t columns) {
    Vector sums[R][2];
    for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = Vector{};
    for (int64_t i = 0; i < k; ++i, a += step, b += stride) {
        // The weights come from beyond the caches; the processor looks less far ahead.
        __builtin_prefetch(b + 16 * P), __builtin_prefetch(b + 16 * P + W);
        const Vector left = load(b), right = load(b + W);
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) {
            const Vector x = repeated(a + r * row);
            sums[r][0] += x * left;
            sums[r][1] += x * right;
        }
    }
    for (int r = 0; r < R && r < rows; ++r, c += c_stride)
        for (int h = 0; h < 2; ++h) {
            const int64_t count = columns - h * W;
            if (count <= 0) continue;
            Vector v = sums[r][h];
            if (bias) v += load(bias + h * W);
            if (mode == GELU) v = gelu(v);
            if (mode == ADD) v += count < W ? load_tail(c + h * W, count, 0) : load(c + h * W);
            store_some(c + h * W, v, count);
        }
}

// The same for a number of rows that is known at run time. `row` and `step` are the distances of the numbers of `a`.
void tiles(int64_t size, const float *a, int64_t row, int64_t step, const float *b, int64_t stride, int64_t k,
           const float *bias, Mode mode, float *c, int64_t c_stride, int64_t rows, int64_t columns) {
#define SPINTOK_TILE(R) \
    case R: return tile<R>(a, row, step, b, stride, k, bias, mode, c, c_stride, rows, columns);
    switch (size) {
        SPINTOK_TILE(1) SPINTOK_TILE(2) SPINTOK_TILE(3) SPINTOK_TILE(4) SPINTOK_TILE(5) SPINTOK_TILE(6)
#if SPINTOK_WIDTH == 16
        SPINTOK_TILE(7) SPINTOK_TILE(8) SPINTOK_TILE(9) SPINTOK_TILE(10) SPINTOK_TILE(11) SPINTOK_TILE(12)
#endif
    }
#undef SPINTOK_TILE
}

// c (m, n) = rows of a (m, k), `a_stride` apart, with packed weights of n outputs; see Mode.
void product(const float *a, int64_t a_stride, int64_t m, int64_t k, const float *panels, const float *bias, int64_t n,
             Mode mode, float *c, int64_t c_stride) {
    const int64_t count = (m + MOST_ROWS - 1) / MOST_ROWS, size = (m + count - 1) / count;
    float *packed = scratch().floats(0, count * k * size);
    for (int64_t t = 0; t < count; ++t)
        for (int64_t r = 0; r < size; ++r) {
            const int64_t i = t * size + r;
            float *to = packed + t * k * size + r;
            if (i < m)
                for (int64_t j = 0; j < k; ++j) to[j * size] = a[i * a_stride + j];
            else
                for (int64_t j = 0; j < k; ++j) to[j * size] = 0;
        }
    for (int64_t start = 0; start < n; start += P)
        for (int64_t t = 0; t < count; ++t)
            tiles(size, packed + t * k * size, 1, size, panels + start * k, P, k, bias ? bias + start : bias, mode,
                  c + t * size * c_stride + start, c_stride, m - t * size, n - start);
}

// Layer norm of the rows of x (m, n).
void norm(const float *x, int64_t m, int64_t n, const float *scale, const float *shift, float eps, float *out) {
    for (int64_t i = 0; i < m; ++i, x += n, out += n) {
        const int64_t whole = n / W * W, rest = n - whole;
        Vector total{};
        for (int64_t j = 0; j < whole; j += W) total += load(x + j);
        if (rest) total += load_tail(x + whole, rest, 0);
        const float mean = sum(total) / static_cast<float>(n);
        Vector squares{};
        for (int64_t j = 0; j < whole; j += W) {
            const Vector d = load(x + j) - mean;
            squares += d * d;
        }
        if (rest) {
            const Vector d = load_tail(x + whole, rest, mean) - mean;
            squares += d * d;
        }
        const float factor = 1 / std::sqrt(sum(squares) / static_cast<float>(n) + eps);
        for (int64_t j = 0; j < whole; j += W)
            store(out + j, (load(x + j) - mean) * factor * load(scale + j) + load(shift + j));
        for (int64_t j = whole; j < n; ++j) out[j] = (x[j] - mean) * factor * scale[j] + shift[j];
    }
}

void from_halves(const uint16_t *in, int64_t count, float *out) {
    int64_t i = 0;
#if SPINTOK_WIDTH == 16
    for (; i + W <= count; i += W)
        store(out + i, (Vector)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(in + i))));
#elif SPINTOK_WIDTH == 8
    for (; i + W <= count; i += W)
        store(out + i, (Vector)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(in + i))));
#endif
    for (; i < count; ++i) out[i] = from_half(in[i]);
}

void to_halves(const float *in, int64_t count, uint16_t *out) {
    int64_t i = 0;
#if SPINTOK_WIDTH == 16
    for (; i + W <= count; i += W)
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(out + i),
                            _mm512_cvtps_ph((__m512)load(in + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif SPINTOK_WIDTH == 8
    for (; i + W <= count; i += W)
        _mm_storeu_si128(reinterpret_cast<__m128i *>(out + i),
                         _mm256_cvtps_ph((__m256)load(in + i), _MM_FROUND_TO_NEAREST_INT));
#endif
    for (; i < count; ++i) out[i] = to_half(in[i]);
}

// The past of a head (past, d) and the new rows (frames, d), `stride` apart, as (past + frames, padded(d)).
void join(const Task &t, const uint16_t *past, const float *rows, int64_t stride, int64_t d, float *out) {
    const int64_t wide = padded(d);
    if (wide == d)
        from_halves(past, t.past * d, out);
    else
        for (int64_t i = 0; i < t.past; ++i) from_halves(past + i * d, d, out + i * wide);
    for (int64_t i = 0; i < t.frames; ++i) std::copy_n(rows + i * stride, d, out + (t.past + i) * wide);
}

// The first `chunk` of the new rows become the latest of the past.
void remember(const Task &t, uint16_t *past, const float *rows, int64_t stride, int64_t d) {
    const int64_t fresh = std::min(t.chunk, t.past), kept = t.past - fresh;
    std::memmove(past, past + fresh * d, kept * d * sizeof(uint16_t));
    for (int64_t i = 0; i < fresh; ++i)
        to_halves(rows + (t.chunk - fresh + i) * stride, d, past + (kept + i) * d);
}

// Attention of one head of a stream: queries q (frames, d), `stride` apart, to keys and values (past + frames, padded(d)),
// those from `first` to before `last`; out (frames, d), `out_stride` apart.
void attend(const Task &t, const float *q, int64_t stride, int64_t d, const float *keys, const float *values,
            int64_t first, int64_t last, float *out, int64_t out_stride) {
    const int64_t wide = padded(d), count = last - first;
    float *turned = scratch().floats(1, d * P), *scores = scratch().floats(2, count * P), *sums = scratch().floats(3, P);
    // Of the scores in base 2.
    const float scale = 1.44269504f / std::sqrt(static_cast<float>(d));
    for (int64_t start = 0; start < t.frames; start += P) {
        const int64_t queries = std::min<int64_t>(P, t.frames - start);
        for (int64_t i = 0; i < d; ++i)
            for (int64_t j = 0; j < P; ++j)
                turned[i * P + j] = j < queries ? q[(start + j) * stride + i] * scale : 0.0f;
        constexpr int64_t R = 6;
        for (int64_t i = 0; i < count; i += R) {
            const int64_t rows = std::min(R, count - i);
            tiles(rows, keys + (first + i) * wide, wide, 1, turned, P, d, nullptr, STORE, scores + i * P, P, rows, P);
        }
        for (int64_t h = 0; h < P; h += W) {
            Vector top = load(scores + h), total{};
            for (int64_t i = 1; i < count; ++i) top = larger(top, load(scores + i * P + h));
            for (int64_t i = 0; i < count; ++i) {
                const Vector e = exp2(load(scores + i * P + h) - top);
                store(scores + i * P + h, e);
                total += e;
            }
            store(sums + h, 1.0f / total);
        }
        for (int64_t i = 0; i < queries; i += MOST_ROWS) {
            const int64_t rows = std::min(MOST_ROWS, queries - i);
            float *to = out + (start + i) * out_stride;
            for (int64_t column = 0; column < d; column += P)
                tiles(rows, scores + i, 1, P, values + first * wide + column, wide, count, nullptr, STORE, to + column,
                      out_stride, rows, d - column);
            for (int64_t r = 0; r < rows; ++r)
                for (int64_t j = 0; j < d; ++j) to[r * out_stride + j] *= sums[i + r];
        }
    }
}

// The attention of all streams in a layer, from queries, keys and values (streams * frames, 3 * width).
void attention(const Task &t, int64_t layer, const float *qkv, float *out) {
    const int64_t d = t.width / t.heads, stride = 3 * t.width, wide = padded(d), size = t.past * d;
    float *keys = scratch().floats(4, (t.past + t.frames) * wide), *values = scratch().floats(5, (t.past + t.frames) * wide);
    for (int64_t s = 0; s < t.streams; ++s)
        for (int64_t h = 0; h < t.heads; ++h) {
            const float *q = qkv + s * t.frames * stride + h * d, *k = q + t.width, *v = k + t.width;
            uint16_t *past_keys = t.keys[s] + (layer * t.heads + h) * size;
            uint16_t *past_values = t.values[s] + (layer * t.heads + h) * size;
            join(t, past_keys, k, stride, d, keys);
            join(t, past_values, v, stride, d, values);
            const int64_t first = t.past - std::min(t.gone[s], t.past);
            const int64_t last = t.past + std::max<int64_t>(t.valid[s], 1);
            attend(t, q, stride, d, keys, values, first, last, out + s * t.frames * t.width + h * d, t.width);
            remember(t, past_keys, k, stride, d);
            remember(t, past_values, v, stride, d);
        }
}

void run(const Task &t) {
    const int64_t m = t.streams * t.frames, n = t.width;
    float *normed = scratch().floats(6, m * n), *qkv = scratch().floats(7, m * 3 * n);
    float *attended = scratch().floats(8, m * n), *hidden = scratch().floats(9, m * t.hidden);
    for (int64_t layer = 0; layer < t.layers; ++layer) {
        const float *const *w = t.weights + layer * WEIGHTS;
        const float *in = t.x;
        if (t.pre) norm(t.x, m, n, w[NORM_SCALE], w[NORM_SHIFT], t.eps, normed), in = normed;
        product(in, n, m, n, w[QKV], w[QKV_BIAS], 3 * n, STORE, qkv, 3 * n);
        attention(t, layer, qkv, attended);
        product(attended, n, m, n, w[OUT], w[OUT_BIAS], n, ADD, t.x, n);
        const bool pre = t.pre;
        norm(t.x, m, n, w[pre ? NORM2_SCALE : NORM_SCALE], w[pre ? NORM2_SHIFT : NORM_SHIFT], t.eps, pre ? normed : t.x);
        product(pre ? normed : t.x, n, m, n, w[EXPAND], w[EXPAND_BIAS], t.hidden, GELU, hidden, t.hidden);
        product(hidden, t.hidden, m, t.hidden, w[CONTRACT], w[CONTRACT_BIAS], n, ADD, t.x, n);
        if (!pre) norm(t.x, m, n, w[NORM2_SCALE], w[NORM2_SHIFT], t.eps, t.x);
        if (t.outputs[layer]) std::copy_n(t.x, m * n, t.outputs[layer]);
    }
}

void convolve(const float *signal, int64_t groups, int64_t streams, int64_t frames, int64_t taps, int64_t inner, int64_t n,
              const float *panels, const float *bias, float *out) {
    const int64_t k = taps * inner, wide = padded(n), size = (frames + taps - 1) * inner;
    for (int64_t g = 0; g < groups; ++g, panels += wide * k, bias += wide)
        for (int64_t s = 0; s < streams; ++s, signal += size)
            product(signal, inner, frames, k, panels, bias, n, GELU, out + (s * frames * groups + g) * n, groups * n);
}

#include "front_end.h"

}  // namespace
}  // namespace SPINTOK_ISA
