/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/chipset/irqchip.h"

#include "dev/chipset/ioapic.h"
#include "dev/chipset/lapic.h"
#include "dev/chipset/pic.h"

#define USERS_MAX 32

struct irqchip {
    struct device dev;
    struct device *pic, *lapic, *ioapic;
    struct irq_line lint0, pin0; /* the 8259's INTR goes to both (MP spec 3.6.2) */
    struct {
        struct irq_line pic, ioapic;
        unsigned users;
        u32 asserted; /* users that assert the line */
    } gsi[IOAPIC_PINS];
};

/* n: GSI in the low byte, user above. */
static void input(void *opaque, unsigned n, bool level)
{
    struct irqchip *c = opaque;
    unsigned gsi = n & 0xff;
    u32 bit = BIT32(n >> 8), was = c->gsi[gsi].asserted;

    c->gsi[gsi].asserted = level ? was | bit : was & ~bit;
    if ((was != 0) == (c->gsi[gsi].asserted != 0))
        return;
    irq_set(&c->gsi[gsi].pic, level);
    irq_set(&c->gsi[gsi].ioapic, level);
}

struct irq_line irqchip_gsi_line(struct device *d, unsigned gsi)
{
    struct irqchip *c = container_of(d, struct irqchip, dev);

    if (!gsi || gsi >= IOAPIC_PINS || c->gsi[gsi].users == USERS_MAX)
        return (struct irq_line){.set = NULL};
    return (struct irq_line){.set = input, .opaque = c, .n = gsi | c->gsi[gsi].users++ << 8};
}

struct irq_line irqchip_isa_line(struct device *d, unsigned irq)
{
    if (irq >= 16 || irq == 2)
        return (struct irq_line){.set = NULL};
    return irqchip_gsi_line(d, irq ? irq : 2);
}

struct msi_sink irqchip_msi(struct device *d)
{
    return lapic_msi_sink(container_of(d, struct irqchip, dev)->lapic);
}

struct irq_line irqchip_nmi(struct device *d)
{
    return lapic_nmi_line(container_of(d, struct irqchip, dev)->lapic);
}

static void intr(void *opaque, unsigned n, bool level)
{
    struct irqchip *c = opaque;

    (void)n;
    irq_set(&c->lint0, level);
    irq_set(&c->pin0, level);
}

#define STATE_VERSION 1

static int save(const struct device *d, struct stream *out, const char **why)
{
    const struct irqchip *c = container_of(d, struct irqchip, dev);

    (void)why;
    stream_put_u16(out, STATE_VERSION);
    for (unsigned i = 0; i < IOAPIC_PINS; i++)
        stream_put_u32(out, c->gsi[i].asserted);
    return out->error;
}

/* Users are numbered in the order in which the board made them. */
static int load(struct device *d, struct stream *in)
{
    struct irqchip *c = container_of(d, struct irqchip, dev);

    stream_expect(in, stream_get_u16(in) == STATE_VERSION);
    for (unsigned i = 0; i < IOAPIC_PINS; i++) {
        u32 asserted = stream_get_u32(in);
        stream_expect(in, !((u64)asserted >> c->gsi[i].users));
        c->gsi[i].asserted = asserted;
    }
    return in->error;
}

static void destroy(struct device *d)
{
    host_free(container_of(d, struct irqchip, dev));
}

static const struct device_ops ops = {
    .name = "irqchip", .save = save, .load = load, .destroy = destroy};

struct device *irqchip_create(struct vm *vm)
{
    struct irqchip *c = host_zalloc(sizeof(*c));
    struct pic_config pic = {.intr = {.set = NULL}};
    struct ioapic_config ioapic = {.base = IOAPIC_DEFAULT_BASE, .id = IRQCHIP_IOAPIC_ID};

    if (!c)
        return NULL;
    c->dev.ops = &ops;
    /* Parts made before a failure belong to the VM and go with it. */
    c->lapic = lapic_create(vm);
    if (c->lapic)
        c->pic = pic_create(vm, &pic);
    if (c->pic) {
        c->lint0 = lapic_intr_line(c->lapic, pic_ack, c->pic);
        ioapic.msi = lapic_msi_sink(c->lapic);
        c->ioapic = ioapic_create(vm, &ioapic);
    }
    if (!c->ioapic) {
        host_free(c);
        return NULL;
    }
    c->pin0 = ioapic_line(c->ioapic, 0);
    pic_connect(c->pic, (struct irq_line){.set = intr, .opaque = c});
    lapic_set_eoi(c->lapic, ioapic_eoi, c->ioapic);
    /* Pin 0 is INTR's. */
    for (unsigned i = 1; i < IOAPIC_PINS; i++) {
        unsigned irq = i == 2 ? 0 : i;
        c->gsi[i].ioapic = ioapic_line(c->ioapic, i);
        if (irq < 16)
            c->gsi[i].pic = pic_line(c->pic, irq);
    }
    vm_add_device(vm, &c->dev);
    return &c->dev;
}
