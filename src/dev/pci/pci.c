/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/pci/pci.h"

#include <errno.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"

#define CAPS_START 0x40

#define BAR_IO 0x1u
#define BAR_64 0x4u
#define BAR_PREFETCH 0x8u

#define COMMAND_WRITABLE                                                                           \
    (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_OFF | 0x0140)

/* MSI-X (PCI 3.0 6.8.2) */
#define MSIX_CONTROL 2
#define MSIX_TABLE 4
#define MSIX_PBA 8
#define MSIX_ENABLE 0x8000
#define MSIX_MASK_ALL 0x4000
#define MSIX_BAR_SIZE 4096
#define MSIX_PBA_OFF 2048
#define MSIX_ENTRY_MASKED 1u

u16 pci_get16(const struct pci_function *f, unsigned off)
{
    return (u16)(f->config[off] | f->config[off + 1] << 8);
}

u32 pci_get32(const struct pci_function *f, unsigned off)
{
    return pci_get16(f, off) | (u32)pci_get16(f, off + 2) << 16;
}

void pci_put16(struct pci_function *f, unsigned off, u16 val)
{
    f->config[off] = (u8)val;
    f->config[off + 1] = (u8)(val >> 8);
}

void pci_put32(struct pci_function *f, unsigned off, u32 val)
{
    pci_put16(f, off, (u16)val);
    pci_put16(f, off + 2, (u16)(val >> 16));
}

/* Of a function whose software writes nonsense again and again. */
#define COMPLAINTS_MAX 5

/* --- building ------------------------------------------------------------------------------------
 */

static void allow(struct pci_function *f, unsigned off, unsigned size, u32 mask)
{
    for (unsigned i = 0; i < size; i++)
        f->writable[off + i] = (u8)(mask >> (8 * i));
}

void pci_init(struct pci_function *f, struct vm *vm, const char *name, u16 vendor, u16 device,
              u32 class_code, u8 revision)
{
    memset(f, 0, sizeof(*f));
    f->vm = vm;
    f->name = name;
    pci_put16(f, PCI_VENDOR_ID, vendor);
    pci_put16(f, PCI_DEVICE_ID, device);
    f->config[PCI_REVISION] = revision;
    f->config[PCI_CLASS] = (u8)class_code;
    pci_put16(f, PCI_CLASS + 1, (u16)(class_code >> 8));
    allow(f, PCI_COMMAND, 2, COMMAND_WRITABLE);
    allow(f, 0x0c, 1, 0xff); /* cache line size */
    allow(f, PCI_INTERRUPT_LINE, 1, 0xff);
    f->clears[PCI_STATUS + 1] = 0xf9; /* error bits */
    f->cap_end = CAPS_START;
    for (unsigned i = 0; i < PCI_BARS; i++)
        f->bar[i].at = PCI_UNMAPPED;
}

void pci_set_subsystem(struct pci_function *f, u16 vendor, u16 id)
{
    pci_put16(f, PCI_SUBSYSTEM_VENDOR_ID, vendor);
    pci_put16(f, PCI_SUBSYSTEM_ID, id);
}

void pci_add_bar(struct pci_function *f, unsigned n, enum pci_bar_kind kind, u64 size,
                 const struct bus_ops *ops, void *dev)
{
    bool wide = kind == PCI_BAR_MEM64;
    unsigned off = PCI_BAR0 + 4 * n;

    CHECK(n + wide < PCI_BARS && f->bar[n].kind == PCI_BAR_NONE);
    CHECK(size >= (kind == PCI_BAR_IO ? 4 : 16) && !(size & (size - 1)));
    CHECK(size <= (wide ? BIT64(62) : kind == PCI_BAR_IO ? 256 : BIT64(31)));
    f->bar[n] =
        (struct pci_bar){.kind = kind, .size = size, .ops = ops, .dev = dev, .at = PCI_UNMAPPED};
    f->config[off] = kind == PCI_BAR_IO ? BAR_IO : wide ? BAR_64 | BAR_PREFETCH : 0;
    allow(f, off, 4, (u32) ~(size - 1));
    if (kind == PCI_BAR_IO)
        allow(f, off, 4, (u32) ~(size - 1) & 0xffff);
    if (wide)
        allow(f, off + 4, 4, (u32)(~(size - 1) >> 32));
}

