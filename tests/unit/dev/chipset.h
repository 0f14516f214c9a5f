/* SPDX-License-Identifier: Apache-2.0 */
/* A fake machine with the PC's chipset, wired as on the board, and one PCI function: for tests of
 * the whole. */
#ifndef TRIVISOR_TESTS_UNIT_DEV_CHIPSET_H
#define TRIVISOR_TESTS_UNIT_DEV_CHIPSET_H

#include "core/backend.h"
#include "dev/pci/pci.h"
#include "fake_host.h"

#define CHIPSET_APIC 0xfee00000ull
#define CHIPSET_IOAPIC 0xfec00000ull
#define CHIPSET_VMGENID 0xff000u
#define CHIPSET_FN PCI_DEVFN(3, 0) /* MSI-X with three vectors in BAR 1 */

struct chipset {
    struct machine *m;
    struct device *irq, *host, *pm, *vmgenid;
    struct chardev com1, com2; /* com2 holds back */
    char out[2][256];          /* what they were sent */
    size_t n_out[2];
    size_t room;    /* bytes com2 takes */
    const char *in; /* com1's input not taken yet, offered when the port asks */
    struct pci_function fn;
    struct device fn_dev;
};

/* There is one at a time. */
struct chipset *chipset_new(unsigned ncpus);
void chipset_free(struct chipset *c);

#endif
