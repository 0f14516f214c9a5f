/* SPDX-License-Identifier: Apache-2.0 */
/* The PC: an engine, memory, vCPUs and devices wired as one machine, with a kernel loaded. */
#ifndef TRIVISOR_BOARD_PC_H
#define TRIVISOR_BOARD_PC_H

#include "config/config.h"

/* Exit statuses of `trivisor run`. A test device's own status (isa-debug-exit) takes the rest. */
#define PC_EXIT_OK 0             /* the guest powered off, or reset itself; or C-a x */
#define PC_EXIT_TRIPLE_FAULT 122 /* a vCPU shut down */
#define PC_EXIT_PANIC 124        /* the guest reported a panic (pvpanic) */
#define PC_EXIT_FAILURE 125      /* bad options, files or host; the engine cannot go on */

struct pc;
struct pc_saved;

/* What a machine gets from the process around it. Descriptors: -1 is none; they are the machine's
 * from pc_create on. */
struct pc_ends {
    const char *name;    /* NULL: none */
    const char *version; /* the program's */
    int console_fd;      /* listens for `trivisor console` */
    int control_fd;      /* listens for requests (docs/control.md) */
    int terminal_fd;     /* to the process that holds the terminal (backend/char/console.h) */
    /* What the machine is to go on from (saved.h), instead of starting; the machine's, too. NULL:
     * it starts. */
    struct pc_saved *saved;
};

/* Builds the machine of *cfg (which must outlive it) and loads its kernel. NULL with one line in
 * err. */
struct pc *pc_create(const struct config *cfg, const struct pc_ends *ends, char *err,
                     size_t err_size);

/* Runs it until it stops, prints why where that is not obvious, and the counters and registers
 * asked for. Returns the program's exit status. */
int pc_run(struct pc *pc);

/* Ends a running machine from outside with an exit status; why may be NULL. Any thread. */
void pc_quit(struct pc *pc, int status, const char *why);

void pc_destroy(struct pc *pc);

#endif
