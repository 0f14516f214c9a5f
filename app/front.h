/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine in a process of its own, and this one as its terminal: so that the terminal can be left
 * while the machine goes on. Signals that would end us, and the exit status, pass through; when
 * this process is killed the machine ends too, unless it was left.
 */
#ifndef TRIVISOR_APP_FRONT_H
#define TRIVISOR_APP_FRONT_H

#include "base/types.h"

/* Runs machine(opaque, fd), whose result is the exit status, in a new process and session; fd is
 * its end of the console (proto/console.h). Returns the status to exit with. leave: return,
 * printing its name, as soon as it runs. confined: this process gives up its rights. No thread may
 * exist yet. */
int front_run(int (*machine)(void *opaque, int fd), void *opaque, bool leave, bool confined);

#endif
