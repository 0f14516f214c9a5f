/* SPDX-License-Identifier: Apache-2.0 */
/* Damaged and malicious images: refused in one line or I/O errors; never more. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/block/block.h"
#include "backend/block/qcow2_format.h"
#include "base/log.h"
#include "qcow2_image.h"
#include "test.h"

static const struct qcow2_shape plain = {.version = 3, .cluster_bits = 9, .refcount_order = 4};

static u8 image[QCOW2_IMAGE_MAX];
static unsigned lines;    /* logged */
static int image_fd = -1; /* the file opened last */

__attribute__((format(printf, 2, 0))) static void count_line(enum log_level level, const char *fmt,
                                                             va_list ap)
{
    char text[512];

    vsnprintf(text, sizeof(text), fmt, ap);
    assert_null(strchr(text, '\n'));
    lines += level <= LOG_WARN;
}

/* Opens the first n bytes of image; err: why not. */
static struct blockdev *open_bytes(size_t n, const char *options, char *err)
{
    struct block_spec spec;
    struct blockdev *b;
    char text[128];

    if (image_fd >= 0)
        close(image_fd);
    image_fd = memfd_create("image", 0);
    assert_true(image_fd >= 0);
    assert_int_equal(write(image_fd, image, n), n);
    snprintf(text, sizeof(text), "/proc/self/fd/%d,format=qcow2%s", image_fd, options);
    assert_int_equal(block_spec_parse(text, &spec, err, 512), 0);
    err[0] = 0;
    b = block_open(&spec, err, 512);
    assert_int_equal(!b, err[0] != 0);
    assert_null(strchr(err, '\n'));
    return b;
}

/* Everything a guest can do, wherever it leads. */
static void use(struct blockdev *b)
{
    static u8 buf[4096];
    u64 size = b->size < 65536 ? b->size : 65536;

    for (u64 off = 0; off < size; off += sizeof(buf)) {
        struct host_iov v = {buf, size - off < sizeof(buf) ? size - off : sizeof(buf)};

        b->ops->readv(b, &v, 1, off);
        if (!b->readonly) {
            v.len = 512;
            b->ops->writev(b, &v, 1, off);
            b->ops->write_zeroes(b, off + 512, 1024 < size - off ? 512 : 0, off & 4096);
        }
    }
    if (b->readonly)
        return;
    b->ops->flush(b);
    b->ops->discard(b, 0, b->size);
    b->ops->write_zeroes(b, 0, size, true);
    b->ops->flush(b);
}

static void use_bytes(size_t n, const char *options)
{
    char err[512];
    struct blockdev *b = open_bytes(n, options, err);

    lines = 0;
    if (!b)
        return;
    use(b);
    b->ops->close(b);
    assert_true(lines <= 2); /* the image's fault, the file's fault */
}

static void qcow2__good_image_is_good(void **state)
{
    char err[512];
    struct blockdev *b;
    u8 buf[512];
    struct host_iov v = {buf, sizeof(buf)};

    (void)state;
    for (unsigned order = 0; order <= 6; order++)
        for (unsigned k = 0; k < 4; k++) {
            struct qcow2_shape s = {.version = 3, .cluster_bits = 9 + k, .refcount_order = order};

            s.zstd = k & 1;
            s.snapshot = order && k & 2;
            b = open_bytes(make_qcow2(image, &s), "", err);
            if (!b)
                fail_msg("%s", err);
            lines = 0;
            assert_int_equal(b->ops->readv(b, &v, 1, 0), 0);
            assert_int_equal(buf[511], 'A');
            assert_int_equal(b->ops->readv(b, &v, 1, BIT64(s.cluster_bits)), 0);
            assert_int_equal(buf[0], 0);
            assert_int_equal(b->ops->readv(b, &v, 1, BIT64(s.cluster_bits) * 3), 0);
            assert_int_equal(buf[100], 'C');
            use(b);
            assert_int_equal(b->ops->flush(b), 0);
            assert_int_equal(lines, 0);
            b->ops->close(b);
        }
}

