/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PCI host bridge: configuration mechanism 1 (ports CF8H, CFCH), ECAM, bus 0 with its
 * functions, INTx wiring, and the reset control register CF9H, which lies among these ports.
 */
#ifndef TRIVISOR_DEV_PCI_HOST_H
#define TRIVISOR_DEV_PCI_HOST_H

#include "dev/pci/pci.h"

/* ACPI reset register and the value to write there. */
#define PCI_RESET_PORT 0xcf9
#define PCI_RESET_VALUE 0x06

struct pci_window {
    u64 base, size; /* size 0: none */
};

struct pci_host_config {
    u64 ecam_base, ecam_size; /* size: 1 MiB a bus; 0: no ECAM */
    struct msi_sink msi;
    /* INTA of device 0 is line 0, INTB of it line 1, INTA of device 1 line 1, and so on. Two wires
     * a line: to the I/O APIC, and to the 8259 for guests without it. */
    struct irq_line intx[4], intx_pic[4];
    /* Interrupt line register values firmware would leave: the 8259 inputs. */
    u8 intx_irq[4];
    /* Windows pci_host_assign takes addresses from. */
    struct pci_window io, mem32, mem64;
    /* What virtio functions on the bus do without: features (VIRTIO_F_*), MSI-X. */
    u64 virtio_hidden;
    bool no_msix;
};

/* NULL: no memory, or addresses are taken. The device belongs to the VM. */
struct device *pci_host_create(struct vm *vm, const struct pci_host_config *cfg);
/* What it was made with. */
const struct pci_host_config *pci_host_config(const struct device *host);
/* Puts a finished function on bus 0. -EEXIST: devfn is taken. f stays the caller's and must live as
 * long as the VM, or until pci_host_remove. VM lock held, or before vCPUs run. */
int pci_host_add(struct device *host, struct pci_function *f, u8 devfn);
/* Whether nothing is at devfn. VM lock held, or on the thread that adds functions. */
bool pci_host_is_free(const struct device *host, u8 devfn);
/* Takes it off again: its BARs leave the bus, its interrupts are gone, its DMA ends. VM lock held.
 */
void pci_host_remove(struct device *host, struct pci_function *f);
/* Does what firmware does: addresses for every BAR that has none, decoding on. -ENOSPC: a window is
 * full (the rest is done). */
int pci_host_assign(struct device *host);

#endif
