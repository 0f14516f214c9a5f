/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared directories (-v HOST:GUEST[:ro]): each is served by a process of its own, which can reach
 * nothing but the directory and its socket.
 */
#ifndef TRIVISOR_BACKEND_SHARE_SHARE_H
#define TRIVISOR_BACKEND_SHARE_SHARE_H

#include "core/backend.h"

#define SHARE_TAG_MAX 36 /* virtio 1.2 5.11.4 */

/* What is wrong with the text of an option, or NULL. */
const char *share_check(const char *spec);

/*
 * Opens the directory an option names and starts its server. NULL with one line in err. Call it
 * from the main thread, before other threads exist and before there is guest memory (see
 * host_helper_fork). confined: the server gives up all rights it does not need.
 */
struct sharedev *share_open(const char *spec, bool confined, char *err, size_t err_size);

#endif
