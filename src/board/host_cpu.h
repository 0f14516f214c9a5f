/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU model the guest gets, from the host's CPUID. */
#ifndef TRIVISOR_BOARD_HOST_CPU_H
#define TRIVISOR_BOARD_HOST_CPU_H

#include "x86/cpuid.h"

/* What engine bt shows of this host by itself. */
void host_cpu_model(struct x86_cpu_model *m, unsigned ncpus, bool hide_kvm);

/* Everything that engine bt can give on this host: what a machine from elsewhere may need. */
void host_cpu_model_every(struct x86_cpu_model *m, unsigned ncpus, bool hide_kvm);

/*
 * What every engine can give on this host. Without an engine here that runs guest code on the CPU,
 * what one would as far as the CPU says. 0 or -errno.
 */
int host_cpu_model_common(struct x86_cpu_model *m, unsigned ncpus, bool hide_kvm);

/*
 * Makes *m, all that an engine gives on this host, the CPU that `text` asks for (--cpu). 0, or
 * -EINVAL with one line in err.
 */
int host_cpu_select(struct x86_cpu_model *m, unsigned ncpus, bool hide_kvm, const char *text,
                    const char *engine, char *err, size_t err_size);

#endif
