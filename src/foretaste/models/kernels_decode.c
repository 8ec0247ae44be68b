/* Fused passes of decoding: norm, SwiGLU, drawing.

   Arrays are token-major. Attention is in `kernels_attend.c`. `decode_kernels.py` describes these functions. */

#include "kernels.h"

/* y = x / rms(x) * w, one row of H numbers; number h goes to y[h / 32 * step + h % 32] */
INLINE void norm_row(const T *x, const T *w, float epsilon, T *y, int64_t step, int64_t H) {
    float sum = 0;
    for (int64_t h = 0; h < H; h++) { float v = get(x[h]); sum += v * v; }
    float r = 1.0f / sqrtf(sum / H + epsilon);
    for (int64_t from = 0; from < H; from += 32)
        for (int64_t h = 0; h < MIN(32, H - from); h++)
            y[from / 32 * step + h] = put(get(put(get(x[from + h]) * r)) * get(w[from + h]));
}

void rms_norm_rows(const T *x, const T *w, float epsilon, T *y, int64_t rows, int64_t H) {
    PARALLEL
    for (int64_t row = 0; row < rows; row++) norm_row(x + row * H, w, epsilon, y + row * H, 32, H);
}

/* y = silu(gate) * up; each row of gate_up: I numbers of gate, then I of up */
void swiglu_rows(const T *gate_up, T *y, int64_t rows, int64_t I) {
    PARALLEL
    for (int64_t row = 0; row < rows; row++)
        swiglu_part(gate_up + 2 * row * I, gate_up + (2 * row + 1) * I, y + row * I, I);
}

#define BLOCK 256
#define BLOCKS 4096

/* Draw one token a row by the inverse of the cumulative distribution, walked over blocks and then inside one block.
   uniforms: rows; -> tokens, log-probabilities at the sampling temperature. At most BLOCK * BLOCKS tokens */
void draw(const T *logits, const double *uniforms, float sharpness, int64_t *tokens, float *logprobs,
          int64_t rows, int64_t V) {
    PARALLEL
    for (int64_t row = 0; row < rows; row++) {
        const T *x = logits + row * V;
        int64_t blocks = (V + BLOCK - 1) / BLOCK, block = 0, last = 0, token = 0;
        float sums[BLOCKS], peaks[64], peak = -INFINITY, weights[BLOCK];
        double total = 0, before = 0, inside = 0;
        for (int64_t j = 0; j < 64; j++) peaks[j] = get(x[j % V]);
        for (int64_t i = 0; i + 64 <= V; i += 64)
            for (int64_t j = 0; j < 64; j++) { float v = get(x[i + j]); peaks[j] = v > peaks[j] ? v : peaks[j]; }
        for (int64_t i = V / 64 * 64; i < V; i++) peak = get(x[i]) > peak ? get(x[i]) : peak;
        for (int64_t j = 0; j < 64; j++) peak = peaks[j] > peak ? peaks[j] : peak;
        for (int64_t b = 0; b < blocks; b++) {
            int64_t n = MIN(BLOCK, V - b * BLOCK);
            float sum = 0;
            for (int64_t i = 0; i < n; i++) {
                float z = (get(x[b * BLOCK + i]) - peak) * sharpness, e = exp_(z);
                sum += z < -87.0f ? 0.0f : e;
            }
            sums[b] = sum;
            total += sum;
            if (sum > 0) last = b;
        }
        double wanted = uniforms[row] * total;
        while (block < last && before + sums[block] <= wanted) before += sums[block++];
        /* the block was summed in another order: walk it on its own scale, so that rounding never leaves it */
        int64_t n = MIN(BLOCK, V - block * BLOCK);
        for (int64_t i = 0; i < n; i++) {
            float z = (get(x[block * BLOCK + i]) - peak) * sharpness;
            weights[i] = z < -87.0f ? 0.0f : exp_(z);
            inside += weights[i];
        }
        double share = (wanted - before) / sums[block] * inside, until = 0;
        for (int64_t i = 0; i < n; i++)
            if (weights[i] > 0) {
                token = i;
                until += weights[i];
                if (until > share) break;
            }
        tokens[row] = block * BLOCK + token;
        logprobs[row] = (get(x[tokens[row]]) - peak) * sharpness - (float)log(total);
    }
}
