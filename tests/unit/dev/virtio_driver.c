/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/virtio_driver.h"

#include <stdlib.h>
#include <string.h>

#include "dev/pci/host.h"
#include "test.h"

#define NO_VECTOR 0xffff
#define TABLE_ENTRIES 32 /* of an indirect table */
#define MSI_ADDR 0xfee00000u
#define MSI_DATA 0x40u

#define PCI_CAP_LIST 0x34
#define CAP_VENDOR 9
#define CAP_MSIX 0x11

/* Ring event flags (2.8.14), split ring flags (2.7.6, 2.7.8) */
#define EVENT_ENABLE 0
#define EVENT_DISABLE 1
#define EVENT_DESC 2
#define SPLIT_NO_INTERRUPT 1
#define SPLIT_NO_NOTIFY 1

/* --- the board -----------------------------------------------------------------------------------
 */

static void msi_send(void *opaque, u64 addr, u32 data)
{
    struct vd_board *b = opaque;

    if (b->any_msi)
        return;
    assert_int_equal(addr, MSI_ADDR);
    assert_in_range(data, MSI_DATA, 255);
    b->msi[data]++;
}

static struct irqfd *get_irqfd(void *opaque)
{
    struct vd_board *b = opaque;

    if (b->nirqfds == VD_IRQFDS)
        return NULL;
    b->irqfd[b->nirqfds].e.fd = (int)b->nirqfds;
    return &b->irqfd[b->nirqfds++].e;
}

static void route(void *opaque, struct irqfd *e, bool on, u64 addr, u32 data)
{
    struct vd_board *b = opaque;

    e->live = on;
    b->irqfd[e->fd].addr = addr;
    b->irqfd[e->fd].data = data;
}

static void put_irqfd(void *opaque, struct irqfd *e)
{
    route(opaque, e, false, 0, 0);
}

static struct vd_board *added_to; /* the last one made */

static void added(int fd)
{
    assert_true(added_to->irqfd[fd].e.live);
    added_to->by_irqfd++;
    msi_send(added_to, added_to->irqfd[fd].addr, added_to->irqfd[fd].data);
}

struct vd_board *vd_board_new(void)
{
    struct vd_board *b = calloc(1, sizeof(*b));
    struct pci_host_config cfg = {.msi = {.send = msi_send,
                                          .get_irqfd = get_irqfd,
                                          .put_irqfd = put_irqfd,
                                          .route = route,
                                          .opaque = b},
                                  .io = {0xc000, 0x1000},
                                  .mem32 = {0xc0000000, 0x10000000},
                                  .mem64 = {0x800000000, 0x100000000}};

    assert_non_null(b);
    b->m = machine_new(1);
    b->next_alloc = 0x10000;
    added_to = b;
    fake_added = added;
    for (unsigned i = 0; i < 4; i++)
        cfg.intx[i] = probe_line(&b->lines[i]);
    b->host = pci_host_create(&b->m->vm, &cfg);
    assert_non_null(b->host);
    return b;
}

void vd_board_free(struct vd_board *b)
{
    machine_free(b->m);
    free(b);
}

u8 *vd_ram(struct vd_board *b, u64 addr)
{
    assert_in_range(addr, 0, FAKE_RAM_SIZE - 1);
    return b->m->ram + addr;
}

u64 vd_alloc(struct vd_board *b, u64 size, u64 align)
{
    u64 at = align_up(b->next_alloc, align);

    assert_in_range(at + size, 0, FAKE_RAM_SIZE);
    b->next_alloc = at + size;
    memset(b->m->ram + at, 0, size);
    return at;
}

u32 vd_config(struct vd_board *b, u8 devfn, unsigned off, unsigned size)
{
    vm_pio_write(&b->m->vm, 0xcf8, 4, 0x80000000u | (u32)devfn << 8 | (off & 0xfc));
    return vm_pio_read(&b->m->vm, (u16)(0xcfc + (off & 3)), size);
}

void vd_config_write(struct vd_board *b, u8 devfn, unsigned off, unsigned size, u32 val)
{
    vm_pio_write(&b->m->vm, 0xcf8, 4, 0x80000000u | (u32)devfn << 8 | (off & 0xfc));
    vm_pio_write(&b->m->vm, (u16)(0xcfc + (off & 3)), size, val);
}

