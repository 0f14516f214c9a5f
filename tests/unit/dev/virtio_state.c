/* SPDX-License-Identifier: Apache-2.0 */
/* States of the virtio core: queues go on where they stood, and nonsense is refused. */
#include <errno.h>
#include <string.h>

#include "dev/virtio_test.h"

static struct test_device t;
static u8 bytes[8192];
static size_t len, taken;

static int save(void)
{
    struct stream out;
    const char *why = NULL;
    int err;

    stream_init(&out, bytes, sizeof(bytes));
    vm_lock(&t.b->m->vm);
    err = virtio_pci_save(&t.pci, &out, &why);
    vm_unlock(&t.b->m->vm);
    assert_int_equal(out.error, 0);
    assert_true(!err == !why);
    len = out.pos;
    return err;
}

static int load(size_t n)
{
    struct stream in;
    int err;

    stream_init(&in, bytes, n);
    vm_lock(&t.b->m->vm);
    err = virtio_pci_load(&t.pci, &in);
    vm_unlock(&t.b->m->vm);
    assert_true(err == 0 || err == -EINVAL);
    if (err)
        assert_false(virtio_live(&t.d));
    taken = in.pos;
    return err;
}

/* Everything a driver reads. */
static void registers(u32 *v)
{
    for (unsigned q = 0; q < TD_QUEUES; q++) {
        vd_put(&t.drv, VD_QUEUE_SELECT, 2, q);
        for (unsigned off = 0; off < 56; off += 4)
            *v++ = vd_get(&t.drv, off, 4);
    }
}

/* Saves, puts the device into its first state, with the registers as a new function has them, and
 * loads. */
static void again(void)
{
    u32 before[TD_QUEUES * 14], after[TD_QUEUES * 14];
    struct probe lines[4];
    unsigned msi[ARRAY_SIZE(t.b->msi)];
    struct virtio_device d;

    registers(before);
    assert_int_equal(save(), 0);
    d = t.d;
    memcpy(lines, t.b->lines, sizeof(lines));
    memcpy(msi, t.b->msi, sizeof(msi));
    vm_lock(&t.b->m->vm);
    virtio_pci_reset(&t.pci);
    vm_unlock(&t.b->m->vm);
    assert_false(virtio_live(&t.d));
    assert_int_equal(load(len), 0);
    assert_int_equal(taken, len);
    assert_memory_equal(msi, t.b->msi, sizeof(msi));
    assert_int_equal(t.b->lines[TD_SLOT].rises, lines[TD_SLOT].rises);
    /* Whose other ends are not this device's to load. */
    memcpy(t.b->lines, lines, sizeof(lines));
    registers(after);
    assert_memory_equal(before, after, sizeof(before));
    for (unsigned q = 0; q < TD_QUEUES; q++)
        assert_memory_equal(&d.q[q], &t.d.q[q], sizeof(d.q[q]));
}

static void state__queues_go_on_where_they_stood(void **state)
{
    (void)state;
    for (unsigned mode = 0; mode < VD_MODES; mode++) {
        td_new(&t);
        vd_start(&t.drv, vd_mode(mode), TD_FEATURE, 8);
        for (unsigned i = 0; i < 50; i++) {
            const struct vd_buf b[3] = {{0x100000, 10 + i}, {0x101000, 20}, {0x102000, 30 + i}};
            u32 n;

            vd_want_interrupt(&t.drv, 0, 1);
            assert_true(vd_add(&t.drv, 0, b, 1 + i % 2, 1) >= 0);
            assert_true(vd_add(&t.drv, 0, b, 0, 1) >= 0);
            if (i % 3 == 0)
                again(); /* two available */
            assert_true(td_pop(&t, 0));
            assert_int_equal(t.c.out_len, 10 + i + (i % 2 ? 20 : 0));
            td_push(&t, 0, 3);
            if (i % 3 == 1)
                again(); /* one done, not signalled */
            td_signal(&t, 0);
            assert_int_equal(vd_interrupts(&t.drv, 0), 1);
            if (i % 7 == 1)
                again();
            assert_true(td_pop(&t, 0));
            assert_int_equal(t.c.in_len, 10 + i);
            td_push(&t, 0, 4);
            td_signal(&t, 0);
            if (i % 3 == 2)
                again(); /* two used */
            assert_true(vd_used(&t.drv, 0, &n) >= 0);
            assert_int_equal(n, 3);
            assert_true(vd_used(&t.drv, 0, &n) >= 0);
            assert_int_equal(n, 4);
            assert_int_equal(vd_used(&t.drv, 0, NULL), -1);
            vd_interrupts(&t.drv, 0);
        }
        assert_int_equal(vd_status(&t.drv) & VD_NEEDS_RESET, 0);
        td_free(&t);
    }
}