u8 pci_add_cap(struct pci_function *f, u8 id, u8 len)
{
    u8 at = f->cap_end;

    CHECK(at + len <= PCI_CONFIG_SIZE);
    f->config[at] = id;
    f->config[at + 1] = f->config[PCI_CAP_POINTER];
    f->config[PCI_CAP_POINTER] = at;
    f->config[PCI_STATUS] |= PCI_STATUS_CAPS;
    f->cap_end = (u8)((at + len + 3) & ~3);
    return at;
}

void pci_set_writable(struct pci_function *f, unsigned off, unsigned size)
{
    CHECK(off + size <= f->cap_end);
    memset(f->writable + off, 0xff, size);
}

void pci_use_intx(struct pci_function *f)
{
    f->config[PCI_INTERRUPT_PIN] = 1;
}

static bool may_master(const struct pci_function *f)
{
    return (pci_get16(f, PCI_COMMAND) & PCI_COMMAND_MASTER) != 0;
}

/* --- interrupts
 * ------------------------------------------------------------------------------------ */

static void update_intx(struct pci_function *f)
{
    bool off = pci_get16(f, PCI_COMMAND) & PCI_COMMAND_INTX_OFF;

    if (f->intx_level)
        f->config[PCI_STATUS] |= PCI_STATUS_INTX;
    else
        f->config[PCI_STATUS] &= (u8)~PCI_STATUS_INTX;
    irq_set(&f->intx, f->intx_level && !off && !pci_msix_enabled(f));
}

void pci_set_intx(struct pci_function *f, bool level)
{
    if (f->intx_level == level)
        return;
    f->intx_level = level;
    update_intx(f);
}

static u16 msix_control(const struct pci_function *f)
{
    return f->msix_cap ? pci_get16(f, f->msix_cap + MSIX_CONTROL) : 0;
}

bool pci_msix_enabled(const struct pci_function *f)
{
    return (msix_control(f) & MSIX_ENABLE) != 0;
}

static bool msix_masked(const struct pci_function *f, unsigned n)
{
    return (msix_control(f) & MSIX_MASK_ALL) || (f->msix[n].control & MSIX_ENTRY_MASKED);
}

/* Its irqfd sends vector n while nothing stands in the way. To be called when anything of that, or
 * of the message, has changed: what has not is no work. */
static void msix_route(struct pci_function *f, unsigned n)
{
    bool on = pci_msix_enabled(f) && !msix_masked(f, n) && may_master(f);

    if (on && f->irqfds && f->msi.get_irqfd && !f->msix_irqfd[n])
        f->msix_irqfd[n] = f->msi.get_irqfd(f->msi.opaque);
    if (f->msix_irqfd[n])
        f->msi.route(f->msi.opaque, f->msix_irqfd[n], on, f->msix[n].addr, f->msix[n].data);
}

static void msix_route_all(struct pci_function *f)
{
    for (unsigned n = 0; n < f->msix_n; n++)
        msix_route(f, n);
}

static void msix_put_irqfds(struct pci_function *f)
{
    for (unsigned n = 0; n < f->msix_n; n++) {
        if (f->msix_irqfd[n])
            f->msi.put_irqfd(f->msi.opaque, f->msix_irqfd[n]);
        f->msix_irqfd[n] = NULL;
    }
}

void pci_msix_send(struct pci_function *f, unsigned n)
{
    struct irqfd *e;

    if (n >= f->msix_n || !pci_msix_enabled(f))
        return;
    if (msix_masked(f, n)) {
        f->msix_pending[n / 64] |= BIT64(n % 64);
        return;
    }
    f->msix_pending[n / 64] &= ~BIT64(n % 64);
    if (!may_master(f))
        return;
    e = f->msix_irqfd[n];
    if (e && e->live) {
        e->sent++;
        host_eventfd_add(e->fd);
    } else if (f->msi.send) {
        f->msi.send(f->msi.opaque, f->msix[n].addr, f->msix[n].data);
    }
}

