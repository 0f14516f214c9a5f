/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/pci/host.h"

#include <errno.h>

#define CONFIG_ENABLE BIT32(31)
#define ADDRESS_WRITABLE (CONFIG_ENABLE | 0x00fffffc)
#define FUNCTIONS 256
#define MULTI_FUNCTION 0x80

/* Reset control (ICH9 316972, 13.7.5): a rising bit 2 resets; bits 1 and 3 tell how hard. */
#define RESET_WRITABLE 0x0a
#define RESET_CPU 0x04

/* A host bridge as generic guests know it (QEMU's generic PCIe host: 1b36:0008). */
#define BRIDGE_VENDOR 0x1b36
#define BRIDGE_DEVICE 0x0008
#define CLASS_HOST_BRIDGE 0x060000

struct host {
    struct device dev;
    struct vm *vm;
    struct pci_host_config cfg;
    struct pci_function *fn[FUNCTIONS];
    struct pci_function bridge;
    u32 address; /* CF8H */
    u8 reset_control;
    u32 intx_users[4][8]; /* functions that assert a line */
};

static struct pci_function *function(const struct host *h, unsigned bus, unsigned devfn)
{
    return bus == 0 && devfn < FUNCTIONS ? h->fn[devfn] : NULL;
}

/* --- configuration mechanism 1 (PCI 3.0 3.2.2.3.2)
 * ------------------------------------------------ */

static struct pci_function *addressed(const struct host *h)
{
    if (!(h->address & CONFIG_ENABLE))
        return NULL;
    return function(h, h->address >> 16 & 0xff, h->address >> 8 & 0xff);
}

static u64 port_read(void *dev, u64 off, unsigned size)
{
    struct host *h = dev;
    struct pci_function *f;

    if (off < 4) {
        if (off == 0 && size == 4)
            return h->address;
        return off == 1 && size == 1 ? h->reset_control : size_mask(size);
    }
    f = addressed(h);
    if (!f)
        return size_mask(size);
    return pci_config_read(f, (h->address & 0xfc) + (unsigned)(off & 3), size);
}

static void port_write(void *dev, u64 off, unsigned size, u64 val)
{
    struct host *h = dev;
    struct pci_function *f;

    if (off < 4) {
        if (off == 0 && size == 4) {
            h->address = (u32)val & ADDRESS_WRITABLE;
        } else if (off == 1 && size == 1) {
            h->reset_control = (u8)val & RESET_WRITABLE;
            if (val & RESET_CPU)
                vm_stop(h->vm, VM_RESET, 0, "reset through port cf9");
        }
        return;
    }
    f = addressed(h);
    if (f)
        pci_config_write(f, (h->address & 0xfc) + (unsigned)(off & 3), size, (u32)val);
}

static const struct bus_ops port_ops = {
    .read = port_read, .write = port_write, .min_size = 1, .max_size = 4};

/* --- ECAM (PCI Express 3.0 7.2.2)
 * --------------------------------------------------------------------- */

static u64 ecam_read(void *dev, u64 off, unsigned size)
{
    struct pci_function *f = function(dev, (unsigned)(off >> 20), off >> 12 & 0xff);

    return f ? pci_config_read(f, off & 0xfff, size) : size_mask(size);
}

static void ecam_write(void *dev, u64 off, unsigned size, u64 val)
{
    struct pci_function *f = function(dev, (unsigned)(off >> 20), off >> 12 & 0xff);

    if (f)
        pci_config_write(f, off & 0xfff, size, (u32)val);
}

static const struct bus_ops ecam_ops = {
    .read = ecam_read, .write = ecam_write, .min_size = 1, .max_size = 4};

/* --- INTx
 * ------------------------------------------------------------------------------------------------
 */

static unsigned line_of(const struct pci_function *f)
{
    return ((f->devfn >> 3) + f->config[PCI_INTERRUPT_PIN] - 1u) & 3;
}

