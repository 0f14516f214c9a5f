/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory that is in part a file's, in signal handlers. */
#ifndef TRIVISOR_HOST_RAM_H
#define TRIVISOR_HOST_RAM_H

#include <signal.h>

/*
 * When the signal says that such memory cannot be had any more (the file has become shorter, or the
 * host cannot read it: mmap(2), "SIGBUS") one line says so and the process ends with status 125.
 * Else it returns. Async-signal-safe.
 */
void host_ram_check_signal(int sig, const siginfo_t *info);

#endif
