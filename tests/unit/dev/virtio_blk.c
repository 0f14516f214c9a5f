/* SPDX-License-Identifier: Apache-2.0 */
/* The block device in the middle of traffic when its machine is saved, with a disk in memory. */
#include <errno.h>
#include <string.h>
#include <ucontext.h>

#include "core/backend.h"
#include "dev/pci/pci.h"
#include "dev/virtio/blk.h"
#include "dev/virtio_move.h"
#include "test.h"

#define DEVFN PCI_DEVFN(2, 0)
#define SECTORS 64u
#define QUEUES 2
#define F_FLUSH BIT64(9)
#define F_WCE BIT64(11)
#define F_MQ BIT64(12)
#define IN 0
#define OUT 1

static u8 image[SECTORS * 512];
static unsigned flushes, dirty; /* writes since the last flush */
static void (*in_write)(void);  /* called once within the next write */

static int disk_readv(struct blockdev *b, const struct host_iov *iov, unsigned n, u64 off)
{
    (void)b;
    for (unsigned i = 0; i < n; off += iov[i++].len)
        memcpy(iov[i].base, image + off, iov[i].len);
    return 0;
}

static int disk_writev(struct blockdev *b, const struct host_iov *iov, unsigned n, u64 off)
{
    void (*fn)(void) = in_write;

    (void)b;
    in_write = NULL;
    if (fn)
        fn();
    for (unsigned i = 0; i < n; off += iov[i++].len)
        memcpy(image + off, iov[i].base, iov[i].len);
    dirty++;
    return 0;
}

static int disk_flush(struct blockdev *b)
{
    (void)b;
    flushes++;
    dirty = 0;
    return 0;
}

static const struct blockdev_ops disk_ops = {
    .readv = disk_readv, .writev = disk_writev, .flush = disk_flush};
static struct blockdev disk;

static struct vd_board *b;
static struct vdriver d;

static struct vd_board *create(void)
{
    struct virtio_blk_config cfg = {.disk = &disk, .name = "blk0", .queues = QUEUES};
    struct vd_board *now = vd_board_new();

    assert_non_null(virtio_blk_create(&now->m->vm, now->host, DEVFN, &cfg));
    return now;
}

static void start(unsigned mode, u64 features)
{
    disk = (struct blockdev){.ops = &disk_ops, .size = sizeof(image)};
    memset(image, 0, sizeof(image));
    flushes = dirty = 0;
    b = create();
    vd_attach(&d, b, DEVFN);
    vd_start(&d, vd_mode(mode), features, 8);
}

/* Makes a request available; where its data is, and behind it its status. */
static u64 add(unsigned q, u32 type, u64 sector, u8 fill)
{
    struct {
        u32 type, reserved;
        u64 sector;
    } h = {.type = type, .sector = sector};
    u64 at = vd_alloc(b, 16 + 512 + 1, 16);
    struct vd_buf v[3] = {{at, 16}, {at + 16, 512}, {at + 528, 1}};

    memcpy(vd_ram(b, at), &h, sizeof(h));
    memset(vd_ram(b, at + 16), fill, 512);
    *vd_ram(b, at + 528) = 0xff;
    assert_true(vd_add(&d, q, v, type == OUT ? 2 : 1, type == OUT ? 1 : 2) >= 0);
    return at + 16;
}

static u8 status(u64 at)
{
    return *vd_ram(b, at + 512);
}

static void blk__goes_on_in_another_machine(void **state)
{
    (void)state;
    for (unsigned mode = 0; mode < VD_MODES; mode++) {
        start(mode, F_FLUSH | F_MQ);
        for (unsigned i = 0; i < 30; i++) {
            unsigned q = i % QUEUES;
            u64 w, r;
            u32 n;

            vd_want_interrupt(&d, q, 1);
            w = add(q, OUT, i, (u8)(i + 1));
            vd_kick(&d, q);
            if (i % 3 == 0)
                vd_move(&b, &d, create); /* it is available, nobody will say so again */
            fake_settle();
            assert_int_equal(status(w), 0);
            if (i % 3 == 1) {
                vd_move(&b, &d, create); /* it is done, the guest has not looked */
                assert_int_equal(dirty, 0);
            }
            assert_int_equal(vd_interrupts(&d, q), 1);
            assert_true(vd_used(&d, q, NULL) >= 0);
            if (i % 3 == 2)
                vd_move(&b, &d, create);
            fake_settle(); /* what a new machine begins with */
            r = add(q, IN, i, 0);
            assert_true(vd_kick(&d, q));
            fake_settle();
            assert_int_equal(status(r), 0);
            assert_int_equal(*vd_ram(b, r), i + 1);
            assert_true(vd_used(&d, q, &n) >= 0);
            assert_int_equal(n, 513);
            vd_interrupts(&d, q);
        }
        vd_board_free(b);
    }
}

