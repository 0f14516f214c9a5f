/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MC146818A (Motorola data sheet). The time is an offset to the VM's clock; it is taken apart when
 * a register is read, and put together again when one is written.
 */
#include "dev/chipset/rtc.h"

#define NS_PER_S 1000000000ull
/* UIP is seen this long before an update (data sheet, "update cycle"). */
#define UIP_NS 244000u

enum {
    SECONDS = 0x00,
    SECONDS_ALARM = 0x01,
    MINUTES = 0x02,
    MINUTES_ALARM = 0x03,
    HOURS = 0x04,
    HOURS_ALARM = 0x05,
    WEEKDAY = 0x06,
    DAY = 0x07,
    MONTH = 0x08,
    YEAR = 0x09,
    REG_A = 0x0a,
    REG_B = 0x0b,
    REG_C = 0x0c,
    REG_D = 0x0d,
};

#define A_UIP 0x80
#define B_SET 0x80
#define B_PIE 0x40
#define B_AIE 0x20
#define B_UIE 0x10
#define B_DM 0x04 /* binary */
#define B_24H 0x02
#define C_IRQF 0x80
#define C_PF 0x40
#define C_AF 0x20
#define C_UF 0x10
#define D_VRT 0x80

struct rtc {
    struct device dev;
    struct vm *vm;
    struct irq_line irq;
    u64 ram_below_4g, ram_above_4g;
    bool fixed_time;
    /* How far the time was from the host's when software last set it; see load. Rounded down to
     * seconds, and the rest. */
    s64 drift;
    u32 drift_ns;
    /* Seconds since the epoch are offset + (clock + phase) / 1 s. */
    s64 offset;
    u64 phase;
    u8 index;
    u8 cmos[128];    /* time registers: only while SET or as last written */
    s64 stopped;     /* second shown while SET is on or the divider is held */
    s64 seen_second; /* UF and AF are up to date until this second, PF until this tick */
    u64 seen_tick;
    struct vtimer second, period;
};

/* --- calendar: days since 1970-03-01-based eras (proleptic Gregorian)
 * ------------------------------- */

struct date {
    int sec, min, hour, wday, day, month, year;
};

static s64 days_of(int y, int m, int d)
{
    y -= m <= 2;
    int era = (y >= 0 ? y : y - 399) / 400;
    int yoe = y - era * 400;
    int doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
    int doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return (s64)era * 146097 + doe - 719468;
}

static struct date date_of(s64 t)
{
    s64 days = t / 86400 - (t % 86400 < 0), z = days + 719468;
    int s = (int)(t - days * 86400);
    s64 era = (z >= 0 ? z : z - 146096) / 146097;
    int doe = (int)(z - era * 146097);
    int yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int mp = (5 * doy + 2) / 153;
    struct date d = {
        .sec = s % 60,
        .min = s / 60 % 60,
        .hour = s / 3600,
        .wday = (int)(((days + 4) % 7 + 7) % 7),
        .day = doy - (153 * mp + 2) / 5 + 1,
        .month = mp < 10 ? mp + 3 : mp - 9,
        .year = (int)(yoe + era * 400),
    };
    d.year += d.month <= 2;
    return d;
}

/* --- time
 * -------------------------------------------------------------------------------------------- */

/* The first and the last second of the years 0 to 9999, which are all that the registers hold. */
#define FIRST_SECOND (-719528 * 86400ll)
#define LAST_SECOND (2932897 * 86400ll - 1)

static u64 phase_now(const struct rtc *r)
{
    return vm_clock_ns(r->vm) + r->phase;
}

/* Counting: SET is off and the divider chain runs (data sheet table 3). */
static bool running(const struct rtc *r)
{
    return !(r->cmos[REG_B] & B_SET) && (r->cmos[REG_A] & 0x60) != 0x60;
}

static s64 seconds_now(const struct rtc *r)
{
    return running(r) ? r->offset + (s64)(phase_now(r) / NS_PER_S) : r->stopped;
}

/* Lets the time run on from r->stopped, `into` ns into its second. */
static void start_at(struct rtc *r, u64 into)
{
    r->phase = (NS_PER_S - vm_clock_ns(r->vm) % NS_PER_S + into) % NS_PER_S;
    r->offset = r->stopped - (s64)(phase_now(r) / NS_PER_S);
}

