/* SPDX-License-Identifier: Apache-2.0 */
/* The other end of a running machine's control socket (docs/control.md). */
#ifndef TRIVISOR_APP_CONTROL_CLIENT_H
#define TRIVISOR_APP_CONTROL_CLIENT_H

#include <jansson.h>
#include <sys/types.h>

#include "base/types.h"

/*
 * Sends one request and waits for its reply. What "ok" says is looked at: the reply of a command
 * that was carried out, to be given back with json_decref; or NULL with one printable line in err.
 * Nothing of the machine's is believed: the reply is bounded, and may be anything JSON can hold.
 */
json_t *control_ask(const char *name, const char *command, unsigned timeout_ms, char *err,
                    size_t err_size);

/*
 * The same with members of the request's own: a JSON object, and nfds descriptors that go with it.
 */
json_t *control_request(const char *name, const char *request, const int *fds, unsigned nfds,
                        unsigned timeout_ms, char *err, size_t err_size);

/* A descriptor of the machine's process (pidfd_open(2)), or -errno with one line in err; -ENOENT:
 * no such machine runs. */
int control_process(const char *name, char *err, size_t err_size);

/* Waits until the process has ended, for timeout_ms at most. Whether it has. */
bool control_ended(int process, u64 timeout_ms);

/* A string out of a reply, with what is not printable ASCII as question marks, in out; "-" for
 * anything but a string. Returns out. */
const char *control_text(const json_t *value, char *out, size_t size);

/* Prints a part of a reply on standard output; no escape sequence is in it. */
void control_print_json(const json_t *j);

#endif
