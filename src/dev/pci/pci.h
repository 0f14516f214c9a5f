/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCI functions (PCI Local Bus 3.0): configuration space, base address registers, capabilities,
 * INTx, MSI-X and bus-master DMA. A device embeds struct pci_function, fills in its ids, adds BARs
 * and capabilities, and then hands it to pci_host_add. All with the VM lock held, or before vCPUs
 * run.
 */
#ifndef TRIVISOR_DEV_PCI_PCI_H
#define TRIVISOR_DEV_PCI_PCI_H

#include "core/vm.h"

#define PCI_CONFIG_SIZE 256
#define PCI_BARS 6
#define PCI_DEVFN(slot, fn) ((u8)((slot) << 3 | (fn)))

/* Type 0 header (PCI 3.0 figure 6-1) */
#define PCI_VENDOR_ID 0x00
#define PCI_DEVICE_ID 0x02
#define PCI_COMMAND 0x04
#define PCI_STATUS 0x06
#define PCI_REVISION 0x08
#define PCI_CLASS 0x09 /* 3 bytes */
#define PCI_HEADER_TYPE 0x0e
#define PCI_BAR0 0x10
#define PCI_SUBSYSTEM_VENDOR_ID 0x2c
#define PCI_SUBSYSTEM_ID 0x2e
#define PCI_CAP_POINTER 0x34
#define PCI_INTERRUPT_LINE 0x3c
#define PCI_INTERRUPT_PIN 0x3d

#define PCI_COMMAND_IO 0x0001
#define PCI_COMMAND_MEMORY 0x0002
#define PCI_COMMAND_MASTER 0x0004
#define PCI_COMMAND_INTX_OFF 0x0400
#define PCI_STATUS_INTX 0x0008
#define PCI_STATUS_CAPS 0x0010

#define PCI_CAP_VENDOR 0x09
#define PCI_CAP_MSIX 0x11

#define PCI_MSIX_MAX 128

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64 };

#define PCI_UNMAPPED (~(u64)0)

struct pci_bar {
    enum pci_bar_kind kind;
    bool prefetchable;
    u64 size;
    const struct bus_ops *ops;
    void *dev;
    u64 at; /* where it is on the bus now, or PCI_UNMAPPED */
};

struct pci_msix_entry {
    u64 addr;
    u32 data, control; /* control bit 0: masked */
};

struct pci_function {
    struct vm *vm;
    struct msi_sink msi;
    struct irq_line intx;
    const char *name;
    u8 devfn;
    u8 config[PCI_CONFIG_SIZE];
    u8 writable[PCI_CONFIG_SIZE]; /* bits software may write */
    u8 clears[PCI_CONFIG_SIZE];   /* bits that a written one clears */
    struct pci_bar bar[PCI_BARS];
    u8 outdone; /* bit n: BAR n stays off the bus until all devices are loaded (pci_load) */
    u8 cap_end; /* first free byte behind the capabilities */
    bool intx_level;
    u32 complaints; /* logged so far */
    u8 msix_cap;    /* offset of the capability; 0: none */
    unsigned msix_n;
    struct pci_msix_entry msix[PCI_MSIX_MAX];
    u64 msix_pending[PCI_MSIX_MAX / 64];
    bool irqfds;                            /* vectors are sent by irqfd while they can be ... */
    struct irqfd *msix_irqfd[PCI_MSIX_MAX]; /* ... by this one; NULL: not, or not yet */
    /* Called after software wrote [off, off+size) of the configuration space; may be NULL. */
    void (*config_written)(struct pci_function *f, unsigned off, unsigned size);
    /* Called before software reads them; may be NULL. */
    void (*config_reading)(struct pci_function *f, unsigned off, unsigned size);
    /* Called after BAR n has come to a place on the bus or has left it (bar[n].at); may be NULL. */
    void (*bar_moved)(struct pci_function *f, unsigned n);
    /* The host bridge's: a BAR has left its place, which another one may be waiting for. */
    void (*room_made)(void *opaque);
    void *room_opaque;
};

/* Clears *f and fills in the header. class_code: class, subclass and interface, 24 bits. */
void pci_init(struct pci_function *f, struct vm *vm, const char *name, u16 vendor, u16 device,
              u32 class_code, u8 revision);
void pci_set_subsystem(struct pci_function *f, u16 vendor, u16 id);
/* BAR n (and n + 1 when 64 bits wide). size: a power of two, at least 16 (memory) or 4 (I/O). */
void pci_add_bar(struct pci_function *f, unsigned n, enum pci_bar_kind kind, u64 size,
                 const struct bus_ops *ops, void *dev);
/* A capability of len bytes, header included; returns its offset. Its contents are the caller's. */
u8 pci_add_cap(struct pci_function *f, u8 id, u8 len);
/* MSI-X with n vectors, whose table and pending bits fill BAR `bar` (4 KiB memory) alone. */
void pci_add_msix(struct pci_function *f, unsigned bar, unsigned n);
/* Vectors get irqfds (core/irq.h), as many as there are: each when it is first unmasked. */
void pci_use_irqfds(struct pci_function *f);
/* Lets software write the size bytes at off, which are a capability's. */
void pci_set_writable(struct pci_function *f, unsigned off, unsigned size);
/* Uses INTA. */
void pci_use_intx(struct pci_function *f);

/* Power-on values of what software may write; BARs leave the bus. */
void pci_reset(struct pci_function *f);

/*
 * What software and device have made of a function that was built the same way: configuration
 * space, MSI-X, INTx, and which BARs are on the bus. Part of the state of the device it belongs to,
 * with a version of its own. Loading is silent: the line's level is the host bridge's to load, and
 * config_written is not called. BARs move to their places; one that is still taken by a function
 * that was not loaded yet is mapped when that one moves. VM lock held. 0 or -EINVAL.
 */
void pci_save(const struct pci_function *f, struct stream *out);
int pci_load(struct pci_function *f, struct stream *in);
/* For the host bridge: all devices are loaded. */
void pci_loaded(struct pci_function *f);

void pci_set_intx(struct pci_function *f, bool level);
bool pci_msix_enabled(const struct pci_function *f);
/* Sends vector n, or notes it while it is masked. Ignored when MSI-X is off or n is none. */
void pci_msix_send(struct pci_function *f, unsigned n);

/* Host memory of [addr, addr+*len) for DMA, or of its first part: *len comes back as the length of
 * what lies in one piece. NULL: it is no RAM (ROM, for writes), or bus mastering is off. */
u8 *pci_dma_map(struct pci_function *f, u64 addr, u64 *len, bool write);

/* DMA; -EFAULT also when bus mastering is off. */
int pci_dma_read(struct pci_function *f, u64 addr, void *buf, u64 len);
int pci_dma_write(struct pci_function *f, u64 addr, const void *buf, u64 len);

/* What the host bridge does; off + size lie within 4 KiB, size is 1, 2 or 4. */
u32 pci_config_read(struct pci_function *f, unsigned off, unsigned size);
void pci_config_write(struct pci_function *f, unsigned off, unsigned size, u32 val);
/* For the host bridge: maps the BARs whose places were taken and are free now. */
void pci_retry_bars(struct pci_function *f);

u16 pci_get16(const struct pci_function *f, unsigned off);
u32 pci_get32(const struct pci_function *f, unsigned off);
void pci_put16(struct pci_function *f, unsigned off, u16 val);
void pci_put32(struct pci_function *f, unsigned off, u32 val);

#endif
