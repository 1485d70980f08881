// Second-order sections, one a lane: each hears what the lane above it said a sample ago.

// A biquad as a state-variable filter with trapezoidal integrators (its bilinear transform is the biquad): near 0 Hz
// its coefficients and states keep digits in float32 that those of z^-1 lose. Near half the sample rate it is run on
// the waveform times (-1)^n, which moves it to 0 Hz: the states then change sign at every sample. States are counted
// in what an input of 1 adds to them.
struct Section {
    // What a state keeps, less 1, and what the other adds; what both and the input are worth in the output. A section
    // that has no coefficients says what it hears.
    double sign = 1, first_kept = -1, first_gets = 0, second_kept = -1, second_gets = 0, out[3] = {0, 0, 1};
    Section() = default;
    explicit Section(const double *b) {
        const double *a = b + 2;  // a[1], a[2]
        sign = a[1] > 0 ? -1 : 1;
        const double a1 = sign * a[1], b1 = sign * b[1], top = 1 - a1 + a[2], bottom = 1 + a1 + a[2];
        const double g = std::sqrt(bottom / top), k = 2 * (1 - a[2]) / (top * g);
        // High-pass, low-pass and band-pass that make up the numerator.
        const double high = (b[0] - b1 + b[2]) / top, low = (b[0] + b1 + b[2]) / bottom - high;
        const double band = 2 * (b[0] - b[2]) / (top * g) - k * high + g * low;
        const double gain = g / (1 + g * (g + k)), loss = gain * (g + k);
        first_kept = -2 * loss;
        first_gets = -2 * sign * g * gain;
        second_kept = -2 * g * gain;
        second_gets = 2 * sign * (1 - loss);
        out[0] = 2 * sign * gain * band * (1 - loss);
        out[1] = 2 * sign * gain * g * (low - band * gain);
        out[2] = high + band * gain;
    }
};

// STREAMS utterances at a time: what one waits for, the other has the units for.
template <int STREAMS>
SPINTOK_INLINE void filter(const Cascade &t, int64_t row) {
    constexpr int VECTORS = SECTIONS / W, ALL = STREAMS * VECTORS;
    Vector sign[ALL], first_kept[ALL], first_gets[ALL], second_kept[ALL], second_gets[ALL], to_out[ALL][3];
    for (int lane = 0; lane < STREAMS * SECTIONS; ++lane) {
        // The first section is in the highest lane that is used; those above it pass the input on.
        const int64_t number = t.count - 1 - lane % SECTIONS, i = row + lane / SECTIONS;
        const Section s = number < 0 ? Section() : Section(t.sections + (i * t.count + number) * 5);
        sign[lane / W][lane % W] = static_cast<float>(s.sign);
        first_kept[lane / W][lane % W] = static_cast<float>(s.first_kept);
        first_gets[lane / W][lane % W] = static_cast<float>(s.first_gets);
        second_kept[lane / W][lane % W] = static_cast<float>(s.second_kept);
        second_gets[lane / W][lane % W] = static_cast<float>(s.second_gets);
        for (int i = 0; i < 3; ++i) to_out[lane / W][i][lane % W] = static_cast<float>(s.out[i]);
    }
    Vector out[ALL] = {}, first[ALL] = {}, second[ALL] = {};
    // Most of a step begins before its input is there.
    const auto advance = [&](int64_t n, int64_t written) SPINTOK_LAMBDA {
#pragma GCC unroll 8
        for (int i = 0; i < ALL; ++i) {
            const int stream = i / VECTORS, v = i % VECTORS;
            const float *x = t.waveforms + (row + stream) * t.samples + n;
            const Vector above = v + 1 < VECTORS ? out[i + 1] : n < t.samples ? repeated(x) : Vector{};
            const Vector in = shifted(out[i], above), s = first[i], z = second[i];
            first[i] = sign[i] * (s + first_kept[i] * s) + (first_gets[i] * z + in);
            second[i] = sign[i] * (z + second_kept[i] * z) + (second_gets[i] * s + in);
            out[i] = to_out[i][2] * in + (to_out[i][0] * s + to_out[i][1] * z);
            if (v == 0 && written >= 0) t.output[(row + stream) * t.samples + written] = out[i][0];
        }
    };
    // A sample needs as many steps as there are lanes to the lowest.
    const int64_t delay = SECTIONS - 1;
    for (int64_t n = 0; n < delay; ++n) advance(n, -1);
    for (int64_t n = delay; n < t.samples; ++n) advance(n, n - delay);
    for (int64_t n = std::max(delay, t.samples); n < t.samples + delay; ++n) advance(n, n - delay);
}

void cascade(const Cascade &t, int64_t group, Scratch &) {
    // After silence a filter's state decays through the subnormal numbers, which are slow: treat them as zero.
    const FloatModes modes(FloatModes::FLUSH_SUBNORMALS);
    const int64_t row = group * t.streams;
    if (std::min(t.streams, t.batch - row) == 2)
        filter<2>(t, row);
    else
        filter<1>(t, row);
}
