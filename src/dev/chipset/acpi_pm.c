/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/chipset/acpi_pm.h"

#define PM_TIMER_HZ 3579545u
#define NS_PER_S 1000000000u

/* PM1 status and enable (ACPI 6.5 tables 4.13, 4.14) */
#define TMR_STS 0x0001
#define BM_STS 0x0010
#define GBL_STS 0x0020
#define PWRBTN_STS 0x0100
#define SLPBTN_STS 0x0200
#define RTC_STS 0x0400
#define WAK_STS 0x8000
#define STS_ALL (TMR_STS | BM_STS | GBL_STS | PWRBTN_STS | SLPBTN_STS | RTC_STS | WAK_STS)
#define EN_ALL (TMR_STS | GBL_STS | PWRBTN_STS | SLPBTN_STS | RTC_STS)
/* PM1 control (table 4.15) */
#define CNT_SCI_EN 0x0001
#define CNT_SLP_EN 0x2000
#define CNT_WRITABLE 0x1c02 /* SLP_TYP, BM_RLD; SCI_EN is fixed: there is no legacy mode */

struct acpi_pm {
    struct device dev;
    struct vm *vm;
    struct irq_line sci;
    u16 status, enable, control;
    u8 gpe_status, gpe_enable;
    u64 overflow_seen; /* half periods of the timer until which TMR_STS is up to date */
    struct vtimer timer;
};

static u64 ticks(struct acpi_pm *p)
{
    return clock_scale(vm_clock_ns(p->vm), PM_TIMER_HZ, NS_PER_S);
}

/* TMR_STS is set when the counter's top bit changes (ACPI 6.5 4.8.3.3). */
static void catch_up(struct acpi_pm *p)
{
    u64 half = ticks(p) >> 31;

    if (half > p->overflow_seen)
        p->status |= TMR_STS;
    p->overflow_seen = half;
}

static void update(struct acpi_pm *p)
{
    if (p->enable & TMR_STS)
        vtimer_set(&p->timer,
                   clock_scale_up((p->overflow_seen + 1) << 31, NS_PER_S, PM_TIMER_HZ) + 1);
    else
        vtimer_cancel(&p->timer);
    irq_set(&p->sci, (p->status & p->enable & EN_ALL) || (p->gpe_status & p->gpe_enable));
}

static void timer_fired(void *opaque)
{
    struct acpi_pm *p = opaque;

    catch_up(p);
    update(p);
}

bool acpi_pm_power_button(struct device *d)
{
    struct acpi_pm *p = container_of(d, struct acpi_pm, dev);

    p->status |= PWRBTN_STS;
    update(p);
    return p->enable & PWRBTN_STS;
}

bool acpi_pm_raise_gpe(struct device *d, unsigned n)
{
    struct acpi_pm *p = container_of(d, struct acpi_pm, dev);

    p->gpe_status |= (u8)(1u << n);
    update(p);
    return p->gpe_enable >> n & 1;
}

static void write_control(struct acpi_pm *p, u16 val)
{
    p->control = (val & CNT_WRITABLE) | CNT_SCI_EN;
    if ((val & CNT_SLP_EN) && (val >> 10 & 7) == ACPI_S5_SLP_TYP)
        vm_stop(p->vm, VM_POWEROFF, 0, NULL);
}

static u16 read16(struct acpi_pm *p, u64 off)
{
    switch (off) {
    case ACPI_PM1A_EVT:
        catch_up(p);
        return p->status;
    case ACPI_PM1A_EVT + 2:
        return p->enable;
    case ACPI_PM1A_CNT:
        return p->control;
    case ACPI_PM_TMR:
        return (u16)ticks(p);
    case ACPI_PM_TMR + 2:
        return (u16)(ticks(p) >> 16);
    case ACPI_GPE0:
        return (u16)(p->gpe_status | p->gpe_enable << 8);
    default:
        return 0;
    }
}

static void write16(struct acpi_pm *p, u64 off, u16 val)
{
    switch (off) {
    case ACPI_PM1A_EVT: /* ones clear */
        catch_up(p);
        p->status &= (u16) ~(val & STS_ALL);
        update(p);
        break;
    case ACPI_PM1A_EVT + 2:
        catch_up(p);
        p->enable = val & EN_ALL;
        update(p);
        break;
    case ACPI_PM1A_CNT:
        write_control(p, val);
        break;
    case ACPI_GPE0: /* two registers of a byte each (ACPI 6.5 4.8.4.1): ones clear, enable */
        p->gpe_status &= (u8)~val;
        p->gpe_enable = (u8)(val >> 8);
        update(p);
        break;
    default:
        break;
    }
}

