/* SPDX-License-Identifier: Apache-2.0 */
/* 8259A pair as in the PC (Intel 8259A data sheet 231468; ELCR: PIIX 290550 chapter 2.5). */
#include "dev/chipset/pic.h"

#define ICW1_INIT 0x10
#define ICW1_LTIM 0x08
#define ICW1_SNGL 0x02
#define ICW1_IC4 0x01
#define ICW4_SFNM 0x10
#define ICW4_AEOI 0x02

#define OCW3 0x08
#define OCW3_POLL 0x04
#define OCW3_RR 0x02
#define OCW3_RIS 0x01
#define OCW3_ESMM 0x40
#define OCW3_SMM 0x20

#define CASCADE 2

struct pic;

struct i8259 {
    struct pic *pair;
    bool slave;
    u8 lines; /* levels at the inputs */
    u8 irr, imr, isr;
    u8 elcr, elcr_mask;
    u8 base;   /* ICW2: vector of input 0 */
    u8 lowest; /* input of lowest priority */
    u8 icw;    /* initialization word expected next: 0, 2, 3 or 4 */
    bool icw4, single, ltim;
    bool aeoi, rotate_aeoi, sfnm, smm;
    bool read_isr, poll;
    bool out;
};

struct pic {
    struct device dev;
    struct vm *vm;
    struct irq_line intr;
    struct i8259 chip[2];
};

/* Distance of the best bit in `bits` from the highest priority; 8: none. */
static unsigned priority(const struct i8259 *c, u8 bits)
{
    for (unsigned p = 0; p < 8; p++)
        if (bits & (1u << ((c->lowest + 1 + p) & 7)))
            return p;
    return 8;
}

/* Input to serve now, or -1. */
static int request(const struct i8259 *c)
{
    unsigned want = priority(c, c->irr & (u8)~c->imr), busy;
    u8 isr = c->isr;

    if (want == 8)
        return -1;
    if (c->smm) /* special mask mode: masked levels in service do not block */
        isr &= (u8)~c->imr;
    if (c->sfnm && !c->slave) /* a slave in service may interrupt again */
        isr &= (u8) ~(1u << CASCADE);
    busy = priority(c, isr);
    if (busy <= want)
        return -1;
    return (int)((c->lowest + 1 + want) & 7);
}

static bool level_triggered(const struct i8259 *c, unsigned n)
{
    return c->ltim || (c->elcr & (1u << n));
}

static void set_input(struct i8259 *c, unsigned n, bool level);

/* Recomputes a chip's output and hands it on. */
static void update(struct i8259 *c)
{
    struct pic *p = c->pair;
    bool out = request(c) >= 0;

    if (out == c->out)
        return;
    c->out = out;
    if (c->slave)
        set_input(&p->chip[0], CASCADE, out);
    else
        irq_set(&p->intr, out);
}

static void set_input(struct i8259 *c, unsigned n, bool level)
{
    u8 bit = (u8)(1u << n);
    bool was = c->lines & bit;

    c->lines = (u8)(level ? c->lines | bit : c->lines & ~bit);
    if (level_triggered(c, n) || (!c->slave && n == CASCADE)) {
        c->irr = (u8)(level ? c->irr | bit : c->irr & ~bit);
    } else if (level && !was) {
        c->irr |= bit;
    } else if (!level) {
        /* An edge-triggered request must be held until INTA (data sheet, "IR level"). */
        c->irr &= (u8)~bit;
    }
    update(c);
}

static void end_of_interrupt(struct i8259 *c, unsigned n)
{
    c->isr &= (u8) ~(1u << n);
}

/* First half of INTA: the chip's input number; 7 and no ISR bit when the request went away. */
static unsigned accept(struct i8259 *c)
{
    int n = request(c);

    if (n < 0)
        return 7;
    if (!level_triggered(c, (unsigned)n) && !(!c->slave && n == CASCADE))
        c->irr &= (u8) ~(1u << n);
    if (c->aeoi) {
        if (c->rotate_aeoi)
            c->lowest = (u8)n;
    } else {
        c->isr |= (u8)(1u << n);
    }
    return (unsigned)n;
}

int pic_ack(void *opaque)
{
    struct pic *p = container_of((struct device *)opaque, struct pic, dev);
    struct i8259 *m = &p->chip[0], *s = &p->chip[1];
    bool cascade = request(m) == CASCADE;
    unsigned n = accept(m);
    int vector = m->base + (int)n;

    if (cascade) {
        n = accept(s);
        vector = s->base + (int)n;
        update(s);
    }
    update(m);
    return vector;
}

