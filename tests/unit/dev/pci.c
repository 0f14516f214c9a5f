/* SPDX-License-Identifier: Apache-2.0 */
/* PCI configuration, BARs, MSI-X, INTx. */
#include <errno.h>
#include <string.h>

#include "dev/pci/host.h"
#include "fake_host.h"
#include "state_file.h"
#include "test.h"

#define ECAM 0xe0000000ull

static struct machine *m;
static struct device *host;
static struct pci_function fn, fn2;
static struct probe lines[4];
static u64 msi_addr;
static u32 msi_data;
static unsigned msis;

static void msi_send(void *opaque, u64 addr, u32 data)
{
    (void)opaque;
    msi_addr = addr;
    msi_data = data;
    msis++;
}

static u64 bar_read(void *dev, u64 off, unsigned size)
{
    (void)dev;
    return 0x1000 + off * 16 + size;
}

static void bar_write(void *dev, u64 off, unsigned size, u64 val)
{
    /* A device may move itself away while it is written to. */
    (void)off;
    (void)size;
    pci_config_write(dev, PCI_COMMAND, 2, (u32)val);
}

static const struct bus_ops bar_ops = {.read = bar_read, .write = bar_write, .max_size = 4};

static void start(void)
{
    struct pci_host_config cfg = {
        .ecam_base = ECAM,
        .ecam_size = 0x10000000,
        .msi = {.send = msi_send},
        .intx_irq = {5, 10, 11, 12},
        .io = {0xc000, 0x1000},
        .mem32 = {0xc0000000, 0x10000000},
        .mem64 = {0x800000000, 0x100000000},
    };

    m = machine_new(1);
    memset(lines, 0, sizeof(lines));
    for (unsigned i = 0; i < 4; i++)
        cfg.intx[i] = probe_line(&lines[i]);
    msis = 0;
    host = pci_host_create(&m->vm, &cfg);
    assert_non_null(host);
    pci_init(&fn, &m->vm, "test", 0x1af4, 0x1041, 0x020000, 1);
    pci_add_bar(&fn, 0, PCI_BAR_IO, 32, &bar_ops, &fn);
    pci_add_bar(&fn, 2, PCI_BAR_MEM64, 0x4000, &bar_ops, &fn);
    pci_add_msix(&fn, 1, 3);
    assert_int_equal(pci_add_cap(&fn, PCI_CAP_VENDOR, 17), 0x4c);
    pci_use_intx(&fn);
    assert_int_equal(pci_host_add(host, &fn, PCI_DEVFN(3, 0)), 0);
    assert_int_equal(pci_host_add(host, &fn2, PCI_DEVFN(3, 0)), -EEXIST);
}

static u32 cfg_read(u8 devfn, u8 reg, unsigned size)
{
    vm_pio_write(&m->vm, 0xcf8, 4, 0x80000000u | (u32)devfn << 8 | (reg & 0xfc));
    return vm_pio_read(&m->vm, (u16)(0xcfc + (reg & 3)), size);
}

static void cfg_write(u8 devfn, u8 reg, unsigned size, u32 val)
{
    vm_pio_write(&m->vm, 0xcf8, 4, 0x80000000u | (u32)devfn << 8 | (reg & 0xfc));
    vm_pio_write(&m->vm, (u16)(0xcfc + (reg & 3)), size, val);
}

#define D PCI_DEVFN(3, 0)

