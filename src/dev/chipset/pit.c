/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 8254 (Intel data sheet 231164). Counters are not stepped: from the clock tick at which a counting
 * sequence began follow the count, the output and the next interrupt.
 */
#include "dev/chipset/pit.h"

#define NS_PER_S 1000000000u
/* Counter 0 interrupts at most this often, whatever a guest asks for. */
#define MIN_PERIOD_NS 20000u

#define RW_LATCH 0
#define RW_LSB 1
#define RW_MSB 2
#define RW_BOTH 3

/* Port 61H (PIIX 290550, NMI status and control register) */
#define P61_GATE2 0x01
#define P61_SPEAKER 0x02
#define P61_WRITABLE 0x0f
#define P61_REFRESH 0x10
#define P61_OUT2 0x20

struct counter {
    u8 mode, rw;
    bool bcd, gate;
    bool loaded;     /* a count has been written since the mode was */
    bool triggered;  /* modes 1 and 5: the gate has risen */
    u32 count;       /* initial count, 1..65536 */
    u32 next_count;  /* modes 2 and 3: takes over at the next reload; 0: none */
    u64 start;       /* tick at which count was loaded */
    u64 held;        /* gate low: ticks that had passed */
    u8 write_low;    /* RW_BOTH: first byte */
    bool write_high; /* ... the second is next */
    bool read_high;
    u16 latch;
    u8 latched; /* bytes of latch still to be read */
    u8 status;
    bool status_latched;
};

struct pit {
    struct device dev;
    struct vm *vm;
    struct irq_line irq;
    struct counter c[3];
    struct vtimer timer;
    u8 port61;
};

static u64 now_tick(struct pit *p)
{
    return clock_scale(vm_clock_ns(p->vm), PIT_HZ, NS_PER_S);
}

static bool periodic(const struct counter *c)
{
    return c->mode == 2 || c->mode == 3;
}

/* Ticks since the count was loaded. A new count of the periodic modes takes over here. */
static u64 elapsed(struct counter *c, u64 now)
{
    u64 e;

    if (!c->gate && c->mode != 1 && c->mode != 5)
        return c->held;
    e = now > c->start ? now - c->start : 0;
    if (c->next_count && e >= c->count) {
        c->start += c->count;
        c->count = c->next_count;
        c->next_count = 0;
        e = now > c->start ? now - c->start : 0;
    }
    return e;
}

static bool counting(const struct counter *c)
{
    return c->loaded && ((c->mode != 1 && c->mode != 5) || c->triggered);
}

static bool output(struct counter *c, u64 now)
{
    u64 e;

    if (!counting(c) || (!c->gate && periodic(c)))
        return c->mode != 0;
    e = elapsed(c, now);
    switch (c->mode) {
    case 0:
    case 1:
        return e >= c->count;
    case 2:
        return e % c->count != c->count - 1;
    case 3:
        return e % c->count < (c->count + 1) / 2;
    default: /* 4, 5: a strobe of one clock */
        return e != c->count;
    }
}

static u16 to_bcd(u32 v)
{
    return (u16)(v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 % 10 << 12);
}

/* What the counting element shows. */
static u16 current(struct counter *c, u64 now)
{
    u32 modulo = c->bcd ? 10000 : 65536, v;
    u64 e;

    if (!c->loaded)
        return 0;
    e = counting(c) ? elapsed(c, now) : 0;
    if (c->mode == 2)
        v = c->count - (u32)(e % c->count);
    else if (c->mode == 3) /* counts down by two, twice a period */
        v = (c->count - (u32)(2 * (e % c->count) % c->count)) & ~1u;
    else
        v = (c->count + modulo - (u32)(e % modulo)) % modulo;
    v %= modulo;
    return c->bcd ? to_bcd(v) : (u16)v;
}

/* --- counter 0 and its interrupt ----------------------------------------------------------------
 */

