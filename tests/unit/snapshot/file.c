/* SPDX-License-Identifier: Apache-2.0 */
/* Saved machines as files: what is written is read, and nothing else is. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/format.h"
#include "snapshot/reader.h"
#include "snapshot/writer.h"
#include "test.h"

#define RAM_SIZE (16 * 65536 + 3 * 4096)

static char path[] = "/tmp/trivisor-snapshot-XXXXXX";
static struct host_ram host_ram;
static u8 *ram;
static char err[512];

/* Pages of all kinds: empty chunks, single pages, full chunks, the end, which is no whole one. */
static void fill(void)
{
    assert_int_equal(host_ram_alloc(&host_ram, RAM_SIZE), 0);
    ram = host_ram.ptr;
    for (unsigned i = 0; i < 3 * 65536; i++)
        ram[65536 + i] = (u8)(i * 7 + (i >> 9));
    ram[5 * 65536 + 4095] = 1;
    ram[7 * 65536 + 8192] = 2;
    for (unsigned i = 0; i < 65536; i++)
        ram[9 * 65536 + i] = (u8)rand();
    ram[RAM_SIZE - 1] = 3;
}

static void write_file(bool compress)
{
    int fd = open(path, O_RDWR | O_TRUNC);
    struct snapshot_writer *w;

    assert_true(fd >= 0);
    assert_int_equal(snapshot_writer_open(&w, fd, compress), 0);
    assert_int_equal(snapshot_write_section(w, "one", 0, "first", 5), 0);
    assert_int_equal(snapshot_write_memory(w, &host_ram, NULL, NULL), 0);
    assert_int_equal(snapshot_write_section(w, "one", 1, "", 0), 0);
    assert_int_equal(snapshot_writer_finish(w), 0);
    snapshot_writer_free(w);
    close(fd);
}

/* 0: the whole way to memory that was verified and is the same. */
static int read_file(void)
{
    struct snapshot *s;
    struct host_ram r;
    int result;

    err[0] = 0;
    s = snapshot_open(path, err, sizeof(err));
    if (!s)
        return -1;
    assert_int_equal(host_ram_alloc(&r, snapshot_ram_size(s)), 0);
    result = snapshot_map(s, &r, err, sizeof(err));
    while (!result)
        result = snapshot_verify(s, 1, 1, err, sizeof(err));
    if (result == 1 && (r.size != RAM_SIZE || memcmp(r.ptr, ram, RAM_SIZE) != 0)) {
        snprintf(err, sizeof(err), "other memory than was saved");
        abort();
    }
    host_ram_free(&r);
    snapshot_close(s);
    return result == 1 ? 0 : -1;
}

static void is_read_again(void **state)
{
    struct snapshot *s;
    struct stream in;

    (void)state;
    for (int compress = 0; compress < 2; compress++) {
        write_file(compress);
        assert_int_equal(read_file(), 0);
        s = snapshot_open(path, err, sizeof(err));
        assert_non_null(s);
        assert_true(snapshot_section(s, "one", 0, &in));
        assert_int_equal(in.cap, 5);
        assert_memory_equal(in.buf, "first", 5);
        assert_true(snapshot_section(s, "one", 1, &in));
        assert_int_equal(in.cap, 0);
        assert_false(snapshot_section(s, "one", 2, &in));
        assert_false(snapshot_section(s, "two", 0, &in));
        snapshot_close(s);
    }
}

/* Zero pages are holes, zero chunks nothing; and zstd makes a smaller file. */
static void is_small(void **state)
{
    struct stat plain, packed;

    (void)state;
    write_file(false);
    assert_int_equal(stat(path, &plain), 0);
    write_file(true);
    assert_int_equal(stat(path, &packed), 0);
    assert_true(plain.st_size < 8 * 65536);
    assert_true(plain.st_blocks * 512 < plain.st_size - 60000);
    assert_true(packed.st_size < plain.st_size / 2);
}

static void flip(off_t at, unsigned bit)
{
    int fd = open(path, O_RDWR);
    u8 c;

    assert_int_equal(pread(fd, &c, 1, at), 1);
    c ^= (u8)(1u << bit);
    assert_int_equal(pwrite(fd, &c, 1, at), 1);
    close(fd);
}

static void every_flipped_bit_is_found(void **state)
{
    struct stat st;

    (void)state;
    for (int compress = 0; compress < 2; compress++) {
        write_file(compress);
        assert_int_equal(stat(path, &st), 0);
        for (off_t at = 0; at < st.st_size; at += at < 300 || at > st.st_size - 300 ? 1 : 997) {
            flip(at, (unsigned)at % 8);
            assert_int_equal(read_file(), -1);
            assert_non_null(strstr(err, path));
            assert_null(strchr(err, '\n'));
            flip(at, (unsigned)at % 8);
        }
        assert_int_equal(read_file(), 0);
    }
}

static void other_lengths_are_refused(void **state)
{
    struct stat st;

    (void)state;
    write_file(false);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size + 1), 0);
    assert_int_equal(read_file(), -1);
    for (off_t len = st.st_size - 1; len; len = len > 5000 ? len - 4999 : len - 1) {
        assert_int_equal(truncate(path, len), 0);
        assert_int_equal(read_file(), -1);
        assert_null(strchr(err, '\n'));
    }
}

