/* SPDX-License-Identifier: Apache-2.0 */
/* Unix-domain sockets of the host's that a machine listens at. */
#ifndef TRIVISOR_CORE_LISTEN_H
#define TRIVISOR_CORE_LISTEN_H

#include "base/types.h"

/*
 * A stream socket, non-blocking, that listens at path. A socket there that nobody listens at any
 * more is replaced; anything else is left as it is. private: only this user may connect. The
 * descriptor, or -errno with one line in err. Main thread.
 */
int host_listen(const char *path, bool private, int backlog, char *err, size_t err_size);
/* Whether it could; nothing is made or replaced. 0 or likewise. */
int host_listen_check(const char *path, char *err, size_t err_size);

/*
 * Starts the process that removes what host_listen makes from then on when the machine ends, which
 * the machine's own process may not when it is confined. Only what is still the socket that was
 * made is removed. Before there is guest memory or another thread. 0, or -errno with one line in
 * err.
 */
int host_listen_cleaner(bool confined, char *err, size_t err_size);
/* No more are made: the process gives up all it does not need. Nothing, if there is none. */
void host_listen_done(void);
/* They are removed when it returns. Nothing, if there is none. */
void host_listen_clean(void);

#endif
