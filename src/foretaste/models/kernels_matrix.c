/* Matrix products of decoding on the matrix unit (AMX) or with vector instructions for bfloat16 pairs (AVX-512 BF16),
   and the threads that share one pass.

   A product's left operand lies in tiles of 16 rows x 32 numbers, each 1 KB in a piece, all tiles of 16 rows one after
   the other. Its right operand, the weights, lies in panels of 32 outputs; a panel holds, for every 32 inputs, two
   tiles of 16 outputs with the inputs in pairs. `packed_layers.py` describes these functions. */

#include "kernels.h"

#define TILE 512
#define PANEL 32
#define STRETCH 256 /* rows that pass by a panel before the next one comes: they stay in the second cache */

/* Where number k of row `row` is in a left operand of K numbers a row: LEFT(row, K) + k / 32 * TILE + k % 32 */
#define LEFT(row, K) ((row) / 16 * 16 * (K) + (row) % 16 * 32)

#if defined(PAIRS) && defined(_OPENMP) && defined(__linux__)
#define WHOLE_PASSES
#include <omp.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Lay out weights of K inputs as a right operand. Panel p takes 16 rows from `low` and 16 from `high`, from row p * step
   on: a matrix with `high` 16 rows below `low` (step 32), or two matrices by turns (step 16). K is a multiple of 32 */
void pack(const T *low, const T *high, T *packed, int64_t panels, int64_t step, int64_t K) {
    PARALLEL
    for (int64_t panel = 0; panel < panels; panel++)
        for (int64_t row = 0; row < PANEL; row++) {
            const T *from = (row < 16 ? low : high) + (panel * step + row % 16) * K;
            T *to = packed + panel * PANEL * K + row / 16 * TILE + row % 16 * 2;
            for (int64_t k = 0; k < K; k += 2) memcpy(to + k / 32 * 2 * TILE + k % 32 * 16, from + k, 2 * sizeof(T));
        }
}

/* Threads that go through the phases of a pass together; each phase is a row of pieces that whoever is free takes */
typedef struct {
    int threads;
    _Alignas(64) atomic_long next;
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_int phase;
} Team;

INLINE int64_t take(Team *team) { return atomic_fetch_add_explicit(&team->next, 1, memory_order_relaxed); }

/* End a phase: wait for the other threads, leaving the processor to others if that takes long */
static void meet(Team *team) {
    int phase = atomic_load(&team->phase);
    if (atomic_fetch_add(&team->arrived, 1) == team->threads - 1) {
        atomic_store(&team->arrived, 0);
        atomic_store(&team->next, 0);
        atomic_store(&team->phase, phase + 1);
        return;
    }
    for (int tries = 0; atomic_load_explicit(&team->phase, memory_order_acquire) == phase; tries++) {
        if (tries < 2000) _mm_pause();
        else sched_yield();
    }
}

#define EACH(piece, count) for (int64_t piece; (piece = take(team)) < (count);)

#ifdef __AMX_BF16__
#define HEIGHT 32 /* rows that are multiplied by a panel at a time */

/* What products of whole passes are made by: 0, there are none; 1, vector instructions; 2, the matrix unit, if this
   process may use it: Linux hands it out on demand */
int64_t whole_passes(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 ? 2 : 0;
}

static void begin_products(void) {
    struct { uint8_t palette, start, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } tiles = {.palette = 1};
    for (int i = 0; i < 8; i++) { tiles.bytes[i] = 64; tiles.rows[i] = 16; }
    _tile_loadconfig(&tiles);
}

static void end_products(void) { _tile_release(); }