/* What was not finished, and what is something else. */
static void others_are_refused(void **state)
{
    int fd = open(path, O_RDWR | O_TRUNC), pair[2];
    struct snapshot_writer *w;

    (void)state;
    assert_int_equal(snapshot_writer_open(&w, fd, false), 0);
    assert_int_equal(snapshot_write_memory(w, &host_ram, NULL, NULL), 0);
    snapshot_writer_free(w);
    assert_int_equal(read_file(), -1);
    assert_non_null(strstr(err, "no saved machine"));
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(pwrite(fd, ram + 65536, 65536, 0), 65536);
    assert_int_equal(read_file(), -1);
    assert_non_null(strstr(err, "no saved machine"));
    close(fd);
    assert_null(snapshot_open("/nonexistent/x", err, sizeof(err)));
    assert_null(snapshot_open("/dev/null", err, sizeof(err)));
    assert_non_null(strstr(err, "no regular file"));
    assert_int_equal(pipe(pair), 0);
    assert_int_equal(snapshot_writer_open(&w, pair[1], false), -EINVAL);
    close(pair[0]);
    close(pair[1]);
}

/* Nobody has touched most of it, and that stays so. A machine that was restored is saved again,
 * with what it has changed and with what it has not looked at. */
static void saves_what_it_was_restored_from(void **state)
{
    struct snapshot_writer *w;
    struct snapshot *s;
    struct host_ram r;
    u64 off;
    int fd;

    (void)state;
    write_file(false);
    s = snapshot_open(path, err, sizeof(err));
    assert_int_equal(host_ram_alloc(&r, RAM_SIZE), 0);
    assert_int_equal(host_ram_next_used(&r, 0), RAM_SIZE);
    assert_int_equal(snapshot_map(s, &r, err, sizeof(err)), 0);
    snapshot_close(s);
    assert_int_equal(host_ram_next_used(&r, 0), 65536);
    off = host_ram_next_used(&r, 4 * 65536);
    assert_int_equal(off, 5 * 65536);
    ((u8 *)r.ptr)[8 * 65536 + 5] = 7;
    ram[8 * 65536 + 5] = 7;
    assert_int_equal(unlink(path), 0);
    fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_int_equal(snapshot_writer_open(&w, fd, false), 0);
    assert_int_equal(snapshot_write_memory(w, &r, NULL, NULL), 0);
    assert_int_equal(snapshot_writer_finish(w), 0);
    snapshot_writer_free(w);
    close(fd);
    host_ram_free(&r);
    assert_int_equal(read_file(), 0);
}

/* Memory that was given back reads as zeroes, not as the file has it. */
static void discarded_memory_is_gone(void **state)
{
    struct snapshot *s;
    struct host_ram r;
    u8 *p;

    (void)state;
    write_file(false);
    s = snapshot_open(path, err, sizeof(err));
    assert_int_equal(host_ram_alloc(&r, RAM_SIZE), 0);
    assert_int_equal(snapshot_map(s, &r, err, sizeof(err)), 0);
    snapshot_close(s); /* the mapping stays */
    p = r.ptr;
    assert_memory_equal(p + 65536, ram + 65536, 65536);
    p[2 * 65536] = 99;
    assert_int_equal(host_ram_discard(p + 65536 + 4096, 65536), 0);
    assert_memory_equal(p + 65536, ram + 65536, 4096);
    for (unsigned i = 0; i < 65536; i++)
        assert_int_equal(p[65536 + 4096 + i], 0);
    assert_memory_equal(p + 2 * 65536 + 4096, ram + 2 * 65536 + 4096, 65536);
    host_ram_free(&r);
}

static int setup(void **state)
{
    int fd = mkstemp(path);

    (void)state;
    fill();
    close(fd);
    return fd < 0;
}

static int teardown(void **state)
{
    (void)state;
    host_ram_free(&host_ram);
    return unlink(path);
}

static bool not_wanted(void *opaque)
{
    ++*(unsigned *)opaque;
    return false;
}

/* Whoever wants it no more does not have the guest wait for all of its memory. */
static void can_be_given_up(void **state)
{
    int fd = open(path, O_RDWR | O_TRUNC);
    struct snapshot_writer *w;
    unsigned asked = 0;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(snapshot_writer_open(&w, fd, false), 0);
    assert_int_equal(snapshot_write_memory(w, &host_ram, not_wanted, &asked), -ECANCELED);
    assert_int_equal(asked, 1);
    snapshot_writer_free(w);
    close(fd);
    assert_null(snapshot_open(path, err, sizeof(err)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_read_again),
        cmocka_unit_test(is_small),
        cmocka_unit_test(every_flipped_bit_is_found),
        cmocka_unit_test(other_lengths_are_refused),
        cmocka_unit_test(others_are_refused),
        cmocka_unit_test(discarded_memory_is_gone),
        cmocka_unit_test(can_be_given_up),
        cmocka_unit_test(saves_what_it_was_restored_from),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
