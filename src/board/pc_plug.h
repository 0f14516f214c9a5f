/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks and networks that come and go while the machine runs. Each has a slot of its own on the PCI
 * bus, one of the last, whose registers are dev/pci/hotplug.h's. The process is confined by then:
 * what it cannot open comes over the control socket, opened by the client (board/plug.h).
 */
#ifndef TRIVISOR_BOARD_PC_PLUG_H
#define TRIVISOR_BOARD_PC_PLUG_H

#include "backend/block/block.h"
#include "board/layout.h"
#include "control/request.h"
#include "core/backend.h"

#define PC_PLUG_SLOTS LAYOUT_HOTPLUG_SLOTS

struct pc;
struct stream;

enum pc_plug_kind { PC_PLUG_NONE, PC_PLUG_DISK, PC_PLUG_NET };

struct pc_plug {
    enum pc_plug_kind kind; /* PC_PLUG_NONE: the slot is empty */
    char id[BLOCK_ID_MAX + 1];
    char *text; /* the option's value, as it is saved with the machine */
    struct blockdev *disk;
    struct netdev *net;
    u8 mac[6];
    struct device *dev; /* NULL: it is not made yet */
    bool asked;         /* the guest was asked to eject it */
};

/* The registers and the bus's slots. 0, or -errno. */
int pc_plug_create(struct pc *pc);
/* Closes what is behind the devices, which are gone. */
void pc_plug_close(struct pc *pc);

/* How many there are of a kind, and the nth of them, in the order of their slots. */
unsigned pc_plug_count(const struct pc *pc, enum pc_plug_kind kind);
struct pc_plug *pc_plug_nth(struct pc *pc, enum pc_plug_kind kind, unsigned nth);

/*
 * Requests, on the event loop, VM lock not held. text: the value of --disk with an absolute path,
 * or that of --net; fds: what the client has opened for it. The reply says what came of it. 0, or
 * -errno with one line in call->err, and nothing has changed.
 */
int pc_plug_disk(struct pc *pc, const char *text, const struct control_call *call);
int pc_plug_net(struct pc *pc, const char *text, const struct control_call *call);
/* Asks the guest to eject a device. Its end is seen in pc_plug_list. */
int pc_unplug(struct pc *pc, const char *id, const struct control_call *call);
/* All disks and networks of the machine, as docs/control.md has it. */
json_t *pc_plug_list(struct pc *pc);

/*
 * Of a saved machine. Before anything is opened: which devices were plugged (0, or -errno with one
 * line in pc->err); then what is behind them is opened, with the options at the ends of the lists.
 * index: of the network in the machine (net_request).
 */
int pc_plug_restore_list(struct pc *pc);
int pc_plug_restore_disk(struct pc *pc, struct pc_plug *p, const char *text);
int pc_plug_restore_net(struct pc *pc, struct pc_plug *p, const char *text, unsigned index);
/* Makes the devices, likewise. */
int pc_plug_restore_devices(struct pc *pc);

/* Saving: what was ejected is gone, the section that tells what was plugged. */
void pc_plug_settle(struct pc *pc);
void pc_plug_save(struct pc *pc, struct stream *out);

#endif