static u64 port_read(void *dev, u64 off, unsigned size)
{
    struct acpi_pm *p = dev;

    if (off == ACPI_PM_TMR && size == 4)
        return (u32)ticks(p);
    if (size == 1)
        return read16(p, off & ~1ull) >> (8 * (off & 1)) & 0xff;
    if (off & 1) /* crosses registers: nobody does */
        return 0;
    if (size == 4)
        return read16(p, off) | (u32)read16(p, off + 2) << 16;
    return read16(p, off);
}

/* Status bits are cleared by ones: a byte write must not write ones back beside it. */
static void port_write(void *dev, u64 off, unsigned size, u64 val)
{
    struct acpi_pm *p = dev;
    u64 reg = off & ~1ull;

    if (size == 1) {
        unsigned shift = 8 * (off & 1);
        u16 other = reg == ACPI_PM1A_EVT ? 0 : (u16)(read16(p, reg) & ~(0xffu << shift));
        if (reg == ACPI_GPE0 && shift)
            other = 0;
        write16(p, reg, (u16)(other | val << shift));
        return;
    }
    if (off & 1)
        return;
    write16(p, off, (u16)val);
    if (size == 4)
        write16(p, off + 2, (u16)(val >> 16));
}

static const struct bus_ops port_ops = {
    .read = port_read, .write = port_write, .min_size = 1, .max_size = 4};

static void reset(struct device *d)
{
    struct acpi_pm *p = container_of(d, struct acpi_pm, dev);

    p->status = p->enable = 0;
    p->gpe_status = p->gpe_enable = 0;
    p->control = CNT_SCI_EN;
    p->overflow_seen = ticks(p) >> 31;
    update(p);
}

#define STATE_VERSION 1

static int save(const struct device *d, struct stream *out, const char **why)
{
    const struct acpi_pm *p = container_of(d, struct acpi_pm, dev);

    (void)why;
    stream_put_u16(out, STATE_VERSION);
    stream_put_u16(out, p->status);
    stream_put_u16(out, p->enable);
    stream_put_u16(out, p->control);
    stream_put_u8(out, p->gpe_status);
    stream_put_u8(out, p->gpe_enable);
    stream_put_u64(out, p->overflow_seen);
    vtimer_save(&p->timer, out);
    return out->error;
}

static int load(struct device *d, struct stream *in)
{
    struct acpi_pm *p = container_of(d, struct acpi_pm, dev);

    stream_expect(in, stream_get_u16(in) == STATE_VERSION);
    p->status = stream_get_u16(in);
    stream_expect(in, !(p->status & ~STS_ALL));
    p->enable = stream_get_u16(in);
    stream_expect(in, !(p->enable & ~EN_ALL));
    p->control = stream_get_u16(in);
    stream_expect(in, (p->control & ~CNT_WRITABLE) == CNT_SCI_EN);
    p->gpe_status = stream_get_u8(in);
    p->gpe_enable = stream_get_u8(in);
    p->overflow_seen = stream_get_u64(in);
    stream_expect(in, p->overflow_seen <= ticks(p) >> 31);
    vtimer_load(&p->timer, in);
    return in->error;
}

static void destroy(struct device *d)
{
    struct acpi_pm *p = container_of(d, struct acpi_pm, dev);

    vtimer_cancel(&p->timer);
    host_free(p);
}

static const struct device_ops ops = {
    .name = "acpi-pm", .reset = reset, .save = save, .load = load, .destroy = destroy};

struct device *acpi_pm_create(struct vm *vm, const struct acpi_pm_config *cfg)
{
    struct acpi_pm *p = host_zalloc(sizeof(*p));

    if (!p)
        return NULL;
    p->dev.ops = &ops;
    p->vm = vm;
    p->sci = cfg->sci;
    vtimer_init(&p->timer, vm, timer_fired, p);
    reset(&p->dev);
    if (bus_add(&vm->pio, cfg->base, ACPI_PM_SIZE, &port_ops, p, "acpi-pm")) {
        host_free(p);
        return NULL;
    }
    vm_add_device(vm, &p->dev);
    return &p->dev;
}
