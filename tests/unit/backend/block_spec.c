/* SPDX-License-Identifier: Apache-2.0 */
/* The text of --disk, and which format an image is taken for. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/block/block.h"
#include "base/commas.h"
#include "test.h"

static char dir[] = "/tmp/trivisor-block-spec-XXXXXX";

static void commas__doubled_is_one(void **state)
{
    const char *text = "a,,b,c=,,d,,";
    char buf[8];

    (void)state;
    assert_int_equal(commas_next(&text, buf, sizeof(buf)), 3);
    assert_string_equal(buf, "a,b");
    assert_int_equal(commas_next(&text, buf, sizeof(buf)), 5);
    assert_string_equal(buf, "c=,d,");
    assert_int_equal(commas_next(&text, buf, sizeof(buf)), COMMAS_END);
    text = "x,";
    assert_int_equal(commas_next(&text, buf, sizeof(buf)), 1);
    assert_int_equal(commas_next(&text, buf, sizeof(buf)), 0);
    assert_int_equal(commas_next(&text, buf, sizeof(buf)), COMMAS_END);
    text = "12345678";
    assert_int_equal(commas_next(&text, buf, sizeof(buf)), COMMAS_TOO_LONG);
    text = "1234567";
    assert_int_equal(commas_next(&text, buf, sizeof(buf)), 7);
}

static void block_spec__takes_all_keys(void **state)
{
    struct block_spec s;
    char err[256];

    (void)state;
    assert_int_equal(block_spec_parse("/a,,b/c.img,format=raw,ro,id=d-0.x,serial=A B,,C,"
                                      "cache=unsafe,discard=off,queues=16,doorbell=off,irqfd=off",
                                      &s, err, sizeof(err)),
                     0);
    assert_string_equal(s.path, "/a,b/c.img");
    assert_int_equal(s.format, BLOCK_FORMAT_RAW);
    assert_true(s.readonly);
    assert_string_equal(s.id, "d-0.x");
    assert_string_equal(s.serial, "A B,C");
    assert_true(s.unsafe);
    assert_true(s.no_discard);
    assert_int_equal(s.queues, 16);
    assert_true(s.no_doorbell);
    assert_true(s.no_irqfd);
    assert_int_equal(block_spec_parse("x=y", &s, err, sizeof(err)), 0);
    assert_string_equal(s.path, "x=y");
    assert_int_equal(s.format, BLOCK_FORMAT_NONE);
    assert_false(s.readonly);
    assert_int_equal(s.queues, 0);
    assert_false(s.no_doorbell);
    assert_false(s.no_irqfd);
}

static void block_spec__refuses(void **state)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"", "path"},
        {",ro", "path"},
        {"f,", "unknown key ''"},
        {"f,rw", "unknown key 'rw'"},
        {"f,ro=1", "ro takes no value"},
        {"f,format", "needs a value"},
        {"f,format=vmdk", "format=vmdk"},
        {"f,cache=none", "not built"},
        {"f,cache=fast", "cache=fast"},
        {"f,discard=maybe", "discard=maybe"},
        {"f,doorbell=1", "doorbell=1"},
        {"f,irqfd=1", "irqfd=1"},
        {"f,queues=0", "queues=0"},
        {"f,queues=17", "queues=17"},
        {"f,queues=99999999999999999999", "queues="},
        {"f,queues=1x", "queues=1x"},
        {"f,id=", "id="},
        {"f,id=a b", "id=a b"},
        {"f,serial=123456789012345678901", "serial="},
        {"f,serial=\t", "serial="},
    };
    struct block_spec s;
    char err[256];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        err[0] = 0;
        assert_int_not_equal(block_spec_parse(bad[i].text, &s, err, sizeof(err)), 0);
        if (!strstr(err, bad[i].says))
            fail_msg("%s: %s", bad[i].text, err);
    }
}

/* Opens dir/name,options; what it said in err when it was refused. */
static bool opens(const char *name, const char *options, char *err)
{
    struct block_spec s;
    struct blockdev *b;
    char text[256];

    snprintf(text, sizeof(text), "%s/%s%s", dir, name, options);
    assert_int_equal(block_spec_parse(text, &s, err, 256), 0);
    b = block_open(&s, err, 256);
    if (b)
        b->ops->close(b);
    return b;
}

