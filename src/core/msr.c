/* SPDX-License-Identifier: Apache-2.0 */
/* MSRs that belong to devices or policy. Ranges are registered before vCPUs run: no lock here. */
#include <errno.h>

#include "base/log.h"
#include "core/vm.h"

int vm_add_msr_range(struct vm *vm, u32 first, u32 last, const struct msr_ops *ops, void *opaque)
{
    if (last < first)
        return -EINVAL;
    for (unsigned i = 0; i < vm->nmsr_ranges; i++)
        if (first <= vm->msr_range[i].last && vm->msr_range[i].first <= last)
            return -EEXIST;
    if (vm->nmsr_ranges == VM_MSR_RANGES_MAX)
        return -ENOSPC;
    vm->msr_range[vm->nmsr_ranges].first = first;
    vm->msr_range[vm->nmsr_ranges].last = last;
    vm->msr_range[vm->nmsr_ranges].ops = ops;
    vm->msr_range[vm->nmsr_ranges].opaque = opaque;
    vm->nmsr_ranges++;
    return 0;
}

int vm_rdmsr(struct vcpu *v, u32 msr, u64 *val)
{
    struct vm *vm = v->vm;

    for (unsigned i = 0; i < vm->nmsr_ranges; i++)
        if (msr - vm->msr_range[i].first <= vm->msr_range[i].last - vm->msr_range[i].first)
            return vm->msr_range[i].ops->read(vm->msr_range[i].opaque, v, msr, val);
    if (vm->strict_msr)
        log_warn("cpu %u: rdmsr %#x: no such register", v->id, msr);
    return -1;
}

int vm_wrmsr(struct vcpu *v, u32 msr, u64 val)
{
    struct vm *vm = v->vm;

    for (unsigned i = 0; i < vm->nmsr_ranges; i++)
        if (msr - vm->msr_range[i].first <= vm->msr_range[i].last - vm->msr_range[i].first)
            return vm->msr_range[i].ops->write(vm->msr_range[i].opaque, v, msr, val);
    if (vm->strict_msr)
        log_warn("cpu %u: wrmsr %#x = %#llx: no such register", v->id, msr,
                 (unsigned long long)val);
    return -1;
}