static void state__before_the_driver_is_ready(void **state)
{
    (void)state;
    for (unsigned mode = 0; mode < 2; mode++) {
        td_new(&t);
        again();
        vd_put(&t.drv, VD_STATUS, 1, VD_ACKNOWLEDGE | VD_DRIVER);
        vd_put(&t.drv, VD_DRIVER_FEATURE, 4, 0xffffffff); /* of which nothing follows yet */
        again();
        vd_negotiate(&t.drv, vd_mode(mode), 0);
        vd_setup_queue(&t.drv, 1, 16);
        vd_put(&t.drv, VD_QUEUE_SELECT, 2, 0);
        vd_put64(&t.drv, VD_QUEUE_DESC, UINT64_MAX);
        again();
        vd_driver_ok(&t.drv);
        assert_true(vd_add(&t.drv, 1, &(struct vd_buf){0x100000, 1}, 1, 0) >= 0);
        assert_true(td_pop(&t, 1));
        td_push(&t, 1, 0);
        assert_true(vd_used(&t.drv, 1, NULL) >= 0);
        /* Without bus mastering an enabled queue stays one. */
        vd_config_write(t.b, TD_DEVFN, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
        again();
        assert_true(t.d.q[1].enabled);
        td_free(&t);
    }
}

static void state__interrupts_are_not_lost(void **state)
{
    (void)state;
    td_new(&t);
    vd_start(&t.drv, vd_mode(8), 0, 16);
    vm_lock(&t.b->m->vm);
    virtio_config_changed(&t.d);
    vm_unlock(&t.b->m->vm);
    assert_true(t.b->lines[TD_SLOT].level);
    assert_int_equal(save(), 0);
    t.pci.isr = 0;
    assert_int_equal(load(len), 0);
    assert_int_equal(vd_config_interrupts(&t.drv), 1);
    td_free(&t);
}

static void state__chains_in_flight(void **state)
{
    (void)state;
    td_new(&t);
    vd_start(&t.drv, vd_mode(0), 0, 16);
    assert_true(vd_add(&t.drv, 0, &(struct vd_buf){0x100000, 1}, 1, 0) >= 0);
    assert_true(td_pop(&t, 0));
    assert_int_equal(save(), -EBUSY);
    assert_false(vd_reset(&t.drv));
    assert_int_equal(save(), -EBUSY);
    td_push(&t, 0, 0);
    assert_int_equal(save(), 0);
    td_free(&t);
}

/* A driver that broke the rules with a chain of its in nobody's hands. */
static void state__broken(void **state)
{
    (void)state;
    for (unsigned mode = 0; mode < 2; mode++) {
        td_new(&t);
        vd_start(&t.drv, vd_mode(mode), 0, 16);
        assert_true(vd_add(&t.drv, 0, &(struct vd_buf){0x100000, 1}, 1, 0) >= 0);
        assert_true(td_pop(&t, 0));
        vm_lock(&t.b->m->vm);
        virtq_drop(&t.d, 0, &t.c);
        virtio_broken(&t.d, "test");
        vm_unlock(&t.b->m->vm);
        vd_config_interrupts(&t.drv);
        again();
        assert_int_equal(vd_status(&t.drv) & VD_NEEDS_RESET, VD_NEEDS_RESET);
        vd_start(&t.drv, vd_mode(mode), 0, 16);
        assert_true(virtio_live(&t.d));
        td_free(&t);
    }
}

/* What is done to a device before it is saved, so that it must not be loaded. */
static void spoil(unsigned what, struct virtio_device *d)
{
    struct virtq *q = &d->q[2];

    switch (what) {
    case 0:
        q->size = 0;
        break;
    case 1:
        q->size = 2048;
        break;
    case 2:
        q->desc = FAKE_RAM_SIZE - 16;
        break;
    case 3:
        q->driver = UINT64_MAX & ~3ull;
        break;
    case 4:
        q->device = FAKE_RAM_SIZE;
        break;
    case 5:
        q->desc += 8;
        break;
    case 6:
        q->driver++;
        break;
    case 7:
        q->device += 2;
        break;
    case 8: /* what was never offered */
        d->features |= BIT64(7);
        break;
    case 9:
        d->features &= ~VD_F_VERSION_1;
        break;
    case 10: /* no layout is agreed on */
        d->status = VD_ACKNOWLEDGE | VD_DRIVER;
        break;
    case 11:
        d->status &= (u8)~VD_FEATURES_OK;
        break;
    case 12:
        q->vector = 0x7fff;
        break;
    case 13:
        d->config_vector = TD_QUEUES + 1;
        break;
    case 14: /* more taken than there are */
        q->next_avail = (u16)(q->next_used + q->size + 1);
        break;
    case 15:
        q->next_used++;
        break;
    case 16:
        d->nqueues--;
        break;
    case 17: /* without being enabled */
        d->q[0].size = 65;
        break;
    case 18:
        d->q[0].size = 0;
        break;
    case 19: /* split: powers of two; packed: less than the place in it */
        q->size = 12;
        q->next_avail = q->next_used = 12;
        break;
    default:
        break;
    }
}

static void state__nonsense_is_refused(void **state)
{
    (void)state;
    for (unsigned mode = 0; mode < 2; mode++)
        for (unsigned what = 0; what <= 20; what++) {
            struct virtio_device d;

            td_new(&t);
            vd_negotiate(&t.drv, vd_mode(mode), 0);
            vd_setup_queue(&t.drv, 1, 16);
            vd_setup_queue(&t.drv, 2, 16);
            vd_driver_ok(&t.drv);
            d = t.d;
            spoil(what, &t.d);
            assert_int_equal(save(), 0);
            t.d = d;
            assert_int_equal(load(len), what == 20 ? 0 : -EINVAL);
            td_free(&t);
        }
}

static void state__every_byte_counts(void **state)
{
    (void)state;
    for (unsigned mode = 0; mode < 2; mode++) {
        size_t n;

        td_new(&t);
        vd_start(&t.drv, vd_mode(mode), 0, 16);
        assert_int_equal(save(), 0);
        for (n = 0; n < len; n++)
            assert_int_equal(load(n), -EINVAL);
        /* Whatever a byte is, the device holds. */
        for (n = 0; n < len; n++)
            for (unsigned bit = 0; bit < 8; bit++) {
                bytes[n] ^= (u8)BIT32(bit);
                if (!load(len))
                    for (unsigned q = 0; q < TD_QUEUES; q++)
                        if (td_pop(&t, q))
                            td_push(&t, q, 0);
                bytes[n] ^= (u8)BIT32(bit);
            }
        assert_int_equal(load(len), 0);
        td_free(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(state__queues_go_on_where_they_stood),
        cmocka_unit_test(state__before_the_driver_is_ready),
        cmocka_unit_test(state__interrupts_are_not_lost),
        cmocka_unit_test(state__chains_in_flight),
        cmocka_unit_test(state__broken),
        cmocka_unit_test(state__nonsense_is_refused),
        cmocka_unit_test(state__every_byte_counts),
    };

    return cmocka_run_group_tests_name("dev-virtio-state", tests, NULL, NULL);
}
