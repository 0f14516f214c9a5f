/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio driver in C on a fake machine, written from virtio 1.2 alone: it finds the device in PCI
 * configuration space, negotiates, and drives split and packed rings. Device tests run over all its
 * modes. What a driver in good order may expect it asserts itself; what a bad one does, tests write
 * into registers and rings by hand.
 */
#ifndef TRIVISOR_TESTS_UNIT_DEV_VIRTIO_DRIVER_H
#define TRIVISOR_TESTS_UNIT_DEV_VIRTIO_DRIVER_H

#include "fake_host.h"

#define VD_QUEUES 20
#define VD_SIZE_MAX 1024

/* Common configuration (4.1.4.3) */
#define VD_DEVICE_FEATURE_SELECT 0
#define VD_DEVICE_FEATURE 4
#define VD_DRIVER_FEATURE_SELECT 8
#define VD_DRIVER_FEATURE 12
#define VD_CONFIG_VECTOR 16
#define VD_NUM_QUEUES 18
#define VD_STATUS 20
#define VD_GENERATION 21
#define VD_QUEUE_SELECT 22
#define VD_QUEUE_SIZE 24
#define VD_QUEUE_VECTOR 26
#define VD_QUEUE_ENABLE 28
#define VD_QUEUE_NOTIFY_OFF 30
#define VD_QUEUE_DESC 32
#define VD_QUEUE_DRIVER 40
#define VD_QUEUE_DEVICE 48

/* Device status (2.1) */
#define VD_ACKNOWLEDGE 1
#define VD_DRIVER 2
#define VD_DRIVER_OK 4
#define VD_FEATURES_OK 8
#define VD_NEEDS_RESET 64
#define VD_FAILED 128

/* Descriptor flags (2.7.5, 2.8.13) */
#define VD_DESC_NEXT 1
#define VD_DESC_WRITE 2
#define VD_DESC_INDIRECT 4
#define VD_DESC_AVAIL 0x80
#define VD_DESC_USED 0x8000

#define VD_F_INDIRECT (1ull << 28)
#define VD_F_EVENT_IDX (1ull << 29)
#define VD_F_VERSION_1 (1ull << 32)
#define VD_F_PACKED (1ull << 34)

/* Vectors that can have an irqfd. */
#define VD_IRQFDS 4

/* A machine with a PCI bus, where interrupts are counted. */
struct vd_board {
    struct machine *m;
    struct device *host;
    struct probe lines[4];
    unsigned msi[256]; /* messages by their data */
    bool any_msi;      /* messages that nobody asked for are no failure */
    struct {
        struct irqfd e;
        u64 addr;
        u32 data;
    } irqfd[VD_IRQFDS];         /* for devices that use them; e.fd: the number */
    unsigned nirqfds, by_irqfd; /* those taken, messages that came that way */
    u64 next_alloc;
    bool assigned;
};

struct vd_board *vd_board_new(void);
/* Destroys the machine with its devices. */
void vd_board_free(struct vd_board *b);
/* Guest memory, zeroed, never given back; align: a power of two. */
u64 vd_alloc(struct vd_board *b, u64 size, u64 align);
/* Where guest memory is. */
u8 *vd_ram(struct vd_board *b, u64 addr);
u32 vd_config(struct vd_board *b, u8 devfn, unsigned off, unsigned size);
void vd_config_write(struct vd_board *b, u8 devfn, unsigned off, unsigned size, u32 val);

/* How a driver goes about it. */
struct vd_mode {
    bool packed, event_idx, indirect, msix;
};
#define VD_MODES 16
struct vd_mode vd_mode(unsigned n);

struct vd_buf {
    u64 addr;
    u32 len;
};

