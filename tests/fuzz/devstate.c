/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files nobody has saved: the bytes are the state of one device of the chipset, or changes to one
 * that was saved, and then what a guest does with it. Whatever is taken must be such that it can be
 * saved and loaded again.
 */
#include <stdlib.h>
#include <string.h>

#include "dev/chipset.h"
#include "state_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct chipset *c;
static struct machine *m;
static const uint8_t *at, *end;

static u32 take(unsigned n)
{
    u32 v = 0;

    for (unsigned i = 0; i < n && at < end; i++)
        v |= (u32)*at++ << (8 * i);
    return v;
}

static void start(void)
{
    c = chipset_new(2);
    m = c->m;
    c->room = 64;
    fake_advance(10000000000ull);
}

/* --- what a guest does ---------------------------------------------------------------------------
 */

static void port(u32 sel, u32 val)
{
    static const u16 ports[] = {0x20,  0x21,  0xa0,  0xa1,  0x40,  0x41,  0x42,  0x43,
                                0x60,  0x61,  0x64,  0x70,  0x71,  0x80,  0x92,  0x2f8,
                                0x2f9, 0x2fa, 0x2fb, 0x2fc, 0x2fd, 0x3f8, 0x3f9, 0x3fa,
                                0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff, 0x4d0, 0x4d1, 0x505,
                                0x600, 0x602, 0x604, 0x608, 0x60c, 0x60d, 0xcf8, 0xcfc};
    u16 p = ports[sel % ARRAY_SIZE(ports)];
    unsigned size = p == 0xcf8 || p == 0xcfc ? 4 : p >= 0x600 && p < 0x60c ? 2 : 1;

    if (sel & 0x80)
        vm_pio_read(&m->vm, p, size);
    else
        vm_pio_write(&m->vm, p, size, val);
}

static void apic(u32 sel, u32 val)
{
    struct vcpu *v = &m->cpu[sel & 1].v;
    u64 a = v->apic_page == VCPU_NO_APIC_PAGE ? CHIPSET_APIC : v->apic_page;

    vcpu_mmio_write(v, a + (sel >> 2) * 16, 4, val);
    vcpu_mmio_read(v, a + (sel >> 2) * 16, 4);
}

static void msr(u32 sel, u32 val)
{
    static const u32 msrs[] = {0x1b,  0x6e0, 0x11,  0x12,  0x4b564d00, 0x4b564d01, 0x808, 0x80b,
                               0x80f, 0x830, 0x832, 0x838, 0x83e,      0x83f,      0x803, 0x839};
    struct vcpu *v = &m->cpu[sel & 1].v;
    u64 old = 0;

    vm_rdmsr(v, msrs[sel / 2 % ARRAY_SIZE(msrs)], &old);
    vm_wrmsr(v, msrs[sel / 2 % ARRAY_SIZE(msrs)], sel & 0x80 ? old ^ val : val);
}

static void one(void)
{
    u32 what = take(1), sel = take(1);
    struct vcpu *v = &m->cpu[sel & 1].v;

    switch (what % 10) {
    case 0:
    case 1:
        port(sel, take(2));
        break;
    case 2:
        apic(sel, take(4));
        break;
    case 3:
        msr(sel, take(4));
        break;
    case 4:
        vm_mmio_write(&m->vm, CHIPSET_IOAPIC, 4, sel % 64);
        vm_mmio_read(&m->vm, CHIPSET_IOAPIC + 0x10, 4);
        vm_mmio_write(&m->vm, CHIPSET_IOAPIC + 0x10, 4, take(4));
        break;
    case 5:
        fake_advance(sel * 100000ull);
        break;
    case 6:
        if (v->irq->pending(v->irq_opaque) >= 0)
            v->irq->ack(v->irq_opaque);
        break;
    case 7:
        vm_lock(&m->vm);
        if (sel & 0x40)
            pci_config_write(&c->fn, sel & 0x3c, 4, take(4));
        else if (sel & 0x20)
            pci_msix_send(&c->fn, sel & 3);
        else
            pci_set_intx(&c->fn, sel & 1);
        vm_unlock(&m->vm);
        break;
    case 8:
        c->in = "0123456789abcdefghij";
        c->room = sel;
        vm_lock(&m->vm);
        c->com1.kick_input(&c->com1);
        c->com2.on_writable(c->com2.dev);
        vm_unlock(&m->vm);
        break;
    default:
        vm_mmio_write(&m->vm, c->fn.bar[1].at + sel * 4, 4, take(4));
        break;
    }
}

/* --- saving and loading --------------------------------------------------------------------------
 */

static int load(struct state_file *f, unsigned i, size_t len)
{
    int err = state_load_device(m, f->dev[i].name, f->dev[i].bytes, len);

    vm_lock(&m->vm);
    for (struct device *d = m->vm.devices; d && !err; d = d->next)
        if (d->ops->loaded)
            d->ops->loaded(d);
    vm_unlock(&m->vm);
    return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct state_file *f;
    u32 how, n;
    unsigned i;
    size_t len;

    at = data;
    end = data + size;
    start();
    how = take(1);
    f = state_save(m);
    i = (how & 0x7f) % f->n;
    len = f->dev[i].len;
    if (how & 0x80) { /* changes: where, what */
        for (n = take(1) % 8; n; n--) {
            u32 off = take(2) % (u32)len;
            f->dev[i].bytes[off] ^= (u8)take(1);
        }
    } else {
        n = take(2) % sizeof(f->dev[i].bytes);
        for (len = 0; len < n && at < end; len++)
            f->dev[i].bytes[len] = *at++;
    }
    if (f->dev[i].instance == 0 && !load(f, i, len)) {
        while (at < end)
            one();
        f = state_save(m);
        chipset_free(c);
        start();
        if (state_load(m, f))
            abort();
        fake_advance(1000000);
    }
    chipset_free(c);
    return 0;
}
