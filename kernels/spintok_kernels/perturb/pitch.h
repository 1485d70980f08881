// Pitch: decimation by 4, the strengths of the candidates of a frame, the best candidate of a range.

// Every fourth sample of the low-passed waveform, by a polyphase filter, so that vectors load adjacent numbers.
void decimate(const Decimation &t, int64_t row, Scratch &scratch) {
    constexpr int VECTORS = 4, STEP = VECTORS * W;
    const int64_t length = t.lengths[row], before = TAPS_LOW / 2;
    // The rest is silence.
    const int64_t heard = std::min(t.columns, (length + before) / DECIMATION + 1);
    const int64_t columns = (heard + STEP - 1) / STEP * STEP, size = columns + STEP;
    float *wave = scratch.floats(0, DECIMATION * size + before), *phases = scratch.floats(1, DECIMATION * size);
    pad(wave, before, t.waveforms + row * t.samples, length, DECIMATION * size);
    for (int64_t i = 0; i < size; ++i)
        for (int64_t phase = 0; phase < DECIMATION; ++phase) phases[phase * size + i] = wave[DECIMATION * i + phase];
    float *low = t.low + row * t.columns;
    for (int64_t j = 0; j < columns; j += STEP) {
        Vector sums[VECTORS] = {};
        for (int64_t tap = 0; tap < TAPS_LOW; ++tap) {
            const float *x = phases + tap % DECIMATION * size + j + tap / DECIMATION;
            for (int v = 0; v < VECTORS; ++v) sums[v] += load(x + v * W) * t.kernel[tap];
        }
        for (int v = 0; v < VECTORS; ++v) store(wave + j + v * W, sums[v]);
    }
    std::copy_n(wave, heard, low);
    std::fill(low + heard, low + t.columns, 0.0f);
}

// Writes a (ROWS, depth) times VECTORS * W columns of b to c.
template <int ROWS, int VECTORS>
SPINTOK_INLINE void product(const float *a, int64_t depth, const float *b, int64_t stride, float *c, int64_t columns) {
    Vector sums[ROWS][VECTORS] = {};
    for (int64_t k = 0; k < depth; ++k) {
        Vector row[VECTORS];
        for (int v = 0; v < VECTORS; ++v) row[v] = load(b + k * stride + v * W);
        for (int r = 0; r < ROWS; ++r) {
            const float x = a[r * depth + k];
            for (int v = 0; v < VECTORS; ++v) sums[r][v] += row[v] * x;
        }
    }
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < VECTORS; ++v) store(c + r * columns + v * W, sums[r][v]);
}

// Power spectra by two products of half the size: about its middle the window is even, so that cosines multiply
// x[m] + x[-m] and sines x[m] - x[-m]. A third product gives the correlations at the lags of the candidates.
void candidates(const Candidates &t, int64_t row, Scratch &scratch) {
    constexpr int ROWS = W >= 8 ? 6 : 4, SPECTRUM = W == 16 ? 4 : W == 8 ? 2 : 2, CORRELATION = W == 16 ? 3 : 2;
    const int64_t side = (WINDOW - LOW_HOP) / 2, samples = t.frames * LOW_HOP;
    float *low = scratch.floats(0, side + samples + WINDOW + ROWS * LOW_HOP);
    pad(low, side, t.low + row * samples, samples, samples + WINDOW + (ROWS - 1) * LOW_HOP);
    alignas(64) float even[ROWS * HALF], odd[ROWS * HALF], real[ROWS * BINS], imaginary[ROWS * BINS];
    alignas(64) float correlations[ROWS * LAGS];
    for (int64_t first = 0; first < t.frames; first += ROWS) {
        for (int r = 0; r < ROWS; ++r) {
            const float *x = low + (first + r) * LOW_HOP, *middle = x + HALF;
            Vector total{};
            for (int64_t i = 0; i < WINDOW; i += W) total += load(x + i);
            const float mean = sum(total) / WINDOW;
            even[r * HALF] = middle[0] - mean;
            odd[r * HALF] = 0;
            for (int64_t m = 1; m < HALF; ++m) {
                even[r * HALF + m] = (middle[m] - mean) + (middle[-m] - mean);
                odd[r * HALF + m] = middle[m] - middle[-m];
            }
        }
        for (int64_t bin = 0; bin < BINS; bin += SPECTRUM * W) {
            product<ROWS, SPECTRUM>(even, HALF, t.cosine + bin, BINS, real + bin, BINS);
            product<ROWS, SPECTRUM>(odd, HALF, t.sine + bin, BINS, imaginary + bin, BINS);
        }
        for (int64_t i = 0; i < ROWS * BINS; ++i) real[i] = real[i] * real[i] + imaginary[i] * imaginary[i];
        for (int64_t lag = 0; lag < LAGS; lag += CORRELATION * W)
            product<ROWS, CORRELATION>(real, BINS, t.lags + lag, LAGS, correlations + lag, LAGS);
        for (int64_t r = 0; r < std::min<int64_t>(ROWS, t.frames - first); ++r) {
            const int64_t frame = row * t.frames + first + r;
            const float energy = correlations[r * LAGS + CANDIDATES];
            t.energy[frame] = energy;
            const float scale = 1 / std::max(energy, 1.17549435e-38f);
            for (int64_t i = 0; i < LAGS; i += W)
                store(t.strengths + frame * LAGS + i,
                      load(correlations + r * LAGS + i) * scale +
                          (numbered() + static_cast<float>(i)) * t.bonus);
        }
    }
}

void choose(const Choice &t, int64_t row, Scratch &) {
    const float lowest = t.lowest[row], highest = t.highest[row];
    const auto inside = [&](float i) { return i >= lowest && i <= highest; };
    const int64_t begin = static_cast<int64_t>(std::min(std::max(0.0f, lowest), CANDIDATES - 1.0f)) / W * W;
    const float end = std::min(std::max(0.0f, highest), CANDIDATES - 1.0f);
    for (int64_t frame = row * t.frames; frame < (row + 1) * t.frames; ++frame) {
        const float *strengths = t.strengths + frame * LAGS;
        const Vector outside = Vector{} - 1.0f, bottom = Vector{} + lowest, top = Vector{} + end;
        Vector best = Vector{} - 2.0f, places{};
        for (int64_t i = begin; i <= end; i += W) {
            const Vector place = numbered() + static_cast<float>(i);
            Vector x = load(strengths + i);
            x = place < bottom ? outside : x;
            x = place > top ? outside : x;
            places = x > best ? place : places;
            best = x > best ? x : best;
        }
        float values[W], at[W];
        store(values, best);
        store(at, places);
        int lane = 0;
        for (int i = 1; i < W; ++i)
            if (values[i] > values[lane] || (values[i] == values[lane] && at[i] < at[lane])) lane = i;
        t.best[frame] = values[lane];
        t.place[frame] = at[lane];
        // The offset of the top of the parabola through the peak and its neighbours.
        const int64_t centre = std::min<int64_t>(std::max<int64_t>(1, static_cast<int64_t>(at[lane])), CANDIDATES - 2);
        const auto strength = [&](int64_t i) { return inside(static_cast<float>(i)) ? strengths[i] : -1.0f; };
        const float left = strength(centre - 1), middle = strength(centre), right = strength(centre + 1);
        const float curvature = std::min(left - 2 * middle + right, -1e-6f);
        t.offset[frame] = std::min(std::max(0.5f * (left - right) / curvature, -0.5f), 0.5f);
    }
}
