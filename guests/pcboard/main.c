// SPDX-License-Identifier: Apache-2.0
/* The PC around the processor: 8259, 8254, RTC, I/O APIC, i8042 status, PCI configuration, ACPI
 * tables. Only what every PC's documents promise (8259A, 8254, MC146818, 82093AA data sheets,
 * PCI 3.0, ACPI). */
#include "x64.h"

static void pic_init(u8 base1, u8 base2)
{
    outb(0x20, 0x11);
    outb(0xa0, 0x11);
    outb(0x21, base1);
    outb(0xa1, base2);
    outb(0x21, 4);
    outb(0xa1, 2);
    outb(0x21, 1);
    outb(0xa1, 1);
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
}

TEST(pic__masks_and_registers)
{
    pic_init(0x20, 0x28);
    outb(0x21, 0xa5);
    outb(0xa1, 0x5a);
    CHECK_EQ(inb(0x21), 0xa5);
    CHECK_EQ(inb(0xa1), 0x5a);
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    outb(0x20, 0x0b); /* OCW3: read ISR */
    CHECK_EQ(inb(0x20), 0);
    outb(0xa0, 0x0b);
    CHECK_EQ(inb(0xa0), 0);
}

static volatile unsigned hits[256];
static bool eoi_hook(struct regs *r)
{
    hits[r->vector]++;
    if (r->vector >= 0x48)
        outb(0xa0, 0x20);
    outb(0x20, 0x20);
    return true;
}

TEST(pic__other_vector_base)
{
    apic_enable();
    pic_init(0x40, 0x48);
    trap_set_hook(0x40, eoi_hook);
    hits[0x40] = 0;
    apic_write(APIC_LVT_LINT0, 0x700);
    outb(0x43, 0x34);
    outb(0x40, 0x00);
    outb(0x40, 0x10);
    outb(0x21, 0xfe);
    sti();
    CHECK(WAIT_FOR(hits[0x40] >= 3, 20000));
    outb(0x21, 0xff);
    cli();
    outb(0x43, 0x30);
}

TEST(pic__request_register_shows_a_masked_line)
{
    apic_enable();
    pic_init(0x20, 0x28);
    outb(0x43, 0x34);
    outb(0x40, 0x00);
    outb(0x40, 0x10);
    outb(0x20, 0x0a); /* OCW3: read IRR */
    CHECK(WAIT_FOR(inb(0x20) & 1, 5000));
    outb(0x43, 0x30);
}

TEST(pit__read_back_and_modes)
{
    u8 status;

    outb(0x43, 0xb6); /* counter 2, mode 3, both bytes */
    outb(0x42, 0x34);
    outb(0x42, 0x12);
    outb(0x43, 0xe8); /* read-back: status of counter 2 */
    status = inb(0x42);
    CHECK_EQ(status & 0x3f, 0x36);
    outb(0x61, (u8)(inb(0x61) & ~3)); /* gate off */
    (void)inb(0x61);
}

TEST(pit__counter_2_and_port_61)
{
    u8 v = (u8)(inb(0x61) & ~3);

    outb(0x61, v);    /* gate off */
    outb(0x43, 0xb0); /* mode 0 */
    outb(0x42, 0xff);
    outb(0x42, 0x0f);
    CHECK_EQ(inb(0x61) & 0x20, 0);
    outb(0x61, v | 1); /* gate on: counts about 3.4 ms */
    CHECK(WAIT_FOR(inb(0x61) & 0x20, 20000));
    outb(0x61, v);
}

static u8 cmos(u8 reg)
{
    outb(0x70, reg);
    return inb(0x71);
}

TEST(rtc__time_is_sane_and_goes_on)
{
    u8 b = cmos(0x0b), sec = cmos(0), min = cmos(2), month = cmos(8);
    bool bcd = !(b & 4);

    CHECK(cmos(0x0d) & 0x80); /* valid RAM and time */
    if (bcd) {
        CHECK((sec & 15) < 10 && sec < 0x60);
        CHECK((min & 15) < 10 && min < 0x60);
        CHECK((month & 15) < 10 && month >= 1 && month <= 0x12);
    } else {
        CHECK(sec < 60 && min < 60 && month >= 1 && month <= 12);
    }
    CHECK(WAIT_FOR(!(cmos(0x0a) & 0x80) && cmos(0) != sec, 10000));
}

