// The front end of steps.cpp, from waveforms to local features. Included by passes.h, in its namespace.

// Discrete Fourier transform of `fft` real numbers in each lane, of which `count` are not zero: x (count, W) to squared
// absolute values (fft / 2 + 1, W). Even and odd numbers are the parts of complex ones, in half as many numbers.
void spectrum(const FrontEnd &f, const float *x, int64_t count, float *out) {
    const int64_t half = f.fft / 2;
    const float *cosine = f.waves, *sine = f.waves + half + 1;
    float *re = scratch().floats(1, half * W), *im = scratch().floats(2, half * W);
    for (int64_t i = 0, place = 0; i < half; ++i) {
        store(re + place * W, 2 * i < count ? load(x + 2 * i * W) : Vector{});
        store(im + place * W, 2 * i + 1 < count ? load(x + (2 * i + 1) * W) : Vector{});
        // `place` is i + 1 with its bits in reverse order.
        int64_t bit = half / 2;
        for (; bit && place & bit; bit /= 2) place ^= bit;
        place |= bit;
    }
    for (int64_t size = 1; size < half; size *= 2)
        for (int64_t k = 0; k < size; ++k) {
            const float c = cosine[k * half / size], s = sine[k * half / size];
            for (int64_t first = k * W; first < half * W; first += 2 * size * W) {
                float *a = re + first, *b = im + first;
                const Vector p = load(a + size * W), q = load(b + size * W);
                const Vector u = p * c + q * s, v = q * c - p * s;
                store(a + size * W, load(a) - u), store(b + size * W, load(b) - v);
                store(a, load(a) + u), store(b, load(b) + v);
            }
        }
    for (int64_t k = 0; k <= half; ++k) {
        const int64_t i = k % half * W, j = (half - k) % half * W;
        const Vector even = load(re + i) + load(re + j), even_im = load(im + i) - load(im + j);
        const Vector odd = load(im + i) + load(im + j), odd_im = load(re + j) - load(re + i);
        const Vector u = even + (odd * cosine[k] + odd_im * sine[k]), v = even_im + (odd_im * cosine[k] - odd * sine[k]);
        store(out + k * W, 0.25f * (u * u + v * v));
    }
}

// Energies (count, bands) of the bands in windows of a waveform, a hop apart. A window is a lane.
void energies(const FrontEnd &f, const float *waveform, int64_t count, float *out) {
    const int64_t bins = f.fft / 2 + 1;
    float *x = scratch().floats(3, f.length * W), *power = scratch().floats(4, bins * W);
    for (int64_t start = 0; start < count; start += W) {
        const int64_t lanes = std::min<int64_t>(W, count - start);
        for (int64_t j = 0; j < W; ++j) {
            const float *from = waveform + (start + std::min(j, lanes - 1)) * f.hop;
            for (int64_t i = 0; i < f.length; ++i) x[i * W + j] = from[i];
        }
        // A constant offset drops out before it leaks into the lowest bands.
        Vector sums[4] = {};
        for (int64_t i = 0; i < f.length; ++i) sums[i % 4] += load(x + i * W);
        const Vector mean = ((sums[0] + sums[1]) + (sums[2] + sums[3])) / static_cast<float>(f.length);
        for (int64_t i = 0; i < f.length; ++i) store(x + i * W, (load(x + i * W) - mean) * f.window[i]);
        spectrum(f, x, f.length, power);
        for (int64_t b = 0; b < f.bands; ++b) {
            Vector energy{};
            for (int64_t i = f.ends[2 * b]; i < f.ends[2 * b + 1]; ++i) energy += load(power + i * W) * f.mel[b * bins + i];
            float lane[W];
            store(lane, energy);
            for (int64_t j = 0; j < lanes; ++j) out[(start + j) * f.bands + b] = lane[j];
        }
    }
}

