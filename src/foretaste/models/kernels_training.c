/* Fused element-wise passes of training; matrix products are left to PyTorch.

   Arrays are feature-major unless said otherwise: one row a feature, one column a token, so that every loop over
   columns is a vector loop and nothing is transposed between the matrix products. `kernels.py` describes them. */

#include "kernels.h"

/* y = x * r * w with r = 1 / rms(x) of each column. x, y: H x M; r: M */
void rms_norm(const T *x, const T *w, float epsilon, T *y, float *r, int64_t H, int64_t M) {
    PARALLEL
    for (int64_t from = 0; from < M; from += COLUMNS) {
        int64_t n = MIN(COLUMNS, M - from);
        float sum[COLUMNS] = {0};
        for (int64_t h = 0; h < H; h++)
            for (int64_t i = 0; i < n; i++) { float v = get(x[h * M + from + i]); sum[i] += v * v; }
        for (int64_t i = 0; i < n; i++) r[from + i] = sum[i] = 1.0f / sqrtf(sum[i] / H + epsilon);
        for (int64_t h = 0; h < H; h++) {
            float weight = get(w[h]);
            for (int64_t i = 0; i < n; i++)
                y[h * M + from + i] = put(get(put(get(x[h * M + from + i]) * sum[i])) * weight);
        }
    }
}

/* dx = residual + the gradient through rms_norm (residual may be NULL); dw, float, is added to, one row a block of
   columns: ceil(M / COLUMNS) x H */
void rms_norm_backward(const T *x, const T *w, const float *r, const T *dy, const T *residual, T *dx, float *dw,
                       int64_t H, int64_t M) {
    PARALLEL
    for (int64_t from = 0; from < M; from += COLUMNS) {
        int64_t n = MIN(COLUMNS, M - from);
        float dot[COLUMNS] = {0};
        float *dw_block = dw + from / COLUMNS * H;
        for (int64_t h = 0; h < H; h++) {
            float weight = get(w[h]), along = 0;
            for (int64_t i = 0; i < n; i++) {
                float product = get(dy[h * M + from + i]) * get(x[h * M + from + i]);
                dot[i] += product * weight;
                along += product * r[from + i];
            }
            dw_block[h] = along;
        }
        for (int64_t i = 0; i < n; i++) { float v = r[from + i]; dot[i] *= v * v * v / H; }
        for (int64_t h = 0; h < H; h++) {
            float weight = get(w[h]);
            for (int64_t i = 0; i < n; i++) {
                int64_t at = h * M + from + i;
                float g = get(dy[at]) * weight * r[from + i] - get(x[at]) * dot[i];
                dx[at] = put(residual ? get(residual[at]) + g : g);
            }
        }
    }
}

/* y = silu(gate) * up; gate_up: rows of gate, then rows of up, `count` numbers each */
void swiglu(const T *gate_up, T *y, int64_t count) {
    PARALLEL
    for (int64_t from = 0; from < count; from += CHUNK)
        swiglu_part(gate_up + from, gate_up + count + from, y + from, MIN(CHUNK, count - from));
}

static void swiglu_backward_part(T *restrict gate, T *restrict up, const T *restrict dy, T *restrict y, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float g = get(gate[i]), u = get(up[i]), d = get(dy[i]);
        float open = 1.0f / (1.0f + exp_(-g)), silu = g * open;
        y[i] = put(get(put(silu)) * u);
        gate[i] = put(d * u * (open + silu * (1.0f - open)));
        up[i] = put(d * silu);
    }
}

/* In place: gate_up becomes its gradient; y is computed again (the gradient of the next matrix needs it) */
void swiglu_backward(T *gate_up, const T *dy, T *y, int64_t count) {
    PARALLEL
    for (int64_t from = 0; from < count; from += CHUNK)
        swiglu_backward_part(gate_up + from, gate_up + count + from, dy + from, y + from, MIN(CHUNK, count - from));
}

/* In place rotary embedding (sign -1: its transpose). x: heads x 2 half x M; cos, sin: half x M */
void rotate(T *x, const T *cos_, const T *sin_, float sign, int64_t heads, int64_t half, int64_t M) {
    PARALLEL
    for (int64_t row = 0; row < heads * half; row++) {
        int64_t d = row % half;
        T *a = x + (row / half * 2 * half + d) * M, *b = a + half * M;
        const T *c = cos_ + d * M, *s = sin_ + d * M;
        for (int64_t i = 0; i < M; i++) {
            float first = get(a[i]), second = get(b[i]), cosine = get(c[i]), sine = sign * get(s[i]);
            a[i] = put(first * cosine - second * sine);
            b[i] = put(second * cosine + first * sine);
        }
    }
}

/* Softmax over two sets of keys, unnormalised, in place. Column (b, q) sees all P rows of `prefix` (heads x P x B S)
   and the rows 0 .. q of `own` (heads x B x S x S, key before query). lse, inverse: heads x B S */