/* What the time is measured against: the host's clock, or the machine's own. */
static u64 reference(const struct rtc *r)
{
    return r->fixed_time ? vm_clock_ns(r->vm) : host_realtime_ns();
}

/* Software has set the time. */
static void note_drift(struct rtc *r)
{
    u64 ref = reference(r), into = phase_now(r) % NS_PER_S;

    r->drift = seconds_now(r) - (s64)(ref / NS_PER_S);
    if (into < ref % NS_PER_S) {
        r->drift--;
        into += NS_PER_S;
    }
    r->drift_ns = (u32)(into - ref % NS_PER_S);
}

static u8 encode(const struct rtc *r, int v)
{
    return (u8)(r->cmos[REG_B] & B_DM ? v : v / 10 << 4 | v % 10);
}

static int decode(const struct rtc *r, u8 v)
{
    return r->cmos[REG_B] & B_DM ? v : (v >> 4) * 10 + (v & 15);
}

static u8 encode_hour(const struct rtc *r, int h)
{
    if (r->cmos[REG_B] & B_24H)
        return encode(r, h);
    return (u8)(encode(r, h % 12 ? h % 12 : 12) | (h >= 12 ? 0x80 : 0));
}

static int decode_hour(const struct rtc *r, u8 v)
{
    int h;

    if (r->cmos[REG_B] & B_24H)
        return decode(r, v);
    h = decode(r, v & 0x7f) % 12;
    return v & 0x80 ? h + 12 : h;
}

static u8 read_time(struct rtc *r, u8 reg)
{
    struct date d = date_of(seconds_now(r));

    switch (reg) {
    case SECONDS:
        return encode(r, d.sec);
    case MINUTES:
        return encode(r, d.min);
    case HOURS:
        return encode_hour(r, d.hour);
    case WEEKDAY:
        return encode(r, d.wday + 1);
    case DAY:
        return encode(r, d.day);
    case MONTH:
        return encode(r, d.month);
    case YEAR:
        return encode(r, d.year % 100);
    default:
        return encode(r, d.year / 100);
    }
}

/* One part of the date replaced; nonsense is carried over into the other parts as it comes. */
static void write_time(struct rtc *r, u8 reg, u8 val)
{
    s64 was = seconds_now(r), t;
    struct date d = date_of(was);

    switch (reg) {
    case SECONDS:
        d.sec = decode(r, val);
        break;
    case MINUTES:
        d.min = decode(r, val);
        break;
    case HOURS:
        d.hour = decode_hour(r, val);
        break;
    case DAY:
        d.day = decode(r, val);
        break;
    case MONTH:
        d.month = decode(r, val);
        break;
    case YEAR:
        d.year = d.year / 100 * 100 + decode(r, val) % 100;
        break;
    case RTC_CENTURY:
        d.year = decode(r, val) % 100 * 100 + d.year % 100;
        break;
    default: /* the weekday follows from the date */
        return;
    }
    if (d.month < 1)
        d.month = 1;
    if (d.month > 12)
        d.month = 12;
    t = days_of(d.year, d.month, d.day) * 86400 + d.hour * 3600 + d.min * 60 + d.sec;
    if (t < FIRST_SECOND || t > LAST_SECOND)
        return;
    if (running(r)) {
        r->offset += t - was;
        note_drift(r);
    } else {
        r->stopped = t;
    }
}

/* --- interrupts
 * ------------------------------------------------------------------------------------------ */

static void update_irq(struct rtc *r)
{
    u8 flags = r->cmos[REG_C] & r->cmos[REG_B] & (C_PF | C_AF | C_UF);

    if (flags)
        r->cmos[REG_C] |= C_IRQF;
    irq_set(&r->irq, r->cmos[REG_C] & C_IRQF);
}

