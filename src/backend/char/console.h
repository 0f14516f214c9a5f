/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A serial port's console: what joins the port with everybody at its other end. There is the one
 * backend that --serial names, and any number of clients that come and go on sockets. All see the
 * same output, the last part of which is kept for those who come later; all may type.
 */
#ifndef TRIVISOR_BACKEND_CHAR_CONSOLE_H
#define TRIVISOR_BACKEND_CHAR_CONSOLE_H

#include "core/backend.h"

struct vm;

struct console_config {
    const char *serial; /* a --serial option's value, which outlives the console */
    const char *name;   /* the machine's, for clients; NULL: none */
    u64 log_size;       /* bytes of output kept */
    int listen_fd;      /* where `trivisor console` comes in (proto/console.h), or -1 */
    /* The socket of the process that started this machine and holds its terminal, or -1. Such a
     * machine ends when that process goes without having said CONSOLE_DETACH. Replaces stdio. */
    int terminal_fd;
};

/*
 * Opens the console, or returns NULL with one line in err. The descriptors belong to the console
 * from then on, also when it fails. Everything that needs a path is opened by its start: later it
 * works with nothing but its descriptors.
 */
struct chardev *console_open(struct vm *vm, const struct console_config *cfg, char *err,
                             size_t err_size);

/* The machine is built and will run: the process that holds its terminal is told, and if it is to
 * leave the machine alone then, it does. Once, before vCPUs run. */
void console_ready(struct chardev *c);

/* The last output, up to max bytes, from the beginning of a line if one is in it. Returns how many
 * are in out. */
size_t console_last_words(const struct chardev *c, char *out, size_t max);

#endif
