// Overlap-add: positions of pulses and grains, interpolation of the waveform, the sum of two grains at every sample.

// cos and sin of 2 pi x.
SPINTOK_INLINE void turn(Vector x, Vector &cosine, Vector &sine) {
    const Vector magic = Vector{} + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const Vector r = x - ((x + magic) - magic), y = r * r;
    // Taylor series of sin and cos of pi r, |r| <= 1/2, within 1e-7; then the double-angle formulas.
    Vector s = Vector{} - 0.00737043094f;
    s = s * y + 0.0821458866f;
    s = s * y - 0.599264529f;
    s = s * y + 2.55016404f;
    s = s * y - 5.16771278f;
    s = s * y + 3.14159265f;
    s = s * r;
    Vector c = Vector{} + 0.00192957431f;
    c = c * y - 0.0258068913f;
    c = c * y + 0.235330630f;
    c = c * y - 1.33526277f;
    c = c * y + 4.05871213f;
    c = c * y - 4.93480220f;
    c = c * y + 1.0f;
    cosine = 1 - 2 * s * s;
    sine = 2 * s * c;
}

// The phase in cycles at the start of each cell; the energy of a period peaks at whole numbers. The phase is that of the
// fundamental of the squared half-wave of the stronger polarity.
void pulse_phase(const OverlapAdd &t, int64_t row, int64_t cells, Scratch &scratch, float *phase) {
    const int64_t samples = cells * LOW_CELL, side = ALIGNMENT / 2;
    const float *low = t.low + row * t.cells * LOW_CELL, *rate = t.old_rate + row * t.cells;
    float *pulses = scratch.floats(0, samples + W), *cosines = scratch.floats(1, cells + 2 * side);
    float *sines = scratch.floats(2, cells + 2 * side);
    pad(pulses, 0, low, samples, samples + W);
    Vector cubes{};
    for (int64_t i = 0; i < samples; i += W) cubes += load(pulses + i) * load(pulses + i) * load(pulses + i);
    const float total = sum(cubes), polarity = static_cast<float>((total > 0) - (total < 0));
    for (int64_t i = 0; i < samples; ++i) {
        const float x = std::max(pulses[i] * polarity, 0.0f);
        pulses[i] = x * x;
    }
    for (float *edge : {cosines, sines, cosines + side + cells, sines + side + cells}) std::fill_n(edge, side, 0.0f);
    double passed = 0;
    for (int64_t c = 0; c < cells; ++c) {
        phase[c] = static_cast<float>(passed - std::floor(passed));
        passed += static_cast<double>(rate[c]) * CELL;
        Vector real{}, imaginary{};
        for (int64_t i = 0; i < LOW_CELL; i += W) {
            const Vector place = numbered() + static_cast<float>(i);
            Vector cosine, sine, x = load(pulses + c * LOW_CELL + i);
            x = place < static_cast<float>(LOW_CELL) ? x : Vector{};
            turn(phase[c] + place * (rate[c] * DECIMATION), cosine, sine);
            real += x * cosine;
            imaginary += x * sine;
        }
        cosines[side + c] = sum(real);
        sines[side + c] = sum(imaginary);
    }
    for (int64_t c = 0; c < cells; ++c) {
        float real = 0, imaginary = 0;
        for (int64_t i = 0; i < ALIGNMENT; ++i) {
            real += t.smoother[i] * cosines[c + i];
            imaginary += t.smoother[i] * sines[c + i];
        }
        phase[c] -= std::atan2(imaginary, real) * 0.159154943f;
    }
}

// The moment at which each grain is placed and the source position from which it is read, both in samples; the first
// grain is silence at 0. For each cell, the fraction of a grain that has passed and the number of grains that began.
struct Grains {
    double *moment, *source;
    float *phase;
    int32_t *count;
    int64_t last;
};

