/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/virtio/pci.h"

#include <errno.h>
#include <string.h>

#include "base/check.h"

#define VENDOR 0x1af4
#define DEVICE_BASE 0x1040 /* plus the device type (4.1.2.1) */
#define SUBSYSTEM 0x1100

/* One BAR holds the registers, another MSI-X. */
#define MSIX_BAR 1
#define REGS_BAR 4
#define REGS_SIZE 0x4000
#define COMMON_OFF 0x0000
#define ISR_OFF 0x1000
#define CONFIG_OFF 0x2000
#define NOTIFY_OFF 0x3000
#define AREA_SIZE 0x1000
#define NOTIFY_MULTIPLIER 4

/* Capability types (4.1.4) */
#define CAP_COMMON 1
#define CAP_NOTIFY 2
#define CAP_ISR 3
#define CAP_DEVICE 4
#define CAP_PCI 5

#define CAP_BAR 4
#define CAP_OFFSET 8
#define CAP_LENGTH 12
#define CAP_DATA 16

/* Common configuration (4.1.4.3) */
enum {
    DEVICE_FEATURE_SELECT = 0x00,
    DEVICE_FEATURE = 0x04,
    DRIVER_FEATURE_SELECT = 0x08,
    DRIVER_FEATURE = 0x0c,
    CONFIG_MSIX_VECTOR = 0x10,
    NUM_QUEUES = 0x12,
    DEVICE_STATUS = 0x14,
    CONFIG_GENERATION = 0x15,
    QUEUE_SELECT = 0x16,
    QUEUE_SIZE = 0x18,
    QUEUE_MSIX_VECTOR = 0x1a,
    QUEUE_ENABLE = 0x1c,
    QUEUE_NOTIFY_OFF = 0x1e,
    QUEUE_DESC = 0x20,
    QUEUE_DRIVER = 0x28,
    QUEUE_DEVICE = 0x30,
    COMMON_SIZE = 0x38,
};

#define TOUCH_MAX ((u64)2 << 20)

#define ISR_QUEUE 1
#define ISR_CONFIG 2

/* --- interrupts ----------------------------------------------------------------------------------
 */

static void interrupt(struct virtio_pci *t, u16 vector, u8 isr)
{
    if (pci_msix_enabled(&t->pci)) {
        if (vector != VIRTIO_NO_VECTOR)
            pci_msix_send(&t->pci, vector);
        return;
    }
    t->isr |= isr;
    pci_set_intx(&t->pci, true);
}

static void queue_interrupt(void *opaque, u16 vector)
{
    interrupt(opaque, vector, ISR_QUEUE);
}

static void config_interrupt(void *opaque, u16 vector)
{
    interrupt(opaque, vector, ISR_CONFIG);
}

static u8 *map(void *opaque, u64 addr, u64 *len, bool write)
{
    struct virtio_pci *t = opaque;
    u8 *p = pci_dma_map(&t->pci, addr, len, write);
    const struct mem_slot *s =
        p && !t->d->no_populate ? guest_mem_slot(&t->d->vm->mem, gpa(addr)) : NULL;

    /* What is usual is made cheap; a huge buffer is not worth the time under the lock. */
    if (s)
        guest_mem_touch(s, gpa(addr), *len < TOUCH_MAX ? *len : TOUCH_MAX);
    return p;
}

static const struct virtio_transport transport = {
    .queue_interrupt = queue_interrupt, .config_interrupt = config_interrupt, .map = map};

/* Reading it takes back the interrupt (4.1.4.5). */
static u64 read_isr(struct virtio_pci *t)
{
    u8 isr = t->isr;

    t->isr = 0;
    pci_set_intx(&t->pci, false);
    return isr;
}

/* --- common configuration ------------------------------------------------------------------------
 */

static struct virtq *selected(struct virtio_pci *t)
{
    return t->queue_select < t->d->nqueues ? &t->d->q[t->queue_select] : NULL;
}

static u32 half(u64 v, u32 select)
{
    return select == 0 ? (u32)v : select == 1 ? (u32)(v >> 32) : 0;
}

/* The aligned double word at off. Reading has no effect on anything. */
static u32 read_queue(struct virtio_pci *t, u64 off)
{
    const struct virtq *q = selected(t);

    if (!q)
        return off == QUEUE_SIZE ? (u32)VIRTIO_NO_VECTOR << 16 : 0;
    switch (off) {
    case QUEUE_SIZE: /* and QUEUE_MSIX_VECTOR */
        return q->size | (u32)q->vector << 16;
    case QUEUE_ENABLE: /* and QUEUE_NOTIFY_OFF */
        return (q->enabled || q->early) | (u32)t->queue_select << 16;
    case QUEUE_DESC:
    case QUEUE_DESC + 4:
        return half(q->desc, off != QUEUE_DESC);
    case QUEUE_DRIVER:
    case QUEUE_DRIVER + 4:
        return half(q->driver, off != QUEUE_DRIVER);
    case QUEUE_DEVICE:
    case QUEUE_DEVICE + 4:
        return half(q->device, off != QUEUE_DEVICE);
    default:
        return 0;
    }
}