/* The machine that was saved goes on, too. */
static void blk__the_saved_machine_goes_on(void **state)
{
    u64 w;

    (void)state;
    for (unsigned mode = 0; mode < VD_MODES; mode++) {
        start(mode, F_FLUSH);
        w = add(0, OUT, 1, 7);
        vd_kick(&d, 0);
        state_save(b->m);
        assert_int_equal(status(w), 0xff);
        fake_settle();
        assert_int_equal(status(w), 0);
        w = add(0, OUT, 2, 8);
        assert_true(vd_kick(&d, 0));
        fake_settle();
        assert_int_equal(status(w), 0);
        vd_board_free(b);
    }
}

/* The disk stays as whoever goes on from the copy takes it to be. */
static void blk__a_machine_that_was_saved_and_ends_writes_no_more(void **state)
{
    u64 w;

    (void)state;
    start(0, F_FLUSH);
    w = add(0, OUT, 1, 7);
    vd_kick(&d, 0);
    state_save(b->m);
    vm_stop(&b->m->vm, VM_QUIT, 0, "saved");
    fake_settle();
    assert_int_equal(status(w), 0xff);
    vd_board_free(b);
}

static struct device *device(void)
{
    for (struct device *dev = b->m->vm.devices; dev; dev = dev->next)
        if (!strcmp(dev->ops->name, "virtio-blk"))
            return dev;
    return NULL;
}

/* The worker's thread: a coroutine that stops within a write. */
static ucontext_t test_context, thread_context;
static u8 stack[256 * 1024] __attribute__((aligned(64)));
static unsigned waits;

static void stop_thread(void)
{
    swapcontext(&thread_context, &test_context);
}

static void thread_main(void)
{
    in_write = stop_thread;
    fake_settle();
}

static void enter_thread(void)
{
    swapcontext(&test_context, &thread_context);
}

/* Whoever drains waits. */
static void block(void)
{
    waits++;
    enter_thread();
}

static void blk__drain_waits_for_what_was_taken(void **state)
{
    u64 w[2];

    (void)state;
    start(0, F_FLUSH);
    for (unsigned i = 0; i < 2; i++)
        w[i] = add(0, OUT, i, 5);
    vd_kick(&d, 0);
    assert_int_equal(getcontext(&thread_context), 0);
    thread_context.uc_stack.ss_sp = stack;
    thread_context.uc_stack.ss_size = sizeof(stack);
    thread_context.uc_link = &test_context;
    makecontext(&thread_context, thread_main, 0);
    enter_thread();
    assert_int_equal(status(w[0]), 0xff);
    fake_block = block;
    device()->ops->drain(device());
    assert_int_equal(waits, 1);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(status(w[i]), 0);
    assert_int_equal(flushes, 1);
    assert_int_equal(dirty, 0);
    state_save(b->m);
    fake_settle();
    vd_board_free(b);
}

static void blk__write_back_is_kept(void **state)
{
    (void)state;
    start(0, F_FLUSH | F_WCE);
    vd_dev_put(&d, 32, 1, 0);
    vd_move(&b, &d, create);
    assert_int_equal(vd_dev_get(&d, 32, 1), 0);
    fake_settle();
    add(0, OUT, 0, 1);
    vd_kick(&d, 0);
    flushes = 0;
    fake_settle();
    assert_int_equal(flushes, 1);
    vd_board_free(b);
}

static void blk__another_disk_is_refused(void **state)
{
    struct state_file *f;
    size_t len;
    u8 *bytes;

    (void)state;
    start(0, F_FLUSH);
    f = state_save(b->m);
    bytes = state_bytes(f, "virtio-blk", &len);
    vd_board_free(b);
    disk.size -= 512;
    b = create();
    assert_int_equal(state_load_device(b->m, "virtio-blk", bytes, len), -EINVAL);
    disk.size += 512;
    assert_int_equal(state_load_device(b->m, "virtio-blk", bytes, len), 0);
    disk.readonly = true;
    assert_int_equal(state_load_device(b->m, "virtio-blk", bytes, len), -EINVAL);
    disk.readonly = false;
    state_refuses_pieces(b->m, f, "virtio-blk");
    vd_board_free(b);
}