/* --- registers -------------------------------------------------------------------------------- */

static void icw1(struct i8259 *c, u8 val)
{
    c->icw4 = (val & ICW1_IC4) != 0;
    c->single = (val & ICW1_SNGL) != 0;
    c->ltim = (val & ICW1_LTIM) != 0;
    c->icw = 2;
    c->irr = 0; /* the edge sense is reset: a line must go low and high again */
    c->imr = c->isr = 0;
    c->lowest = 7;
    c->smm = c->read_isr = c->poll = false;
    c->aeoi = c->rotate_aeoi = c->sfnm = false;
    /* Level inputs are still asserted. */
    for (unsigned n = 0; n < 8; n++)
        if ((c->lines & (1u << n)) && (level_triggered(c, n) || (!c->slave && n == CASCADE)))
            c->irr |= (u8)(1u << n);
}

/* OCW2: end of interrupt and rotation (data sheet figure 8). */
static void ocw2(struct i8259 *c, u8 val)
{
    unsigned n = val & 7, p;

    switch (val >> 5) {
    case 1: /* non-specific EOI */
    case 5: /* rotate on non-specific EOI */
        p = priority(c, c->smm ? c->isr & (u8)~c->imr : c->isr);
        if (p == 8)
            break;
        n = (c->lowest + 1u + p) & 7;
        end_of_interrupt(c, n);
        if (val >> 5 == 5)
            c->lowest = (u8)n;
        break;
    case 3: /* specific EOI */
        end_of_interrupt(c, n);
        break;
    case 7: /* rotate on specific EOI */
        end_of_interrupt(c, n);
        c->lowest = (u8)n;
        break;
    case 6: /* set priority */
        c->lowest = (u8)n;
        break;
    case 4:
        c->rotate_aeoi = true;
        break;
    case 0:
        c->rotate_aeoi = false;
        break;
    default: /* no operation */
        break;
    }
}

static void command(struct i8259 *c, u8 val)
{
    if (val & ICW1_INIT) {
        icw1(c, val);
    } else if (val & OCW3) {
        if (val & OCW3_ESMM)
            c->smm = (val & OCW3_SMM) != 0;
        if (val & OCW3_RR)
            c->read_isr = (val & OCW3_RIS) != 0;
        c->poll = (val & OCW3_POLL) != 0;
    } else {
        ocw2(c, val);
    }
    update(c);
}

static void data(struct i8259 *c, u8 val)
{
    switch (c->icw) {
    case 2:
        c->base = val & 0xf8;
        c->icw = c->single ? (c->icw4 ? 4 : 0) : 3;
        return;
    case 3: /* the wiring of the cascade is fixed */
        c->icw = c->icw4 ? 4 : 0;
        break;
    case 4:
        c->aeoi = (val & ICW4_AEOI) != 0;
        c->sfnm = (val & ICW4_SFNM) != 0;
        c->icw = 0;
        break;
    default:
        c->imr = val;
        break;
    }
    update(c);
}

/* Poll command (data sheet, "Poll command"): the read is an INTA of this chip alone. */
static u8 poll_read(struct i8259 *c)
{
    u8 val = 0;

    c->poll = false;
    if (request(c) >= 0)
        val = (u8)(0x80 | accept(c));
    update(c);
    return val;
}

static u64 port_read(void *dev, u64 off, unsigned size)
{
    struct i8259 *c = dev;

    (void)size;
    if (c->poll)
        return poll_read(c);
    if (off)
        return c->imr;
    return c->read_isr ? c->isr : c->irr;
}

static void port_write(void *dev, u64 off, unsigned size, u64 val)
{
    struct i8259 *c = dev;

    (void)size;
    if (off)
        data(c, (u8)val);
    else
        command(c, (u8)val);
}

static const struct bus_ops port_ops = {
    .read = port_read, .write = port_write, .min_size = 1, .max_size = 1};

static u64 elcr_read(void *dev, u64 off, unsigned size)
{
    struct pic *p = dev;

    (void)size;
    return p->chip[off].elcr;
}

static void elcr_write(void *dev, u64 off, unsigned size, u64 val)
{
    struct pic *p = dev;
    struct i8259 *c = &p->chip[off];

    (void)size;
    c->elcr = (u8)val & c->elcr_mask;
}

static const struct bus_ops elcr_ops = {
    .read = elcr_read, .write = elcr_write, .min_size = 1, .max_size = 1};

/* --- inputs and life cycle ---------------------------------------------------------------------
 */

