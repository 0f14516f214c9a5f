/* SPDX-License-Identifier: Apache-2.0 */
/* The client's side of plugging a device into a running machine: the machine is confined, and opens
 * nothing. */
#ifndef TRIVISOR_BOARD_PLUG_H
#define TRIVISOR_BOARD_PLUG_H

#include "config/config.h"

#define PLUG_FDS_MAX 32

/* What the request is to have. */
struct plug_parts {
    const char *member; /* "disk" or "net" ... */
    char *value;        /* ... and its value; to be freed by plug_close */
    int fd[PLUG_FDS_MAX];
    unsigned nfds;
};

/* Opens what the one device of *cfg needs, which is all that config_parse_plug leaves. 0, or -errno
 * with one line in err. */
int plug_open(const struct config *cfg, struct plug_parts *p, char *err, size_t err_size);
/* The machine has copies of the descriptors by then, or has refused. */
void plug_close(struct plug_parts *p);

#endif