/* Rings are little endian, as the host is. */
static void write64(struct vd_board *b, u64 addr, u64 val)
{
    memcpy(vd_ram(b, addr), &val, 8);
}

static void write32(struct vd_board *b, u64 addr, u32 val)
{
    memcpy(vd_ram(b, addr), &val, 4);
}

static u32 read32(struct vd_board *b, u64 addr)
{
    u32 val;

    memcpy(&val, vd_ram(b, addr), 4);
    return val;
}

void vd_write16(struct vd_board *b, u64 addr, u16 val)
{
    memcpy(vd_ram(b, addr), &val, 2);
}

u16 vd_read16(struct vd_board *b, u64 addr)
{
    u16 val;

    memcpy(&val, vd_ram(b, addr), 2);
    return val;
}

/* --- the transport (4.1)
 * --------------------------------------------------------------------------
 */

struct vd_mode vd_mode(unsigned n)
{
    return (struct vd_mode){
        .packed = n & 1, .event_idx = n & 2, .indirect = n & 4, .msix = !(n & 8)};
}

/* Address of [off, off+len) of a memory BAR, which it must lie in. */
static u64 in_bar(struct vdriver *d, unsigned bar, u32 off, u32 len)
{
    unsigned reg = 0x10 + 4 * bar;
    u32 low, mask;
    u64 at;

    assert_in_range(bar, 0, 5);
    low = vd_config(d->b, d->devfn, reg, 4);
    assert_int_equal(low & 1, 0);
    vd_config_write(d->b, d->devfn, reg, 4, 0xffffffff);
    mask = vd_config(d->b, d->devfn, reg, 4) & ~15u;
    vd_config_write(d->b, d->devfn, reg, 4, low);
    assert_true((u64)off + len <= (u64)(u32)~mask + 1);
    at = low & ~15u;
    if ((low & 6) == 4)
        at |= (u64)vd_config(d->b, d->devfn, reg + 4, 4) << 32;
    assert_int_not_equal(at, 0);
    return at + off;
}

/* A virtio structure's capability (4.1.4). */
static void found_cap(struct vdriver *d, unsigned cap)
{
    unsigned type = vd_config(d->b, d->devfn, cap + 3, 1);
    unsigned bar = vd_config(d->b, d->devfn, cap + 4, 1);
    u32 off = vd_config(d->b, d->devfn, cap + 8, 4), len = vd_config(d->b, d->devfn, cap + 12, 4);

    assert_true(vd_config(d->b, d->devfn, cap + 2, 1) >= 16);
    switch (type) {
    case 1:
        assert_true(len >= 56);
        assert_int_equal(off % 4, 0);
        d->common = d->common ? d->common : in_bar(d, bar, off, len);
        break;
    case 2:
        assert_true(len >= 2);
        assert_int_equal(off % 2, 0);
        d->notify = d->notify ? d->notify : in_bar(d, bar, off, len);
        d->notify_multiplier = vd_config(d->b, d->devfn, cap + 16, 4);
        assert_true(!(d->notify_multiplier & (d->notify_multiplier - 1)) &&
                    d->notify_multiplier != 1);
        break;
    case 3:
        d->isr = d->isr ? d->isr : in_bar(d, bar, off, len);
        break;
    case 4:
        assert_int_equal(off % 4, 0);
        d->device = d->device ? d->device : in_bar(d, bar, off, len);
        d->device_len = len;
        break;
    case 5: /* through the configuration space: see the conformance tests */
        break;
    default:
        break;
    }
}

