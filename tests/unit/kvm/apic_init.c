/* SPDX-License-Identifier: Apache-2.0 */
/* An INIT that KVM has not let happen when the machine is paused, with KVM played by this file. */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "dev/chipset/lapic.h"
#include "engine/kvm/kvm_priv.h"
#include "test.h"
#include "x86/msr.h"

#define R_SVR 0x0f
#define BASE (LAPIC_DEFAULT_BASE | BIT64(11) | BIT64(8))

static struct vm vm;
static struct vcpu vcpu;
static struct kvm_cpu cpu;
static struct kvm_machine machine;
static u32 svr;       /* KVM's */
static bool init_due; /* sent, and not looked at yet */

int __wrap_ioctl(int fd, unsigned long request, void *arg);

int __wrap_ioctl(int fd, unsigned long request, void *arg)
{
    struct kvm_lapic_state *l = arg;
    struct kvm_msr_values *msr = arg;

    (void)fd;
    switch (request) {
    case KVM_GET_MP_STATE:
        if (init_due)
            svr = 0xff;
        init_due = false;
        memset(arg, 0, sizeof(struct kvm_mp_state));
        return 0;
    case KVM_GET_LAPIC:
        memset(l, 0, sizeof(*l));
        memcpy(l->regs + 16 * R_SVR, &svr, sizeof(svr));
        return 0;
    case KVM_GET_MSRS:
        msr->entry[0].data = msr->entry[0].index == MSR_APIC_BASE ? BASE : 0;
        return 1;
    default:
        errno = ENOTTY;
        return -1;
    }
}

static int vcpu_create(struct vcpu *v)
{
    v->engine_vcpu = &cpu;
    return 0;
}

static const struct engine_ops ops = {
    .name = "kvm", .vcpu_create = vcpu_create, .apic = &kvm_apic_ops};

/* What is saved is what the vCPU's state, which is fetched later, belongs to. */
static void init__comes_before_the_registers(void **state)
{
    struct vcpu_apic a;

    (void)state;
    vm_init(&vm, &ops);
    vm.engine_vm = &machine;
    machine.vm = &vm;
    machine.cpu[machine.ncpus++] = &cpu;
    cpu.v = &vcpu;
    cpu.m = &machine;
    assert_int_equal(vm_add_vcpu(&vm, &vcpu), 0);
    assert_non_null(lapic_create(&vm));
    svr = 0x1ff;
    vm_clock_stop(&vm);
    assert_int_equal(ops.apic->give(&vm), 0);
    vcpu.irq->get_regs(vcpu.irq_opaque, &a);
    assert_int_equal(a.reg[R_SVR], 0x1ff);
    init_due = true;
    assert_int_equal(ops.apic->give(&vm), 0);
    assert_false(init_due);
    vcpu.irq->get_regs(vcpu.irq_opaque, &a);
    assert_int_equal(a.reg[R_SVR], 0xff);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(init__comes_before_the_registers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
