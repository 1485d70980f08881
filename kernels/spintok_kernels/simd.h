// Vector operations of one instruction set. Include this inside the body of each_isa.h, in its namespace.

constexpr int W = SPINTOK_WIDTH;
typedef float Vector __attribute__((vector_size(W * 4)));
typedef int32_t Mask __attribute__((vector_size(W * 4)));

SPINTOK_INLINE Vector load(const float *p) {
    Vector v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

SPINTOK_INLINE void store(float *p, Vector v) { std::memcpy(p, &v, sizeof v); }

// The last, incomplete vector of a row: `count` numbers, then `fill`.
SPINTOK_INLINE Vector load_tail(const float *p, int64_t count, float fill) {
    Vector v = Vector{} + fill;
    std::memcpy(&v, p, count * sizeof(float));
    return v;
}

// (0, 1, 2, ...)
SPINTOK_INLINE Vector numbered() {
    Vector v{};
    for (int i = 0; i < W; ++i) v[i] = static_cast<float>(i);
    return v;
}

// The number at p in every lane. Adding it to a zero vector would cost one addition and turn -0 into +0.
SPINTOK_INLINE Vector repeated(const float *p) {
#if SPINTOK_WIDTH == 16
    return (Vector)_mm512_set1_ps(*p);
#elif SPINTOK_WIDTH == 8
    return (Vector)_mm256_set1_ps(*p);
#else
    return Vector{*p, *p, *p, *p};
#endif
}

SPINTOK_INLINE Vector larger(Vector a, Vector b) { return a > b ? a : b; }

// A bit for each number that is at least `least`.
SPINTOK_INLINE uint32_t at_least(Vector v, float least) {
#if SPINTOK_WIDTH == 16
    return _mm512_cmp_ps_mask((__m512)v, _mm512_set1_ps(least), _CMP_GE_OQ);
#elif SPINTOK_WIDTH == 8
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps((__m256)v, _mm256_set1_ps(least), _CMP_GE_OQ)));
#else
    uint32_t bits = 0;
    for (int i = 0; i < W; ++i) bits |= static_cast<uint32_t>(v[i] >= least) << i;
    return bits;
#endif
}

SPINTOK_INLINE float largest(Vector v) {
    float part[W];
    store(part, v);
    for (int half = W / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) part[i] = part[i] > part[i + half] ? part[i] : part[i + half];
    return part[0];
}

SPINTOK_INLINE float sum(Vector v) {
    float part[W];
    store(part, v);
    for (int half = W / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) part[i] += part[i + half];
    return part[0];
}

// (first[1], ..., first[W - 1], second[0])
SPINTOK_INLINE Vector shifted(Vector first, Vector second) {
#if defined(__clang__)
#if SPINTOK_WIDTH == 16
    return __builtin_shufflevector(first, second, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16);
#elif SPINTOK_WIDTH == 8
    return __builtin_shufflevector(first, second, 1, 2, 3, 4, 5, 6, 7, 8);
#else
    return __builtin_shufflevector(first, second, 1, 2, 3, 4);
#endif
#else
#if SPINTOK_WIDTH == 16
    return __builtin_shuffle(first, second, Mask{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16});
#elif SPINTOK_WIDTH == 8
    return __builtin_shuffle(first, second, Mask{1, 2, 3, 4, 5, 6, 7, 8});
#else
    return __builtin_shuffle(first, second, Mask{1, 2, 3, 4});
#endif
#endif
}

// p[index]
SPINTOK_INLINE Vector gather(const float *p, Mask index) {
#if SPINTOK_WIDTH == 16
    return (Vector)_mm512_mask_i32gather_ps(__m512{}, -1, (__m512i)index, p, 4);
#elif SPINTOK_WIDTH == 8
    return (Vector)_mm256_mask_i32gather_ps(__m256{}, p, (__m256i)index, (__m256)(Mask{} - 1), 4);
#else
    Vector v{};
    for (int i = 0; i < W; ++i) v[i] = p[index[i]];
    return v;
#endif
}

// The same as gather for indices below 2 * W, by permutations where they are faster.
SPINTOK_INLINE Vector pick(const float *p, Mask index) {
#if SPINTOK_WIDTH == 16
    return (Vector)_mm512_permutex2var_ps((__m512)load(p), (__m512i)index, (__m512)load(p + W));
#elif SPINTOK_WIDTH == 8
    const __m256 low = _mm256_permutevar8x32_ps((__m256)load(p), (__m256i)index);
    const __m256 high = _mm256_permutevar8x32_ps((__m256)load(p + W), (__m256i)index);
    return (Vector)_mm256_blendv_ps(low, high, (__m256)(index << 28));
#else
    return gather(p, index);
#endif
}

// 2^x for x <= 127 with a relative error below 2e-7; 0 below 2^-126; NaN for NaN. The polynomial is a minimax fit of 2^f
// for |f| <= 1/2, with a relative error of 2e-9.
SPINTOK_INLINE Vector exp2(Vector x) {
    const Vector magic = Vector{} + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const Vector low = Vector{} - 126.0f;
    const Vector y = larger(low, x);
    const Vector shifted = y + magic;
    const Vector f = y - (shifted - magic);
    Vector p = Vector{} + 0.0001534580749f;
    p = p * f + 0.001339993118f;
    p = p * f + 0.009618488974f;
    p = p * f + 0.05550328777f;
    p = p * f + 0.2402264689f;
    p = p * f + 0.6931472057f;
    p = p * f + 1.000000001f;
    const Mask exponent = ((Mask)shifted - 0x4B400000 + 127) << 23;
    p = p * (Vector)exponent;
    return x < low ? Vector{} : p;
}
