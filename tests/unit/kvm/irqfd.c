/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MSI-X vectors that are sent by irqfd: from the function's table to KVM, which this file plays.
 * Its irqfds are real eventfds; what is in one while it is assigned has been sent by its route.
 */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include "core/stream.h"
#include "dev/chipset/irqchip.h"
#include "dev/pci/pci.h"
#include "engine/kvm/kvm_priv.h"
#include "test.h"

#define VECTORS 3
#define TABLE 0xc0000000u
#define PBA (TABLE + 2048)
#define MSIX_CONTROL 0x42 /* of the first capability */
#define ENABLE 0x8000u
#define MASK_ALL 0x4000u
#define ADDR 0xfee00000u
#define VEC 0x41u
#define COMMAND (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)
#define GSIS (ENGINE_PINS_MAX + KVM_IRQFDS)

static struct vm vm;
static struct vcpu vcpu;
static struct kvm_cpu cpu;
static struct kvm_run run;
static struct kvm_machine machine;
static struct pci_function fn, other;

/* --- KVM --- */

static struct {
    int fd[GSIS]; /* 0: not assigned */
    struct kvm_irq_routing_entry route[GSIS];
    unsigned nroutes;
    struct kvm_lapic_state lapic;
    unsigned routings, assigns, deassigns, calls;
    bool no_routes, no_irqfds; /* no memory for them */
    u32 last_addr, last_data;
} kvm;

int __wrap_ioctl(int fd, unsigned long request, void *arg);

static unsigned assigned(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < GSIS; i++)
        n += kvm.fd[i] != 0;
    return n;
}

static const struct kvm_irq_routing_entry *route_of(unsigned gsi)
{
    for (unsigned i = 0; i < kvm.nroutes; i++)
        if (kvm.route[i].gsi == gsi)
            return &kvm.route[i];
    return NULL;
}

static int set_routing(const struct kvm_irq_routing *r)
{
    kvm.routings++;
    if (kvm.no_routes)
        return -ENOMEM;
    assert_in_range(r->nr, 0, GSIS);
    memcpy(kvm.route, r->entries, r->nr * sizeof(r->entries[0]));
    kvm.nroutes = r->nr;
    for (unsigned i = 0; i < r->nr; i++)
        assert_int_equal(r->entries[i].type, KVM_IRQ_ROUTING_MSI);
    return 0;
}

static int set_irqfd(const struct kvm_irqfd *r)
{
    assert_in_range(r->gsi, ENGINE_PINS_MAX, GSIS - 1);
    if (r->flags & KVM_IRQFD_FLAG_DEASSIGN) {
        assert_int_equal(kvm.fd[r->gsi], r->fd);
        kvm.fd[r->gsi] = 0;
        kvm.deassigns++;
        return 0;
    }
    assert_int_equal(kvm.fd[r->gsi], 0);
    if (kvm.no_irqfds)
        return -ENOMEM;
    assert_non_null(route_of(r->gsi));
    kvm.fd[r->gsi] = (int)r->fd;
    kvm.assigns++;
    return 0;
}

static int request_of(unsigned long request, void *arg)
{
    struct kvm_msi *msi = arg;

    switch (request) {
    case KVM_SET_GSI_ROUTING:
        return set_routing(arg);
    case KVM_IRQFD:
        return set_irqfd(arg);
    case KVM_SIGNAL_MSI:
        kvm.calls++;
        kvm.last_addr = msi->address_lo;
        kvm.last_data = msi->data;
        return 1;
    case KVM_GET_MP_STATE:
        memset(arg, 0, sizeof(struct kvm_mp_state));
        return 0;
    case KVM_GET_LAPIC:
        assert_int_equal(assigned(), 0); /* nothing comes any more */
        memcpy(arg, &kvm.lapic, sizeof(kvm.lapic));
        return 0;
    case KVM_SET_LAPIC:
        assert_int_equal(assigned(), 0); /* nothing has come that would be lost */
        memcpy(&kvm.lapic, arg, sizeof(kvm.lapic));
        return 0;
    case KVM_GET_MSRS:
        ((struct kvm_msr_values *)arg)->entry[0].data = 0xfee00900; /* a deadline means nothing */
        return 1;
    case KVM_SET_MSRS:
        return 1;
    default:
        return -ENOTTY;
    }
}

