/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FUSE messages (linux/fuse.h) as they come from a guest. libfuse's low-level API takes them for
 * the kernel's and believes every length and string in them: nothing reaches it that was not
 * checked here.
 */
#ifndef TRIVISOR_BACKEND_SHARE_MESSAGE_H
#define TRIVISOR_BACKEND_SHARE_MESSAGE_H

#include <linux/fuse.h>

#include "core/backend.h"

/* The oldest protocol that is spoken: 7.31 is Linux 5.4, the first with virtio-fs. Layouts of
 * messages do not change from there on. */
#define SHARE_MINOR_MIN 31

/* FORGET, BATCH_FORGET and INTERRUPT get no reply. */
bool message_wants_reply(u32 opcode);

/*
 * Checks one whole request of len bytes, whose header says len too: 0, or what to answer: -ENOSYS
 * for an opcode that is not served, -EINVAL or -ENAMETOOLONG for a malformed one, -EPROTO for an
 * INIT of a protocol that is not spoken. m is aligned as malloc does.
 *
 * After 0: the fixed arguments of the opcode are there; its names are there, each ends with a NUL
 * within the message, and is one path component, neither . nor ..; counts and sizes in the
 * arguments are what follows them; no byte is left over.
 */
int message_check(const void *m, size_t len);

/* One component of a path, and one that stays in its directory: 0, -EINVAL, -ENAMETOOLONG. */
int message_check_name(const char *name, size_t len);

#endif
