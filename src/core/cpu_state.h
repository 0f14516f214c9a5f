/* SPDX-License-Identifier: Apache-2.0 */
/* CPU models and the state of vCPUs in streams. Loading takes nothing on trust. */
#ifndef TRIVISOR_CORE_CPU_STATE_H
#define TRIVISOR_CORE_CPU_STATE_H

#include "core/stream.h"
#include "x86/cpuid.h"

/* At most so many bytes each. */
#define X86_CPU_MODEL_SAVED_MAX (32 + X86_CPUID_MAX * 25)
#define X86_VCPU_STATE_SAVED_MAX (4096 + X86_XSAVE_SIZE)

void x86_cpu_model_save(const struct x86_cpu_model *m, struct stream *out);

/* *m is overwritten. 0; -EINVAL: another version, or no CPU that engines could run. Whether one can
 * give it all is for x86_cpu_model_missing to say. */
int x86_cpu_model_load(struct x86_cpu_model *m, struct stream *in);

/* host_tsc: the host's TSC at the instant the guest's stands at (vm->tsc_stopped): the TSC is saved
 * as the guest sees it. *m: the model the vCPU runs with. */
void x86_vcpu_state_save(const struct x86_vcpu_state *s, const struct x86_cpu_model *m,
                         u64 host_tsc, struct stream *out);

/* *s is overwritten, its TSC as saved at the host's host_tsc. 0; -EINVAL: another version, or not a
 * state of a CPU of model *m, which is the model it was saved with. */
int x86_vcpu_state_load(struct x86_vcpu_state *s, const struct x86_cpu_model *m, u64 host_tsc,
                        struct stream *in);

#endif
