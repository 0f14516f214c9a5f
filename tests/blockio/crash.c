/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A workload that can be checked after the process was killed. Request i of thread t is a function
 * of the seed; every sector written names the request. The first half of the disk is shared by the
 * threads in stripes smaller than a cluster, the second half is a zone for each.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blockio.h"
#include "pattern.h"

#define STRIPE 8 /* sectors */
#define ZONE_REQUEST_MAX 512
#define THREADS_MAX 8

enum kind { WRITE, ZERO, UNMAP, DISCARD, FLUSH };

struct request {
    enum kind kind;
    u64 first, n; /* sectors */
};

struct workload {
    struct blockdev *b;
    u64 seed, first, sectors;
    unsigned threads;
};

struct worker {
    const struct workload *w;
    unsigned t;
};

static struct request request_of(const struct workload *w, unsigned t, u64 i)
{
    u64 h = mix64(w->seed ^ mix64((u64)t << 56 ^ i)), h2 = mix64(h), h3 = mix64(h2);
    u64 half = w->sectors / 2, zone = (w->sectors - half) / w->threads, len;
    struct request r = {.kind = FLUSH};
    unsigned dice = (unsigned)(h % 32);

    if (dice < 4)
        return r;
    if (dice < 22) {
        u64 stripes = half / STRIPE / w->threads, in = h3 % STRIPE;

        r.kind = WRITE;
        r.first = (h2 % stripes * w->threads + t) * STRIPE + in;
        r.n = 1 + (h3 >> 32) % (STRIPE - in);
        return r;
    }
    r.kind = dice < 28 ? WRITE : dice == 28 ? ZERO : dice == 29 ? UNMAP : DISCARD;
    len = 1 + (h3 >> 8) % ZONE_REQUEST_MAX;
    r.first = h2 % (zone - len);
    if (h3 & 1)
        r.first &= ~(u64)127; /* whole clusters now and then */
    r.first += half + t * zone;
    r.n = len;
    return r;
}

static unsigned owner(const struct workload *w, u64 sector)
{
    u64 half = w->sectors / 2;

    if (sector < half)
        return (unsigned)(sector / STRIPE % w->threads);
    return (unsigned)((sector - half) / ((w->sectors - half) / w->threads));
}

static void *work(void *opaque)
{
    const struct worker *me = opaque;
    struct blockdev *b = me->w->b;
    u64 *buf = malloc(ZONE_REQUEST_MAX * SECTOR);

    for (u64 i = me->w->first;; i++) {
        struct request q = request_of(me->w, me->t, i);
        struct host_iov v = {buf, q.n * SECTOR};
        int r, n;
        char line[64];

        switch (q.kind) {
        case WRITE:
            for (u64 k = 0; k < q.n; k++)
                pattern_fill(buf + k * SECTOR_WORDS, q.first + k, i);
            r = b->ops->writev(b, &v, 1, q.first * SECTOR);
            break;
        case ZERO:
        case UNMAP:
            r = b->ops->write_zeroes(b, q.first * SECTOR, q.n * SECTOR, q.kind == UNMAP);
            break;
        case DISCARD:
            r = b->ops->discard(b, q.first * SECTOR, q.n * SECTOR);
            break;
        default:
            r = b->ops->flush(b);
            break;
        }
        if (r)
            die("request %llu of thread %u: %s", (unsigned long long)i, me->t, strerror(-r));
        if (q.kind != FLUSH)
            continue;
        n = snprintf(line, sizeof(line), "%u %llu\n", me->t, (unsigned long long)i);
        if (write(STDOUT_FILENO, line, (size_t)n) != n)
            exit(1);
    }
    return NULL;
}

static void setup(struct workload *w, struct blockdev *b, char **argv)
{
    *w = (struct workload){.b = b, .sectors = b->size / SECTOR};
    w->seed = strtoull(argv[0], NULL, 0);
    w->first = strtoull(argv[1], NULL, 0);
    w->threads = (unsigned)strtoul(argv[2], NULL, 0);
    if (!w->first || !w->threads || w->threads > THREADS_MAX ||
        w->sectors / 2 / w->threads < 2 * ZONE_REQUEST_MAX)
        die("bad arguments");
}

int cmd_crash_write(struct blockdev *b, int argc, char **argv)
{
    struct worker worker[THREADS_MAX];
    struct workload w;
    pthread_t id;

    (void)argc;
    setup(&w, b, argv);
    for (unsigned t = 0; t < w.threads; t++) {
        worker[t] = (struct worker){&w, t};
        if (t && pthread_create(&id, NULL, work, &worker[t]))
            die("no thread");
    }
    work(&worker[0]);
    return 0;
}

/* --- afterwards
 * -----------------------------------------------------------------------------------
 */

struct expected {
    u64 tag;
    bool or_zero;
};