Grains lay_grains(const OverlapAdd &t, int64_t row, int64_t cells, Scratch &scratch) {
    // The last samples fade to grains without pitch past the end.
    const int64_t all = cells + UNVOICED_PERIOD / CELL + 1, most = all * MARKS + 1;
    float *old_phase = scratch.floats(3, 3 * all);
    pulse_phase(t, row, cells, scratch, old_phase);
    scratch.numbers[0].resize(most);
    scratch.numbers[1].resize(most);
    const Grains g{scratch.numbers[0].data(), scratch.numbers[1].data(), old_phase + all,
                   reinterpret_cast<int32_t *>(old_phase + 2 * all), 0};
    g.moment[0] = g.source[0] = 0;
    int64_t count = 0;
    double start = 0;
    for (int64_t c = 0; c < all; ++c) {
        const int64_t i = row * t.cells + c;
        const bool within = c < cells, voiced = within && t.voiced[i];
        const double rate = within ? t.new_rate[i] : 1.0f / UNVOICED_PERIOD, old_rate = within ? t.old_rate[i] : 1;
        const double end = start + rate * CELL, phase = start - std::floor(start);
        const double marks = std::min<double>(std::floor(end) - std::floor(start), MARKS);
        g.phase[c] = static_cast<float>(phase);
        g.count[c] = static_cast<int32_t>(count);
        for (int64_t mark = 1; mark <= marks; ++mark) {
            const double moment = (static_cast<double>(mark) - phase) / rate;
            const double cycles = (within ? old_phase[c] : 0.0) + old_rate * moment;
            // Move the grain to the nearest old pulse. Without pitch it is not moved.
            const double shift = voiced ? (std::nearbyint(cycles) - cycles) / old_rate : 0.0;
            ++count;
            g.moment[count] = moment + static_cast<double>(c * CELL);
            g.source[count] = g.moment[count] + shift;
        }
        start = end;
    }
    return {g.moment, g.source, g.phase, g.count, count};
}

// Computes columns [begin, end) of the four planes, the coefficients of the cubic between a sample and the next.
// `wave` points to the first tap of column 0.
SPINTOK_INLINE void fill_planes(float *planes, const float *wave, const float *kernels, int64_t begin, int64_t end) {
    constexpr int VECTORS = W == 16 ? 4 : 2;
    for (int64_t column = begin; column < end; column += VECTORS * W) {
        Vector sums[4][VECTORS] = {};
        for (int64_t tap = 0; tap < TAPS; ++tap)
            for (int v = 0; v < VECTORS; ++v) {
                const Vector x = load(wave + column + tap + v * W);
                for (int plane = 0; plane < 4; ++plane) sums[plane][v] += x * kernels[plane * TAPS + tap];
            }
        for (int plane = 0; plane < 4; ++plane)
            for (int v = 0; v < VECTORS; ++v) store(planes + plane * KEPT + column + v * W, sums[plane][v]);
    }
}

// Reads W samples of a grain from `position`, in columns. NEAR: the speed is so low that they are in 2 * W columns.
template <bool NEAR>
SPINTOK_INLINE Vector read(const float *planes, double position, double last, float speed) {
    // Positions outside the planes have zero weight, but reading there would be out of bounds; so would NaN.
    position = std::min(std::max(0.0, position), last);
    const int64_t whole = static_cast<int64_t>(position);
    const Vector at = static_cast<float>(position - static_cast<double>(whole)) + numbered() * speed;
    const Mask column = __builtin_convertvector(at, Mask);
    const Vector u = at - __builtin_convertvector(column, Vector);
    Vector value{};
    for (int plane = 3; plane >= 0; --plane) {
        const float *p = planes + plane * KEPT + whole;
        value = value * u + (NEAR ? pick(p, column) : gather(p, column));
    }
    return value;
}

// Falls from 1 at 0 to 0 at 1 and above.
SPINTOK_INLINE Vector fade(Vector x) {
    const Vector one = Vector{} + 1.0f;
    x = x > one ? one : x;
    return 2 * (x - 1.5f) * (x * x) + 1;
}

// 1 / sqrt(x) for 1/2 <= x <= 1: a parabola within 0.003 and two Newton steps.
SPINTOK_INLINE Vector inverse_root(Vector x) {
    Vector y = (0.835295f * x - 2.065847f) * x + 2.233766f;
    for (int i = 0; i < 2; ++i) y = y * (1.5f - 0.5f * x * y * y);
    return y;
}

