/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unix sockets of the host for a guest's stream sockets, as Firecracker has them. A program
 * connects to PATH, says "CONNECT PORT\n" and hears "OK PORT\n" when the guest has taken it;
 * PATH_PORT is where a program listens that the guest reaches as port PORT of CID 2.
 */
#ifndef TRIVISOR_BACKEND_VSOCK_VSOCK_H
#define TRIVISOR_BACKEND_VSOCK_VSOCK_H

#include "core/backend.h"

/* Streams of either side's making, and those among them that have not said what they want. */
#define VSOCK_STREAMS_MAX 256u
#define VSOCK_ASKING_MAX 64u

/*
 * Opens what a --vsock option names: PATH[,cid=N]. Starts the process that connects to PATH_PORT
 * (the device's start listens at PATH): to be called before there is guest memory or another
 * thread. NULL, with one line in err.
 */
struct sockdev *vsock_open(const char *spec, bool confined, char *err, size_t err_size);

/* What is wrong with such an option; NULL: nothing. */
const char *vsock_check(const char *spec);

/* The port of "CONNECT PORT\n" (n bytes, the last one the new line); false: it says something else.
 */
bool vsock_parse_connect(const char *line, size_t n, u32 *port);

#endif
