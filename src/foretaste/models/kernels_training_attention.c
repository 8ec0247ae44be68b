/* Attention of training in one pass over tiles of 32 queries x 32 keys, none of which is kept (FlashAttention, Dao et
   al. 2022, arXiv:2205.14135; Dao 2023, arXiv:2307.08691). `fast_attention.py` says when it is taken.

   Arrays are feature-major: heads x D x columns, with rows of `stride`. Columns are B sequences of S tokens; query i of
   a sequence sees the P keys of the prefix and its own keys up to itself, that is key j <= P + i of P + S. */

#include "kernels.h"

#define NUMBER float
#define NAMED(name) name##_of_floats
#include "kernels_transpose.h"

#define SIDE 32
#define ROUND(x) (((x) + SIDE - 1) / SIDE * SIDE)
#define WHOLE(D) (((D) + 7) / 8 * 8)

/* What both directions go by. Prefix: K x D x P with rows of `prefix_stride` */
typedef struct {
    const T *q, *k, *v, *prefix_k, *prefix_v;
    int64_t stride, prefix_stride, heads, K, D, P, B, S;
    float scale;
} Attention;

#if WIDTH == 64
#define TOGETHER_ROWS 8 /* of 32 registers, 16 are sums */
#else
#define TOGETHER_ROWS 4
#endif
/* Numbers anywhere in memory. Copied into arrays of vectors instead, sums would be written out at every step */
typedef float Loose __attribute__((vector_size(WIDTH), aligned(4), may_alias));

/* c[m][0..31] += sum over k of a[m * row + k * step] * b[k][0..31]; `m` a multiple of 8, rows of c and b `ldc`, `ldb` */
INLINE void tile_product(float *c, int64_t ldc, const float *a, int64_t row, int64_t step, const float *b, int64_t ldb,
                         int64_t m, int64_t n) {
    for (; m > 0; m -= TOGETHER_ROWS, a += TOGETHER_ROWS * row, c += TOGETHER_ROWS * ldc)
        for (int64_t from = 0; from < SIDE; from += 2 * LANES) {
            Floats sums[TOGETHER_ROWS][2];
#pragma GCC unroll 8
            for (int i = 0; i < TOGETHER_ROWS; i++)
                for (int half = 0; half < 2; half++) sums[i][half] = *(const Loose *)(c + i * ldc + from + half * LANES);
            for (int64_t k = 0; k < n; k++) {
                const float *two = b + k * ldb + from;
                Floats low = *(const Loose *)two, high = *(const Loose *)(two + LANES);
#pragma GCC unroll 8
                for (int i = 0; i < TOGETHER_ROWS; i++) {
                    float weight = a[i * row + k * step];
                    sums[i][0] += weight * low;
                    sums[i][1] += weight * high;
                }
            }
#pragma GCC unroll 8
            for (int i = 0; i < TOGETHER_ROWS; i++)
                for (int half = 0; half < 2; half++) *(Loose *)(c + i * ldc + from + half * LANES) = sums[i][half];
        }
}

INLINE void widen_row(float *restrict to, const T *restrict from, int64_t n) {
    for (int64_t i = 0; i < n; i++) to[i] = get(from[i]);
}

/* Copy D rows of `count` numbers to rows of `width`; the rest of WHOLE(D) rows up to `width` is 0 */
INLINE void load_rows(float *to, int64_t width, const T *from, int64_t stride, int64_t D, int64_t count) {
    for (int64_t d = 0; d < WHOLE(D); d++) {
        int64_t known = d < D ? count : 0;
        if (known) widen_row(to + d * width, from + d * stride, known);
        memset(to + d * width + known, 0, (width - known) * sizeof(float));
    }
}

INLINE void store_rows(T *restrict to, int64_t stride, const float *restrict from, int64_t width, int64_t D, int64_t count) {
    for (int64_t d = 0; d < D; d++)
        for (int64_t i = 0; i < count; i++) to[d * stride + i] = put(from[d * width + i]);
}

INLINE void store_sums(float *to, const float *from, int64_t width, int64_t D, int64_t count) {
    for (int64_t d = 0; d < D; d++) memcpy(to + d * count, from + d * width, count * sizeof(float));
}

/* Keys or values of one sequence behind those of the prefix, in rows of `width` */
INLINE void load_keys(float *to, int64_t width, const T *prefix, const T *own, const Attention *of) {
    memset(to, 0, WHOLE(of->D) * width * sizeof(float));
    for (int64_t d = 0; d < of->D; d++) {
        if (of->P) widen_row(to + d * width, prefix + d * of->prefix_stride, of->P);
        widen_row(to + d * width + of->P, own + d * of->stride, of->S);
    }
}