/* Sends what waited for masks that are gone. */
static void msix_unmasked(struct pci_function *f)
{
    if (!pci_msix_enabled(f))
        return;
    for (unsigned n = 0; n < f->msix_n; n++)
        if ((f->msix_pending[n / 64] & BIT64(n % 64)) && !msix_masked(f, n))
            pci_msix_send(f, n);
}

static u64 msix_read(void *dev, u64 off, unsigned size)
{
    const struct pci_function *f = dev;
    unsigned n = (unsigned)off / 16;

    (void)size;
    if (off >= MSIX_PBA_OFF) {
        unsigned word = (unsigned)(off - MSIX_PBA_OFF) / 4;
        if (word >= PCI_MSIX_MAX / 32)
            return 0;
        return (u32)(f->msix_pending[word / 2] >> (word & 1 ? 32 : 0));
    }
    if (n >= f->msix_n)
        return 0;
    switch (off & 12) {
    case 0:
        return (u32)f->msix[n].addr;
    case 4:
        return f->msix[n].addr >> 32;
    case 8:
        return f->msix[n].data;
    default:
        return f->msix[n].control;
    }
}

static void msix_write(void *dev, u64 off, unsigned size, u64 val)
{
    struct pci_function *f = dev;
    unsigned n = (unsigned)off / 16;

    (void)size;
    if (off >= MSIX_PBA_OFF || n >= f->msix_n)
        return;
    switch (off & 12) {
    case 0:
        f->msix[n].addr = (f->msix[n].addr & MASK64(63, 32)) | (val & ~3ull);
        break;
    case 4:
        f->msix[n].addr = (u32)f->msix[n].addr | val << 32;
        break;
    case 8:
        f->msix[n].data = (u32)val;
        break;
    default:
        f->msix[n].control = (u32)val & MSIX_ENTRY_MASKED;
        break;
    }
    msix_route(f, n);
    msix_unmasked(f);
}

static const struct bus_ops msix_ops = {
    .read = msix_read, .write = msix_write, .min_size = 4, .max_size = 4};

void pci_add_msix(struct pci_function *f, unsigned bar, unsigned n)
{
    u8 cap;

    CHECK(n && n <= PCI_MSIX_MAX && !f->msix_cap);
    cap = pci_add_cap(f, PCI_CAP_MSIX, 12);
    f->msix_cap = cap;
    f->msix_n = n;
    pci_put16(f, cap + MSIX_CONTROL, (u16)(n - 1));
    pci_put32(f, cap + MSIX_TABLE, bar);
    pci_put32(f, cap + MSIX_PBA, MSIX_PBA_OFF | bar);
    allow(f, cap + MSIX_CONTROL, 2, MSIX_ENABLE | MSIX_MASK_ALL);
    pci_add_bar(f, bar, PCI_BAR_MEM32, MSIX_BAR_SIZE, &msix_ops, f);
    for (unsigned i = 0; i < n; i++)
        f->msix[i].control = MSIX_ENTRY_MASKED;
}

void pci_use_irqfds(struct pci_function *f)
{
    f->irqfds = true;
}

/* --- BARs
 * ---------------------------------------------------------------------------------------------- */

static struct bus *bus_of(struct pci_function *f, const struct pci_bar *b)
{
    return b->kind == PCI_BAR_IO ? &f->vm->pio : &f->vm->mmio;
}

/* Where software wants BAR n, or PCI_UNMAPPED. Address 0 is what an unassigned one shows. */
static u64 wanted(const struct pci_function *f, unsigned n)
{
    const struct pci_bar *b = &f->bar[n];
    u16 command = pci_get16(f, PCI_COMMAND);
    u64 at = pci_get32(f, PCI_BAR0 + 4 * n) & ~(b->size - 1), last;

    if (b->kind == PCI_BAR_MEM64)
        at |= (u64)pci_get32(f, PCI_BAR0 + 4 * n + 4) << 32;
    if (!(command & (b->kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)) || !at ||
        (f->outdone & 1u << n))
        return PCI_UNMAPPED;
    return add_ok(at, b->size - 1, &last) ? at : PCI_UNMAPPED;
}

