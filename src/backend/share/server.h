/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file server of one share: answers FUSE requests that come over a stream socket, with libfuse
 * for the protocol and operations of our own. Runs in a process of its own (share.c), or in a
 * test's thread.
 */
#ifndef TRIVISOR_BACKEND_SHARE_SERVER_H
#define TRIVISOR_BACKEND_SHARE_SERVER_H

#include "base/types.h"

struct server;

struct server_config {
    int socket;     /* owned by the caller */
    int dir;        /* O_PATH descriptor of the directory; the server's from then on */
    bool readonly;  /* nothing can be changed */
    bool chown_new; /* new files are given to the guest's user who made them: we are root */
    /* Bounds of what a guest makes it hold: files known, descriptors for them, open files. */
    unsigned nodes, node_fds, files;
};

/* NULL: -errno in *err. */
struct server *server_create(const struct server_config *cfg, int *err);
/* Serves until the other end closes; several threads may. */
void server_run(struct server *s);
/* No thread serves any more. */
void server_destroy(struct server *s);

struct node_table *server_nodes(struct server *s); /* for tests */

#endif
