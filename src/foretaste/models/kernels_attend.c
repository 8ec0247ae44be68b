/* Attention of decoding, over a tree of contexts; `decode_kernels.py` describes these functions.

   The cache of one layer. keys: rows x K x S/SLOTS blocks, in which the same feature of neighbouring slots is one
   vector; values: rows x K x S x D. With instructions for products of bfloat16 pairs, keys keep two features and
   values two slots side by side. What a slot holds before it is written is never looked at. */

#include "kernels.h"

#define SLOTS 32
#define SPAN 128
#define MAX_D 256
#define TOGETHER 4
#define MIXED (WIDTH == 64 ? 4 : 2) /* vectors of values that are mixed at a time: as many sums as there are registers for */

#ifdef PAIRS
/* The first and the second of 16 pairs */
INLINE Floats first_of(__m512i pairs) { return (Floats)_mm512_slli_epi32(pairs, 16); }
INLINE Floats second_of(__m512i pairs) { return (Floats)_mm512_and_si512(pairs, _mm512_set1_epi32(0xffff0000)); }
/* One instruction; written as two operations, the compiler would reorder the sums and need two */
INLINE Floats add_product(Floats sum, float w, Floats x) {
    return (Floats)_mm512_fmadd_ps(_mm512_set1_ps(w), (__m512)x, (__m512)sum);
}
#else
INLINE Floats floats(const T *x) {
#ifdef BF16
    typedef uint16_t Half __attribute__((vector_size(WIDTH / 2)));
    typedef uint32_t Whole __attribute__((vector_size(WIDTH)));
    Half half; memcpy(&half, x, sizeof half);
    return (Floats)(__builtin_convertvector(half, Whole) << 16);
#else
    Floats y; memcpy(&y, x, sizeof y);
    return y;
#endif
}
#endif

/* Rotate one token's queries (in place) and keys by its position; write keys and values to its slot of its row.
   qkv: (heads + 2 K) x D; cos, sin: D/2 */
