/* SPDX-License-Identifier: Apache-2.0 */
/* The board's ACPI tables (ACPI 6.4 chapter 5). */
#ifndef TRIVISOR_BOARD_ACPI_H
#define TRIVISOR_BOARD_ACPI_H

#include "base/types.h"

/* Writes the tables to area[0..size), which the guest sees at base (4 KiB-aligned, below 4 GiB),
 * for ncpus processors with local APIC ids from 0. Returns the address of the RSDP (base), or 0: no
 * room. */
u64 acpi_build(u8 *area, u64 size, u64 base, unsigned ncpus);

#endif