static void set_place(struct pci_function *f, unsigned n, u64 at)
{
    f->bar[n].at = at;
    if (f->bar_moved)
        f->bar_moved(f, n);
}

/* Takes off the bus what is not wanted where it is. true: that has made room. */
static bool remove_bars(struct pci_function *f)
{
    bool removed = false;

    for (unsigned n = 0; n < PCI_BARS; n++) {
        struct pci_bar *b = &f->bar[n];

        if (b->kind == PCI_BAR_NONE || b->at == PCI_UNMAPPED || b->at == wanted(f, n))
            continue;
        bus_remove(bus_of(f, b), b->at);
        set_place(f, n, PCI_UNMAPPED);
        removed = true;
    }
    return removed;
}

/* Puts on the bus what is wanted there. complain: say so when a place is taken. */
static void add_bars(struct pci_function *f, bool complain)
{
    for (unsigned n = 0; n < PCI_BARS; n++) {
        struct pci_bar *b = &f->bar[n];
        u64 at = b->kind == PCI_BAR_NONE ? PCI_UNMAPPED : wanted(f, n);

        if (at == b->at || at == PCI_UNMAPPED)
            continue;
        if (!bus_add(bus_of(f, b), at, b->size, b->ops, b->dev, f->name))
            set_place(f, n, at);
        else if (complain && f->complaints++ < COMPLAINTS_MAX)
            log_warn("%s: BAR %u cannot be at %#llx: the place is taken", f->name, n,
                     (unsigned long long)at);
    }
}

static void update_bars(struct pci_function *f)
{
    bool removed;

    f->outdone = 0;
    removed = remove_bars(f);
    add_bars(f, true);
    if (removed && f->room_made)
        f->room_made(f->room_opaque);
}

void pci_retry_bars(struct pci_function *f)
{
    add_bars(f, false);
}

/* --- configuration space
 * ---------------------------------------------------------------------------------- */

u32 pci_config_read(struct pci_function *f, unsigned off, unsigned size)
{
    u32 val = 0;

    if (f->config_reading)
        f->config_reading(f, off, size);
    for (unsigned i = 0; i < size && off + i < PCI_CONFIG_SIZE; i++)
        val |= (u32)f->config[off + i] << (8 * i);
    return val; /* the extended space is there and holds no capability: zeroes */
}

static bool touches(unsigned off, unsigned size, unsigned reg, unsigned len)
{
    return off < reg + len && reg < off + size;
}

void pci_config_write(struct pci_function *f, unsigned off, unsigned size, u32 val)
{
    for (unsigned i = 0; i < size && off + i < PCI_CONFIG_SIZE; i++) {
        u8 *byte = &f->config[off + i], mask = f->writable[off + i];
        u8 in = (u8)(val >> (8 * i));
        *byte = (u8)((*byte & ~mask) | (in & mask));
        *byte &= (u8) ~(in & f->clears[off + i]);
    }
    if (touches(off, size, PCI_COMMAND, 2) || touches(off, size, PCI_BAR0, 4 * PCI_BARS))
        update_bars(f);
    if (touches(off, size, PCI_COMMAND, 2)) {
        update_intx(f);
        msix_route_all(f);
    }
    if (f->msix_cap && touches(off, size, f->msix_cap + MSIX_CONTROL, 2)) {
        update_intx(f);
        msix_route_all(f);
        msix_unmasked(f);
    }
    if (f->config_written)
        f->config_written(f, off, size);
}

void pci_reset(struct pci_function *f)
{
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
        f->config[i] &= (u8)~f->writable[i];
    for (unsigned i = 0; i < f->msix_n; i++)
        f->msix[i] = (struct pci_msix_entry){.control = MSIX_ENTRY_MASKED};
    memset(f->msix_pending, 0, sizeof(f->msix_pending));
    msix_put_irqfds(f);
    f->intx_level = false;
    update_bars(f);
    update_intx(f);
}

/* --- saving and loading
 * ------------------------------------------------------------------------------------------ */

#define STATE_VERSION 1

