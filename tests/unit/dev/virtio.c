/* SPDX-License-Identifier: Apache-2.0 */
/* virtio's status machine, features and PCI transport, as a driver sees them. */
#include <string.h>

#include "dev/virtio_test.h"

static struct test_device t;

static void write_features(u64 f)
{
    vd_put(&t.drv, VD_DRIVER_FEATURE_SELECT, 4, 0);
    vd_put(&t.drv, VD_DRIVER_FEATURE, 4, (u32)f);
    vd_put(&t.drv, VD_DRIVER_FEATURE_SELECT, 4, 1);
    vd_put(&t.drv, VD_DRIVER_FEATURE, 4, (u32)(f >> 32));
}

/* Up to FEATURES_OK with these features; whether the device took them. */
static bool offer(u64 features)
{
    assert_true(vd_reset(&t.drv));
    vd_put(&t.drv, VD_STATUS, 1, VD_ACKNOWLEDGE);
    vd_put(&t.drv, VD_STATUS, 1, VD_ACKNOWLEDGE | VD_DRIVER);
    write_features(features);
    vd_put(&t.drv, VD_STATUS, 1, VD_ACKNOWLEDGE | VD_DRIVER | VD_FEATURES_OK);
    return vd_status(&t.drv) & VD_FEATURES_OK;
}

static void virtio__features(void **state)
{
    (void)state;
    td_new(&t);
    vd_negotiate(&t.drv, vd_mode(7), TD_FEATURE);
    assert_int_equal(t.d.features,
                     VD_F_VERSION_1 | VD_F_PACKED | VD_F_EVENT_IDX | VD_F_INDIRECT | TD_FEATURE);
    assert_int_equal(t.drv.offered & TD_FEATURE, TD_FEATURE);
    /* Frozen from FEATURES_OK on (3.1.1) */
    write_features(0);
    assert_int_equal(t.d.features,
                     VD_F_VERSION_1 | VD_F_PACKED | VD_F_EVENT_IDX | VD_F_INDIRECT | TD_FEATURE);
    /* There are 64 of them */
    vd_put(&t.drv, VD_DEVICE_FEATURE_SELECT, 4, 2);
    assert_int_equal(vd_get(&t.drv, VD_DEVICE_FEATURE, 4), 0);
    vd_put(&t.drv, VD_DEVICE_FEATURE_SELECT, 4, 0xffffffff);
    assert_int_equal(vd_get(&t.drv, VD_DEVICE_FEATURE, 4), 0);

    assert_true(offer(VD_F_VERSION_1));
    assert_false(offer(0));                         /* no legacy driver (6.2) */
    assert_false(offer(VD_F_VERSION_1 | BIT64(6))); /* not offered */
    assert_false(offer(VD_F_VERSION_1 | BIT64(63)));
    t.refuse_features = true;
    assert_false(offer(VD_F_VERSION_1));
    /* Without FEATURES_OK there is no DRIVER_OK */
    vd_put(&t.drv, VD_STATUS, 1, VD_ACKNOWLEDGE | VD_DRIVER | VD_DRIVER_OK);
    assert_false(virtio_live(&t.d));
    assert_int_equal(t.starts, 0);
    td_free(&t);
}

