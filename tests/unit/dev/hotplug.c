/* SPDX-License-Identifier: Apache-2.0 */
/* Slots whose devices come and go, and guests that eject what they like. */
#include "dev/pci/hotplug.h"

#include <string.h>

#include "dev/chipset/acpi_pm.h"
#include "dev/pci/host.h"
#include "fake_host.h"
#include "state_file.h"
#include "test.h"

#define PORT 0x610
#define UP (PORT + PCI_HOTPLUG_UP)
#define DOWN (PORT + PCI_HOTPLUG_DOWN)
#define EJECT (PORT + PCI_HOTPLUG_EJECT)
#define GPE_STATUS (ACPI_PM_BASE + ACPI_GPE0)
#define GPE_ENABLE (GPE_STATUS + 1)
#define SLOT 24
#define BAR 0xc0000000u

static struct machine *m;
static struct device *pm, *host, *hotplug;
static struct probe sci, line;

/* What is in a slot. */
static struct occupant {
    struct device dev;
    struct pci_function fn;
    unsigned unplugged, told;
} what[32];

static u64 bar_read(void *dev, u64 off, unsigned size)
{
    (void)off;
    (void)size;
    return ((struct occupant *)dev)->fn.devfn;
}

static void bar_write(void *dev, u64 off, unsigned size, u64 val)
{
    (void)dev;
    (void)off;
    (void)size;
    (void)val;
}

static const struct bus_ops bar_ops = {.read = bar_read, .write = bar_write};

static void unplug(struct device *d)
{
    struct occupant *o = container_of(d, struct occupant, dev);

    assert_int_equal(m->vm.lock.opaque[0], 1);
    o->unplugged++;
    pci_host_remove(host, &o->fn);
}

static const struct device_ops ops = {.name = "occupant", .unplug = unplug};

static void ejected(void *opaque, unsigned slot)
{
    assert_ptr_equal(opaque, what);
    assert_int_equal(m->vm.lock.opaque[0], 0);
    assert_int_equal(what[slot].unplugged, 1);
    what[slot].told++;
}

static struct machine *create(void)
{
    struct acpi_pm_config pm_cfg = {.base = ACPI_PM_BASE, .sci = probe_line(&sci)};
    struct pci_hotplug_config cfg = {.base = PORT, .ejected = ejected, .opaque = what};
    struct pci_host_config pci = {.mem32 = {BAR, 0x1000000}};

    memset(what, 0, sizeof(what));
    memset(&sci, 0, sizeof(sci));
    memset(&line, 0, sizeof(line));
    m = machine_new(1);
    pci.intx[0] = probe_line(&line); /* INTA of slots 24, 28 */
    host = pci_host_create(&m->vm, &pci);
    pm = cfg.pm = acpi_pm_create(&m->vm, &pm_cfg);
    hotplug = pci_hotplug_create(&m->vm, &cfg);
    assert_non_null(hotplug);
    return m;
}

static bool insert(unsigned slot, bool tell)
{
    struct occupant *o = &what[slot];
    bool listening;

    memset(o, 0, sizeof(*o));
    o->dev.ops = &ops;
    pci_init(&o->fn, &m->vm, "occupant", 0x1af4, 0x1041, 0x020000, 1);
    pci_add_bar(&o->fn, 0, PCI_BAR_MEM32, 4096, &bar_ops, o);
    pci_use_intx(&o->fn);
    vm_lock(&m->vm);
    assert_true(pci_host_is_free(host, PCI_DEVFN(slot, 0)));
    assert_int_equal(pci_host_add(host, &o->fn, PCI_DEVFN(slot, 0)), 0);
    listening = pci_hotplug_insert(hotplug, slot, &o->dev, tell);
    vm_unlock(&m->vm);
    return listening;
}

static bool ask(unsigned slot)
{
    bool listening;

    vm_lock(&m->vm);
    listening = pci_hotplug_ask(hotplug, slot);
    vm_unlock(&m->vm);
    return listening;
}

static u32 in(u16 port)
{
    return vm_pio_read(&m->vm, port, 4);
}

static void eject(u32 slots)
{
    vm_pio_write(&m->vm, EJECT, 4, slots);
}

static void done(void)
{
    fake_settle();
    machine_free(m);
}

