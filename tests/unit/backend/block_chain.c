/* SPDX-License-Identifier: Apache-2.0 */
/* Disks that one process opens and another one uses: the files, what came with them, and locks. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/block/block.h"
#include "qcow2_image.h"
#include "test.h"

static char dir[] = "/tmp/trivisor-chain-XXXXXX";
static u8 image[QCOW2_IMAGE_MAX];
static char err[512];

static void put_file(const char *name, const void *data, size_t n)
{
    char path[128];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, n), n);
    close(fd);
}

/* An image that does not say what format its backing file has. */
static void put_overlay(const char *name, const char *backing)
{
    struct qcow2_shape s = {
        .version = 3, .cluster_bits = 9, .refcount_order = 4, .backing = backing};
    size_t n = make_qcow2(image, &s);

    memset(image + 112, 0, 4);
    put_file(name, image, n);
}

/* top.qcow2 on middle.qcow2 on base.raw, and one that is its own backing file. */
static int setup(void **state)
{
    static u8 base[65536];

    (void)state;
    assert_non_null(mkdtemp(dir));
    memset(base, 'B', sizeof(base));
    put_file("base.raw", base, sizeof(base));
    put_overlay("middle.qcow2", "base.raw");
    put_overlay("top.qcow2", "middle.qcow2");
    put_overlay("loop.qcow2", "loop.qcow2");
    return 0;
}

static int teardown(void **state)
{
    static const char *const names[] = {"base.raw", "middle.qcow2", "top.qcow2", "loop.qcow2"};
    char path[128];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        unlink(path);
    }
    return rmdir(dir);
}

static struct block_spec spec_of(const char *text)
{
    static struct block_spec s;
    char full[128];

    snprintf(full, sizeof(full), "%s/%s", dir, text);
    assert_int_equal(block_spec_parse(full, &s, err, sizeof(err)), 0);
    err[0] = 0;
    return s;
}

static void chain__goes_over_to_another_process(void **state)
{
    struct block_spec s = spec_of("top.qcow2");
    struct block_chain c;
    struct blockdev *b;
    u8 buf[512];
    struct host_iov v = {buf, sizeof(buf)};

    (void)state;
    assert_int_equal(block_chain_open(&s, &c, err, sizeof(err)), 0);
    assert_int_equal(c.n, 3);
    /* It is locked, before and after. */
    assert_null(block_open(&s, err, sizeof(err)));
    assert_non_null(strstr(err, "somebody else"));
    b = block_adopt(&s, &c, err, sizeof(err));
    if (!b)
        fail_msg("%s", err);
    for (unsigned i = 0; i < c.n; i++)
        assert_int_equal(c.fd[i], -1);
    block_chain_close(&c);
    assert_null(block_open(&s, err, sizeof(err)));
    assert_int_equal(b->ops->readv(b, &v, 1, 0), 0);
    assert_int_equal(buf[511], 'A');
    assert_int_equal(b->ops->readv(b, &v, 1, b->size - 512), 0);
    memset(buf, 'C', sizeof(buf));
    assert_int_equal(b->ops->writev(b, &v, 1, 512), 0);
    b->ops->close(b);
    b = block_open(&s, err, sizeof(err));
    assert_non_null(b);
    memset(buf, 0, sizeof(buf));
    assert_int_equal(b->ops->readv(b, &v, 1, 512), 0);
    assert_int_equal(buf[0], 'C');
    b->ops->close(b);
}