void vd_attach(struct vdriver *d, struct vd_board *b, u8 devfn)
{
    unsigned cap, guard = 0;

    if (!b->assigned)
        assert_int_equal(pci_host_assign(b->host), 0);
    b->assigned = true;
    memset(d, 0, sizeof(*d));
    d->b = b;
    d->devfn = devfn;
    assert_int_equal(vd_config(b, devfn, 0, 2), 0x1af4);
    assert_in_range(vd_config(b, devfn, 2, 2), 0x1040, 0x107f); /* 4.1.2.1 */
    assert_true(vd_config(b, devfn, 8, 1) >= 1);                /* revision */
    for (cap = vd_config(b, devfn, PCI_CAP_LIST, 1); cap; cap = vd_config(b, devfn, cap + 1, 1)) {
        assert_true(guard++ < 48);
        if (vd_config(b, devfn, cap, 1) == CAP_VENDOR) {
            found_cap(d, cap);
        } else if (vd_config(b, devfn, cap, 1) == CAP_MSIX) {
            u32 table = vd_config(b, devfn, cap + 4, 4);
            d->msix_cap = cap;
            d->msix_n = (vd_config(b, devfn, cap + 2, 2) & 0x7ff) + 1;
            d->msix_table = in_bar(d, table & 7, table & ~7u, 16 * d->msix_n);
        }
    }
    assert_true(d->common && d->notify && d->isr);
    d->nqueues = vd_get(d, VD_NUM_QUEUES, 2);
    assert_in_range(d->nqueues, 1, VD_QUEUES);
    memcpy(d->seen_msi, b->msi, sizeof(d->seen_msi));
}

u32 vd_get(struct vdriver *d, unsigned off, unsigned size)
{
    return (u32)vm_mmio_read(&d->b->m->vm, d->common + off, size);
}

void vd_put(struct vdriver *d, unsigned off, unsigned size, u32 val)
{
    vm_mmio_write(&d->b->m->vm, d->common + off, size, val);
}

/* 4.1.3.1: 64-bit fields in halves. */
void vd_put64(struct vdriver *d, unsigned off, u64 val)
{
    vd_put(d, off, 4, (u32)val);
    vd_put(d, off + 4, 4, (u32)(val >> 32));
}

u32 vd_dev_get(struct vdriver *d, unsigned off, unsigned size)
{
    assert_true(off + size <= d->device_len);
    return (u32)vm_mmio_read(&d->b->m->vm, d->device + off, size);
}

void vd_dev_put(struct vdriver *d, unsigned off, unsigned size, u32 val)
{
    assert_true(off + size <= d->device_len);
    vm_mmio_write(&d->b->m->vm, d->device + off, size, val);
}

u8 vd_status(struct vdriver *d)
{
    return (u8)vd_get(d, VD_STATUS, 1);
}

bool vd_reset(struct vdriver *d)
{
    vd_put(d, VD_STATUS, 1, 0);
    memset(d->q, 0, sizeof(d->q));
    d->intx_queue = d->intx_config = 0;
    memcpy(d->seen_msi, d->b->msi, sizeof(d->seen_msi));
    return vd_status(d) == 0;
}

static u64 get_features(struct vdriver *d)
{
    u64 f;

    vd_put(d, VD_DEVICE_FEATURE_SELECT, 4, 1);
    f = (u64)vd_get(d, VD_DEVICE_FEATURE, 4) << 32;
    vd_put(d, VD_DEVICE_FEATURE_SELECT, 4, 0);
    return f | vd_get(d, VD_DEVICE_FEATURE, 4);
}

static void set_up_msix(struct vdriver *d)
{
    struct vm *vm = &d->b->m->vm;

    assert_int_not_equal(d->msix_cap, 0);
    for (unsigned i = 0; i < d->msix_n; i++) {
        vm_mmio_write(vm, d->msix_table + 16 * i, 4, MSI_ADDR);
        vm_mmio_write(vm, d->msix_table + 16 * i + 4, 4, 0);
        vm_mmio_write(vm, d->msix_table + 16 * i + 8, 4, MSI_DATA + i);
        vm_mmio_write(vm, d->msix_table + 16 * i + 12, 4, 0);
    }
}