static void qcow2__refuses(void **state)
{
    static const struct {
        u64 at, value;
        unsigned bytes;
        const char *says;
    } bad[] = {
        {QH_MAGIC, 0, 4, "no qcow2"},
        {QH_VERSION, 1, 4, "version 1"},
        {QH_VERSION, 4, 4, "version 4"},
        {QH_CLUSTER_BITS, 8, 4, "2^8"},
        {QH_CLUSTER_BITS, 22, 4, "2^22"},
        {QH_CLUSTER_BITS, 0xffffffff, 4, "clusters"},
        {QH_SIZE, 32768 + 1, 8, "sectors"},
        {QH_SIZE, 32768 + 512, 8, "L1 table"},
        {QH_SIZE, ~(u64)511, 8, "sectors"},
        {QH_CRYPT, 1, 4, "encrypted"},
        {QH_CRYPT, 2, 4, "encrypted"},
        {QH_L1_SIZE, 0, 4, "L1 table"},
        {QH_L1_SIZE, 0xffffffff, 4, "L1 table"},
        {QH_L1_SIZE, 4000000, 4, "L1 table"},
        {QH_L1_OFFSET, 0, 8, "L1 table"},
        {QH_L1_OFFSET, 513, 8, "L1 table"},
        {QH_L1_OFFSET, BIT64(63), 8, "L1 table"},
        {QH_L1_OFFSET, ~(u64)511, 8, "L1 table"},
        {QH_L1_OFFSET, 512, 8, "overlaps"},
        {QH_REFTABLE_OFFSET, 0, 8, "refcount table"},
        {QH_REFTABLE_OFFSET, 2048, 8, "overlaps"},
        {QH_REFTABLE_CLUSTERS, 0, 4, "refcount table"},
        {QH_REFTABLE_CLUSTERS, 0xffffffff, 4, "refcount table"},
        {QH_REFTABLE_CLUSTERS, 16384, 4, "refcount table"},
        {QH_NSNAPSHOTS, 70000, 4, "snapshots"},
        {QH_NSNAPSHOTS, 1, 4, "snapshots"},
        {QH_INCOMPATIBLE, 2, 8, "corrupt"},
        {QH_INCOMPATIBLE, 3, 8, "corrupt"},
        {QH_INCOMPATIBLE, 4, 8, "external data"},
        {QH_INCOMPATIBLE, 8, 8, "compression type"},
        {QH_INCOMPATIBLE, 16, 8, "extended L2"},
        {QH_INCOMPATIBLE, 32, 8, "0x20"},
        {QH_REFCOUNT_ORDER, 7, 4, "refcounts"},
        {QH_HEADER_LENGTH, 72, 4, "header"},
        {QH_HEADER_LENGTH, 0xfffffff8, 4, "header"},
        {QH_COMPRESSION, 1, 1, "compression type"},
        {112, 0x1234567800001000, 8, "header extension"},
        {512, 1, 8, "refcount table"},
        {512, 0x8000, 8, "refcount table"},
        {512, 2048, 8, "overlaps"},
        {1536, 1, 8, "L1 table"},
        {1536, 0x8000, 8, "L1 table"},
        {1536, QE_COPIED, 8, "L1 table"},
        {1536, QE_COPIED | 0x200, 8, "overlaps"},
        {1536, QE_COPIED | 0, 8, "L1 table"},
    };
    char err[512];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        size_t n = make_qcow2(image, &plain);
        struct blockdev *b;

        for (unsigned k = 0; k < bad[i].bytes; k++)
            image[bad[i].at + k] = (u8)(bad[i].value >> (8 * (bad[i].bytes - 1 - k)));
        b = open_bytes(n, "", err);
        if (b)
            fail_msg("%zu: not refused (%s)", i, bad[i].says);
        if (!strstr(err, bad[i].says))
            fail_msg("%zu: %s", i, err);
        /* What is only unsafe to write may be readable. */
        use_bytes(n, ",ro");
    }
}

/* Entries of the L2 table that would let the guest at the image's own tables, or out of the file.
 */
static void qcow2__guest_stays_in_its_clusters(void **state)
{
    static const u64 bad[] = {
        QE_COPIED | 512,
        QE_COPIED | 1024,
        QE_COPIED | 1536,
        QE_COPIED | 2048,
        2048,
        QE_COPIED,
        QE_COPIED | 0x100000,
        QE_COPIED | BIT64(55),
        BIT64(56) | 2560,
        QE_COPIED | 2560 | 2,
        QE_COPIED | QL2_COMPRESSED | 3072,
        QL2_COMPRESSED | 512,
        QL2_COMPRESSED | 0x100000,
        QL2_COMPRESSED,
        QL2_COMPRESSED | 2559,
    };
    u8 buf[512], before[512 * 5];
    struct host_iov v = {buf, sizeof(buf)};
    char err[512];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        size_t n = make_qcow2(image, &plain);
        struct blockdev *b;

        put_be64(image + 2048, bad[i]);
        memcpy(before, image, sizeof(before));
        b = open_bytes(n, "", err);
        assert_non_null(b);
        lines = 0;
        memset(buf, 0xee, sizeof(buf));
        if (b->ops->writev(b, &v, 1, 0) != -EIO || b->ops->readv(b, &v, 1, 0) != -EIO ||
            b->ops->write_zeroes(b, 0, 512, true) != -EIO || b->ops->discard(b, 0, 512) != -EIO)
            fail_msg("%zu: entry 0x%llx was used", i, (unsigned long long)bad[i]);
        assert_int_equal(lines, 1);
        b->ops->close(b);
    }
}

