/* SPDX-License-Identifier: Apache-2.0 */
/* What a BIOS leaves in memory for systems that do not read ACPI tables: interrupt vectors, the
 * BIOS data area, and the configuration table of Intel's MultiProcessor Specification 1.4. */
#ifndef TRIVISOR_BOARD_LEGACY_H
#define TRIVISOR_BOARD_LEGACY_H

#include "x86/cpuid.h"

/* Fills the interrupt vectors and the data areas of a BIOS in the guest's first megabyte at ram.
 * There is no BIOS: what has been started by Multiboot and goes back to real mode to ask one (Xen
 * does) hears that there is no such function, but for the calls that only read the data area. */
void legacy_bios(u8 *ram);

/* Writes the MP tables to area[0..size), which the guest sees at base (16-byte-aligned, F0000H to
 * FFFFFH, where they are looked for), for ncpus processors of this model with local APIC ids from
 * 0. 0, or -ENOSPC. */
int legacy_mp_table(u8 *area, u64 size, u64 base, const struct x86_cpu_model *model,
                    unsigned ncpus);

#endif
