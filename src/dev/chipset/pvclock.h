/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The paravirtual clock of KVM guests (Linux Documentation/virt/kvm/x86/msr.rst): a page a vCPU
 * from which the guest turns its TSC into the VM's clock without leaving the CPU, and the
 * wall-clock time of clock 0. MSRs 4B564D00H/01H, and 11H/12H for old guests.
 */
#ifndef TRIVISOR_DEV_CHIPSET_PVCLOCK_H
#define TRIVISOR_DEV_CHIPSET_PVCLOCK_H

#include "core/vm.h"

/* After cpu_model is built. NULL: no memory, or the MSRs are taken. The device belongs to the VM.
 */
struct device *pvclock_create(struct vm *vm);

#endif
