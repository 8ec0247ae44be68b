/* transpose_tile: a square of 32 x 32 in place. Included once for each type of NUMBER, which NAMED names apart */

#if defined(__GNUC__) && !defined(__clang__)
#define EDGE (WIDTH / (int)sizeof(NUMBER))
typedef NUMBER NAMED(Line) __attribute__((vector_size(WIDTH)));
typedef __typeof__((NAMED(Line)){0} < (NAMED(Line)){0}) NAMED(Index);

/* EDGE x EDGE in registers: exchange the off-diagonal halves of every 2 x 2 blocks, of size EDGE / 2, .., 2, 1 */
INLINE void NAMED(transpose_square)(NAMED(Line) v[EDGE]) {
#pragma GCC unroll 5
    for (int s = EDGE / 2; s > 0; s /= 2) {
        NAMED(Index) low, high;
#pragma GCC unroll 32
        for (int e = 0; e < EDGE; e++) { low[e] = e & s ? EDGE + e - s : e; high[e] = e & s ? EDGE + e : e + s; }
#pragma GCC unroll 32
        for (int i = 0; i < EDGE; i++)
            if (!(i & s)) {
                NAMED(Line) a = v[i], b = v[i + s];
                v[i] = __builtin_shuffle(a, b, low);
                v[i + s] = __builtin_shuffle(a, b, high);
            }
    }
}

static void NAMED(transpose_tile)(NUMBER tile[32][32]) {
    for (int r = 0; r < 32; r += EDGE)
        for (int c = r; c < 32; c += EDGE) {
            NAMED(Line) upper[EDGE], lower[EDGE];
            for (int i = 0; i < EDGE; i++) memcpy(upper + i, tile[r + i] + c, WIDTH);
            for (int i = 0; i < EDGE; i++) memcpy(lower + i, tile[c + i] + r, WIDTH);
            NAMED(transpose_square)(upper);
            NAMED(transpose_square)(lower);
            for (int i = 0; i < EDGE; i++) memcpy(tile[c + i] + r, upper + i, WIDTH);
            for (int i = 0; i < EDGE; i++) memcpy(tile[r + i] + c, lower + i, WIDTH);
        }
}
#undef EDGE
#else
static void NAMED(transpose_tile)(NUMBER tile[32][32]) {
    for (int i = 0; i < 32; i++)
        for (int j = 0; j < i; j++) { NUMBER kept = tile[i][j]; tile[i][j] = tile[j][i]; tile[j][i] = kept; }
}
#endif
#undef NUMBER
#undef NAMED