/* Arms the timer for the next rising edge of OUT 0 after tick `now`. */
static void arm(struct pit *p, u64 now)
{
    struct counter *c = &p->c[0];
    u64 e, at;

    if (!counting(c) || !c->gate) {
        vtimer_cancel(&p->timer);
        return;
    }
    e = elapsed(c, now);
    if (periodic(c)) {
        at = c->start + (e / c->count + 1) * c->count;
    } else {
        at = c->start + c->count + (c->mode >= 4 ? 1 : 0);
        if (at <= now) {
            vtimer_cancel(&p->timer);
            return;
        }
    }
    vtimer_set(&p->timer, clock_scale_up(at, NS_PER_S, PIT_HZ));
}

static void fired(void *opaque)
{
    struct pit *p = opaque;
    struct counter *c = &p->c[0];

    if (c->mode != 0)
        irq_set(&p->irq, false);
    irq_set(&p->irq, true);
    arm(p, now_tick(p));
    if (p->timer.armed) {
        u64 soonest = vm_clock_ns(p->vm) + MIN_PERIOD_NS;
        if (p->timer.deadline < soonest)
            vtimer_set(&p->timer, soonest);
    }
}

/* After anything about counter 0 changed: its line is OUT but for the pulses of `fired`. */
static void update0(struct pit *p, u64 now)
{
    irq_set(&p->irq, output(&p->c[0], now));
    arm(p, now);
}

/* --- programming
 * ----------------------------------------------------------------------------------- */

static void load(struct pit *p, struct counter *c, u16 raw)
{
    u64 now = now_tick(p);
    u32 n = raw;

    if (c->bcd)
        n = (raw & 15) + (raw >> 4 & 15) * 10 + (raw >> 8 & 15) * 100u + (raw >> 12) * 1000u;
    if (!n)
        n = c->bcd ? 10000 : 65536;
    if (periodic(c) && n == 1)
        n = 2; /* not allowed in these modes */
    if (c->loaded && periodic(c) && c->gate) {
        u64 e = elapsed(c, now);
        c->start += e - e % c->count; /* the period in progress */
        c->next_count = n;
    } else if ((c->mode == 1 || c->mode == 5) && c->triggered) {
        c->next_count = 0;
        c->count = n; /* the one in progress is little worth keeping: none follows it */
    } else {
        c->count = n;
        c->next_count = 0;
        c->start = now;
        c->held = 0;
    }
    c->loaded = true;
    if (c == &p->c[0])
        update0(p, now);
}

static void write_count(struct pit *p, struct counter *c, u8 val)
{
    switch (c->rw) {
    case RW_LSB:
        load(p, c, val);
        break;
    case RW_MSB:
        load(p, c, (u16)(val << 8));
        break;
    default:
        if (!c->write_high) {
            c->write_low = val;
            c->write_high = true;
            if (c->mode == 0) { /* counting stops, OUT goes low */
                c->loaded = false;
                if (c == &p->c[0])
                    update0(p, now_tick(p));
            }
        } else {
            c->write_high = false;
            load(p, c, (u16)(c->write_low | val << 8));
        }
        break;
    }
}

static void latch_count(struct pit *p, struct counter *c)
{
    if (c->latched)
        return;
    c->latch = current(c, now_tick(p));
    c->latched = c->rw == RW_BOTH ? 2 : 1;
}

static void latch_status(struct pit *p, struct counter *c)
{
    if (c->status_latched)
        return;
    c->status_latched = true;
    c->status = (u8)(output(c, now_tick(p)) << 7 | (!c->loaded || c->next_count) << 6 | c->rw << 4 |
                     c->mode << 1 | c->bcd);
}

