/* SPDX-License-Identifier: Apache-2.0 */
/* A host CPU that claims everything. */
#ifndef TRIVISOR_TESTS_UNIT_X86_SYNTHETIC_H
#define TRIVISOR_TESTS_UNIT_X86_SYNTHETIC_H

#include "x86/cpuid.h"

void synthetic_model(struct x86_cpu_model *m, bool amd, u64 xcr0,
                     const struct x86_cpu_options *opt);

#endif
