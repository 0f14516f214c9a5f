/* SPDX-License-Identifier: Apache-2.0 */
/* The seccomp filter of a process (seccomp(2)), from tables of permitted system calls. */
#ifndef TRIVISOR_HOST_FILTER_H
#define TRIVISOR_HOST_FILTER_H

#include "core/sandbox.h"

/* Can the kernel filter system calls here? */
bool filter_available(void);
/* Installs spec's filter in all threads of the process, which must have no_new_privs. 0, or -errno
 * with one line in err. */
int filter_install(const struct sandbox_spec *spec, char *err, size_t err_size);

#endif
