/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU model the guest gets, from the host's CPUID. */
#ifndef TRIVISOR_BOARD_HOST_CPU_H
#define TRIVISOR_BOARD_HOST_CPU_H

#include "x86/cpuid.h"

void host_cpu_model(struct x86_cpu_model *m, unsigned ncpus, bool hide_kvm);

#endif