TEST(rtc__ram_keeps_bytes)
{
    u8 old = cmos(0x50);

    outb(0x70, 0x50);
    outb(0x71, 0xa7);
    CHECK_EQ(cmos(0x50), 0xa7);
    outb(0x70, 0x50);
    outb(0x71, old);
}

#define IOAPIC 0xfec00000UL
static u32 io_read(u32 reg)
{
    *(volatile u32 *)IOAPIC = reg;
    return *(volatile u32 *)(IOAPIC + 0x10);
}
static void io_write(u32 reg, u32 v)
{
    *(volatile u32 *)IOAPIC = reg;
    *(volatile u32 *)(IOAPIC + 0x10) = v;
}

TEST(ioapic__registers)
{
    u32 ver = io_read(1), pins = (ver >> 16 & 0xff) + 1;

    CHECK(pins >= 16 && pins <= 240);
    CHECK((ver & 0xff) >= 0x10);
    for (unsigned p = 0; p < pins; p++) {
        io_write(0x10 + 2 * p + 1, 0xff000000);
        io_write(0x10 + 2 * p, 0x10000 | 0xa000 | (0x30 + p)); /* masked, level, low */
        CHECK_EQ(io_read(0x10 + 2 * p) & ~0x5000U, 0x10000 | 0xa000 | (0x30 + p));
        CHECK_EQ(io_read(0x10 + 2 * p + 1), 0xff000000);
        io_write(0x10 + 2 * p, 0x10000);
        io_write(0x10 + 2 * p + 1, 0);
    }
}

TEST(uart__scratch_loopback_and_line_status)
{
    u8 mcr = inb(0x3fc);

    outb(0x3ff, 0x5c);
    CHECK_EQ(inb(0x3ff), 0x5c);
    CHECK(WAIT_FOR((inb(0x3fd) & 0x60) == 0x60, 5000));
    outb(0x3fc, 0x10); /* loopback: what is sent comes back */
    (void)inb(0x3f8);
    outb(0x3f8, 0x7e);
    CHECK(WAIT_FOR(inb(0x3fd) & 1, 5000));
    CHECK_EQ(inb(0x3f8), 0x7e);
    outb(0x3fc, 0x1f); /* modem lines loop back too */
    CHECK_EQ(inb(0x3fe) & 0xf0, 0xf0);
    outb(0x3fc, mcr);
}

TEST(uart__divisor_latch)
{
    u8 lcr = inb(0x3fb);

    outb(0x3fb, lcr | 0x80);
    outb(0x3f8, 0x0c);
    outb(0x3f9, 0x00);
    CHECK_EQ(inb(0x3f8), 0x0c);
    outb(0x3f8, 1);
    outb(0x3fb, lcr);
}

TEST(pci__host_bridge_and_scan)
{
    u32 id = pci_read(0, 0, 0, 0);
    unsigned found = 0;

    CHECK(id != 0xffffffff);
    CHECK_EQ(pci_read(0, 0, 0, 8) >> 16, 0x0600); /* host bridge */
    for (unsigned d = 0; d < 32; d++)
        if (pci_read(0, d, 0, 0) != 0xffffffff)
            found++;
    CHECK(found >= 1);
    CHECK_EQ(pci_read(0, 31, 7, 0) == 0xffffffff || found == 32, 1);
    CHECK_EQ(pci_read(255, 0, 0, 0), 0xffffffff); /* no such bus */
}

TEST(pci__sub_dword_access)
{
    u32 id = pci_read(0, 0, 0, 0);

    outl(0xcf8, 0x80000000);
    CHECK_EQ(inw(0xcfc), id & 0xffff);
    CHECK_EQ(inw(0xcfe), id >> 16);
    CHECK_EQ(inb(0xcfd), id >> 8 & 0xff);
    outl(0xcf8, 0); /* not enabled: an ordinary port nobody answers */
    CHECK_EQ(inl(0xcfc), 0xffffffff);
}

