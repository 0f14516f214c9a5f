/* SPDX-License-Identifier: Apache-2.0 */
/* CPU features by name: comparing the models of two CPUs, and taking features out of one. */
#ifndef TRIVISOR_X86_CPU_FEATURES_H
#define TRIVISOR_X86_CPU_FEATURES_H

#include "x86/cpuid.h"

/* Longest name that x86_cpu_missing_fn gets, with its NUL. */
#define X86_FEATURE_NAME_MAX 48

/*
 * A feature's number, or -1: there is none of that name. Names are those of Linux' /proc/cpuinfo
 * and, where QEMU has another, QEMU's; "-", "_" and "." in them do not count.
 */
int x86_feature_find(const char *name, size_t len);
/* Its Linux name. */
const char *x86_feature_name(int feature);

bool x86_cpu_model_has(const struct x86_cpu_model *m, int feature);
/* Shows it; the caller knows that the engine can give it and, in the end, calls
 * x86_cpu_model_settle. */
void x86_cpu_model_add(struct x86_cpu_model *m, int feature);
/* Hides it. false: a 64-bit PC cannot be without it, and *m is as it was. Likewise to be settled.
 */
bool x86_cpu_model_remove(struct x86_cpu_model *m, int feature);

/* Hides every bit of feature registers that `other` does not show, and gives addresses no more bits
 * than that has. Likewise to be settled. */
void x86_cpu_model_intersect(struct x86_cpu_model *m, const struct x86_cpu_model *other);
/* Hides every feature (but which a 64-bit PC cannot be without and what only says how safe the CPU
 * is from speculation). Likewise to be settled. */
void x86_cpu_model_strip(struct x86_cpu_model *m);

/* Shows all that a 64-bit PC cannot be without. */
void x86_cpu_model_require(struct x86_cpu_model *m);

/* What feature f cannot be without and *m does not show, itself nothing that wants for more. -1: it
 * is nothing that has a name. */
int x86_cpu_model_wants(const struct x86_cpu_model *m, int f);

/*
 * Hides what depends on hidden features (AVX2 on AVX and so on, XCR0's components), brings leaf 0DH
 * in line, and derives the fields of *m that follow from its entries.
 */
void x86_cpu_model_settle(struct x86_cpu_model *m);

/*
 * Calls fn with the name of everything that `want` shows and `have` cannot give. A bit that has no
 * name here is called cpuid.LEAF.SUBLEAF.REGISTER[BIT].
 */
typedef void x86_cpu_missing_fn(void *opaque, const char *name);
void x86_cpu_model_missing(const struct x86_cpu_model *want, const struct x86_cpu_model *have,
                           x86_cpu_missing_fn *fn, void *opaque);

#endif