/* Weights of a tile of raw scores, keys before queries, for one more part of each query's softmax (Milakov & Gimelshein
   2018, arXiv:1805.02867): p, peak and sum are brought up to date; `kept` is what the sums so far are worth. Query lane
   i sees the keys up to `seen` + i */
INLINE void weigh_tile(float *p, float *peak, float *sum, float *kept, float scale, int64_t seen) {
    for (int64_t j = MIN(SIDE, seen < -1 ? 0 : seen + 1); j < SIDE; j++)
        for (int64_t i = 0; i < SIDE; i++) p[j * SIDE + i] = j <= seen + i ? p[j * SIDE + i] : -INFINITY;
    for (int64_t i = 0; i < SIDE; i++) kept[i] = peak[i];
    for (int64_t j = 0; j < SIDE; j++)
        for (int64_t i = 0; i < SIDE; i++) peak[i] = p[j * SIDE + i] > peak[i] ? p[j * SIDE + i] : peak[i];
    for (int64_t i = 0; i < SIDE; i++) { kept[i] = exp_((kept[i] - peak[i]) * scale); sum[i] *= kept[i]; }
    for (int64_t j = 0; j < SIDE; j++)
        for (int64_t i = 0; i < SIDE; i++) {
            float e = exp_((p[j * SIDE + i] - peak[i]) * scale);
            p[j * SIDE + i] = e;
            sum[i] += e;
        }
}

/* out: heads x D x columns, rows of of->stride; lse: heads x B S */
void attend_training(const Attention *of, T *out, float *lse) {
    int64_t D = of->D, S = of->S, width = ROUND(of->P + S), rows = WHOLE(D), across = ROUND(S);
    _Pragma("omp parallel for schedule(dynamic, 1)")
    for (int64_t task = 0; task < of->heads * of->B; task++) {
        int64_t head = task % of->heads, b = task / of->heads, key_head = head / (of->heads / of->K);
        int64_t at = head * D * of->stride + b * S, key_at = key_head * D * of->stride + b * S;
        float *room = aligned_alloc(64, rows * (2 * width + across + SIDE) * sizeof(float));
        float *k = room, *v = k + rows * width, *q = v + rows * width, *sums = q + rows * across;
        load_keys(k, width, of->prefix_k + key_head * D * of->prefix_stride, of->k + key_at, of);
        load_keys(v, width, of->prefix_v + key_head * D * of->prefix_stride, of->v + key_at, of);
        load_rows(q, across, of->q + at, of->stride, D, S);
        for (int64_t i = 0; i < S; i += SIDE) {
            float peak[SIDE], sum[SIDE] = {0}, kept[SIDE], p[SIDE * SIDE];
            for (int64_t l = 0; l < SIDE; l++) peak[l] = -3e38f;
            memset(sums, 0, rows * SIDE * sizeof(float));
            for (int64_t j = 0; j < MIN(width, of->P + i + SIDE); j += SIDE) {
                memset(p, 0, sizeof p);
                tile_product(p, SIDE, k + j, 1, width, q + i, across, SIDE, rows);
                weigh_tile(p, peak, sum, kept, of->scale, of->P + i - j);
                for (int64_t d = 0; d < rows; d++)
                    for (int64_t l = 0; l < SIDE; l++) sums[d * SIDE + l] *= kept[l];
                tile_product(sums, SIDE, v + j, width, 1, p, SIDE, rows, SIDE);
            }
            int64_t count = MIN(SIDE, S - i);
            for (int64_t l = 0; l < count; l++) lse[head * of->B * S + b * S + i + l] = peak[l] * of->scale + logf(sum[l]);
            for (int64_t l = 0; l < SIDE; l++) sum[l] = 1.0f / sum[l];
            for (int64_t d = 0; d < D; d++)
                for (int64_t l = 0; l < count; l++) out[at + d * of->stride + i + l] = put(sums[d * SIDE + l] * sum[l]);
        }
        free(room);
    }
}

/* Raw scores of a tile, queries before keys, become weights, and gradients of weights those of raw scores. Query i sees
   the key lanes up to `seen` + i */
