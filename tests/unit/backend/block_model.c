/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random requests to images of many shapes, compared with a flat copy in memory; then qemu-img's
 * opinion. TRIVISOR_BLOCK_OPS: requests an image (default 240), TRIVISOR_BLOCK_SEED.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/block/block.h"
#include "base/log.h"
#include "test.h"

#define KIB 1024ull
#define MIB (1024 * KIB)

struct shape {
    const char *name;
    const char *options; /* of qemu-img create, behind -o */
    u64 size;
    const char *base; /* NULL, or how it is made: "raw", "qcow2", "zlib", "zstd", "short" */
    bool snapshot;
};

static char dir[64];
static u64 seed = 1;

__attribute__((format(printf, 2, 0))) static void log_line(enum log_level level, const char *fmt,
                                                           va_list ap)
{
    if (level > LOG_WARN)
        return;
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
}

static u64 rnd(u64 below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (seed >> 11) % below;
}

/* The exit status of a command; its output goes nowhere. */
static int sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static int sh(const char *fmt, ...)
{
    char cmd[2048];
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

static struct blockdev *open_image(const char *text)
{
    struct block_spec spec;
    char err[512] = "";
    struct blockdev *b = NULL;

    if (!block_spec_parse(text, &spec, err, sizeof(err)))
        b = block_open(&spec, err, sizeof(err));
    if (!b)
        fail_msg("%s", err);
    return b;
}

/* The pieces of a request: a few, of odd lengths. */
static unsigned pieces(struct host_iov *iov, u8 *buf, u64 len)
{
    unsigned n = 0;

    while (len) {
        u64 part = n == 7 ? len : 1 + rnd(len);

        if (rnd(3) == 0)
            part = len;
        iov[n++] = (struct host_iov){buf, part};
        buf += part;
        len -= part;
    }
    return n;
}

static void save(const char *name, const u8 *data, u64 size)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "wbe");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    fclose(f);
}

static void fill(u8 *p, u64 len)
{
    for (u64 i = 0; i < len; i++)
        p[i] = (u8)(seed >> (i & 31)) ^ (u8)i;
    rnd(2);
}

/* A base image with data, zeroes and holes; model gets what it reads as. */
static void make_base(const struct shape *s, u8 *model)
{
    u64 size = !strcmp(s->base, "short") ? s->size / 2 / 512 * 512 : s->size;

    for (u64 at = 0; at < size; at += 32 * KIB) {
        u64 len = size - at < 32 * KIB ? size - at : 32 * KIB;

        if (rnd(3))
            fill(model + at, len);
    }
    save("base.raw", model, size);
    if (!strcmp(s->base, "raw") || !strcmp(s->base, "short"))
        return;
    assert_int_equal(sh("cd %s && qemu-img convert -f raw -O qcow2 %s base.raw base.qcow2", dir,
                        !strcmp(s->base, "zlib")   ? "-c"
                        : !strcmp(s->base, "zstd") ? "-c -o compression_type=zstd"
                                                   : ""),
                     0);
}

static void make_image(const struct shape *s, u8 *model)
{
    bool raw_base = s->base && (!strcmp(s->base, "raw") || !strcmp(s->base, "short"));

    if (s->base)
        make_base(s, model);
    assert_int_equal(sh("cd %s && qemu-img create -f qcow2 -o %s %s disk.qcow2 %llu", dir,
                        s->options,
                        !s->base   ? ""
                        : raw_base ? "-b base.raw -F raw"
                                   : "-b base.qcow2 -F qcow2",
                        (unsigned long long)s->size),
                     0);
}

/* An image with compressed clusters of its own. */
static void make_compressed(const struct shape *s, u8 *model)
{
    struct shape base = *s;

    base.base = "raw";
    make_base(&base, model);
    assert_int_equal(sh("cd %s && qemu-img convert -c -f raw -O qcow2 -o %s base.raw disk.qcow2",
                        dir, s->options),
                     0);
}