/* Alarm bytes with the two top bits set match anything (data sheet, "alarm"). */
static bool alarm_matches(const struct rtc *r, const struct date *d)
{
    const u8 *c = r->cmos;

    return ((c[SECONDS_ALARM] & 0xc0) == 0xc0 || c[SECONDS_ALARM] == encode(r, d->sec)) &&
           ((c[MINUTES_ALARM] & 0xc0) == 0xc0 || c[MINUTES_ALARM] == encode(r, d->min)) &&
           ((c[HOURS_ALARM] & 0xc0) == 0xc0 || c[HOURS_ALARM] == encode_hour(r, d->hour));
}

/* Periodic rate in 32.768 kHz clocks (data sheet table 5); 0: off. */
static u32 period_clocks(const struct rtc *r)
{
    u32 rs = r->cmos[REG_A] & 15;

    if (!rs || (r->cmos[REG_A] & 0x60) == 0x60)
        return 0;
    return rs <= 2 ? 1u << (rs + 6) : 1u << (rs - 1);
}

static u64 tick_now(const struct rtc *r)
{
    u32 clocks = period_clocks(r);
    return clocks ? clock_scale(vm_clock_ns(r->vm), 32768, 1000000000u) / clocks : 0;
}

/* Forgets what happened until now: for changes of rate or time. */
static void resync(struct rtc *r)
{
    r->seen_second = seconds_now(r);
    r->seen_tick = tick_now(r);
}

/*
 * The flags of register C for all that happened since the last time. They are set whether
 * interrupts are enabled or not; timers run only when they are.
 */
static u8 happened(const struct rtc *r)
{
    s64 now = seconds_now(r), t = r->seen_second;
    u8 flags = 0;

    if (now > t)
        flags |= C_UF;
    /* Nobody looked for an hour: an alarm in the time before is not worth finding. */
    if (now - t > 3600)
        t = now - 3600;
    while (t < now) {
        struct date d = date_of(++t);
        if (alarm_matches(r, &d))
            flags |= C_AF;
    }
    if (tick_now(r) > r->seen_tick)
        flags |= C_PF;
    return flags;
}

static void catch_up(struct rtc *r)
{
    r->cmos[REG_C] |= happened(r);
    resync(r);
}

static void arm_second(struct rtc *r)
{
    if (!running(r) || !(r->cmos[REG_B] & (B_AIE | B_UIE)))
        vtimer_cancel(&r->second);
    else
        vtimer_set(&r->second, vm_clock_ns(r->vm) + NS_PER_S - phase_now(r) % NS_PER_S);
}

static void second_fired(void *opaque)
{
    struct rtc *r = opaque;

    catch_up(r);
    update_irq(r);
    arm_second(r);
}

static void arm_period(struct rtc *r)
{
    u32 clocks = period_clocks(r);

    if (!clocks || !(r->cmos[REG_B] & B_PIE))
        vtimer_cancel(&r->period);
    else
        vtimer_set(&r->period, clock_scale_up((tick_now(r) + 1) * clocks, 1000000000u, 32768) + 1);
}

static void period_fired(void *opaque)
{
    struct rtc *r = opaque;

    catch_up(r);
    update_irq(r);
    arm_period(r);
}

/* --- registers
 * --------------------------------------------------------------------------------------------- */

static u8 read_a(struct rtc *r)
{
    u8 val = r->cmos[REG_A] & 0x7f;

    if (running(r) && phase_now(r) % NS_PER_S >= NS_PER_S - UIP_NS)
        val |= A_UIP;
    return val;
}

static u8 read_c(struct rtc *r)
{
    u8 val;

    catch_up(r);
    update_irq(r);
    val = r->cmos[REG_C];
    r->cmos[REG_C] = 0;
    irq_set(&r->irq, false);
    return val;
}

/* The time goes on, `into` ns into its second. */
static void let_run(struct rtc *r, u64 into)
{
    start_at(r, into);
    note_drift(r);
}

static void write_a(struct rtc *r, u8 val)
{
    bool was = running(r);
    s64 t = seconds_now(r);

    catch_up(r);
    r->cmos[REG_A] = val & 0x7f;
    if (was && !running(r))
        r->stopped = t;
    else if (!was && running(r)) /* the first update comes half a second after the release */
        let_run(r, NS_PER_S / 2);
    resync(r);
    arm_second(r);
    arm_period(r);
}