static void virtio__status(void **state)
{
    unsigned resets;

    (void)state;
    td_new(&t);
    assert_int_equal(vd_status(&t.drv), 0);
    assert_int_equal(vd_get(&t.drv, VD_NUM_QUEUES, 2), TD_QUEUES);
    vd_start(&t.drv, vd_mode(0), 0, 16);
    assert_int_equal(t.starts, 1);
    assert_true(virtio_live(&t.d));
    /* Bits stay until reset (2.1.2), and DEVICE_NEEDS_RESET is the device's */
    vd_put(&t.drv, VD_STATUS, 1, VD_ACKNOWLEDGE | VD_NEEDS_RESET);
    assert_true(virtio_live(&t.d));
    assert_int_equal(vd_status(&t.drv) & VD_NEEDS_RESET, 0);
    vd_put(&t.drv, VD_STATUS, 1, 0x0f);
    assert_int_equal(t.starts, 1);
    resets = t.resets;
    assert_true(vd_reset(&t.drv));
    assert_int_equal(t.resets, resets + 1);
    assert_false(virtio_live(&t.d));
    assert_int_equal(t.d.features, 0);
    for (unsigned q = 0; q < TD_QUEUES; q++) {
        vd_put(&t.drv, VD_QUEUE_SELECT, 2, q);
        assert_int_equal(vd_get(&t.drv, VD_QUEUE_ENABLE, 2), 0);
        assert_int_equal(vd_get(&t.drv, VD_QUEUE_VECTOR, 2), 0xffff);
        assert_int_equal(vd_get(&t.drv, VD_QUEUE_DESC, 4), 0);
    }
    /* And again */
    vd_start(&t.drv, vd_mode(1), 0, 16);
    assert_true(virtio_live(&t.d));
    vm_lock(&t.b->m->vm);
    virtio_pci_reset(&t.pci);
    vm_unlock(&t.b->m->vm);
    assert_false(virtio_live(&t.d));
    td_free(&t);
}

static void virtio__queue_registers_are_frozen_while_enabled(void **state)
{
    (void)state;
    for (unsigned mode = 0; mode < 2; mode++) {
        td_new(&t);
        vd_start(&t.drv, vd_mode(mode), 0, 16);
        vd_put(&t.drv, VD_QUEUE_SELECT, 2, 2);
        vd_put(&t.drv, VD_QUEUE_SIZE, 2, 1024);
        vd_put64(&t.drv, VD_QUEUE_DESC, 0x100000);
        vd_put64(&t.drv, VD_QUEUE_DRIVER, 0x110000);
        vd_put64(&t.drv, VD_QUEUE_DEVICE, 0x120000);
        vd_put(&t.drv, VD_QUEUE_ENABLE, 2, 0);
        vd_put(&t.drv, VD_QUEUE_ENABLE, 2, 1);
        assert_int_equal(vd_get(&t.drv, VD_QUEUE_ENABLE, 2), 1);
        assert_int_equal(vd_get(&t.drv, VD_QUEUE_SIZE, 2), 16);
        assert_int_equal(vd_get(&t.drv, VD_QUEUE_DESC, 4), t.drv.q[2].desc);
        assert_int_equal(vd_get(&t.drv, VD_QUEUE_DRIVER, 4), t.drv.q[2].driver);
        assert_int_equal(vd_get(&t.drv, VD_QUEUE_DEVICE, 4), t.drv.q[2].device);
        assert_int_equal(t.d.q[2].size, 16);
        /* And they are still what is used */
        assert_true(vd_add(&t.drv, 2, &(struct vd_buf){0x100000, 5}, 1, 0) >= 0);
        assert_true(td_pop(&t, 2));
        assert_int_equal(t.c.out_len, 5);
        td_push(&t, 2, 0);
        assert_true(vd_used(&t.drv, 2, NULL) >= 0);
        td_free(&t);
    }
}

