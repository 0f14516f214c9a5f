/* SPDX-License-Identifier: Apache-2.0 */
/* I/O APIC: redirection entries become messages to the local APICs. */
#include "dev/chipset/ioapic.h"

#define VERSION (0x20u | (IOAPIC_PINS - 1) << 16)

#define RTE_VECTOR 0xffu
#define RTE_LOGICAL BIT64(11)
#define RTE_PENDING BIT64(12)
#define RTE_ACTIVE_LOW BIT64(13)
#define RTE_REMOTE_IRR BIT64(14)
#define RTE_LEVEL BIT64(15)
#define RTE_MASKED BIT64(16)
#define RTE_WRITABLE (MASK64(63, 56) | MASK64(16, 15) | RTE_ACTIVE_LOW | MASK64(11, 0))

struct ioapic {
    struct device dev;
    struct vm *vm;
    struct msi_sink msi;
    u8 reset_id;
    u32 id, select;
    u32 lines; /* asserted inputs; polarity is the line's own (asserted is asserted) */
    u64 rte[IOAPIC_PINS];
};

/* A redirection entry as a message (82093AA 3.2.4; SDM 3A 10.11). */
static u32 message(u64 rte, u64 *addr)
{
    u32 data = (u32)rte & 0x7ff;

    *addr = 0xfee00000u | (rte >> 56) << 12;
    if (rte & RTE_LOGICAL)
        *addr |= BIT64(2);
    if (rte & RTE_LEVEL)
        data |= BIT32(15) | BIT32(14);
    return data;
}

static void send(struct ioapic *a, u64 rte)
{
    u64 addr;
    u32 data = message(rte, &addr);

    if (a->msi.send)
        a->msi.send(a->msi.opaque, addr, data);
}

/* A masked pin may still wait for an EOI: only the trigger mode counts. */
static void announce(struct ioapic *a, unsigned pin)
{
    u64 addr;
    u32 data = message(a->rte[pin], &addr);

    if (a->msi.announce)
        a->msi.announce(a->msi.opaque, pin, addr, a->rte[pin] & RTE_LEVEL ? data : 0);
}

/* A pin whose line is asserted. Level: once until the EOI comes. */
static void service(struct ioapic *a, unsigned pin)
{
    u64 *rte = &a->rte[pin];

    if (*rte & RTE_MASKED)
        return;
    if (*rte & RTE_LEVEL) {
        if (*rte & RTE_REMOTE_IRR)
            return;
        *rte |= RTE_REMOTE_IRR;
    }
    send(a, *rte);
}

static void input(void *opaque, unsigned pin, bool level)
{
    struct ioapic *a = opaque;
    bool was = a->lines & BIT32(pin);

    if (level)
        a->lines |= BIT32(pin);
    else
        a->lines &= ~BIT32(pin);
    /* An edge at a masked pin is lost (82093AA 3.2.4, interrupt mask). */
    if (level && (!was || (a->rte[pin] & RTE_LEVEL)))
        service(a, pin);
}

void ioapic_eoi(void *opaque, u8 vector)
{
    struct ioapic *a = container_of((struct device *)opaque, struct ioapic, dev);

    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        u64 *rte = &a->rte[pin];
        if ((*rte & RTE_VECTOR) != vector || !(*rte & RTE_REMOTE_IRR))
            continue;
        *rte &= ~RTE_REMOTE_IRR;
        if (a->lines & BIT32(pin))
            service(a, pin);
    }
}

static void write_rte(struct ioapic *a, unsigned pin, bool high, u32 val)
{
    u64 *rte = &a->rte[pin], old = *rte, now;

    now = high ? (old & 0xffffffffu) | (u64)val << 32 : (old & MASK64(63, 32)) | val;
    now = (now & RTE_WRITABLE) | (old & RTE_REMOTE_IRR);
    /* Remote IRR has no meaning for edges: changing the mode clears it (Linux relies on it). */
    if (!(now & RTE_LEVEL))
        now &= ~RTE_REMOTE_IRR;
    *rte = now;
    announce(a, pin);
    if ((now & RTE_LEVEL) && (a->lines & BIT32(pin)))
        service(a, pin);
}

