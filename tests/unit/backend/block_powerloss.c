/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host crashes: of what was written since the last sync, any part may be on the disk and any
 * not, sector by sector. The linker gives this program the system calls of the back end
 * (--wrap); from their record images are made as a crash may leave them. qemu-img check must find
 * nothing but leaks in them, and what was flushed must be there.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../blockio/pattern.h"
#include "backend/block/block.h"
#include "base/log.h"
#include "test.h"

#define FILE_MAX ((size_t)64 << 20)
#define RECORDS_MAX 200000

ssize_t __real_pwritev64(int fd, const struct iovec *iov, int n, off_t off);
ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int n, off_t off);
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __real_fallocate64(int fd, int mode, off_t off, off_t len);
int __wrap_fallocate64(int fd, int mode, off_t off, off_t len);

/* --- the record
 * -----------------------------------------------------------------------------------
 */

struct record {
    u64 off, len;
    u8 *data; /* NULL: zeroes */
};

static struct {
    ino_t ino; /* of the image watched; 0: none */
    u8 *stable;
    u64 stable_size;
    struct record *r;
    unsigned n;
    unsigned countdown; /* calls until the crash; 0: none planned */
    bool syncs_only;    /* only syncs count: it comes when most is at stake */
} disk;

static u64 seed = 7;
static char dir[64];
static unsigned crashes;

static void crash(void);

static u64 rnd(u64 below)
{
    seed = mix64(seed);
    return seed % below;
}

static bool watched(int fd)
{
    struct stat st;

    return disk.ino && !fstat(fd, &st) && st.st_ino == disk.ino;
}

static void tick(bool sync)
{
    if (disk.syncs_only && !sync)
        return;
    if (disk.countdown && --disk.countdown == 0)
        crash();
}

static u8 *record(u64 off, u64 len, bool data)
{
    assert_true(disk.n < RECORDS_MAX && off + len <= FILE_MAX);
    disk.r[disk.n] = (struct record){off, len, data ? malloc(len) : NULL};
    return disk.r[disk.n++].data;
}

ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int n, off_t off)
{
    if (watched(fd)) {
        size_t len = 0;
        u8 *p;

        tick(false);
        for (int i = 0; i < n; i++)
            len += iov[i].iov_len;
        p = record((u64)off, len, true);
        for (int i = 0; i < n; i++) {
            memcpy(p, iov[i].iov_base, iov[i].iov_len);
            p += iov[i].iov_len;
        }
    }
    return __real_pwritev64(fd, iov, n, off);
}

int __wrap_fallocate64(int fd, int mode, off_t off, off_t len)
{
    int r = __real_fallocate64(fd, mode, off, len);

    if (!r && watched(fd)) {
        tick(false);
        record((u64)off, (u64)len, false);
    }
    return r;
}

/* Applies a record, or the sectors of it that luck chooses. */
static void apply(u8 *image, u64 *size, const struct record *r, unsigned percent)
{
    for (u64 at = 0, part; at < r->len; at += part) {
        part = SECTOR - (r->off + at) % SECTOR;
        part = part < r->len - at ? part : r->len - at;
        if (rnd(100) >= percent)
            continue;
        if (r->data) {
            memcpy(image + r->off + at, r->data + at, part);
            if (*size < r->off + at + part)
                *size = r->off + at + part;
        } else {
            memset(image + r->off + at, 0, part);
        }
    }
}

int __wrap_fdatasync(int fd)
{
    if (watched(fd)) {
        tick(true);
        for (unsigned i = 0; i < disk.n; i++) {
            apply(disk.stable, &disk.stable_size, &disk.r[i], 100);
            free(disk.r[i].data);
        }
        disk.n = 0;
        return 0; /* the real one would only cost time */
    }
    return 0;
}

/* --- the workload
 * ---------------------------------------------------------------------------------
 */

struct shape {
    const char *name, *options, *base;
    u64 size;
    bool snapshot;
};

static struct {
    u64 sectors;
    u64 *flushed;  /* tag of every sector at the last flush */
    bool *or_zero; /* or it may be zero */
    u64 *now;
    bool *now_or_zero;
    struct {
        u64 sector, tag;
    } * later; /* what was written since then */
    unsigned nlater;
} model;

static int sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static int sh(const char *fmt, ...)
{
    char cmd[1024];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(cmd, sizeof(cmd), fmt, ap);
    va_end(ap);
    assert_true(n > 0 && n < (int)sizeof(cmd) - 32);
    if (!getenv("TRIVISOR_BLOCK_VERBOSE"))
        strcat(cmd, " >/dev/null 2>&1");
    n = system(cmd);
    return WIFEXITED(n) ? WEXITSTATUS(n) : 255;
}