void vd_negotiate(struct vdriver *d, struct vd_mode mode, u64 want)
{
    u64 features = VD_F_VERSION_1 | want;

    assert_true(vd_reset(d));
    d->mode = mode;
    if (d->msix_cap)
        vd_config_write(d->b, d->devfn, d->msix_cap + 2, 2, mode.msix ? 0x8000 : 0);
    if (mode.msix)
        set_up_msix(d);
    vd_put(d, VD_STATUS, 1, VD_ACKNOWLEDGE);
    vd_put(d, VD_STATUS, 1, VD_ACKNOWLEDGE | VD_DRIVER);
    d->offered = get_features(d);
    features |= mode.packed ? VD_F_PACKED : 0;
    features |= mode.event_idx ? VD_F_EVENT_IDX : 0;
    features |= mode.indirect ? VD_F_INDIRECT : 0;
    assert_int_equal(features & ~d->offered, 0);
    d->features = features;
    vd_put(d, VD_DRIVER_FEATURE_SELECT, 4, 0);
    vd_put(d, VD_DRIVER_FEATURE, 4, (u32)features);
    vd_put(d, VD_DRIVER_FEATURE_SELECT, 4, 1);
    vd_put(d, VD_DRIVER_FEATURE, 4, (u32)(features >> 32));
    vd_put(d, VD_STATUS, 1, VD_ACKNOWLEDGE | VD_DRIVER | VD_FEATURES_OK);
    assert_int_equal(vd_status(d), VD_ACKNOWLEDGE | VD_DRIVER | VD_FEATURES_OK);
    if (mode.msix) {
        vd_put(d, VD_CONFIG_VECTOR, 2, 0);
        assert_int_equal(vd_get(d, VD_CONFIG_VECTOR, 2), 0);
    }
}

static void init_rings(struct vdriver *d, struct vd_queue *vq)
{
    struct vd_board *b = d->b;
    u64 size = vq->size;

    vq->free = vq->size;
    if (d->mode.packed) {
        vq->desc = vd_alloc(b, 16 * size, 16);
        vq->driver = vd_alloc(b, 4, 4);
        vq->device = vd_alloc(b, 4, 4);
        vq->avail_wrap = vq->used_wrap = vq->kicked_wrap = true;
    } else {
        vq->desc = vd_alloc(b, 16 * size, 16);
        vq->driver = vd_alloc(b, 6 + 2 * size, 2);
        vq->device = vd_alloc(b, 6 + 8 * size, 4);
        for (unsigned i = 0; i < size; i++)
            vq->next[i] = (u16)(i + 1);
    }
    /* What lies behind the rings is nobody's: tests see who writes there. */
    vd_alloc(b, 16, 16);
}

void vd_setup_queue(struct vdriver *d, unsigned q, u16 size)
{
    struct vd_queue *vq = &d->q[q];
    u16 max;

    vd_put(d, VD_QUEUE_SELECT, 2, q);
    max = (u16)vd_get(d, VD_QUEUE_SIZE, 2);
    assert_in_range(max, 1, 32768);
    assert_int_equal(vd_get(d, VD_QUEUE_ENABLE, 2), 0);
    vq->size = size < max ? size : max;
    init_rings(d, vq);
    vd_put(d, VD_QUEUE_SIZE, 2, vq->size);
    vd_put64(d, VD_QUEUE_DESC, vq->desc);
    vd_put64(d, VD_QUEUE_DRIVER, vq->driver);
    vd_put64(d, VD_QUEUE_DEVICE, vq->device);
    vq->vector = NO_VECTOR;
    if (d->mode.msix) {
        vq->vector = q + 1 < d->msix_n ? q + 1 : d->msix_n - 1;
        vd_put(d, VD_QUEUE_VECTOR, 2, vq->vector);
        assert_int_equal(vd_get(d, VD_QUEUE_VECTOR, 2), vq->vector);
    }
    vq->notify_at = d->notify + (u64)vd_get(d, VD_QUEUE_NOTIFY_OFF, 2) * d->notify_multiplier;
    vd_put(d, VD_QUEUE_ENABLE, 2, 1);
    assert_int_equal(vd_get(d, VD_QUEUE_ENABLE, 2), 1);
    assert_int_equal(vd_get(d, VD_QUEUE_SIZE, 2), vq->size);
}

void vd_driver_ok(struct vdriver *d)
{
    u8 status = VD_ACKNOWLEDGE | VD_DRIVER | VD_FEATURES_OK | VD_DRIVER_OK;

    vd_put(d, VD_STATUS, 1, status);
    assert_int_equal(vd_status(d), status);
}