static void pci__is_found_both_ways(void **state)
{
    (void)state;
    start();
    outb(m, 0xcfb, 0x01); /* Linux's check of mechanism 1 */
    vm_pio_write(&m->vm, 0xcf8, 4, 0x80000000);
    assert_int_equal(vm_pio_read(&m->vm, 0xcf8, 4), 0x80000000);
    assert_int_equal(cfg_read(0, 0x0a, 2), 0x0600); /* host bridge */
    assert_int_equal(cfg_read(D, 0, 4), 0x10411af4);
    assert_int_equal(cfg_read(D, 2, 2), 0x1041);
    assert_int_equal(cfg_read(D, 3, 1), 0x10);
    assert_int_equal(cfg_read(D, 8, 4), 0x02000001);
    assert_int_equal(cfg_read(PCI_DEVFN(4, 0), 0, 4), 0xffffffff);
    vm_pio_write(&m->vm, 0xcf8, 4, D << 8); /* not enabled */
    assert_int_equal(vm_pio_read(&m->vm, 0xcfc, 4), 0xffffffff);
    vm_pio_write(&m->vm, 0xcf8, 4, 0x80010000u | D << 8); /* bus 1 */
    assert_int_equal(vm_pio_read(&m->vm, 0xcfc, 4), 0xffffffff);
    assert_int_equal(vm_mmio_read(&m->vm, ECAM | (u64)D << 12, 4), 0x10411af4);
    assert_int_equal(vm_mmio_read(&m->vm, ECAM | (u64)D << 12 | 0x100, 4), 0);
    assert_int_equal(vm_mmio_read(&m->vm, ECAM | 1 << 20, 4), 0xffffffff);
    /* Capabilities chain: vendor, then MSI-X */
    assert_int_equal(cfg_read(D, PCI_STATUS, 2) & 0x10, 0x10);
    assert_int_equal(cfg_read(D, PCI_CAP_POINTER, 1), 0x4c);
    assert_int_equal(cfg_read(D, 0x4c, 2), 0x4009);
    assert_int_equal(cfg_read(D, 0x40, 4), 0x00020011);
    /* Read-only is read-only */
    cfg_write(D, 0, 4, 0);
    cfg_write(D, 8, 4, 0);
    assert_int_equal(cfg_read(D, 0, 4), 0x10411af4);
    machine_free(m);
}

static void pci__bars(void **state)
{
    (void)state;
    start();
    cfg_write(D, 0x10, 4, 0xffffffff);
    assert_int_equal(cfg_read(D, 0x10, 4), 0x0000ffe1);
    cfg_write(D, 0x14, 4, 0xffffffff);
    assert_int_equal(cfg_read(D, 0x14, 4), 0xfffff000);
    cfg_write(D, 0x18, 4, 0xffffffff);
    cfg_write(D, 0x1c, 4, 0xffffffff);
    assert_int_equal(cfg_read(D, 0x18, 4), 0xffffc00c);
    assert_int_equal(cfg_read(D, 0x1c, 4), 0xffffffff);
    assert_int_equal(cfg_read(D, 0x20, 4), 0);

    assert_int_equal(pci_host_assign(host), 0);
    assert_int_equal(cfg_read(D, 0x10, 4), 0xc001);
    assert_int_equal(cfg_read(D, 0x14, 4), 0xc0000000);
    assert_int_equal(cfg_read(D, 0x18, 4), 0x0000000c);
    assert_int_equal(cfg_read(D, 0x1c, 4), 0x8);
    assert_int_equal(cfg_read(D, PCI_INTERRUPT_LINE, 1), 12); /* device 3, INTA: line 3 */
    assert_int_equal(cfg_read(D, PCI_COMMAND, 2), 7);
    assert_int_equal(vm_pio_read(&m->vm, 0xc004, 1), 0x41);
    assert_int_equal(vm_mmio_read(&m->vm, 0x800000008, 4), 0x1084);
    /* Moved */
    cfg_write(D, 0x1c, 4, 0x9);
    assert_int_equal(vm_mmio_read(&m->vm, 0x800000008, 4), 0xffffffff);
    assert_int_equal(vm_mmio_read(&m->vm, 0x900000008, 4), 0x1084);
    /* Onto something else: stays away */
    cfg_write(D, 0x1c, 4, 0);
    cfg_write(D, 0x18, 4, (u32)ECAM);
    assert_int_equal(vm_mmio_read(&m->vm, ECAM, 2), 0x1b36);
    cfg_write(D, 0x1c, 4, 0x8);
    assert_int_equal(vm_mmio_read(&m->vm, 0x800000000 | ECAM, 4), 0x1004);
    /* At the very end of the address space */
    cfg_write(D, 0x18, 4, 0xffffffff);
    cfg_write(D, 0x1c, 4, 0xffffffff);
    assert_int_equal(vm_mmio_read(&m->vm, 0xffffffffffffc000, 4), 0x1004);
    /* Decoding off, by the device's own register, during an access that the bus splits */
    vm_mmio_write(&m->vm, 0xffffffffffffc000, 8, 0);
    assert_int_equal(vm_mmio_read(&m->vm, 0xffffffffffffc000, 4), 0xffffffff);
    assert_int_equal(vm_pio_read(&m->vm, 0xc004, 1), 0xff);
    machine_free(m);
}

