// Second-order sections, one in each lane: the input of a lane is the output of the lane above one sample ago.

// A biquad as a state-variable filter with trapezoidal integrators, whose bilinear transform is the biquad. Near 0 Hz its
// coefficients and states keep the precision in float32 that those of z^-1 lose. Near half the sample rate it filters the
// waveform times (-1)^n, which moves it to 0 Hz: the states then change sign at every sample. The unit of a state is what
// an input of 1 adds to it.
struct Section {
    // For each state, the factor of its old value minus 1 and the factor of the other state; then the factors of both
    // states and of the input in the output. A section without coefficients copies its input.
    double sign = 1, first_kept = -1, first_gets = 0, second_kept = -1, second_gets = 0, out[3] = {0, 0, 1};
    Section() = default;
    explicit Section(const double *b) {
        const double *a = b + 2;  // a[1], a[2]
        sign = a[1] > 0 ? -1 : 1;
        const double a1 = sign * a[1], b1 = sign * b[1], top = 1 - a1 + a[2], bottom = 1 + a1 + a[2];
        const double g = std::sqrt(bottom / top), k = 2 * (1 - a[2]) / (top * g);
        // The numerator is a sum of high-pass, low-pass and band-pass.
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

// Filters STREAMS utterances at a time, so that one uses the units while the other waits for results.
template <int STREAMS>
SPINTOK_INLINE void filter(const Cascade &t, int64_t row) {
    constexpr int VECTORS = SECTIONS / W, ALL = STREAMS * VECTORS;
    Vector sign[ALL], first_kept[ALL], first_gets[ALL], second_kept[ALL], second_gets[ALL], to_out[ALL][3];
    for (int lane = 0; lane < STREAMS * SECTIONS; ++lane) {
        // The first section is in the highest used lane; the lanes above copy the input.
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
    // Most of a step does not depend on its input.
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
    // A sample reaches the lowest lane after one step for each lane.
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
