/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process that connects to sockets on the guest's behalf. The machine's own may not: a path to
 * any socket of the user's would do for breaking out. This one knows one directory and one prefix,
 * and is told nothing but numbers.
 */
#ifndef TRIVISOR_BACKEND_VSOCK_CONNECT_H
#define TRIVISOR_BACKEND_VSOCK_CONNECT_H

#include "base/types.h"

struct connect_request {
    u32 tag, port;
};

/* With the socket, non-blocking, when error is 0 (else -errno). */
struct connect_reply {
    u32 tag;
    int error;
};

/* Starts it for PATH_PORT. The socket (SEQPACKET) it is spoken with, or -errno with one line in
 * err. It ends when that is closed. */
int connect_start(const char *path, bool confined, char *err, size_t err_size);

#endif
