/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other end of the serial port over which the guest's agent runs a command (proto/agent.h):
 * joins it with standard input, output and error, or with a terminal. What the guest sends is
 * checked: at worst the user sees nonsense.
 */
#ifndef TRIVISOR_BACKEND_CHAR_COMMAND_H
#define TRIVISOR_BACKEND_CHAR_COMMAND_H

#include "core/backend.h"

struct vm;

/* Opens it, or returns NULL with one line in err. The machine is stopped with the command's status
 * when the command ends. terminal: NULL: standard input, output and error; otherwise a console
 * (console.h) that shows the command's terminal, closed with this one. */
struct chardev *command_open(struct vm *vm, struct chardev *terminal, char *err, size_t err_size);

/* Whether the command has ended, and its status. */
bool command_ended(const struct chardev *c, int *status);

/* Whether output of its could not be written, other than because its reader had enough. */
bool command_output_lost(const struct chardev *c);

#endif