void vd_start(struct vdriver *d, struct vd_mode mode, u64 want, u16 size)
{
    vd_negotiate(d, mode, want);
    for (unsigned q = 0; q < d->nqueues; q++)
        vd_setup_queue(d, q, size);
    vd_driver_ok(d);
}

/* --- interrupts ----------------------------------------------------------------------------------
 */

/* What the handler of the function's interrupt line does (4.1.4.5). */
static void serve_line(struct vdriver *d)
{
    struct probe *line = &d->b->lines[(d->devfn >> 3) & 3];
    u8 isr;

    if (!line->level)
        return;
    isr = (u8)vm_mmio_read(&d->b->m->vm, d->isr, 1);
    assert_int_not_equal(isr & 3, 0);
    assert_false(line->level);
    d->intx_queue += isr & 1;
    d->intx_config += isr >> 1 & 1;
}

static unsigned taken(unsigned *n)
{
    unsigned was = *n;

    *n = 0;
    return was;
}

static unsigned messages(struct vdriver *d, unsigned vector)
{
    unsigned *seen = &d->seen_msi[MSI_DATA + vector], now = d->b->msi[MSI_DATA + vector];
    unsigned n = now - *seen;

    *seen = now;
    return n;
}

unsigned vd_interrupts(struct vdriver *d, unsigned q)
{
    if (d->mode.msix) {
        assert_false(d->b->lines[(d->devfn >> 3) & 3].level);
        return messages(d, d->q[q].vector);
    }
    serve_line(d);
    return taken(&d->intx_queue);
}

unsigned vd_config_interrupts(struct vdriver *d)
{
    if (d->mode.msix)
        return messages(d, 0);
    serve_line(d);
    return taken(&d->intx_config);
}

/* --- rings ---------------------------------------------------------------------------------------
 */

void vd_desc(struct vdriver *d, u64 table, unsigned i, u64 addr, u32 len, u16 flags, u16 next_or_id)
{
    u64 at = table + 16ull * i;

    write64(d->b, at, addr);
    write32(d->b, at + 8, len);
    if (d->mode.packed) {
        vd_write16(d->b, at + 12, next_or_id);
        vd_write16(d->b, at + 14, flags); /* last (2.8.21) */
    } else {
        vd_write16(d->b, at + 12, flags);
        vd_write16(d->b, at + 14, next_or_id);
    }
}

void vd_avail(struct vdriver *d, unsigned q, u16 head)
{
    struct vd_queue *vq = &d->q[q];

    vd_write16(d->b, vq->driver + 4 + 2ull * (vq->avail_idx % vq->size), head);
    vd_write16(d->b, vq->driver + 2, ++vq->avail_idx);
}

u16 vd_avail_flags(struct vdriver *d, unsigned q)
{
    return d->q[q].avail_wrap ? VD_DESC_AVAIL : VD_DESC_USED;
}

/* Writes b as an indirect table for id; its address. */
static u64 write_table(struct vdriver *d, struct vd_queue *vq, unsigned id, const struct vd_buf *b,
                       unsigned nout, unsigned n)
{
    u64 table;

    assert_in_range(n, 1, TABLE_ENTRIES);
    if (!vq->tables)
        vq->tables = vd_alloc(d->b, 16ull * TABLE_ENTRIES * vq->size, 16);
    table = vq->tables + 16ull * TABLE_ENTRIES * id;
    for (unsigned i = 0; i < n; i++) {
        u16 flags = i < nout ? 0 : VD_DESC_WRITE;
        /* Packed: one follows the other, flags but WRITE are reserved (2.8.7). */
        if (d->mode.packed)
            vd_desc(d, table, i, b[i].addr, b[i].len, flags, 0);
        else
            vd_desc(d, table, i, b[i].addr, b[i].len, flags | (i + 1 < n ? VD_DESC_NEXT : 0),
                    (u16)(i + 1));
    }
    return table;
}