static void control(struct pit *p, u8 val)
{
    struct counter *c;

    if (val >> 6 == 3) { /* read-back command */
        for (unsigned i = 0; i < 3; i++) {
            if (!(val & (2u << i)))
                continue;
            if (!(val & 0x20))
                latch_count(p, &p->c[i]);
            if (!(val & 0x10))
                latch_status(p, &p->c[i]);
        }
        return;
    }
    c = &p->c[val >> 6];
    if ((val >> 4 & 3) == RW_LATCH) {
        latch_count(p, c);
        return;
    }
    c->rw = val >> 4 & 3;
    c->mode = val >> 1 & 7;
    if (c->mode > 5)
        c->mode -= 4; /* 6 and 7 are 2 and 3 */
    c->bcd = val & 1;
    c->loaded = c->triggered = c->write_high = c->read_high = false;
    c->next_count = 0;
    c->held = 0;
    c->latched = 0;
    c->status_latched = false;
    if (c == &p->c[0])
        update0(p, now_tick(p));
}

static u8 read_count(struct pit *p, struct counter *c)
{
    u16 v;

    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    if (c->latched) {
        v = c->latch;
        if (c->rw == RW_BOTH)
            return (u8)(c->latched-- == 2 ? v : v >> 8);
        c->latched = 0;
        return (u8)(c->rw == RW_MSB ? v >> 8 : v);
    }
    v = current(c, now_tick(p));
    if (c->rw == RW_MSB)
        return (u8)(v >> 8);
    if (c->rw == RW_BOTH) {
        c->read_high = !c->read_high;
        return (u8)(c->read_high ? v : v >> 8);
    }
    return (u8)v;
}

static void set_gate(struct pit *p, struct counter *c, bool gate)
{
    u64 now = now_tick(p);

    if (gate == c->gate)
        return;
    if (!gate) {
        c->held = counting(c) ? elapsed(c, now) : 0;
        c->gate = false;
        return;
    }
    c->gate = true;
    if (c->mode == 0 || c->mode == 4) {
        c->start = now - c->held; /* goes on */
    } else {
        c->start = now; /* reload, or trigger */
        c->triggered = true;
        if (c->next_count) {
            c->count = c->next_count;
            c->next_count = 0;
        }
    }
}

static u64 port_read(void *dev, u64 off, unsigned size)
{
    struct pit *p = dev;

    (void)size;
    return off < 3 ? read_count(p, &p->c[off]) : 0xff;
}

static void port_write(void *dev, u64 off, unsigned size, u64 val)
{
    struct pit *p = dev;

    (void)size;
    if (off < 3)
        write_count(p, &p->c[off], (u8)val);
    else
        control(p, (u8)val);
}

static const struct bus_ops port_ops = {
    .read = port_read, .write = port_write, .min_size = 1, .max_size = 1};

static u64 port61_read(void *dev, u64 off, unsigned size)
{
    struct pit *p = dev;
    u8 val = p->port61;

    (void)off;
    (void)size;
    /* The refresh request toggles every 15 us. */
    if (vm_clock_ns(p->vm) / 15085 & 1)
        val |= P61_REFRESH;
    if (output(&p->c[2], now_tick(p)))
        val |= P61_OUT2;
    return val;
}

static void port61_write(void *dev, u64 off, unsigned size, u64 val)
{
    struct pit *p = dev;

    (void)off;
    (void)size;
    p->port61 = (u8)val & P61_WRITABLE;
    set_gate(p, &p->c[2], val & P61_GATE2);
}

static const struct bus_ops port61_ops = {
    .read = port61_read, .write = port61_write, .min_size = 1, .max_size = 1};

/* --- life cycle
 * ------------------------------------------------------------------------------------- */

static void reset(struct device *d)
{
    struct pit *p = container_of(d, struct pit, dev);

    for (unsigned i = 0; i < 3; i++)
        p->c[i] = (struct counter){.mode = 3, .rw = RW_BOTH, .count = 65536, .gate = i != 2};
    p->port61 = 0;
    vtimer_cancel(&p->timer);
    irq_set(&p->irq, false);
}

#define STATE_VERSION 1