void softmax(T *prefix, T *own, float scale, float *lse, float *inverse, int64_t heads, int64_t P, int64_t B, int64_t S) {
    int64_t ld = B * S, blocks = (ld + COLUMNS - 1) / COLUMNS;
    float *peaks = lse, *sums = inverse;
    PARALLEL
    for (int64_t row = 0; row < heads * B; row++) {
        const T *scores = own + row * S * S;
        float *peak = peaks + row * S;
        for (int64_t q = 0; q < S; q++) peak[q] = get(scores[q]);
        for (int64_t k = 1; k < S; k++)
            for (int64_t q = k; q < S; q++) { float v = get(scores[k * S + q]); peak[q] = v > peak[q] ? v : peak[q]; }
    }
    PARALLEL
    for (int64_t block = 0; block < heads * blocks; block++) {
        int64_t head = block / blocks, from = block % blocks * COLUMNS, n = MIN(COLUMNS, ld - from);
        float peak[COLUMNS], sum[COLUMNS] = {0};
        T *scores = prefix + head * P * ld + from;
        memcpy(peak, peaks + head * ld + from, n * sizeof(float));
        for (int64_t p = 0; p < P; p++)
            for (int64_t i = 0; i < n; i++) { float v = get(scores[p * ld + i]); peak[i] = v > peak[i] ? v : peak[i]; }
        for (int64_t p = 0; p < P; p++)
            for (int64_t i = 0; i < n; i++) {
                float e = exp_((get(scores[p * ld + i]) - peak[i]) * scale);
                sum[i] += e; scores[p * ld + i] = put(e);
            }
        memcpy(peaks + head * ld + from, peak, n * sizeof(float));
        memcpy(sums + head * ld + from, sum, n * sizeof(float));
    }
    PARALLEL
    for (int64_t row = 0; row < heads * B; row++) {
        T *scores = own + row * S * S;
        float *peak = peaks + row * S, *sum = sums + row * S;
        for (int64_t k = 0; k < S; k++) {
            memset(scores + k * S, 0, k * sizeof(T));
            for (int64_t q = k; q < S; q++) {
                float e = exp_((get(scores[k * S + q]) - peak[q]) * scale);
                sum[q] += e; scores[k * S + q] = put(e);
            }
        }
        for (int64_t q = 0; q < S; q++) { peak[q] = peak[q] * scale + logf(sum[q]); sum[q] = 1.0f / sum[q]; }
    }
}

/* out = (far + near) * inverse. far: heads x D x B S (NULL: none); near: heads x B x D x S; out: rows of `stride` */
void join(const T *far, const T *near, const float *inverse, T *out, int64_t stride,
          int64_t heads, int64_t D, int64_t B, int64_t S) {
    PARALLEL
    for (int64_t row = 0; row < heads * D; row++) {
        int64_t head = row / D, d = row % D;
        for (int64_t b = 0; b < B; b++) {
            const T *n_ = near + ((head * B + b) * D + d) * S, *f_ = far ? far + row * B * S + b * S : 0;
            const float *v = inverse ? inverse + head * B * S + b * S : 0;
            T *o = out + row * stride + b * S;
            for (int64_t i = 0; i < S; i++) {
                float sum = get(n_[i]) + (f_ ? get(f_[i]) : 0.0f);
                o[i] = put(v ? sum * v[i] : sum);
            }
        }
    }
}

/* delta[head, column] = sum over d of dy * y, both with rows of `stride`, heads x D x columns */
void row_dot(const T *dy, const T *y, float *delta, int64_t stride, int64_t heads, int64_t D, int64_t columns) {
    PARALLEL
    for (int64_t head = 0; head < heads; head++)
        for (int64_t from = 0; from < columns; from += COLUMNS) {
            int64_t n = MIN(COLUMNS, columns - from);
            float sum[COLUMNS] = {0};
            for (int64_t d = 0; d < D; d++)
                for (int64_t i = 0; i < n; i++) {
                    int64_t at = (head * D + d) * stride + from + i;
                    sum[i] += get(dy[at]) * get(y[at]);
                }
            for (int64_t i = 0; i < n; i++) delta[head * columns + from + i] = sum[i];
        }
}

static inline void softmax_backward_row(T *scores, T *dscores, const float *lse, const float *delta, float scale,
                                        int64_t shut, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float p = exp_(get(scores[i]) * scale - lse[i]);
        p = i < shut ? 0.0f : p;
        dscores[i] = put(p * (get(dscores[i]) - delta[i]) * scale);
        scores[i] = put(p);
    }
}

/* In place: raw scores become probabilities, gradients of probabilities become gradients of raw scores */
void softmax_backward(T *prefix, T *dprefix, T *own, T *down, float scale, const float *lse, const float *delta,
                      int64_t heads, int64_t P, int64_t B, int64_t S) {
    int64_t ld = B * S;
    PARALLEL
    for (int64_t row = 0; row < heads * P; row++)
        softmax_backward_row(prefix + row * ld, dprefix + row * ld, lse + row / P * ld, delta + row / P * ld, scale, 0, ld);
    PARALLEL
    for (int64_t row = 0; row < heads * B * S; row++) {
        int64_t at = row / S * S;
        softmax_backward_row(own + row * S, down + row * S, lse + at, delta + at, scale, row % S, S);
    }
}

