/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APICs used by several threads at once, as vCPUs do: no interrupt may be lost and no halted
 * vCPU left asleep. Worth running under TSan.
 */
#include <stdlib.h>
#include <string.h>

#include "dev/chipset/irqchip.h"
#include "test.h"

#define NCPUS 4
#define ROUNDS 20000
#define VECTOR_IPI 0x40 /* + sender */
#define VECTOR_LEVEL 0x61
#define WAIT_NS 5000000000ull /* far beyond any scheduling delay */

static struct vm vm;
static struct vcpu cpu[NCPUS];
static struct irq_line level_line;
static struct host_event answered[NCPUS], level_done;
static u32 lost, level_count;
static bool finished;

static int vcpu_create(struct vcpu *v)
{
    (void)v;
    return 0;
}

static void vcpu_destroy(struct vcpu *v)
{
    (void)v;
}

static void kick(struct vcpu *v)
{
    (void)v;
}

static int get_state(struct vcpu *v, struct x86_vcpu_state *s)
{
    (void)v;
    memset(s, 0, sizeof(*s));
    return 0;
}

static int set_state(struct vcpu *v, const struct x86_vcpu_state *s)
{
    (void)v;
    (void)s;
    return 0;
}

static const struct engine_ops engine = {
    .name = "none",
    .vcpu_create = vcpu_create,
    .vcpu_destroy = vcpu_destroy,
    .kick = kick,
    .get_state = get_state,
    .set_state = set_state,
};

static void apic_write(struct vcpu *v, u32 reg, u32 val)
{
    vcpu_mmio_write(v, 0xfee00000 + reg, 4, val);
}

static void serve(struct vcpu *v, int vector)
{
    if (vector == VECTOR_LEVEL) {
        vm_lock(&vm);
        irq_set(&level_line, false);
        vm_unlock(&vm);
        __atomic_fetch_add(&level_count, 1, __ATOMIC_RELAXED);
        apic_write(v, 0xb0, 0);
        host_event_set(&level_done);
        return;
    }
    assert_in_range(vector, VECTOR_IPI, VECTOR_IPI + NCPUS - 1);
    apic_write(v, 0xb0, 0);
    host_event_set(&answered[vector - VECTOR_IPI]);
}

/* What an engine does with events, and core with HLT. */
static void take_interrupts(struct vcpu *v)
{
    while (__atomic_exchange_n(&v->events, 0, __ATOMIC_SEQ_CST) & VCPU_EV_IRQ) {
        while (v->irq->pending(v->irq_opaque) >= 0) {
            int vector = v->irq->ack(v->irq_opaque);
            if (vector >= 0)
                serve(v, vector);
        }
    }
}

/* Odd vCPUs send IPIs to their even neighbour, which halts in between. */
static void sender(void *opaque)
{
    struct vcpu *v = opaque;

    for (unsigned i = 0; i < ROUNDS; i++) {
        apic_write(v, 0x310, (v->id - 1) << 24);
        apic_write(v, 0x300, 0x4000 | (VECTOR_IPI + v->id));
        if (!host_event_wait(&answered[v->id], WAIT_NS))
            __atomic_fetch_add(&lost, 1, __ATOMIC_RELAXED);
    }
}

static void halter(void *opaque)
{
    struct vcpu *v = opaque;

    while (!__atomic_load_n(&finished, __ATOMIC_ACQUIRE)) {
        take_interrupts(v);
        host_event_wait(&v->wake, UINT64_MAX);
    }
}

static void device(void *opaque)
{
    (void)opaque;
    for (unsigned i = 0; i < ROUNDS; i++) {
        vm_lock(&vm);
        irq_set(&level_line, true);
        vm_unlock(&vm);
        if (!host_event_wait(&level_done, WAIT_NS))
            __atomic_fetch_add(&lost, 1, __ATOMIC_RELAXED);
    }
}

static void rte(unsigned pin, u32 dest, u32 low)
{
    vm_mmio_write(&vm, 0xfec00000, 4, 0x11 + 2 * pin);
    vm_mmio_write(&vm, 0xfec00010, 4, dest << 24);
    vm_mmio_write(&vm, 0xfec00000, 4, 0x10 + 2 * pin);
    vm_mmio_write(&vm, 0xfec00010, 4, low);
}

static void lapic__loses_nothing_between_threads(void **state)
{
    struct host_thread *send[2], *halt[2], *dev;
    struct device *chip;

    (void)state;
    vm_init(&vm, &engine);
    vm.cpu_model.phys_bits = 40;
    for (unsigned i = 0; i < NCPUS; i++)
        assert_int_equal(vm_add_vcpu(&vm, &cpu[i]), 0);
    chip = irqchip_create(&vm);
    assert_non_null(chip);
    for (unsigned i = 0; i < NCPUS; i++) {
        apic_write(&cpu[i], 0xf0, 0x1ff);
        apic_write(&cpu[i], 0x350, 0x10000);
    }
    level_line = irqchip_gsi_line(chip, 18);
    rte(18, 0, 0x8000 | VECTOR_LEVEL);

    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(host_thread_create(&halt[i], "halter", halter, &cpu[2 * i]), 0);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(host_thread_create(&send[i], "sender", sender, &cpu[2 * i + 1]), 0);
    assert_int_equal(host_thread_create(&dev, "device", device, NULL), 0);
    for (unsigned i = 0; i < 2; i++)
        host_thread_join(send[i]);
    host_thread_join(dev);
    __atomic_store_n(&finished, true, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < 2; i++) {
        vcpu_post(&cpu[2 * i], VCPU_EV_IRQ);
        host_thread_join(halt[i]);
    }
    assert_int_equal(lost, 0);
    assert_int_equal(level_count, ROUNDS);
    vm_destroy(&vm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(lapic__loses_nothing_between_threads)};

    return cmocka_run_group_tests_name("dev-threads", tests, NULL, NULL);
}
