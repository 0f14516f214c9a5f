/* SPDX-License-Identifier: Apache-2.0 */
/* Landlock (landlock(7)): a process denies itself the file system, TCP and other processes. */
#ifndef TRIVISOR_HOST_LANDLOCK_H
#define TRIVISOR_HOST_LANDLOCK_H

#include "core/sandbox.h"

/* The kernel's ABI version; 0: no Landlock. */
int landlock_abi(void);
/* A ruleset for what spec asks, as far as the kernel knows the rights: a descriptor. -ENOSYS: no
 * Landlock; another -errno. */
int landlock_ruleset(const struct sandbox_spec *spec);
/* Puts the calling thread under it. It must have no_new_privs. Async-signal-safe. 0 or -errno. */
int landlock_restrict(int ruleset);

#endif