/* --- an engine with doorbells --- */

#define BAR4 0x20
#define COMMAND_MEMORY 2
#define BELLS_MAX 8

static struct bell {
    u64 at;
    int event; /* 0: not there */
} bells[BELLS_MAX];
static unsigned room; /* for so many */

static int doorbell(struct vm *vm, gpa_t a, int event, bool on)
{
    struct bell *free = NULL, *is = NULL;
    unsigned n = 0;

    (void)vm;
    for (unsigned i = 0; i < BELLS_MAX; i++) {
        if (bells[i].event && bells[i].at == a.v)
            is = &bells[i];
        if (!bells[i].event)
            free = &bells[i];
        n += bells[i].event != 0;
    }
    if (on && n == room)
        return -ENOSPC;
    assert_int_equal(is != NULL, !on);
    assert_true(on ? free != NULL : is->event == event);
    *(on ? free : is) = (struct bell){a.v, on ? event : 0};
    return 0;
}

static int bell_at(u64 addr)
{
    for (unsigned i = 0; i < BELLS_MAX; i++)
        if (bells[i].event && bells[i].at == addr)
            return bells[i].event;
    return 0;
}

static unsigned nbells(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < BELLS_MAX; i++)
        n += bells[i].event != 0;
    return n;
}

static bool no_doorbell;

static struct vd_board *create_with_doorbells(void)
{
    static struct engine_ops engine;
    struct virtio_blk_config cfg = {
        .disk = &disk, .name = "blk0", .queues = QUEUES, .no_doorbell = no_doorbell};
    struct vd_board *now = vd_board_new();

    engine = fake_engine_ops;
    engine.doorbell = doorbell;
    now->m->vm.engine = &engine;
    memset(bells, 0, sizeof(bells));
    assert_non_null(virtio_blk_create(&now->m->vm, now->host, DEVFN, &cfg));
    return now;
}

static void start_with_doorbells(void)
{
    disk = (struct blockdev){.ops = &disk_ops, .size = sizeof(image)};
    b = create_with_doorbells();
    vd_attach(&d, b, DEVFN);
    vd_start(&d, vd_mode(0), F_FLUSH | F_MQ, 8);
}

/* As a store of the guest's is served: by the doorbell there, or on the bus. */
static void notify(unsigned q)
{
    int event = bell_at(d.q[q].notify_at);

    if (event)
        fake_ring(event);
    else
        vd_notify(&d, q);
}

static void serves(void)
{
    for (unsigned q = 0; q < QUEUES; q++) {
        u64 w = add(q, OUT, q, 3);

        notify(q);
        fake_settle();
        assert_int_equal(status(w), 0);
        assert_true(vd_used(&d, q, NULL) >= 0);
    }
}