static void write_b(struct rtc *r, u8 val)
{
    bool was = running(r);
    s64 t = seconds_now(r);

    catch_up(r);
    if (val & B_SET)
        val &= (u8)~B_UIE; /* SET clears UIE */
    r->cmos[REG_B] = val;
    if (was && !running(r))
        r->stopped = t;
    else if (!was && running(r))
        let_run(r, 0);
    r->seen_second = seconds_now(r);
    if (!(r->cmos[REG_C] & val & (C_PF | C_AF | C_UF)))
        r->cmos[REG_C] &= (u8)~C_IRQF;
    update_irq(r);
    arm_second(r);
    arm_period(r);
}

static u64 port_read(void *dev, u64 off, unsigned size)
{
    struct rtc *r = dev;

    (void)size;
    if (!off)
        return 0xff; /* the index is write-only */
    switch (r->index) {
    case SECONDS:
    case MINUTES:
    case HOURS:
    case WEEKDAY ... YEAR:
    case RTC_CENTURY:
        return read_time(r, r->index);
    case REG_A:
        return read_a(r);
    case REG_C:
        return read_c(r);
    case REG_D:
        return D_VRT;
    default:
        return r->cmos[r->index];
    }
}

static void port_write(void *dev, u64 off, unsigned size, u64 val64)
{
    struct rtc *r = dev;
    u8 val = (u8)val64;

    (void)size;
    if (!off) {
        r->index = val & 0x7f; /* bit 7 masks NMIs, of which there are none */
        return;
    }
    switch (r->index) {
    case SECONDS:
    case MINUTES:
    case HOURS:
    case WEEKDAY ... YEAR:
    case RTC_CENTURY:
        catch_up(r);
        write_time(r, r->index, val);
        r->seen_second = seconds_now(r);
        arm_second(r);
        break;
    case REG_A:
        write_a(r, val);
        break;
    case REG_B:
        write_b(r, val);
        break;
    case REG_C:
    case REG_D:
        break;
    default:
        r->cmos[r->index] = val;
        break;
    }
}

static const struct bus_ops port_ops = {
    .read = port_read, .write = port_write, .min_size = 1, .max_size = 1};

/* --- life cycle
 * ---------------------------------------------------------------------------------------------- */

static void put16(struct rtc *r, u8 at, u64 v)
{
    u16 x = (u16)(v > 0xffff ? 0xffff : v);

    r->cmos[at] = (u8)x;
    r->cmos[at + 1] = (u8)(x >> 8);
}

/* Memory sizes where firmware and boot loaders look for them. */
static void fill_cmos(struct rtc *r)
{
    u64 low = r->ram_below_4g, high = r->ram_above_4g >> 16;
    u64 ext_kib = low > 0x100000 ? (low - 0x100000) >> 10 : 0;

    r->cmos[0x0f] = 0;    /* shutdown status */
    r->cmos[0x14] = 0x06; /* equipment: FPU, no diskettes, no video adapter of its own BIOS */
    put16(r, 0x15, 640);
    put16(r, 0x17, ext_kib);
    put16(r, 0x30, ext_kib);
    put16(r, 0x34, low > 0x1000000 ? (low - 0x1000000) >> 16 : 0);
    r->cmos[0x5b] = (u8)high;
    r->cmos[0x5c] = (u8)(high >> 8);
    r->cmos[0x5d] = (u8)(high >> 16);
}

/* RESET does not touch the time (data sheet, "RESET"). */
static void reset(struct device *d)
{
    struct rtc *r = container_of(d, struct rtc, dev);

    r->cmos[REG_B] &= (u8) ~(B_PIE | B_AIE | B_UIE);
    r->cmos[REG_C] = 0;
    irq_set(&r->irq, false);
    arm_second(r);
    arm_period(r);
}

#define STATE_VERSION 1

static int save(const struct device *d, struct stream *out, const char **why)
{
    const struct rtc *r = container_of(d, struct rtc, dev);
    u8 cmos[sizeof(r->cmos)];

    (void)why;
    for (unsigned i = 0; i < sizeof(cmos); i++)
        cmos[i] = r->cmos[i];
    cmos[REG_C] |= happened(r);
    stream_put_u16(out, STATE_VERSION);
    stream_put_u8(out, r->fixed_time);
    stream_put_u64(out, (u64)r->drift);
    stream_put_u32(out, r->drift_ns);
    stream_put_u64(out, (u64)(r->stopped > LAST_SECOND ? LAST_SECOND : r->stopped));
    stream_put_u8(out, r->index);
    stream_put(out, cmos, sizeof(cmos));
    return out->error;
}