static u32 read_common(struct virtio_pci *t, u64 off)
{
    const struct virtio_device *d = t->d;

    switch (off) {
    case DEVICE_FEATURE_SELECT:
        return t->device_feature_select;
    case DEVICE_FEATURE:
        return half(d->offered, t->device_feature_select);
    case DRIVER_FEATURE_SELECT:
        return t->driver_feature_select;
    case DRIVER_FEATURE:
        return half(d->features, t->driver_feature_select);
    case CONFIG_MSIX_VECTOR: /* and NUM_QUEUES */
        return d->config_vector | (u32)d->nqueues << 16;
    case DEVICE_STATUS: /* and CONFIG_GENERATION, QUEUE_SELECT */
        return virtio_get_status(d) | (u32)d->config_generation << 8 | (u32)t->queue_select << 16;
    default:
        return read_queue(t, off);
    }
}

/* A vector the function does not have reads back as none (4.1.4.3.1). */
static u16 valid_vector(const struct virtio_pci *t, u64 val)
{
    return val < t->pci.msix_n ? (u16)val : VIRTIO_NO_VECTOR;
}

static void write_features(struct virtio_pci *t, u32 val)
{
    struct virtio_device *d = t->d;

    if (d->status & VIRTIO_STATUS_FEATURES_OK)
        return;
    if (t->driver_feature_select == 0)
        d->features = (d->features & MASK64(63, 32)) | val;
    else if (t->driver_feature_select == 1)
        d->features = (u32)d->features | (u64)val << 32;
}

static void set_half(u64 *reg, bool high, u32 val)
{
    *reg = high ? (u32)*reg | (u64)val << 32 : (*reg & MASK64(63, 32)) | val;
}

/* Of the selected queue. Sizes and addresses are frozen while it is enabled. */
static void write_queue(struct virtio_pci *t, u64 off, unsigned size, u32 val)
{
    struct virtq *q = selected(t);

    if (!q || t->d->resetting)
        return;
    if (off == QUEUE_MSIX_VECTOR && size == 2)
        q->vector = valid_vector(t, val);
    if (q->enabled)
        return;
    if (off == QUEUE_SIZE && size == 2) {
        if (val && val <= q->size_max)
            q->size = (u16)val;
    } else if (off == QUEUE_ENABLE && size == 2) {
        /* Features say what layout rings have. A driver should settle them first (3.1.1), but some
         * do not (Little Kernel), and QEMU lets them. */
        if (val == 1 && !(t->d->status & VIRTIO_STATUS_FEATURES_OK))
            q->early = true;
        else if (val == 1)
            virtio_enable_queue(t->d, t->queue_select);
    } else if (size == 4) {
        if (off == QUEUE_DESC || off == QUEUE_DESC + 4)
            set_half(&q->desc, off != QUEUE_DESC, val);
        else if (off == QUEUE_DRIVER || off == QUEUE_DRIVER + 4)
            set_half(&q->driver, off != QUEUE_DRIVER, val);
        else if (off == QUEUE_DEVICE || off == QUEUE_DEVICE + 4)
            set_half(&q->device, off != QUEUE_DEVICE, val);
    }
}

/* Fields are written in their own width (4.1.3.1), 64-bit ones in halves; anything else is
 * ignored. */
static void write_common(struct virtio_pci *t, u64 off, unsigned size, u32 val)
{
    struct virtio_device *d = t->d;

    if (off == DEVICE_FEATURE_SELECT && size == 4) {
        t->device_feature_select = val;
    } else if (off == DRIVER_FEATURE_SELECT && size == 4) {
        t->driver_feature_select = val;
    } else if (off == DRIVER_FEATURE && size == 4) {
        write_features(t, val);
    } else if (off == CONFIG_MSIX_VECTOR && size == 2) {
        if (!d->resetting)
            d->config_vector = valid_vector(t, val);
    } else if (off == DEVICE_STATUS && size == 1) {
        virtio_set_status(d, (u8)val);
        if (!val) {
            t->queue_select = 0;
            t->device_feature_select = t->driver_feature_select = 0;
            read_isr(t);
        }
    } else if (off == QUEUE_SELECT && size == 2) {
        t->queue_select = (u16)val;
    } else if (off >= QUEUE_SIZE) {
        write_queue(t, off, size, val);
    }
}

/* --- the register BAR ----------------------------------------------------------------------------
 */

