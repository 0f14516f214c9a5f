/* SPDX-License-Identifier: Apache-2.0 */
/* The cloud-init disk: what is in it, read back, and that it cannot be written. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/block/memory.h"
#include "test.h"

static char big[100000];
static const struct seed_file files[] = {{"user-data", "#cloud-config\n", 14},
                                         {"meta-data", "a: b\n", 5},
                                         {"network-config", big, sizeof(big)}};

static struct blockdev *build(void)
{
    char err[256];
    void *data;
    u64 size;

    memset(big, 'n', sizeof(big));
    assert_int_equal(block_seed_build(files, ARRAY_SIZE(files), &data, &size, err, sizeof(err)), 0);
    return block_memory_open(data, size);
}

static void read_at(struct blockdev *b, void *buf, size_t n, u64 off)
{
    /* In uneven pieces, as guests give them. */
    struct host_iov iov[2] = {{buf, n / 3}, {(char *)buf + n / 3, n - n / 3}};

    assert_int_equal(b->ops->readv(b, iov, 2, off), 0);
}

static void seed__has_the_label_cloud_init_looks_for(void **state)
{
    struct blockdev *b = build();
    char pvd[2048];

    (void)state;
    assert_true(b->readonly);
    assert_int_equal(b->size % 2048, 0);
    read_at(b, pvd, sizeof(pvd), 32768); /* ECMA-119 8.4: primary volume descriptor */
    assert_memory_equal(pvd, "\1CD001\1", 7);
    assert_memory_equal(pvd + 40, "cidata  ", 8);
    b->ops->close(b);
}

static void seed__holds_the_files(void **state)
{
    struct blockdev *b = build();
    struct archive *a = archive_read_new();
    struct archive_entry *e;
    char *image = malloc(b->size), *text = malloc(sizeof(big));
    unsigned found = 0;

    (void)state;
    read_at(b, image, b->size, 0);
    archive_read_support_format_iso9660(a);
    assert_int_equal(archive_read_open_memory(a, image, b->size), ARCHIVE_OK);
    while (archive_read_next_header(a, &e) == ARCHIVE_OK)
        for (size_t i = 0; i < ARRAY_SIZE(files); i++)
            if (!strcmp(archive_entry_pathname(e), files[i].name)) {
                assert_int_equal(archive_entry_size(e), files[i].size);
                assert_int_equal(archive_read_data(a, text, sizeof(big)), files[i].size);
                assert_memory_equal(text, files[i].data, files[i].size);
                found++;
            }
    assert_int_equal(found, ARRAY_SIZE(files));
    archive_read_free(a);
    free(image);
    free(text);
    b->ops->close(b);
}

static void seed__cannot_be_written(void **state)
{
    struct blockdev *b = build();
    char buf[512] = {0};
    struct host_iov iov = {buf, sizeof(buf)};

    (void)state;
    assert_int_equal(b->ops->writev(b, &iov, 1, 0), -EROFS);
    assert_int_equal(b->ops->discard(b, 0, 512), -EROFS);
    assert_int_equal(b->ops->write_zeroes(b, 0, 512, true), -EROFS);
    assert_int_equal(b->ops->flush(b), 0);
    b->ops->close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seed__has_the_label_cloud_init_looks_for),
        cmocka_unit_test(seed__holds_the_files),
        cmocka_unit_test(seed__cannot_be_written),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