static void hotplug__the_guest_is_told_and_ejects(void **state)
{
    (void)state;
    create();
    assert_false(insert(SLOT, true)); /* nobody listens yet, */
    assert_false(sci.level);
    outb(m, GPE_ENABLE, 1 << PCI_HOTPLUG_GPE);
    assert_true(sci.level); /* but it is not lost */
    outb(m, GPE_STATUS, 1 << PCI_HOTPLUG_GPE);
    assert_false(sci.level);
    assert_int_equal(in(UP), BIT32(SLOT));
    assert_int_equal(in(UP), 0);
    assert_int_equal(in(DOWN), 0);
    assert_true(insert(31, true));
    assert_true(sci.level);
    outb(m, GPE_STATUS, 1 << PCI_HOTPLUG_GPE);
    assert_int_equal(in(UP), BIT32(31));
    assert_true(ask(SLOT));
    assert_true(sci.level);
    assert_int_equal(in(DOWN), BIT32(SLOT));
    assert_int_equal(in(DOWN), 0);
    eject(BIT32(SLOT));
    assert_int_equal(what[SLOT].unplugged, 1);
    assert_int_equal(what[SLOT].told, 0); /* not on the vCPU's thread */
    fake_settle();
    assert_int_equal(what[SLOT].told, 1);
    assert_int_equal(what[31].unplugged, 0);
    assert_true(insert(SLOT, true));
    done();
}

static void hotplug__hostile_guests(void **state)
{
    (void)state;
    create();
    eject(0xffffffff); /* nothing is there */
    insert(SLOT, false);
    assert_int_equal(in(UP), 0);
    in(EJECT);
    vm_pio_write(&m->vm, UP, 4, 0xffffffff);
    vm_pio_write(&m->vm, DOWN, 4, 0xffffffff);
    assert_int_equal(in(UP) | in(DOWN) | in(EJECT), 0);
    /* Narrow stores write zeroes beside them. */
    outb(m, EJECT, 0xff);
    vm_pio_write(&m->vm, EJECT + 2, 1, 0xff);
    assert_int_equal(what[SLOT].unplugged, 0);
    /* Without being asked, several at once, and again before anybody has looked. */
    insert(25, true);
    ask(25);
    outb(m, EJECT + 3, 0xff);
    eject(0xffffffff);
    eject(0xffffffff);
    assert_int_equal(what[SLOT].unplugged, 1);
    assert_int_equal(what[25].unplugged, 1);
    assert_int_equal(in(UP) | in(DOWN), 0); /* nothing is said of what is gone */
    assert_false(ask(25));
    assert_int_equal(in(DOWN), 0);
    fake_settle();
    assert_int_equal(what[SLOT].told, 1);
    assert_int_equal(what[25].told, 1);
    eject(0xffffffff);
    fake_settle();
    assert_int_equal(what[25].told, 1);
    done();
}

static void hotplug__nothing_is_left_on_the_bus(void **state)
{
    struct pci_function *f = &what[SLOT].fn;

    (void)state;
    create();
    insert(SLOT, true);
    pci_config_write(f, PCI_BAR0, 4, BAR);
    pci_config_write(f, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_int_equal(vm_mmio_read(&m->vm, BAR, 4), PCI_DEVFN(SLOT, 0));
    pci_set_intx(f, true);
    assert_true(line.level);
    eject(BIT32(SLOT));
    assert_false(line.level);
    assert_int_equal(vm_mmio_read(&m->vm, BAR, 4), 0xffffffff);
    vm_pio_write(&m->vm, 0xcf8, 4, 0x80000000u | PCI_DEVFN(SLOT, 0) << 8);
    assert_int_equal(vm_pio_read(&m->vm, 0xcfc, 4), 0xffffffff);
    vm_pio_write(&m->vm, 0xcfc, 4, 0);
    /* Its threads may still say something. */
    pci_set_intx(f, true);
    pci_msix_send(f, 0);
    assert_false(line.level);
    assert_int_not_equal(pci_dma_write(f, 0x1000, "x", 1), 0);
    done();
}

static void hotplug__what_was_said_is_saved(void **state)
{
    struct state_file *f;
    size_t len;
    u8 *bytes;

    (void)state;
    create();
    insert(SLOT, true);
    insert(25, false);
    ask(25);
    f = state_save(m);
    done();
    create();
    assert_int_not_equal(state_load(m, f), 0); /* nothing is in the slots */
    done();
    create();
    insert(SLOT, false);
    insert(25, false);
    assert_int_equal(state_load(m, f), 0);
    assert_int_equal(in(UP), BIT32(SLOT));
    assert_int_equal(in(DOWN), BIT32(25));
    bytes = state_bytes(f, "pci-hotplug", &len);
    bytes[len - 1] ^= 0x80; /* slot 31 */
    assert_int_not_equal(state_load_device(m, "pci-hotplug", bytes, len), 0);
    bytes[len - 1] ^= 0x80;
    state_refuses_pieces(m, f, "pci-hotplug");
    done();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hotplug__the_guest_is_told_and_ejects),
        cmocka_unit_test(hotplug__hostile_guests),
        cmocka_unit_test(hotplug__nothing_is_left_on_the_bus),
        cmocka_unit_test(hotplug__what_was_said_is_saved),
    };

    return cmocka_run_group_tests_name("dev-hotplug", tests, NULL, NULL);
}