static void intx(void *opaque, unsigned devfn, bool level)
{
    struct host *h = opaque;
    unsigned line;
    u32 *users, any = 0;

    if (!h->fn[devfn] || !h->fn[devfn]->config[PCI_INTERRUPT_PIN])
        return;
    line = line_of(h->fn[devfn]);
    users = h->intx_users[line];
    if (level)
        users[devfn / 32] |= BIT32(devfn % 32);
    else
        users[devfn / 32] &= ~BIT32(devfn % 32);
    for (unsigned i = 0; i < 8; i++)
        any |= users[i];
    irq_set(&h->cfg.intx[line], any);
    irq_set(&h->cfg.intx_pic[line], any);
}

const struct pci_host_config *pci_host_config(const struct device *d)
{
    return &container_of(d, struct host, dev)->cfg;
}

/* Which of two BARs at one place answers is for software to settle by moving one or turning its
 * decoding off (PCI 3.0 6.2.5); until then it is the first one. */
static void room_made(void *opaque)
{
    struct host *h = opaque;

    for (unsigned devfn = 0; devfn < FUNCTIONS; devfn++)
        if (h->fn[devfn])
            pci_retry_bars(h->fn[devfn]);
}

int pci_host_add(struct device *d, struct pci_function *f, u8 devfn)
{
    struct host *h = container_of(d, struct host, dev);

    if (h->fn[devfn])
        return -EEXIST;
    h->fn[devfn] = f;
    f->devfn = devfn;
    f->msi = h->cfg.msi;
    f->intx = (struct irq_line){.set = intx, .opaque = h, .n = devfn};
    f->room_made = room_made;
    f->room_opaque = h;
    /* Software looks for functions 1 to 7 only where function 0 says so. */
    for (unsigned n = 1; n < 8; n++)
        if (h->fn[devfn & 0xf8] && h->fn[(devfn & 0xf8) + n])
            h->fn[devfn & 0xf8]->config[PCI_HEADER_TYPE] |= MULTI_FUNCTION;
    return 0;
}

bool pci_host_is_free(const struct device *d, u8 devfn)
{
    return !container_of(d, struct host, dev)->fn[devfn];
}

void pci_host_remove(struct device *d, struct pci_function *f)
{
    struct host *h = container_of(d, struct host, dev);

    pci_reset(f); /* while its interrupt line can be lowered */
    h->fn[f->devfn] = NULL;
    f->msi = (struct msi_sink){0};
    f->intx = (struct irq_line){0};
    f->room_made = NULL;
}

/* --- what firmware would do
 * --------------------------------------------------------------------------------- */

static u64 take(struct pci_window *w, u64 size)
{
    u64 at = align_up(w->base, size), end;

    if (!w->size || !add_ok(at, size, &end) || end > w->base + w->size)
        return 0;
    w->size -= end - w->base;
    w->base = end;
    return at;
}

static int assign_bar(struct host *h, struct pci_function *f, unsigned n)
{
    const struct pci_bar *b = &f->bar[n];
    unsigned off = PCI_BAR0 + 4 * n;
    u64 at = 0;

    if (b->kind == PCI_BAR_IO) {
        at = take(&h->cfg.io, b->size);
    } else {
        if (b->kind == PCI_BAR_MEM64)
            at = take(&h->cfg.mem64, b->size);
        if (!at)
            at = take(&h->cfg.mem32, b->size);
    }
    if (!at)
        return -ENOSPC;
    pci_config_write(f, off, 4, (u32)at);
    if (b->kind == PCI_BAR_MEM64)
        pci_config_write(f, off + 4, 4, (u32)(at >> 32));
    return 0;
}