struct run {
    struct blockdev *b;
    u8 *model, *buf;
    u64 size;
};

static void compare_part(struct run *r, u64 off, u64 len)
{
    struct host_iov iov[8];
    unsigned n = pieces(iov, r->buf, len);

    memset(r->buf, 0x5a, len);
    assert_int_equal(r->b->ops->readv(r->b, iov, n, off), 0);
    for (u64 i = 0; i < len; i += 512)
        if (memcmp(r->buf + i, r->model + off + i, 512) != 0)
            fail_msg("byte 0x%llx of the disk: %02x, not %02x", (unsigned long long)(off + i),
                     r->buf[i], r->model[off + i]);
}

static void one_request(struct run *r)
{
    u64 max = rnd(4) ? 64 * KIB : r->size / 2, off, len;
    struct host_iov iov[8];
    unsigned n;

    off = rnd(r->size / 512) * 512;
    len = (1 + rnd(max / 512)) * 512;
    if (rnd(4) == 0)
        off = off / 65536 * 65536;
    if (len > r->size - off)
        len = r->size - off;
    switch (rnd(12)) {
    case 0 ... 4:
        fill(r->buf, len);
        memcpy(r->model + off, r->buf, len);
        n = pieces(iov, r->buf, len);
        assert_int_equal(r->b->ops->writev(r->b, iov, n, off), 0);
        break;
    case 5 ... 6:
        compare_part(r, off, len);
        break;
    case 7:
    case 8:
        memset(r->model + off, 0, len);
        assert_int_equal(r->b->ops->write_zeroes(r->b, off, len, rnd(2)), 0);
        compare_part(r, off, len);
        break;
    case 9:
    case 10:
        /* Each sector reads as zeroes or as before. */
        assert_int_equal(r->b->ops->discard(r->b, off, len), 0);
        iov[0] = (struct host_iov){r->buf, len};
        assert_int_equal(r->b->ops->readv(r->b, iov, 1, off), 0);
        for (u64 i = 0; i < len; i += 512) {
            static const u8 zero[512];

            if (memcmp(r->buf + i, r->model + off + i, 512) != 0)
                assert_memory_equal(r->buf + i, zero, 512);
        }
        memcpy(r->model + off, r->buf, len);
        break;
    default:
        assert_int_equal(r->b->ops->flush(r->b), 0);
        break;
    }
}

static void judge(struct run *r)
{
    save("model.raw", r->model, r->size);
    assert_int_equal(sh("cd %s && qemu-img check -f qcow2 disk.qcow2", dir), 0);
    assert_int_equal(sh("cd %s && qemu-img compare -f qcow2 -F raw disk.qcow2 model.raw", dir), 0);
}

static void run_shape(const struct shape *s)
{
    const char *ops = getenv("TRIVISOR_BLOCK_OPS");
    unsigned count = ops ? (unsigned)atoi(ops) : 240;
    struct run r = {.size = s->size};
    char text[128];

    if (sh("qemu-img --version"))
        skip();
    r.model = calloc(1, s->size);
    r.buf = malloc(s->size);
    if (s->base && !strcmp(s->base, "self"))
        make_compressed(s, r.model);
    else
        make_image(s, r.model);
    snprintf(text, sizeof(text), "%s/disk.qcow2", dir);
    r.b = open_image(text);
    assert_int_equal(r.b->size, s->size);
    compare_part(&r, 0, s->size);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < count / 2; i++)
            one_request(&r);
        compare_part(&r, 0, s->size);
        r.b->ops->close(r.b);
        judge(&r);
        if (s->snapshot && round < 1) {
            char name[32];

            snprintf(name, sizeof(name), "snap%u.raw", round);
            save(name, r.model, s->size);
            assert_int_equal(sh("cd %s && qemu-img snapshot -c s%u disk.qcow2", dir, round), 0);
        }
        r.b = open_image(text);
        compare_part(&r, 0, s->size);
    }
    r.b->ops->close(r.b);
    for (unsigned round = 0; s->snapshot && round < 1; round++) {
        assert_int_equal(sh("cd %s && qemu-img convert -l s%u -O raw disk.qcow2 s.raw && cmp s.raw "
                            "snap%u.raw",
                            dir, round, round),
                         0);
    }
    free(r.model);
    free(r.buf);
    assert_int_equal(sh("rm -f %s/*", dir), 0);
}