/* Whatever went by in between, the clock shows the host's time again, but for what software had set
 * it to beside that. What was to happen in between does not. */
static void set_from_reference(struct rtc *r)
{
    u64 ref = reference(r), into = ref % NS_PER_S + r->drift_ns;
    s64 t = (s64)(ref / NS_PER_S) + r->drift + (s64)(into / NS_PER_S), stopped = r->stopped;

    r->stopped = t < FIRST_SECOND ? FIRST_SECOND : t > LAST_SECOND ? LAST_SECOND : t;
    start_at(r, into % NS_PER_S);
    r->stopped = stopped;
}

static int load(struct device *d, struct stream *in)
{
    struct rtc *r = container_of(d, struct rtc, dev);
    u8 cmos[sizeof(r->cmos)], index;
    s64 stopped;

    stream_expect(in, stream_get_u16(in) == STATE_VERSION);
    stream_expect(in, stream_get_bool(in) == r->fixed_time);
    r->drift = (s64)stream_get_u64(in);
    stream_expect(in, r->drift > -(1ll << 40) && r->drift < 1ll << 40);
    r->drift_ns = stream_get_u32(in);
    stream_expect(in, r->drift_ns < NS_PER_S);
    stopped = (s64)stream_get_u64(in);
    stream_expect(in, stopped >= FIRST_SECOND && stopped <= LAST_SECOND);
    index = stream_get_u8(in);
    stream_expect(in, index < sizeof(cmos));
    stream_get(in, cmos, sizeof(cmos));
    stream_expect(in, !(cmos[REG_A] & A_UIP) && !(cmos[REG_C] & 0x0f));
    if (in->error)
        return in->error;
    for (unsigned i = 0; i < sizeof(cmos); i++)
        r->cmos[i] = cmos[i];
    r->index = index;
    r->stopped = stopped;
    set_from_reference(r);
    resync(r);
    arm_second(r);
    arm_period(r);
    /* A flag whose timer was due at the very moment of saving. */
    if ((cmos[REG_C] & cmos[REG_B] & (C_PF | C_AF | C_UF)) && !(cmos[REG_C] & C_IRQF))
        vtimer_set(&r->second, vm_clock_ns(r->vm));
    return 0;
}

static void destroy(struct device *d)
{
    struct rtc *r = container_of(d, struct rtc, dev);

    vtimer_cancel(&r->second);
    vtimer_cancel(&r->period);
    host_free(r);
}

static const struct device_ops ops = {
    .name = "rtc", .reset = reset, .save = save, .load = load, .destroy = destroy};

struct device *rtc_create(struct vm *vm, const struct rtc_config *cfg)
{
    struct rtc *r = host_zalloc(sizeof(*r));
    u64 now;

    if (!r)
        return NULL;
    r->dev.ops = &ops;
    r->vm = vm;
    r->irq = cfg->irq;
    r->ram_below_4g = cfg->ram_below_4g;
    r->ram_above_4g = cfg->ram_above_4g;
    now = cfg->fixed_time ? cfg->start_ns : host_realtime_ns();
    r->stopped = (s64)(now / NS_PER_S);
    r->fixed_time = cfg->fixed_time;
    start_at(r, now % NS_PER_S);
    if (cfg->fixed_time)
        note_drift(r);
    r->cmos[REG_A] = 0x26; /* 32.768 kHz, 1024 Hz */
    r->cmos[REG_B] = B_24H;
    fill_cmos(r);
    resync(r);
    vtimer_init(&r->second, vm, second_fired, r);
    vtimer_init(&r->period, vm, period_fired, r);
    reset(&r->dev);
    if (bus_add(&vm->pio, 0x70, 2, &port_ops, r, "rtc")) {
        host_free(r);
        return NULL;
    }
    vm_add_device(vm, &r->dev);
    return &r->dev;
}
