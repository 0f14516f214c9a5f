/* SPDX-License-Identifier: Apache-2.0 */
/* Guest RAM, and memory populated by the thread for it. */
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "core/host.h"
#include "test.h"

#define UNIT ((u64)64 << 10)
#define PAGES (UNIT / 4096)

static unsigned resident(u8 *p, u64 len)
{
    unsigned char map[PAGES * 4];
    unsigned n = 0;

    assert_true(len / 4096 <= sizeof(map));
    assert_int_equal(mincore(p, len, map), 0);
    for (u64 i = 0; i < len / 4096; i++)
        n += map[i] & 1;
    return n;
}

/* Small pages, so that one touched brings no other. */
static u8 *memory(u64 len)
{
    u8 *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_ptr_not_equal(p, MAP_FAILED);
    madvise(p, len, MADV_NOHUGEPAGE);
    return p;
}

static void wait_resident(u8 *p, u64 len)
{
    const struct timespec ms = {.tv_nsec = 1000000};

    for (unsigned i = 0; resident(p, len) != len / 4096; i++) {
        assert_true(i < 20000);
        nanosleep(&ms, NULL);
    }
}

static void test_without_a_thread(void **state)
{
    u8 *p = memory(UNIT);

    (void)state;
    assert_false(host_populate_later(p, UNIT, true));
    host_populator_stop(); /* none: nothing */
    munmap(p, UNIT);
}

static void test_later(void **state)
{
    u8 *p = memory(4 * UNIT);

    (void)state;
    for (unsigned round = 0; round < 2; round++) {
        assert_int_equal(host_populator_start(), 0);
        assert_false(host_populate_later(p, UNIT + 4096, true)); /* no multiple */
        assert_false(host_populate_later(p + 1, UNIT, true));
        assert_true(host_populate_later(p + round * UNIT, UNIT, true));
        wait_resident(p + round * UNIT, UNIT);
        host_populator_stop();
        assert_false(host_populate_later(p + 2 * UNIT, UNIT, true));
    }
    assert_int_equal(resident(p + 2 * UNIT, 2 * UNIT), 0);
    munmap(p, 4 * UNIT);
}

/* More than it can remember is refused, and what it accepted is done. */
static void test_many(void **state)
{
    u8 *p[64];
    bool taken[64];

    (void)state;
    assert_int_equal(host_populator_start(), 0);
    for (unsigned i = 0; i < 64; i++) {
        p[i] = memory(UNIT);
        taken[i] = host_populate_later(p[i], UNIT, true);
    }
    for (unsigned i = 0; i < 64; i++) {
        if (taken[i])
            wait_resident(p[i], UNIT);
        else
            assert_int_equal(resident(p[i], UNIT), 0);
    }
    host_populator_stop();
    for (unsigned i = 0; i < 64; i++)
        munmap(p[i], UNIT);
}

static void test_ram(void **state)
{
    struct host_ram r;
    const u64 size = 5 * UNIT + 4096;

    (void)state;
    assert_int_equal(host_ram_alloc(&r, size), 0);
    assert_int_equal((u64)r.ptr % (2 << 20), 0);
    memset(r.ptr, 0xaa, size);
    assert_int_equal(host_ram_discard((u8 *)r.ptr + UNIT, UNIT), 0);
    for (u64 i = 0; i < size; i++)
        assert_int_equal(((u8 *)r.ptr)[i], i >= UNIT && i < 2 * UNIT ? 0 : 0xaa);
    host_ram_free(&r);
    assert_null(r.ptr);
    host_ram_free(&r);
    assert_int_not_equal(host_ram_alloc(&r, (u64)1 << 62), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_a_thread),
        cmocka_unit_test(test_later),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_ram),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