TEST(pci__bars_show_their_size)
{
    for (unsigned d = 0; d < 32; d++) {
        if (pci_read(0, d, 0, 0) == 0xffffffff || (pci_read(0, d, 0, 0xc) >> 16 & 0x7f) != 0)
            continue;
        for (unsigned b = 0; b < 6; b++) {
            u32 reg = 0x10 + 4 * b, old = pci_read(0, d, 0, reg), cmd = pci_read(0, d, 0, 4), mask;
            outl(0xcf8, 0x80000000 | d << 11 | 4);
            outl(0xcfc, cmd & ~3U & 0xffff); /* decoding off while it moves */
            outl(0xcf8, 0x80000000 | d << 11 | reg);
            outl(0xcfc, 0xffffffff);
            mask = inl(0xcfc);
            outl(0xcfc, old);
            outl(0xcf8, 0x80000000 | d << 11 | 4);
            outl(0xcfc, cmd & 0xffff);
            CHECK_EQ(pci_read(0, d, 0, reg), old);
            mask &= old & 1 ? 0xfffffffc : 0xfffffff0;
            if (mask) {
                u32 size = -mask;
                if (old & 1)
                    size &= 0xffff;
                if (size & (size - 1))
                    test_failed(__LINE__, "00:%x BAR %u: size %x is no power of two", d, b, size);
            }
            if ((old & 7) == 4)
                b++; /* 64-bit */
        }
    }
}

static u8 sum(const u8 *p, u32 len)
{
    u8 s = 0;
    for (u32 i = 0; i < len; i++)
        s = (u8)(s + p[i]);
    return s;
}

static void check_table(const u8 *t, unsigned depth)
{
    u32 len = *(const u32 *)(t + 4);

    for (unsigned i = 0; i < 4; i++)
        CHECK(t[i] >= '0' && t[i] <= 'Z');
    if (len < 36 || len > 0x100000) {
        test_failed(__LINE__, "%c%c%c%c: length %x", t[0], t[1], t[2], t[3], len);
        return;
    }
    if (sum(t, len))
        test_failed(__LINE__, "%c%c%c%c: checksum", t[0], t[1], t[2], t[3]);
    (void)depth;
}

TEST(acpi__root_pointer)
{
    const u8 *r = acpi_rsdp();

    REQUIRE(r != NULL);
    CHECK_EQ(sum(r, 20), 0);
    if (r[15] >= 2)
        CHECK_EQ(sum(r, *(const u32 *)(r + 20)), 0);
    CHECK_EQ((uptr)r & 15, 0);
}

TEST(acpi__every_table_adds_up)
{
    const u8 *r = acpi_rsdp(), *sdt;
    unsigned size = 4, n = 0;

    REQUIRE(r != NULL);
    sdt = (const u8 *)(uptr) * (const u32 *)(r + 16);
    if (r[15] >= 2 && *(const u64 *)(r + 24)) {
        sdt = (const u8 *)(uptr) * (const u64 *)(r + 24);
        size = 8;
        CHECK_EQ(memcmp(sdt, "XSDT", 4), 0);
    }
    check_table(sdt, 0);
    for (u32 at = 36; at + size <= *(const u32 *)(sdt + 4); at += size, n++) {
        u64 a = *(const u32 *)(sdt + at);
        if (size == 8)
            a |= (u64) * (const u32 *)(sdt + at + 4) << 32;
        CHECK(a != 0);
        check_table((const u8 *)a, 1);
    }
    CHECK(n >= 2);
}

