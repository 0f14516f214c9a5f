/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gdb's remote stub: listens on a socket that is opened when the machine is built, serves one
 * debugger at a time. Whoever can connect controls the virtual machine. All calls on the thread of
 * the event loop.
 */
#ifndef TRIVISOR_DEBUG_GDB_GDB_H
#define TRIVISOR_DEBUG_GDB_GDB_H

#include <stdio.h>

#include "core/vm.h"

struct gdb_server;

/* Prints the registers of vCPU n for people. */
typedef void gdb_dump_fn(FILE *out, unsigned n, const struct x86_vcpu_state *s,
                         const struct guest_mem *m);

/*
 * Opens what a --gdb option names: [ADDRESS:]PORT or unix:PATH, followed by ,wait (the VM is paused
 * until a debugger lets it go) and ,arch=i386 or ,arch=x86-64 (the layout of registers shown). A
 * socket file nobody listens on is replaced. NULL with one line in err.
 */
struct gdb_server *gdb_server_open(struct vm *vm, const char *spec, gdb_dump_fn *dump, char *err,
                                   size_t err_size);
/* Says where it listens, with the port the host chose for port 0. */
void gdb_server_announce(const struct gdb_server *g);
/* The VM has stopped for good: tells a waiting debugger the program's exit status. */
void gdb_server_vm_ended(struct gdb_server *g, int status);
/* Before vm_destroy. NULL: nothing. */
void gdb_server_close(struct gdb_server *g);

#endif
