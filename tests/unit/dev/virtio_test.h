/* SPDX-License-Identifier: Apache-2.0 */
/* A virtio device that does nothing by itself, on a board with a driver: for tests of the core. */
#ifndef TRIVISOR_TESTS_UNIT_DEV_VIRTIO_TEST_H
#define TRIVISOR_TESTS_UNIT_DEV_VIRTIO_TEST_H

#include "dev/pci/host.h"
#include "dev/virtio/pci.h"
#include "dev/virtio_driver.h"
#include "test.h"

#define TD_SLOT 3
#define TD_DEVFN PCI_DEVFN(TD_SLOT, 0)
#define TD_QUEUES 3
#define TD_CONFIG 20
#define TD_FEATURE BIT64(5)

struct test_device {
    struct virtio_device d;
    struct virtio_pci pci;
    u8 config[TD_CONFIG];
    bool refuse_features;
    unsigned notified[TD_QUEUES], resets, starts;
    struct host_iov iov[64];
    struct virtq_chain c;
    struct vd_board *b;
    struct vdriver drv;
};

static u32 td_config_read(struct virtio_device *d, unsigned off, unsigned size)
{
    u32 v = 0;

    assert_true(off + size <= TD_CONFIG);
    for (unsigned i = 0; i < size; i++)
        v |= (u32)container_of(d, struct test_device, d)->config[off + i] << (8 * i);
    return v;
}

static void td_config_write(struct virtio_device *d, unsigned off, unsigned size, u32 val)
{
    assert_true(off + size <= TD_CONFIG);
    for (unsigned i = 0; i < size; i++)
        container_of(d, struct test_device, d)->config[off + i] = (u8)(val >> (8 * i));
}

static bool td_features_ok(struct virtio_device *d)
{
    return !container_of(d, struct test_device, d)->refuse_features;
}

static void td_start(struct virtio_device *d)
{
    container_of(d, struct test_device, d)->starts++;
}

static void td_notify(struct virtio_device *d, unsigned q)
{
    container_of(d, struct test_device, d)->notified[q]++;
}

static void td_reset(struct virtio_device *d)
{
    container_of(d, struct test_device, d)->resets++;
}

static const struct virtio_ops td_ops = {.config_read = td_config_read,
                                         .config_write = td_config_write,
                                         .features_ok = td_features_ok,
                                         .start = td_start,
                                         .notify = td_notify,
                                         .reset = td_reset};

/* Queues of at most 64, 16 and 1024 entries. */
static inline void td_new(struct test_device *t)
{
    *t = (struct test_device){.b = vd_board_new()};
    virtio_init(&t->d, &t->b->m->vm, &td_ops, VIRTIO_ID_ENTROPY, "test0", TD_CONFIG);
    t->d.offered |= TD_FEATURE;
    virtio_add_queue(&t->d, 64);
    virtio_add_queue(&t->d, 16);
    virtio_add_queue(&t->d, 1024);
    assert_int_equal(virtio_pci_init(&t->pci, &t->d, t->b->host, TD_DEVFN, 0xff0000), 0);
    t->c.iov = t->iov;
    t->c.cap = ARRAY_SIZE(t->iov);
    vd_attach(&t->drv, t->b, TD_DEVFN);
}

static inline void td_free(struct test_device *t)
{
    vd_board_free(t->b);
}

/* Device side, with the lock as devices have it. */
static inline bool td_pop(struct test_device *t, unsigned q)
{
    bool r;

    vm_lock(&t->b->m->vm);
    r = virtq_pop(&t->d, q, &t->c);
    vm_unlock(&t->b->m->vm);
    return r;
}

static inline void td_push(struct test_device *t, unsigned q, u32 written)
{
    vm_lock(&t->b->m->vm);
    virtq_push(&t->d, q, &t->c, written);
    vm_unlock(&t->b->m->vm);
}

static inline void td_signal(struct test_device *t, unsigned q)
{
    vm_lock(&t->b->m->vm);
    virtq_signal(&t->d, q);
    vm_unlock(&t->b->m->vm);
}

#endif