template <bool NEAR>
SPINTOK_INLINE void add_cell(const OverlapAdd &t, int64_t row, int64_t cell, const Grains &grains, const float *planes,
                             int64_t origin, double last_column, float *out) {
    const int64_t i = row * t.cells + cell;
    const float speed = t.speed[row], rate = t.new_rate[i], phase = grains.phase[cell];
    const float narrow = t.narrowing[2 * i], narrower = (t.narrowing[2 * i + 1] - narrow) / CELL;
    const float over = t.overlap[2 * i], more = (t.overlap[2 * i + 1] - over) / CELL;
    for (int64_t n = 0; n < CELL; n += W) {
        const Vector time = numbered() + static_cast<float>(n);
        Vector progress = phase + rate * time;
        const Mask slot = __builtin_convertvector(progress, Mask);
        progress -= __builtin_convertvector(slot, Vector);
        const auto grain = [&](int64_t number) SPINTOK_LAMBDA {
            const int64_t g = std::min(std::max<int64_t>(0, grains.count[cell] + number), grains.last);
            const double late = static_cast<double>(cell * CELL + n) - grains.moment[g];
            const double position = grains.source[g] + speed * late - static_cast<double>(origin);
            return read<NEAR>(planes, position, last_column, speed);
        };
        const int64_t first = slot[0], last = std::min<int64_t>(slot[W - 1], MARKS + 1);
        Vector left = grain(first), right = grain(first + 1);
        for (int64_t number = first + 1; number <= last; ++number) {
            const Mask later = slot >= Mask{} + static_cast<int32_t>(number);
            const Vector next = grain(number + 1);
            left = later ? right : left;
            right = later ? next : right;
        }
        const Vector width = narrow + narrower * (time + 0.5f);
        const Vector fall = fade(progress * width), rise = fade((1 - progress) * width);
        Vector mixed = left * fall + right * rise;
        if (over != 0 || more != 0) mixed *= inverse_root(1 + (over + more * (time + 0.5f)) * (fall * rise));
        store(out + n, mixed);
    }
}

void overlap_add(const OverlapAdd &t, int64_t row, Scratch &scratch) {
    const int64_t length = t.lengths[row];
    const int64_t cells = std::min(t.cells, (length + 2 * CELL - 1) / (2 * CELL) * 2);
    float *output = t.output + row * t.samples;
    std::fill(output + length, output + t.samples, 0.0f);
    if (length == 0) return;
    const Grains grains = lay_grains(t, row, cells, scratch);
    // Long enough for the last planes.
    float *wave = scratch.floats(0, length + 2 * REACH + KEPT + CHUNK), *planes = scratch.floats(1, 4 * KEPT);
    pad(wave, REACH + BEFORE, t.waveforms + row * t.samples, length, length + REACH + KEPT + CHUNK - BEFORE);
    const float speed = t.speed[row];
    const bool near = (W - 1) * speed + 1 < 2 * W;
    for (int64_t begin = 0; begin * CELL < length; begin += CHUNK_CELLS) {
        const int64_t end = std::min(begin + CHUNK_CELLS, cells), origin = begin * CELL - REACH;
        const int64_t filled = KEPT - CHUNK + ((end - begin) * CELL + 63) / 64 * 64;
        const int64_t old = begin == 0 ? 0 : KEPT - CHUNK;
        // A vector read from here at 4 times the speed ends within the planes.
        const double last = static_cast<double>(filled - 5 * 16);
        if (old)
            for (int plane = 0; plane < 4; ++plane)
                std::memmove(planes + plane * KEPT, planes + plane * KEPT + CHUNK, old * sizeof(float));
        fill_planes(planes, wave + begin * CELL, t.kernels + row * 4 * TAPS, old, filled);
        for (int64_t cell = begin; cell < end && cell * CELL < length; ++cell) {
            float samples[CELL];
            const int64_t left = length - cell * CELL;
            float *out = left < CELL ? samples : output + cell * CELL;
            if (near)
                add_cell<true>(t, row, cell, grains, planes, origin, last, out);
            else
                add_cell<false>(t, row, cell, grains, planes, origin, last, out);
            if (left < CELL) std::copy_n(samples, left, output + cell * CELL);
        }
    }
}