int __wrap_ioctl(int fd, unsigned long request, void *arg)
{
    int r = request_of(request, arg);

    (void)fd;
    errno = r < 0 ? -r : 0;
    return r < 0 ? -1 : r;
}

/* What has come by irqfd since the last call, and the last of it in last_addr and last_data. */
static unsigned by_irqfd(void)
{
    unsigned n = 0;
    eventfd_t added;

    for (unsigned gsi = 0; gsi < GSIS; gsi++) {
        if (!kvm.fd[gsi] || eventfd_read(kvm.fd[gsi], &added))
            continue;
        n += (unsigned)added;
        kvm.last_addr = route_of(gsi)->u.msi.address_lo;
        kvm.last_data = route_of(gsi)->u.msi.data;
    }
    return n;
}

/* --- the machine --- */

static int vcpu_create(struct vcpu *v)
{
    v->engine_vcpu = &cpu;
    return 0;
}

static void add_tsc_offset(struct vcpu *v, u64 delta)
{
    (void)v;
    (void)delta;
}

static void kick(struct vcpu *v)
{
    (void)v;
}

static const struct engine_ops engine = {.name = "kvm",
                                         .vcpu_create = vcpu_create,
                                         .kick = kick,
                                         .add_tsc_offset = add_tsc_offset,
                                         .apic = &kvm_apic_ops};

static void set_reg(unsigned n, u32 val)
{
    memcpy(kvm.lapic.regs + 16 * n, &val, sizeof(val));
}

static u32 get_reg(unsigned n)
{
    u32 val;

    memcpy(&val, kvm.lapic.regs + 16 * n, sizeof(val));
    return val;
}

static void add_function(struct pci_function *f, struct device *irqchip, unsigned n)
{
    pci_init(f, &vm, "test", 0x1af4, 0x1042, 0x010000, 1);
    f->msi = irqchip_msi(irqchip);
    pci_add_msix(f, 1, n);
    pci_use_irqfds(f);
}

static int start(void **state)
{
    struct device *irqchip;

    (void)state;
    memset(&vm, 0, sizeof(vm));
    memset(&vcpu, 0, sizeof(vcpu));
    memset(&cpu, 0, sizeof(cpu));
    memset(&machine, 0, sizeof(machine));
    memset(&kvm, 0, sizeof(kvm));
    set_reg(0x0f, 0x1ff);
    vm_init(&vm, &engine);
    vm.engine_vm = &machine;
    machine.vm = &vm;
    cpu.v = &vcpu;
    cpu.m = &machine;
    cpu.run = &run;
    machine.cpu[0] = &cpu;
    machine.ncpus = 1;
    if (kvm_irqfds_create(&machine) || vm_add_vcpu(&vm, &vcpu))
        return -1;
    irqchip = irqchip_create(&vm);
    if (!irqchip)
        return -1;
    add_function(&fn, irqchip, VECTORS);
    add_function(&other, irqchip, PCI_MSIX_MAX);
    pci_config_write(&fn, PCI_BAR0 + 4, 4, TABLE);
    pci_config_write(&fn, PCI_COMMAND, 2, COMMAND);
    kvm.routings = 0;
    return 0;
}

static int end(void **state)
{
    (void)state;
    kvm_irqfds_destroy(&machine);
    for (struct device *d = vm.devices, *next; d; d = next) {
        next = d->next;
        d->ops->destroy(d);
    }
    return 0;
}

static void write_entry(unsigned n, u32 addr, u32 data)
{
    vm_mmio_write(&vm, TABLE + 16 * n, 4, addr);
    vm_mmio_write(&vm, TABLE + 16 * n + 4, 4, 0);
    vm_mmio_write(&vm, TABLE + 16 * n + 8, 4, data);
}

static void mask(unsigned n, bool masked)
{
    vm_mmio_write(&vm, TABLE + 16 * n + 12, 4, masked);
}

static void send(unsigned n)
{
    vm_lock(&vm);
    pci_msix_send(&fn, n);
    vm_unlock(&vm);
}