static int add_split(struct vdriver *d, unsigned q, const struct vd_buf *b, unsigned nout,
                     unsigned n, bool indirect)
{
    struct vd_queue *vq = &d->q[q];
    u16 head = vq->free_head, at = head;
    unsigned descs = indirect ? 1 : n;

    if (vq->free < descs)
        return -1;
    if (indirect) {
        vd_desc(d, vq->desc, head, write_table(d, vq, head, b, nout, n), 16 * n, VD_DESC_INDIRECT,
                0);
        at = vq->next[head];
    } else {
        for (unsigned i = 0; i < n; i++) {
            u16 flags = (i < nout ? 0 : VD_DESC_WRITE) | (i + 1 < n ? VD_DESC_NEXT : 0);
            vd_desc(d, vq->desc, at, b[i].addr, b[i].len, flags, vq->next[at]);
            at = vq->next[at];
        }
    }
    vq->free_head = at;
    vq->free = (u16)(vq->free - descs);
    vq->by_id[head].descs = (u16)descs;
    vq->by_id[head].busy = true;
    vd_avail(d, q, head);
    vq->added += descs;
    return head;
}

static void step(const struct vd_queue *vq, u16 *pos, bool *wrap, unsigned n)
{
    while (n--)
        if (++*pos == vq->size) {
            *pos = 0;
            *wrap = !*wrap;
        }
}

/* Ids are given from the top, so that they are no ring positions. */
static u16 free_id(const struct vd_queue *vq)
{
    for (unsigned id = vq->size; id--;)
        if (!vq->by_id[id].busy)
            return (u16)id;
    fail_msg("no free id");
    return 0;
}

static int add_packed(struct vdriver *d, unsigned q, const struct vd_buf *b, unsigned nout,
                      unsigned n, bool indirect)
{
    struct vd_queue *vq = &d->q[q];
    unsigned descs = indirect ? 1 : n;
    u16 id, pos = vq->avail_pos;
    bool wrap = vq->avail_wrap;
    u64 table = 0;

    if (vq->free < descs)
        return -1;
    id = free_id(vq);
    if (indirect)
        table = write_table(d, vq, id, b, nout, n);
    /* The first descriptor's flags last, for they make all of it available. */
    for (unsigned i = descs; i--;) {
        u16 at = pos, flags;
        bool w = wrap;
        step(vq, &at, &w, i);
        flags = w ? VD_DESC_AVAIL : VD_DESC_USED;
        if (indirect) {
            vd_desc(d, vq->desc, at, table, 16 * n, flags | VD_DESC_INDIRECT, id);
            continue;
        }
        flags |= (i < nout ? 0 : VD_DESC_WRITE) | (i + 1 < n ? VD_DESC_NEXT : 0);
        vd_desc(d, vq->desc, at, b[i].addr, b[i].len, flags, id);
    }
    step(vq, &vq->avail_pos, &vq->avail_wrap, descs);
    vq->free = (u16)(vq->free - descs);
    vq->by_id[id].descs = (u16)descs;
    vq->by_id[id].busy = true;
    vq->added += descs;
    return id;
}

int vd_add(struct vdriver *d, unsigned q, const struct vd_buf *b, unsigned nout, unsigned nin)
{
    unsigned n = nout + nin;
    bool indirect = d->mode.indirect && n > 1;

    assert_int_not_equal(n, 0);
    return d->mode.packed ? add_packed(d, q, b, nout, n, indirect)
                          : add_split(d, q, b, nout, n, indirect);
}

void vd_notify(struct vdriver *d, unsigned q)
{
    vm_mmio_write(&d->b->m->vm, d->q[q].notify_at, 2, q);
}

/* Whether [first, first+n) of counters modulo 2^16 holds event. */
static bool passed(u16 first, u16 n, u16 event)
{
    return (u16)(event - first) < n;
}

static bool kick_wanted(struct vdriver *d, struct vd_queue *vq)
{
    u16 flags, off_wrap;

    if (!d->mode.packed) {
        u16 n = (u16)(vq->avail_idx - vq->kicked_idx);
        if (d->mode.event_idx)
            return passed(vq->kicked_idx, n, vd_read16(d->b, vq->device + 4 + 8ull * vq->size));
        return !(vd_read16(d->b, vq->device) & SPLIT_NO_NOTIFY);
    }
    off_wrap = vd_read16(d->b, vq->device);
    flags = vd_read16(d->b, vq->device + 2) & 3;
    assert_int_not_equal(flags, 3);
    if (flags != EVENT_DESC)
        return flags == EVENT_ENABLE;
    assert_true(d->mode.event_idx);
    for (unsigned i = 0; i < vq->added; i++) {
        u16 pos = vq->kicked_pos;
        bool wrap = vq->kicked_wrap;
        step(vq, &pos, &wrap, i);
        if (off_wrap == (pos | (wrap ? 0x8000 : 0)))
            return true;
    }
    return false;
}