static void input(void *opaque, unsigned n, bool level)
{
    struct pic *p = opaque;

    set_input(&p->chip[n / 8], n % 8, level);
}

struct irq_line pic_line(struct device *d, unsigned n)
{
    if (n >= 16 || n == CASCADE)
        return (struct irq_line){.set = NULL};
    return (struct irq_line){.set = input, .opaque = container_of(d, struct pic, dev), .n = n};
}

void pic_connect(struct device *d, struct irq_line intr)
{
    container_of(d, struct pic, dev)->intr = intr;
}

/* Power-on; firmware would have programmed vectors 08H and 70H and masked everything. */
static void reset(struct device *d)
{
    struct pic *p = container_of(d, struct pic, dev);

    for (unsigned i = 0; i < 2; i++) {
        p->chip[i] = (struct i8259){
            .pair = p,
            .slave = i == 1,
            .lines = p->chip[i].lines,
            .imr = 0xff,
            .base = i ? 0x70 : 0x08,
            .lowest = 7,
            /* IRQ 0, 1, 2, 8 and 13 are always edges */
            .elcr_mask = i ? 0xde : 0xf8,
        };
    }
    irq_set(&p->intr, false);
}

#define STATE_VERSION 1

static int save(const struct device *d, struct stream *out, const char **why)
{
    const struct pic *p = container_of(d, struct pic, dev);

    (void)why;
    stream_put_u16(out, STATE_VERSION);
    for (unsigned i = 0; i < 2; i++) {
        const struct i8259 *c = &p->chip[i];
        const u8 regs[] = {c->lines, c->irr, c->imr, c->isr, c->elcr, c->base, c->lowest, c->icw};
        const bool flags[] = {c->icw4, c->single, c->ltim,     c->aeoi, c->rotate_aeoi,
                              c->sfnm, c->smm,    c->read_isr, c->poll};
        stream_put(out, regs, sizeof(regs));
        for (unsigned k = 0; k < ARRAY_SIZE(flags); k++)
            stream_put_u8(out, flags[k]);
    }
    return out->error;
}

static void load_chip(struct i8259 *c, struct stream *in)
{
    bool *const flags[] = {&c->icw4, &c->single, &c->ltim,     &c->aeoi, &c->rotate_aeoi,
                           &c->sfnm, &c->smm,    &c->read_isr, &c->poll};

    c->lines = stream_get_u8(in);
    c->irr = stream_get_u8(in);
    c->imr = stream_get_u8(in);
    c->isr = stream_get_u8(in);
    c->elcr = stream_get_u8(in);
    stream_expect(in, !(c->elcr & ~c->elcr_mask));
    c->base = stream_get_u8(in);
    stream_expect(in, !(c->base & 7));
    c->lowest = stream_get_u8(in);
    stream_expect(in, c->lowest < 8);
    c->icw = stream_get_u8(in);
    stream_expect(in, c->icw != 1 && c->icw <= 4);
    for (unsigned k = 0; k < ARRAY_SIZE(flags); k++)
        *flags[k] = stream_get_bool(in);
    c->out = request(c) >= 0; /* what update() would have made of it */
}

static int load(struct device *d, struct stream *in)
{
    struct pic *p = container_of(d, struct pic, dev);
    struct i8259 chip[2] = {p->chip[0], p->chip[1]};

    stream_expect(in, stream_get_u16(in) == STATE_VERSION);
    load_chip(&chip[0], in);
    load_chip(&chip[1], in);
    stream_expect(in, (chip[0].lines >> CASCADE & 1) == chip[1].out);
    if (in->error)
        return in->error;
    p->chip[0] = chip[0];
    p->chip[1] = chip[1];
    return 0;
}

static void destroy(struct device *d)
{
    host_free(container_of(d, struct pic, dev));
}

static const struct device_ops ops = {
    .name = "pic", .reset = reset, .save = save, .load = load, .destroy = destroy};

struct device *pic_create(struct vm *vm, const struct pic_config *cfg)
{
    struct pic *p = host_zalloc(sizeof(*p));

    if (!p)
        return NULL;
    p->dev.ops = &ops;
    p->vm = vm;
    p->intr = cfg->intr;
    reset(&p->dev);
    if (bus_add(&vm->pio, 0x20, 2, &port_ops, &p->chip[0], "pic1") ||
        bus_add(&vm->pio, 0xa0, 2, &port_ops, &p->chip[1], "pic2") ||
        bus_add(&vm->pio, 0x4d0, 2, &elcr_ops, p, "elcr")) {
        host_free(p);
        return NULL;
    }
    vm_add_device(vm, &p->dev);
    return &p->dev;
}