static struct blockdev *open_image(const char *name, const char *options)
{
    struct block_spec spec;
    struct blockdev *b;
    char err[512] = "", text[256];

    snprintf(text, sizeof(text), "%s/%s,format=qcow2%s", dir, name, options);
    assert_int_equal(block_spec_parse(text, &spec, err, sizeof(err)), 0);
    b = block_open(&spec, err, sizeof(err));
    if (!b)
        fail_msg("%s", err);
    return b;
}

static void check_data(void)
{
    struct blockdev *b = open_image("crash.qcow2", ",ro");
    u64 *buf = malloc(model.sectors * SECTOR);
    struct host_iov v = {buf, model.sectors * SECTOR};

    assert_int_equal(b->ops->readv(b, &v, 1, 0), 0);
    for (u64 s = 0; s < model.sectors; s++) {
        u64 tag = pattern_tag(buf + s * SECTOR_WORDS, s);
        bool good = tag == model.flushed[s] || (!tag && model.or_zero[s]);

        for (unsigned i = 0; i < model.nlater && !good; i++)
            good = model.later[i].sector == s && model.later[i].tag == tag;
        if (!good)
            fail_msg("crash %u: sector %llu: request %lld, not %lld", crashes,
                     (unsigned long long)s, (long long)tag, (long long)model.flushed[s]);
    }
    free(buf);
    b->ops->close(b);
}

/* What the host may find when it is up again. */
static void crash(void)
{
    static const unsigned luck[] = {0, 10, 50, 90, 100};
    u8 *image = malloc(FILE_MAX);
    u64 size = disk.stable_size;
    unsigned percent = luck[rnd(ARRAY_SIZE(luck))];
    ino_t ino = disk.ino;
    char path[128];
    int fd, status;

    memcpy(image, disk.stable, FILE_MAX);
    for (unsigned i = 0; i < disk.n; i++)
        apply(image, &size, &disk.r[i], rnd(3) ? percent : rnd(2) ? 0 : 100);
    snprintf(path, sizeof(path), "%s/crash.qcow2", dir);
    fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, image, size), size);
    close(fd);
    free(image);
    crashes++;
    status = sh("qemu-img check -f qcow2 %s", path);
    if (status != 0 && status != 3)
        fail_msg("crash %u: qemu-img check: %d", crashes, status);
    disk.ino = 0;
    check_data();
    disk.ino = ino;
}

static void note(u64 sector, u64 n, u64 tag)
{
    for (u64 s = sector; s < sector + n; s++) {
        model.later = realloc(model.later, (model.nlater + 1) * sizeof(*model.later));
        model.later[model.nlater].sector = s;
        model.later[model.nlater++].tag = tag;
        model.now[s] = tag;
        model.now_or_zero[s] = false;
    }
}

/* All of it is on the disk. */
static void settled(void)
{
    memcpy(model.flushed, model.now, model.sectors * 8);
    memcpy(model.or_zero, model.now_or_zero, model.sectors);
    model.nlater = 0;
}

static void one_request(struct blockdev *b, u64 *buf, u64 i)
{
    u64 n = 1 + rnd(rnd(4) ? 32 : 600), first = rnd(model.sectors - n);
    struct host_iov v = {buf, n * SECTOR};

    if (rnd(3) == 0)
        first &= ~(u64)127;
    switch (rnd(16)) {
    case 0 ... 9:
        note(first, n, i);
        for (u64 s = 0; s < n; s++)
            pattern_fill(buf + s * SECTOR_WORDS, first + s, i);
        assert_int_equal(b->ops->writev(b, &v, 1, first * SECTOR), 0);
        break;
    case 10:
    case 11:
        note(first, n, 0);
        assert_int_equal(b->ops->write_zeroes(b, first * SECTOR, n * SECTOR, rnd(2)), 0);
        break;
    case 12:
    case 13:
        note(first, n, 0);
        assert_int_equal(b->ops->discard(b, first * SECTOR, n * SECTOR), 0);
        assert_int_equal(b->ops->readv(b, &v, 1, first * SECTOR), 0);
        for (u64 s = 0; s < n; s++) {
            /* Zeroes are not promised to stay: it may be what it was. */
            model.now[first + s] = pattern_tag(buf + s * SECTOR_WORDS, first + s);
            model.now_or_zero[first + s] = true;
        }
        break;
    default:
        assert_int_equal(b->ops->flush(b), 0);
        settled();
        break;
    }
}

static void load_stable(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY);

    assert_true(fd >= 0 && !fstat(fd, &st) && (u64)st.st_size < FILE_MAX);
    memset(disk.stable, 0, FILE_MAX);
    assert_int_equal(read(fd, disk.stable, FILE_MAX), st.st_size);
    disk.stable_size = (u64)st.st_size;
    disk.ino = st.st_ino;
    disk.n = 0;
    close(fd);
}

