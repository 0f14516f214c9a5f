/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In the outer machine: has a VM as long as it lives. With a host's first VM, and after its last,
 * Linux rewrites code that all CPUs run (preempt_notifier_key in the scheduler, apic_sw_disabled in
 * KVM); on a TCG with several threads one of them may go on with the breakpoint that stood there
 * meanwhile, for ever.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

int main(void)
{
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {24}};
    int kvm = open("/dev/kvm", O_RDWR), vm = ioctl(kvm, KVM_CREATE_VM, 0);

    /* A vCPU's APIC is disabled by software at first. */
    if (vm < 0 || ioctl(vm, KVM_ENABLE_CAP, &split) || ioctl(vm, KVM_CREATE_VCPU, 0) < 0) {
        perror("hold");
        return 1;
    }
    for (;;)
        pause();
}
