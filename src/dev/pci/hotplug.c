/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/pci/hotplug.h"

#include "base/check.h"
#include "dev/chipset/acpi_pm.h"

#define SLOTS 32

struct hotplug {
    struct device dev;
    struct vm *vm;
    struct pci_hotplug_config cfg;
    struct device *what[SLOTS]; /* what may be ejected; the board's doing, no part of the state */
    u32 up, down;               /* registers */
    u32 ejected;                /* slots whose ends the board is to be told */
    struct host_bh tell;
};

static struct hotplug *of(struct device *d)
{
    return container_of(d, struct hotplug, dev);
}

bool pci_hotplug_insert(struct device *d, unsigned slot, struct device *what, bool tell)
{
    struct hotplug *h = of(d);

    CHECK(slot < SLOTS && !h->what[slot] && what->ops->unplug);
    h->what[slot] = what;
    if (!tell)
        return true;
    h->up |= BIT32(slot);
    return acpi_pm_raise_gpe(h->cfg.pm, PCI_HOTPLUG_GPE);
}

bool pci_hotplug_ask(struct device *d, unsigned slot)
{
    struct hotplug *h = of(d);

    CHECK(slot < SLOTS);
    if (h->what[slot])
        h->down |= BIT32(slot);
    return acpi_pm_raise_gpe(h->cfg.pm, PCI_HOTPLUG_GPE);
}

/* On a vCPU's thread. What takes longer than leaving the bus is the event loop's to do. */
static void eject(struct hotplug *h, unsigned slot)
{
    struct device *what = h->what[slot];

    if (!what)
        return;
    h->what[slot] = NULL;
    h->up &= ~BIT32(slot);
    h->down &= ~BIT32(slot);
    h->ejected |= BIT32(slot);
    what->ops->unplug(what);
    host_bh_schedule(&h->tell);
}

static void tell(void *opaque)
{
    struct hotplug *h = opaque;
    u32 slots;

    vm_lock(h->vm);
    slots = h->ejected;
    h->ejected = 0;
    vm_unlock(h->vm);
    for (; slots; slots &= slots - 1)
        h->cfg.ejected(h->cfg.opaque, (unsigned)__builtin_ctz(slots));
}

void pci_hotplug_settle(struct device *d)
{
    tell(of(d));
}

static u64 port_read(void *dev, u64 off, unsigned size)
{
    struct hotplug *h = dev;
    u32 *reg = off == PCI_HOTPLUG_UP ? &h->up : off == PCI_HOTPLUG_DOWN ? &h->down : NULL, val;

    (void)size;
    if (!reg)
        return 0;
    val = *reg;
    *reg = 0;
    return val;
}

static void port_write(void *dev, u64 off, unsigned size, u64 val)
{
    (void)size;
    if (off != PCI_HOTPLUG_EJECT)
        return;
    for (u32 slots = (u32)val; slots; slots &= slots - 1)
        eject(dev, (unsigned)__builtin_ctz(slots));
}

static const struct bus_ops port_ops = {
    .read = port_read, .write = port_write, .min_size = 4, .max_size = 4};

/* What is in the slots stays there. */
static void reset(struct device *d)
{
    of(d)->up = of(d)->down = 0;
}

#define STATE_VERSION 1

static int save(const struct device *d, struct stream *out, const char **why)
{
    const struct hotplug *h = container_of(d, struct hotplug, dev);

    (void)why;
    stream_put_u16(out, STATE_VERSION);
    stream_put_u32(out, h->up);
    stream_put_u32(out, h->down);
    return out->error;
}

static int load(struct device *d, struct stream *in)
{
    struct hotplug *h = of(d);

    stream_expect(in, stream_get_u16(in) == STATE_VERSION);
    h->up = stream_get_u32(in);
    h->down = stream_get_u32(in);
    for (u32 slots = h->up | h->down; slots; slots &= slots - 1)
        stream_expect(in, h->what[__builtin_ctz(slots)] != NULL);
    return in->error;
}

static void destroy(struct device *d)
{
    struct hotplug *h = of(d);

    host_bh_cancel(&h->tell);
    host_free(h);
}

static const struct device_ops ops = {
    .name = "pci-hotplug", .reset = reset, .save = save, .load = load, .destroy = destroy};

struct device *pci_hotplug_create(struct vm *vm, const struct pci_hotplug_config *cfg)
{
    struct hotplug *h = host_zalloc(sizeof(*h));

    if (!h)
        return NULL;
    h->dev.ops = &ops;
    h->vm = vm;
    h->cfg = *cfg;
    host_bh_init(&h->tell, tell, h);
    if (bus_add(&vm->pio, cfg->base, PCI_HOTPLUG_SIZE, &port_ops, h, "pci-hotplug")) {
        host_free(h);
        return NULL;
    }
    vm_add_device(vm, &h->dev);
    return &h->dev;
}
