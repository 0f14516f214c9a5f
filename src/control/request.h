/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of the control socket (docs/control.md): from a line of text to the line that answers
 * it. No I/O here.
 */
#ifndef TRIVISOR_CONTROL_REQUEST_H
#define TRIVISOR_CONTROL_REQUEST_H

#include <jansson.h>

#include "base/types.h"

struct control_call {
    const json_t *request; /* an object; its members are the command's, of their types */
    int fd;                /* the descriptor that came with it, or -1; closed afterwards */
    int client;            /* the connection it came by, or -1; not to be read or written */
    json_t *reply;         /* an object: results are added */
    char *err;
    size_t err_size;
};

/* Carries a command out. 0, or -errno with one line in err. */
typedef int control_fn(void *opaque, const struct control_call *call);

/* What a request may have besides command and id. */
struct control_member {
    const char *name; /* NULL ends a list */
    enum { CONTROL_BOOLEAN, CONTROL_STRING } type;
};

struct control_command {
    const char *name; /* NULL ends a table */
    control_fn *run;
    const struct control_member *members; /* NULL: none */
};

/*
 * Answers a request of n bytes (at most CONTROL_REQUEST_MAX, without its line feed; anything may be
 * in them). fd, client: see struct control_call; the caller's. The reply with its line feed, to be
 * freed, its length in *len; NULL: out of memory.
 */
char *control_answer(const struct control_command *commands, void *opaque, const char *line,
                     size_t n, int fd, int client, size_t *len);

/* Whether the other end of the connection a call came by was closed: nobody will see the reply. One
 * that only says nothing more (SHUT_WR) is there. */
bool control_client_gone(const struct control_call *call);

/* A reply to what is no request: {"ok": false, "error": text}. Likewise. */
char *control_refusal(const char *text, size_t *len);

#endif