/* Refcounts that call the image's own tables free. */
static void qcow2__free_metadata_is_not_allocated(void **state)
{
    u8 buf[512];
    struct host_iov v = {buf, sizeof(buf)};
    char err[512];

    (void)state;
    for (unsigned c = 0; c <= 4; c++) {
        size_t n = make_qcow2(image, &plain);
        struct blockdev *b;

        image[1024 + 2 * c + 1] = 0;
        b = open_bytes(n, "", err);
        assert_non_null(b);
        lines = 0;
        assert_int_equal(b->ops->writev(b, &v, 1, 512 * 20), -EIO);
        assert_int_equal(lines, 1);
        /* Reading goes on, writing does not. */
        assert_int_equal(b->ops->readv(b, &v, 1, 0), 0);
        assert_int_equal(b->ops->writev(b, &v, 1, 0), -EIO);
        b->ops->close(b);
    }
}

static void qcow2__bad_compressed_data(void **state)
{
    u8 buf[512];
    struct host_iov v = {buf, sizeof(buf)};
    char err[512];

    (void)state;
    for (unsigned zstd = 0; zstd < 2; zstd++) {
        struct qcow2_shape s = plain;
        struct blockdev *b;
        size_t n;

        s.zstd = zstd;
        n = make_qcow2(image, &s);
        memset(image + 3072, 0xff, 512);
        b = open_bytes(n, "", err);
        assert_non_null(b);
        assert_int_equal(b->ops->readv(b, &v, 1, 3 * 512), -EIO);
        assert_int_equal(b->ops->readv(b, &v, 1, 0), 0);
        /* A whole new cluster makes it good again. */
        assert_int_equal(b->ops->writev(b, &v, 1, 3 * 512), 0);
        assert_int_equal(b->ops->readv(b, &v, 1, 3 * 512), 0);
        b->ops->close(b);
    }
}

/* Images whose last user kept the refcounts in memory, and crashed. */
static void qcow2__stale_refcounts_are_rebuilt(void **state)
{
    static u8 before[QCOW2_IMAGE_MAX], after[QCOW2_IMAGE_MAX];
    char err[512];

    (void)state;
    for (unsigned order = 0; order <= 6; order++)
        for (unsigned k = 0; k < 8; k++) {
            struct qcow2_shape s = {.version = 3, .cluster_bits = 9 + k % 3};
            struct blockdev *b;
            size_t n;

            s.refcount_order = order;
            s.snapshot = order && k & 2;
            if (k >= 4 && k % 2) {
                s.extended_l2 = true;
                s.cluster_bits = 14;
            }
            if (s.snapshot && s.extended_l2)
                continue; /* too large */
            n = make_qcow2(image, &s);
            memcpy(before, image, n);
            s.dirty = true;
            assert_int_equal(make_qcow2(image, &s), n);
            put_be64(image + QH_AUTOCLEAR, 1);
            /* Flags that depend on refcounts are wrong as well. */
            if (k % 2)
                image[4 << s.cluster_bits] ^= 0x80;
            if (k & 4)
                image[3 << s.cluster_bits] ^= 0x80;
            /* Readers do not care, and change nothing. */
            b = open_bytes(n, ",ro", err);
            assert_non_null(b);
            b->ops->close(b);
            assert_int_equal(pread(image_fd, after, n, 0), n);
            assert_memory_equal(after, image, n);

            lines = 0;
            b = open_bytes(n, "", err);
            if (!b)
                fail_msg("order %u, %u: %s", order, k, err);
            assert_int_equal(lines, 1);
            assert_int_equal(pread(image_fd, after, n, 0), n);
            assert_memory_equal(after, before, n);
            use(b);
            assert_int_equal(b->ops->flush(b), 0);
            assert_int_equal(lines, 1);
            b->ops->close(b);
        }
}