static const struct shape shapes[] = {
    {"plain", "cluster_size=64k", 4 * MIB, NULL, false},
    {"version-2", "compat=0.10", 4 * MIB, NULL, false},
    {"version-2-backing", "compat=0.10", 4 * MIB, "raw", false},
    {"clusters-512", "cluster_size=512", 2 * MIB, NULL, false},
    {"clusters-512-refcount-64", "cluster_size=512,refcount_bits=64", 3 * MIB, "raw", false},
    {"clusters-512-refcount-1", "cluster_size=512,refcount_bits=1", 2 * MIB, NULL, false},
    {"clusters-4k-refcount-2", "cluster_size=4k,refcount_bits=2", 4 * MIB, "qcow2", true},
    {"clusters-2m", "cluster_size=2M", 16 * MIB, NULL, false},
    {"clusters-2m-backing", "cluster_size=2M,refcount_bits=32", 8 * MIB + 512, "qcow2", true},
    {"refcount-4", "refcount_bits=4", 4 * MIB, "qcow2", true},
    {"refcount-8", "cluster_size=1k,refcount_bits=8", 2 * MIB, "qcow2", true},
    {"odd-size", "cluster_size=64k", 3 * MIB + 5 * 512, "raw", false},
    {"short-base", "cluster_size=64k", 4 * MIB + 512, "short", false},
    {"zlib-base", "cluster_size=64k", 4 * MIB, "zlib", false},
    {"zstd-base", "cluster_size=16k", 4 * MIB, "zstd", false},
    {"compressed", "cluster_size=64k", 4 * MIB, "self", true},
    {"compressed-zstd", "cluster_size=8k,compression_type=zstd", 4 * MIB, "self", true},
    {"compressed-512", "cluster_size=512", 1 * MIB, "self", true},
    {"compressed-2m", "cluster_size=2M", 8 * MIB, "self", false},
    {"preallocated", "cluster_size=32k,preallocation=metadata", 4 * MIB, NULL, true},
    {"lazy", "lazy_refcounts=on", 4 * MIB, NULL, true},
    {"extended", "extended_l2=on,cluster_size=64k", 4 * MIB, NULL, false},
    {"extended-backing", "extended_l2=on,cluster_size=128k", 4 * MIB + 512, "qcow2", true},
    {"extended-16k", "extended_l2=on,cluster_size=16k", 2 * MIB, "short", true},
    {"extended-compressed", "extended_l2=on,cluster_size=64k", 4 * MIB, "self", true},
};

static void block_model__agrees(void **state)
{
    run_shape(*state);
}

int main(int argc, char **argv)
{
    struct CMUnitTest tests[ARRAY_SIZE(shapes)];
    size_t n = 0;
    int r;

    if (getenv("TRIVISOR_BLOCK_SEED"))
        seed = strtoull(getenv("TRIVISOR_BLOCK_SEED"), NULL, 0) | 1;
    log_set_sink(log_line);
    /* In memory, where a sync costs nothing. */
    snprintf(dir, sizeof(dir), "%s/trivisor-block-model-XXXXXX",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(dir))
        return 1;
    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
        if (argc < 2 || !strcmp(argv[1], shapes[i].name))
            tests[n++] = (struct CMUnitTest){.name = shapes[i].name,
                                             .test_func = block_model__agrees,
                                             .initial_state = (void *)(uintptr_t)&shapes[i]};
    r = _cmocka_run_group_tests("block_model", tests, n, NULL, NULL);
    if (!r)
        sh("rm -rf %s", dir);
    return r;
}