static void chain__must_be_the_disks(void **state)
{
    struct block_spec s = spec_of("top.qcow2");
    struct block_chain c;

    (void)state;
    /* One too few, */
    assert_int_equal(block_chain_open(&s, &c, err, sizeof(err)), 0);
    close(c.fd[--c.n]);
    assert_null(block_adopt(&s, &c, err, sizeof(err)));
    assert_non_null(strstr(err, "base.raw: its descriptor did not come"));
    block_chain_close(&c);
    /* none, */
    c.n = 0;
    assert_null(block_adopt(&s, &c, err, sizeof(err)));
    assert_non_null(strstr(err, "top.qcow2: its descriptor did not come"));
    /* one too many, */
    assert_int_equal(block_chain_open(&s, &c, err, sizeof(err)), 0);
    c.fd[c.n] = dup(c.fd[0]);
    c.n++;
    assert_null(block_adopt(&s, &c, err, sizeof(err)));
    assert_non_null(strstr(err, "more descriptors"));
    block_chain_close(&c);
    /* the same one twice, */
    assert_int_equal(block_chain_open(&s, &c, err, sizeof(err)), 0);
    close(c.fd[1]);
    c.fd[1] = dup(c.fd[0]);
    assert_null(block_adopt(&s, &c, err, sizeof(err)));
    assert_non_null(strstr(err, "comes back to it"));
    block_chain_close(&c);
    /* or no file. */
    c = (struct block_chain){.fd = {open("/dev/null", O_RDWR)}, .n = 1};
    assert_null(block_adopt(&s, &c, err, sizeof(err)));
    assert_non_null(strstr(err, "neither a file"));
    c = (struct block_chain){.fd = {-1}, .n = 1};
    assert_null(block_adopt(&s, &c, err, sizeof(err)));
    assert_true(err[0]);
}

static void chain__descriptors_are_open_for_what_is_done(void **state)
{
    static const struct {
        const char *options;
        int flags;
        bool good;
    } cases[] = {
        {"base.raw", O_RDWR, true},     {"base.raw", O_RDONLY, false},
        {"base.raw", O_WRONLY, false},  {"base.raw", O_RDWR | O_APPEND, false},
        {"base.raw", O_PATH, false},    {"base.raw,ro", O_RDONLY, true},
        {"base.raw,ro", O_RDWR, true},  {"base.raw,ro", O_WRONLY, false},
        {"base.raw,ro", O_PATH, false}, {"base.raw", O_RDWR | O_DIRECT, false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct block_spec s = spec_of(cases[i].options);
        struct block_chain c = {.fd = {open(s.path, cases[i].flags)}, .n = 1};
        struct blockdev *b;

        if (c.fd[0] < 0 && cases[i].flags & O_DIRECT)
            continue; /* the file system here has no such thing */
        b = block_adopt(&s, &c, err, sizeof(err));

        assert_int_equal(!b, !cases[i].good);
        if (b)
            b->ops->close(b);
        else
            assert_non_null(
                strstr(err, cases[i].flags & O_DIRECT ? "O_DIRECT" : "was not opened for reading"));
        assert_int_equal(c.fd[0], -1);
    }
}

static void chain__is_refused_before_it_goes_over(void **state)
{
    struct block_spec s = spec_of("loop.qcow2");
    struct block_chain c;
    int before = dup(0);

    (void)state;
    assert_int_not_equal(block_chain_open(&s, &c, err, sizeof(err)), 0);
    assert_non_null(strstr(err, "comes back to it"));
    s = spec_of("none.raw");
    assert_int_not_equal(block_chain_open(&s, &c, err, sizeof(err)), 0);
    s = spec_of("top.qcow2,format=raw");
    assert_int_equal(block_chain_open(&s, &c, err, sizeof(err)), 0);
    assert_int_equal(c.n, 1);
    block_chain_close(&c);
    s = spec_of("base.raw,format=qcow2");
    assert_int_not_equal(block_chain_open(&s, &c, err, sizeof(err)), 0);
    /* Nothing is left open. */
    close(before);
    assert_int_equal(dup(0), before);
    close(before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chain__goes_over_to_another_process),
        cmocka_unit_test(chain__must_be_the_disks),
        cmocka_unit_test(chain__descriptors_are_open_for_what_is_done),
        cmocka_unit_test(chain__is_refused_before_it_goes_over),
    };

    return cmocka_run_group_tests_name("backend-block-chain", tests, setup, teardown);
}
