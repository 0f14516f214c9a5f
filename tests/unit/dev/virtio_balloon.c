/* SPDX-License-Identifier: Apache-2.0 */
/* The balloon: what is given back, and what is not. */
#include <string.h>
#include <ucontext.h>

#include "dev/pci/pci.h"
#include "dev/virtio/balloon.h"
#include "dev/virtio_driver.h"
#include "test.h"

#define DEVFN PCI_DEVFN(5, 0)
#define SIZE 32
#define F_OOM 4ull
#define F_REPORTING 32ull

static struct vd_board *b;
static struct vdriver d;
static u64 list, pages; /* for page numbers; 64 pages to give away */

static void start(struct vd_mode mode)
{
    b = vd_board_new();
    assert_non_null(virtio_balloon_create(&b->m->vm, b->host, DEVFN, "balloon0", 5 << 20));
    vd_attach(&d, b, DEVFN);
    assert_int_equal(vd_config(b, DEVFN, 2, 2), 0x1045);
    vd_start(&d, mode, F_OOM | F_REPORTING, SIZE);
    list = vd_alloc(b, 0x18000, 4096);
    pages = vd_alloc(b, 64 << 12, 4096);
    memset(vd_ram(b, pages), 0xaa, 64 << 12);
    fake_settle();
    fake_discards = 0;
}

static bool is_gone(unsigned page)
{
    const u8 *p = vd_ram(b, pages + (u64)page * 4096);
    bool zero = p[0] == 0;

    for (unsigned i = 0; i < 4096; i++)
        assert_int_equal(p[i], zero ? 0 : 0xaa);
    return zero;
}

static void send(unsigned q, const u32 *pfn, unsigned n, unsigned pieces)
{
    struct vd_buf v[4];
    u32 each = n * 4 / pieces;

    memcpy(vd_ram(b, list), pfn, n * 4);
    for (unsigned i = 0; i < pieces; i++)
        v[i] = (struct vd_buf){list + i * each, i + 1 < pieces ? each : n * 4 - i * each};
    assert_true(vd_add(&d, q, v, pieces, 0) >= 0);
    assert_true(vd_kick(&d, q));
    assert_int_equal(vd_used(&d, q, NULL), -1); /* not on the vCPU's thread */
    fake_settle();
    assert_true(vd_used(&d, q, NULL) >= 0);
}

static void balloon__inflates_and_deflates(void **state)
{
    (void)state;
    for (unsigned n = 0; n < VD_MODES; n++) {
        u32 base, pfn[40];
        start(vd_mode(n));
        base = (u32)(pages >> 12);
        assert_int_equal(vd_dev_get(&d, 0, 4), 5 << 8);
        vd_dev_put(&d, 4, 4, 77);
        assert_int_equal(vd_dev_get(&d, 4, 4), 77);
        vd_dev_put(&d, 0, 4, 1); /* the device's */
        assert_int_equal(vd_dev_get(&d, 0, 4), 5 << 8);
        /* Up, down, one alone, and twice the same: runs are given back at once */
        for (u32 i = 0; i < 10; i++)
            pfn[i] = base + i;
        for (u32 i = 0; i < 10; i++)
            pfn[10 + i] = base + 40 - i;
        pfn[20] = base + 20;
        pfn[21] = base + 20;
        vd_want_interrupt(&d, 0, 1);
        send(0, pfn, 22, 3);
        assert_int_equal(vd_interrupts(&d, 0), 1);
        assert_int_equal(fake_discards, 4);
        for (unsigned i = 0; i < 64; i++)
            assert_int_equal(is_gone(i), i < 10 || i == 20 || (i > 30 && i <= 40));
        memset(vd_ram(b, pages), 0xaa, 64 << 12);
        send(1, pfn, 22, 2);
        assert_int_equal(fake_discards, 4);
        for (unsigned i = 0; i < 64; i++)
            assert_false(is_gone(i));
        vd_board_free(b);
    }
}

static void balloon__takes_only_ram(void **state)
{
    u32 pfn[] = {FAKE_RAM_SIZE >> 12, 0xffffffff, 0xfffffffe, 0xc0000, 0xfee00, 0};
    static u8 rom[8192] __attribute__((aligned(4096)));

    (void)state;
    start(vd_mode(0));
    memset(rom, 0x55, sizeof(rom));
    assert_int_equal(guest_mem_add(&b->m->vm.mem, gpa(0x400000), sizeof(rom), rom, true), 0);
    pfn[5] = 0x400;
    send(0, pfn, 6, 1);
    assert_int_equal(fake_discards, 0);
    assert_int_equal(rom[0], 0x55);
    /* A run across the end of RAM, and the engine hears of what is gone */
    for (u32 i = 0; i < 6; i++)
        pfn[i] = (FAKE_RAM_SIZE >> 12) - 3 + i;
    memset(vd_ram(b, FAKE_RAM_SIZE - 4096), 1, 4096);
    send(0, pfn, 6, 1);
    assert_int_equal(fake_discards, 1);
    assert_int_equal(*vd_ram(b, FAKE_RAM_SIZE - 1), 0);
    /* What is no whole number is not one */
    memcpy(vd_ram(b, list), &(u32){(u32)(pages >> 12)}, 4);
    vd_add(&d, 0, &(struct vd_buf){list, 3}, 1, 0);
    vd_add(&d, 0, &(struct vd_buf){list, 4}, 0, 1);
    vd_kick(&d, 0);
    fake_settle();
    assert_int_equal(fake_discards, 1);
    vd_board_free(b);
}

