/* Attention of decoding, over a tree of contexts; `decode_kernels.py` describes these functions.

   The cache of one layer. keys: rows x K x S/SLOTS blocks, in which the same feature of neighbouring slots is one
   vector; values: rows x K x S x D. With instructions for products of bfloat16 pairs, keys keep two features and
   values two slots side by side. What a slot holds before it is written is never looked at. */

#include "kernels.h"

#define SLOTS 32
#define SPAN 128
#define MAX_D 256
#define TOGETHER 4
#define INLINE static inline __attribute__((always_inline))

typedef float Floats __attribute__((vector_size(64)));

#if defined(BF16) && defined(__AVX512BF16__)
#include <immintrin.h>
#define PAIRS
typedef T Query;
typedef T Weight;
INLINE Floats pair_product(Floats sum, const T *pair, __m512i numbers) {
    int32_t both; memcpy(&both, pair, sizeof both);
    return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(both), (__m512bh)numbers);
}
#else
typedef float Query;
typedef float Weight;
INLINE Floats floats(const T *x) {
#ifdef BF16
    typedef uint16_t Half __attribute__((vector_size(32)));
    typedef uint32_t Whole __attribute__((vector_size(64)));
    Half half; memcpy(&half, x, sizeof half);
    return (Floats)(__builtin_convertvector(half, Whole) << 16);
#else
    Floats y; memcpy(&y, x, sizeof y);
    return y;
#endif
}
#endif

/* Rotate queries (in place) and keys by their positions; write keys and values to their slots.
   qkv: N x (heads + 2 K) x D; cos, sin: N x D/2 */
void remember(T *qkv, const T *cos_, const T *sin_, const int64_t *rows, const int64_t *slots, T *keys, T *values,
              int64_t N, int64_t heads, int64_t K, int64_t D, int64_t S) {
    PARALLEL
    for (int64_t t = 0; t < N; t++) {
        const T *c = cos_ + t * D / 2, *s = sin_ + t * D / 2;
        int64_t slot = slots[t];
        for (int64_t h = 0; h < heads + K; h++) {
            T *a = qkv + (t * (heads + 2 * K) + h) * D, *b = a + D / 2, *v = a + K * D;
            for (int64_t d = 0; d < D / 2; d++) {
                float first = get(a[d]), second = get(b[d]), cosine = get(c[d]), sine = get(s[d]);
                a[d] = put(first * cosine - second * sine);
                b[d] = put(second * cosine + first * sine);
            }
            if (h < heads) continue;
            int64_t place = (rows[t] * K + h - heads) * S;
            T *key = keys + (place + slot / SLOTS * SLOTS) * D, *value = values + place * D;
#ifdef PAIRS
            for (int64_t d = 0; d < D; d += 2) memcpy(key + d * SLOTS + slot % SLOTS * 2, a + d, 2 * sizeof(T));
            for (int64_t d = 0; d < D; d++) value[(slot / 2 * D + d) * 2 + slot % 2] = v[d];
#else
            for (int64_t d = 0; d < D; d++) key[d * SLOTS + slot % SLOTS] = a[d];
            memcpy(value + slot * D, v, D * sizeof(T));
#endif
        }
    }
}

/* Scores of n queries (rows of D) against a block of keys, to n rows of SPAN */
INLINE void score_block(const int n, const Query *q, const T *keys, int64_t D, float *s) {
    Floats sums[TOGETHER][2] = {0};
#ifdef PAIRS
    for (int64_t d = 0; d < D; d += 2, keys += 2 * SLOTS) {
        __m512i low = _mm512_loadu_si512(keys), high = _mm512_loadu_si512(keys + SLOTS);
        for (int i = 0; i < n; i++) {
            sums[i][0] = pair_product(sums[i][0], q + i * D + d, low);
            sums[i][1] = pair_product(sums[i][1], q + i * D + d, high);
        }
    }
#else
    for (int64_t d = 0; d < D; d++, keys += SLOTS) {
        Floats low = floats(keys), high = floats(keys + 16);
        for (int i = 0; i < n; i++) { sums[i][0] += q[i * D + d] * low; sums[i][1] += q[i * D + d] * high; }
    }
#endif
    for (int i = 0; i < n; i++) memcpy(s + i * SPAN, sums[i], sizeof sums[i]);
}