int pci_host_assign(struct device *d)
{
    struct host *h = container_of(d, struct host, dev);
    int err = 0;

    for (unsigned devfn = 0; devfn < FUNCTIONS; devfn++) {
        struct pci_function *f = h->fn[devfn];
        u16 command = PCI_COMMAND_MASTER;
        if (!f)
            continue;
        for (unsigned n = 0; n < PCI_BARS; n++) {
            if (f->bar[n].kind == PCI_BAR_NONE)
                continue;
            if (assign_bar(h, f, n)) {
                err = -ENOSPC;
                continue;
            }
            command |= f->bar[n].kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
        }
        pci_config_write(f, PCI_COMMAND, 2, command);
        if (f->config[PCI_INTERRUPT_PIN])
            f->config[PCI_INTERRUPT_LINE] = h->cfg.intx_irq[line_of(f)];
    }
    return err;
}

/* --- life cycle
 * ---------------------------------------------------------------------------------------------- */

static void reset(struct device *d)
{
    struct host *h = container_of(d, struct host, dev);

    h->address = 0;
    h->reset_control = 0;
    pci_reset(&h->bridge);
}

#define STATE_VERSION 1

static int save(const struct device *d, struct stream *out, const char **why)
{
    const struct host *h = container_of(d, struct host, dev);

    (void)why;
    stream_put_u16(out, STATE_VERSION);
    stream_put_u32(out, h->address);
    stream_put_u8(out, h->reset_control);
    for (unsigned line = 0; line < 4; line++)
        for (unsigned i = 0; i < 8; i++)
            stream_put_u32(out, h->intx_users[line][i]);
    pci_save(&h->bridge, out);
    return out->error;
}

/* Could all of them, functions 32 * i and up, assert the line? */
static bool can_use(const struct host *h, unsigned line, unsigned i, u32 users)
{
    for (; users; users &= users - 1) {
        const struct pci_function *f = h->fn[32 * i + (unsigned)__builtin_ctz(users)];
        if (!f || !f->config[PCI_INTERRUPT_PIN] || line_of(f) != line)
            return false;
    }
    return true;
}

static int load(struct device *d, struct stream *in)
{
    struct host *h = container_of(d, struct host, dev);

    if (stream_get_u16(in) != STATE_VERSION)
        return -EINVAL;
    h->address = stream_get_u32(in);
    h->reset_control = stream_get_u8(in);
    if ((h->address & ~ADDRESS_WRITABLE) || (h->reset_control & ~RESET_WRITABLE))
        return -EINVAL;
    for (unsigned line = 0; line < 4; line++)
        for (unsigned i = 0; i < 8; i++) {
            u32 users = stream_get_u32(in);
            if (!can_use(h, line, i, users))
                return -EINVAL;
            h->intx_users[line][i] = users;
        }
    return in->error ? in->error : pci_load(&h->bridge, in);
}

static void loaded(struct device *d)
{
    struct host *h = container_of(d, struct host, dev);

    for (unsigned devfn = 0; devfn < FUNCTIONS; devfn++)
        if (h->fn[devfn])
            pci_loaded(h->fn[devfn]);
}

static void destroy(struct device *d)
{
    host_free(container_of(d, struct host, dev));
}

static const struct device_ops ops = {.name = "pci-host",
                                      .reset = reset,
                                      .save = save,
                                      .load = load,
                                      .loaded = loaded,
                                      .destroy = destroy};

struct device *pci_host_create(struct vm *vm, const struct pci_host_config *cfg)
{
    struct host *h = host_zalloc(sizeof(*h));

    if (!h)
        return NULL;
    h->dev.ops = &ops;
    h->vm = vm;
    h->cfg = *cfg;
    pci_init(&h->bridge, vm, "host-bridge", BRIDGE_VENDOR, BRIDGE_DEVICE, CLASS_HOST_BRIDGE, 0);
    pci_host_add(&h->dev, &h->bridge, 0);
    if (bus_add(&vm->pio, 0xcf8, 8, &port_ops, h, "pci-config") ||
        (cfg->ecam_size &&
         bus_add(&vm->mmio, cfg->ecam_base, cfg->ecam_size, &ecam_ops, h, "ecam"))) {
        host_free(h);
        return NULL;
    }
    vm_add_device(vm, &h->dev);
    return &h->dev;
}