/* A BAR that software puts where another one is waits until that has gone (PCI 3.0 6.2.5). */
static void pci__a_bar_that_waits_for_its_place(void **state)
{
    const u8 d2 = PCI_DEVFN(5, 0);

    (void)state;
    start();
    pci_init(&fn2, &m->vm, "other", 0x1af4, 0x1042, 0x010000, 1);
    pci_add_bar(&fn2, 0, PCI_BAR_MEM32, 0x1000, &bar_ops, &fn2);
    pci_add_bar(&fn2, 1, PCI_BAR_MEM32, 0x1000, &bar_ops, &fn2);
    assert_int_equal(pci_host_add(host, &fn2, d2), 0);
    assert_int_equal(pci_host_assign(host), 0);
    assert_int_equal(fn.bar[1].at, 0xc0000000);
    /* The other function moves away, */
    cfg_write(d2, 0x10, 4, 0xc0000000);
    assert_int_equal(fn2.bar[0].at, PCI_UNMAPPED);
    cfg_write(D, 0x14, 4, 0xc8000000);
    assert_int_equal(fn2.bar[0].at, 0xc0000000);
    assert_int_equal(vm_mmio_read(&m->vm, 0xc0000008, 4), 0x1084);
    /* or decodes no longer, */
    cfg_write(D, 0x14, 4, 0xc0000000);
    assert_int_equal(fn.bar[1].at, PCI_UNMAPPED);
    cfg_write(d2, PCI_COMMAND, 2, 0);
    assert_int_equal(fn.bar[1].at, 0xc0000000);
    cfg_write(d2, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(fn2.bar[0].at, PCI_UNMAPPED);
    /* or is reset. */
    pci_reset(&fn);
    assert_int_equal(fn2.bar[0].at, 0xc0000000);
    /* One function's own, whatever their order. */
    cfg_write(d2, 0x14, 4, 0xd0000000);
    cfg_write(d2, 0x10, 4, 0xd0000000);
    assert_int_equal(fn2.bar[0].at, PCI_UNMAPPED);
    cfg_write(d2, 0x14, 4, 0xd8000000);
    assert_int_equal(fn2.bar[0].at, 0xd0000000);
    assert_int_equal(fn2.bar[1].at, 0xd8000000);
    machine_free(m);
}

static void pci__msix(void **state)
{
    u64 t = 0xc0000000;

    (void)state;
    start();
    pci_host_assign(host);
    pci_msix_send(&fn, 0); /* off */
    vm_mmio_write(&m->vm, t + 16, 4, 0xfee01004);
    vm_mmio_write(&m->vm, t + 20, 4, 0);
    vm_mmio_write(&m->vm, t + 24, 4, 0x4031);
    assert_int_equal(vm_mmio_read(&m->vm, t + 16, 8), 0xfee01004);
    assert_int_equal(vm_mmio_read(&m->vm, t + 28, 4), 1);
    cfg_write(D, 0x42, 2, 0x8000);
    pci_msix_send(&fn, 1); /* masked: pends */
    assert_int_equal(msis, 0);
    assert_int_equal(vm_mmio_read(&m->vm, t + 2048, 8), 2);
    vm_mmio_write(&m->vm, t + 28, 4, 0);
    assert_int_equal(msis, 1);
    assert_int_equal(msi_addr, 0xfee01004);
    assert_int_equal(msi_data, 0x4031);
    assert_int_equal(vm_mmio_read(&m->vm, t + 2048, 4), 0);
    cfg_write(D, 0x42, 2, 0xc000); /* all masked */
    pci_msix_send(&fn, 1);
    assert_int_equal(msis, 1);
    cfg_write(D, 0x42, 2, 0x8000);
    assert_int_equal(msis, 2);
    pci_msix_send(&fn, 3); /* no such vector */
    pci_msix_send(&fn, 1000);
    cfg_write(D, PCI_COMMAND, 2, 3); /* no bus mastering */
    pci_msix_send(&fn, 1);
    assert_int_equal(msis, 2);
    assert_int_equal(pci_dma_write(&fn, 0x1000, "x", 1), -EFAULT);
    cfg_write(D, PCI_COMMAND, 2, 7);
    assert_int_equal(pci_dma_write(&fn, 0x1000, "x", 1), 0);
    assert_int_equal(m->ram[0x1000], 'x');
    assert_int_equal(cfg_read(D, 0x42, 2), 0x8002); /* table size is fixed */
    machine_free(m);
}

static void pci__intx(void **state)
{
    (void)state;
    start();
    pci_init(&fn2, &m->vm, "other", 0x1af4, 0x1042, 0x010000, 1);
    pci_use_intx(&fn2);
    assert_int_equal(pci_host_add(host, &fn2, PCI_DEVFN(7, 0)), 0); /* also line 3 */
    pci_set_intx(&fn, true);
    pci_set_intx(&fn2, true);
    assert_true(lines[3].level);
    assert_int_equal(cfg_read(D, PCI_STATUS, 2) & 8, 8);
    pci_set_intx(&fn, false);
    assert_true(lines[3].level);
    cfg_write(PCI_DEVFN(7, 0), PCI_COMMAND, 2, 0x400); /* disabled, still shown in status */
    assert_false(lines[3].level);
    assert_int_equal(cfg_read(PCI_DEVFN(7, 0), PCI_STATUS, 2) & 8, 8);
    cfg_write(PCI_DEVFN(7, 0), PCI_COMMAND, 2, 0);
    assert_true(lines[3].level);
    pci_reset(&fn2);
    assert_false(lines[3].level);
    machine_free(m);
}

static void pci__multi_function(void **state)
{
    (void)state;
    start();
    assert_int_equal(cfg_read(D, PCI_HEADER_TYPE, 1), 0);
    pci_init(&fn2, &m->vm, "second", 0x1af4, 0x1042, 0x010000, 1);
    assert_int_equal(pci_host_add(host, &fn2, PCI_DEVFN(3, 1)), 0);
    assert_int_equal(cfg_read(D, PCI_HEADER_TYPE, 1), 0x80);
    assert_int_equal(cfg_read(PCI_DEVFN(3, 1), 2, 2), 0x1042);
    machine_free(m);
}

static void pci__reset_port(void **state)
{
    (void)state;
    start();
    outb(m, 0xcf9, 0x02);
    assert_int_equal(inb(m, 0xcf9), 0x02);
    assert_int_equal(m->vm.stop_reason, VM_RUNNING);
    vm_pio_write(&m->vm, 0xcf8, 4, 0x80000604); /* byte 1 is no reset here */
    assert_int_equal(m->vm.stop_reason, VM_RUNNING);
    outb(m, 0xcf9, 0x06);
    assert_int_equal(m->vm.stop_reason, VM_RESET);
    machine_free(m);
}

/* The functions of start() are no devices of the VM's: one that saves them. */
struct owner {
    struct device dev;
    struct pci_function *f;
};

static int owner_save(const struct device *d, struct stream *out, const char **why)
{
    (void)why;
    pci_save(container_of(d, struct owner, dev)->f, out);
    return out->error;
}

static int owner_load(struct device *d, struct stream *in)
{
    return pci_load(container_of(d, struct owner, dev)->f, in);
}

static const struct device_ops owner_ops = {.name = "fn", .save = owner_save, .load = owner_load};
static struct owner owner, owner2;

static void start_owned(void)
{
    start();
    pci_init(&fn2, &m->vm, "second", 0x1af4, 0x1042, 0x010000, 0);
    pci_add_bar(&fn2, 0, PCI_BAR_IO, 32, &bar_ops, &fn2);
    pci_add_bar(&fn2, 2, PCI_BAR_MEM64, 0x4000, &bar_ops, &fn2);
    pci_use_intx(&fn2);
    assert_int_equal(pci_host_add(host, &fn2, PCI_DEVFN(5, 0)), 0);
    owner = (struct owner){.dev.ops = &owner_ops, .f = &fn};
    owner2 = (struct owner){.dev.ops = &owner_ops, .f = &fn2};
    vm_add_device(&m->vm, &owner.dev);
    vm_add_device(&m->vm, &owner2.dev);
    assert_int_equal(pci_host_assign(host), 0);
}

static void pci__state(void **state)
{
    const u8 d2 = PCI_DEVFN(5, 0);
    struct state_file *f;
    u32 io, io2, mem, table;

    (void)state;
    start_owned();
    table = cfg_read(D, 0x14, 4);
    mem = cfg_read(D, 0x18, 4);
    io = cfg_read(D, 0x10, 4) & ~3u;
    io2 = cfg_read(d2, 0x10, 4) & ~3u;
    /* The guest swaps the two I/O BARs, and moves the memory BAR. */
    cfg_write(D, PCI_COMMAND, 2, 0);
    cfg_write(D, 0x10, 4, io2);
    cfg_write(d2, 0x10, 4, io);
    cfg_write(D, 0x18, 4, 0x40000000);
    cfg_write(D, 0x1c, 4, 0x9);
    cfg_write(D, PCI_COMMAND, 2, 7);
    cfg_write(D, 0x42, 2, 0x8000);
    vm_mmio_write(&m->vm, table, 4, 0xfee01000);
    vm_mmio_write(&m->vm, table + 8, 4, 0x55);
    vm_mmio_write(&m->vm, table + 12, 4, 0);
    pci_msix_send(&fn, 2); /* masked: waits */
    pci_set_intx(&fn2, true);
    assert_true(lines[1].level);
    f = state_save(m);
    machine_free(m);

    start_owned();
    assert_int_equal(state_load(m, f), 0);
    assert_int_equal(lines[1].rises, 0); /* the controller's own state tells the level */
    assert_int_equal(vm_pio_read(&m->vm, (u16)io, 2), 0x1002);
    assert_int_equal(fn.bar[0].at, io2);
    assert_int_equal(fn2.bar[0].at, io);
    assert_int_equal(fn.bar[2].at, 0x940000000);
    assert_int_equal(vm_mmio_read(&m->vm, 0x940000004, 4), 0x1044);
    if (mem)
        assert_int_equal(vm_mmio_read(&m->vm, 0x800000000 | (mem & ~15u), 4), 0xffffffff);
    assert_int_equal(cfg_read(d2, PCI_STATUS, 2) & 8, 8);
    assert_int_equal(msis, 0);
    pci_msix_send(&fn, 0);
    assert_int_equal(msi_addr, 0xfee01000);
    assert_int_equal(msi_data, 0x55);
    assert_int_equal(vm_mmio_read(&m->vm, table + 2048, 4), 4);
    vm_mmio_write(&m->vm, table + 32 + 12, 4, 0);
    assert_int_equal(msis, 2);
    pci_set_intx(&fn2, false); /* the bridge knew who asserted the line */
    pci_set_intx(&fn2, true);
    assert_int_equal(lines[1].rises, 1);
    machine_free(m);
}

/* Two BARs wanted the same place: the one that had it has it again, whoever is loaded first. */
static void pci__state_of_a_contest(void **state)
{
    const u8 d2 = PCI_DEVFN(5, 0);

    (void)state;
    for (unsigned first = 0; first < 2; first++) {
        u8 a = first ? D : d2, b = first ? d2 : D;
        struct pci_function *fa = first ? &fn : &fn2, *fb = first ? &fn2 : &fn;
        struct state_file *f;

        start_owned();
        cfg_write(a, 0x10, 4, 0x2000);
        cfg_write(b, 0x10, 4, 0x2000);
        assert_int_equal(fa->bar[0].at, 0x2000);
        assert_true(fb->bar[0].at == PCI_UNMAPPED);
        f = state_save(m);
        machine_free(m);
        start_owned();
        assert_int_equal(state_load(m, f), 0);
        assert_int_equal(fa->bar[0].at, 0x2000);
        assert_true(fb->bar[0].at == PCI_UNMAPPED);
        cfg_write(a, 0x10, 4, 0x3000);
        assert_int_equal(fb->bar[0].at, 0x2000);
        machine_free(m);
    }
}

static void pci__state_of_another_function(void **state)
{
    struct state_file *f;
    size_t len;
    u8 *b;

    (void)state;
    start_owned();
    f = state_save(m);
    state_refuses_pieces(m, f, "pci-host");
    state_refuses_pieces(m, f, "fn");
    assert_int_equal(state_load(m, f), 0);
    b = state_bytes(f, "fn", &len);
    static const struct {
        unsigned at;
        u8 flip;
    } wrong[] = {
        {2 + PCI_DEVICE_ID, 1}, /* another device */
        {2 + PCI_BAR0, 2},      /* another BAR */
        {2 + PCI_STATUS, 8},    /* INTx, which the level denies */
        {2 + 0x42, 1},          /* MSI-X with another number of vectors */
        {2 + 256, 0x08},        /* BAR 3 is none */
        {2 + 256, 0x80},        /* nor is 7 */
        {2 + 256 + 1, 2},       /* a level that is no bool */
        {2 + 256 + 2, 1},       /* vectors */
        {2 + 256 + 4, 1},       /* an odd message address */
        {2 + 256 + 4 + 12, 2},  /* vector control */
        {2 + 256 + 4 + 13, 2},  /* pending */
        {2 + PCI_COMMAND, 1},   /* I/O off, BAR 0 mapped */
    };
    for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
        b[wrong[i].at] ^= wrong[i].flip;
        assert_int_equal(state_load_device(m, "fn", b, len), -EINVAL);
        b[wrong[i].at] ^= wrong[i].flip;
    }
    assert_int_equal(state_load(m, f), 0);
    b = state_bytes(f, "pci-host", &len);
    b[7]++; /* function 0 asserts line 0, and has no pin */
    assert_int_equal(state_load_device(m, "pci-host", b, len), -EINVAL);
    machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pci__is_found_both_ways),
        cmocka_unit_test(pci__bars),
        cmocka_unit_test(pci__a_bar_that_waits_for_its_place),
        cmocka_unit_test(pci__msix),
        cmocka_unit_test(pci__intx),
        cmocka_unit_test(pci__multi_function),
        cmocka_unit_test(pci__reset_port),
        cmocka_unit_test(pci__state),
        cmocka_unit_test(pci__state_of_a_contest),
        cmocka_unit_test(pci__state_of_another_function),
    };
    return cmocka_run_group_tests_name("dev-pci", tests, NULL, NULL);
}
