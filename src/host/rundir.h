/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory of the running machines: $XDG_RUNTIME_DIR/trivisor, or /run/trivisor for root, or
 * /tmp/trivisor-UID; nobody else's and mode 0700. A machine NAME has there
 *
 *   NAME.lock     locked (flock) by its process as long as it lives; holds the process id
 *   NAME.console  socket for `trivisor console` (proto/console.h)
 *   NAME.control  socket for requests to the machine (docs/control.md)
 *
 * The lock alone says whether a machine runs: the kernel drops it however the process ends. What is
 * left of one that is gone counts for nothing, and goes when the next machine starts or somebody
 * lists them.
 */
#ifndef TRIVISOR_HOST_RUNDIR_H
#define TRIVISOR_HOST_RUNDIR_H

#include <sys/types.h>

#include "base/types.h"

#define RUNDIR_NAME_MAX 64

/* Opens the directory, creating it when create. The descriptor, or -errno with one line in err;
 * -ENOENT: there is none. */
int rundir_open(bool create, char *err, size_t err_size);

/* Takes a name (checked: no slash) for this process until it ends. 0, or -errno with one line in
 * err; -EBUSY: a running machine has it. */
int rundir_claim(int dir, const char *name, char *err, size_t err_size);

enum rundir_socket {
    RUNDIR_CONSOLE, /* SOCK_SEQPACKET */
    RUNDIR_CONTROL, /* SOCK_STREAM */
};

/* A listening socket of the name, mode 0600, for the name's holder. The descriptor (non-blocking),
 * or -errno with one line in err. */
int rundir_listen(int dir, const char *name, enum rundir_socket which, char *err, size_t err_size);

/* Connects to one. The descriptor (blocking), or -errno: -ENOENT or -ECONNREFUSED when no such
 * machine runs, -EAGAIN when it has not answered for some seconds. */
int rundir_connect(int dir, const char *name, enum rundir_socket which);

/* A small file of ours that is no machine's: reads up to size bytes of it, or replaces it as a
 * whole. The length, 0, or -errno; -EPERM: it is not ours, or no file. */
int rundir_get(int dir, const char *file, void *buf, size_t size);
int rundir_put(int dir, const char *file, const void *buf, size_t size);

/* Calls fn (may be NULL) for every running machine, by name; removes what is left of others. 0 or
 * -errno. */
int rundir_list(int dir, void (*fn)(void *opaque, const char *name, pid_t pid), void *opaque);

#endif