TEST(acpi__fadt_and_dsdt)
{
    const u8 *f = acpi_find("FACP"), *dsdt;

    REQUIRE(f != NULL);
    dsdt = (const u8 *)(uptr) * (const u32 *)(f + 40);
    if (!dsdt && *(const u32 *)(f + 4) >= 148)
        dsdt = (const u8 *)(uptr) * (const u64 *)(f + 140);
    REQUIRE(dsdt != NULL);
    CHECK_EQ(memcmp(dsdt, "DSDT", 4), 0);
    check_table(dsdt, 1);
    if (!(*(const u32 *)(f + 112) >> 20 & 1)) { /* not hardware-reduced */
        CHECK(*(const u32 *)(f + 56) != 0);     /* PM1a event block */
        CHECK(*(const u32 *)(f + 64) != 0);     /* PM1a control block */
    }
}

TEST(acpi__pm_timer_runs)
{
    const u8 *f = acpi_find("FACP");
    u32 port, a;

    REQUIRE(f != NULL);
    port = *(const u32 *)(f + 76);
    if (!port)
        SKIP("no PM timer");
    a = inl((u16)port);
    CHECK(WAIT_FOR(inl((u16)port) != a, 5000));
}

TEST(acpi__madt_names_this_cpu_and_an_ioapic)
{
    const u8 *t = acpi_find("APIC");
    bool me = false, io = false;
    u32 len;

    REQUIRE(t != NULL);
    len = *(const u32 *)(t + 4);
    CHECK_EQ(*(const u32 *)(t + 36), 0xfee00000);
    for (u32 at = 44; at + 2 <= len; at += t[at + 1]) {
        if (t[at + 1] < 2) {
            test_failed(__LINE__, "an entry of length %u", t[at + 1]);
            break;
        }
        if (t[at] == 0 && t[at + 3] == apic_my_id() && t[at + 4] & 1)
            me = true;
        if (t[at] == 1 && *(const u32 *)(t + at + 4) == 0xfec00000)
            io = true;
    }
    CHECK(me);
    CHECK(io);
}

/* MultiProcessor Specification 1.4, for systems that do not read ACPI tables. */
TEST(mp_table__names_this_cpu_and_an_ioapic)
{
    static const u8 size[] = {20, 8, 8, 8, 8};
    const u8 *t = NULL, *p;
    bool me = false, io = false;
    u32 pins = 0;

    for (u32 at = 0xf0000; at < 0x100000 && !t; at += 16)
        if (!memcmp((const void *)(uptr)at, "_MP_", 4) && !sum((const u8 *)(uptr)at, 16))
            t = (const u8 *)(uptr) * (const u32 *)(uptr)(at + 4);
    REQUIRE(t != NULL);
    CHECK_EQ(memcmp(t, "PCMP", 4), 0);
    CHECK_EQ(sum(t, *(const u16 *)(t + 4)), 0);
    CHECK_EQ(*(const u32 *)(t + 36), 0xfee00000);
    p = t + 44;
    for (unsigned i = 0; i < *(const u16 *)(t + 34); i++, p += size[p[0]]) {
        REQUIRE(p[0] < sizeof(size));
        if (p[0] == 0 && p[1] == apic_my_id() && (p[3] & 3) == 3)
            me = true;
        if (p[0] == 2 && *(const u32 *)(p + 4) == 0xfec00000 && p[3] & 1)
            io = true;
        if (p[0] == 3 && p[1] == 0) /* INT */
            pins++;
    }
    CHECK(me);
    CHECK(io);
    CHECK(pins >= 8); /* of ISA alone */
}

TEST(i8042__answers)
{
    if (inb(0x64) == 0xff)
        SKIP("no i8042");
    CHECK(WAIT_FOR(!(inb(0x64) & 2), 5000));
    while (inb(0x64) & 1)
        (void)inb(0x60);
    outb(0x64, 0xaa); /* self-test */
    CHECK(WAIT_FOR(inb(0x64) & 1, 10000));
    CHECK_EQ(inb(0x60), 0x55);
}

TEST(memory__ram_is_distinct)
{
    for (u64 a = 0x200000 * 24; a < 62 * 0x100000ULL; a += 0x100000)
        *(volatile u64 *)a = a ^ 0x5a5a5a5a;
    for (u64 a = 0x200000 * 24; a < 62 * 0x100000ULL; a += 0x100000)
        CHECK_EQ(*(volatile u64 *)a, a ^ 0x5a5a5a5a);
}