struct vd_queue {
    u16 size; /* 0: not set up */
    u64 desc, driver, device;
    u64 notify_at;
    unsigned vector;
    u64 tables; /* indirect tables, one an id; 0: none yet */
    struct {
        u16 descs;
        bool busy;
    } by_id[VD_SIZE_MAX];
    u16 free; /* descriptors */
    /* split */
    u16 free_head, next[VD_SIZE_MAX];
    u16 avail_idx, used_idx, kicked_idx;
    /* packed */
    u16 avail_pos, used_pos, kicked_pos;
    bool avail_wrap, used_wrap, kicked_wrap;
    u32 added; /* descriptors since the last kick */
};

struct vdriver {
    struct vd_board *b;
    u8 devfn;
    struct vd_mode mode;
    u64 common, notify, isr, device; /* addresses of the structures; device: 0 when there is none */
    u32 device_len, notify_multiplier;
    u64 msix_table;
    unsigned msix_n, msix_cap;
    u64 offered, features;
    unsigned nqueues;
    unsigned seen_msi[256];
    unsigned intx_queue, intx_config; /* interrupts by line, not yet asked for */
    struct vd_queue q[VD_QUEUES];
};

/* Finds the function's capabilities, assigns addresses first if nobody did. */
void vd_attach(struct vdriver *d, struct vd_board *b, u8 devfn);
u32 vd_get(struct vdriver *d, unsigned off, unsigned size);
void vd_put(struct vdriver *d, unsigned off, unsigned size, u32 val);
void vd_put64(struct vdriver *d, unsigned off, u64 val);
/* Device configuration */
u32 vd_dev_get(struct vdriver *d, unsigned off, unsigned size);
void vd_dev_put(struct vdriver *d, unsigned off, unsigned size, u32 val);

/* Writes 0 to the status and forgets the queues; true when the device is reset at once. */
bool vd_reset(struct vdriver *d);
/* Reset, then up to FEATURES_OK (3.1.1) with what mode and `want` ask for; asserts that the device
 * took it. */
void vd_negotiate(struct vdriver *d, struct vd_mode mode, u64 want);
/* Sets up queue q in fresh memory, at most size entries. */
void vd_setup_queue(struct vdriver *d, unsigned q, u16 size);
void vd_driver_ok(struct vdriver *d);
/* All of it, with all the device's queues. */
void vd_start(struct vdriver *d, struct vd_mode mode, u64 want, u16 size);
u8 vd_status(struct vdriver *d);

/* Makes a chain available: nout pieces the device reads, then nin it writes. Its id, or -1: full.
 */
int vd_add(struct vdriver *d, unsigned q, const struct vd_buf *b, unsigned nout, unsigned nin);
/* Notifies the device if it wants to hear of what was added. Whether it did. */
bool vd_kick(struct vdriver *d, unsigned q);
void vd_notify(struct vdriver *d, unsigned q);
/* The next used chain: its id, or -1: none. len may be NULL. */
int vd_used(struct vdriver *d, unsigned q, u32 *len);
/* Asks for an interrupt after the n-th used chain from here (1: the next one), or for none (0).
 * With event indices the device is held to n; without, n is 1. Packed: the chains in between have
 * one descriptor each. */
void vd_want_interrupt(struct vdriver *d, unsigned q, unsigned n);
/* Interrupts for q, and for the configuration, since the last call. By line: 0 or 1, for all queues
 * together. */
unsigned vd_interrupts(struct vdriver *d, unsigned q);
unsigned vd_config_interrupts(struct vdriver *d);

/* Puts one descriptor into the table of a split ring or the ring of a packed one, or an indirect
 * table, at `table`. */
void vd_desc(struct vdriver *d, u64 table, unsigned i, u64 addr, u32 len, u16 flags,
             u16 next_or_id);
/* Split: makes `head` available without a look at anything. */
void vd_avail(struct vdriver *d, unsigned q, u16 head);
/* Packed: the flags that make a descriptor available at the next position. */
u16 vd_avail_flags(struct vdriver *d, unsigned q);

void vd_write16(struct vd_board *b, u64 addr, u16 val);
u16 vd_read16(struct vd_board *b, u64 addr);

#endif
