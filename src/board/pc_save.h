/* SPDX-License-Identifier: Apache-2.0 */
/* Saving a running machine, and building one from what was saved (docs/snapshot.md). */
#ifndef TRIVISOR_BOARD_PC_SAVE_H
#define TRIVISOR_BOARD_PC_SAVE_H

#include "base/types.h"
#include "core/engine.h"

struct pc;

/* Sections of the file, besides one for each device, by its name and instance. */
#define SAVE_MACHINE "machine"
#define SAVE_OPTIONS "options"
#define SAVE_CPU "cpu"
#define SAVE_VCPU "vcpu" /* instance: its number */
#define SAVE_DISKS "disks"
#define SAVE_PLUGGED "plugged"

#define SAVE_VERSION 1 /* of these sections */

struct pc_save_options {
    bool stop;     /* the machine ends when it is saved */
    bool compress; /* memory */
    /* Asked now and then, and when all is written: false ends the attempt, and the machine goes on.
     * NULL: true. */
    bool (*wanted)(void *opaque);
    void *opaque;
};

struct pc_save_result {
    u64 bytes;    /* of the file */
    u64 memory;   /* of the guest's memory that held something */
    u64 stood_ns; /* for how long the guest stood still */
};

/*
 * Writes the machine to fd, a regular file. Event loop, VM lock not held. When it fails the machine
 * goes on as before: -errno with one line in err.
 */
int pc_save(struct pc *pc, int fd, const struct pc_save_options *opt, struct pc_save_result *result,
            char *err, size_t err_size);

/*
 * Building a machine from pc->ends.saved, in this order; each 0, or -errno with one line in
 * pc->err. First of all: compares what checksums there is time for; after vm_create; when there is
 * RAM; when there are vCPUs and devices, which leaves the machine paused.
 */
int pc_restore_check(struct pc *pc);
/* An engine_fits_fn, of pc: whether the guest can have the CPU it had. What is wrong otherwise is
 * told by pc_restore_model. */
bool pc_restore_fits(void *pc, const struct engine_ops *ops, char *why, size_t why_size);
int pc_restore_model(struct pc *pc);
int pc_restore_memory(struct pc *pc);
int pc_restore_state(struct pc *pc);
/* Before the process is confined: starts comparing what was too much for pc_restore_memory. */
int pc_restore_verify(struct pc *pc);
/* Waits until that has ended; what it found wrong has stopped the machine. */
void pc_restore_verified(struct pc *pc);
/* All threads are there and wait: lets the machine go on. */
void pc_restore_resume(struct pc *pc);
void pc_restore_close(struct pc *pc);

#endif
