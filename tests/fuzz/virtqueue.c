/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile driver: the bytes are writes to guest memory and to the registers of a virtio device.
 * One byte in between sets a queue up in good order, so that rings are reached.
 */
#include <stdlib.h>
#include <string.h>

#include "core/backend.h"
#include "dev/pci/pci.h"
#include "dev/virtio/balloon.h"
#include "dev/virtio/console.h"
#include "dev/virtio/rng.h"
#include "dev/virtio_driver.h"

#define MEMORY 0x10000u /* where rings and buffers are */
#define MEMORY_SIZE 0x4000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DEVICES 3

static struct vd_board *b;
static struct {
    struct device *dev;
    struct vdriver d;
    u32 config[16]; /* of the function, when its addresses are assigned */
} each[DEVICES];
static struct vdriver d; /* the one this input is about */
static const uint8_t *at, *end;

static u32 take(unsigned n)
{
    u32 v = 0;

    for (unsigned i = 0; i < n && at < end; i++)
        v |= (u32)*at++ << (8 * i);
    return v;
}

/* --- a backend that is full now and then ---------------------------------------------------------
 */

static struct chardev chr[2];
static unsigned writes;

static size_t chr_write(struct chardev *c, const u8 *buf, size_t n)
{
    volatile u8 sum = 0;

    (void)c;
    for (size_t i = 0; i < n; i++)
        sum = (u8)(sum + buf[i]);
    return ++writes % 3 ? n : n / 2;
}

static void chr_kick(struct chardev *c)
{
    (void)c;
}

static struct device *create_console(void)
{
    struct virtio_console_config c = {
        .name = "console0", .console = &chr[0], .port = {{"p", &chr[1]}}, .nports = 1};

    for (unsigned i = 0; i < 2; i++)
        chr[i] = (struct chardev){.write = chr_write, .kick_input = chr_kick};
    return virtio_console_create(&b->m->vm, b->host, PCI_DEVFN(2, 0), &c);
}

static void backend_event(struct chardev *c, u32 what)
{
    static u8 text[300];

    if (!c->dev)
        return;
    vm_lock(&b->m->vm);
    if (what % 4 == 0)
        c->on_input(c->dev, text, what);
    else if (what % 4 == 1)
        c->on_writable(c->dev);
    else if (what % 4 == 2)
        c->on_open(c->dev, !(c->closed = !c->closed));
    else if (c->on_resize)
        c->on_resize(c->dev, 80, 25);
    vm_unlock(&b->m->vm);
}

/* --- the driver's deeds --------------------------------------------------------------------------
 */

/* Everything in good order up to DRIVER_OK: small queues in MEMORY. */
static void set_up(u32 how)
{
    u64 features = VD_F_VERSION_1 | (how & 1 ? VD_F_PACKED : 0) | (how & 2 ? VD_F_EVENT_IDX : 0) |
                   (how & 4 ? VD_F_INDIRECT : 0) | (how & 8 ? 0x3f : 0);

    vd_put(&d, VD_STATUS, 1, 0);
    vd_put(&d, VD_DEVICE_FEATURE_SELECT, 4, 0);
    features &= vd_get(&d, VD_DEVICE_FEATURE, 4) | (u64)0xffffffff << 32;
    vd_put(&d, VD_DRIVER_FEATURE_SELECT, 4, 0);
    vd_put(&d, VD_DRIVER_FEATURE, 4, (u32)features);
    vd_put(&d, VD_DRIVER_FEATURE_SELECT, 4, 1);
    vd_put(&d, VD_DRIVER_FEATURE, 4, (u32)(features >> 32));
    vd_put(&d, VD_STATUS, 1, VD_ACKNOWLEDGE | VD_DRIVER | VD_FEATURES_OK);
    for (unsigned q = 0; q < d.nqueues; q++) {
        vd_put(&d, VD_QUEUE_SELECT, 2, q);
        vd_put(&d, VD_QUEUE_SIZE, 2, 4);
        vd_put64(&d, VD_QUEUE_DESC, MEMORY + 0x100 * q);
        vd_put64(&d, VD_QUEUE_DRIVER, MEMORY + 0x100 * q + 0x40);
        vd_put64(&d, VD_QUEUE_DEVICE, MEMORY + 0x100 * q + 0x60);
        vd_put(&d, VD_QUEUE_ENABLE, 2, 1);
    }
    vd_put(&d, VD_STATUS, 1, VD_ACKNOWLEDGE | VD_DRIVER | VD_FEATURES_OK | VD_DRIVER_OK);
}