INLINE void remember_token(T *qkv, const T *c, const T *s, int64_t row, int64_t slot, T *keys, T *values, int64_t heads,
                           int64_t K, int64_t D, int64_t S) {
    for (int64_t h = 0; h < heads + K; h++) {
        T *a = qkv + h * D, *b = a + D / 2, *v = a + K * D;
        for (int64_t d = 0; d < D / 2; d++) {
            float first = get(a[d]), second = get(b[d]), cosine = get(c[d]), sine = get(s[d]);
            a[d] = put(first * cosine - second * sine);
            b[d] = put(second * cosine + first * sine);
        }
        if (h < heads) continue;
        int64_t place = (row * K + h - heads) * S;
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

/* The same for N tokens */
void remember(T *qkv, const T *cos_, const T *sin_, const int64_t *rows, const int64_t *slots, T *keys, T *values,
              int64_t N, int64_t heads, int64_t K, int64_t D, int64_t S) {
    PARALLEL
    for (int64_t t = 0; t < N; t++)
        remember_token(qkv + t * (heads + 2 * K) * D, cos_ + t * D / 2, sin_ + t * D / 2, rows[t], slots[t], keys, values,
                       heads, K, D, S);
}

/* Scores of n queries (rows of D) against a block of keys, to n rows of SPAN. `ahead`: as much memory as the block has
   is asked for meanwhile, evenly: a burst of requests would wait for one another */
INLINE void score_block(const int n, const float *q, const T *keys, int64_t D, float *s, const T *ahead) {
#ifdef PAIRS
    Floats sums[TOGETHER][2] = {0};
    for (int64_t d = 0; d < D; d += 2, keys += 2 * SLOTS, ahead += 2 * SLOTS)
        for (int half = 0; half < 2; half++) {
            __m512i pairs = _mm512_loadu_si512(keys + half * SLOTS);
            __builtin_prefetch(ahead + half * SLOTS);
            Floats first = first_of(pairs), second = second_of(pairs);
            for (int i = 0; i < n; i++) sums[i][half] = add_product(sums[i][half], q[i * D + d], first);
            for (int i = 0; i < n; i++) sums[i][half] = add_product(sums[i][half], q[i * D + d + 1], second);
        }
    for (int i = 0; i < n; i++) memcpy(s + i * SPAN, sums[i], sizeof sums[i]);
#else
    for (int64_t from = 0; from < SLOTS; from += 2 * LANES) {
        Floats sums[TOGETHER][2] = {0};
        for (int64_t d = 0; d < D; d++) {
            const T *two = keys + d * SLOTS + from;
            Floats low = floats(two), high = floats(two + LANES);
            for (int i = 0; i < n; i++) { sums[i][0] += q[i * D + d] * low; sums[i][1] += q[i * D + d] * high; }
        }
        for (int i = 0; i < n; i++) memcpy(s + i * SPAN + from, sums[i], sizeof sums[i]);
    }
#endif
}

/* Numbers d .. d + LANES m of out (n rows of MAX_D) += p (n rows of SPAN) times `count` values; `ahead` as above */
INLINE void mix_part(const int n, const int m, const float *p, const T *values, int64_t D, int64_t count, int64_t d,
                     float *out, const T *ahead) {
    Floats sums[TOGETHER][MIXED];
    for (int i = 0; i < n; i++) memcpy(sums[i], out + i * MAX_D + d, m * sizeof(Floats));
#ifdef PAIRS
    for (int64_t s = 0; s < count; s += 2) {
        const T *two = values + (s / 2 * D + d) * 2;
        /* the second of the last two may never have been written */
        __mmask32 there = s + 1 == count ? 0x55555555 : 0xffffffff;
        for (int j = 0; j < m; j++) {
            __m512i pairs = _mm512_maskz_loadu_epi16(there, two + 32 * j);
            __builtin_prefetch(ahead + (two - values) + 32 * j);
            Floats first = first_of(pairs), second = second_of(pairs);
            for (int i = 0; i < n; i++) sums[i][j] = add_product(sums[i][j], p[i * SPAN + s], first);
            for (int i = 0; i < n; i++) sums[i][j] = add_product(sums[i][j], p[i * SPAN + s + 1], second);
        }
    }
#else
    for (int64_t s = 0; s < count; s++)
        for (int j = 0; j < m; j++) {
            Floats numbers = floats(values + s * D + d + LANES * j);
            for (int i = 0; i < n; i++) sums[i][j] += p[i * SPAN + s] * numbers;
        }
#endif
    for (int i = 0; i < n; i++) memcpy(out + i * MAX_D + d, sums[i], m * sizeof(Floats));
}

INLINE void mix_values(const int n, const float *p, const T *values, int64_t D, int64_t count, float *out,
                       const T *ahead) {
    int64_t d = 0;
    for (; d + MIXED * LANES <= D; d += MIXED * LANES) mix_part(n, MIXED, p, values, D, count, d, out, ahead);
    for (; d + LANES <= D; d += LANES) mix_part(n, 1, p, values, D, count, d, out, ahead);
    for (int i = 0; i < n && d < D; i++)
        for (int64_t s = 0; s < count; s++)
            for (int64_t e = d; e < D; e++) {
#ifdef PAIRS
                out[i * MAX_D + e] += p[i * SPAN + s] * get(values[(s / 2 * D + e) * 2 + s % 2]);
#else
                out[i * MAX_D + e] += p[i * SPAN + s] * get(values[s * D + e]);
#endif
            }
}

typedef struct { float out[TOGETHER * MAX_D], peak[TOGETHER], sum[TOGETHER]; } Head;

/* Turn a row of raw scores into weights; `count` of them are real, and whole blocks have room. Return their sum */
INLINE float weigh(float *p, float scale, int64_t count, float *peak_) {
    float peaks[SLOTS], sums[SLOTS] = {0}, peak = *peak_, sum = 0;
    for (int64_t j = count; j % SLOTS; j++) p[j] = -INFINITY;
    for (int j = 0; j < SLOTS; j++) peaks[j] = peak;
    for (int64_t b = 0; b < count; b += SLOTS)
        for (int j = 0; j < SLOTS; j++) { p[b + j] *= scale; peaks[j] = p[b + j] > peaks[j] ? p[b + j] : peaks[j]; }
    for (int j = 0; j < SLOTS; j++) peak = peaks[j] > peak ? peaks[j] : peak;
    for (int64_t b = 0; b < count; b += SLOTS)
        for (int j = 0; j < SLOTS; j++) {
            p[b + j] = exp_(p[b + j] - peak);
            sums[j] += p[b + j];
        }
    for (int j = 0; j < SLOTS; j++) sum += sums[j];
    *peak_ = peak;
    return sum;
}

/* Attend to `visible` slots of one row, as one more part of a softmax (Milakov & Gimelshein 2018, arXiv:1805.02867).
   What is needed next is read ahead: values while keys are, then keys, at last those at `next` */
INLINE void attend_part(const int n, Head *head, const float *q, const T *keys, const T *values, float scale, int64_t D,
                        int64_t visible, const T *next) {
    for (int64_t from = 0; from < visible; from += SPAN) {
        float s[TOGETHER * SPAN];
        int64_t count = MIN(SPAN, visible - from);
        const T *ahead = from + SPAN < visible ? keys + (from + SPAN) * D : next;
        for (int64_t b = 0; b < count; b += SLOTS)
            score_block(n, q, keys + (from + b) * D, D, s + b, values + (from + b) * D);
        for (int i = 0; i < n; i++) {
            float before = head->peak[i], sum = weigh(s + i * SPAN, scale, count, head->peak + i);
            float kept = exp_(before - head->peak[i]);
            head->sum[i] = head->sum[i] * kept + sum;
            for (int64_t d = 0; d < D; d++) head->out[i * MAX_D + d] *= kept;
        }
        mix_values(n, s, values + from * D, D, count, head->out, ahead);
    }
}

/* A tree of contexts in the cache of one layer */
typedef struct {
    const int64_t *parents; /* the row whose context this one goes on from; -1: none */
    const int64_t *inherited; /* how many tokens of it */
    const T *keys, *values;
    int64_t K, D, S;
} Tree;

INLINE const T *keys_of(const Tree *tree, int64_t row, int64_t k) {
    return tree->keys + (row * tree->K + k) * tree->S * tree->D;
}

/* Attention of one token's `group` query heads of key head k over its row up to its own slot, and over what the row
   inherits. asked: group x D; out: number i goes to out[i / 32 * step + i % 32]; `next`: keys that are needed next */
INLINE void attend_token(const T *asked, const Tree *tree, int64_t row, int64_t slot, int64_t k, int64_t group,
                         float scale, T *out, int64_t first, int64_t step, const T *next) {
    int64_t D = tree->D;
    for (int64_t from = 0; from < group; from += TOGETHER) {
        int64_t n = MIN(TOGETHER, group - from);
        Head head;
        for (int64_t i = 0; i < n; i++) {
            head.peak[i] = -INFINITY;
            head.sum[i] = 0;
            for (int64_t d = 0; d < D; d++) head.out[i * MAX_D + d] = 0;
        }
        float q[TOGETHER * MAX_D];
        for (int64_t d = 0; d < n * D; d++) q[d] = get(asked[from * D + d]);
        for (int64_t at = row, visible = slot + 1;;) {
            int64_t parent = tree->parents[at];
            const T *keys = keys_of(tree, at, k), *values = tree->values + (keys - tree->keys);
            const T *then = parent < 0 ? next : keys_of(tree, parent, k);
            switch (n) {
                case 1: attend_part(1, &head, q, keys, values, scale, D, visible, then); break;
                case 2: attend_part(2, &head, q, keys, values, scale, D, visible, then); break;
                case 3: attend_part(3, &head, q, keys, values, scale, D, visible, then); break;
                default: attend_part(4, &head, q, keys, values, scale, D, visible, then);
            }
            if (parent < 0) break;
            visible = tree->inherited[at] - tree->inherited[parent];
            at = parent;
        }
        for (int64_t i = 0; i < n; i++) {
            float share = 1.0f / head.sum[i];
            for (int64_t d = 0; d < D; d += 32) {
                int64_t to = first + (from + i) * D + d;
                T *piece = out + to / 32 * step + to % 32;
                for (int64_t e = 0; e < MIN(32, D - d); e++) piece[e] = put(head.out[i * MAX_D + d + e] * share);
            }
        }
    }
}

/* Attention of some tokens (M of N, by index). out: M x heads x D */
void attend(const T *qkv, const int64_t *tokens, const int64_t *rows, const int64_t *slots, const int64_t *parents,
            const int64_t *inherited, const T *keys, const T *values, T *out, float scale, int64_t M, int64_t heads,
            int64_t K, int64_t D, int64_t S) {
    Tree tree = {parents, inherited, keys, values, K, D, S};
    int64_t group = heads / K;
    _Pragma("omp parallel for schedule(dynamic, 8)")
    for (int64_t task = 0; task < K * M; task++) {
        int64_t k = task / M, m = task % M, t = tokens[m], first = k * group * D;
        const T *asked = qkv + t * (heads + 2 * K) * D + first;
        const T *next = keys_of(&tree, rows[tokens[MIN(m + 1, M - 1)]], k);
        attend_token(asked, &tree, rows[t], slots[t], k, group, scale, out + m * heads * D, first, 32, next);
    }
}
