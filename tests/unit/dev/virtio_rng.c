/* SPDX-License-Identifier: Apache-2.0 */
/* The entropy device. */
#include <string.h>

#include "dev/pci/pci.h"
#include "dev/virtio/rng.h"
#include "dev/virtio_driver.h"
#include "test.h"

#define DEVFN PCI_DEVFN(2, 0)
#define SIZE 64

static struct vd_board *b;
static struct vdriver d;

static void start(struct vd_mode mode)
{
    b = vd_board_new();
    assert_non_null(virtio_rng_create(&b->m->vm, b->host, DEVFN, "rng0"));
    vd_attach(&d, b, DEVFN);
    assert_int_equal(vd_config(b, DEVFN, 2, 2), 0x1044);
    assert_int_equal(d.nqueues, 1);
    vd_start(&d, mode, 0, SIZE);
    fake_settle();
}

/* At least a fourth of the bits differs from zero, and no run of zeroes is left. */
static bool looks_random(const u8 *p, size_t n)
{
    unsigned bits = 0, zeroes = 0, longest = 0;

    for (size_t i = 0; i < n; i++) {
        bits += (unsigned)__builtin_popcount(p[i]);
        zeroes = p[i] ? 0 : zeroes + 1;
        longest = zeroes > longest ? zeroes : longest;
    }
    return bits > 2 * n && bits < 6 * n && longest < 8;
}

static void rng__fills_buffers(void **state)
{
    (void)state;
    for (unsigned n = 0; n < VD_MODES; n++) {
        u64 at;
        start(vd_mode(n));
        at = vd_alloc(b, 0x4000, 4096);
        for (unsigned round = 0; round < 200; round++) {
            struct vd_buf buf[3] = {{at + 1, 64}, {at + 100, 7}, {at + 200, 1000}};
            u32 len;
            int id;
            memset(vd_ram(b, at), 0, 2048);
            vd_want_interrupt(&d, 0, 1);
            id = vd_add(&d, 0, buf, 0, 3);
            assert_true(vd_kick(&d, 0));
            assert_int_equal(vd_used(&d, 0, NULL), -1); /* not on the vCPU's thread */
            assert_true(fake_settle() > 0);
            assert_int_equal(vd_interrupts(&d, 0), 1);
            assert_int_equal(vd_used(&d, 0, &len), id);
            assert_int_equal(len, 1071);
            assert_true(looks_random(vd_ram(b, at + 1), 64));
            assert_true(looks_random(vd_ram(b, at + 200), 1000));
            assert_int_equal(*vd_ram(b, at), 0);
            assert_int_equal(*vd_ram(b, at + 65), 0);
            assert_int_equal(*vd_ram(b, at + 107), 0);
            assert_int_equal(*vd_ram(b, at + 1200), 0);
        }
        vd_board_free(b);
    }
}

/* One buffer gets 4 KiB, one turn is bounded, and nothing is forgotten. */
static void rng__takes_turns(void **state)
{
    (void)state;
    for (unsigned n = 0; n < VD_MODES; n++) {
        u64 at;
        u32 len;
        start(vd_mode(n));
        at = vd_alloc(b, 0x10000, 4096);
        for (unsigned i = 0; i < SIZE; i++)
            assert_true(vd_add(&d, 0, &(struct vd_buf){at, 0x10000}, 0, 1) >= 0);
        vd_kick(&d, 0);
        assert_true(fake_settle() >= 3);
        assert_int_equal(*vd_ram(b, at + 0x1000), 0);
        for (unsigned i = 0; i < SIZE; i++) {
            assert_true(vd_used(&d, 0, &len) >= 0);
            assert_int_equal(len, 4096);
        }
        vd_board_free(b);
    }
}

static void rng__nothing_to_fill(void **state)
{
    u64 at;
    u32 len;

    (void)state;
    start(vd_mode(0));
    at = vd_alloc(b, 0x1000, 4096);
    vd_add(&d, 0, &(struct vd_buf){at, 16}, 1, 0); /* a buffer the device may only read */
    vd_add(&d, 0, &(struct vd_buf){at, 0}, 0, 1);
    vd_kick(&d, 0);
    fake_settle();
    assert_true(vd_used(&d, 0, &len) >= 0);
    assert_int_equal(len, 0);
    assert_true(vd_used(&d, 0, &len) >= 0);
    assert_int_equal(len, 0);
    assert_int_equal(*vd_ram(b, at), 0);
    vd_board_free(b);
}

static void rng__reset_and_destroy_with_work_pending(void **state)
{
    u64 at;

    (void)state;
    start(vd_mode(1));
    at = vd_alloc(b, 0x1000, 4096);
    vd_add(&d, 0, &(struct vd_buf){at, 16}, 0, 1);
    vd_kick(&d, 0);
    assert_true(vd_reset(&d));
    fake_settle();
    assert_int_equal(*(u64 *)(void *)vd_ram(b, at), 0);
    vd_start(&d, vd_mode(0), 0, SIZE);
    vd_add(&d, 0, &(struct vd_buf){at, 16}, 0, 1);
    vd_kick(&d, 0);
    vd_board_free(b); /* takes the work with it */
    assert_int_equal(fake_settle(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rng__fills_buffers),
        cmocka_unit_test(rng__takes_turns),
        cmocka_unit_test(rng__nothing_to_fill),
        cmocka_unit_test(rng__reset_and_destroy_with_work_pending),
    };
    return cmocka_run_group_tests_name("dev-virtio-rng", tests, NULL, NULL);
}
