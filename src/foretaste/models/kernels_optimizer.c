/* AdamW on bfloat16 weights that keep the lower half of a float32 number beside them; `split_adamw.py` describes it. */

#include "kernels.h"

#ifdef BF16
typedef struct { float clip, beta1, beta2, rate, root, epsilon, kept; } Adam;

INLINE float gradient(const T *g, const float *sum, int64_t i) { return sum ? sum[i] : get(g[i]); }

INLINE void adamw_part(T *restrict weight, int16_t *restrict low, T *restrict first, T *restrict second,
                       const T *restrict g, const float *restrict sum, Adam a, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float slope = gradient(g, sum, i) * a.clip;
        float m = a.beta1 * get(first[i]) + (1.0f - a.beta1) * slope;
        float v = a.beta2 * get(second[i]) + (1.0f - a.beta2) * slope * slope;
        uint32_t bits = ((uint32_t)weight[i] << 16) + (uint32_t)(int32_t)low[i];
        float w; memcpy(&w, &bits, 4);
        w = w * a.kept - a.rate * m / (sqrtf(v) * a.root + a.epsilon);
        memcpy(&bits, &w, 4);
        weight[i] = (T)((bits + 0x8000u) >> 16);
        low[i] = (int16_t)(bits & 0xffffu);
        first[i] = put(m);
        second[i] = put(v);
    }
}

/* One step for n numbers. Gradients: g, or sum (float) where that is given */
void adamw(T *weight, int16_t *low, T *first, T *second, const T *g, const float *sum, const Adam *adam, int64_t n) {
    PARALLEL
    for (int64_t at = 0; at < n; at += CHUNK) {
        int64_t count = MIN(CHUNK, n - at);
        if (sum) adamw_part(weight + at, low + at, first + at, second + at, 0, sum + at, *adam, count);
        else adamw_part(weight + at, low + at, first + at, second + at, g + at, 0, *adam, count);
    }
}

/* Sums of squares, one a CHUNK */
void squares(const T *x, float *sums, int64_t n) {
    PARALLEL
    for (int64_t at = 0; at < n; at += CHUNK) {
        float sum = 0;
        for (int64_t i = at; i < MIN(n, at + CHUNK); i++) { float value = get(x[i]); sum += value * value; }
        sums[at / CHUNK] = sum;
    }
}
#endif
