/* SPDX-License-Identifier: Apache-2.0 */
/* Between pc.c (the machine) and pc_devices.c (what is in it). */
#ifndef TRIVISOR_BOARD_PC_PRIV_H
#define TRIVISOR_BOARD_PC_PRIV_H

#include "backend/char/console.h"
#include "board/boot.h"
#include "board/cpio.h"
#include "board/diskboot.h"
#include "board/pc.h"
#include "board/pc_plug.h"
#include "config/config.h"
#include "core/backend.h"
#include "core/vm.h"

#define PC_PCI_LINES 4
#define PC_NETS_MAX 8
#define PC_PORTS_MAX 8

struct control_server;
struct gdb_server;
struct pc_disk;

struct pc {
    struct vm vm;
    struct vcpu vcpu[VM_VCPUS_MAX];
    struct host_ram ram;
    const struct config *cfg;
    struct pc_ends ends;
    struct diskboot diskboot; /* without -k */
    struct chardev *console;
    /* Port 0 of the virtio console, and the others, with their names. */
    struct chardev *hvc, *port[PC_PORTS_MAX];
    char port_name[PC_PORTS_MAX][65];
    unsigned nports;
    struct blockdev *seed;          /* of --cloud-init; NULL: none */
    struct chardev *command;        /* NULL: none is run */
    struct cpio extra_initrd;       /* what is added to the initrd, for a command */
    bool command_missed;            /* the guest ended before it */
    char *last_words;               /* the end of its console then */
    char *cmdline;                  /* the kernel's, when it is not the user's alone */
    struct gdb_server *gdb;         /* NULL: no --gdb */
    struct control_server *control; /* NULL: the machine has no name */
    bool paused;                    /* by a request there */
    u64 started;                    /* host monotonic ns */
    struct device *pm, *pci, *vmgenid, *hotplug;
    u8 next_slot; /* of PCI bus 0, for the next device of the user's; see create_pci */
    struct sharedev *share[CONFIG_LIST_MAX];
    char share_name[CONFIG_LIST_MAX][8];
    struct {
        struct netdev *dev;
        u8 mac[6];
        char name[8];
        u8 slot;
        const char *text; /* the option's value */
    } net[PC_NETS_MAX];
    unsigned nnets;
    unsigned net_options;  /* how many of --net they came from */
    struct sockdev *vsock; /* NULL: no --vsock */
    struct pc_disk *disk;  /* pc_disk.c */
    char *cwd;             /* where relative paths of options begin */
    unsigned ndisks;
    struct pc_plug plug[PC_PLUG_SLOTS];
    unsigned plugged_last;       /* the one that was filled last */
    struct x86_vcpu_state start; /* built by the loader; scratch afterwards */
    char chosen[512];            /* which engine, and why */
    char *err;                   /* while it is built */
    size_t err_size;
};

/* Opens the disks; makes their devices; closes them when no device uses them any more. 0, or -errno
 * with one line in pc->err. */
int pc_open_disks(struct pc *pc);
int pc_create_disks(struct pc *pc);
void pc_close_disks(struct pc *pc);
/* Of all disks, the plugged ones at the end: how many, and one of them. */
unsigned pc_disk_count(const struct pc *pc);
struct blockdev *pc_disk_dev(struct pc *pc, unsigned i);
/* The option's value of one that was there at the start, and its slot. */
const char *pc_disk_text(const struct pc *pc, unsigned i, u8 *slot);
/* Makes the device of a disk at devfn. name: outlives it. text: its option's value, which has been
 * checked. NULL: no memory or threads. */
struct device *pc_create_disk(struct pc *pc, struct blockdev *disk, const char *name,
                              const char *text, u8 devfn);

/*
 * How to open the console that is connected to `where`. The one on stdio gets the terminal and is
 * the one `trivisor console` reaches; without one on stdio it is the serial port's.
 */
struct console_config pc_console_config(struct pc *pc, const char *where);

/* The disk of --cloud-init, likewise. */
int pc_open_seed(struct pc *pc);
int pc_create_seed(struct pc *pc);
void pc_close_seed(struct pc *pc);

/* Makes the virtio devices of pc_virtio.c. 0, or -errno with one line in pc->err. */
int pc_create_virtio(struct pc *pc);
/* Starts the servers of shared directories: before there are threads, or memory of the guest's that
 * they would have a copy of. 0, or -errno with one line in pc->err. */
int pc_open_shares(struct pc *pc);
/* Closes those that no device has taken. */
void pc_close_shares(struct pc *pc);
/* Makes their devices. 0, or -errno with one line in pc->err. */
int pc_create_shares(struct pc *pc);
/* Opens the networks (pc_net.c). To be called before there is guest memory or another thread. 0, or
 * -errno with one line in pc->err. */
int pc_open_nets(struct pc *pc);
/* Makes their devices. Likewise. */
int pc_create_nets(struct pc *pc);
void pc_close_nets(struct pc *pc);
/* Makes the device of a network at devfn. name: outlives it. NULL: no memory. */
struct device *pc_create_net(struct pc *pc, struct netdev *net, const char *name, const u8 mac[6],
                             u8 devfn);
/* The socket device (pc_vsock.c): likewise, in the same order. */
int pc_open_vsock(struct pc *pc);
int pc_create_vsock(struct pc *pc);
void pc_close_vsock(struct pc *pc);
/* Closes what they were connected to; the devices are gone. */
void pc_close_virtio(struct pc *pc);

/* The sockets that pc_start_outputs and --gdb will make are removed when the machine ends. Before
 * there is guest memory or another thread. 0, or -errno with one line in pc->err. */
int pc_watch_sockets(struct pc *pc);
/* Opens what ports and sockets lead to on the host, when all else is there (pc_outputs.c); with
 * --check only looks at it. Likewise. */
int pc_start_outputs(struct pc *pc);

/* A command of the user's, when there is one (pc_command.c). What the kernel gets for it: 0, or
 * -errno with one line in pc->err. */
int pc_command_boot(struct pc *pc, struct boot *b);
/* Creates the port its input and output go through. Likewise. */
int pc_command_create(struct pc *pc, struct device *irq);
/* The program's exit status, from what the machine's end alone would give. */
int pc_command_status(struct pc *pc, int status);
/* Says why there is no status of the command's. */
void pc_command_report(const struct pc *pc);

/* Serves requests at ends.control_fd from then on, once the event loop runs (pc_control.c). 0, or
 * -errno with one line in pc->err. */
int pc_open_control(struct pc *pc);
/* A string for a reply: valid, and not too long. */
json_t *pc_control_text(const char *s);

/* Creates and wires the devices, opens the console. 0, or -errno with one line in pc->err. */
int pc_create_devices(struct pc *pc);

/* Confines this process as cfg says (pc_sandbox.c). 0; -errno, and a message was logged. */
int pc_confine(const struct config *cfg, const char *engine);

#endif
