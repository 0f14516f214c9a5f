/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One debugger at the other end of a byte stream: the protocol without the socket. All calls on the
 * event loop's thread (before vm_run: the one that will call it), VM lock not held.
 */
#ifndef TRIVISOR_DEBUG_GDB_SESSION_H
#define TRIVISOR_DEBUG_GDB_SESSION_H

#include <stdio.h>

#include "core/vm.h"
#include "debug/gdb/regs.h"

struct gdb_session;

struct gdb_session_config {
    struct vm *vm;
    enum gdb_arch arch;
    /* Bytes for the debugger; all of them are taken. */
    void (*send)(void *opaque, const void *buf, size_t n);
    /* The debugger has said goodbye, or the session cannot go on: to be closed soon. */
    void (*done)(void *opaque);
    void *opaque;
    /* Prints the registers of vCPU n for people; for `monitor regs`. */
    void (*dump)(FILE *out, unsigned n, const struct x86_vcpu_state *s, const struct guest_mem *m);
};

/* Attaches to the VM, which is stopped from then on. NULL with one line in err. */
struct gdb_session *gdb_session_open(const struct gdb_session_config *c, char *err,
                                     size_t err_size);
/* Bytes from the debugger. */
void gdb_session_input(struct gdb_session *g, const u8 *buf, size_t n);
/* The VM has ended, with this exit status of the program: tells the debugger if it waits. */
void gdb_session_vm_ended(struct gdb_session *g, int status);
/* Detaches, if the debugger has not: the VM goes on without points. Frees g. */
void gdb_session_close(struct gdb_session *g);

#endif