bool vd_kick(struct vdriver *d, unsigned q)
{
    struct vd_queue *vq = &d->q[q];
    bool wanted;

    if (!vq->added)
        return false;
    wanted = kick_wanted(d, vq);
    vq->added = 0;
    vq->kicked_idx = vq->avail_idx;
    vq->kicked_pos = vq->avail_pos;
    vq->kicked_wrap = vq->avail_wrap;
    if (wanted)
        vd_notify(d, q);
    return wanted;
}

static void give_back_split(struct vd_queue *vq, unsigned id)
{
    unsigned last = id;

    for (unsigned i = 1; i < vq->by_id[id].descs; i++)
        last = vq->next[last];
    vq->next[last] = vq->free_head;
    vq->free_head = (u16)id;
}

static int used_split(struct vdriver *d, struct vd_queue *vq, u32 *len)
{
    u16 idx = vd_read16(d->b, vq->device + 2);
    u64 at = vq->device + 4 + 8ull * (vq->used_idx % vq->size);
    u32 id;

    assert_true((u16)(idx - vq->used_idx) <= vq->size);
    if (idx == vq->used_idx)
        return -1;
    vq->used_idx++;
    id = read32(d->b, at);
    *len = read32(d->b, at + 4);
    assert_true(id < vq->size && vq->by_id[id].busy);
    give_back_split(vq, id);
    return (int)id;
}

static int used_packed(struct vdriver *d, struct vd_queue *vq, u32 *len)
{
    u64 at = vq->desc + 16ull * vq->used_pos;
    u16 flags = vd_read16(d->b, at + 14), id;
    bool used = flags & VD_DESC_USED, avail = flags & VD_DESC_AVAIL;

    if (used != avail || used != vq->used_wrap || vq->free == vq->size)
        return -1;
    id = vd_read16(d->b, at + 12);
    assert_true(id < vq->size && vq->by_id[id].busy);
    /* The length is there only when something may have been written (2.8.22 fig). */
    *len = flags & VD_DESC_WRITE ? read32(d->b, at + 8) : 0;
    step(vq, &vq->used_pos, &vq->used_wrap, vq->by_id[id].descs);
    return id;
}

int vd_used(struct vdriver *d, unsigned q, u32 *len)
{
    struct vd_queue *vq = &d->q[q];
    u32 n = 0;
    int id = d->mode.packed ? used_packed(d, vq, &n) : used_split(d, vq, &n);

    if (id < 0)
        return -1;
    vq->free = (u16)(vq->free + vq->by_id[id].descs);
    vq->by_id[id].busy = false;
    if (len)
        *len = n;
    return id;
}

void vd_want_interrupt(struct vdriver *d, unsigned q, unsigned n)
{
    struct vd_queue *vq = &d->q[q];

    if (d->mode.packed) {
        u16 pos = vq->used_pos;
        bool wrap = vq->used_wrap;
        if (n && d->mode.event_idx)
            step(vq, &pos, &wrap, n - 1);
        vd_write16(d->b, vq->driver, pos | (wrap ? 0x8000 : 0));
        vd_write16(d->b, vq->driver + 2,
                   !n                  ? EVENT_DISABLE
                   : d->mode.event_idx ? EVENT_DESC
                                       : EVENT_ENABLE);
    } else if (d->mode.event_idx) {
        /* There is no "never": an index half the ring of numbers away will do. */
        vd_write16(d->b, vq->driver + 4 + 2ull * vq->size,
                   (u16)(vq->used_idx + (n ? n - 1 : 0x8000)));
    } else {
        vd_write16(d->b, vq->driver, n ? 0 : SPLIT_NO_INTERRUPT);
    }
}