void pci_save(const struct pci_function *f, struct stream *out)
{
    u8 mapped = 0;

    stream_put_u16(out, STATE_VERSION);
    stream_put(out, f->config, sizeof(f->config));
    for (unsigned n = 0; n < PCI_BARS; n++)
        if (f->bar[n].at != PCI_UNMAPPED)
            mapped |= (u8)(1u << n);
    stream_put_u8(out, mapped);
    stream_put_u8(out, f->intx_level);
    stream_put_u16(out, (u16)f->msix_n);
    for (unsigned n = 0; n < f->msix_n; n++) {
        stream_put_u64(out, f->msix[n].addr);
        stream_put_u32(out, f->msix[n].data);
        stream_put_u8(out, (u8)f->msix[n].control);
        stream_put_u8(out, f->msix_pending[n / 64] >> (n % 64) & 1);
    }
}

/* Does c differ from f's only where software or the device could have made it differ? */
static bool config_fits(const struct pci_function *f, const u8 *c)
{
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) {
        u8 may = f->writable[i] | f->clears[i];
        if (i == PCI_STATUS)
            may |= PCI_STATUS_INTX;
        if ((c[i] ^ f->config[i]) & ~may)
            return false;
    }
    return true;
}

static int load_msix(struct pci_function *f, struct stream *in)
{
    if (stream_get_u16(in) != f->msix_n)
        return -EINVAL;
    memset(f->msix_pending, 0, sizeof(f->msix_pending));
    for (unsigned n = 0; n < f->msix_n; n++) {
        struct pci_msix_entry e = {.addr = stream_get_u64(in), .data = stream_get_u32(in)};
        u8 pending;

        e.control = stream_get_u8(in);
        pending = stream_get_u8(in);
        if ((e.addr & 3) || (e.control & ~MSIX_ENTRY_MASKED) || pending > 1)
            return -EINVAL;
        f->msix[n] = e;
        f->msix_pending[n / 64] |= (u64)pending << (n % 64);
    }
    return in->error;
}

int pci_load(struct pci_function *f, struct stream *in)
{
    u8 config[PCI_CONFIG_SIZE], mapped, level;
    bool removed;

    if (stream_get_u16(in) != STATE_VERSION)
        return -EINVAL;
    stream_get(in, config, sizeof(config));
    mapped = stream_get_u8(in);
    level = stream_get_u8(in);
    if (in->error || !config_fits(f, config) || level > 1 ||
        level != ((config[PCI_STATUS] & PCI_STATUS_INTX) != 0) || load_msix(f, in))
        return -EINVAL;
    memcpy(f->config, config, sizeof(config));
    f->intx_level = level;
    f->outdone = 0;
    for (unsigned n = 0; n < 8; n++)
        if ((mapped & 1u << n) &&
            (n >= PCI_BARS || f->bar[n].kind == PCI_BAR_NONE || wanted(f, n) == PCI_UNMAPPED))
            return -EINVAL;
    f->outdone = (u8)~mapped;
    removed = remove_bars(f);
    add_bars(f, false);
    if (removed && f->room_made)
        f->room_made(f->room_opaque);
    msix_route_all(f);
    return 0;
}

void pci_loaded(struct pci_function *f)
{
    f->outdone = 0;
    add_bars(f, false);
}

/* --- DMA
 * ---------------------------------------------------------------------------------------------------
 */

u8 *pci_dma_map(struct pci_function *f, u64 addr, u64 *len, bool write)
{
    const struct mem_slot *s = may_master(f) ? guest_mem_slot(&f->vm->mem, gpa(addr)) : NULL;
    u64 off, end;

    if (!s || (write && s->readonly) || !add_ok(addr, *len, &end))
        return NULL;
    off = addr - s->gpa;
    if (*len > s->size - off)
        *len = s->size - off;
    return s->host + off;
}

int pci_dma_read(struct pci_function *f, u64 addr, void *buf, u64 len)
{
    return may_master(f) ? vm_dma_read(f->vm, gpa(addr), buf, len) : -EFAULT;
}

int pci_dma_write(struct pci_function *f, u64 addr, const void *buf, u64 len)
{
    return may_master(f) ? vm_dma_write(f->vm, gpa(addr), buf, len) : -EFAULT;
}