static void qcow2__stale_refcounts_of_damaged_images(void **state)
{
    static const struct {
        u64 at, value;
        const char *says;
    } bad[] = {
        {512, 0, "does not cover"},
        {2048, QE_COPIED | 0x100000, "an L2 table is damaged"},
        {2048, QE_COPIED | 512, "an L2 table is damaged"},
        {2048, 4096, "an L2 table is damaged"},
        {2048 + 8, QL2_COMPRESSED | 0x100000, "an L2 table is damaged"},
        {4096, 1, "a snapshot's L1 table"},
        {4096, QE_COPIED, "a snapshot's L1 table"},
        {4096, 0x100000, "a snapshot's L1 table"},
        {4096, 1024, "overlaps"},
        {4096, 4096, "overlaps"},
        {4096, 3072, "an L2 table is damaged"}, /* data is one now: the disk's L2 table names it */
    };
    struct qcow2_shape s = plain;
    struct block_spec spec;
    char err[512], text[64];
    u8 after[512];

    (void)state;
    s.snapshot = s.dirty = true;
    lines = 0;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        size_t n = make_qcow2(image, &s);

        put_be64(image + bad[i].at, bad[i].value);
        assert_null(open_bytes(n, "", err));
        if (!strstr(err, bad[i].says) || !strstr(err, "qemu-img check -r all"))
            fail_msg("%zu: %s", i, err);
        /* Still marked. */
        assert_int_equal(pread(image_fd, after, sizeof(after), 0), sizeof(after));
        assert_memory_equal(after, image, sizeof(after));
    }
    s.refcount_order = 0;
    assert_null(open_bytes(make_qcow2(image, &s), "", err));
    assert_non_null(strstr(err, "more references"));
    s.refcount_order = 4;
    assert_null(open_bytes(make_qcow2(image, &s) - 512, "", err));

    assert_int_equal(ftruncate(image_fd, (off_t)BIT64(45)), 0);
    assert_int_equal(pwrite(image_fd, image, 9 * 512, 0), 9 * 512);
    snprintf(text, sizeof(text), "/proc/self/fd/%d,format=qcow2", image_fd);
    assert_int_equal(block_spec_parse(text, &spec, err, sizeof(err)), 0);
    assert_null(block_open(&spec, err, sizeof(err)));
    assert_non_null(strstr(err, "too large"));
    assert_int_equal(lines, 0);
}

static const struct qcow2_shape all_shapes[] = {
    {.version = 3, .cluster_bits = 9, .refcount_order = 4},
    {.version = 2, .cluster_bits = 9, .refcount_order = 4, .backing = "/proc/self/exe"},
    {.version = 3, .cluster_bits = 9, .refcount_order = 6, .zstd = true, .snapshot = true},
    {.version = 3, .cluster_bits = 9, .refcount_order = 1, .backing = "missing"},
    {.version = 3, .cluster_bits = 9, .refcount_order = 4, .dirty = true},
    {.version = 3, .cluster_bits = 9, .refcount_order = 5, .snapshot = true, .dirty = true},
};

static void qcow2__every_bit_flipped(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(all_shapes); k++) {
        size_t n = make_qcow2(image, &all_shapes[k]);

        for (size_t bit = k & 1; bit < n * 8; bit += bit < 4096 * 8 && bit % 4096 < 256 ? 1 : 61) {
            image[bit / 8] ^= (u8)(1 << bit % 8);
            use_bytes(n, bit % 3 ? "" : ",ro");
            image[bit / 8] ^= (u8)(1 << bit % 8);
        }
    }
}

static void qcow2__cut_anywhere(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(all_shapes); k++) {
        size_t n = make_qcow2(image, &all_shapes[k]);

        for (size_t cut = 0; cut < n; cut += 88) {
            use_bytes(cut, "");
            use_bytes(cut, ",ro");
        }
    }
}

static void qcow2__backing_names(void **state)
{
    static const struct {
        const char *name, *says;
    } bad[] = {
        {"nbd://host/x", "not a plain file"}, {"json:{}", "not a plain file"},
        {"missing", "No such file"},          {"/dev/null", "neither"},
        {"/proc/self/fd", "neither"},         {"x\ny", "control"},
        {"http:x", "not a plain file"},
    };
    char err[512];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct qcow2_shape s = plain;

        s.backing = bad[i].name;
        assert_null(open_bytes(make_qcow2(image, &s), "", err));
        if (!strstr(err, bad[i].says))
            fail_msg("%s: %s", bad[i].name, err);
    }
}