static void blk__doorbells_are_where_the_registers_are(void **state)
{
    u64 bar;

    (void)state;
    room = BELLS_MAX;
    no_doorbell = false;
    start_with_doorbells();
    assert_int_equal(nbells(), QUEUES);
    assert_true(bell_at(d.q[0].notify_at) && bell_at(d.q[1].notify_at));
    serves();
    /* No memory decoding, no doorbell; elsewhere they are elsewhere. */
    bar = vd_config(b, DEVFN, BAR4, 4) & ~15u;
    vd_config_write(b, DEVFN, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
    assert_int_equal(nbells(), 0);
    vd_config_write(b, DEVFN, BAR4, 4, (u32)bar + 0x100000);
    vd_config_write(b, DEVFN, PCI_COMMAND, 2, PCI_COMMAND_MASTER | COMMAND_MEMORY);
    assert_int_equal(nbells(), QUEUES);
    assert_int_equal(bell_at(d.q[0].notify_at), 0);
    for (unsigned q = 0; q < QUEUES; q++)
        d.q[q].notify_at += 0x100000;
    serves();
    vd_config_write(b, DEVFN, BAR4, 4, (u32)bar);
    for (unsigned q = 0; q < QUEUES; q++)
        d.q[q].notify_at -= 0x100000;
    assert_int_equal(nbells(), QUEUES);
    serves();
    /* And in the machine that goes on from a copy; a reset takes them away. */
    vd_move(&b, &d, create_with_doorbells);
    assert_int_equal(nbells(), QUEUES);
    fake_settle();
    serves();
    device()->ops->reset(device());
    assert_int_equal(nbells(), 0);
    vd_board_free(b);
}

/* They ring whenever the guest wants, ready or not. */
static void blk__a_doorbell_of_a_device_that_is_not_ready_does_nothing(void **state)
{
    int event;

    (void)state;
    room = BELLS_MAX;
    no_doorbell = false;
    start_with_doorbells();
    event = bell_at(d.q[0].notify_at);
    add(0, OUT, 0, 9);
    vd_reset(&d);
    image[0] = 1;
    fake_ring(event);
    fake_settle();
    assert_int_equal(image[0], 1);
    assert_int_equal(vd_status(&d), 0);
    vd_board_free(b);
}

static void blk__goes_without_doorbells(void **state)
{
    (void)state;
    no_doorbell = false;
    room = 1; /* the other queue's is on the bus */
    start_with_doorbells();
    assert_int_equal(nbells(), 1);
    serves();
    vd_board_free(b);
    no_doorbell = true;
    room = BELLS_MAX;
    start_with_doorbells();
    assert_int_equal(nbells(), 0);
    serves();
    vd_board_free(b);
}

static void eject(void)
{
    struct device *dev = device();

    vm_lock(&b->m->vm);
    dev->ops->unplug(dev);
    vm_unlock(&b->m->vm);
}

/* The guest takes it off the bus in the middle of a request, or with requests nobody has taken. */
static void blk__is_unplugged_whatever_it_does(void **state)
{
    (void)state;
    room = BELLS_MAX;
    no_doorbell = false;
    for (unsigned busy = 0; busy < 2; busy++) {
        int event;

        start_with_doorbells();
        memset(image, 0, sizeof(image));
        event = bell_at(d.q[0].notify_at);
        add(0, OUT, 1, 7);
        add(1, OUT, 2, 8);
        if (busy)
            in_write = eject;
        else
            eject();
        fake_ring(event);
        fake_settle();
        assert_int_equal(nbells(), 0);
        assert_int_equal(vd_config(b, DEVFN, 0, 4), 0xffffffff);
        assert_int_equal(vm_mmio_read(&b->m->vm, d.q[0].notify_at, 4), 0xffffffff);
        assert_int_equal(image[512], busy ? 7 : 0);
        assert_int_equal(image[1024], busy ? 8 : 0); /* it was taken already */
        assert_int_equal(vd_interrupts(&d, 0), 0);
        assert_true(vd_used(&d, 0, NULL) < 0); /* the driver sees nothing of it */
        assert_true(b->nirqfds > 0);
        for (unsigned i = 0; i < b->nirqfds; i++)
            assert_false(b->irqfd[i].e.live);
        vm_remove_device(&b->m->vm, device());
        assert_null(device());
        vd_board_free(b);
    }
}

/* --- irqfds --- */

static void blk__interrupts_go_by_irqfd_or_not(void **state)
{
    struct virtio_blk_config cfg = {.disk = &disk, .name = "blk0", .queues = QUEUES};

    (void)state;
    disk = (struct blockdev){.ops = &disk_ops, .size = sizeof(image)};
    for (unsigned off = 0; off < 2; off++) {
        cfg.no_irqfd = off;
        b = vd_board_new();
        assert_non_null(virtio_blk_create(&b->m->vm, b->host, DEVFN, &cfg));
        vd_attach(&d, b, DEVFN);
        vd_start(&d, vd_mode(0), F_FLUSH | F_MQ, 8);
        for (unsigned q = 0; q < QUEUES; q++) {
            add(q, OUT, q, 3);
            vd_notify(&d, q);
            fake_settle();
            assert_true(vd_used(&d, q, NULL) >= 0);
        }
        assert_int_equal(b->by_irqfd, off ? 0 : QUEUES);
        vd_board_free(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blk__goes_on_in_another_machine),
        cmocka_unit_test(blk__the_saved_machine_goes_on),
        cmocka_unit_test(blk__a_machine_that_was_saved_and_ends_writes_no_more),
        cmocka_unit_test(blk__drain_waits_for_what_was_taken),
        cmocka_unit_test(blk__write_back_is_kept),
        cmocka_unit_test(blk__another_disk_is_refused),
        cmocka_unit_test(blk__doorbells_are_where_the_registers_are),
        cmocka_unit_test(blk__a_doorbell_of_a_device_that_is_not_ready_does_nothing),
        cmocka_unit_test(blk__goes_without_doorbells),
        cmocka_unit_test(blk__is_unplugged_whatever_it_does),
        cmocka_unit_test(blk__interrupts_go_by_irqfd_or_not),
    };

    return cmocka_run_group_tests_name("dev-virtio-blk", tests, NULL, NULL);
}