/* Token-major. Log-probability of `targets` and entropy of softmax(logits / temperature); lse is kept for backward */
void score(const T *logits, const int64_t *targets, float sharpness, float *logprobs, float *entropies, float *lse,
           int64_t N, int64_t V) {
    PARALLEL
    for (int64_t row = 0; row < N; row++) {
        const T *x = logits + row * V;
        float peaks[64], peak = -INFINITY, sum = 0, mean = 0;
        for (int64_t j = 0; j < 64; j++) peaks[j] = get(x[j % V]);
        for (int64_t i = 0; i + 64 <= V; i += 64)
            for (int64_t j = 0; j < 64; j++) { float v = get(x[i + j]); peaks[j] = v > peaks[j] ? v : peaks[j]; }
        for (int64_t i = V / 64 * 64; i < V; i++) peak = get(x[i]) > peak ? get(x[i]) : peak;
        for (int64_t j = 0; j < 64; j++) peak = peaks[j] > peak ? peaks[j] : peak;
        for (int64_t i = 0; i < V; i++) {
            float z = (get(x[i]) - peak) * sharpness, e = exp_(z);
            sum += e; mean += e * z;
        }
        lse[row] = peak * sharpness + logf(sum);
        logprobs[row] = (get(x[targets[row]]) - peak) * sharpness - logf(sum);
        entropies[row] = logf(sum) - mean / sum;
    }
}

/* In place: logits become their gradients, from those of the log-probabilities and entropies */
void score_backward(T *logits, const int64_t *targets, float sharpness, const float *lse, const float *entropies,
                    const float *dlogprobs, const float *dentropies, int64_t N, int64_t V) {
    PARALLEL
    for (int64_t row = 0; row < N; row++) {
        T *x = logits + row * V;
        float dl = dlogprobs[row] * sharpness, de = dentropies[row] * sharpness, entropy = entropies[row];
        float own = get(x[targets[row]]) * sharpness - lse[row], p_own = exp_(own);
        for (int64_t i = 0; i < V; i++) {
            float z = get(x[i]) * sharpness - lse[row];
            x[i] = put(-exp_(z) * (dl + de * (z + entropy)));
        }
        x[targets[row]] = put(dl - p_own * (dl + de * (own + entropy)));
    }
}

#define NUMBER T
#define NAMED(name) name
#include "kernels_transpose.h"

/* out (columns x rows) = the transpose of x (rows x columns), in tiles that are read and written by whole cache lines */
void transpose(const T *x, T *out, int64_t rows, int64_t columns) {
    PARALLEL
    for (int64_t c = 0; c < columns; c += 32)
        for (int64_t r = 0; r < rows; r += 32) {
            T tile[32][32];
            int64_t width = MIN(32, columns - c), height = MIN(32, rows - r);
            if (width == 32 && height == 32) {
                for (int i = 0; i < 32; i++) memcpy(tile[i], x + (r + i) * columns + c, sizeof tile[0]);
                transpose_tile(tile);
                for (int j = 0; j < 32; j++) memcpy(out + (c + j) * rows + r, tile[j], sizeof tile[0]);
            } else
                for (int64_t j = 0; j < width; j++)
                    for (int64_t i = 0; i < height; i++) out[(c + j) * rows + r + i] = x[(r + i) * columns + c + j];
        }
}

/* Part the sequences of x (heads x D x B S, rows of `stride`), `group` times each head: out[h, b] is D x S, or, turned,
   S x D. out: heads group x B x D x S or heads group x B x S x D */
void part(const T *x, int64_t stride, T *out, int64_t turned, int64_t heads, int64_t group, int64_t D, int64_t B,
          int64_t S) {
    PARALLEL
    for (int64_t both = 0; both < heads * B; both++) {
        int64_t head = both / B, b = both % B;
        const T *from = x + head * D * stride + b * S;
        T *first = out + (head * group * B + b) * D * S;
        if (!turned)
            for (int64_t d = 0; d < D; d++) memcpy(first + d * S, from + d * stride, S * sizeof(T));
        for (int64_t d = 0; turned && d < D; d += 32)
            for (int64_t s = 0; s < S; s += 32) {
                T tile[32][32] = {{0}};
                int64_t height = MIN(32, D - d), width = MIN(32, S - s);
                for (int64_t i = 0; i < height; i++) memcpy(tile[i], from + (d + i) * stride + s, width * sizeof(T));
                transpose_tile(tile);
                for (int64_t j = 0; j < width; j++) memcpy(first + (s + j) * D + d, tile[j], height * sizeof(T));
            }
        for (int64_t g = 1; g < group; g++) memcpy(first + g * B * D * S, first, D * S * sizeof(T));
    }
}