static u64 regs_read(void *opaque, u64 off, unsigned size)
{
    struct virtio_pci *t = opaque;
    u64 in = off % AREA_SIZE;

    switch (off - in) {
    case COMMON_OFF:
        if (in + size > COMMON_SIZE || in % 4 + size > 4)
            return 0;
        return read_common(t, in & ~3ull) >> (8 * (in % 4));
    case ISR_OFF:
        return in == 0 ? read_isr(t) : 0;
    case CONFIG_OFF:
        return in + size <= t->d->config_size ? t->d->ops->config_read(t->d, (unsigned)in, size)
                                              : 0;
    default:
        return 0;
    }
}

static void regs_write(void *opaque, u64 off, unsigned size, u64 val)
{
    struct virtio_pci *t = opaque;
    u64 in = off % AREA_SIZE;

    switch (off - in) {
    case COMMON_OFF:
        if (in + size <= COMMON_SIZE)
            write_common(t, in, size, (u32)val);
        break;
    case CONFIG_OFF:
        if (in + size <= t->d->config_size && t->d->ops->config_write)
            t->d->ops->config_write(t->d, (unsigned)in, size, (u32)val);
        break;
    case NOTIFY_OFF:
        virtio_notify(t->d, (unsigned)(in / NOTIFY_MULTIPLIER));
        break;
    default:
        break;
    }
}

static const struct bus_ops regs_ops = {
    .read = regs_read, .write = regs_write, .min_size = 1, .max_size = 4};

/* --- doorbells -----------------------------------------------------------------------------------
 */

static void doorbell_off(struct virtio_pci *t, unsigned q)
{
    gpa_t a = gpa(t->doorbells_at + NOTIFY_OFF + q * NOTIFY_MULTIPLIER);

    if (t->doorbells & BIT32(q))
        t->d->vm->engine->doorbell(t->d->vm, a, t->d->ops->doorbell(t->d, q), false);
    t->doorbells &= ~BIT32(q);
}

/* Without one, regs_write has the notification. */
static void doorbell_on(struct virtio_pci *t, unsigned q)
{
    gpa_t a = gpa(t->doorbells_at + NOTIFY_OFF + q * NOTIFY_MULTIPLIER);
    int fd = t->d->ops->doorbell(t->d, q);

    if (fd >= 0 && !t->d->vm->engine->doorbell(t->d->vm, a, fd, true))
        t->doorbells |= BIT32(q);
}

static void bar_moved(struct pci_function *f, unsigned n)
{
    struct virtio_pci *t = container_of(f, struct virtio_pci, pci);

    if (n != REGS_BAR || !t->d->vm->engine->doorbell || !t->d->ops->doorbell)
        return;
    for (unsigned q = 0; q < t->d->nqueues; q++)
        doorbell_off(t, q);
    t->doorbells_at = f->bar[n].at;
    for (unsigned q = 0; q < t->d->nqueues && t->doorbells_at != PCI_UNMAPPED; q++)
        doorbell_on(t, q);
}

/* --- access through configuration space (4.1.4.9): for firmware that cannot reach the BAR
 * ---------
 */

/* Where the window points: an access of size bytes at off of the register BAR. */
static bool cfg_window(const struct virtio_pci *t, u64 *off, unsigned *size)
{
    u32 length = pci_get32(&t->pci, t->cfg_cap + CAP_LENGTH);

    *off = pci_get32(&t->pci, t->cfg_cap + CAP_OFFSET);
    *size = length;
    return t->pci.config[t->cfg_cap + CAP_BAR] == REGS_BAR &&
           (length == 1 || length == 2 || length == 4) && *off % length == 0 &&
           *off + length <= REGS_SIZE;
}

static bool touches_data(const struct virtio_pci *t, unsigned off, unsigned size)
{
    unsigned data = t->cfg_cap + CAP_DATA;

    return off < data + 4 && data < off + size;
}

static void config_reading(struct pci_function *f, unsigned off, unsigned size)
{
    struct virtio_pci *t = container_of(f, struct virtio_pci, pci);
    unsigned len;
    u64 at;

    if (touches_data(t, off, size) && cfg_window(t, &at, &len))
        pci_put32(f, t->cfg_cap + CAP_DATA, (u32)(regs_read(t, at, len) & size_mask(len)));
}

static void config_written(struct pci_function *f, unsigned off, unsigned size)
{
    struct virtio_pci *t = container_of(f, struct virtio_pci, pci);
    unsigned len;
    u64 at;

    if (touches_data(t, off, size) && cfg_window(t, &at, &len))
        regs_write(t, at, len, pci_get32(f, t->cfg_cap + CAP_DATA) & size_mask(len));
}

/* --- building ------------------------------------------------------------------------------------
 */