static void make_file(const char *name, const void *head, size_t n, off_t size)
{
    char path[128];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    fd = open(path, O_CREAT | O_TRUNC | O_RDWR, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, head, n), n);
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
}

static void block_open__never_guesses(void **state)
{
    char err[256];

    (void)state;
    make_file("plain", "hello", 5, 65536);
    make_file("guest", "QFI\xfb\0\0\0\3", 8, 65536);
    make_file("named.qcow2", "hello", 5, 65536);
    make_file("vmdk", "KDMV", 4, 65536);
    make_file("odd", "x", 1, 1000);
    assert_true(opens("plain", "", err));
    assert_true(opens("plain", ",format=raw", err));
    assert_false(opens("plain", ",format=qcow2", err));
    assert_non_null(strstr(err, "no qcow2 image"));
    /* A raw disk whose guest wrote a qcow2 header to it. */
    assert_false(opens("guest", "", err));
    assert_non_null(strstr(err, "format=qcow2 or format=raw"));
    assert_false(opens("guest", ",ro", err));
    assert_true(opens("guest", ",format=raw", err));
    assert_false(opens("named.qcow2", "", err));
    assert_non_null(strstr(err, "format=raw"));
    assert_false(opens("vmdk", "", err));
    assert_non_null(strstr(err, "VMDK"));
    assert_true(opens("vmdk", ",format=raw", err));
    assert_false(opens("odd", "", err));
    assert_non_null(strstr(err, "512"));
    assert_true(opens("odd", ",ro", err));
    assert_false(opens("missing", "", err));
    assert_false(opens("", "", err));
    assert_non_null(strstr(err, "neither a file"));
}

static void block_open__one_writer(void **state)
{
    struct block_spec s;
    struct blockdev *b;
    char err[256], text[128];

    (void)state;
    snprintf(text, sizeof(text), "%s/plain", dir);
    assert_int_equal(block_spec_parse(text, &s, err, sizeof(err)), 0);
    b = block_open(&s, err, sizeof(err));
    assert_non_null(b);
    assert_false(opens("plain", "", err));
    assert_non_null(strstr(err, "plain: somebody else is using it"));
    assert_false(opens("plain", ",ro", err));
    b->ops->close(b);
    s.readonly = true;
    b = block_open(&s, err, sizeof(err));
    assert_non_null(b);
    assert_true(opens("plain", ",ro", err));
    assert_false(opens("plain", "", err));
    b->ops->close(b);
    assert_true(opens("plain", "", err));
}

static void raw__reads_and_writes(void **state)
{
    struct block_spec s;
    struct blockdev *b;
    char err[256], text[128];
    u8 out[2048], in[2048];
    struct host_iov iov[3] = {{out, 3}, {out + 3, 1021}, {out + 1024, 1024}}, back = {in, 2048};

    (void)state;
    make_file("disk", "x", 1, 65536);
    snprintf(text, sizeof(text), "%s/disk", dir);
    assert_int_equal(block_spec_parse(text, &s, err, sizeof(err)), 0);
    b = block_open(&s, err, sizeof(err));
    assert_non_null(b);
    assert_int_equal(b->size, 65536);
    for (size_t i = 0; i < sizeof(out); i++)
        out[i] = (u8)(i * 7 + 1);
    assert_int_equal(b->ops->writev(b, iov, 3, 4096), 0);
    assert_int_equal(b->ops->readv(b, &back, 1, 4096), 0);
    assert_memory_equal(in, out, sizeof(in));
    assert_int_equal(b->ops->write_zeroes(b, 4096, 512, false), 0);
    assert_int_equal(b->ops->write_zeroes(b, 5120, 512, true), 0);
    assert_int_equal(b->ops->flush(b), 0);
    memset(out, 0, 512);
    memset(out + 1024, 0, 512);
    assert_int_equal(b->ops->readv(b, &back, 1, 4096), 0);
    assert_memory_equal(in, out, sizeof(in));
    assert_int_equal(b->ops->discard(b, 0, 65536), 0);
    b->ops->close(b);
}

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    char cmd[64];

    (void)state;
    snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
    return system(cmd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commas__doubled_is_one), cmocka_unit_test(block_spec__takes_all_keys),
        cmocka_unit_test(block_spec__refuses),    cmocka_unit_test(block_open__never_guesses),
        cmocka_unit_test(block_open__one_writer), cmocka_unit_test(raw__reads_and_writes),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
