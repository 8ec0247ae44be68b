/* Whole layers of decoding in one call: nothing is started, stopped or copied between two steps.

   `packed_layers.py` describes these functions. Products are in `kernels_matrix.c`, attention in `kernels_attend.c`. */

#include "kernels.h"

/* Weights of one layer; biases and the norms of queries and keys may be NULL */
typedef struct {
    const T *norm_before, *qkv, *qkv_bias, *query_norm, *key_norm, *out, *out_bias, *norm_after, *gate_up, *gate_up_bias,
        *down, *down_bias;
} Layer;

/* The tokens of a pass, and room for what is made of them; as `Pass` in packed_layers.py */
typedef struct {
    int64_t tokens, wanted, hidden, inner, heads, key_heads, size, slots, cached;
    const int64_t *rows, *places, *parents, *inherited, *last;
    const T *cos, *sin;
    T *qkv, *left, *gated;
    float epsilon;
} Pass;

#ifdef WHOLE_PASSES
#define ROWS 4 /* tokens of a piece of element-wise work */

INLINE void norm_phase(Team *team, const T *x, const T *w, float epsilon, T *left, int64_t M, int64_t H) {
    EACH(piece, (M + ROWS - 1) / ROWS)
        for (int64_t m = piece * ROWS; m < MIN(M, piece * ROWS + ROWS); m++)
            norm_row(x + m * H, w, epsilon, left + LEFT(m, H), TILE, H);
    meet(team);
}

static void norm_heads(T *x, const T *w, float epsilon, int64_t heads, int64_t D) {
    for (int64_t h = 0; w && h < heads; h++) norm_row(x + h * D, w, epsilon, x + h * D, 32, D);
}

static void remember_phase(Team *team, const Layer *layer, const Pass *p, T *keys, T *values) {
    int64_t heads = p->heads, K = p->key_heads, D = p->size;
    EACH(piece, (p->tokens + ROWS - 1) / ROWS)
        for (int64_t t = piece * ROWS; t < MIN(p->tokens, piece * ROWS + ROWS); t++) {
            T *qkv = p->qkv + t * (heads + 2 * K) * D;
            norm_heads(qkv, layer->query_norm, p->epsilon, heads, D);
            norm_heads(qkv + heads * D, layer->key_norm, p->epsilon, K, D);
            remember_token(qkv, p->cos + t * D / 2, p->sin + t * D / 2, p->rows[t], p->places[t], keys, values, heads, K,
                           D, p->slots);
        }
    meet(team);
}

/* With `last`, only the tokens that are wanted attend, and their x moves there */
static void attend_phase(Team *team, const Pass *p, const T *keys, const T *values, const T *x, T *last) {
    int64_t heads = p->heads, K = p->key_heads, D = p->size, M = last ? p->wanted : p->tokens;
    Tree tree = {p->parents, p->inherited, keys, values, K, D, p->slots};
    int64_t pieces = M * K;
    for (int64_t piece = take(team), after; piece < pieces; piece = after) {
        after = take(team);
        int64_t m = piece / K, k = piece % K, t = last ? p->last[m] : m, first = k * (heads / K) * D;
        int64_t then = MIN(after, pieces - 1) / K;
        const T *next = keys_of(&tree, p->rows[last ? p->last[then] : then], after % K);
        if (last && k == 0) memcpy(last + m * p->hidden, x + t * p->hidden, p->hidden * sizeof(T));
        attend_token(p->qkv + t * (heads + 2 * K) * D + first, &tree, p->rows[t], p->places[t], k, heads / K,
                     1.0f / sqrtf(D), p->left + LEFT(m, heads * D), first, TILE, next);
    }
    meet(team);
}

static void layer_phases(Team *team, const Layer *layer, const Pass *p, T *keys, T *values, T *x, T *last) {
    int64_t H = p->hidden, I = p->inner, N = p->tokens, width = (p->heads + 2 * p->key_heads) * p->size;
    norm_phase(team, x, layer->norm_before, p->epsilon, p->left, N, H);
    multiply(team, STORE, p->left, layer->qkv, layer->qkv_bias, p->qkv, N, width, H, width);
    remember_phase(team, layer, p, keys, values);
    attend_phase(team, p, keys, values, x, last);
    if (last) { x = last; N = p->wanted; }
    multiply(team, ADD, p->left, layer->out, layer->out_bias, x, N, H, p->heads * p->size, H);
    norm_phase(team, x, layer->norm_after, p->epsilon, p->left, N, H);
    multiply(team, GATE, p->left, layer->gate_up, layer->gate_up_bias, p->gated, N, 2 * I, H, I);
    multiply(team, ADD, p->gated, layer->down, layer->down_bias, x, N, H, I, H);
}

/* Run layers over x (tokens x hidden), in place; what comes out of the last one goes to `last` (wanted x hidden), if
   that is given, for the tokens that are wanted alone. keys, values: of the first layer, `cached` numbers a layer */
void run_layers(const Layer *layers, const Pass *p, T *keys, T *values, T *x, T *last, int64_t count) {
    Team team = {0};
    _Pragma("omp parallel")
    {
        _Pragma("omp single")
        team.threads = omp_get_num_threads();
        begin_products();
        for (int64_t l = 0; l < count; l++)
            layer_phases(&team, layers + l, p, keys + l * p->cached, values + l * p->cached, x,
                         l == count - 1 ? last : 0);
        end_products();
    }
}

/* logits (M x V) = norm(x) W' */
void run_head(const T *x, const T *norm, const T *w, const T *bias, float epsilon, T *left, T *logits, int64_t M,
              int64_t H, int64_t V) {
    Team team = {0};
    _Pragma("omp parallel")
    {
        _Pragma("omp single")
        team.threads = omp_get_num_threads();
        begin_products();
        norm_phase(&team, x, norm, epsilon, left, M, H);
        multiply(&team, STORE, left, w, bias, logits, M, V, H, V);
        end_products();
    }
}
#endif
