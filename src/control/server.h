/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket of a machine: clients send requests, one a line, and get a reply each, in
 * order. All calls on the thread of the event loop, which never waits for a client. Clients are the
 * user's own programs, but nothing depends on their manners: how many there are, what each may have
 * sent and not read, and what is done for one before it is another's turn are bounded.
 */
#ifndef TRIVISOR_CONTROL_SERVER_H
#define TRIVISOR_CONTROL_SERVER_H

#include "control/request.h"

/* Beyond these the one that has been silent for longest is dropped: it may be one that will never
 * say anything, and `kill` must get through. */
#define CONTROL_CLIENTS_MAX 8

struct control_server;

/*
 * Serves the commands at a listening stream socket, which belongs to the server from then on, also
 * when it fails. Draws what the JSON library wants of random numbers: to be called before the
 * process is confined. NULL with one line in err.
 */
struct control_server *control_server_open(int listen_fd, const struct control_command *commands,
                                           void *opaque, char *err, size_t err_size);

/* Closes the socket and its connections. The event loop does not run. NULL: nothing. */
void control_server_close(struct control_server *s);

#endif
