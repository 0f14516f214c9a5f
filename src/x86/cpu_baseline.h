/* SPDX-License-Identifier: Apache-2.0 */
/* CPUs by level rather than by host: the x86-64 psABI's. */
#ifndef TRIVISOR_X86_CPU_BASELINE_H
#define TRIVISOR_X86_CPU_BASELINE_H

#include "x86/cpu_features.h"

/* The level of that name ("x86-64-v2", -v3, -v4), or 0. */
unsigned x86_cpu_level(const char *name, size_t len);

/*
 * Makes *m the CPU of a level: its features and no others, and everything else that tells one CPU
 * of a vendor from another in the same form everywhere. What stays as it was: the vendor, how many
 * CPUs there are, the layout of XSAVE images, the TSC's frequency, the paravirtual leaves, and what
 * is said about speculation, which the guest must know of the CPU it is on. Calls fn with the names
 * of features that the level has and *m had not.
 */
void x86_cpu_model_set_level(struct x86_cpu_model *m, unsigned level, x86_cpu_missing_fn *fn,
                             void *opaque);

#endif
