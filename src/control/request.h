/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of the control socket (docs/control.md): from a line of text to the line that answers
 * it. No I/O here.
 */
#ifndef TRIVISOR_CONTROL_REQUEST_H
#define TRIVISOR_CONTROL_REQUEST_H

#include <jansson.h>

#include "base/types.h"

/* Carries a command out and adds its results to reply (an object). 0, or -errno with one line in
 * err. */
typedef int control_fn(void *opaque, json_t *reply, char *err, size_t err_size);

struct control_command {
    const char *name; /* NULL ends a table */
    control_fn *run;
};

/*
 * Answers a request of n bytes (at most CONTROL_REQUEST_MAX, without its line feed; anything may be
 * in them). The reply with its line feed, to be freed, its length in *len; NULL: out of memory.
 */
char *control_answer(const struct control_command *commands, void *opaque, const char *line,
                     size_t n, size_t *len);

/* A reply to what is no request: {"ok": false, "error": text}. Likewise. */
char *control_refusal(const char *text, size_t *len);

#endif