/* Against 3.1.1, but done: queues first, then FEATURES_OK. */
static void virtio__queues_before_features_ok(void **state)
{
    static u8 buf[1024];
    struct stream s = {.buf = buf, .cap = sizeof(buf)};

    (void)state;
    td_new(&t);
    t.drv.mode = vd_mode(0);
    t.drv.features = VD_F_VERSION_1;
    vd_put(&t.drv, VD_STATUS, 1, VD_ACKNOWLEDGE | VD_DRIVER);
    vd_put(&t.drv, VD_DRIVER_FEATURE_SELECT, 4, 1);
    vd_put(&t.drv, VD_DRIVER_FEATURE, 4, VD_F_VERSION_1 >> 32);
    for (unsigned q = 0; q < TD_QUEUES; q++) {
        vd_setup_queue(&t.drv, q, 16);
        assert_false(t.d.q[q].enabled);
    }
    /* Saved and restored in between. */
    assert_int_equal(virtio_save(&t.d, &s), 0);
    s.pos = 0;
    assert_int_equal(virtio_load(&t.d, &s), 0);
    vd_driver_ok(&t.drv);
    for (unsigned q = 0; q < TD_QUEUES; q++)
        assert_true(t.d.q[q].enabled);
    vd_put(&t.drv, VD_STATUS, 1, 0);
    assert_false(t.d.q[0].enabled);
    /* Features decide on the layout, so bad rings are seen later, too. */
    vd_put(&t.drv, VD_QUEUE_SELECT, 2, 0);
    vd_put64(&t.drv, VD_QUEUE_DESC, 1);
    vd_put(&t.drv, VD_QUEUE_ENABLE, 2, 1);
    vd_put(&t.drv, VD_DRIVER_FEATURE_SELECT, 4, 1);
    vd_put(&t.drv, VD_DRIVER_FEATURE, 4, VD_F_VERSION_1 >> 32);
    vd_put(&t.drv, VD_STATUS, 1, VD_ACKNOWLEDGE | VD_DRIVER | VD_FEATURES_OK);
    assert_int_equal(vd_status(&t.drv) & VD_NEEDS_RESET, VD_NEEDS_RESET);
    td_free(&t);
}

static void virtio__queue_that_is_not_there(void **state)
{
    (void)state;
    td_new(&t);
    vd_negotiate(&t.drv, vd_mode(0), 0);
    for (unsigned i = 0; i < 3; i++) {
        static const u16 none[] = {TD_QUEUES, VIRTIO_QUEUES_MAX, 0xffff};
        vd_put(&t.drv, VD_QUEUE_SELECT, 2, none[i]);
        assert_int_equal(vd_get(&t.drv, VD_QUEUE_SELECT, 2), none[i]);
        assert_int_equal(vd_get(&t.drv, VD_QUEUE_SIZE, 2), 0);
        for (unsigned reg = VD_QUEUE_SIZE; reg < 56; reg += 2)
            vd_put(&t.drv, reg, 2, 0x1111);
        vd_put(&t.drv, VD_QUEUE_ENABLE, 2, 1);
        assert_int_equal(vd_get(&t.drv, VD_QUEUE_ENABLE, 2), 0);
    }
    for (unsigned q = 0; q < TD_QUEUES; q++)
        vd_setup_queue(&t.drv, q, 16);
    vd_driver_ok(&t.drv);
    memset(t.notified, 0, sizeof(t.notified));
    for (unsigned off = TD_QUEUES; off < 1024; off += 61)
        vm_mmio_write(&t.b->m->vm, t.drv.notify + (u64)off * t.drv.notify_multiplier, 2, 0);
    assert_int_equal(t.notified[0] + t.notified[1] + t.notified[2], 0);
    td_free(&t);
}

/* Tries to enable queue 0; whether it is. */
static bool enable(u16 size, u64 desc, u64 driver, u64 device, struct vd_mode mode)
{
    vd_negotiate(&t.drv, mode, 0);
    vd_put(&t.drv, VD_QUEUE_SELECT, 2, 0);
    vd_put(&t.drv, VD_QUEUE_SIZE, 2, size);
    /* A size that is not taken is not in force: what the driver asked for it does not get. */
    if (vd_get(&t.drv, VD_QUEUE_SIZE, 2) != size)
        return false;
    vd_put64(&t.drv, VD_QUEUE_DESC, desc);
    vd_put64(&t.drv, VD_QUEUE_DRIVER, driver);
    vd_put64(&t.drv, VD_QUEUE_DEVICE, device);
    vd_put(&t.drv, VD_QUEUE_ENABLE, 2, 1);
    assert_int_equal(t.d.q[0].enabled, vd_get(&t.drv, VD_QUEUE_ENABLE, 2));
    return t.d.q[0].enabled;
}