static u32 read_register(const struct ioapic *a)
{
    switch (a->select) {
    case 0:
    case 2: /* arbitration id */
        return a->id;
    case 1:
        return VERSION;
    case 0x10 ... 0x10 + 2 * IOAPIC_PINS - 1:
        return (u32)(a->rte[(a->select - 0x10) / 2] >> (a->select & 1 ? 32 : 0));
    default:
        return 0;
    }
}

static void write_register(struct ioapic *a, u32 val)
{
    switch (a->select) {
    case 0:
        a->id = val & 0x0f000000u;
        break;
    case 0x10 ... 0x10 + 2 * IOAPIC_PINS - 1:
        write_rte(a, (a->select - 0x10) / 2, a->select & 1, val);
        break;
    default:
        break;
    }
}

static u64 mmio_read(void *dev, u64 off, unsigned size)
{
    struct ioapic *a = dev;

    (void)size;
    switch (off) {
    case 0x00:
        return a->select;
    case 0x10:
        return read_register(a);
    default:
        return 0;
    }
}

static void mmio_write(void *dev, u64 off, unsigned size, u64 val)
{
    struct ioapic *a = dev;

    (void)size;
    switch (off) {
    case 0x00:
        a->select = (u8)val;
        break;
    case 0x10:
        write_register(a, (u32)val);
        break;
    case 0x40:
        ioapic_eoi(&a->dev, (u8)val);
        break;
    default:
        break;
    }
}

static const struct bus_ops mmio_ops = {
    .read = mmio_read, .write = mmio_write, .min_size = 4, .max_size = 4};

struct irq_line ioapic_line(struct device *d, unsigned pin)
{
    if (pin >= IOAPIC_PINS)
        return (struct irq_line){.set = NULL};
    return (struct irq_line){.set = input, .opaque = container_of(d, struct ioapic, dev), .n = pin};
}

static void reset(struct device *d)
{
    struct ioapic *a = container_of(d, struct ioapic, dev);

    a->id = (u32)a->reset_id << 24;
    a->select = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        a->rte[pin] = RTE_MASKED;
}

#define STATE_VERSION 1

static int save(const struct device *d, struct stream *out, const char **why)
{
    const struct ioapic *a = container_of(d, struct ioapic, dev);

    (void)why;
    stream_put_u16(out, STATE_VERSION);
    stream_put_u32(out, a->id);
    stream_put_u8(out, (u8)a->select);
    stream_put_u32(out, a->lines);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        stream_put_u64(out, a->rte[pin]);
    return out->error;
}

static int load(struct device *d, struct stream *in)
{
    struct ioapic *a = container_of(d, struct ioapic, dev);

    stream_expect(in, stream_get_u16(in) == STATE_VERSION);
    a->id = stream_get_u32(in);
    stream_expect(in, !(a->id & ~0x0f000000u));
    a->select = stream_get_u8(in);
    a->lines = stream_get_u32(in);
    stream_expect(in, !(a->lines >> IOAPIC_PINS));
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        u64 rte = stream_get_u64(in);
        stream_expect(in, !(rte & ~(RTE_WRITABLE | RTE_REMOTE_IRR)) &&
                              (!(rte & RTE_REMOTE_IRR) || (rte & RTE_LEVEL)));
        a->rte[pin] = rte;
    }
    return in->error;
}

/* The engine knows none of them yet. */
static void announce_all(struct device *d)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        announce(container_of(d, struct ioapic, dev), pin);
}

static void destroy(struct device *d)
{
    host_free(container_of(d, struct ioapic, dev));
}

static const struct device_ops ops = {
    .name = "ioapic",
    .reset = reset,
    .save = save,
    .load = load,
    .loaded = announce_all,
    .destroy = destroy,
};

struct device *ioapic_create(struct vm *vm, const struct ioapic_config *cfg)
{
    struct ioapic *a = host_zalloc(sizeof(*a));

    if (!a)
        return NULL;
    a->dev.ops = &ops;
    a->vm = vm;
    a->msi = cfg->msi;
    a->reset_id = cfg->id;
    reset(&a->dev);
    if (bus_add(&vm->mmio, cfg->base, 0x1000, &mmio_ops, a, "ioapic")) {
        host_free(a);
        return NULL;
    }
    vm_add_device(vm, &a->dev);
    return &a->dev;
}
