/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Character backends: what a serial port can be plugged into. Each open function gives a chardev
 * (core/backend.h) or NULL with one line in err. Nothing of the host's is touched before its start.
 * A chardev that is given to a device is closed by the board after the VM has stopped.
 */
#ifndef TRIVISOR_BACKEND_CHAR_CHAR_H
#define TRIVISOR_BACKEND_CHAR_CHAR_H

#include "core/backend.h"

struct vm;

/* Opens what a --serial option names: stdio, null, file:PATH or log:PATH[,size=SIZE]. The rest is
 * console.c's. */
struct chardev *char_open(struct vm *vm, const char *spec, char *err, size_t err_size);

/* The same for what a --port option names: also unix:PATH. */
struct chardev *char_port_open(struct vm *vm, const char *spec, char *err, size_t err_size);

/* Listens at path, for one connection at a time. What is written is lost while there is none. */
struct chardev *char_socket_open(struct vm *vm, const char *path, char *err, size_t err_size);

/* Standard input and output, as they are. One a process. */
struct chardev *char_stdio_open(struct vm *vm, char *err, size_t err_size);
/* Output goes nowhere, input never comes. */
struct chardev *char_null_open(char *err, size_t err_size);
/* Output goes to a file, created or overwritten; input never comes. */
struct chardev *char_file_open(struct vm *vm, const char *path, char *err, size_t err_size);

/* Output goes to a file, created or overwritten, that never grows beyond size bytes: when it is
 * full its older half goes. Input never comes. */
struct chardev *char_log_open(struct vm *vm, const char *path, u64 size, char *err,
                              size_t err_size);

/* A new pseudo-terminal in raw mode, whose path is printed on standard output. The master's
 * descriptor (non-blocking) and *slave, or -errno with one line in err. */
int char_open_pty(int *slave, char *err, size_t err_size);

#endif