/* As drivers do it: all masked, then one by one. */
static void enable(unsigned n)
{
    pci_config_write(&fn, MSIX_CONTROL, 2, ENABLE);
    write_entry(n, ADDR, VEC);
    mask(n, false);
}

/* Whether vector n comes, by irqfd or by call, and with that message. */
static void comes(unsigned n, bool irqfd, u32 addr, u32 data)
{
    unsigned calls = kvm.calls;

    send(n);
    assert_int_equal(by_irqfd(), irqfd);
    assert_int_equal(kvm.calls - calls, !irqfd);
    assert_int_equal(kvm.last_addr, addr);
    assert_int_equal(kvm.last_data, data);
}

/* Neither way. */
static void does_not_come(unsigned n)
{
    unsigned calls = kvm.calls;

    send(n);
    assert_int_equal(by_irqfd(), 0);
    assert_int_equal(kvm.calls, calls);
}

/* --- tests --- */

static void irqfd__is_there_while_the_vector_can_be_sent(void **state)
{
    (void)state;
    enable(1);
    assert_int_equal(assigned(), 1);
    comes(1, true, ADDR, VEC);
    assert_int_equal(machine.irqfd[0].e.sent, 1);
    does_not_come(0);
    /* Each of what can stand in the way does. */
    mask(1, true);
    assert_int_equal(assigned(), 0);
    mask(1, false);
    assert_int_equal(assigned(), 1);
    pci_config_write(&fn, MSIX_CONTROL, 2, ENABLE | MASK_ALL);
    assert_int_equal(assigned(), 0);
    pci_config_write(&fn, MSIX_CONTROL, 2, 0);
    assert_int_equal(assigned(), 0);
    does_not_come(1);
    pci_config_write(&fn, MSIX_CONTROL, 2, ENABLE);
    assert_int_equal(assigned(), 1);
    pci_config_write(&fn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(assigned(), 0);
    does_not_come(1);
    pci_config_write(&fn, PCI_COMMAND, 2, COMMAND);
    assert_int_equal(assigned(), 1);
    comes(1, true, ADDR, VEC);
    assert_int_equal(kvm.routings, 1); /* it was the same message all along */
    pci_reset(&fn);
    assert_int_equal(assigned(), 0);
    does_not_come(1);
}

static void irqfd__masked_is_pending(void **state)
{
    (void)state;
    enable(1);
    for (unsigned by_function = 0; by_function < 2; by_function++) {
        if (by_function)
            pci_config_write(&fn, MSIX_CONTROL, 2, ENABLE | MASK_ALL);
        else
            mask(1, true);
        does_not_come(1);
        does_not_come(1);
        assert_int_equal(vm_mmio_read(&vm, PBA, 4), 2);
        if (by_function)
            pci_config_write(&fn, MSIX_CONTROL, 2, ENABLE);
        else
            mask(1, false);
        assert_int_equal(by_irqfd(), 1);
        assert_int_equal(kvm.last_data, VEC);
        assert_int_equal(vm_mmio_read(&vm, PBA, 4), 0);
    }
    assert_int_equal(kvm.calls, 0);
}

/* As Linux moves an interrupt: masked, written, unmasked. */
static void irqfd__routes_are_set_once_a_change(void **state)
{
    (void)state;
    enable(0);
    assert_int_equal(kvm.routings, 1);
    for (u32 i = 1; i <= 4; i++) {
        mask(0, true);
        write_entry(0, ADDR | i << 12, VEC + i);
        assert_int_equal(kvm.routings, i);
        mask(0, false);
        assert_int_equal(kvm.routings, i + 1);
        comes(0, true, ADDR | i << 12, VEC + i);
    }
    for (unsigned i = 0; i < 1000; i++) {
        mask(0, true);
        mask(0, false);
    }
    assert_int_equal(kvm.routings, 5);
    assert_int_equal(assigned(), 1);
    assert_int_equal(kvm.nroutes, 1);
    assert_int_equal(kvm.assigns, kvm.deassigns + 1);
    comes(0, true, ADDR | 4 << 12, VEC + 4);
    /* Writing what is there changes nothing. */
    write_entry(0, ADDR | 4 << 12, VEC + 4);
    mask(0, false);
    assert_int_equal(kvm.routings, 5);
    assert_int_equal(kvm.assigns, kvm.deassigns + 1);
}

/* A driver should mask it first, and need not (PCI 3.0 6.8.2: undefined). */
static void irqfd__follows_an_unmasked_entry(void **state)
{
    (void)state;
    enable(0);
    vm_mmio_write(&vm, TABLE + 8, 4, VEC + 1);
    comes(0, true, ADDR, VEC + 1);
    vm_mmio_write(&vm, TABLE, 4, ADDR | 1 << 12);
    comes(0, true, ADDR | 1 << 12, VEC + 1);
    assert_int_equal(kvm.deassigns, 0);
    /* No message to an APIC: dropped by whoever would send it, and not sent as one that was. */
    vm_mmio_write(&vm, TABLE, 4, 0x1000);
    assert_int_equal(assigned(), 0);
    does_not_come(0);
    vm_mmio_write(&vm, TABLE, 4, ADDR);
    vm_mmio_write(&vm, TABLE + 4, 4, 1);
    assert_int_equal(assigned(), 0);
    does_not_come(0);
    vm_mmio_write(&vm, TABLE + 4, 4, 0);
    comes(0, true, ADDR, VEC + 1);
}

static void irqfd__routes_of_pins_stay(void **state)
{
    (void)state;
    vm_lock(&vm);
    kvm_pin(&vm, 20, ADDR, 0x8051);
    vm_unlock(&vm);
    enable(0);
    assert_int_equal(kvm.nroutes, 2);
    assert_int_equal(route_of(20)->u.msi.data, 0x8051);
    vm_lock(&vm);
    kvm_pin(&vm, 21, ADDR, 0x8052);
    kvm_pin(&vm, 20, ADDR, 0);
    vm_unlock(&vm);
    assert_int_equal(kvm.nroutes, 2);
    assert_null(route_of(20));
    comes(0, true, ADDR, VEC);
}

/* A pause has the APICs' registers in the device: what comes then is in them when KVM has them. */
static void irqfd__is_not_there_during_a_pause(void **state)
{
    const unsigned irr = 0x20 + VEC / 32, bit = VEC % 32;

    (void)state;
    enable(0);
    vm_pause(&vm);
    assert_int_equal(assigned(), 0);
    does_not_come(0);
    assert_int_equal(get_reg(irr), 0);
    vm_resume(&vm);
    assert_int_equal(get_reg(irr), BIT32(bit));
    assert_int_equal(assigned(), 1);
    assert_int_equal(by_irqfd(), 0); /* not twice */
    comes(0, true, ADDR, VEC);
    assert_int_equal(kvm.routings, 1);
    /* Masked meanwhile, and another message. */
    vm_pause(&vm);
    mask(0, true);
    vm_resume(&vm);
    assert_int_equal(assigned(), 0);
    vm_pause(&vm);
    write_entry(0, ADDR, VEC + 1);
    mask(0, false);
    assert_int_equal(assigned(), 0);
    assert_int_equal(kvm.routings, 1);
    vm_resume(&vm);
    assert_int_equal(kvm.routings, 2);
    comes(0, true, ADDR, VEC + 1);
}

static void load(struct pci_function *f, u8 *buf, size_t n)
{
    struct stream s;

    stream_init(&s, buf, n);
    vm_lock(&vm);
    assert_int_equal(pci_load(f, &s), 0);
    vm_unlock(&vm);
}

static void irqfd__is_there_again_in_a_restored_machine(void **state)
{
    static u8 buf[4096];
    struct stream s;

    enable(0);
    write_entry(1, ADDR, VEC + 1);
    mask(1, false);
    write_entry(2, ADDR, VEC + 2); /* masked */
    send(2);
    stream_init(&s, buf, sizeof(buf));
    pci_save(&fn, &s);
    assert_int_equal(s.error, 0);
    end(state);
    assert_int_equal(start(state), 0);
    vm_pause(&vm);
    load(&fn, buf, s.pos);
    assert_int_equal(assigned(), 0);
    vm_resume(&vm);
    assert_int_equal(assigned(), 2);
    assert_int_equal(kvm.routings, 1); /* all at once */
    comes(0, true, ADDR, VEC);
    comes(1, true, ADDR, VEC + 1);
    mask(2, false);
    assert_int_equal(by_irqfd(), 1);
    assert_int_equal(kvm.last_data, VEC + 2);
}

static void irqfd__run_out_and_come_back(void **state)
{
    (void)state;
    vm_mmio_write(&vm, TABLE, 4, ADDR);
    pci_config_write(&fn, PCI_COMMAND, 2, 0); /* off the bus: its place is the other's */
    pci_config_write(&other, PCI_BAR0 + 4, 4, TABLE);
    pci_config_write(&other, PCI_COMMAND, 2, COMMAND);
    pci_config_write(&other, MSIX_CONTROL, 2, ENABLE);
    for (unsigned n = 0; n < PCI_MSIX_MAX; n++) {
        write_entry(n, ADDR, n);
        mask(n, false);
    }
    assert_int_equal(assigned(), KVM_IRQFDS);
    for (unsigned n = 0; n < PCI_MSIX_MAX; n++)
        pci_msix_send(&other, n);
    assert_int_equal(by_irqfd(), KVM_IRQFDS);
    assert_int_equal(kvm.calls, PCI_MSIX_MAX - KVM_IRQFDS);
    pci_reset(&other);
    assert_int_equal(assigned(), 0);
    pci_config_write(&fn, PCI_COMMAND, 2, COMMAND);
    enable(0);
    comes(0, true, ADDR, VEC);
}

/* What somebody else adds while it is not live is sent when it is; not to the next owner. */
static void irqfd__keeps_what_is_added_early(void **state)
{
    (void)state;
    enable(0);
    mask(0, true);
    assert_int_equal(eventfd_write(machine.irqfd[0].e.fd, 1), 0);
    mask(0, false);
    assert_int_equal(by_irqfd(), 1);
    mask(0, true);
    assert_int_equal(eventfd_write(machine.irqfd[0].e.fd, 1), 0);
    pci_reset(&fn);
    pci_config_write(&fn, PCI_BAR0 + 4, 4, TABLE);
    pci_config_write(&fn, PCI_COMMAND, 2, COMMAND);
    enable(2);
    assert_int_equal(assigned(), 1);
    assert_int_equal(by_irqfd(), 0);
}

static void irqfd__goes_without(void **state)
{
    (void)state;
    /* No route: by call, until there is one. */
    kvm.no_routes = true;
    enable(0);
    comes(0, false, ADDR, VEC);
    kvm.no_routes = false;
    mask(0, true);
    mask(0, false);
    comes(0, true, ADDR, VEC);
    /* No new one: not by the old. */
    kvm.no_routes = true;
    vm_mmio_write(&vm, TABLE + 8, 4, VEC + 1);
    comes(0, false, ADDR, VEC + 1);
    kvm.no_routes = false;
    vm_pause(&vm);
    vm_resume(&vm);
    comes(0, true, ADDR, VEC + 1);
    /* No irqfd. */
    kvm.no_irqfds = true;
    vm_pause(&vm);
    vm_resume(&vm);
    comes(0, false, ADDR, VEC + 1);
    mask(0, true);
    kvm.no_irqfds = false;
    mask(0, false);
    comes(0, true, ADDR, VEC + 1);
    /* Nor for a function that does not want them. */
    pci_reset(&fn);
    fn.irqfds = false;
    pci_config_write(&fn, PCI_BAR0 + 4, 4, TABLE);
    pci_config_write(&fn, PCI_COMMAND, 2, COMMAND);
    enable(0);
    comes(0, false, ADDR, VEC);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, end)
    const struct CMUnitTest tests[] = {
        TEST(irqfd__is_there_while_the_vector_can_be_sent),
        TEST(irqfd__masked_is_pending),
        TEST(irqfd__routes_are_set_once_a_change),
        TEST(irqfd__follows_an_unmasked_entry),
        TEST(irqfd__routes_of_pins_stay),
        TEST(irqfd__is_not_there_during_a_pause),
        TEST(irqfd__is_there_again_in_a_restored_machine),
        TEST(irqfd__run_out_and_come_back),
        TEST(irqfd__keeps_what_is_added_early),
        TEST(irqfd__goes_without),
    };

    return cmocka_run_group_tests_name("kvm-irqfd", tests, NULL, NULL);
}