/* out (n rows of MAX_D) += p (n rows of SPAN) times `count` values */
INLINE void mix_values(const int n, const Weight *p, const T *values, int64_t D, int64_t count, float *out) {
    int64_t d = 0;
    for (; d + 32 <= D; d += 32) {
        Floats sums[TOGETHER][2];
        for (int i = 0; i < n; i++) memcpy(sums[i], out + i * MAX_D + d, sizeof sums[i]);
#ifdef PAIRS
        for (int64_t s = 0; s < count; s += 2) {
            const T *two = values + (s / 2 * D + d) * 2;
            __m512i low = _mm512_loadu_si512(two), high = _mm512_loadu_si512(two + 32);
            if (s + 1 == count) { /* the second of the two was never written */
                __m512i first = _mm512_set1_epi32(0xffff);
                low = _mm512_and_si512(low, first); high = _mm512_and_si512(high, first);
            }
            for (int i = 0; i < n; i++) {
                sums[i][0] = pair_product(sums[i][0], p + i * SPAN + s, low);
                sums[i][1] = pair_product(sums[i][1], p + i * SPAN + s, high);
            }
        }
#else
        for (int64_t s = 0; s < count; s++) {
            Floats low = floats(values + s * D + d), high = floats(values + s * D + d + 16);
            for (int i = 0; i < n; i++) { sums[i][0] += p[i * SPAN + s] * low; sums[i][1] += p[i * SPAN + s] * high; }
        }
#endif
        for (int i = 0; i < n; i++) memcpy(out + i * MAX_D + d, sums[i], sizeof sums[i]);
    }
    for (int i = 0; i < n && d < D; i++)
        for (int64_t s = 0; s < count; s++)
            for (int64_t e = d; e < D; e++) {
#ifdef PAIRS
                out[i * MAX_D + e] += get(p[i * SPAN + s]) * get(values[(s / 2 * D + e) * 2 + s % 2]);
#else
                out[i * MAX_D + e] += p[i * SPAN + s] * get(values[s * D + e]);
#endif
            }
}

typedef struct { float out[TOGETHER * MAX_D], peak[TOGETHER], sum[TOGETHER]; } Head;

/* Attend to `visible` slots of one row, as one more part of a softmax (Milakov & Gimelshein 2018, arXiv:1805.02867) */
INLINE void attend_part(const int n, Head *head, const Query *q, const T *keys, const T *values, float scale, int64_t D,
                        int64_t visible) {
    for (int64_t from = 0; from < visible; from += SPAN) {
        float s[TOGETHER * SPAN];
        Weight weights[TOGETHER * SPAN];
        int64_t count = MIN(SPAN, visible - from);
        for (int64_t b = 0; b < count; b += SLOTS) score_block(n, q, keys + (from + b) * D, D, s + b);
        for (int i = 0; i < n; i++) {
            float *p = s + i * SPAN, peak = head->peak[i], sum = 0;
            for (int64_t j = 0; j < count; j++) { p[j] *= scale; peak = p[j] > peak ? p[j] : peak; }
            for (int64_t j = 0; j < count; j++) {
                float e = exp_(p[j] - peak);
                sum += e;
#ifdef PAIRS
                weights[i * SPAN + j] = put(e);
#else
                weights[i * SPAN + j] = e;
#endif
            }
#ifdef PAIRS
            if (count % 2) weights[i * SPAN + count] = 0;
#endif
            float kept = exp_(head->peak[i] - peak);
            head->sum[i] = head->sum[i] * kept + sum;
            head->peak[i] = peak;
            for (int64_t d = 0; d < D; d++) head->out[i * MAX_D + d] *= kept;
        }
        mix_values(n, weights, values + from * D, D, count, head->out);
    }
}

/* Attention of some tokens (M of N, by index) over their row up to their own slot, and over what the row inherits:
   parents[row] (-1: none) is the row whose context this one goes on from, inherited[row] how many tokens of it.
   out: M x heads x D */
void attend(const T *qkv, const int64_t *tokens, const int64_t *rows, const int64_t *slots, const int64_t *parents,
            const int64_t *inherited, const T *keys, const T *values, T *out, float scale, int64_t M, int64_t heads,
            int64_t K, int64_t D, int64_t S) {
    int64_t group = heads / K;
    _Pragma("omp parallel for schedule(dynamic, 8)")
    for (int64_t task = 0; task < K * M; task++) {
        int64_t k = task / M, m = task % M, t = tokens[m];
        for (int64_t from = 0; from < group; from += TOGETHER) {
            int64_t n = MIN(TOGETHER, group - from), first = k * group + from;
            const T *asked = qkv + (t * (heads + 2 * K) + first) * D;
            Head head = {.peak = {-INFINITY, -INFINITY, -INFINITY, -INFINITY}};
#ifdef PAIRS
            const Query *q = asked;
#else
            Query q[TOGETHER * MAX_D];
            for (int64_t d = 0; d < n * D; d++) q[d] = get(asked[d]);
#endif
            for (int64_t row = rows[t], visible = slots[t] + 1;;) {
                const T *own_keys = keys + (row * K + k) * S * D, *own_values = values + (row * K + k) * S * D;
                switch (n) {
                    case 1: attend_part(1, &head, q, own_keys, own_values, scale, D, visible); break;
                    case 2: attend_part(2, &head, q, own_keys, own_values, scale, D, visible); break;
                    case 3: attend_part(3, &head, q, own_keys, own_values, scale, D, visible); break;
                    default: attend_part(4, &head, q, own_keys, own_values, scale, D, visible);
                }
                if (parents[row] < 0) break;
                visible = inherited[row] - inherited[parents[row]];
                row = parents[row];
            }
            for (int64_t i = 0; i < n; i++)
                for (int64_t d = 0; d < D; d++)
                    out[(m * heads + first + i) * D + d] = put(head.out[i * MAX_D + d] / head.sum[i]);
        }
    }
}