static void make_image(const struct shape *s)
{
    if (s->base) {
        u64 buf[SECTOR_WORDS];
        char path[128];
        FILE *f;

        snprintf(path, sizeof(path), "%s/base.raw", dir);
        f = fopen(path, "wbe");
        assert_non_null(f);
        for (u64 i = 0; i < model.sectors; i++) {
            model.flushed[i] = i / 128 % 2;
            memset(buf, 0, sizeof(buf));
            if (model.flushed[i])
                pattern_fill(buf, i, 1);
            fwrite(buf, 1, SECTOR, f);
        }
        fclose(f);
        memcpy(model.now, model.flushed, model.sectors * 8);
    }
    assert_int_equal(sh("cd %s && qemu-img create -f qcow2 -o %s %s disk.qcow2 %llu", dir,
                        s->options, s->base ? "-b base.raw -F raw" : "",
                        (unsigned long long)s->size),
                     0);
}

static void block_powerloss__keeps_what_was_flushed(void **state)
{
    const struct shape *s = *state;
    const char *many = getenv("TRIVISOR_BLOCK_CRASHES");
    unsigned wanted = many ? (unsigned)atoi(many) : 5;
    struct blockdev *b;
    char path[128];
    u64 *buf;

    if (sh("qemu-img --version"))
        skip();
    model.sectors = s->size / SECTOR;
    model.flushed = calloc(model.sectors, 8);
    model.now = calloc(model.sectors, 8);
    model.or_zero = calloc(model.sectors, 1);
    model.now_or_zero = calloc(model.sectors, 1);
    model.later = NULL;
    model.nlater = 0;
    buf = malloc(s->size);
    make_image(s);
    crashes = 0;
    snprintf(path, sizeof(path), "%s/disk.qcow2", dir);
    for (u64 i = 2, round = 0; crashes < wanted; round++) {
        load_stable(path);
        b = open_image("disk.qcow2", "");
        for (unsigned k = 0; k < (s->snapshot ? 80 : 400) && crashes < wanted; k++) {
            if (!disk.countdown) {
                disk.syncs_only = rnd(2);
                disk.countdown = 1 + (unsigned)rnd(disk.syncs_only ? 12 : rnd(3) ? 60 : 400);
            }
            one_request(b, buf, i++);
        }
        disk.countdown = 0;
        b->ops->close(b);
        settled();
        disk.ino = 0;
        if (s->snapshot && round < 12)
            assert_int_equal(sh("qemu-img snapshot -c s%u %s", (unsigned)round, path), 0);
    }
    for (unsigned i = 0; i < disk.n; i++)
        free(disk.r[i].data);
    disk.n = 0;
    free(buf);
    free(model.flushed);
    free(model.now);
    free(model.or_zero);
    free(model.now_or_zero);
    free(model.later);
    sh("rm -f %s/*", dir);
}

static const struct shape shapes[] = {
    {"plain", "cluster_size=64k", NULL, 8 << 20, false},
    {"backing", "cluster_size=16k", "raw", 4 << 20, false},
    {"snapshots", "cluster_size=1k", "raw", 4 << 20, true},
    {"growing-refcount-table", "cluster_size=512,refcount_bits=64", NULL, 6 << 20, false},
    {"extended", "extended_l2=on,cluster_size=32k", "raw", 4 << 20, true},
};

int main(int argc, char **argv)
{
    struct CMUnitTest tests[ARRAY_SIZE(shapes)];
    size_t n = 0;
    int r;

    if (getenv("TRIVISOR_BLOCK_SEED"))
        seed = strtoull(getenv("TRIVISOR_BLOCK_SEED"), NULL, 0);
    disk.stable = malloc(FILE_MAX);
    disk.r = calloc(RECORDS_MAX, sizeof(*disk.r));
    snprintf(dir, sizeof(dir), "%s/trivisor-powerloss-XXXXXX",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!disk.stable || !disk.r || !mkdtemp(dir))
        return 1;
    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
        if (argc < 2 || !strcmp(argv[1], shapes[i].name))
            tests[n++] = (struct CMUnitTest){.name = shapes[i].name,
                                             .test_func = block_powerloss__keeps_what_was_flushed,
                                             .initial_state = (void *)(uintptr_t)&shapes[i]};
    r = _cmocka_run_group_tests("block_powerloss", tests, n, NULL, NULL);
    free(disk.stable);
    free(disk.r);
    if (!r)
        sh("rm -rf %s", dir);
    return r;
}