static void write_memory(void)
{
    u32 off = take(2) % MEMORY_SIZE, n = take(1);

    while (n-- && at < end)
        *vd_ram(b, MEMORY + off++ % MEMORY_SIZE) = *at++;
}

/* A descriptor that means something, from a few bytes. */
static void write_desc(void)
{
    u32 off = take(2) % (MEMORY_SIZE - 16) & ~15u, flags = take(2), addr = take(2);
    struct {
        u64 addr;
        u32 len;
        u16 a, b;
    } desc = {
        .addr = MEMORY + addr % MEMORY_SIZE, .len = take(1), .a = (u16)flags, .b = (u16)take(1)};

    memcpy(vd_ram(b, MEMORY + off), &desc, sizeof(desc));
}

static void one(void)
{
    static const u8 sizes[] = {1, 2, 4};
    u32 off, val;

    switch (take(1) % 12) {
    case 0:
        write_memory();
        break;
    case 1:
        off = take(1) % 64;
        val = take(4);
        vd_put(&d, off, sizes[val % 3], val);
        break;
    case 2:
        vm_mmio_write(&b->m->vm, d.notify + 4ull * (take(1) % 24), 2, 0);
        break;
    case 3:
        fake_settle();
        break;
    case 4:
        off = take(1) % 20;
        val = take(4);
        if (d.device) {
            vm_mmio_write(&b->m->vm, d.device + off, sizes[val % 3], val);
            vm_mmio_read(&b->m->vm, d.device + off, sizes[val % 3]);
        }
        break;
    case 5:
        off = take(1);
        vd_config_write(b, d.devfn, off & 0xfc, 4, take(4));
        break;
    case 6:
        set_up(take(1));
        break;
    case 7:
        for (off = 0; off < 64; off += 4)
            vd_get(&d, off, 4);
        vm_mmio_read(&b->m->vm, d.isr, 1);
        break;
    case 8:
        backend_event(&chr[take(1) % 2], take(1));
        break;
    case 9:
        write_desc();
        break;
    case 10: /* the next entry of a split ring */
        off = MEMORY + 0x100 * (take(1) % d.nqueues) + 0x40;
        val = vd_read16(b, off + 2);
        vd_write16(b, off + 4 + 2 * (val % 4), (u16)take(1));
        vd_write16(b, off + 2, (u16)(val + 1));
        break;
    default:
        fake_advance(take(1) * 100000000ull);
        break;
    }
}

static void create(void)
{
    b = vd_board_new();
    each[0].dev = virtio_rng_create(&b->m->vm, b->host, PCI_DEVFN(1, 0), "rng0");
    each[1].dev = create_console();
    each[2].dev = virtio_balloon_create(&b->m->vm, b->host, PCI_DEVFN(3, 0), "balloon0", 0);
    for (unsigned i = 0; i < DEVICES; i++) {
        vd_attach(&each[i].d, b, PCI_DEVFN(i + 1, 0));
        for (unsigned k = 0; k < 16; k++)
            each[i].config[k] = vd_config(b, PCI_DEVFN(i + 1, 0), 4 * k, 4);
    }
}

/* As after power-on, with the addresses it had. */
static void reset(unsigned i)
{
    fake_settle();
    vm_lock(&b->m->vm);
    each[i].dev->ops->reset(each[i].dev);
    vm_unlock(&b->m->vm);
    fake_settle();
    for (unsigned k = 4; k < 10; k++)
        vd_config_write(b, PCI_DEVFN(i + 1, 0), 4 * k, 4, each[i].config[k]);
    vd_config_write(b, PCI_DEVFN(i + 1, 0), 4, 4, each[i].config[1]);
    d = each[i].d;
    memset(vd_ram(b, MEMORY), 0, MEMORY_SIZE);
    chr[0].closed = chr[1].closed = false;
    writes = 0;
    if (vd_status(&d))
        abort(); /* something was not given back */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned i;

    at = data;
    end = data + size;
    if (!b)
        create();
    i = take(1) % DEVICES;
    reset(i);
    while (at < end)
        one();
    reset(i);
    return 0;
}