// The statistics after `count` windows with these energies, of which the first `valid` count; and all their logarithms.
void observe(const FrontEnd &f, const Statistics &before, const float *power, int64_t count, int64_t valid,
             const Statistics &after, float *logs) {
    const double fade = std::pow(0.5, static_cast<double>(count) / f.half_life);
    double peak = *before.peak * fade, weight = *before.weight * fade, energy = *before.energy * fade;
    double *amplitude = scratch().doubles(count);
    for (int64_t i = 0; i < valid; ++i) {
        double mean = 0;
        for (int64_t b = 0; b < f.bands; ++b) mean += power[i * f.bands + b];
        mean /= static_cast<double>(f.bands);
        amplitude[i] = std::sqrt(mean);
        peak = std::max(peak, amplitude[i]);
        weight += amplitude[i];
        energy += amplitude[i] * std::log(std::max(mean, 1e-30));
    }
    *after.peak = peak, *after.weight = weight, *after.energy = energy;
    const double loudest = std::max(peak, f.quiet);
    const double level = (f.level_prior * f.prior_energy + energy / loudest) / (f.level_prior + weight / loudest);
    const float floor = static_cast<float>(f.floor * std::exp(level));
    for (int64_t i = 0; i < count * f.bands; ++i) logs[i] = std::log(power[i] + floor);
    for (int64_t b = 0; b < f.bands; ++b) after.bands[b] = before.bands[b] * fade, after.squares[b] = before.squares[b] * fade;
    for (int64_t i = 0; i < valid; ++i)
        for (int64_t b = 0; b < f.bands; ++b) {
            const double x = logs[i * f.bands + b];
            after.bands[b] += amplitude[i] * x;
            after.squares[b] += amplitude[i] * (x * x);
        }
}

// Normalises the logarithms (count, bands) in place by these statistics and the prior.
void normalise(const FrontEnd &f, const Statistics &s, int64_t count, float *logs) {
    const double n = static_cast<double>(f.bands), loudest = std::max(*s.peak, f.quiet), weight = *s.weight / loudest;
    double level = 0, prior_level = 0;
    for (int64_t b = 0; b < f.bands; ++b) level += s.bands[b] / loudest / n, prior_level += f.prior_mean[b] / n;
    const double common = (f.level_prior * prior_level + level) / (f.level_prior + weight);
    for (int64_t b = 0; b < f.bands; ++b) {
        const double total = s.bands[b] / loudest;
        const double mean = common + (f.prior * (f.prior_mean[b] - prior_level) + total - level) / (f.prior + weight);
        const double spread = std::max(0.0, s.squares[b] / loudest - total * total / std::max(weight, 1e-9));
        const double variance = (f.prior * f.prior_variance[b] + spread) / (f.prior + weight);
        const double factor = 1 / std::sqrt(variance + f.variance_floor);
        for (int64_t i = 0; i < count; ++i) {
            float &x = logs[i * f.bands + b];
            x = static_cast<float>((static_cast<double>(x) - mean) * factor) * f.scale[b] + f.shift[b];
        }
    }
}

void front_end(const FrontEnd &f, int64_t streams, int64_t frames, int64_t chunk, const float *const *waveforms,
               const int64_t *valid, const Statistics *before, const Statistics *after, float *out) {
    const int64_t windows = PER_FRAME * frames, size = windows * f.bands, m = streams * frames;
    float *rows = scratch().floats(6, streams * size), *power = scratch().floats(5, size);
    for (int64_t s = 0; s < streams; ++s) {
        energies(f, waveforms[s], windows, power);
        observe(f, before[s], power, windows, PER_FRAME * valid[s], after[s], rows + s * size);
        normalise(f, after[s], windows, rows + s * size);
        if (chunk < frames)
            observe(f, before[s], power, PER_FRAME * chunk, PER_FRAME * std::min(valid[s], chunk), after[s],
                    scratch().floats(7, size));
    }
    const int64_t k = PER_FRAME * f.bands;
    float *features = f.projection ? scratch().floats(7, m * f.channels) : out;
    product(rows, k, m, k, f.convolution, f.convolution_bias, f.channels, GELU, features, f.channels);
    if (f.norm_scale) norm(features, m, f.channels, f.norm_scale, f.norm_shift, f.eps, features);
    if (f.projection) product(features, f.channels, m, f.channels, f.projection, f.projection_bias, f.width, STORE, out, f.width);
    for (int64_t s = 0; s < streams; ++s)
        std::fill(out + (s * frames + valid[s]) * f.width, out + (s + 1) * frames * f.width, 0.0f);
}
