/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "blockio.h"

struct bench {
    struct blockdev *b;
    bool write;
    u64 size, step, count, flush;
    u64 next; /* atomic */
};

static void *work(void *opaque)
{
    struct bench *k = opaque;
    u8 *buf = aligned_alloc(4096, k->size + 4096);
    struct host_iov v = {buf, k->size};
    u64 i;

    memset(buf, 0x5a, k->size);
    while ((i = __atomic_fetch_add(&k->next, 1, __ATOMIC_RELAXED)) < k->count) {
        u64 off = i * k->step % k->b->size;
        int r;

        if (off > k->b->size - k->size)
            off = 0;
        r = k->write ? k->b->ops->writev(k->b, &v, 1, off) : k->b->ops->readv(k->b, &v, 1, off);
        if (!r && k->flush && i % k->flush == k->flush - 1)
            r = k->b->ops->flush(k->b);
        if (r)
            die("request at %llu: %s", (unsigned long long)off, strerror(-r));
    }
    free(buf);
    return NULL;
}

int cmd_bench(struct blockdev *b, int argc, char **argv)
{
    struct bench k = {.b = b, .write = !strcmp(argv[0], "write")};
    struct timespec start, end;
    pthread_t thread[64];
    unsigned n;

    (void)argc;
    k.size = strtoull(argv[1], NULL, 0);
    k.step = strtoull(argv[2], NULL, 0);
    k.count = strtoull(argv[3], NULL, 0);
    n = (unsigned)strtoul(argv[4], NULL, 0);
    k.flush = strtoull(argv[5], NULL, 0);
    if (!k.size || k.size > b->size || !n || n > ARRAY_SIZE(thread))
        die("bad arguments");
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (unsigned i = 0; i < n; i++)
        if (pthread_create(&thread[i], NULL, work, &k))
            die("no thread");
    for (unsigned i = 0; i < n; i++)
        pthread_join(thread[i], NULL);
    if (k.write && b->ops->flush(b))
        die("flush failed");
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%.6f\n",
           (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) * 1e-9);
    return 0;
}