static int save(const struct device *d, struct stream *out, const char **why)
{
    const struct pit *p = container_of(d, struct pit, dev);

    (void)why;
    stream_put_u16(out, STATE_VERSION);
    for (unsigned i = 0; i < 3; i++) {
        const struct counter *c = &p->c[i];
        stream_put_u8(out, c->mode);
        stream_put_u8(out, c->rw);
        stream_put_u8(out, c->bcd);
        stream_put_u8(out, c->gate);
        stream_put_u8(out, c->loaded);
        stream_put_u8(out, c->triggered);
        stream_put_u32(out, c->count);
        stream_put_u32(out, c->next_count);
        stream_put_u64(out, c->start);
        stream_put_u64(out, c->held);
        stream_put_u8(out, c->write_low);
        stream_put_u8(out, c->write_high);
        stream_put_u8(out, c->read_high);
        stream_put_u16(out, c->latch);
        stream_put_u8(out, c->latched);
        stream_put_u8(out, c->status);
        stream_put_u8(out, c->status_latched);
    }
    stream_put_u8(out, p->port61);
    vtimer_save(&p->timer, out);
    return out->error;
}

static void load_counter(struct counter *c, u64 now, struct stream *in)
{
    c->mode = stream_get_u8(in);
    stream_expect(in, c->mode <= 5);
    c->rw = stream_get_u8(in);
    stream_expect(in, c->rw >= RW_LSB && c->rw <= RW_BOTH);
    c->bcd = stream_get_bool(in);
    c->gate = stream_get_bool(in);
    c->loaded = stream_get_bool(in);
    c->triggered = stream_get_bool(in);
    c->count = stream_get_u32(in);
    stream_expect(in, c->count && c->count <= 65536);
    c->next_count = stream_get_u32(in);
    stream_expect(in, c->next_count <= 65536);
    c->start = stream_get_u64(in);
    c->held = stream_get_u64(in);
    stream_expect(in, c->start <= now && c->held <= now);
    c->write_low = stream_get_u8(in);
    c->write_high = stream_get_bool(in);
    c->read_high = stream_get_bool(in);
    c->latch = stream_get_u16(in);
    c->latched = stream_get_u8(in);
    stream_expect(in, c->latched <= (c->rw == RW_BOTH ? 2 : 1));
    c->status = stream_get_u8(in);
    c->status_latched = stream_get_bool(in);
}

static int load_state(struct device *d, struct stream *in)
{
    struct pit *p = container_of(d, struct pit, dev);
    struct counter c[3];
    u8 port61;

    stream_expect(in, stream_get_u16(in) == STATE_VERSION);
    for (unsigned i = 0; i < 3; i++)
        load_counter(&c[i], now_tick(p), in);
    port61 = stream_get_u8(in);
    stream_expect(in, !(port61 & ~P61_WRITABLE));
    stream_expect(in, c[0].gate && c[1].gate && c[2].gate == (port61 & P61_GATE2));
    if (in->error)
        return in->error;
    for (unsigned i = 0; i < 3; i++)
        p->c[i] = c[i];
    p->port61 = port61;
    vtimer_load(&p->timer, in);
    return in->error;
}

static void destroy(struct device *d)
{
    struct pit *p = container_of(d, struct pit, dev);

    vtimer_cancel(&p->timer);
    host_free(p);
}

static const struct device_ops ops = {
    .name = "pit", .reset = reset, .save = save, .load = load_state, .destroy = destroy};

struct device *pit_create(struct vm *vm, const struct pit_config *cfg)
{
    struct pit *p = host_zalloc(sizeof(*p));

    if (!p)
        return NULL;
    p->dev.ops = &ops;
    p->vm = vm;
    p->irq = cfg->irq;
    vtimer_init(&p->timer, vm, fired, p);
    reset(&p->dev);
    if (bus_add(&vm->pio, 0x40, 4, &port_ops, p, "pit") ||
        bus_add(&vm->pio, 0x61, 1, &port61_ops, p, "port61")) {
        host_free(p);
        return NULL;
    }
    vm_add_device(vm, &p->dev);
    return &p->dev;
}
