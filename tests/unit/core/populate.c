/* SPDX-License-Identifier: Apache-2.0 */
/* What of guest RAM is populated when, at once and ahead, with a host that writes it down. */
#include <stdlib.h>
#include <string.h>

#include "core/host.h"
#include "core/mem.h"
#include "test.h"

#define MIB ((u64)1 << 20)
#define REGION (2 * MIB)

static struct {
    u64 p, len;
    bool later;
} done[64];
static unsigned ndone;

static void note(void *p, u64 len, bool later)
{
    assert_true(ndone < 64);
    done[ndone].p = (u64)p;
    done[ndone].len = len;
    done[ndone++].later = later;
}

void *host_zalloc(u64 size)
{
    return calloc(1, size);
}

void host_free(void *p)
{
    free(p);
}

void host_populate(void *p, u64 len, bool write)
{
    assert_true(write);
    note(p, len, false);
}

bool host_populate_later(void *p, u64 len, bool write)
{
    assert_true(write);
    note(p, len, true);
    return true;
}

/* Never touched, so it need not exist: a host address in the middle of a large page. */
#define HOST (1024 * MIB + 640 * 1024)

static struct guest_mem *ram(void)
{
    static struct guest_mem m;

    memset(&m, 0, sizeof(m));
    assert_int_equal(guest_mem_add(&m, gpa(MIB), 20 * MIB, (void *)HOST, false), 0);
    guest_mem_track(&m);
    ndone = 0;
    return &m;
}

/* Touches a byte at a host address; what was populated ahead, or 0. */
static u64 touch(struct guest_mem *m, u64 host)
{
    u64 ahead = 0;
    unsigned before = ndone;

    guest_mem_touch(&m->slot[0], gpa(MIB + (host - HOST)), 1);
    for (unsigned i = before; i < ndone; i++)
        if (done[i].later) {
            assert_int_equal(ahead, 0);
            assert_int_equal(done[i].len, REGION);
            assert_int_equal(done[i].p % REGION, 0);
            ahead = done[i].p;
        }
    return ahead;
}

static void test_chunks(void **state)
{
    struct guest_mem *m = ram();

    (void)state;
    touch(m, HOST + 3 * 65536 + 5);
    assert_int_equal(ndone, 1);
    assert_int_equal(done[0].p, HOST + 3 * 65536);
    assert_int_equal(done[0].len, 65536);
    touch(m, HOST + 3 * 65536 + 9000); /* known */
    assert_int_equal(ndone, 1);
    guest_mem_touch(&m->slot[0], gpa(MIB + 4 * 65536 - 1), 2);
    assert_int_equal(ndone, 2);
    assert_int_equal(done[1].p, HOST + 4 * 65536);
    guest_mem_untrack(m);
}

static void test_upwards(void **state)
{
    struct guest_mem *m = ram();
    u64 r = 1024 * MIB + 2 * REGION;

    (void)state;
    assert_int_equal(touch(m, r + 65536), 0); /* no direction yet */
    assert_int_equal(touch(m, r + REGION), r + 2 * REGION);
    assert_int_equal(touch(m, r + REGION + 65536), 0); /* once */
    assert_int_equal(touch(m, r + 2 * REGION), r + 3 * REGION);
    guest_mem_untrack(m);
}

static void test_downwards(void **state)
{
    struct guest_mem *m = ram();
    u64 r = 1024 * MIB + 5 * REGION;

    (void)state;
    assert_int_equal(touch(m, r), 0);
    assert_int_equal(touch(m, r - 65536), r - 2 * REGION);
    assert_int_equal(touch(m, r - 2 * REGION), r - 3 * REGION);
    guest_mem_untrack(m);
}

/* What lies around the slot is not its own to populate. */
static void test_ends(void **state)
{
    struct guest_mem *m = ram();
    u64 first = 1024 * MIB, last = (HOST + 20 * MIB - 1) & ~(REGION - 1);

    (void)state;
    assert_int_equal(touch(m, first + 2 * REGION), 0);
    assert_int_equal(touch(m, first + REGION), 0);
    assert_int_equal(touch(m, HOST), 0);
    assert_int_equal(touch(m, last - 2 * REGION), 0);
    assert_int_equal(touch(m, last - REGION), 0);
    assert_int_equal(touch(m, last), 0);
    guest_mem_untrack(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_upwards),
        cmocka_unit_test(test_downwards),
        cmocka_unit_test(test_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