INLINE void weigh_tile_backward(float *p, float *dp, const float *lse, const float *delta, float scale, int64_t seen) {
    for (int64_t i = 0; i < SIDE; i++)
        for (int64_t j = 0; j < SIDE; j++) {
            float e = exp_(p[i * SIDE + j] * scale - lse[i]);
            e = j <= seen + i ? e : 0.0f;
            dp[i * SIDE + j] = e * (dp[i * SIDE + j] - delta[i]) * scale;
            p[i * SIDE + j] = e;
        }
}

/* One head's share of the gradients of a sequence. Rows of keys: `width`; of queries: `across` */
INLINE void head_backward(const Attention *of, const float *k, const float *v, const float *q, const float *dout,
                          const float *lse, const float *delta, float *dq, float *dk, float *dv, int64_t width,
                          int64_t across) {
    int64_t rows = WHOLE(of->D);
    for (int64_t j = 0; j < of->P + of->S; j += SIDE)
        for (int64_t i = j > of->P ? (j - of->P) / SIDE * SIDE : 0; i < of->S; i += SIDE) {
            float p[SIDE][SIDE] = {{0}}, dp[SIDE][SIDE] = {{0}};
            tile_product(p[0], SIDE, q + i, 1, across, k + j, width, SIDE, rows);
            tile_product(dp[0], SIDE, dout + i, 1, across, v + j, width, SIDE, rows);
            weigh_tile_backward(p[0], dp[0], lse + i, delta + i, of->scale, of->P + i - j);
            tile_product(dv + j, width, dout + i, across, 1, p[0], SIDE, rows, SIDE);
            tile_product(dk + j, width, q + i, across, 1, dp[0], SIDE, rows, SIDE);
            transpose_tile_of_floats(dp);
            tile_product(dq + i, across, k + j, width, 1, dp[0], SIDE, rows, SIDE);
        }
}

/* dq, dk, dv: as q, k, v; dprefix: parts x 2 (keys, values) x K x D x P, to be summed over the `parts` shares of the
   sequences. dout as out; lse, delta (sum over D of out and dout): heads x B S */
void attend_training_backward(const Attention *of, const T *dout, const float *lse, const float *delta, T *dq, T *dk,
                              T *dv, float *dprefix, int64_t parts) {
    int64_t D = of->D, P = of->P, B = of->B, S = of->S, K = of->K, width = ROUND(P + S), rows = WHOLE(D);
    int64_t across = ROUND(S), group = of->heads / K;
    _Pragma("omp parallel for schedule(dynamic, 1)")
    for (int64_t task = 0; task < K * parts; task++) {
        int64_t head = task % K, share = task / K;
        float *room = aligned_alloc(64, (rows * (4 * width + 3 * across) + 2 * across) * sizeof(float));
        float *k = room, *v = k + rows * width, *dk_ = v + rows * width, *dv_ = dk_ + rows * width;
        float *q = dv_ + rows * width, *g = q + rows * across, *dq_ = g + rows * across;
        float *lse_ = dq_ + rows * across, *delta_ = lse_ + across;
        memset(dk_, 0, 2 * rows * width * sizeof(float));
        for (int64_t b = share * B / parts; b < (share + 1) * B / parts; b++) {
            int64_t key_at = head * D * of->stride + b * S;
            load_keys(k, width, of->prefix_k + head * D * of->prefix_stride, of->k + key_at, of);
            load_keys(v, width, of->prefix_v + head * D * of->prefix_stride, of->v + key_at, of);
            for (int64_t d = 0; d < 2 * rows; d++) memset(dk_ + d * width + P, 0, S * sizeof(float));
            for (int64_t query_head = head * group; query_head < (head + 1) * group; query_head++) {
                int64_t at = query_head * D * of->stride + b * S, column = query_head * B * S + b * S;
                load_rows(q, across, of->q + at, of->stride, D, S);
                load_rows(g, across, dout + at, of->stride, D, S);
                memset(dq_, 0, (rows + 2) * across * sizeof(float));
                memcpy(lse_, lse + column, S * sizeof(float));
                memcpy(delta_, delta + column, S * sizeof(float));
                head_backward(of, k, v, q, g, lse_, delta_, dq_, dk_, dv_, width, across);
                store_rows(dq + at, of->stride, dq_, across, D, S);
            }
            store_rows(dk + key_at, of->stride, dk_ + P, width, D, S);
            store_rows(dv + key_at, of->stride, dv_ + P, width, D, S);
        }
        store_sums(dprefix + (share * 2 * K + head) * D * P, dk_, width, D, P);
        store_sums(dprefix + ((share * 2 + 1) * K + head) * D * P, dv_, width, D, P);
        free(room);
    }
}
