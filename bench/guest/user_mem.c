/* SPDX-License-Identifier: Apache-2.0 */
/* Memory: copies, streams and latency. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

#define MIB (1u << 20)

static uint8_t *source, *target;

static int setup_buffers(void)
{
    source = aligned_alloc(4096, 4 * MIB);
    target = aligned_alloc(4096, 4 * MIB);
    if (!source || !target)
        bench_die("aligned_alloc");
    for (size_t i = 0; i < 4 * MIB; i++)
        source[i] = (uint8_t)(i * 7);
    memset(target, 1, 4 * MIB);
    return 0;
}

static void drop_buffers(void)
{
    free(source);
    free(target);
}

static uint64_t copy(uint64_t n, size_t len)
{
    for (uint64_t i = 0; i < n; i++) {
        uint8_t *d = target, *s = source;

        BENCH_OPAQUE(d);
        memcpy(d, s, len);
        BENCH_OPAQUE(s);
    }
    return target[len - 1];
}

static uint64_t fill(uint64_t n, size_t len)
{
    for (uint64_t i = 0; i < n; i++) {
        uint8_t *d = target;

        BENCH_OPAQUE(d);
        memset(d, 0x5a, len);
        BENCH_OPAQUE(d);
    }
    return target[len - 1];
}

static uint64_t run_memcpy_4k(uint64_t n)
{
    return copy(n, 4096);
}

static uint64_t run_memcpy_1m(uint64_t n)
{
    return copy(n, MIB);
}

static uint64_t run_memset_4k(uint64_t n)
{
    return fill(n, 4096);
}

static uint64_t run_memset_1m(uint64_t n)
{
    return fill(n, MIB);
}

/* The string instructions themselves, whatever the library prefers. */
static uint64_t run_rep_movsb(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        void *d = target;
        const void *s = source;
        size_t c = 16384;

        __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(c)::"memory");
    }
    return target[16383];
}

static uint64_t run_stream(uint64_t n)
{
    uint64_t *a = (uint64_t *)(void *)target, *b = (uint64_t *)(void *)source;
    size_t count = 2 * MIB / sizeof(*a);

    for (uint64_t i = 0; i < n; i++) {
        for (size_t k = 0; k < count; k++)
            a[k] = b[k] + 3 * b[count + k];
        BENCH_OPAQUE(a);
    }
    return a[count - 1];
}

#define CHASE_COUNT (256 * 1024 / 64)
static struct link {
    struct link *next;
    uint8_t pad[56];
} * links;

static int setup_chase(void)
{
    static uint32_t order[CHASE_COUNT];
    uint64_t seed = 2463534242u;

    links = aligned_alloc(4096, CHASE_COUNT * sizeof(*links));
    if (!links)
        bench_die("aligned_alloc");
    for (uint32_t i = 0; i < CHASE_COUNT; i++)
        order[i] = i;
    for (uint32_t i = CHASE_COUNT - 1; i > 0; i--) {
        uint32_t k = (uint32_t)(bench_random(&seed) % (i + 1)), t = order[i];

        order[i] = order[k];
        order[k] = t;
    }
    for (uint32_t i = 0; i < CHASE_COUNT; i++)
        links[order[i]].next = &links[order[(i + 1) % CHASE_COUNT]];
    return 0;
}

static void drop_chase(void)
{
    free(links);
}

static uint64_t run_chase(uint64_t n)
{
    const struct link *p = links;

    for (uint64_t i = 0; i < n; i++) {
        p = p->next;
        BENCH_OPAQUE(p);
    }
    return (uint64_t)(p - links);
}

struct node {
    struct node *left, *right;
    uint64_t key, value;
};
#define TREE_COUNT 20000
static struct node *nodes, *top;

static int setup_tree(void)
{
    uint64_t seed = 123456789;

    nodes = calloc(TREE_COUNT, sizeof(*nodes));
    if (!nodes)
        bench_die("calloc");
    top = NULL;
    for (size_t i = 0; i < TREE_COUNT; i++) {
        struct node **at = &top;

        nodes[i].key = bench_random(&seed);
        nodes[i].value = i;
        while (*at)
            at = nodes[i].key < (*at)->key ? &(*at)->left : &(*at)->right;
        *at = &nodes[i];
    }
    return 0;
}

static void drop_tree(void)
{
    free(nodes);
}

static uint64_t run_tree(uint64_t n)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < n; i++) {
        uint64_t seed = 123456789;

        for (int k = 0; k < 200; k++) {
            uint64_t key = bench_random(&seed);
            const struct node *at = top;

            while (at && at->key != key)
                at = key < at->key ? at->left : at->right;
            sum += at ? at->value : 1000000;
        }
    }
    return sum;
}

/* Allocation and lists: malloc, free and short pointer work. */
static uint64_t run_malloc(uint64_t n)
{
    struct node *list = NULL;
    uint64_t sum = 0;

    for (uint64_t i = 0; i < n; i++) {
        for (uint64_t k = 0; k < 64; k++) {
            struct node *x = malloc(sizeof(*x) + (k & 7) * 32);

            if (!x)
                bench_die("malloc");
            x->left = list;
            x->key = k;
            list = x;
        }
        while (list) {
            struct node *x = list;

            list = x->left;
            sum += x->key;
            free(x);
        }
    }
    return sum;
}

const struct bench bench_mem[] = {
    {"memcpy-4k", "user-int", run_memcpy_4k, setup_buffers, drop_buffers},
    {"memset-4k", "user-int", run_memset_4k, setup_buffers, drop_buffers},
    {"memcpy-1m", "user-int", run_memcpy_1m, setup_buffers, drop_buffers},
    {"memset-1m", "user-int", run_memset_1m, setup_buffers, drop_buffers},
    {"rep-movsb", "user-int", run_rep_movsb, setup_buffers, drop_buffers},
    {"stream", "user-int", run_stream, setup_buffers, drop_buffers},
    {"chase", "user-int", run_chase, setup_chase, drop_chase},
    {"tree", "user-int", run_tree, setup_tree, drop_tree},
    {"malloc", "user-int", run_malloc, NULL, NULL},
};
const size_t bench_mem_count = ARRAY_SIZE(bench_mem);
