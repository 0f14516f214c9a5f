/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a CPU model and a vCPU's state are such that engines may run on them: for what comes from
 * a file. */
#ifndef TRIVISOR_X86_CPU_CHECK_H
#define TRIVISOR_X86_CPU_CHECK_H

#include "x86/cpuid.h"

/*
 * Whether the entries of *m (no more is looked at) are a CPU's that x86_cpu_model_build and the
 * functions of x86/cpu_features.h could have made. What an engine can give is another question
 * (x86_cpu_model_missing).
 */
bool x86_cpu_model_valid(const struct x86_cpu_model *m);

/*
 * Whether a CPU of model *m can be in state *s, as far as engines rely on it: no reserved bits,
 * registers that contradict each other, or vector state that XRSTOR refuses.
 */
bool x86_vcpu_state_valid(const struct x86_vcpu_state *s, const struct x86_cpu_model *m);

#endif