INLINE void multiply_tiles(const int n, const T *a, const T *b, int64_t K, const T *ahead, int64_t lines, float *sums) {
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    for (int64_t k = 0; k < K / 32; k++) {
        _tile_loadd(4, a + k * TILE, 64);
        _tile_loadd(6, b + k * 2 * TILE, 64);
        _tile_loadd(7, b + k * 2 * TILE + TILE, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (n > 1) {
            _tile_loadd(5, a + 16 * K + k * TILE, 64);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        for (int64_t line = 0; line < lines; line++) _mm_prefetch(ahead + (k * lines + line) * 32, _MM_HINT_T1);
    }
    _tile_stored(0, sums, 128); _tile_stored(1, sums + 16, 128);
    if (n > 1) { _tile_stored(2, sums + 512, 128); _tile_stored(3, sums + 528, 128); }
}

/* sums (HEIGHT x 32) = some rows of the left operand times a panel; `ahead`: the memory that is needed next */
INLINE void multiply_block(int64_t rows, const T *a, const T *b, int64_t K, const T *ahead, int64_t lines, float *sums) {
    if (rows > 16) multiply_tiles(2, a, b, K, ahead, lines, sums);
    else multiply_tiles(1, a, b, K, ahead, lines, sums);
}
#else
#define HEIGHT 8

int64_t whole_passes(void) { return 1; }
static void begin_products(void) {}
static void end_products(void) {}

INLINE void multiply_rows(const int n, const T *a, const T *b, int64_t K, const T *ahead, int64_t lines, float *sums) {
    __m512 low[HEIGHT], high[HEIGHT];
    for (int r = 0; r < n; r++) low[r] = high[r] = _mm512_setzero_ps();
    for (int64_t k = 0; k < K / 32; k++, a += TILE, b += 2 * TILE) {
        for (int pair = 0; pair < 16; pair++) {
            __m512bh first = (__m512bh)_mm512_load_si512(b + pair * 32);
            __m512bh second = (__m512bh)_mm512_load_si512(b + TILE + pair * 32);
            for (int r = 0; r < n; r++) {
                int32_t both; memcpy(&both, a + r * 32 + pair * 2, sizeof both);
                __m512bh x = (__m512bh)_mm512_set1_epi32(both);
                low[r] = _mm512_dpbf16_ps(low[r], x, first);
                high[r] = _mm512_dpbf16_ps(high[r], x, second);
            }
        }
        for (int64_t line = 0; line < lines; line++) _mm_prefetch(ahead + (k * lines + line) * 32, _MM_HINT_T1);
    }
    for (int r = 0; r < n; r++) {
        _mm512_store_ps(sums + r * PANEL, low[r]);
        _mm512_store_ps(sums + r * PANEL + 16, high[r]);
    }
}

/* sums (HEIGHT x 32) = some rows of the left operand times a panel; `ahead`: the memory that is needed next */
INLINE void multiply_block(int64_t rows, const T *a, const T *b, int64_t K, const T *ahead, int64_t lines, float *sums) {
    switch (rows) {
        case 1: multiply_rows(1, a, b, K, ahead, lines, sums); break;
        case 2: multiply_rows(2, a, b, K, ahead, lines, sums); break;
        case 3: case 4: multiply_rows(4, a, b, K, ahead, lines, sums); break;
        default: multiply_rows(HEIGHT, a, b, K, ahead, lines, sums);
    }
}
#endif

enum Kind {
    STORE, /* y = sums */
    ADD,   /* y += sums */
    GATE   /* y = silu(gate) * up as a left operand; a panel holds 16 numbers of each */
};

INLINE __m512 widen(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }
INLINE __m256i narrow(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }
INLINE __m512 rounded(__m512 x) { return widen(narrow(x)); }

/* silu(gate) * up, rounded after each step as `swiglu_part` does */
INLINE __m256i gated(__m512 gate, __m512 up) {
    float e[16], minus[16];
    gate = rounded(gate);
    _mm512_storeu_ps(minus, _mm512_sub_ps(_mm512_setzero_ps(), gate));
    for (int i = 0; i < 16; i++) e[i] = exp_(minus[i]);
    __m512 open = _mm512_add_ps(_mm512_set1_ps(1.0f), _mm512_loadu_ps(e));
    return narrow(_mm512_mul_ps(rounded(_mm512_div_ps(gate, open)), rounded(up)));
}

INLINE void finish_block(const enum Kind kind, const float *sums, const T *bias, T *y, int64_t ld, int64_t row,
                         int64_t rows, int64_t panel) {
    __m512 more[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int half = 0; bias && half < 2; half++)
        more[half] = widen(_mm256_loadu_si256((const __m256i *)(bias + panel * PANEL + 16 * half)));
    for (int64_t r = 0; r < rows; r++) {
        __m512 low = _mm512_add_ps(_mm512_load_ps(sums + r * PANEL), more[0]);
        __m512 high = _mm512_add_ps(_mm512_load_ps(sums + r * PANEL + 16), more[1]);
        if (kind == GATE) {
            T *out = y + LEFT(row + r, ld) + panel / 2 * TILE + panel % 2 * 16;
            _mm256_storeu_si256((__m256i *)out, gated(low, high));
        } else {
            __m256i *out = (__m256i *)(y + (row + r) * ld + panel * PANEL);
            if (kind == ADD) {
                low = _mm512_add_ps(low, widen(_mm256_loadu_si256(out)));
                high = _mm512_add_ps(high, widen(_mm256_loadu_si256(out + 1)));
            }
            _mm256_storeu_si256(out, narrow(low));
            _mm256_storeu_si256(out + 1, narrow(high));
        }
    }
}

/* A phase: y = a W' + bias, one piece a panel and stretch of rows. ld: numbers a row of y */
INLINE void multiply(Team *team, const enum Kind kind, const T *a, const T *w, const T *bias, T *y, int64_t M,
                     int64_t N, int64_t K, int64_t ld) {
    int64_t panels = N / PANEL, pieces = panels * ((M + STRETCH - 1) / STRETCH);
    _Alignas(64) float sums[HEIGHT * PANEL];
    for (int64_t piece = take(team), after; piece < pieces; piece = after) {
        after = take(team);
        int64_t panel = piece % panels, from = piece / panels * STRETCH, to = MIN(M, from + STRETCH);
        const T *ahead = w + after % panels * PANEL * K, *b = w + panel * PANEL * K;
        int64_t blocks = (to - from + HEIGHT - 1) / HEIGHT, lines = after < pieces ? (32 + blocks - 1) / blocks : 0;
        for (int64_t row = from, block = 0; row < to; row += HEIGHT, block++) {
            const T *part = ahead + block * (K / 32) * lines * 32;
            int64_t rows = MIN(HEIGHT, to - row);
            multiply_block(rows, a + LEFT(row, K), b, K, part, lines, sums);
            finish_block(kind, sums, bias, y, ld, row, rows, panel);
        }
    }
    meet(team);
}
#else
int64_t whole_passes(void) { return 0; }
#endif