static void balloon__tells_the_engine(void **state)
{
    u32 pfn;

    (void)state;
    start(vd_mode(0));
    pfn = (u32)(pages >> 12) + 7;
    b->m->watched_gpa = ((u64)pfn << 12) + 4095;
    send(0, &pfn, 1, 1);
    assert_int_equal(b->m->watched, 1);
    vd_board_free(b);
}

static void balloon__bounded_requests(void **state)
{
    (void)state;
    start(vd_mode(1));
    vd_add(&d, 0, &(struct vd_buf){list, 0x10000}, 1, 0);
    vd_kick(&d, 0);
    fake_settle();
    assert_true(vd_used(&d, 0, NULL) >= 0);
    vd_add(&d, 0, &(struct vd_buf){list, 0x10004}, 1, 0);
    vd_kick(&d, 0);
    fake_settle();
    assert_int_equal(vd_used(&d, 0, NULL), -1);
    assert_true(vd_status(&d) & VD_NEEDS_RESET);
    assert_true(vd_reset(&d));
    vd_board_free(b);
}

static void balloon__free_pages_are_reported(void **state)
{
    (void)state;
    for (unsigned n = 0; n < VD_MODES; n++) {
        struct vd_buf v[3];

        start(vd_mode(n));
        v[0] = (struct vd_buf){pages, 8 << 12};
        v[1] = (struct vd_buf){pages + (20 << 12) + 1, 3 << 12}; /* two whole pages in it */
        v[2] = (struct vd_buf){pages + (30 << 12) + 16, 4064};   /* none */
        assert_true(vd_add(&d, 2, v, 0, 3) >= 0);
        vd_want_interrupt(&d, 2, 1);
        vd_kick(&d, 2);
        fake_settle();
        assert_int_equal(vd_interrupts(&d, 2), 1);
        assert_true(vd_used(&d, 2, NULL) >= 0);
        assert_int_equal(fake_discards, 2);
        for (unsigned i = 0; i < 64; i++)
            assert_int_equal(is_gone(i), i < 8 || i == 21 || i == 22);
        vd_board_free(b);
    }
}

static void balloon__reset_with_work_pending(void **state)
{
    (void)state;
    start(vd_mode(0));
    vd_add(&d, 2, &(struct vd_buf){pages, 4096}, 0, 1);
    vd_kick(&d, 2);
    assert_true(vd_reset(&d));
    fake_settle();
    assert_int_equal(fake_discards, 0);
    vd_start(&d, vd_mode(1), 0, SIZE);
    vd_add(&d, 2, &(struct vd_buf){pages, 4096}, 0, 1);
    vd_kick(&d, 2);
    vd_board_free(b);
}

/* The worker's thread: a coroutine that stops within a discard. */
static ucontext_t test_context, thread_context;
static u8 stack[256 * 1024] __attribute__((aligned(64)));

static void stop_thread(void)
{
    swapcontext(&thread_context, &test_context);
}

static void enter_thread(void)
{
    swapcontext(&test_context, &thread_context);
}

static void thread_main(void)
{
    fake_in_discard = stop_thread;
    fake_settle();
}

/* What the worker is at is finished, what it has not taken stays where it is. */
static void balloon__drain_waits_for_one_chain(void **state)
{
    struct device *dev;

    (void)state;
    start(vd_mode(0));
    for (dev = b->m->vm.devices; strcmp(dev->ops->name, "virtio-balloon");)
        dev = dev->next;
    for (unsigned i = 0; i < 2; i++)
        vd_add(&d, 2, &(struct vd_buf){pages + i * 4096, 4096}, 0, 1);
    vd_kick(&d, 2);
    assert_int_equal(getcontext(&thread_context), 0);
    thread_context.uc_stack.ss_sp = stack;
    thread_context.uc_stack.ss_size = sizeof(stack);
    thread_context.uc_link = &test_context;
    makecontext(&thread_context, thread_main, 0);
    enter_thread();
    assert_false(is_gone(0));
    fake_block = enter_thread;
    dev->ops->drain(dev);
    assert_true(is_gone(0));
    assert_false(is_gone(1));
    assert_true(vd_used(&d, 2, NULL) >= 0);
    assert_int_equal(vd_used(&d, 2, NULL), -1);
    fake_settle();
    assert_true(is_gone(1));
    assert_true(vd_used(&d, 2, NULL) >= 0);
    vd_board_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(balloon__inflates_and_deflates),
        cmocka_unit_test(balloon__takes_only_ram),
        cmocka_unit_test(balloon__tells_the_engine),
        cmocka_unit_test(balloon__bounded_requests),
        cmocka_unit_test(balloon__free_pages_are_reported),
        cmocka_unit_test(balloon__reset_with_work_pending),
        cmocka_unit_test(balloon__drain_waits_for_one_chain),
    };
    return cmocka_run_group_tests_name("dev-virtio-balloon", tests, NULL, NULL);
}
