/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "board/cpio.h"
#include "test.h"

static u32 field(const u8 *header, unsigned n)
{
    char hex[9] = {0};

    memcpy(hex, header + 6 + 8 * n, 8);
    return (u32)strtoul(hex, NULL, 16);
}

static void cpio__is_what_linux_unpacks(void **state)
{
    static const struct {
        const char *name;
        u32 mode;
        const char *data;
    } files[] = {{"dir", S_IFDIR | 0755, ""},
                 {"dir/a", S_IFREG | 0644, "12345"},
                 {"dir/bc", S_IFREG | 0755, ""},
                 {"d", S_IFREG | 0644, "1234"}};
    struct cpio c = {0};
    u64 at = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        cpio_add(&c, files[i].name, files[i].mode, files[i].data, strlen(files[i].data));
    assert_int_equal(cpio_finish(&c), 0);
    for (size_t i = 0; i <= ARRAY_SIZE(files); i++) {
        const u8 *h = c.data + at;
        bool last = i == ARRAY_SIZE(files);
        const char *name = last ? "TRAILER!!!" : files[i].name;

        assert_int_equal(at % 4, 0);
        assert_memory_equal(h, "070701", 6);
        assert_int_equal(field(h, 11), strlen(name) + 1);
        assert_string_equal((const char *)h + 110, name);
        at = (at + 110 + strlen(name) + 1 + 3) / 4 * 4;
        if (last)
            break;
        assert_int_equal(field(h, 1), files[i].mode);
        assert_int_equal(field(h, 6), strlen(files[i].data));
        assert_memory_equal(c.data + at, files[i].data, strlen(files[i].data));
        at = (at + strlen(files[i].data) + 3) / 4 * 4;
    }
    assert_int_equal(at, c.size);
    cpio_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cpio__is_what_linux_unpacks)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
