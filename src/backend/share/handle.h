/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open files and directories of a share. The guest names them by numbers (fh), which are taken as
 * they come. Thread-safe.
 */
#ifndef TRIVISOR_BACKEND_SHARE_HANDLE_H
#define TRIVISOR_BACKEND_SHARE_HANDLE_H

#include <pthread.h>

#include "base/types.h"

enum handle_kind { HANDLE_FILE = 1, HANDLE_DIR };

struct handle {
    int fd;
    enum handle_kind kind;
    pthread_mutex_t seek; /* HANDLE_DIR: the descriptor has one position, readers bring theirs */
    /* handle.c's */
    u32 users, generation;
    bool closing;
};

struct handle_table;

/* max: open at once. NULL: no memory. */
struct handle_table *handles_create(unsigned max);
void handles_destroy(struct handle_table *t);
/* Closes all; none is held. */
void handles_clear(struct handle_table *t);

/* fd is owned from then on; its number in *fh. 0, or -ENFILE and fd is closed. */
int handle_add(struct handle_table *t, int fd, enum handle_kind kind, u64 *fh);
/* Holds the handle of that number and kind, open until handle_put. NULL: there is none. */
struct handle *handle_get(struct handle_table *t, u64 fh, enum handle_kind kind);
void handle_put(struct handle_table *t, struct handle *h);
/* Closes it, as soon as nobody holds it. */
void handle_close(struct handle_table *t, u64 fh, enum handle_kind kind);

#endif
