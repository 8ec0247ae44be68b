/* What the kernels have in common: numbers of either type, an exponential, one loop over all threads.

   Compiled once for float and once for bfloat16 (-DBF16). Arithmetic is float32. */

#pragma once

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef BF16
typedef uint16_t T;
static inline float get(T x) { uint32_t bits = (uint32_t)x << 16; float y; memcpy(&y, &bits, 4); return y; }
static inline T put(float x) {
    uint32_t bits; memcpy(&bits, &x, 4);
    return (T)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
#else
typedef float T;
static inline float get(T x) { return x; }
static inline T put(float x) { return x; }
#endif

#if defined(BF16) && defined(__AVX512BF16__)
#include <immintrin.h>
#define PAIRS /* there are instructions for products of bfloat16 pairs */
#endif

/* Bytes of a vector of this processor. The compiler takes wider ones apart number by number, or by way of memory */
#if defined(__AVX512BW__)
#define WIDTH 64
#elif defined(__AVX__)
#define WIDTH 32
#else
#define WIDTH 16
#endif
#define LANES (WIDTH / 4)
typedef float Floats __attribute__((vector_size(WIDTH)));

#define COLUMNS 512
#define CHUNK 4096
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define INLINE static inline __attribute__((always_inline))
#define PARALLEL _Pragma("omp parallel for schedule(static)")

/* e^x to within 2e-7 of itself; constant below -87 (1.6e-38) and above 88. No branches, so that loops vectorise */
static inline float exp_(float x) {
    float low = x < -87.0f ? -87.0f : x, clipped = low > 88.0f ? 88.0f : low;
    float n = floorf(clipped * 1.44269504f + 0.5f);
    float r = clipped - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f; p = p * r + 8.3334519073e-3f; p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f; p = p * r + 5.0000001201e-1f; p = p * r * r + r + 1.0f;
    uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float scale; memcpy(&scale, &bits, 4);
    return p * scale;
}

static inline void swiglu_part(const T *restrict gate, const T *restrict up, T *restrict y, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float g = get(gate[i]);
        y[i] = put(get(put(g / (1.0f + exp_(-g)))) * get(up[i]));
    }
}