static void load_state(struct expected *e, u64 sectors, const char *path)
{
    FILE *f = fopen(path, "rbe");

    for (u64 s = 0; f && s < sectors; s++)
        if (fread(&e[s].tag, 8, 1, f) != 1)
            die("%s is too short", path);
    if (f)
        fclose(f);
}

/* What the requests of thread t up to the acknowledged one left. */
static void replay(const struct workload *w, unsigned t, u64 acknowledged, struct expected *e)
{
    for (u64 i = w->first; i <= acknowledged; i++) {
        struct request q = request_of(w, t, i);

        for (u64 s = q.first; q.kind != FLUSH && s < q.first + q.n; s++) {
            if (q.kind == DISCARD)
                e[s].or_zero = true;
            else
                e[s] = (struct expected){q.kind == WRITE ? i : 0, false};
        }
    }
}

/* Whether a request in (acknowledged, last] can have left tag in the sector. */
static bool later(const struct workload *w, unsigned t, u64 acknowledged, u64 last, u64 sector,
                  u64 tag)
{
    for (u64 i = tag ? tag : acknowledged + 1; i > acknowledged && i <= (tag ? tag : last); i++) {
        struct request q = request_of(w, t, i);

        if (i <= last && q.kind != FLUSH && (q.kind == WRITE) == (tag != 0) && sector >= q.first &&
            sector < q.first + q.n)
            return true;
    }
    return false;
}

/* Whether a request in (acknowledged, last] can have been at the sector when the process was
 * killed. The kernel may stop copying anywhere in it then. */
static bool in_flight(const struct workload *w, unsigned t, u64 acknowledged, u64 last, u64 sector)
{
    for (u64 i = acknowledged + 1; i <= last; i++) {
        struct request q = request_of(w, t, i);

        if (q.kind != FLUSH && sector >= q.first && sector < q.first + q.n)
            return true;
    }
    return false;
}

int cmd_crash_check(struct blockdev *b, int argc, char **argv)
{
    u64 acknowledged[THREADS_MAX], last[THREADS_MAX], next = 0, buf[SECTOR_WORDS];
    bool torn[THREADS_MAX] = {false};
    struct expected *e;
    struct workload w;
    FILE *out;

    setup(&w, b, argv);
    e = calloc(w.sectors, sizeof(*e));
    load_state(e, w.sectors, argv[3]);
    for (unsigned t = 0; t < w.threads; t++) {
        acknowledged[t] = argc > 4 + (int)t ? strtoull(argv[4 + t], NULL, 0) : 0;
        if (acknowledged[t] < w.first)
            acknowledged[t] = w.first - 1;
        replay(&w, t, acknowledged[t], e);
        /* It stopped at the next flush at the latest: the one it did not acknowledge. */
        last[t] = acknowledged[t] + 1;
        while (request_of(&w, t, last[t]).kind != FLUSH)
            last[t]++;
        if (next <= last[t])
            next = last[t] + 1;
    }
    out = fopen(argv[3], "wbe");
    if (!out)
        die("cannot write %s", argv[3]);
    for (u64 s = 0; s < w.sectors; s++) {
        struct host_iov v = {buf, SECTOR};
        unsigned t = owner(&w, s);
        u64 tag;
        int r = b->ops->readv(b, &v, 1, s * SECTOR);

        if (r)
            die("sector %llu: %s", (unsigned long long)s, strerror(-r));
        tag = pattern_tag(buf, s);
        if (tag == PATTERN_NONE && e[s].tag != PATTERN_NONE) {
            /* A thread was at one sector. */
            if (t >= w.threads || torn[t] || !in_flight(&w, t, acknowledged[t], last[t], s))
                die("sector %llu holds what nobody wrote there (%016llx %016llx %016llx)",
                    (unsigned long long)s, (unsigned long long)buf[0], (unsigned long long)buf[1],
                    (unsigned long long)buf[2]);
            torn[t] = true;
        } else if (tag != e[s].tag && !(e[s].or_zero && !tag) &&
                   (t >= w.threads || !later(&w, t, acknowledged[t], last[t], s, tag)))
            die("sector %llu: request %llu, not %llu (acknowledged: %llu)", (unsigned long long)s,
                (unsigned long long)tag, (unsigned long long)e[s].tag,
                t < w.threads ? (unsigned long long)acknowledged[t] : 0);
        fwrite(&tag, 8, 1, out);
    }
    fclose(out);
    free(e);
    printf("%llu\n", (unsigned long long)next);
    return 0;
}

int cmd_fill(struct blockdev *b, int argc, char **argv)
{
    u64 tag = strtoull(argv[0], NULL, 0), buf[SECTOR_WORDS];

    (void)argc;
    for (u64 s = 0; s < b->size / SECTOR; s++) {
        struct host_iov v = {buf, SECTOR};

        if (s / 128 % 2)
            continue;
        pattern_fill(buf, s, tag);
        if (b->ops->writev(b, &v, 1, s * SECTOR))
            die("cannot write");
    }
    return 0;
}