static void virtio__bad_queues_are_refused(void **state)
{
    u64 end = FAKE_RAM_SIZE;

    (void)state;
    td_new(&t);
    for (unsigned n = 0; n < 2; n++) {
        struct vd_mode mode = vd_mode(n);
        const u64 bad[] = {
            end,                   /* behind RAM */
            end - 16,              /* partly */
            t.drv.common & ~15ull, /* a device's registers */
            UINT64_MAX & ~15ull,   /* at the end of everything: wraps */
            0x8000000000000000ull,
            UINT64_MAX - 0x100 + 16,
        };

        assert_true(enable(64, 0x10000, 0x20000, 0x30000, mode));
        for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
            assert_false(enable(64, bad[i], 0x20000, 0x30000, mode));
            /* A packed ring's event structures are small enough for the last place in RAM. */
            u64 at = n && i == 1 ? end - 2 : bad[i];
            assert_false(enable(64, 0x10000, at, 0x30000, mode));
            assert_false(enable(64, 0x10000, 0x20000, at, mode));
        }
        /* Alignment: 2.7, 2.8 */
        assert_false(enable(64, 0x10008, 0x20000, 0x30000, mode));
        assert_false(enable(64, 0x10000, 0x20001, 0x30000, mode));
        assert_false(enable(64, 0x10000, 0x20000, 0x30002, mode));
        assert_false(enable(0, 0x10000, 0x20000, 0x30000, mode));
        assert_false(enable(128, 0x10000, 0x20000, 0x30000, mode)); /* above what is offered */
        assert_false(enable(0xffff, 0x10000, 0x20000, 0x30000, mode));
        assert_int_equal(enable(48, 0x10000, 0x20000, 0x30000, mode), n); /* split: powers of two */
        assert_int_equal(enable(63, 0x10000, 0x20000, 0x30000, mode), n);
        /* Up to the very end of RAM */
        assert_true(enable(64, end - 64 * 16, 0x20000, 0x30000, mode));
        assert_true(enable(64, 0x10000, n ? end - 4 : end - 134, 0x30000, mode));
        assert_true(enable(64, 0x10000, 0x20000, n ? end - 4 : end - 520, mode));
        assert_true(enable(1, 0x10000, 0x20000, 0x30000, mode));
        /* Without bus mastering there is no memory */
        vd_config_write(t.b, TD_DEVFN, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
        assert_false(enable(64, 0x10000, 0x20000, 0x30000, mode));
        vd_config_write(t.b, TD_DEVFN, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
        assert_true(enable(64, 0x10000, 0x20000, 0x30000, mode));
    }
    td_free(&t);
}

static void virtio__vectors(void **state)
{
    (void)state;
    td_new(&t);
    assert_true(t.drv.msix_n >= 2);
    vd_start(&t.drv, vd_mode(0), 0, 16);
    vd_put(&t.drv, VD_CONFIG_VECTOR, 2, t.drv.msix_n);
    assert_int_equal(vd_get(&t.drv, VD_CONFIG_VECTOR, 2), 0xffff);
    vd_put(&t.drv, VD_QUEUE_SELECT, 2, 0);
    vd_put(&t.drv, VD_QUEUE_VECTOR, 2, 0x7fff);
    assert_int_equal(vd_get(&t.drv, VD_QUEUE_VECTOR, 2), 0xffff);
    /* No vector, no message, and nothing on the line either */
    memset(t.b->msi, 0, sizeof(t.b->msi));
    vm_lock(&t.b->m->vm);
    virtio_config_changed(&t.d);
    vm_unlock(&t.b->m->vm);
    assert_true(vd_add(&t.drv, 0, &(struct vd_buf){0x1000, 1}, 1, 0) >= 0);
    assert_true(td_pop(&t, 0));
    td_push(&t, 0, 0);
    td_signal(&t, 0);
    for (unsigned i = 0; i < 256; i++)
        assert_int_equal(t.b->msi[i], 0);
    assert_false(t.b->lines[TD_SLOT].level);
    td_free(&t);
}

static void virtio__isr(void **state)
{
    (void)state;
    td_new(&t);
    vd_start(&t.drv, vd_mode(8), 0, 16);
    assert_int_equal(vm_mmio_read(&t.b->m->vm, t.drv.isr, 1), 0);
    vm_lock(&t.b->m->vm);
    virtio_config_changed(&t.d);
    vm_unlock(&t.b->m->vm);
    assert_true(t.b->lines[TD_SLOT].level);
    assert_true(vd_add(&t.drv, 0, &(struct vd_buf){0x1000, 1}, 1, 0) >= 0);
    assert_true(td_pop(&t, 0));
    td_push(&t, 0, 0);
    td_signal(&t, 0);
    assert_int_equal(vm_mmio_read(&t.b->m->vm, t.drv.isr, 1), 3);
    assert_false(t.b->lines[TD_SLOT].level);
    assert_int_equal(vm_mmio_read(&t.b->m->vm, t.drv.isr, 1), 0);
    /* A reset takes the line down */
    vm_lock(&t.b->m->vm);
    virtio_config_changed(&t.d);
    vm_unlock(&t.b->m->vm);
    assert_true(t.b->lines[TD_SLOT].level);
    assert_true(vd_reset(&t.drv));
    assert_false(t.b->lines[TD_SLOT].level);
    td_free(&t);
}

static void virtio__configuration(void **state)
{
    u8 generation;

    (void)state;
    td_new(&t);
    for (unsigned i = 0; i < TD_CONFIG; i++)
        t.config[i] = (u8)(0x10 + i);
    assert_int_equal(vd_dev_get(&t.drv, 0, 4), 0x13121110);
    assert_int_equal(vd_dev_get(&t.drv, 18, 2), 0x2322);
    assert_int_equal(vd_dev_get(&t.drv, 19, 1), 0x23);
    vd_dev_put(&t.drv, 4, 2, 0xbeef);
    assert_int_equal(vd_dev_get(&t.drv, 4, 4), 0x1716beef);
    /* Behind its end, and across it: nothing reaches the device */
    vm_mmio_read(&t.b->m->vm, t.drv.device + TD_CONFIG, 4);
    vm_mmio_write(&t.b->m->vm, t.drv.device + TD_CONFIG, 4, 1);
    vm_mmio_read(&t.b->m->vm, t.drv.device + TD_CONFIG - 1, 4);
    vm_mmio_write(&t.b->m->vm, t.drv.device + TD_CONFIG - 2, 8, 1);
    /* No interrupt before DRIVER_OK, but another generation */
    vd_negotiate(&t.drv, vd_mode(0), 0);
    generation = (u8)vd_get(&t.drv, VD_GENERATION, 1);
    vm_lock(&t.b->m->vm);
    virtio_config_changed(&t.d);
    vm_unlock(&t.b->m->vm);
    assert_int_equal(vd_config_interrupts(&t.drv), 0);
    assert_int_not_equal(vd_get(&t.drv, VD_GENERATION, 1), generation);
    for (unsigned msix = 0; msix < 2; msix++) {
        vd_start(&t.drv, vd_mode(msix ? 0 : 8), 0, 16);
        vm_lock(&t.b->m->vm);
        virtio_config_changed(&t.d);
        vm_unlock(&t.b->m->vm);
        assert_int_equal(vd_config_interrupts(&t.drv), 1);
        assert_int_equal(vd_interrupts(&t.drv, 0), 0);
    }
    td_free(&t);
}

/* The window in configuration space (4.1.4.9). */
static void virtio__access_through_configuration_space(void **state)
{
    unsigned cap, status = 0, bar = 0;
    u32 common = 0, off = 0;

    (void)state;
    td_new(&t);
    for (cap = vd_config(t.b, TD_DEVFN, 0x34, 1); cap; cap = vd_config(t.b, TD_DEVFN, cap + 1, 1)) {
        if (vd_config(t.b, TD_DEVFN, cap, 1) != 9)
            continue;
        if (vd_config(t.b, TD_DEVFN, cap + 3, 1) == 1) {
            bar = vd_config(t.b, TD_DEVFN, cap + 4, 1);
            common = vd_config(t.b, TD_DEVFN, cap + 8, 4);
        } else if (vd_config(t.b, TD_DEVFN, cap + 3, 1) == 5) {
            status = cap;
        }
    }
    assert_int_not_equal(status, 0);
    cap = status;
    off = common + VD_STATUS;
    vd_config_write(t.b, TD_DEVFN, cap + 4, 1, bar);
    vd_config_write(t.b, TD_DEVFN, cap + 8, 4, off);
    vd_config_write(t.b, TD_DEVFN, cap + 12, 4, 1);
    vd_config_write(t.b, TD_DEVFN, cap + 16, 1, VD_ACKNOWLEDGE);
    assert_int_equal(vd_status(&t.drv), VD_ACKNOWLEDGE);
    vd_put(&t.drv, VD_STATUS, 1, VD_ACKNOWLEDGE | VD_DRIVER);
    assert_int_equal(vd_config(t.b, TD_DEVFN, cap + 16, 1), VD_ACKNOWLEDGE | VD_DRIVER);
    vd_config_write(t.b, TD_DEVFN, cap + 8, 4, common + VD_NUM_QUEUES);
    vd_config_write(t.b, TD_DEVFN, cap + 12, 4, 2);
    assert_int_equal(vd_config(t.b, TD_DEVFN, cap + 16, 2), TD_QUEUES);
    /* What it cannot be pointed at */
    for (unsigned i = 0; i < 64; i++) {
        static const u32 offs[] = {0,      1,          0x3ffc,     0x3fff,
                                   0x4000, 0x7ffffffe, 0xfffffffc, 0xffffffff};
        static const u32 lens[] = {0, 3, 4, 8, 0x1000, 0x80000000, 0xffffffff, 2};
        vd_config_write(t.b, TD_DEVFN, cap + 4, 1, i % 7);
        vd_config_write(t.b, TD_DEVFN, cap + 8, 4, offs[i / 8]);
        vd_config_write(t.b, TD_DEVFN, cap + 12, 4, lens[i % 8]);
        vd_config(t.b, TD_DEVFN, cap + 16, 4);
        vd_config_write(t.b, TD_DEVFN, cap + 16, 4, 0x55);
    }
    td_free(&t);
}

static void virtio__notifications_before_their_time(void **state)
{
    (void)state;
    td_new(&t);
    vd_negotiate(&t.drv, vd_mode(0), 0);
    vd_setup_queue(&t.drv, 0, 16);
    vd_setup_queue(&t.drv, 1, 16);
    vd_add(&t.drv, 0, &(struct vd_buf){0x1000, 1}, 1, 0);
    vd_notify(&t.drv, 0);
    assert_int_equal(t.notified[0], 0);
    assert_false(td_pop(&t, 0));
    vd_driver_ok(&t.drv);
    /* It was not lost: the driver need not say it twice (3.1.1) */
    assert_true(t.notified[0] >= 1);
    assert_true(td_pop(&t, 0));
    /* Queue 2 was never enabled */
    vm_mmio_write(&t.b->m->vm, t.drv.notify + 2ull * t.drv.notify_multiplier, 2, 2);
    assert_int_equal(t.notified[2], 0);
    assert_false(td_pop(&t, 2));
    td_push(&t, 0, 0);
    td_free(&t);
}

/* I7: what comes back after a reset is of no matter. */
static void virtio__reset_with_requests_in_flight(void **state)
{
    (void)state;
    for (unsigned n = 0; n < VD_MODES; n++) {
        struct host_iov iov[3][8];
        struct virtq_chain c[3];
        u8 *ring;
        u8 before[0x200];
        u64 buf;

        td_new(&t);
        vd_start(&t.drv, vd_mode(n), 0, 16);
        buf = vd_alloc(t.b, 256, 4096); /* not near the rings */
        vm_lock(&t.b->m->vm);
        for (unsigned i = 0; i < 3; i++) {
            c[i] = (struct virtq_chain){.iov = iov[i], .cap = 8};
            vm_unlock(&t.b->m->vm);
            assert_true(vd_add(&t.drv, i == 2, &(struct vd_buf){buf, 16}, 0, 1) >= 0);
            vm_lock(&t.b->m->vm);
            assert_true(virtq_pop(&t.d, i == 2, &c[i]));
        }
        vm_unlock(&t.b->m->vm);
        ring = vd_ram(t.b, t.drv.q[0].desc);
        memcpy(before, ring, sizeof(before));
        assert_false(vd_reset(&t.drv));
        memset(t.b->msi, 0, sizeof(t.b->msi));
        assert_int_not_equal(vd_status(&t.drv), 0);
        /* Until it is done nothing else begins */
        vd_put(&t.drv, VD_STATUS, 1, VD_ACKNOWLEDGE);
        vd_put(&t.drv, VD_QUEUE_SELECT, 2, 0);
        vd_put(&t.drv, VD_QUEUE_ENABLE, 2, 1);
        vd_put(&t.drv, VD_STATUS, 1, 0);
        assert_false(virtio_live(&t.d));
        vm_lock(&t.b->m->vm);
        memcpy(c[0].iov[0].base, "late", 4);
        virtq_push(&t.d, 0, &c[0], 4);
        virtq_signal(&t.d, 0);
        virtq_drop(&t.d, 1, &c[2]);
        assert_int_not_equal(t.d.status, 0);
        virtq_unpop(&t.d, 0, &c[1]);
        assert_int_equal(t.d.status, 0);
        virtq_signal(&t.d, 0);
        assert_false(virtq_want_notify(&t.d, 0, true));
        assert_false(virtq_ready(&t.d, 0));
        vm_unlock(&t.b->m->vm);
        assert_int_equal(vd_status(&t.drv), 0);
        assert_memory_equal(before, ring, sizeof(before));
        for (unsigned i = 0; i < 256; i++)
            assert_int_equal(t.b->msi[i], 0);
        assert_false(t.b->lines[TD_SLOT].level);
        /* And it can be used again */
        vd_start(&t.drv, vd_mode(n ^ 1), 0, 16);
        assert_true(vd_add(&t.drv, 0, &(struct vd_buf){buf, 16}, 1, 0) >= 0);
        assert_true(td_pop(&t, 0));
        td_push(&t, 0, 0);
        assert_true(vd_used(&t.drv, 0, NULL) >= 0);
        td_free(&t);
    }
}

/* I12: a device's registers are no memory for devices. */
static void virtio__dma_to_registers_is_refused(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 2; n++)
        for (unsigned dir = 0; dir < 2; dir++) {
            td_new(&t);
            vd_start(&t.drv, vd_mode(n), 0, 16);
            vd_add(&t.drv, 0, &(struct vd_buf){t.drv.common, 4}, !dir, dir);
            assert_false(td_pop(&t, 0));
            assert_true(vd_status(&t.drv) & VD_NEEDS_RESET);
            td_free(&t);
        }
}

