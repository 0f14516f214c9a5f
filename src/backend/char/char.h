/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Character backends: what a serial port can be plugged into. Each open function gives a chardev
 * (core/backend.h) or NULL with one line in err. A chardev that is given to a device is closed by
 * the board after the VM has stopped.
 */
#ifndef TRIVISOR_BACKEND_CHAR_CHAR_H
#define TRIVISOR_BACKEND_CHAR_CHAR_H

#include "core/backend.h"

struct vm;

/* Opens what a --serial option names: stdio, null or file:PATH. */
struct chardev *char_open(struct vm *vm, const char *spec, char *err, size_t err_size);

/* Standard input and output. A terminal is put in raw mode until close (or the end of the process)
 * and watched for the escape keys. One a process. */
struct chardev *char_stdio_open(struct vm *vm, char *err, size_t err_size);
/* Output goes nowhere, input never comes. */
struct chardev *char_null_open(char *err, size_t err_size);
/* Output goes to a file, created or overwritten; input never comes. */
struct chardev *char_file_open(struct vm *vm, const char *path, char *err, size_t err_size);

/* True while char_stdio has the terminal in raw mode: C-c is the guest's then. */
bool char_stdio_raw(void);
/* The process was stopped and goes on (SIGCONT): the shell has had the terminal meanwhile. */
void char_stdio_continued(void);

#endif