static u8 add_cap(struct virtio_pci *t, u8 type, u8 len, u32 off, u32 length)
{
    u8 at = pci_add_cap(&t->pci, PCI_CAP_VENDOR, len);

    t->pci.config[at + 2] = len;
    t->pci.config[at + 3] = type;
    t->pci.config[at + CAP_BAR] = type == CAP_PCI ? 0 : REGS_BAR;
    pci_put32(&t->pci, at + CAP_OFFSET, off);
    pci_put32(&t->pci, at + CAP_LENGTH, length);
    return at;
}

int virtio_pci_init(struct virtio_pci *t, struct virtio_device *d, struct device *pci_host,
                    u8 devfn, u32 class_code)
{
    const struct pci_host_config *bus = pci_host_config(pci_host);
    u8 notify;
    int err;

    CHECK(d->config_size <= AREA_SIZE);
    d->offered &= ~bus->virtio_hidden;
    t->d = d;
    t->host = pci_host;
    d->transport = &transport;
    d->transport_opaque = t;
    pci_init(&t->pci, d->vm, d->name, VENDOR, (u16)(DEVICE_BASE + d->type), class_code, 1);
    pci_set_subsystem(&t->pci, VENDOR, SUBSYSTEM);
    /* One vector a queue, and one for the configuration. */
    if (!bus->no_msix)
        pci_add_msix(&t->pci, MSIX_BAR, d->nqueues + 1);
    if (d->irqfds)
        pci_use_irqfds(&t->pci);
    pci_add_bar(&t->pci, REGS_BAR, PCI_BAR_MEM32, REGS_SIZE, &regs_ops, t);
    add_cap(t, CAP_COMMON, 16, COMMON_OFF, COMMON_SIZE);
    add_cap(t, CAP_ISR, 16, ISR_OFF, 1);
    if (d->config_size)
        add_cap(t, CAP_DEVICE, 16, CONFIG_OFF, AREA_SIZE);
    notify = add_cap(t, CAP_NOTIFY, 20, NOTIFY_OFF, d->nqueues * NOTIFY_MULTIPLIER);
    pci_put32(&t->pci, notify + CAP_DATA, NOTIFY_MULTIPLIER);
    t->cfg_cap = add_cap(t, CAP_PCI, 20, 0, 0);
    pci_set_writable(&t->pci, t->cfg_cap + CAP_BAR, 1);
    pci_set_writable(&t->pci, t->cfg_cap + CAP_OFFSET, 12); /* offset, length, data */
    t->pci.bar_moved = bar_moved;
    t->pci.config_reading = config_reading;
    t->pci.config_written = config_written;
    pci_use_intx(&t->pci);
    vm_lock(d->vm);
    err = pci_host_add(pci_host, &t->pci, devfn);
    vm_unlock(d->vm);
    return err;
}

void virtio_pci_reset(struct virtio_pci *t)
{
    virtio_set_status(t->d, 0);
    read_isr(t);
    t->queue_select = 0;
    t->device_feature_select = t->driver_feature_select = 0;
    pci_reset(&t->pci);
}

void virtio_pci_unplug(struct virtio_pci *t)
{
    virtio_pci_reset(t);
    pci_host_remove(t->host, &t->pci);
}

/* --- saving and loading --------------------------------------------------------------------------
 */

int virtio_pci_save(const struct virtio_pci *t, struct stream *out, const char **why)
{
    int err;

    pci_save(&t->pci, out);
    stream_put_u8(out, t->isr);
    stream_put_u32(out, t->device_feature_select);
    stream_put_u32(out, t->driver_feature_select);
    stream_put_u16(out, t->queue_select);
    err = virtio_save(t->d, out);
    if (err)
        *why = "a device is still at work on what its driver asked for";
    return err;
}

static bool vector_ok(const struct virtio_pci *t, u16 vector)
{
    return vector == valid_vector(t, vector);
}

static bool vectors_ok(const struct virtio_pci *t)
{
    for (unsigned i = 0; i < t->d->nqueues; i++)
        if (!vector_ok(t, t->d->q[i].vector))
            return false;
    return vector_ok(t, t->d->config_vector);
}

static bool load(struct virtio_pci *t, struct stream *in)
{
    if (pci_load(&t->pci, in))
        return false;
    t->isr = stream_get_u8(in);
    t->device_feature_select = stream_get_u32(in);
    t->driver_feature_select = stream_get_u32(in);
    t->queue_select = stream_get_u16(in);
    return !in->error && !(t->isr & ~(ISR_QUEUE | ISR_CONFIG)) && !virtio_load(t->d, in) &&
           vectors_ok(t);
}

int virtio_pci_load(struct virtio_pci *t, struct stream *in)
{
    if (load(t, in))
        return 0;
    virtio_set_status(t->d, 0);
    return -EINVAL;
}