static void virtio__without_bus_mastering(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 2; n++) {
        td_new(&t);
        vd_start(&t.drv, vd_mode(n), 0, 16);
        vd_add(&t.drv, 0, &(struct vd_buf){0x1000, 4}, 0, 1);
        vd_config_write(t.b, TD_DEVFN, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
        assert_false(td_pop(&t, 0));
        /* No message either: it would be a write */
        for (unsigned i = 0; i < 256; i++)
            assert_int_equal(t.b->msi[i], 0);
        td_free(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(virtio__features),
        cmocka_unit_test(virtio__status),
        cmocka_unit_test(virtio__queue_registers_are_frozen_while_enabled),
        cmocka_unit_test(virtio__queues_before_features_ok),
        cmocka_unit_test(virtio__queue_that_is_not_there),
        cmocka_unit_test(virtio__bad_queues_are_refused),
        cmocka_unit_test(virtio__vectors),
        cmocka_unit_test(virtio__isr),
        cmocka_unit_test(virtio__configuration),
        cmocka_unit_test(virtio__access_through_configuration_space),
        cmocka_unit_test(virtio__notifications_before_their_time),
        cmocka_unit_test(virtio__reset_with_requests_in_flight),
        cmocka_unit_test(virtio__dma_to_registers_is_refused),
        cmocka_unit_test(virtio__without_bus_mastering),
    };
    return cmocka_run_group_tests_name("dev-virtio", tests, NULL, NULL);
}