/* A chain that comes back to its beginning, and one that never ends. */
static void qcow2__backing_loop(void **state)
{
    char dir[] = "/tmp/trivisor-hostile-XXXXXX", path[128], cmd[128], err[512];
    struct block_spec spec;

    (void)state;
    assert_non_null(mkdtemp(dir));
    for (unsigned i = 0; i < 40; i++) {
        char name[32];
        struct qcow2_shape s = plain;
        size_t n;
        FILE *f;

        snprintf(name, sizeof(name), "%u.qcow2", i + 1);
        s.backing = i == 1 ? "0.qcow2" : name;
        n = make_qcow2(image, &s);
        put_be32(image + 116, 5);
        memcpy(image + 120, "qcow2", 5);
        snprintf(path, sizeof(path), "%s/%u.qcow2", dir, i);
        f = fopen(path, "wbe");
        assert_non_null(f);
        assert_int_equal(fwrite(image, 1, n, f), n);
        fclose(f);
    }
    snprintf(path, sizeof(path), "%s/0.qcow2", dir);
    assert_int_equal(block_spec_parse(path, &spec, err, sizeof(err)), 0);
    assert_null(block_open(&spec, err, sizeof(err)));
    assert_non_null(strstr(err, "comes back"));
    snprintf(path, sizeof(path), "%s/2.qcow2", dir);
    assert_int_equal(block_spec_parse(path, &spec, err, sizeof(err)), 0);
    assert_null(block_open(&spec, err, sizeof(err)));
    assert_non_null(strstr(err, "in a chain"));
    snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
    assert_int_equal(system(cmd), 0);
}

static struct block_stamp stamp_of(struct blockdev *b)
{
    struct block_stamp s;

    assert_int_equal(b->ops->stamp(b, &s), 0);
    return s;
}

/* A saved machine's disk is not another one's that has its file and other backing files. */
static void qcow2__stamps_have_backing_files(void **state)
{
    static const struct timespec times[] = {{1000, 1}, {1000, 1}}, later[] = {{1000, 2}, {1000, 2}};
    char base[] = "/tmp/trivisor-hostile-XXXXXX", err[512];
    struct qcow2_shape s = plain;
    int fd = mkstemp(base);
    struct block_stamp a, c;
    struct blockdev *b;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 4096), 0);
    assert_int_equal(futimens(fd, times), 0);
    b = open_bytes(make_qcow2(image, &s), ",ro", err);
    assert_non_null(b);
    assert_int_equal(futimens(image_fd, times), 0);
    assert_int_equal(stamp_of(b).changed_ns, 1000000000001ull);
    b->ops->close(b);

    s.backing = base;
    b = open_bytes(make_qcow2(image, &s), ",ro", err);
    if (!b)
        fail_msg("%s", err);
    assert_int_equal(futimens(image_fd, times), 0);
    a = stamp_of(b);
    assert_false(a.device);
    c = stamp_of(b);
    assert_int_equal(c.changed_ns, a.changed_ns);
    assert_int_equal(c.size, a.size);
    assert_int_equal(futimens(fd, later), 0);
    assert_int_not_equal(stamp_of(b).changed_ns, a.changed_ns);
    assert_int_equal(ftruncate(fd, 8192), 0);
    assert_int_not_equal(stamp_of(b).size, a.size);
    b->ops->close(b);
    close(fd);
    unlink(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(qcow2__good_image_is_good),
        cmocka_unit_test(qcow2__refuses),
        cmocka_unit_test(qcow2__guest_stays_in_its_clusters),
        cmocka_unit_test(qcow2__free_metadata_is_not_allocated),
        cmocka_unit_test(qcow2__bad_compressed_data),
        cmocka_unit_test(qcow2__stale_refcounts_are_rebuilt),
        cmocka_unit_test(qcow2__stale_refcounts_of_damaged_images),
        cmocka_unit_test(qcow2__every_bit_flipped),
        cmocka_unit_test(qcow2__cut_anywhere),
        cmocka_unit_test(qcow2__stamps_have_backing_files),
        cmocka_unit_test(qcow2__backing_names),
        cmocka_unit_test(qcow2__backing_loop),
    };

    log_set_sink(count_line);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
